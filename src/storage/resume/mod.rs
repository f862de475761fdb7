//! What is remembered of a torrent across restarts, so that content checked once is not checked again.
//!
//! A [`Resume`] keeps the pieces found right with a [`Fingerprint`] of the files. While a torrent is downloaded its
//! files change all the time, so the record also says how far each of three witnesses goes: the page cache vouches
//! for `verified` until the machine restarts or the file system is unmounted, the disk vouches for `durable`, and after a run that ended in
//! order the fingerprint vouches for everything. [`Resume::judge`] weighs them. What was written after the record, by whom
//! ever, is vouched for by nobody: files that show it are looked at.
//! Deliberately absent: peers, and anything else that a tracker tells again.

use super::fingerprint::{FileStamp, Fingerprint};
use super::layout::{FileIndex, Layout};
use super::root::Root;
use super::selection::FileSelection;
use crate::bitfield::Bitfield;
use crate::id::InfoHash;
use std::path::{Path, PathBuf};

mod codec;
mod file;
mod judge;

pub use file::{ResumeProblem, default_state_dir, resume_path};
pub use judge::{ByFile, Verdict};

/// The life of a file system's page cache: from the mount until it is unmounted, or pulled, or the machine restarts. Made
/// of what the kernel calls the time since the machine started (`/proc/sys/kernel/random/boot_id`) and of the mount's
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// Of the file system that `folder` lies on, as it is mounted now; `None` where the kernel does not tell.
    pub fn of(folder: &Path) -> Option<Self> {
        Self::of_root(&Root::open(folder).ok()?)
    }

    /// [`Self::of`] an open folder, wherever its path now leads.
    pub(in crate::storage) fn of_root(root: &Root) -> Option<Self> {
        let Self(mut bytes) = Self::current()?;
        for (byte, of_mount) in bytes.iter_mut().zip(root.mount_id()?.to_le_bytes()) {
            *byte ^= of_mount;
        }
        Some(Self(bytes))
    }

    /// This boot's; `None` where the kernel does not tell.
    fn current() -> Option<Self> {
        Self::parse(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim())
    }

    fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|&letter| letter != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(&digits, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

/// What is remembered of one torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Its files: when they were checked, or when this was written.
    pub fingerprint: Fingerprint,
    /// The pieces that were right.
    pub verified: Bitfield,
    /// Those of them that had been brought to the disk.
    pub durable: Bitfield,
    /// Whether nothing was being written any more: the fingerprint then vouches for the pieces.
    pub is_clean: bool,
    /// The boot that this was written in; `None` when unknown.
    pub boot_id: Option<BootId>,
    /// The folder that its files lie in, without links, of a torrent that was downloaded: with their inodes it names them as
    /// ours to write to.
    pub folder: Option<PathBuf>,
    /// The files that were wanted.
    pub selection: FileSelection,
    /// Bytes of pieces uploaded in all runs together.
    pub uploaded: u64,
    /// Bytes of pieces downloaded in all runs together.
    pub downloaded: u64,
}

impl Resume {
    /// Of a torrent all of whose files are wanted and none is being written, with nothing up- or downloaded.
    pub fn clean(info_hash: InfoHash, fingerprint: Fingerprint, verified: Bitfield) -> Self {
        let durable = verified.clone();
        let (boot_id, selection) = (None, FileSelection::all());
        let (uploaded, downloaded) = (0, 0);
        Self {
            info_hash,
            fingerprint,
            verified,
            durable,
            is_clean: true,
            boot_id,
            folder: None,
            selection,
            uploaded,
            downloaded,
        }
    }

    /// The stamps of the files of the layout that this is of, by file number.
    pub(super) fn stamps(&self, layout: &Layout) -> Vec<Option<FileStamp>> {
        let mut stamps = vec![None; layout.files().len()];
        for ((FileIndex(file), _), stamp) in layout.stored_files().zip(&self.fingerprint.files) {
            stamps.get_mut(file as usize).into_iter().for_each(|slot| *slot = *stamp);
        }
        stamps
    }

    /// Whether this is about the torrent as laid out here, every piece was right, and its files are as they were.
    pub fn vouches_for(&self, info_hash: InfoHash, layout: &Layout, root: &Path) -> bool {
        self.info_hash == info_hash
            && self.verified.len() == layout.piece_count()
            && self.verified.is_full()
            && self.is_clean
            && self.fingerprint.matches(layout, root)
    }
}

#[cfg(test)]
mod tests;
