//! Which pieces somebody has: one bit each, most significant bit first, spare bits zero (BEP 3).

use crate::units::{Counted, PieceIndex};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// A set of pieces of a torrent with a known number of pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    bytes: Box<[u8]>,
    len: u32,
    count: u32,
}

/// Why bytes are no bitfield of this torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// The number of bytes does not fit the number of pieces.
    #[error("bitfield of {} where {expected} are due", Counted(*.got, "byte"))]
    Length {
        /// Bytes that came.
        got: usize,
        /// Bytes that this torrent's bitfield has.
        expected: usize,
    },
    /// A bit behind the last piece is set.
    #[error("bitfield with spare bits set")]
    SpareBits,
}

impl Bitfield {
    /// The empty set over `len` pieces.
    pub fn none(len: u32) -> Self {
        Self { bytes: vec![0; Self::byte_len(len)].into_boxed_slice(), len, count: 0 }
    }

    /// The full set over `len` pieces.
    pub fn all(len: u32) -> Self {
        let mut bytes = vec![0xff; Self::byte_len(len)].into_boxed_slice();
        if let Some(last) = bytes.last_mut() {
            *last &= !Self::spare_mask(len);
        }
        Self { bytes, len, count: len }
    }

    /// Reads a bitfield message's payload for a torrent of `len` pieces.
    pub fn from_wire(payload: &[u8], len: u32) -> Result<Self, BitfieldError> {
        let expected = Self::byte_len(len);
        if payload.len() != expected {
            return Err(BitfieldError::Length { got: payload.len(), expected });
        }
        if payload.last().is_some_and(|last| last & Self::spare_mask(len) != 0) {
            return Err(BitfieldError::SpareBits);
        }
        let count = payload.iter().map(|byte| byte.count_ones()).sum();
        Ok(Self { bytes: payload.into(), len, count })
    }

    /// Bytes of a bitfield over `len` pieces.
    pub const fn byte_len(len: u32) -> usize {
        (len as usize).div_ceil(8)
    }

    /// Adds a piece; true when it was missing. A piece out of range is not added.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        if piece.0 >= self.len || self.contains(piece) {
            return false;
        }
        self.bytes[piece.0 as usize / 8] |= 0x80 >> (piece.0 % 8);
        self.count += 1;
        true
    }

    /// Removes a piece; true when it was there.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        if !self.contains(piece) {
            return false;
        }
        self.bytes[piece.0 as usize / 8] &= !(0x80 >> (piece.0 % 8));
        self.count -= 1;
        true
    }

    /// Whether the piece is in the set; false out of range.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        piece.0 < self.len && self.bytes[piece.0 as usize / 8] & (0x80 >> (piece.0 % 8)) != 0
    }

    /// Whether every piece of `other` is in this set, too; both are of one torrent.
    pub fn contains_all(&self, other: &Self) -> bool {
        self.len == other.len && self.bytes.iter().zip(&other.bytes).all(|(ours, theirs)| theirs & !ours == 0)
    }

    /// Pieces in the set.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Pieces of the torrent.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the torrent has no pieces at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether every piece is in the set.
    pub fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// The pieces in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        let bytes = self.bytes.iter().zip(0u32..);
        bytes.filter(|(byte, _)| **byte != 0).flat_map(|(&byte, at)| {
            (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| PieceIndex(at * 8 + bit))
        })
    }

    /// The bytes as a bitfield message carries them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn spare_mask(len: u32) -> u8 {
        match len % 8 {
            0 => 0,
            used => 0xff >> used,
        }
    }
}

/// A set of pieces that one core changes and all cores read: what we have of a torrent.
///
/// A piece is added after its bytes are where they belong; whoever then finds it here finds the bytes there, too
/// (release and acquire). The count may be a moment older or newer than the bits.
#[derive(Debug)]
pub struct SharedBitfield {
    bytes: Box<[AtomicU8]>,
    len: u32,
    count: AtomicU32,
}

impl SharedBitfield {
    /// Adds a piece; true when it was missing. A piece out of range is not added.
    pub fn insert(&self, piece: PieceIndex) -> bool {
        let mask = 0x80 >> (piece.0 % 8);
        let Some(byte) = self.byte(piece) else { return false };
        let is_new = byte.fetch_or(mask, Ordering::Release) & mask == 0;
        self.count.fetch_add(u32::from(is_new), Ordering::Release);
        is_new
    }

    /// Removes a piece; true when it was there.
    pub fn remove(&self, piece: PieceIndex) -> bool {
        let mask = 0x80 >> (piece.0 % 8);
        let Some(byte) = self.byte(piece) else { return false };
        let was_there = byte.fetch_and(!mask, Ordering::Release) & mask != 0;
        self.count.fetch_sub(u32::from(was_there), Ordering::Release);
        was_there
    }

    /// Whether the piece is in the set; false out of range.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        self.byte(piece).is_some_and(|byte| byte.load(Ordering::Acquire) & (0x80 >> (piece.0 % 8)) != 0)
    }

    /// Pieces in the set.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Pieces of the torrent.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the torrent has no pieces at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether every piece is in the set.
    pub fn is_full(&self) -> bool {
        self.count() == self.len
    }

    /// The set as it is now, for one owner.
    pub fn snapshot(&self) -> Bitfield {
        let bytes: Box<[u8]> = self.bytes.iter().map(|byte| byte.load(Ordering::Acquire)).collect();
        let count = bytes.iter().map(|byte| byte.count_ones()).sum();
        Bitfield { bytes, len: self.len, count }
    }

    fn byte(&self, piece: PieceIndex) -> Option<&AtomicU8> {
        self.bytes.get(piece.0 as usize / 8).filter(|_| piece.0 < self.len)
    }
}

impl From<Bitfield> for SharedBitfield {
    fn from(bitfield: Bitfield) -> Self {
        let bytes = bitfield.bytes.iter().map(|&byte| AtomicU8::new(byte)).collect();
        Self { bytes, len: bitfield.len, count: bitfield.count.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn refuses_wrong_lengths_and_spare_bits() {
        assert_eq!(Bitfield::from_wire(&[0; 2], 8), Err(BitfieldError::Length { got: 2, expected: 1 }));
        assert_eq!(Bitfield::from_wire(&[0, 1], 15), Err(BitfieldError::SpareBits));
        assert!(Bitfield::from_wire(&[0xff, 0xfe], 15).unwrap().is_full());
        assert!(Bitfield::from_wire(&[], 0).unwrap().is_full());
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(len in 0u32..70, steps in prop::collection::vec((any::<bool>(), 0u32..80), 0..100)) {
            let mut oracle = BTreeSet::new();
            let mut bitfield = Bitfield::none(len);
            let shared = SharedBitfield::from(Bitfield::none(len));
            for (insert, piece) in steps {
                if insert {
                    prop_assert_eq!(shared.insert(PieceIndex(piece)), piece < len && !oracle.contains(&piece));
                    prop_assert_eq!(bitfield.insert(PieceIndex(piece)), piece < len && oracle.insert(piece));
                } else {
                    prop_assert_eq!(shared.remove(PieceIndex(piece)), oracle.contains(&piece));
                    prop_assert_eq!(bitfield.remove(PieceIndex(piece)), oracle.remove(&piece));
                }
            }
            prop_assert_eq!(bitfield.count() as usize, oracle.len());
            prop_assert!(bitfield.iter().map(|piece| piece.0).eq(oracle.iter().copied()));
            prop_assert!((0..80).all(|piece| bitfield.contains(PieceIndex(piece)) == oracle.contains(&piece)));
            prop_assert_eq!(Bitfield::from_wire(bitfield.as_bytes(), len), Ok(bitfield.clone()));
            prop_assert_eq!(shared.snapshot(), bitfield.clone());
            prop_assert_eq!((shared.count(), shared.is_full()), (bitfield.count(), bitfield.is_full()));
            prop_assert!((0..80).all(|piece| shared.contains(PieceIndex(piece)) == oracle.contains(&piece)));
            prop_assert_eq!(bitfield.is_full(), bitfield == Bitfield::all(len));
            prop_assert!(Bitfield::all(len).contains_all(&bitfield) && bitfield.contains_all(&Bitfield::none(len)));
            prop_assert_eq!(Bitfield::none(len).contains_all(&bitfield), oracle.is_empty());
        }
    }
}
