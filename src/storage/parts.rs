//! A torrent with more files than may be open at once is opened part by part.
//!
//! A part is a run of bytes of the torrent, and whatever a peer may ask for that begins in it lies in the part's files, the
//! request's end included. Files that are too many even for the shortest part are read into memory instead, one after the
//! other. Invariant: parts follow on each other without a gap, and none needs more files open than is allowed.

use super::layout::{FileIndex, Layout};
use crate::limits::{PART_LEN_STEP, REQUEST_LEN_MAX};
use std::ops::Range;

/// One part of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Bytes of the torrent that lie in the part's files, those for the ends of requests included.
    pub(super) bytes: Range<u64>,
    /// Its files, by number; files without bytes on disk among them do not count.
    pub(super) files: Range<u32>,
    /// Files of these that have bytes on disk.
    pub(super) stored: usize,
    /// Its files are too many to be open: they are read into memory.
    pub(super) is_copied: bool,
}

/// All parts of a torrent; one, when its files are few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Where each part begins, the first at zero, rising.
    starts: Box<[u64]>,
    parts: Box<[Part]>,
}

impl Parts {
    /// The parts of `layout`, none of which has more than `files_max` files open.
    pub(super) fn of(layout: &Layout, files_max: usize) -> Self {
        let stored: Vec<(FileIndex, u64, u64)> = layout
            .stored_files()
            .filter_map(|(index, file)| {
                let start = layout.start_of(index)?;
                Some((index, start, start + file.len))
            })
            .collect();
        let (total, files_max) = (layout.total_len(), files_max.max(1));
        let mut begin = 0;
        let (mut starts, mut parts) = (Vec::new(), Vec::new());
        loop {
            let first = stored.partition_point(|&(_, _, end)| end <= begin);
            // What begins before the first file that is one too many, less the longest request, may be asked of this part.
            let (mut end, mut is_copied) = (total, false);
            if let Some(&(_, too_many, _)) = stored.get(first + files_max) {
                end = too_many.saturating_sub(REQUEST_LEN_MAX.into()) / PART_LEN_STEP * PART_LEN_STEP;
                if end <= begin {
                    (end, is_copied) = (begin + PART_LEN_STEP, true);
                }
            }
            let bytes = begin..end.saturating_add(REQUEST_LEN_MAX.into()).min(total);
            let behind = stored.partition_point(|&(_, start, _)| start < bytes.end);
            let its = stored.get(first..behind).unwrap_or_default();
            let files = match (its.first(), its.last()) {
                (Some((first, ..)), Some((last, ..))) => first.0..last.0 + 1,
                _ => 0..0,
            };
            starts.push(begin);
            parts.push(Part { bytes, files, stored: its.len(), is_copied });
            if end >= total {
                return Self { starts: starts.into(), parts: parts.into() };
            }
            begin = end;
        }
    }

    /// The number of the part that has what begins at this byte.
    pub(super) fn at(&self, byte: u64) -> u32 {
        self.starts.partition_point(|&start| start <= byte).saturating_sub(1) as u32
    }

    /// One part; the last for a number behind it.
    pub(super) fn get(&self, part: u32) -> &Part {
        let last = self.parts.len() - 1;
        &self.parts[(part as usize).min(last)]
    }

    /// Whether all of the torrent is one part.
    pub(super) fn is_one(&self) -> bool {
        self.parts.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LayoutFile;
    use proptest::prelude::*;

    fn layout(lens: impl IntoIterator<Item = u64>) -> Layout {
        let files = lens.into_iter().enumerate().map(|(index, len)| LayoutFile {
            path: index.to_string().into(),
            len,
            padding: index % 7 == 3,
        });
        Layout::new(1 << 20, files).unwrap()
    }

    #[test]
    fn few_files_are_one_part_and_no_files_are_one_too() {
        for lens in [vec![], vec![0], vec![1 << 40], vec![1 << 30; 10]] {
            let layout = layout(lens);
            let parts = Parts::of(&layout, 10);
            assert!(parts.is_one());
            let part = parts.get(0);
            assert_eq!((part.bytes.clone(), part.is_copied), (0..layout.total_len(), false));
        }
    }

    #[test]
    fn a_hundred_thousand_small_files_are_few_hundred_parts() {
        let layout = layout((0..100_000).map(|_| 4096));
        let parts = Parts::of(&layout, 256);
        assert!((300..1200).contains(&parts.parts.len()), "{}", parts.parts.len());
        assert!(parts.parts.iter().all(|part| !part.is_copied));
    }

    #[test]
    fn files_that_are_too_many_for_any_part_are_read_into_memory() {
        let layout = layout((0..100_000).map(|_| 10));
        let parts = Parts::of(&layout, 256);
        assert!(parts.parts.iter().all(|part| part.is_copied || part.bytes.end == layout.total_len()));
    }

    proptest! {
        #[test]
        fn whatever_may_be_asked_lies_in_the_files_of_one_part(
            lens in prop::collection::vec(
                prop_oneof![Just(0_u64), 1..100_u64, 1000..200_000_u64, 1_000_000..3_000_000_u64], 1..200),
            files_max in 1_usize..40,
            asked in prop::collection::vec((any::<u64>(), 1_u64..=u64::from(REQUEST_LEN_MAX)), 20),
        ) {
            let layout = layout(lens);
            let parts = Parts::of(&layout, files_max);
            prop_assert_eq!(parts.starts.first(), Some(&0));
            prop_assert!(parts.starts.is_sorted());
            for part in &parts.parts {
                prop_assert!(part.is_copied || part.stored <= files_max);
                let stored = layout.stored_files().filter(|(index, _)| part.files.contains(&index.0)).count();
                prop_assert_eq!(stored, part.stored);
                if part.is_copied {
                    prop_assert!(part.bytes.end - part.bytes.start <= PART_LEN_STEP + u64::from(REQUEST_LEN_MAX));
                }
            }
            for (place, len) in asked {
                let begin = place % layout.total_len().max(1);
                let end = (begin + len).min(layout.total_len());
                let part = parts.get(parts.at(begin));
                prop_assert!(part.bytes.start <= begin && end <= part.bytes.end);
                for (index, file) in layout.stored_files() {
                    let start = layout.start_of(index).unwrap();
                    if start < end && start + file.len > begin {
                        prop_assert!(part.files.contains(&index.0));
                    }
                }
            }
        }
    }
}
