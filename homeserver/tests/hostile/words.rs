//! Cases through the real listener, as bytes on a socket: which refusal each gets.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    fixture::{Client, TestServer, settings},
    listening::{Listening, parts},
};

/// Alice of a server behind a listener, and a room of hers.
struct Scene {
    listening: Listening,
    alice: Client,
    room_id: String,
}

impl Scene {
    async fn new() -> Self {
        let mut settings = settings();
        settings.federation.is_enabled = false;
        let server = TestServer::start_with(settings).await;
        let alice = server.user("alice").await;
        let room = alice.post("/_matrix/client/v3/createRoom", json!({})).await.ok();
        let room_id = room["room_id"].as_str().unwrap().to_owned();
        Self { listening: Listening::of(&server), alice, room_id }
    }

    /// The whole answer to a request of Alice's with these lines in its head.
    async fn ask(&self, line: &str, more: &str, body: &[u8]) -> String {
        let token = self.alice.token.as_deref().unwrap();
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\ncontent-length: {}\r\n{more}\r\n",
            body.len()
        );
        self.listening.say(&[head.as_bytes(), body].concat()).await
    }

    async fn refusal(&self, line: &str, body: &[u8]) -> (u16, String) {
        refusal(&self.ask(line, "", body).await)
    }

    /// Send a message with this content.
    async fn message(&self, content: &[u8]) -> (u16, String) {
        self.refusal(&format!("PUT /_matrix/client/v3/rooms/{}/send/m.room.message/1", self.room_id), content).await
    }
}

fn refusal(answer: &str) -> (u16, String) {
    let (status, body) = parts(answer);
    (status, body["errcode"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_content_that_servers_could_read_differently_never_becomes_an_event() {
    let scene = Scene::new().await;
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
    let cases: [(&str, Vec<u8>, &str); 17] = [
        ("a fraction", br#"{"a": 1.5}"#.to_vec(), "M_BAD_JSON"),
        ("an exponent", br#"{"a": 1e3}"#.to_vec(), "M_BAD_JSON"),
        ("an integer too large", br#"{"a": 9007199254740992}"#.to_vec(), "M_BAD_JSON"),
        ("an integer too small", br#"{"a": -9007199254740992}"#.to_vec(), "M_BAD_JSON"),
        ("an integer beyond all", br#"{"a": 123456789012345678901234567890}"#.to_vec(), "M_BAD_JSON"),
        ("a key given twice", br#"{"a": 1, "a": 2}"#.to_vec(), "M_BAD_JSON"),
        ("a key given twice inside", br#"{"b": [{"a": 1, "a": 2}]}"#.to_vec(), "M_BAD_JSON"),
        ("half a surrogate pair", br#"{"a": "\ud800"}"#.to_vec(), "M_BAD_JSON"),
        ("bytes that are no text", b"{\"a\": \"\xff\xfe\"}".to_vec(), "M_NOT_JSON"),
        ("NaN", br#"{"a": NaN}"#.to_vec(), "M_NOT_JSON"),
        ("a line break in a text", b"{\"a\": \"\n\"}".to_vec(), "M_NOT_JSON"),
        ("a list", b"[]".to_vec(), "M_BAD_JSON"),
        ("a text", b"\"{}\"".to_vec(), "M_BAD_JSON"),
        ("null", b"null".to_vec(), "M_BAD_JSON"),
        ("something after the end", b"{} {}".to_vec(), "M_NOT_JSON"),
        ("depths nobody reads", nested(110), "M_BAD_JSON"),
        ("depths that break readers", nested(10_000), "M_BAD_JSON"),
    ];

    for (what, content, code) in cases {
        let refusal = scene.message(&content).await;

        assert_eq!(refusal, (400, code.to_owned()), "{what}");
    }
    assert_eq!(scene.message(br#"{"msgtype": "m.text", "body": "\u0000 is a character"}"#).await.0, 200);
}

#[tokio::test]
async fn an_event_a_byte_too_large_is_refused_as_such() {
    let scene = Scene::new().await;
    let content = |bytes: usize| json!({ "body": "x".repeat(bytes) }).to_string();

    assert_eq!(scene.message(content(64_000).as_bytes()).await.0, 200);
    assert_eq!(scene.message(content(65_536).as_bytes()).await, (413, "M_TOO_LARGE".to_owned()));
    let state = format!("PUT /_matrix/client/v3/rooms/{}/state/m.room.topic/", scene.room_id);
    assert_eq!(scene.refusal(&state, content(65_536).as_bytes()).await, (413, "M_TOO_LARGE".to_owned()));
    let long = format!("PUT /_matrix/client/v3/rooms/{}/send/{}/2", scene.room_id, "x".repeat(256));
    assert_eq!(scene.refusal(&long, b"{}").await.0, 413);
}

#[tokio::test]
async fn what_is_not_served_is_unrecognized() {
    let scene = Scene::new().await;
    let cases = [
        ("GET /_matrix/client/v3/nowhere", 404),
        ("GET /_matrix/client/v99/sync", 404),
        ("GET /_matrix/client/v3/sync/", 404),
        ("GET //_matrix/client/v3/sync", 404),
        ("GET /_matrix/client/v3/../v3/sync", 404),
        ("GET /_matrix/media/v3/download/example.org/../../../etc/passwd", 404),
        ("GET /etc/passwd", 404),
        ("DELETE /_matrix/client/v3/sync", 405),
        ("POST /_matrix/client/versions", 405),
        ("PATCH /_matrix/client/v3/createRoom", 405),
        ("BREW /_matrix/client/v3/createRoom", 405),
        ("TRACE /_matrix/client/v3/createRoom", 405),
    ];

    for (line, status) in cases {
        assert_eq!(scene.refusal(line, b"").await, (status, "M_UNRECOGNIZED".to_owned()), "{line}");
    }
}

#[tokio::test]
async fn a_media_id_is_never_a_path() {
    let scene = Scene::new().await;
    for media_id in
        ["..", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "%2e%2e%2fmedia.key", "a%00b", "..%5c..%5cx", "%ff", "."]
    {
        for path in
            ["/_matrix/client/v1/media/download", "/_matrix/media/v3/download", "/_matrix/client/v1/media/thumbnail"]
        {
            let line = format!("GET {path}/example.org/{media_id}?width=32&height=32");

            let (status, code) = scene.refusal(&line, b"").await;

            assert!(matches!(status, 400 | 404) && code.starts_with("M_"), "{line}: {status} {code}");
        }
    }
    for server in ["..", "%2f", "a%2f..%2fb", "%00", "localhost%2fetc"] {
        let line = format!("GET /_matrix/client/v1/media/download/{server}/x");

        let (status, code) = scene.refusal(&line, b"").await;

        // 403: there is no federation here, or it would be asked for `..`, which is nobody's name.
        assert!(matches!(status, 400 | 403 | 404) && code.starts_with("M_"), "{line}: {status} {code}");
    }
}

#[tokio::test]
async fn a_token_that_is_none_is_told_from_no_token() {
    let scene = Scene::new().await;
    let large = format!("authorization: Bearer {}", "a".repeat(60_000));
    let cases: [(&[u8], &str); 9] = [
        (b"", "M_MISSING_TOKEN"),
        (b"authorization:", "M_MISSING_TOKEN"),
        (b"authorization: Basic YTpi", "M_MISSING_TOKEN"),
        (b"authorization: Bearer", "M_MISSING_TOKEN"),
        (b"authorization: Bearer x", "M_UNKNOWN_TOKEN"),
        (b"authorization: Bearer \x7b\x22a\x22\x3a1\x7d", "M_UNKNOWN_TOKEN"),
        (b"authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJAYWxpY2U6ZXhhbXBsZS5vcmcifQ.", "M_UNKNOWN_TOKEN"),
        (b"authorization: Bearer \xff\xfe", "M_MISSING_TOKEN"),
        (large.as_bytes(), "M_UNKNOWN_TOKEN"),
    ];

    for (header, code) in cases {
        let mut request =
            b"GET /_matrix/client/v3/account/whoami HTTP/1.1\r\nhost: x\r\nconnection: close\r\n".to_vec();
        request.extend([header, if header.is_empty() { b"" } else { b"\r\n" }, b"\r\n"].concat());

        let answer = scene.listening.say(&request).await;

        assert_eq!(refusal(&answer), (401, code.to_owned()), "{}", String::from_utf8_lossy(header));
    }
}

#[tokio::test]
async fn absurd_queries_are_refused_or_passed_over() {
    let scene = Scene::new().await;
    let messages = format!("GET /_matrix/client/v3/rooms/{}/messages", scene.room_id);
    let long = "a=b&".repeat(10_000);
    let cases = [
        (format!("{messages}?dir=sideways"), 400),
        (format!("{messages}?dir=b&limit=-1"), 400),
        (format!("{messages}?dir=b&limit=99999999999999999999"), 400),
        (format!("{messages}?dir=b&limit=ten"), 400),
        (format!("{messages}?dir=b&from=%00"), 400),
        (format!("{messages}?dir=b&filter=%7B"), 400),
        ("GET /_matrix/client/v3/sync?timeout=-1".to_owned(), 400),
        ("GET /_matrix/client/v3/sync?since=s%ff".to_owned(), 400),
        (format!("{messages}?dir=b&limit=0"), 200),
        (format!("{messages}?dir=b&limit=4294967296"), 200),
        (format!("{messages}?dir=b&{long}"), 200),
        ("GET /_matrix/client/versions?%%%&&&===?".to_owned(), 200),
    ];

    for (line, status) in cases {
        let (answered, code) = scene.refusal(&line, b"").await;

        assert_eq!(answered, status, "{line}: {code}");
        assert_eq!(code.starts_with("M_"), status != 200, "{line}: {code}");
    }
}

#[tokio::test]
async fn the_kind_of_body_is_told_by_its_content() {
    let scene = Scene::new().await;
    let line = "POST /_matrix/client/v3/user_directory/search";
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "nonsense"] {
        let answer = scene.ask(line, &format!("content-type: {kind}\r\n"), br#"{"search_term": "a"}"#).await;

        assert_eq!(parts(&answer).0, 200, "{kind}: {answer}");
    }
    for body in [&b"<xml/>"[..], b"search_term=a", b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"{'search_term': 'a'}"] {
        assert_eq!(
            scene.refusal(line, body).await,
            (400, "M_NOT_JSON".to_owned()),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
}

#[tokio::test]
async fn a_chunked_body_has_no_more_rights_than_another() {
    let scene = Scene::new().await;
    let head =
        "POST /_matrix/client/v3/login HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, " ".repeat(1 << 16));
    let chunks = homeserver::routes::limits::BODY_BYTES_MAX / (1 << 16) + 1;

    let endless = scene.listening.say(format!("{head}{}", chunk.repeat(chunks)).as_bytes()).await;
    assert_eq!(refusal(&endless), (413, "M_TOO_LARGE".to_owned()));
    let stopped = scene.listening.say(format!("{head}4\r\n{{\"a\"\r\n").as_bytes()).await;
    assert_eq!(refusal(&stopped), (408, "M_UNKNOWN".to_owned()));
    for chunks in ["ffffffffffffffff\r\nx", "zz\r\n{}", "-1\r\n{}", "fffffffffffffffffff\r\nx"] {
        let (status, _) = parts(&scene.listening.say(format!("{head}{chunks}\r\n0\r\n\r\n").as_bytes()).await);
        assert!(matches!(status, 400 | 408), "{chunks}: {status}");
    }
}

#[tokio::test]
async fn heads_that_contradict_themselves_get_no_further() {
    let scene = Scene::new().await;
    let heads = [
        "content-length: -1",
        "content-length: 1x",
        "content-length: 99999999999999999999999",
        "content-length: 2\r\ncontent-length: 3",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, identity",
        "bad header",
        "x\0: y",
        ": y",
        "x: a\0b",
    ];

    for head in heads {
        let request =
            format!("POST /_matrix/client/v3/login HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n\r\n{{}}");
        let answer = scene.listening.say(request.as_bytes()).await;

        assert!((400..500).contains(&parts(&answer).0), "{head}: {answer}");
    }
    for line in
        ["GET", "GET /", "GET / HTTP/9.9", "GET http:// HTTP/1.1", "\0", "GET /\u{7f} HTTP/1.1", "get / HTTP/1.1 x"]
    {
        let answer = scene.listening.say(format!("{line}\r\nhost: x\r\n\r\n").as_bytes()).await;

        assert!(!answer.starts_with("HTTP/1.1 5") && !answer.starts_with("HTTP/1.1 2"), "{line}: {answer}");
    }
}

#[tokio::test]
async fn an_upload_beyond_the_limit_is_cut_off_whether_or_not_it_says_so() {
    let mut settings = settings();
    settings.media.upload_bytes_max = 100_000;
    let server = TestServer::start_with(settings).await;
    let alice = server.user("alice").await;
    let listening = Listening::of(&server);
    let head = format!(
        "POST /_matrix/media/v3/upload HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n",
        alice.token.as_deref().unwrap()
    );

    let said = listening.say(format!("{head}content-length: 99999999999\r\n\r\nx").as_bytes()).await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    let unsaid =
        listening.say(format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n").as_bytes()).await;
    let broken = listening.say(format!("{head}content-length: 50\r\n\r\nx").as_bytes()).await;

    assert_eq!(refusal(&said), (413, "M_TOO_LARGE".to_owned()));
    assert_eq!(refusal(&unsaid), (413, "M_TOO_LARGE".to_owned()));
    assert_eq!(refusal(&broken), (400, "M_UNKNOWN".to_owned()));
    assert_eq!(files(&server.media_folder()), 0, "nothing of them is kept");
}

/// How many files there are in a folder and those inside it.
fn files(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[tokio::test]
async fn head_is_answered_like_get_without_a_body() {
    let scene = Scene::new().await;

    let answer = scene.ask("HEAD /_matrix/client/versions", "", b"").await;
    let refused = scene.ask("HEAD /_matrix/client/v3/nowhere", "", b"").await;

    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(refused.starts_with("HTTP/1.1 404") && refused.ends_with("\r\n\r\n"), "{refused}");
}

#[tokio::test]
async fn preflights_are_answered_everywhere_and_refusals_may_be_read_by_pages() {
    let scene = Scene::new().await;
    for path in [
        "/_matrix/client/v3/login",
        "/_matrix/media/v3/upload",
        "/_matrix/client/v3/nowhere",
        "/.well-known/matrix/client",
    ] {
        let answer = scene
            .listening
            .say(format!("OPTIONS {path} HTTP/1.1\r\nhost: x\r\norigin: null\r\naccess-control-request-method: PUT\r\nconnection: close\r\n\r\n").as_bytes())
            .await;

        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("access-control-allow-origin: *"),
            "{path}: {answer}"
        );
    }
    for line in
        ["GET /_matrix/client/v3/nowhere", "DELETE /_matrix/client/v3/sync", "POST /_matrix/client/v3/createRoom"]
    {
        let answer = scene.ask(line, "origin: https://app.example\r\n", b"{").await;

        assert!(
            answer.starts_with("HTTP/1.1 4") && answer.contains("access-control-allow-origin: *"),
            "{line}: {answer}"
        );
    }
}

#[tokio::test]
async fn what_follows_a_refused_body_is_not_taken_for_a_request() {
    let scene = Scene::new().await;
    let smuggled = "GET /_matrix/client/versions HTTP/1.1\r\nhost: x\r\n\r\n";
    let body = format!("{{{smuggled}");
    let head = format!("POST /_matrix/client/v3/login HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut connection = scene.listening.connect().await;

    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();

    let mut answers = String::new();
    connection.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert_eq!(refusal(&answers), (400, "M_NOT_JSON".to_owned()));
}
