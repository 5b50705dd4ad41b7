//! Tables `events` and `missing_events`: every event this server keeps, whether or not clients may see it.
//!
//! | column | meaning |
//! |---|---|
//! | flags | sum of [`flags`] |
//! | visible | part of the room's history as clients page through it |
//! | state_nid | state before the event; NULL while unknown (outliers) |
//! | state_after_nid | state after it, when the event changes state |
//! | auth | the auth events' numbers, packed by [`pack`] |
//! | codec, body | the signed event without its id: 0 as it is, 1 zstd with [`DICTIONARY`] |
//!
//! An event's body changes once at most: when it is redacted.

use std::{cell::RefCell, sync::Arc};

use crate::{Error, Result, Tx, numbers::json_list};

/// Bits of the column `flags`.
pub mod flags {
    /// Kept for its place in auth chains only; its own place in the room's graph is unknown.
    pub const OUTLIER: i64 = 1;
    /// Refused by the room's rules.
    pub const REJECTED: i64 = 2;
    /// Allowed where it stands, refused by the current state.
    pub const SOFT_FAILED: i64 = 4;
    /// Its content has been taken out.
    pub const REDACTED: i64 = 8;
    /// Made by this server.
    pub const LOCAL: i64 = 16;
}

/// Words that signed events share; a prefix for the compressor. Never change it: stored bodies need it. A better one gets
/// the next codec number.
const DICTIONARY: &[u8] = br#"{"auth_events":["$"],"content":{"membership":"join","displayname":"","avatar_url":"mxc://"},"depth":1,"hashes":{"sha256":""},"origin_server_ts":17,"prev_events":["$"],"room_id":"!","sender":"@:","signatures":{"":{"ed25519:a_1":""}},"state_key":"@","type":"m.room.member"},"content":{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"","device_id":"","m.relates_to":{"event_id":"$","rel_type":"m.thread"},"sender_key":"","session_id":""},"type":"m.room.encrypted","content":{"body":"","m.mentions":{},"msgtype":"m.text"},"type":"m.room.message""#;
const CODEC_PLAIN: i64 = 0;
const CODEC_ZSTD: i64 = 1;
/// Level 1 costs some ten microseconds an event.
const ZSTD_LEVEL: i32 = 1;
/// No event is larger (65,536 bytes), whatever a broken row says.
const BODY_BYTES_MAX: usize = 70_000;

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> =
        RefCell::new(zstd::bulk::Compressor::with_dictionary(ZSTD_LEVEL, DICTIONARY).ok());
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        RefCell::new(zstd::bulk::Decompressor::with_dictionary(DICTIONARY).ok());
}

/// An event to store.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event's number.
    pub nid: i64,
    /// Its id.
    pub event_id: String,
    /// Its room.
    pub room_nid: i64,
    /// Its depth.
    pub depth: i64,
    /// See [`flags`].
    pub flags: i64,
    /// Part of the history clients see.
    pub visible: bool,
    /// Who sent it.
    pub sender_nid: i64,
    /// Number of (type, state key) of a state event.
    pub state_key_nid: Option<i64>,
    /// `origin_server_ts`, milliseconds.
    pub ts: i64,
    /// State before it.
    pub state_nid: Option<i64>,
    /// State after it, when different.
    pub state_after_nid: Option<i64>,
    /// Numbers of its auth events.
    pub auth: Vec<i64>,
    /// The signed event, without its id.
    pub body: Arc<[u8]>,
}

/// An event as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Row {
    /// The event's number.
    pub nid: i64,
    /// Its id.
    pub event_id: String,
    /// Its room.
    pub room_nid: i64,
    /// Its depth.
    pub depth: i64,
    /// See [`flags`].
    pub flags: i64,
    /// State before it.
    pub state_nid: Option<i64>,
    /// State after it, when different.
    pub state_after_nid: Option<i64>,
    /// Packed numbers of its auth events.
    pub auth: Vec<u8>,
    /// How `body` is written.
    pub codec: i64,
    /// The signed event.
    pub body: Vec<u8>,
}

impl Row {
    /// The signed event as JSON.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when the bytes are not what we write.
    pub fn json(&self) -> Result<Vec<u8>> {
        decode(self.codec, &self.body, &self.event_id)
    }

    /// True when the flag (or any of them) is set.
    #[must_use]
    pub fn has(&self, flag: i64) -> bool {
        self.flags & flag != 0
    }

    /// State after the event.
    #[must_use]
    pub fn state_after(&self) -> Option<i64> {
        self.state_after_nid.or(self.state_nid)
    }
}

/// Packs a body for storing: (codec, bytes).
pub(crate) fn encode(body: &[u8]) -> (i64, Vec<u8>) {
    let packed = COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(body).ok());
    match packed {
        Some(packed) if packed.len() < body.len() => (CODEC_ZSTD, packed),
        _ => (CODEC_PLAIN, body.to_vec()),
    }
}

fn decode(codec: i64, body: &[u8], event_id: &str) -> Result<Vec<u8>> {
    let broken = |what| Error::Inconsistent { table: "events", key: event_id.to_owned(), what };
    match codec {
        CODEC_PLAIN => Ok(body.to_vec()),
        CODEC_ZSTD => DECOMPRESSOR
            .with_borrow_mut(|d| d.as_mut()?.decompress(body, BODY_BYTES_MAX).ok())
            .ok_or_else(|| broken("body does not decompress")),
        _ => Err(broken("unknown codec")),
    }
}

/// Numbers as bytes: each as the difference to the one before, seven bits a byte, sign last.
#[must_use]
pub fn pack(numbers: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(numbers.len() * 2);
    let mut before = 0_i64;
    for number in numbers {
        let step = number.wrapping_sub(before);
        before = *number;
        #[expect(clippy::cast_sign_loss, reason = "zigzag: the sign moves into the lowest bit")]
        let mut left = ((step << 1) ^ (step >> 63)) as u64;
        while left >= 0x80 {
            bytes.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
    }
    bytes
}

/// The numbers [`pack`] wrote. Broken bytes end the list early.
#[must_use]
pub fn unpack(bytes: &[u8]) -> Vec<i64> {
    let mut numbers = Vec::new();
    let (mut before, mut value, mut shift) = (0_i64, 0_u64, 0_u32);
    for byte in bytes {
        if shift > 63 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 != 0 {
            shift += 7;
            continue;
        }
        #[expect(clippy::cast_possible_wrap, reason = "undoes the zigzag of pack")]
        let step = ((value >> 1) as i64) ^ -((value & 1) as i64);
        before = before.wrapping_add(step);
        numbers.push(before);
        (value, shift) = (0, 0);
    }
    numbers
}

sql!(
    INSERT,
    "
    INSERT INTO events (nid, event_id, room_nid, depth, flags, visible, sender_nid, state_key_nid, ts, state_nid,
        state_after_nid, auth, codec, body)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    ON CONFLICT (event_id) DO NOTHING"
);
sql!(
    BY_IDS,
    "
    SELECT nid, event_id, room_nid, depth, flags, state_nid, state_after_nid, auth, codec, body
    FROM events WHERE event_id IN (SELECT value FROM json_each($1))"
);
sql!(
    BY_NIDS,
    "
    SELECT nid, event_id, room_nid, depth, flags, state_nid, state_after_nid, auth, codec, body
    FROM events WHERE nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    NIDS_BY_IDS,
    "
    SELECT event_id, nid FROM events WHERE event_id IN (SELECT value FROM json_each($1))"
);
sql!(
    IDS_BY_NIDS,
    "
    SELECT nid, event_id FROM events WHERE nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    AUTH_BY_NIDS,
    "
    SELECT nid, auth FROM events WHERE nid IN (SELECT CAST(value AS BIGINT) FROM json_each($1))"
);
sql!(
    AUTH_GRAPH,
    "SELECT nid, state_key_nid, auth FROM events WHERE room_nid = $1 AND state_key_nid IS NOT NULL ORDER BY depth, nid"
);
sql!(
    BEFORE,
    "
    SELECT nid, event_id, room_nid, depth, flags, state_nid, state_after_nid, auth, codec, body
    FROM events WHERE room_nid = $1 AND visible AND (depth, nid) < ($2, $3)
    ORDER BY depth DESC, nid DESC LIMIT $4"
);
sql!(
    AFTER,
    "
    SELECT nid, event_id, room_nid, depth, flags, state_nid, state_after_nid, auth, codec, body
    FROM events WHERE room_nid = $1 AND visible AND (depth, nid) > ($2, $3)
    ORDER BY depth, nid LIMIT $4"
);
sql!(
    BY_TIME_FORWARD,
    "
    SELECT nid, event_id, room_nid, depth, flags, state_nid, state_after_nid, auth, codec, body
    FROM events WHERE room_nid = $1 AND visible AND ts >= $2 ORDER BY ts, depth, nid LIMIT $3"
);
sql!(
    BY_TIME_BACKWARD,
    "
    SELECT nid, event_id, room_nid, depth, flags, state_nid, state_after_nid, auth, codec, body
    FROM events WHERE room_nid = $1 AND visible AND ts <= $2 ORDER BY ts DESC, depth DESC, nid DESC LIMIT $3"
);
sql!(SET_BODY, "UPDATE events SET flags = $2, codec = $3, body = $4 WHERE nid = $1");
sql!(
    SET_PLACE,
    "
    UPDATE events SET flags = $2, visible = $3, state_nid = $4, state_after_nid = $5 WHERE nid = $1"
);
sql!(
    MISSING_PUT,
    "
    INSERT INTO missing_events (room_nid, event_id, child_nid, depth) VALUES ($1, $2, $3, $4)
    ON CONFLICT (room_nid, event_id, child_nid) DO NOTHING"
);
sql!(MISSING_FOUND, "DELETE FROM missing_events WHERE room_nid = $1 AND event_id = $2");
sql!(
    MISSING,
    "
    SELECT event_id, child_nid, depth FROM missing_events WHERE room_nid = $1 AND depth <= $2
    ORDER BY depth DESC LIMIT $3"
);

/// Store an event. False when it was stored before.
///
/// # Errors
/// The driver's.
pub async fn insert(tx: &mut Tx, event: &NewEvent) -> Result<bool> {
    let (codec, body) = encode(&event.body);
    let rows = execute!(
        tx,
        INSERT,
        event.nid,
        event.event_id.as_str(),
        event.room_nid,
        event.depth,
        event.flags,
        event.visible,
        event.sender_nid,
        event.state_key_nid,
        event.ts,
        event.state_nid,
        event.state_after_nid,
        pack(&event.auth),
        codec,
        body,
    )?;
    Ok(rows == 1)
}

/// Events by id, in no order; absent ones are left out.
///
/// # Errors
/// The driver's.
pub async fn by_ids<T: serde::Serialize>(tx: &mut Tx, event_ids: &[T]) -> Result<Vec<Row>> {
    fetch_all!(tx, BY_IDS, json_list(event_ids))
}

/// Events by number, in no order.
///
/// # Errors
/// The driver's.
pub async fn by_nids(tx: &mut Tx, nids: &[i64]) -> Result<Vec<Row>> {
    fetch_all!(tx, BY_NIDS, json_list(nids))
}

/// Numbers of events: (id, number).
///
/// # Errors
/// The driver's.
pub async fn nids<T: serde::Serialize>(tx: &mut Tx, event_ids: &[T]) -> Result<Vec<(String, i64)>> {
    fetch_all!(tx, NIDS_BY_IDS, json_list(event_ids))
}

/// Ids of events: (number, id).
///
/// # Errors
/// The driver's.
pub async fn ids(tx: &mut Tx, nids: &[i64]) -> Result<Vec<(i64, String)>> {
    fetch_all!(tx, IDS_BY_NIDS, json_list(nids))
}

/// The auth events of events: (event, its auth events).
///
/// # Errors
/// The driver's.
pub async fn auth(tx: &mut Tx, nids: &[i64]) -> Result<Vec<(i64, Vec<i64>)>> {
    let rows: Vec<(i64, Vec<u8>)> = fetch_all!(tx, AUTH_BY_NIDS, json_list(nids))?;
    Ok(rows.into_iter().map(|(nid, packed)| (nid, unpack(&packed))).collect())
}

/// The auth graph of a room: each state event with its state key and auth events, the lowest depth first.
///
/// # Errors
/// The driver's.
pub async fn auth_graph(tx: &mut Tx, room_nid: i64) -> Result<Vec<(i64, Option<i64>, Vec<i64>)>> {
    let rows: Vec<(i64, Option<i64>, Vec<u8>)> = fetch_all!(tx, AUTH_GRAPH, room_nid)?;
    Ok(rows.into_iter().map(|(nid, key, packed)| (nid, key, unpack(&packed))).collect())
}

/// A place in a room's history: depth, then number.
pub type Place = (i64, i64);

/// At most `limit` visible events before `place`, the latest first.
///
/// # Errors
/// The driver's.
pub async fn before(tx: &mut Tx, room_nid: i64, place: Place, limit: i64) -> Result<Vec<Row>> {
    fetch_all!(tx, BEFORE, room_nid, place.0, place.1, limit)
}

/// At most `limit` visible events after `place`, the earliest first.
///
/// # Errors
/// The driver's.
pub async fn after(tx: &mut Tx, room_nid: i64, place: Place, limit: i64) -> Result<Vec<Row>> {
    fetch_all!(tx, AFTER, room_nid, place.0, place.1, limit)
}

/// At most `limit` visible events nearest to a time, the nearest first: at or after `ts` when `forward`, else at or before.
///
/// # Errors
/// The driver's.
pub async fn by_time(tx: &mut Tx, room_nid: i64, ts: i64, forward: bool, limit: i64) -> Result<Vec<Row>> {
    if forward {
        fetch_all!(tx, BY_TIME_FORWARD, room_nid, ts, limit)
    } else {
        fetch_all!(tx, BY_TIME_BACKWARD, room_nid, ts, limit)
    }
}

/// Replace an event's body (redaction) and its flags.
///
/// # Errors
/// The driver's.
pub async fn set_body(tx: &mut Tx, nid: i64, flags: i64, body: &[u8]) -> Result<()> {
    let (codec, body) = encode(body);
    execute!(tx, SET_BODY, nid, flags, codec, body)?;
    Ok(())
}

/// Give an outlier its place in the room: flags, visibility, state before and after.
///
/// # Errors
/// The driver's.
pub async fn set_place(
    tx: &mut Tx,
    nid: i64,
    flags: i64,
    visible: bool,
    state_nid: Option<i64>,
    state_after_nid: Option<i64>,
) -> Result<()> {
    execute!(tx, SET_PLACE, nid, flags, visible, state_nid, state_after_nid)?;
    Ok(())
}

/// Note that `child_nid` names a predecessor we do not have.
///
/// # Errors
/// The driver's.
pub async fn put_missing(tx: &mut Tx, room_nid: i64, event_id: &str, child_nid: i64, depth: i64) -> Result<()> {
    execute!(tx, MISSING_PUT, room_nid, event_id, child_nid, depth)?;
    Ok(())
}

/// Note that `event_id` is no longer missing.
///
/// # Errors
/// The driver's.
pub async fn found(tx: &mut Tx, room_nid: i64, event_id: &str) -> Result<()> {
    execute!(tx, MISSING_FOUND, room_nid, event_id)?;
    Ok(())
}

/// Predecessors we do not have of events no deeper than `depth_max`: (event id, the child that names it, the child's depth), the
/// latest first.
///
/// # Errors
/// The driver's.
pub async fn missing(tx: &mut Tx, room_nid: i64, depth_max: i64, limit: i64) -> Result<Vec<(String, i64, i64)>> {
    fetch_all!(tx, MISSING, room_nid, depth_max, limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_numbers_come_back(numbers in proptest::collection::vec(any::<i64>(), 0..40)) {
            prop_assert_eq!(unpack(&pack(&numbers)), numbers);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(&bytes);
            let _ = decode(CODEC_ZSTD, &bytes, "$event");
        }

        #[test]
        fn bodies_come_back(body in ".{0,3000}") {
            let (codec, packed) = encode(body.as_bytes());
            prop_assert_eq!(decode(codec, &packed, "$event").unwrap(), body.as_bytes());
        }
    }
}
