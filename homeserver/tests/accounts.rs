//! Registering, logging in and out, and what an account is.

mod fixture;

use fixture::TestServer;
use serde_json::json;

#[tokio::test]
async fn a_registered_user_is_recognised_by_their_token() {
    let server = TestServer::start().await;
    let [alice] = server.users(["alice"]).await;

    let reply = alice.get("/_matrix/client/v3/account/whoami").await;

    assert_eq!(reply.ok(), json!({ "user_id": "@alice:example.org", "device_id": alice.device_id }));
}
