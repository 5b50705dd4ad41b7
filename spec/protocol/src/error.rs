//! Error codes of the protocol. The JSON-RPC ones keep their standard meaning; ours start at −32001.

/// The bytes were not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The JSON was not a request.
pub const INVALID_REQUEST: i64 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The method exists, its parameters are wrong.
pub const INVALID_PARAMS: i64 = -32602;
/// The server failed; trying again later may help.
pub const INTERNAL_ERROR: i64 = -32603;

/// `voice.hello` has not succeeded on this connection, or the token is not valid.
pub const UNAUTHENTICATED: i64 = -32001;
/// The thing named does not exist or the caller is not part of it.
pub const NOT_FOUND: i64 = -32002;
/// The room's state does not allow it.
pub const FORBIDDEN: i64 = -32003;
/// The room has `user_limit` participants already.
pub const ROOM_FULL: i64 = -32004;
/// The room is not a voice room.
pub const NOT_A_VOICE_ROOM: i64 = -32005;
/// The session description was refused.
pub const BAD_SESSION_DESCRIPTION: i64 = -32007;
/// Too many messages; `data.retry_after_ms` says when to go on.
pub const LIMIT_EXCEEDED: i64 = -32029;
