//! Media: files that people upload, given out again here and to other servers.
//!
//! * A content is kept once, encrypted ([`vault`], [`crypt`], [`blobs`]); rows say which `mxc://` URIs name it.
//! * Another server's media is fetched whole before it is given out, once however many ask at the same time, and forgotten when
//!   nobody asked for long ([`Media::sweep`]).
//! * Thumbnails are made when first asked for, a few at a time ([`thumbnails`]).
//! * What is uploaded or fetched while [`Settings::is_frozen`] is for those with an access token only.
//!
//! Not here: HTTP (routes), asking other servers ([`remote::RemoteMedia`] is implemented by federation).

pub mod blobs;
pub mod crypt;
mod making;
pub mod remote;
pub mod thumbnails;
pub mod vault;
mod works;

use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream::BoxStream};
use ruma::{OwnedMxcUri, ServerName};
use storage::media::{self as table, Blob, Media as Row};
use tokio::{
    sync::{Notify as Bell, Semaphore},
    time::Instant,
};

use self::{
    remote::{Found, RemoteMedia},
    thumbnails::Wanted,
    vault::Vault,
    works::Works,
};
use crate::{Context, Error, Result, accounts::User, error::Code};

/// Letters of a media id.
const MEDIA_ID_LETTERS: usize = 24;
/// The longest media id of another server.
const MEDIA_ID_BYTES_MAX: usize = 255;
/// The longest type and file name that are kept, in bytes.
const LABEL_BYTES_MAX: usize = 255;
/// The longest that a download waits for an announced upload.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a waiting download looks whether another instance took the upload.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The time of the last access is noted no finer than this.
const ACCESS_NOTED_EVERY: Duration = Duration::from_secs(3600);
/// Thumbnails made at the same time.
const THUMBNAILS_AT_ONCE_MAX: usize = 2;
/// Times of a redirection that are followed.
const REDIRECTS_MAX: usize = 2;
/// Rows that one sweep looks at.
const SWEPT_MAX: i64 = 1000;
/// A blob that nothing names is kept so long: an upload may be about to name it.
const UNNAMED_KEPT: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How media is kept and given out.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of the blobs.
    pub folder: PathBuf,
    /// The file of the key they are encrypted with; made when there is none. Without it all media is lost.
    pub key_file: PathBuf,
    /// The largest upload, in bytes.
    pub upload_bytes_max: u64,
    /// The largest file fetched from another server, in bytes.
    pub remote_bytes_max: u64,
    /// What one user may upload in 24 hours, in bytes.
    pub bytes_per_user_and_day_max: u64,
    /// Uploads one user may have announced that have not come.
    pub pending_per_user_max: u32,
    /// How long an announced upload may take.
    pub pending_kept: Duration,
    /// Other servers' media that nobody asked for in this time is forgotten. Zero: never.
    pub remote_kept: Duration,
    /// Whether new media is kept from the unauthenticated endpoints.
    pub is_frozen: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("data/media"),
            key_file: PathBuf::from("data/media.key"),
            upload_bytes_max: 50 << 20,
            remote_bytes_max: 50 << 20,
            bytes_per_user_and_day_max: 10 << 30,
            pending_per_user_max: 50,
            pending_kept: DAY,
            remote_kept: DAY * 90,
            is_frozen: true,
        }
    }
}

/// What an uploader says of a file.
#[derive(Debug, Clone, Default)]
pub struct Label {
    /// Its type.
    pub content_type: Option<String>,
    /// Its name.
    pub filename: Option<String>,
}

/// On whose behalf media is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A user with an access token.
    User,
    /// Anybody, over the older endpoints. `allow_remote`: whether another server may be asked.
    Anybody {
        /// As the request says.
        allow_remote: bool,
    },
    /// Another server: our own media only.
    Server,
}

/// A file to be given out.
#[derive(Debug, Clone)]
pub struct File {
    /// Its type, as the uploader said.
    pub content_type: Option<String>,
    /// Its name, as the uploader said.
    pub filename: Option<String>,
    /// Whether it may be given to anybody (and kept by caches that several share).
    pub is_public: bool,
    blob: Blob,
}

impl File {
    /// Its length, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        u64::try_from(self.blob.bytes).unwrap_or(0)
    }

    /// True when there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names the content: the same for the same bytes.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.blob.hash
    }
}

/// Media. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Media {
    cx: Context,
    settings: Arc<Settings>,
    vault: Vault,
    remote: Arc<dyn RemoteMedia>,
    /// Rings when an upload has come.
    uploaded: Arc<Bell>,
    works: Works,
    thumbnailers: Arc<Semaphore>,
}

impl Media {
    /// In the folder that the settings name.
    ///
    /// # Errors
    /// [`Error::Internal`] when folder or key cannot be made or read.
    pub async fn start(cx: Context, settings: Settings, remote: Arc<dyn RemoteMedia>) -> Result<Self> {
        let disk = blobs::disk::Disk::open(&settings.folder, &cx.clock, &cx.randomness).await?;
        let key = vault::server_key(&settings.key_file, &cx).await?;
        let vault = Vault::new(cx.clone(), Arc::new(disk), key);
        Ok(Self {
            cx,
            settings: Arc::new(settings),
            vault,
            remote,
            uploaded: Arc::default(),
            works: Works::default(),
            thumbnailers: Arc::new(Semaphore::new(THUMBNAILS_AT_ONCE_MAX)),
        })
    }

    /// Our own name, which our URIs begin with.
    #[must_use]
    pub fn server_name(&self) -> &ServerName {
        &self.cx.server_name
    }

    /// The largest upload, in bytes.
    #[must_use]
    pub fn upload_bytes_max(&self) -> u64 {
        self.settings.upload_bytes_max
    }

    /// Keep a file of `user` under a new URI.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Forbidden`] when the user has uploaded too much today; what `content` fails with.
    pub async fn upload(
        &self,
        user: &User,
        label: Label,
        content: impl Stream<Item = Result<Bytes>> + Send + Unpin,
    ) -> Result<OwnedMxcUri> {
        let bytes_max = self.bytes_left(user).await?;
        let blob = self.vault.keep(content, bytes_max).await?;
        let row = Row { blob: Some(blob.hash.clone()), bytes: blob.bytes, ..self.row(user, label) };
        let uri = self.uri(&row.media_id);
        self.store(&blob, async |tx| Ok(table::put(tx, &row).await?)).await?;
        Ok(uri)
    }

    /// Announce an upload: its URI, and until when it may come (milliseconds since 1970).
    ///
    /// # Errors
    /// [`Error::Limited`] when the user has announced too many that did not come.
    pub async fn create(&self, user: &User) -> Result<(OwnedMxcUri, u64)> {
        let now_ms = self.now_ms();
        let expires_ts = now_ms.saturating_add(ms(self.settings.pending_kept));
        let row = Row { expires_ts: Some(expires_ts), ..self.row(user, Label::default()) };
        let mut tx = self.cx.store.begin().await?;
        let pending = table::pending_of(&mut tx, user.nid, now_ms).await?;
        if pending >= i64::from(self.settings.pending_per_user_max) {
            tx.rollback().await?;
            return Err(Error::Limited { retry_after: LOOK_EVERY * 60 });
        }
        table::put(&mut tx, &row).await?;
        tx.commit().await?;
        Ok((self.uri(&row.media_id), u64::try_from(expires_ts).unwrap_or(0)))
    }

    /// Keep a file under the URI that was announced for it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nothing was announced or its time is over; [`Error::Forbidden`] when somebody else announced it;
    /// [`Code::CannotOverwriteMedia`] when it has come already; as [`Media::upload`].
    pub async fn fill(
        &self,
        user: &User,
        server: &ServerName,
        media_id: &str,
        label: Label,
        content: impl Stream<Item = Result<Bytes>> + Send + Unpin,
    ) -> Result<()> {
        let overwrite = || Error::Specific(Code::CannotOverwriteMedia, "the media has been uploaded".to_owned());
        let row = table::one(&mut self.cx.store.read().await?, server.as_str(), media_id).await?;
        let row = row.filter(|_| self.cx.is_us(server)).ok_or(Error::NotFound("media"))?;
        if row.user_nid != Some(user.nid) {
            return Err(Error::forbidden("somebody else announced this upload"));
        }
        if row.blob.is_some() {
            return Err(overwrite());
        }
        if row.expires_ts.is_some_and(|expires| expires < self.now_ms()) {
            return Err(Error::NotFound("media"));
        }
        let bytes_max = self.bytes_left(user).await?;
        let blob = self.vault.keep(content, bytes_max).await?;
        let label = cut(label);
        let row = Row {
            blob: Some(blob.hash.clone()),
            bytes: blob.bytes,
            content_type: label.content_type,
            filename: label.filename,
            ..row
        };
        let is_first = self.store(&blob, async |tx| Ok(table::fill(tx, &row).await?)).await?;
        self.uploaded.notify_waiters();
        if is_first { Ok(()) } else { Err(overwrite()) }
    }

    /// The file a URI names, waiting at most `wait` for an announced upload to come.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Code::NotYetUploaded`]; [`Error::Remote`] when the other server does not give it.
    pub async fn file(&self, asker: Asker, server: &ServerName, media_id: &str, wait: Duration) -> Result<File> {
        let (row, blob) = self.find(asker, server, media_id, wait).await?;
        Ok(File { content_type: row.content_type, filename: row.filename, is_public: !row.needs_token, blob })
    }

    /// A range of a file, as it is read.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it has just been removed; [`Error::Internal`] when it is damaged.
    pub async fn read(&self, file: &File, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.vault.read(&file.blob, range).await
    }

    /// A thumbnail of the picture a URI names.
    ///
    /// # Errors
    /// As [`Media::file`]; [`Code::CannotThumbnail`] when it is no picture; [`Error::TooLarge`] when it is too large to be made smaller.
    pub async fn thumbnail(
        &self,
        asker: Asker,
        server: &ServerName,
        media_id: &str,
        wanted: Wanted,
        wait: Duration,
    ) -> Result<File> {
        let (row, original) = self.find(asker, server, media_id, wait).await?;
        let is_public = !row.needs_token;
        let whole = |blob| File { content_type: row.content_type, filename: row.filename, is_public, blob };
        let Some(size) = wanted.fit() else { return Ok(whole(original)) };
        let work = format!("{} {size:?} {}", original.hash, wanted.animated);
        let _one_at_a_time = self.works.begin(&work)?.lock_owned().await;
        let place = (i64::from(size.width), i64::from(size.height));
        let known = {
            let mut tx = self.cx.store.read().await?;
            table::thumbnail(&mut tx, &original.hash, place, size.method.as_str(), wanted.animated).await?
        };
        let thumbnail = match known {
            Some(thumbnail) => thumbnail,
            None => self.make(&original, size, wanted.animated).await?,
        };
        if thumbnail.thumb_blob == original.hash {
            return Ok(whole(original));
        }
        let blob = table::blob(&mut self.cx.store.read().await?, &thumbnail.thumb_blob).await?;
        let blob = blob.ok_or(Error::NotFound("media"))?;
        Ok(File { content_type: Some(thumbnail.content_type), filename: None, is_public, blob })
    }

    /// Give a URI out to nobody, or to everybody again.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn quarantine(&self, server: &ServerName, media_id: &str, is_quarantined: bool) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        let is_there = table::quarantine(&mut tx, server.as_str(), media_id, is_quarantined).await?;
        tx.commit().await?;
        if is_there { Ok(()) } else { Err(Error::NotFound("media")) }
    }

    /// Remove a URI. Its content goes with the next sweep, unless another URI names it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove(&self, server: &ServerName, media_id: &str) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        let is_there = table::remove(&mut tx, server.as_str(), media_id).await?;
        tx.commit().await?;
        if is_there { Ok(()) } else { Err(Error::NotFound("media")) }
    }

    /// Forget announced uploads that did not come, other servers' media nobody asks for, and contents that nothing names. Returns
    /// how many contents were removed. Called now and then.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep(&self) -> Result<usize> {
        let now_ms = self.now_ms();
        let mut tx = self.cx.store.begin().await?;
        table::remove_expired(&mut tx, now_ms).await?;
        if !self.settings.remote_kept.is_zero() {
            let before = now_ms.saturating_sub(ms(self.settings.remote_kept));
            for row in table::stale_remote(&mut tx, before, SWEPT_MAX).await? {
                table::remove(&mut tx, &row.server, &row.media_id).await?;
            }
        }
        let mut removed = Vec::new();
        for blob in table::unreferenced(&mut tx, now_ms.saturating_sub(ms(UNNAMED_KEPT)), SWEPT_MAX).await? {
            if table::remove_blob(&mut tx, &blob).await? {
                removed.push(blob);
            }
        }
        tx.commit().await?;
        for blob in &removed {
            self.vault.discard(blob).await?;
        }
        Ok(removed.len())
    }

    /// What `user` may still upload now, in bytes.
    async fn bytes_left(&self, user: &User) -> Result<u64> {
        let since = self.now_ms().saturating_sub(ms(DAY));
        let used = table::bytes_of(&mut self.cx.store.read().await?, user.nid, since).await?;
        let left = self.settings.bytes_per_user_and_day_max.saturating_sub(u64::try_from(used).unwrap_or(0));
        if left == 0 {
            return Err(Error::forbidden("you have uploaded too much today"));
        }
        Ok(left.min(self.settings.upload_bytes_max))
    }

    fn row(&self, user: &User, label: Label) -> Row {
        let label = cut(label);
        Row {
            server: self.cx.server_name.to_string(),
            media_id: self.cx.randomness.letters(MEDIA_ID_LETTERS),
            user_nid: Some(user.nid),
            blob: None,
            content_type: label.content_type,
            filename: label.filename,
            bytes: 0,
            created_ts: self.now_ms(),
            expires_ts: None,
            last_access_ts: self.now_ms(),
            needs_token: self.settings.is_frozen,
            quarantined: false,
        }
    }

    fn uri(&self, media_id: &str) -> OwnedMxcUri {
        OwnedMxcUri::from(format!("mxc://{}/{media_id}", self.cx.server_name))
    }

    /// Store a kept blob with the row that names it. When the content was there already, the new file goes.
    async fn store<T>(&self, blob: &Blob, name: impl AsyncFnOnce(&mut storage::Tx) -> Result<T>) -> Result<T> {
        let stored = async {
            let mut tx = self.cx.store.begin().await?;
            let is_new = table::put_blob(&mut tx, blob).await?;
            let named = name(&mut tx).await?;
            tx.commit().await?;
            Ok((is_new, named))
        }
        .await;
        match stored {
            Ok((true, named)) => Ok(named),
            Ok((false, named)) => {
                self.vault.discard(blob).await?;
                Ok(named)
            }
            Err(error) => {
                self.vault.discard(blob).await?;
                Err(error)
            }
        }
    }

    /// The row and the content of a URI, wherever they have to come from.
    async fn find(&self, asker: Asker, server: &ServerName, media_id: &str, wait: Duration) -> Result<(Row, Blob)> {
        let is_plain = media_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let is_ours = self.cx.is_us(server);
        if !is_plain
            || media_id.is_empty()
            || media_id.len() > MEDIA_ID_BYTES_MAX
            || (asker == Asker::Server && !is_ours)
        {
            return Err(Error::NotFound("media"));
        }
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        loop {
            let uploaded = self.uploaded.notified();
            let row = table::one(&mut self.cx.store.read().await?, server.as_str(), media_id).await?;
            let row = match row {
                Some(row) => row,
                None if is_ours || asker == (Asker::Anybody { allow_remote: false }) => {
                    return Err(Error::NotFound("media"));
                }
                None => self.fetch(server, media_id, deadline).await?,
            };
            if row.quarantined {
                return Err(Error::NotFound("media"));
            }
            if let Some(hash) = &row.blob {
                if row.needs_token && matches!(asker, Asker::Anybody { .. }) {
                    return Err(Error::NotFound("media"));
                }
                let blob =
                    table::blob(&mut self.cx.store.read().await?, hash).await?.ok_or(Error::NotFound("media"))?;
                self.note_access(&row).await?;
                return Ok((row, blob));
            }
            if row.expires_ts.is_some_and(|expires| expires < self.now_ms()) {
                return Err(Error::NotFound("media"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Specific(Code::NotYetUploaded, "the media has not been uploaded yet".to_owned()));
            }
            // Another instance may take the upload, so look now and then.
            let _ = tokio::time::timeout(left.min(LOOK_EVERY), uploaded).await;
        }
    }

    async fn note_access(&self, row: &Row) -> Result<()> {
        let now_ms = self.now_ms();
        if now_ms < row.last_access_ts.saturating_add(ms(ACCESS_NOTED_EVERY)) {
            return Ok(());
        }
        let mut tx = self.cx.store.begin().await?;
        table::touch(&mut tx, &row.server, &row.media_id, now_ms).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Fetch another server's media; whoever asks meanwhile waits for the same fetching.
    async fn fetch(&self, server: &ServerName, media_id: &str, deadline: Instant) -> Result<Row> {
        let _one_at_a_time = self.works.begin(&format!("{server}/{media_id}"))?.lock_owned().await;
        if let Some(row) = table::one(&mut self.cx.store.read().await?, server.as_str(), media_id).await? {
            return Ok(row);
        }
        let timeout = deadline.saturating_duration_since(Instant::now()).max(LOOK_EVERY);
        let mut answer = self.remote.download(server, media_id, timeout).await?;
        for _ in 0..REDIRECTS_MAX {
            match remote::unpack(server, answer).await? {
                Found::File(file) => return self.keep_remote(server, media_id, file).await,
                Found::At(url) => answer = self.remote.at(server, &url, timeout).await?,
            }
        }
        Err(self.remote_failed(server, "it points elsewhere too often", None))
    }

    async fn keep_remote(&self, server: &ServerName, media_id: &str, file: remote::Answer) -> Result<Row> {
        let filename = remote::filename(file.content_disposition.as_deref());
        let label = cut(Label { content_type: file.content_type, filename });
        let blob = match self.vault.keep(file.body, self.settings.remote_bytes_max).await {
            Err(Error::TooLarge(words)) => {
                return Err(self.remote_failed(server, "its media is too large", Some(("M_TOO_LARGE", words))));
            }
            kept => kept?,
        };
        let row = Row {
            server: server.to_string(),
            media_id: media_id.to_owned(),
            user_nid: None,
            blob: Some(blob.hash.clone()),
            content_type: label.content_type,
            filename: label.filename,
            bytes: blob.bytes,
            created_ts: self.now_ms(),
            expires_ts: None,
            last_access_ts: self.now_ms(),
            needs_token: self.settings.is_frozen,
            quarantined: false,
        };
        self.store(&blob, async |tx| Ok(table::put(tx, &row).await?)).await?;
        Ok(row)
    }

    fn remote_failed(&self, server: &ServerName, problem: &str, matrix: Option<(&str, String)>) -> Error {
        let matrix = matrix.map(|(code, words)| (code.to_owned(), words));
        Error::Remote { server: server.to_owned(), problem: problem.to_owned(), status: None, matrix }
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.cx.clock.now_ms()).unwrap_or(i64::MAX)
    }
}

/// Labels come from outside: too long ones, and types and names that no header can carry, are left out.
fn cut(label: Label) -> Label {
    let is_type = |text: &String| text.len() <= LABEL_BYTES_MAX && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    let is_name = |text: &String| text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control);
    Label {
        content_type: label.content_type.filter(is_type),
        filename: label.filename.filter(is_name).filter(|name| !name.is_empty()),
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
