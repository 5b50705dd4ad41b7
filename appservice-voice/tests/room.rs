//! The rules of a voice room: who comes in, who hears whom, who may mute and remove, and that everybody knows it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use appservice_voice::room::{
    Audience, DETACHED_MAX, DETACHED_SILENCE_MAX, Device, Effect, MEDIA_SILENCE_MAX, MEDIA_START_MAX, MediaRule,
    Newcomer, ParticipantId, Refusal, Room,
    access::{Access, Barred, StateEvent},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use voice_protocol::{
    methods,
    notifications::{LeaveReason, News, SpeakingState},
};

const ROOM: &str = "!r:example.org";

fn event(kind: &str, state_key: &str, content: Value) -> StateEvent {
    serde_json::from_value(
        json!({"type": kind, "state_key": state_key, "sender": "@creator:example.org", "content": content}),
    )
    .unwrap()
}

fn user(name: &str) -> String {
    format!("@{name}:example.org")
}

fn membership(name: &str, membership: &str) -> StateEvent {
    event("m.room.member", &user(name), json!({"membership": membership}))
}

fn config(user_limit: u32) -> StateEvent {
    event("org.voicechat.voice.config", "", json!({"user_limit": user_limit}))
}

fn power(users: Value, events: Value) -> StateEvent {
    event("m.room.power_levels", "", json!({"users": users, "events": events}))
}

/// A voice room in which everyone named has joined and "mod" has power 50.
fn room(names: &[&str]) -> Room {
    let mut state = vec![
        event("m.room.create", "", json!({"type": "org.voicechat.voice", "room_version": "11"})),
        power(json!({user("mod"): 50, user("admin"): 100}), json!({})),
    ];
    state.extend(names.iter().map(|name| membership(name, "join")));
    Room::new(ROOM, Access::from_state(&state))
}

fn id(name: &str) -> ParticipantId {
    ParticipantId::new(name)
}

fn newcomer(name: &str) -> Newcomer {
    Newcomer {
        id: id(name),
        device: Device { user_id: user(name), device_id: "D".to_owned() },
        muted: false,
        deafened: false,
    }
}

fn room_with(names: &[&str]) -> Room {
    let mut room = room(names);
    for name in names {
        room.join(newcomer(name), Instant::now()).unwrap();
    }
    room
}

fn ids(room: &Room) -> Vec<String> {
    room.participants().into_iter().map(|p| p.participant_id).collect()
}

/// Who left, and why, according to what the others are told.
fn departures(effects: &[Effect]) -> BTreeMap<String, LeaveReason> {
    let told = effects.iter().filter_map(|effect| match effect {
        Effect::Tell(_, News::UserLeft(left)) => Some((left.participant_id.clone(), left.reason)),
        _ => None,
    });
    told.collect()
}

#[test]
fn joining_tells_the_others_and_enters_the_call() {
    let mut room = room(&["alice", "bob"]);
    room.join(newcomer("alice"), Instant::now()).unwrap();

    let effects = room.join(newcomer("bob"), Instant::now()).unwrap();

    assert_eq!(ids(&room), ["alice", "bob"]);
    assert!(effects.contains(&Effect::Media(id("bob"), MediaRule { may_send: true, may_hear: true })));
    assert!(effects.contains(&Effect::Entered(newcomer("bob").device)));
    let told: Vec<_> =
        effects.iter().filter(|e| matches!(e, Effect::Tell(Audience::Except(_), News::UserJoined(_)))).collect();
    assert_eq!(told.len(), 1);
}

#[test]
fn only_joined_members_of_a_voice_room_come_in() {
    let mut voice = room(&["alice"]);
    let mut text =
        Room::new(ROOM, Access::from_state(&[event("m.room.create", "", json!({})), membership("alice", "join")]));

    assert_eq!(voice.join(newcomer("eve"), Instant::now()).unwrap_err(), Refusal::Barred);
    assert_eq!(text.join(newcomer("alice"), Instant::now()).unwrap_err(), Refusal::NotAVoiceRoom);
    assert!(voice.is_empty() && text.is_empty());
}

#[test]
fn a_full_room_takes_no_more_except_a_device_that_comes_back() {
    let mut room = room(&["alice", "bob", "carol"]);
    room.state_changed(&config(2));
    room.join(newcomer("alice"), Instant::now()).unwrap();
    room.join(newcomer("bob"), Instant::now()).unwrap();

    let refused = room.join(newcomer("carol"), Instant::now()).unwrap_err();
    let again = Newcomer { id: id("alice-2"), ..newcomer("alice") };
    let effects = room.join(again, Instant::now()).unwrap();

    assert_eq!(refused, Refusal::Full { user_limit: 2 });
    assert_eq!(ids(&room), ["alice-2", "bob"]);
    assert_eq!(departures(&effects), BTreeMap::from([("alice".to_owned(), LeaveReason::Replaced)]));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Exited(_))), "the membership passes on");
}

#[test]
fn mute_and_deafen_decide_who_hears_whom() {
    let mut room = room_with(&["alice", "bob"]);
    assert!(room.hears(&id("bob"), &id("alice")));
    assert!(!room.hears(&id("alice"), &id("alice")));

    room.mute_self(&id("alice"), true).unwrap();
    assert!(!room.hears(&id("bob"), &id("alice")));
    room.mute_self(&id("alice"), false).unwrap();
    room.deafen(&id("bob"), true).unwrap();
    assert!(!room.hears(&id("bob"), &id("alice")));
    room.deafen(&id("bob"), false).unwrap();
    room.subscribe(&id("bob"), &[id("alice")], false).unwrap();
    assert!(!room.hears(&id("bob"), &id("alice")));
    room.subscribe(&id("bob"), &[id("alice")], true).unwrap();

    assert!(room.hears(&id("bob"), &id("alice")) && room.hears(&id("alice"), &id("bob")));
}

#[test]
fn muting_twice_tells_once() {
    let mut room = room_with(&["alice"]);

    assert_eq!(room.mute_self(&id("alice"), true).unwrap().len(), 2);
    assert_eq!(room.mute_self(&id("alice"), true).unwrap(), []);
}

#[test]
fn a_moderator_mutes_those_below_and_nobody_else_does() {
    let mut room = room_with(&["alice", "mod", "admin"]);

    assert_eq!(room.mute_other(&id("alice"), &id("mod"), true), Err(Refusal::NotAllowed));
    assert_eq!(room.mute_other(&id("mod"), &id("admin"), true), Err(Refusal::NotAllowed));
    let effects = room.mute_other(&id("mod"), &id("alice"), true).unwrap();

    assert!(effects.contains(&Effect::Media(id("alice"), MediaRule { may_send: false, may_hear: true })));
    assert!(effects.iter().any(|e| matches!(e, Effect::Tell(Audience::Only(to), News::MutedBy(by))
        if *to == id("alice") && by.user_id == Some(user("mod")) && by.server_muted)));
}

#[test]
fn coming_back_does_not_undo_a_moderators_mute() {
    let mut room = room_with(&["alice", "mod"]);
    room.mute_other(&id("mod"), &id("alice"), true).unwrap();

    room.leave(&id("alice"), LeaveReason::Left);
    room.join(newcomer("alice"), Instant::now()).unwrap();

    assert!(room.muted(&id("alice")).unwrap().server_muted);
}

#[test]
fn a_moderator_removes_those_below() {
    let mut room = room_with(&["alice", "mod", "admin"]);

    assert_eq!(room.kick(&id("alice"), &id("mod")), Err(Refusal::NotAllowed));
    assert_eq!(room.kick(&id("mod"), &id("admin")), Err(Refusal::NotAllowed));
    let effects = room.kick(&id("mod"), &id("alice")).unwrap();

    assert_eq!(departures(&effects), BTreeMap::from([("alice".to_owned(), LeaveReason::Kicked)]));
    assert!(effects.contains(&Effect::Exited(newcomer("alice").device)));
    assert_eq!(ids(&room), ["admin", "mod"]);
}

#[test]
fn whoever_is_banned_is_out_at_once() {
    let mut room = room_with(&["alice", "bob"]);

    let effects = room.state_changed(&membership("alice", "ban"));

    assert_eq!(departures(&effects), BTreeMap::from([("alice".to_owned(), LeaveReason::Forbidden)]));
    assert_eq!(ids(&room), ["bob"]);
}

#[test]
fn losing_the_right_to_speak_mutes_and_getting_it_back_unmutes() {
    let mut room = room_with(&["alice", "mod"]);
    let users = json!({user("mod"): 50});

    let lost = room.state_changed(&power(users.clone(), json!({"org.voicechat.voice.speak": 50})));
    let muted = room.muted(&id("alice")).unwrap().server_muted;
    room.state_changed(&power(users, json!({"org.voicechat.voice.speak": 0})));

    assert!(muted && !room.muted(&id("alice")).unwrap().server_muted);
    assert!(lost.contains(&Effect::Media(id("alice"), MediaRule { may_send: false, may_hear: true })));
    assert!(!room.muted(&id("mod")).unwrap().server_muted);
}

#[test]
fn losing_the_right_to_listen_removes() {
    let mut room = room_with(&["alice", "mod"]);

    room.state_changed(&power(json!({user("mod"): 50}), json!({"org.voicechat.voice.listen": 50})));

    assert_eq!(ids(&room), ["mod"]);
}

#[test]
fn a_server_shut_out_by_the_acl_loses_its_people() {
    let mut room = room(&["alice"]);
    room.state_changed(&event("m.room.member", "@bob:evil.example:8448", json!({"membership": "join"})));
    let bob = Newcomer {
        id: id("bob"),
        device: Device { user_id: "@bob:evil.example:8448".to_owned(), device_id: "D".to_owned() },
        ..newcomer("bob")
    };
    room.join(newcomer("alice"), Instant::now()).unwrap();
    room.join(bob, Instant::now()).unwrap();

    room.state_changed(&event("m.room.server_acl", "", json!({"allow": ["*"], "deny": ["*.example", "e?il.example"]})));

    assert_eq!(ids(&room), ["alice"]);
}

#[test]
fn a_new_configuration_is_told_to_everyone() {
    let mut room = room_with(&["alice"]);

    let effects = room.state_changed(&event("org.voicechat.voice.config", "", json!({"bitrate": 32000})));

    assert!(
        matches!(&effects[..], [Effect::Tell(Audience::Everyone, News::RoomConfig(news))] if news.config.bitrate == 32000)
    );
}

#[test]
fn speech_is_told_once_and_not_of_the_muted() {
    let mut room = room_with(&["alice"]);

    assert_eq!(room.speaking(&id("alice"), -20, SpeakingState::Started).len(), 1);
    assert_eq!(room.speaking(&id("alice"), -20, SpeakingState::Started).len(), 0);
    room.mute_self(&id("alice"), true).unwrap();

    assert!(!room.participants()[0].speaking);
    assert_eq!(room.speaking(&id("alice"), -20, SpeakingState::Started).len(), 0);
}

#[test]
fn dead_connections_leave_in_time() {
    let start = Instant::now();
    let after = |time: Duration, packet_at: Option<Instant>, detached: bool| {
        let mut room = room(&["alice"]);
        room.join(newcomer("alice"), start).unwrap();
        if detached {
            room.detach(&id("alice"), start);
        }
        departures(&room.expire(start + time, |_| packet_at)).len()
    };
    let blink = Duration::from_millis(1);
    let late = start + Duration::from_secs(3600);

    assert_eq!(after(DETACHED_SILENCE_MAX - blink, Some(start), true), 0, "perhaps it connects again");
    assert_eq!(after(DETACHED_SILENCE_MAX, Some(start), true), 1, "neither socket nor packets");
    assert_eq!(after(DETACHED_MAX - blink, Some(late), true), 0);
    assert_eq!(after(DETACHED_MAX, Some(late), true), 1, "packets alone do not keep a place");
    assert_eq!(after(MEDIA_SILENCE_MAX - blink, Some(start), false), 0);
    assert_eq!(after(MEDIA_SILENCE_MAX, Some(start), false), 1, "a socket alone does not either");
    assert_eq!(after(MEDIA_START_MAX - blink, None, false), 0);
    assert_eq!(after(MEDIA_START_MAX, None, false), 1);
}

#[test]
fn power_comes_from_the_room_version_and_its_oddities() {
    let access = |version: &str, levels: Option<Value>| {
        let create = json!({"type": "org.matrix.msc3417.call", "room_version": version, "additional_creators": [user("second")]});
        let mut state = vec![event("m.room.create", "", create), membership("alice", "join")];
        state.extend(levels.map(|levels| event("m.room.power_levels", "", levels)));
        Access::from_state(&state)
    };
    let levels = json!({"users": {user("alice"): "75"}, "kick": "70", "users_default": 10});

    assert!(access("11", None).rights(&user("creator")).kick, "without levels the creator has 100");
    assert!(!access("11", Some(levels.clone())).rights(&user("creator")).kick);
    assert!(access("12", Some(levels.clone())).rights(&user("creator")).kick, "creators stand above all");
    assert!(access("12", Some(levels.clone())).rights(&user("second")).kick);
    assert!(access("6", Some(levels.clone())).rights(&user("alice")).kick, "numbers may be strings");
    assert!(!access("11", Some(levels)).rights(&user("bob")).kick);
    assert_eq!(access("11", None).may_join(&user("alice")), Ok(()));
    assert_eq!(access("11", None).may_join(&user("bob")), Err(Barred::NotJoined));
}

/// One thing that happens to a room.
#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Leave(usize),
    Mute(usize, bool),
    Deafen(usize, bool),
    MuteOther(usize, usize, bool),
    Kick(usize, usize),
    Speak(usize, bool),
    Member(usize, bool),
    Limit(u32),
    SpeakLevel(i64),
    Detach(usize),
    Expire(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..5_usize;
    let step = prop_oneof![
        4 => who.clone().prop_map(Step::Join),
        1 => who.clone().prop_map(Step::Leave),
        2 => (who.clone(), any::<bool>()).prop_map(|(a, on)| Step::Mute(a, on)),
        1 => (who.clone(), any::<bool>()).prop_map(|(a, on)| Step::Deafen(a, on)),
        2 => (who.clone(), who.clone(), any::<bool>()).prop_map(|(a, b, on)| Step::MuteOther(a, b, on)),
        1 => (who.clone(), who.clone()).prop_map(|(a, b)| Step::Kick(a, b)),
        2 => (who.clone(), any::<bool>()).prop_map(|(a, on)| Step::Speak(a, on)),
        2 => (who.clone(), any::<bool>()).prop_map(|(a, on)| Step::Member(a, on)),
        1 => (1..5_u32).prop_map(Step::Limit),
        1 => prop_oneof![Just(0), Just(50)].prop_map(Step::SpeakLevel),
        1 => who.prop_map(Step::Detach),
        1 => (0..12_u64).prop_map(Step::Expire),
    ];
    proptest::collection::vec(step, 1..80)
}

const NAMES: [&str; 5] = ["alice", "bob", "carol", "mod", "admin"];

/// What every participant would show on screen, from nothing but its join result and the news.
#[derive(Default)]
struct Screens(BTreeMap<String, BTreeMap<String, methods::Participant>>);

impl Screens {
    fn apply(&mut self, room: &Room, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Tell(audience, news) => {
                    let readers: Vec<String> = match audience {
                        Audience::Only(only) => vec![only.as_str().to_owned()],
                        Audience::Everyone => self.0.keys().cloned().collect(),
                        Audience::Except(left_out) => {
                            self.0.keys().filter(|id| *id != left_out.as_str()).cloned().collect()
                        }
                    };
                    for reader in readers {
                        if let Some(screen) = self.0.get_mut(&reader) {
                            show(screen, news);
                        }
                    }
                }
                Effect::Gone(id) => drop(self.0.remove(id.as_str())),
                Effect::Entered(device) => {
                    let everyone = room.participants();
                    let me = everyone.iter().find(|p| p.user_id == device.user_id).unwrap().participant_id.clone();
                    self.0.insert(me, everyone.into_iter().map(|p| (p.participant_id.clone(), p)).collect());
                }
                Effect::Media(..) | Effect::Unhear { .. } | Effect::Exited(_) => {}
            }
        }
    }
}

fn show(screen: &mut BTreeMap<String, methods::Participant>, news: &News) {
    match news {
        News::UserJoined(joined) => {
            drop(screen.insert(joined.participant.participant_id.clone(), joined.participant.clone()))
        }
        News::UserUpdated(updated) => {
            drop(screen.insert(updated.participant.participant_id.clone(), updated.participant.clone()))
        }
        News::UserLeft(left) => drop(screen.remove(&left.participant_id)),
        News::Speaking(speaking) => {
            if let Some(participant) = screen.get_mut(&speaking.participant_id) {
                participant.speaking = speaking.state == SpeakingState::Started;
            }
        }
        _ => {}
    }
}

proptest! {
    /// After any history: limits hold, nobody is in who may not be, media rules follow the mutes, devices entered and
    /// exited add up, and every screen shows the room as it is.
    #[test]
    fn whatever_happens_everybody_knows_who_is_in(steps in steps()) {
        let (mut room, mut now, mut serial) = (room(&NAMES), Instant::now(), 0);
        let mut screens = Screens::default();
        let mut current: BTreeMap<usize, ParticipantId> = BTreeMap::new();
        let mut rules: BTreeMap<ParticipantId, MediaRule> = BTreeMap::new();
        let mut in_call = std::collections::BTreeSet::new();
        let mut joined_members = [true; 5];
        let nobody = id("nobody");
        for step in steps {
            let of = |who: &usize| current.get(who).cloned().unwrap_or(nobody.clone());
            let full_before = room.participants().len();
            let effects = match &step {
                Step::Join(who) => {
                    serial += 1;
                    let newcomer = Newcomer { id: id(&format!("p{serial}")), ..newcomer(NAMES[*who]) };
                    let joined = room.join(newcomer.clone(), now);
                    prop_assert_eq!(joined == Err(Refusal::Barred), !joined_members[*who]);
                    if joined.is_ok() { current.insert(*who, newcomer.id); }
                    joined.unwrap_or_default()
                }
                Step::Leave(who) => room.leave(&of(who), LeaveReason::Left),
                Step::Mute(who, on) => room.mute_self(&of(who), *on).unwrap_or_default(),
                Step::Deafen(who, on) => room.deafen(&of(who), *on).unwrap_or_default(),
                Step::MuteOther(actor, target, on) => room.mute_other(&of(actor), &of(target), *on).unwrap_or_default(),
                Step::Kick(actor, target) => room.kick(&of(actor), &of(target)).unwrap_or_default(),
                Step::Speak(who, on) => {
                    let state = if *on { SpeakingState::Started } else { SpeakingState::Stopped };
                    room.speaking(&of(who), -30, state)
                }
                Step::Member(who, on) => {
                    joined_members[*who] = *on;
                    room.state_changed(&membership(NAMES[*who], if *on { "join" } else { "leave" }))
                }
                Step::Limit(limit) => room.state_changed(&config(*limit)),
                Step::SpeakLevel(level) => {
                    let users = json!({user("mod"): 50, user("admin"): 100});
                    room.state_changed(&power(users, json!({"org.voicechat.voice.speak": level})))
                }
                Step::Detach(who) => { room.detach(&of(who), now); Vec::new() }
                Step::Expire(seconds) => {
                    now += Duration::from_secs(*seconds);
                    let packets_until = now;
                    room.expire(now, |_| Some(packets_until))
                }
            };

            for effect in &effects {
                match effect {
                    Effect::Media(id, rule) => drop(rules.insert(id.clone(), *rule)),
                    Effect::Gone(id) => prop_assert!(rules.remove(id).is_some()),
                    Effect::Entered(device) => drop(in_call.insert(device.clone())),
                    Effect::Exited(device) => prop_assert!(in_call.remove(device)),
                    _ => {}
                }
            }
            screens.apply(&room, &effects);
            let everyone = room.participants();
            if let Step::Join(_) = step {
                prop_assert!(everyone.len() <= full_before.max(room.view().config.user_limit as usize));
            }
            let as_shown: BTreeMap<_, _> = everyone.iter().map(|p| (p.participant_id.clone(), p.clone())).collect();
            prop_assert_eq!(screens.0.len(), everyone.len());
            for (reader, screen) in &screens.0 {
                prop_assert_eq!(screen, &as_shown, "the screen of {}", reader);
            }
            for participant in &everyone {
                let rule = rules[&id(&participant.participant_id)];
                prop_assert_eq!(rule.may_send, !participant.muted && !participant.server_muted);
                prop_assert_eq!(rule.may_hear, !participant.deafened);
                prop_assert!(rule.may_send || !participant.speaking);
                let who = NAMES.iter().position(|name| user(name) == participant.user_id).unwrap();
                prop_assert!(joined_members[who]);
            }
            let devices: std::collections::BTreeSet<_> = room.devices().cloned().collect();
            prop_assert_eq!(&devices, &in_call);
            prop_assert_eq!(devices.len(), everyone.len());
        }
    }
}
