//! Two servers of ours in one process, speaking over TLS on loopback.

mod asking;
mod ephemeral;
mod hostile;
mod joining;
mod people;
mod returning;
mod server;
mod synapse;
mod talking;
