//! The authorisation rules, one case a line, in every version we take part in.

use room::{auth, build::auth_types, event::kind, versions};
use ruma::{
    CanonicalJsonObject,
    serde::{Base64, base64::Standard},
    signatures::sign_json,
};
use serde_json::{Value, json, value::to_raw_value};

use crate::world::{ALICE, BOB, CAROL, World, spec_key, user};

const DAVE: &str = "@dave:d.example";
const EVE: &str = "@eve:e.example";

/// One state event that stands before the case.
type Given = (&'static str, &'static str, &'static str, Value);

/// What somebody sends, and in which versions it is allowed.
struct Case {
    says: &'static str,
    given: Vec<Given>,
    sender: &'static str,
    kind: &'static str,
    state_key: Option<&'static str>,
    content: Value,
    allowed: fn(u32) -> bool,
}

fn always(_: u32) -> bool {
    true
}

fn never(_: u32) -> bool {
    false
}

/// Alice created the room, Bob has a power of 50, Carol none; Dave was never there, Eve is banned.
fn base(version: &str) -> World {
    let (mut world, mut last) = World::new(version);
    let mut users = json!({BOB: 50});
    if version != "12" {
        users[ALICE] = json!(100);
    }
    let steps: [Given; 5] = [
        (ALICE, kind::POWER_LEVELS, "", json!({"users": users, "invite": 10, "redact": 50})),
        (ALICE, kind::JOIN_RULES, "", json!({"join_rule": "public"})),
        (BOB, kind::MEMBER, BOB, json!({"membership": "join"})),
        (CAROL, kind::MEMBER, CAROL, json!({"membership": "join"})),
        (ALICE, kind::MEMBER, EVE, json!({"membership": "ban"})),
    ];
    for (sender, kind, key, content) in steps {
        last = world.state(&[&last], sender, kind, key, content);
    }
    world
}

fn run(cases: Vec<Case>) {
    for version in versions::UNDERSTOOD {
        let number: u32 = version.as_str().parse().unwrap();
        for case in &cases {
            let mut world = base(version.as_str());
            let mut last = newest(&world);
            for (sender, kind, key, content) in &case.given {
                last = world.state(&[&last], sender, kind, key, content.clone());
            }
            let before = world.before(&[&last]);
            let event = world.make(&[&last], case.sender, case.kind, case.state_key, case.content.clone());

            let answer = world.allows(&event, &before);

            let allowed = (case.allowed)(number);
            assert_eq!(answer.is_ok(), allowed, "version {version}: {}: {answer:?}", case.says);
        }
    }
}

fn newest(world: &World) -> ruma::OwnedEventId {
    world.events.values().max_by_key(|event| event.depth).unwrap().event_id.clone()
}

fn member(
    says: &'static str,
    sender: &'static str,
    target: &'static str,
    membership: &'static str,
    allowed: fn(u32) -> bool,
) -> Case {
    Case {
        says,
        given: vec![],
        sender,
        kind: kind::MEMBER,
        state_key: Some(target),
        content: json!({"membership": membership}),
        allowed,
    }
}

fn rule(join_rule: &str) -> Given {
    (ALICE, kind::JOIN_RULES, "", json!({"join_rule": join_rule}))
}

fn after(given: Vec<Given>, case: Case) -> Case {
    Case { given, ..case }
}

#[test]
fn who_may_join() {
    let invited: Given = (ALICE, kind::MEMBER, DAVE, json!({"membership": "invite"}));
    run(vec![
        member("anybody joins a public room", DAVE, DAVE, "join", always),
        member("nobody joins somebody else", ALICE, DAVE, "join", never),
        member("nobody banned joins", EVE, EVE, "join", never),
        member("a member joins again to change a name", CAROL, CAROL, "join", always),
        after(vec![rule("invite")], member("uninvited", DAVE, DAVE, "join", never)),
        after(vec![rule("invite"), invited.clone()], member("invited", DAVE, DAVE, "join", always)),
        after(vec![rule("private"), invited.clone()], member("private", DAVE, DAVE, "join", never)),
        after(
            vec![rule("knock"), invited.clone()],
            member("invited where one knocks", DAVE, DAVE, "join", |version| version >= 7),
        ),
        after(
            vec![rule("restricted"), invited.clone()],
            member("invited to a restricted room", DAVE, DAVE, "join", |version| version >= 8),
        ),
        after(
            vec![rule("knock_restricted"), invited],
            member("invited, knock or restricted", DAVE, DAVE, "join", |version| version >= 10),
        ),
        after(vec![rule("restricted")], member("unvouched", DAVE, DAVE, "join", never)),
    ]);
}

#[test]
fn who_may_let_others_into_a_restricted_room() {
    let vouched = |says, by: &str, allowed| Case {
        content: json!({"membership": "join", "join_authorised_via_users_server": by}),
        given: vec![rule("restricted")],
        ..member(says, DAVE, DAVE, "join", allowed)
    };
    run(vec![
        vouched("somebody who may invite", BOB, |version| version >= 8),
        vouched("somebody who may not invite", CAROL, never),
        vouched("somebody not in the room", "@frank:f.example", never),
    ]);
}

#[test]
fn who_may_invite_remove_and_ban() {
    let gone: Given = (ALICE, kind::MEMBER, CAROL, json!({"membership": "leave"}));
    let invited: Given = (ALICE, kind::MEMBER, DAVE, json!({"membership": "invite"}));
    run(vec![
        member("with enough power one invites", BOB, DAVE, "invite", always),
        member("without one does not", CAROL, DAVE, "invite", never),
        member("nobody outside invites", DAVE, "@frank:f.example", "invite", never),
        member("nobody invites a member", BOB, CAROL, "invite", never),
        member("nobody invites somebody banned", ALICE, EVE, "invite", never),
        member("a member leaves", CAROL, CAROL, "leave", always),
        member("who is not in cannot leave", DAVE, DAVE, "leave", never),
        member("who is banned cannot leave", EVE, EVE, "leave", never),
        after(vec![invited.clone()], member("an invite is declined", DAVE, DAVE, "leave", always)),
        after(vec![invited], member("an invite is withdrawn", BOB, DAVE, "leave", always)),
        member("with power one removes", BOB, CAROL, "leave", always),
        member("but not one's superior", BOB, ALICE, "leave", never),
        member("without power one removes nobody", CAROL, BOB, "leave", never),
        after(vec![gone], member("who is out removes nobody", CAROL, BOB, "leave", never)),
        member("with power one lifts a ban", BOB, EVE, "leave", always),
        member("without one does not lift it", CAROL, EVE, "leave", never),
        member("with power one bans", BOB, CAROL, "ban", always),
        member("also somebody who never came", BOB, DAVE, "ban", always),
        member("but not one's superior, either", BOB, ALICE, "ban", never),
        member("without power one bans nobody", CAROL, DAVE, "ban", never),
        member("nobody is something unheard of", CAROL, CAROL, "org.example.odd", never),
    ]);
}

#[test]
fn who_may_knock() {
    let knock = |says, target, allowed: fn(u32) -> bool| member(says, target, target, "knock", allowed);
    run(vec![
        knock("nobody where one need not", DAVE, never),
        after(vec![rule("knock")], knock("one from outside", DAVE, |version| version >= 7)),
        after(vec![rule("knock")], knock("not a member", CAROL, never)),
        after(vec![rule("knock")], knock("not somebody banned", EVE, never)),
        after(vec![rule("knock_restricted")], knock("where the rule is either", DAVE, |version| version >= 10)),
        after(vec![rule("knock")], member("for somebody else", CAROL, DAVE, "knock", never)),
    ]);
}

fn event(
    says: &'static str,
    sender: &'static str,
    kind: &'static str,
    state_key: Option<&'static str>,
    content: Value,
    allowed: fn(u32) -> bool,
) -> Case {
    Case { says, given: vec![], sender, kind, state_key, content, allowed }
}

#[test]
fn who_may_send_what() {
    let silent: Given = (
        ALICE,
        kind::POWER_LEVELS,
        "",
        json!({"users": {BOB: 50}, "events_default": 60, "users_default": 0,
               "events": {"org.example.open": 0, "m.room.topic": 0}}),
    );
    let any = || json!({});
    run(vec![
        event("a member speaks", CAROL, kind::MESSAGE, None, any(), always),
        event("who is outside does not", DAVE, kind::MESSAGE, None, any(), never),
        event("who is banned does not", EVE, kind::MESSAGE, None, any(), never),
        event("state needs power", CAROL, kind::TOPIC, Some(""), any(), never),
        event("which Bob has", BOB, kind::TOPIC, Some(""), any(), always),
        event("nobody speaks for another", BOB, "org.example.mine", Some(CAROL), any(), never),
        event("but for oneself", BOB, "org.example.mine", Some(BOB), any(), always),
        after(vec![silent.clone()], event("the default may be to be silent", BOB, kind::MESSAGE, None, any(), never)),
        after(vec![silent.clone()], event("with exceptions", CAROL, "org.example.open", None, any(), always)),
        after(vec![silent], event("also for state", CAROL, kind::TOPIC, Some(""), any(), always)),
        event("an invite by e-mail needs power", CAROL, kind::THIRD_PARTY_INVITE, Some("t"), any(), never),
        event("to invite", BOB, kind::THIRD_PARTY_INVITE, Some("t"), any(), always),
        event("a room is created once", ALICE, kind::CREATE, Some(""), any(), never),
        event("aliases of one's own server", CAROL, kind::ALIASES, Some("c.example"), any(), |version| version < 6),
        event("aliases of another", CAROL, kind::ALIASES, Some("b.example"), any(), never),
    ]);
}

#[test]
fn who_may_change_the_powers() {
    let levels = |says, sender, content: Value, allowed: fn(u32) -> bool| {
        event(says, sender, kind::POWER_LEVELS, Some(""), content, allowed)
    };
    // Alice stands in the levels of every version but the twelfth, where she must not.
    let old = |version: u32| version < 12;
    let twelve = |version: u32| version == 12;
    let same = json!({BOB: 50, ALICE: 100});
    let by_bob = |more: Value| {
        let mut content = json!({"users": {BOB: 50, ALICE: 100}, "invite": 10, "redact": 50});
        content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        content
    };
    run(vec![
        levels("nothing changes", BOB, by_bob(json!({})), old),
        levels("creators are not listed", ALICE, by_bob(json!({})), old),
        levels("without the creator", ALICE, json!({"users": {BOB: 50}, "invite": 10, "redact": 50}), always),
        levels("Carol may not", CAROL, by_bob(json!({})), never),
        levels("up to one's own power", BOB, by_bob(json!({"users": {BOB: 50, ALICE: 100, CAROL: 50}})), old),
        levels("not above it", BOB, by_bob(json!({"users": {BOB: 50, ALICE: 100, CAROL: 51}})), never),
        levels("not above one's own", BOB, by_bob(json!({"users": {BOB: 51, ALICE: 100}})), never),
        levels("one may resign", BOB, by_bob(json!({"users": {ALICE: 100}})), old),
        levels("not demote a superior", BOB, by_bob(json!({"users": {BOB: 50, ALICE: 0}})), never),
        levels("not raise a bar above oneself", BOB, by_bob(json!({"ban": 51})), never),
        levels("raise it up to oneself", BOB, by_bob(json!({"kick": 50})), old),
        levels("the creator of twelve has all power", ALICE, json!({"users": {BOB: 5000}, "ban": 1000}), twelve),
        levels("no power for a non-user", ALICE, json!({"users": {"bob": 1}}), never),
        levels("levels in strings", BOB, by_bob(json!({"kick": "50"})), |version| version < 10),
        levels("a level that is none", BOB, by_bob(json!({"kick": []})), never),
        levels("notifying others", BOB, by_bob(json!({"notifications": {"room": 60}})), |version| version < 6),
        levels(
            "notifications in words",
            BOB,
            by_bob(json!({"users": same, "notifications": {"room": "50"}})),
            |version| version < 10,
        ),
    ]);
}

#[test]
fn what_a_create_event_must_be() {
    let allowed = |version: &str, content: Value| {
        let (mut world, join) = World::new(version);
        let create = world.get(&world.get(&join).prev_events[0]);
        assert!(auth::check_state_independent(&create, world.rules, |_| None).is_ok());
        let event = world.make(&[&join], ALICE, kind::CREATE, Some(""), content);
        auth::check_state_independent(&event, world.rules, |_| None).map_err(|no| no.reason)
    };
    for version in versions::UNDERSTOOD {
        let refused = allowed(version.as_str(), json!({"creator": ALICE})).unwrap_err();
        assert!(refused.contains("previous events"), "version {version}: {refused}");
    }
}

#[test]
fn additional_creators_must_be_users_in_version_twelve() {
    for (creators, good) in
        [(json!([BOB]), true), (json!([]), true), (json!(BOB), false), (json!(["bob"]), false), (json!([1]), false)]
    {
        for version in ["11", "12"] {
            let more = json!({"additional_creators": creators});
            let (world, _) = World::created_with(version, more);
            let create = world.events.values().find(|event| event.is_create()).unwrap();
            let answer = auth::check_state_independent(create, world.rules, |_| None);
            assert_eq!(answer.is_ok(), good || version == "11", "{version}: {creators}");
        }
    }
}

#[test]
fn a_room_closed_to_other_servers_is_closed() {
    for version in versions::UNDERSTOOD {
        let (mut world, join) = World::created_with(version.as_str(), json!({"m.federate": false}));
        let open = world.state(&[&join], ALICE, kind::JOIN_RULES, "", json!({"join_rule": "public"}));
        let before = world.before(&[&open]);
        let mut joins = |user: &str| {
            let event = world.make(&[&open], user, kind::MEMBER, Some(user), json!({"membership": "join"}));
            world.allows(&event, &before)
        };
        assert!(joins("@colleague:a.example").is_ok());
        assert!(joins(BOB).unwrap_err().contains("not federated"), "version {version}");
    }
}

#[test]
fn only_the_right_witnesses_of_this_room_count() {
    for version in ["6", "11", "12"] {
        let mut world = base(version);
        let last = newest(&world);
        let topic = world.state(&[&last], ALICE, kind::TOPIC, "", json!({}));
        let event = world.make(&[&last], BOB, kind::MESSAGE, None, json!({}));
        let judge = |world: &World, event: &room::Pdu| {
            auth::check_state_independent(event, world.rules, |id| world.events.get(id).cloned())
                .map_err(|no| no.reason)
        };
        assert!(judge(&world, &event).is_ok());

        let mut twice = event.clone();
        twice.auth_events.push(twice.auth_events[0].clone());
        assert!(judge(&world, &twice).unwrap_err().contains("duplicate"));
        let mut needless = event.clone();
        needless.auth_events.push(topic);
        assert!(judge(&world, &needless).unwrap_err().contains("unexpected"));
        let mut strange = event.clone();
        strange.auth_events.push("$nobody_has_it".try_into().unwrap());
        assert!(judge(&world, &strange).unwrap_err().contains("failed to find"));
        let mut elsewhere = event.clone();
        elsewhere.room_id = "!elsewhere:a.example".try_into().unwrap();
        assert!(judge(&world, &elsewhere).unwrap_err().contains("same room"));
        let first = event.auth_events[0].clone();
        let rejected = world.events[&first].as_ref().clone().with_rejected(true);
        world.events.insert(first, rejected.into());
        assert!(judge(&world, &event).unwrap_err().contains("rejected"), "version {version}");
    }
}

#[test]
fn an_invite_by_email_is_believed_when_signed_with_the_key_it_was_announced_with() {
    let key: Base64<Standard> = Base64::new(spec_key().public_key().to_vec());
    let other: Base64<Standard> = Base64::new(vec![7; 32]);
    for version in versions::UNDERSTOOD {
        for (announced, mxid, good) in [(&key, DAVE, true), (&other, DAVE, false), (&key, CAROL, false)] {
            let mut world = base(version.as_str());
            let last = newest(&world);
            let content = json!({"display_name": "d…@…", "key_validity_url": "https://i.example",
                "public_key": announced, "public_keys": [{"public_key": announced}]});
            let invite = world.state(&[&last], BOB, kind::THIRD_PARTY_INVITE, "token", content);
            let mut signed: CanonicalJsonObject =
                serde_json::from_value(json!({"mxid": mxid, "token": "token"})).unwrap();
            sign_json("i.example", &spec_key(), &mut signed).unwrap();
            let content = json!({"membership": "invite",
                "third_party_invite": {"display_name": "d", "signed": signed}});
            let before = world.before(&[&invite]);
            let event = world.make(&[&invite], BOB, kind::MEMBER, Some(DAVE), content);

            assert!(event.auth_events.contains(&invite));
            let answer = world.allows(&event, &before);
            assert_eq!(answer.is_ok(), good, "version {version}: {answer:?}");
        }
    }
}

#[test]
fn the_witnesses_an_event_needs_depend_on_what_it_says() {
    let types = |version: &str, kind: &str, key: Option<&str>, content: Value| {
        let rules = versions::rules(&version.try_into().unwrap()).unwrap();
        let content = to_raw_value(&content).unwrap();
        auth_types(kind, user(BOB), key, &content, rules)
    };
    let keys = |version, kind, key, content| -> Vec<String> {
        let mut keys: Vec<_> = types(version, kind, key, content)
            .unwrap()
            .into_iter()
            .map(|(kind, key)| format!("{} {key}", kind.trim_start_matches("m.room.")))
            .collect();
        keys.sort();
        keys
    };
    let bob = "member @bob:b.example";
    assert!(keys("12", kind::CREATE, Some(""), json!({})).is_empty());
    assert_eq!(keys("11", kind::MESSAGE, None, json!({})), ["create ", bob, "power_levels "]);
    assert_eq!(keys("12", kind::MESSAGE, None, json!({})), [bob, "power_levels "]);
    assert_eq!(
        keys(
            "12",
            kind::MEMBER,
            Some(BOB),
            json!({"membership": "join",
            "join_authorised_via_users_server": ALICE})
        ),
        ["join_rules ", "member @alice:a.example", bob, "power_levels "]
    );
    assert_eq!(
        keys(
            "7",
            kind::MEMBER,
            Some(BOB),
            json!({"membership": "join",
            "join_authorised_via_users_server": ALICE})
        ),
        ["create ", "join_rules ", bob, "power_levels "]
    );
    assert_eq!(
        keys("12", kind::MEMBER, Some(CAROL), json!({"membership": "ban"})),
        [bob, "member @carol:c.example", "power_levels "]
    );
    assert!(types("12", kind::MEMBER, Some(BOB), json!({})).is_err());
    assert!(types("12", kind::MEMBER, None, json!({"membership": "join"})).is_err());
}
