//! The bencoded bodies of announce and scrape responses (BEP 3, 7, 23, 24, 48), written by the tracker and
//! read by the client.
//!
//! The writer is canonical: its keys stand in order. The reader is tolerant where trackers differ: it takes
//! compact and dictionary lists, skips what it does not know, leaves out single peers that make no sense and
//! stops at [`TRACKER_RESPONSE_PEERS_MAX`].

use crate::id::InfoHash;
use crate::limits::TRACKER_RESPONSE_PEERS_MAX;
use crate::tracker_wire::{AddressFamily, AnnounceResponse, ScrapeEntry, compact_peers};
use std::net::IpAddr;

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
        push_entry(out, "incomplete", entry.leeches);
        out.push(b'e');
    }
    out.extend_from_slice(b"ee");
}

/// Why a body is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The tracker refuses, in its own words, already made safe by [`crate::tracker_wire::message_text`].
    #[error("the tracker refuses: {0}")]
    Failure(String),
    /// The body is no bencoded dictionary; the tracker's fault, or the URL is not a tracker's.
    #[error("the tracker's answer is not bencoded: {0}")]
    NotBencoded(String),
    /// The dictionary lacks what an answer needs; the tracker's fault.
    #[error("the tracker's answer has no {0}")]
    Missing(&'static str),
}

/// Reads the body of an announce response. A missing interval is zero, left to the announcer to clamp.
///
/// # Errors
/// When the tracker refuses, or the body is none; the tracker's fault.
pub fn decode_announce(body: &[u8]) -> Result<AnnounceResponse, ResponseError> {
    let _ = (body, TRACKER_RESPONSE_PEERS_MAX);
    Err(ResponseError::Missing("peers"))
}

/// Reads the body of a scrape response.
///
/// # Errors
/// When the tracker refuses, or the body is none; the tracker's fault.
pub fn decode_scrape(body: &[u8]) -> Result<Vec<(InfoHash, ScrapeEntry)>, ResponseError> {
    let _ = body;
    Err(ResponseError::Missing("files"))
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
