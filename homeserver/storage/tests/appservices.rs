//! The tables of application services and of the first administrator's link, on both databases.

mod databases;

use storage::{
    appservices::{self, Cursor},
    welcome,
};

#[tokio::test]
async fn a_cursor_begins_once_and_moves_for_the_holder_of_the_lease_alone() {
    let (_folder, stores) = databases::both().await;
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
    let (_folder, stores) = databases::both().await;
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
