//! Which event notifies whom: rulesets kept ready, and one judgement for thousands of readers.
//!
//! A room counts its events that notify *by default* (`timeline.seq`), so that no row is written for the users the default is
//! right for. [`Rules::evaluate`] therefore answers what the default rules say of an event, and the exceptions:
//!
//! * users on default rules are judged together; only those an event names (mentions, an invitation, their name in the text)
//!   are looked at alone;
//! * users with rules of their own are judged one by one, unless the room is muted for them;
//! * what notifies at all but not through the count (highlights, differing rules) is an [`Exception`], a row of `push_items`.
//!
//! A reader's [`Mode`] in a room says how to count: [`Mode::counts_default`] true means the room's count since the read mark plus the sum of
//! the rows' `notify`; false means the number of rows whose `notify` is not negative. It is a function of the ruleset alone.
//!
//! The sender is never judged: whoever sends has read the room (their mark moves with the event).

mod defaults;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use room::event::Pdu;
use ruma::{
    Int, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    power_levels::NotificationPowerLevels,
    push::{Action, AnyPushRuleRef, FlattenedJson, PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset},
    room_version_rules::{AuthorizationRules, RoomPowerLevelsRules},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::json;
use storage::push_rules as table;

pub use self::defaults::defaults;
use self::defaults::{CONTAINS_DISPLAY_NAME, PERSONAL_RULES};
use crate::{Context, Result, memory::Memory, notify::Whisper};

/// Users a single event may mention by id; more are not highlighted.
const MENTIONS_MAX: usize = 100;
/// Rulesets kept in memory.
const USERS_MAX: usize = 100_000;
/// Rooms whose mode is remembered for one ruleset.
const MODES_MAX: usize = 10_000;
/// After so long a ruleset is read again: a whisper of another instance may have been lost.
const AGE_MAX_MS: u64 = 5 * 60 * 1000;
/// The account data in which users' clients see their rules.
pub(crate) const RULES: &str = "m.push_rules";
/// Family of [`Whisper::Forget`] for rulesets; its key is the user's number.
pub(crate) const FORGET_RULES: &str = "push_rules";

/// What of a room the rules look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomFacts {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Joined members.
    pub member_count: u64,
    /// Whether the event's sender has the power to notify the whole room.
    pub sender_may_notify_room: bool,
}

/// A local user who may read an event.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// Their number.
    pub user_nid: i64,
    /// Their id.
    pub user_id: &'a UserId,
    /// Their name in the room.
    pub display_name: Option<&'a str>,
}

/// What a local member is called in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    user_nid: i64,
    display_name: Option<String>,
    /// Localpart and name, in lower case.
    words: Vec<String>,
}

impl Called {
    /// From the member's id and the name in their member event.
    #[must_use]
    pub fn new(user_nid: i64, user_id: &str, display_name: Option<String>) -> Self {
        let localpart = user_id.strip_prefix('@').and_then(|id| id.split_once(':')).map(|(localpart, _)| localpart);
        let words = [localpart, display_name.as_deref()].into_iter().flatten();
        let words = words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
        Self { user_nid, display_name, words }
    }
}

/// Knows what the readers are called in the room of the event that is judged.
pub trait Names: Send + Sync {
    /// Local members with their names; may be none in rooms too large to look.
    fn called(&self) -> BoxFuture<'_, Result<Arc<[Called]>>>;
}

/// How a reader counts what is unread in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By the default rules.
    Default,
    /// Nothing notifies.
    Muted,
    /// Only what rows say: plain messages do not notify.
    MentionsOnly,
    /// A rule for this room makes everything notify; where that differs from the default there are rows.
    All,
    /// The user's own rules, through which plain messages still notify.
    Custom,
}

impl Mode {
    /// True when the room's count of default notifications is this reader's too (but for the rows).
    #[must_use]
    pub fn counts_default(self) -> bool {
        matches!(self, Self::Default | Self::All | Self::Custom)
    }
}

/// What the rules say of an event for one reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// It notifies.
    pub notify: bool,
    /// It is to stand out.
    pub highlight: bool,
    /// The matching rule's actions, JSON.
    pub actions: Arc<str>,
}

/// A reader for whom a row of `push_items` is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The reader.
    pub user_nid: i64,
    /// Against the default: one notification less (-1), the same (0), one more (1).
    pub notify: i64,
    /// It is to stand out.
    pub highlight: bool,
    /// The matching rule's actions, JSON.
    pub actions: Arc<str>,
}

/// What the rules say of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// It counts in the room's sequence.
    pub default_notifies: bool,
    /// Readers for whom that is not all.
    pub exceptions: Vec<Exception>,
}

/// A user's rules, ready for use.
#[derive(Debug)]
struct Ready {
    /// `None`: the defaults.
    own: Option<Ruleset>,
    modes: Mutex<HashMap<OwnedRoomId, Mode>>,
    read_ms: u64,
}

/// Rulesets of our users. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rules {
    cx: Context,
    ready: Arc<Memory<i64, Arc<Ready>>>,
    shared: Arc<Shared>,
}

/// The default rules without the personal ones, and the reader nobody is.
#[derive(Debug)]
struct Shared {
    rules: Ruleset,
    nobody: OwnedUserId,
}

/// The content of `m.push_rules`.
#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    global: Ruleset,
}

impl Rules {
    /// On `cx`; forgets a user's rules when any instance says they changed.
    #[must_use]
    pub fn new(cx: Context) -> Self {
        let ready: Arc<Memory<i64, Arc<Ready>>> = Arc::new(Memory::new(USERS_MAX));
        let weak = Arc::downgrade(&ready);
        cx.notify.on_whisper(move |whisper| {
            let Some(ready) = weak.upgrade() else { return };
            match whisper {
                Whisper::Forget(family, key) if family == FORGET_RULES => {
                    if let Ok(user_nid) = key.parse::<i64>() {
                        ready.forget(&user_nid);
                    }
                }
                Whisper::Missed => ready.forget_all(),
                _ => {}
            }
        });
        let nobody = UserId::parse(format!("@:{}", cx.server_name)).expect("an empty localpart is allowed");
        let mut rules = defaults(&nobody);
        rules.override_.retain(|rule| !PERSONAL_RULES.contains(&rule.rule_id.as_str()));
        rules.content.retain(|rule| !PERSONAL_RULES.contains(&rule.rule_id.as_str()));
        Self { cx, ready, shared: Arc::new(Shared { rules, nobody }) }
    }

    /// The rules of a user, defaults included, as clients see them.
    ///
    /// # Errors
    /// The database's.
    pub async fn of(&self, user_nid: i64, user_id: &UserId) -> Result<Ruleset> {
        let stored = table::of_users(&mut self.cx.store.read().await?, &[user_nid]).await?.pop();
        Ok(stored.and_then(|(_, body)| parse(&body, user_id)).unwrap_or_else(|| defaults(user_id)))
    }

    /// What the default rules say of an event, and for which of `readers` (numbers of local users, the sender among them or
    /// not) that is not all. `names` is asked only when a plain text might hold somebody's name. At most one statement of
    /// its own, and none when the readers' rules are in memory. Never called while holding a [`storage::Tx`].
    ///
    /// # Errors
    /// The database's, and those of `names`.
    pub async fn evaluate(
        &self,
        event: &Pdu,
        facts: &RoomFacts,
        readers: &[i64],
        names: &dyn Names,
    ) -> Result<Judgement> {
        let ready = self.ready(readers).await?;
        let flat = flatten(event);
        let mut context = context(facts, &self.shared.nobody);
        let default = judge(&self.shared.rules, &flat, &context);
        let sender_nid = self.cx.numbers.user_if_known(&event.sender).await?;
        let named = self.named(event, names).await?;
        // Who is judged alone: readers with rules of their own, and those the event may name.
        let mode_of = |ready: &Ready| ready.mode(&facts.room_id);
        let alone: Vec<(i64, &Arc<Ready>, Mode)> = readers
            .iter()
            .zip(&ready)
            .filter(|(nid, ready)| Some(**nid) != sender_nid && (ready.own.is_some() || named.users.contains(*nid)))
            .map(|(nid, ready)| (*nid, ready, mode_of(ready)))
            .filter(|(_, _, mode)| *mode != Mode::Muted)
            .collect();
        let alone_nids: Vec<i64> = alone.iter().map(|(nid, _, _)| *nid).collect();
        let user_ids = self.cx.numbers.user_names(&alone_nids).await?;
        let mut exceptions = Vec::new();
        for (nid, ready, mode) in alone {
            let Some(user_id) = user_ids.get(&nid).and_then(|id| UserId::parse(&**id).ok()) else { continue };
            let name = named.names.get(&nid).map(String::as_str);
            read_as(&mut context, &Reader { user_nid: nid, user_id: &user_id, display_name: name });
            let outcome = match &ready.own {
                Some(own) => judge(own, &flat, &context),
                None => judge(&defaults(&user_id), &flat, &context),
            };
            exceptions.extend(exception(nid, mode, default.notify, &outcome));
        }
        if default.notify && default.highlight {
            let done: HashSet<i64> = alone_nids.into_iter().collect();
            let others = readers
                .iter()
                .zip(&ready)
                .filter(|(nid, ready)| Some(**nid) != sender_nid && !done.contains(*nid) && ready.own.is_none());
            exceptions.extend(others.filter_map(|(nid, _)| exception(*nid, Mode::Default, true, &default)));
        }
        Ok(Judgement { default_notifies: default.notify, exceptions })
    }

    /// What the rules of one reader say of an event; `None` when it does not notify.
    ///
    /// # Errors
    /// The database's.
    pub async fn outcome(&self, event: &Pdu, facts: &RoomFacts, reader: Reader<'_>) -> Result<Option<Outcome>> {
        if reader.user_id == event.sender {
            return Ok(None);
        }
        let ready = self.ready(&[reader.user_nid]).await?;
        let mut context = context(facts, reader.user_id);
        read_as(&mut context, &reader);
        let flat = flatten(event);
        let outcome = match ready.first().and_then(|ready| ready.own.as_ref()) {
            Some(own) => judge(own, &flat, &context),
            None => judge(&defaults(reader.user_id), &flat, &context),
        };
        Ok(outcome.notify.then_some(outcome))
    }

    /// How a user counts in rooms, in the order of `rooms`. At most one statement.
    ///
    /// # Errors
    /// The database's.
    pub async fn modes(&self, user_nid: i64, rooms: &[&RoomId]) -> Result<Vec<Mode>> {
        let ready = self.ready(&[user_nid]).await?;
        let ready = ready.first().filter(|ready| ready.own.is_some());
        Ok(rooms.iter().map(|room_id| ready.map_or(Mode::Default, |ready| ready.mode(room_id))).collect())
    }

    /// How a user counts in one room.
    ///
    /// # Errors
    /// The database's.
    pub async fn mode(&self, user_nid: i64, room_id: &RoomId) -> Result<Mode> {
        Ok(self.modes(user_nid, &[room_id]).await?.pop().unwrap_or(Mode::Default))
    }

    /// The rules of users, in their order, from memory where they are young enough; the others in one statement.
    async fn ready(&self, users: &[i64]) -> Result<Vec<Arc<Ready>>> {
        let now_ms = self.cx.clock.now_ms();
        let mut found: Vec<Option<Arc<Ready>>> = users
            .iter()
            .map(|nid| self.ready.get(nid).filter(|ready| now_ms < ready.read_ms.saturating_add(AGE_MAX_MS)))
            .collect();
        let missing: Vec<i64> =
            users.iter().zip(&found).filter(|(_, ready)| ready.is_none()).map(|(nid, _)| *nid).collect();
        if !missing.is_empty() {
            let moment = self.ready.moment();
            let rows = table::of_users(&mut self.cx.store.read().await?, &missing).await?;
            let stored: HashMap<i64, String> = rows.into_iter().collect();
            let with_rules: Vec<i64> = stored.keys().copied().collect();
            let user_ids = self.cx.numbers.user_names(&with_rules).await?;
            for (nid, slot) in users.iter().zip(&mut found).filter(|(_, slot)| slot.is_none()) {
                let user_id = user_ids.get(nid).and_then(|id| UserId::parse(&**id).ok());
                let own = stored.get(nid).zip(user_id).and_then(|(body, user_id)| parse(body, &user_id));
                let ready = Arc::new(Ready { own, modes: Mutex::default(), read_ms: now_ms });
                self.ready.keep(moment, *nid, Arc::clone(&ready));
                *slot = Some(ready);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Whom an event may name.
    async fn named(&self, event: &Pdu, names: &dyn Names) -> Result<Named> {
        let says = Says::of(event);
        let mut named = Named::default();
        for user_id in says.user_ids.iter().take(MENTIONS_MAX) {
            let Ok(user_id) = <&UserId>::try_from(user_id.as_str()) else { continue };
            if self.cx.is_local(user_id) {
                named.users.extend(self.cx.numbers.user_if_known(user_id).await?);
            }
        }
        let Some(text) = says.text else { return Ok(named) };
        for member in names.called().await?.iter() {
            if member.words.iter().any(|word| text.contains(word)) {
                named.users.insert(member.user_nid);
                named.names.extend(member.display_name.clone().map(|name| (member.user_nid, name)));
            }
        }
        Ok(named)
    }
}

impl Ready {
    /// See [`Mode`]; only for users with rules of their own.
    fn mode(&self, room_id: &RoomId) -> Mode {
        let Some(own) = &self.own else { return Mode::Default };
        let mut modes = self.modes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mode) = modes.get(room_id) {
            return *mode;
        }
        if modes.len() >= MODES_MAX {
            modes.clear();
        }
        let mode = mode_of(own, room_id);
        modes.insert(room_id.to_owned(), mode);
        mode
    }
}

/// Judge what a plain message and a plain encrypted event of a stranger would do in a room of three.
fn mode_of(rules: &Ruleset, room_id: &RoomId) -> Mode {
    let user_id = UserId::parse("@:invalid").expect("an empty localpart is allowed");
    let facts = RoomFacts { room_id: room_id.to_owned(), member_count: 3, sender_may_notify_room: false };
    let context = context(&facts, &user_id);
    let plain = [
        json!({"type": "m.room.message", "sender": "@_:invalid", "content": {"msgtype": "m.text", "body": ""}}),
        json!({"type": "m.room.encrypted", "sender": "@_:invalid", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}),
    ];
    let mut is_silent = true;
    for event in plain {
        let Ok(raw) = serde_json::value::to_raw_value(&event) else { continue };
        let flat = FlattenedJson::from_raw(&Raw::<serde_json::Value>::from_json(raw));
        let Some(rule) = matching(rules, &flat, &context) else { continue };
        if rule.triggers_notification() {
            is_silent = false;
        } else if is_blanket(rules, &rule, room_id) {
            return Mode::Muted;
        }
        if matches!(rule, AnyPushRuleRef::Room(_)) && rule.triggers_notification() {
            return Mode::All;
        }
    }
    if is_silent { Mode::MentionsOnly } else { Mode::Custom }
}

/// True for a rule that stops everything of a room, because none goes before it: the master rule, or an override on the room
/// alone.
fn is_blanket(rules: &Ruleset, rule: &AnyPushRuleRef<'_>, room_id: &RoomId) -> bool {
    let AnyPushRuleRef::Override(rule) = rule else { return false };
    let is_first =
        rules.override_.iter().find(|other| other.enabled).is_some_and(|other| other.rule_id == rule.rule_id);
    is_first
        && rule.conditions.iter().all(|condition| match condition {
            ruma::push::PushCondition::EventMatch(data) => data.key == "room_id" && data.pattern == room_id.as_str(),
            _ => false,
        })
}

fn exception(user_nid: i64, mode: Mode, default_notifies: bool, outcome: &Outcome) -> Option<Exception> {
    let notify = i64::from(outcome.notify) - i64::from(default_notifies);
    let is_needed =
        if mode.counts_default() { notify != 0 || (outcome.notify && outcome.highlight) } else { outcome.notify };
    let highlight = outcome.notify && outcome.highlight;
    is_needed.then(|| Exception { user_nid, notify, highlight, actions: Arc::clone(&outcome.actions) })
}

/// Whom an event may name: readers it cannot concern need no look.
#[derive(Debug, Default)]
struct Named {
    users: HashSet<i64>,
    /// What those whose name is in the text are called.
    names: HashMap<i64, String>,
}

/// What an event says of whom it is meant for.
struct Says {
    /// Mentioned, or invited.
    user_ids: Vec<String>,
    /// The text in lower case, when the older rules apply.
    text: Option<String>,
}

impl Says {
    fn of(event: &Pdu) -> Self {
        #[derive(Deserialize, Default)]
        struct Content {
            #[serde(rename = "m.mentions")]
            mentions: Option<serde_json::Value>,
            body: Option<serde_json::Value>,
        }
        let content: Content = serde_json::from_str(event.content.get()).unwrap_or_default();
        let mut user_ids: Vec<String> = content
            .mentions
            .as_ref()
            .and_then(|mentions| mentions.get("user_ids")?.as_array())
            .map(|ids| ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        let text = match (&content.mentions, &content.body) {
            (None, Some(body)) => body.as_str().map(str::to_lowercase),
            _ => None,
        };
        if event.kind == room::event::kind::MEMBER {
            user_ids.extend(event.state_key.clone());
        }
        Self { user_ids, text }
    }
}

fn flatten(event: &Pdu) -> FlattenedJson {
    FlattenedJson::from_raw(&Raw::<serde_json::Value>::from_json(event.to_federation()))
}

/// ruma wants all powers; the only question its rules ask of them is answered beforehand.
fn context(facts: &RoomFacts, user_id: &UserId) -> PushConditionRoomCtx {
    let power = if facts.sender_may_notify_room { Int::MAX } else { Int::MIN };
    let powers = PushConditionPowerLevelsCtx::new(
        std::collections::BTreeMap::new(),
        power,
        NotificationPowerLevels::new(),
        RoomPowerLevelsRules::new(&AuthorizationRules::V1, None),
    );
    PushConditionRoomCtx::new(
        facts.room_id.clone(),
        UInt::new_saturating(facts.member_count),
        user_id.to_owned(),
        String::new(),
    )
    .with_power_levels(powers)
}

fn read_as(context: &mut PushConditionRoomCtx, reader: &Reader<'_>) {
    context.user_id = reader.user_id.to_owned();
    context.user_display_name = reader.display_name.unwrap_or_default().to_owned();
}

fn matching<'a>(
    rules: &'a Ruleset,
    event: &FlattenedJson,
    context: &PushConditionRoomCtx,
) -> Option<AnyPushRuleRef<'a>> {
    // ruma's conditions are async for thread subscriptions alone, which are off: they are always ready. A name of nothing
    // would match every text.
    rules.iter().find(|rule| {
        let is_nameless = context.user_display_name.is_empty() && rule.rule_id() == CONTAINS_DISPLAY_NAME;
        !is_nameless && rule.applies(event, context).now_or_never().unwrap_or(false)
    })
}

fn judge(rules: &Ruleset, event: &FlattenedJson, context: &PushConditionRoomCtx) -> Outcome {
    let Some(rule) = matching(rules, event, context) else {
        return Outcome { notify: false, highlight: false, actions: Arc::from("[]") };
    };
    let actions: &[Action] = rule.actions();
    Outcome {
        notify: rule.triggers_notification(),
        highlight: rule.triggers_highlight(),
        actions: serde_json::to_string(actions).unwrap_or_else(|_| "[]".to_owned()).into(),
    }
}

/// A ruleset as the content of [`RULES`].
pub(crate) fn content(rules: &Ruleset) -> String {
    json!({ "global": rules }).to_string()
}

/// A stored ruleset with today's defaults; a row that is no ruleset counts as none.
pub(crate) fn parse(body: &str, user_id: &UserId) -> Option<Ruleset> {
    match serde_json::from_str::<Content>(body) {
        Ok(mut content) => {
            content.global.update_with_server_default(defaults(user_id));
            Some(content.global)
        }
        Err(error) => {
            tracing::warn!(%user_id, %error, "stored push rules are damaged; the defaults serve");
            None
        }
    }
}
