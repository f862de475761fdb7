//! The pieces a choked newcomer may have all the same (BEP 6): a set that follows from its address and the
//! info-hash, so that coming back does not give it others.

use crate::id::InfoHash;
use crate::units::PieceIndex;
use std::net::{IpAddr, Ipv4Addr};

/// The first `count` pieces of the canonical set of BEP 6 for a peer at `address`. Empty for IPv6, for which
/// the set is not defined.
pub fn allowed_fast_set(
    address: IpAddr,
    info_hash: InfoHash,
    piece_count: u32,
    count: usize,
) -> Vec<PieceIndex> {
    let IpAddr::V4(address) = address.to_canonical() else { return Vec::new() };
    let count = count.min(piece_count as usize);
    let mut pieces = Vec::with_capacity(count);
    let network = u32::from(address) & 0xffff_ff00;
    let mut hash = sha1_smol::Sha1::new();
    hash.update(&Ipv4Addr::from(network).octets());
    hash.update(&info_hash.0);
    let mut digest = hash.digest().bytes();
    while pieces.len() < count {
        for word in digest.chunks_exact(4) {
            let number = word.iter().fold(0u32, |number, &byte| number << 8 | u32::from(byte));
            let piece = PieceIndex(number % piece_count);
            if pieces.len() < count && !pieces.contains(&piece) {
                pieces.push(piece);
            }
        }
        digest = sha1_smol::Sha1::from(digest).digest().bytes();
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_example_of_the_specification() {
        let address = IpAddr::V4(Ipv4Addr::new(80, 4, 4, 200));
        let numbers = |count| {
            allowed_fast_set(address, InfoHash([0xaa; 20]), 1313, count)
                .iter()
                .map(|p| p.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), [1059, 431, 808, 1217, 287, 376, 1188]);
        assert_eq!(numbers(9), [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]);
    }

    #[test]
    fn ends_for_torrents_of_few_pieces() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(allowed_fast_set(address, InfoHash([1; 20]), 0, 10), []);
        assert_eq!(allowed_fast_set(address, InfoHash([1; 20]), 3, 10).len(), 3);
        assert_eq!(allowed_fast_set("::1".parse().unwrap(), InfoHash([1; 20]), 3, 10), []);
    }
}
