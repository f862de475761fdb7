//! The UDP tracker protocol (BEP 15) with the options of BEP 41, encoded and decoded for both sides.
//!
//! Every packet is checked for its length before anything else is read; numbers are in network byte order. A
//! decoder borrows lists from the packet, so that a server answers without allocating. Whether a transaction
//! or connection id is the right one is for who sent it to know. The authentication of older drafts is absent.

use super::{AddressFamily, AnnounceEvent, AnnounceRequest, AnnounceResponse, ScrapeEntry};
use super::{compact_peers, message_text};
use crate::id::{InfoHash, PeerId};
use crate::limits::UDP_SCRAPE_HASHES_MAX;
use crate::units::Counted;

/// What stands in place of a connection id in a connect request.
const PROTOCOL_ID: u64 = 0x0417_2710_1980;

const ACTION_CONNECT: u32 = 0;
const ACTION_ANNOUNCE: u32 = 1;
const ACTION_SCRAPE: u32 = 2;
const ACTION_ERROR: u32 = 3;

/// Bytes of a connect request, and of its response.
pub const CONNECT_LEN: usize = 16;
/// Bytes of an announce request without options.
pub const ANNOUNCE_LEN: usize = 98;
/// Bytes of an announce response without peers.
pub const ANNOUNCE_RESPONSE_LEN: usize = 20;
/// Bytes of a scrape request without info-hashes.
const SCRAPE_LEN: usize = 16;
/// Bytes of one torrent's figures in a scrape response.
const SCRAPE_ENTRY_LEN: usize = 12;

/// Pairs a response with its request; chosen by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub u32);

/// Proves that a client receives what is sent to its address; chosen by the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A client's packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Asks for a connection id.
    Connect {
        /// Pairs the response.
        transaction: TransactionId,
    },
    /// Asks for peers.
    Announce {
        /// From the connect response.
        connection: ConnectionId,
        /// Pairs the response.
        transaction: TransactionId,
        /// What the client tells.
        request: AnnounceRequest,
        /// The options behind the fixed part (BEP 41), for [`url_data`].
        options: &'a [u8],
    },
    /// Asks for figures.
    Scrape {
        /// From the connect response.
        connection: ConnectionId,
        /// Pairs the response.
        transaction: TransactionId,
        /// Twenty bytes for each torrent, at most [`UDP_SCRAPE_HASHES_MAX`] of them; for [`info_hashes`].
        info_hashes: &'a [u8],
    },
}

/// A tracker's packet, as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The connection id.
    Connect {
        /// That of the request.
        transaction: TransactionId,
        /// To be named for the next minute (BEP 15).
        connection: ConnectionId,
    },
    /// Peers.
    Announce {
        /// That of the request.
        transaction: TransactionId,
        /// What the tracker tells.
        response: AnnounceResponse,
    },
    /// Figures in the order of the request.
    Scrape {
        /// That of the request.
        transaction: TransactionId,
        /// One for each torrent.
        entries: Vec<ScrapeEntry>,
    },
    /// The request was refused.
    Error {
        /// That of the request.
        transaction: TransactionId,
        /// The tracker's words, made safe by [`message_text`].
        message: String,
    },
}

/// Why a datagram is no packet of this protocol. It is the sender's fault; a receiver drops the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UdpWireError {
    /// Fewer bytes than the packet's fixed part.
    #[error("a datagram of {} is too short for what it claims to be", Counted(*.0, "byte"))]
    Truncated(usize),
    /// A connect request without the protocol's number.
    #[error("a connect request begins with {0:#x} in place of the protocol's number")]
    WrongProtocol(u64),
    /// An action that the protocol does not have in this direction.
    #[error("action {0} is unknown")]
    UnknownAction(u32),
    /// A list's bytes are no multiple of its items' length.
    #[error("a list of {} does not hold items of {item} bytes each", Counted(*.len, "byte"))]
    RaggedList {
        /// Bytes of the list.
        len: usize,
        /// Bytes of an item.
        item: usize,
    },
    /// A scrape of nothing.
    #[error("a scrape names no torrent")]
    EmptyScrape,
}

impl<'a> Request<'a> {
    /// Reads a client's packet.
    ///
    /// A scrape of more than [`UDP_SCRAPE_HASHES_MAX`] torrents is cut off there, as BEP 15 foresees.
    ///
    /// # Errors
    /// When the datagram is no request of this protocol; the client's fault.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, UdpWireError> {
        let mut reader = Reader { rest: datagram, whole: datagram.len() };
        let connection = reader.u64()?;
        let action = reader.u32()?;
        let transaction = TransactionId(reader.u32()?);
        match action {
            ACTION_CONNECT if connection == PROTOCOL_ID => Ok(Self::Connect { transaction }),
            ACTION_CONNECT => Err(UdpWireError::WrongProtocol(connection)),
            ACTION_ANNOUNCE => {
                let request = reader.announce()?;
                let connection = ConnectionId(connection);
                Ok(Self::Announce { connection, transaction, request, options: reader.rest })
            }
            ACTION_SCRAPE => {
                let len = reader.rest.len();
                if len == 0 {
                    return Err(UdpWireError::EmptyScrape);
                }
                if !len.is_multiple_of(20) {
                    return Err(UdpWireError::RaggedList { len, item: 20 });
                }
                let info_hashes = &reader.rest[..len.min(20 * UDP_SCRAPE_HASHES_MAX)];
                Ok(Self::Scrape { connection: ConnectionId(connection), transaction, info_hashes })
            }
            _ => Err(UdpWireError::UnknownAction(action)),
        }
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Connect { transaction } => {
                out.reserve(CONNECT_LEN);
                out.extend_from_slice(&PROTOCOL_ID.to_be_bytes());
                push_header(out, ACTION_CONNECT, *transaction);
            }
            Self::Announce { connection, transaction, request, options } => {
                out.reserve(ANNOUNCE_LEN + options.len());
                out.extend_from_slice(&connection.0.to_be_bytes());
                push_header(out, ACTION_ANNOUNCE, *transaction);
                push_announce(out, request);
                out.extend_from_slice(options);
            }
            Self::Scrape { connection, transaction, info_hashes } => {
                out.reserve(SCRAPE_LEN + info_hashes.len());
                out.extend_from_slice(&connection.0.to_be_bytes());
                push_header(out, ACTION_SCRAPE, *transaction);
                out.extend_from_slice(info_hashes);
            }
        }
    }
}

impl Response {
    /// Reads a tracker's packet that came over a socket of `family`.
    ///
    /// # Errors
    /// When the datagram is no response of this protocol; the tracker's fault, or somebody else's who sends
    /// to our port. A client ignores it and waits on.
    pub fn decode(datagram: &[u8], family: AddressFamily) -> Result<Self, UdpWireError> {
        let mut reader = Reader { rest: datagram, whole: datagram.len() };
        let action = reader.u32()?;
        let transaction = TransactionId(reader.u32()?);
        match action {
            ACTION_CONNECT => Ok(Self::Connect { transaction, connection: ConnectionId(reader.u64()?) }),
            ACTION_ANNOUNCE => {
                let interval_secs = reader.u32()?;
                let leeches = reader.u32()?;
                let seeds = reader.u32()?;
                let peers = reader.list(family.compact_len())?;
                let response = AnnounceResponse {
                    interval_secs,
                    seeds: Some(seeds),
                    leeches: Some(leeches),
                    peers: compact_peers(peers, family).collect(),
                    ..AnnounceResponse::default()
                };
                Ok(Self::Announce { transaction, response })
            }
            ACTION_SCRAPE => {
                let mut entries = Vec::with_capacity(reader.rest.len() / SCRAPE_ENTRY_LEN);
                for entry in reader.list(SCRAPE_ENTRY_LEN)?.chunks_exact(SCRAPE_ENTRY_LEN) {
                    let mut reader = Reader { rest: entry, whole: datagram.len() };
                    let (seeds, completed, leeches) = (reader.u32()?, reader.u32()?, reader.u32()?);
                    entries.push(ScrapeEntry { seeds, completed, leeches, partial_seeds: 0 });
                }
                Ok(Self::Scrape { transaction, entries })
            }
            ACTION_ERROR => Ok(Self::Error { transaction, message: message_text(reader.rest) }),
            _ => Err(UdpWireError::UnknownAction(action)),
        }
    }

    /// The transaction that the packet claims to answer.
    pub fn transaction(&self) -> TransactionId {
        match self {
            Self::Connect { transaction, .. }
            | Self::Announce { transaction, .. }
            | Self::Scrape { transaction, .. }
            | Self::Error { transaction, .. } => *transaction,
        }
    }
}

/// Appends a connect response.
pub fn encode_connect_response(out: &mut Vec<u8>, transaction: TransactionId, connection: ConnectionId) {
    push_header(out, ACTION_CONNECT, transaction);
    out.extend_from_slice(&connection.0.to_be_bytes());
}

/// Appends an announce response without its peers; the caller appends these in compact form, all of the
/// family of the socket.
pub fn encode_announce_response(
    out: &mut Vec<u8>,
    transaction: TransactionId,
    interval_secs: u32,
    leeches: u32,
    seeds: u32,
) {
    push_header(out, ACTION_ANNOUNCE, transaction);
    for number in [interval_secs, leeches, seeds] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Appends a scrape response.
pub fn encode_scrape_response(
    out: &mut Vec<u8>,
    transaction: TransactionId,
    entries: impl IntoIterator<Item = ScrapeEntry>,
) {
    push_header(out, ACTION_SCRAPE, transaction);
    for entry in entries {
        for number in [entry.seeds, entry.completed, entry.leeches] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

/// Appends an error.
pub fn encode_error(out: &mut Vec<u8>, transaction: TransactionId, message: &str) {
    push_header(out, ACTION_ERROR, transaction);
    out.extend_from_slice(message.as_bytes());
}

/// The torrents of a scrape request's list.
pub fn info_hashes(list: &[u8]) -> impl Iterator<Item = InfoHash> + '_ {
    list.chunks_exact(20).filter_map(|bytes| bytes.try_into().ok().map(InfoHash))
}

/// The path and query of the tracker's URL out of an announce's options (BEP 41), put together from all its
/// parts; empty when there is none. Unknown options are skipped, a cut-off one ends the reading.
pub fn url_data(options: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut rest = options;
    while let Some((&kind, behind)) = rest.split_first() {
        match kind {
            OPTION_END => break,
            OPTION_NOP => rest = behind,
            _ => {
                let Some((&len, behind)) = behind.split_first() else { break };
                let Some((value, behind)) = behind.split_at_checked(usize::from(len)) else { break };
                if kind == OPTION_URL_DATA {
                    data.extend_from_slice(value);
                }
                rest = behind;
            }
        }
    }
    data
}

/// The options that tell a tracker `path_and_query` of its URL (BEP 41), in parts of at most 255 bytes.
pub fn url_data_options(path_and_query: &[u8]) -> Vec<u8> {
    let mut options = Vec::with_capacity(path_and_query.len() + 2 * path_and_query.len().div_ceil(255));
    for part in path_and_query.chunks(255) {
        options.push(OPTION_URL_DATA);
        options.push(part.len() as u8); // at most 255 by `chunks`
        options.extend_from_slice(part);
    }
    options
}

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_URL_DATA: u8 = 2;

fn push_header(out: &mut Vec<u8>, action: u32, transaction: TransactionId) {
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&transaction.0.to_be_bytes());
}

fn push_announce(out: &mut Vec<u8>, request: &AnnounceRequest) {
    out.extend_from_slice(&request.info_hash.0);
    out.extend_from_slice(&request.peer_id.0);
    for amount in [request.downloaded, request.left, request.uploaded] {
        out.extend_from_slice(&amount.to_be_bytes());
    }
    let event: u32 = match request.event {
        // BEP 15 ends at three. There are trackers that give no answer to what lies above, and a partial seed
        // would be in no swarm.
        AnnounceEvent::None | AnnounceEvent::Paused => 0,
        AnnounceEvent::Completed => 1,
        AnnounceEvent::Started => 2,
        AnnounceEvent::Stopped => 3,
    };
    out.extend_from_slice(&event.to_be_bytes());
    out.extend_from_slice(&[0; 4]); // our address: the one the datagram comes from
    out.extend_from_slice(&request.key.to_be_bytes());
    let num_want = request.num_want.map_or(-1, |wanted| i32::try_from(wanted).unwrap_or(i32::MAX));
    out.extend_from_slice(&num_want.to_be_bytes());
    out.extend_from_slice(&request.port.to_be_bytes());
}

/// Takes fields off the front of a packet of `whole` bytes.
struct Reader<'a> {
    rest: &'a [u8],
    whole: usize,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], UdpWireError> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(UdpWireError::Truncated(self.whole))?;
        self.rest = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, UdpWireError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, UdpWireError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, UdpWireError> {
        self.take().map(u64::from_be_bytes)
    }

    fn list(&self, item: usize) -> Result<&'a [u8], UdpWireError> {
        let len = self.rest.len();
        if len.is_multiple_of(item) { Ok(self.rest) } else { Err(UdpWireError::RaggedList { len, item }) }
    }

    fn announce(&mut self) -> Result<AnnounceRequest, UdpWireError> {
        let info_hash = InfoHash(self.take()?);
        let peer_id = PeerId(self.take()?);
        let downloaded = self.u64()?;
        let left = self.u64()?;
        let uploaded = self.u64()?;
        let event = match self.u32()? {
            0 => AnnounceEvent::None,
            1 => AnnounceEvent::Completed,
            2 => AnnounceEvent::Started,
            3 => AnnounceEvent::Stopped,
            4 => AnnounceEvent::Paused,
            // Whatever later clients mean by it, they are there and wait for an answer.
            _ => AnnounceEvent::None,
        };
        let _claimed_address = self.u32()?;
        let key = self.u32()?;
        let num_want = u32::try_from(i32::from_be_bytes(self.take()?)).ok();
        let port = self.u16()?;
        Ok(AnnounceRequest { info_hash, peer_id, port, uploaded, downloaded, left, event, key, num_want })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TRACKER_MESSAGE_LEN_MAX;
    use crate::tracker_wire::push_compact_peer;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn announce_request() -> impl Strategy<Value = AnnounceRequest> {
        let event = prop_oneof![
            Just(AnnounceEvent::None),
            Just(AnnounceEvent::Started),
            Just(AnnounceEvent::Stopped),
            Just(AnnounceEvent::Completed)
        ];
        let ids = (any::<[u8; 20]>(), any::<[u8; 20]>());
        let amounts = (any::<u64>(), any::<u64>(), any::<u64>());
        (ids, amounts, event, any::<u32>(), prop::option::of(0..=i32::MAX as u32), any::<u16>()).prop_map(
            |((info_hash, peer_id), (uploaded, downloaded, left), event, key, num_want, port)| {
                let (info_hash, peer_id) = (InfoHash(info_hash), PeerId(peer_id));
                AnnounceRequest { info_hash, peer_id, port, uploaded, downloaded, left, event, key, num_want }
            },
        )
    }

    fn round_trips(request: &Request<'_>) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        assert_eq!(Request::decode(&bytes).as_ref(), Ok(request));
    }

    proptest! {
        #[test]
        fn requests_round_trip(
            request in announce_request(), connection: u64, transaction: u32, hashes in 1..=74usize,
            url in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let (connection, transaction) = (ConnectionId(connection), TransactionId(transaction));
            let options = url_data_options(&url);
            prop_assert_eq!(url_data(&options), url);
            round_trips(&Request::Connect { transaction });
            round_trips(&Request::Announce { connection, transaction, request, options: &options });
            round_trips(&Request::Scrape { connection, transaction, info_hashes: &vec![7; 20 * hashes] });
        }

        #[test]
        fn announce_responses_round_trip(
            peers in prop::collection::vec((any::<[u8; 4]>(), 1u16..), 0..100),
            numbers: (u32, u32, u32),
        ) {
            let peers: Vec<SocketAddr> = peers.into_iter().map(SocketAddr::from).collect();
            let mut bytes = Vec::new();
            encode_announce_response(&mut bytes, TransactionId(9), numbers.0, numbers.1, numbers.2);
            prop_assert_eq!(bytes.len(), ANNOUNCE_RESPONSE_LEN);
            peers.iter().for_each(|&peer| push_compact_peer(&mut bytes, peer));
            let response = AnnounceResponse {
                interval_secs: numbers.0,
                leeches: Some(numbers.1),
                seeds: Some(numbers.2),
                peers,
                ..AnnounceResponse::default()
            };
            let expected = Response::Announce { transaction: TransactionId(9), response };
            prop_assert_eq!(Response::decode(&bytes, AddressFamily::V4), Ok(expected));
        }

        #[test]
        fn no_datagram_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), action in 0..4u8) {
            let mut bytes = bytes;
            let _ = (Request::decode(&bytes), Response::decode(&bytes, AddressFamily::V6), url_data(&bytes));
            if bytes.len() >= 12 {
                bytes[..4].copy_from_slice(&[0, 0, 0, action]);
                bytes[8..12].copy_from_slice(&[0, 0, 0, action]);
            }
            let _ = (Request::decode(&bytes), Response::decode(&bytes, AddressFamily::V4));
        }
    }

    #[test]
    fn the_layout_is_that_of_bep_15() {
        let mut bytes = Vec::new();
        Request::Connect { transaction: TransactionId(0x0102_0304) }.encode(&mut bytes);
        assert_eq!(bytes, [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 1, 2, 3, 4]);

        let request = AnnounceRequest {
            info_hash: InfoHash([0xaa; 20]),
            peer_id: PeerId([0xbb; 20]),
            port: 0x1ae1,
            uploaded: 3,
            downloaded: 1,
            left: 2,
            event: AnnounceEvent::Started,
            key: 0x0a0b_0c0d,
            num_want: None,
        };
        let (connection, transaction) = (ConnectionId(5), TransactionId(6));
        let mut bytes = Vec::new();
        Request::Announce { connection, transaction, request, options: &[] }.encode(&mut bytes);
        assert_eq!(bytes.len(), ANNOUNCE_LEN);
        assert_eq!(bytes[..16], [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 6]);
        assert_eq!((bytes[63], bytes[71], bytes[79], bytes[83]), (1, 2, 3, 2));
        assert_eq!(bytes[84..], [0, 0, 0, 0, 10, 11, 12, 13, 255, 255, 255, 255, 0x1a, 0xe1]);
    }

    #[test]
    fn scrapes_are_truncated_at_seventy_four() {
        let bytes = [&[0; 8][..], &[0, 0, 0, 2], &[0; 4], &[1; 20 * 80]].concat();
        let Ok(Request::Scrape { info_hashes: list, .. }) = Request::decode(&bytes) else {
            panic!("a scrape is a scrape");
        };
        assert_eq!(info_hashes(list).count(), 74);
        let ragged = UdpWireError::RaggedList { len: 20 * 80 - 1, item: 20 };
        assert_eq!(Request::decode(&bytes[..bytes.len() - 1]), Err(ragged));
        assert_eq!(Request::decode(&bytes[..16]), Err(UdpWireError::EmptyScrape));
    }

    #[test]
    fn hostile_42_malformed_responses_are_refused_without_harm() {
        let v4 = AddressFamily::V4;
        assert_eq!(Response::decode(&[], v4), Err(UdpWireError::Truncated(0)));
        assert_eq!(Response::decode(&[0; 15], v4), Err(UdpWireError::Truncated(15)));
        assert_eq!(Response::decode(&[0, 0, 0, 4, 0, 0, 0, 0], v4), Err(UdpWireError::UnknownAction(4)));

        let mut announce = vec![0, 0, 0, 1];
        announce.resize(ANNOUNCE_RESPONSE_LEN + 7, 0);
        assert_eq!(Response::decode(&announce, v4), Err(UdpWireError::RaggedList { len: 7, item: 6 }));
        announce.resize(ANNOUNCE_RESPONSE_LEN + 6, 0);
        let ragged = Err(UdpWireError::RaggedList { len: 6, item: 18 });
        assert_eq!(Response::decode(&announce, AddressFamily::V6), ragged);
        announce.resize(ANNOUNCE_RESPONSE_LEN - 1, 0);
        assert_eq!(Response::decode(&announce, v4), Err(UdpWireError::Truncated(ANNOUNCE_RESPONSE_LEN - 1)));

        let mut error = vec![0, 0, 0, 3, 0, 0, 0, 1];
        error.resize(64 * 1024, b'x');
        let Ok(Response::Error { message, .. }) = Response::decode(&error, v4) else { panic!("an error") };
        assert_eq!(message.chars().count(), TRACKER_MESSAGE_LEN_MAX + 1);
    }

    #[test]
    fn url_data_is_put_together_from_its_parts() {
        assert_eq!(url_data(&[2, 3, b'/', b'a', b'b', 1, 1, 9, 2, 0, 0, 2, 1, b'c', 0, 2, 1, b'd']), b"/abc");
        assert_eq!(url_data(&[2, 200, b'/']), b"");
        assert_eq!(url_data(&[2]), b"");
    }
}
