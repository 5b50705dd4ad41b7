//! Keys, messages between devices, backups and account data on both databases.

mod databases;

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestRunner};
use storage::{
    Store, Tx, account_data, cross_signing, dehydrated_devices, device_changes,
    device_changes::NewChange,
    device_keys, devices, filters,
    key_backups::{self, BackedUpKey, Part},
    locks, members, one_time_keys, remote_device_lists, sharing, timeline, to_device,
};

/// Devices of a generated case.
const DEVICES_MAX: usize = 3;

async fn write(store: &Store) -> Tx {
    store.begin().await.unwrap()
}

/// Claim from several tasks at once; returns what each got.
async fn claims_at_once(store: &Store, devices: usize, claimers: usize) -> Vec<one_time_keys::ClaimedKey> {
    let tasks: Vec<_> = (0..claimers)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let names: Vec<String> = (0..devices).map(|n| format!("D{n}")).collect();
                let wanted: Vec<_> = names.iter().map(|name| (1, name.as_str(), "signed_curve25519")).collect();
                let mut tx = store.begin().await.unwrap();
                let keys = one_time_keys::claim(&mut tx, &wanted, 20_000).await.unwrap();
                tx.commit().await.unwrap();
                keys
            })
        })
        .collect();
    let mut claimed = Vec::new();
    for task in tasks {
        claimed.extend(task.await.unwrap());
    }
    claimed
}

async fn with_keys(store: &Store, keys: &[usize]) {
    let mut tx = write(store).await;
    let mut nid = 0;
    for (device, count) in keys.iter().enumerate() {
        for nth in 0..*count {
            nid += 1;
            let id = format!("K{nth}");
            let row = (nid, "signed_curve25519", id.as_str(), "{}");
            one_time_keys::add(&mut tx, 1, &format!("D{device}"), &[row]).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
}

/// However many ask at once for keys of several devices, each key is given to one of them, none is kept back, and those of a
/// device in the order of their uploads.
#[test]
fn a_one_time_key_is_claimed_at_most_once_by_claimers_at_the_same_time() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let (_folder, stores) = runtime.block_on(databases::both());
    let strategy = (proptest::collection::vec(0..6_usize, 1..=DEVICES_MAX), 1..7_usize);
    let mut runner = TestRunner::new(ProptestConfig { cases: 20, failure_persistence: None, ..Default::default() });
    let result = runner.run(&strategy, |(keys, claimers)| {
        for store in &stores {
            let claimed = runtime.block_on(async {
                let mut tx = write(store).await;
                let devices: Vec<String> = (0..DEVICES_MAX).map(|n| format!("D{n}")).collect();
                device_keys::forget(&mut tx, 1, &devices).await.unwrap();
                tx.commit().await.unwrap();
                with_keys(store, &keys).await;
                claims_at_once(store, keys.len(), claimers).await
            });
            let mut by_device: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for key in claimed {
                by_device.entry(key.device_id).or_default().push(key.key_id);
            }
            for (device, count) in keys.iter().enumerate() {
                let mut got = by_device.remove(&format!("D{device}")).unwrap_or_default();
                got.sort();
                let expected: Vec<String> = (0..*count.min(&claimers)).map(|nth| format!("K{nth}")).collect();
                prop_assert_eq!(got, expected, "{} keys, {} claimers", count, claimers);
            }
        }
        Ok(())
    });
    result.unwrap();
}

#[tokio::test]
async fn a_claimed_key_is_remembered_until_swept() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        with_keys(&store, &[1]).await;
        let mut tx = write(&store).await;
        let wanted = [(1, "D0", "signed_curve25519")];
        assert_eq!(one_time_keys::claim(&mut tx, &wanted, 100).await.unwrap().len(), 1);

        let again = [(9, "signed_curve25519", "K0", "{}")];
        one_time_keys::add(&mut tx, 1, "D0", &again).await.unwrap();
        assert_eq!(one_time_keys::claim(&mut tx, &wanted, 100).await.unwrap(), []);
        let stored = one_time_keys::named(&mut tx, 1, "D0", &["K0"]).await.unwrap();
        assert_eq!(stored.iter().map(|key| key.is_claimed).collect::<Vec<_>>(), [true]);

        assert_eq!(one_time_keys::forget_claimed(&mut tx, 100).await.unwrap(), 0);
        assert_eq!(one_time_keys::forget_claimed(&mut tx, 101).await.unwrap(), 1);
        one_time_keys::add(&mut tx, 1, "D0", &again).await.unwrap();
        assert_eq!(one_time_keys::claim(&mut tx, &wanted, 101).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_fallback_key_is_unused_until_taken_and_again_when_renewed() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let mut tx = write(&store).await;
        let mut key = one_time_keys::ClaimedKey {
            user_nid: 1,
            device_id: "D".into(),
            algorithm: "signed_curve25519".into(),
            key_id: "F".into(),
            body: "{}".into(),
        };
        one_time_keys::put_fallback(&mut tx, &key).await.unwrap();
        let wanted = [(1, "D", "signed_curve25519"), (1, "E", "signed_curve25519")];
        assert_eq!(one_time_keys::use_fallback(&mut tx, &wanted).await.unwrap(), [key.clone()]);
        assert_eq!(one_time_keys::use_fallback(&mut tx, &wanted).await.unwrap(), [key.clone()]);

        one_time_keys::put_fallback(&mut tx, &key).await.unwrap();
        assert_eq!(one_time_keys::supply(&mut tx, 1, "D").await.unwrap(), []);
        key.key_id = "G".into();
        one_time_keys::put_fallback(&mut tx, &key).await.unwrap();
        let supply = one_time_keys::supply(&mut tx, 1, "D").await.unwrap();
        assert_eq!(supply.iter().map(|s| (s.count, s.is_fallback)).collect::<Vec<_>>(), [(0, true)]);
    }
}

#[tokio::test]
async fn a_forgotten_device_leaves_nothing() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        with_keys(&store, &[2]).await;
        let mut tx = write(&store).await;
        let keys =
            device_keys::DeviceKeys { user_nid: 1, device_id: "D0".into(), body: "{}".into(), display_name: None };
        device_keys::put(&mut tx, &keys).await.unwrap();
        let message =
            to_device::NewMessage { nid: 1, user_nid: 1, device_id: "D0".into(), body: r#"{"sender":"@a:b"}"#.into() };
        to_device::put(&mut tx, &[message]).await.unwrap();
        let span = tx.commit().await.unwrap();
        assert_eq!(span.last - span.first, 0);

        let mut tx = write(&store).await;
        let gone = device_keys::forget(&mut tx, 1, &["D0".into(), "NONE".into()]).await.unwrap();
        assert_eq!(gone, ["D0"]);
        assert_eq!(device_keys::of_users(&mut tx, &[1]).await.unwrap(), []);
        assert_eq!(one_time_keys::supply(&mut tx, 1, "D0").await.unwrap(), []);
        assert_eq!(to_device::read(&mut tx, 1, "D0", 0, span.last, 10).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_local_devices_name_is_the_users_and_a_remote_devices_is_the_copys() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let mut tx = write(&store).await;
        let device = devices::Device {
            user_nid: 1,
            device_id: "D".into(),
            display_name: Some("Kitchen".into()),
            created_ms: 0,
            last_seen_ms: None,
            last_seen_ip: None,
            last_seen_agent: None,
        };
        assert!(devices::create(&mut tx, &device).await.unwrap());
        for (user_nid, display_name) in [(1, None), (2, Some("Afar".to_owned()))] {
            let keys = device_keys::DeviceKeys { user_nid, device_id: "D".into(), body: "{}".into(), display_name };
            device_keys::put(&mut tx, &keys).await.unwrap();
        }
        dehydrated_devices::put(&mut tx, 1, "ASLEEP", "{}").await.unwrap();

        let names: Vec<_> = device_keys::of_users(&mut tx, &[1, 2]).await.unwrap();
        let names: Vec<_> = names.iter().map(|keys| keys.display_name.as_deref()).collect();
        assert_eq!(names, [Some("Kitchen"), Some("Afar")]);
        let mut all = device_keys::devices_of(&mut tx, &[1, 2]).await.unwrap();
        all.sort();
        assert_eq!(all, [(1, "ASLEEP".to_owned()), (1, "D".to_owned())]);
        assert_eq!(device_keys::remove_all(&mut tx, 2).await.unwrap(), ["D"]);
        assert!(device_keys::one(&mut tx, 2, "D").await.unwrap().is_none());
        dehydrated_devices::remove(&mut tx, 1).await.unwrap();
        assert_eq!(dehydrated_devices::of_user(&mut tx, 1).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_change_of_devices_is_one_row_seen_by_those_who_may() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let mut tx = write(&store).await;
        let change = |nid, user_nid, viewer_nid| NewChange { nid, user_nid, device_id: "D", viewer_nid };
        device_changes::put(&mut tx, &[change(1, 10, 0), change(2, 10, 0), change(3, 20, 0), change(4, 30, 5)])
            .await
            .unwrap();
        let span = tx.commit().await.unwrap();
        assert_eq!(span.last - span.first, 3);

        let mut tx = store.read().await.unwrap();
        let (since, until) = (span.first - 1, span.last);
        let users = |changed: Vec<device_changes::Changed>| {
            let mut users: Vec<_> = changed.into_iter().map(|change| change.user_nid).collect();
            users.sort_unstable();
            users
        };
        assert_eq!(users(device_changes::changed(&mut tx, 5, since, until).await.unwrap()), [10, 20, 30]);
        assert_eq!(users(device_changes::changed(&mut tx, 6, since, until).await.unwrap()), [10, 20]);
        assert_eq!(users(device_changes::changed(&mut tx, 6, span.first + 1, until).await.unwrap()), [20]);
        // Who shares no room is told of those alone whom they signed.
        assert!(sharing::device_lists(&mut tx, 6, since, until).await.unwrap().is_empty());
        assert_eq!(sharing::device_lists(&mut tx, 5, since, until).await.unwrap(), [(30, false)]);
        assert_eq!(sharing::device_lists(&mut tx, 10, since, until).await.unwrap(), [(10, false)]);
        assert_eq!(device_changes::newest_of(&mut tx, 10).await.unwrap(), span.first + 1);
        assert_eq!(device_changes::newest_of(&mut tx, 30).await.unwrap(), 0);
        drop(tx);

        let mut tx = write(&store).await;
        assert_eq!(device_changes::forget_superseded(&mut tx, until).await.unwrap(), 1);
        assert_eq!(users(device_changes::changed(&mut tx, 5, since, until).await.unwrap()), [10, 20, 30]);
    }
}

#[tokio::test]
async fn changes_of_local_users_go_out_as_a_chain() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let name = ruma::server_name!("example.org");
        let numbers = storage::numbers::Numbers::new(store.clone(), name);
        let alice = numbers.user(ruma::user_id!("@alice:example.org")).await.unwrap();
        let remote = numbers.user(ruma::user_id!("@bob:elsewhere.example")).await.unwrap();
        let mut tx = write(&store).await;
        let change = |nid, user_nid, viewer_nid| NewChange { nid, user_nid, device_id: "D", viewer_nid };
        device_changes::put(
            &mut tx,
            &[change(1, alice, 0), change(2, remote, 0), change(3, alice, alice), change(4, alice, 0)],
        )
        .await
        .unwrap();
        let span = tx.commit().await.unwrap();

        let mut tx = store.read().await.unwrap();
        let outbound = device_changes::outbound(&mut tx, 0, span.last, 10).await.unwrap();
        let chain: Vec<_> = outbound.iter().map(|change| (change.pos, change.prev_pos)).collect();
        assert_eq!(chain, [(span.first, None), (span.last, Some(span.first))]);
        assert_eq!(device_changes::outbound(&mut tx, 0, span.last, 1).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn cross_signing_keys_and_signatures_are_seen_by_those_who_may() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let mut tx = write(&store).await;
        let key = cross_signing::CrossSigningKey {
            user_nid: 1,
            usage: "master".into(),
            public_key: "KEY".into(),
            body: "{}".into(),
        };
        cross_signing::put(&mut tx, &key).await.unwrap();
        let signature = |signer_nid| cross_signing::Signature {
            user_nid: 1,
            target: "KEY".into(),
            signer_nid,
            key_id: "ed25519:S".into(),
            signature: "sig".into(),
        };
        assert!(cross_signing::sign(&mut tx, &signature(1)).await.unwrap());
        assert!(!cross_signing::sign(&mut tx, &signature(1)).await.unwrap());
        assert!(cross_signing::sign(&mut tx, &signature(2)).await.unwrap());

        assert_eq!(cross_signing::of_users(&mut tx, &[1, 2]).await.unwrap(), [key]);
        assert_eq!(cross_signing::with_signatures(&mut tx, &[1], 0).await.unwrap().1, [signature(1)]);
        assert_eq!(cross_signing::with_signatures(&mut tx, &[1], 2).await.unwrap().1.len(), 2);
        cross_signing::forget_target(&mut tx, 1, "KEY").await.unwrap();
        cross_signing::remove(&mut tx, 1, "master").await.unwrap();
        assert_eq!(cross_signing::with_signatures(&mut tx, &[1], 2).await.unwrap().1, []);
        assert_eq!(cross_signing::of_users(&mut tx, &[1]).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_copy_is_fresh_only_if_nothing_made_it_stale_since_it_was_asked_for() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let mut tx = write(&store).await;
        remote_device_lists::expect(&mut tx, &[1, 2]).await.unwrap();
        assert!(remote_device_lists::mark_fresh(&mut tx, 1, 0, Some(5)).await.unwrap());
        remote_device_lists::expect(&mut tx, &[1]).await.unwrap();
        let list = remote_device_lists::of_users(&mut tx, &[1]).await.unwrap();
        assert_eq!((list[0].stream_id, list[0].is_stale, list[0].ver), (Some(5), false, 0));

        assert!(remote_device_lists::advance(&mut tx, 1, 5, 8).await.unwrap());
        assert!(!remote_device_lists::advance(&mut tx, 1, 5, 9).await.unwrap());
        remote_device_lists::outdate(&mut tx, &[1, 2]).await.unwrap();
        assert!(!remote_device_lists::advance(&mut tx, 1, 8, 9).await.unwrap());
        assert!(!remote_device_lists::mark_fresh(&mut tx, 2, 0, None).await.unwrap());
        assert!(remote_device_lists::mark_fresh(&mut tx, 2, 1, None).await.unwrap());
    }
}

#[tokio::test]
async fn messages_are_read_in_order_acknowledged_and_bounded() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let message = |nid: i64| to_device::NewMessage {
            nid,
            user_nid: 1,
            device_id: "D".into(),
            body: format!(r#"{{"n":{nid}}}"#),
        };
        let mut last = 0;
        for nid in 1..=5 {
            let mut tx = write(&store).await;
            to_device::put(&mut tx, &[message(nid)]).await.unwrap();
            last = tx.commit().await.unwrap().last;
        }
        let first = last - 4;
        let mut tx = write(&store).await;
        let bodies = |rows: Vec<(i64, String)>| rows.into_iter().map(|(_, body)| body).collect::<Vec<_>>();
        let read = to_device::read(&mut tx, 1, "D", 0, last, 3).await.unwrap();
        assert_eq!(bodies(read), [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#]);
        // What was received shows as one row without an event.
        let read = to_device::read(&mut tx, 1, "D", first + 1, last - 1, 10).await.unwrap();
        assert_eq!(read.len(), 3);
        assert!(read[0].0 <= first + 1 && read[0].1.is_empty());
        assert_eq!(bodies(read[1..].to_vec()), [r#"{"n":3}"#, r#"{"n":4}"#]);

        assert_eq!(to_device::acknowledge(&mut tx, 1, "D", first + 1).await.unwrap(), 2);
        assert_eq!(to_device::crowded(&mut tx, &[1], 3).await.unwrap(), []);
        assert_eq!(to_device::crowded(&mut tx, &[1], 2).await.unwrap(), [(1, "D".to_owned(), 3)]);
        assert_eq!(to_device::drop_oldest(&mut tx, 1, "D", 1).await.unwrap(), 1);
        let read = to_device::read(&mut tx, 1, "D", 0, last, 10).await.unwrap();
        assert_eq!(bodies(read), [r#"{"n":4}"#, r#"{"n":5}"#]);
    }
}

#[tokio::test]
async fn the_newest_message_survives_a_full_queue_in_the_transaction_that_brings_it() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let message =
            |nid: i64| to_device::NewMessage { nid, user_nid: 1, device_id: "D".into(), body: nid.to_string() };
        let mut tx = write(&store).await;
        to_device::put(&mut tx, &[message(1)]).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = write(&store).await;
        to_device::put(&mut tx, &[message(2)]).await.unwrap();
        to_device::drop_oldest(&mut tx, 1, "D", 1).await.unwrap();
        let last = tx.commit().await.unwrap().last;

        let mut tx = store.read().await.unwrap();
        let read = to_device::read(&mut tx, 1, "D", 0, last, 10).await.unwrap();
        assert_eq!(read, [(last, "2".to_owned())]);
    }
}

#[tokio::test]
async fn messages_for_other_servers_wait_in_order_and_up_to_a_bound() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        for nid in 1..=4 {
            let mut tx = write(&store).await;
            to_device::queue(&mut tx, nid, 7, &nid.to_string()).await.unwrap();
            tx.commit().await.unwrap();
        }
        let mut tx = write(&store).await;
        let bodies = |rows: &[(i64, String)]| rows.iter().map(|(_, body)| body.clone()).collect::<Vec<_>>();
        let queued = to_device::queued(&mut tx, 7, 2).await.unwrap();
        assert_eq!(bodies(&queued), ["1", "2"]);
        assert_eq!(to_device::queued(&mut tx, 8, 2).await.unwrap(), []);
        assert_eq!(to_device::queued_servers(&mut tx).await.unwrap(), [7]);

        assert_eq!(to_device::delivered(&mut tx, 7, queued[0].0).await.unwrap(), 1);
        assert_eq!(to_device::drop_oldest_queued(&mut tx, 7, 2).await.unwrap(), 1);
        assert_eq!(bodies(&to_device::queued(&mut tx, 7, 9).await.unwrap()), ["3", "4"]);
    }
}

#[tokio::test]
async fn a_message_counts_as_new_once_until_swept() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let mut tx = write(&store).await;
        assert!(to_device::first_seen(&mut tx, "a.example", "m", 10).await.unwrap());
        assert!(!to_device::first_seen(&mut tx, "a.example", "m", 11).await.unwrap());
        assert!(to_device::first_seen(&mut tx, "b.example", "m", 11).await.unwrap());
        assert_eq!(to_device::forget_seen(&mut tx, 11).await.unwrap(), 1);
        assert!(to_device::first_seen(&mut tx, "a.example", "m", 11).await.unwrap());
    }
}

#[tokio::test]
async fn account_data_moves_to_the_newest_position_when_it_changes() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let mut tx = write(&store).await;
        account_data::put(&mut tx, 1, 0, "a", r#"{"x":1}"#).await.unwrap();
        account_data::put(&mut tx, 1, 5, "b", r#"{"x":2}"#).await.unwrap();
        account_data::put(&mut tx, 2, 0, "a", r#"{"x":3}"#).await.unwrap();
        let first = tx.commit().await.unwrap();
        let mut tx = write(&store).await;
        account_data::put(&mut tx, 1, 0, "a", "{}").await.unwrap();
        let second = tx.commit().await.unwrap();
        assert_eq!(second.first, first.last + 1);
        assert_eq!(second.last, second.first);

        let mut tx = write(&store).await;
        assert_eq!(timeline::newest(&mut tx).await.unwrap(), second.last);
        let kinds = |rows: Vec<account_data::AccountData>| {
            rows.into_iter().map(|row| (row.room_nid, row.kind)).collect::<Vec<_>>()
        };
        let a = || (0, "a".to_owned());
        let b = || (5, "b".to_owned());
        assert_eq!(kinds(account_data::changed(&mut tx, 1, 0, second.last).await.unwrap()), [b(), a()]);
        assert_eq!(kinds(account_data::changed(&mut tx, 1, first.last, second.last).await.unwrap()), [a()]);
        assert_eq!(kinds(account_data::all(&mut tx, 1, second.last).await.unwrap()), [b()]);
        assert_eq!(kinds(account_data::in_rooms(&mut tx, 1, &[5], second.last).await.unwrap()), [b()]);
        assert_eq!(kinds(account_data::in_rooms(&mut tx, 1, &[6], second.last).await.unwrap()), []);
        assert_eq!(account_data::one(&mut tx, 1, 0, "a").await.unwrap().as_deref(), Some("{}"));
        let of_kind = account_data::of_kind(&mut tx, "a", &[2, 3]).await.unwrap();
        assert_eq!(of_kind, [(2, r#"{"x":3}"#.to_owned())]);
        account_data::remove_all(&mut tx, 1).await.unwrap();
        assert_eq!(account_data::one(&mut tx, 1, 5, "b").await.unwrap(), None);
    }
}

fn backed_up(session: &str, index: i64, is_verified: bool) -> BackedUpKey {
    BackedUpKey {
        room_id: "!r".into(),
        session_id: session.into(),
        first_message_index: index,
        forwarded_count: 0,
        is_verified,
        body: format!(r#"{{"i":{index}}}"#),
    }
}

#[tokio::test]
async fn a_backup_counts_its_keys_and_keeps_the_better_ones() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let mut tx = write(&store).await;
        locks::user(&mut tx, 1).await.unwrap();
        assert_eq!(key_backups::create(&mut tx, 1, "m.a", "{}").await.unwrap(), 1);
        assert_eq!(key_backups::create(&mut tx, 1, "m.a", "{}").await.unwrap(), 2);
        let (a, b) = (backed_up("a", 5, false), backed_up("b", 5, true));
        assert_eq!(key_backups::put(&mut tx, 1, 2, &[a.clone(), b.clone()]).await.unwrap(), (2, true));
        assert_eq!(key_backups::put(&mut tx, 1, 2, &[a, backed_up("b", 1, false)]).await.unwrap(), (0, false));
        let better = backed_up("a", 4, false);
        assert_eq!(
            key_backups::put(&mut tx, 1, 2, &[better.clone(), backed_up("c", 1, true)]).await.unwrap(),
            (1, true)
        );
        assert_eq!(key_backups::count_change(&mut tx, 1, 2, 3).await.unwrap(), (1, 3));

        assert_eq!(key_backups::keys(&mut tx, 1, 2, Part::Session("!r", "a")).await.unwrap(), [better]);
        assert_eq!(key_backups::keys(&mut tx, 1, 2, Part::Session("!r", "b")).await.unwrap(), [b]);
        assert_eq!(key_backups::keys(&mut tx, 1, 2, Part::Room("!other")).await.unwrap(), []);
        assert_eq!(key_backups::keys(&mut tx, 1, 2, Part::All).await.unwrap().len(), 3);
        assert_eq!(key_backups::remove(&mut tx, 1, 2, Part::Session("!r", "a")).await.unwrap(), 1);
        key_backups::set_auth_data(&mut tx, 1, 2, r#"{"n":1}"#).await.unwrap();
        let latest = key_backups::latest(&mut tx, 1).await.unwrap().unwrap();
        assert_eq!((latest.version, latest.auth_data.as_str(), latest.etag), (2, r#"{"n":1}"#, 1));
        key_backups::delete(&mut tx, 1, 2).await.unwrap();
        assert_eq!(key_backups::latest(&mut tx, 1).await.unwrap().unwrap().version, 1);
        assert!(key_backups::by_version(&mut tx, 1, 2).await.unwrap().unwrap().is_deleted);
        assert_eq!(key_backups::keys(&mut tx, 1, 2, Part::All).await.unwrap(), []);
        assert_eq!(key_backups::create(&mut tx, 1, "m.a", "{}").await.unwrap(), 3);
    }
}

#[tokio::test]
async fn a_filter_is_its_users() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let mut tx = write(&store).await;
        filters::put(&mut tx, 1, "id", "{}").await.unwrap();
        filters::put(&mut tx, 1, "id", "{}").await.unwrap();
        assert_eq!(filters::one(&mut tx, 1, "id").await.unwrap().as_deref(), Some("{}"));
        assert_eq!(filters::one(&mut tx, 2, "id").await.unwrap(), None);
    }
}

/// Room 1: alice (1, local) and bob (2); room 2: alice and carol (3), who left at the end.
#[tokio::test]
async fn who_shares_a_room_is_read_from_memberships_and_when_from_changes_of_state() {
    let (_folder, stores) = databases::both().await;
    for store in stores {
        let name = ruma::server_name!("example.org");
        let numbers = storage::numbers::Numbers::new(store.clone(), name);
        let alice = numbers.user(ruma::user_id!("@alice:example.org")).await.unwrap();
        let bob = numbers.user(ruma::user_id!("@bob:elsewhere.example")).await.unwrap();
        let carol = numbers.user(ruma::user_id!("@carol:elsewhere.example")).await.unwrap();
        let mut event_nid = 0;
        let mut at = Vec::new();
        for (room_nid, user_nid, membership) in
            [(1, alice, "join"), (1, bob, "join"), (2, alice, "join"), (2, carol, "join"), (2, carol, "leave")]
        {
            event_nid += 1;
            let mut tx = write(&store).await;
            let member = members::NewMember { room_nid, user_nid, membership, event_nid };
            members::put(&mut tx, &[member]).await.unwrap();
            let change = timeline::StateChange {
                cause_nid: event_nid,
                room_nid,
                state_key_nid: user_nid,
                event_nid: Some(event_nid),
                prev_event_nid: None,
            };
            timeline::put_state_changes(&mut tx, &[change]).await.unwrap();
            let event = storage::events::NewEvent {
                nid: event_nid,
                event_id: format!("${event_nid}"),
                room_nid,
                depth: event_nid,
                flags: 0,
                visible: true,
                sender_nid: user_nid,
                state_key_nid: None,
                ts: 0,
                state_nid: None,
                state_after_nid: None,
                auth: Vec::new(),
                body: b"{}".to_vec().into(),
            };
            let row = timeline::NewRow {
                event_nid,
                room_nid,
                flags: timeline::flags::STATE_CHANGES,
                thread_nid: 0,
                seq: 0,
                txn: None,
            };
            timeline::append(&mut tx, &[(event, row)]).await.unwrap();
            at.push(tx.commit().await.unwrap().last);
        }

        let mut tx = store.read().await.unwrap();
        assert_eq!(sharing::with_local_users(&mut tx, &[bob, carol]).await.unwrap(), [bob]);
        let mut told = async |user, since, until| {
            let mut lists = sharing::device_lists(&mut tx, user, since, until).await.unwrap();
            lists.sort_unstable();
            lists
        };
        assert_eq!(told(alice, at[0], at[1]).await, [(bob, false)]);
        assert!(told(alice, at[2], at[3]).await.is_empty());
        assert_eq!(told(alice, at[3], at[4]).await, [(carol, true)]);
        assert_eq!(told(carol, at[3], at[4]).await, [(alice, true)]);
    }
}
