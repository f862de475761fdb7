//! Which files of a torrent a magnet link wants: `so=0,2,6-8` (BEP 53).
//!
//! Kept as ranges, never as single numbers: `0-4294967295` costs as much as `0`. Parts that make no sense are left out.

use crate::limits::MAGNET_SELECTED_RANGES_MAX;
use std::fmt;

/// A choice of files by their number, from zero. Never empty; ranges ascend and leave gaps between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSelection(Vec<(u32, u32)>);

impl FileSelection {
    /// Reads the value of `so`, escapes decoded. `None` when no part of it is a number or a range. Parts beyond
    /// [`MAGNET_SELECTED_RANGES_MAX`] are ignored.
    pub(super) fn from_value(value: &[u8]) -> Option<Self> {
        let parts = value.split(|&byte| byte == b',').filter_map(range).take(MAGNET_SELECTED_RANGES_MAX);
        let mut ranges: Vec<(u32, u32)> = parts.collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        (!merged.is_empty()).then_some(Self(merged))
    }

    /// Whether file `index` is wanted.
    pub fn contains(&self, index: u32) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&index))
    }

    /// The wanted files of a torrent of `file_count` files, ascending. Numbers behind the last file are none.
    pub fn indices(&self, file_count: u32) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(move |&(first, last)| first..last.saturating_add(1).min(file_count))
    }
}

/// One number, or two with a dash between them.
fn range(part: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(part).ok()?.trim();
    let number =
        |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// As BEP 53 writes it.
impl fmt::Display for FileSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selection(text: &str) -> Option<FileSelection> {
        FileSelection::from_value(text.as_bytes())
    }

    #[test]
    fn reads_the_example_of_the_bep_and_merges_what_touches() {
        let chosen = selection("0,2,4,6-8").unwrap();
        assert_eq!(chosen.indices(8).collect::<Vec<_>>(), [0, 2, 4, 6, 7]);
        assert!(chosen.contains(8) && !chosen.contains(5) && !chosen.contains(9));
        assert_eq!(selection("8,1-3,2-4,5").map(|chosen| chosen.to_string()).as_deref(), Some("1-5,8"));
    }

    // HOSTILE 16
    #[test]
    fn hostile_values_are_bounded_or_left_out() {
        let everything = selection("0-4294967295,4294967295").unwrap();
        assert_eq!(everything.0.len(), 1);
        assert_eq!(everything.indices(3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(everything.indices(u32::MAX).nth(1000), Some(1000));
        for none in ["", ",", "-", "1-", "-1", "3-2", "+1", "0x1", "1-2-3", "4294967296", "\u{0661}"] {
            assert_eq!(selection(none), None, "{none}");
        }
        assert_eq!(selection("x,5,7-6").map(|chosen| chosen.to_string()).as_deref(), Some("5"));
        let many: String = (0..5_000).map(|n| format!("{},", 2 * n)).collect();
        assert_eq!(selection(&many).map(|chosen| chosen.0.len()), Some(MAGNET_SELECTED_RANGES_MAX));
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_set_and_round_trips(
            parts in prop::collection::vec((0..40u32, 0..10u32), 1..10), file_count in 0..60u32,
        ) {
            let text = parts.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect::<Vec<_>>().join(",");
            let chosen = selection(&text).unwrap();
            let naive: Vec<u32> = (0..file_count)
                .filter(|index| parts.iter().any(|&(first, more)| (first..=first + more).contains(index)))
                .collect();
            prop_assert_eq!(chosen.indices(file_count).collect::<Vec<_>>(), naive);
            prop_assert_eq!(selection(&chosen.to_string()), Some(chosen));
        }
    }
}
