//! [`storage::Content`](crate::storage::Content) as the workers see it.

use super::ring::MappedRange;
use super::store::{BlockStore, ColdRange, Extent, Readiness};
use crate::storage::{Content, FileIndex, FileSpan, PopulateRange, Presence, StorageError};
use crate::time::Instant;
use crate::units::BlockSpan;
use rustix::io::Errno;
use std::sync::Arc;

impl BlockStore for Content {
    fn gather(&self, now: Instant, span: BlockSpan, extents: &mut Vec<Extent>) -> Readiness {
        if Content::fault(self).is_some() {
            return Readiness::Failed;
        }
        for part in self.layout().spans(span) {
            if self.is_resident(now, part.file, part.offset, part.len) {
                continue;
            }
            let missing = self.windows(now, part).find(|(_, presence)| *presence != Presence::Resident);
            if let Some((window, _)) = missing {
                return Readiness::Cold(cold(window));
            }
        }
        extents.extend(self.slices(span).map(|slice| Extent { address: slice.ptr, len: slice.len }));
        Readiness::Ready
    }

    fn find_absent(&self, now: Instant, span: BlockSpan, absent: &mut Vec<ColdRange>) {
        for part in self.layout().spans(span) {
            let windows = self.windows(now, part).filter(|(_, presence)| *presence == Presence::Absent);
            absent.extend(windows.map(|(window, _)| cold(window)));
        }
    }

    fn handle_fetching(&self, range: &ColdRange) {
        self.mark_loading(file_span(range));
    }

    fn handle_fetched(&self, now: Instant, range: &ColdRange, errno: Option<i32>) -> bool {
        let span = file_span(range);
        match errno {
            None => self.mark_resident(now, span),
            // Too busy, or the worker is ending: the next send has it fetched again.
            Some(libc::EAGAIN | libc::EINTR | libc::ECANCELED | libc::ENOMEM) => {}
            // A kernel that cannot populate (before 5.14): the advice alone has to do.
            Some(libc::EINVAL | libc::EOPNOTSUPP) => self.mark_resident(now, span),
            Some(_) => return true,
        }
        false
    }

    fn handle_unreadable(
        self: &Arc<Self>,
        at: Option<&ColdRange>,
        errno: i32,
        told: Box<dyn FnOnce() + Send>,
    ) {
        let file = at.map(|range| file_span(range).file);
        self.fail_unreadable_later(file, Errno::from_raw_os_error(errno), told);
    }

    fn read(&self, span: BlockSpan, bytes: &mut Vec<u8>) -> Readiness {
        match self.read_block(span, bytes) {
            Ok(()) => Readiness::Ready,
            Err(fault) => {
                self.fail(fault);
                Readiness::Failed
            }
        }
    }

    fn fault(&self) -> Option<String> {
        Content::fault(self).map(StorageError::with_cause)
    }
}

fn cold(window: PopulateRange) -> ColdRange {
    ColdRange {
        file: window.fd,
        device: window.device,
        index: window.file.0,
        offset: window.offset,
        mapped: MappedRange { address: window.ptr, len: window.len },
    }
}

fn file_span(range: &ColdRange) -> FileSpan {
    FileSpan { file: FileIndex(range.index), offset: range.offset, len: range.mapped.len }
}
