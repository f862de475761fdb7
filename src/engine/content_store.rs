//! [`storage::Content`](crate::storage::Content) as the workers see it.

use super::ring::MappedRange;
use super::store::{BlockStore, ColdRange, Extent, Readiness};
use crate::storage::{Content, FileIndex, FileSpan, StorageError};
use crate::time::Instant;
use crate::units::BlockSpan;
use rustix::io::Errno;

impl BlockStore for Content {
    fn gather(&self, now: Instant, span: BlockSpan, extents: &mut Vec<Extent>) -> Readiness {
        if Content::fault(self).is_some() {
            return Readiness::Failed;
        }
        for part in self.layout().spans(span) {
            if !self.is_resident(now, part.file, part.offset, part.len) {
                return self.cold(now, part);
            }
        }
        extents.extend(self.slices(span).map(|slice| Extent { address: slice.ptr, len: slice.len }));
        Readiness::Ready
    }

    fn handle_fetched(&self, now: Instant, range: &ColdRange, errno: Option<i32>) {
        let span = FileSpan { file: FileIndex(range.index), offset: range.offset, len: range.mapped.len };
        let Some(errno) = errno else { return self.mark_resident(now, span) };
        match errno {
            // Too busy, or the worker is ending: the next send asks again.
            libc::EAGAIN | libc::EINTR | libc::ECANCELED | libc::ENOMEM => {}
            // A kernel that cannot populate (before 5.14): the advice alone has to do.
            libc::EINVAL | libc::EOPNOTSUPP => self.mark_resident(now, span),
            _ => {
                self.fail_unreadable(Some(span.file), Errno::from_raw_os_error(errno));
            }
        }
    }

    fn handle_unreadable(&self) {
        self.fail_unreadable(None, Errno::FAULT);
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

impl Content {
    fn cold(&self, now: Instant, part: FileSpan) -> Readiness {
        let Some(range) = self.populate_range(part) else { return Readiness::Failed };
        self.mark_loading(now, part);
        // A block touches at most two windows, so the length fits.
        let len = u32::try_from(range.len).unwrap_or(u32::MAX);
        Readiness::Cold(ColdRange {
            file: range.fd,
            index: range.file.0,
            offset: range.offset,
            mapped: MappedRange { address: range.ptr, len },
        })
    }
}
