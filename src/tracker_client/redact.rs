//! Keeps passkeys out of everything that is shown. Whoever prints a tracker's address prints it through here.
//!
//! A passkey is any path segment of 16 or more letters, digits, `-` and `_`, any query value, any query name
//! that is not short and plain, and any user part. Hiding too much costs a reader little; showing a key costs a user the account.

use std::fmt::{self, Write};

/// Characters from which on a run of letters and digits counts as a key. Real passkeys have 16 to 64.
const KEY_LEN_MIN: usize = 16;
const MASK: &str = "…";

/// A tracker's address as it may be shown: `https://tracker.example/…/announce?passkey=…`.
#[derive(Clone, Copy)]
pub struct RedactedUrl<'a>(pub &'a str);

impl fmt::Display for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", self.0));
        if !scheme.is_empty() {
            escaped(f, scheme)?;
            f.write_str("://")?;
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let (authority, path) = place.split_at(place.find(['/', '\\']).unwrap_or(place.len()));
        if let Some((_, host)) = authority.rsplit_once('@') {
            write!(f, "{MASK}@")?;
            escaped(f, host)?;
        } else {
            escaped(f, authority)?;
        }
        for (number, segment) in path.split(['/', '\\']).enumerate() {
            if number > 0 {
                f.write_char('/')?;
            }
            if looks_like_key(segment) { f.write_str(MASK)? } else { escaped(f, segment)? }
        }
        for (number, pair) in query.iter().flat_map(|query| query.split('&')).enumerate() {
            f.write_char(if number == 0 { '?' } else { '&' })?;
            match pair.split_once('=') {
                Some((name, _)) if is_plain_name(name) => {
                    escaped(f, name)?;
                    write!(f, "={MASK}")?;
                }
                _ => f.write_str(MASK)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A tracker's words (already made safe by `tracker_wire::message_text`) without the key that some of them
/// repeat: runs of 16 and more letters and digits that hold a digit.
pub(super) fn redacted_words(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_key_character(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let is_key = looks_like_key(word) && word.contains(|c: char| c.is_ascii_digit());
        shown.push_str(if is_key { MASK } else { word });
        let next = behind.find(is_key_character).unwrap_or(behind.len());
        shown.push_str(&behind[..next]);
        rest = &behind[next..];
    }
    shown
}

/// Any part of it: a key may hide behind a dot or an escape.
fn looks_like_key(segment: &str) -> bool {
    segment.split(|c: char| !is_key_character(c) && c != '%').any(|run| run.len() >= KEY_LEN_MIN)
}

/// What a query value may be called. Base64 has `/` and `+` in it, which would cut a key into harmless runs.
fn is_plain_name(name: &str) -> bool {
    name.len() < KEY_LEN_MIN && name.chars().all(|c| is_key_character(c) || c == '.')
}

fn is_key_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

fn escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        ' '..='~' => f.write_char(c),
        _ => write!(f, "{}", c.escape_unicode()),
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
            ("https://t.example/0123456789abcdef/announce", "https://t.example/…/announce"),
            ("https://t.example/a.php?passkey=s3cret&x=1", "https://t.example/a.php?passkey=…&x=…"),
            ("https://me:pass@t.example/announce#x", "https://…@t.example/announce"),
            ("https://t.example/announce?0123456789abcdef", "https://t.example/announce?…"),
            ("https://t.example/a?c2VjcmV0/a2V5/Zm9y+bWU==&uk=1", "https://t.example/a?…&uk=…"),
            ("https://t.example/a?s3cret%2Fkey=&a.b=1", "https://t.example/a?…&a.b=…"),
            ("https://t.example/announce.0123456789ABCDEFGH", "https://t.example/…"),
            ("http://t.example/\x1b[31m", "http://t.example/\\u{1b}[31m"),
            ("nonsense", "nonsense"),
            ("", ""),
        ] {
            assert_eq!(RedactedUrl(url).to_string(), shown);
            assert_eq!(format!("{:?}", RedactedUrl(url)), shown);
        }
    }

    #[test]
    fn words_lose_keys_and_nothing_else() {
        assert_eq!(redacted_words("Unregistered torrent"), "Unregistered torrent");
        assert_eq!(redacted_words("passkey 0123456789abcdef is banned!"), "passkey … is banned!");
        assert_eq!(redacted_words("incomprehensibilities"), "incomprehensibilities");
        assert_eq!(redacted_words("…"), "…");
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
