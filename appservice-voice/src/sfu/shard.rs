//! One thread that owns a UDP port, the peers of its rooms and their timers. Shares nothing with other shards.
//!
//! The loop: wait for a datagram, a command or the next timer; take in what there is; drain each peer that was touched;
//! flush the datagrams. Work per packet is one look-up, one decryption, and one encryption per listener. Nothing in here
//! walks over all peers.
//!
//! Not here: who may speak to whom (that is [`crate::room`]; the rules arrive as commands).

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    io,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};
use rand::RngCore as _;
use tokio::sync::mpsc as to_control;
use voice_protocol::{methods::Answered, methods::MidMap, notifications::SpeakingState};

use super::{
    Command, Happening,
    demux::{self, Datagram, PeerKey, Table},
    forward,
    peer::{Heard, OfferFault, Peer, Spoken, Surroundings},
    timers::Timers,
    udp::{DATAGRAM_BYTES_MAX, UdpPort},
};
use crate::room::{MediaRule, ParticipantId};

/// Datagrams taken in before timers and commands have their turn.
const DATAGRAMS_PER_TURN_MAX: usize = 256;
/// Commands taken in before datagrams have their turn.
const COMMANDS_PER_TURN_MAX: usize = 256;
/// Participants of one shard.
const PEERS_MAX: usize = 4_000;
/// How soon news that the control plane had no room for is offered again.
const NEWS_RETRY: Duration = Duration::from_millis(50);

/// A peer is woken at least this often, whatever it wants.
const WAKE_INTERVAL_MAX: Duration = Duration::from_secs(30);

const PORT: Token = Token(0);
pub(super) const WAKE: Token = Token(1);

/// What the control plane has yet to be told about a peer. It is told how things stand, so telling late is no loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    Speaking,
    Tracks,
}

pub(super) struct Shard {
    number: u16,
    poll: Poll,
    port: UdpPort,
    around: Surroundings,
    commands: mpsc::Receiver<Command>,
    control: to_control::Sender<Happening>,
    peers: Vec<Place>,
    free: Vec<u32>,
    by_participant: HashMap<ParticipantId, PeerKey>,
    rooms: HashMap<Arc<str>, SubRoom>,
    table: Table,
    timers: Timers,
    spoken: VecDeque<Spoken>,
    news: BTreeSet<(PeerKey, News)>,
    epoch: Instant,
}

#[derive(Default)]
struct Place {
    generation: u32,
    peer: Option<Box<Peer>>,
}

/// The peers of one room and who does not want to hear whom.
#[derive(Default)]
struct SubRoom {
    peers: Vec<PeerKey>,
    unheard: HashSet<(ParticipantId, ParticipantId)>,
}

impl SubRoom {
    fn is_unheard(&self, listener: &ParticipantId, speaker: &ParticipantId) -> bool {
        // The usual case costs nothing.
        !self.unheard.is_empty() && self.unheard.contains(&(listener.clone(), speaker.clone()))
    }
}

/// What a shard is built from.
pub(super) struct Parts {
    pub(super) number: u16,
    pub(super) poll: Poll,
    pub(super) port: UdpPort,
    pub(super) around: Surroundings,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) control: to_control::Sender<Happening>,
    pub(super) epoch: Instant,
}

impl Shard {
    pub(super) fn new(mut parts: Parts) -> io::Result<Self> {
        parts.poll.registry().register(&mut parts.port.socket, PORT, Interest::READABLE)?;
        Ok(Self {
            number: parts.number,
            poll: parts.poll,
            port: parts.port,
            around: parts.around,
            commands: parts.commands,
            control: parts.control,
            peers: Vec::new(),
            free: Vec::new(),
            by_participant: HashMap::new(),
            rooms: HashMap::new(),
            table: Table::default(),
            timers: Timers::default(),
            spoken: VecDeque::new(),
            news: BTreeSet::new(),
            epoch: parts.epoch,
        })
    }

    /// Runs until [`Command::Stop`] or until nobody can send commands any more.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(8);
        let mut datagrams_wait = false;
        loop {
            let timeout = if datagrams_wait { Some(Duration::ZERO) } else { self.wait() };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(shard = self.number, %error, "the media thread cannot wait for packets and stops");
                return;
            }
            if !self.take_commands() {
                self.port.flush();
                return;
            }
            datagrams_wait = self.take_datagrams();
            self.ring();
            self.tell();
            self.port.flush();
        }
    }

    fn wait(&self) -> Option<Duration> {
        let timer = self.timers.next_at().map(|at| at.saturating_duration_since(Instant::now()));
        let retry = (!self.news.is_empty()).then_some(NEWS_RETRY);
        match (timer, retry) {
            (Some(timer), Some(retry)) => Some(timer.min(retry)),
            (timer, retry) => timer.or(retry),
        }
    }

    /// Returns false when the shard is to stop.
    fn take_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_PER_TURN_MAX {
            match self.commands.try_recv() {
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return false,
                Ok(command) => self.obey(command),
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
        true
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Admit { participant, room, rule, pulse } => self.admit(participant, room, rule, pulse),
            Command::Rule { participant, rule } => self.set_rule(&participant, rule),
            Command::Unhear { listener, speaker, on } => self.unhear(listener, speaker, on),
            Command::Remove { participant } => self.remove(&participant),
            Command::Offer { participant, offer_id, sdp, reply } => {
                // Nobody waiting for the answer any more is no fault.
                let _ = reply.send(self.offer(&participant, offer_id, &sdp));
            }
            Command::Candidate { participant, candidate } => {
                let Some(key) = self.by_participant.get(&participant).copied() else { return };
                if let Some(peer) = self.peer(key) {
                    peer.add_candidate(&candidate);
                }
                self.drain(key, Instant::now());
            }
            Command::Stats { participant, reply } => {
                let key = self.by_participant.get(&participant).copied();
                let stats = key.and_then(|key| self.peer(key)).map(|peer| peer.stats.clone());
                let _ = reply.send(stats);
            }
            Command::Stop => {}
        }
    }

    fn admit(&mut self, participant: ParticipantId, room: Arc<str>, rule: MediaRule, pulse: super::Pulse) {
        if self.by_participant.len() >= PEERS_MAX || self.by_participant.contains_key(&participant) {
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.peers.push(Place::default());
            u32::try_from(self.peers.len() - 1).expect("PEERS_MAX bounds the places")
        });
        let place = &mut self.peers[index as usize];
        let key = PeerKey { index, generation: place.generation };
        place.peer = Some(Box::new(Peer::new(key, participant.clone(), room.clone(), rule, pulse)));
        self.by_participant.insert(participant, key);
        self.rooms.entry(room).or_default().peers.push(key);
    }

    fn remove(&mut self, participant: &ParticipantId) {
        let Some(key) = self.by_participant.remove(participant) else { return };
        let place = &mut self.peers[key.index as usize];
        let Some(peer) = place.peer.take() else { return };
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index);
        self.table.forget(key);
        self.news.retain(|(of, _)| *of != key);
        if let Some(room) = self.rooms.get_mut(&peer.room) {
            room.peers.retain(|&other| other != key);
            room.unheard.retain(|(listener, speaker)| listener != participant && speaker != participant);
            if room.peers.is_empty() {
                self.rooms.remove(&peer.room);
            } else {
                self.route(&peer.room);
            }
        }
    }

    fn set_rule(&mut self, participant: &ParticipantId, rule: MediaRule) {
        let Some(key) = self.by_participant.get(participant).copied() else { return };
        let Some(peer) = self.peer(key) else { return };
        peer.rule = rule;
        // The room knows by itself that who is muted does not speak.
        if !rule.may_send {
            peer.detector.silence(Instant::now());
        }
        let room = peer.room.clone();
        self.news.remove(&(key, News::Speaking));
        self.route(&room);
    }

    fn unhear(&mut self, listener: ParticipantId, speaker: ParticipantId, on: bool) {
        let Some(key) = self.by_participant.get(&listener).copied() else { return };
        let Some(room) = self.peer(key).map(|peer| peer.room.clone()) else { return };
        let Some(sub_room) = self.rooms.get_mut(&room) else { return };
        if on {
            sub_room.unheard.remove(&(listener, speaker));
        } else {
            sub_room.unheard.insert((listener, speaker));
        }
        self.route(&room);
    }

    fn offer(&mut self, participant: &ParticipantId, offer_id: u64, sdp: &str) -> Result<Answered, OfferFault> {
        let now = Instant::now();
        let key = self.by_participant.get(participant).copied().ok_or(OfferFault::NoSuchParticipant)?;
        let mut random = [0; 10];
        rand::rng().fill_bytes(&mut random);
        let ufrag = demux::ufrag(self.number, key.index, random);
        let peer = self.peers[key.index as usize].peer.as_mut().ok_or(OfferFault::NoSuchParticipant)?;
        let accepted = peer.offer(sdp, &self.around, ufrag, now)?;
        let room = peer.room.clone();
        if accepted.anew {
            self.table.name(key, &accepted.ufrag);
        } else {
            self.table.rename(key, &accepted.ufrag);
        }
        self.drain(key, now);
        self.route(&room);
        // The answer carries the map; no need to tell it again.
        self.news.remove(&(key, News::Tracks));
        Ok(Answered { answer_id: offer_id, sdp: accepted.sdp, mid_map: self.mid_map(key) })
    }

    /// Returns whether there may be more.
    fn take_datagrams(&mut self) -> bool {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        for _ in 0..DATAGRAMS_PER_TURN_MAX {
            match self.port.receive(&mut buffer) {
                Ok(Some((length, source))) => self.take_datagram(&buffer[..length], source),
                Ok(None) => return false,
                Err(error) => {
                    tracing::debug!(shard = self.number, %error, "receiving failed");
                    return false;
                }
            }
        }
        true
    }

    fn take_datagram(&mut self, datagram: &[u8], source: std::net::SocketAddr) {
        let key = match demux::classify(datagram) {
            Datagram::StunRequest { ufrag } => self.table.by_ufrag(ufrag),
            Datagram::Dtls | Datagram::Rtp | Datagram::Rtcp => self.table.by_address(source),
            Datagram::Unknown => None,
        };
        let Some(key) = key else { return };
        let now = Instant::now();
        let since_epoch_ms = u64::try_from((now - self.epoch).as_millis()).unwrap_or(u64::MAX);
        let Some(peer) = self.peers.get_mut(key.index as usize).and_then(|place| place.peer.as_mut()) else { return };
        if peer.receive(datagram, source, &self.around, now) {
            peer.pulse.store(since_epoch_ms.max(1), Ordering::Relaxed);
            self.table.learn(key, source);
        }
        self.drain(key, now);
    }

    fn ring(&mut self) {
        let now = Instant::now();
        while let Some((at, key)) = self.timers.pop(now) {
            let Some(peer) = self.peers.get_mut(key.index as usize).and_then(|place| place.peer.as_mut()) else {
                continue;
            };
            if peer.key != key || !self.timers.rings(key, &mut peer.alarm, at, now) {
                continue;
            }
            peer.wake(now);
            if peer.detector.tick(now).is_some() {
                self.speaking_changed(key);
            }
            self.drain(key, now);
        }
    }

    /// Drain a peer that was touched, carry what it said to its listeners and set its timer.
    fn drain(&mut self, key: PeerKey, now: Instant) {
        self.drain_one(key, now);
        while let Some(said) = self.spoken.pop_front() {
            self.carry(&said, now);
        }
    }

    fn drain_one(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key.index as usize).and_then(|place| place.peer.as_mut()) else { return };
        if peer.key != key {
            return;
        }
        let until = peer.drain(&mut self.port, &mut self.spoken, &self.around.crypto);
        let wake_at = [until, peer.detector.deadline()].into_iter().flatten().min();
        if let Some(at) = wake_at {
            // "Never" is years away; an entry that far would outlive its peer by years.
            self.timers.set(key, &mut peer.alarm, at.min(now + WAKE_INTERVAL_MAX));
        }
        if peer.take_ended() {
            let room = peer.room.clone();
            self.table.forget(key);
            self.route(&room);
        }
    }

    fn carry(&mut self, said: &Spoken, now: Instant) {
        let Some(speaker) = self.peer(said.from) else { return };
        if !speaker.may_say(&said.packet, now) {
            return;
        }
        let level = said.packet.header.ext_vals.audio_level;
        let change = level.and_then(|level| speaker.detector.hear(level, now));
        let listeners = std::mem::take(&mut speaker.listeners);
        for &(listener, slot) in &listeners {
            let Some(peer) = live(&mut self.peers, listener) else { continue };
            if peer.hear(slot, said, now, &mut self.port) == Heard::Written {
                // str0m sends what was written when its time moves.
                peer.wake(now);
                self.drain_one(listener, now);
            }
        }
        if let Some(speaker) = self.peer(said.from)
            && speaker.listeners.is_empty()
        {
            speaker.listeners = listeners;
        }
        if change.is_some() {
            self.speaking_changed(said.from);
        }
    }

    fn speaking_changed(&mut self, key: PeerKey) {
        let Some(peer) = self.peer(key) else { return };
        if peer.detector.is_speaking() {
            peer.spoke_at = Some(Instant::now());
        }
        let room = peer.room.clone();
        self.news.insert((key, News::Speaking));
        self.route(&room);
    }

    /// Give slots to those who deserve them and write down who sends to whom. Bounded by the room's size.
    fn route(&mut self, room: &Arc<str>) {
        let Some(sub_room) = self.rooms.get(room) else { return };
        let ranked = self.ranked(&sub_room.peers);
        let everyone = sub_room.peers.clone();
        let mut listeners: HashMap<PeerKey, Vec<(PeerKey, usize)>> = HashMap::new();
        for &listener in &everyone {
            let Some(sub_room) = self.rooms.get(room) else { return };
            let Some(peer) = self.peers.get_mut(listener.index as usize).and_then(|place| place.peer.as_mut()) else {
                continue;
            };
            let wanted: Vec<PeerKey> = ranked
                .iter()
                .filter(|ranked| ranked.key != listener)
                .filter(|ranked| !sub_room.is_unheard(&peer.participant, &ranked.participant))
                .map(|ranked| ranked.key)
                .collect();
            if forward::assign(&mut peer.heard, &wanted) {
                self.news.insert((listener, News::Tracks));
            }
            for slot in 0..peer.heard.len() {
                let speaker = peer.heard[slot].filter(|_| peer.rule.may_hear);
                match speaker.filter(|speaker| ranked.iter().any(|ranked| ranked.key == *speaker && ranked.may_send)) {
                    Some(speaker) => listeners.entry(speaker).or_default().push((listener, slot)),
                    None => peer.interrupt(slot),
                }
            }
        }
        for &speaker in &everyone {
            if let Some(peer) = self.peer(speaker) {
                peer.listeners = listeners.remove(&speaker).unwrap_or_default();
            }
        }
    }

    /// Those with a microphone: who speaks before who does not, the louder and the later first, the muted last.
    fn ranked(&self, peers: &[PeerKey]) -> Vec<Ranked> {
        let mut ranked: Vec<Ranked> = peers
            .iter()
            .filter_map(|key| self.peers.get(key.index as usize)?.peer.as_ref())
            .filter(|peer| peer.has_microphone())
            .map(|peer| Ranked {
                key: peer.key,
                participant: peer.participant.clone(),
                may_send: peer.rule.may_send,
                speaks: peer.detector.is_speaking(),
                level: peer.detector.level(),
                spoke_at: peer.spoke_at,
            })
            .collect();
        ranked.sort_by(|a, b| {
            let order = |r: &Ranked| (r.may_send, r.speaks, if r.speaks { r.level } else { 0 }, r.spoke_at);
            order(b).cmp(&order(a))
        });
        ranked
    }

    /// Tell the control plane what changed, as far as it has room.
    fn tell(&mut self) {
        while let Some(&(key, what)) = self.news.first() {
            let happening = match what {
                News::Speaking => self.peer(key).map(|peer| Happening::Speaking {
                    participant: peer.participant.clone(),
                    room: peer.room.clone(),
                    level: peer.detector.level(),
                    state: if peer.detector.is_speaking() { SpeakingState::Started } else { SpeakingState::Stopped },
                }),
                News::Tracks => {
                    let mid_map = self.mid_map(key);
                    self.peer(key).map(|peer| Happening::Tracks {
                        participant: peer.participant.clone(),
                        room: peer.room.clone(),
                        mid_map,
                    })
                }
            };
            if happening.is_some_and(|happening| self.control.try_send(happening).is_err()) {
                return;
            }
            self.news.remove(&(key, what));
        }
    }

    fn mid_map(&self, key: PeerKey) -> MidMap {
        let place = |key: PeerKey| self.peers.get(key.index as usize)?.peer.as_ref();
        let Some(peer) = place(key) else { return MidMap::new() };
        let speakers = peer.heard.iter().map(|speaker| {
            let speaker = place((*speaker)?)?;
            Some(speaker.participant.as_str().to_owned())
        });
        peer.slot_mids().zip(speakers).collect()
    }

    fn peer(&mut self, key: PeerKey) -> Option<&mut Peer> {
        live(&mut self.peers, key)
    }
}

/// The holder of a place, unless it is another by now.
fn live(peers: &mut [Place], key: PeerKey) -> Option<&mut Peer> {
    peers.get_mut(key.index as usize)?.peer.as_deref_mut().filter(|peer| peer.key == key)
}

struct Ranked {
    key: PeerKey,
    participant: ParticipantId,
    may_send: bool,
    speaks: bool,
    level: i8,
    spoke_at: Option<Instant>,
}
