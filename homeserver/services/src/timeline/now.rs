//! A room as it is now: its head, its current state, who is in it. Immutable; each event makes the next one.

use std::{collections::HashMap, sync::Arc};

use room::{
    graph::heads::{self, Head},
    state::StateKeyNumber,
    versions::Rules,
};
use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId};
use storage::{members::Inhabitant, rooms::Facts};

use super::snapshots::Snapshot;

/// A forward extremity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extremity {
    /// Its number.
    pub nid: i64,
    /// Its id.
    pub event_id: OwnedEventId,
}

/// Who is in a room, by number.
#[derive(Debug, Clone, Default)]
pub struct Inhabitants {
    /// Joined users of ours, ascending.
    pub local: Vec<i64>,
    /// Servers with joined users, and how many.
    pub servers: HashMap<i64, u32>,
    /// Joined users.
    pub joined: i64,
    /// Invited users.
    pub invited: i64,
}

/// A change of one user's membership.
#[derive(Debug, Clone, Copy)]
pub struct Move<'a> {
    /// Who.
    pub user_nid: i64,
    /// Their server.
    pub server_nid: i64,
    /// Whether they are ours.
    pub is_local: bool,
    /// Their membership until now.
    pub from: &'a str,
    /// Their membership from now on.
    pub to: &'a str,
}

impl Inhabitants {
    /// From the rows of a room.
    #[must_use]
    pub fn of(rows: &[Inhabitant]) -> Self {
        let mut all = Self::default();
        for row in rows {
            all.apply(Move {
                user_nid: row.user_nid,
                server_nid: row.server_nid,
                is_local: row.is_local,
                from: "leave",
                to: &row.membership,
            });
        }
        all
    }

    /// Somebody's membership changes.
    pub fn apply(&mut self, step: Move<'_>) {
        let (was, is) = (step.from == "join", step.to == "join");
        self.invited += i64::from(step.to == "invite") - i64::from(step.from == "invite");
        if was == is {
            return;
        }
        self.joined += i64::from(is) - i64::from(was);
        let here = self.servers.entry(step.server_nid).or_default();
        *here = if is { *here + 1 } else { here.saturating_sub(1) };
        if *here == 0 {
            self.servers.remove(&step.server_nid);
        }
        if step.is_local {
            match (self.local.binary_search(&step.user_nid), is) {
                (Err(at), true) => self.local.insert(at, step.user_nid),
                (Ok(at), false) => drop(self.local.remove(at)),
                _ => {}
            }
        }
    }
}

/// A room at one version of its head.
#[derive(Debug, Clone)]
pub struct RoomNow {
    /// The room's number.
    pub nid: i64,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version.
    pub version: RoomVersionId,
    /// The version's rules.
    pub rules: &'static Rules,
    /// Counts the moves of the head; writing compares and sets it.
    pub head_ver: i64,
    /// Forward extremities.
    pub heads: Vec<Head<Extremity>>,
    /// Current state.
    pub snapshot: Arc<Snapshot>,
    /// Greatest depth.
    pub depth: i64,
    /// Events of the main timeline so far that notify by default.
    pub notify_seq: i64,
    /// Whether members are still missing after a fast join.
    pub is_partial: bool,
    /// Who is in it.
    pub inhabitants: Arc<Inhabitants>,
    /// What lists of rooms show.
    pub facts: Arc<Facts>,
    /// Position of its newest event; 0 when not known.
    pub last_pos: i64,
}

impl RoomNow {
    /// The event at a state key, by numbers.
    #[must_use]
    pub fn state_event(&self, state_key_nid: i64) -> Option<i64> {
        let key = StateKeyNumber(u64::try_from(state_key_nid).ok()?);
        self.snapshot.state.get(key).and_then(|event| i64::try_from(event.0).ok())
    }

    /// What our next event follows, and its depth.
    #[must_use]
    pub fn next_place(&self) -> (Vec<OwnedEventId>, u64) {
        let (prev, depth) = heads::next(&self.heads, room::build::DEPTH_MAX);
        (prev.into_iter().map(|e| e.event_id).collect(), depth)
    }

    /// The heads as the database keeps them.
    #[must_use]
    pub fn heads_json(&self) -> String {
        let rows: Vec<(i64, &str, u64, bool)> =
            self.heads.iter().map(|h| (h.event.nid, h.event.event_id.as_str(), h.depth, h.own)).collect();
        serde_json::to_string(&rows).unwrap_or_else(|_| "[]".to_owned())
    }

    /// Whether a user of ours (by number) is joined.
    #[must_use]
    pub fn has_local(&self, user_nid: i64) -> bool {
        self.inhabitants.local.binary_search(&user_nid).is_ok()
    }
}

impl RoomNow {
    /// A room that has no event yet.
    #[must_use]
    pub fn before_creation(nid: i64, room_id: OwnedRoomId, version: RoomVersionId, rules: &'static Rules) -> Self {
        Self {
            nid,
            room_id,
            version,
            rules,
            head_ver: 0,
            heads: Vec::new(),
            snapshot: Snapshot::empty(),
            depth: 0,
            notify_seq: 0,
            is_partial: false,
            inhabitants: Arc::default(),
            facts: Arc::new(Facts { room_nid: nid, ..Facts::default() }),
            last_pos: 0,
        }
    }
}
