//! Somebody takes one-time keys, to open encrypted sessions.
//!
//! Source: Client-Server API, `POST /keys/claim`; Server-Server API, `POST /user/keys/claim`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId, serde::Raw};
use storage::one_time_keys;

use super::{
    ClaimedKeys, Claims, Keys,
    remote::{SERVERS_AT_ONCE, failure},
};
use crate::{Error, Result};

/// Devices one request may take keys of, on this server.
const CLAIMS_MAX: usize = 10_000;

impl Keys {
    /// Take a one-time key of each device, or its fallback key when none is left. Devices that have neither are left out.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; servers that fail stand in the answer.
    pub async fn claim(&self, wanted: &Claims, timeout: Option<Duration>) -> Result<ClaimedKeys> {
        let (local, remote): (Claims, Claims) =
            wanted.clone().into_iter().partition(|(user_id, _)| self.cx.is_local(user_id));
        let mut answer = ClaimedKeys { keys: self.claim_local(&local).await?, ..ClaimedKeys::default() };
        let mut servers: BTreeMap<OwnedServerName, Claims> = BTreeMap::new();
        for (user_id, devices) in remote {
            servers.entry(user_id.server_name().to_owned()).or_default().insert(user_id, devices);
        }
        let timeout = self.timeout(timeout);
        let asked = servers.into_iter().map(|(server, claims)| async move {
            let users: HashSet<OwnedUserId> = claims.keys().cloned().collect();
            let reply = tokio::time::timeout(timeout, self.remote.claim(&server, claims)).await;
            (server, users, reply)
        });
        let mut asked = stream::iter(asked).buffer_unordered(SERVERS_AT_ONCE);
        while let Some((server, users, reply)) = asked.next().await {
            match reply {
                // A server speaks for its own users, and for those we asked about.
                Ok(Ok(theirs)) => answer.keys.extend(theirs.keys.into_iter().filter(|(user, _)| users.contains(user))),
                Ok(Err(error)) => drop(answer.failures.insert(server.to_string(), failure(&error.to_string()))),
                Err(_) => drop(answer.failures.insert(server.to_string(), failure("it did not answer in time"))),
            }
        }
        Ok(answer)
    }

    /// Take one-time keys of our users for another server. Users of other servers are left out.
    ///
    /// # Errors
    /// [`Error::TooLarge`]
    pub async fn claim_for_peer(&self, _origin: &ServerName, wanted: &Claims) -> Result<ClaimedKeys> {
        let local = wanted.iter().filter(|(user_id, _)| self.cx.is_local(user_id));
        let local: Claims = local.map(|(user_id, devices)| (user_id.clone(), devices.clone())).collect();
        Ok(ClaimedKeys { keys: self.claim_local(&local).await?, ..ClaimedKeys::default() })
    }

    async fn claim_local(&self, wanted: &Claims) -> Result<Claimed> {
        if wanted.values().map(BTreeMap::len).sum::<usize>() > CLAIMS_MAX {
            return Err(Error::TooLarge(format!("a request may take keys of at most {CLAIMS_MAX} devices")));
        }
        let ids: Vec<&UserId> = wanted.keys().map(|user_id| &**user_id).collect();
        let known = self.cx.numbers.users_if_known(&ids).await?;
        let rows: Vec<(i64, &str, &str)> = known
            .iter()
            .flat_map(|(user_id, nid)| {
                let devices = wanted.get(*user_id).into_iter().flatten();
                devices.map(|(device_id, algorithm)| (*nid, device_id.as_str(), algorithm.as_ref()))
            })
            .collect();
        if rows.is_empty() {
            return Ok(Claimed::new());
        }
        let mut tx = self.cx.store.begin().await?;
        let mut taken = one_time_keys::claim(&mut tx, &rows, self.today()).await?;
        let served: HashSet<(i64, &str)> = taken.iter().map(|key| (key.user_nid, key.device_id.as_str())).collect();
        let unserved: Vec<_> =
            rows.iter().filter(|(nid, device, _)| !served.contains(&(*nid, device))).copied().collect();
        if !unserved.is_empty() {
            let fallback = one_time_keys::use_fallback(&mut tx, &unserved).await?;
            taken.extend(fallback);
        }
        tx.commit().await?;
        self.supplies_changed(taken.iter().map(|key| key.user_nid).collect::<HashSet<_>>());

        let names: HashMap<i64, &UserId> = known.into_iter().map(|(user_id, nid)| (nid, user_id)).collect();
        let mut claimed = Claimed::new();
        for key in taken {
            let Some(user_id) = names.get(&key.user_nid) else { continue };
            let name = format!("{}:{}", key.algorithm, key.key_id).try_into().map_err(Error::internal)?;
            let body = Raw::from_json_string(key.body).map_err(Error::internal)?;
            let devices = claimed.entry((*user_id).to_owned()).or_default();
            devices.entry(key.device_id.into()).or_default().insert(name, body);
        }
        Ok(claimed)
    }
}

type Claimed = BTreeMap<OwnedUserId, BTreeMap<ruma::OwnedDeviceId, super::OneTimeKeys>>;
