//! How much of a room a user has not read.
//!
//! What notifies everybody is counted by the room's sequence: the room's count now, less the count at the user's read mark. What goes
//! beyond (highlights, members with rules of their own) has rows. Each thread is a lane of its own. In a room whose plain messages
//! do not notify a user ([`Mode::counts_default`]) the rows alone count, and in a muted one nothing does.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use storage::{relations, timeline};

use crate::{
    Context, Result,
    push_rules::{Mode, Rules},
    timeline::now::RoomNow,
};

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

/// What a user has not read of rooms; three statements for any number of rooms.
///
/// # Errors
/// The database's.
pub async fn count(cx: &Context, rules: &Rules, user_nid: i64, rooms: &[&RoomNow]) -> Result<HashMap<i64, Unread>> {
    let nids: Vec<i64> = rooms.iter().map(|room| room.nid).collect();
    if nids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<_> = rooms.iter().map(|room| &*room.room_id).collect();
    let modes = rules.modes(user_nid, &ids).await?;
    let modes: HashMap<i64, Mode> = nids.iter().copied().zip(modes).collect();
    let counts_default = |nid: i64| modes.get(&nid).is_none_or(|mode| mode.counts_default());
    let mut tx = cx.store.read().await?;
    let marks = timeline::read_marks(&mut tx, user_nid, &nids).await?;
    let extras = timeline::push_counts(&mut tx, user_nid, &nids).await?;
    let threads = relations::notifying_threads(&mut tx, &nids).await?;
    drop(tx);
    let marks: HashMap<(i64, i64), (i64, i64)> =
        marks.into_iter().map(|m| ((m.room_nid, m.thread_nid), (m.seq, m.event_nid))).collect();
    let mut unread: HashMap<i64, Unread> = HashMap::with_capacity(rooms.len());
    for room in rooms {
        let read = marks.get(&(room.nid, 0)).map_or(0, |mark| mark.0);
        let count = if counts_default(room.nid) { room.notify_seq - read } else { 0 };
        let main = Counts { notification_count: count, highlight_count: 0 };
        unread.insert(room.nid, Unread { main, threads: BTreeMap::new() });
    }
    for thread in threads {
        let read = marks.get(&(thread.room_nid, thread.root_nid)).map_or(0, |mark| mark.0);
        let count = thread.notify_seq - read;
        if count > 0
            && counts_default(thread.room_nid)
            && let Some(room) = unread.get_mut(&thread.room_nid)
        {
            room.threads.insert(thread.root_nid, Counts { notification_count: count, highlight_count: 0 });
        }
    }
    for (room_nid, thread_nid, _, notify, highlight) in extras {
        let Some(room) = unread.get_mut(&room_nid) else { continue };
        if modes.get(&room_nid) == Some(&Mode::Muted) {
            continue;
        }
        let lane = if thread_nid == 0 { &mut room.main } else { room.threads.entry(thread_nid).or_default() };
        lane.notification_count += if counts_default(room_nid) { notify } else { i64::from(notify >= 0) };
        lane.highlight_count += i64::from(highlight);
    }
    for room in unread.values_mut() {
        room.main.notification_count = room.main.notification_count.max(0);
    }
    Ok(unread)
}
