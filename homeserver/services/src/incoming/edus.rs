//! Ephemeral units of a transaction, each handed to the service it concerns.
//!
//! A server speaks for its own users alone; units about others, and those that cannot be read, are passed over.

use ruma::{
    OwnedUserId, RoomId, ServerName, UserId,
    api::federation::transactions::edu::{Edu, PresenceContent, ReceiptContent, TypingContent},
    events::receipt::ReceiptThread,
};
use serde_json::value::RawValue;
use storage::members;

use super::Incoming;
use crate::{
    Error, Result,
    presence::Seen,
    receipts::{Lane, RemoteReceipt},
};

/// Users of one presence unit.
const PRESENCES_PER_EDU_MAX: usize = 500;

impl Incoming {
    pub(super) async fn receive_edu(&self, origin: &ServerName, json: &RawValue) -> Result<()> {
        match serde_json::from_str::<Edu>(json.get()) {
            Ok(Edu::Typing(typing)) => self.receive_typing(origin, &typing).await,
            Ok(Edu::Receipt(receipts)) => self.receive_receipts(origin, receipts).await,
            Ok(Edu::Presence(presence)) => self.receive_presence(origin, presence).await,
            Ok(Edu::DirectToDevice(content)) => harmless(self.0.ephemeral.to_device.receive(origin, &content).await),
            Ok(Edu::DeviceListUpdate(update)) => {
                harmless(self.0.ephemeral.keys.receive_device_update(origin, &update).await)
            }
            Ok(Edu::SigningKeyUpdate(update)) => {
                harmless(self.0.ephemeral.keys.receive_signing_key_update(origin, &update).await)
            }
            Ok(_) => Ok(()),
            Err(problem) => {
                tracing::debug!(%origin, %problem, "an ephemeral unit cannot be read");
                Ok(())
            }
        }
    }

    /// The number of a room that `origin` may speak in.
    async fn room_open_to(&self, origin: &ServerName, room_id: &RoomId) -> Result<Option<i64>> {
        let Some(now) = self.inhabited(room_id).await? else { return Ok(None) };
        Ok(self.is_admitted(&now, origin).await?.then_some(now.nid))
    }

    async fn is_joined(&self, room_nid: i64, user: &UserId) -> Result<Option<i64>> {
        let user_nid = self.0.cx.numbers.user(user).await?;
        let is_joined = members::is_joined(&mut self.0.cx.store.read().await?, room_nid, user_nid).await?;
        Ok(is_joined.then_some(user_nid))
    }

    async fn receive_typing(&self, origin: &ServerName, typing: &TypingContent) -> Result<()> {
        if typing.user_id.server_name() == origin
            && let Some(room_nid) = self.room_open_to(origin, &typing.room_id).await?
            && let Some(user_nid) = self.is_joined(room_nid, &typing.user_id).await?
        {
            self.0.ephemeral.typing.receive(room_nid, user_nid, typing.typing);
        }
        Ok(())
    }

    async fn receive_receipts(&self, origin: &ServerName, content: ReceiptContent) -> Result<()> {
        for (room_id, map) in content.receipts {
            let Some(room_nid) = self.room_open_to(origin, &room_id).await? else { continue };
            let mut receipts = Vec::new();
            for (user_id, read) in map.read {
                if user_id.server_name() != origin || self.is_joined(room_nid, &user_id).await?.is_none() {
                    continue;
                }
                let lane = match read.data.thread {
                    ReceiptThread::Main => Lane::Main,
                    ReceiptThread::Thread(root) => Lane::Thread(root),
                    _ => Lane::Room,
                };
                let ts = read.data.ts.unwrap_or_else(|| self.0.cx.clock.now());
                receipts.extend(read.event_ids.into_iter().map(|event_id| RemoteReceipt {
                    user_id: user_id.clone(),
                    event_id,
                    lane: lane.clone(),
                    ts: ts.get().into(),
                }));
            }
            self.0.ephemeral.receipts.receive(room_nid, &receipts).await?;
        }
        Ok(())
    }

    async fn receive_presence(&self, origin: &ServerName, content: PresenceContent) -> Result<()> {
        if !self.0.ephemeral.presence.is_on() {
            return Ok(());
        }
        let now_ms = self.0.cx.clock.now_ms();
        for update in content.push.into_iter().take(PRESENCES_PER_EDU_MAX) {
            if update.user_id.server_name() != origin {
                continue;
            }
            let user_id: OwnedUserId = update.user_id;
            // Only users somebody here shares a room with have a number already.
            let Some(user_nid) = self.0.cx.numbers.user_if_known(&user_id).await? else { continue };
            self.0.ephemeral.presence.receive(
                user_nid,
                Seen {
                    presence: update.presence,
                    status_msg: update.status_msg,
                    last_active_ms: now_ms.saturating_sub(update.last_active_ago.into()),
                    currently_active: update.currently_active,
                },
            );
        }
        Ok(())
    }
}

/// A unit that was refused must not hold up the transaction it came in; our own failures must, so that it comes again.
fn harmless(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error @ (Error::Storage(_) | Error::Stopping)) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "an ephemeral unit is refused");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
