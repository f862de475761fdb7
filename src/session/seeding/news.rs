//! What engine and trackers tell, as the user hears of it and as the session acts on it.

use super::*;
use crate::engine::supply::Supply;

impl Seeding {
    pub(super) fn handle_engine_event(&mut self, event: EngineEvent, tell: &mut impl FnMut(SessionEvent)) {
        match event {
            EngineEvent::PeerComplete { torrent, peer_id } => self.count_completed(torrent, peer_id, tell),
            EngineEvent::TorrentFailed { torrent, reason } => {
                // The fault stays with its content; what comes late of a torrent that has left is not told of its successor.
                if self.torrents.get(&torrent).is_some_and(|it| it.shared.content.fault().is_some()) {
                    self.fail(torrent, reason, tell);
                }
            }
            EngineEvent::AcceptFailed { reason } => tell(SessionEvent::Warning(reason)),
            EngineEvent::Satisfied { torrent } => self.handle_satisfied(torrent, tell),
            EngineEvent::StorageRefused { torrent, reason } => {
                if let Some(running) = self.torrents.get(&torrent) {
                    let name = running.name.clone();
                    tell(SessionEvent::StorageRefused { name, info_hash: torrent, reason });
                }
            }
            EngineEvent::StorageRecovered { torrent } => {
                if let Some(running) = self.torrents.get(&torrent) {
                    let name = running.name.clone();
                    tell(SessionEvent::StorageRecovered { name, info_hash: torrent });
                }
            }
            EngineEvent::Banned { torrent, ip } => {
                self.banned += 1;
                tell(SessionEvent::Banned { info_hash: torrent, ip });
            }
        }
    }

    pub(super) fn handle_satisfied(&mut self, info_hash: InfoHash, tell: &mut impl FnMut(SessionEvent)) {
        let Some(running) = self.torrents.get_mut(&info_hash) else { return };
        if !running.shared.facts.wants_nothing() {
            // Told late, of a torrent that has left.
            return;
        }
        let is_crossed =
            matches!(&running.shared.content, Supply::Open(content) if content.have_others_written());
        self.watcher.finished(info_hash);
        if is_crossed && let Some(wanted) = &mut running.download {
            // It counts once the watcher has read it again.
            wanted.is_doubtful = true;
            return;
        }
        self.count_downloaded(info_hash, tell);
    }

    /// A download that had ended was looked at, and nothing in it is wrong.
    pub(super) fn handle_finished(&mut self, info_hash: InfoHash, tell: &mut impl FnMut(SessionEvent)) {
        let wanted = self.torrents.get_mut(&info_hash).and_then(|running| running.download.as_mut());
        if wanted.is_some_and(|wanted| std::mem::take(&mut wanted.is_doubtful)) {
            self.count_downloaded(info_hash, tell);
        }
    }

    fn count_downloaded(&mut self, info_hash: InfoHash, tell: &mut impl FnMut(SessionEvent)) {
        let Some(running) = self.torrents.get_mut(&info_hash) else { return };
        if let Some(wanted) = &mut running.download {
            wanted.done_at = Some(clock::now());
        }
        running.report_progress();
        let is_whole = running.shared.facts.have.is_full();
        // A full channel has an announcer that is leaving already.
        let _ = running.commands.try_send(if is_whole { Command::Completed } else { Command::Paused });
        tell(SessionEvent::Downloaded { name: running.name.clone(), info_hash });
    }

    pub(super) fn count_completed(
        &mut self,
        torrent: InfoHash,
        peer_id: PeerId,
        tell: &mut impl FnMut(SessionEvent),
    ) {
        if self.torrents.contains_key(&torrent) && self.completed.add(torrent, peer_id) {
            tell(SessionEvent::Completed { info_hash: torrent, count: self.completed.count() });
        }
    }

    pub(super) fn handle_tracker_event(&mut self, event: TrackerEvent, tell: &mut impl FnMut(SessionEvent)) {
        let TrackerEvent { info_hash, tracker, event, scope, outcome, .. } = event;
        let error = match outcome {
            Ok(response) => {
                if event != AnnounceEvent::Stopped && self.torrents.contains_key(&info_hash) {
                    let peers = response.peers.iter().copied().take(CANDIDATES_PER_ANNOUNCE_MAX).collect();
                    self.engine.add_candidates(info_hash, peers, Source::Tracker(scope));
                }
                None
            }
            Err(error) if error.is_family_absent() => return,
            Err(error) => Some(error.to_string()),
        };
        let works = error.is_none();
        if self.working_trackers.insert((info_hash, tracker.clone()), works) != Some(works) {
            tell(SessionEvent::Tracker { info_hash, tracker, error });
        }
    }
}
