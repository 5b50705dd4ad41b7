//! Searching messages, room names and topics for words.
//!
//! The words stand in a table of their own ([`storage::search_texts`]), which whoever searches first brings up to date from the
//! stream ([`index`]): servers on which nobody searches pay nothing. What matches there is then looked at itself: what has been
//! redacted since, or may not be seen by the one who asks, is no result.
//!
//! A word of the search matches words that begin with it; all must match. Encrypted messages have no words. A page's token counts
//! the results given so far.
//!
//! Source: Client-Server API, "Server Side Search".

pub mod index;
mod results;

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use storage::{members, search_texts};

pub use self::results::{Answer, Found};
use crate::{
    Context, Error, Result,
    accounts::User,
    reading::{Access, Reading, Right, reader},
    sync::filter::EventFilter,
    timeline::{Timeline, events::Stored},
    view::View,
};

/// Results of one page when a client does not say how many.
const PAGE_LEN: usize = 10;
/// Results of one page at most.
const PAGE_LEN_MAX: usize = 100;
/// Matches looked at; the newest ones, when there are more.
const MATCHES_MAX: usize = 2_000;
/// Words of one search; further ones are not looked at.
const WORDS_MAX: usize = 16;
/// Events shown before and after a result when a client does not say how many.
const CONTEXT_LEN: usize = 5;
/// Events shown before and after a result at most.
const CONTEXT_LEN_MAX: usize = 20;

/// What somebody searches for, as clients write it.
#[derive(Debug, Clone, Deserialize)]
pub struct Criteria {
    /// The words.
    pub search_term: String,
    /// Where: `content.body`, `content.name`, `content.topic`. Everywhere if nothing is said.
    #[serde(default)]
    pub keys: Option<Vec<String>>,
    /// Which rooms, senders, types; how many results.
    #[serde(default)]
    pub filter: EventFilter,
    /// Which results come first.
    #[serde(default)]
    pub order_by: Order,
    /// Events around each result.
    #[serde(default)]
    pub event_context: Option<Around>,
    /// The state of the rooms of the results.
    #[serde(default)]
    pub include_state: bool,
    /// How results are grouped.
    #[serde(default)]
    pub groupings: Groupings,
}

/// Which results come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Those that match best.
    #[default]
    Rank,
    /// The newest.
    Recent,
}

/// How much of what stands around a result is shown.
#[derive(Debug, Clone, Deserialize)]
pub struct Around {
    /// Events before it.
    #[serde(default = "context_len")]
    pub before_limit: usize,
    /// Events after it.
    #[serde(default = "context_len")]
    pub after_limit: usize,
    /// What the senders were called then.
    #[serde(default)]
    pub include_profile: bool,
}

fn context_len() -> usize {
    CONTEXT_LEN
}

/// How results are grouped.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Groupings {
    /// By these.
    #[serde(default)]
    pub group_by: Vec<Grouping>,
}

/// One way to group.
#[derive(Debug, Clone, Deserialize)]
pub struct Grouping {
    /// `room_id` or `sender`; others are passed over.
    pub key: String,
}

/// An event that matches.
#[derive(Debug, Clone)]
struct Match {
    event: Arc<Stored>,
    rank: f64,
}

/// Searches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Search {
    cx: Context,
    timeline: Timeline,
    view: View,
    reading: Reading,
    /// One task of this process reads the stream at a time.
    indexing: Arc<tokio::sync::Mutex<()>>,
}

impl Search {
    /// From these.
    #[must_use]
    pub fn new(cx: Context, timeline: Timeline, view: View, reading: Reading) -> Self {
        Self { cx, timeline, view, reading, indexing: Arc::default() }
    }

    /// A page of what matches in the rooms the user is in. `from`: where it begins.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a token that is none.
    pub async fn search(&self, user: &User, criteria: &Criteria, from: Option<&str>) -> Result<Answer> {
        let given = match from {
            Some(token) => {
                let given = token.strip_prefix('r').and_then(|given| given.parse::<usize>().ok());
                given.ok_or_else(|| Error::InvalidParam("next_batch is not a token of this server".to_owned()))?
            }
            None => 0,
        };
        let limit = criteria.filter.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE_LEN);
        let limit = limit.clamp(1, PAGE_LEN_MAX);
        let mut words = index::words(&criteria.search_term);
        words.truncate(WORDS_MAX);
        let accesses = self.rooms(user, criteria).await?;
        let matches = self.matches(&accesses, criteria, &words).await?;
        let count = matches.len();
        let page: Vec<Match> = matches.into_iter().skip(given).take(limit).collect();
        // A full page names a next one, which may be empty: clients of old know the end by an empty page.
        let next_batch = (page.len() == limit).then(|| format!("r{}", given + page.len()));
        self.answer(&accesses, criteria, &page, Found { count, highlights: words, next_batch }).await
    }

    /// The rooms to search, by number.
    async fn rooms(&self, user: &User, criteria: &Criteria) -> Result<BTreeMap<i64, Access>> {
        let joined = members::rooms_of(&mut self.cx.store.read().await?, user.nid, "join").await?;
        let rooms = self.timeline.now_many(&joined).await?;
        let wanted = rooms.into_iter().filter(|now| criteria.filter.wants_room(now.room_id.as_str()));
        let access = |now| Access { now, reader: reader(user), right: Right::Joined };
        Ok(wanted.map(|now| (now.nid, access(now))).collect())
    }

    /// All events that match and may be seen, in the order wished for.
    async fn matches(
        &self,
        accesses: &BTreeMap<i64, Access>,
        criteria: &Criteria,
        words: &[String],
    ) -> Result<Vec<Match>> {
        if words.is_empty() || accesses.is_empty() {
            return Ok(Vec::new());
        }
        self.catch_up().await?;
        let rooms: Vec<i64> = accesses.keys().copied().collect();
        let parts: Vec<&str> = index::PARTS
            .into_iter()
            .filter(|part| criteria.keys.as_ref().is_none_or(|keys| keys.iter().any(|key| key == part)))
            .collect();
        let pattern = |nth: usize| words.get(nth).map_or_else(|| "%".to_owned(), |word| format!("% {word}%"));
        let patterns = [pattern(0), pattern(1), pattern(2)];
        let limit = i64::try_from(MATCHES_MAX).unwrap_or(i64::MAX);
        let patterns = [patterns[0].as_str(), patterns[1].as_str(), patterns[2].as_str()];
        let mut tx = self.cx.store.read().await?;
        let mut rows = search_texts::matching(&mut tx, &rooms, &parts, patterns, limit).await?;
        drop(tx);
        rows.retain(|row| index::rank(&row.words, words) > 0.0);
        let nids: Vec<i64> = rows.iter().map(|row| row.event_nid).collect();
        let events = self.timeline.events.by_nids(&nids).await?;
        let mut by_room: BTreeMap<i64, Vec<Arc<Stored>>> = BTreeMap::new();
        for event in events.into_values().filter(|event| is_wanted(event, &criteria.filter)) {
            by_room.entry(event.room_nid).or_default().push(event);
        }
        let mut seen: BTreeMap<i64, Arc<Stored>> = BTreeMap::new();
        for (room_nid, events) in by_room {
            let Some(access) = accesses.get(&room_nid) else { continue };
            let visible = self.reading.visible(access, events).await?;
            seen.extend(visible.into_iter().map(|event| (event.nid, event)));
        }
        let mut matches: Vec<Match> = rows
            .iter()
            .filter_map(|row| {
                let event = seen.remove(&row.event_nid)?;
                Some(Match { event, rank: index::rank(&row.words, words) })
            })
            .collect();
        if criteria.order_by == Order::Rank {
            // Stable: of two that match alike the newer stays first.
            matches.sort_by(|a, b| b.rank.total_cmp(&a.rank));
        }
        Ok(matches)
    }
}

/// Whether an event still says what matched, and is of those wished for.
fn is_wanted(event: &Stored, filter: &EventFilter) -> bool {
    let pdu = &event.pdu;
    event.is_visible()
        && !event.has(storage::events::flags::REDACTED)
        && filter.wants(&pdu.kind, pdu.sender.as_str(), pdu.content.get())
}
