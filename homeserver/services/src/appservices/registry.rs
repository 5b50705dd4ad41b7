//! Which application services there are, and what is theirs. Knows files, no network and no database.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use ruma::{RoomAliasId, RoomId, ServerName, UserId};

use super::registration::Registration;
use crate::{
    Error, Result,
    accounts::{
        secrets::hash,
        tokens::{AppserviceIdentity, AppserviceTokens},
    },
};

/// Application services of one server at most.
const APPSERVICES_MAX: usize = 100;

/// Where registrations come from.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Files, YAML or JSON.
    pub files: Vec<PathBuf>,
    /// Texts of registrations that have no file: the services this program brings along.
    pub texts: Vec<Hidden>,
}

/// The text of a registration; its tokens stay out of logs.
#[derive(Clone)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(…)")
    }
}

/// The application services. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    all: Vec<Arc<Registration>>,
    by_id: HashMap<String, Arc<Registration>>,
    /// By the hash of their token, so that looking one up tells nothing by the time it takes.
    by_token: HashMap<String, Arc<Registration>>,
    server: String,
}

impl Registry {
    /// Read every registration.
    ///
    /// # Errors
    /// [`Error::Internal`] in words for the operator: a file that cannot be understood, an id or token that comes twice.
    pub fn load(settings: &Settings, server: &ServerName) -> Result<Self> {
        let mut known = Known { server: server.to_string(), ..Known::default() };
        let files = settings.files.iter().map(|path| Registration::read(path, server));
        let texts = settings.texts.iter().map(|text| Registration::parse(&text.0, server));
        for registration in files.chain(texts) {
            let registration = Arc::new(registration?);
            let id = registration.id.clone();
            if known.by_id.insert(id.clone(), Arc::clone(&registration)).is_some() {
                return Err(Error::internal(format_args!("two application services have the id {id:?}")));
            }
            if known.by_token.insert(hash(&registration.as_token), Arc::clone(&registration)).is_some() {
                return Err(Error::internal(format_args!("{id:?} has the as_token of another application service")));
            }
            known.all.push(registration);
        }
        if known.all.len() > APPSERVICES_MAX {
            return Err(Error::internal(format_args!("more than {APPSERVICES_MAX} application services")));
        }
        Ok(Self(Arc::new(known)))
    }

    /// All of them, in the order of the configuration.
    #[must_use]
    pub fn all(&self) -> &[Arc<Registration>] {
        &self.0.all
    }

    /// The one with this id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Arc<Registration>> {
        self.0.by_id.get(id)
    }

    /// Whether an application service's rooms include this one: it may read the room's state without being in it.
    #[must_use]
    pub fn covers_room(&self, id: &str, room: &RoomId) -> bool {
        self.by_id(id).is_some_and(|registration| registration.rooms.cover(room.as_str()))
    }

    /// Whether `alias` lies in a namespace that some application service other than `id` has for itself.
    #[must_use]
    pub fn is_alias_reserved(&self, id: Option<&str>, alias: &RoomAliasId) -> bool {
        self.others(id).any(|registration| registration.aliases.own(alias.as_str()))
    }

    /// Those that may have to make `user` first.
    pub fn watching_user(&self, user: &UserId) -> impl Iterator<Item = &Arc<Registration>> {
        self.0.all.iter().filter(move |registration| registration.users.cover(user.as_str()))
    }

    /// Those that may have to make the room of `alias` first.
    pub fn watching_alias(&self, alias: &RoomAliasId) -> impl Iterator<Item = &Arc<Registration>> {
        self.0.all.iter().filter(move |registration| registration.aliases.cover(alias.as_str()))
    }

    /// The networks that some application service joins to this one.
    #[must_use]
    pub fn protocols(&self) -> HashSet<&str> {
        self.0.all.iter().flat_map(|registration| registration.protocols.iter().map(String::as_str)).collect()
    }

    /// Those that join `protocol` to this network.
    pub fn joining(&self, protocol: &str) -> impl Iterator<Item = &Arc<Registration>> {
        self.0.all.iter().filter(move |registration| registration.protocols.iter().any(|own| own == protocol))
    }

    fn others(&self, id: Option<&str>) -> impl Iterator<Item = &Arc<Registration>> {
        self.0.all.iter().filter(move |registration| Some(registration.id.as_str()) != id)
    }
}

impl AppserviceTokens for Registry {
    fn by_token(&self, token: &str) -> Option<AppserviceIdentity> {
        if self.0.by_token.is_empty() {
            return None;
        }
        let registration = self.0.by_token.get(&hash(token))?;
        Some(AppserviceIdentity {
            id: registration.id.as_str().into(),
            sender: registration.sender.clone(),
            is_rate_limited: registration.is_rate_limited,
        })
    }

    fn may_be(&self, id: &str, user: &UserId) -> bool {
        user.server_name().as_str() == self.0.server
            && self.by_id(id).is_some_and(|registration| registration.may_be(user))
    }

    fn is_reserved(&self, id: Option<&str>, user: &UserId) -> bool {
        self.others(id).any(|registration| registration.sender == *user || registration.users.own(user.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use ruma::{server_name, user_id};

    use super::*;

    fn text(id: &str, token: &str) -> Hidden {
        Hidden(format!(
            r#"{{"id": "{id}", "url": null, "as_token": "{token}", "hs_token": "h", "sender_localpart": "{id}_bot",
            "namespaces": {{"users": [{{"exclusive": true, "regex": "@{id}_.*"}}]}}}}"#
        ))
    }

    fn registry(texts: Vec<Hidden>) -> Result<Registry> {
        Registry::load(&Settings { files: Vec::new(), texts }, server_name!("example.org"))
    }

    #[test]
    fn a_namespace_is_reserved_for_its_owner_alone() {
        let registry = registry(vec![text("irc", "one"), text("xmpp", "two")]).unwrap();
        let user = user_id!("@irc_alice:example.org");

        assert!(registry.is_reserved(None, user));
        assert!(registry.is_reserved(Some("xmpp"), user));
        assert!(!registry.is_reserved(Some("irc"), user));
        assert!(registry.may_be("irc", user) && !registry.may_be("xmpp", user));
        assert!(!registry.may_be("irc", user_id!("@irc_alice:elsewhere.org")));
        assert!(registry.is_reserved(None, user_id!("@xmpp_bot:example.org")));
    }

    #[test]
    fn a_token_names_its_owner() {
        let registry = registry(vec![text("irc", "one"), text("xmpp", "two")]).unwrap();

        assert_eq!(&*registry.by_token("two").unwrap().id, "xmpp");
        assert!(registry.by_token("three").is_none());
    }

    #[test]
    fn ids_and_tokens_must_not_come_twice() {
        assert!(registry(vec![text("irc", "one"), text("irc", "two")]).is_err());
        assert!(registry(vec![text("irc", "one"), text("xmpp", "one")]).is_err());
    }
}
