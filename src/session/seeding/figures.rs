//! The session's figures: what is served, what is missing, how fast.

use super::{DownloadStatus, Running, Seeding, Status, TorrentStatus, Wanted};
use crate::bitfield::Bitfield;
use crate::clock;
use crate::engine::statistics::{HISTOGRAMS, HistogramsSnapshot, StatisticsSnapshot};
use crate::exposition::Format;
use crate::id::InfoHash;
use crate::limits::{METRICS_TORRENTS_MAX, STATUS_TORRENTS_MAX};
use crate::session::metrics::{self, MetricsSnapshot, TorrentFigures};
use crate::session::process_figures::ProcessFigures;
use crate::storage::Layout;
use crate::time::Duration;
use crate::tracker_client::Progress;
use crate::units::PieceIndex;
use std::sync::atomic::Ordering::Relaxed;

impl Seeding {
    pub(super) fn status(&mut self) -> Status {
        let mut engine = StatisticsSnapshot::default();
        for worker in self.engine.statistics() {
            engine += worker;
        }
        let mut histograms = HistogramsSnapshot::default();
        for worker in self.engine.histograms() {
            histograms += &worker;
        }
        // One pass over what may be ten thousand torrents, each second.
        let (mut total, mut uploaded_before, mut uploaded, mut peers, mut wasted) = (0, 0, 0, 0, 0);
        for running in self.torrents.values() {
            total += running.shared.parameters.total_len;
            uploaded_before += running.uploaded_before;
            uploaded += running.shared.counts.uploaded.load(Relaxed);
            peers += running.shared.counts.connections.load(Relaxed);
            wasted += running.shared.counts.wasted.load(Relaxed);
        }
        let now = clock::now();
        self.rate.handle_sample(now, engine.payload_sent);
        self.download_rate.handle_sample(now, engine.payload_received);
        let downloads: Vec<(u64, u64)> = self
            .torrents
            .values()
            .filter_map(|running| {
                let wanted = running.download.as_ref()?;
                Some((wanted.len, running.left(wanted)))
            })
            .collect();
        let left: u64 = downloads.iter().map(|(_, left)| left).sum();
        let rate = self.download_rate.smoothed();
        let download = (left > 0).then(|| DownloadStatus {
            wanted: downloads.iter().map(|(wanted, _)| wanted).sum(),
            left,
            rate,
            eta: left.checked_div(rate.0).map(Duration::from_secs),
        });
        Status {
            torrents: self.torrents.len(),
            peers,
            upload_rate: self.rate.smoothed(),
            served: engine.payload_sent,
            ratio_of_run: ratio(uploaded, total),
            served_in_all_runs: uploaded_before + engine.payload_sent,
            ratio: ratio(uploaded_before + uploaded, total),
            completed: self.completed.count(),
            download,
            wasted,
            banned: self.banned,
            engine,
            histograms: HISTOGRAMS
                .iter()
                .map(|histogram| (histogram.name, (histogram.read)(&histograms).summary()))
                .collect(),
            busiest: self.busiest(STATUS_TORRENTS_MAX),
        }
    }

    /// Torrents with peers, those with the most first.
    fn busiest(&self, count_max: usize) -> Vec<TorrentStatus> {
        let with_peers =
            self.torrents.iter().filter(|(_, it)| it.shared.counts.connections.load(Relaxed) > 0);
        metrics::busiest(with_peers.map(figures_of).collect(), count_max)
    }

    /// What stands one by one in the metrics: a few torrents whether or not they have peers, so that their series do
    /// not come and go; of many those with the most peers.
    fn shown_one_by_one(&self) -> Vec<TorrentStatus> {
        if self.torrents.len() <= METRICS_TORRENTS_MAX {
            return self.torrents.iter().map(figures_of).collect();
        }
        self.busiest(METRICS_TORRENTS_MAX)
    }

    pub(super) fn peers(&self) -> u64 {
        self.torrents.values().map(|running| running.shared.counts.connections.load(Relaxed)).sum()
    }

    pub(super) fn metrics_text(&self, format: Format) -> String {
        let named = |status: TorrentStatus| {
            let name = self.torrents.get(&status.info_hash).map_or("", |running| &running.name);
            TorrentFigures { name, status }
        };
        let answering = self.working_trackers.values().filter(|works| **works).count();
        let snapshot = MetricsSnapshot {
            workers: self.engine.statistics(),
            histograms: self.engine.histograms(),
            torrents: self.torrents.len(),
            failed: self.failed.count(),
            trackers: [answering, self.working_trackers.len() - answering],
            process: ProcessFigures::now(self.started_at),
            peers: self.peers(),
            completed: self.completed.count(),
            upload_rate: self.rate.smoothed(),
            download_rate: self.download_rate.smoothed(),
            each: self.shown_one_by_one().into_iter().map(named).collect(),
        };
        metrics::render(&snapshot, format)
    }
}

fn figures_of((&info_hash, running): (&InfoHash, &Running)) -> TorrentStatus {
    TorrentStatus {
        info_hash,
        peers: running.shared.counts.connections.load(Relaxed),
        uploaded: running.shared.counts.uploaded.load(Relaxed),
        download: running.download.as_ref().map(|wanted| (wanted.len, running.left(wanted))),
        waited: running.shared.counts.waited.times(),
    }
}

impl Running {
    /// Whether anything of it may have changed within the last second.
    pub(super) fn is_lively(&self) -> bool {
        self.download.is_some() || self.shared.counts.connections.load(Relaxed) > 0
    }

    pub(super) fn total_uploaded(&self) -> u64 {
        self.uploaded_before + self.shared.counts.uploaded.load(Relaxed)
    }

    pub(super) fn report_progress(&self) {
        let (uploaded, downloaded) =
            (self.shared.counts.uploaded.load(Relaxed), self.shared.counts.downloaded.load(Relaxed));
        let facts = &self.shared.facts;
        self.progress.send_if_modified(|progress| {
            let mut now = Progress { uploaded, downloaded, ..*progress };
            if let Some(wanted) = &self.download {
                // A tracker counts every byte, those that are not wanted, too (BEP 21).
                now.left = missing_len(&wanted.layout, &Bitfield::all(facts.piece_count()), |piece| {
                    facts.have.contains(piece)
                });
                now.partial = now.left > 0 && facts.wants_nothing();
            }
            std::mem::replace(progress, now) != now
        });
    }

    /// Bytes wanted that are not here.
    pub(super) fn left(&self, wanted: &Wanted) -> u64 {
        if wanted.done_at.is_some() {
            return 0;
        }
        let facts = &self.shared.facts;
        missing_len(&wanted.layout, &wanted.pieces, |piece| facts.have.contains(piece))
    }
}

fn ratio(uploaded: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { uploaded as f64 / total as f64 }
}

/// Bytes of the pieces in `wanted` that are not here.
pub(super) fn missing_len(layout: &Layout, wanted: &Bitfield, is_here: impl Fn(PieceIndex) -> bool) -> u64 {
    wanted.iter().filter(|&piece| !is_here(piece)).map(|piece| u64::from(layout.piece_len(piece))).sum()
}
