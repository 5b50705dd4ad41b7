//! Events as one reader sees them: age, own transaction ids, what a state event replaced, what was said about it since.
//!
//! A batch of events costs at most three statements whatever its size: relations to them in one, the events those name in one, their
//! threads in one; states and events in memory cost none. Several batches (the rooms of a sync) are looked up together
//! ([`View::around`]) and then written one by one ([`View::render_within`]).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use room::{
    auth::facts,
    event::{RoomIdShown, Unsigned, kind},
    relation,
    state::StateKeyNumber,
};
use ruma::{OwnedUserId, TransactionId, events::room::member::MembershipState};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use storage::{
    events::flags,
    relations::{self, REDACTION, Relation, Thread},
};

use crate::{
    Context, Result,
    timeline::{Timeline, events::Stored},
};

/// Relations looked at for one batch; beyond it bundles may be incomplete, and clients ask for more by themselves.
const RELATIONS_MAX: usize = 5_000;

/// Who reads.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Their id.
    pub user_id: OwnedUserId,
    /// Their number.
    pub nid: i64,
    /// What the transaction ids of this device begin with ([`txn_prefix`]).
    pub txn_prefix: Option<String>,
}

/// What a device's transaction ids begin with in the stream.
#[must_use]
pub fn txn_prefix(user_nid: i64, device_id: &str) -> String {
    format!("{user_nid}\u{1f}{device_id}\u{1f}")
}

/// What is remembered of a transaction id: `scope` keeps apart what may bear the same id, such as rooms.
#[must_use]
pub fn txn_key(user_nid: i64, device_id: &str, txn_id: &str, scope: &str) -> String {
    format!("{}{txn_id}\u{1f}{scope}", txn_prefix(user_nid, device_id))
}

/// An event to be shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The event.
    pub event: Arc<Stored>,
    /// Device and transaction id it was sent with, while they are remembered.
    pub txn: Option<Arc<str>>,
}

impl From<Arc<Stored>> for Shown {
    fn from(event: Arc<Stored>) -> Self {
        Self { event, txn: None }
    }
}

/// How much is shown beside the events.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether events name their room.
    pub room_id: RoomIdShown,
    /// Whether what was said about them since is bundled.
    pub bundles: bool,
    /// Whether they say what was before them: the state they replaced, the reader's membership.
    pub past: bool,
}

/// What was said about one event, as clients read it.
#[derive(Debug, Default, Serialize)]
struct Bundle {
    #[serde(rename = "m.replace", skip_serializing_if = "Option::is_none")]
    replace: Option<Box<RawValue>>,
    #[serde(rename = "m.thread", skip_serializing_if = "Option::is_none")]
    thread: Option<ThreadBundle>,
    #[serde(rename = "m.reference", skip_serializing_if = "Option::is_none")]
    reference: Option<Chunk>,
}

#[derive(Debug, Serialize)]
struct ThreadBundle {
    latest_event: Box<RawValue>,
    count: i64,
    current_user_participated: bool,
}

#[derive(Debug, Serialize)]
struct Chunk {
    chunk: Vec<ById>,
}

#[derive(Debug, Serialize)]
struct ById {
    event_id: String,
}

/// Shows events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    cx: Context,
    timeline: Timeline,
}

/// What is looked up once for several batches of events.
#[derive(Debug, Default)]
pub struct Surroundings {
    relations: HashMap<String, Vec<Relation>>,
    events: HashMap<i64, Arc<Stored>>,
    threads: HashMap<i64, Thread>,
    /// What a state event replaced, by the event's number.
    replaced: HashMap<i64, Arc<Stored>>,
    /// The reader's membership in a state, by the state's number.
    memberships: HashMap<i64, MembershipState>,
}

impl View {
    /// On `timeline`.
    #[must_use]
    pub fn new(cx: Context, timeline: Timeline) -> Self {
        Self { cx, timeline }
    }

    /// Events as `reader` sees them, in their order.
    ///
    /// # Errors
    /// The database's.
    pub async fn render(&self, reader: &Reader, shown: &[Shown], options: Options) -> Result<Vec<Box<RawValue>>> {
        let around = self.around(reader, &[(shown, options)]).await?;
        self.render_within(reader, shown, options, &around)
    }

    /// Events of a batch that `around` was looked up for.
    ///
    /// # Errors
    /// [`crate::Error::Internal`] when one cannot be written, which does not happen.
    pub fn render_within(
        &self,
        reader: &Reader,
        shown: &[Shown],
        options: Options,
        around: &Surroundings,
    ) -> Result<Vec<Box<RawValue>>> {
        shown.iter().map(|one| self.render_one(reader, one, options, around)).collect()
    }

    fn render_one(
        &self,
        reader: &Reader,
        one: &Shown,
        options: Options,
        around: &Surroundings,
    ) -> Result<Box<RawValue>> {
        let pdu = &one.event.pdu;
        let state_nid = one.event.state_nid.filter(|_| options.past);
        // Of the reader's own member event what it itself changes counts (MSC4115).
        let own = pdu.is_state(kind::MEMBER, reader.user_id.as_str()).then(|| facts::membership(pdu));
        let membership = state_nid.and_then(|nid| own.as_ref().or_else(|| around.memberships.get(&nid)));
        let prev = around.replaced.get(&one.event.nid).filter(|_| options.past);
        let said = match around.relations.is_empty() {
            true => &[][..],
            false => around.relations.get(pdu.event_id.as_str()).map_or(&[][..], Vec::as_slice),
        };
        let because = said
            .iter()
            .filter(|r| r.rel_type == REDACTION && one.event.has(flags::REDACTED))
            .find_map(|r| around.events.get(&r.child_nid))
            .map(|event| self.plain(event, options.room_id))
            .transpose()?;
        let bundle = if options.bundles && !one.event.has(flags::REDACTED) {
            self.bundle(reader, one, said, around, options.room_id)?
        } else {
            None
        };
        let txn = one.txn.as_deref().zip(reader.txn_prefix.as_deref());
        let txn = txn.and_then(|(txn, prefix)| txn.strip_prefix(prefix)?.rsplit_once('\u{1f}'));
        let unsigned = Unsigned {
            age_ms: Some(self.age_ms(&one.event)),
            transaction_id: txn.map(|(txn, _scope)| <&TransactionId>::from(txn)),
            prev_content: prev.map(|p| &*p.pdu.content),
            prev_sender: prev.map(|p| &*p.pdu.sender),
            replaces_state: prev.map(|p| &*p.pdu.event_id),
            redacted_because: because.as_deref(),
            membership,
            relations: bundle.as_deref(),
            ..Unsigned::default()
        };
        write(&one.event, &unsigned, options.room_id)
    }

    fn age_ms(&self, event: &Stored) -> i64 {
        let age = self.cx.clock.now_ms().saturating_sub(event.pdu.origin_server_ts_ms());
        i64::try_from(age).unwrap_or(i64::MAX)
    }

    /// An event with its age alone.
    ///
    /// # Errors
    /// [`crate::Error::Internal`] when it cannot be written, which does not happen.
    pub fn plain(&self, event: &Stored, room_id: RoomIdShown) -> Result<Box<RawValue>> {
        write(event, &Unsigned { age_ms: Some(self.age_ms(event)), ..Unsigned::default() }, room_id)
    }

    /// Look up what batches of events need to be shown.
    ///
    /// # Errors
    /// The database's.
    pub async fn around(&self, reader: &Reader, batches: &[(&[Shown], Options)]) -> Result<Surroundings> {
        let mut around = Surroundings::default();
        self.look_back(reader, batches, &mut around).await?;
        self.look_after(batches, &mut around).await?;
        Ok(around)
    }

    /// What was before the events: the states they stand on, and what those say of them and of the reader.
    async fn look_back(
        &self,
        reader: &Reader,
        batches: &[(&[Shown], Options)],
        around: &mut Surroundings,
    ) -> Result<()> {
        let with_past = batches.iter().filter(|(_, options)| options.past).flat_map(|(shown, _)| *shown);
        let with_past: Vec<(&Shown, i64)> = with_past.filter_map(|one| Some((one, one.event.state_nid?))).collect();
        if with_past.is_empty() {
            return Ok(());
        }
        let nids: HashSet<i64> = with_past.iter().map(|(_, state_nid)| *state_nid).collect();
        let snapshots = self.timeline.snapshots.by_nids(&nids.into_iter().collect::<Vec<_>>()).await?;
        let own = reader.user_id.as_str();
        let state_events = with_past.iter().filter_map(|(one, _)| {
            let pdu = &one.event.pdu;
            Some((pdu.kind.as_str(), pdu.state_key.as_deref()?))
        });
        let names: Vec<(&str, &str)> = state_events.chain([(kind::MEMBER, own)]).collect();
        let keys = self.cx.numbers.state_keys_if_known(&names).await?;
        let look = |state_nid: i64, event_kind: &str, state_key: &str| {
            let key = StateKeyNumber(u64::try_from(*keys.get(&(event_kind, state_key))?).ok()?);
            let event = snapshots.get(&state_nid)?.state.get(key)?;
            i64::try_from(event.0).ok()
        };
        // The member event of the reader in each state, and what each state event replaced.
        let members: HashMap<i64, Option<i64>> =
            snapshots.keys().map(|nid| (*nid, look(*nid, kind::MEMBER, own))).collect();
        let mut replaced: Vec<(i64, i64)> = Vec::new();
        for (one, state_nid) in &with_past {
            let pdu = &one.event.pdu;
            let Some(state_key) = &pdu.state_key else { continue };
            replaced.extend(look(*state_nid, &pdu.kind, state_key).map(|before| (one.event.nid, before)));
        }
        let wanted: HashSet<i64> =
            members.values().flatten().copied().chain(replaced.iter().map(|(_, before)| *before)).collect();
        let events = self.timeline.events.by_nids(&wanted.into_iter().collect::<Vec<_>>()).await?;
        for (state_nid, member) in members {
            let member = member.and_then(|nid| events.get(&nid));
            let membership = member.map_or(MembershipState::Leave, |event| facts::membership(&event.pdu));
            around.memberships.insert(state_nid, membership);
        }
        for (nid, before) in replaced {
            around.replaced.extend(events.get(&before).map(|event| (nid, Arc::clone(event))));
        }
        Ok(())
    }

    /// What was said about the events since.
    async fn look_after(&self, batches: &[(&[Shown], Options)], around: &mut Surroundings) -> Result<()> {
        let asked: Vec<&Shown> = batches
            .iter()
            .flat_map(|(shown, options)| shown.iter().map(|one| (one, options.bundles)))
            .filter(|(one, bundles)| *bundles || one.event.has(flags::REDACTED))
            .map(|(one, _)| one)
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = asked.iter().map(|one| one.event.pdu.event_id.as_str()).collect();
        let mut said = relations::of(&mut self.cx.store.read().await?, &ids).await?;
        said.truncate(RELATIONS_MAX);
        if said.is_empty() {
            return Ok(());
        }
        if said.iter().any(|r| r.rel_type == relation::THREAD) {
            let roots: Vec<i64> = asked.iter().map(|one| one.event.nid).collect();
            let threads = relations::threads(&mut self.cx.store.read().await?, &roots).await?;
            around.threads = threads.into_iter().map(|t| (t.root_nid, t)).collect();
        }
        let wanted = said
            .iter()
            .filter(|r| matches!(r.rel_type.as_str(), REDACTION | relation::REPLACE | relation::REFERENCE))
            .map(|r| r.child_nid)
            .chain(around.threads.values().map(|t| t.last_nid));
        let wanted: Vec<i64> = wanted.collect();
        around.events = self.timeline.events.by_nids(&wanted).await?;
        for relation in said {
            around.relations.entry(relation.parent_id.clone()).or_default().push(relation);
        }
        Ok(())
    }

    fn bundle(
        &self,
        reader: &Reader,
        one: &Shown,
        said: &[Relation],
        around: &Surroundings,
        room_id: RoomIdShown,
    ) -> Result<Option<Box<RawValue>>> {
        let mut bundle = Bundle::default();
        let mut edit: Option<Arc<Stored>> = None;
        for relation in said {
            let child = around.events.get(&relation.child_nid).filter(|c| c.is_visible() && !c.has(flags::REDACTED));
            match (relation.rel_type.as_str(), child) {
                (relation::REPLACE, Some(child)) if relation::is_valid_replacement(&child.pdu, &one.event.pdu) => {
                    let age = |event: &Stored| (event.pdu.origin_server_ts, event.pdu.event_id.clone());
                    if edit.as_deref().is_none_or(|newest| age(child) > age(newest)) {
                        edit = Some(Arc::clone(child));
                    }
                }
                (relation::REFERENCE, Some(child)) => {
                    let chunk = bundle.reference.get_or_insert_with(|| Chunk { chunk: Vec::new() });
                    chunk.chunk.push(ById { event_id: child.pdu.event_id.to_string() });
                }
                _ => {}
            }
        }
        if let Some(edit) = edit {
            bundle.replace = Some(self.plain(&edit, room_id)?);
        }
        if let Some(thread) = around.threads.get(&one.event.nid)
            && let Some(latest) = around.events.get(&thread.last_nid)
        {
            let took_part = one.event.pdu.sender == reader.user_id
                || said.iter().any(|r| r.rel_type == relation::THREAD && r.sender_nid == reader.nid);
            bundle.thread = Some(ThreadBundle {
                latest_event: self.plain(latest, room_id)?,
                count: thread.count,
                current_user_participated: took_part,
            });
        }
        if bundle.replace.is_none() && bundle.thread.is_none() && bundle.reference.is_none() {
            return Ok(None);
        }
        to_raw_value(&bundle).map(Some).map_err(crate::Error::internal)
    }
}

fn write(event: &Stored, unsigned: &Unsigned<'_>, room_id: RoomIdShown) -> Result<Box<RawValue>> {
    let mut bytes = Vec::with_capacity(event.pdu.json.len() + 256);
    event.pdu.write_client(unsigned, room_id, &mut bytes);
    let text = String::from_utf8(bytes).map_err(crate::Error::internal)?;
    RawValue::from_string(text).map_err(crate::Error::internal)
}
