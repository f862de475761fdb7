//! What clients and trackers say to each other, as bytes and as values, in both directions: [`udp`] speaks
//! BEP 15 with the options of BEP 41, [`http`] speaks BEP 3, 7, 23, 24 and 48.
//!
//! The values of this file are shared by both. A decoder never trusts a declared length, never panics and
//! allocates no more than the bytes it was given justify. What to do with a value (whether an interval is
//! sane, whether an address is worth dialling) is the announcer's business, not decided here.

pub mod http;
pub mod udp;

use crate::id::{InfoHash, PeerId};
use crate::limits::TRACKER_MESSAGE_LEN_MAX;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why a client announces (BEP 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnnounceEvent {
    /// The regular announce of every interval.
    #[default]
    None,
    /// The first announce of a session.
    Started,
    /// The client leaves the swarm.
    Stopped,
    /// The client has just got its last piece; never sent by who was a seed at its start.
    Completed,
    /// The regular announce of a partial seed, which lacks pieces but wants none (BEP 21). BEP 15 has no such
    /// event; libtorrent tells it as number 4, which is understood but not sent.
    Paused,
}

/// What a client tells a tracker about itself. It carries no address: a tracker takes the source address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The client's name for itself.
    pub peer_id: PeerId,
    /// The port on which the client accepts peers; zero when it accepts none.
    pub port: u16,
    /// Bytes given to others since `started`.
    pub uploaded: u64,
    /// Bytes taken from others since `started`.
    pub downloaded: u64,
    /// Bytes still missing; zero says seed.
    pub left: u64,
    /// Why now.
    pub event: AnnounceEvent,
    /// A number by which a tracker may know the client again after its address changed.
    pub key: u32,
    /// Number of peers wanted; `None` leaves it to the tracker.
    pub num_want: Option<u32>,
}

/// What a client learns from an announce. Nothing is clamped or filtered yet, except that peers without a
/// port are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceResponse {
    /// Seconds until the next regular announce, as the tracker wishes.
    pub interval_secs: u32,
    /// Seconds the tracker wants between any two announces.
    pub min_interval_secs: Option<u32>,
    /// Seeds in the swarm, when told.
    pub seeds: Option<u32>,
    /// Leeches in the swarm, when told.
    pub leeches: Option<u32>,
    /// Completed downloads, when told.
    pub completed: Option<u32>,
    /// Addresses to dial.
    pub peers: Vec<SocketAddr>,
    /// A remark for the user, already escaped by [`message_text`].
    pub warning: Option<String>,
    /// Our own address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// To be sent back in the next announce (BEP 3, HTTP only).
    pub tracker_id: Option<Vec<u8>>,
}

/// One torrent's figures in a scrape (BEP 15, BEP 48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeEntry {
    /// Seeds in the swarm.
    pub seeds: u32,
    /// Downloads completed since the tracker knows the torrent.
    pub completed: u32,
    /// Leeches in the swarm.
    pub leeches: u32,
    /// Those of the leeches that want nothing more (BEP 21); zero where that is not told, as over UDP.
    pub partial_seeds: u32,
}

/// The family of addresses that a compact peer list holds. It follows from the socket in UDP, from the key in
/// HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// Six bytes a peer.
    V4,
    /// Eighteen bytes a peer.
    V6,
}

impl AddressFamily {
    /// The family of `ip`; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bytes of one peer in compact form (BEP 23, BEP 7).
    pub const fn compact_len(self) -> usize {
        match self {
            Self::V4 => 6,
            Self::V6 => 18,
        }
    }
}

/// Reads a compact peer list. A tail shorter than a peer is left out, as are peers without a port.
pub fn compact_peers(bytes: &[u8], family: AddressFamily) -> impl Iterator<Item = SocketAddr> + '_ {
    bytes.chunks_exact(family.compact_len()).filter_map(compact_peer).filter(|peer| peer.port() != 0)
}

/// Appends `peer` in compact form: its address and port in network byte order.
pub fn push_compact_peer(out: &mut Vec<u8>, peer: SocketAddr) {
    match peer.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&peer.port().to_be_bytes());
}

fn compact_peer(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// A tracker's text made safe for a terminal, a log and a web page: at most
/// [`TRACKER_MESSAGE_LEN_MAX`] bytes are read, what is no UTF-8 is replaced, control and invisible
/// direction-changing characters and the angle brackets and ampersand of markup are written as `\u{..}`.
pub fn message_text(bytes: &[u8]) -> String {
    let read = bytes.get(..TRACKER_MESSAGE_LEN_MAX).unwrap_or(bytes);
    let mut text = String::with_capacity(read.len());
    for character in String::from_utf8_lossy(read).chars() {
        match character {
            '<' | '>' | '&' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
            }
            _ if character.is_control() => {
                let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
    if read.len() < bytes.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_peers_round_trip_without_those_that_have_no_port() {
        let peers: Vec<SocketAddr> =
            vec!["1.2.3.4:6881".parse().unwrap(), "9.9.9.9:0".parse().unwrap(), "5.6.7.8:1".parse().unwrap()];
        let mut bytes = Vec::new();
        peers.iter().for_each(|&peer| push_compact_peer(&mut bytes, peer));
        assert_eq!(bytes.len(), 18);
        bytes.push(7);
        assert_eq!(compact_peers(&bytes, AddressFamily::V4).collect::<Vec<_>>(), [peers[0], peers[2]]);

        let peer: SocketAddr = "[2001:db8::1]:6881".parse().unwrap();
        let mut bytes = Vec::new();
        push_compact_peer(&mut bytes, peer);
        assert_eq!(compact_peers(&bytes, AddressFamily::V6).collect::<Vec<_>>(), [peer]);
    }

    #[test]
    fn messages_lose_their_teeth() {
        assert_eq!(message_text(b"\x1b[31mred\r\n"), "\\u{1b}[31mred\\u{d}\\u{a}");
        assert_eq!(message_text(b"<b>&"), "\\u{3c}b\\u{3e}\\u{26}");
        assert_eq!(message_text("\u{202e}x\u{9b}".as_bytes()), "\\u{202e}x\\u{9b}");
        assert_eq!(message_text(b"\xff plain text"), "\u{fffd} plain text");
        assert_eq!(message_text(&[b'a'; 65_000]).chars().count(), TRACKER_MESSAGE_LEN_MAX + 1);
    }
}
