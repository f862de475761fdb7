//! Paths of a torrent's files: what a stranger wrote becomes a path that stays below the save folder.
//!
//! Invariant of [`RelativePath`]: one to [`PATH_DEPTH_MAX`] components joined by `/`, each one to
//! [`PATH_COMPONENT_LEN_MAX`] bytes of UTF-8, none of them `.` or `..`, none with a control character, a
//! slash or a character that overrides the direction of text.
//!
//! Names that Linux can store and a person can read are kept byte for byte, so that our layout equals that
//! of other clients. Deliberately absent: the rules of other systems (backslashes, trailing dots, reserved device
//! names, letters that differ only in case); this program runs on Linux only.

use super::PathError;
use crate::limits::{PATH_COMPONENT_LEN_MAX, PATH_DEPTH_MAX, PATH_LEN_MAX};
use std::cmp::Ordering;
use std::fmt;
use std::path::Path;

/// A file's path below the folder that content is saved in; the file's invariant holds for it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelativePath(Box<str>);

impl RelativePath {
    /// The path of sanitised components.
    ///
    /// Empty components, `.` and `..` are left out, as other clients do, so that no path climbs; characters that cannot
    /// stand in a name become `_`, names longer than the file system allows lose the end of their stem.
    ///
    /// # Errors
    /// Nothing left, too many components, too long a path.
    pub fn from_components<'a>(components: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, PathError> {
        let mut path = String::new();
        let mut depth = 0;
        for raw in components {
            let Some(component) = sanitise(raw) else { continue };
            depth += 1;
            if depth > PATH_DEPTH_MAX {
                return Err(PathError::TooDeep);
            }
            if path.len() + component.len() + 1 > PATH_LEN_MAX {
                return Err(PathError::TooLong);
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&component);
        }
        if path.is_empty() { Err(PathError::Empty) } else { Ok(Self(path.into())) }
    }

    /// The path with `/` between its components.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path for the file system, relative to the save folder.
    pub fn as_path(&self) -> &Path {
        Path::new(&*self.0)
    }

    /// The components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The path with a number before the extension of its last component, which is shortened where that is too long.
    /// `None` when the path has no room for it.
    pub(super) fn numbered(&self, number: u32) -> Option<Self> {
        let (folder, name) = self.0.rsplit_once('/').map_or(("", &*self.0), |(folder, name)| (folder, name));
        let (stem, extension) = split_extension(name);
        let mark = format!(".{number}");
        let mut end = stem.len().min(PATH_COMPONENT_LEN_MAX - extension.len() - mark.len());
        while !stem.is_char_boundary(end) {
            end -= 1;
        }
        let name = format!("{}{mark}{extension}", &stem[..end]);
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        (path.len() <= PATH_LEN_MAX).then(|| Self(path.into()))
    }

    /// What [`Self::numbered`] leaves of the path whatever the number is. Paths that some number could make equal have
    /// the same.
    pub(super) fn stem_of_numbers(&self) -> String {
        let (folder, name) = self.0.rsplit_once('/').map_or(("", &*self.0), |(folder, name)| (folder, name));
        let (stem, extension) = split_extension(name);
        let longest_mark = ".4294967295".len();
        let mut end = stem.len().min(PATH_COMPONENT_LEN_MAX - extension.len() - longest_mark);
        while !stem.is_char_boundary(end) {
            end -= 1;
        }
        format!("{folder}/{}/{extension}", &stem[..end])
    }

    /// Whether `self` names a folder on the way to `other`.
    pub fn is_folder_of(&self, other: &Self) -> bool {
        other.0.strip_prefix(&*self.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl AsRef<Path> for RelativePath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

/// By components, so that a folder stands directly before everything in it.
impl Ord for RelativePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // No component has a byte below 0x20, so zero as separator compares component by component.
        let key = |&byte: &u8| if byte == b'/' { 0 } else { byte };
        let (one, other) = (self.0.as_bytes(), other.0.as_bytes());
        // All paths of a torrent begin with its name: what is equal goes by in strides.
        const STRIDE: usize = 16;
        let strides = one.chunks_exact(STRIDE).zip(other.chunks_exact(STRIDE));
        let equal = STRIDE * strides.take_while(|(one, other)| one == other).count();
        one[equal..].iter().map(key).cmp(other[equal..].iter().map(key))
    }
}

impl PartialOrd for RelativePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One component as it may stand in a path; `None` when it names nothing. Idempotent.
pub(super) fn sanitise(raw: &[u8]) -> Option<String> {
    let mut name = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        name.extend(chunk.valid().chars().map(|c| if is_unfit(c) { '_' } else { c }));
        if !chunk.invalid().is_empty() {
            name.push('_');
        }
    }
    if matches!(name.as_str(), "" | "." | "..") {
        return None;
    }
    if name.len() > PATH_COMPONENT_LEN_MAX {
        shorten(&mut name);
    }
    Some(name)
}

/// Characters that separate, hide or reorder. Plain direction marks stay: Arabic and Hebrew names have them.
fn is_unfit(c: char) -> bool {
    c.is_control() || matches!(c, '/' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters that set the direction of text, of which libtorrent keeps none.
pub(super) fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
}

/// Cuts the end of the stem and keeps a short extension, so that a film stays a film.
fn shorten(name: &mut String) {
    let (stem, extension) = split_extension(name);
    let mut end = PATH_COMPONENT_LEN_MAX - extension.len();
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    *name = format!("{}{extension}", &stem[..end]);
}

/// [`shorten`] of a name that may be no UTF-8, at a byte.
pub(super) fn shorten_bytes(name: &mut Vec<u8>) {
    if let Ok(text) = std::str::from_utf8(name) {
        let mut text = text.to_owned();
        shorten(&mut text);
        *name = text.into_bytes();
    } else {
        name.truncate(PATH_COMPONENT_LEN_MAX);
    }
}

/// A name's stem, and its extension with the dot when that is short.
fn split_extension(name: &str) -> (&str, &str) {
    const EXTENSION_LEN_MAX: usize = 16;
    let at = name.rfind('.').filter(|&at| at > 0 && name.len() - at <= EXTENSION_LEN_MAX);
    name.split_at(at.unwrap_or(name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(components: &[&[u8]]) -> Result<RelativePath, PathError> {
        RelativePath::from_components(components.iter().copied())
    }

    #[test]
    fn keeps_ordinary_names_byte_for_byte() {
        let long = "ö".repeat(110);
        for name in ["a b.txt", "Vol. 1...", "CON", "naïve – 東京.mkv", "-rf", " x ", "עברית\u{200f}", &long]
        {
            assert_eq!(path(&[b"top", name.as_bytes()]).unwrap().as_str(), format!("top/{name}"));
        }
    }

    #[test]
    fn leaves_out_what_climbs_and_what_names_nothing() {
        assert_eq!(path(&[b"top", b"..", b"..", b"x"]).unwrap().as_str(), "top/x");
        assert!(matches!(path(&[b"", b".", b".."]), Err(PathError::Empty)));
        assert_eq!(path(&[b"", b"etc", b".", b"passwd"]).unwrap().as_str(), "etc/passwd");
    }

    #[test]
    fn replaces_what_separates_hides_or_reorders() {
        for (raw, name) in [
            (&b"/etc/passwd"[..], "_etc_passwd"),
            (b"..\\..\\x", "..\\..\\x"),
            (b"../x", ".._x"),
            (b"a\0b\nc\x1b[31m\x7f", "a_b_c_[31m_"),
            ("a\u{202e}gpj.exe".as_bytes(), "a_gpj.exe"),
            ("c1\u{9b}".as_bytes(), "c1_"),
            (b"bad\xff\xc3utf", "bad__utf"),
        ] {
            assert_eq!(path(&[raw]).unwrap().as_str(), name);
        }
    }

    #[test]
    fn shortens_long_names_at_a_character_and_keeps_the_extension() {
        let shortened = path(&[format!("{}.mkv", "東".repeat(200)).as_bytes()]).unwrap();
        assert_eq!(shortened.as_str(), format!("{}.mkv", "東".repeat(83)));
        let without = path(&["x".repeat(300).as_bytes()]).unwrap();
        assert_eq!(without.as_str().len(), PATH_COMPONENT_LEN_MAX);
    }

    #[test]
    fn numbers_stand_before_the_extension_and_always_fit() {
        let numbered =
            |name: &str, number| path(&[b"top", name.as_bytes()]).unwrap().numbered(number).unwrap();
        assert_eq!(numbered("a.txt", 1).as_str(), "top/a.1.txt");
        assert_eq!(numbered("a", 12).as_str(), "top/a.12");
        assert_eq!(numbered(".hidden", 1).as_str(), "top/.hidden.1");
        let long = numbered(&format!("{}.mkv", "東".repeat(83)), u32::MAX);
        assert_eq!(long.as_str(), format!("top/{}.4294967295.mkv", "東".repeat(80)));
        assert_eq!(path(&[b"alone"]).unwrap().numbered(2).unwrap().as_str(), "alone.2");
    }

    #[test]
    fn paths_that_a_number_could_make_equal_are_counted_together() {
        let long = |end: &str| path(&[format!("{}{end}.mkv", "東".repeat(80)).as_bytes()]).unwrap();
        for number in [1, 10, u32::MAX] {
            for (one, other) in [("0123456789", "0123456780"), ("0123456789", "0"), ("01234567", "0123456")] {
                let (one, other) = (long(one), long(other));
                let are_equal = one.numbered(number) == other.numbered(number);
                assert!(!are_equal || one.stem_of_numbers() == other.stem_of_numbers(), "{one} {other}");
            }
        }
        assert_eq!(long("0123456789").stem_of_numbers(), long("012345678").stem_of_numbers());
        let short = |name: &str| path(&[name.as_bytes()]).unwrap().stem_of_numbers();
        assert_ne!(short("a.mkv"), short("b.mkv"));
    }

    #[test]
    fn bounds_depth_and_length() {
        assert!(matches!(path(&[&b"d"[..]; PATH_DEPTH_MAX + 1]), Err(PathError::TooDeep)));
        let long = "x".repeat(250);
        assert!(matches!(path(&[long.as_bytes(); 13]), Err(PathError::TooLong)));
        assert!(path(&[long.as_bytes(); 12]).is_ok());
    }

    #[test]
    fn folders_stand_directly_before_their_files() {
        let mut paths = [&[&b"a"[..], b"b"][..], &[b"a.txt"], &[b"a"]].map(|parts| path(parts).unwrap());
        paths.sort();
        assert_eq!(paths.each_ref().map(RelativePath::as_str), ["a", "a/b", "a.txt"]);
        assert!(paths[0].is_folder_of(&paths[1]) && !paths[0].is_folder_of(&paths[2]));
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_components(one in "(x{14,18}|[a-c ./]){0,20}", other in "(x{14,18}|[a-c ./]){0,20}") {
            let parts = |text: &str| path(&text.split('/').map(str::as_bytes).collect::<Vec<_>>());
            if let (Ok(one), Ok(other)) = (parts(&one), parts(&other)) {
                prop_assert_eq!(one.cmp(&other), one.components().cmp(other.components()));
            }
        }

        #[test]
        fn no_bytes_make_a_path_that_leaves_the_folder(parts in prop::collection::vec(
            prop::collection::vec(prop_oneof![any::<u8>(), Just(b'.'), Just(b'/'), Just(0x80)], 0..300), 0..5))
        {
            if let Ok(path) = RelativePath::from_components(parts.iter().map(Vec::as_slice)) {
                prop_assert!(path.as_str().len() <= PATH_LEN_MAX);
                for component in path.as_path().components() {
                    let normal = matches!(component, std::path::Component::Normal(_));
                    prop_assert!(normal && component.as_os_str().len() <= PATH_COMPONENT_LEN_MAX);
                }
                prop_assert_eq!(path.as_path().components().count(), path.components().count());
                let again = RelativePath::from_components(path.components().map(str::as_bytes));
                prop_assert_eq!(again.unwrap(), path);
            }
        }
    }
}
