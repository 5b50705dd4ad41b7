//! Asking other servers to let our users in: joins, knocks, refused invitations, and invitations of their users to our rooms.
//!
//! The resident server's answers are believed no further than their signatures and the room's rules reach: what the event says is
//! ours, the state it gives is judged event by event.
//!
//! Source: Server-Server API, "Joining Rooms", "Inviting to a room", "Leaving Rooms (Rejecting Invites)", "Knocking upon a room".

pub mod third_party;

use std::{collections::HashMap, sync::Arc};

use room::{
    Pdu, auth,
    auth::facts,
    build::{self, Draft, complete_template},
    event::{kind, stripped},
    versions::{self, Rules},
};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId,
    api::federation::membership::{
        RawStrippedState, create_invite, create_join_event, create_knock_event, create_leave_event, prepare_join_event,
        prepare_knock_event, prepare_leave_event,
    },
    events::room::member::MembershipState,
    serde::JsonObject,
};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use storage::invitations::{self, Invitation};

use crate::{
    Context, Error, Result,
    federation::{
        Federation,
        client::{Terms, failure},
    },
    incoming::{How, Incoming, Room, Taken, retracted::version_of},
    notify::Change,
    one_at_a_time::OneAtATime,
    resident::{AUTHORISED_VIA, Resident},
    timeline::{Timeline, now::RoomNow},
};

/// Servers asked in turn to let a user in.
const SERVERS_ASKED_MAX: usize = 8;

/// Asks other servers to let our users in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Joining {
    cx: Context,
    timeline: Timeline,
    federation: Federation,
    incoming: Incoming,
    resident: Resident,
    /// One join of a room at a time: the second finds the first one's work done.
    turns: Arc<OneAtATime<OwnedRoomId>>,
}

/// A template with the rules of its room.
struct Prepared {
    version: RoomVersionId,
    rules: &'static Rules,
    event: Box<RawValue>,
}

impl Joining {
    /// On these.
    #[must_use]
    pub fn new(
        cx: Context,
        timeline: Timeline,
        federation: Federation,
        incoming: Incoming,
        resident: Resident,
    ) -> Self {
        Self { cx, timeline, federation, incoming, resident, turns: Arc::default() }
    }

    /// Bring a user of ours into a room none of ours is in, through one of `via`. `content` is that of their member event
    /// (`membership` is set here).
    ///
    /// # Errors
    /// What the server that knows best answered: [`Error::Remote`]; [`Error::Refused`]; [`Error::NotFound`] when nobody was asked.
    pub async fn join(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: &JsonObject,
    ) -> Result<Arc<RoomNow>> {
        let (joining, via) = (self.clone(), via.to_vec());
        let (user, room_id, content) = (user.to_owned(), room_id.to_owned(), content.clone());
        // On its own: the other server counts the user in from the moment it answers, whether or not ours still waits.
        let joined = tokio::spawn(async move { joining.join_in_turn(&user, &room_id, &via, &content).await });
        joined.await.map_err(|_| Error::Stopping)?
    }

    async fn join_in_turn(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: &JsonObject,
    ) -> Result<Arc<RoomNow>> {
        let turn = self.turns.of(&room_id.to_owned());
        let _turn = turn.lock().await;
        if let Ok(now) = self.timeline.room(room_id).await
            && now.has_local(self.cx.numbers.user(user).await?)
        {
            return Ok(now);
        }
        let mut problem = Error::NotFound("room");
        for server in self.servers(room_id, via) {
            match self.join_through(&server, user, room_id, content).await {
                Ok(now) => {
                    self.forget_invitation(user, room_id).await?;
                    return Ok(now);
                }
                Err(error) => {
                    tracing::info!(%server, room = %room_id, %error, "a join failed");
                    problem = telling(problem, error);
                }
            }
        }
        Err(problem)
    }

    /// Whom to ask, in order: those named. A room's id does not say where the room is, but where nobody is named the server in it is
    /// the best guess there is.
    fn servers(&self, room_id: &RoomId, via: &[OwnedServerName]) -> Vec<OwnedServerName> {
        let mut servers: Vec<OwnedServerName> = Vec::new();
        for server in via {
            if !self.cx.is_us(server) && !servers.contains(server) {
                servers.push(server.clone());
            }
        }
        if servers.is_empty() {
            let named = room_id.server_name().filter(|server| !self.cx.is_us(server));
            servers.extend(named.map(ToOwned::to_owned));
        }
        servers.truncate(SERVERS_ASKED_MAX);
        servers
    }

    async fn join_through(
        &self,
        server: &ServerName,
        user: &UserId,
        room_id: &RoomId,
        content: &JsonObject,
    ) -> Result<Arc<RoomNow>> {
        let client = self.federation.client();
        let mut request = prepare_join_event::v1::Request::new(room_id.to_owned(), user.to_owned());
        request.ver = versions::UNDERSTOOD.to_vec();
        let answer = client.send(server, request, Terms::BRIEF.at_once()).await?;
        let prepared = prepared(server, answer.room_version, answer.event)?;
        let mut content = content.clone();
        // Who lets the user into a restricted room is for the resident server to say.
        if let Some(authoriser) = authoriser_of(&prepared.event) {
            content.insert(AUTHORISED_VIA.to_owned(), authoriser.into());
        }
        let join = self.complete(&prepared, user, room_id, MembershipState::Join, content)?;

        let event_id = join.event_id.clone();
        let request = create_join_event::v2::Request::new(room_id.to_owned(), event_id.clone(), join.to_federation());
        let held = client.send_for_large(server, request, Terms::LARGE.at_once()).await?;
        let answer = held.answer.room_state;

        let nid = self.timeline.reserve_room(room_id, prepared.rules).await?;
        let room = Room { nid, id: room_id.to_owned(), rules: prepared.rules };
        // Where another server lets the user in, the event is complete only with its signature.
        let join = match answer.event {
            Some(signed) => {
                let signed = self.incoming.verified(&room, &[signed]).await?.pop();
                signed
                    .filter(|signed| signed.event_id == event_id)
                    .ok_or_else(|| failure(server, "it gave back another join than the one it was sent"))?
            }
            None => Arc::new(join),
        };
        let state = self.incoming.verified(&room, &answer.state).await?;
        let chain = self.incoming.verified(&room, &answer.auth_chain).await?;
        self.begin(server, &room, &prepared.version, join, state, chain).await
    }

    /// Judge the state a server gave us, and begin to follow the room.
    async fn begin(
        &self,
        server: &ServerName,
        room: &Room,
        version: &RoomVersionId,
        join: Arc<Pdu>,
        state: Vec<Arc<Pdu>>,
        mut chain: Vec<Arc<Pdu>>,
    ) -> Result<Arc<RoomNow>> {
        let create = state.iter().find(|event| event.is_create());
        let create = create.ok_or_else(|| failure(server, "it gave a state without a create event"))?;
        if facts::room_version(create) != *version {
            return Err(failure(server, "it gave the state of a room of another version"));
        }
        let state_ids: Vec<_> = state.iter().map(|event| event.event_id.clone()).collect();
        let known: std::collections::HashSet<_> = state_ids.iter().cloned().collect();
        chain.retain(|event| !known.contains(&event.event_id));
        chain.extend(state.iter().cloned());
        let kept = self.incoming.keep(room, &chain).await?;
        let allowed: HashMap<(&str, &str), &Arc<Pdu>> = state
            .iter()
            .filter(|event| kept.contains(&event.event_id))
            .filter_map(|event| Some(((event.kind.as_str(), event.state_key.as_deref()?), event)))
            .collect();
        auth::check(&join, room.rules, |event_kind, key| {
            allowed.get(&(event_kind, key)).map(|event| Arc::clone(event))
        })?;
        let allowed: Vec<_> = allowed.into_values().map(|event| event.event_id.clone()).collect();
        self.timeline.begin_remote(room.nid, version, room.rules, join, &allowed).await
    }

    fn complete(
        &self,
        prepared: &Prepared,
        user: &UserId,
        room_id: &RoomId,
        membership: MembershipState,
        mut content: JsonObject,
    ) -> Result<Pdu> {
        content.insert("membership".to_owned(), membership.as_str().into());
        let content = to_raw_value(&content).map_err(Error::internal)?;
        let draft = Draft::state(kind::MEMBER, user.as_str(), user.to_owned(), content);
        let at = self.cx.clock.now();
        let signer = self.cx.signer();
        Ok(complete_template(&prepared.event, &draft, room_id.to_owned(), at, signer, prepared.rules)?)
    }

    /// Leave a room that no user of ours is in: refuse an invitation, or take back a knock. The invitation ends here even when no
    /// server takes the leave.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no invitation; the database's.
    pub async fn leave(&self, user: &UserId, room_id: &RoomId, content: &JsonObject) -> Result<()> {
        let user_nid = self.cx.numbers.user(user).await?;
        let found = invitations::one(&mut self.cx.store.read().await?, user_nid, room_id.as_str()).await?;
        let invitation = found.filter(|found| found.membership != "leave").ok_or(Error::NotFound("invitation"))?;
        let inviter = <&UserId>::try_from(invitation.sender.as_str()).map(|inviter| inviter.server_name().to_owned());
        let via: Vec<OwnedServerName> = inviter.into_iter().collect();
        for server in self.servers(room_id, &via) {
            match self.leave_through(&server, user, room_id, content).await {
                Ok(leave) => return self.incoming.end_invitation(invitation, &leave).await,
                Err(error) => tracing::info!(%server, room = %room_id, %error, "a leave was not taken"),
            }
        }
        match self.lonely_leave(&invitation, user, room_id, content)? {
            Some(leave) => self.incoming.end_invitation(invitation, &leave).await,
            None => {
                let (membership, state) = ("leave".to_owned(), "[]".to_owned());
                self.put_invitation(&Invitation { membership, state, ..invitation }).await
            }
        }
    }

    /// The leave of a user whose leave no server takes, for their own clients: it follows the invitation. `None` when the room's
    /// version is not known.
    fn lonely_leave(
        &self,
        invitation: &Invitation,
        user: &UserId,
        room_id: &RoomId,
        content: &JsonObject,
    ) -> Result<Option<Pdu>> {
        let Some(version) = version_of(&invitation.state) else { return Ok(None) };
        let Ok(rules) = versions::rules(&version) else { return Ok(None) };
        let Ok(invited) = Pdu::from_remote(invitation.event.as_bytes(), rules) else { return Ok(None) };
        let template = json!({ "prev_events": [invited.event_id()], "auth_events": [invited.event_id()] });
        let event = to_raw_value(&template).map_err(Error::internal)?;
        let prepared = Prepared { version, rules, event };
        self.complete(&prepared, user, room_id, MembershipState::Leave, content.clone()).map(Some)
    }

    async fn leave_through(
        &self,
        server: &ServerName,
        user: &UserId,
        room_id: &RoomId,
        content: &JsonObject,
    ) -> Result<Pdu> {
        let client = self.federation.client();
        let request = prepare_leave_event::v1::Request::new(room_id.to_owned(), user.to_owned());
        let answer = client.send(server, request, Terms::BRIEF.at_once()).await?;
        let prepared = prepared(server, answer.room_version, answer.event)?;
        let leave = self.complete(&prepared, user, room_id, MembershipState::Leave, content.clone())?;
        let request =
            create_leave_event::v2::Request::new(room_id.to_owned(), leave.event_id.clone(), leave.to_federation());
        client.send(server, request, Terms::BRIEF.at_once()).await?;
        Ok(leave)
    }

    /// Knock at a room none of our users is in.
    ///
    /// # Errors
    /// As [`Joining::join`].
    pub async fn knock(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: &JsonObject,
    ) -> Result<()> {
        let mut problem = Error::NotFound("room");
        for server in self.servers(room_id, via) {
            match self.knock_through(&server, user, room_id, content).await {
                Ok(()) => return Ok(()),
                Err(error) => problem = telling(problem, error),
            }
        }
        Err(problem)
    }

    async fn knock_through(
        &self,
        server: &ServerName,
        user: &UserId,
        room_id: &RoomId,
        content: &JsonObject,
    ) -> Result<()> {
        let client = self.federation.client();
        let mut request = prepare_knock_event::v1::Request::new(room_id.to_owned(), user.to_owned());
        request.ver = versions::UNDERSTOOD.to_vec();
        let answer = client.send(server, request, Terms::BRIEF.at_once()).await?;
        let prepared = prepared(server, Some(answer.room_version), answer.event)?;
        let knock = self.complete(&prepared, user, room_id, MembershipState::Knock, content.clone())?;
        let request =
            create_knock_event::v1::Request::new(room_id.to_owned(), knock.event_id.clone(), knock.to_federation());
        let answer = client.send(server, request, Terms::BRIEF.at_once()).await?;
        let mut room = Room { nid: 0, id: room_id.to_owned(), rules: prepared.rules };
        room.nid = self.resident.number_outside(user, &room).await?;
        let told: Vec<Box<RawValue>> =
            answer.knock_room_state.iter().filter_map(|event| to_raw_value(event).ok()).collect();
        let mut state = self.resident.seen_from_outside(&room, &told).await?.shown;
        state.push(stripped::<ruma::events::AnyStrippedStateEvent>(&knock).into_json());
        self.put_invitation(&Invitation {
            user_nid: self.cx.numbers.user(user).await?,
            room_nid: room.nid,
            room_id: room_id.to_string(),
            membership: "knock".to_owned(),
            sender: format!("@:{server}"),
            event: knock.json.to_string(),
            state: serde_json::to_string(&state).map_err(Error::internal)?,
        })
        .await
    }

    async fn put_invitation(&self, invitation: &Invitation) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        invitations::put(&mut tx, invitation).await?;
        let span = tx.commit().await?;
        self.cx.notify.publish(Change { members: vec![invitation.user_nid], ..Change::at(span) });
        Ok(())
    }

    /// The user is in: nothing is left to be answered.
    async fn forget_invitation(&self, user: &UserId, room_id: &RoomId) -> Result<()> {
        let user_nid = self.cx.numbers.user(user).await?;
        let mut tx = self.cx.store.begin().await?;
        invitations::remove(&mut tx, user_nid, room_id.as_str()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Invite a user of another server to a room of ours: built here, signed by them, then stored and told to all.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Remote`] when their server does not take it.
    pub async fn invite(&self, now: &RoomNow, sender: &UserId, invited: &UserId, content: &JsonObject) -> Result<()> {
        let mut content = content.clone();
        content.insert("membership".to_owned(), MembershipState::Invite.as_str().into());
        let content = to_raw_value(&content).map_err(Error::internal)?;
        let draft = Draft::state(kind::MEMBER, invited.as_str(), sender.to_owned(), content);
        let place = self.resident.place(now, &draft).await?;
        let event = build::build(&draft, &place, self.cx.signer(), now.rules)?;
        self.resident.check(now, &event).await?;
        let state = self.resident.outside_state(now).await?;
        let state = state.iter().map(|event| RawStrippedState::Pdu(event.to_federation())).collect();

        let server = invited.server_name();
        let request = create_invite::v2::Request::new(
            now.room_id.clone(),
            event.event_id.clone(),
            now.version.clone(),
            event.to_federation(),
            state,
        );
        let answer = self.federation.client().send(server, request, Terms::BRIEF.at_once()).await;
        let answer = answer.map_err(|error| match error {
            // What we sent was wrong in its eyes, not what the user asked for.
            Error::Remote { matrix: Some((code, words)), .. }
                if matches!(code.as_str(), "M_MISSING_PARAM" | "M_INVALID_PARAM") =>
            {
                failure(server, format!("it answers {code}: {words}"))
            }
            error => error,
        })?;

        let room = Room::from(now);
        let signed = self.incoming.verified(&room, &[answer.event]).await?.pop();
        let signed = signed.filter(|signed| signed.event_id == event.event_id);
        let signed =
            signed.ok_or_else(|| failure(server, "it gave back another invitation than the one it was sent"))?;
        match self.incoming.take(&room, &self.cx.server_name, signed, How::RELAYED).await? {
            Taken::Accepted(_) | Taken::Known => Ok(()),
            Taken::Rejected(refusal) | Taken::SoftFailed(refusal) => Err(refusal.into()),
            Taken::Undecided(_) => Err(Error::internal("our own invitation cannot be judged")),
        }
    }
}

/// The rules of a template's room.
fn prepared(server: &ServerName, version: Option<RoomVersionId>, event: Box<RawValue>) -> Result<Prepared> {
    let version = version.unwrap_or(RoomVersionId::V1);
    let rules = versions::rules(&version).map_err(|unsupported| failure(server, unsupported.to_string()))?;
    Ok(Prepared { version, rules, event })
}

fn authoriser_of(template: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Content {
        join_authorised_via_users_server: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Event {
        content: Content,
    }
    serde_json::from_str::<Event>(template.get()).ok()?.content.join_authorised_via_users_server
}

/// Of two failures the one that tells the user more: a refusal rather than that a server cannot say, either rather than its absence;
/// the first of equals.
fn telling(before: Error, new: Error) -> Error {
    let rank = |error: &Error| match error {
        Error::Remote { matrix: Some((code, _)), .. } if code.starts_with("M_UNABLE_TO_") => 2,
        Error::Remote { matrix: Some(_), .. } | Error::Refused(_) => 3,
        Error::Remote { .. } => 1,
        _ => 0,
    };
    if rank(&new) > rank(&before) { new } else { before }
}
