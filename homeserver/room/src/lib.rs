//! The rules of a Matrix room: what an event is, who may send it, what the state of the room is.
//!
//! Pure: no IO, no clock, no randomness. Whoever calls these functions brings the events, the
//! time and the keys, so every rule can be tested as a table of cases.
//!
//! | module | question it answers |
//! |---|---|
//! | [`versions`] | which room versions do we know, and how do they differ? |
//! | [`canonical`] | are these bytes JSON that every server reads alike? |
//! | [`event`] | what does one event say, and how is it shown? |
//! | [`build`] | how does a wish become a signed event? |
//! | [`auth`] | may this event be sent? |
//! | [`state`] | how is the state of a room held and stored? |
//! | [`graph`] | which events stand behind, before or at the end of others? |
//! | [`resolve`] | what is the state where forks meet? |
//! | [`receive`] | what becomes of an event another server sent us? |
//! | [`redact`], [`relation`], [`visibility`] | what is left, what belongs together, who may see it? |

pub mod auth;
pub mod build;
pub mod canonical;
pub mod event;
pub mod graph;
pub mod receive;
pub mod redact;
pub mod relation;
pub mod resolve;
pub mod state;
pub mod versions;
pub mod visibility;

pub use auth::Refusal;
pub use event::Pdu;
pub use state::State;
