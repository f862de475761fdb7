//! Files that are most likely the torrent's own and cannot be proven to be: what they hold is kept aside before a byte of it is
//! lost.
//!
//! Such a file lies in the torrent's folder among files that are proven, and is as long as the torrent's; but whoever wrote it may
//! have changed it since. Refusing it would make repairing another client's copy impossible, where a small file shares its only
//! piece with a missing one; writing over it would trust a length. So the bytes that come are compared with those that are there.
//! Where they are the same, or nothing but zeros was there, nothing is lost; before the first others are written, the file as it is
//! is copied beside itself (`NAME.before-download`) and brought to the disk. Invariant: until then no record calls the file ours,
//! so that a run that is killed leaves it as doubtful as it was.

use super::super::error::StorageError;
use super::super::layout::{FileIndex, FileSpan, Layout};
use super::super::piece_reader::read_exactly;
use super::super::root::Root;
use super::{Claims, Permit};
use crate::limits::ASIDE_NAMES_MAX;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Doubtful files of one download.
#[derive(Debug)]
pub(in crate::storage) struct Aside {
    root: Root,
    /// Where each lies, and whether it was kept.
    files: BTreeMap<FileIndex, (PathBuf, Mutex<bool>)>,
}

impl Aside {
    /// Of the files of which `claims` says so; `None` when there are none.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub(in crate::storage) fn of(
        layout: &Layout,
        root: &Path,
        claims: &Claims,
    ) -> Result<Option<Self>, StorageError> {
        let indices = (0..).map(FileIndex).zip(layout.files());
        let doubtful = indices.filter(|(index, _)| claims.of_file(*index).permit == Permit::WriteKeeping);
        let files: BTreeMap<_, _> =
            doubtful.map(|(index, file)| (index, (file.path.clone(), Mutex::new(false)))).collect();
        if files.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { root: Root::open(root)?, files }))
    }

    /// Whether a file may still hold what is somebody else's and nowhere kept.
    pub(in crate::storage) fn is_doubtful(&self, file: FileIndex) -> bool {
        let is_kept = |kept: &Mutex<bool>| *kept.lock().unwrap_or_else(PoisonError::into_inner);
        self.files.get(&file).is_some_and(|(_, kept)| !is_kept(kept))
    }

    /// To be called before `bytes` are written there; keeps the file when something of it would be lost. May wait for the disk.
    ///
    /// # Errors
    /// What the disk says; nothing may be written then.
    pub(in crate::storage) fn before_writing(
        &self,
        span: FileSpan,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        let Some((path, is_kept)) = self.files.get(&span.file) else { return Ok(()) };
        // Held while it is copied, so that nobody writes meanwhile.
        let mut is_kept = is_kept.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_kept {
            return Ok(());
        }
        let (fd, _) = self.root.open_file(path)?;
        let mut there = vec![0; bytes.len()];
        // Behind its end there is nothing to lose.
        read_exactly(&fd, &mut there, span.offset)
            .map_err(|errno| StorageError::at("read", &self.root.full_path(path), errno))?;
        let is_lost = there.iter().zip(bytes).any(|(there, new)| there != new && *there != 0);
        if is_lost {
            let kept = self.keep(path, File::from(fd))?;
            *is_kept = true;
            let (path, kept) = (self.root.full_path(path), self.root.full_path(&kept));
            tracing::warn!(
                path = %path.display(), kept = %kept.display(),
                "the file is not what the torrent has; it is kept under another name and downloaded"
            );
        }
        Ok(())
    }

    /// Copies a file beside itself, under a name that is free.
    fn keep(&self, path: &Path, mut file: File) -> Result<PathBuf, StorageError> {
        for number in 1..=ASIDE_NAMES_MAX {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".before-download");
            if number > 1 {
                name.push(format!("-{number}"));
            }
            let beside = path.with_file_name(name);
            let made = match self.root.make_file(&beside) {
                Ok((made, _)) => made,
                Err(
                    StorageError::NotOurs(_) | StorageError::WrongKind { .. } | StorageError::SymbolicLink(_),
                ) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut copy = File::from(made);
            let copied = io::copy(&mut file, &mut copy).and_then(|_| copy.sync_all());
            let failed = |error: io::Error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                StorageError::writing("copy to", &self.root.full_path(&beside), errno)
            };
            let copied = copied.map_err(failed);
            let copied =
                copied.and_then(|()| self.root.sync_folder(beside.parent().unwrap_or(Path::new(""))));
            if copied.is_err() {
                // It will be tried again, and half copies are not to pile up. That it cannot be removed is no worse than that.
                let _ = self.root.remove_file(&beside);
            }
            return copied.map(|()| beside);
        }
        Err(StorageError::NotOurs(self.root.full_path(path)))
    }
}
