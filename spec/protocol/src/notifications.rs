//! What the server tells without being asked.
//!
//! Every notification carries `seq` among its parameters: it rises by at least one per message of a connection. A gap
//! means that `voice.speaking` messages were left out for a slow reader; nothing else is ever left out.

use serde::{Deserialize, Serialize};

use crate::{
    events::VoiceConfig,
    json_rpc::Version,
    methods::{MidMap, Participant},
};

/// One notification as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    pub jsonrpc: Version,
    #[serde(flatten)]
    pub notification: Notification,
}

/// Parameters with their place in the connection's order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbered<T> {
    pub seq: u64,
    #[serde(flatten)]
    pub body: T,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum Notification {
    #[serde(rename = "voice.user_joined")]
    UserJoined(Numbered<UserJoined>),
    #[serde(rename = "voice.user_left")]
    UserLeft(Numbered<UserLeft>),
    #[serde(rename = "voice.user_updated")]
    UserUpdated(Numbered<UserUpdated>),
    #[serde(rename = "voice.speaking")]
    Speaking(Numbered<Speaking>),
    #[serde(rename = "voice.tracks")]
    Tracks(Numbered<Tracks>),
    #[serde(rename = "voice.muted_by")]
    MutedBy(Numbered<MutedBy>),
    #[serde(rename = "voice.room_config")]
    RoomConfig(Numbered<RoomConfig>),
    #[serde(rename = "voice.server_going_away")]
    ServerGoingAway(Numbered<ServerGoingAway>),
}

/// The same, before a connection gave it its number.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    UserJoined(UserJoined),
    UserLeft(UserLeft),
    UserUpdated(UserUpdated),
    Speaking(Speaking),
    Tracks(Tracks),
    MutedBy(MutedBy),
    RoomConfig(RoomConfig),
    ServerGoingAway(ServerGoingAway),
}

impl News {
    /// Give the news its number on one connection.
    #[must_use]
    pub fn numbered(self, seq: u64) -> Notice {
        let notification = match self {
            Self::UserJoined(body) => Notification::UserJoined(Numbered { seq, body }),
            Self::UserLeft(body) => Notification::UserLeft(Numbered { seq, body }),
            Self::UserUpdated(body) => Notification::UserUpdated(Numbered { seq, body }),
            Self::Speaking(body) => Notification::Speaking(Numbered { seq, body }),
            Self::Tracks(body) => Notification::Tracks(Numbered { seq, body }),
            Self::MutedBy(body) => Notification::MutedBy(Numbered { seq, body }),
            Self::RoomConfig(body) => Notification::RoomConfig(Numbered { seq, body }),
            Self::ServerGoingAway(body) => Notification::ServerGoingAway(Numbered { seq, body }),
        };
        Notice { jsonrpc: Version, notification }
    }
}

/// `voice.user_joined`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserJoined {
    pub room_id: String,
    pub participant: Participant,
}

/// Why a participant left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// They asked to.
    Left,
    /// A moderator removed them from the call.
    Kicked,
    /// The room's state no longer lets them in.
    Forbidden,
    /// Connection and media died.
    ConnectionLost,
    /// The same device joined again.
    Replaced,
    /// The server stops.
    ServerStopped,
}

/// `voice.user_left`. The participant concerned receives it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLeft {
    pub room_id: String,
    pub participant_id: String,
    pub reason: LeaveReason,
}

/// `voice.user_updated`: mute or deafen changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserUpdated {
    pub room_id: String,
    pub participant: Participant,
}

/// Start or stop of speech.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeakingState {
    Started,
    Stopped,
}

/// `voice.speaking`: at most ten a second per participant, 300 ms of hysteresis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaking {
    pub room_id: String,
    pub participant_id: String,
    /// dBov: 0 is the loudest, −127 silence.
    pub level: i8,
    pub state: SpeakingState,
}

/// `voice.tracks`: the whole map of the receiver's slots after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracks {
    pub participant_id: String,
    pub mid_map: MidMap,
}

/// `voice.muted_by`: told to the one concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MutedBy {
    pub participant_id: String,
    /// Absent when the room's state did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    pub server_muted: bool,
}

/// `voice.room_config`: the room's configuration changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomConfig {
    pub room_id: String,
    pub config: VoiceConfig,
}

/// `voice.server_going_away`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerGoingAway {
    pub resume_after_ms: u64,
}
