//! The words of the voice protocol: JSON-RPC envelopes, methods, notifications and the Matrix events of a voice room.
//!
//! Normative text: `spec/voice.md`. This crate is a leaf: serde only, no IO, no clock and no opinion about who may do
//! what. Server, client and tests share it, so a field is spelled in one place.
//!
//! Invariants:
//! * Reading is liberal, writing is strict: unknown fields are ignored, room configuration outside its bounds is
//!   brought to the nearest bound ([`events::VoiceConfig`]), but what we write always validates.
//! * Every example in `spec/examples` is read, and written back unchanged, by the tests of this crate.

pub mod error;
pub mod events;
pub mod json_rpc;
pub mod methods;
pub mod notifications;

/// WebSocket sub-protocol that both sides must name.
pub const SUB_PROTOCOL: &str = "jsonrpc2.voicechat.v1";

/// Path of the WebSocket on the server that serves voice.
pub const WEBSOCKET_PATH: &str = "/_voicechat/v1/ws";
