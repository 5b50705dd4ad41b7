//! End-to-end encryption as clients see it: keys, signatures, messages between devices, backups. The real router, SQLite in
//! memory; keys and signatures are real.

#[path = "../fixture/mod.rs"]
mod fixture;

mod backups;
mod cross_signing;
mod dehydrated;
mod device_keys;
mod key_ring;
mod messages;
mod one_time_keys;
