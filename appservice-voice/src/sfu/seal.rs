//! Encrypting what goes out: RTP headers written and packets sealed (SRTP) without asking str0m for each of them.
//!
//! A packet from one microphone goes to everybody else in the room. str0m does that well for one packet and one peer, but
//! each write moves its whole state machine: measured, more than half of the CPU that forwarding took outside the kernel. All
//! that a packet needs is a header, a number and a key. So this module takes a copy of the key when the handshake ends
//! and seals by itself; str0m keeps the handshake, ICE, everything received, and RTCP.
//!
//! Numbers stay unique, on which the cipher's safety rests: a slot's packets are numbered by its `Rewriter` alone,
//! whether they are sealed here or by str0m.
//!
//! Only for the AEAD profiles (RFC 7714), which every present browser has; others stay with str0m.

use std::{cell::RefCell, fmt, time::Instant};

use str0m::{
    config::{CryptoProvider, DtlsCert},
    crypto::{
        AeadAes128Gcm, AeadAes128GcmCipher, AeadAes256Gcm, AeadAes256GcmCipher, CryptoError,
        dtls::{DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion, SrtpProfile},
        from_feature_flags,
    },
};

/// Length of the tag that both ciphers append.
pub(super) const TAG_LEN: usize = AeadAes128Gcm::TAG_LEN;
const SALT_LEN: usize = AeadAes128Gcm::SALT_LEN;
/// What is derived from a master key, RFC 3711 section 4.3.2.
const LABEL_RTP_KEY: u8 = 0x00;
const LABEL_RTP_SALT: u8 = 0x02;

/// The crypto of str0m, with an eye on the end of each handshake.
pub(super) fn crypto() -> CryptoProvider {
    static WATCHING: Watching = Watching;
    CryptoProvider { dtls_provider: &WATCHING, ..from_feature_flags() }
}

/// What a handshake ended with.
struct Keys {
    profile: SrtpProfile,
    /// Both master keys, the client's first, then both salts.
    material: Vec<u8>,
    /// We were the client of the handshake.
    is_client: bool,
}

thread_local! {
    /// The keys of the handshake that ended during the present call into str0m. str0m polls its handshake on the thread
    /// that polls str0m, so whoever looks here right after the call knows whose they are.
    static KEYS: RefCell<Option<Keys>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Watching;

impl DtlsProvider for Watching {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let instance = from_feature_flags().dtls_provider.new_dtls(certificate, now, version, mtu)?;
        Ok(Box::new(Watched(instance)))
    }
}

struct Watched(Box<dyn DtlsInstance>);

// Not what is inside: it holds keys.
impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl DtlsInstance for Watched {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let is_client = self.0.is_active();
        let output = self.0.poll_output(buffer);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            KEYS.set(Some(Keys { profile: *profile, material: material.as_ref().to_vec(), is_client }));
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}

/// Seals packets for one peer.
pub(super) struct Sealer {
    salt: [u8; SALT_LEN],
    cipher: Cipher,
}

enum Cipher {
    Aes128(Box<dyn AeadAes128GcmCipher>),
    Aes256(Box<dyn AeadAes256GcmCipher>),
}

impl Sealer {
    /// For the peer whose handshake ended during the last call into str0m on this thread; `None` when none did, or when
    /// the profile is one that str0m serves.
    pub(super) fn of_ended_handshake(crypto: &CryptoProvider) -> Option<Self> {
        let keys = KEYS.take()?;
        let provider = crypto.srtp_provider;
        match keys.profile {
            SrtpProfile::AEAD_AES_128_GCM => {
                let (key, salt) =
                    session_keys(&keys, |key, input, out| provider.srtp_aes_128_ecb_round(key, input, out))?;
                Some(Self { salt, cipher: Cipher::Aes128(provider.aead_aes_128_gcm().create_cipher(key, true)) })
            }
            SrtpProfile::AEAD_AES_256_GCM => {
                let (key, salt) =
                    session_keys(&keys, |key, input, out| provider.srtp_aes_256_ecb_round(key, input, out))?;
                Some(Self { salt, cipher: Cipher::Aes256(provider.aead_aes_256_gcm().create_cipher(key, true)) })
            }
            _ => None,
        }
    }

    /// Append `payload` to `datagram`, which holds the packet's header from `header_at` on, sealed. `seq` is the extended
    /// sequence number. Returns whether it could; else `datagram` is not to be sent.
    pub(super) fn seal(
        &mut self,
        datagram: &mut Vec<u8>,
        header_at: usize,
        ssrc: u32,
        seq: u64,
        payload: &[u8],
    ) -> bool {
        let body_at = datagram.len();
        datagram.resize(body_at + payload.len() + TAG_LEN, 0);
        let (before, body) = datagram.split_at_mut(body_at);
        // Truncation is what RTP does: 16 bits in the header, 32 above them in the rollover counter.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        let (rollovers, low) = ((seq >> 16) as u32, seq as u16);
        let header = &before[header_at..];
        match &mut self.cipher {
            Cipher::Aes128(cipher) => {
                let iv = AeadAes128Gcm::rtp_iv(self.salt, ssrc, rollovers, low);
                cipher.encrypt(&iv, header, payload, body).is_ok()
            }
            Cipher::Aes256(cipher) => {
                let iv = AeadAes256Gcm::rtp_iv(self.salt, ssrc, rollovers, low);
                cipher.encrypt(&iv, header, payload, body).is_ok()
            }
        }
    }
}

/// Our session key and salt, RFC 3711 section 4.3 with the shorter salt of RFC 7714 section 11. `None` for material of
/// another length than the profile has.
fn session_keys<const KEY_LEN: usize>(
    keys: &Keys,
    ecb: impl Fn(&[u8], &[u8], &mut [u8]),
) -> Option<([u8; KEY_LEN], [u8; SALT_LEN])> {
    let (masters, salts) = keys.material.split_at_checked(2 * KEY_LEN)?;
    let ours = usize::from(!keys.is_client);
    let (master, salt) = (masters.chunks_exact(KEY_LEN).nth(ours)?, salts.chunks_exact(SALT_LEN).nth(ours)?);
    let derive = |label: u8, out: &mut [u8]| {
        let mut input = [0; 16];
        input[..SALT_LEN].copy_from_slice(salt);
        input[7] ^= label;
        for (round, part) in out.chunks_mut(16).enumerate() {
            input[15] = u8::try_from(round).expect("a key has two parts at most");
            // The cipher pads, hence the second half.
            let mut block = [0; 32];
            ecb(master, &input, &mut block);
            part.copy_from_slice(&block[..part.len()]);
        }
    };
    let (mut key, mut session_salt) = ([0; KEY_LEN], [0; SALT_LEN]);
    derive(LABEL_RTP_KEY, &mut key);
    derive(LABEL_RTP_SALT, &mut session_salt);
    Some((key, session_salt))
}

/// What the packets of one slot have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) pt: u8,
    pub(super) ssrc: u32,
    /// Number of the audio level's header extension, where the client knows it.
    level_id: Option<u8>,
    /// Number of the extension with the section's name, and the name. It says which section a packet belongs to.
    mid: Option<(u8, Mid)>,
}

/// A section's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mid {
    bytes: [u8; MID_LEN_MAX],
    len: u8,
}

/// Longest name that a one-byte header extension can hold, RFC 8285 section 4.2.
const MID_LEN_MAX: usize = 16;
/// Largest number of a one-byte header extension.
const EXTENSION_ID_MAX: u8 = 14;
/// Begins a block of one-byte header extensions.
const ONE_BYTE_EXTENSIONS: [u8; 2] = [0xBE, 0xDE];
const RTP_VERSION: u8 = 2 << 6;
const RTP_HAS_EXTENSION: u8 = 1 << 4;
const RTP_MARKER: u8 = 1 << 7;

/// What is particular to one packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Particulars {
    pub(super) seq: u64,
    pub(super) time: u32,
    pub(super) marker: bool,
    /// dBov (0 to −127), and whether the sender takes it for speech.
    pub(super) level: Option<(i8, bool)>,
}

impl Line {
    /// `None` when the client numbered its extensions so that they need the long form.
    pub(super) fn new(pt: u8, ssrc: u32, level_id: Option<u8>, mid_id: Option<u8>, mid: &str) -> Option<Self> {
        if level_id.into_iter().chain(mid_id).any(|id| id == 0 || id > EXTENSION_ID_MAX) || mid.len() > MID_LEN_MAX {
            return None;
        }
        let mut bytes = [0; MID_LEN_MAX];
        bytes[..mid.len()].copy_from_slice(mid.as_bytes());
        let name = Mid { bytes, len: u8::try_from(mid.len()).ok()? };
        Some(Self { pt, ssrc, level_id, mid: mid_id.filter(|_| !mid.is_empty()).map(|id| (id, name)) })
    }

    /// Append the header of a packet. Sources: RFC 3550 section 5.1, RFC 8285 section 4.2, RFC 6464 section 3.
    pub(super) fn write_header(&self, packet: Particulars, datagram: &mut Vec<u8>) {
        let header_at = datagram.len();
        #[expect(clippy::cast_possible_truncation, reason = "the header holds the low 16 bits")]
        let seq = packet.seq as u16;
        let marker = if packet.marker { RTP_MARKER } else { 0 };
        datagram.extend_from_slice(&[RTP_VERSION, self.pt | marker]);
        datagram.extend_from_slice(&seq.to_be_bytes());
        datagram.extend_from_slice(&packet.time.to_be_bytes());
        datagram.extend_from_slice(&self.ssrc.to_be_bytes());
        let level = self.level_id.zip(packet.level);
        if level.is_none() && self.mid.is_none() {
            return;
        }
        datagram[header_at] |= RTP_HAS_EXTENSION;
        datagram.extend_from_slice(&ONE_BYTE_EXTENSIONS);
        datagram.extend_from_slice(&[0, 0]);
        let extensions_at = datagram.len();
        if let Some((id, (dbov, is_speech))) = level {
            let speech = if is_speech { 0x80 } else { 0 };
            datagram.extend_from_slice(&[id << 4, speech | dbov.clamp(-127, 0).unsigned_abs()]);
        }
        if let Some((id, name)) = self.mid {
            datagram.push((id << 4) | (name.len - 1));
            datagram.extend_from_slice(&name.bytes[..usize::from(name.len)]);
        }
        let length = (datagram.len() - extensions_at).next_multiple_of(4);
        datagram.resize(extensions_at + length, 0);
        // At most 2 + 17 bytes, padded.
        datagram[extensions_at - 1] = u8::try_from(length / 4).expect("a few words");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: Particulars = Particulars { seq: 65_537, time: 960, marker: true, level: Some((-20, true)) };

    #[test]
    fn a_header_says_whose_packet_it_is_how_loud_and_of_which_section() {
        let mut datagram = vec![0xff];

        Line::new(111, 0x0102_0304, Some(1), Some(4), "12").unwrap().write_header(LOUD, &mut datagram);

        let expected = [
            &[0xff, 0x90, 0xef, 0, 1, 0, 0, 3, 0xc0, 1, 2, 3, 4][..],
            &[0xbe, 0xde, 0, 2, 0x10, 0x80 | 20, 0x41, b'1', b'2', 0, 0, 0],
        ]
        .concat();
        assert_eq!(datagram, expected);
    }

    #[test]
    fn a_client_without_extensions_gets_a_bare_header() {
        let mut datagram = Vec::new();

        Line::new(111, 7, None, None, "0").unwrap().write_header(LOUD, &mut datagram);

        assert_eq!(datagram.len(), 12);
        assert_eq!(datagram[0], 0x80);
    }

    #[test]
    fn extensions_that_need_the_long_form_are_left_to_str0m() {
        assert_eq!(Line::new(111, 7, Some(15), None, "0"), None);
        assert_eq!(Line::new(111, 7, None, Some(0), "0"), None);
        assert_eq!(Line::new(111, 7, None, Some(4), "a name of seventeen"), None);
    }

    /// RFC 7714 sections 16.1.1 and 16.2.1.
    #[test]
    fn packets_are_sealed_as_in_the_specifications_examples() {
        let provider = from_feature_flags().srtp_provider;
        let key = hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
        let small = provider.aead_aes_128_gcm().create_cipher(key[..16].try_into().unwrap(), true);
        let large = provider.aead_aes_256_gcm().create_cipher(key[..].try_into().unwrap(), true);
        let seal = |cipher| {
            let mut sealer = Sealer { salt: hex("517569642070726f2071756f").try_into().unwrap(), cipher };
            let mut datagram = hex("8040f17b8041f8d35501a0b2");
            let payload = b"Gallia est omnis divisa in partes tres";
            assert!(sealer.seal(&mut datagram, 0, 0x5501_a0b2, 0xf17b, payload));
            datagram
        };

        let expected_small = "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a\
            51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce";
        let expected_large = "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a02\
            76ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13";
        assert_eq!(seal(Cipher::Aes128(small)), hex(expected_small));
        assert_eq!(seal(Cipher::Aes256(large)), hex(expected_large));
    }

    #[test]
    fn key_material_of_the_wrong_length_gives_no_keys() {
        let keys = Keys { profile: SrtpProfile::AEAD_AES_256_GCM, material: vec![0; 56], is_client: false };

        assert!(session_keys::<16>(&keys, |_, _, _| {}).is_some());
        assert!(session_keys::<32>(&keys, |_, _, _| {}).is_none());
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }
}
