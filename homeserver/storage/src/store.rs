//! The one place that knows which database this process runs on.
//!
//! * [`Store::read`] gives a connection for reading; each statement sees the newest committed data.
//! * [`Store::begin`] gives a transaction for writing; on SQLite there is one writer at a time, in order of asking.
//! * A task that holds a [`Tx`] must not ask for a second one: with every connection taken by such tasks nobody would ever
//!   get on. Debug builds refuse it.
//!
//! Positions: tables that clients follow have a column `pos`. It is given inside the commit from one gapless counter, so whoever
//! sees position n sees all before it. [`Tx::commit`] returns the [`Span`] of positions the transaction took.

use std::{
    cell::Cell,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Executor as _, PgConnection, PgPool, Postgres, SqliteConnection,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::{
    Error, Result,
    connections::{Connections, Lent},
};

/// How long a statement may run on PostgreSQL.
const STATEMENT_TIMEOUT_MS: u32 = 60_000;
/// How long a transaction may sit idle on PostgreSQL: whoever holds the counter holds the cluster.
const IDLE_IN_TRANSACTION_TIMEOUT_MS: u32 = 10_000;
/// How long to wait for a free connection before the request fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long SQLite waits for another process's lock (backup tools, the admin command).
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Page size of new SQLite databases, in bytes: an event of 1 kB and its envelope fill 8 KiB pages without much waste.
const SQLITE_PAGE_BYTES: u32 = 8192;
/// Rows that wait for the reading task before the connection's thread pauses.
const SQLITE_ROWS_BUFFERED: usize = 1024;
/// Page cache of each SQLite connection, in KiB.
const SQLITE_CACHE_KIB: u32 = 4096;

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `sqlite://PATH`, `sqlite::memory:` (tests) or `postgres://…`.
    pub url: String,
    /// Connections for reading on SQLite, connections in all on PostgreSQL.
    pub connections_max: u32,
    /// Whether SQLite waits for the disk at each commit. True keeps every acknowledged event through a power cut.
    pub sync_full: bool,
}

impl Settings {
    /// Defaults for the database at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), connections_max: 8, sync_full: true }
    }
}

/// The positions one transaction took: `first..=last`, empty when `first > last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First position taken.
    pub first: i64,
    /// Last position taken.
    pub last: i64,
}

impl Span {
    /// The span of a transaction that wrote nothing clients follow.
    pub const EMPTY: Self = Self { first: 1, last: 0 };

    /// True when no position was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first > self.last
    }
}

#[derive(Debug, Clone)]
enum Backend {
    Sqlite { writer: Arc<Connections>, readers: Arc<Connections> },
    Postgres(PgPool),
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Backend,
    statements: Arc<AtomicU64>,
}

/// A connection in use: a write transaction ([`Store::begin`]) or a connection for reading ([`Store::read`]).
#[derive(Debug)]
pub struct Tx {
    held: Held,
    streamed: i64,
    /// On SQLite, the newest position when it is known without asking.
    newest: Option<i64>,
    statements: Arc<AtomicU64>,
    _guard: Guard,
}

#[derive(Debug)]
enum Held {
    SqliteWrite(Lent),
    SqliteRead(Lent),
    PostgresWrite(PostgresWrite),
    PostgresRead(PoolConnection<Postgres>),
}

/// A PostgreSQL transaction that keeps its connection after the commit, because the session remembers which positions it took.
#[derive(Debug)]
struct PostgresWrite {
    /// Taken out when the connection is closed instead of going back to the pool.
    connection: Option<PoolConnection<Postgres>>,
    /// True from BEGIN to COMMIT or ROLLBACK.
    is_open: bool,
}

impl PostgresWrite {
    async fn begin(connection: PoolConnection<Postgres>) -> Result<Self> {
        let mut held = Self { connection: Some(connection), is_open: true };
        held.run("BEGIN").await?;
        Ok(held)
    }

    fn get(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("only dropping takes the connection out")
    }

    async fn run(&mut self, text: &'static str) -> Result<()> {
        self.get().execute(text).await?;
        Ok(())
    }

    async fn end(&mut self, text: &'static str) -> Result<()> {
        self.run(text).await?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for PostgresWrite {
    /// A transaction that nobody ended: close its connection, the database rolls back.
    fn drop(&mut self) {
        if self.is_open {
            drop(self.connection.take().map(PoolConnection::detach));
        }
    }
}

/// What the statement macros match on.
pub(crate) enum Connection<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

tokio::task_local! {
    /// Set by tests that count: connections this task holds now.
    static HELD: Cell<u32>;
    /// Set by tests that count: statements this task ran.
    static RUN: Cell<u64>;
}

/// Runs `work` and tells how many statements its own task ran meanwhile, whatever others did.
pub async fn counted<F: Future>(work: F) -> (F::Output, u64) {
    let work = async {
        let output = work.await;
        (output, RUN.with(Cell::get))
    };
    RUN.scope(Cell::new(0), work).await
}

/// Counts held connections of a task inside [`one_at_a_time`].
#[derive(Debug)]
struct Guard;

impl Guard {
    fn take() -> Self {
        let _ = HELD.try_with(|held| {
            assert_eq!(held.get(), 0, "a task asked for a second connection while it held one");
            held.set(1);
        });
        Self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = HELD.try_with(|held| held.set(0));
    }
}

/// Runs `work` with the rule enforced that a task never holds two connections; a breach panics. The router's tests wrap
/// every request in it.
pub async fn one_at_a_time<F: Future>(work: F) -> F::Output {
    HELD.scope(Cell::new(0), work).await
}

impl Store {
    /// Open the database as it is; [`Store::connect`] goes on from here.
    pub(crate) async fn open(settings: &Settings) -> Result<Self> {
        let backend = if settings.url.starts_with("sqlite:") {
            connect_sqlite(settings).await?
        } else if settings.url.starts_with("postgres:") || settings.url.starts_with("postgresql:") {
            connect_postgres(settings).await?
        } else {
            return Err(Error::Address(settings.url.clone()));
        };
        Ok(Self { backend, statements: Arc::default() })
    }

    /// True on SQLite: one process, one writer.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        matches!(self.backend, Backend::Sqlite { .. })
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// The driver's, when none comes free in time.
    pub async fn read(&self) -> Result<Tx> {
        let guard = Guard::take();
        let held = match &self.backend {
            Backend::Sqlite { readers, .. } => Held::SqliteRead(readers.lend().await?),
            Backend::Postgres(pool) => Held::PostgresRead(pool.acquire().await?),
        };
        Ok(self.hold(held, guard))
    }

    /// A transaction for writing. Dropped without [`Tx::commit`], it leaves nothing behind.
    ///
    /// # Errors
    /// The driver's, when none comes free in time.
    pub async fn begin(&self) -> Result<Tx> {
        let guard = Guard::take();
        let held = match &self.backend {
            Backend::Sqlite { writer, .. } => {
                let mut connection = writer.lend().await?;
                connection.begin().await?;
                Held::SqliteWrite(connection)
            }
            Backend::Postgres(pool) => Held::PostgresWrite(PostgresWrite::begin(pool.acquire().await?).await?),
        };
        Ok(self.hold(held, guard))
    }

    fn hold(&self, held: Held, guard: Guard) -> Tx {
        Tx { held, streamed: 0, newest: None, statements: Arc::clone(&self.statements), _guard: guard }
    }

    /// Statements run since the start; tests assert budgets with it.
    #[must_use]
    pub fn statement_count(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Close all connections, after what is under way has ended. On SQLite the journal is folded into the file.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Backend::Postgres(pool) => pool.close().await,
        }
    }
}

/// A statement is about to run.
fn count(statements: &AtomicU64) {
    statements.fetch_add(1, Ordering::Relaxed);
    let _ = RUN.try_with(|run| run.set(run.get() + 1));
}

impl Tx {
    pub(crate) fn connection(&mut self) -> Connection<'_> {
        count(&self.statements);
        match &mut self.held {
            Held::SqliteWrite(connection) | Held::SqliteRead(connection) => Connection::Sqlite(connection.get()),
            Held::PostgresWrite(tx) => Connection::Postgres(tx.get()),
            Held::PostgresRead(connection) => Connection::Postgres(connection),
        }
    }

    /// True when this runs on PostgreSQL, for the few writers that send many rows in one statement there.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self.held, Held::PostgresWrite(_) | Held::PostgresRead(_))
    }

    /// Say that `rows` rows with a position were written in this transaction. Every function that writes one calls it.
    pub(crate) fn streamed(&mut self, rows: u64) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.streamed += rows;
        self.newest = self.newest.map(|pos| pos + rows);
    }

    /// Like [`Tx::streamed`], for a writer that was told the last row's position (SQLite gives it at once).
    pub(crate) fn streamed_to(&mut self, rows: u64, newest: i64) {
        self.streamed(rows);
        self.newest = Some(newest);
    }

    /// Undo everything written and give the connection back. Dropping does the same, at the price of a connection.
    ///
    /// # Errors
    /// The driver's.
    pub async fn rollback(self) -> Result<()> {
        match self.held {
            Held::SqliteWrite(mut connection) => connection.end("ROLLBACK").await?,
            Held::PostgresWrite(mut tx) => tx.end("ROLLBACK").await?,
            Held::SqliteRead(_) | Held::PostgresRead(_) => {}
        }
        Ok(())
    }

    /// Make everything written durable and visible at once. Returns the positions taken.
    ///
    /// # Errors
    /// The driver's; then nothing was written.
    pub async fn commit(mut self) -> Result<Span> {
        let streamed = self.streamed;
        let sqlite_last = match (&self.held, streamed) {
            (Held::SqliteWrite(_), 1..) => match self.newest {
                Some(pos) => Some(pos),
                None => Some(crate::timeline::newest(&mut self).await?),
            },
            _ => None,
        };
        match self.held {
            Held::SqliteWrite(mut connection) => {
                connection.end("COMMIT").await?;
                let Some(last) = sqlite_last else { return Ok(Span::EMPTY) };
                Ok(Span { first: last - streamed + 1, last })
            }
            Held::PostgresWrite(mut tx) => {
                tx.end("COMMIT").await?;
                if streamed == 0 {
                    return Ok(Span::EMPTY);
                }
                count(&self.statements);
                let (first, last) = sqlx::query_as(TAKEN.postgres).fetch_one(tx.get()).await?;
                Ok(Span { first, last })
            }
            Held::SqliteRead(_) | Held::PostgresRead(_) => Ok(Span::EMPTY),
        }
    }
}

sql!(TAKEN,
    sqlite: "SELECT 0, 0",
    // The session's memory of what its last transaction took inside COMMIT; see migrations/0001_rooms.postgres.sql.
    postgres: "SELECT current_setting('voicechat.first')::bigint, current_setting('voicechat.last')::bigint");

async fn connect_sqlite(settings: &Settings) -> Result<Backend> {
    let in_memory = settings.url.contains(":memory:");
    let options = SqliteConnectOptions::from_str(&settings.url)?
        .create_if_missing(true)
        .page_size(SQLITE_PAGE_BYTES)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(if settings.sync_full { SqliteSynchronous::Full } else { SqliteSynchronous::Normal })
        .busy_timeout(SQLITE_BUSY_TIMEOUT)
        .pragma("cache_size", format!("-{SQLITE_CACHE_KIB}"))
        .pragma("temp_store", "memory")
        .pragma("wal_autocheckpoint", "1000")
        .statement_cache_capacity(512)
        .row_buffer_size(SQLITE_ROWS_BUFFERED)
        .disable_statement_logging();
    if in_memory {
        // Readers and the writer must share the one connection that holds the data.
        let only = Connections::new(options, 1, ACQUIRE_TIMEOUT);
        return Ok(Backend::Sqlite { writer: Arc::clone(&only), readers: only });
    }
    if let Some(folder) = sqlite_folder(&settings.url) {
        std::fs::create_dir_all(folder).map_err(|error| Error::Driver(sqlx::Error::Io(error)))?;
    }
    let writer = Connections::new(options.clone(), 1, ACQUIRE_TIMEOUT);
    // Makes the file, and tells at once when that cannot be done.
    drop(writer.lend().await?);
    let readers =
        Connections::new(options.pragma("query_only", "on"), settings.connections_max.max(1), ACQUIRE_TIMEOUT);
    Ok(Backend::Sqlite { writer, readers })
}

fn sqlite_folder(url: &str) -> Option<PathBuf> {
    let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let path = path.split('?').next().unwrap_or(path);
    Some(PathBuf::from(path).parent()?.to_path_buf()).filter(|folder| !folder.as_os_str().is_empty())
}

async fn connect_postgres(settings: &Settings) -> Result<Backend> {
    let options = PgConnectOptions::from_str(&settings.url)?
        .application_name("voicechat")
        .statement_cache_capacity(512)
        .options([
            ("statement_timeout", STATEMENT_TIMEOUT_MS.to_string()),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT_MS.to_string()),
        ])
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(settings.connections_max.max(2))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_with(options)
        .await?;
    Ok(Backend::Postgres(pool))
}

/// Make an empty schema on the PostgreSQL at `url`, for tests that want a database of their own. Returns the address with which one is
/// in it.
///
/// # Errors
/// The driver's.
pub async fn fresh_schema(url: &str, schema: &str) -> Result<String> {
    let pool = PgPool::connect(url).await?;
    let quoted: String = schema.chars().filter(char::is_ascii_alphanumeric).collect();
    let text = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {quoted}"));
    sqlx::raw_sql(text).execute(&pool).await?;
    pool.close().await;
    let separator = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{separator}options=-csearch_path%3D{quoted}"))
}
