//! Connections that have not said yet who they are: counted together, and for each address, so that nobody keeps others out.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Such connections at once.
const WAITING_MAX: usize = 1_000;
/// Such connections of one address at once: a full room behind one router may come back together.
const WAITING_PER_ADDRESS_MAX: usize = 64;
/// A network of IPv6 that belongs to one customer has so many bits at least; addresses within it are as one.
const NETWORK_V6_BITS: u32 = 64;

/// Those who wait. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct WaitingRoom(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why nobody more is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Too many wait.
    Altogether,
    /// Too many of this address wait.
    FromThere,
}

/// Counts a connection among those who wait, until dropped.
pub(super) struct Waiting {
    room: WaitingRoom,
    address: IpAddr,
}

impl WaitingRoom {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Let a connection from `address` wait.
    ///
    /// # Errors
    /// When there are too many.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Waiting, Full> {
        let address = network(address);
        let mut counts = self.counts();
        if counts.all >= WAITING_MAX {
            return Err(Full::Altogether);
        }
        let from_there = counts.by_address.entry(address).or_default();
        if *from_there >= WAITING_PER_ADDRESS_MAX {
            return Err(Full::FromThere);
        }
        *from_there += 1;
        counts.all += 1;
        Ok(Waiting { room: self.clone(), address })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut counts = self.room.counts();
        counts.all -= 1;
        if let Some(from_there) = counts.by_address.get_mut(&self.address) {
            *from_there -= 1;
            if *from_there == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// What stands for whoever has this address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let host_bits = Ipv6Addr::BITS - NETWORK_V6_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> host_bits << host_bits))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_fills_what_an_address_may_have_keeps_nobody_else_out() {
        let room = WaitingRoom::default();
        let [theirs, sibling, other] =
            ["2001:db8:1:2::3", "2001:db8:1:2:ffff::", "2001:db8:1:3::3"].map(|text| text.parse().unwrap());
        let mut held: Vec<Waiting> = (0..WAITING_PER_ADDRESS_MAX).map(|_| room.enter(theirs).ok().unwrap()).collect();

        assert_eq!(room.enter(sibling).err(), Some(Full::FromThere));
        assert!(room.enter(other).is_ok());

        held.pop();
        assert!(room.enter(sibling).is_ok());
        held.clear();
        assert!(room.counts().by_address.is_empty(), "addresses are held only while somebody waits");
    }

    #[test]
    fn many_addresses_together_have_a_limit_too() {
        let room = WaitingRoom::default();
        let address = |n: usize| IpAddr::from([10, 0, 0, u8::try_from(n / WAITING_PER_ADDRESS_MAX).unwrap()]);
        let held: Vec<Waiting> = (0..WAITING_MAX).map(|n| room.enter(address(n)).ok().unwrap()).collect();

        assert_eq!(room.enter([192, 0, 2, 1].into()).err(), Some(Full::Altogether));
        assert_eq!(held.len(), WAITING_MAX);
    }
}
