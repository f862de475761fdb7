//! From a torrent and a place on disk to content that may be served: at once when nothing has changed since it
//! was last checked, otherwise after a check.

use crate::bitfield::Bitfield;
use crate::metainfo::Metainfo;
use crate::storage::{
    self, CheckReport, Content, FileSelection, Fingerprint, Layout, Resume, StorageError, resume_path,
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
    /// Its files below `root`.
    pub layout: Arc<Layout>,
    /// The folder they lie in.
    pub root: PathBuf,
    /// What an earlier run knew, if it still holds.
    pub remembered: Option<Remembered>,
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

/// A torrent that can be served.
#[derive(Debug)]
pub struct Checked {
    /// The torrent.
    pub metainfo: Metainfo,
    /// Its open files.
    pub content: Arc<Content>,
    /// The pieces that are right.
    pub verified: Bitfield,
    /// Those of them that had been brought to the disk before.
    pub durable: Bitfield,
    /// Its files at the time of the check.
    pub fingerprint: Fingerprint,
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
    pub fn find(metainfo: Metainfo, data: &Path, state_dir: Option<&Path>) -> Result<Self, StorageError> {
        let (layout, root) = storage::locate(metainfo.info(), data)?;
        let remembered = state_dir
            .and_then(|folder| Resume::load(&resume_path(folder, metainfo.info_hash())).ok())
            .filter(|resume| resume.info_hash == metainfo.info_hash())
            .map(|resume| {
                // While pieces were written a fingerprint vouches for nothing: a crash may have lost what it saw.
                let holds = resume.is_clean
                    && resume.verified.len() == layout.piece_count()
                    && resume.fingerprint.matches(&layout, &root);
                Remembered {
                    verified: holds.then_some(resume.verified),
                    uploaded: resume.uploaded,
                    downloaded: resume.downloaded,
                }
            });
        Ok(Self { metainfo, layout: Arc::new(layout), root, remembered })
    }

    /// Whether a check has to come first.
    pub fn needs_check(&self) -> bool {
        self.remembered.as_ref().is_none_or(|remembered| remembered.verified.is_none())
    }

    /// Takes every piece as right: it has just been hashed.
    pub fn trust(&mut self) {
        let uploaded = self.remembered.as_ref().map_or(0, |remembered| remembered.uploaded);
        let downloaded = self.remembered.as_ref().map_or(0, |remembered| remembered.downloaded);
        let verified = Some(Bitfield::all(self.layout.piece_count()));
        self.remembered = Some(Remembered { verified, uploaded, downloaded });
    }

    /// Opens the content, after a check on all cores where one is due. `on_progress` hears of every so many
    /// bytes checked, from any thread.
    pub fn check(
        self,
        on_progress: &(dyn Fn(u64) + Sync),
        cancel: &AtomicBool,
    ) -> Result<Checked, StorageError> {
        // Taken before anything is read: whatever changes meanwhile shows as a difference later.
        let fingerprint = Fingerprint::take(&self.layout, &self.root)?;
        let uploaded = self.remembered.as_ref().map_or(0, |remembered| remembered.uploaded);
        let downloaded = self.remembered.as_ref().map_or(0, |remembered| remembered.downloaded);
        let (verified, problems) = match self.remembered.and_then(|remembered| remembered.verified) {
            Some(verified) => (verified, Vec::new()),
            None => {
                let info = self.metainfo.info();
                let expected = |piece: PieceIndex| info.piece_hash(piece);
                let report = storage::check(&self.layout, &self.root, &expected, 0, on_progress, cancel)?;
                let problems = problems(&self.layout, &report);
                (report.bitfield, problems)
            }
        };
        let content = Content::open(Arc::clone(&self.layout), &self.root)?;
        if content.fingerprint() != fingerprint {
            return Err(StorageError::Modified(self.root));
        }
        let content = Arc::new(content);
        let selection = None;
        Ok(Checked {
            metainfo: self.metainfo,
            content,
            durable: verified.clone(),
            verified,
            fingerprint,
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
