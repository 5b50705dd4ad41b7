//! Two servers of ours in one process, speaking over TLS on loopback.

mod addresses;
mod asking;
mod devices;
mod ephemeral;
mod finding;
mod gaps;
mod hostile;
mod impostors;
mod joining;
#[path = "../hostile/nonsense.rs"]
mod nonsense;
mod older;
mod peer;
mod people;
mod returning;
mod scene;
mod server;
mod sweep;
mod synapse;
mod talking;
