//! Connections to SQLite, lent to one task at a time.
//!
//! The driver's own pool sends a message to the connection's thread and starts a task each time a connection comes back; a
//! connection to a file cannot have died meanwhile, so here it is simply put back, which halves what a short read costs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Error, Result};

/// Connections of one kind: at most so many, opened when they are first needed.
#[derive(Debug)]
pub(crate) struct Connections {
    options: SqliteConnectOptions,
    connections_max: u32,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<SqliteConnection>>,
    acquire_timeout: Duration,
}

/// A connection in use; it goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lent {
    /// Taken out when it goes back.
    connection: Option<SqliteConnection>,
    home: Arc<Connections>,
    permit: Option<OwnedSemaphorePermit>,
    /// True from BEGIN to COMMIT or ROLLBACK.
    is_open: bool,
}

impl Connections {
    pub(crate) fn new(options: SqliteConnectOptions, connections_max: u32, acquire_timeout: Duration) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(usize::try_from(connections_max).unwrap_or(usize::MAX)));
        Arc::new(Self { options, connections_max, free, idle: Mutex::default(), acquire_timeout })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection, in the order of asking.
    ///
    /// # Errors
    /// The driver's, when none comes free in time or the database is closed.
    pub(crate) async fn lend(self: &Arc<Self>) -> Result<Lent> {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => tokio::time::timeout(self.acquire_timeout, Arc::clone(&self.free).acquire_owned())
                .await
                .map_err(|_| Error::from(sqlx::Error::PoolTimedOut))?
                .map_err(|_| Error::from(sqlx::Error::PoolClosed))?,
        };
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(Lent { connection: Some(connection), home: Arc::clone(self), permit: Some(permit), is_open: false })
    }

    /// Wait until all connections are back, then close them and lend no more.
    pub(crate) async fn close(&self) {
        let all = self.free.acquire_many(self.connections_max).await;
        self.free.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "a connection to the database does not close");
            }
        }
    }
}

impl Lent {
    /// Begin a transaction that writes.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        // From here on the connection goes back through a rollback, also when this future is dropped on the way.
        self.is_open = true;
        self.get().execute("BEGIN IMMEDIATE").await?;
        Ok(())
    }

    /// End a transaction by COMMIT or ROLLBACK.
    pub(crate) async fn end(&mut self, text: &'static str) -> Result<()> {
        self.get().execute(text).await?;
        self.is_open = false;
        Ok(())
    }

    pub(crate) fn get(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect("only dropping takes the connection out")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if !self.is_open {
            self.home.idle().push(connection);
            return;
        }
        // Nobody ended the transaction. The next in line gets the connection once it is undone.
        let (home, permit) = (Arc::clone(&self.home), self.permit.take());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            // Fails where the transaction had ended by itself, which is as good.
            let _ = connection.execute("ROLLBACK").await;
            home.idle().push(connection);
            drop(permit);
        });
    }
}
