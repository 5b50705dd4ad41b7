//! The tables of application services and of the first administrator's link, on both databases.
//!
//! PostgreSQL is at `TEST_POSTGRES_URL`; `./test` starts one. Without it these tests fail rather than pass on one database.

#![allow(clippy::disallowed_methods, reason = "tests take the address of PostgreSQL from the environment")]

use storage::{
    Settings, Store,
    appservices::{self, Cursor},
    welcome,
};

/// A fresh database of each kind; the folder must outlive the test.
async fn databases(name: &str) -> (tempfile::TempDir, Vec<Store>) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}", folder.path().join("appservices.db").display());
    let base =
        std::env::var("TEST_POSTGRES_URL").expect("TEST_POSTGRES_URL names a PostgreSQL to test on; ./test starts one");
    let schema = format!("appservices{name}{}", std::process::id());
    storage::fresh_schema(&base, &schema).await.unwrap();
    let separator = if base.contains('?') { '&' } else { '?' };
    let postgres = format!("{base}{separator}options=-csearch_path%3D{schema}");
    let mut stores = Vec::new();
    for url in [file, postgres] {
        stores.push(Store::connect(&Settings::new(url)).await.unwrap());
    }
    (folder, stores)
}

#[tokio::test]
async fn a_cursor_begins_once_and_moves_for_the_holder_of_the_lease_alone() {
    let (_folder, stores) = databases("cursor").await;
    for store in stores {
        let mut tx = store.begin().await.unwrap();
        appservices::add(&mut tx, "irc", 5, 100).await.unwrap();
        appservices::add(&mut tx, "irc", 9, 900).await.unwrap();
        let moved = Cursor { pos: 5, until: Some(8), txn: 101 };

        let without_lease = appservices::store(&mut tx, "irc", "one", moved).await.unwrap();
        let one = appservices::lease(&mut tx, "irc", "one", 1_000, 2_000).await.unwrap();
        let two = appservices::lease(&mut tx, "irc", "two", 1_500, 2_500).await.unwrap();
        let renewed = appservices::lease(&mut tx, "irc", "one", 1_500, 2_500).await.unwrap();
        let with_lease = appservices::store(&mut tx, "irc", "one", moved).await.unwrap();
        let taken_over = appservices::lease(&mut tx, "irc", "two", 2_500, 3_500).await.unwrap();
        let too_late =
            appservices::store(&mut tx, "irc", "one", Cursor { pos: 8, until: None, txn: 101 }).await.unwrap();

        assert_eq!((without_lease, one, two, renewed), (false, true, false, true));
        assert_eq!((with_lease, taken_over, too_late), (true, true, false));
        assert_eq!(appservices::cursor(&mut tx, "irc").await.unwrap(), Some(moved));
        assert_eq!(appservices::cursor(&mut tx, "xmpp").await.unwrap(), None);
        assert!(appservices::aliases_of(&mut tx, "!room:example.org").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_welcome_token_is_one_and_is_used_once() {
    let (_folder, stores) = databases("welcome").await;
    for store in stores {
        let mut tx = store.begin().await.unwrap();

        let first = welcome::token(&mut tx, "first").await.unwrap();
        let second = welcome::token(&mut tx, "second").await.unwrap();
        let wrong = welcome::take(&mut tx, "second", 7).await.unwrap();
        let used = welcome::take(&mut tx, "first", 7).await.unwrap();
        let again = welcome::take(&mut tx, "first", 8).await.unwrap();
        let closed = welcome::token(&mut tx, "third").await.unwrap();
        welcome::restore(&mut tx, "first").await.unwrap();

        assert_eq!((first.as_deref(), second.as_deref()), (Some("first"), Some("first")));
        assert_eq!((wrong, used, again, closed), (false, true, false, None));
        assert!(welcome::is_open(&mut tx, "first").await.unwrap());
        assert!(!welcome::is_open(&mut tx, "second").await.unwrap());
    }
}
