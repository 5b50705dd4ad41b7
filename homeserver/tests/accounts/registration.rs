//! Who may register, under which names.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Method;
use serde_json::{Value, json};
use services::accounts::registration::{Access, Policy};
use sha1::Sha1;

use crate::fixture::{Client, PASSWORD, SHARED_SECRET, TestServer, settings};

const REGISTER: &str = "/_matrix/client/v3/register";
const SHARED: &str = "/_synapse/admin/v1/register";

fn body(username: &str) -> Value {
    json!({ "username": username, "password": PASSWORD, "auth": { "type": "m.login.dummy" } })
}

#[tokio::test]
async fn an_empty_registration_is_told_what_to_do() {
    let server = TestServer::start().await;

    let reply = server.anonymous().post(REGISTER, json!({})).await;

    assert_eq!(reply.status(), 401);
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!(reply.json()["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    assert!(reply.json()["session"].is_string());
}

#[tokio::test]
async fn capitals_are_folded_and_the_device_is_the_one_asked_for() {
    let server = TestServer::start().await;
    let mut body = body("user-UPPER");
    body["device_id"] = "my_device_id".into();

    let session = server.anonymous().post(REGISTER, body).await.ok();

    assert_eq!(session["user_id"], "@user-upper:example.org");
    assert_eq!(session["device_id"], "my_device_id");
    assert!(session["access_token"].is_string());
}

#[tokio::test]
async fn a_name_that_no_user_can_have_is_refused() {
    let server = TestServer::start().await;
    let long = "x".repeat(255);
    let names = [
        "us!er",
        "us\"er",
        "us:er",
        "us?er",
        "us\\er",
        "us@er",
        "us[er",
        "us{er",
        "us|er",
        "us£er",
        "usér",
        "us\ner",
        "us'er",
        "us er",
        "us\0er",
        "",
        "_user",
        "12345",
        long.as_str(),
        "@user:example.org",
    ];

    for name in names {
        let reply = server.anonymous().post(REGISTER, body(name)).await;
        assert_eq!(reply.refusal(), (400, "M_INVALID_USERNAME".to_owned()), "{name:?}");
    }
    for name in ["q3._=-/+", "a", "0a"] {
        server.anonymous().post(REGISTER, body(name)).await.ok();
    }
}

#[tokio::test]
async fn a_name_is_given_once_also_after_its_account_ended() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let auth = json!({ "auth": alice.password_auth() });
    alice.post("/_matrix/client/v3/account/deactivate", auth).await.ok();

    let again = server.anonymous().post(REGISTER, body("Alice")).await;
    let asked = server.anonymous().get("/_matrix/client/v3/register/available?username=alice").await;

    assert_eq!(again.refusal(), (400, "M_USER_IN_USE".to_owned()));
    assert_eq!(asked.refusal(), (400, "M_USER_IN_USE".to_owned()));
}

#[tokio::test]
async fn availability_is_told_for_good_bad_and_missing_names() {
    let server = TestServer::start().await;
    let nobody = server.anonymous();

    assert_eq!(
        nobody.get("/_matrix/client/v3/register/available?username=free").await.ok(),
        json!({ "available": true })
    );
    let bad = nobody.get("/_matrix/client/v3/register/available?username=not,valid").await;
    assert_eq!(bad.refusal(), (400, "M_INVALID_USERNAME".to_owned()));
    assert_eq!(nobody.get("/_matrix/client/v3/register/available").await.status(), 400);
}

#[tokio::test]
async fn without_a_name_one_is_chosen_and_without_login_no_token_is_given() {
    let server = TestServer::start().await;
    let wish = json!({ "password": PASSWORD, "auth": { "type": "m.login.dummy" }, "inhibit_login": true });

    let session = server.anonymous().post(REGISTER, wish).await.ok();

    assert!(session["user_id"].as_str().unwrap().ends_with(":example.org"));
    assert_eq!(session.get("access_token"), None);
    assert_eq!(session.get("device_id"), None);
}

#[tokio::test]
async fn weak_missing_and_endless_passwords_are_refused_and_foreign_letters_are_not() {
    let server = TestServer::start().await;
    let with = |password: Value| {
        let mut body = body("alice");
        body["password"] = password;
        body
    };

    let nobody = server.anonymous();
    assert_eq!(nobody.post(REGISTER, with("short".into())).await.refusal(), (400, "M_WEAK_PASSWORD".to_owned()));
    assert_eq!(nobody.post(REGISTER, with(Value::Null)).await.refusal(), (400, "M_MISSING_PARAM".to_owned()));
    let endless = "x".repeat(100_000);
    assert_eq!(nobody.post(REGISTER, with(endless.into())).await.refusal(), (400, "M_INVALID_PARAM".to_owned()));
    nobody.post(REGISTER, with("übers3kr1t".into())).await.ok();
}

#[tokio::test]
async fn what_is_no_json_or_of_the_wrong_shape_is_refused_with_its_code() {
    let server = TestServer::start().await;
    let nobody = server.anonymous();
    let raw = async |bytes: &[u8]| nobody.request(Method::POST, REGISTER, Some(bytes.to_vec())).await.refusal();

    assert_eq!(raw(b"{ \"test\":\"a\x81\" }").await, (400, "M_NOT_JSON".to_owned()));
    assert_eq!(raw(b"{").await, (400, "M_NOT_JSON".to_owned()));
    assert_eq!(raw(b"[]").await, (400, "M_BAD_JSON".to_owned()));
    assert_eq!(raw(b"{\"username\": 7}").await, (400, "M_BAD_JSON".to_owned()));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(raw(deep.as_bytes()).await.0, 400);
    // An `auth` that makes no sense is as good as none.
    assert_eq!(raw(b"{\"auth\": 7}").await.0, 401);
    assert_eq!(raw(b"{\"auth\": {\"type\": 7, \"session\": []}}").await.0, 401);
}

#[tokio::test]
async fn a_closed_server_registers_nobody() {
    let mut closed = settings();
    closed.accounts.registration.access = Access::Closed;
    let server = TestServer::start_with(closed).await;

    let reply = server.anonymous().post(REGISTER, body("alice")).await;

    assert_eq!(reply.refusal(), (403, "M_FORBIDDEN".to_owned()));
}

#[tokio::test]
async fn a_registration_token_makes_as_many_accounts_as_it_allows() {
    let mut by_token = settings();
    by_token.accounts.registration.access = Access::Token;
    let server = TestServer::start_with(by_token).await;
    let token = server.services.accounts.registration.create_token(Some(1), None).await.unwrap();
    let nobody = server.anonymous();
    let with = |name: &str, token: &str| {
        let auth = json!({ "type": "m.login.registration_token", "token": token });
        json!({ "username": name, "password": PASSWORD, "auth": auth })
    };
    let valid = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");

    assert_eq!(nobody.get(&valid).await.ok(), json!({ "valid": true }));
    assert_eq!(nobody.post(REGISTER, body("alice")).await.status(), 401);
    assert_eq!(nobody.post(REGISTER, with("alice", "wrong")).await.refusal(), (401, "M_UNAUTHORIZED".to_owned()));
    nobody.post(REGISTER, with("alice", &token)).await.ok();
    assert_eq!(nobody.post(REGISTER, with("bob", &token)).await.refusal(), (401, "M_UNAUTHORIZED".to_owned()));
    assert_eq!(nobody.get(&valid).await.ok(), json!({ "valid": false }));
    let listed = server.services.accounts.registration.tokens().await.unwrap();
    assert_eq!((listed[0].pending, listed[0].completed), (0, 1));
}

#[tokio::test]
async fn a_use_reserved_by_a_registration_that_never_ends_comes_back() {
    let mut by_token = settings();
    by_token.accounts.registration.access = Access::Token;
    by_token.accounts.registration.policies = vec![policy()];
    let server = TestServer::start_with(by_token).await;
    let accounts = &server.services.accounts;
    let token = accounts.registration.create_token(Some(1), Some(Duration::from_secs(86_400))).await.unwrap();
    let auth = json!({ "type": "m.login.registration_token", "token": token });
    let wish = json!({ "username": "alice", "password": PASSWORD, "auth": auth });

    let half = server.anonymous().post(REGISTER, wish).await;
    assert_eq!(half.json()["completed"], json!(["m.login.registration_token"]));
    assert!(!accounts.registration.is_token_valid(&token).await.unwrap());
    server.clock.advance(Duration::from_secs(3600));
    accounts.sweep().await.unwrap();

    assert!(accounts.registration.is_token_valid(&token).await.unwrap());
    server.clock.advance(Duration::from_secs(86_400));
    assert!(!accounts.registration.is_token_valid(&token).await.unwrap(), "it has expired");
}

fn policy() -> Policy {
    let text = |text: &str| text.to_owned();
    Policy {
        id: text("terms"),
        version: text("1"),
        language: text("en"),
        name: text("Terms & \"rules\""),
        url: text("https://example.org/terms"),
    }
}

#[tokio::test]
async fn terms_are_shown_and_accepted_by_a_web_page() {
    let mut with_terms = settings();
    with_terms.accounts.registration.policies = vec![policy()];
    let server = TestServer::start_with(with_terms).await;
    let nobody = server.anonymous();
    let wish = json!({ "username": "alice", "password": PASSWORD });

    let challenge = nobody.post(REGISTER, wish.clone()).await.json();
    assert_eq!(challenge["flows"], json!([{ "stages": ["m.login.terms"] }]));
    let shown = &challenge["params"]["m.login.terms"]["policies"]["terms"];
    assert_eq!(shown["en"]["url"], "https://example.org/terms");
    assert_eq!(shown["version"], "1");
    let session = challenge["session"].as_str().unwrap();
    let path = "/_matrix/client/v3/auth/m.login.terms/fallback/web";
    let page = nobody.get(&format!("{path}?session={session}%22%3E%3Cscript%3E")).await;
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert!(text.contains("Terms &amp; &quot;rules&quot;") && !text.contains("<script>"), "{text}");

    let form = format!("session={session}");
    let done = nobody.request(Method::POST, path, Some(form.into_bytes())).await;
    assert!(String::from_utf8(done.body.clone()).unwrap().contains("onAuthDone"));
    assert!(done.headers["content-security-policy"].to_str().unwrap().contains("script-src 'nonce-"));
    let mut finished = wish;
    finished["auth"] = json!({ "session": session });
    assert_eq!(nobody.post(REGISTER, finished).await.ok()["user_id"], "@alice:example.org");
    assert_eq!(nobody.get("/voicechat/terms").await.status(), 200);
}

#[tokio::test]
async fn pages_exist_only_for_sessions_and_stages_there_are() {
    let server = TestServer::start().await;
    let nobody = server.anonymous();
    let post = async |stage: &str, form: &str| {
        let path = format!("/_matrix/client/v3/auth/{stage}/fallback/web");
        nobody.request(Method::POST, &path, Some(form.as_bytes().to_vec())).await.status()
    };

    assert_eq!(post("m.login.password", "session=x").await, 404);
    assert_eq!(post("m.login.registration_token", "session=x&token=y").await, 404);
    assert_eq!(post("m.login.registration_token", "\u{fffd}%ff%").await, 400);
    assert_eq!(nobody.get("/_matrix/client/v3/auth/m.login.dummy/fallback/web?session=x").await.status(), 404);
    assert_eq!(nobody.get("/voicechat/terms").await.status(), 404);
}

#[tokio::test]
async fn guests_come_only_where_they_are_admitted_and_may_do_little() {
    let refusing = TestServer::start().await;
    let mut admitting = settings();
    admitting.accounts.registration.allows_guests = true;
    let server = TestServer::start_with(admitting).await;
    let path = "/_matrix/client/v3/register?kind=guest";

    let refused = refusing.anonymous().post(path, json!({})).await;
    let guest = server.anonymous().with_session(&server.anonymous().post(path, json!({})).await.ok());

    assert_eq!(refused.refusal(), (403, "M_GUEST_ACCESS_FORBIDDEN".to_owned()));
    assert_eq!(guest.get("/_matrix/client/v3/account/whoami").await.ok()["is_guest"], true);
    let forbidden = guest.post("/_matrix/client/v3/account/password", json!({ "new_password": PASSWORD })).await;
    assert_eq!(forbidden.refusal(), (403, "M_GUEST_ACCESS_FORBIDDEN".to_owned()));
    let name = format!("/_matrix/client/v3/profile/{}/displayname", guest.user_id);
    guest.put(&name, json!({ "displayname": "A guest" })).await.ok();
    let avatar = format!("/_matrix/client/v3/profile/{}/avatar_url", guest.user_id);
    assert_eq!(guest.put(&avatar, json!({ "avatar_url": "mxc://a/b" })).await.status(), 403);
}

#[tokio::test]
async fn a_guest_becomes_a_user_with_their_own_token_only() {
    let mut admitting = settings();
    admitting.accounts.registration.allows_guests = true;
    let server = TestServer::start_with(admitting).await;
    let path = "/_matrix/client/v3/register?kind=guest";
    let guest = server.anonymous().with_session(&server.anonymous().post(path, json!({})).await.ok());
    let other = server.user("alice").await;
    let localpart = guest.user_id[1..].split(':').next().unwrap();
    let wish = |token: &Option<String>| {
        let mut body = body(localpart);
        body["guest_access_token"] = json!(token);
        body
    };

    assert_eq!(server.anonymous().post(REGISTER, wish(&other.token)).await.status(), 403);
    let session = server.anonymous().post(REGISTER, wish(&guest.token)).await.ok();

    assert_eq!(session["user_id"], guest.user_id);
    let whoami = guest.with_session(&session).get("/_matrix/client/v3/account/whoami").await.ok();
    assert_eq!(whoami.get("is_guest"), None);
}

async fn by_secret(nobody: &Client, secret: &str, name: &str, admin: bool) -> crate::fixture::Reply {
    let nonce = nobody.get(SHARED).await.ok()["nonce"].as_str().unwrap().to_owned();
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    let role = if admin { "admin" } else { "notadmin" };
    mac.update(format!("{nonce}\0{name}\0{PASSWORD}\0{role}").as_bytes());
    let mac: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let body = json!({ "nonce": nonce, "username": name, "password": PASSWORD, "mac": mac, "admin": admin });
    let reply = nobody.post(SHARED, body.clone()).await;
    let again = nobody.post(SHARED, body).await;
    assert_eq!(again.status(), 400, "a nonce is good once");
    reply
}

#[tokio::test]
async fn whoever_knows_the_shared_secret_makes_accounts_and_administrators() {
    let mut closed = settings();
    closed.accounts.registration.access = Access::Closed;
    let server = TestServer::start_with(closed).await;
    let nobody = server.anonymous();

    let admin = by_secret(&nobody, SHARED_SECRET, "Root-USER", true).await.ok();
    let user = by_secret(&nobody, SHARED_SECRET, "user", false).await.ok();

    assert_eq!(admin["user_id"], "@root-user:example.org");
    let [admin, user] = [admin, user].map(|session| nobody.with_session(&session));
    let whois = format!("/_matrix/client/v3/admin/whois/{}", user.user_id);
    assert_eq!(admin.get(&whois).await.ok()["user_id"], user.user_id);
    let whois = format!("/_matrix/client/v3/admin/whois/{}", admin.user_id);
    assert_eq!(user.get(&whois).await.status(), 403);
}

#[tokio::test]
async fn a_wrong_signature_or_nonce_makes_no_account() {
    let server = TestServer::start().await;
    let nobody = server.anonymous();

    assert_eq!(by_secret(&nobody, "guessed", "alice", true).await.refusal(), (403, "M_FORBIDDEN".to_owned()));
    assert_eq!(
        by_secret(&nobody, SHARED_SECRET, "us,er", false).await.refusal(),
        (400, "M_INVALID_USERNAME".to_owned())
    );
    let nonce = nobody.get(SHARED).await.ok()["nonce"].clone();
    for mac in ["", "zz", "é", "00"] {
        let body = json!({ "nonce": nonce, "username": "a", "password": PASSWORD, "mac": mac });
        assert!((400..404).contains(&nobody.post(SHARED, body).await.status()), "{mac}");
    }
    let old = nobody.get(SHARED).await.ok()["nonce"].clone();
    server.clock.advance(Duration::from_secs(61));
    let body = json!({ "nonce": old, "username": "a", "password": PASSWORD, "mac": "00" });
    assert_eq!(nobody.post(SHARED, body).await.status(), 400);
}

#[tokio::test]
async fn without_a_shared_secret_there_is_no_such_endpoint() {
    let mut none = settings();
    none.accounts.registration.shared_secret = None;
    let server = TestServer::start_with(none).await;

    assert_eq!(server.anonymous().get(SHARED).await.refusal(), (404, "M_UNRECOGNIZED".to_owned()));
}

#[tokio::test]
async fn no_address_is_ever_written_to() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let mail = json!({ "client_secret": "abc", "email": "a@example.org", "send_attempt": 1 });

    for path in ["register", "account/password", "account/3pid"] {
        let reply = alice.post(&format!("/_matrix/client/v3/{path}/email/requestToken"), mail.clone()).await;
        assert_eq!(reply.refusal(), (403, "M_THREEPID_DENIED".to_owned()), "{path}");
    }
    assert_eq!(alice.get("/_matrix/client/v3/account/3pid").await.ok(), json!({ "threepids": [] }));
}
