//! Rooms made of real, signed events, for the tests to ask questions about.

use std::{collections::BTreeMap, sync::Arc};

use room::{
    Pdu, auth,
    build::{self, Draft, Place, Signer},
    event::kind,
    graph::AuthGraph,
    resolve::{self, Resolution, Start, StateKey, Step},
    state::{EventNumber, State, StateKeyNumber},
    versions::{self, Rules},
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId, ServerName, UInt, UserId,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, PublicKeyMap},
};
use serde_json::{Value, json, value::to_raw_value};

/// The seed of the signing key in the specification's cryptographic test vectors.
const SPEC_KEY_SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
/// What stands before the seed in a PKCS #8 document of an Ed25519 key.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

pub(crate) fn spec_key() -> Ed25519KeyPair {
    let seed = Base64::<Standard>::parse(SPEC_KEY_SEED).unwrap();
    let document = [&PKCS8_PREFIX[..], seed.as_bytes()].concat();
    Ed25519KeyPair::from_der(&document, "1".to_owned()).unwrap()
}

/// Every server's public key: all servers of the tests sign with the same one.
pub(crate) fn public_keys<'a>(servers: impl IntoIterator<Item = &'a str>) -> PublicKeyMap {
    let key: Base64 = Base64::new(spec_key().public_key().to_vec());
    servers
        .into_iter()
        .map(|server| (server.to_owned(), BTreeMap::from([("ed25519:1".to_owned(), key.clone())])))
        .collect()
}

pub(crate) fn user(name: &str) -> &UserId {
    <&UserId>::try_from(name).unwrap()
}

/// The state of a room at a point: (type, state key) to event.
pub(crate) type StateMap = BTreeMap<StateKey, OwnedEventId>;

/// One room: all its events, and for each the state after it.
pub(crate) struct World {
    pub(crate) rules: &'static Rules,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) events: BTreeMap<OwnedEventId, Arc<Pdu>>,
    pub(crate) after: BTreeMap<OwnedEventId, StateMap>,
    pub(crate) graph: AuthGraph,
    numbers: BTreeMap<OwnedEventId, EventNumber>,
    state_keys: BTreeMap<StateKey, StateKeyNumber>,
    key: Ed25519KeyPair,
    pub(crate) clock_ms: u64,
}

pub(crate) const ALICE: &str = "@alice:a.example";
pub(crate) const BOB: &str = "@bob:b.example";
pub(crate) const CAROL: &str = "@carol:c.example";

impl World {
    /// A room that Alice created and joined; gives the id of her join.
    pub(crate) fn new(version: &str) -> (Self, OwnedEventId) {
        Self::created_with(version, json!({}))
    }

    /// The same with more in the create event's content.
    pub(crate) fn created_with(version: &str, more: Value) -> (Self, OwnedEventId) {
        let version = RoomVersionId::try_from(version).unwrap();
        let rules = versions::rules(&version).unwrap();
        let mut world = Self {
            rules,
            room_id: RoomId::parse("!room:a.example").unwrap(),
            events: BTreeMap::new(),
            after: BTreeMap::new(),
            graph: AuthGraph::default(),
            numbers: BTreeMap::new(),
            state_keys: BTreeMap::new(),
            key: spec_key(),
            clock_ms: 1_700_000_000_000,
        };
        let mut content = json!({"room_version": version});
        if !rules.authorization.use_room_create_sender {
            content["creator"] = json!(ALICE);
        }
        content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let named = !versions::room_id_is_create_hash(rules);
        let place = Place {
            room_id: named.then(|| world.room_id.clone()),
            prev_events: vec![],
            auth_events: vec![],
            depth: 1,
            origin_server_ts: world.tick(),
        };
        let draft = Draft::state(kind::CREATE, "", user(ALICE).to_owned(), to_raw_value(&content).unwrap());
        let create = world.sign(&draft, &place);
        world.room_id = create.room_id.clone();
        let create = world.keep(create, StateMap::new());
        let join = world.state(&[&create], ALICE, kind::MEMBER, ALICE, json!({"membership": "join"}));
        (world, join)
    }

    fn tick(&mut self) -> MilliSecondsSinceUnixEpoch {
        self.clock_ms += 1;
        MilliSecondsSinceUnixEpoch(UInt::try_from(self.clock_ms).unwrap())
    }

    pub(crate) fn sign(&self, draft: &Draft, place: &Place) -> Pdu {
        let server = draft.sender.server_name().to_owned();
        let signer = Signer { server: &server, key: &self.key };
        build::build(draft, place, signer, self.rules).unwrap()
    }

    /// Adds an event to the world together with the state before it.
    pub(crate) fn keep(&mut self, event: Pdu, before: StateMap) -> OwnedEventId {
        let id = event.event_id.clone();
        let mut after = before;
        // Numbers are given as storage might: not in the order of the graph.
        let next = EventNumber(1_000_000 - 7 * self.numbers.len() as u64);
        let number = *self.numbers.entry(id.clone()).or_insert(next);
        if let Some(state_key) = event.state_key.clone().filter(|_| !event.rejected) {
            let key = (event.kind.clone(), state_key);
            let next = StateKeyNumber(3 * self.state_keys.len() as u64);
            self.state_keys.entry(key.clone()).or_insert(next);
            after.insert(key, id.clone());
            let witnesses: Vec<_> = event.auth_events.iter().map(|id| self.numbers[id]).collect();
            let is_power_levels = event.is_state(kind::POWER_LEVELS, "");
            self.graph.insert(number, &witnesses, is_power_levels).unwrap();
        }
        self.events.insert(id.clone(), Arc::new(event));
        self.after.insert(id.clone(), after);
        id
    }

    pub(crate) fn get(&self, id: &EventId) -> Arc<Pdu> {
        self.events[id].clone()
    }

    /// The state before an event that follows `prev`, resolved if there are several.
    pub(crate) fn before(&self, prev: &[&OwnedEventId]) -> StateMap {
        match prev {
            [one] => self.after[*one].clone(),
            many => self.resolve(many.iter().map(|id| &self.after[*id])),
        }
    }

    /// What several states resolve to.
    pub(crate) fn resolve<'a>(&self, states: impl IntoIterator<Item = &'a StateMap>) -> StateMap {
        let states: Vec<State> = states
            .into_iter()
            .map(|map| map.iter().map(|(k, id)| (self.state_keys[k], self.numbers[id])).collect())
            .collect();
        let state = match resolve::start(self.rules, &states, &self.graph).unwrap() {
            Start::Agreed(state) => state,
            Start::Forked(resolution) => self.drive(*resolution),
        };
        let keys: BTreeMap<_, _> = self.state_keys.iter().map(|(key, number)| (number, key)).collect();
        let ids: BTreeMap<_, _> = self.numbers.iter().map(|(id, number)| (number, id)).collect();
        state.iter().map(|(key, event)| (keys[&key].clone(), ids[&event].clone())).collect()
    }

    fn drive(&self, mut resolution: Resolution) -> State {
        let by_number: BTreeMap<_, _> = self.numbers.iter().map(|(id, number)| (number, &self.events[id])).collect();
        loop {
            match resolution.step().unwrap() {
                Step::Events(wanted) => {
                    let events = wanted.iter().map(|number| (*number, by_number[number].clone()));
                    resolution.supply_events(events).unwrap();
                }
                Step::Keys(wanted) => {
                    let known = wanted.into_iter().filter_map(|key| {
                        let number = *self.state_keys.get(&key)?;
                        Some((key, number))
                    });
                    resolution.supply_keys(known.collect::<Vec<_>>());
                }
                Step::Done(state) => return state,
            }
        }
    }

    /// An event on top of others, not yet part of the world.
    pub(crate) fn make(
        &mut self,
        prev: &[&OwnedEventId],
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Pdu {
        let before = self.before(prev);
        let content = to_raw_value(&content).unwrap();
        let draft = Draft {
            kind: kind.to_owned(),
            sender: user(sender).to_owned(),
            state_key: state_key.map(str::to_owned),
            content,
            redacts: None,
        };
        let witnesses =
            build::auth_types(kind, &draft.sender, state_key, &draft.content, self.rules).unwrap_or_default();
        let auth_events =
            witnesses.into_iter().filter_map(|(kind, key)| before.get(&(kind.to_owned(), key)).cloned()).collect();
        let depth = prev.iter().map(|id| self.events[*id].depth).max().unwrap_or(0) + 1;
        let place = Place {
            room_id: Some(self.room_id.clone()),
            prev_events: prev.iter().map(|id| (*id).clone()).collect(),
            auth_events,
            depth,
            origin_server_ts: self.tick(),
        };
        self.sign(&draft, &place)
    }

    /// A state event on top of others, part of the world whether or not it is allowed.
    pub(crate) fn state(
        &mut self,
        prev: &[&OwnedEventId],
        sender: &str,
        kind: &str,
        state_key: &str,
        content: Value,
    ) -> OwnedEventId {
        let before = self.before(prev);
        let event = self.make(prev, sender, kind, Some(state_key), content);
        self.keep(event, before)
    }

    /// Whether the state before it allows the event.
    pub(crate) fn allows(&self, event: &Pdu, before: &StateMap) -> Result<(), String> {
        let state = |kind: &str, key: &str| {
            let id = before.get(&(kind.to_owned(), key.to_owned()))?;
            self.events.get(id).cloned()
        };
        auth::check_state_independent(event, self.rules, |id| self.events.get(id).cloned())
            .and_then(|()| auth::check(event, self.rules, state))
            .map_err(|refusal| refusal.reason)
    }

    pub(crate) fn signer(&self) -> Signer<'_> {
        Signer { server: <&ServerName>::try_from("a.example").unwrap(), key: &self.key }
    }
}
