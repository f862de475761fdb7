//! SHA-1 of several pieces at once.
//!
//! Each SHA-1 round waits for the one before, so a single message leaves the CPU's SHA unit idle most of the
//! time. Pieces are independent: interleaving the rounds of [`LANES`] of them fills it, about 2.6 times the
//! rate of one at a time. FIPS 180-4 gives the algorithm, Intel's SHA extensions four rounds an instruction. Messages
//! of unequal length, and CPUs without the extensions, go one at a time through the `sha1` crate.
#![expect(unsafe_code, reason = "the CPU's SHA instructions may run only where they exist")]

use super::hash::piece_hash;

/// Messages hashed together. More lanes would not find registers.
pub(super) const LANES: usize = 4;

/// SHA-1 of each message.
pub(super) fn hash_lanes(messages: [&[u8]; LANES]) -> [[u8; 20]; LANES] {
    #[cfg(target_arch = "x86_64")]
    {
        let are_even = messages.iter().all(|message| message.len() == messages[0].len());
        if are_even
            && is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1")
        {
            // SAFETY: the features that the function is compiled for have just been found in this CPU.
            return unsafe { x86::hash_even(messages) };
        }
    }
    messages.map(piece_hash)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::LANES;
    use std::arch::x86_64::*;

    const BLOCK: usize = 64;

    /// One message's five words: a to d from the highest lane down, and e in the highest lane.
    #[derive(Clone, Copy)]
    struct State {
        abcd: __m128i,
        e: __m128i,
    }

    /// Hashes messages of one length.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    pub(super) fn hash_even(messages: [&[u8]; LANES]) -> [[u8; 20]; LANES] {
        let words =
            [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0_u32].map(u32::cast_signed);
        let abcd = _mm_set_epi32(words[0], words[1], words[2], words[3]);
        let mut states = [State { abcd, e: _mm_set_epi32(words[4], 0, 0, 0) }; LANES];
        let (one, two, three, four) = (
            messages[0].as_chunks::<BLOCK>(),
            messages[1].as_chunks::<BLOCK>(),
            messages[2].as_chunks::<BLOCK>(),
            messages[3].as_chunks::<BLOCK>(),
        );
        for (((one, two), three), four) in one.0.iter().zip(two.0).zip(three.0).zip(four.0) {
            compress(&mut states, [one, two, three, four]);
        }
        let bits = (messages[0].len() as u64).wrapping_mul(8);
        let ends = [one.1, two.1, three.1, four.1].map(|rest| padded_end(rest, bits));
        compress(&mut states, [&ends[0][0], &ends[1][0], &ends[2][0], &ends[3][0]]);
        if one.1.len() >= BLOCK - 8 {
            compress(&mut states, [&ends[0][1], &ends[1][1], &ends[2][1], &ends[3][1]]);
        }
        let mut hashes = [[0; 20]; LANES];
        for (hash, State { abcd, e }) in hashes.iter_mut().zip(states) {
            let words = [
                _mm_extract_epi32::<3>(abcd),
                _mm_extract_epi32::<2>(abcd),
                _mm_extract_epi32::<1>(abcd),
                _mm_extract_epi32::<0>(abcd),
                _mm_extract_epi32::<3>(e),
            ];
            for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(words) {
                *bytes = word.to_be_bytes();
            }
        }
        hashes
    }

    /// What is left of a message behind its whole blocks, with SHA-1's padding: one block, or two when the length
    /// finds no room in the first.
    fn padded_end(rest: &[u8], bits: u64) -> [[u8; BLOCK]; 2] {
        let mut end = [[0; BLOCK]; 2];
        let length_at = if rest.len() < BLOCK - 8 { BLOCK - 8 } else { 2 * BLOCK - 8 };
        let bytes = end.as_flattened_mut();
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        bytes[length_at..length_at + 8].copy_from_slice(&bits.to_be_bytes());
        end
    }

    /// Adds one block to each message.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn compress(states: &mut [State; LANES], blocks: [&[u8; BLOCK]; LANES]) {
        let big_endian = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
        let saved = *states;
        let mut abcd = saved.map(|state| state.abcd);
        // The a to d of four rounds ago, whose a is the next e.
        let mut before = abcd;
        // The message schedule's last sixteen words.
        let mut words = [[_mm_setzero_si128(); 4]; LANES];
        for (words, block) in words.iter_mut().zip(blocks) {
            for (word, part) in words.iter_mut().zip(block.as_chunks::<16>().0) {
                // SAFETY: the part has 16 bytes, and the load needs no alignment.
                let loaded = unsafe { _mm_loadu_si128(part.as_ptr().cast()) };
                *word = _mm_shuffle_epi8(loaded, big_endian);
            }
        }
        // Unrolled, because the group of four rounds chooses the round function as an immediate operand.
        macro_rules! rounds {
            ($($group:literal)*) => { $(
                for lane in 0..LANES {
                    let words = &mut words[lane];
                    if $group >= 4 {
                        let mixed = _mm_sha1msg1_epu32(words[$group % 4], words[($group + 1) % 4]);
                        let mixed = _mm_xor_si128(mixed, words[($group + 2) % 4]);
                        words[$group % 4] = _mm_sha1msg2_epu32(mixed, words[($group + 3) % 4]);
                    }
                    let added = if $group == 0 {
                        _mm_add_epi32(saved[lane].e, words[0])
                    } else {
                        _mm_sha1nexte_epu32(before[lane], words[$group % 4])
                    };
                    before[lane] = abcd[lane];
                    abcd[lane] = _mm_sha1rnds4_epu32::<{ $group / 5 }>(abcd[lane], added);
                }
            )* };
        }
        rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
        for lane in 0..LANES {
            states[lane] = State {
                abcd: _mm_add_epi32(abcd[lane], saved[lane].abcd),
                e: _mm_sha1nexte_epu32(before[lane], saved[lane].e),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    fn oracle(message: &[u8]) -> [u8; 20] {
        sha1_smol::Sha1::from(message).digest().bytes()
    }

    fn random_messages(seed: u64, lens: [usize; LANES]) -> [Vec<u8>; LANES] {
        let mut rng = Rng::from_seed(seed);
        lens.map(|len| {
            let mut message = vec![0; len];
            rng.fill(&mut message);
            message
        })
    }

    #[test]
    fn every_length_around_the_padding_hashes_as_elsewhere() {
        for len in 0..=200 {
            let messages = random_messages(len as u64, [len; LANES]);
            let lanes = messages.each_ref().map(Vec::as_slice);
            assert_eq!(hash_lanes(lanes), lanes.map(oracle), "{len}");
        }
    }

    proptest! {
        #[test]
        fn messages_of_any_length_hash_as_elsewhere(seed: u64, len in 0usize..5000, odd in 0usize..5000) {
            for lens in [[len; LANES], [len, len, odd, len]] {
                let messages = random_messages(seed, lens);
                let lanes = messages.each_ref().map(Vec::as_slice);
                prop_assert_eq!(hash_lanes(lanes), lanes.map(oracle));
            }
        }
    }
}
