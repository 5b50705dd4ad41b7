//! Delivers notifications to push gateways.
//!
//! One worker follows the stream. Each pusher has a cursor (`pushers.done_pos`): what stands before it was sent or needs no
//! sending. An event is judged by the rules of each user with a pusher who is in its room; a pusher that has something to send is
//! claimed first, so that of several instances one sends. A gateway that fails is asked again after a growing pause; it
//! never holds up the others. Delivery is at least once: an instance that dies between sending and noting sends again.
//!
//! Nothing is asked of the database while nobody has a pusher.
//!
//! Source: <https://spec.matrix.org/v1.19/push-gateway-api/>.

pub mod outlet;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream};
use room::{auth::facts::field, event::kind};
use ruma::UserId;
use serde_json::{Value, json};
use storage::{pushers as table, pushers::Pusher, timeline as stream_table};
use tokio::sync::Notify as Bell;

use self::outlet::Outlet;
use super::FORGET_PUSHERS;
use crate::{
    Context, Result,
    notify::Whisper,
    push_rules::Outcome,
    timeline::{Timeline, events::Stored, now::RoomNow},
};

/// Events looked at in one round.
const EVENTS_PER_ROUND_MAX: i64 = 100;
/// A pusher further behind than this many positions skips what is older.
const BACKLOG_MAX: i64 = 2000;
/// Pushers served at the same time.
const DELIVERIES_AT_ONCE_MAX: usize = 32;
/// Notifications sent to one pusher in one round.
const PER_PUSHER_MAX: usize = 50;
/// How long a claim of a pusher holds.
const CLAIM: Duration = Duration::from_secs(60);
/// Pause after the first failure; it doubles with each.
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// A round comes at least so often, for pushers whose pause is over.
const ROUND_EVERY: Duration = Duration::from_secs(10);
/// Users whose badge waits for being sent anew.
const BADGES_MAX: usize = 10_000;

/// Knows how much a user has not read.
pub trait Unread: std::fmt::Debug + Send + Sync {
    /// Unread notifications of a user in all their rooms.
    fn notifications(&self, user_nid: i64) -> BoxFuture<'_, Result<u64>>;
}

#[derive(Debug, Default)]
struct State {
    /// `None`: to be read again.
    pushers: Option<Arc<[Pusher]>>,
    /// Where pushers are, when further than the database knows.
    cursors: HashMap<(i64, String, String), i64>,
    badges: BTreeSet<i64>,
}

#[derive(Debug)]
struct Inner {
    cx: Context,
    timeline: Timeline,
    unread: Arc<dyn Unread>,
    outlet: Arc<dyn Outlet>,
    state: Mutex<State>,
    bell: Bell,
}

/// The worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Inner>);

/// A notification for one pusher.
#[derive(Debug)]
struct Delivery {
    pos: i64,
    event: Arc<Stored>,
    now: Arc<RoomNow>,
    sender_name: Option<String>,
    /// Whether it is the user's own membership that changes.
    is_target: bool,
    outcome: Outcome,
}

impl Gateway {
    /// Make the worker; [`Gateway::run`] works until the last clone is gone.
    #[must_use]
    pub fn new(cx: Context, timeline: Timeline, unread: Arc<dyn Unread>, outlet: Arc<dyn Outlet>) -> Self {
        let inner = Inner { cx, timeline, unread, outlet, state: Mutex::default(), bell: Bell::new() };
        let gateway = Self(Arc::new(inner));
        let weak = Arc::downgrade(&gateway.0);
        gateway.0.cx.notify.on_change(move |change| {
            let Some(inner) = weak.upgrade() else { return };
            if !change.receipt_rooms.is_empty() {
                let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
                let room = BADGES_MAX.saturating_sub(state.badges.len());
                state.badges.extend(change.users.iter().chain(&change.members).take(room));
            }
            if !change.rooms.is_empty() || !change.receipt_rooms.is_empty() {
                inner.bell.notify_one();
            }
        });
        let weak = Arc::downgrade(&gateway.0);
        gateway.0.cx.notify.on_whisper(move |whisper| {
            let is_old = match whisper {
                Whisper::Forget(family, _) => family == FORGET_PUSHERS,
                whisper => *whisper == Whisper::Missed,
            };
            if let Some(inner) = weak.upgrade().filter(|_| is_old) {
                inner.state.lock().unwrap_or_else(PoisonError::into_inner).pushers = None;
            }
        });
        gateway
    }

    /// Work, as long as another clone is held.
    pub fn run(&self) -> tokio::task::JoinHandle<()> {
        let weak = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                let Some(inner) = weak.upgrade() else { return };
                let gateway = Self(inner);
                match gateway.round().await {
                    Ok(true) => {}
                    Ok(false) => gateway.rest().await,
                    Err(error) => {
                        tracing::warn!(%error, "notifications cannot be delivered; trying again");
                        gateway.rest().await;
                    }
                }
            }
        })
    }

    async fn rest(&self) {
        let _ = tokio::time::timeout(ROUND_EVERY, self.0.bell.notified()).await;
    }

    /// Serve every pusher that is due. True when there is more to do at once.
    ///
    /// # Errors
    /// The database's.
    pub async fn round(&self) -> Result<bool> {
        let pushers = self.pushers().await?;
        let until = self.0.cx.notify.stable();
        let now_ms = self.now_ms();
        let due: Vec<(&Pusher, i64)> = pushers
            .iter()
            .filter(|pusher| pusher.retry_ts <= now_ms)
            .map(|pusher| (pusher, self.cursor(pusher).max(until - BACKLOG_MAX)))
            .collect();
        self.send_badges(&due).await?;
        let Some(from) = due.iter().map(|(_, cursor)| *cursor).filter(|cursor| *cursor < until).min() else {
            return Ok(false);
        };
        let rows = {
            let mut tx = self.0.cx.store.read().await?;
            stream_table::between(&mut tx, from, until, EVENTS_PER_ROUND_MAX).await?
        };
        let is_all = i64::try_from(rows.len()).unwrap_or(i64::MAX) < EVENTS_PER_ROUND_MAX;
        let reached = if is_all { until } else { rows.last().map_or(until, |row| row.pos) };
        let positions: Vec<i64> = rows.iter().map(|row| row.pos).collect();
        let events = self.0.timeline.events.read(rows.into_iter().map(|row| row.event).collect()).await?;
        let mut deliveries: HashMap<usize, Vec<Delivery>> = HashMap::new();
        for (pos, event) in positions.into_iter().zip(events) {
            self.judge(pos, &event, &due, &mut deliveries).await?;
        }
        for (at, (pusher, cursor)) in due.iter().enumerate() {
            if !deliveries.contains_key(&at) && *cursor < reached {
                self.move_cursor(pusher, reached);
            }
        }
        stream::iter(deliveries)
            .for_each_concurrent(DELIVERIES_AT_ONCE_MAX, |(at, deliveries)| {
                let pusher = due[at].0;
                async move {
                    if let Err(error) = self.deliver(pusher, deliveries, reached).await {
                        tracing::warn!(%error, app_id = %pusher.app_id, "a pusher could not be served");
                    }
                }
            })
            .await;
        Ok(!is_all)
    }

    /// The pushers, read again when one changed.
    async fn pushers(&self) -> Result<Arc<[Pusher]>> {
        if let Some(pushers) = &self.state().pushers {
            return Ok(Arc::clone(pushers));
        }
        let pushers: Arc<[Pusher]> = table::http(&mut self.0.cx.store.read().await?).await?.into();
        self.state().pushers = Some(Arc::clone(&pushers));
        Ok(pushers)
    }

    /// Find for whom of the due pushers an event is a notification.
    async fn judge(
        &self,
        pos: i64,
        event: &Arc<Stored>,
        due: &[(&Pusher, i64)],
        deliveries: &mut HashMap<usize, Vec<Delivery>>,
    ) -> Result<()> {
        let now = self.0.timeline.now(event.room_nid).await?;
        let (target, is_invite) = target(&self.0.cx, event).await?;
        let mut outcomes: HashMap<i64, Option<Outcome>> = HashMap::new();
        for (at, (pusher, cursor)) in due.iter().enumerate() {
            let nid = pusher.user_nid;
            if pos <= *cursor || !(now.has_local(nid) || (is_invite && target == Some(nid))) {
                continue;
            }
            if let std::collections::hash_map::Entry::Vacant(vacant) = outcomes.entry(nid) {
                vacant.insert(self.outcome(event, &now, nid).await?);
            }
            let Some(Some(outcome)) = outcomes.get(&nid) else { continue };
            let list = deliveries.entry(at).or_default();
            if list.len() < PER_PUSHER_MAX {
                let sender_name = self.0.timeline.display_name(&now, &event.pdu.sender).await?;
                let (event, now) = (Arc::clone(event), Arc::clone(&now));
                let is_target = target == Some(nid);
                list.push(Delivery { pos, event, now, sender_name, is_target, outcome: outcome.clone() });
            }
        }
        Ok(())
    }

    async fn outcome(&self, event: &Stored, now: &RoomNow, user_nid: i64) -> Result<Option<Outcome>> {
        let ids = self.0.cx.numbers.user_names(&[user_nid]).await?;
        let Some(user_id) = ids.get(&user_nid).and_then(|id| UserId::parse(&**id).ok()) else { return Ok(None) };
        self.0.timeline.outcome(now, event, user_nid, &user_id).await
    }

    /// Send a pusher its notifications, in order; the first failure ends it.
    async fn deliver(&self, pusher: &Pusher, deliveries: Vec<Delivery>, reached: i64) -> Result<()> {
        let Some(first) = deliveries.first().map(|delivery| delivery.pos) else { return Ok(()) };
        let until_ms = self.now_ms() + i64::try_from(CLAIM.as_millis()).unwrap_or(i64::MAX);
        let mut tx = self.0.cx.store.begin().await?;
        let is_ours = table::claim(&mut tx, pusher, first, self.now_ms(), until_ms).await?;
        tx.commit().await?;
        if !is_ours {
            self.state().pushers = None;
            return Ok(());
        }
        let unread = self.0.unread.notifications(pusher.user_nid).await?;
        let mut done = None;
        for delivery in &deliveries {
            match self.send(pusher, notification(pusher, Some(delivery), unread)).await {
                Sent::Taken => done = Some(delivery.pos),
                Sent::Rejected => return self.remove(pusher).await,
                Sent::Failed => return self.failed(pusher, done).await,
            }
        }
        let mut tx = self.0.cx.store.begin().await?;
        table::done(&mut tx, pusher, reached).await?;
        tx.commit().await?;
        self.move_cursor(pusher, reached);
        self.state().pushers = None;
        Ok(())
    }

    /// Tell devices whose user has read something how much is left.
    async fn send_badges(&self, due: &[(&Pusher, i64)]) -> Result<()> {
        let badges = std::mem::take(&mut self.state().badges);
        for (pusher, _) in due.iter().filter(|(pusher, _)| badges.contains(&pusher.user_nid)) {
            let unread = self.0.unread.notifications(pusher.user_nid).await?;
            // A badge that does not arrive is mended by the next one.
            if let Sent::Rejected = self.send(pusher, notification(pusher, None, unread)).await {
                self.remove(pusher).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, pusher: &Pusher, body: Value) -> Sent {
        match self.0.outlet.post(&pusher.url, &body).await {
            Ok((200..=299, reply)) => {
                let reply: Value = serde_json::from_slice(&reply).unwrap_or_default();
                let rejected = reply.get("rejected").and_then(Value::as_array);
                if rejected.is_some_and(|keys| keys.iter().any(|key| key.as_str() == Some(&pusher.pushkey))) {
                    Sent::Rejected
                } else {
                    Sent::Taken
                }
            }
            Ok((status, _)) => {
                tracing::debug!(status, app_id = %pusher.app_id, "a push gateway refused");
                Sent::Failed
            }
            Err(error) => {
                tracing::debug!(%error, app_id = %pusher.app_id, "a push gateway did not answer");
                Sent::Failed
            }
        }
    }

    async fn remove(&self, pusher: &Pusher) -> Result<()> {
        let mut tx = self.0.cx.store.begin().await?;
        table::remove(&mut tx, pusher.user_nid, &pusher.app_id, &pusher.pushkey).await?;
        tx.commit().await?;
        self.0.cx.notify.whisper(&Whisper::Forget(FORGET_PUSHERS.to_owned(), String::new()));
        Ok(())
    }

    /// What was sent before the failure is done; the rest waits.
    async fn failed(&self, pusher: &Pusher, done: Option<i64>) -> Result<()> {
        let failures = if done.is_some() { 0 } else { u32::try_from(pusher.failures).unwrap_or(u32::MAX) };
        let pause = RETRY_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(RETRY_MAX);
        let now_ms = self.now_ms();
        let retry_ts = now_ms + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        let mut tx = self.0.cx.store.begin().await?;
        if let Some(pos) = done {
            table::done(&mut tx, pusher, pos).await?;
        }
        table::failed(&mut tx, pusher, now_ms, retry_ts).await?;
        tx.commit().await?;
        if let Some(pos) = done {
            self.move_cursor(pusher, pos);
        }
        self.state().pushers = None;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cursor(&self, pusher: &Pusher) -> i64 {
        self.state().cursors.get(&key(pusher)).copied().unwrap_or(0).max(pusher.done_pos)
    }

    fn move_cursor(&self, pusher: &Pusher, pos: i64) {
        self.state().cursors.insert(key(pusher), pos);
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.0.cx.clock.now_ms()).unwrap_or(i64::MAX)
    }
}

/// What became of a sending.
enum Sent {
    Taken,
    /// The gateway says that the push key is no more.
    Rejected,
    Failed,
}

fn key(pusher: &Pusher) -> (i64, String, String) {
    (pusher.user_nid, pusher.app_id.clone(), pusher.pushkey.clone())
}

/// The local user whose membership an event changes, and whether it invites them.
async fn target(cx: &Context, event: &Stored) -> Result<(Option<i64>, bool)> {
    let pdu = &event.pdu;
    let user_id = pdu.state_key.as_deref().and_then(|id| <&UserId>::try_from(id).ok());
    let Some(user_id) = user_id.filter(|user_id| pdu.kind == kind::MEMBER && cx.is_local(user_id)) else {
        return Ok((None, false));
    };
    let is_invite = field::<String>(&pdu.content, "membership").is_some_and(|word| word == "invite");
    Ok((cx.numbers.user_if_known(user_id).await?, is_invite))
}

/// The body of a request to a push gateway. Without a delivery: the badge alone.
fn notification(pusher: &Pusher, delivery: Option<&Delivery>, unread: u64) -> Value {
    let set: Value = serde_json::from_str(&pusher.body).unwrap_or_default();
    let mut data = set.get("data").cloned().unwrap_or_else(|| json!({}));
    if let Some(data) = data.as_object_mut() {
        data.remove("url");
    }
    let is_id_only = data.get("format").and_then(Value::as_str) == Some("event_id_only");
    let mut device = json!({
        "app_id": pusher.app_id,
        "pushkey": pusher.pushkey,
        "pushkey_ts": pusher.created_ts / 1000,
        "data": data,
    });
    let mut body = json!({ "counts": { "unread": unread } });
    if let Some(delivery) = delivery {
        let pdu = &delivery.event.pdu;
        let tweaks = tweaks(&delivery.outcome.actions);
        let is_loud = tweaks.get("sound").is_some() || delivery.outcome.highlight || pdu.kind == "m.room.encrypted";
        body["event_id"] = json!(pdu.event_id);
        body["room_id"] = json!(pdu.room_id);
        body["prio"] = json!(if is_loud { "high" } else { "low" });
        if !is_id_only {
            device["tweaks"] = tweaks;
            body["type"] = json!(pdu.kind);
            body["sender"] = json!(pdu.sender);
            body["content"] = serde_json::from_str(pdu.content.get()).unwrap_or_default();
            let facts = &delivery.now.facts;
            let names = [
                ("sender_display_name", &delivery.sender_name),
                ("room_name", &facts.name),
                ("room_alias", &facts.canonical_alias),
            ];
            for (field, name) in names {
                if let Some(name) = name {
                    body[field] = json!(name);
                }
            }
            if pdu.kind == kind::MEMBER {
                body["user_is_target"] = json!(delivery.is_target);
            }
        }
    }
    body["devices"] = json!([device]);
    json!({ "notification": body })
}

/// The tweaks of actions, as the gateway wants them.
fn tweaks(actions: &str) -> Value {
    let actions: Vec<Value> = serde_json::from_str(actions).unwrap_or_default();
    let mut tweaks = json!({});
    for action in &actions {
        if let Some(name) = action.get("set_tweak").and_then(Value::as_str) {
            tweaks[name] = action.get("value").cloned().unwrap_or(Value::Bool(true));
        }
    }
    tweaks
}
