//! The configuration: one TOML file, the environment and flags over it, every key with a default.
//!
//! Layers, later ones winning: the defaults, the file, `VOICECHAT__SECTION__KEY` of the environment, flags. A secret may also be
//! in a file of its own, named by `KEY_file`. A key nobody knows is refused with the nearest name, and every fault is found
//! in one go. Nobody reads a [`Config`] but the start of the server, which turns its sections into the `Settings` each
//! service owns ([`settings`]): there is no global configuration.

pub mod section;
pub mod sections;
pub mod settings;
pub mod value;

use std::{fmt, path::Path};

use ruma::ServerName;
use section::{Key, Section};
use sections as s;
use toml::{Table, Value};

/// Names closer than this (Jaro-Winkler, 0 to 1) are worth suggesting.
const SIMILARITY_MIN: f64 = 0.75;
/// Prefix of the environment's variables.
pub const ENVIRONMENT_PREFIX: &str = "VOICECHAT__";

/// Everything that is wrong with a configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

macro_rules! config {
    ($($(#[doc = $doc:literal])+ $field:ident : $section:ty),* $(,)?) => {
        /// The whole configuration.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Config { $($(#[doc = $doc])+ pub $field: $section),* }

        /// Every section: name, documentation, keys.
        fn known() -> Vec<(&'static str, &'static [&'static str], Vec<Key>)> {
            vec![$((<$section>::NAME, <$section>::DOC, <$section>::keys())),*]
        }

        fn read(root: &Table, faults: &mut Vec<String>) -> Config {
            let empty = Table::new();
            let table = |name: &str| root.get(name).and_then(Value::as_table).unwrap_or(&empty);
            Config { $($field: <$section>::read(table(<$section>::NAME), faults)),* }
        }
    };
}

config! {
    /// `[server]`
    server: s::Server,
    /// `[listen]`
    listen: s::Listeners,
    /// `[database]`
    database: s::Database,
    /// `[valkey]`
    valkey: s::Valkey,
    /// `[log]`
    log: s::Log,
    /// `[registration]`
    registration: s::Registration,
    /// `[accounts]`
    accounts: s::Accounts,
    /// `[limits]`
    limits: s::Limits,
    /// `[rooms]`
    rooms: s::Rooms,
    /// `[federation]`
    federation: s::Federation,
    /// `[media]`
    media: s::Media,
    /// `[presence]`
    presence: s::Presence,
    /// `[appservices]`
    appservices: s::Appservices,
    /// `[turn]`
    turn: s::Turn,
    /// `[voice]`
    voice: s::Voice,
}

impl Config {
    /// From the file's text (empty for none), the environment and flags as (`section.key`, text).
    ///
    /// # Errors
    /// [`Faults`], all of them.
    pub fn load(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let mut root: Table = toml::from_str(text).map_err(|error| Faults(vec![one_line(&error.to_string())]))?;
        let mut faults = Vec::new();
        let known = known();
        refuse_unknown(&root, &known, &mut faults);
        for (variable, text) in environment {
            let Some(path) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let path = path.to_ascii_lowercase().replace("__", ".");
            overlay(&mut root, &known, &path, &text, &variable, &mut faults);
        }
        for (path, text) in flags {
            overlay(&mut root, &known, &path, &text, &path, &mut faults);
        }
        read_secret_files(&mut root, &known, &mut faults);
        let config = read(&root, &mut faults);
        config.check(&mut faults);
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }

    /// What single keys cannot say.
    fn check(&self, faults: &mut Vec<String>) {
        if <&ServerName>::try_from(self.server.name.as_str()).is_err() {
            faults.push("server.name: expected a host name with an optional port, such as \"example.org\"".into());
        }
        if self.listen.tls_certificate.is_some() != self.listen.tls_key.is_some() {
            faults.push("listen.tls_certificate and listen.tls_key: set both or neither".into());
        }
        let url = self.database.url.as_ref().map_or("sqlite:", |url| url.expose());
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            faults.push("database.url: expected an address beginning with sqlite:// or postgres://".into());
        }
        for (key, url) in [
            ("server.public_url", &self.server.public_url),
            ("voice.url", &self.voice.url),
            ("voice.homeserver_url", &self.voice.homeserver_url),
            ("voice.public_url", &self.voice.public_url),
        ] {
            if url.as_ref().is_some_and(|url| !is_web_address(url)) {
                faults.push(format!("{key}: expected an address beginning with http:// or https://"));
            }
        }
        for proxy in &self.listen.trusted_proxies {
            if crate::serve::Network::parse(proxy).is_none() {
                faults.push(format!("listen.trusted_proxies: {proxy:?} is neither an address nor a network"));
            }
        }
        if self.voice.udp_port_first > self.voice.udp_port_last {
            faults.push("voice.udp_port_first: must not be greater than voice.udp_port_last".into());
        }
        if let Some(delegate) = &self.server.delegate
            && <&ServerName>::try_from(delegate.as_str()).is_err()
        {
            faults.push("server.delegate: expected a host name with an optional port".into());
        }
    }

    /// A commented file with every key and its default.
    #[must_use]
    pub fn example() -> String {
        let mut text = String::from(
            "# VoiceChat's configuration. Every key has a default; what is commented out shows it.\n\
             # The environment overrides the file: VOICECHAT__SERVER__NAME=example.org sets name in [server].\n\
             # Each secret may be in a file of its own instead: shared_secret_file = \"/run/secrets/registration\".\n",
        );
        for (name, doc, keys) in known() {
            text.push('\n');
            for line in doc {
                text.push_str(&format!("#{line}\n"));
            }
            text.push_str(&format!("[{name}]\n"));
            for key in keys {
                for line in key.doc {
                    text.push_str(&format!("#{line}\n"));
                }
                text.push_str(&format!("#{} = {}\n", key.name, key.shown));
            }
        }
        text
    }
}

/// True for an absolute `http` or `https` URL.
fn is_web_address(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

type Known = [(&'static str, &'static [&'static str], Vec<Key>)];

fn names(keys: &[Key]) -> Vec<String> {
    let files = keys.iter().filter(|key| key.is_secret).map(|key| format!("{}_file", key.name));
    keys.iter().map(|key| key.name.to_owned()).chain(files).collect()
}

fn refuse_unknown(root: &Table, known: &Known, faults: &mut Vec<String>) {
    let sections: Vec<String> = known.iter().map(|(name, ..)| (*name).to_owned()).collect();
    for (name, value) in root {
        let Some((_, _, keys)) = known.iter().find(|(section, ..)| section == name) else {
            faults.push(format!("{name}: no such section{}", suggestion(name, &sections)));
            continue;
        };
        let Some(table) = value.as_table() else {
            faults.push(format!("{name}: expected a section, [{name}]"));
            continue;
        };
        let names = names(keys);
        for key in table.keys().filter(|key| !names.contains(key)) {
            faults.push(format!("{name}.{key}: no such key{}", suggestion(key, &names)));
        }
    }
}

fn suggestion(name: &str, known: &[String]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    nearest.map_or_else(String::new, |(_, candidate)| format!("; did you mean {candidate}?"))
}

/// Put one text of the environment or a flag (called `source`) over the file's value.
fn overlay(root: &mut Table, known: &Known, path: &str, text: &str, source: &str, faults: &mut Vec<String>) {
    let (section, name) = path.split_once('.').unwrap_or((path, ""));
    let Some((_, _, keys)) = known.iter().find(|(known, ..)| *known == section) else {
        let sections: Vec<String> = known.iter().map(|(name, ..)| (*name).to_owned()).collect();
        faults.push(format!("{source}: no such section{}", suggestion(section, &sections)));
        return;
    };
    let value = if let Some(key) = keys.iter().find(|key| key.name == name) {
        (key.value_of)(text)
    } else if names(keys).iter().any(|known| known == name) {
        Value::String(text.to_owned())
    } else {
        faults.push(format!("{source}: no such key{}", suggestion(name, &names(keys))));
        return;
    };
    let table = root.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Some(table) = table.as_table_mut() {
        // A later layer's secret wins over an earlier one, however each is given.
        table.remove(&format!("{name}_file"));
        if let Some(secret) = name.strip_suffix("_file") {
            table.remove(secret);
        }
        table.insert(name.to_owned(), value);
    }
}

/// Replace each `KEY_file` by what the file holds, without the line break at its end.
fn read_secret_files(root: &mut Table, known: &Known, faults: &mut Vec<String>) {
    for (section, _, keys) in known {
        let Some(table) = root.get_mut(*section).and_then(Value::as_table_mut) else { continue };
        for key in keys.iter().filter(|key| key.is_secret) {
            let file_key = format!("{}_file", key.name);
            let Some(path) = table.remove(&file_key) else { continue };
            if table.contains_key(key.name) {
                faults.push(format!("{section}.{}: set it or {file_key}, not both", key.name));
                continue;
            }
            let Some(path) = path.as_str() else {
                faults.push(format!("{section}.{file_key}: expected a path in quotes"));
                continue;
            };
            match std::fs::read_to_string(Path::new(path)) {
                Ok(text) => {
                    table.insert(key.name.to_owned(), Value::String(text.trim_end_matches(['\r', '\n']).to_owned()));
                }
                Err(error) => faults.push(format!("{section}.{file_key}: {path}: {error}")),
            }
        }
    }
}

/// A parser's words with their picture of the place folded into one line.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains('|')).collect();
    lines.join(": ")
}
