//! Who may see an event of the past.
//!
//! Pure functions of the history visibility and the memberships at the event, which the caller
//! looks up in the state there; nothing here reads a room.
//!
//! Source: <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5>.

use ruma::events::room::{history_visibility::HistoryVisibility, member::MembershipState};

use crate::event::{Pdu, kind};

/// A value at an event: before it, and after it if the event itself changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    pub before: T,
    /// Equal to `before` unless the event is the very one that sets the value.
    pub after: T,
}

impl<T: Clone> At<T> {
    /// A value the event does not touch.
    pub fn unchanged(value: T) -> Self {
        Self { before: value.clone(), after: value }
    }

    fn either(&self, allows: impl Fn(&T) -> bool) -> bool {
        allows(&self.before) || allows(&self.after)
    }
}

/// Whether the state after the event must be looked at as well for this reader.
pub fn changes_what_is_seen(event: &Pdu, reader: &str) -> bool {
    event.is_state(kind::HISTORY_VISIBILITY, "") || event.is_state(kind::MEMBER, reader)
}

/// Whether a user may see an event.
///
/// `joined_later` says whether the user was in the room at any time after the event; being in it
/// now is enough to know.
pub fn user_may_see(visibility: &At<HistoryVisibility>, membership: &At<MembershipState>, joined_later: bool) -> bool {
    visibility.either(|visibility| membership.either(|membership| allowed(visibility, membership, joined_later)))
}

fn allowed(visibility: &HistoryVisibility, membership: &MembershipState, joined_later: bool) -> bool {
    match (visibility, membership) {
        (HistoryVisibility::WorldReadable, _) | (_, MembershipState::Join) => true,
        (HistoryVisibility::Invited, MembershipState::Invite) => true,
        (HistoryVisibility::Invited | HistoryVisibility::Joined, _) => false,
        // Shared, and whatever is not understood, which counts as shared.
        _ => joined_later,
    }
}

/// Whether another server may have an event whole; otherwise give it redacted.
///
/// `memberships` are those of the server's users at the event. What members share may go to every
/// server that takes part: that it does now is for the caller to have checked.
pub fn server_may_see<'a>(
    visibility: &At<HistoryVisibility>,
    memberships: impl IntoIterator<Item = &'a MembershipState>,
) -> bool {
    let free =
        visibility.either(|visibility| !matches!(visibility, HistoryVisibility::Invited | HistoryVisibility::Joined));
    free || {
        let invited = visibility.either(|visibility| *visibility == HistoryVisibility::Invited);
        memberships.into_iter().any(|membership| match membership {
            MembershipState::Join => true,
            MembershipState::Invite => invited,
            _ => false,
        })
    }
}
