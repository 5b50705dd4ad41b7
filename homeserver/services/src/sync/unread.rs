//! How much of a room a user has not read.
//!
//! What notifies everybody is counted by the room's sequence: the room's count now, less the count at the user's read mark. What goes
//! beyond (highlights, members with rules of their own) has rows. What was redacted before it was read counts no more. Each thread
//! is a lane of its own. In a room whose plain messages
//! do not notify a user ([`Mode::counts_default`]) the rows alone count, and in a muted one nothing does.
//!
//! What was read once of a user's marks and rows is [`Memory`]: it holds until the user reads, writes, or something comes that is
//! more than a plain event of the main timeline, so a sync woken by a message counts without a statement.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use quick_cache::sync::Cache;
use room::event;
use serde::Serialize;
use storage::{
    timeline::flags,
    unread::{self as table, Row, kind},
};

use super::watch::Entry;
use crate::{
    Context, Result,
    accounts::User,
    push_rules::{Mode, Rules},
    timeline::{Timeline, now::RoomNow},
};

/// Pairs of user and room that are remembered.
const REMEMBERED_MAX: usize = 50_000;

/// Counts of one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Events that notify.
    pub notification_count: i64,
    /// Those that do so loudly.
    pub highlight_count: i64,
}

/// Counts of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// The main timeline.
    pub main: Counts,
    /// Threads with anything unread, by root.
    pub threads: BTreeMap<i64, Counts>,
}

impl Unread {
    /// Main timeline and threads together, for clients that know no threads.
    #[must_use]
    pub fn all(&self) -> Counts {
        self.threads.values().fold(self.main, |sum, lane| Counts {
            notification_count: sum.notification_count + lane.notification_count,
            highlight_count: sum.highlight_count + lane.highlight_count,
        })
    }
}

/// What the tables said of one user in one room.
#[derive(Debug)]
struct Known {
    /// Everything up to this position was stored when they said it.
    at: i64,
    rows: Box<[Row]>,
}

/// What was read of users' marks and rows before. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Cache<(i64, i64), Arc<Known>>>);

impl Default for Memory {
    fn default() -> Self {
        Self(Arc::new(Cache::new(REMEMBERED_MAX)))
    }
}

/// Whose unread events are counted for a sync, and up to where the news are known.
pub(super) struct Reader<'a> {
    pub user: &'a User,
    pub entry: &'a Entry,
    pub until: i64,
}

impl Memory {
    /// What a user has not read of rooms: from memory where it holds, one statement for all others.
    pub(super) async fn count(
        &self,
        cx: &Context,
        rules: &Rules,
        timeline: &Timeline,
        reader: &Reader<'_>,
        rooms: &[&RoomNow],
    ) -> Result<HashMap<i64, Unread>> {
        let user_nid = reader.user.nid;
        let modes = modes(rules, user_nid, rooms).await?;
        let mut unread = HashMap::with_capacity(rooms.len());
        let mut asked = Vec::new();
        for room in rooms {
            match self.0.get(&(user_nid, room.nid)).filter(|known| holds(known, timeline, reader, room.nid)) {
                Some(known) => drop(unread.insert(room.nid, count_room(room, &known.rows, mode(&modes, room.nid)))),
                None => asked.push(*room),
            }
        }
        if asked.is_empty() {
            return Ok(unread);
        }
        let rows = read(cx, user_nid, &asked).await?;
        for room in asked {
            let rows: Box<[Row]> = rows.get(&room.nid).map(Vec::as_slice).unwrap_or_default().into();
            unread.insert(room.nid, count_room(room, &rows, mode(&modes, room.nid)));
            self.0.insert((user_nid, room.nid), Arc::new(Known { at: reader.until, rows }));
        }
        Ok(unread)
    }
}

/// Whether nothing happened since that changes what the tables say of this user in this room.
fn holds(known: &Known, timeline: &Timeline, reader: &Reader<'_>, room_nid: i64) -> bool {
    if reader.entry.account_changed_since(known.at) || reader.entry.membership_changed_since(known.at) {
        return false;
    }
    let is_plain = |e: &Arc<crate::timeline::cell::Recent>| {
        let pdu = &e.event.pdu;
        e.thread_nid == 0
            && e.flags & flags::EXCEPTIONS == 0
            && pdu.sender != reader.user.user_id
            && pdu.kind != event::kind::REDACTION
    };
    timeline.recent_since(room_nid, known.at).is_some_and(|events| events.iter().all(is_plain))
}

/// What a user has not read of rooms; one statement for any number of rooms.
///
/// # Errors
/// The database's.
pub async fn count(cx: &Context, rules: &Rules, user_nid: i64, rooms: &[&RoomNow]) -> Result<HashMap<i64, Unread>> {
    let modes = modes(rules, user_nid, rooms).await?;
    let rows = read(cx, user_nid, rooms).await?;
    let of_room = |nid: i64| rows.get(&nid).map(Vec::as_slice).unwrap_or_default();
    Ok(rooms.iter().map(|room| (room.nid, count_room(room, of_room(room.nid), mode(&modes, room.nid)))).collect())
}

async fn read(cx: &Context, user_nid: i64, rooms: &[&RoomNow]) -> Result<HashMap<i64, Vec<Row>>> {
    let mut found: HashMap<i64, Vec<Row>> = HashMap::new();
    let nids: Vec<i64> = rooms.iter().map(|room| room.nid).collect();
    if nids.is_empty() {
        return Ok(found);
    }
    for row in table::of_rooms(&mut cx.store.read().await?, user_nid, &nids).await? {
        found.entry(row.room_nid).or_default().push(row);
    }
    Ok(found)
}

async fn modes(rules: &Rules, user_nid: i64, rooms: &[&RoomNow]) -> Result<HashMap<i64, Mode>> {
    if rooms.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<_> = rooms.iter().map(|room| &*room.room_id).collect();
    let modes = rules.modes(user_nid, &ids).await?;
    Ok(rooms.iter().map(|room| room.nid).zip(modes).collect())
}

fn mode(modes: &HashMap<i64, Mode>, room_nid: i64) -> Mode {
    modes.get(&room_nid).copied().unwrap_or(Mode::Default)
}

fn count_room(room: &RoomNow, rows: &[Row], mode: Mode) -> Unread {
    let marks = rows.iter().filter(|row| row.kind == kind::MARK);
    let marks: HashMap<i64, i64> = marks.map(|row| (row.thread_nid, row.number)).collect();
    let retracted = rows.iter().filter(|row| row.kind == kind::RETRACTED);
    let retracted: HashMap<i64, i64> = retracted.map(|row| (row.thread_nid, row.number)).collect();
    // Notifying events that count no more: read, or redacted since.
    let marked = |thread_nid: i64| {
        let of = |lanes: &HashMap<i64, i64>| lanes.get(&thread_nid).copied().unwrap_or(0);
        of(&marks) + of(&retracted)
    };
    let mut unread = Unread::default();
    if mode.counts_default() {
        unread.main.notification_count = room.notify_seq - marked(0);
        for thread in rows.iter().filter(|row| row.kind == kind::THREAD) {
            let count = thread.number - marked(thread.thread_nid);
            if count > 0 {
                let counts = Counts { notification_count: count, highlight_count: 0 };
                unread.threads.insert(thread.thread_nid, counts);
            }
        }
    }
    if mode != Mode::Muted {
        for items in rows.iter().filter(|row| row.kind == kind::ITEMS) {
            let lane = match items.thread_nid {
                0 => &mut unread.main,
                root => unread.threads.entry(root).or_default(),
            };
            lane.notification_count += if mode.counts_default() { items.number } else { items.rows };
            lane.highlight_count += items.loud;
        }
    }
    unread.main.notification_count = unread.main.notification_count.max(0);
    unread
}
