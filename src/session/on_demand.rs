//! A torrent that is served from files which are open only while somebody asks for them.
//!
//! It keeps what it takes to open them: the content on its shelf, and where the torrent file lies, from which
//! the info dictionary is read again when a peer asks for it.

use super::torrent_file::read_torrent;
use crate::engine::supply::{ContentSource, LoadedInfo, NotOpened, Opened};
use crate::id::InfoHash;
use crate::storage::{Answer, Content, ManyFiles, Refusal, ShelvedContent, StorageError};
use crate::units::BlockSpan;
use std::path::PathBuf;
use std::sync::Arc;

/// What the workers open a torrent's content with.
#[derive(Debug)]
pub(super) struct OnDemand {
    pub content: Arc<ShelvedContent>,
    pub info_hash: InfoHash,
    /// From where the info dictionary is read; without it that is in memory.
    pub torrent_file: Option<PathBuf>,
}

/// What the workers open content with that is downloaded, where its files are more than may be open.
#[derive(Debug)]
pub(super) struct Downloaded(pub Arc<ManyFiles>);

/// Torrent files are read beside content, as if they lay on a device of their own.
const TORRENT_FILES: u64 = u64::MAX;

impl ContentSource<Content> for OnDemand {
    fn part_of(&self, block: BlockSpan) -> u32 {
        self.content.part_of(block)
    }

    fn file_count(&self, part: u32) -> usize {
        self.content.file_count(part)
    }

    fn open(self: Arc<Self>, part: u32, answer: Opened<Content>) {
        Arc::clone(&self.content).open_later(part, told(answer));
    }

    fn load_info(self: Arc<Self>, answer: LoadedInfo) {
        let content = Arc::clone(&self.content);
        content.shelf().run_later(
            TORRENT_FILES,
            Box::new(move |can_run| answer(if can_run { self.info() } else { None })),
        );
    }

    fn fault(&self) -> Option<String> {
        self.content.fault().map(StorageError::with_cause)
    }
}

impl ContentSource<Content> for Downloaded {
    fn part_of(&self, block: BlockSpan) -> u32 {
        self.0.part_of(block)
    }

    fn file_count(&self, part: u32) -> usize {
        self.0.file_count(part)
    }

    fn open(self: Arc<Self>, part: u32, answer: Opened<Content>) {
        Arc::clone(&self.0).open_later(part, told(answer));
    }

    fn load_info(self: Arc<Self>, answer: LoadedInfo) {
        // It is in memory, from where it came.
        answer(None);
    }

    fn fault(&self) -> Option<String> {
        self.0.fault().map(StorageError::with_cause)
    }
}

/// The storage's answer in the engine's words.
fn told(answer: Opened<Content>) -> Answer {
    Box::new(move |opened| {
        answer(opened.map_err(|refusal| match refusal {
            Refusal::Faulty => NotOpened::Failed,
            Refusal::Full => NotOpened::Later,
        }));
    })
}

impl OnDemand {
    /// The info dictionary as it is in the torrent file now, when that is still this torrent's.
    fn info(&self) -> Option<Arc<[u8]>> {
        let path = self.torrent_file.as_deref()?;
        let why = match read_torrent(path) {
            Ok(metainfo) if metainfo.info_hash() == self.info_hash => {
                return Some(metainfo.info_bytes().into());
            }
            Ok(_) => "it is another torrent's now".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(path = %path.display(), %why, "peers cannot have the torrent's description");
        None
    }
}
