//! Nothing another server sends makes us panic, and nothing odd gets in.

use proptest::prelude::*;
use room::{
    Pdu,
    auth::{Powers, facts},
    event::{BadFormat, kind},
    versions,
};
use ruma::RoomVersionId;
use serde_json::{Value, json};

use crate::world::{ALICE, World, public_keys, user};

fn wire_event(world: &mut World) -> Value {
    let join = world.events.values().find(|event| event.kind == kind::MEMBER).unwrap();
    let join = join.event_id.clone();
    let event = world.make(&[&join], ALICE, kind::TOPIC, Some(""), json!({"topic": "t"}));
    serde_json::from_str(&event.json).unwrap()
}

#[test]
fn an_event_with_a_field_missing_or_of_the_wrong_kind_is_dropped() {
    for version in ["6", "11", "12"] {
        let (mut world, _) = World::new(version);
        let good = wire_event(&mut world);
        let read = |event: &Value| Pdu::from_remote(event.to_string().as_bytes(), world.rules);
        assert!(read(&good).is_ok());
        let changes = [
            ("type", json!(1)),
            ("type", json!("a".repeat(256))),
            ("type", json!("nul\u{0}")),
            ("sender", json!("alice")),
            ("sender", json!(null)),
            ("state_key", json!(null)),
            ("state_key", json!(7)),
            ("state_key", json!("a".repeat(256))),
            ("state_key", json!("\u{0}")),
            ("content", json!([])),
            ("content", json!("{}")),
            ("hashes", json!(null)),
            ("signatures", json!([])),
            ("depth", json!(-1)),
            ("depth", json!("3")),
            ("depth", json!(9_007_199_254_740_992_u64)),
            ("origin_server_ts", json!(-1)),
            ("origin_server_ts", json!(null)),
            ("prev_events", json!({})),
            ("prev_events", json!(["not an id"])),
            ("prev_events", json!([["$id", {"sha256": "x"}]])),
            ("prev_events", json!(vec!["$a"; 21])),
            ("auth_events", json!(vec!["$a"; 11])),
            ("auth_events", json!([1])),
            ("room_id", json!("room")),
            ("room_id", json!(null)),
        ];
        for (field, value) in changes {
            let mut event = good.clone();
            event[field] = value.clone();
            assert!(read(&event).is_err(), "version {version}: {field} = {value}");
            if field != "state_key" {
                event.as_object_mut().unwrap().remove(field);
                assert!(read(&event).is_err(), "version {version}: no {field}");
            }
        }
    }
}

#[test]
fn types_and_state_keys_of_older_rooms_are_measured_in_characters() {
    for (version, counts_bytes) in [("6", false), ("10", false), ("11", true), ("12", true)] {
        let (mut world, _) = World::new(version);
        let good = wire_event(&mut world);
        for field in ["type", "state_key"] {
            for (value, is_short) in
                [("💥".repeat(70), !counts_bytes), ("💥".repeat(256), false), ("é".repeat(127), true)]
            {
                let mut event = good.clone();
                event[field] = json!(value);
                let read = Pdu::from_remote(event.to_string().as_bytes(), world.rules);
                assert_eq!(read.is_ok(), is_short, "version {version}: {field}");
            }
        }
    }
}

#[test]
fn a_version_twelve_event_may_not_name_the_create_event_among_its_witnesses() {
    let (mut world, _) = World::new("12");
    let mut event = wire_event(&mut world);
    let create = world.room_id.as_str().replace('!', "$");
    event["auth_events"].as_array_mut().unwrap().push(json!(create));

    let read = Pdu::from_remote(event.to_string().as_bytes(), world.rules);

    assert!(matches!(read, Err(BadFormat::CreateAmongAuthEvents)));
}

#[test]
fn a_membership_that_cannot_be_read_is_dropped_where_it_decides_who_must_sign() {
    let (mut world, _) = World::new("11");
    let mut event = wire_event(&mut world);
    event["type"] = json!(kind::MEMBER);
    event["content"] = json!({"membership": 1});
    assert!(Pdu::from_remote(event.to_string().as_bytes(), world.rules).is_err());
    event["content"] = json!({"membership": "join", "join_authorised_via_users_server": "nobody"});
    assert!(Pdu::from_remote(event.to_string().as_bytes(), world.rules).is_err());
}

#[test]
fn an_event_larger_than_any_can_be_is_refused_before_it_is_parsed() {
    let rules = versions::rules(&RoomVersionId::V12).unwrap();
    let bytes = vec![b'['; 1_000_000];
    let refused = Pdu::from_remote(&bytes, rules);
    assert!(matches!(refused, Err(BadFormat::TooLarge { bytes: 1_000_000 })));
}

/// Any JSON built of some kind of number and the usual rest.
fn json_with(number: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(&["@bob:b.example", "$event", "join", "ban", "public"][..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_.]{1,12}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Any JSON a stranger might put somewhere.
fn any_json() -> impl Strategy<Value = Value> {
    json_with(prop_oneof![any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from)])
}

/// Any JSON that may stand in an event.
fn canonical_json() -> impl Strategy<Value = Value> {
    const LARGEST: i64 = (1 << 53) - 1;
    json_with((-LARGEST..=LARGEST).prop_map(Value::from))
}

/// The fields the authorisation rules read.
const READ_FIELDS: [&str; 13] = [
    "membership",
    "join_authorised_via_users_server",
    "third_party_invite",
    "users",
    "events",
    "notifications",
    "ban",
    "users_default",
    "join_rule",
    "creator",
    "additional_creators",
    "m.federate",
    "allow",
];

const FIELDS: [&str; 12] = [
    "type",
    "sender",
    "state_key",
    "content",
    "hashes",
    "signatures",
    "depth",
    "origin_server_ts",
    "prev_events",
    "auth_events",
    "room_id",
    "redacts",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_us_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let rules = versions::rules(&RoomVersionId::V12).unwrap();
        prop_assert!(Pdu::from_remote(&bytes, rules).is_err());
    }

    #[test]
    fn no_json_in_any_field_makes_us_panic_or_changes_an_event_that_verifies(
        field in prop::sample::select(&FIELDS[..]), value in any_json(),
    ) {
        let (mut world, _) = World::new("12");
        let mut event = wire_event(&mut world);
        event[field] = value;
        let bytes = event.to_string();
        if let Ok(unverified) = Pdu::from_remote(bytes.as_bytes(), world.rules)
            && let Ok(event) = unverified.verify(&public_keys(["a.example"]))
        {
            // It verified, so it is what Alice signed, or the redacted form of it.
            prop_assert_eq!(event.sender.as_str(), ALICE);
            prop_assert_eq!(event.kind.as_str(), kind::TOPIC);
        }
    }

    #[test]
    fn no_content_makes_the_rules_or_what_we_read_from_it_panic(
        version in prop::sample::select(&["6", "9", "11", "12"][..]),
        kind in prop::sample::select(&kind::AUTHORISING[..]),
        fields in prop::collection::btree_map(
            prop::sample::select(&READ_FIELDS[..]), canonical_json(), 0..5,
        ),
    ) {
        let (mut world, join) = World::new(version);
        let content: serde_json::Map<String, Value> =
            fields.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
        let before = world.before(&[&join]);
        let event = world.make(&[&join], ALICE, kind, Some(""), Value::Object(content));
        let create = world.get(&before[&(kind::CREATE.to_owned(), String::new())]);

        // Whatever the answers, there are answers.
        let _ = world.allows(&event, &before);
        let powers = Powers::new(&create, Some(&event), world.rules);
        prop_assert!(powers.of(user(ALICE)) >= powers.of(user(ALICE)));
        let _ = (facts::membership(&event), facts::join_rule(Some(&event)));
        let _ = (facts::allowed_rooms(&event), facts::creators(&event, world.rules));
    }
}
