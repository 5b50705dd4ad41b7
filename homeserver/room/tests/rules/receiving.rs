//! Events from elsewhere, received in the order they arrive: small graphs told in `tests/dags`,
//! and the same arriving in other orders.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use room::{
    Pdu,
    event::{create_event_id, kind},
    graph::heads::{self, Head},
    receive::{Aim, Receive, StateAt, Step, Verdict},
};
use ruma::OwnedEventId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::world::{ALICE, BOB, StateMap, World};

/// A graph of events, each with how receiving it must end, in the order they arrive.
#[derive(Deserialize)]
struct Dag {
    says: String,
    versions: Vec<String>,
    events: Vec<Told>,
    /// The event (or none) at each `type|state key` in the end.
    state: BTreeMap<String, Option<String>>,
}

#[derive(Clone, Deserialize)]
struct Told {
    name: String,
    on: Vec<String>,
    sender: String,
    r#type: String,
    state_key: Option<String>,
    content: Value,
    expect: String,
}

/// A server that receives: the world it knows and the heads of the room there.
struct Receiver {
    world: World,
    heads: Vec<Head<OwnedEventId>>,
}

impl Receiver {
    fn now(&self) -> StateMap {
        let heads: Vec<&OwnedEventId> = self.heads.iter().map(|head| &head.event).collect();
        self.world.before(&heads)
    }

    fn verdict(&self, event: &Arc<Pdu>, aim: Aim) -> Verdict {
        let prev: Vec<&OwnedEventId> = event.prev_events.iter().collect();
        let before = self.world.before(&prev);
        let mut receive = Receive::new(event.clone(), self.world.rules, aim);
        loop {
            match receive.step() {
                Step::NeedAuth(ids) => {
                    receive.supply(ids.iter().filter_map(|id| self.world.events.get(id).cloned()));
                }
                Step::NeedState { at, keys } => {
                    let state = if at == StateAt::Now { self.now() } else { before.clone() };
                    let events = keys.iter().filter_map(|key| state.get(key));
                    receive.supply(events.map(|id| self.world.get(id)).collect::<Vec<_>>());
                }
                Step::Done(verdict) => return verdict,
            }
        }
    }

    /// Receives and keeps an event; gives the verdict in a word.
    fn receive(&mut self, event: Pdu) -> &'static str {
        let event = Arc::new(event);
        let prev = event.prev_events.clone();
        let before = self.world.before(&prev.iter().collect::<Vec<_>>());
        let (word, rejected) = match self.verdict(&event, Aim::Live) {
            Verdict::Accept => ("accept", false),
            Verdict::SoftFail(_) => ("soft fail", false),
            Verdict::Reject(_) => ("reject", true),
            Verdict::Undecided { missing } => panic!("nobody has {missing:?}"),
        };
        let head = Head { event: event.event_id.clone(), depth: event.depth, own: false };
        self.world.keep(event.as_ref().clone().with_rejected(rejected), before);
        if word == "accept" {
            self.heads = heads::after(&self.heads, head, &prev, false);
        }
        word
    }
}

fn receiver(version: &str) -> (Receiver, OwnedEventId) {
    let (world, join) = World::new(version);
    let head = Head { event: join.clone(), depth: 2, own: true };
    (Receiver { world, heads: vec![head] }, join)
}

/// The content as the version wants it: before version 12 the creator stands among the users.
fn content(version: &str, told: &Told) -> Value {
    let mut content = told.content.clone();
    if told.r#type == kind::POWER_LEVELS && version != "12" {
        content["users"][ALICE] = json!(100);
    }
    content
}

fn play(dag: &Dag) {
    for version in &dag.versions {
        let (mut receiver, join) = receiver(version);
        let mut names = BTreeMap::from([("start".to_owned(), join)]);
        for told in &dag.events {
            let prev: Vec<&OwnedEventId> = told.on.iter().map(|name| &names[name]).collect();
            let event = receiver.world.make(
                &prev,
                &told.sender,
                &told.r#type,
                told.state_key.as_deref(),
                content(version, told),
            );
            names.insert(told.name.clone(), event.event_id.clone());

            let word = receiver.receive(event);

            assert_eq!(word, told.expect, "{}: version {version}, event {}", dag.says, told.name);
        }
        let state = receiver.now();
        for (key, expected) in &dag.state {
            let (kind, state_key) = key.split_once('|').unwrap();
            let standing = state.get(&(kind.to_owned(), state_key.to_owned()));
            let expected = expected.as_ref().map(|name| &names[name]);
            assert_eq!(standing, expected, "{}: version {version}, {key}", dag.says);
        }
    }
}

#[test]
fn the_told_graphs_end_as_they_are_told() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dags");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let json = std::fs::read_to_string(file.unwrap().path()).unwrap();
        play(&serde_json::from_str(&json).unwrap());
        count += 1;
    }
    assert!(count >= 3, "the graphs are missing");
}

#[test]
fn an_event_nobody_vouches_for_stays_undecided_and_names_what_is_missing() {
    for version in ["11", "12"] {
        let (mut receiver, join) = receiver(version);
        let event = Arc::new(receiver.world.make(&[&join], ALICE, kind::MESSAGE, None, json!({})));
        let mut receive = Receive::new(event, receiver.world.rules, Aim::Live);
        let create = create_event_id(&receiver.world.room_id);

        let Step::NeedAuth(asked) = receive.step() else { panic!("it knows no witness") };
        assert!(asked.contains(&join));
        assert_eq!(create.is_some_and(|id| asked.contains(&id)), version == "12");
        receive.supply([]);

        assert_eq!(receive.step(), Step::Done(Verdict::Undecided { missing: asked }));
    }
}

#[test]
fn how_far_an_event_is_checked_depends_on_what_it_is_wanted_for() {
    let (mut receiver, join) = receiver("12");
    let world = &mut receiver.world;
    let open = world.state(&[&join], ALICE, kind::JOIN_RULES, "", json!({"join_rule": "public"}));
    let bob = world.state(&[&open], BOB, kind::MEMBER, BOB, json!({"membership": "join"}));
    let ban = world.state(&[&bob], ALICE, kind::MEMBER, BOB, json!({"membership": "ban"}));
    // Bob speaks as if he had never been banned: once before the ban, once after.
    let early = Arc::new(world.make(&[&bob], BOB, kind::MESSAGE, None, json!({})));
    let mut late = world.make(&[&bob], BOB, kind::MESSAGE, None, json!({"n": 1}));
    late.prev_events = vec![ban.clone()];
    let late = Arc::new(late);
    receiver.heads = vec![Head { event: ban, depth: 6, own: true }];

    assert!(matches!(receiver.verdict(&early, Aim::Live), Verdict::SoftFail(_)));
    assert_eq!(receiver.verdict(&early, Aim::Past), Verdict::Accept);
    assert_eq!(receiver.verdict(&early, Aim::Outlier), Verdict::Accept);
    assert!(matches!(receiver.verdict(&late, Aim::Past), Verdict::Reject(_)));
    assert_eq!(receiver.verdict(&late, Aim::Outlier), Verdict::Accept);
}

#[test]
fn a_refusal_says_which_event_and_why() {
    let (mut receiver, join) = receiver("11");
    let event = Arc::new(receiver.world.make(&[&join], BOB, kind::MESSAGE, None, json!({})));
    let Verdict::Reject(refusal) = receiver.verdict(&event, Aim::Live) else { panic!("Bob is not in the room") };
    assert_eq!(refusal.event_id, event.event_id);
    assert_eq!(refusal.to_string(), "sender's membership is not `join`");
}

#[test]
fn the_beginning_of_a_room_needs_no_state() {
    for version in ["6", "12"] {
        let (receiver, _) = receiver(version);
        let create = receiver.world.events.values().find(|event| event.is_create()).unwrap();
        let mut receive = Receive::new(create.clone(), receiver.world.rules, Aim::Live);
        assert_eq!(receive.step(), Step::NeedAuth(vec![]));
        receive.supply([]);
        assert_eq!(receive.step(), Step::Done(Verdict::Accept));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the order in which the events of a room arrive, the state after each is the same.
    #[test]
    fn the_order_of_arrival_does_not_change_the_state_after_any_event(
        version in prop::sample::select(&["6", "11", "12"][..]),
        shuffled in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
        deeds in prop::collection::vec(0..4_usize, 8),
    ) {
        let (mut teller, join) = receiver(version);
        let world = &mut teller.world;
        let public = json!({"join_rule": "public"});
        let open = world.state(&[&join], ALICE, kind::JOIN_RULES, "", public);
        let mut ids = vec![open.clone()];
        for (at, deed) in deeds.iter().enumerate() {
            let (one, other) = (ids[at / 2].clone(), ids[at].clone());
            let on = if at % 2 == 1 && one != other { vec![&one, &other] } else { vec![&one] };
            let guest = format!("@guest{deed}:g.example");
            let (sender, kind, key, content) = match deed {
                0 | 1 => (ALICE, kind::TOPIC, "", json!({"topic": at})),
                2 => (ALICE, kind::JOIN_RULES, "", json!({"join_rule": "invite"})),
                _ => (&*guest, kind::MEMBER, &*guest, json!({"membership": "join"})),
            };
            ids.push(world.state(&on, sender, kind, key, content));
        }
        let open = teller.world.get(&open);
        let events: Vec<Arc<Pdu>> = ids[1..].iter().map(|id| teller.world.get(id)).collect();
        let arrive = |arrival: &[usize]| {
            // The same beginning of the same room: the worlds are made alike.
            let (mut receiver, _) = receiver(version);
            receiver.receive(open.as_ref().clone());
            let mut waiting = arrival.to_vec();
            while !waiting.is_empty() {
                let known = |at: &usize| {
                    let mut prev = events[*at].prev_events.iter();
                    prev.all(|id| receiver.world.events.contains_key(id))
                };
                let next = waiting.iter().position(known).expect("nothing follows the unknown");
                receiver.receive(events[waiting.remove(next)].as_ref().clone());
            }
            receiver.world.after
        };

        prop_assert_eq!(arrive(&shuffled), arrive(&[0, 1, 2, 3, 4, 5, 6, 7]));
    }
}
