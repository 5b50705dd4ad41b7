//! The keys other servers sign with: asked for, checked, remembered, and used on requests and events.
//!
//! A server's keys come from itself, else from a notary; either way the answer must bear the server's own signature. Keys are
//! kept for ever, because old events are checked with old keys; what expires is the time up to which a key is believed
//! ([`Needed`]). Source: Server-Server API, "Retrieving server keys".

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use quick_cache::sync::Cache;
use room::{
    Pdu, canonical,
    event::{BadSignature, Unverified},
};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName, UInt,
    api::federation::discovery::{
        OldVerifyKey, ServerSigningKeys, VerifyKey, get_remote_server_keys_batch, get_server_keys,
    },
    serde::{Base64, Raw},
    signatures::{PublicKeyMap, PublicKeySet},
};
use serde_json::value::RawValue;
use storage::server_keys::{self, Answer, ServerKey};
use tokio::sync::Semaphore;

use super::{
    client::{Client, Terms, failure},
    signing::{self, SigningKey},
};
use crate::{Context, Error, Result, one_at_a_time::OneAtATime};

/// However long a server vouches for its keys, we believe it this long.
const BELIEVED_MS: u64 = 7 * 24 * 3_600_000;
/// How long we vouch for our own keys.
const OWN_LIFETIME_MS: u64 = 24 * 3_600_000;
/// A server whose keys could not be had, or did not have the key wanted, is left alone this long.
const ASK_AGAIN_MS: u64 = 10_000;
/// Servers whose keys are held in memory.
const SERVERS_MAX: usize = 10_000;
/// Servers asked for keys at a time for one batch of events, and how long it may take to ask them all: an event whose keys are
/// not there by then is left out.
const ASKED_AT_ONCE_MAX: usize = 50;
const GATHER_TIME: Duration = Duration::from_secs(90);
/// From how many missing servers on a notary is asked before they are.
const NOTARY_FIRST_MIN: usize = 5;
/// Servers a notary is asked about in one request.
const SERVERS_PER_QUERY_MAX: usize = 100;
/// Answers looked at of those a notary gives to one request: it may have several of one server.
const ANSWERS_PER_QUERY_MAX: usize = 1_000;
/// Servers asked at a time because somebody asked us as a notary, which anybody may; beyond it we answer with what we have.
const ASKED_AS_NOTARY_MAX: usize = 50;
/// Keys taken from one answer.
const KEYS_PER_SERVER_MAX: usize = 100;

/// For what time a key must be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needed {
    /// At any time whatever (events of room versions that do not ask).
    Ever,
    /// When an event was made, ms since 1970.
    At(u64),
    /// Now, for a request: expired keys will not do.
    Now,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    public: Base64,
    valid_until_ms: u64,
    expired_at_ms: Option<u64>,
}

impl Key {
    fn is_good(&self, needed: Needed, now_ms: u64) -> bool {
        let valid_until_ms = self.valid_until_ms.min(now_ms.saturating_add(BELIEVED_MS));
        match (needed, self.expired_at_ms) {
            (Needed::Ever, _) => true,
            (Needed::At(ms), Some(expired_at_ms)) => ms <= expired_at_ms,
            (Needed::At(ms), None) => ms <= valid_until_ms,
            (Needed::Now, Some(_)) => false,
            (Needed::Now, None) => now_ms <= valid_until_ms,
        }
    }
}

type KeySet = BTreeMap<String, Key>;

/// Which keys of which servers, and for what time.
type Wanted = BTreeMap<OwnedServerName, (BTreeSet<String>, Needed)>;

/// Whether all of these keys are there and good; without ids, whether any is.
fn has_all(keys: &KeySet, ids: &BTreeSet<String>, needed: Needed, now_ms: u64) -> bool {
    let is_good = |key: &Key| key.is_good(needed, now_ms);
    ids.iter().all(|id| keys.get(id).is_some_and(is_good)) && (!ids.is_empty() || keys.values().any(is_good))
}

/// Those of these keys that are good; without ids, of all.
fn good(keys: &KeySet, ids: &BTreeSet<String>, needed: Needed, now_ms: u64) -> PublicKeySet {
    let good = keys.iter().filter(|(id, key)| (ids.is_empty() || ids.contains(*id)) && key.is_good(needed, now_ms));
    good.map(|(id, key)| (id.clone(), key.public.clone())).collect()
}

/// Keys of servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cx: Context,
    client: Client,
    notaries: Vec<OwnedServerName>,
    known: Cache<OwnedServerName, Arc<KeySet>>,
    asked_at_ms: Cache<OwnedServerName, u64>,
    asking: OneAtATime<OwnedServerName>,
    as_notary: Semaphore,
}

impl Keys {
    /// Asked for over `client`; `notaries` are asked when a server does not answer itself.
    #[must_use]
    pub fn new(cx: Context, client: Client, notaries: Vec<OwnedServerName>) -> Self {
        Self(Arc::new(Inner {
            cx,
            client,
            notaries,
            known: Cache::new(SERVERS_MAX),
            asked_at_ms: Cache::new(SERVERS_MAX),
            asking: OneAtATime::default(),
            as_notary: Semaphore::new(ASKED_AS_NOTARY_MAX),
        }))
    }

    /// The keys of `server` with these ids that are good for `needed`; absent ones could not be had. An empty list of ids asks
    /// for all.
    ///
    /// # Errors
    /// The database's. Not being able to get keys is no error.
    pub async fn of(&self, server: &ServerName, ids: &BTreeSet<String>, needed: Needed) -> Result<PublicKeySet> {
        let has_all = |keys: &KeySet| has_all(keys, ids, needed, self.0.cx.clock.now_ms());
        let mut keys = self.known(server).await?;
        if !has_all(&keys) && !self.0.cx.is_us(server) {
            let asking = self.0.asking.of(&server.to_owned());
            let _turn = asking.lock().await;
            keys = self.known(server).await?;
            if !has_all(&keys) && self.may_ask(server) {
                if let Err(error) = self.fetch(server).await {
                    tracing::info!(%server, %error, "the keys of a server cannot be had");
                }
                keys = self.known(server).await?;
            }
        }
        Ok(good(&keys, ids, needed, self.0.cx.clock.now_ms()))
    }

    /// Check the signatures and hashes of events, in their order, on a thread that may take its time. Keys that are missing are
    /// asked for first, of all servers at once.
    ///
    /// # Errors
    /// The database's.
    pub async fn verify(&self, events: Vec<Unverified>) -> Result<Vec<Result<Pdu, BadSignature>>> {
        let mut wanted = Wanted::new();
        for event in &events {
            let needed = needed_for(event);
            for (server, ids) in event.required_servers() {
                let (all_ids, latest) = wanted.entry(server.clone()).or_insert((BTreeSet::new(), Needed::Ever));
                all_ids.extend(ids.iter().cloned());
                *latest = needed.max(*latest);
            }
        }
        wanted.retain(|_, (ids, _)| !ids.is_empty());
        let known = self.gather(&wanted).await?;
        let now_ms = self.0.cx.clock.now_ms();
        tokio::task::spawn_blocking(move || {
            events.into_iter().map(|event| verify_with(event, &known, now_ms)).collect()
        })
        .await
        .map_err(|_| Error::Stopping)
    }

    /// The keys of many servers, as far as they can be had in [`GATHER_TIME`]. When many are missing, a notary is asked for all of
    /// them before they are asked one by one.
    async fn gather(&self, wanted: &Wanted) -> Result<HashMap<OwnedServerName, Arc<KeySet>>> {
        let (mut known, mut lacking) = (HashMap::new(), Vec::new());
        let now_ms = self.0.cx.clock.now_ms();
        for (server, (ids, needed)) in wanted {
            let keys = self.known(server).await?;
            if !self.0.cx.is_us(server) && !has_all(&keys, ids, *needed, now_ms) {
                lacking.push(server.clone());
            }
            known.insert(server.clone(), keys);
        }
        if lacking.is_empty() {
            return Ok(known);
        }
        let asked = tokio::time::timeout(GATHER_TIME, async {
            if lacking.len() >= NOTARY_FIRST_MIN {
                self.fetch_batch(&lacking).await?;
            }
            let ask = |server: OwnedServerName| async move {
                let (ids, needed) = &wanted[&server];
                self.of(&server, ids, *needed).await.map(drop)
            };
            let mut asked = stream::iter(lacking.clone()).map(ask).buffer_unordered(ASKED_AT_ONCE_MAX);
            while let Some(answer) = asked.next().await {
                answer?;
            }
            Ok::<_, Error>(())
        });
        match asked.await {
            Ok(asked) => asked?,
            Err(_) => tracing::info!(servers = lacking.len(), "not all keys could be had in time"),
        }
        for server in lacking {
            let keys = self.known(&server).await?;
            known.insert(server, keys);
        }
        Ok(known)
    }

    /// Ask the notaries for the keys of many servers.
    async fn fetch_batch(&self, servers: &[OwnedServerName]) -> Result<()> {
        for notary in &self.0.notaries {
            for chunk in servers.chunks(SERVERS_PER_QUERY_MAX) {
                let asked: Vec<OwnedServerName> = chunk.iter().filter(|server| *server != notary).cloned().collect();
                let answers = match self.ask_notary(notary, asked).await {
                    Ok(answers) => answers,
                    Err(error) => {
                        tracing::info!(%notary, %error, "a notary does not help");
                        break;
                    }
                };
                for checked in answers {
                    let server = checked.keys.server_name.clone();
                    if chunk.contains(&server) {
                        self.keep(&server, checked).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What we answer about our own keys.
    ///
    /// # Errors
    /// The database's.
    pub async fn own_answer(&self) -> Result<Box<RawValue>> {
        let cx = &self.0.cx;
        let until = UInt::new_saturating(cx.clock.now_ms() + OWN_LIFETIME_MS);
        let mut answer = ServerSigningKeys::new(cx.server_name.clone(), MilliSecondsSinceUnixEpoch(until));
        for (id, key) in &*self.own().await? {
            let id = id.as_str().try_into().map_err(Error::internal)?;
            match key.expired_at_ms {
                None => drop(answer.verify_keys.insert(id, VerifyKey::new(key.public.clone()))),
                Some(ms) => {
                    let expired_at = MilliSecondsSinceUnixEpoch(UInt::new_saturating(ms));
                    answer.old_verify_keys.insert(id, OldVerifyKey::new(expired_at, key.public.clone()));
                }
            }
        }
        let json = serde_json::to_vec(&answer).map_err(Error::internal)?;
        self.sign(&json)
    }

    /// What we answer, as a notary, about the keys of `server`: its own answer with our signature added; `None` when it never
    /// answered.
    ///
    /// # Errors
    /// The database's.
    pub async fn vouched(&self, server: &ServerName, valid_until_ms: u64) -> Result<Option<Box<RawValue>>> {
        if self.0.cx.is_us(server) {
            return Ok(Some(self.own_answer().await?));
        }
        let stored = self.stored_answer(server).await?;
        let now_ms = self.0.cx.clock.now_ms();
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        // Half of an answer's life is gone: time for a new one.
        let is_fresh = |answer: &Answer| {
            let half_life_ms = number(answer.fetched_at).midpoint(number(answer.valid_until));
            now_ms < half_life_ms && valid_until_ms <= number(answer.valid_until)
        };
        let mut answer = stored;
        if !answer.as_ref().is_some_and(is_fresh)
            && let Ok(_permit) = self.0.as_notary.try_acquire()
            && self.may_ask(server)
        {
            let asking = self.0.asking.of(&server.to_owned());
            let _turn = asking.lock().await;
            if let Err(error) = self.fetch(server).await {
                tracing::info!(%server, %error, "the keys of a server cannot be had");
            }
            answer = self.stored_answer(server).await?;
        }
        answer.map(|answer| self.sign(answer.body.as_bytes())).transpose()
    }

    async fn stored_answer(&self, server: &ServerName) -> Result<Option<Answer>> {
        Ok(server_keys::answer(&mut self.0.cx.store.read().await?, server.as_str()).await?)
    }

    /// Add our signature.
    fn sign(&self, json: &[u8]) -> Result<Box<RawValue>> {
        let mut object = canonical::parse(json).map_err(Error::internal)?;
        self.0.cx.signing_key.sign(&self.0.cx.server_name, &mut object)?;
        RawValue::from_string(canonical::write(&object)).map_err(Error::internal)
    }

    /// Keys in memory, else in the database.
    async fn known(&self, server: &ServerName) -> Result<Arc<KeySet>> {
        if self.0.cx.is_us(server) {
            return self.own().await;
        }
        if let Some(keys) = self.0.known.get(server) {
            return Ok(keys);
        }
        let rows = server_keys::of_servers(&mut self.0.cx.store.read().await?, &[server.as_str()]).await?;
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let keys = rows.into_iter().filter_map(|row| {
            let public = Base64::parse(&row.public).ok()?;
            let expired_at_ms = row.expired_at.map(number);
            Some((row.key_id, Key { public, valid_until_ms: number(row.valid_until), expired_at_ms }))
        });
        let keys = Arc::new(keys.collect::<KeySet>());
        self.0.known.insert(server.to_owned(), Arc::clone(&keys));
        Ok(keys)
    }

    /// Our own keys: the one we sign with, and all that expired.
    async fn own(&self) -> Result<Arc<KeySet>> {
        let cx = &self.0.cx;
        if let Some(keys) = self.0.known.get(&cx.server_name) {
            return Ok(keys);
        }
        let mut keys = KeySet::new();
        for row in server_keys::own(&mut cx.store.read().await?).await? {
            let key = SigningKey::from_document(&row.document, &row.version)?;
            let expired_at_ms = row.expired_at.map(|ms| u64::try_from(ms).unwrap_or(0));
            keys.insert(key.id(), Key { public: public_of(&key)?, valid_until_ms: u64::MAX, expired_at_ms });
        }
        // The key this process signs with stays good until the process ends, also when it has been replaced since.
        let current = Key { public: public_of(&cx.signing_key)?, valid_until_ms: u64::MAX, expired_at_ms: None };
        keys.insert(cx.signing_key.id(), current);
        let keys = Arc::new(keys);
        self.0.known.insert(cx.server_name.clone(), Arc::clone(&keys));
        Ok(keys)
    }

    /// Whether `server` was left alone long enough; if so it counts as asked now.
    fn may_ask(&self, server: &ServerName) -> bool {
        let now_ms = self.0.cx.clock.now_ms();
        let is_recent = self.0.asked_at_ms.get(server).is_some_and(|ms| now_ms < ms + ASK_AGAIN_MS);
        if !is_recent {
            self.0.asked_at_ms.insert(server.to_owned(), now_ms);
        }
        !is_recent
    }

    /// Ask the server itself, then the notaries. Holds the server's turn.
    async fn fetch(&self, server: &ServerName) -> Result<()> {
        let mut problem = match self.ask_itself(server).await {
            Ok(answer) => return self.keep(server, answer).await,
            Err(problem) => problem,
        };
        for notary in self.0.notaries.iter().filter(|notary| *notary != server) {
            match self.fetch_from(notary, server).await {
                Ok(answer) => return self.keep(server, answer).await,
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    /// What a server says of its own keys.
    async fn ask_itself(&self, server: &ServerName) -> Result<Checked> {
        let terms = Terms::BRIEF.at_once();
        let answer = self.0.client.send_open(server, get_server_keys::v2::Request::new(), terms).await?;
        self.check(server, answer.server_key.json())
    }

    async fn fetch_from(&self, notary: &ServerName, server: &ServerName) -> Result<Checked> {
        let answers = self.ask_notary(notary, vec![server.to_owned()]).await?;
        let found = answers.into_iter().find(|checked| checked.keys.server_name == server);
        found.ok_or_else(|| failure(notary, format!("it has no keys of {server}")))
    }

    /// What a notary has of the keys of these servers: answers with its signature and the server's own.
    async fn ask_notary(&self, notary: &ServerName, servers: Vec<OwnedServerName>) -> Result<Vec<Checked>> {
        let wanted = servers.into_iter().map(|server| (server, BTreeMap::new())).collect();
        let request = get_remote_server_keys_batch::v2::Request::new(wanted);
        let response = self.0.client.send_open(notary, request, Terms::BRIEF).await?;
        let notary_keys = self.of_notary(notary).await?;
        let mut checked = Vec::new();
        for answer in response.server_keys.iter().take(ANSWERS_PER_QUERY_MAX) {
            let object = canonical::parse(answer.json().get().as_bytes());
            let is_vouched_for =
                object.is_ok_and(|object| signing::verify(notary, notary_keys.clone(), &object).is_ok());
            if is_vouched_for
                && let Ok(Some(server)) = answer.get_field::<OwnedServerName>("server_name")
                && let Ok(answer) = self.check(&server, answer.json())
            {
                checked.push(answer);
            }
        }
        Ok(checked)
    }

    /// What a notary signs with, in its own words: notaries asked about each other would wait for each other.
    async fn of_notary(&self, notary: &ServerName) -> Result<PublicKeySet> {
        let (all, now_ms) = (BTreeSet::new(), self.0.cx.clock.now_ms());
        if !has_all(&*self.known(notary).await?, &all, Needed::Now, now_ms) {
            self.keep(notary, self.ask_itself(notary).await?).await?;
        }
        Ok(good(&*self.known(notary).await?, &all, Needed::Now, now_ms))
    }

    /// Whether an answer is `server`'s own: its name, and a signature with one of the keys it lists as in use.
    fn check(&self, server: &ServerName, json: &RawValue) -> Result<Checked> {
        let broken = |problem: String| failure(server, problem);
        let object = canonical::parse(json.get().as_bytes()).map_err(|error| broken(error.to_string()))?;
        let keys: ServerSigningKeys = Raw::<ServerSigningKeys>::from_json(json.to_owned())
            .deserialize()
            .map_err(|error| broken(format!("its keys cannot be read: {error}")))?;
        if keys.server_name != server {
            return Err(broken(format!("it answers with the keys of {}", keys.server_name)));
        }
        if keys.verify_keys.len() + keys.old_verify_keys.len() > KEYS_PER_SERVER_MAX {
            return Err(broken("it lists too many keys".to_owned()));
        }
        let in_use = keys.verify_keys.iter().map(|(id, key)| (id.to_string(), key.key.clone())).collect();
        signing::verify(server, in_use, &object)
            .map_err(|error| broken(format!("its keys are not signed by itself: {error}")))?;
        Ok(Checked { keys, object })
    }

    async fn keep(&self, server: &ServerName, checked: Checked) -> Result<()> {
        let Checked { keys, object } = checked;
        let number = |ms: MilliSecondsSinceUnixEpoch| i64::from(ms.get());
        let valid_until = number(keys.valid_until_ts);
        let row = |id: String, public: &Base64, expired_at: Option<i64>| ServerKey {
            server: server.to_string(),
            key_id: id,
            public: public.encode(),
            valid_until: if expired_at.is_none() { valid_until } else { 0 },
            expired_at,
        };
        let mut rows: Vec<_> = keys.verify_keys.iter().map(|(id, key)| row(id.to_string(), &key.key, None)).collect();
        rows.extend(
            keys.old_verify_keys.iter().map(|(id, key)| row(id.to_string(), &key.key, Some(number(key.expired_ts)))),
        );
        let now = i64::try_from(self.0.cx.clock.now_ms()).unwrap_or(i64::MAX);
        let answer =
            Answer { server: server.to_string(), body: canonical::write(&object), fetched_at: now, valid_until };
        let mut tx = self.0.cx.store.begin().await?;
        server_keys::put(&mut tx, &rows).await?;
        server_keys::put_answer(&mut tx, &answer).await?;
        tx.commit().await?;
        self.0.known.remove(server);
        Ok(())
    }
}

/// An answer that is the server's own.
struct Checked {
    keys: ServerSigningKeys,
    object: CanonicalJsonObject,
}

fn public_of(key: &SigningKey) -> Result<Base64> {
    Base64::parse(key.public()).map_err(Error::internal)
}

/// For what time the keys of an event must be good.
fn needed_for(event: &Unverified) -> Needed {
    if event.rules().enforce_key_validity { Needed::At(event.origin_server_ts_ms()) } else { Needed::Ever }
}

fn verify_with(
    event: Unverified,
    known: &HashMap<OwnedServerName, Arc<KeySet>>,
    now_ms: u64,
) -> Result<Pdu, BadSignature> {
    let needed = needed_for(&event);
    let mut map = PublicKeyMap::new();
    for server in event.required_servers().keys() {
        let keys = known.get(server).map(|keys| {
            let good = keys.iter().filter(|(_, key)| key.is_good(needed, now_ms));
            good.map(|(id, key)| (id.clone(), key.public.clone())).collect()
        });
        map.insert(server.to_string(), keys.unwrap_or_default());
    }
    event.verify(&map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_believed_for_the_time_it_was_vouched_for() {
        let now_ms = 1_000_000_000_000;
        let key = |valid_until_ms, expired_at_ms| Key { public: Base64::new(vec![1]), valid_until_ms, expired_at_ms };
        let in_use = key(now_ms + 1000, None);
        let stale = key(now_ms - 1000, None);
        let expired = key(0, Some(now_ms - 5000));
        let boastful = key(u64::MAX, None);

        assert!(in_use.is_good(Needed::Now, now_ms));
        assert!(in_use.is_good(Needed::At(now_ms), now_ms));
        assert!(!in_use.is_good(Needed::At(now_ms + 2000), now_ms));
        assert!(!stale.is_good(Needed::Now, now_ms));
        assert!(stale.is_good(Needed::At(now_ms - 2000), now_ms));
        assert!(!expired.is_good(Needed::Now, now_ms));
        assert!(expired.is_good(Needed::At(now_ms - 6000), now_ms));
        assert!(!expired.is_good(Needed::At(now_ms - 4000), now_ms));
        assert!(!boastful.is_good(Needed::At(now_ms + BELIEVED_MS + 1), now_ms));
        assert!(expired.is_good(Needed::Ever, now_ms));
    }
}
