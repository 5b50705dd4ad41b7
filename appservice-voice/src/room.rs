//! A voice room: who is in, who hears whom, who may mute and remove. Pure: no IO, no clock, no randomness.
//!
//! Every change returns the [`Effect`]s that others must carry out (tell participants, open or close a microphone at
//! the SFU, write a membership). The room never waits for them, so it is right at every moment and can be tested as a
//! table of cases.
//!
//! Invariants:
//! * At most `user_limit` participants, and each device at most once.
//! * Nobody is in whom [`Access::may_join`] bars: [`Room::state_changed`] removes at once.
//! * Whoever applies the news in order knows exactly the participants that the room has.

pub mod access;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use access::{Access, Barred, StateEvent};
use voice_protocol::{
    methods::{self, RoomView},
    notifications::{
        LeaveReason, MutedBy, News, RoomConfig, Speaking, SpeakingState, UserJoined, UserLeft, UserUpdated,
    },
};

/// How long someone whose WebSocket is gone stays while packets still arrive.
pub const DETACHED_MAX: Duration = Duration::from_secs(8);
/// Without packets for this long, someone whose WebSocket is gone has left.
pub const DETACHED_SILENCE_MAX: Duration = Duration::from_secs(3);
/// Without packets for this long, media is dead even if the WebSocket lives. ICE consent checks come every 5 s or less.
pub const MEDIA_SILENCE_MAX: Duration = Duration::from_secs(20);
/// Time to bring up media after joining.
pub const MEDIA_START_MAX: Duration = Duration::from_secs(30);

/// Names a participant for as long as it is in; never used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParticipantId(Arc<str>);

impl ParticipantId {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A user's device: what a call membership belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    pub user_id: String,
    pub device_id: String,
}

/// Someone who asks to come in.
#[derive(Clone, Debug)]
pub struct Newcomer {
    pub id: ParticipantId,
    pub device: Device,
    pub muted: bool,
    pub deafened: bool,
}

/// What the SFU must do with one participant's sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaRule {
    /// Forward what they send.
    pub may_send: bool,
    /// Forward to them.
    pub may_hear: bool,
}

/// To whom news goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    Everyone,
    Except(ParticipantId),
    Only(ParticipantId),
}

/// What must happen outside the room, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Tell(Audience, News),
    Media(ParticipantId, MediaRule),
    Unhear {
        listener: ParticipantId,
        speaker: ParticipantId,
        on: bool,
    },
    /// The participant is no more: forget its media and its session's tie to the room.
    Gone(ParticipantId),
    /// The device is in the call now.
    Entered(Device),
    /// The device is in the call no more.
    Exited(Device),
}

/// Why the room says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("not a voice room")]
    NotAVoiceRoom,
    #[error("the room does not let you in")]
    Barred,
    #[error("the room is full")]
    Full { user_limit: u32 },
    #[error("no such participant")]
    NoSuchParticipant,
    #[error("your power level does not allow it")]
    NotAllowed,
}

impl From<Barred> for Refusal {
    fn from(barred: Barred) -> Self {
        match barred {
            Barred::NotAVoiceRoom => Self::NotAVoiceRoom,
            Barred::NotJoined | Barred::ServerExcluded | Barred::MayNotListen => Self::Barred,
        }
    }
}

#[derive(Clone, Debug)]
struct Participant {
    device: Device,
    muted: bool,
    /// A moderator muted them.
    muted_by_moderator: bool,
    /// The room's state does not let them speak.
    may_speak: bool,
    deafened: bool,
    speaking: bool,
    /// Whom they chose not to hear.
    unheard: BTreeSet<ParticipantId>,
    joined_at: Instant,
    detached_at: Option<Instant>,
}

impl Participant {
    fn server_muted(&self) -> bool {
        self.muted_by_moderator || !self.may_speak
    }

    fn rule(&self) -> MediaRule {
        MediaRule { may_send: !self.muted && !self.server_muted(), may_hear: !self.deafened }
    }

    fn view(&self, id: &ParticipantId) -> methods::Participant {
        methods::Participant {
            participant_id: id.as_str().to_owned(),
            user_id: self.device.user_id.clone(),
            device_id: self.device.device_id.clone(),
            muted: self.muted,
            server_muted: self.server_muted(),
            deafened: self.deafened,
            speaking: self.speaking,
        }
    }
}

/// One room with its participants and the state that governs it.
#[derive(Debug)]
pub struct Room {
    id: String,
    access: Access,
    participants: BTreeMap<ParticipantId, Participant>,
    /// Devices muted by a moderator stay muted when they come back while the room is alive.
    muted_devices: BTreeSet<Device>,
}

/// Devices remembered as muted in one room.
const MUTED_DEVICES_MAX: usize = 1_000;

impl Room {
    #[must_use]
    pub fn new(id: &str, access: Access) -> Self {
        Self { id: id.to_owned(), access, participants: BTreeMap::new(), muted_devices: BTreeSet::new() }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.participants.is_empty()
    }

    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Everyone who is in, in the order of their ids.
    #[must_use]
    pub fn participants(&self) -> Vec<methods::Participant> {
        self.participants.iter().map(|(id, participant)| participant.view(id)).collect()
    }

    /// The ids of those whom news for `audience` reaches.
    pub fn reached_by<'a>(&'a self, audience: &'a Audience) -> impl Iterator<Item = &'a ParticipantId> {
        self.participants.keys().filter(move |&id| match audience {
            Audience::Everyone => true,
            Audience::Except(left_out) => id != left_out,
            Audience::Only(only) => id == only,
        })
    }

    #[must_use]
    pub fn view(&self) -> RoomView {
        RoomView { room_id: self.id.clone(), config: self.access.config().clone() }
    }

    /// Whether `listener` hears `speaker` when there is a slot free.
    #[must_use]
    pub fn hears(&self, listener: &ParticipantId, speaker: &ParticipantId) -> bool {
        let (Some(ear), Some(mouth)) = (self.participants.get(listener), self.participants.get(speaker)) else {
            return false;
        };
        listener != speaker && ear.rule().may_hear && mouth.rule().may_send && !ear.unheard.contains(speaker)
    }

    /// Let someone in. The same device being in already is replaced.
    ///
    /// # Errors
    /// [`Refusal`]; the room is unchanged then.
    pub fn join(&mut self, newcomer: Newcomer, now: Instant) -> Result<Vec<Effect>, Refusal> {
        self.access.may_join(&newcomer.device.user_id)?;
        let before = self.participants.iter().find(|(_, p)| p.device == newcomer.device).map(|(id, _)| id.clone());
        let user_limit = self.access.config().user_limit;
        if before.is_none() && self.participants.len() >= user_limit as usize {
            return Err(Refusal::Full { user_limit });
        }

        let mut effects = before.map_or_else(Vec::new, |id| self.remove(&id, LeaveReason::Replaced));
        let id = newcomer.id;
        let participant = Participant {
            may_speak: self.access.rights(&newcomer.device.user_id).speak,
            muted_by_moderator: self.muted_devices.contains(&newcomer.device),
            device: newcomer.device.clone(),
            muted: newcomer.muted,
            deafened: newcomer.deafened,
            speaking: false,
            unheard: BTreeSet::new(),
            joined_at: now,
            detached_at: None,
        };
        let joined = UserJoined { room_id: self.id.clone(), participant: participant.view(&id) };
        let rule = participant.rule();
        self.participants.insert(id.clone(), participant);
        effects.push(Effect::Media(id.clone(), rule));
        effects.push(Effect::Tell(Audience::Except(id), News::UserJoined(joined)));
        effects.push(Effect::Entered(newcomer.device));
        Ok(effects)
    }

    /// Take someone out. Nothing happens when they are not in.
    pub fn leave(&mut self, id: &ParticipantId, reason: LeaveReason) -> Vec<Effect> {
        self.remove(id, reason)
    }

    fn remove(&mut self, id: &ParticipantId, reason: LeaveReason) -> Vec<Effect> {
        if !self.participants.contains_key(id) {
            return Vec::new();
        }
        let left = UserLeft { room_id: self.id.clone(), participant_id: id.as_str().to_owned(), reason };
        let mut effects: Vec<_> = self
            .reached_by(&Audience::Everyone)
            .map(|to| Effect::Tell(Audience::Only(to.clone()), News::UserLeft(left.clone())))
            .collect();
        let Some(gone) = self.participants.remove(id) else { return Vec::new() };
        for participant in self.participants.values_mut() {
            participant.unheard.remove(id);
        }
        effects.push(Effect::Gone(id.clone()));
        // A replacement takes over the membership; everyone else's device has left.
        if reason != LeaveReason::Replaced {
            effects.push(Effect::Exited(gone.device));
        }
        effects
    }

    /// Mute or unmute oneself.
    ///
    /// # Errors
    /// [`Refusal::NoSuchParticipant`].
    pub fn mute_self(&mut self, id: &ParticipantId, muted: bool) -> Result<Vec<Effect>, Refusal> {
        self.change(id, |participant| participant.muted = muted)
    }

    /// Hear nothing, or hear again.
    ///
    /// # Errors
    /// [`Refusal::NoSuchParticipant`].
    pub fn deafen(&mut self, id: &ParticipantId, deafened: bool) -> Result<Vec<Effect>, Refusal> {
        self.change(id, |participant| participant.deafened = deafened)
    }

    /// A moderator mutes or unmutes `target` for everyone.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] without the right `mute_others` or below the target's rank.
    pub fn mute_other(
        &mut self,
        actor: &ParticipantId,
        target: &ParticipantId,
        muted: bool,
    ) -> Result<Vec<Effect>, Refusal> {
        let actor_user = self.user_of(actor)?.to_owned();
        let target_user = self.user_of(target)?.to_owned();
        let over_oneself_or_lower = actor_user == target_user || self.access.outranks(&actor_user, &target_user);
        if !self.access.rights(&actor_user).mute_others || !over_oneself_or_lower {
            return Err(Refusal::NotAllowed);
        }
        let mut effects = self.change(target, |participant| participant.muted_by_moderator = muted)?;
        if let Some(participant) = self.participants.get(target) {
            if !muted {
                self.muted_devices.remove(&participant.device);
            } else if self.muted_devices.len() < MUTED_DEVICES_MAX {
                self.muted_devices.insert(participant.device.clone());
            }
            if !effects.is_empty() {
                effects.push(muted_by(target, Some(actor_user), participant.server_muted()));
            }
        }
        Ok(effects)
    }

    /// Stop or resume hearing some participants. Targets that are not in are passed over.
    ///
    /// # Errors
    /// [`Refusal::NoSuchParticipant`] when the listener is not in.
    pub fn subscribe(
        &mut self,
        listener: &ParticipantId,
        targets: &[ParticipantId],
        on: bool,
    ) -> Result<Vec<Effect>, Refusal> {
        let known: Vec<_> =
            targets.iter().filter(|id| *id != listener && self.participants.contains_key(*id)).cloned().collect();
        let ear = self.participants.get_mut(listener).ok_or(Refusal::NoSuchParticipant)?;
        let mut effects = Vec::new();
        for speaker in known {
            let changed = if on { ear.unheard.remove(&speaker) } else { ear.unheard.insert(speaker.clone()) };
            if changed {
                effects.push(Effect::Unhear { listener: listener.clone(), speaker, on });
            }
        }
        Ok(effects)
    }

    /// A moderator removes `target` from the call.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] without the room's right to kick or when not above the target.
    pub fn kick(&mut self, actor: &ParticipantId, target: &ParticipantId) -> Result<Vec<Effect>, Refusal> {
        let actor_user = self.user_of(actor)?;
        let target_user = self.user_of(target)?;
        let own_device = actor_user == target_user;
        let allowed = self.access.rights(actor_user).kick && self.access.outranks(actor_user, target_user);
        if !own_device && !allowed {
            return Err(Refusal::NotAllowed);
        }
        Ok(self.remove(target, LeaveReason::Kicked))
    }

    /// The SFU heard someone start or stop to speak.
    pub fn speaking(&mut self, id: &ParticipantId, level: i8, state: SpeakingState) -> Vec<Effect> {
        let Some(participant) = self.participants.get_mut(id) else { return Vec::new() };
        let speaking = state == SpeakingState::Started;
        if participant.speaking == speaking || (speaking && !participant.rule().may_send) {
            return Vec::new();
        }
        participant.speaking = speaking;
        let news = Speaking { room_id: self.id.clone(), participant_id: id.as_str().to_owned(), level, state };
        vec![Effect::Tell(Audience::Everyone, News::Speaking(news))]
    }

    /// A state event arrived: whoever lost a right loses it now.
    pub fn state_changed(&mut self, event: &StateEvent) -> Vec<Effect> {
        let config_before = self.access.config().clone();
        if !self.access.apply(event) {
            return Vec::new();
        }
        self.enforce(&config_before)
    }

    /// The whole state was read anew.
    pub fn state_replaced(&mut self, access: Access) -> Vec<Effect> {
        let config_before = std::mem::replace(&mut self.access, access).config().clone();
        self.enforce(&config_before)
    }

    fn enforce(&mut self, config_before: &voice_protocol::events::VoiceConfig) -> Vec<Effect> {
        let mut effects = Vec::new();
        let ids: Vec<_> = self.participants.keys().cloned().collect();
        for id in ids {
            let Some(participant) = self.participants.get(&id) else { continue };
            let user_id = participant.device.user_id.clone();
            if self.access.may_join(&user_id).is_err() {
                effects.extend(self.remove(&id, LeaveReason::Forbidden));
                continue;
            }
            let may_speak = self.access.rights(&user_id).speak;
            if may_speak != participant.may_speak {
                effects.extend(self.change(&id, |participant| participant.may_speak = may_speak).unwrap_or_default());
                let server_muted = self.participants.get(&id).is_some_and(Participant::server_muted);
                effects.push(muted_by(&id, None, server_muted));
            }
        }
        let config = self.access.config();
        if config != config_before {
            let news = RoomConfig { room_id: self.id.clone(), config: config.clone() };
            effects.push(Effect::Tell(Audience::Everyone, News::RoomConfig(news)));
        }
        effects
    }

    /// The participant's WebSocket closed without `voice.leave`.
    pub fn detach(&mut self, id: &ParticipantId, now: Instant) {
        if let Some(participant) = self.participants.get_mut(id) {
            participant.detached_at.get_or_insert(now);
        }
    }

    /// Remove those whose connection is dead. `last_packet` tells when the SFU last heard from someone, if ever.
    pub fn expire(&mut self, now: Instant, last_packet: impl Fn(&ParticipantId) -> Option<Instant>) -> Vec<Effect> {
        let is_dead = |id: &ParticipantId, participant: &Participant| {
            let packet_at = last_packet(id);
            let silence = now.saturating_duration_since(packet_at.unwrap_or(participant.joined_at));
            match participant.detached_at {
                Some(at) => now.saturating_duration_since(at) >= DETACHED_MAX || silence >= DETACHED_SILENCE_MAX,
                None if packet_at.is_none() => silence >= MEDIA_START_MAX,
                None => silence >= MEDIA_SILENCE_MAX,
            }
        };
        let dead: Vec<_> =
            self.participants.iter().filter(|(id, p)| is_dead(id, p)).map(|(id, _)| id.clone()).collect();
        dead.iter().flat_map(|id| self.remove(id, LeaveReason::ConnectionLost)).collect()
    }

    /// How a participant stands, for the result of `voice.mute`.
    ///
    /// # Errors
    /// [`Refusal::NoSuchParticipant`].
    pub fn muted(&self, id: &ParticipantId) -> Result<methods::Muted, Refusal> {
        let participant = self.participants.get(id).ok_or(Refusal::NoSuchParticipant)?;
        Ok(methods::Muted { muted: participant.muted, server_muted: participant.server_muted() })
    }

    /// The devices that are in.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.participants.values().map(|participant| &participant.device)
    }

    fn user_of(&self, id: &ParticipantId) -> Result<&str, Refusal> {
        self.participants.get(id).map(|p| p.device.user_id.as_str()).ok_or(Refusal::NoSuchParticipant)
    }

    /// Change one participant and say what follows from it. No change, no effects.
    fn change(&mut self, id: &ParticipantId, make: impl FnOnce(&mut Participant)) -> Result<Vec<Effect>, Refusal> {
        let participant = self.participants.get_mut(id).ok_or(Refusal::NoSuchParticipant)?;
        let (view_before, rule_before) = (participant.view(id), participant.rule());
        make(participant);
        let rule = participant.rule();
        if !rule.may_send {
            participant.speaking = false;
        }
        let view = participant.view(id);
        let mut effects = Vec::new();
        if rule != rule_before {
            effects.push(Effect::Media(id.clone(), rule));
        }
        if view != view_before {
            let updated = UserUpdated { room_id: self.id.clone(), participant: view };
            effects.push(Effect::Tell(Audience::Everyone, News::UserUpdated(updated)));
        }
        Ok(effects)
    }
}

fn muted_by(target: &ParticipantId, user_id: Option<String>, server_muted: bool) -> Effect {
    let news = MutedBy { participant_id: target.as_str().to_owned(), user_id, server_muted };
    Effect::Tell(Audience::Only(target.clone()), News::MutedBy(news))
}
