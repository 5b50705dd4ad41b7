//! The registration by which the homeserver knows the voice service.
//!
//! Source: Application Service API, "Registration". One key is ours: `org.voicechat.event_types` lists the only event
//! types that the service wants pushed; a homeserver that does not know it pushes all, which is merely more work.

use serde::Serialize;

use crate::{room::access, settings::Settings};

/// Id of the registration.
pub const ID: &str = "voicechat-voice";

/// A registration as homeservers read it (as JSON, which is YAML too).
#[derive(Clone, Debug, Serialize)]
pub struct Registration {
    pub id: String,
    pub url: String,
    pub as_token: String,
    pub hs_token: String,
    pub sender_localpart: String,
    pub rate_limited: bool,
    pub namespaces: Namespaces,
    #[serde(rename = "org.voicechat.event_types")]
    pub event_types: Vec<String>,
}

/// Whom and what the service watches.
#[derive(Clone, Debug, Serialize)]
pub struct Namespaces {
    pub users: Vec<Namespace>,
    pub rooms: Vec<Namespace>,
    pub aliases: Vec<Namespace>,
}

/// A regular expression over ids.
#[derive(Clone, Debug, Serialize)]
pub struct Namespace {
    pub exclusive: bool,
    pub regex: String,
}

/// The registration that fits `settings`, for a homeserver that reaches the service at `url`.
///
/// Users: every local user, not exclusively, so that the service may clear the call membership of someone whose
/// connection died. Rooms: all, so that it may read the state of a voice room without being in it.
#[must_use]
pub fn registration(settings: &Settings, url: &str) -> Registration {
    Registration {
        id: ID.to_owned(),
        url: url.to_owned(),
        as_token: settings.as_token.clone(),
        hs_token: settings.hs_token.clone(),
        sender_localpart: settings.sender_localpart.clone(),
        rate_limited: false,
        namespaces: Namespaces {
            users: vec![Namespace { exclusive: false, regex: format!("@.*:{}", escaped(&settings.server_name)) }],
            rooms: vec![Namespace { exclusive: false, regex: "!.*".to_owned() }],
            aliases: Vec::new(),
        },
        event_types: access::EVENT_TYPES.map(ToOwned::to_owned).to_vec(),
    }
}

/// Server names hold letters, digits, `.`, `-`, `:` and brackets; those that mean something in a pattern get a backslash.
fn escaped(server_name: &str) -> String {
    server_name.chars().flat_map(|c| if matches!(c, '.' | '[' | ']') { vec!['\\', c] } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registration_covers_local_users_and_all_rooms_without_owning_them() {
        let settings = Settings { server_name: "chat.example.org:8448".to_owned(), ..Settings::default() };

        let registration = serde_json::to_value(registration(&settings, "http://127.0.0.1:9000")).unwrap();

        assert_eq!(registration["namespaces"]["users"][0]["regex"], r"@.*:chat\.example\.org:8448");
        assert_eq!(registration["namespaces"]["users"][0]["exclusive"], false);
        assert_eq!(registration["namespaces"]["rooms"][0]["regex"], "!.*");
        assert_eq!(registration["rate_limited"], false);
        assert_eq!(registration["org.voicechat.event_types"].as_array().unwrap().len(), 6);
    }
}
