//! Bencode (BEP 3): torrent files, extension handshakes and tracker responses, read and written.
//!
//! Reading never recurses, never copies a string and never allocates from a declared length: a document is
//! the input's bytes and one flat table of tokens, twelve bytes each, bounded in number and depth. Strict
//! where laxness would let two readers see different values (integers, lengths, repeated keys), lenient with
//! keys out of order, which real torrents have; [`Value::raw`] gives the bytes as they came, since an
//! info-hash is over those.

mod parser;
mod writer;

pub use parser::{BencodeError, parse, parse_prefix};
pub use writer::{DictWriter, ListWriter, dict, list};

use parser::Token;

/// A parsed document that borrows its input.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    bytes: &'a [u8],
    /// Values in the order of the input, a container before its content. Never empty.
    tokens: Vec<Token>,
}

impl<'a> Document<'a> {
    /// The outermost value.
    pub fn root(&self) -> Value<'_, 'a> {
        Value { document: self, index: 0 }
    }
}

/// One value of a document: `'d` borrows the document, `'a` the input's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Value<'d, 'a> {
    document: &'d Document<'a>,
    index: u32,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `i…e`
    Int,
    /// `N:…`
    Bytes,
    /// `l…e`
    List,
    /// `d…e`
    Dict,
}

impl<'d, 'a> Value<'d, 'a> {
    /// Which of the four kinds the value is.
    pub fn kind(self) -> Kind {
        match self.raw().first() {
            Some(b'i') => Kind::Int,
            Some(b'l') => Kind::List,
            Some(b'd') => Kind::Dict,
            _ => Kind::Bytes,
        }
    }

    /// The value's own bytes in the input, from its first to its last.
    pub fn raw(self) -> &'a [u8] {
        let token = self.token();
        &self.document.bytes[token.start as usize..token.end as usize]
    }

    /// The number; `None` when the value is something else.
    pub fn as_int(self) -> Option<i64> {
        let digits = self.raw().strip_prefix(b"i")?.strip_suffix(b"e")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The number when it is not negative.
    pub fn as_uint(self) -> Option<u64> {
        self.as_int().and_then(|number| u64::try_from(number).ok())
    }

    /// The string's bytes; `None` when the value is something else.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        if self.kind() != Kind::Bytes {
            return None;
        }
        let raw = self.raw();
        let colon = raw.iter().position(|&byte| byte == b':')?;
        raw.get(colon + 1..)
    }

    /// The string when it is UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The list's items in order; `None` when the value is something else.
    pub fn as_list(self) -> Option<Items<'d, 'a>> {
        (self.kind() == Kind::List).then(|| self.items())
    }

    /// The dictionary's entries in the order of the input; `None` when the value is something else.
    pub fn as_dict(self) -> Option<Entries<'d, 'a>> {
        (self.kind() == Kind::Dict).then(|| Entries(self.items()))
    }

    /// The dictionary's value under `key`, in time linear in the number of entries; `None` when there is none
    /// or the value is no dictionary.
    pub fn lookup(self, key: &[u8]) -> Option<Value<'d, 'a>> {
        self.as_dict()?.find(|&(name, _)| name == key).map(|(_, value)| value)
    }

    fn token(self) -> Token {
        self.document.tokens[self.index as usize]
    }

    fn items(self) -> Items<'d, 'a> {
        Items { document: self.document, index: self.index + 1, end: self.token().next }
    }
}

/// The values directly inside a list, in order.
#[derive(Clone, Debug)]
pub struct Items<'d, 'a> {
    document: &'d Document<'a>,
    index: u32,
    end: u32,
}

impl<'d, 'a> Iterator for Items<'d, 'a> {
    type Item = Value<'d, 'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.end {
            return None;
        }
        let value = Value { document: self.document, index: self.index };
        self.index = value.token().next;
        Some(value)
    }
}

/// A dictionary's keys and values, in order of the input.
#[derive(Clone, Debug)]
pub struct Entries<'d, 'a>(Items<'d, 'a>);

impl<'d, 'a> Iterator for Entries<'d, 'a> {
    type Item = (&'a [u8], Value<'d, 'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.next()?.as_bytes()?;
        Some((key, self.0.next()?))
    }
}

#[cfg(test)]
mod tests;
