//! The bencoded bodies of announce and scrape responses (BEP 3, 7, 23, 24, 48), written by the tracker and
//! read by the client.
//!
//! The writer is canonical: its keys stand in order. The reader is tolerant where trackers differ: it takes
//! compact and dictionary lists, skips what it does not know, leaves out single peers that make no sense and
//! stops at [`TRACKER_RESPONSE_PEERS_MAX`].

use crate::bencode::{BencodeError, Value, parse_prefix};
use crate::id::InfoHash;
use crate::limits::{TRACKER_ID_LEN_MAX, TRACKER_RESPONSE_PEERS_MAX};
use crate::tracker_wire::{AddressFamily, AnnounceResponse, ScrapeEntry, compact_peers, message_text};
use std::net::{IpAddr, SocketAddr};

/// What a tracker answers to an announce; its lists are in compact form as the registry hands them out.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnnounceAnswer<'a> {
    /// Seconds until the next announce.
    pub interval_secs: u32,
    /// Seconds between any two announces.
    pub min_interval_secs: Option<u32>,
    /// The swarm's figures.
    pub figures: ScrapeEntry,
    /// Peers with IPv4 addresses, six bytes each.
    pub peers_v4: &'a [u8],
    /// Peers with IPv6 addresses, eighteen bytes each.
    pub peers_v6: &'a [u8],
    /// The client's own address (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// A remark for the user.
    pub warning: Option<&'a str>,
}

impl AnnounceAnswer<'_> {
    /// Appends the body to `out`. Lists are compact, or one dictionary list of both families when `compact`
    /// is false; its entries name address and port, not the peer id, which this tracker does not keep.
    pub fn encode(&self, compact: bool, out: &mut Vec<u8>) {
        out.push(b'd');
        push_entry(out, "complete", self.figures.seeds);
        push_entry(out, "downloaded", self.figures.completed);
        if let Some(ip) = self.external_ip {
            push_bytes(out, b"external ip");
            match ip {
                IpAddr::V4(ip) => push_bytes(out, &ip.octets()),
                IpAddr::V6(ip) => push_bytes(out, &ip.octets()),
            }
        }
        push_entry(out, "incomplete", self.figures.leeches);
        push_entry(out, "interval", self.interval_secs);
        if let Some(seconds) = self.min_interval_secs {
            push_entry(out, "min interval", seconds);
        }
        push_bytes(out, b"peers");
        if compact {
            push_bytes(out, self.peers_v4);
            if !self.peers_v6.is_empty() {
                push_bytes(out, b"peers6");
                push_bytes(out, self.peers_v6);
            }
        } else {
            self.push_dictionaries(out);
        }
        if let Some(warning) = self.warning {
            push_bytes(out, b"warning message");
            push_bytes(out, warning.as_bytes());
        }
        out.push(b'e');
    }

    fn push_dictionaries(&self, out: &mut Vec<u8>) {
        out.push(b'l');
        let v4 = compact_peers(self.peers_v4, AddressFamily::V4);
        for peer in v4.chain(compact_peers(self.peers_v6, AddressFamily::V6)) {
            out.push(b'd');
            push_bytes(out, b"ip");
            push_bytes(out, peer.ip().to_string().as_bytes());
            push_entry(out, "port", u32::from(peer.port()));
            out.push(b'e');
        }
        out.push(b'e');
    }
}

/// Appends the body that refuses a request for `reason` (BEP 3).
pub fn encode_failure(out: &mut Vec<u8>, reason: &str) {
    out.push(b'd');
    push_bytes(out, b"failure reason");
    push_bytes(out, reason.as_bytes());
    out.push(b'e');
}

/// Appends a scrape's body (BEP 48). `files` is brought into order; of equal torrents one is written.
pub fn encode_scrape(out: &mut Vec<u8>, files: &mut Vec<(InfoHash, ScrapeEntry)>) {
    files.sort_unstable_by_key(|&(hash, _)| hash);
    files.dedup_by_key(|&mut (hash, _)| hash);
    out.extend_from_slice(b"d5:filesd");
    for (hash, entry) in files {
        push_bytes(out, &hash.0);
        out.push(b'd');
        push_entry(out, "complete", entry.seeds);
        push_entry(out, "downloaded", entry.completed);
        if entry.partial_seeds > 0 {
            push_entry(out, "downloaders", entry.leeches.saturating_sub(entry.partial_seeds));
        }
        push_entry(out, "incomplete", entry.leeches);
        out.push(b'e');
    }
    out.extend_from_slice(b"ee");
}

/// Why a body is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// The tracker refuses, in its own words, already made safe by [`message_text`].
    #[error("the tracker refuses: {0}")]
    Failure(String),
    /// The body is not bencoded; the tracker's fault, or the URL is not a tracker's.
    #[error("what the URL answers is no tracker's answer")]
    NotBencoded(#[from] BencodeError),
    /// The dictionary lacks what an answer needs; the tracker's fault, or the URL is not a tracker's.
    #[error("the tracker's answer has no {0}")]
    Missing(&'static str),
}

/// Reads the body of an announce response. Bytes behind the dictionary are ignored, since scripts print line
/// ends there. A missing interval is zero, for the announcer to clamp; numbers that are none of ours
/// (negative, too large) are moved into 32 bits.
///
/// # Errors
/// When the tracker refuses, or the body is none; the tracker's fault.
pub fn decode_announce(body: &[u8]) -> Result<AnnounceResponse, ResponseError> {
    let (document, _) = parse_prefix(body)?;
    let root = accepted(document.root())?;
    let (v4, v6) = (root.lookup(b"peers"), root.lookup(b"peers6"));
    let interval = number(root, b"interval");
    if v4.is_none() && v6.is_none() && interval.is_none() {
        return Err(ResponseError::Missing("interval and no peers"));
    }
    let mut peers = Vec::new();
    for (value, family) in [(v4, AddressFamily::V4), (v6, AddressFamily::V6)] {
        let Some(value) = value else { continue };
        let room = TRACKER_RESPONSE_PEERS_MAX - peers.len();
        if let Some(list) = value.as_bytes() {
            peers.extend(compact_peers(list, family).take(room));
        } else if let Some(list) = value.as_list() {
            peers.extend(list.filter_map(peer_of_dictionary).take(room));
        }
    }
    Ok(AnnounceResponse {
        interval_secs: interval.unwrap_or(0),
        min_interval_secs: number(root, b"min interval"),
        seeds: number(root, b"complete"),
        leeches: number(root, b"incomplete"),
        completed: number(root, b"downloaded"),
        peers,
        warning: root.lookup(b"warning message").and_then(Value::as_bytes).map(message_text),
        external_ip: root.lookup(b"external ip").and_then(Value::as_bytes).and_then(raw_ip),
        tracker_id: root
            .lookup(b"tracker id")
            .and_then(Value::as_bytes)
            .filter(|id| id.len() <= TRACKER_ID_LEN_MAX)
            .map(<[u8]>::to_vec),
    })
}

/// Reads the body of a scrape response. Torrents whose name has not twenty bytes are left out, figures that
/// are missing are zero; no more than [`TRACKER_RESPONSE_PEERS_MAX`] torrents are read.
///
/// # Errors
/// When the tracker refuses, or the body is none; the tracker's fault.
pub fn decode_scrape(body: &[u8]) -> Result<Vec<(InfoHash, ScrapeEntry)>, ResponseError> {
    let (document, _) = parse_prefix(body)?;
    let root = accepted(document.root())?;
    let files = root.lookup(b"files").and_then(Value::as_dict).ok_or(ResponseError::Missing("files"))?;
    Ok(files
        .take(TRACKER_RESPONSE_PEERS_MAX)
        .filter_map(|(name, figures)| {
            let leeches = number(figures, b"incomplete").unwrap_or(0);
            let entry = ScrapeEntry {
                seeds: number(figures, b"complete").unwrap_or(0),
                completed: number(figures, b"downloaded").unwrap_or(0),
                leeches,
                partial_seeds: leeches.saturating_sub(number(figures, b"downloaders").unwrap_or(leeches)),
            };
            Some((InfoHash(name.try_into().ok()?), entry))
        })
        .collect())
}

/// The dictionary of an answer that is no refusal.
fn accepted<'d, 'a>(root: Value<'d, 'a>) -> Result<Value<'d, 'a>, ResponseError> {
    if root.as_dict().is_none() {
        return Err(ResponseError::Missing("dictionary"));
    }
    match root.lookup(b"failure reason") {
        Some(reason) => Err(ResponseError::Failure(message_text(reason.as_bytes().unwrap_or_default()))),
        None => Ok(root),
    }
}

fn number(dictionary: Value<'_, '_>, key: &[u8]) -> Option<u32> {
    let number = dictionary.lookup(key)?.as_int()?;
    Some(u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

/// A peer of the dictionary model. Its `ip` is an address in text or raw; a host name is not looked up.
fn peer_of_dictionary(peer: Value<'_, '_>) -> Option<SocketAddr> {
    let ip = peer.lookup(b"ip")?;
    let ip = ip.as_str().and_then(|text| text.parse().ok()).or_else(|| raw_ip(ip.as_bytes()?))?;
    let port = peer.lookup(b"port")?.as_uint().and_then(|port| u16::try_from(port).ok())?;
    (port != 0).then(|| SocketAddr::new(ip, port))
}

fn raw_ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_number(out, bytes.len() as u64);
    out.push(b':');
    out.extend_from_slice(bytes);
}

fn push_entry(out: &mut Vec<u8>, key: &str, number: u32) {
    push_bytes(out, key.as_bytes());
    out.push(b'i');
    push_number(out, u64::from(number));
    out.push(b'e');
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    use std::io::Write as _;
    write!(out, "{number}").expect("writing into a Vec cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker_wire::push_compact_peer;
    use proptest::prelude::*;

    const FIGURES: ScrapeEntry = ScrapeEntry { seeds: 1, completed: 2, leeches: 3, partial_seeds: 1 };

    fn encoded(answer: &AnnounceAnswer<'_>, compact: bool) -> Vec<u8> {
        let mut body = Vec::new();
        answer.encode(compact, &mut body);
        body
    }

    proptest! {
        #[test]
        fn answers_round_trip_compact_and_as_dictionaries(
            v4 in prop::collection::vec((any::<[u8; 4]>(), 1u16..), 0..50),
            v6 in prop::collection::vec((any::<[u8; 16]>(), 1u16..), 0..50),
            numbers: (u32, Option<u32>, u32, u32, u32), external: Option<[u8; 16]>, compact: bool,
            warning in prop::option::of("[a-z ]{0,40}"),
        ) {
            let (mut peers_v4, mut peers_v6) = (Vec::new(), Vec::new());
            let v4 = v4.into_iter().map(SocketAddr::from);
            let v6 = v6.into_iter().map(SocketAddr::from);
            v4.clone().for_each(|peer| push_compact_peer(&mut peers_v4, peer));
            v6.clone().for_each(|peer| push_compact_peer(&mut peers_v6, peer));
            let figures =
                ScrapeEntry { seeds: numbers.2, completed: numbers.3, leeches: numbers.4, partial_seeds: 0 };
            let body = encoded(&AnnounceAnswer {
                interval_secs: numbers.0,
                min_interval_secs: numbers.1,
                figures,
                peers_v4: &peers_v4,
                peers_v6: &peers_v6,
                external_ip: external.map(IpAddr::from),
                warning: warning.as_deref(),
            }, compact);
            let expected = AnnounceResponse {
                interval_secs: numbers.0,
                min_interval_secs: numbers.1,
                seeds: Some(figures.seeds),
                leeches: Some(figures.leeches),
                completed: Some(figures.completed),
                peers: v4.chain(v6).collect(),
                warning,
                external_ip: external.map(IpAddr::from),
                tracker_id: None,
            };
            prop_assert_eq!(decode_announce(&body), Ok(expected));
        }

        #[test]
        fn no_body_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            text in "d(8:intervali-?[0-9]{0,20}e|5:peers|[0-9]{1,2}:|l|d|e|2:ip|4:port|i6e|x){0,12}e?",
        ) {
            let _ = (decode_announce(&bytes), decode_scrape(&bytes));
            let _ = (decode_announce(text.as_bytes()), decode_scrape(text.as_bytes()));
        }
    }

    #[test]
    fn bodies_are_canonical() {
        let answer = AnnounceAnswer {
            interval_secs: 1800,
            figures: FIGURES,
            peers_v4: &[127, 0, 0, 1, 0x1a, 0xe1],
            external_ip: Some([10, 0, 0, 1].into()),
            ..AnnounceAnswer::default()
        };
        let head = b"d8:completei1e10:downloadedi2e11:external ip4:\x0a\x00\x00\x0110:incompletei3e\
            8:intervali1800e5:peers";
        assert_eq!(encoded(&answer, true), [&head[..], b"6:\x7f\x00\x00\x01\x1a\xe1e"].concat());
        assert_eq!(encoded(&answer, false), [&head[..], b"ld2:ip9:127.0.0.14:porti6881eeee"].concat());
    }

    #[test]
    fn scrapes_round_trip_in_order() {
        let (one, two) = (InfoHash([1; 20]), InfoHash([2; 20]));
        let mut body = Vec::new();
        let mut files = vec![(two, FIGURES), (one, ScrapeEntry::default()), (two, FIGURES)];
        encode_scrape(&mut body, &mut files);
        assert_eq!(decode_scrape(&body), Ok(vec![(one, ScrapeEntry::default()), (two, FIGURES)]));
        assert_eq!(decode_scrape(b"de"), Err(ResponseError::Missing("files")));
    }

    #[test]
    fn refusals_come_back_made_safe() {
        let mut body = Vec::new();
        encode_failure(&mut body, "no \x1b[31m<b>");
        let refused = ResponseError::Failure("no \\u{1b}[31m\\u{3c}b\\u{3e}".into());
        assert_eq!(decode_announce(&body), Err(refused.clone()));
        assert_eq!(decode_scrape(&body), Err(refused));
    }

    #[test]
    fn takes_what_trackers_write_and_leaves_out_what_makes_no_sense() {
        let body = b"d8:intervali-5e12:min intervali99999999999e5:peersl\
            d2:ip9:127.0.0.17:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti1ee\
            d2:ip7:example4:porti1eed2:ip3:::14:porti2eed2:ip4:\x0a\x00\x00\x014:porti3ee\
            d2:ip3:::14:porti0eed2:ip3:::14:porti65536eei7ee10:tracker id3:abce\r\n";
        let response = decode_announce(body).expect("it is tolerated");
        let peers = ["127.0.0.1:1", "[::1]:2", "10.0.0.1:3"].map(|peer| peer.parse().unwrap());
        assert_eq!(response.peers, peers);
        assert_eq!((response.interval_secs, response.min_interval_secs), (0, Some(u32::MAX)));
        assert_eq!(response.tracker_id.as_deref(), Some(&b"abc"[..]));
        assert!(matches!(decode_announce(b"<html>"), Err(ResponseError::NotBencoded(_))));
        assert!(matches!(decode_announce(b""), Err(ResponseError::NotBencoded(_))));
        assert!(matches!(decode_announce(b"le"), Err(ResponseError::Missing(_))));
        assert!(matches!(decode_announce(b"de"), Err(ResponseError::Missing(_))));
    }

    #[test]
    fn stops_at_the_bound_on_peers() {
        let peers = vec![1; 6 * TRACKER_RESPONSE_PEERS_MAX + 600];
        let body = [b"d5:peers", peers.len().to_string().as_bytes(), b":", &peers, b"e"].concat();
        let response = decode_announce(&body).expect("a valid answer");
        assert_eq!(response.peers.len(), TRACKER_RESPONSE_PEERS_MAX);
    }
}
