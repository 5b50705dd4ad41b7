//! `/_matrix/client/v3/user/{userId}/…`: what belongs to one user.

pub mod account_data;
pub mod filter;
pub mod openid;
pub mod rooms;
