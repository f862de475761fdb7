//! Torrents that have left the session, and may come back.

use super::{Running, Seeding, SessionEvent};
use crate::id::InfoHash;
use crate::limits::DEPARTED_MAX;
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::JoinHandle;

/// What is remembered of torrents that have left.
#[derive(Debug, Default)]
pub(super) struct Departed(BTreeMap<InfoHash, OneDeparted>);

#[derive(Debug)]
struct OneDeparted {
    /// Bytes uploaded in all runs.
    uploaded: u64,
    /// Says `stopped`, or has.
    announcer: JoinHandle<()>,
}

impl Departed {
    fn remember(&mut self, info_hash: InfoHash, one: OneDeparted) {
        self.0.insert(info_hash, one);
        if self.0.len() > DEPARTED_MAX {
            self.0.pop_first();
        }
    }

    /// All who still say `stopped`, or have.
    pub fn into_announcers(self) -> impl Iterator<Item = JoinHandle<()>> {
        self.0.into_values().map(|one| one.announcer)
    }

    /// A torrent is back, if it ever left: the bytes that it had uploaded by then, and who still says `stopped` for it.
    pub fn take(&mut self, info_hash: InfoHash) -> Option<(u64, JoinHandle<()>)> {
        self.0.remove(&info_hash).map(|one| (one.uploaded, one.announcer))
    }
}

/// Torrents that cannot be served now: their content is not there or wrong. Bounded as what is remembered of those that
/// have left is.
#[derive(Debug, Default)]
pub(super) struct Failed(BTreeSet<InfoHash>);

impl Failed {
    pub fn add(&mut self, info_hash: InfoHash) {
        if self.0.len() < DEPARTED_MAX {
            self.0.insert(info_hash);
        }
    }

    /// It is served again, or not wanted any more.
    pub fn remove(&mut self, info_hash: InfoHash) {
        self.0.remove(&info_hash);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Announces a torrent once trackers have been told that it had stopped before: told in the other order they would take the
/// second word for the last.
pub(super) async fn announce_after(stopping: Option<JoinHandle<()>>, announcing: impl Future<Output = ()>) {
    if let Some(stopping) = stopping {
        // One that panicked says nothing any more.
        let _ = stopping.await;
    }
    announcing.await;
}

impl Seeding {
    /// Content has failed: the torrent leaves, and may come back.
    pub(super) fn fail(&mut self, info_hash: InfoHash, reason: String, tell: &mut impl FnMut(SessionEvent)) {
        if let Some(name) = self.leave(info_hash) {
            self.failed.add(info_hash);
            tell(SessionEvent::Failed { name, info_hash, reason });
            tell(SessionEvent::Lost { info_hash });
        }
    }

    /// The user has taken a torrent away, or put another in its place.
    pub(super) fn take_away(
        &mut self,
        info_hash: InfoHash,
        is_replaced: bool,
        tell: &mut impl FnMut(SessionEvent),
    ) {
        self.failed.remove(info_hash);
        if let Some(name) = self.leave(info_hash) {
            tell(match is_replaced {
                true => SessionEvent::Replaced { name, info_hash },
                false => SessionEvent::Removed { name, info_hash },
            });
        }
    }

    /// Serves a torrent no longer; answers its name.
    pub(super) fn leave(&mut self, info_hash: InfoHash) -> Option<String> {
        let running = self.torrents.remove(&info_hash)?;
        self.engine.remove(info_hash);
        self.watcher.forget(info_hash);
        self.tracker.dismiss(info_hash);
        running.report_progress();
        let uploaded = running.total_uploaded();
        let Running { name, announcer, .. } = running;
        // Its announcer says `stopped` once its commands end, by itself.
        self.departed.remember(info_hash, OneDeparted { uploaded, announcer });
        self.working_trackers.retain(|(of, _), _| *of != info_hash);
        Some(name)
    }
}
