//! Peer exchange (BEP 11) as bytes and values: which peers the sender is connected to since its last message, and
//! which no more.
//!
//! A message that contradicts itself (a list of no whole number of addresses, flags for another number of peers) is
//! refused whole; what a peer wrote there was not meant as we would read it. Of a good one at most
//! [`PEX_PEERS_MAX`] added and as many dropped are kept, the first, without repetitions, and none with port zero.
//! Whether an address is worth dialling, and how often a peer may say something, is not decided here.

use crate::bencode::{self, Value};
use crate::limits::PEX_PEERS_MAX;
use crate::units::Counted;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of an IPv4 address with its port.
const V4_LEN: usize = 6;
/// Bytes of an IPv6 address with its port.
const V6_LEN: usize = 18;

/// What a message says of an added peer. Bits without a meaning are kept as they came.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PexFlags(pub u8);

impl PexFlags {
    /// The peer prefers encrypted connections.
    pub const PREFERS_ENCRYPTION: Self = Self(0x01);
    /// The peer is a seed, or only uploads (BEP 21).
    pub const UPLOAD_ONLY: Self = Self(0x02);
    /// The peer speaks uTP (BEP 29).
    pub const UTP: Self = Self(0x04);
    /// The peer understands `ut_holepunch` (BEP 55).
    pub const HOLEPUNCH: Self = Self(0x08);
    /// The sender dialled the peer: it is reachable.
    pub const REACHABLE: Self = Self(0x10);

    /// Whether all bits of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These bits and those of `flags`, if `set`.
    #[must_use]
    pub const fn with(self, flags: Self, set: bool) -> Self {
        if set { Self(self.0 | flags.0) } else { self }
    }
}

impl fmt::Debug for PexFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PexFlags({:#04x})", self.0)
    }
}

/// A peer that a message adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PexPeer {
    /// Where it accepts peers. Canonical, never port zero.
    pub address: SocketAddr,
    /// What is said of it; nothing when the sender left the flags out.
    pub flags: PexFlags,
}

/// A message of peer exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PexMessage {
    /// Peers connected since the last message; IPv4 before IPv6.
    pub added: Vec<PexPeer>,
    /// Peers no longer connected; IPv4 before IPv6.
    pub dropped: Vec<SocketAddr>,
}

/// Why a payload is no message of peer exchange. The peer's fault; the message is to be ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PexError {
    /// Not even a bencoded dictionary.
    #[error("the peer sent a peer exchange message that is no dictionary")]
    NotADictionary,
    /// A list that ends within an address, or is no string.
    #[error("the peer sent a peer exchange message whose {field} is no list of addresses of {unit} bytes")]
    List {
        /// The list.
        field: &'static str,
        /// Bytes of one address.
        unit: usize,
    },
    /// Flags for another number of peers than there are.
    #[error("the peer sent a peer exchange message whose {field} has {} for {}", Counted(*.flags, "flag"), Counted(*.peers, "peer"))]
    Flags {
        /// The flags.
        field: &'static str,
        /// Their number.
        flags: usize,
        /// The number of peers.
        peers: usize,
    },
}

impl PexMessage {
    /// Reads the payload of a `ut_pex` message.
    ///
    /// # Errors
    /// When it contradicts itself; see the module.
    pub fn decode(payload: &[u8]) -> Result<Self, PexError> {
        // As with extension handshakes, what stands behind the dictionary is nobody's business.
        let (document, _) = bencode::parse_prefix(payload).map_err(|_| PexError::NotADictionary)?;
        let root = document.root();
        root.as_dict().ok_or(PexError::NotADictionary)?;

        let added = [
            (list(root, "added", V4_LEN)?, flags(root, "added.f")?, "added.f"),
            (list(root, "added6", V6_LEN)?, flags(root, "added6.f")?, "added6.f"),
        ];
        let dropped = [list(root, "dropped", V4_LEN)?, list(root, "dropped6", V6_LEN)?];

        let mut message = Self::default();
        for (addresses, flags, field) in added {
            let peers = addresses.len();
            if let Some(flags) = flags.filter(|flags| flags.len() != peers) {
                return Err(PexError::Flags { field, flags: flags.len(), peers });
            }
            for (place, address) in addresses.enumerate() {
                let flags = flags.and_then(|flags| flags.get(place)).copied().unwrap_or(0);
                let known = message.added.len() >= PEX_PEERS_MAX
                    || message.added.iter().any(|peer| peer.address == address);
                if address.port() != 0 && !known {
                    message.added.push(PexPeer { address, flags: PexFlags(flags) });
                }
            }
        }
        for address in dropped.into_iter().flatten() {
            let known = message.dropped.len() >= PEX_PEERS_MAX || message.dropped.contains(&address);
            if address.port() != 0 && !known {
                message.dropped.push(address);
            }
        }
        // A mapped address among the IPv6 ones is an IPv4 address; the order says so.
        message.added.sort_by_key(|peer| peer.address.is_ipv6());
        message.dropped.sort_by_key(SocketAddr::is_ipv6);
        Ok(message)
    }

    /// The payload of a `ut_pex` message. Lists without peers are left out.
    pub fn encode(&self) -> Vec<u8> {
        let (mut added, mut added6, mut dropped) =
            (Compact::default(), Compact::default(), Compact::default());
        let mut dropped6 = Compact::default();
        for peer in &self.added {
            let list = if peer.address.ip().to_canonical().is_ipv4() { &mut added } else { &mut added6 };
            list.push(peer.address);
            list.flags.push(peer.flags.0);
        }
        for &address in &self.dropped {
            let list = if address.ip().to_canonical().is_ipv4() { &mut dropped } else { &mut dropped6 };
            list.push(address);
        }
        bencode::dict(|out| {
            let lists = [
                ("added", added.addresses),
                ("added.f", added.flags),
                ("added6", added6.addresses),
                ("added6.f", added6.flags),
                ("dropped", dropped.addresses),
                ("dropped6", dropped6.addresses),
            ];
            for (name, bytes) in lists {
                if !bytes.is_empty() {
                    out.bytes(name, bytes);
                }
            }
        })
    }
}

/// A list of one family, as bytes.
#[derive(Default)]
struct Compact {
    addresses: Vec<u8>,
    flags: Vec<u8>,
}

impl Compact {
    fn push(&mut self, address: SocketAddr) {
        match address.ip().to_canonical() {
            IpAddr::V4(v4) => self.addresses.extend(v4.octets()),
            IpAddr::V6(v6) => self.addresses.extend(v6.octets()),
        }
        self.addresses.extend(address.port().to_be_bytes());
    }
}

/// The addresses of one list, of `unit` bytes each; none when it is absent.
fn list<'a>(
    root: Value<'_, 'a>,
    field: &'static str,
    unit: usize,
) -> Result<impl ExactSizeIterator<Item = SocketAddr> + use<'a>, PexError> {
    let broken = PexError::List { field, unit };
    let bytes = match root.lookup(field.as_bytes()) {
        Some(value) => value.as_bytes().ok_or(broken)?,
        None => &[],
    };
    let addresses = bytes.chunks_exact(unit);
    if addresses.remainder().is_empty() { Ok(addresses.map(address)) } else { Err(broken) }
}

/// The flags of one list; `None` when they are absent, which they may be.
fn flags<'a>(root: Value<'_, 'a>, field: &'static str) -> Result<Option<&'a [u8]>, PexError> {
    let Some(value) = root.lookup(field.as_bytes()) else { return Ok(None) };
    value.as_bytes().map(Some).ok_or(PexError::List { field, unit: 1 })
}

/// Reads an address of 4 or 16 bytes and the two of a port.
fn address(bytes: &[u8]) -> SocketAddr {
    let (ip, port) = bytes.split_at(bytes.len().saturating_sub(2));
    let port = port.iter().fold(0, |port, &byte| port << 8 | u16::from(byte));
    let ip = match <[u8; 16]>::try_from(ip) {
        Ok(octets) => IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(),
        Err(_) => <[u8; 4]>::try_from(ip).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from).into(),
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("a literal address")
    }

    #[test]
    fn reads_a_message_of_both_families() {
        let sent = b"d5:added12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\0\x507:added.f2:\x12\0\
                     6:added618: \x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1\
                     7:dropped6:\x09\x09\x09\x09\0\x01e";
        let message = PexMessage::decode(sent).expect("a good message");
        let flags = PexFlags::UPLOAD_ONLY.with(PexFlags::REACHABLE, true).with(PexFlags::UTP, false);
        assert_eq!(
            message.added,
            [
                PexPeer { address: address("1.2.3.4:6881"), flags },
                PexPeer { address: address("5.6.7.8:80"), flags: PexFlags(0) },
                PexPeer { address: address("[2001:db8::1]:6881"), flags: PexFlags(0) },
            ]
        );
        assert!(flags.contains(PexFlags::REACHABLE) && !flags.contains(PexFlags::UTP));
        assert_eq!(message.dropped, [address("9.9.9.9:1")]);
    }

    #[test]
    fn a_message_that_contradicts_itself_is_refused_whole() {
        let list = |field, unit| PexError::List { field, unit };
        for (sent, error) in [
            (b"".as_slice(), PexError::NotADictionary),
            (b"le", PexError::NotADictionary),
            (b"d5:added99999999999:", PexError::NotADictionary),
            (b"d5:added5:12345e", list("added", 6)),
            (b"d5:addedi6ee", list("added", 6)),
            (b"d6:added66:123456e", list("added6", 18)),
            (b"d7:dropped7:1234567e", list("dropped", 6)),
            (b"d8:dropped61:1e", list("dropped6", 18)),
            (b"d5:added6:1234567:added.fi1ee", list("added.f", 1)),
            (b"d5:added6:1234567:added.f2:12e", PexError::Flags { field: "added.f", flags: 2, peers: 1 }),
            (b"d7:added.f1:1e", PexError::Flags { field: "added.f", flags: 1, peers: 0 }),
            (b"d8:added6.f1:1e", PexError::Flags { field: "added6.f", flags: 1, peers: 0 }),
        ] {
            assert_eq!(PexMessage::decode(sent), Err(error), "{}", sent.escape_ascii());
        }
        assert_eq!(PexMessage::decode(b"de and more"), Ok(PexMessage::default()));
    }

    #[test]
    fn port_zero_repetitions_and_what_is_beyond_the_bound_are_left_out() {
        let peer =
            |port: u16| PexPeer { address: SocketAddr::from(([1, 2, 3, 4], port)), flags: PexFlags(1) };
        let mut many = PexMessage { added: vec![peer(0), peer(1), peer(1)], dropped: Vec::new() };
        many.added.extend((1..1000).map(peer));
        many.dropped.extend(many.added.iter().map(|peer| peer.address));
        let few = PexMessage::decode(&many.encode()).expect("a good message");
        assert_eq!(few.added, (1..=50).map(peer).collect::<Vec<_>>());
        assert_eq!(few.dropped, (1..=50).map(|port| peer(port).address).collect::<Vec<_>>());
    }

    #[test]
    fn a_mapped_address_is_an_ipv4_address() {
        let mapped = PexPeer { address: address("[::ffff:1.2.3.4]:5"), flags: PexFlags(3) };
        let message = PexMessage { added: vec![mapped], dropped: vec![mapped.address] };
        let read = PexMessage::decode(&message.encode()).expect("a good message");
        assert_eq!((read.added[0].address, read.dropped[0]), (address("1.2.3.4:5"), address("1.2.3.4:5")));
        let sent = b"d6:added618:\0\0\0\0\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04\0\x05e";
        assert_eq!(PexMessage::decode(sent).map(|read| read.added[0].address), Ok(address("1.2.3.4:5")));
    }

    fn addresses() -> impl Strategy<Value = Vec<SocketAddr>> {
        let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
        let v6 = any::<[u8; 16]>().prop_map(|octets| IpAddr::from(octets).to_canonical());
        let address = (prop_oneof![v4, v6], 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port));
        prop::collection::btree_set(address, 0..=PEX_PEERS_MAX).prop_map(|set| set.into_iter().collect())
    }

    proptest! {
        #[test]
        fn messages_round_trip(added in addresses(), dropped in addresses(), flags: u8) {
            let peers = added.into_iter().map(|address| PexPeer { address, flags: PexFlags(flags) });
            let message = PexMessage { added: peers.collect(), dropped };
            prop_assert_eq!(PexMessage::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = PexMessage::decode(&payload);
        }
    }
}
