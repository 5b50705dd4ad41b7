//! A WebRTC client over a real UDP socket: it offers as a browser does, speaks packets and notes what it hears.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use str0m::{
    Candidate, Event, Input, Output, Rtc,
    change::{SdpAnswer, SdpPendingOffer},
    media::{Direction, MediaKind, Mid},
    net::{Protocol, Receive},
    rtp::{ExtensionValues, RtpWrite},
};

/// One Opus packet's worth of RTP time.
const TICKS_PER_PACKET: u32 = 960;
/// No test waits longer than this for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Talker {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    microphone: Mid,
    pending: Option<SdpPendingOffer>,
    seq: u64,
    time: u32,
    pub(crate) connected: bool,
    /// Everything heard so far.
    pub(crate) heard: Vec<Heard>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) mid: String,
    pub(crate) seq: u64,
    pub(crate) payload: Vec<u8>,
    /// dBov.
    pub(crate) level: Option<i8>,
}

impl Talker {
    /// A client with a microphone and `slots` places for speakers, and its offer.
    pub(crate) fn new(slots: usize) -> (Self, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = socket.local_addr().unwrap();
        let mut rtc = Rtc::builder().set_rtp_mode(true).clear_codecs().enable_opus(true, false).build(Instant::now());
        rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
        let mut changes = rtc.sdp_api();
        let microphone = changes.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
        for _ in 0..slots {
            changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        }
        let (offer, pending) = changes.apply().unwrap();
        let talker = Self {
            rtc,
            socket,
            local,
            microphone,
            pending: Some(pending),
            seq: 100,
            time: 0,
            connected: false,
            heard: Vec::new(),
        };
        (talker, offer.to_sdp_string())
    }

    pub(crate) fn accept(&mut self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        self.rtc.sdp_api().accept_answer(self.pending.take().unwrap(), answer).unwrap();
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// From now on the server sees another address, as when a router forgets who was who.
    pub(crate) fn moves(&mut self) {
        self.socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    }

    /// Send these bytes from this client's own address.
    pub(crate) fn send_raw(&self, datagram: &[u8], port: u16) {
        self.socket.send_to(datagram, ("127.0.0.1", port)).unwrap();
    }

    /// Send one packet with `payload` at `level` dBov.
    pub(crate) fn speak(&mut self, payload: &[u8], level: i8) {
        self.seq += 1;
        self.time = self.time.wrapping_add(TICKS_PER_PACKET);
        let pt = self.rtc.media(self.microphone).unwrap().remote_pts()[0];
        let levels = ExtensionValues { audio_level: Some(level), voice_activity: Some(true), ..Default::default() };
        let write = RtpWrite::new(pt, self.seq.into(), self.time, Instant::now(), payload.to_vec()).ext_vals(levels);
        self.rtc.direct_api().stream_tx_by_mid(self.microphone, None).unwrap().write_rtp(write);
        self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
        self.drain();
    }

    /// Take part in the network for at most `wait`: send what is due, take in one datagram.
    pub(crate) fn step(&mut self, wait: Duration) {
        let until = self.drain();
        let wait = until.saturating_duration_since(Instant::now()).min(wait).max(Duration::from_micros(100));
        self.socket.set_read_timeout(Some(wait)).unwrap();
        let mut buffer = [0; 2000];
        match self.socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                let Ok(contents) = buffer[..length].try_into() else { return };
                let receive = Receive { proto: Protocol::Udp, source, destination: self.local, contents };
                self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        self.drain();
    }

    fn drain(&mut self) -> Instant {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => return at,
                Output::Transmit(transmit) => {
                    self.socket.send_to(&transmit.contents, transmit.destination).unwrap();
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(packet)) => {
                    let mid =
                        self.rtc.direct_api().stream_rx(&packet.header.ssrc).map(|stream| stream.mid().to_string());
                    self.heard.push(Heard {
                        mid: mid.unwrap_or_default(),
                        seq: *packet.seq_no,
                        payload: packet.payload.to_vec(),
                        level: packet.header.ext_vals.audio_level,
                    });
                }
                Output::Event(_) => {}
            }
        }
    }

    pub(crate) fn heard_payload(&self, payload: &[u8]) -> bool {
        self.heard.iter().any(|heard| heard.payload == payload)
    }
}

/// Let everyone take part until `done`, which must happen.
#[track_caller]
pub(crate) fn until(talkers: &mut [&mut Talker], mut done: impl FnMut(&mut [&mut Talker]) -> bool) {
    let started = Instant::now();
    while !done(talkers) {
        assert!(started.elapsed() < PATIENCE, "what was waited for never happened");
        for talker in talkers.iter_mut() {
            talker.step(Duration::from_millis(2));
        }
    }
}
