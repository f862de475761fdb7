//! The parser: one pass, its own stack, strict.
//!
//! Each turn of the loop reads one value or one closing `e`. Keys in ascending order, the rule, cost one
//! comparison each; a dictionary that breaks it has its keys sorted once at its end, to find repeats.

use super::Document;
use crate::limits::{BENCODE_DEPTH_MAX, BENCODE_TOKENS_MAX};

/// Why bytes are no bencode. Positions are bytes from the start of the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BencodeError {
    /// The input ends inside a value.
    #[error("bencode ends at byte {at} in the middle of a value; the data is cut short")]
    Truncated {
        /// The input's length.
        at: usize,
    },
    /// No value begins with this byte.
    #[error("no bencoded value begins with byte 0x{byte:02x} (at byte {at})")]
    UnexpectedByte {
        /// Where.
        at: usize,
        /// Which.
        byte: u8,
    },
    /// An integer that is empty, has leading zeros, is minus zero or has other characters than digits.
    #[error("the bencoded integer at byte {at} is malformed")]
    IntMalformed {
        /// Where it begins.
        at: usize,
    },
    /// An integer beyond 64 bits with sign.
    #[error("the bencoded integer at byte {at} does not fit into 64 bits")]
    IntTooLarge {
        /// Where it begins.
        at: usize,
    },
    /// A string's length has leading zeros or other characters than digits.
    #[error("the length of the bencoded string at byte {at} is malformed")]
    LenMalformed {
        /// Where the string begins.
        at: usize,
    },
    /// A string says to be longer than the rest of the input.
    #[error("the bencoded string at byte {at} says to be longer than the {remaining} bytes that follow")]
    LenTooLarge {
        /// Where the string begins.
        at: usize,
        /// Bytes behind its colon.
        remaining: usize,
    },
    /// A dictionary's key is something else than a string.
    #[error("a key of a bencoded dictionary is no string (at byte {at})")]
    KeyNotString {
        /// Where the key begins.
        at: usize,
    },
    /// A dictionary ends behind a key.
    #[error("a bencoded dictionary has a key without a value (at byte {at})")]
    ValueMissing {
        /// Where the dictionary ends.
        at: usize,
    },
    /// A dictionary has a key twice.
    #[error("the bencoded dictionary at byte {at} has the key \"{}\" twice", key.escape_ascii())]
    KeyRepeated {
        /// Where the dictionary begins.
        at: usize,
        /// The key, at most its first 64 bytes.
        key: Vec<u8>,
    },
    /// Nested deeper than `BENCODE_DEPTH_MAX`.
    #[error("bencode is nested deeper than {BENCODE_DEPTH_MAX} levels at byte {at}")]
    TooDeep {
        /// Where the bound is passed.
        at: usize,
    },
    /// More values than `BENCODE_TOKENS_MAX`.
    #[error("bencode has more than {BENCODE_TOKENS_MAX} values")]
    TooManyValues,
    /// Bytes follow the outermost value.
    #[error("data follows the end of the bencoded value at byte {at}")]
    TrailingBytes {
        /// Where they begin.
        at: usize,
    },
    /// More bytes than the table can address.
    #[error("bencode of {len} bytes is longer than we read")]
    TooLong {
        /// The input's length.
        len: usize,
    },
}

/// One value: its bytes and where its next sibling stands in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) start: u32,
    pub(super) end: u32,
    /// Index of the first token that is not inside this one.
    pub(super) next: u32,
}

/// Parses one value that is the whole input.
///
/// # Errors
/// Whatever is not strict bencode, and trailing bytes.
pub fn parse(bytes: &[u8]) -> Result<Document<'_>, BencodeError> {
    let (document, rest) = parse_prefix(bytes)?;
    if rest.is_empty() {
        Ok(document)
    } else {
        Err(BencodeError::TrailingBytes { at: bytes.len() - rest.len() })
    }
}

/// Parses the value at the start of the input and returns the bytes behind it, as ut_metadata (BEP 9) needs.
///
/// # Errors
/// Whatever is not strict bencode.
pub fn parse_prefix(bytes: &[u8]) -> Result<(Document<'_>, &[u8]), BencodeError> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(BencodeError::TooLong { len: bytes.len() });
    }
    let mut parser = Parser { bytes, at: 0, tokens: Vec::new(), open: Vec::new() };
    while !parser.step()? {}
    let rest = bytes.get(parser.at..).unwrap_or_default();
    Ok((Document { bytes, tokens: parser.tokens }, rest))
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    tokens: Vec<Token>,
    open: Vec<Open<'a>>,
}

/// A container whose end has not come yet.
struct Open<'a> {
    /// Its token.
    index: u32,
    /// For a dictionary: how its keys come.
    keys: Option<Keys<'a>>,
}

struct Keys<'a> {
    last: Option<&'a [u8]>,
    ascending: bool,
    value_due: bool,
}

impl<'a> Parser<'a> {
    /// Reads one value, the head of a container, or the end of one; true when the outermost is complete.
    fn step(&mut self) -> Result<bool, BencodeError> {
        let at = self.at;
        let byte = self.peek()?;
        if byte == b'e' && !self.open.is_empty() {
            self.close()?;
        } else {
            self.expect_place(byte)?;
            if self.tokens.len() >= BENCODE_TOKENS_MAX {
                return Err(BencodeError::TooManyValues);
            }
            match byte {
                b'i' => self.int()?,
                b'0'..=b'9' => self.string()?,
                b'l' | b'd' => self.open(byte == b'd')?,
                _ => return Err(BencodeError::UnexpectedByte { at, byte }),
            }
        }
        Ok(self.open.is_empty())
    }

    /// In a dictionary keys and values take turns, and keys are strings.
    fn expect_place(&mut self, byte: u8) -> Result<(), BencodeError> {
        if let Some(Open { keys: Some(keys), .. }) = self.open.last_mut() {
            if !keys.value_due && !byte.is_ascii_digit() {
                return Err(BencodeError::KeyNotString { at: self.at });
            }
            keys.value_due = !keys.value_due;
        }
        Ok(())
    }

    fn peek(&self) -> Result<u8, BencodeError> {
        self.bytes.get(self.at).copied().ok_or(BencodeError::Truncated { at: self.bytes.len() })
    }

    fn int(&mut self) -> Result<(), BencodeError> {
        let start = self.at;
        self.at += 1;
        let negative = self.peek()? == b'-';
        if negative {
            self.at += 1;
        }
        let first_digit = self.at;
        let mut magnitude: u64 = 0;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'0'..=b'9' => {
                    magnitude = magnitude
                        .checked_mul(10)
                        .and_then(|tens| tens.checked_add(u64::from(byte - b'0')))
                        .ok_or(BencodeError::IntTooLarge { at: start })?;
                }
                b'e' => break,
                _ => return Err(BencodeError::IntMalformed { at: start }),
            }
        }
        let digits = self.at - 1 - first_digit;
        let zero_wrong = magnitude == 0 && negative;
        let leading_zero = digits > 1 && self.bytes.get(first_digit) == Some(&b'0');
        if digits == 0 || zero_wrong || leading_zero {
            return Err(BencodeError::IntMalformed { at: start });
        }
        if magnitude > i64::MAX.unsigned_abs() + u64::from(negative) {
            return Err(BencodeError::IntTooLarge { at: start });
        }
        self.push_leaf(start);
        Ok(())
    }

    fn string(&mut self) -> Result<(), BencodeError> {
        let start = self.at;
        let mut len: usize = 0;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                // No length beyond the input is of interest, so the number may stop growing there.
                b'0'..=b'9' => len = len.saturating_mul(10).saturating_add(usize::from(byte - b'0')),
                b':' => break,
                _ => return Err(BencodeError::LenMalformed { at: start }),
            }
        }
        let digits = self.at - 1 - start;
        if digits > 1 && self.bytes.get(start) == Some(&b'0') {
            return Err(BencodeError::LenMalformed { at: start });
        }
        let remaining = self.bytes.len() - self.at;
        if len > remaining {
            return Err(BencodeError::LenTooLarge { at: start, remaining });
        }
        let content = &self.bytes[self.at..self.at + len];
        self.at += len;
        self.push_leaf(start);
        self.note_key(content)
    }

    /// When the string just read was a key, compares it with the one before.
    fn note_key(&mut self, content: &'a [u8]) -> Result<(), BencodeError> {
        let Some(Open { index, keys: Some(keys) }) = self.open.last_mut() else { return Ok(()) };
        if !keys.value_due {
            return Ok(());
        }
        if keys.last == Some(content) {
            let at = self.tokens[*index as usize].start as usize;
            return Err(repeated(at, content));
        }
        keys.ascending &= keys.last.is_none_or(|last| last < content);
        keys.last = Some(content);
        Ok(())
    }

    fn open(&mut self, dict: bool) -> Result<(), BencodeError> {
        if self.open.len() >= BENCODE_DEPTH_MAX {
            return Err(BencodeError::TooDeep { at: self.at });
        }
        let index = self.tokens.len() as u32;
        let start = self.at as u32;
        self.tokens.push(Token { start, end: start, next: index + 1 });
        let keys = dict.then_some(Keys { last: None, ascending: true, value_due: false });
        self.open.push(Open { index, keys });
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), BencodeError> {
        let Some(Open { index, keys }) = self.open.pop() else { return Ok(()) };
        if keys.as_ref().is_some_and(|keys| keys.value_due) {
            return Err(BencodeError::ValueMissing { at: self.at });
        }
        self.at += 1;
        let next = self.tokens.len() as u32;
        let token = &mut self.tokens[index as usize];
        token.end = self.at as u32;
        token.next = next;
        let start = token.start as usize;
        if keys.is_some_and(|keys| !keys.ascending) { self.refuse_repeats(index, start) } else { Ok(()) }
    }

    fn refuse_repeats(&self, dict: u32, at: usize) -> Result<(), BencodeError> {
        let mut keys = Vec::new();
        let mut index = dict as usize + 1;
        while let Some(key) = self.tokens.get(index) {
            let raw = &self.bytes[key.start as usize..key.end as usize];
            let colon = raw.iter().position(|&byte| byte == b':').unwrap_or(0);
            keys.push(&raw[colon + 1..]);
            let Some(value) = self.tokens.get(key.next as usize) else { break };
            index = value.next as usize;
        }
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(repeated(at, pair[0])),
            None => Ok(()),
        }
    }

    /// Positions and indices fit 32 bits, since the input's length does.
    fn push_leaf(&mut self, start: usize) {
        let next = self.tokens.len() as u32 + 1;
        self.tokens.push(Token { start: start as u32, end: self.at as u32, next });
    }
}

fn repeated(at: usize, key: &[u8]) -> BencodeError {
    BencodeError::KeyRepeated { at, key: key[..key.len().min(64)].to_vec() }
}
