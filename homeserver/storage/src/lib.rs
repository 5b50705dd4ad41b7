//! Every SQL statement of the homeserver.
//!
//! The only crate that names sqlx. One module a table family; each statement is declared once with [`sql!`] and serves both
//! SQLite and PostgreSQL (a pair of texts where they must differ, with the reason). Functions take a [`Tx`] first and plain
//! values after, and return what the rows say: no rule about rooms, users or keys lives here.
//!
//! How to add a table: a numbered file under `migrations/`, a module here named for the table, its statements with `sql!`,
//! one behaviour test in `tests/both.rs`. `tests/every_statement.rs` prepares every statement on both databases by itself.

#[macro_use]
mod sql;

mod connections;
pub mod error;
pub mod migrate;
pub mod store;

pub mod account_data;
pub mod accounts;
pub mod aliases;
pub mod appservices;
pub mod cross_signing;
pub mod dehydrated_devices;
pub mod destinations;
pub mod device_changes;
pub mod device_keys;
pub mod devices;
pub mod events;
pub mod filters;
pub mod history;
pub mod incoming;
pub mod invitations;
pub mod key_backups;
pub mod locks;
pub mod media;
pub mod members;
pub mod network_rooms;
pub mod numbers;
pub mod one_time_keys;
pub mod profiles;
pub mod push_rules;
pub mod pushers;
pub mod receipts;
pub mod refresh_tokens;
pub mod registration_tokens;
pub mod relations;
pub mod remote_device_lists;
pub mod reports;
pub mod rooms;
pub mod search_texts;
pub mod server_keys;
pub mod server_secrets;
pub mod sharing;
pub mod states;
pub mod streams;
mod text;
pub mod timeline;
pub mod to_device;
pub mod tokens;
pub mod uia_sessions;
pub mod unread;
pub mod user_directory;
pub mod welcome;

pub use error::{Error, Result};
pub use sql::{STATEMENTS, Statement};
pub use store::{Settings, Span, Store, Tx, fresh_schema};
