//! Positions lose nothing: with many writers and readers at once, whoever reads up to the newest position has everything before
//! it, once and in order. On both databases; on PostgreSQL from two processes' pools.

mod databases;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use ruma::{UserId, owned_server_name};
use storage::{
    Settings, Span, Store, Tx, account_data,
    device_changes::{self, NewChange},
    events::NewEvent,
    numbers::Numbers,
    receipts::{self, Receipt},
    timeline::{self, NewRow},
    to_device::{self, NewMessage},
};

const WRITERS: i64 = 8;
const READERS: usize = 3;
const TRANSACTIONS_PER_WRITER: i64 = 40;
const ROWS_PER_READ: i64 = 100_000;
/// Pieces of account data each writer keeps changing.
const KINDS: u64 = 3;
const DEVICE: &str = "DEVICE";

/// Numbers that look random and come the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What all writers and readers of one database share.
#[derive(Default)]
struct Shared {
    /// The last position any writer was told.
    acknowledged: AtomicI64,
    /// Writers at work.
    writing: AtomicUsize,
}

/// What a writer was promised.
#[derive(Default)]
struct Written {
    spans: Vec<Span>,
    /// Rows that never move, by name.
    rows: Vec<String>,
    /// Rows that move with each change: the newest content of each.
    newest: BTreeMap<String, i64>,
}

/// What a reader saw.
#[derive(Default)]
struct Read {
    /// Rows that never move, in the order they were seen.
    rows: Vec<String>,
    /// Rows that move: the newest content seen.
    newest: BTreeMap<String, i64>,
    reads: usize,
}

/// A database as one or more processes have it open, with the numbers of its writers' users; the folder must outlive the test.
async fn databases() -> (tempfile::TempDir, Vec<(Vec<Store>, Vec<i64>)>) {
    let (folder, [file, postgres]) = databases::addresses().await;
    let mut databases = Vec::new();
    for (url, processes) in [(file, 1), (postgres, 2)] {
        let mut stores = Vec::new();
        for _ in 0..processes {
            stores.push(Store::connect(&Settings { connections_max: 6, ..Settings::new(url.clone()) }).await.unwrap());
        }
        let numbers = Numbers::new(stores[0].clone(), &owned_server_name!("example.org"));
        let mut users = Vec::new();
        for writer in 0..WRITERS {
            let user = UserId::parse(format!("@writer{writer}:example.org")).unwrap();
            users.push(numbers.user(&user).await.unwrap());
        }
        databases.push((stores, users));
    }
    (folder, databases)
}

fn event(nid: i64, room_nid: i64) -> (NewEvent, NewRow) {
    let event = NewEvent {
        nid,
        event_id: format!("${nid}"),
        room_nid,
        depth: nid,
        flags: 0,
        visible: true,
        sender_nid: 1,
        state_key_nid: None,
        ts: nid,
        state_nid: None,
        state_after_nid: None,
        auth: Vec::new(),
        body: Arc::from(&b"{}"[..]),
    };
    let row = NewRow { event_nid: nid, room_nid, flags: 0, thread_nid: 0, seq: 0, txn: None };
    (event, row)
}

/// Write some rows of every kind; remembers in `written` what will be there if the transaction commits.
async fn write_some(tx: &mut Tx, dice: &mut Dice, user_nid: i64, from: i64, written: &mut Written) {
    let mut nids = from..;
    for _ in 0..=dice.below(3) {
        let nid = nids.next().unwrap();
        match dice.below(5) {
            0 | 1 => {
                let batch: Vec<_> = (0..=dice.below(3)).map(|_| event(nids.next().unwrap(), user_nid)).collect();
                timeline::append(tx, &batch).await.unwrap();
                written.rows.extend(batch.iter().map(|(event, _)| event.event_id.clone()));
            }
            2 => {
                let body = format!("message {nid}");
                let message = NewMessage { nid, user_nid: 1, device_id: DEVICE.to_owned(), body: body.clone() };
                to_device::put(tx, &[message]).await.unwrap();
                written.rows.push(body);
            }
            3 => {
                let device_id = format!("device {nid}");
                let change = NewChange { nid, user_nid, device_id: &device_id, viewer_nid: 0 };
                device_changes::put(tx, &[change]).await.unwrap();
                written.rows.push(device_id);
            }
            _ => {
                let kind = format!("kind {user_nid} {}", dice.below(KINDS));
                // Once in a transaction: a row that moves twice in one takes one position on PostgreSQL.
                if let Entry::Vacant(first) = written.newest.entry(kind) {
                    account_data::put(tx, user_nid, 0, first.key(), &nid.to_string()).await.unwrap();
                    first.insert(nid);
                }
            }
        }
    }
    if written.newest.is_empty() {
        let receipt = Receipt {
            room_nid: user_nid,
            user_nid,
            kind: "m.read".to_owned(),
            thread: String::new(),
            event_id: format!("${from}"),
            ts: from,
        };
        receipts::put(tx, &receipt).await.unwrap();
        written.newest.insert(format!("receipt {user_nid}"), from);
    }
}

/// Transactions one after the other: most commit, some are rolled back, some are dropped.
async fn write(store: Store, shared: Arc<Shared>, number: i64, user_nid: i64) -> Written {
    let mut dice = Dice(u64::try_from(number).unwrap() + 1);
    let mut all = Written::default();
    for transaction in 0..TRANSACTIONS_PER_WRITER {
        let from = 1_000_000 * (number + 1) + 100 * transaction;
        let mut written = Written::default();
        let mut tx = store.begin().await.unwrap();
        write_some(&mut tx, &mut dice, user_nid, from, &mut written).await;
        match dice.below(8) {
            0 => tx.rollback().await.unwrap(),
            1 => drop(tx),
            _ => {
                let span = tx.commit().await.unwrap();
                shared.acknowledged.fetch_max(span.last, Ordering::SeqCst);
                all.spans.push(span);
                all.rows.extend(written.rows);
                all.newest.extend(written.newest);
            }
        }
    }
    shared.writing.fetch_sub(1, Ordering::SeqCst);
    all
}

/// Read from position to position until all writers are done.
async fn read(store: Store, shared: Arc<Shared>, users: Vec<i64>) -> Read {
    let mut seen = Read::default();
    let mut since = 0;
    loop {
        let is_last = shared.writing.load(Ordering::SeqCst) == 0;
        let acknowledged = shared.acknowledged.load(Ordering::SeqCst);
        let mut tx = store.read().await.unwrap();
        let until = timeline::newest(&mut tx).await.unwrap();
        assert!(until >= acknowledged, "{acknowledged} was acknowledged, {until} is the newest to be read");
        if until > since {
            read_between(&mut tx, &users, since, until, &mut seen).await;
            seen.reads += 1;
        }
        drop(tx);
        since = until;
        if is_last {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}

async fn read_between(tx: &mut Tx, users: &[i64], since: i64, until: i64, seen: &mut Read) {
    let mut rows: Vec<(i64, String)> = Vec::new();
    let events = timeline::between(tx, since, until, ROWS_PER_READ).await.unwrap();
    rows.extend(events.into_iter().map(|row| (row.pos, row.event.event_id)));
    let messages = to_device::read(tx, 1, DEVICE, since, until, ROWS_PER_READ).await.unwrap();
    rows.extend(messages.into_iter().filter(|(pos, _)| *pos > since));
    let changes = device_changes::outbound(tx, since, until, ROWS_PER_READ).await.unwrap();
    rows.extend(changes.into_iter().map(|change| (change.pos, change.device_id)));
    rows.sort();
    seen.rows.extend(rows.into_iter().map(|(_, name)| name));
    let mut moved: Vec<(String, i64)> = Vec::new();
    for user_nid in users {
        let pieces = account_data::changed(tx, *user_nid, since, until).await.unwrap();
        moved.extend(pieces.into_iter().map(|piece| (piece.kind, piece.body.parse().unwrap())));
    }
    let read = receipts::between(tx, since, until, ROWS_PER_READ).await.unwrap();
    moved.extend(read.into_iter().map(|receipt| (format!("receipt {}", receipt.user_nid), receipt.ts)));
    for (name, content) in moved {
        let before = seen.newest.insert(name.clone(), content).unwrap_or(0);
        assert!(before <= content, "{name} went back from {before} to {content}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_miss_nothing_that_many_writers_commit() {
    let (_folder, databases) = databases().await;
    for (stores, users) in databases {
        let shared = Arc::new(Shared { writing: AtomicUsize::new(users.len()), ..Shared::default() });
        let pick = |at: usize| stores[at % stores.len()].clone();
        let mut readers = tokio::task::JoinSet::new();
        for reader in 0..READERS {
            readers.spawn(read(pick(reader), Arc::clone(&shared), users.clone()));
        }
        let mut writers = tokio::task::JoinSet::new();
        for (number, user_nid) in (0..).zip(&users) {
            let at = usize::try_from(number).unwrap();
            writers.spawn(write(pick(at), Arc::clone(&shared), number, *user_nid));
        }
        let written = writers.join_all().await;

        let mut spans: Vec<(i64, i64)> =
            written.iter().flat_map(|one| &one.spans).map(|span| (span.first, span.last)).collect();
        spans.sort_unstable();
        let mut next = 1;
        for (first, last) in spans {
            assert_eq!(first, next, "positions have a hole or were given twice");
            assert!(last >= first, "a transaction with rows took no position");
            next = last + 1;
        }
        let mut rows: Vec<&String> = written.iter().flat_map(|one| &one.rows).collect();
        rows.sort_unstable();
        let newest: BTreeMap<&String, &i64> = written.iter().flat_map(|one| &one.newest).collect();
        let seen_by_all = readers.join_all().await;
        for seen in &seen_by_all {
            // A writer's own rows come in the order it wrote them.
            for one in &written {
                let own: std::collections::HashSet<&String> = one.rows.iter().collect();
                let order: Vec<&String> = seen.rows.iter().filter(|name| own.contains(name)).collect();
                assert!(order.iter().copied().eq(&one.rows), "rows of one writer came in another order");
            }
            let mut sorted: Vec<&String> = seen.rows.iter().collect();
            sorted.sort_unstable();
            assert_eq!(sorted, rows, "rows were lost or seen twice");
            assert_eq!(seen.newest.iter().collect::<BTreeMap<_, _>>(), newest);
        }
        assert!(seen_by_all.iter().any(|seen| seen.reads > 5), "nobody read while others wrote");
    }
}
