//! Media of other servers: how it is asked for, and how its answer is taken apart.
//!
//! The answer is `multipart/mixed`: first a JSON object that says nothing yet, then the file, or a `Location` where it is. It is read as
//! it comes; one that ends before its last boundary is an error, so nothing cut short is ever kept.
//!
//! Source: <https://spec.matrix.org/v1.19/server-server-api/#content-repository>.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use ruma::{ServerName, http_headers::ContentDisposition};

use crate::{Error, Result};

/// Head of one part, in bytes.
const PART_HEAD_BYTES_MAX: usize = 16 << 10;
/// What stands before the first part and in the first part, in bytes each.
const METADATA_BYTES_MAX: usize = 64 << 10;
/// A boundary, in bytes (the limit of RFC 2046).
const BOUNDARY_BYTES_MAX: usize = 70;

/// What another server answered: the head we need and the body as it comes.
pub struct Answer {
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The `Content-Disposition` header.
    pub content_disposition: Option<String>,
    /// The body.
    pub body: BoxStream<'static, Result<Bytes>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

/// Asks other servers for their media.
pub trait RemoteMedia: fmt::Debug + Send + Sync {
    /// `GET /_matrix/federation/v1/media/download/{media_id}`, or, from servers that do not know it, the older
    /// `/_matrix/media/v3/download/{server}/{media_id}?allow_remote=false`. Fails with [`Error::Remote`] unless the status is 200.
    fn download<'a>(
        &'a self,
        server: &'a ServerName,
        media_id: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Answer>>;

    /// The file at an address that a server pointed to; without our signature.
    fn at<'a>(&'a self, server: &'a ServerName, url: &'a str, timeout: Duration) -> BoxFuture<'a, Result<Answer>>;
}

/// The file in an answer.
pub(super) enum Found {
    File(Answer),
    /// Elsewhere.
    At(String),
}

/// Whom [`super::Media`] asks when federation is off.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl RemoteMedia for Alone {
    fn download<'a>(&'a self, _: &'a ServerName, _: &'a str, _: Duration) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async { Err(Error::NotFound("media")) })
    }

    fn at<'a>(&'a self, _: &'a ServerName, _: &'a str, _: Duration) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async { Err(Error::NotFound("media")) })
    }
}

/// The name in a `Content-Disposition` header.
pub(super) fn filename(header: Option<&str>) -> Option<String> {
    ContentDisposition::try_from(header?.as_bytes()).ok()?.filename
}

/// Find the file in an answer, whichever of the two endpoints gave it.
pub(super) async fn unpack(server: &ServerName, answer: Answer) -> Result<Found> {
    let Some(boundary) = answer.content_type.as_deref().and_then(boundary) else { return Ok(Found::File(answer)) };
    let mut parts = Parts::new(server, &boundary, answer.body)?;
    parts.head().await?;
    let head = parts.head().await?;
    let header =
        |name: &str| head.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
    if let Some(location) = header("location") {
        return Ok(Found::At(location));
    }
    let (content_type, content_disposition) = (header("content-type"), header("content-disposition"));
    Ok(Found::File(Answer { content_type, content_disposition, body: parts.content() }))
}

/// The boundary of a `multipart/mixed` type.
fn boundary(content_type: &str) -> Option<String> {
    let (essence, parameters) = content_type.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim())
    })?;
    let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    (!value.is_empty() && value.len() <= BOUNDARY_BYTES_MAX).then(|| value.to_owned())
}

/// A multipart body being read.
struct Parts {
    server: ruma::OwnedServerName,
    body: BoxStream<'static, Result<Bytes>>,
    /// Read and not yet given.
    held: BytesMut,
    /// `\r\n--boundary`
    delimiter: Vec<u8>,
    is_over: bool,
}

impl Parts {
    fn new(server: &ServerName, boundary: &str, body: BoxStream<'static, Result<Bytes>>) -> Result<Self> {
        // The first boundary may stand at the very beginning, without a line break before it.
        let held = BytesMut::from(&b"\r\n"[..]);
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        Ok(Self { server: server.to_owned(), body, held, delimiter, is_over: false })
    }

    fn broken(&self, problem: &str) -> Error {
        Error::Remote { server: self.server.clone(), problem: problem.to_owned(), status: None, matrix: None }
    }

    async fn more(&mut self) -> Result<()> {
        match self.body.next().await {
            Some(bytes) => {
                self.held.extend_from_slice(&bytes?);
                Ok(())
            }
            None => Err(self.broken("the media ended too early")),
        }
    }

    /// Read over the boundary before a part, and the part's head.
    async fn head(&mut self) -> Result<Vec<(String, String)>> {
        self.skip_to_boundary().await?;
        loop {
            if let Some(end) = find(&self.held, b"\r\n\r\n") {
                let head = self.held.split_to(end + 4);
                let head = String::from_utf8_lossy(&head);
                return Ok(head
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
                    .collect());
            }
            if self.held.len() > PART_HEAD_BYTES_MAX {
                return Err(self.broken("the head of a part is too long"));
            }
            self.more().await?;
        }
    }

    /// Read over the boundary that comes next.
    async fn skip_to_boundary(&mut self) -> Result<()> {
        loop {
            if let Some(at) = find(&self.held, &self.delimiter) {
                let _ = self.held.split_to(at + self.delimiter.len());
                return Ok(());
            }
            if self.held.len() > METADATA_BYTES_MAX {
                return Err(self.broken("the first part is too long"));
            }
            self.more().await?;
        }
    }

    /// The rest of the part, up to its boundary, as it comes.
    fn content(self) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(self, |mut parts| async move {
            if parts.is_over {
                return Ok(None);
            }
            loop {
                if let Some(at) = find(&parts.held, &parts.delimiter) {
                    parts.is_over = true;
                    return Ok(Some((parts.held.split_to(at).freeze(), parts)));
                }
                // What may be the beginning of the boundary waits.
                let sure = parts.held.len().saturating_sub(parts.delimiter.len() - 1);
                if sure > 0 {
                    return Ok(Some((parts.held.split_to(sure).freeze(), parts)));
                }
                parts.more().await?;
            }
        })
        .boxed()
    }
}

/// Where `needle` begins in `hay`.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = hay[from..].iter().position(|byte| *byte == first) {
        let start = from + at;
        if hay[start..].starts_with(needle) {
            return Some(start);
        }
        from = start + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::server_name;

    use super::*;

    fn answer(content_type: &str, body: &[u8], piece: usize) -> Answer {
        let pieces: Vec<Result<Bytes>> = body.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Answer {
            content_type: Some(content_type.to_owned()),
            content_disposition: None,
            body: stream::iter(pieces).boxed(),
        }
    }

    async fn all(mut body: BoxStream<'static, Result<Bytes>>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes)
    }

    async fn file(answer: Answer) -> Result<(Vec<u8>, Option<String>, Option<String>)> {
        match unpack(server_name!("there.example"), answer).await? {
            Found::File(file) => {
                let (kind, disposition) = (file.content_type, file.content_disposition);
                Ok((all(file.body).await?, kind, filename(disposition.as_deref())))
            }
            Found::At(location) => panic!("a location: {location}"),
        }
    }

    fn multipart(start: &str, content: &[u8]) -> Vec<u8> {
        let head = format!(
            "{start}--cut\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--cut\r\nContent-Type: text/plain\r\n\
             Content-Disposition: attachment; filename=\"a b.txt\"\r\n\r\n"
        );
        [head.as_bytes(), content, b"\r\n--cut--"].concat()
    }

    const TYPE: &str = "multipart/mixed; boundary=cut";

    proptest! {
        #[test]
        fn the_file_comes_out_however_the_answer_is_cut_into_pieces(
            content in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), Just(b"\r\n--cu\r\n--\r\r\n--cux".to_vec())],
            piece in 1usize..400, start in prop_oneof![Just(""), Just("\r\n"), Just("preamble\r\n")],
        ) {
            prop_assume!(find(&content, b"\r\n--cut").is_none());
            let body = multipart(start, &content);

            let found = futures_util::FutureExt::now_or_never(file(answer(TYPE, &body, piece))).unwrap().unwrap();

            prop_assert_eq!(found, (content, Some("text/plain".to_owned()), Some("a b.txt".to_owned())));
        }

        #[test]
        fn no_damage_to_an_answer_makes_the_reader_panic_or_wait(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), piece in 1usize..64,
            kind in prop_oneof![Just(TYPE.to_owned()), "multipart/mixed; ?boundary=\"?[-\\r\\n c]{0,80}\"?", ".{0,40}"],
        ) {
            let mut body = multipart("", b"content\r\n--cu");
            for (at, to) in damage {
                let at = at.index(body.len());
                body[at] = to;
            }
            let reading = async {
                match unpack(server_name!("there.example"), answer(&kind, &body, piece)).await {
                    Ok(Found::File(file)) => all(file.body).await.map(drop),
                    Ok(Found::At(_)) => Ok(()),
                    Err(error) => Err(error),
                }
            };

            prop_assert!(futures_util::FutureExt::now_or_never(reading).is_some());
        }

        #[test]
        fn an_answer_that_ends_too_early_is_an_error(cut in 0usize..1000) {
            let body = multipart("", &[7; 900]);
            // Up to the last boundary; the two dashes after it say nothing more.
            let body = &body[..cut.min(body.len() - 3)];

            let found = futures_util::FutureExt::now_or_never(file(answer(TYPE, body, 64))).unwrap();

            prop_assert!(found.is_err());
        }
    }

    #[tokio::test]
    async fn an_answer_of_the_older_endpoint_is_the_file() {
        let (content, kind, _) = file(answer("image/png", b"picture", 3)).await.unwrap();

        assert_eq!((content.as_slice(), kind.as_deref()), (&b"picture"[..], Some("image/png")));
    }

    #[tokio::test]
    async fn a_file_may_be_elsewhere() {
        let body = b"--cut\r\nContent-Type: application/json\r\n\r\n{}\r\n--cut\r\nLocation: https://cdn.example/x\r\n\r\n\r\n--cut--";

        let found =
            unpack(server_name!("there.example"), answer("multipart/mixed;boundary=\"cut\"", body, 9)).await.unwrap();

        assert!(matches!(found, Found::At(location) if location == "https://cdn.example/x"));
    }
}
