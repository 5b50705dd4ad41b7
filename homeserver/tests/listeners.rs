//! Listeners under what strangers send: raw sockets against the real layers and the real router.

mod fixture;
mod listening;

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, routing::get};
use homeserver::serve::{self, Settings, Stopping, tls};
use listening::{Listening, parts};
use ruma::server_name;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};

#[tokio::test]
async fn a_body_that_is_not_json_is_refused_in_the_specifications_words() {
    let server = Listening::homeserver().await;

    for body in [b"{".as_slice(), b"\xff\xfe{}", b"nonsense", b"{\"a\": \xc3\x28}"] {
        let (status, answer) = server.post("/_matrix/client/v3/login", body).await;

        assert_eq!((status, &answer["errcode"]), (400, &"M_NOT_JSON".into()), "{}", String::from_utf8_lossy(body));
    }
}

#[tokio::test]
async fn deep_nesting_is_refused_and_not_followed() {
    let server = Listening::homeserver().await;
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let inside = format!("{{\"type\": \"m.login.password\", \"identifier\": {deep}}}");

    for body in [deep, inside] {
        let (status, answer) = server.post("/_matrix/client/v3/login", body.as_bytes()).await;

        let code = answer["errcode"].as_str();
        assert!(status == 400 && matches!(code, Some("M_NOT_JSON" | "M_BAD_JSON")), "{status} {answer}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_too_large() {
    let server = Listening::homeserver().await;
    let body = vec![b' '; homeserver::routes::limits::BODY_BYTES_MAX + 1];

    let (status, answer) = server.post("/_matrix/client/v3/login", &body).await;

    assert_eq!((status, &answer["errcode"]), (413, &"M_TOO_LARGE".into()));
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let server = Listening::homeserver().await;

    let answer =
        server.say(b"POST /_matrix/client/v3/login HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{\"type\"").await;

    let (status, body) = parts(&answer);
    assert_eq!((status, &body["errcode"]), (408, &"M_UNKNOWN".into()), "{answer}");
}

#[tokio::test]
async fn a_head_that_stops_coming_is_cut_off() {
    let server = Listening::homeserver().await;

    let answer = server.say(b"GET /_matrix/client/versions HTTP/1.1\r\nhost: x\r\nx-slow: ").await;

    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let server = Listening::homeserver().await;
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "a".repeat(200_000));
    let many: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();

    assert_eq!(parts(&server.say(large.as_bytes()).await).0, 431);
    assert_eq!(parts(&server.say(format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).await).0, 431);
}

#[tokio::test]
async fn what_is_not_http_gets_no_further() {
    let server = Listening::homeserver().await;

    let answer = server.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls hello on the plain port").await;

    assert_eq!(parts(&answer).0, 400, "{answer}");
}

#[tokio::test]
async fn a_path_with_broken_escapes_is_refused_without_harm() {
    let server = Listening::homeserver().await;

    for path in ["/_matrix/client/v3/profile/%ff%fe", "/_matrix/client/v3/profile/%", "/_matrix/client/v3/profile/%00"]
    {
        let answer =
            server.say(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;

        let (status, body) = parts(&answer);
        assert!((400..500).contains(&status) && body["errcode"].is_string(), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_panic_is_answered_with_500_and_the_server_goes_on() {
    async fn panicking() {
        panic!("this is on purpose");
    }
    let router = Router::new().route("/panic", get(panicking)).route("/", get(|| async { "still here" }));
    let server = Listening::with(router, &Settings::default());

    let answer = server.say(b"GET /panic HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let after = server.say(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;

    let (status, body) = parts(&answer);
    assert_eq!((status, &body["errcode"]), (500, &"M_UNKNOWN".into()));
    assert!(!answer.contains("on purpose") && answer.contains("access-control-allow-origin: *"), "{answer}");
    assert!(after.contains("still here"));
}

#[tokio::test]
async fn browsers_may_ask_from_any_page() {
    let server = Listening::homeserver().await;

    let preflight = server
        .say(b"OPTIONS /_matrix/client/v3/sync HTTP/1.1\r\nhost: x\r\norigin: https://app.example.org\r\naccess-control-request-method: GET\r\nconnection: close\r\n\r\n")
        .await;
    let refusal =
        server.say(b"GET /_matrix/client/v3/account/whoami HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;

    assert_eq!(parts(&preflight).0, 200);
    assert!(preflight.contains("access-control-allow-origin: *"), "{preflight}");
    assert!(
        preflight.contains("access-control-allow-headers: x-requested-with,content-type,authorization"),
        "{preflight}"
    );
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(preflight.contains(method), "{preflight}");
    }
    assert_eq!(parts(&refusal).1["errcode"], "M_MISSING_TOKEN");
    assert!(refusal.contains("access-control-allow-origin: *") && refusal.contains("server: VoiceChat/"), "{refusal}");
}

#[tokio::test]
async fn long_texts_are_compressed_for_those_who_ask() {
    let router =
        Router::new().route("/long", get(|| async { "a".repeat(10_000) })).route("/short", get(|| async { "a" }));
    let server = Listening::with(router, &Settings::default());
    let ask =
        |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n");

    assert!(server.say(ask("/long").as_bytes()).await.contains("content-encoding: gzip"));
    assert!(!server.say(ask("/short").as_bytes()).await.contains("content-encoding"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let router = Router::new().route("/", get(|| async { "served" }));
    let server = Listening::with(router, &Settings { connections_max: 1, ..Settings::default() });
    let mut first = server.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 12];
    first.read_exact(&mut answer).await.unwrap();

    let refused = server.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;

    assert_eq!(answer, b"HTTP/1.1 200");
    assert_eq!(refused, "");
}

#[tokio::test]
async fn stopping_ends_a_long_poll_with_words_the_client_understands() {
    let asked = Arc::new(Notify::new());
    let heard = Arc::clone(&asked);
    let forever = get(move || async move {
        heard.notify_one();
        std::future::pending::<()>().await;
    });
    let server = Listening::with(Router::new().route("/wait", forever), &Settings::default());
    let mut connection = server.connect().await;
    connection.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    asked.notified().await;

    server.stopping.begin();
    server.listener.stop().await;

    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert_eq!(parts(&answer).0, 503, "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test]
async fn the_self_made_certificate_is_kept_and_serves_tls_to_whoever_trusts_it() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let files = tls::self_made(folder.path(), server_name!("localhost:8448")).unwrap();
    let certificate = std::fs::read(&files.certificate).unwrap();
    let socket = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let config = tls::load(&files).await.unwrap();
    let router = Router::new().route("/", get(|| async { "secret" }));
    let listener = serve::serve(socket, Some(config), router, &Settings::default(), &Stopping::default()).unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&certificate).unwrap()])
        .no_proxy()
        .build()
        .unwrap();

    let answer = client.get(format!("https://localhost:{}/", listener.address.port())).send().await.unwrap();

    assert_eq!(answer.version(), axum::http::Version::HTTP_2);
    assert_eq!(answer.text().await.unwrap(), "secret");
    assert_eq!(tls::self_made(folder.path(), server_name!("localhost:8448")).unwrap(), files);
    assert_eq!(std::fs::read(&files.certificate).unwrap(), certificate);
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_may_read_the_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();

    let files = tls::self_made(folder.path(), server_name!("[2001:db8::1]:8448")).unwrap();

    assert_eq!(std::fs::metadata(files.key).unwrap().permissions().mode() & 0o777, 0o600);
}
