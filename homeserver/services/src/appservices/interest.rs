//! Which rooms and events concern an application service.
//!
//! A room does when the rooms' namespace has it, one of its aliases is in the aliases' namespace, or one of its joined members is
//! a user of ours in the users' namespace (or the application service's own user). An event does when its room does, or when
//! it comes from or is about such a user.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use room::event::kind;
use ruma::UserId;

use super::registration::Registration;
use crate::{
    Context, Result,
    timeline::{Timeline, events::Stored},
};

/// Users whose names were compared, kept for each application service before all are forgotten.
const COMPARED_MAX: usize = 100_000;

/// What concerns one application service.
#[derive(Debug)]
pub(super) struct Interest {
    cx: Context,
    timeline: Timeline,
    registration: Arc<Registration>,
    /// Users by number: whether they are in the namespace.
    compared: Mutex<HashMap<i64, bool>>,
}

impl Interest {
    pub(super) fn new(cx: Context, timeline: Timeline, registration: Arc<Registration>) -> Self {
        Self { cx, timeline, registration, compared: Mutex::default() }
    }

    /// Whether it is told of an event.
    pub(super) async fn has_event(&self, event: &Stored) -> Result<bool> {
        let pdu = &event.pdu;
        if !self.registration.wants(&pdu.kind) {
            return Ok(false);
        }
        if self.has_user(&pdu.sender) {
            return Ok(true);
        }
        let target = pdu.state_key.as_deref().filter(|_| pdu.kind == kind::MEMBER);
        if target.and_then(|target| <&UserId>::try_from(target).ok()).is_some_and(|target| self.has_user(target)) {
            return Ok(true);
        }
        self.has_room(event.room_nid).await
    }

    /// Whether a user of ours is in its namespace or is its own.
    pub(super) fn has_user(&self, user: &UserId) -> bool {
        self.cx.is_local(user) && self.registration.may_be(user)
    }

    /// Whether it is told what happens in a room.
    pub(super) async fn has_room(&self, room_nid: i64) -> Result<bool> {
        let room_id = self.timeline.now(room_nid).await?.room_id.clone();
        if self.registration.rooms.cover(room_id.as_str()) {
            return Ok(true);
        }
        if self.has_member(room_nid).await? {
            return Ok(true);
        }
        if self.registration.aliases.0.is_empty() {
            return Ok(false);
        }
        let mut tx = self.cx.store.read().await?;
        let aliases = storage::appservices::aliases_of(&mut tx, room_id.as_str()).await?;
        Ok(aliases.iter().any(|alias| self.registration.aliases.cover(alias)))
    }

    /// Whether one of a room's joined members is in its namespace.
    async fn has_member(&self, room_nid: i64) -> Result<bool> {
        let now = self.timeline.now(room_nid).await?;
        let mut left = Vec::new();
        {
            let compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
            for nid in &now.inhabitants.local {
                match compared.get(nid) {
                    Some(true) => return Ok(true),
                    Some(false) => {}
                    None => left.push(*nid),
                }
            }
        }
        if left.is_empty() {
            return Ok(false);
        }
        let names = self.cx.numbers.user_names(&left).await?;
        let mut compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if compared.len() + names.len() > COMPARED_MAX {
            compared.clear();
        }
        let mut is_any = false;
        for (nid, name) in names {
            let is_inside = <&UserId>::try_from(&*name).is_ok_and(|user| self.has_user(user));
            compared.insert(nid, is_inside);
            is_any |= is_inside;
        }
        Ok(is_any)
    }
}
