//! Events we build are events others accept.

use room::{
    Pdu,
    build::{self, BuildError, Draft, Place},
    event::{BadFormat, PDU_BYTES_MAX, create_event_id, kind},
    versions,
};
use ruma::{RoomVersionId, UInt, signatures::PublicKeyMap};
use serde_json::{Value, json, value::to_raw_value};

use crate::world::{ALICE, BOB, World, public_keys, spec_key, user};

fn from_remote(world: &World, json: &str, keys: &PublicKeyMap) -> Pdu {
    Pdu::from_remote(json.as_bytes(), world.rules).unwrap().verify(keys).unwrap()
}

#[test]
fn an_event_built_here_is_read_the_same_by_another_server_in_every_version() {
    let keys = public_keys(["a.example"]);
    for version in versions::UNDERSTOOD {
        let (mut world, join) = World::new(version.as_str());
        let content = json!({"body": "hello \u{0} ☃", "nested": {"b": [1, null, true], "a": -3}});
        let built = world.make(&[&join], ALICE, kind::MESSAGE, None, content);

        let read = from_remote(&world, &built.json, &keys);

        assert_eq!(read.event_id, built.event_id, "version {version}");
        assert_eq!(read.json, built.json);
        assert_eq!(read.room_id, world.room_id);
        assert_eq!(read.content.get(), built.content.get());
        assert_eq!(read.prev_events, [join]);
        assert_eq!(read.depth, 3);
    }
}

#[test]
fn a_room_of_version_twelve_bears_the_name_of_its_create_event() {
    let (world, join) = World::new("12");
    let create_id = create_event_id(&world.room_id).unwrap();
    let create = world.get(&create_id);

    assert!(!create.json.contains("room_id"));
    assert_eq!(create.room_id, world.room_id);
    assert!(!world.get(&join).auth_events.contains(&create_id));
    let read = from_remote(&world, &create.json, &public_keys(["a.example"]));
    assert_eq!(read.room_id, world.room_id);
}

#[test]
fn an_event_whose_content_was_changed_on_the_way_is_redacted() {
    let (mut world, join) = World::new("11");
    let event = world.make(&[&join], ALICE, kind::MESSAGE, None, json!({"body": "yes"}));
    let changed = event.json.replace("yes", "no");

    let read = from_remote(&world, &changed, &public_keys(["a.example"]));

    assert_eq!(read.event_id, event.event_id);
    assert_eq!(read.content.get(), "{}");
}

#[test]
fn an_event_whose_essence_was_changed_has_no_valid_signature() {
    let (mut world, join) = World::new("11");
    let event = world.make(&[&join], ALICE, kind::MESSAGE, None, json!({"body": "yes"}));
    let changed = event.json.replace(ALICE, "@mallory:a.example");

    let read = Pdu::from_remote(changed.as_bytes(), world.rules).unwrap();

    assert!(read.verify(&public_keys(["a.example"])).is_err());
}

#[test]
fn an_event_is_not_believed_without_the_key_of_its_sender() {
    let (mut world, join) = World::new("12");
    let event = world.make(&[&join], ALICE, kind::MESSAGE, None, json!({}));
    let read = || Pdu::from_remote(event.json.as_bytes(), world.rules).unwrap();

    let required = read();
    let (server, keys) = required.required_servers().first_key_value().unwrap();
    assert_eq!((server.as_str(), keys.as_slice()), ("a.example", &["ed25519:1".to_owned()][..]));
    assert!(read().verify(&public_keys([])).is_err());
    assert!(read().verify(&public_keys(["b.example"])).is_err());
    assert!(read().verify(&public_keys(["a.example"])).is_ok());
}

#[test]
fn what_the_sending_server_remarks_under_unsigned_is_not_kept() {
    let (mut world, join) = World::new("12");
    let event = world.make(&[&join], ALICE, kind::MESSAGE, None, json!({}));
    let mut json: Value = serde_json::from_str(&event.json).unwrap();
    json["unsigned"] = json!({"age_ts": 1, "redacted_because": {"sender": BOB}});
    json["event_id"] = json!("$someone_elses");

    let read = from_remote(&world, &json.to_string(), &public_keys(["a.example"]));

    assert_eq!(read.json, event.json);
    assert_eq!(read.event_id, event.event_id);
}

#[test]
fn a_resident_servers_template_cannot_put_words_into_our_users_mouths() {
    let (world, join) = World::new("12");
    let template = to_raw_value(&json!({
        "type": "m.room.power_levels", "sender": ALICE, "content": {"users": {BOB: 100}},
        "room_id": "!elsewhere", "depth": u64::MAX, "prev_events": [join], "auth_events": [],
    }))
    .unwrap();
    let content = to_raw_value(&json!({"membership": "join"})).unwrap();
    let draft = Draft::state(kind::MEMBER, BOB, user(BOB).to_owned(), content);
    let ts = ruma::MilliSecondsSinceUnixEpoch(UInt::from(7_u32));

    let event =
        build::complete_template(&template, &draft, world.room_id.clone(), ts, world.signer(), world.rules).unwrap();

    assert_eq!((event.kind.as_str(), event.state_key.as_deref()), (kind::MEMBER, Some(BOB)));
    assert_eq!(event.content.get(), r#"{"membership":"join"}"#);
    assert_eq!(event.room_id, world.room_id);
    assert_eq!((event.depth, event.prev_events), (build::DEPTH_MAX, vec![join]));
}

#[test]
fn a_second_signature_keeps_the_events_name_and_the_first_signature() {
    let (mut world, join) = World::new("10");
    let event = world.make(
        &[&join],
        BOB,
        kind::MEMBER,
        Some(BOB),
        json!({"membership": "join", "join_authorised_via_users_server": ALICE}),
    );
    let both = build::countersign(&event, world.signer(), world.rules).unwrap();

    assert_eq!(both.event_id, event.event_id);
    let keys = public_keys(["a.example", "b.example"]);
    assert!(Pdu::from_remote(both.json.as_bytes(), world.rules).unwrap().verify(&keys).is_ok());
    assert!(Pdu::from_remote(event.json.as_bytes(), world.rules).unwrap().verify(&keys).is_err());
}

#[test]
fn events_beyond_the_limits_are_not_built() {
    let (world, join) = World::new("12");
    let place = Place {
        room_id: Some(world.room_id.clone()),
        prev_events: vec![join.clone()],
        auth_events: vec![],
        depth: 3,
        origin_server_ts: ruma::MilliSecondsSinceUnixEpoch(UInt::from(1_u32)),
    };
    let draft =
        |kind: &str, content: Value| Draft::message(kind, user(ALICE).to_owned(), to_raw_value(&content).unwrap());
    let build = |draft: &Draft, place: &Place| {
        build::build(draft, place, world.signer(), world.rules).map(|event| event.json.len())
    };

    let big = draft(kind::MESSAGE, json!({"body": "a".repeat(PDU_BYTES_MAX)}));
    assert!(matches!(build(&big, &place), Err(BuildError::TooLarge { .. })));
    let long = draft(&"a".repeat(256), json!({}));
    assert!(matches!(build(&long, &place), Err(BuildError::TooLong { field: "type" })));
    let fraction = draft(kind::MESSAGE, json!({"size": 1.5}));
    assert!(matches!(build(&fraction, &place), Err(BuildError::Content(_))));
    let crowded = Place { prev_events: vec![join; 21], ..place.clone() };
    let plain = draft(kind::MESSAGE, json!({}));
    let answer = build(&plain, &crowded);
    assert!(matches!(answer, Err(BuildError::TooMany { field: "prev_events", most: 20 })));
    let nowhere = Place { room_id: None, ..place };
    assert!(matches!(build(&plain, &nowhere), Err(BuildError::RoomMissing)));
}

/// The largest event has 65,536 bytes exactly, whoever counts.
#[test]
fn the_largest_event_is_built_and_read_and_one_byte_more_is_not() {
    let (mut world, join) = World::new("12");
    let small = world.make(&[&join], ALICE, kind::MESSAGE, None, json!({"body": ""}));
    let body = "a".repeat(PDU_BYTES_MAX - small.json.len());
    let largest = world.make(&[&join], ALICE, kind::MESSAGE, None, json!({"body": body}));

    assert_eq!(largest.json.len(), PDU_BYTES_MAX);
    assert!(Pdu::from_remote(largest.json.as_bytes(), world.rules).is_ok());
    let larger = largest.json.replace("\"aa", "\"aaa");
    let refused = Pdu::from_remote(larger.as_bytes(), world.rules);
    assert!(matches!(refused, Err(BadFormat::TooLarge { bytes }) if bytes == PDU_BYTES_MAX + 1));
}

#[test]
fn a_redactions_target_stands_where_the_version_wants_it() {
    for (version, inside) in [("10", false), ("11", true)] {
        let version = RoomVersionId::try_from(version).unwrap();
        let (world, join) = World::new(version.as_str());
        let mut draft =
            Draft::message(kind::REDACTION, user(ALICE).to_owned(), to_raw_value(&json!({"reason": "spam"})).unwrap());
        draft.redacts = Some(join.clone());
        let place = Place {
            room_id: Some(world.room_id.clone()),
            prev_events: vec![join.clone()],
            auth_events: vec![],
            depth: 3,
            origin_server_ts: ruma::MilliSecondsSinceUnixEpoch(UInt::from(1_u32)),
        };
        let event = world.sign(&draft, &place);

        assert_eq!(event.redacts.as_ref(), Some(&join));
        assert_eq!(event.content.get().contains("redacts"), inside, "version {version}");
    }
}

/// The signed event of the specification's cryptographic test vectors.
#[test]
fn the_signed_event_of_the_specification_is_believed_and_signed_the_same_here() {
    const SIGNED: &str = r#"{"auth_events":[],"content":{},"depth":3,"hashes":{"sha256":"5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},"origin":"domain","origin_server_ts":1000000,"prev_events":[],"room_id":"!x:domain","sender":"@a:domain","signatures":{"domain":{"ed25519:1":"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"}},"type":"X"}"#;
    let rules = versions::rules(&RoomVersionId::V6).unwrap();
    let keys = public_keys(["domain"]);
    let verify = |json: &str| Pdu::from_remote(json.as_bytes(), rules).unwrap().verify(&keys);

    let event = verify(SIGNED).unwrap();
    assert_eq!(&*event.json, SIGNED);
    assert!(verify(&SIGNED.replace("\"depth\":3", "\"depth\":4")).is_err());

    // Without its signature and signed again with the same key, it is the same event.
    let start = SIGNED.find("{\"domain\"").unwrap();
    let end = SIGNED.find(",\"type\"").unwrap();
    let bare = format!("{}{{}}{}", &SIGNED[..start], &SIGNED[end..]);
    let bare = Pdu::from_stored(event.event_id.clone(), event.room_id.clone(), bare, rules).unwrap();
    let key = spec_key();
    let signer = build::Signer { server: "domain".try_into().unwrap(), key: &key };
    let signed = build::countersign(&bare, signer, rules).unwrap();
    assert_eq!((&*signed.json, signed.event_id), (SIGNED, event.event_id));
}
