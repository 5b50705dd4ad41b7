//! Registration files: how an application service and this server know each other.
//!
//! YAML as the specification has it; JSON is YAML too. Unknown keys are left alone, since every bridge has some.
//! Source: Application Service API, "Registration". `org.voicechat.event_types` is ours (spec/voice.md): events of other types
//! are not pushed.

use std::{collections::BTreeSet, fmt, path::Path};

use regex::Regex;
use ruma::{OwnedUserId, ServerName, UserId};
use serde::Deserialize;

use crate::{Error, Result};

/// The largest file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file's content.
#[derive(Deserialize)]
struct File {
    id: String,
    url: Option<String>,
    as_token: String,
    hs_token: String,
    sender_localpart: String,
    #[serde(default)]
    namespaces: FileNamespaces,
    rate_limited: Option<bool>,
    #[serde(default)]
    protocols: Option<Vec<String>>,
    #[serde(default)]
    receive_ephemeral: Option<bool>,
    #[serde(default, rename = "de.sorunome.msc2409.push_ephemeral")]
    push_ephemeral: Option<bool>,
    #[serde(default, rename = "org.voicechat.event_types")]
    event_types: Option<BTreeSet<String>>,
}

#[derive(Default, Deserialize)]
struct FileNamespaces {
    #[serde(default)]
    users: Option<Vec<FileNamespace>>,
    #[serde(default)]
    aliases: Option<Vec<FileNamespace>>,
    #[serde(default)]
    rooms: Option<Vec<FileNamespace>>,
}

#[derive(Deserialize)]
struct FileNamespace {
    #[serde(default)]
    exclusive: bool,
    regex: String,
}

/// Names an application service watches, or has for itself.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Nobody else may make such names.
    pub exclusive: bool,
    /// Matches from the beginning of a name.
    pub regex: Regex,
}

/// Names of one kind.
#[derive(Debug, Clone, Default)]
pub struct Names(pub Vec<Namespace>);

impl Names {
    /// Whether `name` is among them.
    #[must_use]
    pub fn cover(&self, name: &str) -> bool {
        self.0.iter().any(|namespace| namespace.regex.is_match(name))
    }

    /// Whether `name` is among those nobody else may make.
    #[must_use]
    pub fn own(&self, name: &str) -> bool {
        self.0.iter().any(|namespace| namespace.exclusive && namespace.regex.is_match(name))
    }
}

/// An application service as its file describes it.
#[derive(Clone)]
pub struct Registration {
    /// Its id, unique on this server.
    pub id: String,
    /// Where it is, without a slash at the end; `None` for one that only asks.
    pub url: Option<String>,
    /// What it proves itself with.
    pub as_token: String,
    /// What we prove ourselves with.
    pub hs_token: String,
    /// The user it is when it does not say otherwise.
    pub sender: OwnedUserId,
    /// Users.
    pub users: Names,
    /// Room aliases.
    pub aliases: Names,
    /// Rooms.
    pub rooms: Names,
    /// Whether rate limits apply to its users.
    pub is_rate_limited: bool,
    /// Networks it joins to this one.
    pub protocols: Vec<String>,
    /// Whether it wants typing, receipts and presence.
    pub wants_ephemeral: bool,
    /// The only event types it wants; `None` for all.
    pub event_types: Option<BTreeSet<String>>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

impl Registration {
    /// From a file.
    ///
    /// # Errors
    /// [`Error::Internal`] in words for the operator.
    pub fn read(path: &Path, server: &ServerName) -> Result<Self> {
        let broken = |words: String| Error::Internal(format!("registration {}: {words}", path.display()));
        let bytes = std::fs::metadata(path).map_err(|error| broken(error.to_string()))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(broken(format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| broken(error.to_string()))?;
        Self::parse(&text, server).map_err(|error| broken(error.to_string()))
    }

    /// From a file's text.
    ///
    /// # Errors
    /// [`Error::Invalid`] in words for the operator; tokens are not in them.
    pub fn parse(text: &str, server: &ServerName) -> Result<Self> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| Error::invalid(without_source(&error)))?;
        if file.as_token.is_empty() || file.hs_token.is_empty() || file.id.is_empty() {
            return Err(Error::invalid("id, as_token and hs_token must not be empty"));
        }
        let url = file.url.filter(|url| !url.is_empty()).map(|url| url.trim_end_matches('/').to_owned());
        if let Some(url) = &url
            && !url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            return Err(Error::invalid("url must begin with http:// or https://"));
        }
        let sender = UserId::parse(format!("@{}:{server}", file.sender_localpart));
        Ok(Self {
            sender: sender.map_err(|_| Error::invalid("sender_localpart is not one"))?,
            users: names(file.namespaces.users)?,
            aliases: names(file.namespaces.aliases)?,
            rooms: names(file.namespaces.rooms)?,
            is_rate_limited: file.rate_limited.unwrap_or(true),
            protocols: file.protocols.unwrap_or_default(),
            wants_ephemeral: file.receive_ephemeral.or(file.push_ephemeral).unwrap_or(false),
            event_types: file.event_types,
            id: file.id,
            url,
            as_token: file.as_token,
            hs_token: file.hs_token,
        })
    }

    /// Whether the application service wants events of this type.
    #[must_use]
    pub fn wants(&self, kind: &str) -> bool {
        self.event_types.as_ref().is_none_or(|kinds| kinds.contains(kind))
    }

    /// Whether it may act as `user` (of this server).
    #[must_use]
    pub fn may_be(&self, user: &UserId) -> bool {
        self.sender == user || self.users.cover(user.as_str())
    }
}

fn names(list: Option<Vec<FileNamespace>>) -> Result<Names> {
    let compile = |namespace: FileNamespace| {
        // Bridges are written for servers that match from the beginning and need not reach the end.
        let regex = Regex::new(&format!("^(?:{})", namespace.regex));
        let regex = regex.map_err(|error| Error::invalid(format!("namespace {:?}: {error}", namespace.regex)))?;
        Ok(Namespace { exclusive: namespace.exclusive, regex })
    };
    Ok(Names(list.unwrap_or_default().into_iter().map(compile).collect::<Result<_>>()?))
}

/// A parser's words in one line, without the piece of the file that some of them show (it may be a token).
fn without_source(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or("cannot be read").to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::server_name;

    use super::*;

    const IRC: &str = r##"
id: "IRC Bridge"
url: "http://127.0.0.1:1234/"
as_token: "30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46"
hs_token: "312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e"
sender_localpart: "_irc_bot" # Will result in @_irc_bot:example.org
namespaces:
  users:
    - exclusive: true
      regex: "@_irc_bridge_.*"
  aliases:
    - exclusive: false
      regex: "#_irc_bridge_.*"
  rooms: []
"##;

    #[test]
    fn the_specifications_example_is_understood() {
        let registration = Registration::parse(IRC, server_name!("example.org")).unwrap();

        assert_eq!(registration.sender, "@_irc_bot:example.org");
        assert_eq!(registration.url.as_deref(), Some("http://127.0.0.1:1234"));
        assert!(registration.users.own("@_irc_bridge_alice:example.org"));
        assert!(!registration.users.cover("@alice:example.org"));
        assert!(registration.aliases.cover("#_irc_bridge_rust:example.org"));
        assert!(!registration.aliases.own("#_irc_bridge_rust:example.org"));
        assert!(registration.is_rate_limited && !registration.wants_ephemeral);
        assert!(registration.wants("m.room.message"));
    }

    #[test]
    fn json_is_understood_too_and_may_limit_event_types() {
        let json = r#"{"id": "v", "url": null, "as_token": "a", "hs_token": "h", "sender_localpart": "voice",
            "rate_limited": false, "receive_ephemeral": true, "org.voicechat.event_types": ["m.room.member"],
            "namespaces": {"rooms": [{"exclusive": false, "regex": "!.*"}]}}"#;

        let registration = Registration::parse(json, server_name!("example.org")).unwrap();

        assert!(registration.wants("m.room.member") && !registration.wants("m.room.message"));
        assert!(registration.rooms.cover("!anything"));
        assert!(!registration.is_rate_limited && registration.wants_ephemeral);
        assert_eq!(registration.url, None);
    }

    #[test]
    fn a_faulty_file_is_refused_without_showing_its_tokens() {
        let lacking = IRC.replace("sender_localpart", "sender");
        let broken = IRC.replace("@_irc_bridge_.*", "@(");
        let elsewhere = IRC.replace("http://127.0.0.1:1234/", "ftp://127.0.0.1");

        for text in [lacking, broken, elsewhere] {
            let error = Registration::parse(&text, server_name!("example.org")).unwrap_err().to_string();
            assert!(!error.contains("30c05ae") && !error.contains("312df5"), "{error}");
        }
    }
    proptest! {
        #[test]
        fn no_damage_to_a_file_makes_the_reader_panic_or_tell_tokens(
            damage in prop::collection::vec((any::<prop::sample::Index>(), "[-:|>&*!%@`'\"{}\\[\\], \t\n#?a-z0\u{0}é]{0,4}"), 1..5),
        ) {
            let mut text = IRC.to_owned();
            for (at, with) in damage {
                let (at, gone) = text.char_indices().nth(at.index(text.chars().count())).unwrap();
                text.replace_range(at..at + gone.len_utf8(), &with);
            }
            if let Err(error) = Registration::parse(&text, server_name!("example.org")) {
                let words = error.to_string();
                // The damage may stand inside the token; its middle then is untouched on one side.
                prop_assert!(!words.contains("e349803310") && !words.contains("a8c1ccf541"), "{words}");
            }
        }
    }
}
