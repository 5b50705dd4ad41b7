//! A room grown from bytes: events of several people on several heads, honest and hostile, received as from another server,
//! with forks resolved. Nothing panics; what the rules refuse changes nothing; the state does not depend on the order of forks.
#![no_main]

use std::{collections::BTreeMap, sync::Arc};

use fuzz::{KEY, examine, public_keys};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use room::{
    Pdu,
    build::{self, Draft, Place, Signer},
    event::{AUTH_EVENTS_MAX, kind},
    graph::AuthGraph,
    receive::{Aim, Receive, StateAt, Step, Verdict},
    resolve::{self, Start, StateKey},
    state::{EventNumber, State, StateKeyNumber},
    versions::{self, Rules},
};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt, UserId};
use serde_json::{Value, json, value::to_raw_value};

/// Events of one room.
const EVENTS_MAX: usize = 24;
const USERS: [&str; 4] = ["@alice:a.example", "@bob:b.example", "@carol:c.example", "@dave:a.example"];
/// The first authorise; ruma knows the last by another name.
const KINDS: [&str; 9] = [
    kind::MEMBER,
    kind::POWER_LEVELS,
    kind::JOIN_RULES,
    kind::THIRD_PARTY_INVITE,
    kind::CREATE,
    kind::TOPIC,
    kind::REDACTION,
    kind::ALIASES,
    "org.matrix.msc3401.call.member",
];

type StateMap = BTreeMap<StateKey, OwnedEventId>;

struct World {
    rules: &'static Rules,
    events: BTreeMap<OwnedEventId, Arc<Pdu>>,
    order: Vec<OwnedEventId>,
    after: BTreeMap<OwnedEventId, StateMap>,
    graph: AuthGraph,
    numbers: BTreeMap<OwnedEventId, EventNumber>,
    keys: BTreeMap<StateKey, StateKeyNumber>,
}

fuzz_target!(|data: &[u8]| {
    // Bytes that run out answer with zeros; an error only ends the room.
    let _ = grow(&mut Unstructured::new(data));
});

fn grow(bytes: &mut Unstructured<'_>) -> libfuzzer_sys::arbitrary::Result<()> {
    let version = bytes.choose(&versions::UNDERSTOOD)?;
    let rules = versions::rules(version).unwrap();
    let mut world = World {
        rules,
        events: BTreeMap::new(),
        order: Vec::new(),
        after: BTreeMap::new(),
        graph: AuthGraph::default(),
        numbers: BTreeMap::new(),
        keys: BTreeMap::new(),
    };
    let mut content = json!({ "room_version": version, "creator": USERS[0] });
    if bytes.ratio(1, 8)? {
        content = any_content(bytes)?;
    }
    let draft = Draft::state(kind::CREATE, "", user(0), to_raw_value(&content).unwrap());
    let Some(create) = world.make(&draft, &[], Some(Vec::new())) else { return Ok(()) };
    world.receive(create, StateMap::new());
    while !bytes.is_empty() && world.order.len() < EVENTS_MAX {
        let mut prev = vec![world.any(bytes)?];
        if bytes.ratio(1, 3)? {
            prev.push(world.any(bytes)?);
            prev.dedup();
        }
        let draft = any_draft(bytes, &world)?;
        // Honest servers name the right witnesses; others whichever they like.
        let witnesses = if bytes.ratio(1, 8)? {
            let count = bytes.int_in_range(0..=AUTH_EVENTS_MAX)?;
            Some((0..count).map(|_| world.any(bytes)).collect::<Result<Vec<_>, _>>()?)
        } else {
            None
        };
        let before = world.before(&prev);
        if let Some(event) = world.make(&draft, &prev, witnesses) {
            world.receive(event, before);
        }
    }
    Ok(())
}

impl World {
    fn any(&self, bytes: &mut Unstructured<'_>) -> libfuzzer_sys::arbitrary::Result<OwnedEventId> {
        bytes.choose(&self.order).cloned()
    }

    /// The state before an event that follows `prev`.
    fn before(&self, prev: &[OwnedEventId]) -> StateMap {
        if let [one] = prev {
            return self.after[one].clone();
        }
        let states: Vec<State> = prev.iter().map(|id| self.state(&self.after[id])).collect();
        let resolved = self.resolve(&states);
        let reversed: Vec<State> = states.into_iter().rev().collect();
        assert_eq!(self.resolve(&reversed), resolved, "the order of forks decides nothing");
        let keys: BTreeMap<_, _> = self.keys.iter().map(|(key, number)| (number, key)).collect();
        let ids: BTreeMap<_, _> = self.numbers.iter().map(|(id, number)| (number, id)).collect();
        resolved.iter().map(|(key, event)| (keys[&key].clone(), ids[&event].clone())).collect()
    }

    fn state(&self, map: &StateMap) -> State {
        map.iter().map(|(key, id)| (self.keys[key], self.numbers[id])).collect()
    }

    fn resolve(&self, states: &[State]) -> State {
        let by_number: BTreeMap<_, _> = self.numbers.iter().map(|(id, number)| (number, &self.events[id])).collect();
        let mut resolution = match resolve::start(self.rules, states, &self.graph).expect("all events are known") {
            Start::Agreed(state) => return state,
            Start::Forked(resolution) => resolution,
        };
        loop {
            match resolution.step().expect("nothing is damaged") {
                resolve::Step::Events(wanted) => {
                    let events = wanted.iter().map(|number| (*number, by_number[number].clone()));
                    resolution.supply_events(events).expect("all that were asked for");
                }
                resolve::Step::Keys(wanted) => {
                    let known = wanted.into_iter().filter_map(|key| self.keys.get(&key).map(|number| (key, *number)));
                    resolution.supply_keys(known.collect::<Vec<_>>());
                }
                resolve::Step::Done(state) => return state,
            }
        }
    }

    /// An event as its sender's server would make it, taken apart and verified as we do. `None` when it cannot be one.
    fn make(&self, draft: &Draft, prev: &[OwnedEventId], witnesses: Option<Vec<OwnedEventId>>) -> Option<Pdu> {
        let create = self.order.first().map(|id| &self.events[id]);
        let before = witnesses.is_none().then(|| self.before(prev)).unwrap_or_default();
        let auth_events = witnesses.unwrap_or_else(|| {
            let state_key = draft.state_key.as_deref();
            let types = build::auth_types(&draft.kind, &draft.sender, state_key, &draft.content, self.rules);
            let keys = types.unwrap_or_default().into_iter().map(|(kind, key)| (kind.to_owned(), key));
            keys.filter_map(|key| before.get(&key).cloned()).collect()
        });
        let named = create.is_some() || !versions::room_id_is_create_hash(self.rules);
        let room_id = create.map_or_else(|| RoomId::parse("!room:a.example").unwrap(), |create| create.room_id.clone());
        let place = Place {
            room_id: named.then_some(room_id),
            prev_events: prev.to_vec(),
            auth_events,
            depth: prev.iter().map(|id| self.events[id].depth).max().unwrap_or(0) + 1,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::try_from(1_700_000_000_000 + self.order.len()).unwrap()),
        };
        let signer = Signer { server: draft.sender.server_name(), key: &KEY };
        let built = build::build(draft, &place, signer, self.rules).ok()?;
        let unverified = Pdu::from_remote(built.json.as_bytes(), self.rules).ok()?;
        assert_eq!(unverified.event_id(), built.event_id, "we name an event as others do");
        let required = unverified.required_servers().clone();
        let others = required.keys().filter(|server| *server != draft.sender.server_name());
        let countersigned = others.fold(built, |event, server| {
            build::countersign(&event, Signer { server, key: &KEY }, self.rules).expect("a signature more")
        });
        let unverified = Pdu::from_remote(countersigned.json.as_bytes(), self.rules).ok()?;
        Some(unverified.verify(&public_keys(required.keys())).expect("what we sign verifies"))
    }

    fn receive(&mut self, event: Pdu, before: StateMap) {
        examine(&event, self.rules);
        if self.events.contains_key(&event.event_id) {
            return;
        }
        let event = Arc::new(event);
        let mut receive = Receive::new(event.clone(), self.rules, Aim::Live);
        let verdict = loop {
            match receive.step() {
                Step::NeedAuth(ids) => receive.supply(ids.iter().filter_map(|id| self.events.get(id).cloned())),
                Step::NeedState { at, keys } => {
                    // The newest event stands for the room as it is now.
                    let newest = self.order.last().map(|id| &self.after[id]);
                    let state = if at == StateAt::Now { newest.unwrap_or(&before) } else { &before };
                    receive.supply(keys.iter().filter_map(|key| state.get(key)).map(|id| self.events[id].clone()));
                }
                Step::Done(verdict) => break verdict,
            }
        };
        if let Verdict::Undecided { missing } = verdict {
            assert!(missing.iter().all(|id| !self.events.contains_key(id)), "what was given is not missing");
            return;
        }
        let rejected = matches!(verdict, Verdict::Reject(_));
        self.keep(event.as_ref().clone().with_rejected(rejected), before);
    }

    fn keep(&mut self, event: Pdu, before: StateMap) {
        let id = event.event_id.clone();
        let number = EventNumber(1_000_000 - 7 * self.numbers.len() as u64);
        self.numbers.insert(id.clone(), number);
        let mut after = before;
        if let Some(state_key) = event.state_key.clone().filter(|_| !event.rejected) {
            let key = (event.kind.clone(), state_key);
            let next = StateKeyNumber(3 * self.keys.len() as u64);
            self.keys.entry(key.clone()).or_insert(next);
            after.insert(key, id.clone());
            let witnesses: Vec<_> = event.auth_events.iter().map(|id| self.numbers[id]).collect();
            self.graph
                .insert(number, &witnesses, event.is_state(kind::POWER_LEVELS, ""))
                .expect("witnesses of what is accepted are accepted state");
        }
        self.after.insert(id.clone(), after);
        self.order.push(id.clone());
        self.events.insert(id, Arc::new(event));
    }
}

fn user(at: usize) -> ruma::OwnedUserId {
    UserId::parse(USERS[at]).unwrap()
}

fn any_draft(bytes: &mut Unstructured<'_>, world: &World) -> libfuzzer_sys::arbitrary::Result<Draft> {
    let sender = user(bytes.choose_index(USERS.len())?);
    let kind = *bytes.choose(&KINDS)?;
    let state_key = match kind {
        kind::REDACTION => None,
        kind::MEMBER => Some((*bytes.choose(&USERS)?).to_owned()),
        kind::THIRD_PARTY_INVITE => Some("token".to_owned()),
        kind::ALIASES => Some("a.example".to_owned()),
        _ if bytes.ratio(1, 8)? => Some(bytes.arbitrary::<String>()?),
        _ => Some(String::new()),
    };
    let content = if bytes.ratio(1, 4)? { any_content(bytes)? } else { usual_content(bytes, kind)? };
    let redacts = if kind == kind::REDACTION { Some(world.any(bytes)?) } else { None };
    Ok(Draft { kind: kind.to_owned(), sender, state_key, content: to_raw_value(&content).unwrap(), redacts })
}

/// What such an event usually says.
fn usual_content(bytes: &mut Unstructured<'_>, kind: &str) -> libfuzzer_sys::arbitrary::Result<Value> {
    Ok(match kind {
        kind::MEMBER => {
            let membership = *bytes.choose(&["join", "leave", "invite", "ban", "knock"])?;
            let mut content = json!({ "membership": membership });
            if bytes.ratio(1, 6)? {
                content["join_authorised_via_users_server"] = (*bytes.choose(&USERS)?).into();
            }
            content
        }
        kind::POWER_LEVELS => {
            let mut users = json!({});
            for name in USERS {
                users[name] = i64::from(*bytes.choose(&[100_i8, 50, 0, -1])?).into();
            }
            json!({ "users": users, "state_default": bytes.int_in_range(0..=100)?, "invite": bytes.int_in_range(0..=100)? })
        }
        kind::JOIN_RULES => {
            let rule = *bytes.choose(&["public", "invite", "knock", "restricted", "knock_restricted", "private"])?;
            json!({ "join_rule": rule, "allow": [{ "type": "m.room_membership", "room_id": "!other:a.example" }] })
        }
        _ => json!({}),
    })
}

/// Any object, with a preference for keys the rules read.
fn any_content(bytes: &mut Unstructured<'_>) -> libfuzzer_sys::arbitrary::Result<Value> {
    const FIELDS: [&str; 16] = [
        "membership",
        "join_authorised_via_users_server",
        "third_party_invite",
        "users",
        "events",
        "notifications",
        "ban",
        "users_default",
        "join_rule",
        "allow",
        "creator",
        "additional_creators",
        "room_version",
        "m.federate",
        "redacts",
        "signed",
    ];
    let mut content = json!({});
    for _ in 0..bytes.int_in_range(0..=4)? {
        let field = *bytes.choose(&FIELDS)?;
        content[field] = any_value(bytes, 3)?;
    }
    Ok(content)
}

fn any_value(bytes: &mut Unstructured<'_>, levels: usize) -> libfuzzer_sys::arbitrary::Result<Value> {
    Ok(match bytes.int_in_range(0..=if levels == 0 { 4 } else { 6 })? {
        0 => Value::Null,
        1 => bytes.arbitrary::<bool>()?.into(),
        2 => bytes.int_in_range(-(1_i64 << 53) + 1..=(1 << 53) - 1)?.into(),
        3 => (*bytes.choose(&["join", "public", "100", USERS[0], USERS[1], "!other:a.example", ""])?).into(),
        4 => bytes.arbitrary::<String>()?.into(),
        5 => {
            let items = bytes.int_in_range(0..=3)?;
            (0..items).map(|_| any_value(bytes, levels - 1)).collect::<Result<Vec<_>, _>>()?.into()
        }
        _ => {
            let mut object = json!({});
            for _ in 0..bytes.int_in_range(0..=3)? {
                let key = *bytes.choose(&[
                    USERS[0],
                    USERS[1],
                    "signed",
                    "mxid",
                    "token",
                    "type",
                    "room_id",
                    "m.room.topic",
                ])?;
                object[key] = any_value(bytes, levels - 1)?;
            }
            object
        }
    })
}
