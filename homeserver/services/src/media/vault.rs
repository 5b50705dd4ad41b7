//! Contents in, encrypted blobs kept, contents out: hashing, sealing and opening on the way, never a whole file in memory.

use std::{io::ErrorKind, ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream, stream::BoxStream};
use sha2::{Digest as _, Sha256};
use storage::media::Blob;
use tokio::io::AsyncWriteExt as _;

use super::{
    blobs::Blobs,
    crypt::{BlobKey, CHUNK_BYTES, Damaged, Sealer, ServerKey, Span, TAG_BYTES},
};
use crate::{Context, Error, Result};

/// Letters that make a location differ from others of the same content.
const LOCATION_LETTERS: usize = 12;

/// Encrypted blobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vault {
    cx: Context,
    blobs: Arc<dyn Blobs>,
    key: ServerKey,
}

impl Vault {
    /// In `blobs`, under `key`.
    #[must_use]
    pub fn new(cx: Context, blobs: Arc<dyn Blobs>, key: ServerKey) -> Self {
        Self { cx, blobs, key }
    }

    /// Keep a content of at most `bytes_max` bytes. The caller stores the row that is returned, or calls [`Vault::discard`].
    ///
    /// # Errors
    /// [`Error::TooLarge`]; what `content` fails with. Nothing is kept then.
    pub async fn keep(
        &self,
        mut content: impl Stream<Item = Result<Bytes>> + Send + Unpin,
        bytes_max: u64,
    ) -> Result<Blob> {
        let key = BlobKey::random(&self.cx.randomness);
        let mut sealer = Sealer::new(key.clone());
        let mut hasher = Sha256::new();
        let mut writing = self.blobs.create().await?;
        let mut len = 0;
        let mut sealed = Vec::with_capacity(2 * (CHUNK_BYTES + TAG_BYTES));
        while let Some(bytes) = content.next().await {
            let bytes = bytes?;
            len += bytes.len() as u64;
            if len > bytes_max {
                return Err(Error::TooLarge(format!("the content has more than {bytes_max} bytes")));
            }
            hasher.update(&bytes);
            sealer.push(&bytes, &mut sealed)?;
            if !sealed.is_empty() {
                writing.write(&sealed).await?;
                sealed.clear();
            }
        }
        sealer.finish(&mut sealed)?;
        writing.write(&sealed).await?;
        let hash = hexadecimal(&hasher.finalize());
        let location = format!("{hash}-{}", self.cx.randomness.letters(LOCATION_LETTERS));
        writing.finish(&location).await?;
        let wrapped_key = self.key.wrap(&key, &hash, &self.cx.randomness)?;
        let created_ts = i64::try_from(self.cx.clock.now_ms()).unwrap_or(i64::MAX);
        Ok(Blob { hash, location, bytes: i64::try_from(len).unwrap_or(i64::MAX), wrapped_key, created_ts })
    }

    /// Remove the file of a blob that no row knows (any more).
    ///
    /// # Errors
    /// [`Error::Internal`] when the place for blobs fails.
    pub async fn discard(&self, blob: &Blob) -> Result<()> {
        self.blobs.delete(&blob.location).await
    }

    /// A range of a content, as it is read. A blob that is not what was kept ends the stream with an error.
    ///
    /// # Errors
    /// [`Error::Internal`] when the key does not open; [`Error::NotFound`] when the file is gone.
    pub async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let key = self.key.unwrap(&blob.wrapped_key, &blob.hash)?;
        let span = Span::of(range, u64::try_from(blob.bytes).unwrap_or(0));
        let sealed = self.blobs.read(&blob.location, span.file.clone()).await?;
        let reading =
            Reading { sealed, key, number: span.first, held: Vec::new(), left: span.take, is_first: true, span };
        Ok(stream::try_unfold(
            reading,
            |mut reading| async move { Ok(reading.next().await?.map(|bytes| (bytes, reading))) },
        )
        .boxed())
    }
}

/// A range on its way out.
struct Reading {
    sealed: BoxStream<'static, Result<Bytes>>,
    key: BlobKey,
    span: Span,
    number: u32,
    held: Vec<u8>,
    left: u64,
    is_first: bool,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        // Even of an empty content the one chunk is opened: it proves that nothing was cut off.
        if self.left == 0 && !self.is_first {
            return Ok(None);
        }
        while self.held.len() < CHUNK_BYTES + TAG_BYTES {
            let Some(bytes) = self.sealed.next().await else { break };
            self.held.extend_from_slice(&bytes?);
        }
        let rest = self.held.split_off(self.held.len().min(CHUNK_BYTES + TAG_BYTES));
        let sealed = std::mem::replace(&mut self.held, rest);
        let mut content = self.key.open(self.number, self.number == self.span.last, &sealed)?;
        if self.is_first {
            content = content.split_off(self.span.skip.min(content.len()));
            self.is_first = false;
        }
        content.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        if content.is_empty() && self.left > 0 {
            return Err(Damaged.into());
        }
        self.left -= content.len() as u64;
        self.number = self.number.checked_add(1).ok_or(Damaged)?;
        Ok(Some(Bytes::from(content)))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The server's key for media from its file; made when there is none.
///
/// # Errors
/// [`Error::Internal`] when the file cannot be read or written, or is no key.
pub async fn server_key(path: &Path, cx: &Context) -> Result<ServerKey> {
    if let Some(key) = stored_key(path).await? {
        return Ok(key);
    }
    make_key(path, cx).await.map_err(Error::internal)?;
    // Another process may have been quicker: what is under the name counts.
    stored_key(path).await?.ok_or_else(|| Error::internal(format!("{}: just written and not there", path.display())))
}

async fn stored_key(path: &Path) -> Result<Option<ServerKey>> {
    match tokio::fs::read(path).await {
        Ok(bytes) => {
            let bytes: [u8; 32] =
                bytes.try_into().map_err(|_| Error::internal(format!("{}: not a key of 32 bytes", path.display())))?;
            Ok(Some(ServerKey::new(&bytes)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::internal(format!("{}: {error}", path.display()))),
    }
}

/// A lost or half written key is lost media: it is on the disk before the first blob, and under its name only when whole.
async fn make_key(path: &Path, cx: &Context) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tokio::fs::create_dir_all(folder).await?;
    let tmp = path.with_extension(cx.randomness.letters(LOCATION_LETTERS));
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(&tmp).await?;
    file.write_all(&cx.randomness.bytes::<32>()).await?;
    file.flush().await?;
    file.sync_all().await?;
    // A link, unlike a renaming, never takes the place of a key that is there.
    let linked = tokio::fs::hard_link(&tmp, path).await;
    tokio::fs::remove_file(&tmp).await?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    tokio::fs::File::open(folder).await?.sync_all().await
}
