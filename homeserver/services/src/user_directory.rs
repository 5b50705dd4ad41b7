//! Finding users: by id or name among those one may know of, and the rooms two users share.
//!
//! Found is who shares a room with the one who asks, or is in a room that anybody may join or read. Our own users are found by the
//! name in their profile, never by what they call themselves in one room. Other servers' users are found by their id and by the name
//! in the member event of a room through which they can be found.
//!
//! Source: Client-Server API, "User Directory", "Mutual rooms".

use std::collections::{BTreeMap, HashMap};

use room::auth::facts;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde::Serialize;
use storage::{
    members, profiles,
    user_directory::{self, Patterns},
};

use crate::{Context, Error, Result, accounts::User, timeline::Timeline};

/// Users of one answer when a client does not say how many.
pub const RESULTS: usize = 10;
/// Users of one answer at most.
pub const RESULTS_MAX: usize = 50;
/// Other servers' users whose names are compared with a search term.
const NAMES_COMPARED_MAX: i64 = 5_000;
/// The longest search term, in characters; the rest is not looked at.
const TERM_LEN_MAX: usize = 255;
/// Rooms of one page of shared rooms.
const MUTUAL_ROOMS_PER_PAGE_MAX: usize = 100;

/// A user found, as the specification writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Their id.
    pub user_id: String,
    /// What they are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Their picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

/// Users found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Results {
    /// Those whose id matches first.
    pub results: Vec<Found>,
    /// Whether there are more.
    pub limited: bool,
}

/// A page of rooms two users share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mutual {
    /// The rooms.
    pub joined: Vec<OwnedRoomId>,
    /// How many there are in all.
    pub count: usize,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

/// Finds users. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UserDirectory {
    cx: Context,
    timeline: Timeline,
}

/// What somebody is called, and their picture.
type Names = (Option<String>, Option<String>);

impl UserDirectory {
    /// On `timeline`.
    #[must_use]
    pub fn new(cx: Context, timeline: Timeline) -> Self {
        Self { cx, timeline }
    }

    /// Users whose id or name has `term` in it, in whatever letters.
    ///
    /// # Errors
    /// The database's.
    pub async fn search(&self, user: &User, term: &str, limit: Option<usize>) -> Result<Results> {
        let limit = limit.unwrap_or(RESULTS).min(RESULTS_MAX);
        let term: String = term.trim().chars().take(TERM_LEN_MAX).collect();
        if term.is_empty() {
            return Ok(Results { results: Vec::new(), limited: false });
        }
        let small = term.to_lowercase();
        let wanted = Patterns {
            small: &pattern(&small),
            typed: &pattern(&term),
            capital: &pattern(&capital(&small)),
            capitals: &pattern(&term.to_uppercase()),
        };
        let asked = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut tx = self.cx.store.read().await?;
        let found = user_directory::matching(&mut tx, user.nid, wanted, asked).await?;
        let others = if found.len() <= limit {
            user_directory::remote_members(&mut tx, user.nid, NAMES_COMPARED_MAX).await?
        } else {
            Vec::new()
        };
        drop(tx);
        let mut names = self.names_in_rooms(&others).await?;
        let mut hits: Vec<(i64, String)> = found.into_iter().map(|row| (row.user_nid, row.user_id)).collect();
        let by_name: Vec<i64> = names
            .iter()
            .filter(|(nid, (_, (name, _)))| {
                name.as_ref().is_some_and(|name| name.to_lowercase().contains(&small))
                    && !hits.iter().any(|hit| hit.0 == **nid)
            })
            .map(|(nid, _)| *nid)
            .collect();
        hits.extend(by_name.into_iter().filter_map(|nid| Some((nid, names.get(&nid)?.0.to_string()))));
        let limited = hits.len() > limit;
        hits.truncate(limit);
        let nids: Vec<i64> = hits.iter().map(|hit| hit.0).collect();
        let mut own = self.own_names(&nids).await?;
        let results = hits.into_iter().map(|(nid, user_id)| {
            let (display_name, avatar_url) =
                own.remove(&nid).or_else(|| names.remove(&nid).map(|(_, names)| names)).unwrap_or_default();
            Found { user_id, display_name, avatar_url }
        });
        Ok(Results { results: results.collect(), limited })
    }

    /// What other servers' users are called in the rooms through which they can be found.
    async fn names_in_rooms(&self, members: &[(i64, i64)]) -> Result<BTreeMap<i64, (OwnedUserId, Names)>> {
        let nids: Vec<i64> = members.iter().map(|(_, event)| *event).collect();
        let events = self.timeline.events.by_nids(&nids).await?;
        let named = members.iter().filter_map(|(user_nid, event_nid)| {
            let pdu = &events.get(event_nid)?.pdu;
            let user_id = OwnedUserId::try_from(pdu.state_key.as_deref()?).ok()?;
            let text = |name| facts::field::<String>(&pdu.content, name).filter(|text| !text.is_empty());
            Some((*user_nid, (user_id, (text("displayname"), text("avatar_url")))))
        });
        Ok(named.collect())
    }

    /// The profiles of our own users.
    async fn own_names(&self, nids: &[i64]) -> Result<HashMap<i64, Names>> {
        let rows = profiles::of_users(&mut self.cx.store.read().await?, nids).await?;
        let mut names: HashMap<i64, Names> = HashMap::new();
        for (nid, field, value) in rows {
            let text = serde_json::from_str::<String>(&value).ok().filter(|text| !text.is_empty());
            let known = names.entry(nid).or_default();
            if field == "displayname" { known.0 = text } else { known.1 = text }
        }
        Ok(names)
    }

    /// Rooms to which both the user and somebody else are joined.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for oneself, or a token that is none.
    pub async fn mutual_rooms(&self, user: &User, other: &UserId, from: Option<&str>) -> Result<Mutual> {
        if user.user_id == other {
            return Err(Error::InvalidParam("with yourself you share all rooms".to_owned()));
        }
        let from = match from {
            Some(token) => {
                let nid = token.strip_prefix('m').and_then(|nid| nid.parse::<i64>().ok());
                nid.ok_or_else(|| Error::InvalidParam("from is not a token of this server".to_owned()))?
            }
            None => 0,
        };
        let nothing = Mutual { joined: Vec::new(), count: 0, next_batch: None };
        let Some(other) = self.cx.numbers.user_if_known(other).await? else { return Ok(nothing) };
        let shared = members::shared_rooms(&mut self.cx.store.read().await?, user.nid, other).await?;
        let count = shared.len();
        let mut page: Vec<i64> = shared.into_iter().filter(|nid| *nid > from).collect();
        let has_more = page.len() > MUTUAL_ROOMS_PER_PAGE_MAX;
        page.truncate(MUTUAL_ROOMS_PER_PAGE_MAX);
        let next_batch = page.last().filter(|_| has_more).map(|nid| format!("m{nid}"));
        let rooms = self.timeline.now_many(&page).await?;
        let ids: HashMap<i64, &OwnedRoomId> = rooms.iter().map(|now| (now.nid, &now.room_id)).collect();
        let joined = page.iter().filter_map(|nid| ids.get(nid).map(|id| (*id).clone())).collect();
        Ok(Mutual { joined, count, next_batch })
    }
}

/// A pattern that finds `term` anywhere in a JSON text.
fn pattern(term: &str) -> String {
    let json = serde_json::Value::from(term).to_string();
    let inner = &json[1..json.len() - 1];
    let mut pattern = String::with_capacity(inner.len() + 2);
    pattern.push('%');
    for c in inner.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

fn capital(small: &str) -> String {
    let mut chars = small.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_that_mean_something_to_the_database_stand_for_themselves() {
        assert_eq!(pattern("50%_!"), "%50!%!_!!%");
        assert_eq!(pattern("\"x\\"), "%\\\"x\\\\%", "as JSON writes them");
    }

    #[test]
    fn a_capital_may_be_longer_than_its_letter() {
        assert_eq!(capital("ßa"), "SSa");
        assert_eq!(capital(""), "");
    }
}
