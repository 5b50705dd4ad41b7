//! Voice rooms: an SFU that speaks to the homeserver as an ordinary application service.

pub mod room;
pub mod sfu;
