//! Making a thumbnail of a stored picture, in limited time and memory, and remembering it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use storage::media::{self as table, Blob, Thumbnail};

use super::{
    Media,
    thumbnails::{self, Made, Refused},
};
use crate::{Error, Result, error::Code};

/// How long one asks for a thumbnail before the answer is that there is none.
const THUMBNAIL_TIMEOUT: Duration = Duration::from_secs(20);
/// The largest original that is made smaller, in bytes.
const ORIGINAL_BYTES_MAX: i64 = 32 << 20;

impl Media {
    /// Make a thumbnail and remember it.
    pub(super) async fn make(&self, original: &Blob, size: thumbnails::Size, animated: bool) -> Result<Thumbnail> {
        if original.bytes > ORIGINAL_BYTES_MAX {
            return Err(Error::TooLarge("the picture is too large to be made smaller".to_owned()));
        }
        let bytes = self.whole(original).await?;
        let permit = Arc::clone(&self.thumbnailers).acquire_owned();
        let made = tokio::time::timeout(THUMBNAIL_TIMEOUT, async move {
            let permit = permit.await.map_err(|_| Error::Stopping)?;
            // The permit stays with the work, which nobody can stop, also when its asker has given up.
            let work = tokio::task::spawn_blocking(move || {
                let made = thumbnails::make(&bytes, size, animated);
                drop(permit);
                made
            });
            // A file that fells the decoder is no picture; the panic itself is in the log.
            Ok::<_, Error>(work.await.unwrap_or(Err(Refused::NotAPicture)))
        })
        .await
        .map_err(|_| Error::Limited { retry_after: THUMBNAIL_TIMEOUT })??;
        let mut row = Thumbnail {
            blob: original.hash.clone(),
            width: i64::from(size.width),
            height: i64::from(size.height),
            method: size.method.as_str().to_owned(),
            animated,
            thumb_blob: original.hash.clone(),
            content_type: String::new(),
        };
        match made {
            Ok(Made::Original) => {
                let mut tx = self.cx.store.begin().await?;
                table::put_thumbnail(&mut tx, &row).await?;
                tx.commit().await?;
            }
            Ok(Made::Thumbnail { bytes, content_type }) => {
                let content = futures_util::stream::iter([Ok(Bytes::from(bytes))]);
                let blob = self.vault.keep(content, u64::MAX).await?;
                row.thumb_blob.clone_from(&blob.hash);
                content_type.clone_into(&mut row.content_type);
                self.store(&blob, async |tx| Ok(table::put_thumbnail(tx, &row).await?)).await?;
            }
            Err(Refused::TooManyPixels) => return Err(Error::TooLarge(Refused::TooManyPixels.to_string())),
            Err(Refused::NotAPicture) => {
                return Err(Error::Specific(Code::CannotThumbnail, Refused::NotAPicture.to_string()));
            }
        }
        Ok(row)
    }

    /// A picture to be made smaller: the one place where a file is in memory, at most [`ORIGINAL_BYTES_MAX`].
    async fn whole(&self, blob: &Blob) -> Result<Vec<u8>> {
        let len = u64::try_from(blob.bytes).unwrap_or(0);
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        let mut pieces = self.vault.read(blob, 0..len).await?;
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes)
    }
}
