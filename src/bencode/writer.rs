//! The writer: canonical bencode, keys in ascending order however they were given.
//!
//! ```
//! let bytes = seedring::bencode::dict(|dict| {
//!     dict.int("interval", 1800);
//!     dict.list("files", |list| list.bytes("a"));
//! });
//! assert_eq!(bytes, b"d5:filesl1:ae8:intervali1800ee");
//! ```

use std::ops::Range;

/// The bytes of a dictionary that `build` fills.
pub fn dict(build: impl FnOnce(&mut DictWriter<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write_dict(&mut out, build);
    out
}

/// The bytes of a list that `build` fills.
pub fn list(build: impl FnOnce(&mut ListWriter<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write_list(&mut out, build);
    out
}

/// Writes a dictionary's entries. Of a key given twice the first counts.
#[derive(Debug)]
pub struct DictWriter<'o> {
    out: &'o mut Vec<u8>,
    entries: Vec<Entry>,
    ascending: bool,
}

#[derive(Debug)]
struct Entry {
    /// The key's content within the output.
    key: Range<usize>,
    /// Key and value as written.
    span: Range<usize>,
}

impl DictWriter<'_> {
    /// Writes an integer.
    pub fn int(&mut self, key: impl AsRef<[u8]>, value: i64) {
        self.entry(key.as_ref(), |out| write_int(out, value));
    }

    /// Writes a string of bytes.
    pub fn bytes(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.entry(key.as_ref(), |out| write_bytes(out, value.as_ref()));
    }

    /// Writes a list that `build` fills.
    pub fn list(&mut self, key: impl AsRef<[u8]>, build: impl FnOnce(&mut ListWriter<'_>)) {
        self.entry(key.as_ref(), |out| write_list(out, build));
    }

    /// Writes a dictionary that `build` fills.
    pub fn dict(&mut self, key: impl AsRef<[u8]>, build: impl FnOnce(&mut DictWriter<'_>)) {
        self.entry(key.as_ref(), |out| write_dict(out, build));
    }

    /// Writes a value that is bencoded already.
    pub fn raw(&mut self, key: impl AsRef<[u8]>, value: &[u8]) {
        self.entry(key.as_ref(), |out| out.extend_from_slice(value));
    }

    fn entry(&mut self, key: &[u8], write_value: impl FnOnce(&mut Vec<u8>)) {
        if let Some(last) = self.entries.last() {
            self.ascending &= &self.out[last.key.clone()] < key;
        }
        let start = self.out.len();
        write_bytes(self.out, key);
        let key = self.out.len() - key.len()..self.out.len();
        write_value(self.out);
        self.entries.push(Entry { key, span: start..self.out.len() });
    }

    /// Puts the entries in order when they came out of it.
    fn finish(mut self) {
        let Some(start) = self.entries.first().map(|entry| entry.span.start) else { return };
        if !self.ascending {
            let out = &*self.out;
            self.entries.sort_by(|one, other| out[one.key.clone()].cmp(&out[other.key.clone()]));
            self.entries.dedup_by(|later, earlier| out[later.key.clone()] == out[earlier.key.clone()]);
            let spans = self.entries.iter().map(|entry| &out[entry.span.clone()]);
            let ordered = spans.collect::<Vec<_>>().concat();
            self.out.truncate(start);
            self.out.extend_from_slice(&ordered);
        }
    }
}

/// Writes a list's items.
#[derive(Debug)]
pub struct ListWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl ListWriter<'_> {
    /// Writes an integer.
    pub fn int(&mut self, value: i64) {
        write_int(self.out, value);
    }

    /// Writes a string of bytes.
    pub fn bytes(&mut self, value: impl AsRef<[u8]>) {
        write_bytes(self.out, value.as_ref());
    }

    /// Writes a list that `build` fills.
    pub fn list(&mut self, build: impl FnOnce(&mut ListWriter<'_>)) {
        write_list(self.out, build);
    }

    /// Writes a dictionary that `build` fills.
    pub fn dict(&mut self, build: impl FnOnce(&mut DictWriter<'_>)) {
        write_dict(self.out, build);
    }

    /// Writes a value that is bencoded already.
    pub fn raw(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }
}

fn write_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(format!("i{value}e").as_bytes());
}

fn write_bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(format!("{}:", value.len()).as_bytes());
    out.extend_from_slice(value);
}

fn write_list(out: &mut Vec<u8>, build: impl FnOnce(&mut ListWriter<'_>)) {
    out.push(b'l');
    build(&mut ListWriter { out });
    out.push(b'e');
}

fn write_dict(out: &mut Vec<u8>, build: impl FnOnce(&mut DictWriter<'_>)) {
    out.push(b'd');
    let mut writer = DictWriter { out, entries: Vec::new(), ascending: true };
    build(&mut writer);
    writer.finish();
    out.push(b'e');
}
