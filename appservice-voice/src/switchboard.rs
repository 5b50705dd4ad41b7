//! Connects the rooms with everything around them: sessions, the SFU, the homeserver.
//!
//! One lock guards the rooms and who sits where; it is held for short, never across an `.await`. Each change of a room
//! yields effects, which are carried out under the same lock, so that everybody sees changes in one order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rand::RngCore as _;
use tokio::sync::watch;
use voice_protocol::{
    methods::{Join, Joined, Muted},
    notifications::{LeaveReason, News, ServerGoingAway, Tracks},
};

use crate::{
    clock,
    matrix::{
        client::{Client, Fault},
        membership::{Memberships, Seat},
        openid::Verifier,
    },
    room::{
        Audience, Device, Effect, Newcomer, ParticipantId, Refusal, Room,
        access::{Access, StateEvent},
    },
    sfu::{Happening, Sfu, demux::base32},
    signalling::outbox::Outbox,
};

/// Connections of one user.
const SESSIONS_PER_USER_MAX: usize = 10;
/// Rooms whose state is kept though nobody is in.
const EMPTY_ROOMS_MAX: usize = 256;
/// How long the state of an empty room is kept.
const EMPTY_ROOM_MAX: Duration = Duration::from_secs(300);
/// State events kept for a room while its state is being read.
const EVENTS_WHILE_READING_MAX: usize = 1_000;
/// When clients may try again after the server stopped.
const RESUME_AFTER_MS: u64 = 2_000;

/// Why a join failed.
#[derive(Debug)]
pub(crate) enum JoinFault {
    Refused(Refusal),
    Homeserver(Fault),
}

impl From<Refusal> for JoinFault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

pub(crate) struct Switchboard {
    state: Mutex<State>,
    sfu: Sfu,
    homeserver: Arc<Client>,
    verifier: Verifier,
    memberships: Arc<Memberships>,
    server_name: String,
    stopping: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    rooms: HashMap<String, Hosted>,
    outboxes: HashMap<ParticipantId, Outbox>,
    /// Rooms whose state is being read, with what was pushed meanwhile and the number of readers.
    reading: HashMap<String, (usize, Vec<StateEvent>)>,
    sessions: HashMap<String, usize>,
    stopped: bool,
}

struct Hosted {
    room: Room,
    key: Arc<str>,
    empty_since: Option<Instant>,
}

impl Switchboard {
    pub(crate) fn new(
        sfu: Sfu,
        homeserver: Arc<Client>,
        verifier: Verifier,
        memberships: Arc<Memberships>,
        server_name: String,
    ) -> Self {
        let stopping = watch::Sender::new(false);
        Self { state: Mutex::default(), sfu, homeserver, verifier, memberships, server_name, stopping }
    }

    pub(crate) fn sfu(&self) -> &Sfu {
        &self.sfu
    }

    pub(crate) fn homeserver(&self) -> &Client {
        &self.homeserver
    }

    pub(crate) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Becomes true when the service stops.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// A name that nobody can guess.
    pub(crate) fn new_id(prefix: &str) -> String {
        let mut random = [0; 10];
        rand::rng().fill_bytes(&mut random);
        format!("{prefix}{}", base32(&random))
    }

    /// Count a connection of `user_id`; false when there are too many.
    pub(crate) fn open_session(&self, user_id: &str) -> bool {
        let mut state = self.lock();
        let count = state.sessions.entry(user_id.to_owned()).or_default();
        if *count >= SESSIONS_PER_USER_MAX {
            return false;
        }
        *count += 1;
        true
    }

    pub(crate) fn close_session(&self, user_id: &str) {
        let mut state = self.lock();
        if let Some(count) = state.sessions.get_mut(user_id) {
            *count -= 1;
            if *count == 0 {
                state.sessions.remove(user_id);
            }
        }
    }

    /// Let a device into a room, if the room's state lets it.
    pub(crate) async fn join(&self, device: Device, join: Join, outbox: Outbox) -> Result<Joined, JoinFault> {
        let id = ParticipantId::new(&Self::new_id("p_"));
        let newcomer = Newcomer { id, device, muted: join.muted, deafened: join.deafened };
        match self.try_join(&join.room_id, &newcomer, &outbox) {
            Ok(joined) => return Ok(joined),
            Err(refusal @ Refusal::Full { .. }) => return Err(refusal.into()),
            // The state may be unread yet, or the push that changes it may be under way.
            Err(_) => self.read_state(&join.room_id, &newcomer.device).await?,
        }
        Ok(self.try_join(&join.room_id, &newcomer, &outbox)?)
    }

    /// Join by the state that is known; a room that is not known bars everyone.
    fn try_join(&self, room_id: &str, newcomer: &Newcomer, outbox: &Outbox) -> Result<Joined, Refusal> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Refusal::Barred);
        }
        let hosted = state.rooms.get_mut(room_id).ok_or(Refusal::Barred)?;
        let effects = hosted.room.join(newcomer.clone(), Instant::now())?;
        hosted.empty_since = None;
        let joined = Joined {
            participant_id: newcomer.id.as_str().to_owned(),
            room: hosted.room.view(),
            participants: hosted.room.participants(),
            ice_servers: Vec::new(),
            sdp_mode: "client_offers".to_owned(),
        };
        // The first effect about the newcomer opens its media, so the SFU must know it before.
        let key = hosted.key.clone();
        self.sfu.admit(&newcomer.id, &key, crate::room::MediaRule { may_send: false, may_hear: false });
        state.outboxes.insert(newcomer.id.clone(), outbox.clone());
        self.carry_out(&mut state, room_id, effects);
        Ok(joined)
    }

    /// Read a room's state from the homeserver; what is pushed meanwhile is applied on top.
    async fn read_state(&self, room_id: &str, device: &Device) -> Result<(), JoinFault> {
        let reading = Reading::begin(self, room_id);
        let local_user = self.is_local(&device.user_id).then_some(device.user_id.as_str());
        let answer = self.homeserver.state(room_id, local_user).await;
        let events = answer.map_err(|fault| match fault {
            // Whoever may not read the room may not join its call either, and need not know which it is.
            Fault::Refused { .. } => JoinFault::Refused(Refusal::Barred),
            other => JoinFault::Homeserver(other),
        })?;
        let mut access = Access::from_state(&events);
        let mut state = self.lock();
        for event in reading.pushed(&state) {
            access.apply(event);
        }
        match state.rooms.get_mut(room_id) {
            Some(hosted) => {
                let effects = hosted.room.state_replaced(access);
                self.carry_out(&mut state, room_id, effects);
            }
            None => {
                make_place(&mut state.rooms);
                let room = Room::new(room_id, access);
                let hosted = Hosted { room, key: room_id.into(), empty_since: Some(Instant::now()) };
                state.rooms.insert(room_id.to_owned(), hosted);
            }
        }
        // Unlocked before `reading` ends, which locks.
        drop(state);
        Ok(())
    }

    /// The homeserver pushed a state event.
    pub(crate) fn state_event(&self, room_id: &str, event: &StateEvent) {
        let mut state = self.lock();
        if let Some((_, pushed)) = state.reading.get_mut(room_id)
            && pushed.len() < EVENTS_WHILE_READING_MAX
        {
            pushed.push(event.clone());
        }
        if let Some(hosted) = state.rooms.get_mut(room_id) {
            let effects = hosted.room.state_changed(event);
            self.carry_out(&mut state, room_id, effects);
        }
    }

    /// Change a room and carry out what follows.
    pub(crate) fn with_room(
        &self,
        room_id: &str,
        change: impl FnOnce(&mut Room) -> Result<Vec<Effect>, Refusal>,
    ) -> Result<(), Refusal> {
        let mut state = self.lock();
        let hosted = state.rooms.get_mut(room_id).ok_or(Refusal::NoSuchParticipant)?;
        let effects = change(&mut hosted.room)?;
        self.carry_out(&mut state, room_id, effects);
        Ok(())
    }

    pub(crate) fn muted(&self, room_id: &str, participant: &ParticipantId) -> Result<Muted, Refusal> {
        self.lock().rooms.get(room_id).ok_or(Refusal::NoSuchParticipant)?.room.muted(participant)
    }

    pub(crate) fn leave(&self, room_id: &str, participant: &ParticipantId, reason: LeaveReason) {
        // Who is not in has left already.
        let _ = self.with_room(room_id, |room| Ok(room.leave(participant, reason)));
    }

    /// The connection of a participant closed without a word.
    pub(crate) fn detach(&self, room_id: &str, participant: &ParticipantId) {
        let mut state = self.lock();
        state.outboxes.remove(participant);
        if let Some(hosted) = state.rooms.get_mut(room_id) {
            hosted.room.detach(participant, Instant::now());
        }
    }

    /// The SFU has news.
    pub(crate) fn happened(&self, happening: Happening) {
        match happening {
            Happening::Speaking { participant, room, level, state } => {
                let _ = self.with_room(&room, |room| Ok(room.speaking(&participant, level, state)));
            }
            Happening::Tracks { participant, room: _, mid_map } => {
                let news = Tracks { participant_id: participant.as_str().to_owned(), mid_map };
                tell(&mut self.lock(), &participant, &News::Tracks(news));
            }
        }
    }

    /// Regular care: remove the dead, forget empty rooms, renew memberships. Called about once a second.
    pub(crate) fn tend(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let occupied: Vec<String> =
            state.rooms.iter().filter(|(_, hosted)| !hosted.room.is_empty()).map(|(id, _)| id.clone()).collect();
        for room_id in occupied {
            let Some(hosted) = state.rooms.get_mut(&room_id) else { continue };
            let effects = hosted.room.expire(now, |participant| self.sfu.last_packet(participant));
            self.carry_out(&mut state, &room_id, effects);
        }
        state.rooms.retain(|_, hosted| {
            if !hosted.room.is_empty() {
                hosted.empty_since = None;
                return true;
            }
            now.saturating_duration_since(*hosted.empty_since.get_or_insert(now)) < EMPTY_ROOM_MAX
        });
        drop(state);
        self.memberships.renew(clock::now_ms());
    }

    /// Say goodbye to everyone and let nobody in any more.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let everyone: Vec<ParticipantId> = state.outboxes.keys().cloned().collect();
        for participant in everyone {
            let news = News::ServerGoingAway(ServerGoingAway { resume_after_ms: RESUME_AFTER_MS });
            tell(&mut state, &participant, &news);
        }
        let rooms: Vec<String> = state.rooms.keys().cloned().collect();
        for room_id in rooms {
            let Some(hosted) = state.rooms.get_mut(&room_id) else { continue };
            let ids: Vec<_> = hosted.room.reached_by(&Audience::Everyone).cloned().collect();
            let effects: Vec<_> = ids.iter().flat_map(|id| hosted.room.leave(id, LeaveReason::ServerStopped)).collect();
            self.carry_out(&mut state, &room_id, effects);
        }
        drop(state);
        self.stopping.send_replace(true);
    }

    /// Rooms with someone in, and participants; for the health page.
    pub(crate) fn occupancy(&self) -> (usize, usize) {
        let state = self.lock();
        let counts = state.rooms.values().map(|hosted| hosted.room.devices().count()).filter(|&count| count > 0);
        counts.fold((0, 0), |(rooms, participants), count| (rooms + 1, participants + count))
    }

    fn carry_out(&self, state: &mut State, room_id: &str, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Tell(audience, news) => Self::tell_room(state, room_id, &audience, &news),
                Effect::Media(participant, rule) => self.sfu.set_rule(&participant, rule),
                Effect::Unhear { listener, speaker, on } => self.sfu.unhear(&listener, &speaker, on),
                Effect::Gone(participant) => {
                    self.sfu.remove(&participant);
                    state.outboxes.remove(&participant);
                }
                Effect::Entered(device) => self.entered(state, room_id, &device),
                Effect::Exited(device) => {
                    if self.is_local(&device.user_id) {
                        self.memberships.exit(seat(room_id, &device));
                    }
                }
            }
        }
    }

    fn entered(&self, state: &State, room_id: &str, device: &Device) {
        if !self.is_local(&device.user_id) {
            return;
        }
        let now_ms = clock::now_ms();
        let key = voice_protocol::events::call_member_state_key(&device.user_id, &device.device_id);
        let standing = state.rooms.get(room_id).and_then(|hosted| hosted.room.access().call_membership(&key));
        // One of our own kind is written again: the push that says it was cleared may be under way.
        let already_written = standing.is_some_and(|membership| {
            membership.sender == device.user_id && membership.expires_at_ms > now_ms && !membership.names_our_focus
        });
        self.memberships.enter(seat(room_id, device), already_written, now_ms);
    }

    fn tell_room(state: &mut State, room_id: &str, audience: &Audience, news: &News) {
        if let Audience::Only(participant) = audience {
            // Also reaches someone who has just been removed.
            return tell(state, participant, news);
        }
        let Some(hosted) = state.rooms.get(room_id) else { return };
        let reached: Vec<ParticipantId> = hosted.room.reached_by(audience).cloned().collect();
        for participant in reached {
            tell(state, &participant, news);
        }
    }

    fn is_local(&self, user_id: &str) -> bool {
        user_id.split_once(':').is_some_and(|(_, server)| server == self.server_name)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever is too far behind to be told the truth is let go: the connection ends and the client starts anew.
fn tell(state: &mut State, participant: &ParticipantId, news: &News) {
    if state.outboxes.get(participant).is_some_and(|outbox| !outbox.put(news)) {
        state.outboxes.remove(participant);
    }
}

/// Takes note of what is pushed for a room while its state is read, also when the reader is dropped half way.
struct Reading<'a> {
    switchboard: &'a Switchboard,
    room_id: &'a str,
}

impl<'a> Reading<'a> {
    fn begin(switchboard: &'a Switchboard, room_id: &'a str) -> Self {
        switchboard.lock().reading.entry(room_id.to_owned()).or_default().0 += 1;
        Self { switchboard, room_id }
    }

    fn pushed<'s>(&self, state: &'s State) -> &'s [StateEvent] {
        state.reading.get(self.room_id).map_or(&[], |(_, pushed)| pushed)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.switchboard.lock();
        if let Some((readers, _)) = state.reading.get_mut(self.room_id) {
            *readers -= 1;
            if *readers == 0 {
                state.reading.remove(self.room_id);
            }
        }
    }
}

/// Forget the room that is empty for longest when there are too many.
fn make_place(rooms: &mut HashMap<String, Hosted>) {
    let empty = rooms.iter().filter(|(_, hosted)| hosted.room.is_empty());
    if empty.clone().count() < EMPTY_ROOMS_MAX {
        return;
    }
    let oldest = empty.min_by_key(|(_, hosted)| hosted.empty_since).map(|(room_id, _)| room_id.clone());
    if let Some(room_id) = oldest {
        rooms.remove(&room_id);
    }
}

fn seat(room_id: &str, device: &Device) -> Seat {
    Seat { room_id: room_id.to_owned(), user_id: device.user_id.clone(), device_id: device.device_id.clone() }
}
