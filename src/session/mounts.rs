//! Which file system a path lies in, told without asking that file system anything.
//!
//! The kernel's list of mounts (proc(5), `/proc/self/mountinfo`) is read from memory, so that a file system that hangs does not
//! hang whoever wants to know which one it is. A path is taken as it is written: a link that leads elsewhere is not followed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The places where file systems are mounted.
#[derive(Debug, Default)]
pub struct Mounts(BTreeSet<PathBuf>);

impl Mounts {
    /// Those of this process now. Where the kernel does not tell, everything is one file system.
    pub fn now() -> Self {
        Self::of_table(&std::fs::read("/proc/self/mountinfo").unwrap_or_default())
    }

    fn of_table(table: &[u8]) -> Self {
        let lines = table.split(|&byte| byte == b'\n');
        let points = lines.filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
        Self(points.map(|point| PathBuf::from(OsString::from_vec(unescaped(point)))).collect())
    }

    /// The mount that a path lies in; the root where none is known.
    pub fn of(&self, path: &Path) -> PathBuf {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mount = path.ancestors().find(|ancestor| self.0.contains(*ancestor));
        mount.unwrap_or(Path::new("/")).to_owned()
    }
}

/// A field of the list: blanks and backslashes stand as three octal digits behind a backslash.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..b'8').contains(digit)));
        match digits {
            Some(digits) if first == b'\\' => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push(value as u8);
                rest = &behind[3..];
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_in_the_longest_mount_above_it() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 21 0:30 / /srv/two\\040words rw shared:1 - fuse held rw\n\
            31 30 0:31 / /srv/two\\040words/below rw - nfs4 far:/ rw\n\nshort line\n";
        let mounts = Mounts::of_table(table);
        for (path, mount) in [
            ("/srv/two words/film", "/srv/two words"),
            ("/srv/two words", "/srv/two words"),
            ("/srv/two words/below/a/b", "/srv/two words/below"),
            ("/srv/two wordsmiths", "/"),
            ("/srv", "/"),
        ] {
            assert_eq!(mounts.of(Path::new(path)), Path::new(mount), "{path}");
        }
        assert_eq!(Mounts::of_table(b"").of(Path::new("/a")), Path::new("/"));
    }

    #[test]
    fn a_field_is_read_whatever_stands_in_it() {
        for (field, bytes) in
            [("a\\040b", "a b"), ("\\134", "\\"), ("\\04", "\\04"), ("\\", "\\"), ("\\999", "\\999")]
        {
            assert_eq!(unescaped(field.as_bytes()), bytes.as_bytes(), "{field}");
        }
    }
}
