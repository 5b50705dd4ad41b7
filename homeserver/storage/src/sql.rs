//! One text for each statement, run on whichever database this process has.
//!
//! [`sql!`] declares a statement and registers it in [`STATEMENTS`], so that one test can prepare all of them on both databases.
//! `fetch_optional!`, `fetch_all!` and `execute!` expand to a match with concrete types in both arms.

use linkme::distributed_slice;

/// Every statement of the program.
#[distributed_slice]
pub static STATEMENTS: [Statement];

/// One SQL statement, with a text for each database.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    /// The constant's name.
    pub name: &'static str,
    /// Module, file and line of the declaration.
    pub place: &'static str,
    /// Text for SQLite.
    pub sqlite: &'static str,
    /// Text for PostgreSQL.
    pub postgres: &'static str,
}

/// Declares a statement: `sql!(BY_ID, "…")`, or `sql!(NAME, sqlite: "…", postgres: "…")` where the two must differ.
macro_rules! sql {
    ($name:ident, sqlite: $sqlite:expr, postgres: $postgres:expr $(,)?) => {
        static $name: $crate::sql::Statement = {
            #[linkme::distributed_slice($crate::sql::STATEMENTS)]
            static ENTRY: $crate::sql::Statement = $crate::sql::Statement {
                name: stringify!($name),
                place: concat!(module_path!(), " ", file!(), ":", line!()),
                sqlite: $sqlite,
                postgres: $postgres,
            };
            ENTRY
        };
    };
    ($name:ident, $both:expr $(,)?) => {
        sql!($name, sqlite: $both, postgres: $both);
    };
}

/// Runs a statement, returns the number of rows it changed.
macro_rules! execute {
    ($tx:expr, $statement:expr $(, $argument:expr)* $(,)?) => {
        match $crate::store::Tx::connection($tx) {
            $crate::store::Connection::Sqlite(connection) => sqlx::query($statement.sqlite)
                $(.bind($crate::text::Bound::kept($argument)))*.execute(connection).await.map(|done| done.rows_affected()),
            $crate::store::Connection::Postgres(connection) => sqlx::query($statement.postgres)
                $(.bind($crate::text::Bound::kept($argument)))*.execute(connection).await.map(|done| done.rows_affected()),
        }
        .map_err($crate::Error::from)
    };
}

/// Runs a statement, returns all rows as the type the context asks for (a tuple or a `FromRow`).
macro_rules! fetch_all {
    ($tx:expr, $statement:expr $(, $argument:expr)* $(,)?) => {
        match $crate::store::Tx::connection($tx) {
            $crate::store::Connection::Sqlite(connection) => sqlx::query_as($statement.sqlite)
                $(.bind($crate::text::Bound::kept($argument)))*.fetch_all(connection).await,
            $crate::store::Connection::Postgres(connection) => sqlx::query_as($statement.postgres)
                $(.bind($crate::text::Bound::kept($argument)))*.fetch_all(connection).await,
        }
        .map_err($crate::Error::from)
    };
}

/// Runs a statement, returns the first row or `None`.
macro_rules! fetch_optional {
    ($tx:expr, $statement:expr $(, $argument:expr)* $(,)?) => {
        match $crate::store::Tx::connection($tx) {
            $crate::store::Connection::Sqlite(connection) => sqlx::query_as($statement.sqlite)
                $(.bind($crate::text::Bound::kept($argument)))*.fetch_optional(connection).await,
            $crate::store::Connection::Postgres(connection) => sqlx::query_as($statement.postgres)
                $(.bind($crate::text::Bound::kept($argument)))*.fetch_optional(connection).await,
        }
        .map_err($crate::Error::from)
    };
}
