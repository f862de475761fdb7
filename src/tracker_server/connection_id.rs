//! Connection ids of the UDP tracker protocol (BEP 15) without memory: a keyed hash of the client's address
//! and of the time window in which it asked.
//!
//! An id of the current and of the previous window is accepted, so it lives for two to four minutes. Whoever
//! cannot receive at an address cannot name its id, except by guessing 64 bits. The client's port is left
//! out, since some clients ask from one socket and announce from another.

use crate::limits::CONNECTION_ID_WINDOW;
use crate::time::Instant;
use crate::tracker_wire::udp::ConnectionId;
use siphasher::sip::SipHasher13;
use std::net::IpAddr;

/// Issues and recognises connection ids.
#[derive(Clone)]
pub(super) struct ConnectionIds {
    keyed: SipHasher13,
}

impl ConnectionIds {
    /// Ids under `secret`, which must come from the kernel's generator and stay in this process.
    pub(super) fn new(secret: &[u8; 16]) -> Self {
        Self { keyed: SipHasher13::new_with_key(secret) }
    }

    /// The id of a client at `ip`.
    pub(super) fn issue(&self, now: Instant, ip: IpAddr) -> ConnectionId {
        self.of_window(window(now), ip)
    }

    /// Whether `id` was issued to `ip` in this window or the one before.
    pub(super) fn proves(&self, now: Instant, ip: IpAddr, id: ConnectionId) -> bool {
        let window = window(now);
        id == self.of_window(window, ip) || id == self.of_window(window.wrapping_sub(1), ip)
    }

    fn of_window(&self, window: u64, ip: IpAddr) -> ConnectionId {
        let ip = match ip.to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut message = [0; 24];
        message[..16].copy_from_slice(&ip.octets());
        message[16..].copy_from_slice(&window.to_be_bytes());
        ConnectionId(self.keyed.hash(&message))
    }
}

fn window(now: Instant) -> u64 {
    now.as_secs() / CONNECTION_ID_WINDOW.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn hostile_43_an_id_belongs_to_one_address_and_ends_after_the_next_window() {
        let ids = ConnectionIds::new(&[7; 16]);
        let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let begin = Instant::ZERO + CONNECTION_ID_WINDOW * 10;
        let id = ids.issue(begin, ip);
        assert!(ids.proves(begin, ip, id));
        assert!(ids.proves(begin + CONNECTION_ID_WINDOW, ip, id));
        assert!(!ids.proves(begin + CONNECTION_ID_WINDOW * 2, ip, id));
        assert!(!ids.proves(begin - CONNECTION_ID_WINDOW, ip, id));
        assert!(!ids.proves(begin, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), id));
        assert!(!ids.proves(begin, ip, ConnectionId(id.0 ^ 1)));
        assert!(!ConnectionIds::new(&[8; 16]).proves(begin, ip, id));
    }

    #[test]
    fn a_mapped_address_is_the_same_client() {
        let ids = ConnectionIds::new(&[7; 16]);
        let id = ids.issue(Instant::ZERO, IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(ids.proves(Instant::ZERO, IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), id));
    }
}
