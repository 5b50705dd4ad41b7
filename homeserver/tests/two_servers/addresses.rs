//! People who are invited by an address before anybody knows which user they are. The identity server is played here.

use axum::{body::Body, http::Request};
use ruma::{CanonicalJsonObject, OwnedRoomId, OwnedUserId, RoomVersionId, ServerName};
use serde_json::{Value, json};
use services::federation::signing::SigningKey;
use tower::ServiceExt as _;

use crate::server::{Authority, Server};

struct Scene {
    here: Server,
    there: Server,
    alice: OwnedUserId,
    bob: OwnedUserId,
    room_id: OwnedRoomId,
    /// The identity server's.
    key: SigningKey,
}

/// Alice invited somebody by address to her room here.
async fn scene(version: RoomVersionId) -> Scene {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, version, "invite").await;
    let key = SigningKey::generate(&here.cx.randomness).unwrap().2;
    let meant = json!({
        "display_name": "b…@example.org", "key_validity_url": "https://id.example.org/valid", "public_key": key.public(),
        "public_keys": [{ "public_key": key.public(), "key_validity_url": "https://id.example.org/valid" }],
    });
    here.sets(&alice, &room_id, "m.room.third_party_invite", "token", meant).await;
    Scene { here, there, alice, bob, room_id, key }
}

impl Scene {
    /// What the identity server says of who the address belongs to.
    fn signed(&self, user: &OwnedUserId, token: &str, key: &SigningKey) -> Value {
        let said = json!({ "mxid": user, "token": token });
        let mut object: CanonicalJsonObject = serde_json::from_value(said).unwrap();
        key.sign(<&ServerName>::try_from("id.example.org").unwrap(), &mut object).unwrap();
        serde_json::to_value(&object).unwrap()
    }

    /// The identity server tells `server` that the address is `user`'s. Returns the status of the answer.
    async fn binds(&self, server: &Server, user: &OwnedUserId, signed: &Value) -> u16 {
        let invite = json!({
            "medium": "email", "address": "bob@example.org", "mxid": user, "room_id": self.room_id, "sender": self.alice,
            "signed": signed,
        });
        let body = json!({ "medium": "email", "address": "bob@example.org", "mxid": user, "invites": [invite] });
        let request = Request::put("/_matrix/federation/v1/3pid/onbind").body(Body::from(body.to_string())).unwrap();
        homeserver::app(server.services.clone()).oneshot(request).await.unwrap().status().as_u16()
    }

    async fn membership_here(&self, user: &OwnedUserId) -> Option<Value> {
        let now = self.here.services.timeline.room(&self.room_id).await.unwrap();
        let event = self.here.services.timeline.state_event(&now, "m.room.member", user.as_str()).await.unwrap()?;
        Some(serde_json::from_str(event.pdu.content.get()).unwrap())
    }
}

#[tokio::test]
async fn whoever_was_invited_by_address_is_invited_once_the_address_is_theirs() {
    for version in [RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12] {
        let scene = scene(version.clone()).await;

        let status = scene.binds(&scene.there, &scene.bob, &scene.signed(&scene.bob, "token", &scene.key)).await;

        assert_eq!(status, 200);
        let invitation = scene.there.invitation(&scene.bob, &scene.room_id).await.unwrap();
        assert_eq!((invitation.membership.as_str(), invitation.sender.as_str()), ("invite", scene.alice.as_str()));
        let member = scene.membership_here(&scene.bob).await.unwrap();
        assert_eq!(member["third_party_invite"]["display_name"], "b…@example.org", "{version}");
        scene.there.joins(&scene.bob, &scene.room_id, &scene.here).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_was_invited_by_address_may_be_a_user_of_the_same_server() {
    let scene = scene(RoomVersionId::V12).await;
    let carol = scene.here.user("carol").await;

    let status = scene.binds(&scene.here, &carol, &scene.signed(&carol, "token", &scene.key)).await;

    assert_eq!(status, 200);
    assert_eq!(scene.membership_here(&carol).await.unwrap()["membership"], "invite");
}

#[tokio::test]
async fn nobody_is_invited_by_an_address_that_no_key_of_the_room_says_is_theirs() {
    let scene = scene(RoomVersionId::V12).await;
    let mallory = scene.there.user("mallory").await;
    let other = SigningKey::generate(&scene.here.cx.randomness).unwrap().2;

    for signed in [
        scene.signed(&scene.bob, "token", &scene.key),
        scene.signed(&mallory, "token", &other),
        scene.signed(&mallory, "other token", &scene.key),
        json!({ "mxid": mallory, "token": "token", "signatures": {} }),
    ] {
        assert_eq!(scene.binds(&scene.there, &mallory, &signed).await, 200);
        assert!(scene.there.invitation(&mallory, &scene.room_id).await.is_none(), "{signed}");
        assert!(scene.membership_here(&mallory).await.is_none(), "{signed}");
    }
    let nobody: OwnedUserId = format!("@nobody:{}", scene.there.name).try_into().unwrap();
    assert_eq!(scene.binds(&scene.there, &nobody, &scene.signed(&nobody, "token", &scene.key)).await, 404);
}
