//! A room as it is, in one answer: what somebody begins with who looks into a room from outside.
//!
//! Source: Client-Server API, "Room previews" (`GET /rooms/{roomId}/initialSync`).

use room::{auth::facts, event::kind};
use ruma::RoomId;
use storage::account_data;

use super::{
    Rooms,
    history::{PAGE_LEN, Point, Wanted},
};
use crate::{
    Result,
    accounts::User,
    sync::{
        Token, account,
        filter::EventFilter,
        old::{Chunk, RoomInfo, visibility},
    },
    timeline::effects::membership_word,
};

impl Rooms {
    /// A room's state and newest events, for members, those who left, and whoever may read it.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] for who may not.
    pub async fn as_it_is(&self, user: &User, room_id: &RoomId) -> Result<RoomInfo> {
        let at = Token { pos: self.cx.notify.stable(), ..Token::default() };
        let access = self.from.reading.access(user, room_id).await?;
        let from = Some(Point::Stream(at.pos));
        let wanted = Wanted { from, to: None, back: true, limit: PAGE_LEN, filter: EventFilter::default() };
        let mut page = self.messages(user, room_id, wanted).await?;
        page.chunk.reverse();
        let snapshot = self.from.reading.state(&access).await?;
        let member = self.from.timeline.state_event_in(&snapshot, kind::MEMBER, user.user_id.as_str()).await?;
        let state = self.plain(&self.from.timeline.state_events(&snapshot).await?)?;
        let mut tx = self.cx.store.read().await?;
        let data = account_data::in_rooms(&mut tx, user.nid, &[access.now.nid], i64::MAX).await?;
        drop(tx);
        Ok(RoomInfo {
            room_id: room_id.to_string(),
            membership: member.map(|event| membership_word(&facts::membership(&event.pdu)).to_owned()),
            invite: None,
            messages: Some(Chunk { start: page.end, end: at.to_string(), chunk: page.chunk }),
            state,
            visibility: Some(visibility(self.from.directory.is_listed(room_id).await?)),
            account_data: data.iter().map(|row| account::piece(&row.kind, &row.body)).collect::<Result<_>>()?,
        })
    }
}
