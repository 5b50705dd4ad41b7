//! Tables `media`, `blobs`, `thumbnails`.
//!
//! `media` says what a `mxc://` URI names: one row a URI, ours or another server's.
//!
//! | column of media | meaning |
//! |---|---|
//! | server, media_id | key |
//! | user_nid | who uploaded it; nothing for another server's media |
//! | blob | SHA-256 of the content, hexadecimal; nothing while an announced upload has not come |
//! | expires_ts | until when an announced upload may come |
//! | needs_token | only for those who show an access token: uploaded or fetched after the unauthenticated endpoints were frozen |
//! | quarantined | served to nobody |
//!
//! `blobs` holds each content once, however many URIs name it: where its encrypted file is and its key, wrapped by the server's.
//! Nothing counts references; a blob without a row of `media` or `thumbnails` naming it may go ([`unreferenced`]).

use crate::{Result, Tx};

/// What a `mxc://` URI names.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Media {
    /// The server that gave the id.
    pub server: String,
    /// The id.
    pub media_id: String,
    /// Who uploaded it.
    pub user_nid: Option<i64>,
    /// SHA-256 of the content, hexadecimal.
    pub blob: Option<String>,
    /// As the uploader or the other server said.
    pub content_type: Option<String>,
    /// As the uploader or the other server said.
    pub filename: Option<String>,
    /// Length of the content.
    pub bytes: i64,
    /// When it was announced, uploaded or fetched.
    pub created_ts: i64,
    /// Until when an announced upload may come.
    pub expires_ts: Option<i64>,
    /// When it was last asked for, to about a day.
    pub last_access_ts: i64,
    /// Only for those who show an access token.
    pub needs_token: bool,
    /// Served to nobody.
    pub quarantined: bool,
}

/// One content.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Blob {
    /// SHA-256 of the content, hexadecimal.
    pub hash: String,
    /// Where its encrypted file is.
    pub location: String,
    /// Length of the content, not of the file.
    pub bytes: i64,
    /// Its key, wrapped by the server's.
    pub wrapped_key: Vec<u8>,
    /// When it was stored.
    pub created_ts: i64,
}

/// A thumbnail made of a blob.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Thumbnail {
    /// The blob it was made of.
    pub blob: String,
    /// Width of the box it was made for, in pixels.
    pub width: i64,
    /// Height of the box.
    pub height: i64,
    /// `crop` or `scale`.
    pub method: String,
    /// Whether it moves.
    pub animated: bool,
    /// Its own content; the same as `blob` when the original serves.
    pub thumb_blob: String,
    /// Its type.
    pub content_type: String,
}

sql!(
    PUT,
    "
    INSERT INTO media (server, media_id, user_nid, blob, content_type, filename, bytes, created_ts, expires_ts,
        last_access_ts, needs_token, quarantined)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8, $10, FALSE)
    ON CONFLICT (server, media_id) DO NOTHING"
);
sql!(
    FILL,
    "
    UPDATE media SET blob = $3, content_type = $4, filename = $5, bytes = $6, expires_ts = NULL
    WHERE server = $1 AND media_id = $2 AND blob IS NULL"
);
sql!(
    ONE,
    "
    SELECT server, media_id, user_nid, blob, content_type, filename, bytes, created_ts, expires_ts, last_access_ts,
        needs_token, quarantined
    FROM media WHERE server = $1 AND media_id = $2"
);
sql!(
    TOUCH,
    "
    UPDATE media SET last_access_ts = $3 WHERE server = $1 AND media_id = $2 AND last_access_ts < $3"
);
sql!(QUARANTINE, "UPDATE media SET quarantined = $3 WHERE server = $1 AND media_id = $2");
sql!(REMOVE, "DELETE FROM media WHERE server = $1 AND media_id = $2");
sql!(
    REMOVE_EXPIRED,
    "
    DELETE FROM media WHERE blob IS NULL AND expires_ts < $1"
);
sql!(
    PENDING_OF_USER,
    "
    SELECT count(*) AS number FROM media WHERE user_nid = $1 AND blob IS NULL AND expires_ts >= $2"
);
sql!(
    BYTES_OF_USER,
    "
    SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes FROM media WHERE user_nid = $1 AND created_ts >= $2"
);
sql!(
    STALE_REMOTE,
    "
    SELECT server, media_id, user_nid, blob, content_type, filename, bytes, created_ts, expires_ts, last_access_ts,
        needs_token, quarantined
    FROM media WHERE user_nid IS NULL AND last_access_ts < $1 ORDER BY last_access_ts LIMIT $2"
);
// Touching the row that is there keeps the sweeper, which looks at its time again when it deletes, from taking it now.
sql!(
    BLOB_PUT,
    "
    INSERT INTO blobs (hash, location, bytes, wrapped_key, created_ts) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (hash) DO UPDATE SET created_ts = excluded.created_ts
    RETURNING location"
);
sql!(BLOB, "SELECT hash, location, bytes, wrapped_key, created_ts FROM blobs WHERE hash = $1");
sql!(
    UNREFERENCED,
    "
    SELECT b.hash, b.location, b.bytes, b.wrapped_key, b.created_ts FROM blobs AS b
    WHERE b.created_ts < $1
        AND NOT EXISTS (SELECT 1 FROM media AS m WHERE m.blob = b.hash)
        AND NOT EXISTS (SELECT 1 FROM thumbnails AS t WHERE t.thumb_blob = b.hash AND EXISTS (
            SELECT 1 FROM media AS n WHERE n.blob = t.blob))
    ORDER BY b.created_ts LIMIT $2"
);
sql!(BLOB_REMOVE, "DELETE FROM blobs WHERE hash = $1 AND created_ts = $2");
sql!(THUMBNAILS_REMOVE, "DELETE FROM thumbnails WHERE blob = $1 OR thumb_blob = $1");
sql!(
    THUMBNAIL_PUT,
    "
    INSERT INTO thumbnails (blob, width, height, method, animated, thumb_blob, content_type)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (blob, width, height, method, animated) DO NOTHING"
);
sql!(
    THUMBNAIL,
    "
    SELECT blob, width, height, method, animated, thumb_blob, content_type FROM thumbnails
    WHERE blob = $1 AND width = $2 AND height = $3 AND method = $4 AND animated = $5"
);

/// Store a new URI; `last_access_ts` becomes `created_ts`. False when it is taken.
///
/// # Errors
/// The driver's.
pub async fn put(tx: &mut Tx, media: &Media) -> Result<bool> {
    let rows = execute!(
        tx,
        PUT,
        media.server.as_str(),
        media.media_id.as_str(),
        media.user_nid,
        media.blob.as_deref(),
        media.content_type.as_deref(),
        media.filename.as_deref(),
        media.bytes,
        media.created_ts,
        media.expires_ts,
        media.needs_token,
    )?;
    Ok(rows == 1)
}

/// Give an announced URI its content. False when it had some already.
///
/// # Errors
/// The driver's.
pub async fn fill(tx: &mut Tx, media: &Media) -> Result<bool> {
    let rows = execute!(
        tx,
        FILL,
        media.server.as_str(),
        media.media_id.as_str(),
        media.blob.as_deref(),
        media.content_type.as_deref(),
        media.filename.as_deref(),
        media.bytes,
    )?;
    Ok(rows == 1)
}

/// What a URI names.
///
/// # Errors
/// The driver's.
pub async fn one(tx: &mut Tx, server: &str, media_id: &str) -> Result<Option<Media>> {
    fetch_optional!(tx, ONE, server, media_id)
}

/// Remember that somebody asked for it.
///
/// # Errors
/// The driver's.
pub async fn touch(tx: &mut Tx, server: &str, media_id: &str, now_ms: i64) -> Result<()> {
    execute!(tx, TOUCH, server, media_id, now_ms)?;
    Ok(())
}

/// Hide it from everybody, or show it again. False when there is no such URI.
///
/// # Errors
/// The driver's.
pub async fn quarantine(tx: &mut Tx, server: &str, media_id: &str, quarantined: bool) -> Result<bool> {
    Ok(execute!(tx, QUARANTINE, server, media_id, quarantined)? == 1)
}

/// Remove a URI; its blob goes when nothing names it any more. False when there is no such URI.
///
/// # Errors
/// The driver's.
pub async fn remove(tx: &mut Tx, server: &str, media_id: &str) -> Result<bool> {
    Ok(execute!(tx, REMOVE, server, media_id)? == 1)
}

/// Remove announced uploads that did not come in time. Returns how many.
///
/// # Errors
/// The driver's.
pub async fn remove_expired(tx: &mut Tx, now_ms: i64) -> Result<u64> {
    execute!(tx, REMOVE_EXPIRED, now_ms)
}

/// How many uploads a user has announced that may still come.
///
/// # Errors
/// The driver's.
pub async fn pending_of(tx: &mut Tx, user_nid: i64, now_ms: i64) -> Result<i64> {
    let row: Option<(i64,)> = fetch_optional!(tx, PENDING_OF_USER, user_nid, now_ms)?;
    Ok(row.map_or(0, |(number,)| number))
}

/// Bytes a user has uploaded since a time.
///
/// # Errors
/// The driver's.
pub async fn bytes_of(tx: &mut Tx, user_nid: i64, since_ts: i64) -> Result<i64> {
    let row: Option<(i64,)> = fetch_optional!(tx, BYTES_OF_USER, user_nid, since_ts)?;
    Ok(row.map_or(0, |(bytes,)| bytes))
}

/// Other servers' media that nobody asked for since `before_ts`, the longest unused first.
///
/// # Errors
/// The driver's.
pub async fn stale_remote(tx: &mut Tx, before_ts: i64, limit: i64) -> Result<Vec<Media>> {
    fetch_all!(tx, STALE_REMOTE, before_ts, limit)
}

/// Store a content. False when it is there already; then the caller's file is not needed.
///
/// # Errors
/// The driver's.
pub async fn put_blob(tx: &mut Tx, blob: &Blob) -> Result<bool> {
    let stored: Option<(String,)> = fetch_optional!(
        tx,
        BLOB_PUT,
        blob.hash.as_str(),
        blob.location.as_str(),
        blob.bytes,
        blob.wrapped_key.as_slice(),
        blob.created_ts,
    )?;
    Ok(stored.is_some_and(|(location,)| location == blob.location))
}

/// A content by its hash.
///
/// # Errors
/// The driver's.
pub async fn blob(tx: &mut Tx, hash: &str) -> Result<Option<Blob>> {
    fetch_optional!(tx, BLOB, hash)
}

/// Blobs stored before a time that nothing names: their files may go. Thumbnails of a removed original count as unnamed.
///
/// # Errors
/// The driver's.
pub async fn unreferenced(tx: &mut Tx, before_ts: i64, limit: i64) -> Result<Vec<Blob>> {
    fetch_all!(tx, UNREFERENCED, before_ts, limit)
}

/// Remove a blob that [`unreferenced`] found and what is known of its thumbnails. False when somebody stored it again
/// meanwhile; then its file stays.
///
/// # Errors
/// The driver's.
pub async fn remove_blob(tx: &mut Tx, blob: &Blob) -> Result<bool> {
    if execute!(tx, BLOB_REMOVE, blob.hash.as_str(), blob.created_ts)? == 0 {
        return Ok(false);
    }
    execute!(tx, THUMBNAILS_REMOVE, blob.hash.as_str())?;
    Ok(true)
}

/// Remember a thumbnail.
///
/// # Errors
/// The driver's.
pub async fn put_thumbnail(tx: &mut Tx, thumbnail: &Thumbnail) -> Result<()> {
    execute!(
        tx,
        THUMBNAIL_PUT,
        thumbnail.blob.as_str(),
        thumbnail.width,
        thumbnail.height,
        thumbnail.method.as_str(),
        thumbnail.animated,
        thumbnail.thumb_blob.as_str(),
        thumbnail.content_type.as_str(),
    )?;
    Ok(())
}

/// The thumbnail of a blob for a box.
///
/// # Errors
/// The driver's.
pub async fn thumbnail(
    tx: &mut Tx,
    blob: &str,
    (width, height): (i64, i64),
    method: &str,
    animated: bool,
) -> Result<Option<Thumbnail>> {
    fetch_optional!(tx, THUMBNAIL, blob, width, height, method, animated)
}
