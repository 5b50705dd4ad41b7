//! Servers that do not play by the rules.

use std::sync::Arc;

use room::build::{self, Draft, Place, Signer};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use services::{Error, timeline::now::RoomNow};

use crate::server::{Authority, Server};

/// An event as `there` would sign it, at the heads of its view of the room, whatever the room's rules say.
fn forged(
    there: &Server,
    now: &RoomNow,
    draft: &Draft,
    auth: &[&Arc<services::timeline::events::Stored>],
) -> Box<RawValue> {
    let (prev_events, depth) = now.next_place();
    let place = Place {
        room_id: Some(now.room_id.clone()),
        prev_events,
        auth_events: auth.iter().map(|event| event.pdu.event_id.clone()).collect(),
        depth,
        origin_server_ts: there.cx.clock.now(),
    };
    build::build(draft, &place, there.cx.signer(), now.rules).unwrap().to_federation()
}

pub(crate) fn message(sender: &UserId, words: &str) -> Draft {
    let content = to_raw_value(&json!({ "msgtype": "m.text", "body": words })).unwrap();
    Draft::message("m.room.message", sender.to_owned(), content)
}

pub(crate) struct Scene {
    pub(crate) here: Server,
    pub(crate) there: Server,
    pub(crate) alice: OwnedUserId,
    pub(crate) bob: OwnedUserId,
    pub(crate) room_id: OwnedRoomId,
}

/// Alice's room here, with Bob of another server in it.
pub(crate) async fn scene() -> Scene {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V11, "public").await;
    there.joins(&bob, &room_id, &here).await.unwrap();
    Scene { here, there, alice, bob, room_id }
}

/// The events Bob's may name as witnesses.
pub(crate) async fn witnesses(
    server: &Server,
    room_id: &RoomId,
    bob: &UserId,
) -> Vec<Arc<services::timeline::events::Stored>> {
    let now = server.services.timeline.room(room_id).await.unwrap();
    let mut found = Vec::new();
    for (kind, key) in [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", bob.as_str())] {
        found.extend(server.services.timeline.state_event(&now, kind, key).await.unwrap());
    }
    found
}

impl Scene {
    pub(crate) async fn forge(&self, draft: &Draft) -> Box<RawValue> {
        let now = self.there.services.timeline.room(&self.room_id).await.unwrap();
        let witnesses = witnesses(&self.there, &self.room_id, &self.bob).await;
        forged(&self.there, &now, draft, &witnesses.iter().collect::<Vec<_>>())
    }

    /// Send events to `here`, then an honest message, and wait until that one was judged.
    async fn send(&self, txn: &str, events: &[Box<RawValue>]) {
        let origin = &self.there.name;
        self.here.services.incoming.transaction(origin, txn, events, &[]).await.unwrap();
        let words = format!("after {txn}");
        let honest = self.forge(&message(&self.bob, &words)).await;
        self.here.services.incoming.transaction(origin, &format!("{txn}-end"), &[honest], &[]).await.unwrap();
        let heard = || async { self.here.words_in(&self.room_id).await.contains(&words) };
        self.here.until("the honest message came", heard).await;
    }
}

#[tokio::test]
async fn what_a_server_may_not_send_is_neither_shown_nor_believed() {
    let scene = scene().await;
    let Scene { here, alice, bob, room_id, .. } = &scene;
    let before = here.state_of(room_id).await;
    let state =
        |kind: &str, key: &str, content: Value| Draft::state(kind, key, bob.clone(), to_raw_value(&content).unwrap());

    let seizes_power = scene.forge(&state("m.room.power_levels", "", json!({ "users": { bob.as_str(): 100 } }))).await;
    let puts_out = scene.forge(&state("m.room.member", alice.as_str(), json!({ "membership": "ban" }))).await;
    let renames = scene.forge(&state("m.room.name", "", json!({ "name": "mine" }))).await;
    let speaks_for_alice = scene.forge(&message(alice, "I, Alice, say so")).await;
    let stranger: OwnedUserId = format!("@stranger:{}", scene.there.name).try_into().unwrap();
    let was_never_in = scene.forge(&message(&stranger, "let me in")).await;
    scene.send("refused", &[seizes_power, puts_out, renames, speaks_for_alice, was_never_in]).await;

    assert_eq!(here.state_of(room_id).await, before);
    assert_eq!(here.words_in(room_id).await, ["after refused"]);
}

#[tokio::test]
async fn an_event_changed_on_the_way_is_taken_without_its_content_or_not_at_all() {
    let scene = scene().await;
    let honest = scene.forge(&message(&scene.bob, "honest")).await;
    let change = |with: &dyn Fn(&mut Value)| {
        let mut event: Value = serde_json::from_str(honest.get()).unwrap();
        with(&mut event);
        to_raw_value(&event).unwrap()
    };

    let other_words = change(&|event| event["content"]["body"] = "dishonest".into());
    let other_sender = change(&|event| event["sender"] = scene.alice.as_str().into());
    let other_depth = change(&|event| event["depth"] = 9_999_999.into());
    let unsigned = change(&|event| event["signatures"] = json!({}));
    scene.send("changed", &[other_words, other_sender, other_depth, unsigned]).await;

    // The words are not what was signed, so they are taken out; the rest is what Bob's server vouches for.
    assert_eq!(scene.here.words_in(&scene.room_id).await, ["", "after changed"]);
}

#[tokio::test]
async fn nonsense_in_a_transaction_harms_nothing_else_in_it() {
    let scene = scene().await;
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let deep = format!("{{\"room_id\":\"{}\",\"content\":{}{}}}", scene.room_id, "[".repeat(120), "]".repeat(120));
    let mut big: Value = serde_json::from_str(scene.forge(&message(&scene.bob, "big")).await.get()).unwrap();
    big["content"]["body"] = "x".repeat(70_000).into();
    let mut fraction: Value = serde_json::from_str(scene.forge(&message(&scene.bob, "half")).await.get()).unwrap();
    fraction["depth"] = json!(1.5);
    let unknown_room = format!("{{\"room_id\":\"!nowhere:{}\",\"type\":\"m.room.message\"}}", scene.there.name);

    let nonsense = [
        raw("{}"),
        raw("[]"),
        raw("null"),
        raw("\"words\""),
        raw(&deep),
        raw(&big.to_string()),
        raw(&fraction.to_string()),
        raw(&unknown_room),
        raw(&format!("{{\"room_id\":\"{}\"}}", scene.room_id)),
    ];
    scene.send("nonsense", &nonsense).await;

    assert_eq!(scene.here.words_in(&scene.room_id).await, ["after nonsense"]);
}

#[tokio::test]
async fn a_transaction_too_long_is_refused_and_one_sent_twice_counts_once() {
    let scene = scene().await;
    let event = scene.forge(&message(&scene.bob, "once")).await;
    let (incoming, origin) = (&scene.here.services.incoming, &scene.there.name);

    let many = vec![event.clone(); 51];
    assert!(matches!(incoming.transaction(origin, "long", &many, &[]).await, Err(Error::Invalid(_))));
    let first = incoming.transaction(origin, "twice", std::slice::from_ref(&event), &[]).await.unwrap();
    let second = incoming.transaction(origin, "twice", std::slice::from_ref(&event), &[]).await.unwrap();
    scene.send("again", &[event]).await;

    assert_eq!(first, second);
    assert_eq!(scene.here.words_in(&scene.room_id).await, ["once", "after again"]);
}

#[tokio::test]
async fn a_server_kept_out_by_the_access_list_is_not_heard() {
    let scene = scene().await;
    let event = scene.forge(&message(&scene.bob, "let me speak")).await;
    let list = json!({ "allow": ["*"], "deny": ["localhost"] });
    scene.here.sets(&scene.alice, &scene.room_id, "m.room.server_acl", "", list).await;

    let content = json!({ "room_id": scene.room_id, "user_id": scene.bob, "typing": true });
    let typing = to_raw_value(&json!({ "edu_type": "m.typing", "content": content })).unwrap();
    let incoming = &scene.here.services.incoming;
    let outcomes = incoming.transaction(&scene.there.name, "1", &[event], &[typing]).await.unwrap();
    let nid = scene.here.services.timeline.room_nid(&scene.room_id).await.unwrap();

    assert_eq!(scene.here.services.typing.room(nid).0, [] as [i64; 0]);
    assert!(outcomes.values().all(Result::is_err) && outcomes.len() == 1, "{outcomes:?}");
    assert_eq!(scene.here.words_in(&scene.room_id).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_server_outside_the_room_is_told_nothing_of_it() {
    let authority = Authority::new();
    let scene = scene().await;
    let outside = Server::start(&authority).await;
    let sent = scene.here.says(&scene.alice, &scene.room_id, "among us").await;
    let (resident, origin) = (&scene.here.services.resident, &outside.name);

    assert!(matches!(resident.event(origin, &sent.event_id).await, Err(Error::Forbidden(_))));
    assert!(matches!(resident.state(origin, &scene.room_id, &sent.event_id).await, Err(Error::Forbidden(_))));
    let from = std::slice::from_ref(&sent.event_id);
    assert!(matches!(resident.backfill(origin, &scene.room_id, from, 10).await, Err(Error::Forbidden(_))));
    assert!(matches!(resident.event_auth(origin, &scene.room_id, &sent.event_id).await, Err(Error::Forbidden(_))));
    assert!(resident.event(&scene.there.name, &sent.event_id).await.is_ok());
}

#[tokio::test]
async fn history_from_before_a_server_joined_is_given_without_words_when_only_members_may_see_it() {
    let authority = Authority::new();
    let (here, there) = (Server::start(&authority).await, Server::start(&authority).await);
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room_id = here.room(&alice, RoomVersionId::V12, "public").await;
    here.sets(&alice, &room_id, "m.room.history_visibility", "", json!({ "history_visibility": "joined" })).await;
    here.says(&alice, &room_id, "between us").await;
    let now = there.joins(&bob, &room_id, &here).await.unwrap();

    while there.services.incoming.backfill(now.nid, i64::MAX, 50).await.unwrap() > 0 {}
    here.says(&alice, &room_id, "for all").await;
    there.until("more was said", || async { there.words_in(&room_id).await.len() == 2 }).await;

    assert_eq!(there.words_in(&room_id).await, ["", "for all"]);
}

#[tokio::test]
async fn ephemeral_units_about_other_servers_users_are_passed_over() {
    let scene = scene().await;
    let now = scene.here.services.timeline.room(&scene.room_id).await.unwrap();
    let typing = |user: &UserId| {
        let content = json!({ "room_id": scene.room_id, "user_id": user, "typing": true });
        to_raw_value(&json!({ "edu_type": "m.typing", "content": content })).unwrap()
    };
    let units = [typing(&scene.alice), to_raw_value(&json!({ "edu_type": 7 })).unwrap(), typing(&scene.bob)];

    scene.here.services.incoming.transaction(&scene.there.name, "1", &[], &units).await.unwrap();

    let bob = scene.here.cx.numbers.user(&scene.bob).await.unwrap();
    assert_eq!(scene.here.services.typing.room(now.nid).0, [bob]);
}

#[tokio::test]
async fn a_key_that_is_not_the_senders_signs_nothing() {
    let scene = scene().await;
    let now = scene.there.services.timeline.room(&scene.room_id).await.unwrap();
    let (_, _, stolen) = services::federation::signing::SigningKey::generate(&scene.there.cx.randomness).unwrap();
    let (prev_events, depth) = now.next_place();
    let witnesses = witnesses(&scene.there, &scene.room_id, &scene.bob).await;
    let place = Place {
        room_id: Some(now.room_id.clone()),
        prev_events,
        auth_events: witnesses.iter().map(|event| event.pdu.event_id.clone()).collect(),
        depth,
        origin_server_ts: scene.there.cx.clock.now(),
    };
    let signer = Signer { server: &scene.there.name, key: stolen.pair() };
    let event = build::build(&message(&scene.bob, "stolen"), &place, signer, now.rules).unwrap();

    scene.send("stolen", &[event.to_federation()]).await;

    assert_eq!(scene.here.words_in(&scene.room_id).await, ["after stolen"]);
}
