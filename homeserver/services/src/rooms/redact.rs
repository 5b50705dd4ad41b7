//! Taking back what was said.
//!
//! From room version 3 on a room's rules let every redaction in, and each server decides whether it takes effect; so that clients
//! learn at once that theirs will not, it is decided here before it is sent.
//! Source: Client-Server API, "Redactions".

use room::{auth::PowerField, build::Draft, event::kind};
use ruma::{EventId, OwnedEventId, RoomId};
use serde_json::{json, value::to_raw_value};

use super::{
    Rooms, may_speak, not_in_room,
    send::{Endpoint, txn_of},
};
use crate::{
    Error, Result,
    accounts::User,
    timeline::{Wish, now::RoomNow},
};

impl Rooms {
    /// Take the content out of an event. Returns the redaction's id.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for others' events without the power; [`Error::NotFound`] for an unknown event without the power;
    /// [`Error::Refused`].
    pub async fn redact(
        &self,
        user: &User,
        room_id: &RoomId,
        target: &EventId,
        txn_id: &str,
        reason: Option<&str>,
    ) -> Result<OwnedEventId> {
        let now = self.room(room_id).await?;
        let content = match reason {
            Some(reason) => json!({ "reason": reason }),
            None => json!({}),
        };
        let content = to_raw_value(&content).map_err(Error::internal)?;
        let mut draft = Draft::message(kind::REDACTION, user.user_id.clone(), content);
        draft.redacts = Some(target.to_owned());
        let wish = Wish { draft, txn: Some(txn_of(user, &now, Endpoint::Redact, txn_id)), ts: None };
        self.check_redaction(user, &now, target, &wish).await?;
        self.append_once(&now, wish).await
    }

    /// Refuse a redaction that would take no effect, or should not. `wish` was not sent before.
    pub(super) async fn check_redaction(
        &self,
        user: &User,
        now: &RoomNow,
        target: &EventId,
        wish: &Wish,
    ) -> Result<()> {
        let event = self.from.timeline.events.by_id(target).await?;
        let event = event.filter(|event| event.room_nid == now.nid);
        if event.as_ref().is_some_and(|event| event.pdu.sender == user.user_id && !event.pdu.is_create()) {
            return Ok(());
        }
        may_speak(user)?;
        if !now.has_local(user.nid) {
            return match self.from.timeline.sent_before(wish).await? {
                Some(_) => Ok(()),
                None => Err(not_in_room()),
            };
        }
        let powers = self.from.timeline.powers(now).await?;
        if powers.of(&user.user_id) < powers.needed(PowerField::Redact) {
            return Err(match event {
                Some(_) => Error::forbidden("you may not redact events of others here"),
                None => Error::NotFound("event"),
            });
        }
        if event.is_some_and(|event| event.pdu.is_create()) {
            return Err(Error::forbidden("a room's create event is not redacted"));
        }
        Ok(())
    }
}
