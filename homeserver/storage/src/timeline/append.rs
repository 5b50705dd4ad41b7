//! How events come into the stream.

use sqlx::Sqlite;

use super::NewRow;
use crate::{
    Result, Tx,
    events::{self, NewEvent},
    store::Connection,
    text::Bound as _,
};

sql!(
    APPEND,
    "
    INSERT INTO timeline (pos, event_nid, room_nid, flags, thread_nid, seq, txn)
    VALUES ((SELECT next FROM next_position), $1, $2, $3, $4, $5, $6) RETURNING pos"
);
/// So many rows of the table `events`.
macro_rules! event_rows {
    ($first:literal $(, $more:literal)*) => {
        concat!("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)" $(, event_rows!(@ $more))*)
    };
    (@ $nth:literal) => { ", (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)" };
}
/// Rows of the stream: all see the counter as it was before the first of them.
macro_rules! stream_rows {
    ($first:literal $(, $more:literal)*) => {
        concat!(stream_rows!(@ $first) $(, ", ", stream_rows!(@ $more))*)
    };
    (@ $nth:literal) => { concat!("((SELECT next FROM next_position) + ", $nth, ", ?, ?, ?, ?, ?, ?)") };
}
/// Events and their rows in the stream, so many at once: two statements of SQLite in one call of the driver, whose thread is
/// woken once. PostgreSQL has [`APPEND_ALL`].
macro_rules! append {
    ($name:ident, $($nth:literal),+) => {
        sql!($name,
            sqlite: concat!("
                INSERT INTO events (nid, event_id, room_nid, depth, flags, visible, sender_nid, state_key_nid, ts, state_nid,
                    state_after_nid, auth, codec, body) VALUES ", event_rows!($($nth),+), ";
                INSERT INTO timeline (pos, event_nid, room_nid, flags, thread_nid, seq, txn) VALUES ",
                stream_rows!($($nth),+), " RETURNING pos"),
            postgres: "SELECT 1::bigint AS pos");
    };
}
append!(APPEND_1, 0);
append!(APPEND_4, 0, 1, 2, 3);
append!(APPEND_16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
// PostgreSQL takes a whole batch, events and stream, in one round trip.
sql!(APPEND_ALL,
    sqlite: "SELECT 1",
    postgres: "
        WITH stored AS (
            INSERT INTO events (nid, event_id, room_nid, depth, flags, visible, sender_nid, state_key_nid, ts, state_nid,
                state_after_nid, auth, codec, body)
            SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[],
                $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[], $13::bigint[],
                $14::bytea[])
        )
        INSERT INTO timeline (event_nid, room_nid, flags, thread_nid, seq, txn)
        SELECT event_nid, room_nid, flags, thread_nid, seq, txn
        FROM UNNEST($15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::text[])
            WITH ORDINALITY AS row (event_nid, room_nid, flags, thread_nid, seq, txn, nth)
        ORDER BY nth");
/// Store events and put them into the stream in this order.
///
/// # Errors
/// The driver's; [`crate::Error::is_duplicate`] when an event or a transaction id was stored before.
pub async fn append(tx: &mut Tx, batch: &[(NewEvent, NewRow)]) -> Result<()> {
    if tx.is_postgres() { append_postgres(tx, batch).await } else { append_sqlite(tx, batch).await }
}

async fn append_sqlite(tx: &mut Tx, mut batch: &[(NewEvent, NewRow)]) -> Result<()> {
    while !batch.is_empty() {
        let (statement, len) = match batch.len() {
            16.. => (&APPEND_16, 16),
            4.. => (&APPEND_4, 4),
            _ => (&APPEND_1, 1),
        };
        let (now, later) = batch.split_at(len);
        let mut query = sqlx::query_as::<Sqlite, (i64,)>(statement.sqlite);
        for (event, _) in now {
            let (codec, body) = events::encode(&event.body);
            query = query
                .bind(event.nid)
                .bind(event.event_id.as_str())
                .bind(event.room_nid)
                .bind(event.depth)
                .bind(event.flags)
                .bind(event.visible)
                .bind(event.sender_nid)
                .bind(event.state_key_nid)
                .bind(event.ts)
                .bind(event.state_nid)
                .bind(event.state_after_nid)
                .bind(events::pack(&event.auth))
                .bind(codec)
                .bind(body);
        }
        for (_, row) in now {
            query = query
                .bind(row.event_nid)
                .bind(row.room_nid)
                .bind(row.flags)
                .bind(row.thread_nid)
                .bind(row.seq)
                .bind(row.txn.clone().kept());
        }
        let Connection::Sqlite(connection) = tx.connection() else { return Ok(()) };
        let given = query.fetch_all(connection).await?;
        match given.iter().map(|(pos,)| *pos).max() {
            Some(newest) => tx.streamed_to(len as u64, newest),
            None => tx.streamed(len as u64),
        }
        batch = later;
    }
    Ok(())
}

async fn append_postgres(tx: &mut Tx, batch: &[(NewEvent, NewRow)]) -> Result<()> {
    macro_rules! column {
        ($item:ident => $value:expr) => {
            batch.iter().map(|$item| $value).collect::<Vec<_>>()
        };
    }
    let (codecs, bodies): (Vec<i64>, Vec<Vec<u8>>) = batch.iter().map(|(event, _)| events::encode(&event.body)).unzip();
    let Connection::Postgres(connection) = tx.connection() else { return Ok(()) };
    sqlx::query(APPEND_ALL.postgres)
        .bind(column!(b => b.0.nid))
        .bind(column!(b => b.0.event_id.as_str()))
        .bind(column!(b => b.0.room_nid))
        .bind(column!(b => b.0.depth))
        .bind(column!(b => b.0.flags))
        .bind(column!(b => b.0.visible))
        .bind(column!(b => b.0.sender_nid))
        .bind(column!(b => b.0.state_key_nid))
        .bind(column!(b => b.0.ts))
        .bind(column!(b => b.0.state_nid))
        .bind(column!(b => b.0.state_after_nid))
        .bind(column!(b => events::pack(&b.0.auth)))
        .bind(codecs)
        .bind(bodies)
        .bind(column!(b => b.1.event_nid))
        .bind(column!(b => b.1.room_nid))
        .bind(column!(b => b.1.flags))
        .bind(column!(b => b.1.thread_nid))
        .bind(column!(b => b.1.seq))
        .bind(column!(b => b.1.txn.clone().kept()))
        .execute(connection)
        .await?;
    tx.streamed(batch.len() as u64);
    Ok(())
}

/// Put an event that is stored already (an outlier that found its place) into the stream.
///
/// # Errors
/// The driver's.
pub async fn append_stored(tx: &mut Tx, row: &NewRow) -> Result<()> {
    let given: Option<(Option<i64>,)> = fetch_optional!(
        tx,
        APPEND,
        row.event_nid,
        row.room_nid,
        row.flags,
        row.thread_nid,
        row.seq,
        row.txn.as_deref()
    )?;
    match given {
        Some((Some(pos),)) => tx.streamed_to(1, pos),
        _ => tx.streamed(1),
    }
    Ok(())
}
