//! From a torrent and a place on disk to content that may be served: at once when nothing has changed since it
//! was last checked, otherwise after a check.

use super::on_demand::{Downloaded, OnDemand};
use crate::bitfield::Bitfield;
use crate::engine::supply::Supply;
use crate::id::InfoHash;
use crate::metainfo::Metainfo;
use crate::storage::{
    self, ByFile, CheckReport, Content, DownloadContent, FileIndex, FileProblem, FileSelection, Fingerprint,
    Layout, Links, Resume, Sample, Shelf, ShelvedContent, StorageError, Subset, resume_path,
};
use crate::units::{Counted, PieceIndex};
use std::collections::BTreeMap;
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
    /// The files as they were found and judged, of content of which something is remembered.
    shelved: Option<ShelvedContent>,
    shelf: Shelf,
}

/// What an earlier run knew of a torrent.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// What of it still holds, file by file; `None` when nothing does.
    pub by_file: Option<ByFile>,
    /// Bytes uploaded until then.
    pub uploaded: u64,
    /// Bytes downloaded until then.
    pub downloaded: u64,
}

/// A torrent's files as the session has them.
#[derive(Clone, Debug)]
pub enum ServedContent {
    /// Pieces may come.
    Download(DownloadContent),
    /// Opened when a peer asks.
    OnDemand(Arc<ShelvedContent>),
}

impl ServedContent {
    /// Where pieces lie in files.
    pub fn layout(&self) -> &Arc<Layout> {
        match self {
            Self::Download(content) => content.layout(),
            Self::OnDemand(content) => content.layout(),
        }
    }

    /// The first fault that anybody met.
    pub fn fault(&self) -> Option<&StorageError> {
        match self {
            Self::Download(content) => content.fault(),
            Self::OnDemand(content) => content.fault(),
        }
    }

    /// Reports a fault; true when it is the first, and thereby the one that stays.
    pub fn fail(&self, fault: StorageError) -> bool {
        match self {
            Self::Download(content) => content.fail(fault),
            Self::OnDemand(content) => content.fail(fault),
        }
    }

    /// Whether every file is still there and as it was. Not for data cores.
    ///
    /// # Errors
    /// What has changed.
    pub fn verify_files(&self) -> Result<(), StorageError> {
        match self {
            Self::Download(content) => content.verify_files(),
            Self::OnDemand(content) => content.verify_files(),
        }
    }

    /// Whether files that were missing are there now: a system call for each. Not for data cores.
    pub(super) fn has_newcomers(&self) -> bool {
        match self {
            // What is downloaded is made here.
            Self::Download(_) => false,
            Self::OnDemand(content) => content.has_newcomers(),
        }
    }

    /// The device that most of it lies on, in the kernel's number.
    pub(super) fn device(&self) -> u64 {
        match self {
            Self::Download(content) => content.device(),
            Self::OnDemand(content) => content.device(),
        }
    }

    /// How workers come by it.
    pub(super) fn supply(&self, info_hash: InfoHash, torrent_file: Option<&Path>) -> Supply<Content> {
        match self {
            Self::Download(DownloadContent::Open(content)) => Supply::Open(Arc::clone(content)),
            Self::Download(DownloadContent::ManyFiles(content)) => {
                Supply::OnDemand(Arc::new(Downloaded(Arc::clone(content))))
            }
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
                let found =
                    resume.is_clean.then(|| ShelvedContent::new(Arc::clone(&layout), root.clone(), shelf));
                let found = found.and_then(Result::ok);
                let by_file =
                    found.as_ref().and_then(|it| resume.judge_by_file(&layout, &root, &it.fingerprint()));
                // What is judged is what is checked: a file that changes from now on shows as a difference.
                shelved = found.filter(|_| by_file.is_some());
                Remembered { by_file, uploaded: resume.uploaded, downloaded: resume.downloaded }
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

    /// Whether every file is there again that was there when the content was served, and as long as it was then if it was
    /// whole. Where nothing is remembered of that, none is waited for.
    ///
    /// # Errors
    /// What is missing.
    pub fn find_files(&self) -> Result<(), StorageError> {
        let gone = self.by_file().and_then(|by_file| by_file.gone.clone());
        gone.map_or(Ok(()), Err)
    }

    fn by_file(&self) -> Option<&ByFile> {
        self.remembered.as_ref()?.by_file.as_ref()
    }

    /// Whether a check has to come first.
    pub fn needs_check(&self) -> bool {
        self.by_file().is_none_or(|by_file| by_file.unknown.count() > 0)
    }

    /// Bytes that a check reads: all, or those of pieces whose files are not what they were.
    pub fn check_len(&self) -> u64 {
        self.by_file().map_or(self.layout.total_len(), |by_file| {
            by_file.unknown.iter().map(|piece| u64::from(self.layout.piece_len(piece))).sum()
        })
    }

    /// Takes every piece as right: it has just been hashed.
    pub fn trust(&mut self) {
        let uploaded = self.remembered.as_ref().map_or(0, |remembered| remembered.uploaded);
        let downloaded = self.remembered.as_ref().map_or(0, |remembered| remembered.downloaded);
        // What is noted may be less.
        self.shelved = None;
        let count = self.layout.piece_count();
        let by_file = ByFile { right: Bitfield::all(count), unknown: Bitfield::none(count), gone: None };
        self.remembered = Some(Remembered { by_file: Some(by_file), uploaded, downloaded });
    }

    /// Gets the content ready to be opened, after a check on all cores where one is due, of the files that are not what they
    /// were when that is known. `on_progress` hears of every so many bytes checked, from any thread. Files that are missing or
    /// damaged are problems, and what is right can be served.
    ///
    /// # Errors
    /// What the disk says; that it was broken off, or that files changed meanwhile.
    pub fn check(
        self,
        on_progress: &(dyn Fn(u64) + Sync),
        cancel: &AtomicBool,
    ) -> Result<Checked, StorageError> {
        let needs_check = self.needs_check();
        // What was found as the resume file says.
        let is_noted = self.shelved.is_some() && !needs_check;
        let shelve = || ShelvedContent::new(Arc::clone(&self.layout), self.root.clone(), &self.shelf);
        // Taken before anything is read: whatever changes meanwhile shows as a difference later.
        let mut content = match self.shelved {
            Some(shelved) => shelved,
            None => shelve()?,
        };
        let fingerprint = content.fingerprint();
        let uploaded = self.remembered.as_ref().map_or(0, |remembered| remembered.uploaded);
        let downloaded = self.remembered.as_ref().map_or(0, |remembered| remembered.downloaded);
        let info = self.metainfo.info();
        let expected = |piece: PieceIndex| info.piece_hash(piece);
        let (layout, root) = (&self.layout, &self.root);
        let mut report = match self.remembered.and_then(|remembered| remembered.by_file) {
            Some(ByFile { right, unknown, .. }) if unknown.count() == 0 => {
                CheckReport { bitfield: right, problems: content.problems().to_vec() }
            }
            Some(ByFile { right, unknown, .. }) => {
                let subset = Subset { pieces: &unknown, selection: &FileSelection::all() };
                let some = storage::check_some(layout, root, subset, &expected, 0, on_progress, cancel)?;
                some.and_right(&right)
            }
            None => storage::check(layout, root, &expected, 0, on_progress, cancel)?,
        };
        if needs_check {
            content = shelve()?;
            if !fingerprint.is_as_old_as(&content.fingerprint()) {
                return Err(StorageError::Modified(self.root));
            }
            report.add(content.problems());
        }
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

/// Neighbours of a bad file that are named with it; the others are counted.
const NEIGHBOURS_NAMED_MAX: usize = 3;

/// What is wrong with each file: why it cannot be read, otherwise how many of its pieces are damaged; and with either, which
/// files nothing else is known against than that they share a piece with it.
fn problems(layout: &Layout, report: &CheckReport) -> Vec<String> {
    let borders = report.neighbours(layout);
    let mut by_file: BTreeMap<FileIndex, Vec<FileIndex>> = BTreeMap::new();
    borders.iter().for_each(|(&neighbour, &of)| by_file.entry(of).or_default().push(neighbour));
    let with_neighbours = |file: FileIndex, problem: String| {
        let all = by_file.get(&file).map_or(&[][..], Vec::as_slice);
        let names = all.iter().filter_map(|neighbour| layout.file(*neighbour));
        let mut named: Vec<String> =
            names.take(NEIGHBOURS_NAMED_MAX).map(|file| file.path.display().to_string()).collect();
        let count = all.len();
        if count > named.len() {
            named.push(format!("{} more", count - named.len()));
        }
        match named.is_empty() {
            true => problem,
            false => format!(
                "{problem}; of its neighbours only the bytes at the border lack: {}",
                named.join(", ")
            ),
        }
    };
    let unreadable = |file| report.problems.binary_search_by_key(&file, |problem| problem.file).is_ok();
    let damaged = layout.stored_files().filter_map(|(index, file)| {
        let bad = report.bad_pieces_of(layout, index);
        let pieces = layout.pieces_of(index).len();
        let is_bad = bad > 0 && !unreadable(index) && !borders.contains_key(&index);
        let told = || format!("{}: damaged: {bad} of {}", file.path.display(), Counted(pieces, "piece"));
        is_bad.then(|| with_neighbours(index, told()))
    });
    let told = |problem: &FileProblem| with_neighbours(problem.file, problem.error.to_string());
    report.problems.iter().map(told).chain(damaged).collect()
}

#[cfg(test)]
mod tests;
