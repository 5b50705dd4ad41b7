//! What happened since a client last asked: `/sync`.
//!
//! 1. Wait until something concerns the user ([`watch`]); idle waiting costs no statement.
//! 2. Fix the end: the newest position of which all before it is known.
//! 3. Gather, each kind in one statement for all rooms: timelines ([`rooms`]), state, receipts, account data, to-device, device lists,
//!    counts ([`unread`]). Rooms whose newest events are in memory cost nothing.
//!
//! The token is the end's position, with the counts of typing and presence, which may be lost.
//! Source: Client-Server API, "Syncing".

pub(crate) mod account;
mod badge;
pub mod filter;
pub mod old;
mod rooms;
pub mod unread;
pub mod watch;

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use ruma::presence::PresenceState;
use serde::Serialize;
use serde_json::value::RawValue;

use self::{
    filter::Filter,
    watch::{Entry, Watch},
};
use crate::{
    Context, Error, Result, accounts::User, ignored::Ignored, presence::Presence, push_rules::Rules, reading::Reading,
    receipts::Receipts, timeline::Timeline, typing::Typing, view::View,
};

/// A client may wait this long for news; a longer wish counts as this.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(90);

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Token {
    /// Everything up to this position has been seen.
    pub pos: i64,
    /// Count of typing seen.
    pub typing: u64,
    /// Count of presence seen.
    pub presence: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}_{}", self.pos, self.typing, self.presence)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::InvalidParam("since is not a token of this server".to_owned());
        let mut parts = text.strip_prefix('s').ok_or_else(wrong)?.split('_');
        let pos = parts.next().and_then(|p| p.parse().ok()).filter(|pos| *pos >= 0).ok_or_else(wrong)?;
        let mut count = || parts.next().map_or(Ok(0), |p| p.parse().map_err(|_| wrong()));
        Ok(Self { pos, typing: count()?, presence: count()? })
    }
}

/// What a client asks for.
#[derive(Debug)]
pub struct Request {
    /// Who.
    pub user: User,
    /// Where they stand; `None` for the first time.
    pub since: Option<Token>,
    /// What they do not want.
    pub filter: Filter,
    /// All state of all rooms.
    pub full_state: bool,
    /// How long to wait when there is nothing.
    pub timeout: Duration,
    /// State as after the timeline (MSC4222) instead of before it.
    pub use_state_after: bool,
    /// The client knows it by its unstable name alone (`org.matrix.msc4222.state_after`).
    pub is_unstable_state_after: bool,
    /// The presence the client wants to show.
    pub set_presence: PresenceState,
}

/// The answer, as the specification writes it.
#[derive(Debug, Default, Serialize)]
pub struct Response {
    next_batch: String,
    #[serde(skip_serializing_if = "Events::is_empty")]
    account_data: Events,
    #[serde(skip_serializing_if = "Events::is_empty")]
    presence: Events,
    #[serde(skip_serializing_if = "Events::is_empty")]
    to_device: Events,
    #[serde(skip_serializing_if = "DeviceLists::is_empty")]
    device_lists: DeviceLists,
    device_one_time_keys_count: BTreeMap<String, u64>,
    device_unused_fallback_key_types: Vec<String>,
    #[serde(skip_serializing_if = "Rooms::is_empty")]
    rooms: Rooms,
}

/// A list of events.
#[derive(Debug, Default, Serialize)]
pub struct Events {
    events: Vec<Box<RawValue>>,
}

impl Events {
    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Users whose keys changed, or who no longer share a room.
#[derive(Debug, Default, Serialize)]
struct DeviceLists {
    changed: Vec<String>,
    left: Vec<String>,
}

impl DeviceLists {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

/// Rooms by the user's membership.
#[derive(Debug, Default, Serialize)]
struct Rooms {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    join: BTreeMap<String, rooms::Joined>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    invite: BTreeMap<String, rooms::Invited>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    knock: BTreeMap<String, rooms::Knocked>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    leave: BTreeMap<String, rooms::Left>,
}

impl Rooms {
    fn is_empty(&self) -> bool {
        self.join.is_empty() && self.invite.is_empty() && self.knock.is_empty() && self.leave.is_empty()
    }
}

impl Response {
    /// Whether a client would learn nothing from it.
    fn is_empty(&self) -> bool {
        self.account_data.is_empty()
            && self.presence.is_empty()
            && self.to_device.is_empty()
            && self.device_lists.is_empty()
            && self.rooms.is_empty()
    }
}

/// What a sync draws on.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Events of rooms.
    pub timeline: Timeline,
    /// How events are shown.
    pub view: View,
    /// Who may read what.
    pub reading: Reading,
    /// Whom users ignore.
    pub ignored: Ignored,
    /// Which event notifies whom.
    pub push_rules: Rules,
    /// Who has read what.
    pub receipts: Receipts,
    /// Who types where.
    pub typing: Typing,
    /// Who is there.
    pub presence: Presence,
    /// Devices' and users' keys.
    pub keys: crate::keys::Keys,
    /// Messages between devices.
    pub to_device: crate::to_device::ToDevice,
}

/// Answers `/sync`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sync {
    cx: Context,
    from: Sources,
    watch: Watch,
    unread: unread::Memory,
}

/// One answer in the making.
struct Answer<'a> {
    sync: &'a Sync,
    request: &'a Request,
    entry: &'a Arc<Entry>,
    /// Everything after this is new.
    since: i64,
    /// Everything up to this is told.
    until: i64,
    /// Typing up to this count is told.
    typing: u64,
    device: &'a str,
}

impl Sync {
    /// Listen to the news and answer from these sources.
    #[must_use]
    pub fn start(cx: Context, from: Sources) -> Self {
        let watch = Watch::start(cx.clone(), from.timeline.clone());
        Self { cx, from, watch, unread: unread::Memory::default() }
    }

    /// Wait for news for at most the request's timeout, then tell all of it.
    ///
    /// # Errors
    /// The database's.
    pub async fn wait(&self, request: &Request) -> Result<Response> {
        self.from.presence.synced(&request.user, request.set_presence.clone());
        let entry = self.watch.user(request.user.nid);
        let deadline = tokio::time::Instant::now() + request.timeout.min(TIMEOUT_MAX);
        let mut since = request.since;
        self.catch_up_with(since).await?;
        loop {
            // Listen before looking: what comes in between rings.
            let rung = entry.rung();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let until = self.cx.notify.stable().max(entry.pos());
            let typing = self.from.typing.serial();
            let must_answer = since.is_none() || request.full_state;
            let is_quiet = since.is_some_and(|s| self.watch.is_quiet(&entry, s.pos) && s.typing >= typing);
            let is_over = tokio::time::Instant::now() >= deadline;
            if must_answer || !is_quiet || is_over {
                let response = self.answer(request, &entry, since, until).await?;
                if must_answer || is_over || !response.is_empty() {
                    return Ok(response);
                }
                // Nothing of it is for this client: what was looked at need not be looked at again.
                since = since.map(|s| Token { pos: until, typing, ..s });
            }
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// Hear what the instance had heard that gave out this token, if that is more than this one has.
    async fn catch_up_with(&self, since: Option<Token>) -> Result<()> {
        if since.is_some_and(|s| s.pos > self.cx.notify.stable()) {
            self.cx.notify.repair().await?;
        }
        Ok(())
    }

    async fn answer(
        &self,
        request: &Request,
        entry: &Arc<Entry>,
        since: Option<Token>,
        until: i64,
    ) -> Result<Response> {
        let device = request.user.device_id.as_ref().map_or("", |id| id.as_str());
        let mut token = Token { pos: until, typing: self.from.typing.serial(), ..Token::default() };
        let since_pos = since.map_or(0, |s| s.pos);
        let answer = Answer { sync: self, request, entry, since: since_pos, until, typing: token.typing, device };
        let mut response = Response::default();
        if since.is_none() {
            entry.forget_members(device);
        }
        // Where nothing happened the rooms need not be looked through.
        let is_quiet =
            since.is_some_and(|s| !request.full_state && self.watch.is_quiet(entry, s.pos) && s.typing >= token.typing);
        let mut moves = rooms::Moves::default();
        if !is_quiet {
            let account_data = answer.account_data(since).await?;
            moves = answer.rooms(since, &account_data, &mut response).await?;
        }
        answer.devices(since, &moves, &mut response, &mut token).await?;
        answer.presence(since, &moves, &mut response, &mut token).await?;
        response.next_batch = token.to_string();
        Ok(response)
    }
}
