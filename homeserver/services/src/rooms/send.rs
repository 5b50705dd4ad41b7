//! Saying something in a room that is not state.
//!
//! A repetition with the same transaction id, by the same device in the same room, is answered with the event of the first time.
//! Source: Client-Server API, "Sending events to a room", "Transaction identifiers".

use room::{
    auth::facts,
    build::Draft,
    event::kind,
    relation::{self, Relation},
};
use ruma::{OwnedEventId, RoomId};
use serde_json::value::RawValue;
use storage::relations;

use super::{Rooms, may_speak};
use crate::{
    Error, Result,
    accounts::User,
    error::Code,
    timeline::{Wish, now::RoomNow},
    view::txn_key,
};

/// Something to say.
#[derive(Debug, Clone)]
pub struct Message {
    /// The type, exactly as asked for.
    pub kind: String,
    /// The client's transaction id.
    pub txn_id: String,
    /// A JSON object.
    pub content: Box<RawValue>,
    /// `origin_server_ts` an application service asks for, milliseconds since 1970.
    pub ts_ms: Option<u64>,
}

/// Endpoints whose transaction ids are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Send,
    Redact,
}

impl Rooms {
    /// Send an event that is not state. Returns its id.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::TooLarge`]; [`Error::Invalid`]; `M_DUPLICATE_ANNOTATION`.
    pub async fn send(&self, user: &User, room_id: &RoomId, message: Message) -> Result<OwnedEventId> {
        may_speak(user)?;
        let Message { kind, txn_id, content, ts_ms } = message;
        let now = self.room(room_id).await?;
        let mut draft = Draft::message(kind, user.user_id.clone(), content);
        let mut wish = Wish { txn: None, ts: ts_ms.filter(|_| user.appservice.is_some()), draft: draft.clone() };
        wish.txn = Some(txn_of(user, &now, Endpoint::Send, &txn_id));
        if draft.kind == kind::REDACTION {
            let target: OwnedEventId = facts::field(&draft.content, "redacts").ok_or(Error::MissingParam("redacts"))?;
            self.check_redaction(user, &now, &target, &wish).await?;
            draft.redacts = Some(target);
            wish.draft = draft;
        } else if let Some(said) = relation::relates_to(&wish.draft.content).and_then(|said| said.relation) {
            self.check_relation(user, &now, &said, &wish).await?;
        }
        self.append_once(&now, wish).await
    }

    /// Append, or find what was appended with the same transaction id before: also when the sender could not send it again.
    pub(super) async fn append_once(&self, now: &RoomNow, wish: Wish) -> Result<OwnedEventId> {
        match self.from.timeline.append(now.nid, wish.clone()).await {
            Ok(sent) => Ok(sent.event_id),
            Err(refused @ Error::Refused(_)) => match self.from.timeline.sent_before(&wish).await? {
                Some(sent) => Ok(sent.event_id),
                None => Err(refused),
            },
            Err(error) => Err(error),
        }
    }

    /// Refuse a reaction said before and a thread on an event that is in a relation itself.
    async fn check_relation(&self, user: &User, now: &RoomNow, said: &Relation, wish: &Wish) -> Result<()> {
        let is_odd = match said.rel_type.as_str() {
            relation::ANNOTATION => {
                let key = said.key.as_deref().unwrap_or_default();
                let (parent, kind) = (said.parent.as_str(), wish.draft.kind.as_str());
                let mut tx = self.cx.store.read().await?;
                relations::says(&mut tx, parent, user.nid, relation::ANNOTATION, kind, key).await?
            }
            relation::THREAD => {
                let root = self.from.timeline.events.by_id(&said.parent).await?;
                root.is_some_and(|root| {
                    root.room_nid == now.nid
                        && relation::relates_to(&root.pdu.content).is_some_and(|r| r.relation.is_some())
                })
            }
            _ => false,
        };
        if !is_odd || self.from.timeline.sent_before(wish).await?.is_some() {
            return Ok(());
        }
        Err(if said.rel_type == relation::ANNOTATION {
            Error::Specific(Code::DuplicateAnnotation, "you have said this about the event already".to_owned())
        } else {
            Error::Specific(Code::Unknown, "a thread cannot begin at an event that is in a relation itself".to_owned())
        })
    }
}

/// What makes a repetition recognisable.
pub(super) fn txn_of(user: &User, now: &RoomNow, endpoint: Endpoint, txn_id: &str) -> String {
    let device = user.device_id.as_ref().map_or("", |device| device.as_str());
    let mark = if endpoint == Endpoint::Redact { "r" } else { "" };
    txn_key(user.nid, device, txn_id, &format!("{}{mark}", now.nid))
}
