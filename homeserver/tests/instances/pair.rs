//! Two instances, and waiting for what one of them is to hear.

#![allow(clippy::disallowed_methods, reason = "tests take the addresses of PostgreSQL and Valkey from the environment")]

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ruma::OwnedServerName;
use services::{
    Context, Settings,
    clock::{Clock, Randomness},
    context::Ground,
    notify::{Bus, Message, Notify, valkey::Valkey},
    signing,
};
use storage::{Store, numbers::Numbers};

use crate::fixture::{START_MS, TestServer, settings};

/// How long a test waits for what must come; generous, machines are slow and shared.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Where instances of one homeserver meet.
pub(crate) struct Place {
    pub(crate) server_name: OwnedServerName,
    pub(crate) database_url: String,
    pub(crate) valkey_url: String,
}

impl Place {
    /// A homeserver of its own: a fresh schema, a name nobody else has.
    pub(crate) async fn fresh() -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; ./test sets it"));
        let name = Randomness::system().letters(12).to_lowercase();
        let base = variable("TEST_POSTGRES_URL");
        let schema = format!("instances{name}");
        Self {
            server_name: format!("{name}.example.org").try_into().unwrap(),
            database_url: storage::fresh_schema(&base, &schema).await.unwrap(),
            valkey_url: variable("TEST_VALKEY_URL"),
        }
    }

    /// One more instance, with nothing between it and its news.
    pub(crate) async fn instance(&self) -> TestServer {
        self.instance_with(&self.valkey_url, settings(), |bus| Box::new(bus)).await
    }

    /// One more instance, with its own way to Valkey, and something between it and the news it sends.
    pub(crate) async fn instance_with(
        &self,
        valkey_url: &str,
        mut settings: Settings,
        between: impl FnOnce(Valkey) -> Box<dyn Bus>,
    ) -> TestServer {
        let store = Store::connect(&storage::Settings::new(self.database_url.clone())).await.unwrap();
        let randomness = Randomness::system();
        let notify = Notify::start(store.clone()).await.unwrap();
        let bus = Valkey::connect(valkey_url, self.server_name.as_str(), &randomness, &notify).await.unwrap();
        notify.connect(between(bus));
        let context = Context::new(Ground {
            numbers: Numbers::new(store.clone(), &self.server_name),
            server_name: self.server_name.clone(),
            signing_key: signing::load_or_create(&store, &randomness).await.unwrap(),
            notify,
            store,
            clock: Clock::fixed(START_MS),
            randomness,
        });
        settings.valkey_url = Some(valkey_url.to_owned());
        TestServer::start_in(context, settings).await
    }
}

/// Loses every so manieth message that it should send.
pub(crate) struct Lossy {
    bus: Valkey,
    every: u64,
    sent: AtomicU64,
}

impl Lossy {
    pub(crate) fn boxed(bus: Valkey, every: u64) -> Box<dyn Bus> {
        Box::new(Self { bus, every, sent: AtomicU64::new(0) })
    }
}

impl fmt::Debug for Lossy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lossy").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Bus for Lossy {
    fn send(&self, message: &Message) {
        if !(self.sent.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(self.every) {
            self.bus.send(message);
        }
    }

    fn hears(&self) -> bool {
        self.bus.hears()
    }
}

/// Waits until `holds` is true, looking again whenever the instance hears something.
pub(crate) async fn until<F: Future<Output = bool>>(instance: &TestServer, what: &str, holds: impl Fn() -> F) {
    let bell = Arc::new(tokio::sync::Notify::new());
    let (ring, ring_too) = (Arc::clone(&bell), Arc::clone(&bell));
    instance.context.notify.on_change(move |_| ring.notify_one());
    instance.context.notify.on_whisper(move |_| ring_too.notify_one());
    let waited = tokio::time::timeout(WAIT_MAX, async {
        while !holds().await {
            bell.notified().await;
        }
    });
    assert!(waited.await.is_ok(), "the instance never saw that {what}");
}

/// Wait for what no bell rings at.
pub(crate) async fn becomes(what: &str, holds: impl AsyncFn() -> bool) {
    let becoming = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    in_time(what, becoming).await;
}

/// `instance` knows all that was done so far: a sync token that it gives out now is not older.
pub(crate) async fn catch_up(instance: &TestServer) {
    instance.context.notify.repair().await.unwrap();
}

/// `work`, which must end.
pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, work).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}
