//! The Matrix events of a voice room: types, contents, bounds.
//!
//! State comes from other people's servers, so reading never fails: what is missing gets its default, what is out of
//! bounds is brought to the nearest bound.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `type` in the content of `m.room.create` of our voice rooms.
pub const ROOM_TYPE_VOICE: &str = "org.voicechat.voice";
/// `type` of a call room of MSC3417, understood as a voice room too.
pub const ROOM_TYPE_CALL: &str = "org.matrix.msc3417.call";

/// State event with the room's [`VoiceConfig`]; state key "".
pub const CONFIG: &str = "org.voicechat.voice.config";
/// State event in which a device says that it takes part in the call (MSC3401, as matrix-js-sdk writes it).
pub const CALL_MEMBER: &str = "org.matrix.msc3401.call.member";

/// Keys in `events` of `m.room.power_levels` that give voice rights, with their defaults.
pub mod rights {
    /// To be heard.
    pub const SPEAK: (&str, i64) = ("org.voicechat.voice.speak", 0);
    /// To hear.
    pub const LISTEN: (&str, i64) = ("org.voicechat.voice.listen", 0);
    /// To mute others for everyone.
    pub const MUTE_OTHERS: (&str, i64) = ("org.voicechat.voice.mute_others", 50);
}

/// Bits per second of one voice.
pub const BITRATE_MIN: u32 = 24_000;
pub const BITRATE_MAX: u32 = 96_000;
pub const BITRATE_DEFAULT: u32 = 64_000;
/// Lengths that an Opus frame may have here, milliseconds, rising.
pub const FRAMES_MS: [u32; 4] = [10, 20, 40, 60];
pub const FRAME_MS_DEFAULT: u32 = 20;
pub const USER_LIMIT_MIN: u32 = 1;
pub const USER_LIMIT_MAX: u32 = 100;
pub const USER_LIMIT_DEFAULT: u32 = 50;
/// Bounds of a receiver's jitter buffer, milliseconds.
pub const JITTER_MS_MIN: u32 = 20;
pub const JITTER_MS_MAX: u32 = 200;

/// Content of [`CONFIG`]: always within bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ConfigAsWritten")]
pub struct VoiceConfig {
    /// Bits per second, 24,000 to 96,000.
    pub bitrate: u32,
    /// One of [`FRAMES_MS`].
    pub frame_ms: u32,
    /// Participants, 1 to 100.
    pub user_limit: u32,
    pub jitter: Jitter,
}

/// Bounds of the jitter buffer, milliseconds; `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Jitter {
    pub min: u32,
    pub max: u32,
}

impl Default for VoiceConfig {
    fn default() -> Self {
        ConfigAsWritten::default().into()
    }
}

impl VoiceConfig {
    /// Read the content of a [`CONFIG`] event, however it was written.
    #[must_use]
    pub fn from_content(content: &Value) -> Self {
        let jitter = &content["jitter"];
        ConfigAsWritten {
            bitrate: number(&content["bitrate"]),
            frame_ms: number(&content["frame_ms"]),
            user_limit: number(&content["user_limit"]),
            jitter: JitterAsWritten { min: number(&jitter["min"]), max: number(&jitter["max"]) },
        }
        .into()
    }
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigAsWritten {
    bitrate: Option<i64>,
    frame_ms: Option<i64>,
    user_limit: Option<i64>,
    jitter: JitterAsWritten,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JitterAsWritten {
    min: Option<i64>,
    max: Option<i64>,
}

impl From<ConfigAsWritten> for VoiceConfig {
    fn from(written: ConfigAsWritten) -> Self {
        let min = bounded(written.jitter.min, JITTER_MS_MIN, JITTER_MS_MAX, JITTER_MS_MIN);
        let max = bounded(written.jitter.max, JITTER_MS_MIN, JITTER_MS_MAX, JITTER_MS_MAX);
        let frame_ms = bounded(written.frame_ms, FRAMES_MS[0], FRAMES_MS[3], FRAME_MS_DEFAULT);
        Self {
            bitrate: bounded(written.bitrate, BITRATE_MIN, BITRATE_MAX, BITRATE_DEFAULT),
            // Opus knows only certain lengths: the longest that is not longer than asked for.
            frame_ms: FRAMES_MS.into_iter().rfind(|&length_ms| length_ms <= frame_ms).unwrap_or(FRAME_MS_DEFAULT),
            user_limit: bounded(written.user_limit, USER_LIMIT_MIN, USER_LIMIT_MAX, USER_LIMIT_DEFAULT),
            jitter: Jitter { min, max: max.max(min) },
        }
    }
}

fn bounded(value: Option<i64>, min: u32, max: u32, default: u32) -> u32 {
    match value {
        None => default,
        Some(value) => u32::try_from(value.clamp(i64::from(min), i64::from(max))).unwrap_or(default),
    }
}

/// How long a membership that we write counts without being renewed, milliseconds (matrix-js-sdk's default).
pub const CALL_MEMBER_EXPIRES_MS: u64 = 4 * 60 * 60 * 1000;

/// Content of [`CALL_MEMBER`] for a device that is in the call; a device that left has `{}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallMember {
    pub application: String,
    pub call_id: String,
    pub scope: String,
    pub device_id: String,
    #[serde(rename = "membershipID")]
    pub membership_id: String,
    /// Milliseconds after `created_ts` (or, without it, after the event's own time).
    pub expires: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_ts: Option<u64>,
    #[serde(rename = "m.call.intent", default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
    pub focus_active: FocusActive,
    pub foci_preferred: Vec<Value>,
}

/// How the focus of the call is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FocusActive {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub focus_selection: Option<String>,
}

impl CallMember {
    /// The membership of a device that talks through the voice service at `service_url`.
    #[must_use]
    pub fn new(user_id: &str, device_id: &str, created_ts_ms: u64, service_url: &str) -> Self {
        Self {
            application: "m.call".to_owned(),
            call_id: String::new(),
            scope: "m.room".to_owned(),
            device_id: device_id.to_owned(),
            membership_id: format!("{user_id}:{device_id}"),
            expires: CALL_MEMBER_EXPIRES_MS,
            created_ts: Some(created_ts_ms),
            intent: Some("audio".to_owned()),
            focus_active: FocusActive {
                kind: FOCUS_TYPE.to_owned(),
                focus_selection: Some("oldest_membership".to_owned()),
            },
            foci_preferred: vec![serde_json::json!({"type": FOCUS_TYPE, "service_url": service_url})],
        }
    }
}

/// Type of a focus that speaks this protocol.
pub const FOCUS_TYPE: &str = "org.voicechat.sfu";

/// State key of a device's [`CALL_MEMBER`] event, as matrix-js-sdk builds it.
///
/// The leading `_` keeps it clear of the rule that reserves state keys beginning with `@` to that user.
#[must_use]
pub fn call_member_state_key(user_id: &str, device_id: &str) -> String {
    format!("_{user_id}_{device_id}_m.call")
}

/// Whether the content says that the device is in a call: `{}` means that it left.
#[must_use]
pub fn is_in_call(content: &Value) -> bool {
    content
        .as_object()
        .is_some_and(|content| content.get("application").is_some() || content.get("device_id").is_some())
}
