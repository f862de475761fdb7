//! Which addresses are worth dialling at all, and who may name them.
//!
//! Invariant: every address in the list is canonical: an IPv4 address never hides in an IPv6 one, and there is
//! neither flow nor scope. Addresses that cannot be a peer (port zero, nobody, everybody) never enter; those that
//! lead into a local network enter only when somebody names them who is there himself ([`Scope::may_name`]), because peers
//! and trackers of the public network could otherwise make us knock at the doors of our own house.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far an address carries. The order is from far to near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Anywhere.
    Global,
    /// Private, shared (RFC 6598) or link-local networks, and unique local IPv6 addresses.
    Lan,
    /// This machine.
    Loopback,
}

impl Scope {
    /// The scope of `address`.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            ip if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() || is_shared(v4) => Self::Lan,
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() || is_site_local(v6) => {
                Self::Lan
            }
            IpAddr::V6(v6) => embedded_v4(v6).map_or(Self::Global, |v4| Self::of(v4.into())),
            IpAddr::V4(_) => Self::Global,
        }
    }

    /// Whether who is at an address of this scope, a peer or a tracker, may send us to `address`: to nobody who is nearer
    /// to us than he is himself. Who is far away has no business in our network and on this machine.
    pub fn may_name(self, address: IpAddr) -> bool {
        Self::of(address) <= self
    }
}

/// The canonical form of an address that a peer can be dialled at; `None` for port zero and for addresses that
/// belong to nobody or to many. Link-local IPv6 is left out, since nothing on the wire carries its scope.
pub fn dialable(address: SocketAddr) -> Option<SocketAddr> {
    let ip = address.ip().to_canonical();
    let is_somebody = match ip {
        IpAddr::V4(v4) => !is_nobody(v4),
        IpAddr::V6(v6) => {
            let is_embedded_nobody = embedded_v4(v6).is_some_and(is_nobody);
            !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local() && !is_embedded_nobody
        }
    };
    (is_somebody && address.port() != 0).then(|| SocketAddr::new(ip, address.port()))
}

/// A canonical address in no more bytes than it has on the wire, and in the order of socket addresses: what is kept of
/// thousands of peers. Neither flow nor scope, which canonical addresses do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackedAddress {
    /// IPv4 address and port.
    V4([u8; 6]),
    /// IPv6 address and port.
    V6([u8; 18]),
}

impl From<SocketAddr> for PackedAddress {
    fn from(address: SocketAddr) -> Self {
        let [high, low] = address.port().to_be_bytes();
        match address.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                Self::V4([a, b, c, d, high, low])
            }
            IpAddr::V6(ip) => {
                let mut bytes = [0; 18];
                bytes[..16].copy_from_slice(&ip.octets());
                bytes[16..].copy_from_slice(&[high, low]);
                Self::V6(bytes)
            }
        }
    }
}

impl From<PackedAddress> for SocketAddr {
    fn from(packed: PackedAddress) -> Self {
        match packed {
            PackedAddress::V4([a, b, c, d, high, low]) => {
                Self::new(IpAddr::from([a, b, c, d]), u16::from_be_bytes([high, low]))
            }
            PackedAddress::V6(bytes) => {
                let (mut ip, [.., high, low]) = ([0; 16], bytes);
                ip.copy_from_slice(&bytes[..16]);
                Self::new(IpAddr::from(ip), u16::from_be_bytes([high, low]))
            }
        }
    }
}

/// First and last address that one party usually holds: an IPv4 address with all its ports, a /64 of IPv6.
pub fn party(ip: IpAddr) -> (SocketAddr, SocketAddr) {
    let (first, last) = match ip {
        IpAddr::V4(_) => (ip, ip),
        IpAddr::V6(v6) => {
            let network = v6.to_bits() & !u128::from(u64::MAX);
            (Ipv6Addr::from_bits(network).into(), Ipv6Addr::from_bits(network | u128::from(u64::MAX)).into())
        }
    };
    (SocketAddr::new(first, 0), SocketAddr::new(last, u16::MAX))
}

/// 0/8 is "this network", 224/4 is multicast, 240/4 is reserved and holds the broadcast address.
fn is_nobody(v4: Ipv4Addr) -> bool {
    matches!(v4.octets()[0], 0 | 224..=255)
}

/// The IPv4 address inside an IPv6 one, which whatever carries it may lead to: mapped, compatible, NAT64 (RFC 6052) and
/// 6to4.
pub fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// fec0::/10, which RFC 3879 took out of use and networks still have.
fn is_site_local(v6: Ipv6Addr) -> bool {
    v6.segments()[0] & 0xffc0 == 0xfec0
}

/// 100.64.0.0/10, between a provider and its customers.
fn is_shared(v4: Ipv4Addr) -> bool {
    v4.octets()[0] == 100 && v4.octets()[1] & 0b1100_0000 == 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("a literal address")
    }

    #[test]
    fn addresses_of_nobody_and_of_many_are_not_dialled() {
        for text in [
            "1.2.3.4:0",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "224.0.0.1:80",
            "239.1.1.1:80",
            "255.255.255.255:80",
            "250.1.1.1:80",
            "[::]:80",
            "[ff02::1]:80",
            "[fe80::1]:80",
            "[::ffff:0.0.0.0]:80",
            "[::ffff:224.0.0.1]:80",
            "[64:ff9b::224.0.0.1]:80",
            "[2002:0:1::1]:80",
            "[2001:db8::1]:0",
        ] {
            assert_eq!(dialable(address(text)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn packed_addresses_come_back_and_keep_their_order(one: SocketAddr, other: SocketAddr) {
            let (one, other) = (dialable(one), dialable(other));
            let packed = |address: Option<SocketAddr>| address.map(PackedAddress::from);
            prop_assert_eq!(packed(one).map(SocketAddr::from), one);
            prop_assert_eq!(packed(one).cmp(&packed(other)), one.cmp(&other));
        }
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        assert_eq!(dialable(address("[::ffff:192.0.2.7]:80")), Some(address("192.0.2.7:80")));
        assert_eq!(dialable(address("[2001:db8::7]:80")), Some(address("[2001:db8::7]:80")));
        assert_eq!(Scope::of(address("[::ffff:127.0.0.1]:1").ip()), Scope::Loopback);
    }

    #[test]
    fn nobody_names_what_is_nearer_than_he_is() {
        let all = [("8.8.8.8", Scope::Global), ("192.168.0.1", Scope::Lan), ("127.0.0.1", Scope::Loopback)];
        for (text, scope) in all {
            for teller in [Scope::Global, Scope::Lan, Scope::Loopback] {
                let ip = text.parse().expect("a literal address");
                assert_eq!(teller.may_name(ip), scope <= teller, "{text} by {teller:?}");
            }
        }
    }

    #[test]
    fn scopes_are_what_the_registries_say() {
        let scope = |text: &str| Scope::of(text.parse().expect("a literal address"));
        for text in ["10.1.2.3", "172.31.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "100.127.1.1"]
        {
            assert_eq!(scope(text), Scope::Lan, "{text}");
        }
        for text in
            ["fd00::1", "fe80::1", "fec0::1", "64:ff9b::10.0.0.1", "::192.168.0.1", "2002:a9fe:a9fe::1"]
        {
            assert_eq!(scope(text), Scope::Lan, "{text}");
        }
        for text in ["::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::1"] {
            assert_eq!(scope(text), Scope::Loopback, "{text}");
        }
        assert_eq!([scope("127.9.9.9"), scope("::1")], [Scope::Loopback; 2]);
        for text in ["8.8.8.8", "172.32.0.1", "100.63.0.1", "100.128.0.1", "2001:db8::1", "64:ff9b::8.8.8.8"]
        {
            assert_eq!(scope(text), Scope::Global, "{text}");
        }
    }
}
