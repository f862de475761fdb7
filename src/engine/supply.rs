//! How the workers come by a torrent's content: it is open, or it is opened when a peer asks for it.
//!
//! Ten thousand torrents have more files than a process may have open or mapped, and nearly all of them have no
//! peer. Opening may wait for a disk, so a worker only asks for it and is answered by a message.

use super::store::BlockStore;
use crate::units::BlockSpan;
use std::sync::Arc;

/// A torrent's content, open or to be had.
#[derive(Debug)]
pub enum Supply<S> {
    /// Open as long as the torrent is served.
    Open(Arc<S>),
    /// Opened for whoever asks, and closed when nobody holds it any more.
    OnDemand(Arc<dyn ContentSource<S>>),
}

/// Takes the answer to [`ContentSource::open`], on any thread.
pub type Opened<S> = Box<dyn FnOnce(Result<Arc<S>, NotOpened>) + Send>;

/// Takes the answer to [`ContentSource::load_info`], on any thread.
pub type LoadedInfo = Box<dyn FnOnce(Option<Arc<[u8]>>) + Send>;

/// Why content is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// It cannot be served; [`ContentSource::fault`] says why.
    Failed,
    /// Too much is open: ask again later.
    Later,
}

/// Opens one torrent's content as often as it is asked to. What was opened for one worker is given to the others, too,
/// while anybody holds it.
pub trait ContentSource<S>: std::fmt::Debug + Send + Sync {
    /// The number of the part that has to be open for this block: content of many files is opened part by part.
    fn part_of(&self, block: BlockSpan) -> u32;

    /// Descriptors that are open with a part: a file's, which has a mapping, too, or its folder's.
    fn file_count(&self, part: u32) -> usize;

    /// Opens a part and answers exactly once, on any thread. Never waits.
    fn open(self: Arc<Self>, part: u32, answer: Opened<S>);

    /// Reads the torrent's info dictionary, compares its hash, and answers exactly once, on any thread; `None` when it
    /// cannot be had. Never waits.
    fn load_info(self: Arc<Self>, answer: LoadedInfo);

    /// Why this content cannot be served any more.
    fn fault(&self) -> Option<String>;
}

impl<S: BlockStore> Supply<S> {
    /// The content, when it is open as long as the torrent is served.
    pub fn always_open(&self) -> Option<&Arc<S>> {
        match self {
            Self::Open(content) => Some(content),
            Self::OnDemand(_) => None,
        }
    }

    /// The number of the part that has to be open for this block.
    pub fn part_of(&self, block: BlockSpan) -> u32 {
        match self {
            Self::Open(_) => 0,
            Self::OnDemand(source) => source.part_of(block),
        }
    }

    /// Why this content cannot be served any more.
    pub fn fault(&self) -> Option<String> {
        match self {
            Self::Open(content) => content.fault(),
            Self::OnDemand(source) => source.fault(),
        }
    }
}

impl<S> From<Arc<S>> for Supply<S> {
    fn from(content: Arc<S>) -> Self {
        Self::Open(content)
    }
}
