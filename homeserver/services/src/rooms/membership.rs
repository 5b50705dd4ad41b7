//! Coming and going: joins, knocks, invitations, leaving, kicks and bans.
//!
//! Each becomes one member event; whether the room allows it is the room's rules' affair. Here stands what those do not say: what
//! repeats is no error, what the words kick and unban mean, who vouches for a restricted join, what becomes of rooms and
//! users elsewhere.
//!
//! Source: Client-Server API, "Room membership"; Server-Server API, "Restricted rooms".

use room::{build::Draft, event::kind};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomOrAliasId, UserId, room::JoinRuleKind,
};
use serde_json::{Map, Value, value::to_raw_value};
use storage::{
    invitations,
    members::{self, Member},
};

use super::{Rooms, is_present_here, may_speak, not_in_room};
use crate::{
    Error, Result, accounts::User, error::Code, notify::Whisper, resident::AUTHORISED_VIA,
    sync::watch::FORGET_MEMBERSHIPS, timeline::now::RoomNow,
};

/// Further content of a member event: `reason`, and whatever else the client sent.
pub type Extra = Map<String, Value>;

/// What a user is called and looks like, for their member events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Face {
    /// Display name.
    pub display_name: Option<String>,
    /// Avatar.
    pub avatar_url: Option<String>,
}

/// How a join of a room with restricted access is vouched for.
enum Voucher {
    /// The room asks for none.
    NotNeeded,
    /// A user of ours with the power to invite.
    Ours(OwnedUserId),
    /// Only other servers have such a user.
    Elsewhere,
}

impl Rooms {
    /// Join a room by id or alias. `via`: servers that may help. Joining twice is no error.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::NotFound`]; [`Error::Forbidden`]; `M_GUEST_ACCESS_FORBIDDEN`; what other servers fail at.
    pub async fn join(
        &self,
        user: &User,
        name: &RoomOrAliasId,
        via: &[OwnedServerName],
        extra: Extra,
    ) -> Result<OwnedRoomId> {
        may_speak(user)?;
        let (room_id, servers) = self.named(name, via).await?;
        self.join_by_id(user, &room_id, servers, extra).await?;
        Ok(room_id)
    }

    /// Join a room. The member event's id, when it was made here.
    pub(super) async fn join_by_id(
        &self,
        user: &User,
        room_id: &RoomId,
        via: Vec<OwnedServerName>,
        mut extra: Extra,
    ) -> Result<Option<OwnedEventId>> {
        extra.remove(AUTHORISED_VIA);
        let now = match self.from.timeline.room(room_id).await {
            Ok(now) if is_present_here(&now) => now,
            Ok(_) | Err(Error::NotFound(_)) => return self.join_elsewhere(user, room_id, via, extra).await,
            Err(error) => return Err(error),
        };
        if now.has_local(user.nid) {
            return Ok(None);
        }
        if user.is_guest && now.facts.guest_access.as_deref() != Some("can_join") {
            return Err(Error::Specific(Code::GuestAccessForbidden, "guests may not join this room".to_owned()));
        }
        match self.voucher(&now, user).await? {
            Voucher::NotNeeded => {}
            Voucher::Ours(voucher) => {
                extra.insert(AUTHORISED_VIA.to_owned(), voucher.as_str().into());
            }
            Voucher::Elsewhere => {
                let mut via = via;
                via.extend(self.servers_of(&now).await?);
                return self.join_elsewhere(user, room_id, via, extra).await;
            }
        }
        let content = member_content("join", &self.profile_of(&user.user_id).await?, extra);
        let event_id = self.set_member(&now, &user.user_id, &user.user_id, &content).await?;
        self.carry_over(user, &now).await;
        Ok(Some(event_id))
    }

    async fn join_elsewhere(
        &self,
        user: &User,
        room_id: &RoomId,
        mut via: Vec<OwnedServerName>,
        extra: Extra,
    ) -> Result<Option<OwnedEventId>> {
        let invitation = invitations::one(&mut self.cx.store.read().await?, user.nid, room_id.as_str()).await?;
        let inviter = invitation.as_ref().and_then(|row| <&UserId>::try_from(row.sender.as_str()).ok());
        via.extend(inviter.map(|inviter| inviter.server_name().to_owned()));
        let content = member_content("join", &self.profile_of(&user.user_id).await?, extra).into_iter().collect();
        self.from.joining.join(&user.user_id, room_id, &via, &content).await?;
        self.carry_over(user, &*self.from.timeline.room(room_id).await?).await;
        Ok(None)
    }

    /// Knock at a room's door.
    ///
    /// # Errors
    /// As [`Rooms::join`].
    pub async fn knock(
        &self,
        user: &User,
        name: &RoomOrAliasId,
        via: &[OwnedServerName],
        extra: Extra,
    ) -> Result<OwnedRoomId> {
        may_speak(user)?;
        let (room_id, servers) = self.named(name, via).await?;
        self.knock_by_id(user, &room_id, servers, extra).await?;
        Ok(room_id)
    }

    pub(super) async fn knock_by_id(
        &self,
        user: &User,
        room_id: &RoomId,
        via: Vec<OwnedServerName>,
        extra: Extra,
    ) -> Result<Option<OwnedEventId>> {
        let content = member_content("knock", &self.profile_of(&user.user_id).await?, extra);
        match self.from.timeline.room(room_id).await {
            Ok(now) if is_present_here(&now) => {
                self.set_member(&now, &user.user_id, &user.user_id, &content).await.map(Some)
            }
            Ok(_) | Err(Error::NotFound(_)) => {
                let content = content.into_iter().collect();
                self.from.joining.knock(&user.user_id, room_id, &via, &content).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Invite somebody. Inviting whom one has invited already changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Forbidden`].
    pub async fn invite(&self, user: &User, room_id: &RoomId, target: &UserId, extra: Extra) -> Result<OwnedEventId> {
        may_speak(user)?;
        let now = self.room(room_id).await?;
        if let Some(member) = self.member(&now, target).await?
            && member.membership == "invite"
        {
            let event = self.from.timeline.events.by_nid(member.event_nid).await?;
            if event.pdu.sender == user.user_id && now.has_local(user.nid) {
                return Ok(event.pdu.event_id.clone());
            }
        }
        let content = member_content("invite", &self.profile_of(target).await?, extra);
        if self.cx.is_local(target) {
            return self.set_member(&now, &user.user_id, target, &content).await;
        }
        if !now.has_local(user.nid) {
            return Err(not_in_room());
        }
        self.from.joining.invite(&now, &user.user_id, target, &content.into_iter().collect()).await?;
        self.member_event_id(room_id, target).await
    }

    /// Leave a room, refuse an invitation or take back a knock. Leaving twice is no error.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown room; [`Error::Forbidden`] for a room one never was in.
    pub async fn leave(&self, user: &User, room_id: &RoomId, extra: Extra) -> Result<Option<OwnedEventId>> {
        self.leave_as(&user.user_id, user.nid, room_id, extra).await
    }

    pub(super) async fn leave_as(
        &self,
        user: &UserId,
        user_nid: i64,
        room_id: &RoomId,
        extra: Extra,
    ) -> Result<Option<OwnedEventId>> {
        let now = match self.from.timeline.room(room_id).await {
            Ok(now) => Some(now),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let mut has_left = false;
        if let Some(now) = &now {
            let member = self.member(now, user).await?;
            match member.as_ref().map(|m| m.membership.as_str()) {
                Some("join" | "invite" | "knock") if is_present_here(now) => {
                    let content = member_content("leave", &Face::default(), extra);
                    return self.set_member(now, user, user, &content).await.map(Some);
                }
                Some("leave") => has_left = true,
                _ => {}
            }
        }
        let invitation = invitations::one(&mut self.cx.store.read().await?, user_nid, room_id.as_str()).await?;
        match invitation {
            Some(invitation) if invitation.membership != "leave" => {
                let content = member_content("leave", &Face::default(), extra).into_iter().collect();
                self.from.joining.leave(user, room_id, &content).await?;
                Ok(None)
            }
            Some(_) => Ok(None),
            None if has_left => Ok(None),
            None if now.is_none() => Err(Error::NotFound("room")),
            None => Err(not_in_room()),
        }
    }

    /// Make somebody leave.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Forbidden`] when they are not in the room.
    pub async fn kick(&self, user: &User, room_id: &RoomId, target: &UserId, extra: Extra) -> Result<OwnedEventId> {
        may_speak(user)?;
        let now = self.room(room_id).await?;
        let member = self.member(&now, target).await?;
        if !member.is_some_and(|m| matches!(m.membership.as_str(), "join" | "invite" | "knock")) {
            return Err(Error::forbidden("they are not in this room"));
        }
        let content = member_content("leave", &Face::default(), extra);
        self.set_member(&now, &user.user_id, target, &content).await
    }

    /// Ban somebody.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn ban(&self, user: &User, room_id: &RoomId, target: &UserId, extra: Extra) -> Result<OwnedEventId> {
        may_speak(user)?;
        let now = self.room(room_id).await?;
        let content = member_content("ban", &Face::default(), extra);
        self.set_member(&now, &user.user_id, target, &content).await
    }

    /// Take a ban back.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Forbidden`] when they are not banned.
    pub async fn unban(&self, user: &User, room_id: &RoomId, target: &UserId, extra: Extra) -> Result<OwnedEventId> {
        may_speak(user)?;
        let now = self.room(room_id).await?;
        if self.member(&now, target).await?.is_none_or(|m| m.membership != "ban") {
            return Err(Error::forbidden("they are not banned from this room"));
        }
        let content = member_content("leave", &Face::default(), extra);
        self.set_member(&now, &user.user_id, target, &content).await
    }

    /// Not see a room any more that one has left.
    ///
    /// # Errors
    /// `M_UNKNOWN` while one is in it.
    pub async fn forget(&self, user: &User, room_id: &RoomId) -> Result<()> {
        let now = match self.from.timeline.room(room_id).await {
            Ok(now) => Some(now),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let mut tx = self.cx.store.begin().await?;
        let outside = invitations::one(&mut tx, user.nid, room_id.as_str()).await?;
        if outside.is_some_and(|invitation| invitation.membership == "leave") {
            invitations::remove(&mut tx, user.nid, room_id.as_str()).await?;
        }
        if let Some(now) = now
            && !members::forget(&mut tx, now.nid, user.nid).await?
            && members::membership(&mut tx, now.nid, user.nid).await?.is_some()
        {
            return Err(Error::Specific(Code::Unknown, "you are still in this room".to_owned()));
        }
        tx.commit().await?;
        self.cx.notify.whisper(&Whisper::Forget(FORGET_MEMBERSHIPS.to_owned(), user.nid.to_string()));
        Ok(())
    }

    /// What somebody puts into their own or another's member event by the general way of setting state.
    ///
    /// # Errors
    /// As the membership asked for; [`Error::Invalid`] without one.
    pub(super) async fn put_member(
        &self,
        user: &User,
        room_id: &RoomId,
        target: &UserId,
        mut content: Extra,
    ) -> Result<OwnedEventId> {
        let membership = content.remove("membership");
        // Who vouches for a join is for servers to say.
        content.remove(AUTHORISED_VIA);
        let membership = membership.as_ref().and_then(Value::as_str).unwrap_or_default();
        let is_own = user.user_id == target;
        let done = match membership {
            "join" if is_own => {
                let now = self.room(room_id).await?;
                if now.has_local(user.nid) {
                    let content = member_content("join", &self.profile_of(target).await?, content);
                    return self.set_member(&now, target, target, &content).await;
                }
                self.join_by_id(user, room_id, Vec::new(), content).await?
            }
            "knock" if is_own => self.knock_by_id(user, room_id, Vec::new(), content).await?,
            "join" | "knock" => return Err(Error::forbidden("nobody joins or knocks for somebody else")),
            "leave" if is_own => self.leave(user, room_id, content).await?,
            "leave" => {
                let now = self.room(room_id).await?;
                let is_banned = self.member(&now, target).await?.is_some_and(|m| m.membership == "ban");
                Some(if is_banned {
                    self.unban(user, room_id, target, content).await?
                } else {
                    self.kick(user, room_id, target, content).await?
                })
            }
            "invite" => Some(self.invite(user, room_id, target, content).await?),
            "ban" => Some(self.ban(user, room_id, target, content).await?),
            _ => return Err(Error::Invalid("membership is none of those the specification knows".to_owned())),
        };
        match done {
            Some(event_id) => Ok(event_id),
            None => self.member_event_id(room_id, target).await,
        }
    }

    /// The member event of somebody in a room's current state.
    async fn member_event_id(&self, room_id: &RoomId, user: &UserId) -> Result<OwnedEventId> {
        let now = self.room(room_id).await?;
        let event = self.from.timeline.state_event(&now, kind::MEMBER, user.as_str()).await?;
        Ok(event.ok_or_else(not_in_room)?.pdu.event_id.clone())
    }

    /// Put a member event into a room.
    pub(super) async fn set_member(
        &self,
        now: &RoomNow,
        sender: &UserId,
        target: &UserId,
        content: &Extra,
    ) -> Result<OwnedEventId> {
        let content = to_raw_value(content).map_err(Error::internal)?;
        let draft = Draft::state(kind::MEMBER, target.as_str(), sender.to_owned(), content);
        Ok(self.from.timeline.append(now.nid, draft).await?.event_id)
    }

    /// A user's place in a room, as its current state says.
    pub(super) async fn member(&self, now: &RoomNow, user: &UserId) -> Result<Option<Member>> {
        let Some(nid) = self.cx.numbers.user_if_known(user).await? else { return Ok(None) };
        Ok(members::membership(&mut self.cx.store.read().await?, now.nid, nid).await?)
    }

    /// What one of our users is called; others say it themselves.
    pub(super) async fn profile_of(&self, user: &UserId) -> Result<Face> {
        if !self.cx.is_local(user) {
            return Ok(Face::default());
        }
        let Some(nid) = self.cx.numbers.user_if_known(user).await? else { return Ok(Face::default()) };
        let (display_name, avatar_url) = self.from.profiles.for_membership(nid).await?;
        Ok(Face { display_name, avatar_url })
    }

    /// Who vouches for a join: nobody unless the room's access is restricted and the user is not invited.
    async fn voucher(&self, now: &RoomNow, user: &User) -> Result<Voucher> {
        let rule = JoinRuleKind::from(now.facts.join_rule.as_deref().unwrap_or_default());
        if !matches!(rule, JoinRuleKind::Restricted | JoinRuleKind::KnockRestricted) {
            return Ok(Voucher::NotNeeded);
        }
        if self.member(now, &user.user_id).await?.is_some_and(|m| matches!(m.membership.as_str(), "invite" | "ban")) {
            // Invited they need none; banned the room's rules refuse them in their own words.
            return Ok(Voucher::NotNeeded);
        }
        if !self.is_in_any(now.facts.allowed_rooms.as_deref(), user).await? {
            return Err(Error::forbidden("you are in none of the rooms whose members may join this one"));
        }
        let powers = self.from.timeline.powers(now).await?;
        let named: Vec<&UserId> = powers
            .users()
            .keys()
            .chain(powers.creators())
            .map(|user| &**user)
            .filter(|user| self.cx.is_local(user) && powers.can_invite(user))
            .collect();
        for (user, nid) in self.cx.numbers.users_if_known(&named).await? {
            if now.has_local(nid) {
                return Ok(Voucher::Ours(user.to_owned()));
            }
        }
        let local: Vec<i64> = now.inhabitants.local.iter().copied().take(VOUCHERS_TRIED_MAX).collect();
        for name in self.cx.numbers.user_names(&local).await?.into_values() {
            let user = OwnedUserId::try_from(&*name).map_err(Error::internal)?;
            if powers.can_invite(&user) {
                return Ok(Voucher::Ours(user));
            }
        }
        let only_us = now.inhabitants.servers.len() <= 1;
        if only_us { Err(Error::forbidden("nobody here may vouch for you")) } else { Ok(Voucher::Elsewhere) }
    }

    /// Whether a user is in one of the rooms of a JSON list. Our users' rooms are all known here.
    async fn is_in_any(&self, rooms: Option<&str>, user: &User) -> Result<bool> {
        let rooms: Vec<OwnedRoomId> = rooms.and_then(|list| serde_json::from_str(list).ok()).unwrap_or_default();
        for room_id in rooms {
            match self.from.timeline.room(&room_id).await {
                Ok(now) if now.has_local(user.nid) => return Ok(true),
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn servers_of(&self, now: &RoomNow) -> Result<Vec<OwnedServerName>> {
        let nids: Vec<i64> = now.inhabitants.servers.keys().copied().collect();
        let names = self.cx.numbers.server_names(&nids).await?;
        Ok(names.into_values().filter_map(|name| OwnedServerName::try_from(&*name).ok()).collect())
    }
}

/// Users of ours without a named power who are looked at as vouchers.
const VOUCHERS_TRIED_MAX: usize = 10;

/// The content of a member event. What the client sent wins over the profile.
pub(super) fn member_content(membership: &str, face: &Face, extra: Extra) -> Extra {
    let mut content = Extra::new();
    if let Some(name) = &face.display_name {
        content.insert("displayname".to_owned(), name.as_str().into());
    }
    if let Some(avatar) = &face.avatar_url {
        content.insert("avatar_url".to_owned(), avatar.as_str().into());
    }
    content.extend(extra);
    content.insert("membership".to_owned(), membership.into());
    content
}
