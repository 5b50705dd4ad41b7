//! Events as clients see them, whole, stripped and redacted.

use room::{
    Pdu,
    auth::{Powers, facts},
    build::{Draft, Place},
    event::{RoomIdShown, STRIPPED_TYPES, Unsigned, kind, stripped},
    redact::{redacted, takes_effect},
    versions,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, TransactionId, UInt,
    events::{AnyStrippedStateEvent, AnySyncTimelineEvent, room::member::MembershipState},
};
use serde_json::{Value, json, value::to_raw_value};

use crate::world::{ALICE, BOB, CAROL, World, public_keys, user};

fn shown(event: &Pdu, unsigned: &Unsigned<'_>, room_id: RoomIdShown) -> Value {
    let mut out = Vec::new();
    event.write_client(unsigned, room_id, &mut out);
    serde_json::from_slice(&out).unwrap()
}

/// A redaction of `target` by `sender`, with `content` beside what the version adds.
fn redaction(world: &World, sender: &str, target: &OwnedEventId, content: Value) -> Pdu {
    let mut draft = Draft::message(kind::REDACTION, user(sender).to_owned(), to_raw_value(&content).unwrap());
    draft.redacts = Some(target.clone());
    let place = Place {
        room_id: Some(world.room_id.clone()),
        prev_events: vec![target.clone()],
        auth_events: vec![],
        depth: 9,
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(5_u32)),
    };
    world.sign(&draft, &place)
}

#[test]
fn a_client_sees_what_the_specification_lists_and_nothing_of_the_graph() {
    let (mut world, join) = World::new("12");
    let event = world.make(&[&join], ALICE, kind::TOPIC, Some(""), json!({"topic": "\"quoted\"\n"}));

    assert_eq!(
        shown(&event, &Unsigned::default(), RoomIdShown::Yes),
        json!({
            "type": "m.room.topic",
            "content": {"topic": "\"quoted\"\n"},
            "event_id": event.event_id,
            "sender": ALICE,
            "origin_server_ts": event.origin_server_ts_ms(),
            "state_key": "",
            "room_id": world.room_id,
        })
    );
    let synced = shown(&event, &Unsigned::default(), RoomIdShown::No);
    assert_eq!(synced.get("room_id"), None);
    let message = world.make(&[&join], ALICE, kind::MESSAGE, None, json!({}));
    assert_eq!(shown(&message, &Unsigned::default(), RoomIdShown::No).get("state_key"), None);
}

#[test]
fn the_create_event_of_version_twelve_names_its_room_to_clients() {
    let (world, _) = World::new("12");
    let create = world.events.values().find(|event| event.is_create()).unwrap();
    let seen = shown(create, &Unsigned::default(), RoomIdShown::Yes);
    assert_eq!(seen["room_id"], json!(world.room_id));
}

#[test]
fn a_type_leaves_under_the_name_it_came_with() {
    let (mut world, join) = World::new("12");
    let event = world.make(&[&join], ALICE, "m.call.member", Some("_x"), json!({}));
    let seen = shown(&event, &Unsigned::default(), RoomIdShown::No);
    assert_eq!(seen["type"], json!("m.call.member"));
    assert!(event.json.contains("\"m.call.member\""));
}

#[test]
fn what_the_server_adds_stands_under_unsigned_and_only_if_there_is_some() {
    let (mut world, join) = World::new("11");
    let event = world.make(&[&join], ALICE, kind::MEMBER, Some(ALICE), json!({"membership": "leave"}));
    let transaction_id: &TransactionId = "m123".into();
    let (previous, relations) = (to_raw_value(&json!({"membership": "join"})).unwrap(), json!({}));
    let relations = to_raw_value(&relations).unwrap();
    let unsigned = Unsigned {
        age_ms: Some(42),
        transaction_id: Some(transaction_id),
        prev_content: Some(&previous),
        prev_sender: Some(user(ALICE)),
        replaces_state: Some(&join),
        membership: Some(&MembershipState::Leave),
        relations: Some(&relations),
        ..Unsigned::default()
    };

    assert_eq!(
        shown(&event, &unsigned, RoomIdShown::No)["unsigned"],
        json!({
            "age": 42,
            "transaction_id": "m123",
            "prev_content": {"membership": "join"},
            "prev_sender": ALICE,
            "replaces_state": join,
            "membership": "leave",
            "m.relations": {},
        })
    );
    assert_eq!(shown(&event, &Unsigned::default(), RoomIdShown::No).get("unsigned"), None);
}

#[test]
fn what_is_written_for_clients_is_what_ruma_reads() {
    let (mut world, join) = World::new("11");
    let event = world.make(&[&join], ALICE, kind::MESSAGE, None, json!({"msgtype": "m.text", "body": "b"}));
    let raw = event.to_client::<AnySyncTimelineEvent>(&Unsigned::default(), RoomIdShown::No);
    assert_eq!(raw.deserialize().unwrap().event_id(), event.event_id);
}

#[test]
fn clients_old_and_new_find_what_a_redaction_redacts() {
    for version in ["6", "10", "11", "12"] {
        let (world, join) = World::new(version);
        for content in [json!({}), json!({"reason": "spam"})] {
            let event = redaction(&world, ALICE, &join, content.clone());
            let seen = shown(&event, &Unsigned::default(), RoomIdShown::No);
            let mut expected = content;
            expected["redacts"] = json!(join);
            assert_eq!(seen["redacts"], json!(join), "version {version}");
            assert_eq!(seen["content"], expected, "version {version}");
        }
    }
}

#[test]
fn only_the_place_a_version_prescribes_says_what_is_redacted() {
    // Version 11 and later look into the content, others beside it; the other place is hearsay.
    for (version, in_content) in [("10", false), ("11", true)] {
        let (mut world, join) = World::new(version);
        let content = json!({"redacts": "$from_content"});
        let event = world.make(&[&join], ALICE, kind::REDACTION, None, content);
        assert_eq!(event.redacts.is_some(), in_content, "version {version}");
    }
}

#[test]
fn stripped_state_tells_type_key_sender_and_content() {
    let (world, join) = World::new("12");
    let raw = stripped::<AnyStrippedStateEvent>(&world.get(&join));
    let value: Value = serde_json::from_str(raw.json().get()).unwrap();
    assert_eq!(
        value,
        json!({"type": kind::MEMBER, "state_key": ALICE, "sender": ALICE,
               "content": {"membership": "join"}})
    );
    assert!(raw.deserialize().is_ok());
    assert_eq!(STRIPPED_TYPES[0], kind::CREATE);
}

#[test]
fn a_redacted_event_keeps_its_id_its_signature_and_what_its_version_protects() {
    // (version, type, content, what is left)
    let all = json!({"membership": "join", "displayname": "A", "join_authorised_via_users_server": ALICE});
    let levels = json!({"ban": 50, "invite": 10, "users": {BOB: 50}, "notifications": {"room": 20}});
    let rules = json!({"join_rule": "restricted", "allow": [], "note": 1});
    let cases = [
        ("6", kind::MEMBER, all.clone(), json!({"membership": "join"})),
        ("9", kind::MEMBER, all, json!({"membership": "join", "join_authorised_via_users_server": ALICE})),
        ("10", kind::POWER_LEVELS, levels.clone(), json!({"ban": 50, "users": {BOB: 50}})),
        ("11", kind::POWER_LEVELS, levels, json!({"ban": 50, "invite": 10, "users": {BOB: 50}})),
        ("7", kind::JOIN_RULES, rules.clone(), json!({"join_rule": "restricted"})),
        ("8", kind::JOIN_RULES, rules, json!({"join_rule": "restricted", "allow": []})),
        ("12", kind::TOPIC, json!({"topic": "t"}), json!({})),
        ("5", kind::ALIASES, json!({"aliases": ["#a:a.example"]}), json!({"aliases": ["#a:a.example"]})),
        ("6", kind::ALIASES, json!({"aliases": ["#a:a.example"]}), json!({})),
    ];
    for (version, kind, content, left) in cases {
        let (mut world, join) = World::new(version);
        let event = world.make(&[&join], ALICE, kind, Some(ALICE), content);

        let less = redacted(&event, world.rules).unwrap();

        let seen: Value = serde_json::from_str(less.content.get()).unwrap();
        assert_eq!(seen, left, "{kind} in version {version}");
        let again = Pdu::from_remote(less.json.as_bytes(), world.rules).unwrap();
        assert_eq!(again.event_id(), event.event_id);
        assert!(again.verify(&public_keys(["a.example"])).is_ok());
        assert_eq!(redacted(&less, world.rules).unwrap().json, less.json);
    }
}

#[test]
fn a_redaction_takes_effect_with_the_power_to_redact_or_on_ones_own_server() {
    let (mut world, join) = World::created_with("11", json!({}));
    let powers = json!({"users": {ALICE: 100, BOB: 50}, "redact": 50});
    let powers = world.state(&[&join], ALICE, kind::POWER_LEVELS, "", powers);
    let by_carol = world.make(&[&join], CAROL, kind::MESSAGE, None, json!({"body": "x"}));
    let create = world.events.values().find(|event| event.is_create()).unwrap().clone();
    let powers = Powers::new(&create, Some(&world.get(&powers)), world.rules);
    let effect = |sender: &str| {
        let event = redaction(&world, sender, &by_carol.event_id, json!({}));
        takes_effect(&event, &by_carol, &powers)
    };

    assert!(effect(ALICE) && effect(BOB) && effect(CAROL));
    assert!(effect("@carols_colleague:c.example"));
    assert!(!effect("@dave:d.example"));
    let of_another = redaction(&world, ALICE, &join, json!({}));
    assert!(!takes_effect(&of_another, &by_carol, &powers));
    let rejected = redaction(&world, ALICE, &by_carol.event_id, json!({})).with_rejected(true);
    assert!(!takes_effect(&rejected, &by_carol, &powers));
}

#[test]
fn facts_about_a_room_have_their_defaults_where_its_state_says_nothing_sensible() {
    let (mut world, join) = World::created_with(
        "12",
        json!({"additional_creators": [BOB], "type": "m.space", "m.federate": false,
               "predecessor": {"room_id": "!old"}}),
    );
    let create = world.events.values().find(|event| event.is_create()).unwrap().clone();
    assert_eq!(facts::room_version(&create).as_str(), "12");
    assert_eq!(facts::creators(&create, world.rules).len(), 2);
    assert_eq!(facts::room_type(&create).unwrap().as_str(), "m.space");
    assert!(!facts::federates(&create));
    assert_eq!(facts::predecessor(&create).unwrap().as_str(), "!old");

    let mut odd = |kind: &str, content: Value| world.make(&[&join], ALICE, kind, Some(""), content);
    let rule = odd(kind::JOIN_RULES, json!({"join_rule": 7}));
    assert_eq!(facts::join_rule(Some(&rule)).as_str(), "invite");
    let visibility = odd(kind::HISTORY_VISIBILITY, json!({"history_visibility": "org.odd"}));
    assert_eq!(facts::history_visibility(Some(&visibility)).as_str(), "shared");
    let restricted = odd(
        kind::JOIN_RULES,
        json!({"join_rule": "restricted", "allow": [
            {"type": "m.room_membership", "room_id": "!a"}, {"type": "odd", "room_id": "!b"},
            {"type": "m.room_membership"}, 4,
        ]}),
    );
    assert_eq!(facts::allowed_rooms(&restricted), ["!a"]);
    assert_eq!(facts::membership(&rule), MembershipState::Leave);
    assert!(!facts::guests_allowed(None));
}

#[test]
fn a_rooms_access_list_says_which_servers_take_part() {
    let (mut world, join) = World::new("12");
    let mut list = |content: Value| world.make(&[&join], ALICE, kind::SERVER_ACL, Some(""), content);
    let allowed = |list: &Pdu, server: &str| facts::server_is_allowed(Some(list), server.try_into().unwrap());
    let good = list(json!({"allow": ["*", 7], "deny": ["*.evil.example"], "allow_ip_literals": false}));
    assert!(allowed(&good, "good.example") && allowed(&good, "good.example:8448"));
    assert!(!allowed(&good, "very.EVIL.example:1") && !allowed(&good, "1.2.3.4"));
    assert!(!allowed(&list(json!({})), "good.example"));
    assert!(!allowed(&list(json!({"allow": "*"})), "good.example"));
    assert!(facts::server_is_allowed(None, "good.example".try_into().unwrap()));
}

#[test]
fn powers_are_read_from_odd_levels_as_far_as_they_make_sense() {
    let content = json!({
        "users": {BOB: "75", CAROL: [], "not a user": 3}, "users_default": null,
        "events": {"m.room.name": "20", "m.room.topic": {}}, "ban": "30", "kick": {},
        "notifications": {"room": 10},
    });
    for (version, bob, name, ban) in [("9", 75, 20, 30), ("10", 0, 50, 50)] {
        let (mut world, join) = World::new(version);
        let event = world.make(&[&join], ALICE, kind::POWER_LEVELS, Some(""), content.clone());
        let create = world.events.values().find(|event| event.is_create()).unwrap().clone();
        let powers = Powers::new(&create, Some(&event), world.rules);

        assert_eq!(powers.of(user(BOB)), ruma::Int::from(bob), "version {version}");
        assert_eq!(powers.of(user(CAROL)), ruma::int!(0));
        assert_eq!(powers.needed_to_set("m.room.name"), ruma::Int::from(name));
        assert_eq!(powers.needed_to_set("m.room.topic"), ruma::int!(50));
        assert_eq!(powers.needed(room::auth::PowerField::Ban), ruma::Int::from(ban));
        assert_eq!(powers.needed(room::auth::PowerField::Kick), ruma::int!(50));
        assert_eq!(powers.needed_to_notify("room"), ruma::int!(10));
    }
}

#[test]
fn creators_are_all_powerful_from_version_twelve_on_and_only_where_nothing_is_said_before() {
    for version in versions::UNDERSTOOD {
        let (world, _) = World::new(version.as_str());
        let create = world.events.values().find(|event| event.is_create()).unwrap().clone();
        let powers = Powers::new(&create, None, world.rules);
        let infinite = powers.of(user(ALICE)) > ruma::int!(1000);
        assert_eq!(infinite, version.as_str() == "12");
        assert!(powers.of(user(ALICE)) >= ruma::int!(100));
        assert!(powers.can_ban(user(ALICE), user(BOB)) && !powers.can_ban(user(BOB), user(ALICE)));
        assert!(!powers.can_kick(user(ALICE), user(ALICE)));
    }
}
