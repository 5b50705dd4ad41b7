//! Application services: bridges, bots and the voice service.
//!
//! | module | question it answers |
//! |---|---|
//! | [`registration`] | what does a registration file say? |
//! | [`registry`] | whose is a token, a user, an alias? |
//! | `client` | how is one asked? |
//! | `interest` | which rooms concern it? |
//! | `delivery` | what is it told, and when again? |
//! | `ephemeral` | who types, reads, is online? |
//!
//! Each is told of the stream by a worker of its own with one cursor in the database: no row for an event, nothing lost
//! or altered when it is away, and nothing of others waits for it.
//! Source: Application Service API, v1.19.

mod client;
mod delivery;
mod ephemeral;
mod interest;
pub mod registration;
pub mod registry;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::Method;
use ruma::{RoomAliasId, UserId};
use serde_json::{Map, Value};

use self::{
    client::{Client, Fault, Question, part},
    delivery::Workers,
    registration::Registration,
    registry::Registry,
};
use crate::{
    Context, Error, Result,
    accounts::{Accounts, registration::NewAccount, uia::Proof},
    error::Code,
    outgoing::Outgoing,
    timeline::Timeline,
};

/// How application services are dealt with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which there are.
    pub registry: registry::Settings,
    /// How long one may take to answer.
    pub request_timeout: Duration,
    /// Longest pause between two tries.
    pub retry_pause_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            registry: registry::Settings::default(),
            request_timeout: Duration::from_secs(30),
            retry_pause_max: Duration::from_secs(300),
        }
    }
}

/// The application services. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Appservices(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    client: Arc<Client>,
    workers: Workers,
}

/// Why a ping did not come back.
#[derive(Debug)]
pub struct PingFault {
    /// `M_URL_NOT_SET`, `M_CONNECTION_FAILED`, `M_CONNECTION_TIMEOUT` or `M_BAD_STATUS`.
    pub code: Code,
    /// In words.
    pub words: String,
    /// What it answered, with [`Code::BadStatus`]: status and body.
    pub answer: Option<(u16, String)>,
}

impl Appservices {
    /// Make the users the application services are, and begin to tell them what happens.
    ///
    /// # Errors
    /// The database's; [`Error::Internal`] when the connection policy cannot be set up.
    pub async fn start(
        cx: Context,
        settings: &Settings,
        registry: Registry,
        outgoing: &Outgoing,
        accounts: &Accounts,
        timeline: &Timeline,
    ) -> Result<Self> {
        for registration in registry.all() {
            if accounts.find(&registration.sender).await?.is_none() {
                let new = NewAccount { appservice: Some(registration.id.clone()), ..NewAccount::default() };
                let made = accounts.registration.create(&registration.sender, new, Proof::default()).await;
                // Another instance may have been quicker.
                if !matches!(made, Ok(_) | Err(Error::Specific(Code::UserInUse, _))) {
                    made?;
                }
            }
        }
        let client = Arc::new(Client::new(outgoing, settings.request_timeout, cx.clock.clone())?);
        let workers = Workers::start(&cx, settings.retry_pause_max, &registry, &client, timeline).await?;
        Ok(Self(Arc::new(Inner { registry, client, workers })))
    }

    /// Whose is what.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Stop telling them; where each is gets stored.
    pub async fn stop(&self) {
        self.0.workers.stop().await;
    }

    /// Ask an application service whether it hears us. What waits for it is tried again when it does.
    ///
    /// # Errors
    /// The fault, for its author.
    pub async fn ping(&self, id: &str, transaction_id: Option<&str>) -> Result<Duration, PingFault> {
        let fault = |code, words: &str| PingFault { code, words: words.to_owned(), answer: None };
        let Some(registration) = self.0.registry.by_id(id) else {
            return Err(fault(Code::UrlNotSet, "no such application service"));
        };
        let body = transaction_id.map_or_else(Map::new, |id| Map::from_iter([("transaction_id".into(), id.into())]));
        let body = Value::Object(body).to_string();
        let question = Question {
            method: Method::POST,
            path: "/_matrix/app/v1/ping".to_owned(),
            older_path: None,
            body: Some(body.as_bytes()),
        };
        let begun = Instant::now();
        match self.0.client.ask(registration, &question).await {
            Ok(_) => {
                self.0.workers.wake(id);
                Ok(begun.elapsed())
            }
            Err(Fault::NoUrl) => Err(fault(Code::UrlNotSet, "the registration has no url")),
            Err(Fault::Unreachable(words)) => Err(fault(Code::ConnectionFailed, &words)),
            Err(Fault::Timeout) => Err(fault(Code::ConnectionTimeout, "it did not answer in time")),
            Err(Fault::Status { status, body }) => {
                let words = format!("it answered {status}");
                Err(PingFault { code: Code::BadStatus, words, answer: Some((status, body)) })
            }
        }
    }

    /// Ask those whose namespace has `user` to make it. True when one says that it did.
    pub async fn query_user(&self, user: &UserId) -> bool {
        let encoded = part(user.as_str());
        let paths = (format!("/_matrix/app/v1/users/{encoded}"), format!("/users/{encoded}"));
        self.any_knows(self.0.registry.watching_user(user).cloned().collect(), &paths).await
    }

    /// Ask those whose namespace has `alias` to make its room. True when one says that it did.
    pub async fn query_alias(&self, alias: &RoomAliasId) -> bool {
        let encoded = part(alias.as_str());
        let paths = (format!("/_matrix/app/v1/rooms/{encoded}"), format!("/rooms/{encoded}"));
        self.any_knows(self.0.registry.watching_alias(alias).cloned().collect(), &paths).await
    }

    async fn any_knows(&self, asked: Vec<Arc<Registration>>, (path, older): &(String, String)) -> bool {
        for registration in asked {
            if self.get(&registration, path.clone(), older.clone()).await.is_some() {
                return true;
            }
        }
        false
    }

    /// `GET`; a fault other than "not found" is logged here, since whoever asks can do nothing about it.
    async fn get(&self, of: &Registration, path: String, older_path: String) -> Option<Value> {
        let question = Question { method: Method::GET, path, older_path: Some(older_path), body: None };
        match self.0.client.ask(of, &question).await {
            Ok(answer) => Some(answer),
            Err(Fault::NoUrl | Fault::Status { status: 404, .. }) => None,
            Err(fault) => {
                tracing::warn!(appservice = of.id, %fault, "an application service did not answer a question");
                None
            }
        }
    }

    /// The networks joined to this one: name → what the application services say of it, their instances together.
    pub async fn protocols(&self) -> Map<String, Value> {
        let mut found = Map::new();
        for name in self.0.registry.protocols() {
            found.extend(self.protocol(name).await.map(|protocol| (name.to_owned(), protocol)));
        }
        found
    }

    /// One network joined to this one.
    pub async fn protocol(&self, name: &str) -> Option<Value> {
        let mut merged: Option<Value> = None;
        for registration in self.0.registry.joining(name) {
            let path = |version: &str| format!("/_matrix/app/{version}/thirdparty/protocol/{}", part(name));
            let Some(mut found) = self.get(registration, path("v1"), path("unstable")).await.filter(Value::is_object)
            else {
                continue;
            };
            for instance in found["instances"].as_array_mut().into_iter().flatten() {
                let network = instance["network_id"].as_str().map(str::to_owned);
                if let (Some(instance), Some(network)) = (instance.as_object_mut(), network) {
                    instance.insert("instance_id".to_owned(), instance_id(&registration.id, &network).into());
                }
            }
            match &mut merged {
                None => merged = Some(found),
                Some(first) => {
                    if let (Some(all), Some(more)) = (first["instances"].as_array_mut(), found["instances"].as_array())
                    {
                        all.extend(more.iter().cloned());
                    }
                }
            }
        }
        merged
    }

    /// What the application services find: `what` is `location` or `user`, `protocol` the network or `None` for all,
    /// `query` the client's question without its token.
    pub async fn look_up(&self, what: &str, protocol: Option<&str>, query: &str) -> Vec<Value> {
        let registry = &self.0.registry;
        let asked: Vec<_> = match protocol {
            Some(protocol) => registry.joining(protocol).collect(),
            None => registry.all().iter().filter(|registration| !registration.protocols.is_empty()).collect(),
        };
        let place = protocol.map_or_else(String::new, |protocol| format!("/{}", part(protocol)));
        let path = |version: &str| format!("/_matrix/app/{version}/thirdparty/{what}{place}?{query}");
        let mut found = Vec::new();
        for registration in asked {
            if let Some(Value::Array(more)) = self.get(registration, path("v1"), path("unstable")).await {
                found.extend(more);
            }
        }
        found
    }
}

/// What clients call an application service's network.
#[must_use]
pub fn instance_id(appservice: &str, network: &str) -> String {
    format!("{appservice}|{network}")
}
