//! Brings a database's schema up to date. The files stand in `migrations/`; its README says what they may contain.

use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

use crate::{Error, Result, Settings, Store, Tx, store::Connection};

/// One numbered step: a shared text and a text for each database.
struct Step {
    number: i64,
    name: &'static str,
    shared: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! steps {
    ($(($number:literal, $name:literal $(, $kind:ident)*)),* $(,)?) => {
        &[$(Step {
            number: $number,
            name: $name,
            shared: include_str!(concat!("../../../migrations/", $name, ".sql")),
            sqlite: steps!(@text $name, sqlite, $($kind)*),
            postgres: steps!(@text $name, postgres, $($kind)*),
        }),*]
    };
    (@text $name:literal, sqlite, both) => {
        include_str!(concat!("../../../migrations/", $name, ".sqlite.sql"))
    };
    (@text $name:literal, postgres, both) => {
        include_str!(concat!("../../../migrations/", $name, ".postgres.sql"))
    };
    (@text $name:literal, $database:ident, ) => { "" };
}

/// Every step, in order. `both` says that each database has a text of its own beside the shared one.
const STEPS: &[Step] = steps![
    (1, "0001_rooms", both),
    (2, "0002_streams", both),
    (3, "0003_accounts"),
    (4, "0004_keys", both),
    (5, "0005_media"),
    (6, "0006_federation"),
    (7, "0007_appservices"),
    (8, "0008_push"),
    (9, "0009_directory"),
    (10, "0010_networks_and_retractions"),
];

/// The schema this program writes.
#[must_use]
pub fn newest() -> i64 {
    STEPS.iter().map(|step| step.number).max().unwrap_or(0)
}

const VERSIONS: &str =
    "CREATE TABLE IF NOT EXISTS schema_version (number BIGINT PRIMARY KEY NOT NULL, name TEXT NOT NULL)";

sql!(LOCK,
    // SQLite's one writer needs no lock; on PostgreSQL several instances may start together.
    sqlite: "SELECT 1",
    postgres: "SELECT 1 FROM (SELECT pg_advisory_xact_lock(7526482915)) AS held");

impl Store {
    /// Open the database and bring its schema up to date.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::NewerSchema`], or the driver's.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        let store = Self::open(settings).await?;
        run(&store).await?;
        Ok(store)
    }
}

async fn run(store: &Store) -> Result<()> {
    let mut tx = store.begin().await?;
    let _: Option<(i32,)> = fetch_optional!(&mut tx, LOCK)?;
    run_text(&mut tx, VERSIONS.to_owned()).await?;
    let done = applied(&mut tx).await?;
    if let Some(found) = done.iter().copied().max().filter(|found| *found > newest()) {
        return Err(Error::NewerSchema { found, known: newest() });
    }
    for step in STEPS.iter().filter(|step| !done.contains(&step.number)) {
        tracing::info!(number = step.number, name = step.name, "migrating the database");
        let own = if tx.is_postgres() { step.postgres } else { step.sqlite };
        let shared = if tx.is_postgres() { step.shared.to_owned() } else { for_sqlite(step.shared) };
        run_text(&mut tx, shared).await?;
        run_text(&mut tx, own.to_owned()).await?;
        let record = format!("INSERT INTO schema_version (number, name) VALUES ({}, '{}')", step.number, step.name);
        run_text(&mut tx, record).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Row keys and tables without a hidden row number, in SQLite's words.
fn for_sqlite(text: &str) -> String {
    text.replace("BIGINT PRIMARY KEY", "INTEGER PRIMARY KEY").replace("/*clustered*/", "WITHOUT ROWID")
}

async fn run_text(tx: &mut Tx, text: String) -> Result<()> {
    if text.trim().is_empty() {
        return Ok(());
    }
    // The texts are our own files and numbers.
    let text = sqlx::raw_sql(AssertSqlSafe(text).into_sql_str());
    match tx.connection() {
        Connection::Sqlite(connection) => connection.execute(text).await.map(drop),
        Connection::Postgres(connection) => connection.execute(text).await.map(drop),
    }
    .map_err(Error::from)
}

async fn applied(tx: &mut Tx) -> Result<Vec<i64>> {
    const NUMBERS: &str = "SELECT number FROM schema_version";
    let rows: Vec<(i64,)> = match tx.connection() {
        Connection::Sqlite(connection) => sqlx::query_as(NUMBERS).fetch_all(connection).await?,
        Connection::Postgres(connection) => sqlx::query_as(NUMBERS).fetch_all(connection).await?,
    };
    Ok(rows.into_iter().map(|(number,)| number).collect())
}
