//! Addresses of trackers and web seeds, which may hold a key: a passkey, a password, an account.
//!
//! [`TrackerUrl`] and [`WebSeedUrl`] cannot be printed as they are. Whoever shows one shows [`TrackerUrl::redacted`], and
//! who speaks to the tracker or writes a torrent says so with [`TrackerUrl::reveal`]. Hiding too much costs a reader
//! little; showing a key costs a user the account.
//!
//! What counts as a key. In any address: the user part, each query value, a query name that is not short and plain, the
//! fragment, and a part of the host's name of 16 and more letters and digits mixed (but not of `.onion` and `.i2p`,
//! whose names are addresses). In a tracker's path: a segment with a run of 16 and more letters, digits, `-`, `_` and
//! escapes, or with one of 8 and more that mixes letters and digits otherwise than as a word with a short number behind
//! it (`announce2`). Paths of web seeds end in names of files, which are long and have dates in them: there a segment
//! is a key when a run has 32 and more letters and digits, or when its 16 and more change between letters and digits or
//! from small to capital letters more often than at each fourth, as what was drawn at random does.

use percent_encoding::percent_decode_str;
use std::fmt::{self, Write};

/// Characters from which on a run of letters and digits counts as a key. Real passkeys have 16 to 64.
const KEY_LEN_MIN: usize = 16;
/// Characters from which on letters and digits mixed count as one in a tracker's path.
const MIXED_KEY_LEN_MIN: usize = 8;
/// Digits behind a word that are a number rather than a key.
const NUMBER_LEN_MAX: usize = 4;
/// Characters from which on a run counts as a key in a web seed's path, whatever it looks like.
const LONG_KEY_LEN_MIN: usize = 32;
const MASK: &str = "…";

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
    ($(#[$doc:meta])* $name:ident, $is_key:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The whole address, keys included: to connect to, or to write into a torrent. Not to be shown.
            pub fn reveal(&self) -> &str {
                &self.0
            }

            /// The address as it may be shown.
            pub fn redacted(&self) -> String {
                let mut shown = String::with_capacity(self.0.len());
                // A string takes all that is written to it.
                let _ = redact(&self.0, $is_key, &mut shown);
                shown
            }

            /// The address as `keys` says.
            pub fn shown(&self, keys: Keys) -> String {
                match keys {
                    Keys::Hidden => self.redacted(),
                    Keys::Shown => self.0.to_string(),
                }
            }

            /// Whether anything of it is hidden when it is shown.
            pub fn holds_key(&self) -> bool {
                redact(&self.0, $is_key, &mut String::new()) == Ok(true)
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
                f.write_str(&self.redacted())
            }
        }
    };
}

secret_url! {
    /// A tracker's address. It has no `Display`, so that no key is shown by mistake.
    TrackerUrl, is_key_of_tracker
}

secret_url! {
    /// A web seed's address. It has no `Display`, so that no key is shown by mistake.
    WebSeedUrl, is_key_of_web_seed
}

/// A tracker's address as it may be shown: `https://tracker.example/…/announce?passkey=…`.
#[derive(Clone, Copy)]
pub struct RedactedUrl<'a>(pub &'a str);

impl fmt::Display for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact(self.0, is_key_of_tracker, f).map(|_| ())
    }
}

impl fmt::Debug for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Writes `url` without its keys; answers whether there were any.
fn redact(url: &str, is_key: fn(&str) -> bool, out: &mut dyn Write) -> Result<bool, fmt::Error> {
    let mut hidden = false;
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if !scheme.is_empty() {
        escaped(out, scheme)?;
        out.write_str("://")?;
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    hidden |= !fragment.is_empty();
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let (authority, path) = place.split_at(place.find(['/', '\\']).unwrap_or(place.len()));
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => {
            hidden = true;
            write!(out, "{MASK}@")?;
            host
        }
        None => authority,
    };
    hidden |= redact_host(host, out)?;
    for (number, segment) in path.split(['/', '\\']).enumerate() {
        if number > 0 {
            out.write_char('/')?;
        }
        if is_key(segment) {
            hidden = true;
            out.write_str(MASK)?;
        } else {
            escaped(out, segment)?;
        }
    }
    for (number, pair) in query.iter().flat_map(|query| query.split('&')).enumerate() {
        out.write_char(if number == 0 { '?' } else { '&' })?;
        match pair.split_once('=') {
            Some((name, value)) if is_plain_name(name) => {
                hidden |= !value.is_empty();
                escaped(out, name)?;
                write!(out, "={MASK}")?;
            }
            _ => {
                hidden |= !pair.is_empty();
                out.write_str(MASK)?;
            }
        }
    }
    Ok(hidden)
}

/// A host's name without the keys in it, as `0123456789abcdef.tracker.example` has one.
pub fn redacted_host(host: &str) -> String {
    let mut shown = String::with_capacity(host.len());
    // A string takes all that is written to it.
    let _ = redact_host(host, &mut shown);
    shown
}

fn redact_host(host: &str, out: &mut dyn Write) -> Result<bool, fmt::Error> {
    let (name, port) = host.split_at(host.rfind(':').unwrap_or(host.len()));
    let is_address = name.ends_with(".onion") || name.ends_with(".i2p") || name.starts_with('[');
    let mut hidden = false;
    for (number, label) in name.split('.').enumerate() {
        if number > 0 {
            out.write_char('.')?;
        }
        let is_key = |run: &str| run.len() >= KEY_LEN_MIN && is_mixed(run);
        if !is_address && label.split(|c: char| !c.is_ascii_alphanumeric()).any(is_key) {
            hidden = true;
            out.write_str(MASK)?;
        } else {
            escaped(out, label)?;
        }
    }
    escaped(out, port)?;
    Ok(hidden)
}

/// A tracker's words (already made safe by `tracker_wire::message_text`) without the key that some of them
/// repeat: runs of 16 and more letters and digits that hold a digit.
pub fn redacted_words(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_key_character(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let is_key = word.len() >= KEY_LEN_MIN && word.contains(|c: char| c.is_ascii_digit());
        shown.push_str(if is_key { MASK } else { word });
        let next = behind.find(is_key_character).unwrap_or(behind.len());
        shown.push_str(&behind[..next]);
        rest = &behind[next..];
    }
    shown
}

/// Any part of it: a key may hide behind a dot or an escape.
fn is_key_of_tracker(segment: &str) -> bool {
    segment.split(|c: char| !is_key_character(c) && c != '%').any(|run| {
        let is_short_key = |part: &str| {
            let word = part.trim_end_matches(|c: char| c.is_ascii_digit());
            let is_numbered_word = part.len() - word.len() <= NUMBER_LEN_MAX && !is_mixed(word);
            part.len() >= MIXED_KEY_LEN_MIN && is_mixed(part) && !is_numbered_word
        };
        run.len() >= KEY_LEN_MIN || is_short_key(run)
    })
}

/// What looks as if it had been drawn at random; names of files do not.
fn is_key_of_web_seed(segment: &str) -> bool {
    let decoded = percent_decode_str(segment).decode_utf8_lossy();
    decoded.split(|c: char| !is_key_character(c)).any(|run| {
        let is_long = |part: &str| part.len() >= LONG_KEY_LEN_MIN;
        run.split(['-', '_']).any(is_long) || is_restless(run)
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
    text.contains(|c: char| c.is_ascii_digit()) && text.contains(|c: char| c.is_ascii_alphabetic())
}

/// What a query value may be called. Base64 has `/` and `+` in it, which would cut a key into harmless runs.
fn is_plain_name(name: &str) -> bool {
    name.len() < KEY_LEN_MIN && name.chars().all(|c| is_key_character(c) || c == '.')
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
            ("https://me:pass@t.example/announce#x", "https://…@t.example/announce"),
            ("https://t.example/announce?0123456789abcdef", "https://t.example/announce?…"),
            ("https://t.example/a?c2VjcmV0/a2V5/Zm9y+bWU==&uk=1", "https://t.example/a?…&uk=…"),
            ("https://t.example/a?s3cret%2Fkey=&a.b=1", "https://t.example/a?…&a.b=…"),
            ("https://t.example/announce.0123456789ABCDEFGH", "https://t.example/…"),
            ("https://0123456789abcdef.t.example:8443/announce", "https://….t.example:8443/announce"),
            ("https://u-0123456789abcdef.t.example/announce", "https://….t.example/announce"),
            ("http://ec2-203-0-113-25.compute-1.example/a", "http://ec2-203-0-113-25.compute-1.example/a"),
            ("http://t.example/announce2/v1/announce.php", "http://t.example/announce2/v1/announce.php"),
            ("http://t.example/\x1b[31m", "http://t.example/\\u{1b}[31m"),
            ("nonsense", "nonsense"),
            ("", ""),
        ] {
            assert_eq!(RedactedUrl(url).to_string(), shown);
            assert_eq!(format!("{:?}", RedactedUrl(url)), shown);
            let address = TrackerUrl::from(url);
            assert_eq!((address.redacted().as_str(), format!("{address:?}").as_str()), (shown, shown));
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
            ("https://m.example/IMG_20240101_123456_HDR/A%20very%20long%20name%2001.mkv", None),
            ("https://m.example/Season01Episode02Part3.mkv", None),
            (
                "https://m.example/dl/9f86d081884c7d659a2feaa0c55ad015/big.iso",
                Some("https://m.example/dl/…/big.iso"),
            ),
            ("https://m.example/aB3xY9kLm2Qw8eRt5/big.iso", Some("https://m.example/…/big.iso")),
            ("https://m.example/123e4567-e89b-12d3-a456-426614174000/f", Some("https://m.example/…/f")),
            ("https://me:pass@m.example/f?token=x", Some("https://…@m.example/f?token=…")),
        ] {
            let address = WebSeedUrl::from(url);
            assert_eq!(address.redacted(), shown.unwrap_or(url));
            assert_eq!(address.holds_key(), shown.is_some());
        }
    }

    #[test]
    fn words_lose_keys_and_nothing_else() {
        assert_eq!(redacted_words("Unregistered torrent"), "Unregistered torrent");
        assert_eq!(redacted_words("passkey 0123456789abcdef is banned!"), "passkey … is banned!");
        assert_eq!(redacted_words("incomprehensibilities"), "incomprehensibilities");
        assert_eq!(redacted_words("…"), "…");
        assert_eq!(redacted_host("0123456789abcdef.t.example:80"), "….t.example:80");
    }

    proptest! {
        #[test]
        fn a_key_is_never_shown_wherever_it_stands(
            key in "[0-9a-f]{16,40}", before in "[a-z/.?&=@:]{0,12}", after in "[a-z/.?&=@:]{0,12}",
        ) {
            let url = format!("https://t.example/{before}{key}{after}");
            prop_assert!(!RedactedUrl(&url).to_string().contains(&key), "{}", RedactedUrl(&url));
        }

        #[test]
        fn a_key_in_a_query_is_never_shown_however_it_is_called(
            name in "(passkey|authkey|uk|torrent_pass|key|pk|secret|info|x)", key in "[!-%'-~]{1,40}",
        ) {
            let url = TrackerUrl::from(format!("udp://t.example:80/announce?{name}={key}&a=b"));
            let expected = if key.contains('#') { format!("{name}=…") } else { format!("{name}=…&a=…") };
            prop_assert_eq!(url.redacted(), format!("udp://t.example:80/announce?{expected}"));
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
