//! Several instances of one homeserver: real routers, each with its own pool on one PostgreSQL and its own connections to one
//! Valkey, where need be through a hop that a test can cut.
//!
//! PostgreSQL is at `TEST_POSTGRES_URL`, Valkey at `TEST_VALKEY_URL`; `./test` starts them. Without them these tests fail.

#[path = "../fixture/mod.rs"]
mod fixture;

mod cut;
mod hop;
mod loss;
mod moments;
mod moving;
mod pair;
