//! How clients talk to the service: JSON-RPC ([`json_rpc`]) over a WebSocket (`ws`), one message after the other
//! (`session`), at a bounded rate, with news in between (`outbox`).

pub mod json_rpc;
pub(crate) mod outbox;
pub(crate) mod session;
pub(crate) mod ws;
