//! Bitfields sixty-four pieces at a time: the first piece is the highest bit, as on the wire (BEP 3).

/// The pieces from `64 * at` on; absent bytes are zero.
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at * 8..).unwrap_or(&[]);
    if let Some(whole) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*whole);
    }
    let mut part = [0; 8];
    part[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(part)
}

/// The pieces set in `word`, which stands at `at`, in ascending order.
pub(super) fn ones(mut word: u64, at: usize) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.leading_zeros();
        word &= !(1 << (63 - bit));
        Some(at as u32 * 64 + bit)
    })
}

/// Pieces in both sets.
pub(super) fn common(one: &[u8], other: &[u8]) -> u32 {
    (0..one.len().div_ceil(8)).map(|at| (word(one, at) & word(other, at)).count_ones()).sum()
}
