//! Canonical peer priority (BEP 40): a number that both ends of a connection compute alike from their addresses, so
//! that a swarm's connections spread evenly and no party can choose to be everybody's favourite.
//!
//! The higher number is preferred. The masks make addresses of one network count as one, unless both ends are in it.

use std::net::{IpAddr, SocketAddr};

/// The priority of the connection between `one` and `other`; `None` when they are of different families.
pub fn canonical_priority(one: SocketAddr, other: SocketAddr) -> Option<u32> {
    match (one.ip().to_canonical(), other.ip().to_canonical()) {
        (one_ip, other_ip) if one_ip == other_ip => {
            let (low, high) = (one.port().min(other.port()), one.port().max(other.port()));
            let [[a, b], [c, d]] = [low, high].map(u16::to_be_bytes);
            Some(crc32c(&[a, b, c, d]))
        }
        (IpAddr::V4(one), IpAddr::V4(other)) => Some(of_octets(one.octets(), other.octets(), 2)),
        (IpAddr::V6(one), IpAddr::V6(other)) => Some(of_octets(one.octets(), other.octets(), 6)),
        _ => None,
    }
}

/// `whole` leading bytes count in full for addresses far apart; for near ones, one more than they have in common.
fn of_octets<const N: usize>(one: [u8; N], other: [u8; N], whole: usize) -> u32 {
    let common = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let whole = whole.max(common + 1);
    let masked = |octets: [u8; N]| {
        let mut place = 0;
        octets.map(|octet| {
            place += 1;
            if place <= whole { octet } else { octet & 0x55 }
        })
    };
    let (one, other) = (masked(one), masked(other));
    crc32c(&[one.min(other), one.max(other)].concat())
}

/// CRC-32C (Castagnoli), reflected, as in RFC 3720.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(u32::MAX, |crc, &byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn priority(one: &str, other: &str) -> Option<u32> {
        canonical_priority(one.parse().expect("an address"), other.parse().expect("an address"))
    }

    #[test]
    fn the_examples_of_bep_40_come_out_as_printed() {
        assert_eq!(priority("123.213.32.10:0", "98.76.54.32:0"), Some(0xec2d_7224));
        assert_eq!(priority("123.213.32.10:0", "123.213.32.234:0"), Some(0x9956_8189));
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn masks_are_wider_for_addresses_that_are_closer() {
        // Bits that the masks 5555 hide.
        assert_eq!(priority("1.2.3.4:1", "9.9.0.0:1"), priority("1.2.3.4:1", "9.9.170.170:1"));
        assert_eq!(priority("1.2.3.4:1", "1.2.9.0:1"), priority("1.2.3.4:1", "1.2.9.170:1"));
        assert_ne!(priority("1.2.3.4:1", "1.2.9.0:1"), priority("1.2.3.4:1", "1.2.11.0:1"));
        assert_ne!(priority("1.2.3.4:1", "1.2.3.0:1"), priority("1.2.3.4:1", "1.2.3.170:1"));
        let far = "[2001:db8:1::1]:1";
        assert_eq!(priority(far, "[2001:db8:2::]:1"), priority(far, "[2001:db8:2:aaaa::]:1"));
        assert_eq!(priority(far, "[2001:db8:1:f00::]:1"), priority(far, "[2001:db8:1:faa::]:1"));
        assert_ne!(priority(far, "[2001:db8:1:0::]:1"), priority(far, "[2001:db8:1:aa::]:1"));
    }

    #[test]
    fn of_one_address_the_ports_decide_and_families_do_not_mix() {
        assert_eq!(priority("1.2.3.4:258", "1.2.3.4:3"), Some(crc32c(&[0, 3, 1, 2])));
        assert_eq!(priority("1.2.3.4:1", "[2001:db8::1]:1"), None);
        assert_eq!(priority("1.2.3.4:1", "[::ffff:9.8.7.6]:1"), priority("1.2.3.4:1", "9.8.7.6:1"));
    }

    proptest! {
        #[test]
        fn both_ends_compute_the_same(one: [u8; 4], other: [u8; 4], six: [u8; 16], seven: [u8; 16], port: u16) {
            for (one, other) in [(IpAddr::from(one), IpAddr::from(other)), (six.into(), seven.into())] {
                let (one, other) = (SocketAddr::new(one, port), SocketAddr::new(other, 7));
                prop_assert_eq!(canonical_priority(one, other), canonical_priority(other, one));
            }
        }
    }
}
