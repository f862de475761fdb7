//! The field's quantities: pieces and blocks, sizes and rates as people write them.

use std::fmt;
use std::str::FromStr;

/// Bytes of a block, the unit in which every client requests (BEP 3 calls 2^14 the universal size).
pub const BLOCK_LEN: u32 = 16 * 1024;

/// A piece's number within its torrent, from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(pub u32);

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of bytes inside one piece, as requests, cancels, rejects and piece messages name it (BEP 3).
/// Not yet checked against any torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSpan {
    /// The piece.
    pub piece: PieceIndex,
    /// First byte within the piece.
    pub begin: u32,
    /// Number of bytes.
    pub len: u32,
}

impl fmt::Display for BlockSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "piece {} bytes {}+{}", self.piece, self.begin, self.len)
    }
}

/// So many of something: `0 peers`, `1 peer`, `2 leeches`. The noun is given for one.
#[derive(Clone, Copy, Debug)]
pub struct Counted<T>(pub T, pub &'static str);

impl<T: fmt::Display + PartialEq + From<u8>> fmt::Display for Counted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        let (stem, end) = match noun {
            _ if *count == T::from(1) => (*noun, ""),
            noun if ["s", "x", "ch", "sh"].iter().any(|end| noun.ends_with(end)) => (*noun, "es"),
            noun if noun.ends_with("try") => (noun.trim_end_matches('y'), "ies"),
            noun => (*noun, "s"),
        };
        write!(f, "{count} {stem}{end}")
    }
}

/// A number of bytes, written as `16384`, `256KiB`, `1.5 GiB`, `10MB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Bytes a second, written as `500kB/s`, `1MiB`, `0` (the `/s` may be left out).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRate(pub u64);

/// Why a text is no size or rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No number in front.
    #[error("{0:?} does not begin with a number; write for example 256KiB or 10MB")]
    NoNumber(String),
    /// The number is followed by something unknown.
    #[error("{0:?} is no unit; the units are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB")]
    UnknownUnit(String),
    /// More bytes than 64 bits count.
    #[error("{0:?} is more than 16 EiB")]
    TooLarge(String),
}

const UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let unit = unit.trim();
        let factor = UNITS
            .iter()
            .find(|(name, _)| unit.eq_ignore_ascii_case(name))
            .map(|&(_, factor)| factor)
            .ok_or_else(|| UnitError::UnknownUnit(unit.to_owned()))?;
        let too_large = || UnitError::TooLarge(text.to_owned());
        if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            let whole: u64 = number.parse().map_err(|_| too_large())?;
            return whole.checked_mul(factor).map(Self).ok_or_else(too_large);
        }
        let fraction: f64 = number.parse().map_err(|_| UnitError::NoNumber(text.to_owned()))?;
        let bytes = fraction * factor as f64;
        if bytes < u64::MAX as f64 { Ok(Self(bytes as u64)) } else { Err(too_large()) }
    }
}

impl FromStr for ByteRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let trimmed = text.trim();
        trimmed.strip_suffix("/s").unwrap_or(trimmed).parse::<ByteSize>().map(|size| Self(size.0))
    }
}

impl fmt::Display for ByteSize {
    /// Binary units with one decimal: `1.5 GiB`; below 1 KiB plain bytes: `17 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut name = 0;
        while value >= 1023.95 && name + 1 < NAMES.len() {
            value /= 1024.0;
            name += 1;
        }
        write!(f, "{value:.1} {}", NAMES[name])
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", ByteSize(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_follow_their_number() {
        let of = |count: u64| {
            ["peer", "leech", "more try", "piece hash", "box"].map(|noun| Counted(count, noun).to_string())
        };
        assert_eq!(of(0), ["0 peers", "0 leeches", "0 more tries", "0 piece hashes", "0 boxes"]);
        assert_eq!(of(1), ["1 peer", "1 leech", "1 more try", "1 piece hash", "1 box"]);
        assert_eq!(of(12)[1], "12 leeches");
    }

    #[test]
    fn reads_sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("16384", 16_384),
            ("256KiB", 262_144),
            ("256kib", 262_144),
            ("1.5 GiB", 1_610_612_736),
            ("10MB", 10_000_000),
            ("1k", 1024),
            (" 7 b ", 7),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
        assert_eq!("500kB/s".parse::<ByteRate>(), Ok(ByteRate(500_000)));
    }

    #[test]
    fn refuses_what_is_no_size() {
        assert!(matches!("".parse::<ByteSize>(), Err(UnitError::NoNumber(_))));
        assert!(matches!("KiB".parse::<ByteSize>(), Err(UnitError::NoNumber(_))));
        assert!(matches!("1.2.3MB".parse::<ByteSize>(), Err(UnitError::NoNumber(_))));
        assert!(matches!("12 bananas".parse::<ByteSize>(), Err(UnitError::UnknownUnit(_))));
        assert!(matches!("-1".parse::<ByteSize>(), Err(UnitError::UnknownUnit(_))));
        assert!(matches!("99999999999999999999".parse::<ByteSize>(), Err(UnitError::TooLarge(_))));
        assert!(matches!("99999999TiB".parse::<ByteSize>(), Err(UnitError::TooLarge(_))));
    }

    #[test]
    fn prints_sizes_with_one_decimal() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        assert_eq!(ByteRate(2048).to_string(), "2.0 KiB/s");
    }
}
