//! What many tests begin with: Alice and a room of hers here, Bob on another server.

use ruma::{OwnedRoomId, RoomVersionId};

use crate::{
    people::Account,
    server::{Authority, Server},
};

pub(crate) struct Scene {
    pub(crate) here: Server,
    pub(crate) there: Server,
    pub(crate) alice: Account,
    pub(crate) bob: Account,
    pub(crate) room_id: OwnedRoomId,
}

impl Scene {
    /// Bob may come into the room.
    pub(crate) async fn new() -> Self {
        let authority = Authority::new();
        let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
        let (alice, bob) = (here.account("alice").await, there.account("bob").await);
        let room_id = here.room(&alice.id, RoomVersionId::V12, "public").await;
        Self { here, there, alice, bob, room_id }
    }

    /// Bob is in the room.
    pub(crate) async fn with_bob_inside() -> Self {
        let scene = Self::new().await;
        scene.there.joins(&scene.bob.id, &scene.room_id, &scene.here).await.unwrap();
        scene
    }
}
