//! Somebody asks for identity keys.
//!
//! Keys of local users come from the tables: two statements, however many users. Keys of other servers' users come from our
//! copies when they share a room with a local user, else from their servers ([`super::remote`]).
//!
//! Source: Client-Server API, `POST /keys/query`; Server-Server API, `POST /user/keys/query`, `GET /user/devices/{userId}`.

use std::{collections::HashMap, time::Duration};

use ruma::{
    OwnedUserId, ServerName, UserId,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde_json::{Map, Value};
use storage::{
    cross_signing::{self, Signature},
    device_changes, device_keys,
};

use super::{DeviceList, Keys, ListedDevice, UsersKeys, Wanted};
use crate::{Error, Result, accounts::User};

/// Who looks at keys.
#[derive(Debug, Clone, Copy)]
pub(super) enum Viewer<'a> {
    /// A local user.
    User(&'a UserId, i64),
    /// Another server.
    Peer,
}

impl Keys {
    /// The keys of users and their devices, as the caller may see them. Each local user who was asked for is in the answer, with
    /// or without devices, whether or not they exist.
    ///
    /// # Errors
    /// The database's; servers that fail stand in the answer.
    pub async fn query(&self, user: &User, wanted: &Wanted, timeout: Option<Duration>) -> Result<UsersKeys> {
        let viewer = Viewer::User(&user.user_id, user.nid);
        let (local, remote): (Wanted, Wanted) =
            wanted.clone().into_iter().partition(|(user_id, _)| self.cx.is_local(user_id));
        let mut answer = self.local_keys(viewer, &local).await?;
        if !remote.is_empty() {
            let theirs = self.query_remote(viewer, &remote, self.timeout(timeout)).await?;
            answer.devices.extend(theirs.devices);
            answer.master.extend(theirs.master);
            answer.self_signing.extend(theirs.self_signing);
            answer.failures.extend(theirs.failures);
        }
        Ok(answer)
    }

    /// The keys of our users, as another server may see them. Users of other servers are left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn query_for_peer(&self, _origin: &ServerName, wanted: &Wanted) -> Result<UsersKeys> {
        let local = wanted.iter().filter(|(user_id, _)| self.cx.is_local(user_id));
        let local: Wanted = local.map(|(user_id, devices)| (user_id.clone(), devices.clone())).collect();
        self.local_keys(Viewer::Peer, &local).await
    }

    /// All devices of one of our users that have keys, for another server's copy.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the user is not one of ours.
    pub async fn devices_of(&self, user_id: &UserId) -> Result<DeviceList> {
        let known = self.cx.numbers.user_if_known(user_id).await?.filter(|_| self.cx.is_local(user_id));
        let user_nid = known.ok_or(Error::NotFound("user"))?;
        let mut tx = self.cx.store.read().await?;
        // The position first: a change in between is then told again instead of missed.
        let stream_id = device_changes::newest_of(&mut tx, user_nid).await?;
        let names = device_keys::of_users(&mut tx, &[user_nid]).await?;
        drop(tx);
        let mut names: HashMap<_, _> = names.into_iter().map(|row| (row.device_id, row.display_name)).collect();
        let wanted = Wanted::from([(user_id.to_owned(), Vec::new())]);
        let mut keys = self.local_keys(Viewer::Peer, &wanted).await?;
        let devices = keys.devices.remove(user_id).unwrap_or_default().into_iter();
        let devices = devices.map(|(device_id, keys)| {
            let display_name = names.remove(device_id.as_str()).flatten().filter(|_| self.settings.tells_device_names);
            ListedDevice { device_id, keys, display_name }
        });
        Ok(DeviceList {
            user_id: user_id.to_owned(),
            stream_id: u64::try_from(stream_id).unwrap_or(0),
            devices: devices.collect(),
            master: keys.master.remove(user_id),
            self_signing: keys.self_signing.remove(user_id),
        })
    }

    /// How long to wait for other servers.
    pub(super) fn timeout(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.settings.remote_timeout).min(self.settings.remote_timeout_max)
    }

    async fn local_keys(&self, viewer: Viewer<'_>, wanted: &Wanted) -> Result<UsersKeys> {
        let mut answer = self.stored_keys(viewer, wanted).await?;
        for user_id in wanted.keys() {
            answer.devices.entry(user_id.clone()).or_default();
        }
        Ok(answer)
    }

    /// The keys our tables hold of these users, local ones or copies.
    pub(super) async fn stored_keys(&self, viewer: Viewer<'_>, wanted: &Wanted) -> Result<UsersKeys> {
        let ids: Vec<&UserId> = wanted.keys().map(|user_id| &**user_id).collect();
        let mut names: HashMap<i64, OwnedUserId> =
            self.cx.numbers.users_if_known(&ids).await?.into_iter().map(|(id, nid)| (nid, id.to_owned())).collect();
        let nids: Vec<i64> = names.keys().copied().collect();
        if nids.is_empty() {
            return Ok(UsersKeys::default());
        }
        let (viewer_id, viewer_nid) = match viewer {
            Viewer::User(id, nid) => (Some(id), nid),
            Viewer::Peer => (None, 0),
        };
        let mut tx = self.cx.store.read().await?;
        let devices = device_keys::of_users(&mut tx, &nids).await?;
        let (identities, signatures) = cross_signing::with_signatures(&mut tx, &nids, viewer_nid).await?;
        drop(tx);
        let mut signed: HashMap<(i64, String), Vec<Signature>> = HashMap::new();
        for signature in signatures {
            signed.entry((signature.user_nid, signature.target.clone())).or_default().push(signature);
        }
        if let Some(id) = viewer_id {
            names.insert(viewer_nid, id.to_owned());
        }

        let mut answer = UsersKeys::default();
        for row in devices {
            let user_id = &names[&row.user_nid];
            let asked = wanted.get(user_id).filter(|asked| !asked.is_empty());
            if asked.is_some_and(|asked| !asked.iter().any(|device| device.as_str() == row.device_id)) {
                continue;
            }
            let target = (row.user_nid, row.device_id);
            let more = signed.get(&target).map_or(&[][..], Vec::as_slice);
            let name = row.display_name.filter(|_| viewer_id.is_some() || self.settings.tells_device_names);
            let keys: Raw<DeviceKeys> = written(&row.body, more, &names, name)?;
            answer.devices.entry(user_id.clone()).or_default().insert(target.1.into(), keys);
        }
        for row in identities {
            let user_id = &names[&row.user_nid];
            let more = signed.get(&(row.user_nid, row.public_key)).map_or(&[][..], Vec::as_slice);
            let key: Raw<CrossSigningKey> = written(&row.body, more, &names, None)?;
            match row.usage.as_str() {
                "master" => answer.master.insert(user_id.clone(), key),
                "self_signing" => answer.self_signing.insert(user_id.clone(), key),
                _ if row.user_nid == viewer_nid => answer.user_signing.insert(user_id.clone(), key),
                _ => None,
            };
        }
        Ok(answer)
    }
}

/// A stored key with the signatures that were added to it and, in `unsigned`, its device's name.
fn written<T>(
    body: &str,
    signatures: &[Signature],
    names: &HashMap<i64, OwnedUserId>,
    display_name: Option<String>,
) -> Result<Raw<T>> {
    let mut object: Map<String, Value> = serde_json::from_str(body).map_err(Error::internal)?;
    for Signature { signer_nid, key_id, signature, .. } in signatures {
        let Some(signer) = names.get(signer_nid) else { continue };
        let all = object.entry("signatures").or_insert_with(|| Value::Object(Map::new()));
        let Some(all) = all.as_object_mut() else { continue };
        let theirs = all.entry(signer.as_str()).or_insert_with(|| Value::Object(Map::new()));
        if let Some(theirs) = theirs.as_object_mut() {
            theirs.insert(key_id.clone(), signature.clone().into());
        }
    }
    if let Some(name) = display_name {
        object.insert("unsigned".into(), serde_json::json!({ "device_display_name": name }));
    }
    let raw = serde_json::value::to_raw_value(&object).map_err(Error::internal)?;
    Ok(Raw::from_json(raw))
}
