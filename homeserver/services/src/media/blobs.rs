//! Where encrypted blobs are kept. Knows nothing of what is in them.

pub mod disk;

use std::{fmt, ops::Range};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};

use crate::Result;

/// A place for blobs: a folder now, an object store next.
pub trait Blobs: fmt::Debug + Send + Sync {
    /// Begin a new blob.
    fn create(&self) -> BoxFuture<'_, Result<Box<dyn Writing>>>;

    /// Bytes of the blob at `location`. Fewer come when the file is shorter.
    fn read<'a>(
        &'a self,
        location: &'a str,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes>>>>;

    /// Remove the blob at `location`; one that is not there is well too.
    fn delete<'a>(&'a self, location: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// A blob that is being written. Nobody can see it before [`Writing::finish`]; dropped before, it leaves nothing behind.
pub trait Writing: Send {
    /// Add to its end.
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>>;

    /// Make it durable and known as `location`, which must be new.
    fn finish<'a>(self: Box<Self>, location: &'a str) -> BoxFuture<'a, Result<()>>
    where
        Self: 'a;
}
