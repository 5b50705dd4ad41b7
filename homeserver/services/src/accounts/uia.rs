//! User-interactive authentication: proving oneself again, stage by stage, for one operation.
//!
//! A session belongs to one operation of one user (the `operation` text) and is good once: [`Uia::finish`] uses it up, and
//! of two requests that come with it one succeeds. Stages done stay done until the session expires.
//!
//! Source: Client-Server API, "User-Interactive Authentication API".

use std::time::Duration;

use serde_json::{Map, Value, json};
use storage::{
    Tx, registration_tokens,
    uia_sessions::{self, UiaSession},
};

use super::{
    User,
    password::{Passwords, Verdict},
};
use crate::{
    Context, Error, Result,
    limits::{Action, Limits, Subject},
};

/// How long a session lasts.
const SESSION_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Letters of a session's id.
const SESSION_ID_LEN: usize = 24;
/// The longest registration token there can be, in bytes.
const REGISTRATION_TOKEN_BYTES_MAX: usize = 64;

/// A step of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// `m.login.dummy`
    Dummy,
    /// `m.login.password`
    Password,
    /// `m.login.registration_token`
    RegistrationToken,
    /// `m.login.terms`
    Terms,
}

impl Stage {
    /// The specification's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dummy => "m.login.dummy",
            Self::Password => "m.login.password",
            Self::RegistrationToken => "m.login.registration_token",
            Self::Terms => "m.login.terms",
        }
    }

    /// The stage of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Dummy, Self::Password, Self::RegistrationToken, Self::Terms].into_iter().find(|s| s.name() == name)
    }
}

/// What a client sent as `auth`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attempt {
    /// The session.
    pub session: Option<String>,
    /// The stage it tries; without one it only asks how far the session is.
    pub kind: Option<String>,
    /// All of the object.
    pub data: Map<String, Value>,
}

impl Attempt {
    /// From the object.
    #[must_use]
    pub fn from_object(data: Map<String, Value>) -> Self {
        let text = |name: &str| data.get(name).and_then(Value::as_str).map(str::to_owned);
        Self { session: text("session"), kind: text("type"), data }
    }
}

/// What the client must still do.
#[derive(Debug, Clone)]
pub struct Challenge {
    /// Ways to succeed.
    pub flows: Vec<Vec<Stage>>,
    /// Stages done.
    pub completed: Vec<Stage>,
    /// What stages need to know, by stage.
    pub params: Map<String, Value>,
    /// The session to come back with.
    pub session: String,
    /// Why the attempt failed: error code, words.
    pub error: Option<(&'static str, String)>,
}

impl Challenge {
    /// As the body of a 401.
    #[must_use]
    pub fn to_body(&self) -> Map<String, Value> {
        let names = |stages: &[Stage]| stages.iter().map(|stage| stage.name()).collect::<Vec<_>>();
        let flows: Vec<_> = self.flows.iter().map(|stages| json!({ "stages": names(stages) })).collect();
        let mut body = Map::new();
        body.insert("flows".into(), flows.into());
        body.insert("params".into(), self.params.clone().into());
        body.insert("session".into(), self.session.clone().into());
        if !self.completed.is_empty() {
            body.insert("completed".into(), names(&self.completed).into());
        }
        if let Some((code, words)) = &self.error {
            body.insert("errcode".into(), (*code).into());
            body.insert("error".into(), words.clone().into());
        }
        body
    }
}

/// What an operation asks for.
#[derive(Debug, Clone)]
pub struct Demand<'a> {
    /// What the proof is for; a session for one thing is none for another.
    pub operation: &'a str,
    /// Who must prove themselves; nobody yet when they register.
    pub owner: Option<&'a User>,
    /// Ways to succeed.
    pub flows: Vec<Vec<Stage>>,
    /// What stages need to know, by stage.
    pub params: Map<String, Value>,
}

/// That every stage of a flow is done. To be used up with [`Uia::finish`] or [`consume`].
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Proof {
    session: Option<String>,
}

/// How far a client is.
#[derive(Debug, Clone)]
pub enum Progress {
    /// All done.
    Done(Proof),
    /// More to do.
    Challenge(Box<Challenge>),
}

/// User-interactive authentication. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Uia {
    cx: Context,
    passwords: Passwords,
    limits: Limits,
}

/// A session in memory: `id` is empty while it has no row.
#[derive(Debug, Clone, Default)]
struct Under {
    id: String,
    was: String,
    completed: Vec<Stage>,
    registration_token: Option<String>,
}

impl Uia {
    /// On `cx`.
    #[must_use]
    pub fn new(cx: Context, passwords: Passwords, limits: Limits) -> Self {
        Self { cx, passwords, limits }
    }

    /// Try one stage, or ask how far a session is.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when somebody proves to be another user, or brings the session of another operation.
    pub async fn advance(&self, demand: Demand<'_>, attempt: Option<&Attempt>) -> Result<Progress> {
        let operation = match demand.owner {
            Some(owner) => format!("{} by {}", demand.operation, owner.user_id),
            None => demand.operation.to_owned(),
        };
        let mut under = Under::default();
        let mut error = None;
        if let Some(id) = attempt.and_then(|attempt| attempt.session.as_deref()) {
            match self.load(id).await? {
                Some((_, found)) if found != operation => {
                    return Err(Error::forbidden("this session belongs to another operation"));
                }
                Some((found, _)) => under = found,
                None => error = Some(("M_UNKNOWN", "the session has expired; start again".to_owned())),
            }
        }
        if let Some(attempt) = attempt.filter(|_| error.is_none())
            && let Some(kind) = attempt.kind.as_deref()
        {
            let stage = Stage::named(kind).filter(|stage| demand.flows.iter().any(|flow| flow.contains(stage)));
            error = match stage {
                Some(stage) => self.attempt(stage, &attempt.data, demand.owner, &mut under).await?,
                None => Some(("M_UNRECOGNIZED", "this stage is not part of any flow".to_owned())),
            };
        }
        let is_done = demand.flows.iter().any(|flow| flow.iter().all(|stage| under.completed.contains(stage)));
        if is_done && error.is_none() && under.id.is_empty() && under.registration_token.is_none() {
            return Ok(Progress::Done(Proof::default()));
        }
        if !self.save(&mut under, &operation).await? {
            error = Some(("M_UNKNOWN", "another request used this session at the same time".to_owned()));
        }
        if is_done && error.is_none() {
            return Ok(Progress::Done(Proof { session: Some(under.id) }));
        }
        Ok(Progress::Challenge(Box::new(Challenge {
            flows: demand.flows,
            completed: under.completed,
            params: demand.params,
            session: under.id,
            error,
        })))
    }

    /// Do a stage from a web page, whose visitor knows the session but not what it is for.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a session; [`Error::Forbidden`] when the stage fails.
    pub async fn advance_by_page(&self, session: &str, stage: Stage, data: &Map<String, Value>) -> Result<()> {
        let (mut under, operation) = self.load(session).await?.ok_or(Error::NotFound("session"))?;
        if stage == Stage::Password {
            return Err(Error::NotFound("page"));
        }
        if let Some((_, words)) = self.attempt(stage, data, None, &mut under).await? {
            return Err(Error::Forbidden(words));
        }
        if self.save(&mut under, &operation).await? { Ok(()) } else { Err(Error::NotFound("session")) }
    }

    /// A random text that marks our own scripts in a page.
    #[must_use]
    pub fn nonce(&self) -> String {
        self.cx.randomness.letters(SESSION_ID_LEN)
    }

    /// Use up a proof.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it was used.
    pub async fn finish(&self, proof: Proof) -> Result<()> {
        if proof.session.is_none() {
            return Ok(());
        }
        let mut tx = self.cx.store.begin().await?;
        consume(&mut tx, proof).await?;
        tx.commit().await?;
        Ok(())
    }

    /// End expired sessions and give back what they had reserved.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep(&self) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        for token in uia_sessions::sweep(&mut tx, self.cx.clock.now_ms().cast_signed()).await? {
            registration_tokens::release(&mut tx, &token).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// A session with the operation it is for.
    async fn load(&self, id: &str) -> Result<Option<(Under, String)>> {
        let mut tx = self.cx.store.read().await?;
        let row = uia_sessions::by_id(&mut tx, id, self.cx.clock.now_ms().cast_signed()).await?;
        let Some(row) = row else { return Ok(None) };
        let names: Vec<String> = serde_json::from_str(&row.completed).map_err(Error::internal)?;
        let under = Under {
            id: row.id,
            was: row.completed,
            completed: names.iter().filter_map(|name| Stage::named(name)).collect(),
            registration_token: row.registration_token,
        };
        Ok(Some((under, row.operation)))
    }

    /// Write a session, new or not. False when it changed meanwhile.
    async fn save(&self, under: &mut Under, operation: &str) -> Result<bool> {
        let names: Vec<_> = under.completed.iter().map(|stage| stage.name()).collect();
        let lifetime_ms = i64::try_from(SESSION_LIFETIME.as_millis()).unwrap_or(i64::MAX);
        let mut row = UiaSession {
            id: under.id.clone(),
            operation: operation.to_owned(),
            completed: json!(names).to_string(),
            registration_token: under.registration_token.clone(),
            expires_ms: self.cx.clock.now_ms().cast_signed().saturating_add(lifetime_ms),
        };
        if !under.id.is_empty() && row.completed == under.was {
            return Ok(true);
        }
        let mut tx = self.cx.store.begin().await?;
        let is_saved = if under.id.is_empty() {
            row.id = self.cx.randomness.letters(SESSION_ID_LEN);
            uia_sessions::create(&mut tx, &row).await?;
            under.id.clone_from(&row.id);
            true
        } else {
            uia_sessions::advance(&mut tx, &row, &under.was).await?
        };
        tx.commit().await?;
        Ok(is_saved)
    }

    /// Try a stage: the error for the client, or `None` when it is done.
    async fn attempt(
        &self,
        stage: Stage,
        data: &Map<String, Value>,
        owner: Option<&User>,
        under: &mut Under,
    ) -> Result<Option<(&'static str, String)>> {
        if under.completed.contains(&stage) {
            return Ok(None);
        }
        let failure = match stage {
            Stage::Dummy | Stage::Terms => None,
            Stage::Password => self.attempt_password(data, owner).await?,
            Stage::RegistrationToken => self.attempt_registration_token(data, under).await?,
        };
        if failure.is_none() {
            under.completed.push(stage);
        }
        Ok(failure)
    }

    async fn attempt_password(
        &self,
        data: &Map<String, Value>,
        owner: Option<&User>,
    ) -> Result<Option<(&'static str, String)>> {
        let owner = owner.ok_or_else(|| Error::internal("a password stage without an owner"))?;
        // `user` is what clients sent before identifiers existed.
        let identifier = data.get("identifier").and_then(Value::as_object).unwrap_or(data);
        let is_user = identifier
            .get("type")
            .and_then(Value::as_str)
            .is_none_or(|kind| matches!(kind, "m.id.user" | "m.login.password"));
        let Some(name) = identifier.get("user").and_then(Value::as_str).filter(|_| is_user) else {
            return Ok(Some(("M_MISSING_PARAM", "the user is missing".to_owned())));
        };
        let Some(password) = data.get("password").and_then(Value::as_str) else {
            return Ok(Some(("M_MISSING_PARAM", "the password is missing".to_owned())));
        };
        let folded = name.to_lowercase();
        if folded != owner.user_id.as_str().to_lowercase() && folded != owner.user_id.localpart().to_lowercase() {
            return Err(Error::forbidden("this is another user's proof"));
        }
        let key = Subject::Account(owner.user_id.as_str().to_owned());
        self.limits.check(Action::LoginFailure, &key).await?;
        let mut tx = self.cx.store.read().await?;
        let account = storage::accounts::by_nid(&mut tx, owner.nid).await?;
        drop(tx);
        let kept = account.as_ref().and_then(|account| account.password.as_deref());
        if self.passwords.verify(password, kept).await? == Verdict::Wrong {
            self.limits.take(Action::LoginFailure, &key).await?;
            return Ok(Some(("M_FORBIDDEN", "wrong password".to_owned())));
        }
        Ok(None)
    }

    async fn attempt_registration_token(
        &self,
        data: &Map<String, Value>,
        under: &mut Under,
    ) -> Result<Option<(&'static str, String)>> {
        let token = data.get("token").and_then(Value::as_str);
        let Some(token) = token.filter(|token| !token.is_empty() && token.len() <= REGISTRATION_TOKEN_BYTES_MAX) else {
            return Ok(Some(("M_MISSING_PARAM", "the registration token is missing".to_owned())));
        };
        let mut tx = self.cx.store.begin().await?;
        let now_ms = self.cx.clock.now_ms().cast_signed();
        if !registration_tokens::reserve(&mut tx, token, now_ms).await? {
            return Ok(Some(("M_UNAUTHORIZED", "the registration token is not valid".to_owned())));
        }
        tx.commit().await?;
        under.registration_token = Some(token.to_owned());
        Ok(None)
    }
}

/// Use up a proof in a transaction of the operation it is for.
///
/// # Errors
/// [`Error::Forbidden`] when it was used.
pub async fn consume(tx: &mut Tx, proof: Proof) -> Result<()> {
    let Some(id) = proof.session else { return Ok(()) };
    let Some(registration_token) = uia_sessions::delete(tx, &id).await? else {
        return Err(Error::forbidden("this session was used"));
    };
    if let Some(token) = registration_token {
        registration_tokens::complete(tx, &token).await?;
    }
    Ok(())
}
