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

pub mod error;
pub mod migrate;
pub mod store;

pub mod destinations;
pub mod events;
pub mod incoming;
pub mod media;
pub mod members;
pub mod numbers;
pub mod push_rules;
pub mod pushers;
pub mod receipts;
pub mod relations;
pub mod rooms;
pub mod server_keys;
pub mod states;
pub mod streams;
pub mod timeline;

pub use error::{Error, Result};
pub use sql::{STATEMENTS, Statement};
pub use store::{Settings, Span, Store, Tx, fresh_schema};
