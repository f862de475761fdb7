//! Addresses of trackers and web seeds, which may hold a key: a passkey, a password, an account.
//!
//! [`TrackerUrl`] and [`WebSeedUrl`] cannot be printed as they are. The command line shows one with [`TrackerUrl::shown`],
//! which is where `--show-keys` counts; errors and the log show it redacted, always. Who speaks to the tracker or writes a
//! torrent says so with [`TrackerUrl::reveal`]. Hiding too much costs a reader little; showing a key costs a user the
//! account.
//!
//! Nothing can tell a key of ten letters from a word, so only what is known to be none is shown:
//!
//! - the scheme and the port;
//! - the host, except for the user part and for labels that look drawn at random (`0123456789abcdef.tracker.example`): in
//!   front of the last two, where accounts are told apart, that is 16 and more letters and digits in a row, or 8 and more
//!   that mix them otherwise than as a word with a short number behind it; in the last two, 16 and more mixed ones. Names
//!   under `.onion` and `.i2p` are addresses themselves;
//! - of a path the words that trackers use (`announce.php`, `scrape`, `v1`) and parts of at most two characters; of a web
//!   seed's also the words that mirrors use (`pub`, `releases`), version numbers, and at the end the name of a file, which
//!   has an extension and does not change between letters, capitals and digits as what was drawn at random does;
//! - of a query the names that are known (`passkey=…`), and never a value;
//! - of a fragment nothing.

use percent_encoding::percent_decode_str;
use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Characters from which on a run of letters and digits counts as a key. Real passkeys have 16 to 64.
const KEY_LEN_MIN: usize = 16;
/// Characters from which on letters and digits mixed count as one in a host's name.
const MIXED_KEY_LEN_MIN: usize = 8;
/// Digits behind a word that are a number rather than a key.
const NUMBER_LEN_MAX: usize = 4;
/// Characters from which on a run counts as a key in a file's name and a host's, whatever it looks like.
const LONG_KEY_LEN_MIN: usize = 32;
/// Characters of what is too short to be a key.
const SHORT_LEN_MAX: usize = 2;
/// Characters from which on a word that a tracker repeats from its address is taken for the key in it.
const REPEATED_LEN_MIN: usize = 4;
const MASK: &str = "…";

/// Schemes that are shown.
const SCHEMES: [&str; 7] = ["http", "https", "udp", "ws", "wss", "ftp", "magnet"];
/// What paths of trackers are made of, without extension and number.
const TRACKER_WORDS: [&str; 16] = [
    "announce",
    "scrape",
    "tracker",
    "trackers",
    "torrent",
    "torrents",
    "bittorrent",
    "ann",
    "p2p",
    "public",
    "private",
    "open",
    "api",
    "udp",
    "http",
    "index",
];
/// What programs that answer under a path are called behind the dot.
const TRACKER_EXTENSIONS: [&str; 7] = ["php", "pl", "py", "cgi", "asp", "aspx", "jsp"];
/// What folders of mirrors are called.
const MIRROR_WORDS: [&str; 28] = [
    "archive",
    "archives",
    "cd",
    "content",
    "current",
    "data",
    "dist",
    "dists",
    "distro",
    "download",
    "downloads",
    "file",
    "files",
    "get",
    "image",
    "images",
    "iso",
    "isos",
    "latest",
    "linux",
    "media",
    "mirror",
    "mirrors",
    "pub",
    "release",
    "releases",
    "stable",
    "static",
];
/// What values of a query are called.
const QUERY_NAMES: [&str; 20] = [
    "auth",
    "authkey",
    "compact",
    "event",
    "info",
    "info_hash",
    "key",
    "left",
    "passkey",
    "password",
    "peer_id",
    "pass",
    "port",
    "secret",
    "token",
    "torrent_pass",
    "user",
    "userid",
    "username",
    "uid",
];

/// Whether keys are shown. Only who asks for them with `--show-keys` sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// Addresses are redacted; of links, which redaction would break, those addresses are left out.
    #[default]
    Hidden,
    /// As they are.
    Shown,
}

impl Keys {
    /// What an option of the command line says.
    pub fn shown_if(shown: bool) -> Self {
        if shown { Self::Shown } else { Self::Hidden }
    }
}

macro_rules! secret_url {
    ($(#[$doc:meta])* $name:ident, $is_shown:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The whole address, keys included: to connect to, or to write into a torrent. Not to be shown.
            pub fn reveal(&self) -> &str {
                &self.0
            }

            /// The address as `keys` says.
            pub fn shown(&self, keys: Keys) -> String {
                match keys {
                    Keys::Hidden => format!("{self:?}"),
                    Keys::Shown => self.0.to_string(),
                }
            }

            /// Whether anything of it is hidden when it is shown.
            pub fn holds_key(&self) -> bool {
                let mut holds = false;
                take_apart(&self.0, $is_shown, &mut |part| holds |= part.is_secret());
                holds
            }
        }

        impl From<String> for $name {
            fn from(address: String) -> Self {
                Self(address.into())
            }
        }

        impl From<&str> for $name {
            fn from(address: &str) -> Self {
                Self(address.into())
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        /// Redacted.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_redacted(&self.0, $is_shown, f)
            }
        }
    };
}

secret_url! {
    /// A tracker's address. It has no `Display`, so that no key is shown by mistake.
    TrackerUrl, is_shown_of_tracker
}

secret_url! {
    /// A web seed's address. It has no `Display`, so that no key is shown by mistake.
    WebSeedUrl, is_shown_of_web_seed
}

/// A tracker's address as it may be shown: `https://tracker.example/…/announce?passkey=…`.
#[derive(Clone, Copy)]
pub struct RedactedUrl<'a>(pub &'a str);

impl fmt::Display for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_redacted(self.0, is_shown_of_tracker, f)
    }
}

impl fmt::Debug for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whether a part of a path may be shown: `(part, is_last)`.
type PathRule = fn(&str, bool) -> bool;

/// A part of an address.
#[derive(Clone, Copy)]
enum Part<'a> {
    Shown(&'a str),
    /// It may be a key.
    Hidden(&'a str),
}

impl Part<'_> {
    fn is_secret(self) -> bool {
        matches!(self, Self::Hidden(text) if !text.is_empty())
    }

    fn write(self, out: &mut dyn Write) -> fmt::Result {
        match self {
            Self::Shown(text) => escaped(out, text),
            Self::Hidden(_) => out.write_str(MASK),
        }
    }
}

fn write_redacted(url: &str, rule: PathRule, out: &mut dyn Write) -> fmt::Result {
    let mut result = Ok(());
    take_apart(url, rule, &mut |part| result = result.and_then(|()| part.write(out)));
    result
}

/// Hands the parts of `url` to `each`, in order.
fn take_apart<'a>(url: &'a str, rule: PathRule, each: &mut dyn FnMut(Part<'a>)) {
    use Part::{Hidden, Shown};
    let rest = match url.split_once("://") {
        Some((scheme, rest)) => {
            let is_known = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known));
            each(if is_known { Shown(scheme) } else { Hidden(scheme) });
            each(Shown("://"));
            rest
        }
        None => url,
    };
    let (rest, fragment) =
        rest.split_once('#').map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let (authority, path) = place.split_at(place.find(['/', '\\']).unwrap_or(place.len()));
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            each(Hidden(if user.is_empty() { "@" } else { user }));
            each(Shown("@"));
            host
        }
        None => authority,
    };
    take_host_apart(host, each);
    let last = path.split(['/', '\\']).count() - 1;
    for (number, segment) in path.split(['/', '\\']).enumerate() {
        if number > 0 {
            each(Shown("/"));
        }
        each(if segment.is_empty() || rule(segment, number == last) {
            Shown(segment)
        } else {
            Hidden(segment)
        });
    }
    for (number, pair) in query.iter().flat_map(|query| query.split('&')).enumerate() {
        each(Shown(if number == 0 { "?" } else { "&" }));
        match pair.split_once('=') {
            Some((name, value)) if is_known_name(name) => {
                [Shown(name), Shown("="), Hidden(value)].into_iter().for_each(&mut *each);
            }
            _ => each(Hidden(pair)),
        }
    }
    if let Some(fragment) = fragment {
        [Shown("#"), Hidden(fragment)].into_iter().for_each(each);
    }
}

/// The same for a host and its port.
fn take_host_apart<'a>(host: &'a str, each: &mut dyn FnMut(Part<'a>)) {
    use Part::{Hidden, Shown};
    let end = if host.starts_with('[') { host.find(']').map(|end| end + 1) } else { host.rfind(':') };
    let (name, port) = host.split_at(end.unwrap_or(host.len()));
    let bracketed = name.strip_prefix('[').map(|name| name.strip_suffix(']').unwrap_or(name));
    if name.parse::<Ipv4Addr>().is_ok() || bracketed.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) {
        each(Shown(name));
    } else {
        let is_address = name.ends_with(".onion") || name.ends_with(".i2p");
        let count = name.split('.').count();
        let own = if name.ends_with(".b32.i2p") { 3 } else { 2 };
        for (number, label) in name.split('.').enumerate() {
            if number > 0 {
                each(Shown("."));
            }
            let is_in_front = number + own < count;
            let is_name = label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
            let may_be_long = is_address && !is_in_front;
            let is_key = !is_name || (!may_be_long && is_key_in_host(label, is_in_front));
            each(if is_key { Hidden(label) } else { Shown(label) });
        }
    }
    match port.strip_prefix(':') {
        Some(number) if number.len() <= 5 && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            each(Shown(port))
        }
        Some(_) => [Shown(":"), Hidden(port)].into_iter().for_each(each),
        None if port.is_empty() => {}
        None => each(Hidden(port)),
    }
}

/// Whether a label of a host's name looks drawn at random. In front of the registered name less is allowed.
fn is_key_in_host(label: &str, is_in_front: bool) -> bool {
    label.len() >= LONG_KEY_LEN_MIN
        || label.split(['-', '_']).any(|run| {
            let word = run.trim_end_matches(|c: char| c.is_ascii_digit());
            let is_numbered_word = run.len() - word.len() <= NUMBER_LEN_MAX && !is_mixed(word);
            match is_in_front {
                true => {
                    run.len() >= KEY_LEN_MIN
                        || (run.len() >= MIXED_KEY_LEN_MIN && has_digit(run) && !is_numbered_word)
                }
                false => run.len() >= KEY_LEN_MIN && is_mixed(run),
            }
        })
}

/// A host's name without the keys in it, as `0123456789abcdef.tracker.example` has one.
pub fn redacted_host(host: &str) -> String {
    let mut shown = String::with_capacity(host.len());
    // A string takes all that is written to it.
    take_host_apart(host, &mut |part| part.write(&mut shown).unwrap_or_default());
    shown
}

/// Words of the tracker at `url` (already made safe by `tracker_wire::message_text`), without the keys that some of them
/// repeat: what is hidden of its own address, addresses that are not redacted, and runs of 16 and more letters and
/// digits that hold a digit.
pub fn redacted_words(text: &str, url: &str) -> String {
    let mut own = Vec::new();
    take_apart(url, is_shown_of_tracker, &mut |part| {
        if let Part::Hidden(secret) = part {
            own.extend(secret.split(|c| !is_key_character(c)).filter(|run| run.len() >= REPEATED_LEN_MIN));
        }
    });
    let mut shown = String::with_capacity(text.len());
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        // In front of an address there may be a bracket or a quote.
        let scheme = |at: usize| word[..at].trim_end_matches(is_key_character).len();
        let (before, address) = word.split_at(word.find("://").map_or(word.len(), scheme));
        write_words(before, &own, &mut shown);
        // A string takes all that is written to it.
        let _ = write_redacted(address, is_shown_of_tracker, &mut shown);
        shown.push_str(&piece[word.len()..]);
    }
    shown
}

fn write_words(text: &str, own: &[&str], shown: &mut String) {
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_key_character(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let is_key = (word.len() >= KEY_LEN_MIN && has_digit(word))
            || own.iter().any(|secret| word.len() >= secret.len() && word.contains(secret));
        shown.push_str(if is_key { MASK } else { word });
        let next = behind.find(is_key_character).unwrap_or(behind.len());
        shown.push_str(&behind[..next]);
        rest = &behind[next..];
    }
}

fn is_shown_of_tracker(segment: &str, _is_last: bool) -> bool {
    is_one_of(&TRACKER_WORDS, segment) || is_version(segment)
}

fn is_shown_of_web_seed(segment: &str, is_last: bool) -> bool {
    is_shown_of_tracker(segment, is_last)
        || is_one_of(&MIRROR_WORDS, segment)
        || (is_last && is_file_name(&percent_decode_str(segment).decode_utf8_lossy()))
}

fn is_short(segment: &str) -> bool {
    segment.len() <= SHORT_LEN_MAX && segment.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// One of `words` or too short for a key, perhaps with a number and the extension of a program behind it.
fn is_one_of(words: &[&str], segment: &str) -> bool {
    let stem = match segment.rsplit_once('.') {
        Some((stem, extension)) if TRACKER_EXTENSIONS.contains(&extension) => stem,
        _ => segment,
    };
    let word = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_known = words.iter().any(|known| word.eq_ignore_ascii_case(known));
    is_short(stem) || (is_known && stem.len() - word.len() <= SHORT_LEN_MAX)
}

/// `v1`, `24.04`, `12`.
fn is_version(segment: &str) -> bool {
    let digits = segment.strip_prefix('v').unwrap_or(segment);
    digits.len() <= 2 * NUMBER_LEN_MAX
        && digits.split('.').all(|part| {
            !part.is_empty() && part.len() <= NUMBER_LEN_MAX && part.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// A name with an extension in which nothing looks as if it had been drawn at random.
fn is_file_name(name: &str) -> bool {
    let is_extension = |text: &str| {
        (1..=5).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && text.contains(|c: char| c.is_ascii_alphabetic())
    };
    let has_extension =
        name.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && is_extension(end));
    has_extension
        && !name.contains(['/', '\\', '@', '=', '&', ';', '?', '#'])
        && name.split(|c: char| !is_key_character(c)).all(|run| {
            let is_long = |part: &str| part.len() >= LONG_KEY_LEN_MIN;
            !run.split(['-', '_']).any(is_long) && !is_restless(run)
        })
}

/// Whether a long run changes between letters and digits, or from small to capital letters, more often than words do.
fn is_restless(run: &str) -> bool {
    let characters: Vec<char> = run.chars().filter(char::is_ascii_alphanumeric).collect();
    let is_change = |pair: &&[char]| {
        pair[0].is_ascii_digit() != pair[1].is_ascii_digit()
            || (pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
    };
    characters.len() >= KEY_LEN_MIN && characters.windows(2).filter(is_change).count() * 4 > characters.len()
}

/// Both letters and digits.
fn is_mixed(text: &str) -> bool {
    has_digit(text) && text.contains(|c: char| c.is_ascii_alphabetic())
}

fn has_digit(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_digit())
}

fn is_known_name(name: &str) -> bool {
    is_short(name) || QUERY_NAMES.contains(&name)
}

fn is_key_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

fn escaped(out: &mut dyn Write, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        ' '..='~' => out.write_char(c),
        _ => write!(out, "{}", c.escape_unicode()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_46_passkeys_are_not_shown() {
        for (url, shown) in [
            ("http://t.example/announce", "http://t.example/announce"),
            ("udp://t.example:6969/announce", "udp://t.example:6969/announce"),
            ("udp://[2001:db8::1]:6969/announce", "udp://[2001:db8::1]:6969/announce"),
            ("https://t.example/0123456789abcdef/announce", "https://t.example/…/announce"),
            ("udp://t.example:80/announce/0123456789abcdef", "udp://t.example:80/announce/…"),
            ("udp://t.example:80/s3cr3tk3y/announce", "udp://t.example:80/…/announce"),
            ("https://t.example/a.php?passkey=s3cret&x=1", "https://t.example/a.php?passkey=…&x=…"),
            ("https://t.example/a?authkey=s&torrent_pass=e", "https://t.example/a?authkey=…&torrent_pass=…"),
            ("https://me:pass@t.example/announce#x", "https://…@t.example/announce#…"),
            ("https://t.example/announce?0123456789abcdef", "https://t.example/announce?…"),
            ("https://t.example/a?c2VjcmV0/a2V5/Zm9y+bWU==&uk=1", "https://t.example/a?…&uk=…"),
            ("https://t.example/a?s3cret%2Fkey=&a.b=1", "https://t.example/a?…&…"),
            ("https://t.example/qkzjxvwbnm/announce", "https://t.example/…/announce"),
            ("https://t.example/sunflowers/announce.php", "https://t.example/…/announce.php"),
            ("https://t.example/announce/qkzjxv.php?qkzjxvwbnm=1", "https://t.example/announce/…?…"),
            ("https://qkzjxvwbnm@t.example/announce;qkzjxv", "https://…@t.example/…"),
            ("https://t.example:qkzjxvwbnm/announce", "https://t.example:…/announce"),
            ("https://[qkzjxvwbnm]:80/announce", "https://…:80/announce"),
            ("https://qkz%jxv.t.example/announce", "https://….t.example/announce"),
            ("https://a1b2c3d4.t.example/announce", "https://….t.example/announce"),
            ("https://qkzjxvwbnmplkhgf.t.example/announce", "https://….t.example/announce"),
            ("https://open-tracker2.t.example/announce", "https://open-tracker2.t.example/announce"),
            ("qkzjxvwbnm://t.example/announce", "…://t.example/announce"),
            ("t.example/qkzjxvwbnm?x=http://t.example/", "…://t.example/"),
            ("udp://203.0.113.25:6969/Announce", "udp://203.0.113.25:6969/Announce"),
            ("https://t.example/announce.0123456789ABCDEFGH", "https://t.example/…"),
            ("https://0123456789abcdef.t.example:8443/announce", "https://….t.example:8443/announce"),
            ("https://u-0123456789abcdef.t.example/announce", "https://….t.example/announce"),
            ("http://ec2-203-0-113-25.compute-1.example/a", "http://ec2-203-0-113-25.compute-1.example/a"),
            ("http://t.example/announce2/v1/announce.php", "http://t.example/announce2/v1/announce.php"),
            ("http://t.example/\x1b[31m", "http://t.example/…"),
            ("http://t\u{e9}.example/a", "http://t\\u{e9}.example/a"),
            ("nonsense", "nonsense"),
            ("", ""),
        ] {
            assert_eq!(RedactedUrl(url).to_string(), shown);
            assert_eq!(format!("{:?}", RedactedUrl(url)), shown);
            let address = TrackerUrl::from(url);
            assert_eq!(format!("{address:?}"), shown);
            assert_eq!(address.reveal(), url);
            assert_eq!(address.holds_key(), shown.contains(MASK), "{url}");
            assert_eq!(
                (address.shown(Keys::Hidden).as_str(), address.shown(Keys::Shown).as_str()),
                (shown, url)
            );
        }
        let onion = format!("http://{}.onion/announce", "a2".repeat(28));
        assert_eq!(RedactedUrl(&onion).to_string(), onion);
    }

    #[test]
    fn files_of_web_seeds_are_shown_and_keys_before_them_are_not() {
        for (url, shown) in [
            ("https://m.example/ubuntu-24.04-desktop-amd64.iso", None),
            ("https://m.example/pub/linux/releases/24.04/A%20very%20long%20name%2001.mkv", None),
            ("https://m.example/Season01Episode02Part3.mkv", None),
            ("https://m.example/download/", None),
            ("https://m.example/dl/qkzjxvwbnm/big.iso", Some("https://m.example/dl/…/big.iso")),
            ("https://m.example/dl/qkzjxvwbnm", Some("https://m.example/dl/…")),
            ("https://m.example/dl/qkzjxvwbnm/", Some("https://m.example/dl/…/")),
            ("https://m.example/dl%2Fqkzjxvwbnm%2Fbig.iso", Some("https://m.example/…")),
            ("https://m.example/big.iso;qkzjxvwbnm=1.iso", Some("https://m.example/…")),
            (
                "https://m.example/dl/9f86d081884c7d659a2feaa0c55ad015/big.iso",
                Some("https://m.example/dl/…/big.iso"),
            ),
            ("https://m.example/aB3xY9kLm2Qw8eRt5/big.iso", Some("https://m.example/…/big.iso")),
            ("https://m.example/123e4567-e89b-12d3-a456-426614174000/f", Some("https://m.example/…/f")),
            ("https://me:pass@m.example/f?token=x", Some("https://…@m.example/f?token=…")),
        ] {
            let address = WebSeedUrl::from(url);
            assert_eq!(address.shown(Keys::Hidden), shown.unwrap_or(url));
            assert_eq!(address.holds_key(), shown.is_some());
        }
    }

    #[test]
    fn words_lose_keys_and_nothing_else() {
        let words =
            |text: &str| redacted_words(text, "https://t.example/qkzjxvwbnm/announce?passkey=sun/flower");
        assert_eq!(words("Unregistered torrent"), "Unregistered torrent");
        assert_eq!(words("passkey 0123456789abcdef is banned!"), "passkey … is banned!");
        assert_eq!(words("incomprehensibilities"), "incomprehensibilities");
        assert_eq!(words("…"), "…");
        assert_eq!(words("no user (qkzjxvwbnm), nor flower;  try again"), "no user (…), nor …;  try again");
        assert_eq!(
            words("announce is at https://t.example/x1y2z3/announce"),
            "announce is at https://t.example/…/announce"
        );
        assert_eq!(words("go to <http://t.example/abcdef>."), "go to <http://t.example/…");
        assert_eq!(words("é://x"), "é…://x");
        assert_eq!(redacted_host("0123456789abcdef.t.example:80"), "….t.example:80");
    }

    proptest! {
        #[test]
        fn a_key_is_never_shown_wherever_it_stands(
            key in "[a-z0-9]{10,40}", before in "[a-z/.?&=@:#;%]{0,12}", after in "[a-z/.?&=@:#;%]{0,12}",
        ) {
            let url = format!("https://t.example/{before}{key}{after}");
            prop_assert!(!RedactedUrl(&url).to_string().contains(&key), "{}", RedactedUrl(&url));
        }

        #[test]
        fn a_key_among_folders_of_a_web_seed_is_never_shown(key in "[a-z0-9]{10,40}", before in "[a-z/%]{0,12}") {
            let url = WebSeedUrl::from(format!("https://m.example/{before}{key}/big.iso?x={key}"));
            prop_assert!(!url.shown(Keys::Hidden).contains(&key), "{url:?}");
            let words = redacted_words(&format!("no {key}!"), url.reveal());
            prop_assert!(!words.contains(&key), "{}", words);
        }

        #[test]
        fn a_key_in_a_query_is_never_shown_however_it_is_called(
            name in "(passkey|authkey|uk|torrent_pass|key|pk|secret|info|x)", key in "[!-%'-~]{1,40}",
        ) {
            let url = TrackerUrl::from(format!("udp://t.example:80/announce?{name}={key}&a=b"));
            let expected = if key.contains('#') { format!("{name}=…#…") } else { format!("{name}=…&a=…") };
            prop_assert_eq!(format!("{url:?}"), format!("udp://t.example:80/announce?{expected}"));
            prop_assert!(url.holds_key());
        }

        #[test]
        fn a_query_name_that_is_cut_by_slashes_is_never_shown(key in "[0-9a-z]{1,8}(/[0-9a-z]{1,8}){1,5}") {
            let url = format!("https://t.example/announce?{key}=");
            prop_assert_eq!(RedactedUrl(&url).to_string(), "https://t.example/announce?…");
        }

        #[test]
        fn what_is_shown_holds_no_control_character(url in any::<String>()) {
            prop_assert!(!RedactedUrl(&url).to_string().contains(|c: char| c.is_control()));
        }
    }
}
