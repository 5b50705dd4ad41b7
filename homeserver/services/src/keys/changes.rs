//! Who is told that somebody's devices or keys changed.
//!
//! Local users are told in sync; other servers by EDUs that the sender of transactions asks [`Keys::updates_for_peers`] for.
//!
//! Source: Client-Server API, "Tracking the device list for a user", `GET /keys/changes`; Server-Server API, "Device Management".

use std::collections::{BTreeSet, HashMap};

use ruma::{OwnedUserId, UserId, encryption::DeviceKeys, serde::Raw};
use ruma::{
    UInt,
    api::federation::transactions::edu::{DeviceListUpdateContent, Edu, SigningKeyUpdateContent},
};
use storage::{device_changes, sharing};

use super::{Keys, UsersKeys, Wanted, query::Viewer};
use crate::{Error, Result};

/// Users whose keys a client should look at anew, or no longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceLists {
    /// Their keys changed, or the user shares a room with them since.
    pub changed: Vec<OwnedUserId>,
    /// The user shares no room with them any more.
    pub left: Vec<OwnedUserId>,
}

/// A change that other servers are told.
#[derive(Debug, Clone)]
pub struct PeerUpdate {
    /// Its position, for the sender's cursor.
    pub pos: i64,
    /// Whose change it is; servers that share a room with them are told.
    pub user_nid: i64,
    /// Whose change it is.
    pub user_id: OwnedUserId,
    /// What they are told.
    pub edu: Edu,
}

impl Keys {
    /// What changed for a user in `since < pos <= until`, rooms they share included: the answer to `/keys/changes`, and to a sync
    /// that keeps no rooms in memory. One statement.
    ///
    /// # Errors
    /// The database's.
    pub async fn device_lists(&self, user_nid: i64, since: i64, until: i64) -> Result<DeviceLists> {
        let rows = sharing::device_lists(&mut self.cx.store.read().await?, user_nid, since, until).await?;
        let (left, changed): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, has_left)| *has_left);
        let nids = |rows: Vec<(i64, bool)>| rows.into_iter().map(|(nid, _)| nid).collect::<Vec<_>>();
        Ok(DeviceLists { changed: self.names(&nids(changed)).await?, left: self.names(&nids(left)).await? })
    }

    /// Users whose keys changed in `since < pos <= until` and whom `viewer_nid` may watch, as `is_shared` says: for a sync that knows
    /// who shares rooms with whom. One statement.
    ///
    /// # Errors
    /// The database's.
    pub async fn changed(
        &self,
        viewer_nid: i64,
        since: i64,
        until: i64,
        is_shared: impl Fn(i64) -> bool,
    ) -> Result<Vec<i64>> {
        let mut tx = self.cx.store.read().await?;
        let mut changed = device_changes::changed(&mut tx, viewer_nid, since, until).await?;
        changed.retain(|change| {
            change.viewer_nid == viewer_nid || change.user_nid == viewer_nid || is_shared(change.user_nid)
        });
        let users: BTreeSet<i64> = changed.into_iter().map(|change| change.user_nid).collect();
        Ok(users.into_iter().collect())
    }

    /// Changes of our users' devices and keys in `since < pos <= until`, at most `limit`, as other servers are told of them. What
    /// is told is how things are now, which may be newer than the change.
    ///
    /// # Errors
    /// The database's.
    pub async fn updates_for_peers(&self, since: i64, until: i64, limit: i64) -> Result<Vec<PeerUpdate>> {
        let mut tx = self.cx.store.read().await?;
        let changes = device_changes::outbound(&mut tx, since, until, limit).await?;
        drop(tx);
        let nids: Vec<i64> = changes.iter().map(|change| change.user_nid).collect();
        let mut names: HashMap<i64, OwnedUserId> = HashMap::new();
        for (nid, name) in self.cx.numbers.user_names(&nids).await? {
            names.insert(nid, UserId::parse(&*name).map_err(Error::internal)?);
        }
        let wanted: Wanted = names.values().map(|user_id| (user_id.clone(), Vec::new())).collect();
        let keys = self.stored_keys(Viewer::Peer, &wanted).await?;
        let updates = changes.into_iter().filter_map(|change| {
            let user_id = names.get(&change.user_nid)?.clone();
            let edu = self.update(&user_id, &change, &keys);
            Some(PeerUpdate { pos: change.pos, user_nid: change.user_nid, user_id, edu })
        });
        Ok(updates.collect())
    }

    fn update(&self, user_id: &UserId, change: &device_changes::OutboundChange, keys: &UsersKeys) -> Edu {
        if change.device_id.is_empty() {
            let mut content = SigningKeyUpdateContent::new(user_id.to_owned());
            content.master_key = keys.master.get(user_id).cloned();
            content.self_signing_key = keys.self_signing.get(user_id).cloned();
            return Edu::SigningKeyUpdate(content);
        }
        let device_id = change.device_id.as_str().into();
        let mut content = DeviceListUpdateContent::new(user_id.to_owned(), device_id, stream_id(change.pos));
        content.prev_id = change.prev_pos.map(stream_id).into_iter().collect();
        match keys.devices.get(user_id).and_then(|devices| devices.get(&content.device_id)) {
            Some(keys) => {
                content.device_display_name = display_name(keys).filter(|_| self.settings.tells_device_names);
                content.keys = Some(keys.clone());
            }
            None => content.deleted = Some(true),
        }
        Edu::DeviceListUpdate(content)
    }

    async fn names(&self, nids: &[i64]) -> Result<Vec<OwnedUserId>> {
        let names: BTreeSet<_> = self.cx.numbers.user_names(nids).await?.into_values().collect();
        names.into_iter().map(|name| UserId::parse(&*name).map_err(Error::internal)).collect()
    }
}

fn stream_id(pos: i64) -> UInt {
    UInt::new_saturating(u64::try_from(pos).unwrap_or(0))
}

/// The name in a device's `unsigned`.
pub(super) fn display_name(keys: &Raw<DeviceKeys>) -> Option<String> {
    keys.deserialize().ok()?.unsigned.device_display_name
}
