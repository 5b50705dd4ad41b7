//! Which participant does a datagram belong to? One look at its bytes, one or two map look-ups, never a search.
//!
//! 1. STUN binding requests carry the user fragment that we handed out: it names the peer.
//! 2. Everything else goes by the sender's address, which counts only after a STUN request with valid credentials came
//!    from it.
//! 3. The rest is dropped.
//!
//! [`classify`] is pure and takes bytes from anyone on the internet.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

/// Addresses from which one peer may send; the oldest gives way.
const ADDRESSES_PER_PEER_MAX: usize = 8;
/// Longest user fragment, RFC 8445 section 5.3 (`ice-ufrag` is 4 to 256 characters).
const UFRAG_LEN_MAX: usize = 256;

const STUN_HEADER_LEN: usize = 20;
const STUN_MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const STUN_BINDING_REQUEST: u16 = 0x0001;
const STUN_USERNAME: u16 = 0x0006;
const RTP_HEADER_LEN: usize = 12;
const RTCP_HEADER_LEN: usize = 8;
const DTLS_RECORD_HEADER_LEN: usize = 13;

/// What a datagram seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A binding request to the owner of `ufrag`.
    StunRequest {
        ufrag: &'a str,
    },
    Dtls,
    Rtp,
    Rtcp,
    /// Nothing that an ICE-lite server expects.
    Unknown,
}

/// Look at a datagram. Sources: RFC 7983 (first byte), RFC 8489 (STUN), RFC 5761 (RTP and RTCP on one port).
#[must_use]
pub fn classify(datagram: &[u8]) -> Datagram<'_> {
    match datagram.first() {
        Some(0..=3) => stun(datagram).unwrap_or(Datagram::Unknown),
        Some(20..=63) if datagram.len() >= DTLS_RECORD_HEADER_LEN => Datagram::Dtls,
        Some(128..=191) => match datagram.get(1) {
            Some(192..=223) if datagram.len() >= RTCP_HEADER_LEN => Datagram::Rtcp,
            Some(_) if datagram.len() >= RTP_HEADER_LEN => Datagram::Rtp,
            _ => Datagram::Unknown,
        },
        _ => Datagram::Unknown,
    }
}

fn stun(datagram: &[u8]) -> Option<Datagram<'_>> {
    let (header, mut attributes) = datagram.split_at_checked(STUN_HEADER_LEN)?;
    let length = usize::from(u16_at(header, 2)?);
    if header[4..8] != STUN_MAGIC_COOKIE || length != attributes.len() || length % 4 != 0 {
        return None;
    }
    if u16_at(header, 0)? != STUN_BINDING_REQUEST {
        return None;
    }
    let mut username = None;
    while !attributes.is_empty() {
        let (kind, length) = (u16_at(attributes, 0)?, usize::from(u16_at(attributes, 2)?));
        let value = attributes.get(4..4 + length)?;
        // Of two user names we might believe one and the check of the credentials the other.
        if kind == STUN_USERNAME && username.replace(value).is_some() {
            return None;
        }
        attributes = attributes.get(4 + length.next_multiple_of(4)..)?;
    }
    let (ufrag, _) = std::str::from_utf8(username?).ok()?.split_once(':')?;
    let is_valid = !ufrag.is_empty() && ufrag.len() <= UFRAG_LEN_MAX;
    is_valid.then_some(Datagram::StunRequest { ufrag })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const UFRAG_RANDOM_LEN: usize = 10;

/// A user fragment for a peer: base32 of shard, slot and 80 random bits, so that one look tells the shard.
#[must_use]
pub fn ufrag(shard: u16, slot: u32, random: [u8; UFRAG_RANDOM_LEN]) -> String {
    let mut bytes = [0; 6 + UFRAG_RANDOM_LEN];
    bytes[..2].copy_from_slice(&shard.to_be_bytes());
    bytes[2..6].copy_from_slice(&slot.to_be_bytes());
    bytes[6..].copy_from_slice(&random);
    base32(&bytes)
}

/// Lower-case base32 without padding.
#[must_use]
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut buffer, mut bits) = (0_u32, 0);
    for &byte in bytes {
        buffer = (buffer << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(BASE32[(buffer >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        text.push(char::from(BASE32[(buffer << (5 - bits)) as usize & 31]));
    }
    text
}

/// A peer's place in the shard. The generation tells a place's holders apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    pub index: u32,
    pub generation: u32,
}

/// Who owns which user fragment and which address.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_ufrag: HashMap<Box<str>, PeerKey>,
    by_address: HashMap<SocketAddr, PeerKey>,
    of_peer: HashMap<PeerKey, Names>,
}

#[derive(Debug, Default)]
struct Names {
    ufrag: Box<str>,
    addresses: VecDeque<SocketAddr>,
}

impl Table {
    pub(super) fn by_ufrag(&self, ufrag: &str) -> Option<PeerKey> {
        self.by_ufrag.get(ufrag).copied()
    }

    pub(super) fn by_address(&self, address: SocketAddr) -> Option<PeerKey> {
        self.by_address.get(&address).copied()
    }

    /// The peer answers to `ufrag` from now on and to no other; addresses it had before count no more.
    pub(super) fn name(&mut self, peer: PeerKey, ufrag: &str) {
        self.forget(peer);
        self.by_ufrag.insert(ufrag.into(), peer);
        self.of_peer.insert(peer, Names { ufrag: ufrag.into(), addresses: VecDeque::new() });
    }

    /// The peer restarted ICE: a new user fragment, while media goes on over the addresses it has.
    pub(super) fn rename(&mut self, peer: PeerKey, ufrag: &str) {
        if let Some(names) = self.of_peer.get_mut(&peer) {
            self.by_ufrag.remove(&names.ufrag);
            names.ufrag = ufrag.into();
            self.by_ufrag.insert(ufrag.into(), peer);
        }
    }

    /// `address` proved to be the peer's.
    pub(super) fn learn(&mut self, peer: PeerKey, address: SocketAddr) {
        let Some(names) = self.of_peer.get_mut(&peer) else { return };
        let before = self.by_address.insert(address, peer);
        if before == Some(peer) {
            return;
        }
        names.addresses.push_back(address);
        let surplus = if names.addresses.len() > ADDRESSES_PER_PEER_MAX { names.addresses.pop_front() } else { None };
        if let Some(surplus) = surplus
            && self.by_address.get(&surplus) == Some(&peer)
        {
            self.by_address.remove(&surplus);
        }
        if let Some(names) = before.and_then(|other| self.of_peer.get_mut(&other)) {
            names.addresses.retain(|&other| other != address);
        }
    }

    pub(super) fn forget(&mut self, peer: PeerKey) {
        let Some(names) = self.of_peer.remove(&peer) else { return };
        self.by_ufrag.remove(&names.ufrag);
        for address in names.addresses {
            if self.by_address.get(&address) == Some(&peer) {
                self.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(index: u32) -> PeerKey {
        PeerKey { index, generation: 0 }
    }

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn binding_request(username: &str) -> Vec<u8> {
        let mut attributes = vec![0x80, 0x22, 0, 1, b'x', 0, 0, 0];
        attributes.extend([0, 6]);
        attributes.extend(u16::try_from(username.len()).unwrap().to_be_bytes());
        attributes.extend(username.bytes());
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        let mut datagram = vec![0, 1];
        datagram.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        datagram.extend(STUN_MAGIC_COOKIE);
        datagram.extend([7; 12]);
        datagram.extend(attributes);
        datagram
    }

    #[test]
    fn a_binding_request_names_the_owner_of_the_first_half_of_its_username() {
        let datagram = binding_request("ours:theirs");

        assert_eq!(classify(&datagram), Datagram::StunRequest { ufrag: "ours" });
    }

    #[test]
    fn a_binding_request_that_lies_about_its_length_is_unknown() {
        let mut datagram = binding_request("ours:theirs");
        datagram.pop();

        assert_eq!(classify(&datagram), Datagram::Unknown);
        assert_eq!(classify(&binding_request("no colon")), Datagram::Unknown);
    }

    #[test]
    fn a_binding_request_with_two_user_names_is_nobodys() {
        let mut datagram = binding_request("ours:theirs");
        let another = binding_request("others:theirs").split_off(STUN_HEADER_LEN);
        datagram.extend(another);
        let length = u16::try_from(datagram.len() - STUN_HEADER_LEN).unwrap();
        datagram[2..4].copy_from_slice(&length.to_be_bytes());

        assert_eq!(classify(&datagram), Datagram::Unknown);
    }

    #[test]
    fn the_first_bytes_tell_dtls_rtp_and_rtcp_apart() {
        let of = |first: u8, second: u8| {
            let mut datagram = [0; 20];
            (datagram[0], datagram[1]) = (first, second);
            let kind = classify(&datagram);
            format!("{kind:?}")
        };

        assert_eq!(of(22, 254), "Dtls");
        assert_eq!(of(128, 111), "Rtp");
        assert_eq!(of(128, 200), "Rtcp");
        assert_eq!(of(70, 0), "Unknown");
        assert_eq!(classify(&[128]), Datagram::Unknown);
        assert_eq!(classify(&[]), Datagram::Unknown);
    }

    #[test]
    fn user_fragments_differ_by_shard_slot_and_chance() {
        let text = ufrag(3, 7, [9; 10]);

        assert_eq!(text.len(), 26);
        assert!(text.bytes().all(|c| BASE32.contains(&c)));
        assert_ne!(text, ufrag(4, 7, [9; 10]));
        assert_ne!(text, ufrag(3, 8, [9; 10]));
        assert_ne!(text, ufrag(3, 7, [8; 10]));
        assert_eq!(base32(b"hello"), "nbswy3dp");
    }

    #[test]
    fn an_address_belongs_to_the_last_who_proved_it_and_the_oldest_gives_way() {
        let mut table = Table::default();
        table.name(key(1), "one");
        table.name(key(2), "two");

        table.learn(key(1), address(1000));
        table.learn(key(2), address(1000));
        for port in 0..20 {
            table.learn(key(1), address(port));
        }

        assert_eq!(table.by_address(address(1000)), Some(key(2)));
        assert_eq!(table.by_address(address(0)), None);
        assert_eq!(table.by_address(address(19)), Some(key(1)));
        table.forget(key(1));
        assert_eq!(table.by_address(address(19)), None);
        assert_eq!(table.by_ufrag("one"), None);
        assert_eq!((table.by_address.len(), table.by_ufrag.len(), table.of_peer.len()), (1, 1, 1));
    }

    #[test]
    fn an_ice_restart_changes_the_name_and_keeps_the_addresses() {
        let mut table = Table::default();
        table.name(key(1), "before");
        table.learn(key(1), address(5));

        table.rename(key(1), "after");

        assert_eq!(table.by_ufrag("before"), None);
        assert_eq!(table.by_ufrag("after"), Some(key(1)));
        assert_eq!(table.by_address(address(5)), Some(key(1)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(datagram in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let _ = classify(&datagram);
        }

        #[test]
        fn no_damage_to_a_binding_request_makes_it_panic(at in 0usize..64, to in any::<u8>(), cut in 0usize..64) {
            let mut datagram = binding_request("ours:theirs-and-more");
            if let Some(byte) = datagram.get_mut(at) { *byte = to }
            datagram.truncate(datagram.len().saturating_sub(cut % 20));
            let _ = classify(&datagram);
        }

        #[test]
        fn tables_forget_whole_peers(steps in proptest::collection::vec((0u32..4, 0u16..12, 0u8..4), 0..200)) {
            let mut table = Table::default();
            for (peer, port, what) in steps {
                match what {
                    0 => table.name(key(peer), &format!("u{peer}")),
                    1 => table.forget(key(peer)),
                    2 => table.rename(key(peer), &format!("r{peer}")),
                    _ => table.learn(key(peer), address(port)),
                }
            }
            for peer in 0..4 { table.forget(key(peer)) }
            prop_assert!(table.by_address.is_empty() && table.by_ufrag.is_empty() && table.of_peer.is_empty());
        }
    }
}
