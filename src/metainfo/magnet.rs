//! Magnet links (BEP 9, 53): a torrent's info-hash and where to begin to look for it.
//!
//! Read leniently, as people paste them: digits of either base, numbered parameters (`tr.1=`), truncated
//! escapes, unknown parameters; all of it bounded. Deliberately absent: `xs` and `as` (other places to fetch
//! the torrent from); v2 info-hashes (`urn:btmh`) are noted, not used.

use super::{FileSelection, MagnetError, address};
use crate::id::InfoHash;
use crate::limits::{
    MAGNET_LEN_MAX, MAGNET_PEERS_MAX, TRACKERS_PER_TORRENT_MAX, URL_LEN_MAX, WEB_SEEDS_PER_TORRENT_MAX,
};
use crate::secret_url::{Keys, TrackerUrl, WebSeedUrl};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A magnet link's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Magnet {
    /// `xt=urn:btih:`
    pub info_hash: InfoHash,
    /// `dn`: a name to show until the torrent is known. Escape before showing, never use as a path.
    pub name: Option<String>,
    /// `tr`: trackers, at most `TRACKERS_PER_TORRENT_MAX`.
    pub trackers: Vec<TrackerUrl>,
    /// `ws`: web seeds (BEP 19), at most `WEB_SEEDS_PER_TORRENT_MAX`.
    pub web_seeds: Vec<WebSeedUrl>,
    /// `xl`: bytes of the content.
    pub total_len: Option<u64>,
    /// `x.pe`: peers as `host:port`, at most `MAGNET_PEERS_MAX`; whom to dial is the caller's decision.
    pub peers: Vec<String>,
    /// `so`: the files wanted (BEP 53); all of them when it is left out.
    pub selected: Option<FileSelection>,
    /// Whether the link names a v2 info-hash too.
    pub hybrid: bool,
}

impl Magnet {
    /// A link to `info_hash` with nothing else in it.
    pub fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            name: None,
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            total_len: None,
            peers: Vec::new(),
            selected: None,
            hybrid: false,
        }
    }

    /// Reads a link.
    ///
    /// # Errors
    /// It is none, it is too long, or it does not name one v1 torrent.
    pub fn parse(link: impl AsRef<[u8]>) -> Result<Self, MagnetError> {
        let link = link.as_ref().trim_ascii();
        if link.len() > MAGNET_LEN_MAX {
            return Err(MagnetError::TooLong);
        }
        let query = match link.split_at_checked(8) {
            Some((scheme, query)) if scheme.eq_ignore_ascii_case(b"magnet:?") => query,
            _ => return Err(MagnetError::NotAMagnet),
        };
        let mut found = None;
        let mut magnet = Self::new(InfoHash([0; 20]));
        for parameter in query.split(|&byte| byte == b'&') {
            let equals = parameter.iter().position(|&byte| byte == b'=').unwrap_or(parameter.len());
            let (key, value) = parameter.split_at(equals);
            let value = value.strip_prefix(b"=").unwrap_or_default();
            if key_name(key) == b"xt" {
                magnet.note_topic(&mut found, &decode(value))?;
            } else {
                magnet.note(key_name(key), value);
            }
        }
        match found {
            Some(info_hash) => Ok(Self { info_hash, ..magnet }),
            None if magnet.hybrid => Err(MagnetError::V2Only),
            None => Err(MagnetError::InfoHashMissing),
        }
    }

    /// The link, in characters that every terminal, shell (quoted) and browser takes. With keys hidden it has none of the
    /// addresses that hold one: a mask in their place would lead nowhere.
    pub fn link(&self, keys: Keys) -> String {
        Link(self, keys).to_string()
    }

    /// Whether [`link`](Self::link) leaves anything out when keys are hidden.
    pub fn holds_key(&self) -> bool {
        self.trackers.iter().any(TrackerUrl::holds_key) || self.web_seeds.iter().any(WebSeedUrl::holds_key)
    }

    fn note_topic(&mut self, found: &mut Option<InfoHash>, topic: &[u8]) -> Result<(), MagnetError> {
        let topic = String::from_utf8_lossy(topic);
        let Some((kind, digits)) = topic.split_at_checked(9) else { return Ok(()) };
        if kind.eq_ignore_ascii_case("urn:btmh:") {
            self.hybrid = true;
        } else if kind.eq_ignore_ascii_case("urn:btih:") {
            let info_hash = InfoHash::from_hex(digits).or_else(|| from_base32(digits));
            let info_hash =
                info_hash.ok_or_else(|| MagnetError::InfoHashMalformed(digits.chars().take(64).collect()))?;
            match *found {
                Some(other) if other != info_hash => {
                    return Err(MagnetError::TwoInfoHashes(other, info_hash));
                }
                _ => *found = Some(info_hash),
            }
        }
        Ok(())
    }

    /// Everything but the topic: what is unfit or too much is left out.
    fn note(&mut self, key: &[u8], value: &[u8]) {
        match key {
            b"dn" if self.name.is_none() => {
                let spaced: Vec<u8> =
                    value.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
                let name = String::from_utf8_lossy(&decode(&spaced)).into_owned();
                self.name = Some(name).filter(|name| !name.is_empty());
            }
            b"tr" => {
                if let Some(url) = address_in(value).map(TrackerUrl::from) {
                    push_new(&mut self.trackers, TRACKERS_PER_TORRENT_MAX, url);
                }
            }
            b"ws" => {
                if let Some(url) = address_in(value).map(WebSeedUrl::from) {
                    push_new(&mut self.web_seeds, WEB_SEEDS_PER_TORRENT_MAX, url);
                }
            }
            b"so" if self.selected.is_none() => self.selected = FileSelection::from_value(&decode(value)),
            b"xl" => self.total_len = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            b"x.pe" => {
                let decoded = decode(value);
                if let Some(peer) = address::usable(&decoded).filter(|peer| is_host_and_port(peer)) {
                    push_new(&mut self.peers, MAGNET_PEERS_MAX, peer.to_owned());
                }
            }
            _ => {}
        }
    }
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(link: &str) -> Result<Self, MagnetError> {
        Self::parse(link)
    }
}

/// A link on its way into text.
struct Link<'a>(&'a Magnet, Keys);

impl fmt::Display for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        let &Self(magnet, keys) = self;
        write!(f, "magnet:?xt=urn:btih:{}", magnet.info_hash)?;
        if let Some(name) = &magnet.name {
            write!(f, "&dn={}", utf8_percent_encode(name, ESCAPED))?;
        }
        if let Some(len) = magnet.total_len {
            write!(f, "&xl={len}")?;
        }
        let may_stand = |holds_key: bool| keys == Keys::Shown || !holds_key;
        let trackers =
            magnet.trackers.iter().filter(|url| may_stand(url.holds_key())).map(TrackerUrl::reveal);
        let web_seeds =
            magnet.web_seeds.iter().filter(|url| may_stand(url.holds_key())).map(WebSeedUrl::reveal);
        let peers = magnet.peers.iter().map(String::as_str);
        let tagged = trackers.map(|url| ("tr", url)).chain(web_seeds.map(|url| ("ws", url)));
        for (key, value) in tagged.chain(peers.map(|peer| ("x.pe", peer))) {
            write!(f, "&{key}={}", utf8_percent_encode(value, ESCAPED))?;
        }
        if let Some(selected) = &magnet.selected {
            write!(f, "&so={selected}")?;
        }
        Ok(())
    }
}

fn decode(value: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(value).into()
}

/// The key without the number that some programs put behind it: `tr.1` is `tr`.
fn key_name(key: &[u8]) -> &[u8] {
    match key.iter().rposition(|&byte| byte == b'.') {
        Some(dot) if dot + 1 < key.len() && key[dot + 1..].iter().all(u8::is_ascii_digit) => &key[..dot],
        _ => key,
    }
}

fn address_in(value: &[u8]) -> Option<String> {
    // An escape is three bytes, so a longer value cannot become a usable address.
    let fit = value.len() <= 3 * URL_LEN_MAX;
    fit.then(|| address::usable(&decode(value)).map(str::to_owned)).flatten()
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, max: usize, value: T) {
    if list.len() < max && !list.contains(&value) {
        list.push(value);
    }
}

fn is_host_and_port(peer: &str) -> bool {
    peer.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.len() <= 255 && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// 32 digits of RFC 4648, in either case.
fn from_base32(text: &str) -> Option<InfoHash> {
    if text.len() != 32 {
        return None;
    }
    let mut bytes = [0; 20];
    for (group, digits) in bytes.chunks_exact_mut(5).zip(text.as_bytes().chunks_exact(8)) {
        let mut bits: u64 = 0;
        for digit in digits {
            let value = match digit.to_ascii_uppercase() {
                letter @ b'A'..=b'Z' => letter - b'A',
                number @ b'2'..=b'7' => number - b'2' + 26,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        group.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(InfoHash(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef01234567";

    fn hash() -> InfoHash {
        InfoHash::from_hex(HEX).unwrap()
    }

    #[test]
    fn reads_everything_it_knows() {
        let magnet: Magnet = format!(
            "MAGNET:?xt=urn:btih:{HEX}&dn=A+b%20%C3%A9&xl=42&tr=udp%3A%2F%2Ft%3A1%2Fannounce&tr.2=http://u/a\
             &tr=udp%3A%2F%2Ft%3A1%2Fannounce&ws=http://w/&x.pe=10.0.0.1:80&x.pe=%5B::1%5D:6881&x.pe=nowhere\
             &x.pe=h:0&so=0-4294967295&xs=http://e/"
        )
        .parse()
        .unwrap();
        let expected = Magnet {
            info_hash: hash(),
            name: Some("A b é".to_owned()),
            trackers: vec!["udp://t:1/announce".into(), "http://u/a".into()],
            web_seeds: vec!["http://w/".into()],
            total_len: Some(42),
            peers: vec!["10.0.0.1:80".to_owned(), "[::1]:6881".to_owned()],
            selected: FileSelection::from_value(b"0-4294967295"),
            hybrid: false,
        };
        assert_eq!(magnet, expected);
        assert_eq!(Magnet::parse(magnet.link(Keys::Shown)), Ok(magnet));
    }

    #[test]
    fn reads_base32_and_escaped_topics() {
        let zeros = Magnet::parse(format!("magnet:?xt=urn:btih:{}", "a".repeat(32))).unwrap();
        assert_eq!(zeros.info_hash, InfoHash([0; 20]));
        let base32 = Magnet::parse("magnet:?xt=urn%3Abtih%3AAERUKZ4JVPG66AJDIVTYTK6N54ASGRLH").unwrap();
        assert_eq!(base32.info_hash, hash());
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |link: &str| Magnet::parse(link).unwrap_err();
        assert_eq!(error("http://x"), MagnetError::NotAMagnet);
        assert_eq!(error("magnet:"), MagnetError::NotAMagnet);
        assert_eq!(error("magnet:?dn=x"), MagnetError::InfoHashMissing);
        assert_eq!(error("magnet:?xt=urn:btmh:1220aa"), MagnetError::V2Only);
        assert!(matches!(error("magnet:?xt=urn:btih:12"), MagnetError::InfoHashMalformed(_)));
        assert!(matches!(
            error(&format!("magnet:?xt=urn:btih:{}", "1".repeat(32))),
            MagnetError::InfoHashMalformed(_)
        ));
        let two = format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{}", "0".repeat(40));
        assert!(matches!(error(&two), MagnetError::TwoInfoHashes(..)));
    }

    // HOSTILE 16
    #[test]
    fn hostile_links_are_bounded() {
        let many: String = (0..2_000).map(|n| format!("&tr=http://{n}/&ws=http://{n}/")).collect();
        let magnet = Magnet::parse(format!("magnet:?xt=urn:btih:{HEX}{many}&dn=%&dn=%4&tr=%zz%")).unwrap();
        assert_eq!(magnet.trackers.len(), TRACKERS_PER_TORRENT_MAX);
        assert_eq!(magnet.web_seeds.len(), WEB_SEEDS_PER_TORRENT_MAX);
        assert_eq!(magnet.name.as_deref(), Some("%"));
        let endless = format!("magnet:?xt=urn:btih:{HEX}&dn={}", "x".repeat(MAGNET_LEN_MAX));
        assert_eq!(Magnet::parse(endless), Err(MagnetError::TooLong));
        let lines = Magnet::parse(format!("magnet:?xt=urn:btih:{HEX}&tr=http://a/%0d%0aHost:b")).unwrap();
        assert!(lines.trackers.is_empty());
    }

    #[test]
    fn a_hybrid_link_works_and_says_so() {
        let magnet = Magnet::parse(format!("magnet:?xt=urn:btmh:1220ab&xt=urn:btih:{HEX}")).unwrap();
        assert!(magnet.hybrid && magnet.info_hash == hash());
    }

    proptest! {
        #[test]
        fn links_round_trip(bytes in any::<[u8; 20]>(), name in "\\PC{1,40}", len in any::<Option<u64>>(),
            trackers in prop::collection::btree_set("[a-z:/?&=%+é]{1,30}", 0..5))
        {
            let magnet = Magnet {
                name: Some(name),
                total_len: len,
                trackers: trackers.into_iter().map(TrackerUrl::from).collect(),
                ..Magnet::new(InfoHash(bytes))
            };
            let link = magnet.link(Keys::Shown);
            prop_assert!(link.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(Magnet::parse(link), Ok(magnet));
        }

        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Magnet::parse(&tail);
            let _ = Magnet::parse([b"magnet:?xt=urn:btih:", &tail[..]].concat());
            let _ = Magnet::parse([b"magnet:?", &tail[..]].concat());
        }
    }
}
