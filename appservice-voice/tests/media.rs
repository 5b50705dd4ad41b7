//! Real WebRTC clients, real UDP on loopback, the real SFU: who hears what.
//!
//! Method: each client speaks packets with a payload that names it, and listens for the others' payloads.

#[path = "support/talker.rs"]
mod talker;

use std::{net::UdpSocket, sync::Arc};

use appservice_voice::{
    room::{MediaRule, ParticipantId},
    sfu::{Happening, Ports, Sfu, peer::OfferFault},
};
use talker::{Talker, until};
use tokio::sync::mpsc;
use voice_protocol::{methods::MidMap, notifications::SpeakingState};

const OPEN: MediaRule = MediaRule { may_send: true, may_hear: true };
const LOUD: i8 = -20;
const QUIET: i8 = -100;

struct Stage {
    sfu: Sfu,
    happenings: mpsc::Receiver<Happening>,
    runtime: tokio::runtime::Runtime,
    room: Arc<str>,
}

fn id(name: &str) -> ParticipantId {
    ParticipantId::new(name)
}

impl Stage {
    fn new() -> Self {
        let (control, happenings) = mpsc::channel(1000);
        let ports = Ports { bind: [127, 0, 0, 1].into(), first: 0, last: 0, shards: 1, advertised: Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { sfu: Sfu::start(&ports, &control).unwrap(), happenings, runtime, room: "!room:example.org".into() }
    }

    fn offer(&self, name: &str, sdp: String) -> Result<voice_protocol::methods::Answered, OfferFault> {
        self.runtime.block_on(self.sfu.offer(&id(name), 1, sdp))
    }

    /// A client that has joined and is connected.
    fn joins(&self, name: &str, slots: usize) -> (Talker, MidMap) {
        self.sfu.admit(&id(name), &self.room, OPEN);
        self.connects(name, slots)
    }

    fn connects(&self, name: &str, slots: usize) -> (Talker, MidMap) {
        let (mut talker, offer) = Talker::new(slots);
        let answered = self.offer(name, offer).unwrap();
        talker.accept(&answered.sdp);
        until(&mut [&mut talker], |talkers| talkers[0].connected);
        (talker, answered.mid_map)
    }

    /// The map last told to `name`, once `wanted` agrees with it.
    fn tracks_of(&mut self, name: &str, talkers: &mut [&mut Talker], wanted: impl Fn(&MidMap) -> bool) -> MidMap {
        let mut found = None;
        until(talkers, |_| {
            while let Ok(happening) = self.happenings.try_recv() {
                if let Happening::Tracks { participant, mid_map, .. } = happening
                    && participant == id(name)
                    && wanted(&mid_map)
                {
                    found = Some(mid_map);
                }
            }
            found.is_some()
        });
        found.unwrap()
    }
}

/// Keep `speaker` talking until `listener` heard it.
fn reaches(speaker: &mut Talker, listener: &mut Talker, payload: &[u8]) {
    until(&mut [speaker, listener], |talkers| {
        talkers[0].speak(payload, LOUD);
        talkers[1].heard_payload(payload)
    });
}

fn holders(map: &MidMap) -> Vec<&str> {
    let mut names: Vec<_> = map.values().flatten().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn two_people_hear_each_other_in_the_slot_that_the_map_names() {
    let mut stage = Stage::new();
    let (mut alice, _) = stage.joins("alice", 2);
    let (mut bob, bob_map) = stage.joins("bob", 2);
    let alice_map = stage.tracks_of("alice", &mut [&mut alice, &mut bob], |map| !holders(map).is_empty());

    reaches(&mut alice, &mut bob, b"from alice");
    reaches(&mut bob, &mut alice, b"from bob");

    assert_eq!(bob_map[&bob.heard[0].mid].as_deref(), Some("alice"));
    assert_eq!(alice_map[&alice.heard[0].mid].as_deref(), Some("bob"));
    assert!(!alice.heard_payload(b"from alice"), "nobody hears themselves");
    assert!(stage.sfu.last_packet(&id("alice")).is_some());
}

#[test]
fn a_muted_voice_goes_nowhere_and_leaves_no_gap() {
    let stage = Stage::new();
    let (mut alice, _) = stage.joins("alice", 1);
    let (mut bob, _) = stage.joins("bob", 1);
    reaches(&mut alice, &mut bob, b"before");

    stage.sfu.set_rule(&id("alice"), MediaRule { may_send: false, may_hear: true });
    let muted_so_far = || stage.runtime.block_on(stage.sfu.stats(&id("alice"))).unwrap().packets_muted;
    until(&mut [&mut alice, &mut bob], |talkers| {
        talkers[0].speak(b"secret", LOUD);
        muted_so_far() >= 5
    });
    stage.sfu.set_rule(&id("alice"), OPEN);
    reaches(&mut alice, &mut bob, b"after");

    assert!(!bob.heard_payload(b"secret"));
    let numbers: Vec<_> = bob.heard.iter().map(|heard| heard.seq).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn a_deafened_listener_hears_nothing_while_others_do() {
    let stage = Stage::new();
    let (mut alice, _) = stage.joins("alice", 2);
    let (mut bob, _) = stage.joins("bob", 2);
    let (mut carol, _) = stage.joins("carol", 2);

    stage.sfu.set_rule(&id("carol"), MediaRule { may_send: true, may_hear: false });
    reaches(&mut alice, &mut bob, b"psst");
    // Packets keep their order, so once this is through, no whisper is under way any more.
    reaches(&mut alice, &mut bob, b"over");
    stage.sfu.set_rule(&id("carol"), OPEN);
    reaches(&mut alice, &mut carol, b"hello");

    assert!(!carol.heard_payload(b"psst"));
}

#[test]
fn one_may_choose_not_to_hear_someone() {
    let stage = Stage::new();
    let (mut alice, _) = stage.joins("alice", 2);
    let (mut bob, _) = stage.joins("bob", 2);
    let (mut carol, _) = stage.joins("carol", 2);

    stage.sfu.unhear(&id("carol"), &id("alice"), false);
    reaches(&mut alice, &mut bob, b"alice talks");
    reaches(&mut alice, &mut bob, b"over");
    reaches(&mut bob, &mut carol, b"bob talks");
    stage.sfu.unhear(&id("carol"), &id("alice"), true);
    reaches(&mut alice, &mut carol, b"alice again");

    assert!(!carol.heard_payload(b"alice talks"));
}

#[test]
fn speech_is_told_when_it_starts_and_when_it_stops() {
    let mut stage = Stage::new();
    let (mut alice, _) = stage.joins("alice", 1);
    let mut told = Vec::new();

    until(&mut [&mut alice], |talkers| {
        let level = if told.is_empty() { LOUD } else { QUIET };
        talkers[0].speak(b"la", level);
        while let Ok(happening) = stage.happenings.try_recv() {
            if let Happening::Speaking { participant, state, .. } = happening {
                assert_eq!(participant, id("alice"));
                told.push(state);
            }
        }
        told.len() == 2
    });

    assert_eq!(told, [SpeakingState::Started, SpeakingState::Stopped]);
}

#[test]
fn with_more_speakers_than_slots_whoever_speaks_gets_one() {
    let mut stage = Stage::new();
    let (mut listener, _) = stage.joins("listener", 1);
    let (mut alice, _) = stage.joins("alice", 0);
    let (mut bob, _) = stage.joins("bob", 0);

    reaches(&mut alice, &mut listener, b"alice");
    until(&mut [&mut alice, &mut bob, &mut listener], |talkers| {
        talkers[0].speak(b"alice mumbles", QUIET);
        talkers[1].speak(b"bob", LOUD);
        talkers[2].heard_payload(b"bob")
    });

    let map = stage.tracks_of("listener", &mut [&mut listener], |map| holders(map) == ["bob"]);
    assert_eq!(map.len(), 1);
}

#[test]
fn who_left_is_not_heard_and_frees_the_slot() {
    let mut stage = Stage::new();
    let (mut alice, _) = stage.joins("alice", 1);
    let (mut bob, _) = stage.joins("bob", 1);
    reaches(&mut alice, &mut bob, b"one");

    stage.sfu.remove(&id("alice"));

    let map = stage.tracks_of("bob", &mut [&mut bob], |map| holders(map).is_empty());
    assert_eq!(map.len(), 1);
    assert!(stage.sfu.last_packet(&id("alice")).is_none());
    assert_eq!(stage.offer("alice", String::new()), Err(OfferFault::NoSuchParticipant));
}

#[test]
fn a_client_that_lost_everything_offers_again_and_is_heard() {
    let stage = Stage::new();
    let (mut bob, _) = stage.joins("bob", 2);
    let (mut alice, _) = stage.joins("alice", 1);
    reaches(&mut alice, &mut bob, b"first life");
    drop(alice);

    let (mut alice, _) = stage.connects("alice", 1);

    reaches(&mut alice, &mut bob, b"second life");
    reaches(&mut bob, &mut alice, b"welcome back");
}

#[test]
fn a_port_that_another_server_has_is_passed_over() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port();
    let (control, _happenings) = mpsc::channel(1);
    let start = |last: u16| {
        let ports = Ports { bind: [127, 0, 0, 1].into(), first: taken, last, shards: 1, advertised: Vec::new() };
        Sfu::start(&ports, &control).map(|sfu| sfu.ports().next().unwrap())
    };

    assert!((taken + 1..=taken.saturating_add(50)).contains(&start(taken.saturating_add(50)).unwrap()));
    assert_eq!(start(taken).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn a_listener_that_moves_to_another_address_hears_on() {
    let stage = Stage::new();
    let (mut alice, _) = stage.joins("alice", 1);
    let (mut bob, _) = stage.joins("bob", 1);
    reaches(&mut alice, &mut bob, b"at home");

    bob.moves();

    reaches(&mut alice, &mut bob, b"on the train");
}

#[test]
fn each_packet_is_heard_once_and_with_its_level_however_many_come() {
    let stage = Stage::new();
    let (mut alice, _) = stage.joins("alice", 1);
    let (mut bob, _) = stage.joins("bob", 1);
    reaches(&mut alice, &mut bob, b"first");
    for n in 0..300_u32 {
        alice.speak(&n.to_be_bytes(), LOUD);
        alice.step(std::time::Duration::from_micros(1));
        bob.step(std::time::Duration::from_millis(1));
    }
    until(&mut [&mut alice, &mut bob], |talkers| talkers[1].heard_payload(&299_u32.to_be_bytes()));

    let counted =
        bob.heard.iter().filter_map(|heard| Some(u32::from_be_bytes(heard.payload.as_slice().try_into().ok()?)));
    assert!(counted.eq(0..300));
    assert!(bob.heard.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    assert!(bob.heard.iter().all(|heard| heard.level == Some(LOUD)));
}

#[test]
fn a_microphone_that_floods_is_held_to_what_a_voice_needs() {
    let stage = Stage::new();
    let (mut mallory, _) = stage.joins("mallory", 1);
    let (mut bob, _) = stage.joins("bob", 1);
    reaches(&mut mallory, &mut bob, b"quite normal");
    let over = || stage.runtime.block_on(stage.sfu.stats(&id("mallory"))).unwrap().packets_over;

    until(&mut [&mut mallory, &mut bob], |talkers| {
        for _ in 0..50 {
            talkers[0].speak(&[7; 1000], LOUD);
        }
        over() > 500
    });

    let heard: usize = bob.heard.iter().map(|heard| heard.payload.len()).sum();
    assert!(heard < 300_000, "{heard} bytes went to Bob");
    assert_eq!(stage.runtime.block_on(stage.sfu.stats(&id("bob"))).unwrap().packets_over, 0);
}

#[test]
fn damaged_and_repeated_packets_of_a_participant_do_no_harm() {
    let stage = Stage::new();
    let (mut alice, _) = stage.joins("alice", 1);
    let (mut bob, _) = stage.joins("bob", 1);
    reaches(&mut alice, &mut bob, b"before");
    let port = stage.sfu.ports().next().unwrap();

    // From Alice's own address, which the server trusts: headers that look right with bodies that are not.
    for n in 0..3000_u32 {
        let mut datagram = n.wrapping_mul(2_654_435_761).to_be_bytes().repeat(3 + (n % 40) as usize);
        datagram[0] = [0x80, 0x90, 0xbf, 0x16, 0x00, 0x81][n as usize % 6];
        datagram[1] = [0x6f, 0xc8, 0xc9, 0xfe, 0x01, 0xef][n as usize / 6 % 6];
        alice.send_raw(&datagram, port);
    }

    reaches(&mut alice, &mut bob, b"after");
    reaches(&mut bob, &mut alice, b"and back");
}

#[test]
fn rubbish_from_strangers_does_no_harm() {
    let stage = Stage::new();
    let (mut alice, _) = stage.joins("alice", 1);
    let (mut bob, _) = stage.joins("bob", 1);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = stage.sfu.ports().next().unwrap();

    for n in 0..2000_u32 {
        let mut datagram = n.wrapping_mul(2_654_435_761).to_be_bytes().repeat(1 + (n % 50) as usize);
        datagram[0] = u8::try_from(n % 256).unwrap();
        stranger.send_to(&datagram, ("127.0.0.1", port)).unwrap();
    }
    reaches(&mut alice, &mut bob, b"still here");

    let unusable = stage.offer("alice", "v=0\r\nnonsense".to_owned()).unwrap_err();
    assert!(matches!(unusable, OfferFault::Unusable(_)), "{unusable:?}");
    assert_eq!(stage.offer("alice", "m=audio\n".repeat(100)), Err(OfferFault::TooLarge));
    assert_ne!(alice.local(), stranger.local_addr().unwrap());
}

/// Knowing a user fragment is not enough: without the password an address proves nothing.
#[test]
fn a_forged_request_neither_proves_an_address_nor_counts_as_a_sign_of_life() {
    let stage = Stage::new();
    stage.sfu.admit(&id("alice"), &stage.room, OPEN);
    let (mut alice, offer) = Talker::new(1);
    let answer = stage.offer("alice", offer).unwrap().sdp;
    let ufrag = answer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = stage.sfu.ports().next().unwrap();

    stranger.send_to(&binding_request(&format!("{ufrag}:guess")), ("127.0.0.1", port)).unwrap();
    // The shard takes commands before datagrams, so the second answer comes after the datagram was looked at.
    for _ in 0..2 {
        stage.runtime.block_on(stage.sfu.stats(&id("alice"))).unwrap();
    }

    assert_eq!(stage.sfu.last_packet(&id("alice")), None);
    alice.accept(&answer);
    until(&mut [&mut alice], |talkers| talkers[0].connected);
    assert!(stage.sfu.last_packet(&id("alice")).is_some());
}

/// A STUN binding request with a user name, a priority and nothing that proves knowledge of the password.
fn binding_request(username: &str) -> Vec<u8> {
    let mut attributes = vec![0x00, 0x06];
    attributes.extend(u16::try_from(username.len()).unwrap().to_be_bytes());
    attributes.extend(username.bytes());
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    attributes.extend([0x00, 0x24, 0, 4, 0x6e, 0, 1, 0xff]);
    let mut request = vec![0x00, 0x01];
    request.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    request.extend([0x21, 0x12, 0xa4, 0x42]);
    request.extend([9; 12]);
    request.extend(attributes);
    request
}
