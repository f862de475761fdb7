//! Reading a handshake from parts of any length: fields of known lengths, and the mark behind a pad of unknown length.
//!
//! Invariants: no byte behind the field at hand is taken, and no more than one field or one mark is held.

use super::error::MseError;
use crate::limits::MSE_PAD_LEN_MAX;

/// The bytes of the field at hand, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Gather {
    bytes: Vec<u8>,
    /// Bytes looked at in search of a mark.
    searched: usize,
}

impl Gather {
    /// The next `N` bytes, once all of them are there.
    pub(super) fn field<const N: usize>(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        let (part, rest) = input.split_at(input.len().min(N.saturating_sub(self.bytes.len())));
        self.bytes.extend_from_slice(part);
        *input = rest;
        let field = self.bytes.first_chunk::<N>().copied()?;
        self.bytes.clear();
        Some(field)
    }

    /// Bytes of the field at hand that have come.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Passes over a pad up to and with the `mark` that ends it: true once it is found. An error as soon as the mark
    /// cannot stand behind a pad of allowed length.
    pub(super) fn pass_mark(&mut self, mark: &[u8], input: &mut &[u8]) -> Result<bool, MseError> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.searched += 1;
            if self.bytes.len() == mark.len() {
                self.bytes.remove(0);
            }
            self.bytes.push(byte);
            if self.bytes == mark {
                (self.bytes, self.searched) = (Vec::new(), 0);
                return Ok(true);
            }
            if self.searched == MSE_PAD_LEN_MAX + mark.len() {
                return Err(MseError::NoMark);
            }
        }
        Ok(false)
    }

    /// Bytes held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Takes up to `left` bytes of the input, and counts them off.
pub(super) fn take<'i>(left: &mut usize, input: &mut &'i [u8]) -> &'i [u8] {
    let (part, rest) = input.split_at(input.len().min(*left));
    *left -= part.len();
    *input = rest;
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_behind_the_longest_pad_and_not_behind_a_longer_one() {
        let mark = b"mmark";
        for len in [0, 1, 4, 5, 511, 512, 513] {
            let mut stream = vec![b'm'; len];
            stream.extend_from_slice(mark);
            stream.push(b'!');
            for part in [1, 3, stream.len()] {
                let mut gather = Gather::default();
                let mut found = Ok(false);
                let mut behind = 0;
                for mut input in stream.chunks(part) {
                    if found == Ok(false) {
                        found = gather.pass_mark(mark, &mut input);
                    }
                    behind += input.len();
                }
                let expected = if len <= 512 { Ok(true) } else { Err(MseError::NoMark) };
                assert_eq!((found, behind), (expected, 1 + len.saturating_sub(512)), "{len} by {part}");
            }
        }
    }

    #[test]
    fn a_field_takes_its_own_bytes_only() {
        let mut gather = Gather::default();
        let mut input = b"abcdefg".as_slice();
        assert_eq!(gather.field::<3>(&mut input), Some(*b"abc"));
        assert_eq!(gather.field::<0>(&mut input), Some([]));
        assert_eq!(gather.field::<5>(&mut input), None);
        input = b"hi".as_slice();
        assert_eq!((gather.field::<5>(&mut input), input), (Some(*b"defgh"), b"i".as_slice()));
    }
}
