//! Where the workers' whole pieces go: to the storage threads, and their answers back.

use crate::bitfield::SharedBitfield;
use crate::engine::piece_buffer::PieceBuffer;
use crate::engine::store::PieceSink;
use crate::metainfo::Metainfo;
use crate::storage::{DownloadContent, Finisher, PieceJob, PieceOutcome};
use crate::torrent::PieceResult;
use crate::units::PieceIndex;
use std::fmt;
use std::sync::Arc;

/// The way of one torrent's pieces to its files.
pub struct StorageSink {
    content: DownloadContent,
    metainfo: Arc<Metainfo>,
    finisher: Arc<Finisher>,
    stored: Arc<SharedBitfield>,
}

impl StorageSink {
    /// Pieces of `metainfo` go into `content`, through these storage threads; those that are there are added to
    /// `stored`, be there an engine left that hears of it or not.
    pub fn new(
        content: DownloadContent,
        metainfo: Arc<Metainfo>,
        finisher: Arc<Finisher>,
        stored: Arc<SharedBitfield>,
    ) -> Self {
        Self { content, metainfo, finisher, stored }
    }
}

impl PieceSink for StorageSink {
    fn submit(
        &self,
        piece: PieceIndex,
        bytes: Arc<PieceBuffer>,
        want_block_hashes: bool,
        reply: Box<dyn FnOnce(PieceResult) + Send>,
    ) {
        let Some(expected) = self.metainfo.info().piece_hash(piece) else {
            return reply(PieceResult::Failed { block_hashes: Vec::new() });
        };
        let stored = Arc::clone(&self.stored);
        let reply = move |outcome| {
            if let PieceOutcome::Verified { .. } = outcome {
                stored.insert(piece);
            }
            reply(result_of(outcome));
        };
        let content = self.content.clone();
        let job = PieceJob { content, piece, bytes, expected, want_block_hashes, reply: Box::new(reply) };
        self.finisher.submit(job);
    }
}

fn result_of(outcome: PieceOutcome) -> PieceResult {
    match outcome {
        PieceOutcome::Verified { block_hashes } => PieceResult::Verified { block_hashes },
        PieceOutcome::Failed { block_hashes } => PieceResult::Failed { block_hashes },
        PieceOutcome::Unwritable(error) => {
            let reason = match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            };
            PieceResult::Unwritable { reason }
        }
    }
}

impl fmt::Debug for StorageSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageSink").field("info_hash", &self.metainfo.info_hash()).finish_non_exhaustive()
    }
}
