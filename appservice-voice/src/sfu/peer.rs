//! One participant's media connection: a sans-IO `Rtc` of str0m in RTP mode, its microphone and its slots.
//!
//! The strict rule of str0m holds here: after each input the output is drained to the end ([`Peer::drain`]).
//! Whatever a client sends is untrusted, and a fault in parsing it must not stop the other rooms of the shard: calls into
//! str0m run behind [`guarded`], which turns a panic into the end of this one peer.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use str0m::{
    Candidate, Event, IceCreds, Input, Output, Rtc,
    change::SdpOffer,
    config::{CryptoProvider, DtlsCert},
    media::{Direction, MediaKind, Mid, Pt},
    net::{Protocol, Receive},
    rtp::{Extension, ExtensionValues, RtpPacket, RtpWrite},
};
use voice_protocol::methods::MediaStats;

use super::{
    demux::PeerKey,
    forward::{Place, Rewriter},
    seal::{Line, Particulars, Sealer},
    speaking::Detector,
    timers::Alarm,
    udp::UdpPort,
};
use crate::{
    rate::Bucket,
    room::{MediaRule, ParticipantId},
};

/// Most speakers one listener hears at once.
pub const SLOTS_MAX: usize = 16;
/// Sections that an offer may have: slots, a microphone and some room for what we refuse.
const OFFER_SECTIONS_MAX: usize = SLOTS_MAX + 8;
/// Longest session description, bytes.
const OFFER_BYTES_MAX: usize = 96 * 1024;
const STATS_INTERVAL: Duration = Duration::from_secs(5);
/// How often a slot's packet goes through str0m, so that its sender reports tell the time and it tells us the address.
const REFERENCE_INTERVAL: Duration = Duration::from_secs(1);
/// Packets of one microphone that are forwarded, a second and at once: the shortest Opus frame is 2.5 ms.
const VOICE_PACKETS_PER_SECOND_MAX: u32 = 400;
/// Bytes of one microphone that are forwarded, a second and at once: Opus ends at 510 kbit/s. Each goes to everyone in
/// the room, so a participant must not decide alone how much that is.
const VOICE_BYTES_PER_SECOND_MAX: u32 = 64_000;
/// Datagrams that begin with more than this are not STUN, RFC 7983.
const STUN_FIRST_BYTE_MAX: u8 = 3;
/// Packets kept for resending. Opus conceals losses by itself, so browsers do not ask; the least that works.
const SEND_BUFFER_PACKETS: usize = 50;
/// Header extension numbers offered; the client's offer decides.
const EXTENSION_AUDIO_LEVEL: u8 = 1;
const EXTENSION_MID: u8 = 4;

/// Why an offer was refused. The text goes to the client that sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferFault {
    #[error("the session description cannot be used: {0}")]
    Unusable(String),
    #[error("too many sections")]
    TooLarge,
    #[error("no such participant")]
    NoSuchParticipant,
    #[error("the media server is overloaded")]
    Busy,
}

/// What every peer of a shard shares.
pub(super) struct Surroundings {
    pub(super) crypto: Arc<CryptoProvider>,
    pub(super) certificate: DtlsCert,
    /// What clients are told to send to; the first of each family stands for our end in every pair.
    pub(super) candidates: Vec<SocketAddr>,
}

impl Surroundings {
    /// Our address as a peer at `remote` sees it.
    fn destination_for(&self, remote: SocketAddr) -> Option<SocketAddr> {
        self.candidates.iter().copied().find(|local| local.is_ipv4() == remote.is_ipv4())
    }
}

/// One speaker's stream to this listener.
struct Slot {
    mid: Mid,
    pt: Pt,
    rewriter: Rewriter<PeerKey>,
    /// What our own packets need, once a packet went through str0m; `None` also where only str0m can write them.
    line: Option<Line>,
    /// When the last packet went through str0m.
    reference_at: Option<Instant>,
}

/// Whether a packet is on its way, or the state machine must be drained for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Queued for sending, or there was nothing to send.
    Done,
    /// Written into the state machine.
    Written,
}

/// A packet from a microphone, on its way to others.
pub(super) struct Spoken {
    pub(super) from: PeerKey,
    pub(super) packet: RtpPacket,
}

struct Connection {
    rtc: Rtc,
    microphone: Option<Mid>,
    slots: Vec<Slot>,
    /// The client's DTLS fingerprint: a new one means a new connection, not a renegotiation.
    fingerprint: String,
    /// Seals our own packets, once the handshake is over and chose a profile that we can.
    sealer: Option<Sealer>,
    /// Where str0m sends media to.
    media_to: Option<SocketAddr>,
}

pub(super) struct Peer {
    pub(super) key: PeerKey,
    pub(super) participant: ParticipantId,
    pub(super) room: Arc<str>,
    pub(super) rule: MediaRule,
    /// How much of its voice is forwarded: packets and bytes.
    allowance: (Bucket, Bucket),
    pub(super) detector: Detector,
    /// When this one last started to speak, for the order of those who get a slot.
    pub(super) spoke_at: Option<Instant>,
    pub(super) alarm: Alarm,
    /// Who hears this one, and in which of their slots.
    pub(super) listeners: Vec<(PeerKey, usize)>,
    /// Who is in this one's slots.
    pub(super) heard: Vec<Option<PeerKey>>,
    pub(super) stats: MediaStats,
    /// Milliseconds on the SFU's clock when the last packet came; read by the control plane.
    pub(super) pulse: super::Pulse,
    connection: Option<Connection>,
    /// The connection ended and the shard has not yet noticed.
    ended: bool,
}

/// What the answer to an offer consists of.
pub(super) struct Accepted {
    pub(super) sdp: String,
    /// The user fragment by which STUN requests now find this peer.
    pub(super) ufrag: String,
    /// A new connection took the place of the old: addresses learnt before are void.
    pub(super) anew: bool,
}

impl Peer {
    pub(super) fn new(
        key: PeerKey,
        participant: ParticipantId,
        room: Arc<str>,
        rule: MediaRule,
        pulse: super::Pulse,
    ) -> Self {
        let now = Instant::now();
        Self {
            key,
            participant,
            room,
            rule,
            allowance: (
                Bucket::new(VOICE_PACKETS_PER_SECOND_MAX, VOICE_PACKETS_PER_SECOND_MAX, now),
                Bucket::new(VOICE_BYTES_PER_SECOND_MAX, VOICE_BYTES_PER_SECOND_MAX, now),
            ),
            detector: Detector::default(),
            spoke_at: None,
            alarm: Alarm::default(),
            listeners: Vec::new(),
            heard: Vec::new(),
            stats: MediaStats::default(),
            pulse,
            connection: None,
            ended: false,
        }
    }

    /// Whether the connection ended since this was last asked.
    pub(super) fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    /// Whether a packet of this one's voice is to be forwarded; counts those that are not.
    pub(super) fn may_say(&mut self, packet: &RtpPacket, now: Instant) -> bool {
        if !self.rule.may_send {
            self.stats.packets_muted += 1;
            return false;
        }
        let bytes = u32::try_from(packet.payload.len()).unwrap_or(u32::MAX);
        let within = self.allowance.0.take(now).is_ok() && self.allowance.1.take_some(bytes, now).is_ok();
        self.stats.packets_over += u64::from(!within);
        within
    }

    pub(super) fn has_microphone(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.microphone.is_some())
    }

    /// The `a=mid` of each slot, in the order of `heard`.
    pub(super) fn slot_mids(&self) -> impl Iterator<Item = String> {
        self.connection.iter().flat_map(|connection| connection.slots.iter().map(|slot| slot.mid.to_string()))
    }

    /// Accept a client's offer: its first, a renegotiation, an ICE restart, or the first of a new connection.
    pub(super) fn offer(
        &mut self,
        sdp: &str,
        around: &Surroundings,
        ufrag: String,
        now: Instant,
    ) -> Result<Accepted, OfferFault> {
        let sections = sdp.lines().filter(|line| line.starts_with("m=")).count();
        if sdp.len() > OFFER_BYTES_MAX || sections > OFFER_SECTIONS_MAX {
            return Err(OfferFault::TooLarge);
        }
        let fingerprint =
            sdp.lines().find_map(|line| line.strip_prefix("a=fingerprint:")).unwrap_or("").trim().to_owned();
        let offer = guarded(|| SdpOffer::from_sdp_string(sdp))
            .ok_or_else(panicked)?
            .map_err(|e| OfferFault::Unusable(e.to_string()))?;

        let anew = self.connection.as_ref().is_none_or(|c| c.fingerprint != fingerprint || !c.rtc.is_alive());
        let before = self.connection.take();
        let mut connection = match before {
            Some(connection) if !anew => connection,
            _ => {
                self.end();
                Connection::new(around, fingerprint, ufrag, now)?
            }
        };
        let answer = guarded(|| connection.rtc.sdp_api().accept_offer(offer)).ok_or_else(panicked)?;
        let answer = match answer {
            Ok(answer) => answer.to_sdp_string(),
            Err(error) => {
                // A refused renegotiation leaves a connection that works as it was.
                self.connection = (!anew).then_some(connection);
                return Err(OfferFault::Unusable(error.to_string()));
            }
        };
        connection.find_sections(sdp);
        // Slots are never taken away; a renegotiation may add some.
        self.heard.resize(connection.slots.len(), None);
        let ufrag = connection.rtc.direct_api().local_ice_credentials().ufrag;
        let accepted = Accepted { sdp: answer, ufrag, anew };
        self.connection = Some(connection);
        self.ended = false;
        Ok(accepted)
    }

    pub(super) fn add_candidate(&mut self, candidate: &str) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let Some(Ok(candidate)) = guarded(|| Candidate::from_sdp_string(candidate)) else { return false };
        guarded(|| connection.rtc.add_remote_candidate(candidate)).is_some()
    }

    /// A datagram from `source` that [`super::demux`] gave to this peer. Returns whether `source` is proven now.
    pub(super) fn receive(&mut self, datagram: &[u8], source: SocketAddr, around: &Surroundings, now: Instant) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let Some(destination) = around.destination_for(source) else { return false };
        let taken = guarded(|| {
            let contents = datagram.try_into().ok()?;
            let input = Input::Receive(now, Receive { proto: Protocol::Udp, source, destination, contents });
            connection.rtc.handle_input(input).ok()
        });
        match taken {
            None => self.end(),
            Some(None) => return false,
            Some(Some(())) => {}
        }
        let accepted = self.accepts_media_from(source, destination, now);
        // The client may be about to move: let str0m say soon where it sends to.
        if accepted
            && let Some(connection) = &mut self.connection
            && connection.media_to.is_some_and(|to| to != source)
        {
            connection.media_to = None;
        }
        accepted
    }

    /// Whether str0m counts `source` as this peer's, asked with a datagram that carries no credentials itself.
    fn accepts_media_from(&self, source: SocketAddr, destination: SocketAddr, now: Instant) -> bool {
        const SMALLEST_RTP: [u8; 12] = [128, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let Some(connection) = &self.connection else { return false };
        let Ok(contents) = SMALLEST_RTP.as_slice().try_into() else { return false };
        connection.rtc.accepts(&Input::Receive(now, Receive { proto: Protocol::Udp, source, destination, contents }))
    }

    pub(super) fn wake(&mut self, now: Instant) {
        if let Some(connection) = &mut self.connection
            && guarded(|| connection.rtc.handle_input(Input::Timeout(now)).ok()).flatten().is_none()
        {
            self.end();
        }
    }

    /// Run the state machine until it only wants to wait. Returns until when.
    pub(super) fn drain(
        &mut self,
        port: &mut UdpPort,
        spoken: &mut VecDeque<Spoken>,
        crypto: &CryptoProvider,
    ) -> Option<Instant> {
        loop {
            let connection = self.connection.as_mut()?;
            let output = guarded(|| connection.rtc.poll_output().ok()).flatten();
            // After each call and whatever came of it: keys left lying would be taken for the next peer's.
            if let Some(sealer) = Sealer::of_ended_handshake(crypto) {
                connection.sealer = Some(sealer);
            }
            match output {
                Some(Output::Timeout(at)) => {
                    if !connection.rtc.is_alive() {
                        self.end();
                        return None;
                    }
                    return Some(at);
                }
                Some(Output::Transmit(transmit)) => {
                    if transmit.contents.first().is_some_and(|&first| first > STUN_FIRST_BYTE_MAX) {
                        connection.media_to = Some(transmit.destination);
                    }
                    port.queue(transmit.destination, &transmit.contents);
                }
                Some(Output::Event(event)) => self.note(event, spoken),
                None => {
                    self.end();
                    return None;
                }
            }
        }
    }

    fn note(&mut self, event: Event, spoken: &mut VecDeque<Spoken>) {
        match event {
            Event::RtpPacket(packet) => {
                self.stats.packets_in += 1;
                self.stats.bytes_in += packet.payload.len() as u64;
                spoken.push_back(Spoken { from: self.key, packet });
            }
            Event::Connected => self.stats.connected = true,
            Event::PeerStats(stats) => {
                self.stats.rtt_ms = stats.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0);
                self.stats.loss_out = stats.egress_loss_fraction.map(f64::from);
                self.stats.loss_in = stats.ingress_loss_fraction.map(f64::from);
            }
            Event::MediaIngressStats(stats) => {
                const TICKS_PER_MS: f64 = 48.0;
                self.stats.jitter_in_ms = Some(f64::from(stats.jitter) / TICKS_PER_MS);
            }
            _ => {}
        }
    }

    /// Write a speaker's packet into one of this listener's slots.
    pub(super) fn hear(&mut self, slot: usize, spoken: &Spoken, now: Instant, port: &mut UdpPort) -> Heard {
        let Some(connection) = &mut self.connection else { return Heard::Done };
        let Some(slot) = connection.slots.get_mut(slot) else { return Heard::Done };
        let packet = &spoken.packet;
        // The receiver's clock rate is the sender's: Opus has one.
        let time = packet.header.timestamp;
        let Some(place) = slot.rewriter.place(spoken.from, *packet.seq_no, time, now) else { return Heard::Done };
        let is_recent = slot.reference_at.is_some_and(|at| now.saturating_duration_since(at) < REFERENCE_INTERVAL);
        let heard = match (&mut connection.sealer, slot.line, connection.media_to) {
            (Some(sealer), Some(line), Some(to)) if is_recent => {
                port.write(to, |bytes| seal(sealer, line, place, packet, bytes)).then_some(Heard::Done)
            }
            _ => {
                slot.reference_at = Some(now);
                write(&mut connection.rtc, slot, place, packet, now).then_some(Heard::Written)
            }
        };
        if heard.is_some() {
            self.stats.packets_out += 1;
            self.stats.bytes_out += packet.payload.len() as u64;
        }
        heard.unwrap_or(Heard::Done)
    }

    /// Packets for this slot are held back from now on.
    pub(super) fn interrupt(&mut self, slot: usize) {
        if let Some(slot) = self.connection.as_mut().and_then(|connection| connection.slots.get_mut(slot)) {
            slot.rewriter.interrupt();
        }
    }

    /// The connection is no more; the participant may offer a new one.
    fn end(&mut self) {
        self.ended = self.connection.take().is_some();
        self.heard.clear();
        self.stats.connected = false;
    }
}

impl Connection {
    fn new(around: &Surroundings, fingerprint: String, ufrag: String, now: Instant) -> Result<Self, OfferFault> {
        let credentials = IceCreds { ufrag, pass: IceCreds::new().pass };
        let mut rtc = guarded(|| {
            Rtc::builder()
                .set_crypto_provider(around.crypto.clone())
                .set_dtls_cert(around.certificate.clone())
                .set_local_ice_credentials(credentials)
                .set_ice_lite(true)
                .set_rtp_mode(true)
                .set_stats_interval(Some(STATS_INTERVAL))
                .set_send_buffer_audio(SEND_BUFFER_PACKETS)
                .clear_codecs()
                .enable_opus(true, false)
                .clear_extension_map()
                .set_extension(EXTENSION_AUDIO_LEVEL, Extension::AudioLevel)
                .set_extension(EXTENSION_MID, Extension::RtpMid)
                .build(now)
        })
        .ok_or_else(panicked)?;
        for &address in &around.candidates {
            if let Ok(candidate) = Candidate::host(address, "udp") {
                rtc.add_local_candidate(candidate);
            }
        }
        let slots = Vec::new();
        Ok(Self { rtc, microphone: None, slots, fingerprint, sealer: None, media_to: None })
    }

    /// Find the microphone and the slots among the sections of an accepted offer. str0m tells of them only once media
    /// may flow, while the answer needs the map of slots.
    fn find_sections(&mut self, sdp: &str) {
        for mid in sdp.lines().filter_map(|line| line.strip_prefix("a=mid:")) {
            let mid = Mid::from(mid.trim());
            let Some(media) = self.rtc.media(mid).filter(|media| media.kind() == MediaKind::Audio) else { continue };
            let hears = matches!(media.direction(), Direction::SendOnly | Direction::SendRecv);
            let speaks = matches!(media.direction(), Direction::RecvOnly | Direction::SendRecv);
            if speaks && self.microphone.is_none() {
                self.microphone = Some(mid);
            }
            let is_new = self.slots.len() < SLOTS_MAX && self.slots.iter().all(|slot| slot.mid != mid);
            if let (true, Some(&pt)) = (hears && is_new, media.remote_pts().first()) {
                self.slots.push(Slot { mid, pt, rewriter: Rewriter::default(), line: None, reference_at: None });
            }
        }
    }
}

/// Our own way of sending a packet: its header, sealed payload, nothing else.
fn seal(sealer: &mut Sealer, line: Line, place: Place, packet: &RtpPacket, bytes: &mut Vec<u8>) -> bool {
    let levels = &packet.header.ext_vals;
    let particulars = Particulars {
        seq: place.seq,
        time: place.time,
        marker: packet.header.marker || place.first,
        level: levels.audio_level.map(|level| (level, levels.voice_activity.unwrap_or(false))),
    };
    let header_at = bytes.len();
    line.write_header(particulars, bytes);
    sealer.seal(bytes, header_at, line.ssrc, place.seq, &packet.payload)
}

/// str0m's way. Learns what [`seal`] needs.
fn write(rtc: &mut Rtc, slot: &mut Slot, place: Place, packet: &RtpPacket, now: Instant) -> bool {
    let levels = ExtensionValues {
        audio_level: packet.header.ext_vals.audio_level,
        voice_activity: packet.header.ext_vals.voice_activity,
        ..ExtensionValues::default()
    };
    let write = RtpWrite::new(slot.pt, place.seq.into(), place.time, now, packet.payload.clone())
        .marker(packet.header.marker || place.first)
        .ext_vals(levels);
    let (pt, mid) = (slot.pt, slot.mid);
    let ssrc = guarded(|| {
        let mut api = rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None)?;
        stream.write_rtp(write);
        Some(*stream.ssrc())
    })
    .flatten();
    let Some(ssrc) = ssrc else { return false };
    slot.line = rtc.media(mid).and_then(|media| {
        let ids = media.remote_extmap();
        Line::new(*pt, ssrc, ids.id_of(Extension::AudioLevel), ids.id_of(Extension::RtpMid), &mid)
    });
    true
}

fn panicked() -> OfferFault {
    OfferFault::Unusable("it cannot be processed".to_owned())
}

/// Run `call`; a panic in it becomes `None` and is told once in the log by the panic hook.
fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
