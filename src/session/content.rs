//! From a torrent and a place on disk to content that may be served: at once when nothing has changed since it
//! was last checked, otherwise after a check.

use super::on_demand::OnDemand;
use crate::bitfield::Bitfield;
use crate::engine::supply::Supply;
use crate::id::InfoHash;
use crate::metainfo::Metainfo;
use crate::storage::{
    self, CheckReport, Content, FileSelection, Fingerprint, Layout, Links, Resume, Sample, Shelf,
    ShelvedContent, StorageError, resume_path,
};
use crate::units::PieceIndex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A torrent whose place on disk has been found, not yet checked.
#[derive(Debug)]
pub struct Located {
    /// The torrent.
    pub metainfo: Metainfo,
    /// Where its torrent file lies, of one that has been read from there.
    pub torrent_file: Option<PathBuf>,
    /// Its files below `root`.
    pub layout: Arc<Layout>,
    /// The folder they lie in.
    pub root: PathBuf,
    /// What an earlier run knew, if it still holds.
    pub remembered: Option<Remembered>,
    /// It was made in this run.
    pub made_here: bool,
    /// The files as they were found, of content that is remembered.
    shelved: Option<ShelvedContent>,
    shelf: Shelf,
}

/// What an earlier run knew of a torrent.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// Pieces that were right; `None` when files have changed since.
    pub verified: Option<Bitfield>,
    /// Bytes uploaded until then.
    pub uploaded: u64,
    /// Bytes downloaded until then.
    pub downloaded: u64,
}

/// A torrent's files as the session has them.
#[derive(Clone, Debug)]
pub enum ServedContent {
    /// Open as long as the torrent is served, for pieces may come.
    Open(Arc<Content>),
    /// Opened when a peer asks.
    OnDemand(Arc<ShelvedContent>),
}

impl ServedContent {
    /// Where pieces lie in files.
    pub fn layout(&self) -> &Arc<Layout> {
        match self {
            Self::Open(content) => content.layout(),
            Self::OnDemand(content) => content.layout(),
        }
    }

    /// The first fault that anybody met.
    pub fn fault(&self) -> Option<&StorageError> {
        match self {
            Self::Open(content) => content.fault(),
            Self::OnDemand(content) => content.fault(),
        }
    }

    /// Reports a fault; true when it is the first, and thereby the one that stays.
    pub fn fail(&self, fault: StorageError) -> bool {
        match self {
            Self::Open(content) => content.fail(fault),
            Self::OnDemand(content) => content.fail(fault),
        }
    }

    /// Whether every file is still there and as it was. Not for data cores.
    ///
    /// # Errors
    /// What has changed.
    pub fn verify_files(&self) -> Result<(), StorageError> {
        match self {
            Self::Open(content) => content.verify_files(),
            Self::OnDemand(content) => content.verify_files(),
        }
    }

    /// The device that most of it lies on, in the kernel's number.
    pub(super) fn device(&self) -> u64 {
        match self {
            Self::Open(content) => content.device(),
            Self::OnDemand(content) => content.device(),
        }
    }

    /// How workers come by it.
    pub(super) fn supply(&self, info_hash: InfoHash, torrent_file: Option<&Path>) -> Supply<Content> {
        match self {
            Self::Open(content) => Supply::Open(Arc::clone(content)),
            Self::OnDemand(content) => {
                let (content, torrent_file) = (Arc::clone(content), torrent_file.map(Path::to_owned));
                Supply::OnDemand(Arc::new(OnDemand { content, info_hash, torrent_file }))
            }
        }
    }
}

/// A torrent that can be served.
#[derive(Debug)]
pub struct Checked {
    /// The torrent.
    pub metainfo: Metainfo,
    /// Where its torrent file lies, if that is known.
    pub torrent_file: Option<PathBuf>,
    /// It was made in this run.
    pub made_here: bool,
    /// Its files.
    pub content: ServedContent,
    /// The pieces that are right.
    pub verified: Bitfield,
    /// Those of them that had been brought to the disk before.
    pub durable: Bitfield,
    /// Its files at the time of the check.
    pub fingerprint: Fingerprint,
    /// Whether all that is in its resume file.
    pub is_noted: bool,
    /// Bytes uploaded in earlier runs.
    pub uploaded: u64,
    /// Bytes downloaded in earlier runs.
    pub downloaded: u64,
    /// Files that are missing or damaged, in the user's words.
    pub problems: Vec<String>,
    /// The files that are wanted, of a torrent that is downloaded; `None` when it is only seeded.
    pub selection: Option<FileSelection>,
    /// Pieces to have before the others.
    pub first: Option<Bitfield>,
}

impl Located {
    /// Finds the content at `data` and what is remembered of it in `state_dir`.
    pub fn find(
        metainfo: Metainfo,
        data: &Path,
        links: Links,
        state_dir: Option<&Path>,
        shelf: &Shelf,
    ) -> Result<Self, StorageError> {
        let (layout, root) = storage::locate(metainfo.info(), data, links)?;
        let layout = Arc::new(layout);
        let mut shelved = None;
        let remembered = state_dir
            .and_then(|folder| Resume::load(&resume_path(folder, metainfo.info_hash())).ok())
            .filter(|resume| resume.info_hash == metainfo.info_hash())
            .map(|resume| {
                // While pieces were written a fingerprint vouches for nothing: a crash may have lost what it saw.
                let mut holds = resume.is_clean && resume.verified.len() == layout.piece_count();
                if holds {
                    let found = ShelvedContent::new(Arc::clone(&layout), root.clone(), shelf).ok();
                    shelved = found.filter(|found| resume.fingerprint.vouches_for(&found.fingerprint()));
                    holds = shelved.is_some();
                }
                Remembered {
                    verified: holds.then_some(resume.verified),
                    uploaded: resume.uploaded,
                    downloaded: resume.downloaded,
                }
            });
        let torrent_file = None;
        let (made_here, shelf) = (false, shelf.clone());
        Ok(Self { metainfo, torrent_file, layout, root, remembered, made_here, shelved, shelf })
    }

    /// The files as they are now: a system call for each.
    pub fn files(&self) -> Option<Fingerprint> {
        Fingerprint::take(&self.layout, &self.root).ok()
    }

    /// The device that the content lies on: a few system calls where that is not known yet.
    pub fn device(&self) -> u64 {
        let shelved = self.shelved.as_ref().map(ShelvedContent::device);
        shelved.unwrap_or_else(|| storage::device_of(&self.layout, &self.root))
    }

    /// Whether every file is there, and as long as it has to be: a system call for each.
    ///
    /// # Errors
    /// What is missing.
    pub fn find_files(&self) -> Result<(), StorageError> {
        let content = ShelvedContent::new(Arc::clone(&self.layout), self.root.clone(), &self.shelf)?;
        content.problems().first().map_or(Ok(()), |problem| Err(problem.error.clone()))
    }

    /// Whether a check has to come first.
    pub fn needs_check(&self) -> bool {
        self.remembered.as_ref().is_none_or(|remembered| remembered.verified.is_none())
    }

    /// Takes every piece as right: it has just been hashed.
    pub fn trust(&mut self) {
        let uploaded = self.remembered.as_ref().map_or(0, |remembered| remembered.uploaded);
        let downloaded = self.remembered.as_ref().map_or(0, |remembered| remembered.downloaded);
        // What is noted may be less.
        self.shelved = None;
        let verified = Some(Bitfield::all(self.layout.piece_count()));
        self.remembered = Some(Remembered { verified, uploaded, downloaded });
    }

    /// Gets the content ready to be opened, after a check on all cores where one is due. `on_progress` hears of every so many
    /// bytes checked, from any thread. Files that are missing or damaged are problems, and what is right can be served.
    ///
    /// # Errors
    /// What the disk says; that it was broken off, or that files changed meanwhile.
    pub fn check(
        self,
        on_progress: &(dyn Fn(u64) + Sync),
        cancel: &AtomicBool,
    ) -> Result<Checked, StorageError> {
        // Only what was found as the resume file says is shelved already.
        let is_noted = self.shelved.is_some();
        let shelve = || ShelvedContent::new(Arc::clone(&self.layout), self.root.clone(), &self.shelf);
        // Taken before anything is read: whatever changes meanwhile shows as a difference later.
        let mut content = match self.shelved {
            Some(shelved) => shelved,
            None => shelve()?,
        };
        let fingerprint = content.fingerprint();
        let uploaded = self.remembered.as_ref().map_or(0, |remembered| remembered.uploaded);
        let downloaded = self.remembered.as_ref().map_or(0, |remembered| remembered.downloaded);
        let report = match self.remembered.and_then(|remembered| remembered.verified) {
            Some(bitfield) => CheckReport { bitfield, problems: content.problems().to_vec() },
            None => {
                let info = self.metainfo.info();
                let expected = |piece: PieceIndex| info.piece_hash(piece);
                let report = storage::check(&self.layout, &self.root, &expected, 0, on_progress, cancel)?;
                content = shelve()?;
                if !fingerprint.is_as_old_as(&content.fingerprint()) {
                    return Err(StorageError::Modified(self.root));
                }
                report
            }
        };
        let problems = problems(&self.layout, &report);
        let verified = report.bitfield;
        let sample = Sample::of(&self.layout, &verified, |piece| self.metainfo.info().piece_hash(piece));
        let content = ServedContent::OnDemand(Arc::new(content.with_sample(sample)));
        let selection = None;
        Ok(Checked {
            metainfo: self.metainfo,
            torrent_file: self.torrent_file,
            made_here: self.made_here,
            content,
            durable: verified.clone(),
            verified,
            fingerprint,
            is_noted,
            uploaded,
            downloaded,
            problems,
            selection,
            first: None,
        })
    }
}

/// What is wrong with each file: why it cannot be read, otherwise how many of its pieces are damaged.
fn problems(layout: &Layout, report: &CheckReport) -> Vec<String> {
    let unreadable = |file| report.problems.binary_search_by_key(&file, |problem| problem.file).is_ok();
    let damaged = layout.stored_files().filter_map(|(index, file)| {
        let bad = report.bad_pieces_of(layout, index);
        let pieces = layout.pieces_of(index).len();
        (bad > 0 && !unreadable(index))
            .then(|| format!("{}: {bad} of {pieces} pieces are damaged", file.path.display()))
    });
    report.problems.iter().map(|problem| problem.error.to_string()).chain(damaged).collect()
}
