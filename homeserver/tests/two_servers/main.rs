//! Two servers of ours in one process, speaking over TLS on loopback.

mod asking;
mod joining;
mod people;
mod server;
mod talking;
