//! What a client asks: one type for the parameters and one for the result of each method.
//!
//! To add a method: a variant of [`Call`], its line in [`Call::read`], the types, an example in `spec/examples` and a
//! section in `spec/voice.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{error, events::VoiceConfig, json_rpc::Error};

/// A method with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Hello(Hello),
    Join(Join),
    Leave(Leave),
    Offer(Offer),
    Answer(Answer),
    Ice(Ice),
    Mute(Mute),
    Unmute(Mute),
    Deafen(Deafen),
    Subscribe(Subscribe),
    Kick(Kick),
    Ping(Ping),
    Stats(Stats),
}

impl Call {
    /// Read a request's method and parameters.
    ///
    /// # Errors
    /// [`error::METHOD_NOT_FOUND`] or [`error::INVALID_PARAMS`]; the message names the method, never echoes values.
    pub fn read(method: &str, params: Value) -> Result<Self, Error> {
        Ok(match method {
            "voice.hello" => Self::Hello(read(method, params)?),
            "voice.join" => Self::Join(read(method, params)?),
            "voice.leave" => Self::Leave(read(method, params)?),
            "voice.offer" => Self::Offer(read(method, params)?),
            "voice.answer" => Self::Answer(read(method, params)?),
            "voice.ice" => Self::Ice(read(method, params)?),
            "voice.mute" => Self::Mute(read(method, params)?),
            "voice.unmute" => Self::Unmute(read(method, params)?),
            "voice.deafen" => Self::Deafen(read(method, params)?),
            "voice.subscribe" => Self::Subscribe(read(method, params)?),
            "voice.kick" => Self::Kick(read(method, params)?),
            "voice.ping" => Self::Ping(read(method, params)?),
            "voice.stats" => Self::Stats(read(method, params)?),
            _ => return Err(Error::new(error::METHOD_NOT_FOUND, "no such method")),
        })
    }
}

fn read<T: DeserializeOwned>(method: &str, params: Value) -> Result<T, Error> {
    let params = if params.is_null() { Value::Object(serde_json::Map::new()) } else { params };
    serde_json::from_value(params)
        .map_err(|_| Error::new(error::INVALID_PARAMS, format!("the parameters of {method} are not as specified")))
}

/// An OpenID token as `POST /user/{userId}/openid/request_token` returns it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenIdToken {
    pub access_token: String,
    pub token_type: String,
    pub matrix_server_name: String,
    /// Seconds.
    pub expires_in: u64,
}

/// `voice.hello`: who is calling. Exactly one of `access_token` and `openid`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// An access token of the homeserver that this voice service belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openid: Option<OpenIdToken>,
    /// With `openid`: must equal the token's subject. With `access_token`: optional, must match when present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// With `openid`: required. With `access_token`: the token's device wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
}

// Tokens must not reach a log through `{:?}`.
impl std::fmt::Debug for OpenIdToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenIdToken").field("matrix_server_name", &self.matrix_server_name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

/// Result of `voice.hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub session_id: String,
    pub user_id: String,
    pub device_id: String,
    /// Milliseconds since 1970, the server's clock.
    pub server_time_ms: u64,
    /// The server sends a WebSocket ping this often; silence for twice as long ends the connection.
    pub ping_interval_ms: u64,
    pub codecs: Vec<String>,
    pub limits: Limits,
}

/// Bounds a client should know before it runs into them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub message_bytes_max: usize,
    pub messages_per_second_max: u32,
    pub batch_len_max: usize,
    /// Most speakers heard at once, and so the most `recvonly` sections worth offering.
    pub slots_max: usize,
}

/// `voice.join`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    pub room_id: String,
    #[serde(default)]
    pub muted: bool,
    #[serde(default)]
    pub deafened: bool,
}

/// Result of `voice.join`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    pub participant_id: String,
    pub room: RoomView,
    /// Everyone in the room, the caller included.
    pub participants: Vec<Participant>,
    pub ice_servers: Vec<Value>,
    /// Always `client_offers` in this version.
    pub sdp_mode: String,
}

/// The room as a participant sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomView {
    pub room_id: String,
    pub config: VoiceConfig,
}

/// Someone in a voice room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    pub participant_id: String,
    pub user_id: String,
    pub device_id: String,
    /// Muted by themselves.
    pub muted: bool,
    /// Muted by a moderator, or without the right to speak.
    pub server_muted: bool,
    pub deafened: bool,
    pub speaking: bool,
}

/// `voice.leave`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    pub participant_id: String,
}

/// `voice.offer`: the client's session description; `recvonly` audio sections are slots for speakers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub participant_id: String,
    pub offer_id: u64,
    pub sdp: String,
}

/// Result of `voice.offer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Equals `offer_id`.
    pub answer_id: u64,
    pub sdp: String,
    /// Which participant is heard on which section (`a=mid`); null when the slot is free.
    pub mid_map: MidMap,
}

/// `a=mid` to participant.
pub type MidMap = BTreeMap<String, Option<String>>;

/// `voice.answer`: answers a server's offer. In `client_offers` mode there is none, so the server refuses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub participant_id: String,
    pub offer_id: u64,
    pub sdp: String,
}

/// `voice.ice`: one more candidate of the client, or null at the end of candidates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ice {
    pub participant_id: String,
    pub candidate: Option<String>,
}

/// Which kind of mute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MuteKind {
    #[default]
    #[serde(rename = "self")]
    Own,
    Server,
}

/// `voice.mute` and `voice.unmute`. `kind: server` needs the right `org.voicechat.voice.mute_others`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    pub participant_id: String,
    #[serde(default)]
    pub kind: MuteKind,
}

/// Result of `voice.mute`, `voice.unmute`: how the participant stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Muted {
    pub muted: bool,
    pub server_muted: bool,
}

/// `voice.deafen`: hear nothing, or hear again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deafen {
    pub participant_id: String,
    pub deafened: bool,
}

/// `voice.subscribe`: stop or resume receiving some participants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    pub participant_id: String,
    /// Whom to hear or not to hear.
    pub targets: Vec<String>,
    pub on: bool,
}

/// `voice.kick`: removes a participant from the call, not from the room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kick {
    pub participant_id: String,
    /// The one to remove.
    pub target: String,
}

/// `voice.ping`; also the result, with the server's clock beside the caller's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    #[serde(default)]
    pub t: Value,
}

/// Result of `voice.ping`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    pub t: Value,
    pub server_time_ms: u64,
}

/// `voice.stats`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub participant_id: String,
}

/// Result of `voice.stats`: the connection as the server sees it. "in" is client to server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MediaStats {
    pub connected: bool,
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Packets of this participant that were not forwarded because it was muted.
    pub packets_muted: u64,
    /// Packets that were not forwarded because they were more than a voice needs.
    #[serde(default)]
    pub packets_over: u64,
    /// Share of packets lost on the way in, 0 to 1; absent until measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_in: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_out: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_in_ms: Option<f64>,
}

/// The empty result, `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}
