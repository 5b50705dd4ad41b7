//! Which of a room's newest events the user is shown, and who came and went among all of them.

use std::sync::Arc;

use room::{auth::facts, event::kind};
use ruma::{UserId, events::room::member::MembershipState};
use storage::timeline::flags;

use super::{Answer, Draft, Moves};
use crate::{
    Result,
    reading::{Access, Right, reader},
    timeline::cell::Recent,
};

impl Answer<'_> {
    /// Leave of a draft's events what the user may see and the filter wants, at most so many as are asked for.
    pub(super) async fn cut(&self, draft: &mut Draft, right: &Right) -> Result<()> {
        let filter = &self.request.filter.room.timeline;
        draft.is_spoken_about = super::may_be_spoken_about(&draft.events);
        draft.has_moves = draft.events.iter().any(|e| e.event.pdu.kind == kind::MEMBER);
        drop_before_gap(draft);
        self.drop_ignored(draft).await?;
        self.drop_unseen(draft, right).await?;
        if !filter.is_open() {
            let wants = |e: &Arc<Recent>| {
                let pdu = &e.event.pdu;
                filter.wants(&pdu.kind, pdu.sender.as_str(), pdu.content.get())
            };
            draft.hides_state = draft.events.iter().any(|e| e.flags & flags::STATE_CHANGES != 0 && !wants(e));
            draft.events.retain(wants);
        }
        let len = filter.timeline_len();
        if draft.events.len() > len {
            draft.limited = true;
            draft.events.drain(..draft.events.len() - len);
        }
        Ok(())
    }

    /// Whom the user ignores they do not hear; what those change in the room holds for the user too.
    async fn drop_ignored(&self, draft: &mut Draft) -> Result<()> {
        let ignored = self.sync.from.ignored.of(self.request.user.nid).await?;
        if !ignored.is_empty() {
            draft.events.retain(|e| e.event.pdu.state_key.is_some() || !ignored.contains(&e.event.pdu.sender));
        }
        Ok(())
    }

    /// What happened before the user came is seen as far as the room shows it. Most windows begin later and cost nothing.
    async fn drop_unseen(&self, draft: &mut Draft, right: &Right) -> Result<()> {
        let own = self.request.user.user_id.as_str();
        let Some(own_at) = draft.events.iter().rposition(|e| e.event.pdu.is_state(kind::MEMBER, own)) else {
            return Ok(());
        };
        let earlier = &draft.events[..own_at];
        let is_open = !matches!(draft.now.facts.history_visibility.as_deref(), Some("invited" | "joined"))
            && !earlier.iter().any(|e| e.event.pdu.is_state(kind::HISTORY_VISIBILITY, ""));
        if is_open || earlier.iter().all(|e| e.event.pdu.is_create()) {
            return Ok(());
        }
        let access = Access { now: Arc::clone(&draft.now), reader: reader(&self.request.user), right: right.clone() };
        let events = earlier.iter().map(|e| Arc::clone(&e.event)).collect();
        let seen = self.sync.from.reading.visible_nids(&access, events).await?;
        let mut at = 0;
        draft.events.retain(|e| {
            at += 1;
            at > own_at || seen.contains(&e.event.nid)
        });
        Ok(())
    }

    /// Who came and went in rooms with something new.
    pub(super) async fn moves(&self, drafts: &[Draft]) -> Result<Moves> {
        let mut moves = Moves::default();
        if self.since == 0 {
            return Ok(moves);
        }
        let (mut changed, mut newcomers): (Vec<i64>, Vec<&UserId>) = (Vec::new(), Vec::new());
        for draft in drafts {
            if draft.is_whole() {
                moves.happened = true;
                moves.new_rooms.push(draft.now.nid);
                continue;
            }
            moves.happened |= draft.has_moves;
            changed.extend(draft.changes.iter().map(|row| row.change.state_key_nid));
            let joins = draft
                .events
                .iter()
                .map(|e| &e.event.pdu)
                .filter(|pdu| pdu.kind == kind::MEMBER && facts::membership(pdu) == MembershipState::Join);
            newcomers.extend(joins.filter_map(|pdu| <&UserId>::try_from(pdu.state_key.as_deref()?).ok()));
        }
        if !moves.happened && !changed.is_empty() {
            let names = self.sync.cx.numbers.state_key_names(&changed).await?;
            moves.happened = names.values().any(|(kind, _)| &**kind == kind::MEMBER);
        }
        if !newcomers.is_empty() {
            let known = self.sync.cx.numbers.users_if_known(&newcomers).await?;
            moves.newcomers.extend(known.into_iter().map(|(_, nid)| nid));
        }
        Ok(moves)
    }
}

/// What stands before a hole in the history is left to paging, which fills the hole.
fn drop_before_gap(draft: &mut Draft) {
    if let Some(at) = draft.events.iter().rposition(|e| e.flags & flags::AFTER_GAP != 0) {
        draft.events.drain(..at);
        draft.limited = true;
    }
}
