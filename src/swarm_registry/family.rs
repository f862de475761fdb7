//! The peers of one address family of a swarm, without memory while there are none: most swarms have one family, and many one
//! peer.

use super::peer_set::PeerSet;
use super::shares::Shares;
use std::ops::{Deref, DerefMut};

/// A set of peers that is there once it is written to.
#[derive(Clone, Debug, Default)]
pub(super) struct Family<const N: usize>(Option<Box<PeerSet<N>>>);

impl<const N: usize> Family<N> {
    const NOBODY: &'static PeerSet<N> = &PeerSet::new();

    /// As [`PeerSet::sweep`].
    pub(super) fn sweep(&mut self, alive_since_secs: u32, work: usize, shares: &mut Shares) -> usize {
        let Some(set) = &mut self.0 else { return 0 };
        let looked_at = set.sweep(alive_since_secs, work, shares);
        self.settle();
        looked_at
    }

    /// Removes every record.
    pub(super) fn clear(&mut self, shares: &mut Shares) {
        if let Some(mut set) = self.0.take() {
            set.clear(shares);
        }
    }

    /// Gives the memory back when nobody is left; after whatever may have removed a peer.
    pub(super) fn settle(&mut self) {
        if self.0.as_ref().is_some_and(|set| set.len() == 0) {
            self.0 = None;
        }
    }
}

impl<const N: usize> Deref for Family<N> {
    type Target = PeerSet<N>;

    fn deref(&self) -> &PeerSet<N> {
        self.0.as_deref().unwrap_or(Self::NOBODY)
    }
}

impl<const N: usize> DerefMut for Family<N> {
    fn deref_mut(&mut self) -> &mut PeerSet<N> {
        self.0.get_or_insert_default()
    }
}
