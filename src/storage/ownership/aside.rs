//! Files that are most likely the torrent's own and cannot be proven to be: what they hold is kept aside before a byte of it is
//! lost.
//!
//! Such a file lies in the torrent's folder among files that are proven, and is as long as the torrent's; but whoever wrote it may
//! have changed it since. Refusing it would make repairing another client's copy impossible, where a small file shares its only
//! piece with a missing one; writing over it would trust a length. So the bytes that come are compared with those that are there.
//! Where they are the same, or nothing but zeros was there, nothing is lost; before the first others are written, the file as it is
//! is copied beside itself (`NAME.before-download`) and brought to the disk. Invariant: until then no record calls the file ours
//! in the state that it is in, so that a run that is killed leaves it as doubtful as it was.
//!
//! A file that is the torrent's beyond doubt and was altered since it was noted, as a disk image that has been used, is copied at
//! once: what is known to be wrong there is sure to be lost.

use super::super::error::StorageError;
use super::super::fingerprint::FileStamp;
use super::super::layout::{FileIndex, FileSpan, Layout};
use super::super::piece_reader::read_exactly;
use super::super::root::Root;
use super::super::selection::{FileSelection, parts_index};
use super::content::Claim;
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
    files: BTreeMap<FileIndex, Doubtful>,
}

#[derive(Debug)]
struct Doubtful {
    path: PathBuf,
    /// What a record had noted of it before it was changed.
    noted: Option<FileStamp>,
    is_kept: Mutex<bool>,
}

impl Aside {
    /// Of the files of which `claims` says so; `None` when there are none.
    ///
    /// # Errors
    /// The folder cannot be opened, or what has to be kept cannot be.
    pub(in crate::storage) fn of(
        layout: &Layout,
        root: &Path,
        selection: &FileSelection,
        claims: &Claims,
    ) -> Result<Option<Self>, StorageError> {
        let files = (0..).map(FileIndex).zip(layout.files().iter().map(|file| file.path.as_path()));
        let indices = files.chain(selection.parts_path().map(|path| (parts_index(layout), path)));
        let mut aside = None;
        for (index, path) in indices {
            let Claim { permit, noted, .. } = claims.of_file(index);
            if !matches!(permit, Permit::WriteKeeping | Permit::KeepAndWrite) {
                continue;
            }
            let aside = match &mut aside {
                Some(aside) => aside,
                none => none.insert(Self { root: Root::open(root)?, files: BTreeMap::new() }),
            };
            let is_kept = permit == Permit::KeepAndWrite;
            if is_kept {
                let (fd, _) = aside.root.open_file(path)?;
                aside.keep(path, File::from(fd))?;
            }
            let doubtful = Doubtful { path: path.to_owned(), noted, is_kept: Mutex::new(is_kept) };
            aside.files.insert(index, doubtful);
        }
        Ok(aside)
    }

    /// Whether a file may still hold what is somebody else's and nowhere kept.
    pub(in crate::storage) fn is_doubtful(&self, file: FileIndex) -> bool {
        self.files.get(&file).is_some_and(|it| !*it.is_kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is to be noted of such a file: what had been, so that it counts as changed since.
    pub(in crate::storage) fn noted(&self, file: FileIndex) -> Option<FileStamp> {
        self.files.get(&file).filter(|_| self.is_doubtful(file))?.noted
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
        let Some(Doubtful { path, is_kept, .. }) = self.files.get(&span.file) else { return Ok(()) };
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
            self.keep(path, File::from(fd))?;
            *is_kept = true;
        }
        Ok(())
    }

    /// Copies a file beside itself, under a name that is free, and says so.
    fn keep(&self, path: &Path, mut file: File) -> Result<(), StorageError> {
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
            if copied.is_ok() {
                let (path, kept) = (self.root.full_path(path), self.root.full_path(&beside));
                tracing::warn!(
                    path = %path.display(), kept = %kept.display(),
                    "the file is not what the torrent has; it is kept under another name and downloaded"
                );
            }
            return copied;
        }
        Err(StorageError::NotOurs(self.root.full_path(path)))
    }
}
