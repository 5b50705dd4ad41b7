//! Reading the bodies of requests into memory, which all of them share: whoever has proven nothing yet can fill no more than a part.

use std::time::Duration;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;

/// What a body may take without asking for room, and how much it asks for at a time.
const STEP_KIB: u32 = 256;
/// What bodies larger than that take together; one that finds no room is told to come again.
const ROOM_KIB: usize = 512 << 10;
/// What is left of it.
static ROOM: Semaphore = Semaphore::const_new(ROOM_KIB);
/// When it may come again.
const RETRY: Duration = Duration::from_secs(5);

/// A body, and the room in memory it takes until this is dropped.
pub(super) type Held = (Bytes, Option<SemaphorePermit<'static>>);

/// Read a body of at most `bytes_max`.
///
/// # Errors
/// `M_TOO_LARGE`; `M_LIMIT_EXCEEDED` when too many large bodies are in memory; what [`ApiError::bad_body`] says.
pub(super) async fn read(body: Body, bytes_max: usize) -> Result<Held, ApiError> {
    read_into(&ROOM, body, bytes_max).await
}

async fn read_into<'a>(
    all: &'a Semaphore,
    body: Body,
    bytes_max: usize,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), ApiError> {
    let mut chunks = body.into_data_stream();
    let mut room: Option<SemaphorePermit<'a>> = None;
    // Most bodies come in one piece, which is taken as it is.
    let (mut first, mut more) = (Bytes::new(), BytesMut::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| ApiError::bad_body(&error, bytes_max))?;
        let len = first.len() + more.len() + chunk.len();
        if len > bytes_max {
            return Err(ApiError::too_large(bytes_max));
        }
        while room.as_ref().map_or(0, SemaphorePermit::num_permits) + (STEP_KIB as usize) < len.div_ceil(1 << 10) {
            let step = all.try_acquire_many(STEP_KIB);
            let step = step.map_err(|_| ApiError::from(services::Error::Limited { retry_after: RETRY }))?;
            match &mut room {
                Some(room) => room.merge(step),
                None => room = Some(step),
            }
        }
        if len == chunk.len() {
            first = chunk;
        } else {
            more.extend_from_slice(&std::mem::take(&mut first));
            more.extend_from_slice(&chunk);
        }
    }
    Ok((if first.is_empty() { more.freeze() } else { first }, room))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn pieces(count: usize, len: usize) -> Body {
        let piece = Bytes::from(vec![b'x'; len]);
        Body::from_stream(stream::iter((0..count).map(move |_| Ok::<_, std::convert::Infallible>(piece.clone()))))
    }

    #[tokio::test]
    async fn a_body_in_pieces_comes_together() {
        for (count, len) in [(0, 0), (1, 5), (3, 7), (50, 40_000)] {
            let (bytes, _) = read(pieces(count, len), 1 << 22).await.unwrap();
            assert_eq!(bytes, vec![b'x'; count * len]);
        }
    }

    #[tokio::test]
    async fn large_bodies_wait_for_room_and_small_ones_do_not() {
        let all = Semaphore::new(1024);
        let (_, held) = read_into(&all, pieces(20, 50_000), 1 << 22).await.unwrap();

        let refused = read_into(&all, pieces(20, 50_000), 1 << 22).await.unwrap_err();
        let small = read_into(&all, pieces(2, 50_000), 1 << 22).await;

        assert_eq!(refused.code(), "M_LIMIT_EXCEEDED");
        assert!(small.is_ok());
        drop(held);
        assert!(read_into(&all, pieces(20, 50_000), 1 << 22).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_beyond_its_limit_is_too_large() {
        assert_eq!(read(pieces(3, 1000), 2999).await.unwrap_err().code(), "M_TOO_LARGE");
        assert!(read(pieces(3, 1000), 3000).await.is_ok());
    }
}
