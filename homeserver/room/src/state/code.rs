//! Layers as bytes: small, because keys and events close to each other have close numbers.
//!
//! ```text
//! layer   = count added entry* count removed key*
//! entry   = key, difference of the event from the previous entry's event
//! key     = difference from the previous key, less one (less nothing for the first)
//! ```
//!
//! All numbers are variable-length, seven bits a byte, least significant first; differences of
//! events are zigzag-coded, as they go both ways. The bytes come from our own database but are
//! read as if they came from a stranger: no bytes make [`decode`] panic or allocate more than
//! a few times their length.

use super::{EventNumber, Layer, StateKeyNumber};

/// Bytes that are no layer: a damaged row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a layer of room state is damaged at byte {at}")]
pub struct Corrupt {
    pub at: usize,
}

/// Writes a layer.
pub fn encode(layer: &Layer) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + 4 * layer.len());
    write_number(layer.added().len() as u64, &mut out);
    let (mut key_before, mut event_before) = (None, 0_u64);
    for &(key, event) in layer.added() {
        write_key(key, &mut key_before, &mut out);
        let difference = event.0.wrapping_sub(event_before).cast_signed();
        write_number(((difference << 1) ^ (difference >> 63)).cast_unsigned(), &mut out);
        event_before = event.0;
    }
    write_number(layer.removed().len() as u64, &mut out);
    let mut key_before = None;
    for &key in layer.removed() {
        write_key(key, &mut key_before, &mut out);
    }
    out
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Layer, Corrupt> {
    let mut reader = Reader { bytes, at: 0 };
    let added_count = reader.count()?;
    let mut added = Vec::with_capacity(added_count);
    let (mut key_before, mut event_before) = (None, 0_u64);
    for _ in 0..added_count {
        let key = reader.key(&mut key_before)?;
        let coded = reader.number()?;
        let difference = (coded >> 1) ^ (coded & 1).wrapping_neg();
        event_before = event_before.wrapping_add(difference);
        added.push((key, EventNumber(event_before)));
    }
    let removed_count = reader.count()?;
    let mut removed = Vec::with_capacity(removed_count);
    let mut key_before = None;
    for _ in 0..removed_count {
        removed.push(reader.key(&mut key_before)?);
    }
    if reader.at != bytes.len() {
        return Err(Corrupt { at: reader.at });
    }
    let disjoint = removed.iter().all(|key| added.binary_search_by_key(key, |entry: &(_, _)| entry.0).is_err());
    if !disjoint {
        return Err(Corrupt { at: bytes.len() });
    }
    Ok(Layer::from_sorted(added, removed))
}

fn write_key(key: StateKeyNumber, before: &mut Option<u64>, out: &mut Vec<u8>) {
    let step = before.map_or(key.0, |before| key.0 - before - 1);
    write_number(step, out);
    *before = Some(key.0);
}

fn write_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn corrupt<T>(&self) -> Result<T, Corrupt> {
        Err(Corrupt { at: self.at })
    }

    fn number(&mut self) -> Result<u64, Corrupt> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return self.corrupt();
            };
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return self.corrupt();
            }
            self.at += 1;
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        self.corrupt()
    }

    /// A number of things that each take at least one more byte.
    fn count(&mut self) -> Result<usize, Corrupt> {
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.bytes.len() - self.at => Ok(count),
            _ => self.corrupt(),
        }
    }

    fn key(&mut self, before: &mut Option<u64>) -> Result<StateKeyNumber, Corrupt> {
        let step = self.number()?;
        let key = match *before {
            None => Some(step),
            Some(before) => before.checked_add(step).and_then(|sum| sum.checked_add(1)),
        };
        let Some(key) = key else {
            return self.corrupt();
        };
        *before = Some(key);
        Ok(StateKeyNumber(key))
    }
}
