//! The tables of accounts, on both databases.

mod databases;

use ruma::{owned_server_name, user_id};
use storage::{
    Store,
    accounts::{self, Account},
    devices::{self, Device},
    numbers::Numbers,
    profiles,
    refresh_tokens::{self, RefreshToken},
    registration_tokens, server_secrets,
    tokens::{self, Token},
    uia_sessions::{self, UiaSession},
};

/// A fresh database of each kind, each with the user `@alice:example.org`; the folder must outlive the test.
async fn with_alice() -> (tempfile::TempDir, Vec<(Store, i64)>) {
    let (folder, both) = databases::both().await;
    let mut stores = Vec::new();
    for store in both {
        let numbers = Numbers::new(store.clone(), &owned_server_name!("example.org"));
        let alice = numbers.user(user_id!("@alice:example.org")).await.unwrap();
        stores.push((store, alice));
    }
    (folder, stores)
}

fn account(user_nid: i64) -> Account {
    Account {
        user_nid,
        password: Some("hash".into()),
        created_ms: 1,
        deactivated_ms: None,
        is_erased: false,
        is_admin: true,
        is_locked: false,
        is_suspended: false,
        is_guest: false,
        appservice: Some("bridge".into()),
    }
}

fn token(hash: &str, user_nid: i64, device: Option<&str>) -> Token {
    Token {
        hash: hash.into(),
        user_nid,
        device_id: device.map(str::to_owned),
        created_ms: 1,
        expires_ms: None,
        replaces: None,
    }
}

#[tokio::test]
async fn an_account_is_made_once_and_ends_once() {
    let (_folder, stores) = with_alice().await;
    for (store, alice) in stores {
        let mut tx = store.begin().await.unwrap();

        assert!(accounts::create(&mut tx, &account(alice)).await.unwrap());
        assert!(!accounts::create(&mut tx, &account(alice)).await.unwrap());
        assert_eq!(accounts::by_nid(&mut tx, alice).await.unwrap(), Some(account(alice)));
        assert_eq!(accounts::by_name(&mut tx, "@alice:example.org").await.unwrap(), Some(account(alice)));
        assert_eq!(accounts::by_name(&mut tx, "@ALICE:example.org").await.unwrap(), None);
        assert_eq!(accounts::count_admins(&mut tx).await.unwrap(), 1);
        assert!(accounts::set_locked(&mut tx, alice, true).await.unwrap());
        assert!(accounts::set_suspended(&mut tx, alice, true).await.unwrap());
        assert!(accounts::deactivate(&mut tx, alice, 5, true).await.unwrap());

        let ended = accounts::by_nid(&mut tx, alice).await.unwrap().unwrap();
        assert_eq!((ended.deactivated_ms, ended.password, ended.is_admin), (Some(5), None, false));
        assert!(ended.is_locked && ended.is_suspended && ended.is_erased);
        assert!(!accounts::deactivate(&mut tx, alice, 6, false).await.unwrap());
        assert!(!accounts::set_password(&mut tx, alice, Some("new")).await.unwrap());
        assert!(!accounts::set_admin(&mut tx, alice, true).await.unwrap());
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_token_tells_its_bearer_until_its_device_goes() {
    let (_folder, stores) = with_alice().await;
    for (store, alice) in stores {
        let mut tx = store.begin().await.unwrap();
        accounts::create(&mut tx, &account(alice)).await.unwrap();
        let replacing = Token { replaces: Some("r".into()), expires_ms: Some(10), ..token("a", alice, Some("PHONE")) };
        tokens::put(&mut tx, &replacing).await.unwrap();
        tokens::put(&mut tx, &token("b", alice, Some("LAPTOP"))).await.unwrap();
        tokens::put(&mut tx, &token("c", alice, None)).await.unwrap();

        let bearer = tokens::bearer(&mut tx, "a").await.unwrap().unwrap();
        assert_eq!((bearer.user_id.as_str(), bearer.device_id.as_deref()), ("@alice:example.org", Some("PHONE")));
        assert_eq!((bearer.expires_ms, bearer.replaces.as_deref(), bearer.is_admin), (Some(10), Some("r"), true));
        tokens::used(&mut tx, "a").await.unwrap();
        assert_eq!(tokens::bearer(&mut tx, "a").await.unwrap().unwrap().replaces, None);

        let ended = tokens::delete_of_devices(&mut tx, alice, &["PHONE".into(), "NONE".into()]).await.unwrap();
        assert_eq!(ended, ["a"]);
        assert_eq!(tokens::of_user(&mut tx, alice).await.unwrap().len(), 2);
        tokens::delete(&mut tx, &["b".into()]).await.unwrap();
        assert_eq!(tokens::delete_of_user(&mut tx, alice).await.unwrap(), ["c"]);
        assert_eq!(tokens::bearer(&mut tx, "c").await.unwrap(), None);
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_short_token_is_taken_once_and_swept_when_late() {
    let (_folder, stores) = with_alice().await;
    for (store, alice) in stores {
        let mut tx = store.begin().await.unwrap();
        tokens::put_short(&mut tx, "login", "x", alice, 10).await.unwrap();
        tokens::put_short(&mut tx, "openid", "x", alice, 20).await.unwrap();

        assert_eq!(tokens::peek_short(&mut tx, "openid", "x").await.unwrap(), Some((alice, 20)));
        assert_eq!(tokens::take_short(&mut tx, "login", "x").await.unwrap(), Some((alice, 10)));
        assert_eq!(tokens::take_short(&mut tx, "login", "x").await.unwrap(), None);
        assert_eq!(tokens::sweep(&mut tx, 20).await.unwrap(), 0);
        assert_eq!(tokens::sweep(&mut tx, 21).await.unwrap(), 1);
        tokens::put_short(&mut tx, "login", "y", alice, 10).await.unwrap();
        tokens::delete_short_of_user(&mut tx, alice).await.unwrap();
        assert_eq!(tokens::peek_short(&mut tx, "login", "y").await.unwrap(), None);
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn refresh_tokens_know_their_family() {
    let (_folder, stores) = with_alice().await;
    for (store, alice) in stores {
        let member = |hash: &str, parent: Option<&str>| RefreshToken {
            hash: hash.into(),
            family: "f".into(),
            parent: parent.map(str::to_owned),
            user_nid: alice,
            device_id: "PHONE".into(),
            access_hash: format!("access {hash}"),
            is_retired: false,
            expires_ms: 10,
        };
        let mut tx = store.begin().await.unwrap();
        refresh_tokens::put(&mut tx, &member("1", None)).await.unwrap();
        refresh_tokens::put(&mut tx, &member("2", Some("1"))).await.unwrap();
        refresh_tokens::put(&mut tx, &member("3", Some("2"))).await.unwrap();

        assert_eq!(refresh_tokens::hold(&mut tx, "2").await.unwrap(), Some(member("2", Some("1"))));
        assert_eq!(refresh_tokens::retire(&mut tx, "1").await.unwrap().as_deref(), Some("access 1"));
        assert_eq!(refresh_tokens::retire(&mut tx, "1").await.unwrap(), None);
        assert_eq!(refresh_tokens::drop_children(&mut tx, "2").await.unwrap(), ["access 3"]);
        let mut family = refresh_tokens::drop_family(&mut tx, "f").await.unwrap();
        family.sort();
        assert_eq!(family, ["access 1", "access 2"]);

        for hash in ["1", "2", "3"] {
            refresh_tokens::put(&mut tx, &member(hash, None)).await.unwrap();
        }
        refresh_tokens::drop_device(&mut tx, alice, "LAPTOP").await.unwrap();
        assert!(refresh_tokens::hold(&mut tx, "1").await.unwrap().is_some());
        assert_eq!(refresh_tokens::sweep(&mut tx, 10).await.unwrap(), 0);
        refresh_tokens::drop_device(&mut tx, alice, "PHONE").await.unwrap();
        assert_eq!(refresh_tokens::hold(&mut tx, "1").await.unwrap(), None);
        refresh_tokens::put(&mut tx, &member("4", None)).await.unwrap();
        assert_eq!(refresh_tokens::sweep(&mut tx, 11).await.unwrap(), 1);
        refresh_tokens::drop_user(&mut tx, alice).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn devices_are_named_seen_and_deleted() {
    let (_folder, stores) = with_alice().await;
    for (store, alice) in stores {
        let device = |id: &str, seen: Option<i64>| Device {
            user_nid: alice,
            device_id: id.into(),
            display_name: Some("Phone".into()),
            created_ms: 1,
            last_seen_ms: seen,
            last_seen_ip: seen.map(|_| "192.0.2.1".into()),
            last_seen_agent: None,
        };
        let mut tx = store.begin().await.unwrap();
        assert!(devices::create(&mut tx, &device("A", None)).await.unwrap());
        assert!(!devices::create(&mut tx, &device("A", Some(3))).await.unwrap());
        devices::create(&mut tx, &device("B", Some(3))).await.unwrap();

        devices::seen(&mut tx, &device("A", Some(9))).await.unwrap();
        devices::seen(&mut tx, &device("A", Some(8))).await.unwrap();
        assert!(devices::rename(&mut tx, alice, "A", Some("Mine")).await.unwrap());
        assert!(!devices::rename(&mut tx, alice, "C", Some("Mine")).await.unwrap());

        let seen = devices::one(&mut tx, alice, "A").await.unwrap().unwrap();
        assert_eq!((seen.last_seen_ms, seen.display_name.as_deref()), (Some(9), Some("Mine")));
        assert_eq!(devices::of_user(&mut tx, alice).await.unwrap().len(), 2);
        assert_eq!(devices::delete(&mut tx, alice, &["A".into(), "C".into()]).await.unwrap(), ["A"]);
        assert_eq!(devices::of_user(&mut tx, alice).await.unwrap(), [device("B", Some(3))]);
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_registration_token_is_reserved_no_oftener_than_it_allows() {
    let (_folder, stores) = with_alice().await;
    for (store, _) in stores {
        let mut tx = store.begin().await.unwrap();
        assert!(registration_tokens::create(&mut tx, "t", Some(2), Some(100)).await.unwrap());
        assert!(!registration_tokens::create(&mut tx, "t", None, None).await.unwrap());

        assert!(!registration_tokens::reserve(&mut tx, "t", 100).await.unwrap(), "it has expired");
        assert!(registration_tokens::reserve(&mut tx, "t", 99).await.unwrap());
        assert!(registration_tokens::reserve(&mut tx, "t", 99).await.unwrap());
        assert!(!registration_tokens::reserve(&mut tx, "t", 99).await.unwrap());
        registration_tokens::release(&mut tx, "t").await.unwrap();
        assert!(registration_tokens::is_free(&mut tx, "t", 99).await.unwrap());
        registration_tokens::complete(&mut tx, "t").await.unwrap();
        registration_tokens::complete(&mut tx, "t").await.unwrap();

        let all = registration_tokens::all(&mut tx, 10).await.unwrap();
        assert_eq!((all[0].pending, all[0].completed), (0, 1));
        assert!(registration_tokens::delete(&mut tx, "t").await.unwrap());
        assert!(!registration_tokens::delete(&mut tx, "t").await.unwrap());
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_session_advances_from_where_it_was_and_ends_once() {
    let (_folder, stores) = with_alice().await;
    for (store, _) in stores {
        let session = |completed: &str| UiaSession {
            id: "s".into(),
            operation: "register".into(),
            completed: completed.into(),
            registration_token: Some("t".into()),
            expires_ms: 10,
        };
        let mut tx = store.begin().await.unwrap();
        uia_sessions::create(&mut tx, &session("[]")).await.unwrap();

        assert!(uia_sessions::advance(&mut tx, &session("[1]"), "[]").await.unwrap());
        assert!(!uia_sessions::advance(&mut tx, &session("[2]"), "[]").await.unwrap());
        assert_eq!(uia_sessions::by_id(&mut tx, "s", 9).await.unwrap(), Some(session("[1]")));
        assert_eq!(uia_sessions::by_id(&mut tx, "s", 10).await.unwrap(), None);
        assert_eq!(uia_sessions::delete(&mut tx, "s").await.unwrap(), Some(Some("t".into())));
        assert_eq!(uia_sessions::delete(&mut tx, "s").await.unwrap(), None);
        uia_sessions::create(&mut tx, &session("[]")).await.unwrap();
        assert_eq!(uia_sessions::sweep(&mut tx, 11).await.unwrap(), ["t"]);
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn profiles_hold_fields_and_a_secret_stays_what_it_was() {
    let (_folder, stores) = with_alice().await;
    for (store, alice) in stores {
        let pair = |field: &str, value: &str| (field.to_owned(), value.to_owned());
        let mut tx = store.begin().await.unwrap();
        profiles::put(&mut tx, alice, "displayname", "\"A\"").await.unwrap();
        profiles::put(&mut tx, alice, "displayname", "\"B\"").await.unwrap();
        profiles::put(&mut tx, alice, "m.tz", "\"UTC\"").await.unwrap();

        let all = profiles::of_user(&mut tx, alice).await.unwrap();
        assert_eq!(all, [pair("displayname", "\"B\""), pair("m.tz", "\"UTC\"")]);
        let shown = profiles::of_users(&mut tx, &[alice, alice + 1]).await.unwrap();
        assert_eq!(shown, [(alice, "displayname".to_owned(), "\"B\"".to_owned())]);
        assert!(profiles::delete(&mut tx, alice, "m.tz").await.unwrap());
        assert!(!profiles::delete(&mut tx, alice, "m.tz").await.unwrap());
        profiles::delete_all(&mut tx, alice).await.unwrap();
        assert!(profiles::of_user(&mut tx, alice).await.unwrap().is_empty());

        assert_eq!(server_secrets::get_or_put(&mut tx, "k", b"first").await.unwrap(), b"first");
        assert_eq!(server_secrets::get_or_put(&mut tx, "k", b"second").await.unwrap(), b"first");
        tx.commit().await.unwrap();
    }
}
