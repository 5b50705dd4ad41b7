//! The selective forwarding unit: Opus packets from each microphone to everyone who hears it, never decoded.
//!
//! A [`shard`] is a thread with a UDP port; a room lives on one shard, the least loaded when its first participant came.
//! Everything the control plane says goes through a bounded channel as a [`Command`]; what the shard has to say comes
//! back as [`Happening`]s. ICE-lite, one DTLS certificate per process.
//!
//! Not here: who may do what ([`crate::room`]).

pub mod demux;
pub mod forward;
pub mod peer;
mod seal;
mod shard;
pub mod speaking;
mod timers;
mod udp;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use mio::{Poll, Waker};
use tokio::sync::{mpsc as to_control, oneshot};
use voice_protocol::{
    methods::{Answered, MediaStats, MidMap},
    notifications::SpeakingState,
};

use crate::room::{MediaRule, ParticipantId};
use peer::{OfferFault, Surroundings};
use shard::{Parts, Shard};
use udp::UdpPort;

pub use peer::SLOTS_MAX;

/// Commands that may wait for one shard.
const COMMANDS_MAX: usize = 4_096;
/// What may wait for the control plane, all shards together.
pub const HAPPENINGS_MAX: usize = 4_096;

/// When the last valid packet of a participant came: milliseconds on the SFU's clock, 0 for never.
pub(crate) type Pulse = Arc<AtomicU64>;

/// Where the SFU listens and what it tells clients.
#[derive(Clone, Debug)]
pub struct Ports {
    pub bind: IpAddr,
    /// Each shard listens on a port of its own: the first ones from here on that are free. With 0 the system chooses.
    pub first: u16,
    pub last: u16,
    /// Number of shards; bounded by the ports.
    pub shards: usize,
    /// Addresses for ICE candidates; empty: the ones this machine would use.
    pub advertised: Vec<IpAddr>,
}

pub(crate) enum Command {
    Admit {
        participant: ParticipantId,
        room: Arc<str>,
        rule: MediaRule,
        pulse: Pulse,
    },
    Rule {
        participant: ParticipantId,
        rule: MediaRule,
    },
    Unhear {
        listener: ParticipantId,
        speaker: ParticipantId,
        on: bool,
    },
    Remove {
        participant: ParticipantId,
    },
    Offer {
        participant: ParticipantId,
        offer_id: u64,
        sdp: String,
        reply: oneshot::Sender<Result<Answered, OfferFault>>,
    },
    Candidate {
        participant: ParticipantId,
        candidate: String,
    },
    Stats {
        participant: ParticipantId,
        reply: oneshot::Sender<Option<MediaStats>>,
    },
    Stop,
}

/// What the SFU has to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    Speaking { participant: ParticipantId, room: Arc<str>, level: i8, state: SpeakingState },
    Tracks { participant: ParticipantId, room: Arc<str>, mid_map: MidMap },
}

/// Handle to the shards.
pub struct Sfu {
    shards: Vec<ShardHandle>,
    /// Where each participant is, and its pulse.
    residents: Mutex<Residents>,
    epoch: Instant,
}

#[derive(Default)]
struct Residents {
    by_participant: HashMap<ParticipantId, (usize, Arc<str>, Pulse)>,
    /// Shard and number of participants of each room.
    rooms: HashMap<Arc<str>, (usize, usize)>,
    load: Vec<usize>,
}

struct ShardHandle {
    commands: mpsc::SyncSender<Command>,
    waker: Waker,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    port: u16,
}

impl Sfu {
    /// Bind the ports and start the threads. What happens is sent to `control`.
    ///
    /// # Errors
    /// When a port cannot be bound or a thread cannot be started.
    pub fn start(ports: &Ports, control: &to_control::Sender<Happening>) -> io::Result<Self> {
        let crypto = Arc::new(seal::crypto());
        let certificate =
            crypto.dtls_provider.generate_certificate().ok_or_else(|| io::Error::other("no DTLS certificate"))?;
        let advertised = if ports.advertised.is_empty() { own_addresses(ports.bind) } else { ports.advertised.clone() };
        let epoch = Instant::now();
        let available =
            if ports.first == 0 { usize::MAX } else { usize::from(ports.last.saturating_sub(ports.first)) + 1 };
        let count = ports.shards.clamp(1, available.min(usize::from(u16::MAX)));

        let mut shards = Vec::with_capacity(count);
        let mut wanted = ports.first..=ports.last.max(ports.first);
        for number in 0..u16::try_from(count).unwrap_or(u16::MAX) {
            let port = match bind_one(ports.bind, &mut wanted) {
                // Another server on this machine has the rest: fewer threads do the work.
                Err(error) if number > 0 && error.kind() == io::ErrorKind::AddrInUse => break,
                port => port?,
            };
            let bound = port.socket.local_addr()?.port();
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), shard::WAKE)?;
            let (commands, receiver) = mpsc::sync_channel(COMMANDS_MAX);
            let around = Surroundings {
                crypto: crypto.clone(),
                certificate: certificate.clone(),
                candidates: advertised.iter().map(|&ip| SocketAddr::new(ip, bound)).collect(),
            };
            let shard =
                Shard::new(Parts { number, poll, port, around, commands: receiver, control: control.clone(), epoch })?;
            let thread = thread::Builder::new().name(format!("voice-{number}")).spawn(move || shard.run())?;
            shards.push(ShardHandle { commands, waker, thread: Mutex::new(Some(thread)), port: bound });
        }
        let residents = Residents { load: vec![0; shards.len()], ..Residents::default() };
        Ok(Self { shards, residents: Mutex::new(residents), epoch })
    }

    /// The UDP ports, shard by shard.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.shards.iter().map(|shard| shard.port)
    }

    /// A participant came in. It may offer from now on.
    pub fn admit(&self, participant: &ParticipantId, room: &Arc<str>, rule: MediaRule) {
        let pulse = Pulse::default();
        let shard = {
            let mut residents = self.residents();
            let least_loaded = (0..self.shards.len()).min_by_key(|&shard| residents.load[shard]).unwrap_or(0);
            let (shard, count) = residents.rooms.entry(room.clone()).or_insert((least_loaded, 0));
            *count += 1;
            let shard = *shard;
            residents.load[shard] += 1;
            residents.by_participant.insert(participant.clone(), (shard, room.clone(), pulse.clone()));
            shard
        };
        self.command(shard, Command::Admit { participant: participant.clone(), room: room.clone(), rule, pulse });
    }

    /// What may be forwarded from and to a participant.
    pub fn set_rule(&self, participant: &ParticipantId, rule: MediaRule) {
        self.tell(participant, Command::Rule { participant: participant.clone(), rule });
    }

    pub fn unhear(&self, listener: &ParticipantId, speaker: &ParticipantId, on: bool) {
        self.tell(listener, Command::Unhear { listener: listener.clone(), speaker: speaker.clone(), on });
    }

    /// The participant left.
    pub fn remove(&self, participant: &ParticipantId) {
        let shard = {
            let mut residents = self.residents();
            let Some((shard, room, _)) = residents.by_participant.remove(participant) else { return };
            residents.load[shard] = residents.load[shard].saturating_sub(1);
            if let Some((_, count)) = residents.rooms.get_mut(&room) {
                *count -= 1;
                if *count == 0 {
                    residents.rooms.remove(&room);
                }
            }
            shard
        };
        self.command(shard, Command::Remove { participant: participant.clone() });
    }

    /// Hand over a client's offer and wait for the answer.
    ///
    /// # Errors
    /// [`OfferFault`].
    pub async fn offer(&self, participant: &ParticipantId, offer_id: u64, sdp: String) -> Result<Answered, OfferFault> {
        let (reply, answer) = oneshot::channel();
        let sent = self.tell(participant, Command::Offer { participant: participant.clone(), offer_id, sdp, reply });
        if !sent {
            return Err(OfferFault::NoSuchParticipant);
        }
        answer.await.unwrap_or(Err(OfferFault::Busy))
    }

    pub fn add_candidate(&self, participant: &ParticipantId, candidate: String) {
        self.tell(participant, Command::Candidate { participant: participant.clone(), candidate });
    }

    pub async fn stats(&self, participant: &ParticipantId) -> Option<MediaStats> {
        let (reply, stats) = oneshot::channel();
        self.tell(participant, Command::Stats { participant: participant.clone(), reply });
        stats.await.ok().flatten()
    }

    /// When the participant's last valid packet came.
    pub fn last_packet(&self, participant: &ParticipantId) -> Option<Instant> {
        let ms = self.residents().by_participant.get(participant)?.2.load(Ordering::Relaxed);
        (ms > 0).then(|| self.epoch + Duration::from_millis(ms))
    }

    /// Stop the threads and wait for them.
    pub fn stop(&self) {
        for shard in 0..self.shards.len() {
            self.command(shard, Command::Stop);
        }
        for shard in &self.shards {
            let thread = shard.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!(port = shard.port, "a media thread ended by a panic");
            }
        }
    }

    fn tell(&self, participant: &ParticipantId, command: Command) -> bool {
        let shard = self.residents().by_participant.get(participant).map(|(shard, ..)| *shard);
        shard.is_some_and(|shard| self.command(shard, command))
    }

    /// Commands are few and a shard takes hundreds a turn, so waiting for room is short; a dead shard refuses.
    fn command(&self, shard: usize, command: Command) -> bool {
        let shard = &self.shards[shard];
        let sent = shard.commands.send(command).is_ok();
        if let Err(error) = shard.waker.wake() {
            tracing::error!(port = shard.port, %error, "a media thread cannot be woken");
        }
        sent
    }

    fn residents(&self) -> std::sync::MutexGuard<'_, Residents> {
        self.residents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sfu {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Bind the next port of `wanted` that nobody has.
fn bind_one(ip: IpAddr, wanted: &mut RangeInclusive<u16>) -> io::Result<UdpPort> {
    if *wanted.start() == 0 {
        return UdpPort::bind(SocketAddr::new(ip, 0));
    }
    let mut failed = io::Error::from(io::ErrorKind::AddrInUse);
    for port in wanted {
        match UdpPort::bind(SocketAddr::new(ip, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => failed = error,
            bound => return bound,
        }
    }
    Err(failed)
}

/// The addresses by which this machine reaches others, found without sending anything; else loopback.
fn own_addresses(bind: IpAddr) -> Vec<IpAddr> {
    if !bind.is_unspecified() {
        return vec![bind];
    }
    // Documentation addresses (RFC 5737, RFC 3849): connecting a UDP socket only asks the routing table.
    let probes: &[(&str, &str)] = &[("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    let wanted = if bind.is_ipv6() { 2 } else { 1 };
    let found: Vec<IpAddr> = probes[..wanted]
        .iter()
        .filter_map(|(from, to)| {
            let socket = UdpSocket::bind(from).ok()?;
            socket.connect(to).ok()?;
            let ip = socket.local_addr().ok()?.ip();
            (!ip.is_unspecified()).then_some(ip)
        })
        .collect();
    if found.is_empty() { vec![IpAddr::from([127, 0, 0, 1])] } else { found }
}
