//! What is said without asking who you are: versions, well-known documents, health, the root page, the first administrator's link.

mod fixture;

use axum::http::Method;
use fixture::{TestServer, settings};
use ruma::owned_server_name;
use serde_json::json;

#[tokio::test]
async fn versions_reach_from_the_first_to_1_19() {
    let server = TestServer::start().await;

    let versions = server.anonymous().get("/_matrix/client/versions").await.ok();

    let list = versions["versions"].as_array().unwrap();
    for version in ["r0.6.1", "v1.1", "v1.11", "v1.19"] {
        assert!(list.contains(&version.into()), "{version} is missing");
    }
    assert!(!list.contains(&"v1.20".into()));
    assert_eq!(versions["unstable_features"]["org.matrix.msc4222"], true);
}

#[tokio::test]
async fn well_known_documents_say_what_the_operator_said() {
    let mut settings = settings();
    settings.well_known.client_url = "https://matrix.example.org".to_owned();
    settings.well_known.server = Some(owned_server_name!("matrix.example.org:443"));
    settings.well_known.support_email = Some("help@example.org".to_owned());
    settings.well_known.livekit_urls = vec!["https://livekit.example.org".to_owned()];
    let stranger = TestServer::start_with(settings).await.anonymous();

    let client = stranger.get("/.well-known/matrix/client").await.ok();
    let server = stranger.get("/.well-known/matrix/server").await.ok();
    let support = stranger.get("/.well-known/matrix/support").await.ok();

    let foci = json!([{ "type": "livekit", "livekit_service_url": "https://livekit.example.org" }]);
    assert_eq!(
        client,
        json!({ "m.homeserver": { "base_url": "https://matrix.example.org" }, "org.matrix.msc4143.rtc_foci": foci })
    );
    assert_eq!(server, json!({ "m.server": "matrix.example.org:443" }));
    assert_eq!(support, json!({ "contacts": [{ "email_address": "help@example.org", "role": "m.role.admin" }] }));
}

#[tokio::test]
async fn what_the_operator_did_not_say_is_not_found() {
    let stranger = TestServer::start().await.anonymous();

    for path in ["/.well-known/matrix/server", "/.well-known/matrix/support"] {
        assert_eq!(stranger.get(path).await.refusal(), (404, "M_NOT_FOUND".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn health_and_root_answer_without_more() {
    let stranger = TestServer::start().await.anonymous();

    assert_eq!(stranger.get("/health").await.body, b"OK");
    assert!(String::from_utf8(stranger.get("/").await.body).unwrap().contains("http://localhost:8008"));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_unrecognised() {
    let stranger = TestServer::start().await.anonymous();

    assert_eq!(stranger.get("/_matrix/client/v3/nothing").await.refusal(), (404, "M_UNRECOGNIZED".to_owned()));
    assert_eq!(
        stranger.request(Method::PATCH, "/_matrix/client/versions", None).await.refusal(),
        (405, "M_UNRECOGNIZED".to_owned())
    );
}

fn form(token: &str, username: &str, password: &str) -> Option<Vec<u8>> {
    let pairs = [("token", token), ("username", username), ("password", password), ("again", password)];
    Some(url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish().into_bytes())
}

#[tokio::test]
async fn the_welcome_link_makes_one_administrator_and_then_nothing() {
    let server = TestServer::start().await;
    let stranger = server.anonymous();
    let token = server.services.welcome.token().await.unwrap().unwrap();
    let link = format!("/voicechat/welcome?token={token}");

    let page = stranger.get(&link).await;
    let weak = stranger.request(Method::POST, "/voicechat/welcome", form(&token, "alice", "short")).await;
    let still_open = server.services.welcome.token().await.unwrap();
    let made = stranger.request(Method::POST, "/voicechat/welcome", form(&token, "alice", "correct horse")).await;
    let again = stranger.request(Method::POST, "/voicechat/welcome", form(&token, "mallory", "correct horse")).await;

    assert_eq!((page.status(), weak.status(), made.status(), again.status()), (200, 400, 200, 410));
    assert_eq!(still_open.as_deref(), Some(&*token), "a failed try and a restart leave the link as it is");
    assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let (_, alice) = server.services.accounts.named("alice").await.unwrap().unwrap();
    assert!(alice.is_admin);
    assert!(server.services.accounts.named("mallory").await.unwrap().is_none());
    assert_eq!(server.services.welcome.token().await.unwrap(), None);
}

#[tokio::test]
async fn a_wrong_link_and_one_that_came_too_late_make_nobody() {
    let server = TestServer::start().await;
    let stranger = server.anonymous();
    let token = server.services.welcome.token().await.unwrap().unwrap();

    let wrong = stranger.request(Method::POST, "/voicechat/welcome", form("wrong", "alice", "correct horse")).await;
    server.admin("root").await;
    let late = stranger.request(Method::POST, "/voicechat/welcome", form(&token, "alice", "correct horse")).await;

    assert_eq!((wrong.status(), late.status()), (410, 410));
    assert!(server.services.accounts.named("alice").await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_typed_into_the_welcome_page_is_shown_as_text() {
    let server = TestServer::start().await;
    let token = server.services.welcome.token().await.unwrap().unwrap();
    let body = form(&token, "\"><script>alert(1)</script>", "correct horse");

    let page = server.anonymous().request(Method::POST, "/voicechat/welcome", body).await;

    assert_eq!(page.status(), 400);
    assert!(!String::from_utf8(page.body).unwrap().contains("<script>"));
}

#[tokio::test]
async fn calls_get_credentials_that_the_turn_server_can_check() {
    let mut settings = settings();
    settings.turn.uris = vec!["turn:turn.example.org?transport=udp".to_owned()];
    settings.turn.secret = Some("shared".to_owned());
    let with = TestServer::start_with(settings).await;
    let without = TestServer::start().await;
    let ([alice], [bob]) = (with.users(["alice"]).await, without.users(["bob"]).await);

    let given = alice.get("/_matrix/client/v3/voip/turnServer").await.ok();
    let nothing = bob.get("/_matrix/client/v3/voip/turnServer").await.ok();

    // 2026-01-02T00:00:00Z, a day after every test begins; the password by `openssl dgst -sha1 -hmac shared -binary | base64`.
    assert_eq!(
        given,
        json!({
            "username": "1767312000:@alice:example.org",
            "password": "Yq36sc0QuCpMNeNzbme3ncCjwA4=",
            "uris": ["turn:turn.example.org?transport=udp"],
            "ttl": 86400,
        })
    );
    assert_eq!(nothing, json!({}));
}
