//! The Matrix side: what the homeserver pushes ([`transactions`]), what is asked of it ([`client`]), who a stranger is
//! ([`openid`]) and which call memberships stand in rooms because of us ([`membership`]).

pub mod client;
pub mod membership;
pub mod openid;
pub mod transactions;
