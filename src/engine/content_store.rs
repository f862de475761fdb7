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
            _ => self.fail_because(Some(span), errno),
        }
    }

    fn handle_unreadable(&self) {
        self.fail_because(None, libc::EFAULT);
    }

    fn read(&self, span: BlockSpan, bytes: &mut Vec<u8>) -> Readiness {
        for part in self.layout().spans(span) {
            let start = bytes.len();
            bytes.resize(start + part.len as usize, 0);
            // Padding has no descriptor and reads as zeros.
            let Some(file) = self.file_fd(part.file) else { continue };
            let mut done = 0;
            while done < part.len as usize {
                match rustix::io::pread(file, &mut bytes[start + done..], part.offset + done as u64) {
                    Ok(0) => {
                        self.fail_because(Some(part), libc::EFAULT);
                        return Readiness::Failed;
                    }
                    Ok(read) => done += read,
                    Err(Errno::INTR) => {}
                    Err(errno) => {
                        self.fail_because(Some(part), errno.raw_os_error());
                        return Readiness::Failed;
                    }
                }
            }
        }
        Readiness::Ready
    }

    fn fault(&self) -> Option<String> {
        Content::fault(self).map(|fault| match std::error::Error::source(fault) {
            Some(cause) => format!("{fault}: {cause}"),
            None => fault.to_string(),
        })
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
            index: part.file.0,
            offset: range.offset,
            mapped: MappedRange { address: range.ptr, len },
        })
    }

    /// Reports why bytes could not be read: what the files say about themselves is more exact than an errno.
    fn fail_because(&self, span: Option<FileSpan>, errno: i32) {
        let fault = match self.verify_files() {
            Err(fault) => fault,
            Ok(()) => {
                let path = span.and_then(|span| self.layout().file(span.file)).map(|file| file.path.clone());
                let path = path.unwrap_or_default();
                StorageError::Io { action: "read", path, errno: Errno::from_raw_os_error(errno) }
            }
        };
        self.fail(fault);
    }
}
