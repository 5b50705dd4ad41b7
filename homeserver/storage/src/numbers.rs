//! Tables `counters`, `servers`, `users`, `state_keys`: long names become small numbers (nids), given once and never changed.
//!
//! Numbers are reserved in blocks, so that giving one costs no statement. A number that was reserved and not used is lost,
//! which is harmless. All functions here write in transactions of their own: never call them while holding a [`crate::Tx`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use ruma::{ServerName, UserId};

use crate::{Result, Statement, Store, Tx};

/// Numbers reserved at a time.
const BLOCK_LEN: i64 = 1024;
/// Names kept in memory for each family before the family's cache is emptied.
const NAMES_MAX: usize = 200_000;

/// Families of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Events.
    Event,
    /// Rooms.
    Room,
    /// State snapshots.
    State,
    /// Users.
    User,
    /// Servers.
    Server,
    /// Pairs of state event type and state key.
    StateKey,
    /// To-device messages.
    ToDevice,
    /// Changes of device lists.
    DeviceChange,
    /// One-time keys.
    OneTimeKey,
}

impl Family {
    const ALL: usize = 9;

    fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Room => "room",
            Self::State => "state",
            Self::User => "user",
            Self::Server => "server",
            Self::StateKey => "state_key",
            Self::ToDevice => "to_device",
            Self::DeviceChange => "device_change",
            Self::OneTimeKey => "one_time_key",
        }
    }
}

sql!(
    RESERVE,
    "
    INSERT INTO counters (name, value) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET value = counters.value + $2
    RETURNING value"
);
sql!(SERVER_PUT, "INSERT INTO servers (nid, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
sql!(
    SERVERS_BY_NAME,
    "
    SELECT nid, name FROM servers WHERE name IN (SELECT value FROM json_each($1))"
);
sql!(
    SERVERS_BY_NID,
    "
    SELECT nid, name FROM servers WHERE nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    USER_PUT,
    "
    INSERT INTO users (nid, user_id, server_nid, is_local) VALUES ($1, $2, $3, $4)
    ON CONFLICT (user_id) DO NOTHING"
);
sql!(
    USERS_BY_NAME,
    "
    SELECT nid, user_id FROM users WHERE user_id IN (SELECT value FROM json_each($1))"
);
sql!(
    USERS_BY_NID,
    "
    SELECT nid, user_id FROM users WHERE nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    KEY_PUT,
    "
    INSERT INTO state_keys (nid, kind, state_key) VALUES ($1, $2, $3)
    ON CONFLICT (kind, state_key) DO NOTHING"
);
sql!(KEY_BY_NAME, "SELECT nid FROM state_keys WHERE kind = $1 AND state_key = $2");
// A JSON pair is taken apart differently.
sql!(KEYS_BY_NAME,
    sqlite: "
        SELECT k.nid, k.kind, k.state_key FROM json_each($1) AS j
        JOIN state_keys AS k ON k.kind = json_extract(j.value, '$[0]') AND k.state_key = json_extract(j.value, '$[1]')",
    postgres: "
        SELECT k.nid, k.kind, k.state_key FROM json_each($1) AS j
        JOIN state_keys AS k ON k.kind = j.value::json->>0 AND k.state_key = j.value::json->>1");
sql!(
    KEYS_BY_NID,
    "
    SELECT nid, kind, state_key FROM state_keys
    WHERE nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);

/// A state event's type and state key.
pub type StateKey = (Arc<str>, Arc<str>);

/// A two-way memory of names and numbers.
#[derive(Debug)]
struct Names<K> {
    by_name: HashMap<K, i64>,
    by_nid: HashMap<i64, K>,
}

impl<K> Default for Names<K> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), by_nid: HashMap::new() }
    }
}

impl<K: Clone + Eq + std::hash::Hash> Names<K> {
    fn put(&mut self, name: K, nid: i64) {
        if self.by_nid.len() >= NAMES_MAX {
            self.by_name.clear();
            self.by_nid.clear();
        }
        self.by_nid.insert(nid, name.clone());
        self.by_name.insert(name, nid);
    }
}

/// A two-way memory of state keys. By name in two steps, so that looking one up makes no copy of its name.
#[derive(Debug, Default)]
struct Keys {
    by_name: HashMap<Arc<str>, HashMap<Arc<str>, i64>>,
    by_nid: HashMap<i64, StateKey>,
}

impl Keys {
    fn get(&self, kind: &str, state_key: &str) -> Option<i64> {
        self.by_name.get(kind)?.get(state_key).copied()
    }

    fn put(&mut self, (kind, state_key): StateKey, nid: i64) {
        if self.by_nid.len() >= NAMES_MAX {
            self.by_name.clear();
            self.by_nid.clear();
        }
        self.by_nid.insert(nid, (Arc::clone(&kind), Arc::clone(&state_key)));
        self.by_name.entry(kind).or_default().insert(state_key, nid);
    }
}

/// Gives numbers to names and names to numbers, with a memory of both. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Numbers {
    store: Store,
    blocks: Arc<[Mutex<(i64, i64)>; Family::ALL]>,
    users: Arc<RwLock<Names<Arc<str>>>>,
    servers: Arc<RwLock<Names<Arc<str>>>>,
    keys: Arc<RwLock<Keys>>,
    local_server: Arc<str>,
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A list as the statements take it.
pub(crate) fn json_list<T: serde::Serialize>(items: &[T]) -> String {
    crate::text::json(serde_json::to_string(items).unwrap_or_else(|_| "[]".to_owned()))
}

impl Numbers {
    /// For the server `local_server` on `store`.
    #[must_use]
    pub fn new(store: Store, local_server: &ServerName) -> Self {
        Self {
            store,
            blocks: Arc::default(),
            users: Arc::default(),
            servers: Arc::default(),
            keys: Arc::default(),
            local_server: local_server.as_str().into(),
        }
    }

    /// The next number of `family`.
    ///
    /// # Errors
    /// The driver's.
    pub async fn next(&self, family: Family) -> Result<i64> {
        Ok(self.next_many(family, 1).await?.start)
    }

    /// `len` numbers of `family` in a row.
    ///
    /// # Errors
    /// The driver's.
    pub async fn next_many(&self, family: Family, len: i64) -> Result<std::ops::Range<i64>> {
        let block = &self.blocks[family as usize];
        {
            let mut left = block.lock().unwrap_or_else(PoisonError::into_inner);
            if left.1 - left.0 >= len {
                let start = left.0;
                left.0 += len;
                return Ok(start..start + len);
            }
        }
        let reserve = len.max(BLOCK_LEN);
        let mut tx = self.store.begin().await?;
        let (end,): (i64,) = fetch_optional!(&mut tx, RESERVE, family.name(), reserve)?
            .ok_or_else(|| missing("counters", family.name()))?;
        tx.commit().await?;
        // Numbers start at 1: 0 means none.
        let start = end - reserve + 1;
        let mut left = block.lock().unwrap_or_else(PoisonError::into_inner);
        if end + 1 - (start + len) > left.1 - left.0 {
            *left = (start + len, end + 1);
        }
        Ok(start..start + len)
    }

    /// The number of `user`, given now if it has none.
    ///
    /// # Errors
    /// The driver's.
    pub async fn user(&self, user: &UserId) -> Result<i64> {
        if let Some(nid) = read(&self.users).by_name.get(user.as_str()) {
            return Ok(*nid);
        }
        let mut found = self.users(&[user]).await?;
        found.pop().ok_or_else(|| missing("users", user.as_str()))
    }

    /// The number of `user`, if it has one.
    ///
    /// # Errors
    /// The driver's.
    pub async fn user_if_known(&self, user: &UserId) -> Result<Option<i64>> {
        if let Some(nid) = read(&self.users).by_name.get(user.as_str()) {
            return Ok(Some(*nid));
        }
        let mut tx = self.store.read().await?;
        self.load_users(&mut tx, &[user.as_str()]).await?;
        Ok(read(&self.users).by_name.get(user.as_str()).copied())
    }

    /// The numbers of those of `users` that have one, in no order: asking about strangers leaves nothing behind.
    ///
    /// # Errors
    /// The driver's.
    pub async fn users_if_known<'a>(&self, users: &[&'a UserId]) -> Result<Vec<(&'a UserId, i64)>> {
        let unknown: Vec<&str> = {
            let names = read(&self.users);
            users.iter().map(|u| u.as_str()).filter(|u| !names.by_name.contains_key(*u)).collect()
        };
        if !unknown.is_empty() {
            let mut tx = self.store.read().await?;
            self.load_users(&mut tx, &unknown).await?;
        }
        let names = read(&self.users);
        Ok(users.iter().filter_map(|user| Some((*user, *names.by_name.get(user.as_str())?))).collect())
    }

    /// The numbers of `users`, in their order; new ones are given in one transaction.
    ///
    /// # Errors
    /// The driver's.
    pub async fn users(&self, users: &[&UserId]) -> Result<Vec<i64>> {
        let unknown = |users: &[&UserId]| -> Vec<String> {
            let names = read(&self.users);
            users.iter().filter(|u| !names.by_name.contains_key(u.as_str())).map(|u| u.as_str().to_owned()).collect()
        };
        let mut left = unknown(users);
        if !left.is_empty() {
            let mut tx = self.store.read().await?;
            self.load_users(&mut tx, &left).await?;
            drop(tx);
            left = unknown(users);
        }
        if !left.is_empty() {
            left.sort_unstable();
            left.dedup();
            self.create_users(&left).await?;
        }
        let names = read(&self.users);
        users
            .iter()
            .map(|u| names.by_name.get(u.as_str()).copied().ok_or_else(|| missing("users", u.as_str())))
            .collect()
    }

    async fn create_users(&self, names: &[String]) -> Result<()> {
        let count = i64::try_from(names.len()).unwrap_or(i64::MAX);
        let nids = self.next_many(Family::User, count).await?;
        let mut server_nids = Vec::with_capacity(names.len());
        for name in names {
            let server = name.split_once(':').map_or("", |(_, server)| server);
            server_nids.push((self.server_named(server).await?, server == &*self.local_server));
        }
        let mut tx = self.store.begin().await?;
        for ((name, nid), (server_nid, is_local)) in names.iter().zip(nids).zip(server_nids) {
            execute!(&mut tx, USER_PUT, nid, name.as_str(), server_nid, is_local)?;
        }
        tx.commit().await?;
        let mut tx = self.store.read().await?;
        self.load_users(&mut tx, names).await
    }

    async fn load_users<T: serde::Serialize>(&self, tx: &mut Tx, users: &[T]) -> Result<()> {
        let rows: Vec<(i64, String)> = fetch_all!(tx, USERS_BY_NAME, json_list(users))?;
        let mut names = write(&self.users);
        for (nid, name) in rows {
            names.put(name.into(), nid);
        }
        Ok(())
    }

    /// The names of users, by number. Unknown numbers are absent.
    ///
    /// # Errors
    /// The driver's.
    pub async fn user_names(&self, nids: &[i64]) -> Result<HashMap<i64, Arc<str>>> {
        self.names(&self.users, &USERS_BY_NID, nids).await
    }

    /// Names by number, of users or of servers: from memory, the rest by one statement.
    async fn names(
        &self,
        memory: &RwLock<Names<Arc<str>>>,
        statement: &Statement,
        nids: &[i64],
    ) -> Result<HashMap<i64, Arc<str>>> {
        let mut found = HashMap::with_capacity(nids.len());
        let mut left = Vec::new();
        {
            let names = read(memory);
            for nid in nids {
                match names.by_nid.get(nid) {
                    Some(name) => drop(found.insert(*nid, Arc::clone(name))),
                    None => left.push(*nid),
                }
            }
        }
        if !left.is_empty() {
            let mut tx = self.store.read().await?;
            let rows: Vec<(i64, String)> = fetch_all!(&mut tx, statement, json_list(&left))?;
            drop(tx);
            let mut names = write(memory);
            for (nid, name) in rows {
                let name: Arc<str> = name.into();
                names.put(Arc::clone(&name), nid);
                found.insert(nid, name);
            }
        }
        Ok(found)
    }

    /// The number of `server`, given now if it has none.
    ///
    /// # Errors
    /// The driver's.
    pub async fn server(&self, server: &ServerName) -> Result<i64> {
        self.server_named(server.as_str()).await
    }

    async fn server_named(&self, server: &str) -> Result<i64> {
        if let Some(nid) = read(&self.servers).by_name.get(server) {
            return Ok(*nid);
        }
        let fresh = self.next(Family::Server).await?;
        let mut tx = self.store.begin().await?;
        execute!(&mut tx, SERVER_PUT, fresh, server)?;
        let (nid, _): (i64, String) = fetch_optional!(&mut tx, SERVERS_BY_NAME, json_list(&[server]))?
            .ok_or_else(|| missing("servers", server))?;
        tx.commit().await?;
        write(&self.servers).put(server.into(), nid);
        Ok(nid)
    }

    /// The names of servers, by number.
    ///
    /// # Errors
    /// The driver's.
    pub async fn server_names(&self, nids: &[i64]) -> Result<HashMap<i64, Arc<str>>> {
        self.names(&self.servers, &SERVERS_BY_NID, nids).await
    }

    /// The number of a pair of event type and state key, given now if it has none.
    ///
    /// # Errors
    /// The driver's.
    pub async fn state_key(&self, kind: &str, state_key: &str) -> Result<i64> {
        if let Some(nid) = self.state_key_remembered(kind, state_key) {
            return Ok(nid);
        }
        let mut tx = self.store.read().await?;
        let known: Option<(i64,)> = fetch_optional!(&mut tx, KEY_BY_NAME, kind, state_key)?;
        drop(tx);
        let nid = if let Some((nid,)) = known {
            nid
        } else {
            let fresh = self.next(Family::StateKey).await?;
            let mut tx = self.store.begin().await?;
            execute!(&mut tx, KEY_PUT, fresh, kind, state_key)?;
            let (nid,): (i64,) =
                fetch_optional!(&mut tx, KEY_BY_NAME, kind, state_key)?.ok_or_else(|| missing("state_keys", kind))?;
            tx.commit().await?;
            nid
        };
        write(&self.keys).put((kind.into(), state_key.into()), nid);
        Ok(nid)
    }

    /// The number of a pair of event type and state key, if it has one. A pair without a number stands in no state.
    ///
    /// # Errors
    /// The driver's.
    pub async fn state_key_if_known(&self, kind: &str, state_key: &str) -> Result<Option<i64>> {
        if let Some(nid) = self.state_key_remembered(kind, state_key) {
            return Ok(Some(nid));
        }
        let mut tx = self.store.read().await?;
        let known: Option<(i64,)> = fetch_optional!(&mut tx, KEY_BY_NAME, kind, state_key)?;
        if let Some((nid,)) = known {
            write(&self.keys).put((kind.into(), state_key.into()), nid);
        }
        Ok(known.map(|(nid,)| nid))
    }

    /// The numbers of those of several pairs of event type and state key that have one. One statement for those not in memory.
    ///
    /// # Errors
    /// The driver's.
    pub async fn state_keys_if_known<'a>(
        &self,
        names: &[(&'a str, &'a str)],
    ) -> Result<HashMap<(&'a str, &'a str), i64>> {
        let mut found = HashMap::with_capacity(names.len());
        let mut left = Vec::new();
        for name in names {
            match self.state_key_remembered(name.0, name.1) {
                Some(nid) => drop(found.insert(*name, nid)),
                None => left.push(*name),
            }
        }
        if left.is_empty() {
            return Ok(found);
        }
        let mut tx = self.store.read().await?;
        let rows: Vec<(i64, String, String)> = fetch_all!(&mut tx, KEYS_BY_NAME, json_list(&left))?;
        drop(tx);
        let mut remembered = write(&self.keys);
        for (nid, kind, key) in rows {
            remembered.put((kind.into(), key.into()), nid);
        }
        found.extend(left.into_iter().filter_map(|name| Some((name, remembered.get(name.0, name.1)?))));
        Ok(found)
    }

    fn state_key_remembered(&self, kind: &str, state_key: &str) -> Option<i64> {
        read(&self.keys).get(kind, state_key)
    }

    /// Types and state keys, by number.
    ///
    /// # Errors
    /// The driver's.
    pub async fn state_key_names(&self, nids: &[i64]) -> Result<HashMap<i64, StateKey>> {
        let mut found = HashMap::with_capacity(nids.len());
        let mut left = Vec::new();
        {
            let names = read(&self.keys);
            for nid in nids {
                match names.by_nid.get(nid) {
                    Some(name) => drop(found.insert(*nid, name.clone())),
                    None => left.push(*nid),
                }
            }
        }
        if !left.is_empty() {
            let mut tx = self.store.read().await?;
            let rows: Vec<(i64, String, String)> = fetch_all!(&mut tx, KEYS_BY_NID, json_list(&left))?;
            drop(tx);
            let mut names = write(&self.keys);
            for (nid, kind, key) in rows {
                let name: StateKey = (kind.into(), key.into());
                names.put(name.clone(), nid);
                found.insert(nid, name);
            }
        }
        Ok(found)
    }
}

fn missing(table: &'static str, key: &str) -> crate::Error {
    crate::Error::Inconsistent { table, key: key.to_owned(), what: "just written and not there" }
}
