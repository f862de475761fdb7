//! Names: info-hashes (BEP 3) and peer ids (BEP 20) of twenty bytes, connections of this process, and the
//! address prefixes that fairness counts by.

use crate::rng::Rng;
use std::fmt;
use std::net::IpAddr;

/// SHA-1 of the raw bytes of a torrent's info dictionary (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

impl InfoHash {
    /// The hash of an info dictionary's raw bytes.
    pub fn of(info_bytes: &[u8]) -> Self {
        Self(sha1_smol::Sha1::from(info_bytes).digest().bytes())
    }

    /// Reads 40 hexadecimal digits; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 40 {
            return None;
        }
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InfoHash({self})")
    }
}

/// A peer's name for itself, in the style of BEP 20: `-SR0100-` and twelve random characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

impl PeerId {
    /// Seedring's two letters, the version, and random letters and digits.
    pub fn generate(rng: &mut Rng) -> Self {
        const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut bytes = *b"-SR0100-000000000000";
        for byte in &mut bytes[8..] {
            *byte = ALPHABET[rng.index(ALPHABET.len())];
        }
        Self(bytes)
    }
}

impl fmt::Display for PeerId {
    /// Printable ASCII as it is, every other byte as `%xx`: safe on a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&byte| match byte {
            b'%' => f.write_str("%25"),
            0x21..=0x7e => write!(f, "{}", char::from(byte)),
            _ => write!(f, "%{byte:02x}"),
        })
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

/// A connection of this process, on whichever worker it lives. Never reused within a run, because the
/// generation goes up each time its slot is taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The worker that owns the connection, from zero.
    pub worker: u16,
    /// The connection's place in its worker's table.
    pub slot: u32,
    /// How many connections had this place before.
    pub generation: u32,
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.worker, self.slot, self.generation)
    }
}

/// The part of an address that one party usually holds whole: /24 of IPv4, /64 of IPv6. Slots, half-open
/// handshakes and other scarce things are shared out by prefix, since addresses inside one cost nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressPrefix {
    /// The first three bytes of an IPv4 address, also of one mapped into IPv6.
    V4([u8; 3]),
    /// The first eight bytes of an IPv6 address.
    V6([u8; 8]),
}

impl AddressPrefix {
    /// The prefix that `address` belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// The largest part of the address space that one party is given for nothing: /24 of IPv4, /48 of IPv6 (RFC 6177). Tables
/// that many strangers share are shared out by site, since prefixes inside one cost nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(u64);

impl Site {
    /// The site of `ip`; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::of_bytes(&ip.octets()),
            IpAddr::V6(ip) => Self::of_bytes(&ip.octets()),
        }
    }

    /// The site of an address of 4 or 16 bytes, or of a peer in compact form (BEP 23, BEP 7).
    pub fn of_bytes(address: &[u8]) -> Self {
        let named = address.iter().take(Self::bytes_of(address.len()));
        let number = named.fold(0, |number, &byte| number << 8 | u64::from(byte));
        Self(if address.len() > 6 { number | 1 << 48 } else { number })
    }

    /// Bytes that name the site at the beginning of an address, or of a peer in compact form, of `len` bytes.
    pub const fn bytes_of(len: usize) -> usize {
        if len > 6 { 6 } else { 3 }
    }

    /// The /32 of IPv6 that this site lies in, as a site of its own kind: what one provider is given at least, 65,536 sites
    /// that cost it nothing more. IPv4 has none: there every /24 has its price.
    pub const fn provider(self) -> Option<Self> {
        if self.0 >> 48 == 1 { Some(Self(self.0 & !0xffff | 1 << 49)) } else { None }
    }

    /// The site that [`Self::number`] gave this number.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The site as one number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips_and_refuses_the_rest() {
        let hash = InfoHash::of(b"d4:name1:xe");
        assert_eq!(InfoHash::from_hex(&hash.to_string()), Some(hash));
        assert_eq!(InfoHash::from_hex(&hash.to_string().to_uppercase()), Some(hash));
        assert_eq!(InfoHash::from_hex("abc"), None);
        assert_eq!(InfoHash::from_hex(&"g".repeat(40)), None);
        assert_eq!(InfoHash::from_hex(&"é".repeat(20)), None);
    }

    #[test]
    fn a_mapped_address_has_the_prefix_of_its_ipv4_address() {
        let prefix = |text: &str| AddressPrefix::of(text.parse().expect("a literal address"));
        assert_eq!(prefix("::ffff:192.0.2.7"), prefix("192.0.2.200"));
        assert_ne!(prefix("192.0.2.7"), prefix("192.0.3.7"));
        assert_eq!(prefix("2001:db8:0:1::7"), prefix("2001:db8:0:1:ffff::"));
        assert_ne!(prefix("2001:db8:0:1::7"), prefix("2001:db8:0:2::7"));
    }

    #[test]
    fn a_site_is_a_24_of_ipv4_and_a_48_of_ipv6() {
        let site = |ip: &str| Site::of(ip.parse().expect("an address"));
        assert_eq!(site("192.0.2.1"), site("::ffff:192.0.2.200"));
        assert_ne!(site("192.0.2.1"), site("192.0.3.1"));
        assert_eq!(site("2001:db8:1:1::1"), site("2001:db8:1:ffff::1"));
        assert_ne!(site("2001:db8:1::1"), site("2001:db8:2::1"));
        assert_ne!(site("::1"), site("0.0.0.1"));
        assert_eq!(Site::of_bytes(&[192, 0, 2, 9, 0x1a, 0xe1]), site("192.0.2.1"));
        let mut compact = [0; 18];
        compact[..6].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 1]);
        assert_eq!(Site::of_bytes(&compact), site("2001:db8:1:7::7"));
    }

    #[test]
    fn peer_ids_are_printable_and_differ() {
        let mut rng = Rng::from_seed(3);
        let (one, two) = (PeerId::generate(&mut rng), PeerId::generate(&mut rng));
        assert_ne!(one, two);
        assert!(one.to_string().starts_with("-SR0100-"));
        assert_eq!(PeerId([0; 20]).to_string(), "%00".repeat(20));
    }
}
