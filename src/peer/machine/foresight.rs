//! What a connection's next bytes will need of its memory, asked for ahead by whoever knows that they come.

use super::{PeerMachine, Phase, Pieces};
use crate::prefetch::{Distance, prefetch};

impl PeerMachine {
    /// Asks for the memory that the next bytes from the peer will need.
    pub fn prefetch_input(&self, distance: Distance) {
        match distance {
            Distance::Far => {
                if let Phase::Open(open) = &self.phase {
                    prefetch(Some(&**open));
                }
                prefetch(self.download.as_deref());
            }
            Distance::Near => {
                if let Some(download) = &self.download {
                    download.prefetch();
                }
                if let Pieces::Some(pieces) = &self.pieces {
                    prefetch(pieces.as_bytes().first());
                }
            }
        }
    }

    /// Asks for the memory that the next block to the peer will need.
    pub fn prefetch_output(&self) {
        self.queue.prefetch();
    }
}
