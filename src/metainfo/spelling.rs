//! The paths under which other clients may have saved a file whose name does not survive everywhere.
//!
//! A name may be no UTF-8, may stand in the torrent twice (`path` and `path.utf-8`), or may have characters that some
//! clients change: each saves the file as it sees fit. [`Info::spellings`](super::Info::spellings) tells where else to
//! look for such a file; it says nothing about what is there. Every spelling stays below the save folder: its parts are
//! plain names, without `/` and NUL, none of them empty, `.` or `..`. Ordinary names have one spelling and cost nothing here.
//!
//! The rules are those of clients in use: bytes as they are (rTorrent, aria2, old Transmission), separators dropped
//! and what is no UTF-8 replaced by `_` (libtorrent and what is built on it) or by U+FFFD (Transmission), what Windows
//! forbids replaced by `_` (others), and decoded from the encoding that the torrent names or that was usual where such
//! torrents come from.

use super::path::{is_reordering, sanitise, shorten_bytes};
use crate::limits::{PATH_COMPONENT_LEN_MAX, PATH_LEN_MAX};
use encoding_rs::Encoding;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A path as the torrent has it, component by component from the torrent's name on, not cleaned at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawPath {
    /// From `name` and `path`.
    plain: Components,
    /// From `name.utf-8` and `path.utf-8`, where either is there.
    utf8: Option<Components>,
}

/// Components one behind the other, each behind its length: a torrent may have millions of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Components(Box<[u8]>);

impl Components {
    fn of(parts: &[&[u8]]) -> Self {
        // Shorter than the torrent, which 32 bits count.
        let part = |part: &&[u8]| [&(part.len() as u32).to_le_bytes()[..], part].concat();
        Self(parts.iter().flat_map(part).collect())
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (len, behind) = rest.split_first_chunk()?;
            let (part, behind) = behind.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            rest = behind;
            Some(part)
        })
    }
}

/// Encodings that torrents were made in before UTF-8 was the rule. Each decodes nearly anything, so the order counts for
/// nothing: what is on disk decides.
static OLD_ENCODINGS: [&Encoding; 7] = [
    encoding_rs::WINDOWS_1252,
    encoding_rs::GB18030,
    encoding_rs::SHIFT_JIS,
    encoding_rs::BIG5,
    encoding_rs::EUC_KR,
    encoding_rs::WINDOWS_1251,
    encoding_rs::WINDOWS_1250,
];

impl RawPath {
    /// The raw path of components, when other clients may spell it differently from what `cleaned` says.
    pub(super) fn of(plain: Vec<&[u8]>, utf8: Option<Vec<&[u8]>>, cleaned: &str) -> Option<Box<Self>> {
        let is_ordinary = |parts: &[&[u8]]| {
            parts.iter().copied().eq(cleaned.split('/').map(str::as_bytes))
                && parts.iter().all(|part| survives_everywhere(part))
        };
        if is_ordinary(&plain) && utf8.as_deref().is_none_or(is_ordinary) {
            return None;
        }
        Some(Box::new(Self { plain: Components::of(&plain), utf8: utf8.map(|parts| Components::of(&parts)) }))
    }

    /// All spellings but `cleaned`, each once.
    pub(super) fn spellings(&self, cleaned: &str, encoding: Option<&'static Encoding>) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = Vec::new();
        let mut add = |path: Option<PathBuf>| {
            if let Some(path) = path.filter(|path| path.as_os_str() != cleaned && !found.contains(path)) {
                found.push(path);
            }
        };
        for parts in std::iter::once(&self.plain).chain(&self.utf8) {
            add(spell(parts, |part| Some(part.to_vec())));
            add(spell(parts, |part| sanitise(part).map(String::into_bytes)));
            add(spell(parts, |part| {
                Some(replaced(part, "_", |c| {
                    if is_reordering(c) || matches!(c, '/' | '\\') { None } else { Some(c) }
                }))
            }));
            add(spell(parts, |part| {
                Some(replaced(part, "\u{fffd}", |c| Some(if c == '/' { '_' } else { c })))
            }));
            add(spell(parts, |part| {
                Some(replaced(part, "_", |c| Some(if is_unfit_for_windows(c) { '_' } else { c })))
            }));
            add(spell(parts, |part| {
                Some(trimmed(replaced(part, "\u{fffd}", |c| {
                    Some(if is_unfit_for_windows(c) { '_' } else { c })
                })))
            }));
        }
        for encoding in encoding.into_iter().chain(OLD_ENCODINGS) {
            add(spell(&self.plain, |part| {
                let text = encoding.decode_without_bom_handling_and_without_replacement(part)?;
                sanitise(text.as_bytes()).map(String::into_bytes)
            }));
        }
        found
    }
}

/// The encoding that a torrent names, when it is one that we know. UTF-8 tells nothing new.
pub(super) fn encoding_of(label: &[u8]) -> Option<&'static Encoding> {
    Encoding::for_label_no_replacement(label).filter(|&encoding| encoding != encoding_rs::UTF_8)
}

/// The path of spelled components; those that name nothing are left out. `None` when one cannot be a file's name, or
/// there is none.
fn spell(parts: &Components, rule: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Option<PathBuf> {
    let mut path = Vec::new();
    for part in parts.iter() {
        let mut name = rule(part)?;
        if matches!(name.as_slice(), b"" | b"." | b"..") {
            continue;
        }
        if name.iter().any(|&byte| matches!(byte, b'/' | 0)) {
            return None;
        }
        if name.len() > PATH_COMPONENT_LEN_MAX {
            shorten_bytes(&mut name);
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
    }
    (1..=PATH_LEN_MAX).contains(&path.len()).then(|| PathBuf::from(OsString::from_vec(path)))
}

/// The component with characters changed or left out by `rule`, and `mark` for each run of bytes that are no UTF-8.
fn replaced(part: &[u8], mark: &str, rule: impl Fn(char) -> Option<char>) -> Vec<u8> {
    let mut name = String::with_capacity(part.len());
    for chunk in part.utf8_chunks() {
        name.extend(chunk.valid().chars().filter_map(&rule));
        if !chunk.invalid().is_empty() {
            name.push_str(mark);
        }
    }
    name.into_bytes()
}

/// Without what Windows takes away at a name's ends.
fn trimmed(name: Vec<u8>) -> Vec<u8> {
    match String::from_utf8(name) {
        Ok(name) => name.trim_start_matches(' ').trim_end_matches([' ', '.']).as_bytes().to_vec(),
        Err(error) => error.into_bytes(),
    }
}

fn is_unfit_for_windows(c: char) -> bool {
    c.is_control() || matches!(c, '<' | '>' | ':' | '"' | '/' | '\\' | '|' | '?' | '*')
}

/// Whether all clients save this name under just these bytes.
fn survives_everywhere(part: &[u8]) -> bool {
    let ends_plainly = !matches!(part.first(), Some(b' ')) && !matches!(part.last(), Some(b' ' | b'.'));
    let is_plain = |text: &str| !text.chars().any(|c| is_unfit_for_windows(c) || is_reordering(c));
    ends_plainly && std::str::from_utf8(part).is_ok_and(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Component;

    fn spellings(plain: &[&[u8]], utf8: Option<&[&[u8]]>, encoding: &[u8]) -> Vec<Vec<u8>> {
        let best =
            super::super::RelativePath::from_components(utf8.unwrap_or(plain).iter().copied()).unwrap();
        let raw = RawPath::of(plain.to_vec(), utf8.map(<[&[u8]]>::to_vec), best.as_str());
        let found = raw.map(|raw| raw.spellings(best.as_str(), encoding_of(encoding))).unwrap_or_default();
        found.into_iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect()
    }

    #[test]
    fn ordinary_names_have_one_spelling() {
        for name in ["a b.txt", "naïve – 東京.mkv", "[x] (1).flac"] {
            assert_eq!(spellings(&[b"top", name.as_bytes()], None, b""), Vec::<Vec<u8>>::new(), "{name}");
            let both: [&[u8]; 2] = [b"top", name.as_bytes()];
            assert_eq!(spellings(&both, Some(&both), b"UTF-8"), Vec::<Vec<u8>>::new(), "{name}");
        }
    }

    #[test]
    fn names_that_are_no_utf_8_are_looked_for_raw_and_decoded() {
        let latin = spellings(&[b"top", b"Beyonc\xe9.flac"], None, b"");
        assert!(latin.contains(&b"top/Beyonc\xe9.flac".to_vec()));
        assert!(latin.contains(&"top/Beyoncé.flac".as_bytes().to_vec()));
        assert!(latin.contains(&"top/Beyonc\u{fffd}.flac".as_bytes().to_vec()));
        // 社区 in GBK.
        let gbk = spellings(&[b"top", b"\xc9\xe7\xc7\xf8"], None, b"GBK");
        assert!(
            gbk.contains(&b"top/\xc9\xe7\xc7\xf8".to_vec()) && gbk.contains(&"top/社区".as_bytes().to_vec())
        );
        // Привет in KOI8-R, which only the torrent's own word leads to.
        let koi8: [&[u8]; 2] = [b"top", b"\xf0\xd2\xc9\xd7\xc5\xd4"];
        assert!(spellings(&koi8, None, b"KOI8-R").contains(&"top/Привет".as_bytes().to_vec()));
        assert!(!spellings(&koi8, None, b"").contains(&"top/Привет".as_bytes().to_vec()));
    }

    #[test]
    fn names_that_some_clients_change_are_looked_for_as_they_leave_them() {
        let backslash = spellings(&[b"top", b"test\\.file"], None, b"");
        assert!(
            backslash.contains(&b"top/test.file".to_vec()) && backslash.contains(&b"top/test_.file".to_vec())
        );
        assert!(spellings(&[b"top", b"a: b?"], None, b"").contains(&b"top/a_ b_".to_vec()));
        assert!(spellings(&[b"top", b"Vol. 1..."], None, b"").contains(&b"top/Vol. 1".to_vec()));
        let both = spellings(&[b"top", b"\xe9"], Some(&[b"top", "é".as_bytes()]), b"");
        assert!(both.contains(&b"top/\xe9".to_vec()));
        let climbing = spellings(&[b"top", b"..", b"x"], None, b"");
        assert_eq!(climbing, Vec::<Vec<u8>>::new(), "all leave it out");
    }

    proptest! {
        #[test]
        fn no_spelling_leaves_the_folder(
            parts in prop::collection::vec(prop::collection::vec(prop_oneof![
                any::<u8>(), Just(b'.'), Just(b'/'), Just(b'\\'), Just(0), Just(0xe9), Just(b' ')], 0..300), 1..5),
            label in prop::sample::select(vec!["", "GBK", "shift_jis", "utf-16le", "iso-2022-jp", "x-user-defined"]),
        ) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert!(Components::of(&parts).iter().eq(parts.iter().copied()));
            let raw = RawPath { plain: Components::of(&parts), utf8: Some(Components::of(&parts)) };
            let found = raw.spellings("", encoding_of(label.as_bytes()));
            prop_assert_eq!(&found, &raw.spellings("", encoding_of(label.as_bytes())));
            for path in found {
                prop_assert!(path.as_os_str().len() <= PATH_LEN_MAX && !path.as_os_str().is_empty());
                for component in path.components() {
                    prop_assert!(matches!(component, Component::Normal(_)), "{:?}", path);
                    prop_assert!(component.as_os_str().len() <= PATH_COMPONENT_LEN_MAX);
                }
                prop_assert!(!path.as_os_str().as_bytes().contains(&0));
            }
        }
    }
}
