//! What users find wrong and tell the server's administrators: rooms, events, other users.
//!
//! Reports are kept; showing them is the administrators' part. Source: Client-Server API, "Reporting Content".

use ruma::{EventId, RoomId, UserId};
use storage::reports as rows;

pub use storage::reports::Report;

use crate::{Context, Error, Result, accounts::User, reading::Reading, timeline::Timeline};

/// The longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 1_000;
/// Letters of a report's id.
const ID_LEN: usize = 18;
/// Reports of one page at most.
const PAGE_LEN_MAX: usize = 100;

/// Keeps reports. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reports {
    cx: Context,
    timeline: Timeline,
    reading: Reading,
}

/// What is reported.
#[derive(Debug, Clone, Copy, Default)]
struct Subject<'a> {
    room_id: Option<&'a RoomId>,
    event_id: Option<&'a EventId>,
    user_id: Option<&'a UserId>,
}

impl Reports {
    /// From these.
    #[must_use]
    pub fn new(cx: Context, timeline: Timeline, reading: Reading) -> Self {
        Self { cx, timeline, reading }
    }

    /// Report a room; whoever reports need not be in it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a room that is not known here; [`Error::TooLarge`].
    pub async fn room(&self, user: &User, room_id: &RoomId, reason: &str) -> Result<()> {
        self.timeline.room_nid(room_id).await?;
        self.keep(user, Subject { room_id: Some(room_id), ..Subject::default() }, reason).await
    }

    /// Report an event of a room one is in.
    ///
    /// # Errors
    /// [`Error::NotFound`] also for those outside the room and for what they may not see; [`Error::TooLarge`].
    pub async fn event(&self, user: &User, room_id: &RoomId, event_id: &EventId, reason: &str) -> Result<()> {
        let access = match self.reading.access(user, room_id).await {
            Ok(access) if access.is_joined() => access,
            Ok(_) | Err(Error::Forbidden(_)) => return Err(Error::NotFound("event")),
            Err(error) => return Err(error),
        };
        self.reading.event(&access, event_id).await?;
        let subject = Subject { room_id: Some(room_id), event_id: Some(event_id), user_id: None };
        self.keep(user, subject, reason).await
    }

    /// Report a user. Whether there is such a user is not told to those who share no room with them.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub async fn user(&self, user: &User, reported: &UserId, reason: &str) -> Result<()> {
        let is_known = self.cx.numbers.user_if_known(reported).await?.is_some();
        if !is_known {
            check(reason)?;
            return Ok(());
        }
        self.keep(user, Subject { user_id: Some(reported), ..Subject::default() }, reason).await
    }

    async fn keep(&self, user: &User, subject: Subject<'_>, reason: &str) -> Result<()> {
        check(reason)?;
        let report = Report {
            id: self.cx.randomness.letters(ID_LEN),
            received_ms: i64::try_from(self.cx.clock.now_ms()).unwrap_or(i64::MAX),
            reporter_nid: user.nid,
            room_id: subject.room_id.map(ToString::to_string),
            event_id: subject.event_id.map(ToString::to_string),
            user_id: subject.user_id.map(ToString::to_string),
            reason: reason.to_owned(),
        };
        let mut tx = self.cx.store.begin().await?;
        rows::put(&mut tx, &report).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Reports before a place (time and id of the last one seen), the newest first, for administrators.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn page(&self, user: &User, before: Option<(i64, &str)>, limit: usize) -> Result<Vec<Report>> {
        user.must_be_admin()?;
        let limit = i64::try_from(limit.clamp(1, PAGE_LEN_MAX)).unwrap_or(1);
        let before = before.unwrap_or((i64::MAX, ""));
        Ok(rows::before(&mut self.cx.store.read().await?, before, limit).await?)
    }
}

fn check(reason: &str) -> Result<()> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(Error::TooLarge(format!("a reason has at most {REASON_BYTES_MAX} bytes")));
    }
    Ok(())
}
