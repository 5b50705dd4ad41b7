//! Blobs as files: `ab/cd/abcd…` under one folder, written in `tmp/` first.
//!
//! A file appears under its name only when all of it is on the disk (fsync, rename, fsync of the folder), so a blob is whole or not
//! there, whatever happens to the machine.

use std::{
    io::{Error as IoError, ErrorKind},
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use futures_util::{future::BoxFuture, stream, stream::BoxStream, stream::StreamExt as _};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
};

use super::{Blobs, Writing};
use crate::{
    Error, Result,
    clock::{Clock, Randomness},
};

/// Read at a time, in bytes.
const READ_BYTES: usize = 64 << 10;
/// A file in `tmp/` that nobody has written to for so long belongs to a process that is gone.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);
const TMP: &str = "tmp";

/// A folder of blobs.
#[derive(Debug, Clone)]
pub struct Disk {
    folder: PathBuf,
    randomness: Randomness,
}

fn io(error: IoError) -> Error {
    Error::internal(error)
}

impl Disk {
    /// In `folder`, which is made when it is not there. What processes that are gone left half written is removed.
    ///
    /// # Errors
    /// [`Error::Internal`] when the folder cannot be made or read.
    pub async fn open(folder: &Path, clock: &Clock, randomness: &Randomness) -> Result<Self> {
        let disk = Self { folder: folder.to_owned(), randomness: randomness.clone() };
        let tmp = folder.join(TMP);
        tokio::fs::create_dir_all(&tmp).await.map_err(io)?;
        let mut entries = tokio::fs::read_dir(&tmp).await.map_err(io)?;
        while let Some(entry) = entries.next_entry().await.map_err(io)? {
            let changed = entry.metadata().await.and_then(|about| about.modified()).ok();
            let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            if changed + ABANDONED_AFTER < Duration::from_millis(clock.now_ms()) {
                // Another process may have been quicker.
                let _ = tokio::fs::remove_file(entry.path()).await;
            }
        }
        Ok(disk)
    }

    fn path(&self, location: &str) -> Result<PathBuf> {
        let is_plain = location.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && location.len() > 4;
        if !is_plain {
            return Err(Error::internal("a location that is no blob's"));
        }
        Ok(self.folder.join(&location[..2]).join(&location[2..4]).join(location))
    }

    async fn read_range(&self, location: &str, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let mut file = match File::open(self.path(location)?).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Error::NotFound("media")),
            Err(error) => return Err(io(error)),
        };
        file.seek(std::io::SeekFrom::Start(range.start)).await.map_err(io)?;
        let left = range.end.saturating_sub(range.start);
        let chunks = stream::try_unfold((file, left), |(mut file, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let want = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
            let mut bytes = BytesMut::zeroed(want);
            let len = file.read(&mut bytes).await.map_err(io)?;
            if len == 0 {
                return Ok(None);
            }
            bytes.truncate(len);
            Ok(Some((bytes.freeze(), (file, left - len as u64))))
        });
        Ok(chunks.boxed())
    }
}

impl Blobs for Disk {
    fn create(&self) -> BoxFuture<'_, Result<Box<dyn Writing>>> {
        Box::pin(async {
            let path = self.folder.join(TMP).join(self.randomness.letters(24));
            let file = File::create_new(&path).await.map_err(io)?;
            Ok(Box::new(DiskWriting { file, tmp: Some(path), disk: self.clone() }) as Box<dyn Writing>)
        })
    }

    fn read<'a>(
        &'a self,
        location: &'a str,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes>>>> {
        Box::pin(self.read_range(location, range))
    }

    fn delete<'a>(&'a self, location: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match tokio::fs::remove_file(self.path(location)?).await {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(io(error)),
                _ => Ok(()),
            }
        })
    }
}

struct DiskWriting {
    file: File,
    /// Taken when the file has its name.
    tmp: Option<PathBuf>,
    disk: Disk,
}

impl DiskWriting {
    async fn name(mut self: Box<Self>, location: &str) -> Result<()> {
        self.file.flush().await.map_err(io)?;
        self.file.sync_all().await.map_err(io)?;
        let path = self.disk.path(location)?;
        let folder = path.parent().unwrap_or(&self.disk.folder).to_owned();
        tokio::fs::create_dir_all(&folder).await.map_err(io)?;
        if let Some(tmp) = &self.tmp {
            tokio::fs::rename(tmp, &path).await.map_err(io)?;
        }
        self.tmp = None;
        // The name itself, and the folders that may be new, reach the disk too.
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.disk.folder)) {
            File::open(folder).await.map_err(io)?.sync_all().await.map_err(io)?;
        }
        Ok(())
    }
}

impl Writing for DiskWriting {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.file.write_all(bytes).await.map_err(io) })
    }

    fn finish<'a>(self: Box<Self>, location: &'a str) -> BoxFuture<'a, Result<()>>
    where
        Self: 'a,
    {
        Box::pin(self.name(location))
    }
}

impl Drop for DiskWriting {
    fn drop(&mut self) {
        if let Some(tmp) = self.tmp.take() {
            // Nobody is there to hear of a failure; the next start removes what is left.
            let _ = std::fs::remove_file(tmp);
        }
    }
}
