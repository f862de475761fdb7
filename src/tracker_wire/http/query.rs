//! The query of announce (BEP 3, 7, 23) and scrape (BEP 48) requests, read by the tracker and written by the
//! client.
//!
//! Values are percent-encoded raw bytes, not text: an info-hash is no UTF-8. A `+` stands for itself. Unknown
//! parameters are skipped, the first of several equal ones counts. The addresses that a client may name
//! (`ip`, `ipv4`, `ipv6`) are ignored on purpose: who may name an address may send a swarm to attack it.

use crate::id::{InfoHash, PeerId};
use crate::limits::{HTTP_SCRAPE_HASHES_MAX, TRACKER_ID_LEN_MAX};
use crate::tracker_wire::{AnnounceEvent, AnnounceRequest};
use crate::units::Counted;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::fmt::Write as _;

/// Everything but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An announce as the query carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceQuery {
    /// What the client tells about itself.
    pub request: AnnounceRequest,
    /// The client wants compact lists (BEP 23). Only an explicit `compact=0` says otherwise.
    pub compact: bool,
    /// The client can do without peer ids in dictionary lists.
    pub no_peer_id: bool,
    /// What the tracker said last time (BEP 3).
    pub tracker_id: Option<Vec<u8>>,
}

/// Why a query is refused. It is the client's fault, and the text goes back to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A parameter without which nothing can be answered.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A parameter of twenty bytes has another length.
    #[error("{parameter} has {} in place of 20", Counted(*.len, "byte"))]
    WrongLength {
        /// The parameter.
        parameter: &'static str,
        /// Bytes it has once decoded.
        len: usize,
    },
    /// A number is none.
    #[error("{0} is no number in its range")]
    NotANumber(&'static str),
    /// More torrents than one scrape may name.
    #[error("a scrape names at most {HTTP_SCRAPE_HASHES_MAX} torrents")]
    TooManyHashes,
}

impl AnnounceQuery {
    /// The usual query for `request`: compact, and without a tracker id.
    pub fn new(request: AnnounceRequest) -> Self {
        Self { request, compact: true, no_peer_id: true, tracker_id: None }
    }

    /// Reads the part of the URL behind the `?`.
    ///
    /// A missing or negative `left` is taken as "very much", so that who says nothing counts as a leech.
    ///
    /// # Errors
    /// When the info-hash, the peer id or the port is missing, or a number is none; the client's fault.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let mut fields = Fields::default();
        for (name, value) in parameters(query) {
            fields.take(name, value);
        }
        let tracker_id = fields.tracker_id.map(|value| percent_decode_str(value).collect::<Vec<u8>>());
        let request = AnnounceRequest {
            info_hash: InfoHash(twenty_bytes("info_hash", fields.info_hash)?),
            peer_id: PeerId(twenty_bytes("peer_id", fields.peer_id)?),
            port: fields
                .port
                .ok_or(QueryError::Missing("port"))?
                .parse()
                .map_err(|_| QueryError::NotANumber("port"))?,
            uploaded: amount("uploaded", fields.uploaded, 0)?,
            downloaded: amount("downloaded", fields.downloaded, 0)?,
            left: amount("left", fields.left, u64::MAX)?,
            event: match fields.event {
                Some("started") => AnnounceEvent::Started,
                Some("stopped") => AnnounceEvent::Stopped,
                Some("completed") => AnnounceEvent::Completed,
                Some("paused") => AnnounceEvent::Paused,
                _ => AnnounceEvent::None,
            },
            key: fields.key.and_then(|value| u32::from_str_radix(value, 16).ok()).unwrap_or(0),
            num_want: fields
                .num_want
                .filter(|value| !value.is_empty() && !value.starts_with('-'))
                .map(|value| amount("numwant", Some(value), 0))
                .transpose()?
                .map(|wanted| u32::try_from(wanted).unwrap_or(u32::MAX)),
        };
        Ok(Self {
            request,
            compact: fields.compact != Some("0"),
            no_peer_id: fields.no_peer_id == Some("1"),
            tracker_id: tracker_id.filter(|id| id.len() <= TRACKER_ID_LEN_MAX),
        })
    }

    /// Writes the part of the URL behind the `?`.
    pub fn to_query(&self) -> String {
        let request = &self.request;
        let mut query = format!(
            "info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&key={:08X}&compact={}",
            percent_encode(&request.info_hash.0, ESCAPED),
            percent_encode(&request.peer_id.0, ESCAPED),
            request.port,
            request.uploaded,
            request.downloaded,
            request.left,
            request.key,
            u8::from(self.compact),
        );
        if self.no_peer_id {
            query.push_str("&no_peer_id=1");
        }
        match request.event {
            AnnounceEvent::None => {}
            AnnounceEvent::Started => query.push_str("&event=started"),
            AnnounceEvent::Stopped => query.push_str("&event=stopped"),
            AnnounceEvent::Completed => query.push_str("&event=completed"),
            AnnounceEvent::Paused => query.push_str("&event=paused"),
        }
        if let Some(wanted) = request.num_want {
            let _ = write!(query, "&numwant={wanted}");
        }
        if let Some(id) = &self.tracker_id {
            let _ = write!(query, "&trackerid={}", percent_encode(id, ESCAPED));
        }
        query
    }
}

/// Reads the torrents of a scrape's query, in its order.
///
/// # Errors
/// When it names none (a scrape of everything is not served), more than [`HTTP_SCRAPE_HASHES_MAX`], or
/// something that is no info-hash; the client's fault.
pub fn parse_scrape(query: &str) -> Result<Vec<InfoHash>, QueryError> {
    let mut hashes = Vec::new();
    for (name, value) in parameters(query) {
        if name == "info_hash" {
            if hashes.len() == HTTP_SCRAPE_HASHES_MAX {
                return Err(QueryError::TooManyHashes);
            }
            hashes.push(InfoHash(twenty_bytes("info_hash", Some(value))?));
        }
    }
    if hashes.is_empty() { Err(QueryError::Missing("info_hash")) } else { Ok(hashes) }
}

/// Writes the query of a scrape.
pub fn scrape_query(info_hashes: &[InfoHash]) -> String {
    let mut query = String::new();
    for hash in info_hashes {
        let separator = if query.is_empty() { "" } else { "&" };
        let _ = write!(query, "{separator}info_hash={}", percent_encode(&hash.0, ESCAPED));
    }
    query
}

/// The parameters of an announce as they stand in the query, still encoded.
#[derive(Default)]
struct Fields<'a> {
    info_hash: Option<&'a str>,
    peer_id: Option<&'a str>,
    port: Option<&'a str>,
    uploaded: Option<&'a str>,
    downloaded: Option<&'a str>,
    left: Option<&'a str>,
    event: Option<&'a str>,
    key: Option<&'a str>,
    num_want: Option<&'a str>,
    compact: Option<&'a str>,
    no_peer_id: Option<&'a str>,
    tracker_id: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &str, value: &'a str) {
        let field = match name {
            "info_hash" => &mut self.info_hash,
            "peer_id" => &mut self.peer_id,
            "port" => &mut self.port,
            "uploaded" => &mut self.uploaded,
            "downloaded" => &mut self.downloaded,
            "left" => &mut self.left,
            "event" => &mut self.event,
            "key" => &mut self.key,
            "numwant" | "num_want" => &mut self.num_want,
            "compact" => &mut self.compact,
            "no_peer_id" => &mut self.no_peer_id,
            "trackerid" => &mut self.tracker_id,
            _ => return,
        };
        field.get_or_insert(value);
    }
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter_map(|parameter| parameter.split_once('='))
}

fn twenty_bytes(parameter: &'static str, value: Option<&str>) -> Result<[u8; 20], QueryError> {
    let value = value.ok_or(QueryError::Missing(parameter))?;
    let mut bytes = [0; 20];
    let mut len = 0;
    for byte in percent_decode_str(value) {
        if let Some(place) = bytes.get_mut(len) {
            *place = byte;
        }
        len += 1;
    }
    if len == bytes.len() { Ok(bytes) } else { Err(QueryError::WrongLength { parameter, len }) }
}

/// A number that saturates; `missing` when it is absent, empty or negative.
fn amount(parameter: &'static str, value: Option<&str>, missing: u64) -> Result<u64, QueryError> {
    let Some(text) = value.filter(|text| !text.is_empty()) else { return Ok(missing) };
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(QueryError::NotANumber(parameter));
    }
    if digits.len() < text.len() { Ok(missing) } else { Ok(text.parse().unwrap_or(u64::MAX)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> AnnounceRequest {
        AnnounceRequest {
            info_hash: InfoHash(*b"\x00\x12\xff&=?#%+ abcdefghij"),
            peer_id: PeerId(*b"-SR0100-abcdefghijkl"),
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: 3,
            event: AnnounceEvent::Started,
            key: 0x00c0_ffee,
            num_want: Some(50),
        }
    }

    proptest! {
        #[test]
        fn queries_round_trip(
            info_hash: [u8; 20], peer_id: [u8; 20], port: u16, uploaded: u64, left: u64, key: u32,
            num_want: Option<u32>, event in 0..5usize, compact: bool, no_peer_id: bool,
            tracker_id in prop::option::of(prop::collection::vec(any::<u8>(), 0..TRACKER_ID_LEN_MAX)),
        ) {
            let events =
                [AnnounceEvent::None, AnnounceEvent::Started, AnnounceEvent::Stopped, AnnounceEvent::Completed, AnnounceEvent::Paused];
            let (info_hash, peer_id, event) = (InfoHash(info_hash), PeerId(peer_id), events[event]);
            let request =
                AnnounceRequest { info_hash, peer_id, port, uploaded, downloaded: 7, left, event, key, num_want };
            let query = AnnounceQuery { request, compact, no_peer_id, tracker_id };
            let text = query.to_query();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(AnnounceQuery::parse(&text), Ok(query));
        }

        #[test]
        fn no_query_panics(text in "(info_hash|peer_id|port|left|numwant|[&=%+0-9a-f-]){0,40}") {
            let _ = (AnnounceQuery::parse(&text), parse_scrape(&text));
        }

        #[test]
        fn scrapes_round_trip(hashes in prop::collection::vec(any::<[u8; 20]>(), 1..HTTP_SCRAPE_HASHES_MAX)) {
            let hashes: Vec<InfoHash> = hashes.into_iter().map(InfoHash).collect();
            prop_assert_eq!(parse_scrape(&scrape_query(&hashes)), Ok(hashes));
        }
    }

    #[test]
    fn raw_and_percent_encoded_bytes_mix_and_claimed_addresses_are_ignored() {
        let query = AnnounceQuery::parse(
            "ip=10.0.0.1&info_hash=%00%12%FF%26%3D%3f%23%25+%20abcdefghij&peer_id=-SR0100-abcdefghijkl\
             &port=6881&uploaded=1&downloaded=2&left=3&event=started&key=C0FFEE&numwant=50&ipv6=::1&port=1",
        );
        let expected =
            AnnounceQuery { request: request(), compact: true, no_peer_id: false, tracker_id: None };
        assert_eq!(query, Ok(expected));
    }

    #[test]
    fn who_does_not_tell_what_is_left_counts_as_a_leech() {
        let text = "info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port=1&numwant=-1";
        let query = AnnounceQuery::parse(text).unwrap();
        assert_eq!((query.request.left, query.request.num_want), (u64::MAX, None));
        let query = AnnounceQuery::parse(&format!("{text}&left=-5&uploaded=-5")).unwrap();
        assert_eq!((query.request.left, query.request.uploaded), (u64::MAX, 0));
        let query = AnnounceQuery::parse(&format!("{text}&left={}", "9".repeat(30))).unwrap();
        assert_eq!(query.request.left, u64::MAX);
    }

    #[test]
    fn refusals_name_the_parameter() {
        let hash = "info_hash=aaaaaaaaaaaaaaaaaaaa";
        let id = "peer_id=bbbbbbbbbbbbbbbbbbbb";
        for (text, error) in [
            (String::new(), QueryError::Missing("info_hash")),
            ("info_hash=abc".into(), QueryError::WrongLength { parameter: "info_hash", len: 3 }),
            (hash.into(), QueryError::Missing("peer_id")),
            (format!("{hash}&{id}"), QueryError::Missing("port")),
            (format!("{hash}&{id}&port=65536"), QueryError::NotANumber("port")),
            (format!("{hash}&{id}&port=1&left=x"), QueryError::NotANumber("left")),
        ] {
            assert_eq!(AnnounceQuery::parse(&text), Err(error), "{text}");
        }
        let scrape = scrape_query(&vec![InfoHash([1; 20]); HTTP_SCRAPE_HASHES_MAX + 1]);
        assert_eq!(parse_scrape(&scrape), Err(QueryError::TooManyHashes));
        assert_eq!(parse_scrape(""), Err(QueryError::Missing("info_hash")));
    }
}
