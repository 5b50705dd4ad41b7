//! Why the database did not answer.

/// A failure of the database, or a row that cannot be what we wrote.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver or the database failed.
    #[error("database: {0}")]
    Driver(#[from] sqlx::Error),
    /// A row holds what no code of ours writes.
    #[error("table {table}, row {key}: {what}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The row's key, as text.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The database was written by a newer version than this program.
    #[error(
        "the database has schema {found}, this program knows {known}: start the newer voicechat, or restore the backup made before the upgrade"
    )]
    NewerSchema {
        /// The number found in the database.
        found: i64,
        /// The highest number this program has.
        known: i64,
    },
    /// The database's address is not one we can open.
    #[error("database address {0:?}: expected sqlite://PATH or postgres://USER@HOST/NAME")]
    Address(String),
}

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// True when a unique key was violated: somebody else wrote the same name first.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Driver(sqlx::Error::Database(e)) if e.is_unique_violation())
    }

    /// True when PostgreSQL chose this transaction as the loser of a conflict: trying again is right.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Driver(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("40001" | "40P01" | "5")))
    }
}
