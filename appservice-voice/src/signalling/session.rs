//! One connection's conversation: who it is, where it takes part, and what each method does.
//!
//! Requests of a connection are answered one after the other, in their order. A connection takes part in one room at a
//! time; joining another leaves the first.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::{Value, json};
use voice_protocol::{
    error,
    json_rpc::{Error, Request, Response},
    methods::{self, Call, Done, Hello, Join, MuteKind, Pong, Welcome},
    notifications::LeaveReason,
};

use super::{
    json_rpc::{self, Frame, Incoming},
    outbox::Outbox,
};
use crate::{
    clock,
    matrix::{client::Fault, openid::Unproven},
    rate::Bucket,
    room::{Device, ParticipantId, Refusal},
    sfu::{SLOTS_MAX, peer::OfferFault},
    switchboard::{JoinFault, Switchboard},
};

/// How often the server pings; clients are told.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(3);
/// Messages a second, on average and at once.
pub(crate) const MESSAGES_PER_SECOND_MAX: u32 = 20;
const MESSAGES_BURST_MAX: u32 = 60;
/// Joins a second, on average and at once: each may make the homeserver read a room's whole state.
const JOINS_PER_SECOND_MAX: u32 = 1;
const JOINS_BURST_MAX: u32 = 10;
/// Offers a second, on average and at once: each may cost the media thread a new connection.
const OFFERS_PER_SECOND_MAX: u32 = 2;
const OFFERS_BURST_MAX: u32 = 10;
/// Refusals for being too fast before the connection is closed.
const REFUSALS_MAX: u32 = 200;
/// Failed attempts to say who one is before the connection is closed.
const HELLOS_MAX: u32 = 3;
/// Longest room, user or device id, bytes.
const ID_BYTES_MAX: usize = 255;
/// Longest ICE candidate line, bytes.
const CANDIDATE_BYTES_MAX: usize = 1_024;
/// Most targets of one `voice.subscribe`.
const TARGETS_MAX: usize = 100;

pub(crate) struct Session {
    switchboard: Arc<Switchboard>,
    outbox: Outbox,
    bucket: Bucket,
    joins: Bucket,
    offers: Bucket,
    refusals: u32,
    hellos: u32,
    device: Option<Device>,
    seat: Option<Seat>,
}

#[derive(Clone)]
struct Seat {
    room_id: String,
    participant: ParticipantId,
}

impl Session {
    pub(crate) fn new(switchboard: Arc<Switchboard>, outbox: Outbox) -> Self {
        let now = Instant::now();
        let bucket = Bucket::new(MESSAGES_PER_SECOND_MAX, MESSAGES_BURST_MAX, now);
        let joins = Bucket::new(JOINS_PER_SECOND_MAX, JOINS_BURST_MAX, now);
        let offers = Bucket::new(OFFERS_PER_SECOND_MAX, OFFERS_BURST_MAX, now);
        Self { switchboard, outbox, bucket, joins, offers, refusals: 0, hellos: 0, device: None, seat: None }
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.device.is_some()
    }

    /// Whether the client behaves so badly that the connection should end.
    pub(crate) fn is_abusive(&self) -> bool {
        self.refusals > REFUSALS_MAX || (self.device.is_none() && self.hellos >= HELLOS_MAX)
    }

    /// Answer one message. `None`: there is nothing to answer.
    pub(crate) async fn answer(&mut self, message: &[u8]) -> Option<String> {
        match json_rpc::parse(message) {
            Err(refusal) => Some(text(&self.refuse(refusal))),
            Ok(Frame::One(incoming)) => self.respond(incoming).await.as_ref().map(text),
            Ok(Frame::Batch(batch)) => {
                let mut answers = Vec::with_capacity(batch.len());
                for incoming in batch {
                    answers.extend(self.respond(incoming).await);
                }
                (!answers.is_empty()).then(|| text(&answers))
            }
        }
    }

    async fn respond(&mut self, incoming: Incoming) -> Option<Response> {
        let Request { id, method, params, .. } = match incoming {
            Ok(request) => request,
            Err(refusal) => return Some(self.refuse(refusal)),
        };
        let outcome = match self.bucket.take(Instant::now()) {
            Ok(()) => match Call::read(&method, params) {
                Ok(call) => self.perform(call).await,
                Err(error) => Err(error),
            },
            Err(wait) => {
                self.refusals += 1;
                Err(too_fast(wait))
            }
        };
        // Without an id it was a notification, which is not answered even when it fails.
        let id = id?;
        Some(match outcome {
            Ok(result) => Response::result(id, result),
            Err(error) => Response::error(Some(id), error),
        })
    }

    /// Answer what is no request. It costs as much as one, or rubbish would be free.
    fn refuse(&mut self, refusal: Response) -> Response {
        if self.bucket.take(Instant::now()).is_err() {
            self.refusals += 1;
        }
        refusal
    }

    async fn perform(&mut self, call: Call) -> Result<Value, Error> {
        match call {
            Call::Hello(hello) => self.hello(hello).await,
            Call::Ping(ping) => value(Pong { t: ping.t, server_time_ms: clock::now_ms() }),
            _ if self.device.is_none() => Err(Error::new(error::UNAUTHENTICATED, "say voice.hello first")),
            Call::Join(join) => self.join(join).await,
            Call::Leave(leave) => {
                let seat = self.seat(&leave.participant_id)?;
                self.switchboard.leave(&seat.room_id, &seat.participant, LeaveReason::Left);
                self.seat = None;
                value(Done {})
            }
            Call::Offer(offer) => {
                let seat = self.seat(&offer.participant_id)?;
                self.offers.take(Instant::now()).map_err(too_fast)?;
                let answered = self.switchboard.sfu().offer(&seat.participant, offer.offer_id, offer.sdp).await;
                value(answered.map_err(offer_error)?)
            }
            Call::Answer(answer) => {
                self.seat(&answer.participant_id)?;
                Err(Error::new(error::BAD_SESSION_DESCRIPTION, "the server made no offer: the client offers"))
            }
            Call::Ice(ice) => {
                let seat = self.seat(&ice.participant_id)?;
                if let Some(candidate) = ice.candidate.filter(|candidate| candidate.len() <= CANDIDATE_BYTES_MAX) {
                    self.switchboard.sfu().add_candidate(&seat.participant, candidate);
                }
                value(Done {})
            }
            Call::Mute(mute) => self.mute(&mute, true),
            Call::Unmute(mute) => self.mute(&mute, false),
            Call::Deafen(deafen) => {
                let seat = self.seat(&deafen.participant_id)?;
                self.switchboard.with_room(&seat.room_id, |room| room.deafen(&seat.participant, deafen.deafened))?;
                value(Done {})
            }
            Call::Subscribe(subscribe) => {
                let seat = self.seat(&subscribe.participant_id)?;
                let targets: Vec<_> =
                    subscribe.targets.iter().take(TARGETS_MAX).map(|id| ParticipantId::new(id)).collect();
                self.switchboard
                    .with_room(&seat.room_id, |room| room.subscribe(&seat.participant, &targets, subscribe.on))?;
                value(Done {})
            }
            Call::Kick(kick) => {
                let seat = self.seat(&kick.participant_id)?;
                let target = ParticipantId::new(&kick.target);
                self.switchboard.with_room(&seat.room_id, |room| room.kick(&seat.participant, &target))?;
                value(Done {})
            }
            Call::Stats(stats) => {
                let seat = self.seat(&stats.participant_id)?;
                value(self.switchboard.sfu().stats(&seat.participant).await.unwrap_or_default())
            }
        }
    }

    async fn hello(&mut self, hello: Hello) -> Result<Value, Error> {
        if self.device.is_some() {
            return Err(Error::new(error::INVALID_REQUEST, "this connection is authenticated already"));
        }
        self.hellos += 1;
        let device = self.identify(&hello).await?;
        if !self.switchboard.open_session(&device.user_id) {
            return Err(Error::new(error::LIMIT_EXCEEDED, "too many connections of this user"));
        }
        let welcome = Welcome {
            session_id: Switchboard::new_id("s_"),
            user_id: device.user_id.clone(),
            device_id: device.device_id.clone(),
            server_time_ms: clock::now_ms(),
            ping_interval_ms: u64::try_from(PING_INTERVAL.as_millis()).unwrap_or(u64::MAX),
            codecs: vec!["opus".to_owned()],
            limits: methods::Limits {
                message_bytes_max: json_rpc::MESSAGE_BYTES_MAX,
                messages_per_second_max: MESSAGES_PER_SECOND_MAX,
                batch_len_max: json_rpc::BATCH_LEN_MAX,
                slots_max: SLOTS_MAX,
            },
        };
        self.device = Some(device);
        value(welcome)
    }

    async fn identify(&self, hello: &Hello) -> Result<Device, Error> {
        let unauthenticated = |text: &str| Error::new(error::UNAUTHENTICATED, text);
        let (user_id, device_id) = match (&hello.access_token, &hello.openid) {
            (Some(token), None) => {
                let me = self.switchboard.homeserver().whoami(token).await.map_err(|fault| match fault {
                    Fault::Refused { .. } => unauthenticated("the access token is not valid"),
                    other => unavailable(&other),
                })?;
                (me.user_id, me.device_id.or_else(|| hello.device_id.clone()))
            }
            (None, Some(token)) => {
                let verified = self.switchboard.verifier().user_of(token, self.switchboard.homeserver()).await;
                let user_id = verified.map_err(|unproven| match unproven {
                    Unproven::Unavailable(fault) => unavailable(&fault),
                    other => unauthenticated(&other.to_string()),
                })?;
                if hello.user_id.is_none() {
                    return Err(Error::new(error::INVALID_PARAMS, "user_id is required with openid"));
                }
                (user_id, hello.device_id.clone())
            }
            _ => return Err(Error::new(error::INVALID_PARAMS, "give either access_token or openid")),
        };
        if hello.user_id.as_ref().is_some_and(|claimed| *claimed != user_id) {
            return Err(unauthenticated("the token belongs to someone else"));
        }
        let device_id =
            device_id.filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX && !id.chars().any(char::is_control));
        let device_id = device_id.ok_or_else(|| Error::new(error::INVALID_PARAMS, "device_id is required"))?;
        Ok(Device { user_id, device_id })
    }

    async fn join(&mut self, join: Join) -> Result<Value, Error> {
        let device = self.device.clone().ok_or_else(|| Error::new(error::UNAUTHENTICATED, "say voice.hello first"))?;
        if join.room_id.len() > ID_BYTES_MAX || !join.room_id.starts_with('!') {
            return Err(Error::new(error::INVALID_PARAMS, "room_id is not a room id"));
        }
        self.joins.take(Instant::now()).map_err(too_fast)?;
        if let Some(seat) = self.seat.take() {
            self.switchboard.leave(&seat.room_id, &seat.participant, LeaveReason::Left);
        }
        let room_id = join.room_id.clone();
        let joined = self.switchboard.join(device, join, self.outbox.clone()).await.map_err(|fault| match fault {
            JoinFault::Refused(refusal) => refusal.into(),
            JoinFault::Homeserver(fault) => unavailable(&fault),
        })?;
        self.seat = Some(Seat { room_id, participant: ParticipantId::new(&joined.participant_id) });
        value(joined)
    }

    fn mute(&self, mute: &methods::Mute, muted: bool) -> Result<Value, Error> {
        let seat = self.own_seat()?;
        let target = ParticipantId::new(&mute.participant_id);
        let now = match mute.kind {
            MuteKind::Own => {
                let seat = self.seat(&mute.participant_id)?;
                self.switchboard.with_room(&seat.room_id, |room| room.mute_self(&target, muted))?;
                self.switchboard.muted(&seat.room_id, &target)
            }
            MuteKind::Server => {
                self.switchboard.with_room(&seat.room_id, |room| room.mute_other(&seat.participant, &target, muted))?;
                self.switchboard.muted(&seat.room_id, &target)
            }
        };
        value(now?)
    }

    /// The connection's own place, which `participant_id` must name.
    fn seat(&self, participant_id: &str) -> Result<Seat, Error> {
        let seat = self.own_seat()?;
        if seat.participant.as_str() != participant_id {
            return Err(Error::new(error::NOT_FOUND, "not a participant of this connection"));
        }
        Ok(seat)
    }

    fn own_seat(&self) -> Result<Seat, Error> {
        self.seat.clone().ok_or_else(|| Error::new(error::NOT_FOUND, "this connection is in no room"))
    }

    /// The connection is gone.
    pub(crate) fn close(self) {
        if let Some(seat) = &self.seat {
            self.switchboard.detach(&seat.room_id, &seat.participant);
        }
        if let Some(device) = &self.device {
            self.switchboard.close_session(&device.user_id);
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NotAVoiceRoom => Self::new(error::NOT_A_VOICE_ROOM, text),
            Refusal::Barred | Refusal::NotAllowed => Self::new(error::FORBIDDEN, text),
            Refusal::Full { user_limit } => {
                Self::new(error::ROOM_FULL, text).with_data(json!({"user_limit": user_limit}))
            }
            Refusal::NoSuchParticipant => Self::new(error::NOT_FOUND, text),
        }
    }
}

fn too_fast(wait: std::time::Duration) -> Error {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
    Error::new(error::LIMIT_EXCEEDED, "too fast").with_data(json!({"retry_after_ms": wait_ms}))
}

fn offer_error(fault: OfferFault) -> Error {
    let code = match fault {
        OfferFault::Unusable(_) | OfferFault::TooLarge => error::BAD_SESSION_DESCRIPTION,
        OfferFault::NoSuchParticipant => error::NOT_FOUND,
        OfferFault::Busy => error::INTERNAL_ERROR,
    };
    Error::new(code, fault.to_string())
}

fn unavailable(fault: &Fault) -> Error {
    tracing::warn!(%fault, "a client could not be served");
    Error::new(error::INTERNAL_ERROR, "a homeserver cannot be asked now")
}

fn value(result: impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(result).map_err(|_| Error::new(error::INTERNAL_ERROR, "the result cannot be written"))
}

fn text(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).unwrap_or_default()
}
