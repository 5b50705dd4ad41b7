//! Two servers of ours in one process, speaking over TLS on loopback.

mod asking;
mod server;
