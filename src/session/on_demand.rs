//! A torrent that is seeded from files which are open only while somebody asks for them.
//!
//! It keeps what it takes to open them: the content on its shelf, and where the torrent file lies, from which
//! the info dictionary is read again when a peer asks for it.

use crate::engine::supply::{ContentSource, NotOpened, Opened};
use crate::storage::{Content, Refusal, ShelvedContent, StorageError};
use std::sync::Arc;

/// What the workers open a torrent's content with.
#[derive(Debug)]
pub(super) struct OnDemand {
    pub content: Arc<ShelvedContent>,
}

impl ContentSource<Content> for OnDemand {
    fn file_count(&self) -> usize {
        self.content.file_count()
    }

    fn open(self: Arc<Self>, answer: Opened<Content>) {
        let content = Arc::clone(&self.content);
        content.open_later(Box::new(move |opened| {
            answer(opened.map_err(|refusal| match refusal {
                Refusal::Faulty => NotOpened::Failed,
                Refusal::Full => NotOpened::Later,
            }));
        }));
    }

    fn fault(&self) -> Option<String> {
        self.content.fault().map(StorageError::with_cause)
    }
}
