//! How a blob is encrypted at rest: AES-256-GCM in chunks, under a key of its own that the server's key wraps.
//!
//! ```text
//! file:   chunk, chunk, … each 64 KiB of content and 16 bytes of tag; the last one shorter, possibly empty
//! nonce:  prefix of the blob (7 bytes) | number of the chunk (4) | 1 for the last chunk, else 0 (1)
//! ```
//!
//! A chunk can be opened without the others, so a range costs only the chunks it touches. Chunks cannot be changed, exchanged,
//! dropped or added without notice: the number and the flag of the last one are in the nonce, and the length is known from
//! the row. Key and prefix stand wrapped in the row, so destroying the row destroys the content.

use std::ops::Range;

use aes_gcm::{
    Aes256Gcm, Key, Nonce,
    aead::{Aead as _, KeyInit as _, Payload},
};

use crate::{Error, Result, clock::Randomness};

/// Content of a chunk, in bytes.
pub const CHUNK_BYTES: usize = 64 << 10;
/// What sealing adds to a chunk, in bytes.
pub const TAG_BYTES: usize = 16;
/// A chunk as it stands in the file, in bytes.
const SEALED_BYTES: u64 = (CHUNK_BYTES + TAG_BYTES) as u64;
const KEY_BYTES: usize = 32;
const PREFIX_BYTES: usize = 7;
const NONCE_BYTES: usize = 12;
/// First byte of a wrapped key: how it is wrapped and what is inside.
const WRAPPED_V1: u8 = 1;

/// The server's key for media, kept in a file beside the data. Shows nothing when printed.
#[derive(Clone)]
pub struct ServerKey(Aes256Gcm);

impl std::fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerKey(…)")
    }
}

/// The key of one blob, with its prefix.
#[derive(Clone)]
pub struct BlobKey {
    cipher: Aes256Gcm,
    secret: [u8; KEY_BYTES + PREFIX_BYTES],
}

impl std::fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobKey(…)")
    }
}

/// A chunk or a wrapped key that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored blob is damaged")]
pub struct Damaged;

impl From<Damaged> for Error {
    fn from(damaged: Damaged) -> Self {
        Self::internal(damaged)
    }
}

impl ServerKey {
    /// From its bytes.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(bytes)))
    }

    /// Wrap a blob's key; `hash` is bound to it.
    ///
    /// # Errors
    /// [`Error::Internal`] never in practice: the input is short.
    pub fn wrap(&self, key: &BlobKey, hash: &str, randomness: &Randomness) -> Result<Vec<u8>> {
        let nonce: [u8; NONCE_BYTES] = randomness.bytes();
        let payload = Payload { msg: &key.secret, aad: hash.as_bytes() };
        let sealed = self.0.encrypt(Nonce::from_slice(&nonce), payload).map_err(Error::internal)?;
        Ok([&[WRAPPED_V1][..], &nonce, &sealed].concat())
    }

    /// Unwrap the key of the blob with this hash.
    ///
    /// # Errors
    /// [`Damaged`], also when another server key wrapped it.
    pub fn unwrap(&self, wrapped: &[u8], hash: &str) -> Result<BlobKey, Damaged> {
        let (version, rest) = wrapped.split_first().ok_or(Damaged)?;
        if *version != WRAPPED_V1 || rest.len() < NONCE_BYTES {
            return Err(Damaged);
        }
        let (nonce, sealed) = rest.split_at(NONCE_BYTES);
        let payload = Payload { msg: sealed, aad: hash.as_bytes() };
        let secret = self.0.decrypt(Nonce::from_slice(nonce), payload).map_err(|_| Damaged)?;
        Ok(BlobKey::from_secret(secret.try_into().map_err(|_| Damaged)?))
    }
}

impl BlobKey {
    /// A new one.
    #[must_use]
    pub fn random(randomness: &Randomness) -> Self {
        Self::from_secret(randomness.bytes())
    }

    fn from_secret(secret: [u8; KEY_BYTES + PREFIX_BYTES]) -> Self {
        Self { cipher: Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(&secret[..KEY_BYTES])), secret }
    }

    fn nonce(&self, number: u32, is_last: bool) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..PREFIX_BYTES].copy_from_slice(&self.secret[KEY_BYTES..]);
        nonce[PREFIX_BYTES..PREFIX_BYTES + 4].copy_from_slice(&number.to_be_bytes());
        nonce[NONCE_BYTES - 1] = u8::from(is_last);
        nonce
    }

    /// Open one chunk of a blob.
    ///
    /// # Errors
    /// [`Damaged`] when it is not that chunk of this blob.
    pub fn open(&self, number: u32, is_last: bool, sealed: &[u8]) -> Result<Vec<u8>, Damaged> {
        self.cipher.decrypt(Nonce::from_slice(&self.nonce(number, is_last)), sealed).map_err(|_| Damaged)
    }
}

/// Seals a content as it comes, in chunks.
#[derive(Debug)]
pub struct Sealer {
    key: BlobKey,
    number: u32,
    /// At most a chunk; sealed when more comes, because only then it is not the last.
    held: Vec<u8>,
}

impl Sealer {
    /// Under `key`, which must seal one content only.
    #[must_use]
    pub fn new(key: BlobKey) -> Self {
        Self { key, number: 0, held: Vec::with_capacity(CHUNK_BYTES) }
    }

    /// Take more content; what is full goes sealed to the end of `out`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond 2^32 chunks.
    pub fn push(&mut self, mut content: &[u8], out: &mut Vec<u8>) -> Result<()> {
        while !content.is_empty() {
            if self.held.len() == CHUNK_BYTES {
                self.seal(false, out)?;
            }
            let (now, later) = content.split_at(content.len().min(CHUNK_BYTES - self.held.len()));
            self.held.extend_from_slice(now);
            content = later;
        }
        Ok(())
    }

    /// Seal the last chunk.
    ///
    /// # Errors
    /// As [`Sealer::push`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<()> {
        self.seal(true, out)
    }

    fn seal(&mut self, is_last: bool, out: &mut Vec<u8>) -> Result<()> {
        let nonce = self.key.nonce(self.number, is_last);
        let sealed =
            self.key.cipher.encrypt(Nonce::from_slice(&nonce), self.held.as_slice()).map_err(Error::internal)?;
        out.extend_from_slice(&sealed);
        self.held.clear();
        let too_large = || Error::TooLarge("the content has too many chunks".to_owned());
        self.number = self.number.checked_add(1).ok_or_else(too_large)?;
        Ok(())
    }
}

/// Which chunks a range of a content is in, and where they stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Bytes of the file to read.
    pub file: Range<u64>,
    /// Number of the first chunk read.
    pub first: u32,
    /// Number of the blob's last chunk.
    pub last: u32,
    /// Bytes to leave out at the beginning of the first chunk.
    pub skip: usize,
    /// Bytes to give.
    pub take: u64,
}

impl Span {
    /// For `range` of a content of `len` bytes; the range is cut to the content.
    #[must_use]
    pub fn of(range: Range<u64>, len: u64) -> Self {
        let chunk = CHUNK_BYTES as u64;
        let (start, end) = (range.start.min(len), range.end.min(len));
        let last = len.saturating_sub(1) / chunk;
        let first = (start / chunk).min(last);
        let until = end.saturating_sub(1).max(start) / chunk;
        let file_len = len + (last + 1) * TAG_BYTES as u64;
        Self {
            file: first * SEALED_BYTES..((until.min(last) + 1) * SEALED_BYTES).min(file_len),
            first: u32::try_from(first).unwrap_or(u32::MAX),
            last: u32::try_from(last).unwrap_or(u32::MAX),
            skip: usize::try_from(start - first * chunk).unwrap_or(usize::MAX),
            take: end.saturating_sub(start),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(content: &[u8], pieces: usize) -> (BlobKey, Vec<u8>) {
        let key = BlobKey::random(&Randomness::seeded(content.len() as u64));
        let mut sealer = Sealer::new(key.clone());
        let mut file = Vec::new();
        for piece in content.chunks(pieces.max(1)) {
            sealer.push(piece, &mut file).unwrap();
        }
        sealer.finish(&mut file).unwrap();
        (key, file)
    }

    fn opened(key: &BlobKey, file: &[u8], range: Range<u64>, len: u64) -> Result<Vec<u8>, Damaged> {
        let span = Span::of(range, len);
        let (start, end) = (usize::try_from(span.file.start).unwrap(), usize::try_from(span.file.end).unwrap());
        let read = file.get(start..end.min(file.len())).unwrap_or_default();
        let mut content = Vec::new();
        let mut number = span.first;
        let mut rest = read;
        loop {
            let (chunk, later) = rest.split_at(rest.len().min(CHUNK_BYTES + TAG_BYTES));
            content.extend(key.open(number, number == span.last, chunk)?);
            rest = later;
            number += 1;
            if rest.is_empty() {
                break;
            }
        }
        let give = content.get(span.skip..).unwrap_or_default();
        let take = usize::try_from(span.take).unwrap();
        if give.len() < take { Err(Damaged) } else { Ok(give[..take].to_vec()) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Lengths around the chunk's are the ones that break.
        #[test]
        fn a_range_of_a_sealed_content_is_the_slice_of_the_content(
            len in prop_oneof![0usize..200, CHUNK_BYTES - 2..CHUNK_BYTES + 3, 2 * CHUNK_BYTES - 2..2 * CHUNK_BYTES + 3, 0..3 * CHUNK_BYTES],
            seed in any::<u8>(), pieces in 1usize..100_000, from in 0.0f64..=1.0, to in 0.0f64..=1.0,
        ) {
            let content: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            let (key, file) = sealed(&content, pieces);
            let (a, b) = ((from * len as f64) as usize, (to * len as f64) as usize);
            let (a, b) = (a.min(b), a.max(b));

            let read = opened(&key, &file, a as u64..b as u64, len as u64).unwrap();

            prop_assert_eq!(read, &content[a..b]);
        }

        #[test]
        fn a_truncated_or_changed_file_is_noticed(
            len in prop_oneof![1usize..200, CHUNK_BYTES - 2..CHUNK_BYTES + 3, 2 * CHUNK_BYTES - 2..3 * CHUNK_BYTES],
            at in 0.0f64..1.0, bit in 0u8..8, cut in any::<bool>(),
        ) {
            let content = vec![7; len];
            let (key, mut file) = sealed(&content, CHUNK_BYTES);
            let at = (at * file.len() as f64) as usize;
            if cut { file.truncate(at) } else { file[at] ^= 1 << bit }

            prop_assert_eq!(opened(&key, &file, 0..len as u64, len as u64), Err(Damaged));
        }
    }

    #[test]
    fn a_file_cut_between_two_chunks_is_noticed() {
        let content = vec![1; 2 * CHUNK_BYTES];
        let (key, mut file) = sealed(&content, CHUNK_BYTES);
        file.truncate(CHUNK_BYTES + TAG_BYTES);

        assert_eq!(opened(&key, &file, 0..content.len() as u64, content.len() as u64), Err(Damaged));
        // Nor does the first chunk pass for the whole.
        assert_eq!(key.open(0, true, &file), Err(Damaged));
    }

    #[test]
    fn two_chunks_do_not_change_places() {
        let content = vec![1; 3 * CHUNK_BYTES];
        let (key, mut file) = sealed(&content, CHUNK_BYTES);
        let sealed_len = CHUNK_BYTES + TAG_BYTES;
        let (first, second) = file[..2 * sealed_len].split_at_mut(sealed_len);
        first.swap_with_slice(second);

        assert_eq!(opened(&key, &file, 0..10, content.len() as u64), Err(Damaged));
    }

    #[test]
    fn a_wrapped_key_opens_only_with_its_server_key_and_for_its_content() {
        let randomness = Randomness::seeded(1);
        let (ours, theirs) = (ServerKey::new(&[1; 32]), ServerKey::new(&[2; 32]));
        let key = BlobKey::random(&randomness);
        let wrapped = ours.wrap(&key, "hash", &randomness).unwrap();

        assert_eq!(ours.unwrap(&wrapped, "hash").unwrap().secret, key.secret);
        assert_eq!(ours.unwrap(&wrapped, "other").unwrap_err(), Damaged);
        assert_eq!(theirs.unwrap(&wrapped, "hash").unwrap_err(), Damaged);
        assert_eq!(ours.unwrap(&wrapped[..20], "hash").unwrap_err(), Damaged);
        assert_eq!(ours.unwrap(&[], "hash").unwrap_err(), Damaged);
    }
}
