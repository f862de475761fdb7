//! The session's figures as text for a monitoring system: pure rendering of a snapshot.
//!
//! Figures of single torrents are there up to a bound; the sums always are. Those of the process have the names that
//! Prometheus' client libraries give them. Deliberately absent: timestamps, `_created` samples, and anything about a
//! single peer.

use super::process_figures::ProcessFigures;
use super::seeding::TorrentStatus;
use crate::attribution::Cause;
use crate::engine::statistics::{
    FIGURES, Figure, FigureKind, FigureUnit, HISTOGRAMS, HistogramFigure, HistogramsSnapshot,
    StatisticsSnapshot,
};
use crate::exposition::{Exposition, Format, Kind};
use crate::limits::METRICS_TORRENTS_MAX;
use crate::units::ByteRate;

/// Powers of two of nanoseconds that are bounds of buckets: a microsecond to 17 seconds.
const TIME_EXPONENTS: std::ops::RangeInclusive<u32> = 10..=34;
/// Powers of two of bytes that are: 1 KiB to 1 MiB and more.
const SIZE_EXPONENTS: std::ops::RangeInclusive<u32> = 10..=21;

/// What is shown, as it is at one moment.
#[derive(Clone, Debug, Default)]
pub struct MetricsSnapshot<'a> {
    /// What each worker has counted, in their order.
    pub workers: Vec<StatisticsSnapshot>,
    /// Each worker's histograms, in their order.
    pub histograms: Vec<HistogramsSnapshot>,
    /// Torrents served.
    pub torrents: usize,
    /// Torrents that cannot be served now.
    pub failed: usize,
    /// Trackers of torrents whose last answer was one, and those of which it was none.
    pub trackers: [usize; 2],
    /// What the process takes.
    pub process: ProcessFigures,
    /// Peers that have finished their handshake, in all torrents.
    pub peers: u64,
    /// Downloads completed by others.
    pub completed: u64,
    /// Bytes of blocks a second, smoothed.
    pub upload_rate: ByteRate,
    /// Bytes of blocks received a second, smoothed.
    pub download_rate: ByteRate,
    /// The figures of single torrents, at most [`METRICS_TORRENTS_MAX`].
    pub each: Vec<TorrentFigures<'a>>,
}

/// The figures of one torrent.
#[derive(Clone, Copy, Debug)]
pub struct TorrentFigures<'a> {
    /// Its name, as whoever made the torrent wrote it.
    pub name: &'a str,
    /// Its figures.
    pub status: TorrentStatus,
}

/// The `count_max` of `torrents` with the most peers, those with the most first.
pub fn busiest(mut torrents: Vec<TorrentStatus>, count_max: usize) -> Vec<TorrentStatus> {
    let order = |torrent: &TorrentStatus| (std::cmp::Reverse(torrent.peers), torrent.info_hash);
    if torrents.len() > count_max {
        torrents.select_nth_unstable_by_key(count_max, order);
        torrents.truncate(count_max);
    }
    torrents.sort_unstable_by_key(order);
    torrents
}

/// The text.
pub fn render(snapshot: &MetricsSnapshot<'_>, format: Format) -> String {
    let mut text = Exposition::new(format);
    text.family("seedring_build", Kind::Info, "", "Which seedring this is.");
    text.sample("seedring_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    render_session(&mut text, snapshot);
    for figure in FIGURES {
        render_figure(&mut text, figure, &snapshot.workers);
    }
    for histogram in HISTOGRAMS {
        render_histogram(&mut text, histogram, &snapshot.histograms);
    }
    render_torrents(&mut text, &snapshot.each);
    render_process(&mut text, &snapshot.process);
    text.finish()
}

fn render_session(text: &mut Exposition, snapshot: &MetricsSnapshot<'_>) {
    let uploaded: u64 = snapshot.workers.iter().map(|worker| worker.payload_sent).sum();
    text.family("seedring_torrents", Kind::Gauge, "", "Torrents served.");
    text.sample("seedring_torrents", &[], snapshot.torrents);
    text.family("seedring_failed_torrents", Kind::Gauge, "", "Torrents that cannot be served now.");
    text.sample("seedring_failed_torrents", &[], snapshot.failed);
    let help =
        "Trackers of torrents, by what came of the last announce; one of ten torrents counts ten times.";
    text.family("seedring_trackers", Kind::Gauge, "", help);
    for (state, count) in ["answers", "fails"].into_iter().zip(snapshot.trackers) {
        text.sample("seedring_trackers", &[("state", state)], count);
    }
    text.family("seedring_peers", Kind::Gauge, "", "Peers that have finished their handshake.");
    text.sample("seedring_peers", &[], snapshot.peers);
    text.family("seedring_uploaded_bytes", Kind::Counter, "bytes", "Bytes of blocks sent in this run.");
    text.sample("seedring_uploaded_bytes_total", &[], uploaded);
    let rate = "seedring_upload_bytes_per_second";
    text.family(rate, Kind::Gauge, "bytes_per_second", "Bytes of blocks a second, smoothed.");
    text.sample(rate, &[], snapshot.upload_rate.0);
    let downloaded: u64 = snapshot.workers.iter().map(|worker| worker.payload_received).sum();
    text.family("seedring_downloaded_bytes", Kind::Counter, "bytes", "Bytes of blocks received in this run.");
    text.sample("seedring_downloaded_bytes_total", &[], downloaded);
    let rate = "seedring_download_bytes_per_second";
    text.family(rate, Kind::Gauge, "bytes_per_second", "Bytes of blocks received a second, smoothed.");
    text.sample(rate, &[], snapshot.download_rate.0);
    text.family("seedring_completed_downloads", Kind::Counter, "", "Downloads completed by others.");
    text.sample("seedring_completed_downloads_total", &[], snapshot.completed);
}

fn render_figure(text: &mut Exposition, figure: &Figure, workers: &[StatisticsSnapshot]) {
    let (kind, suffix) = match figure.kind {
        FigureKind::Counter => (Kind::Counter, "_total"),
        FigureKind::Gauge => (Kind::Gauge, ""),
    };
    let family = family_name(figure.name, figure.unit);
    text.family(&family, kind, unit(figure.unit), figure.help.trim());
    for (index, worker) in workers.iter().enumerate() {
        let value = (figure.read)(worker);
        let value = match figure.unit {
            FigureUnit::Count | FigureUnit::Bytes => value.to_string(),
            FigureUnit::Nanoseconds => seconds(value),
        };
        text.sample(&format!("{family}{suffix}"), &[("worker", &index.to_string())], value);
    }
}

/// Buckets for each power of two, cumulative as the format has it.
fn render_histogram(text: &mut Exposition, histogram: &HistogramFigure, workers: &[HistogramsSnapshot]) {
    let family = family_name(histogram.name, histogram.unit);
    let exponents = match histogram.unit {
        FigureUnit::Nanoseconds => TIME_EXPONENTS,
        FigureUnit::Count | FigureUnit::Bytes => SIZE_EXPONENTS,
    };
    text.family(&family, Kind::Histogram, unit(histogram.unit), histogram.help.trim());
    for (index, worker) in workers.iter().enumerate() {
        let (counts, worker) = ((histogram.read)(worker), index.to_string());
        let mut bucket = |le: &str, count| {
            text.sample(&format!("{family}_bucket"), &[("worker", &worker), ("le", le)], count);
        };
        for exponent in exponents.clone() {
            let le = match histogram.unit {
                FigureUnit::Nanoseconds => seconds(1 << exponent),
                FigureUnit::Count | FigureUnit::Bytes => format!("{}.0", 1u64 << exponent),
            };
            bucket(&le, counts.count_below(exponent));
        }
        bucket("+Inf", counts.count());
        let sum = match histogram.unit {
            FigureUnit::Nanoseconds => seconds(counts.sum()),
            FigureUnit::Count | FigureUnit::Bytes => counts.sum().to_string(),
        };
        text.sample(&format!("{family}_sum"), &[("worker", &worker)], sum);
        text.sample(&format!("{family}_count"), &[("worker", &worker)], counts.count());
    }
}

fn render_torrents(text: &mut Exposition, torrents: &[TorrentFigures<'_>]) {
    if torrents.is_empty() {
        return;
    }
    let torrents = &torrents[..torrents.len().min(METRICS_TORRENTS_MAX)];
    let hashes: Vec<String> = torrents.iter().map(|torrent| torrent.status.info_hash.to_string()).collect();
    let uploaded = "seedring_torrent_uploaded_bytes";
    text.family(uploaded, Kind::Counter, "bytes", "Bytes of blocks of the torrent sent in this run.");
    for (torrent, info_hash) in torrents.iter().zip(&hashes) {
        let labels = [("info_hash", info_hash.as_str()), ("name", torrent.name)];
        text.sample("seedring_torrent_uploaded_bytes_total", &labels, torrent.status.uploaded);
    }
    let connections = "seedring_torrent_connections";
    text.family(connections, Kind::Gauge, "", "Peers of the torrent that have finished their handshake.");
    for (torrent, info_hash) in torrents.iter().zip(&hashes) {
        let labels = [("info_hash", info_hash.as_str()), ("name", torrent.name)];
        text.sample(connections, &labels, torrent.status.peers);
    }
    render_downloads(text, torrents, &hashes);
    let waited = "seedring_torrent_waited_seconds";
    text.family(
        waited,
        Kind::Counter,
        "seconds",
        "Time that connections of the torrent waited, by what for.",
    );
    for (torrent, info_hash) in torrents.iter().zip(&hashes) {
        for cause in Cause::ALL {
            let labels = [("info_hash", info_hash.as_str()), ("cause", cause.name())];
            let time = seconds(torrent.status.waited.of(cause));
            text.sample("seedring_torrent_waited_seconds_total", &labels, time);
        }
    }
}

/// How far the torrents are that are downloaded.
fn render_downloads(text: &mut Exposition, torrents: &[TorrentFigures<'_>], hashes: &[String]) {
    let downloads: Vec<_> = torrents
        .iter()
        .zip(hashes)
        .filter_map(|(torrent, info_hash)| Some((torrent, info_hash, torrent.status.download?)))
        .collect();
    if downloads.is_empty() {
        return;
    }
    let mut family = |name, help, value: fn((u64, u64)) -> u64| {
        text.family(name, Kind::Gauge, "bytes", help);
        for (torrent, info_hash, download) in &downloads {
            let labels = [("info_hash", info_hash.as_str()), ("name", torrent.name)];
            text.sample(name, &labels, value(*download));
        }
    };
    family("seedring_torrent_wanted_bytes", "Bytes of the torrent that are wanted.", |(wanted, _)| wanted);
    family("seedring_torrent_left_bytes", "Bytes wanted of the torrent that are not here.", |(_, left)| left);
    family("seedring_torrent_here_bytes", "Bytes wanted of the torrent that are here.", |(wanted, left)| {
        wanted.saturating_sub(left)
    });
}

/// The names are those of Prometheus' client libraries, which dashboards know.
fn render_process(text: &mut Exposition, process: &ProcessFigures) {
    let cpu = seconds(u64::try_from(process.cpu.as_nanos()).unwrap_or(u64::MAX));
    text.family(
        "process_cpu_seconds",
        Kind::Counter,
        "seconds",
        "Processor time of the process, user and system.",
    );
    text.sample("process_cpu_seconds_total", &[], cpu);
    let gauges = [
        (
            "process_start_time_seconds",
            "seconds",
            "When the process started, in Unix time.",
            process.started_at,
        ),
        (
            "process_resident_memory_bytes",
            "bytes",
            "Memory of the process that is resident.",
            process.resident_len,
        ),
        ("process_virtual_memory_bytes", "bytes", "Address space of the process.", process.virtual_len),
        ("process_open_fds", "", "Open file descriptors.", process.open_files),
        ("process_max_fds", "", "File descriptors that may be open.", process.open_files_max),
    ];
    for (name, unit, help, value) in gauges {
        text.family(name, Kind::Gauge, unit, help);
        text.sample(name, &[], value);
    }
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// OpenMetrics wants base units, at the end of the name: `bytes_sent` is `sent_bytes`, `busy_nanos` is
/// `busy_seconds`.
fn family_name(figure: &str, counted_in: FigureUnit) -> String {
    let mut name = "seedring_worker".to_owned();
    let words = figure.split('_').filter(|&word| match counted_in {
        FigureUnit::Count => true,
        FigureUnit::Bytes => word != "bytes",
        FigureUnit::Nanoseconds => word != "nanos",
    });
    for word in words.chain(Some(unit(counted_in)).filter(|unit| !unit.is_empty())) {
        name.push('_');
        name += word;
    }
    name
}

fn unit(unit: FigureUnit) -> &'static str {
    match unit {
        FigureUnit::Count => "",
        FigureUnit::Bytes => "bytes",
        FigureUnit::Nanoseconds => "seconds",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::WaitTimes;
    use crate::id::InfoHash;
    use crate::time::Duration;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A sample: its name, its labels, its value.
    type Sample = (String, Vec<(String, String)>, f64);

    /// Reads the text as the specification's grammar has it, and refuses whatever does not fit.
    fn parse(text: &str) -> Result<Vec<Sample>, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?;
        let (mut samples, mut families, mut family) = (Vec::new(), BTreeSet::new(), (String::new(), ""));
        for line in body.split_terminator('\n') {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or("no type")?;
                let suffix = match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    "gauge" => "",
                    "histogram" => "_histogram",
                    _ => return Err(format!("unknown type {kind}")),
                };
                if !families.insert(name.to_owned()) {
                    return Err(format!("{name} comes twice"));
                }
                family = (name.to_owned(), suffix);
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').ok_or("no unit")?;
                if name != family.0 || !name.ends_with(&format!("_{unit}")) {
                    return Err(format!("{line} after {}", family.0));
                }
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or("no help")?;
                if name != family.0 || help.contains(['\\', '"']) {
                    return Err(line.to_owned());
                }
            } else {
                let sample = parse_sample(line).ok_or_else(|| format!("not a sample: {line:?}"))?;
                let fits = match family.1 {
                    "_histogram" => ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|end| sample.0 == format!("{}{end}", family.0)),
                    suffix => sample.0 == format!("{}{suffix}", family.0),
                };
                if !fits {
                    return Err(format!("{line:?} in the family {}", family.0));
                }
                samples.push(sample);
            }
        }
        Ok(samples)
    }

    fn parse_sample(line: &str) -> Option<Sample> {
        let end = line.find(|c: char| !c.is_ascii_lowercase() && c != '_')?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                let (label, value) = rest.split_once("=\"")?;
                let (mut text, mut chars) = (String::new(), value.char_indices());
                let end = loop {
                    match chars.next()? {
                        (at, '"') => break at,
                        (_, '\\') => text.push(match chars.next()?.1 {
                            'n' => '\n',
                            c @ ('\\' | '"') => c,
                            _ => return None,
                        }),
                        (_, c) => text.push(c),
                    }
                };
                labels.push((label.to_owned(), text));
                rest = &value[end + 1..];
                if let Some(next) = rest.strip_prefix(',') {
                    rest = next;
                } else {
                    rest = rest.strip_prefix('}')?;
                    break;
                }
            }
        }
        Some((name.to_owned(), labels, rest.strip_prefix(' ')?.parse().ok()?))
    }

    fn is_unprintable(c: char) -> bool {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
    }

    fn named(name: &str) -> TorrentFigures<'_> {
        let (info_hash, waited) = (InfoHash([0xab; 20]), WaitTimes([0, 1_500_000_000, 0, 0, 7, 0]));
        TorrentFigures {
            name,
            status: TorrentStatus { info_hash, peers: 2, uploaded: 5, download: None, waited },
        }
    }

    #[test]
    fn every_figure_of_every_worker_is_there_in_base_units() {
        let worker = StatisticsSnapshot {
            bytes_sent: 7,
            busy_nanos: 12_000_000_034,
            connections: 3,
            ..StatisticsSnapshot::default()
        };
        let snapshot = MetricsSnapshot { workers: vec![worker; 2], ..MetricsSnapshot::default() };
        let text = render(&snapshot, Format::OpenMetrics);
        let samples = parse(&text).unwrap();
        let of_workers = samples.iter().filter(|(name, ..)| name.starts_with("seedring_worker_"));
        assert_eq!(of_workers.count(), 2 * FIGURES.len());
        for line in [
            "seedring_worker_sent_bytes_total{worker=\"1\"} 7",
            "seedring_worker_busy_seconds_total{worker=\"0\"} 12.000000034",
            "seedring_worker_connections{worker=\"1\"} 3",
            "# TYPE seedring_worker_connections gauge",
            "# UNIT seedring_worker_sent_bytes bytes",
            "# HELP seedring_worker_half_open Connections that have not finished their handshake.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn the_session_has_its_sums() {
        let worker =
            StatisticsSnapshot { payload_sent: 10, payload_received: 7, ..StatisticsSnapshot::default() };
        let snapshot = MetricsSnapshot {
            workers: vec![worker; 3],
            torrents: 4,
            failed: 2,
            trackers: [7, 9],
            process: ProcessFigures {
                cpu: Duration::from_millis(1500),
                open_files: 11,
                ..ProcessFigures::default()
            },
            peers: 5,
            completed: 6,
            upload_rate: ByteRate(8),
            download_rate: ByteRate(9),
            ..MetricsSnapshot::default()
        };
        let samples = parse(&render(&snapshot, Format::OpenMetrics)).unwrap();
        let value = |name: &str| samples.iter().find(|sample| sample.0 == name).map(|sample| sample.2);
        assert_eq!(value("seedring_uploaded_bytes_total"), Some(30.0));
        assert_eq!(value("seedring_torrents"), Some(4.0));
        assert_eq!(value("seedring_failed_torrents"), Some(2.0));
        let states: Vec<f64> =
            samples.iter().filter(|sample| sample.0 == "seedring_trackers").map(|sample| sample.2).collect();
        assert_eq!(states, [7.0, 9.0]);
        assert_eq!(value("process_cpu_seconds_total"), Some(1.5));
        assert_eq!(value("process_open_fds"), Some(11.0));
        assert_eq!(value("seedring_peers"), Some(5.0));
        assert_eq!(value("seedring_completed_downloads_total"), Some(6.0));
        assert_eq!(value("seedring_upload_bytes_per_second"), Some(8.0));
        assert_eq!(value("seedring_downloaded_bytes_total"), Some(21.0));
        assert_eq!(value("seedring_download_bytes_per_second"), Some(9.0));
        assert_eq!(value("seedring_build_info"), Some(1.0));
        assert!(!samples.iter().any(|sample| sample.0.starts_with("seedring_torrent_")));
    }

    #[test]
    fn of_a_download_it_is_told_how_far_it_is_and_of_a_seed_it_is_not() {
        let (mut download, seed) = (named("x"), named("y"));
        download.status.download = Some((100, 30));
        let each = vec![download, seed];
        let text = render(&MetricsSnapshot { each, ..MetricsSnapshot::default() }, Format::OpenMetrics);
        let samples = parse(&text).unwrap();
        for (name, value) in [("wanted", 100.0), ("left", 30.0), ("here", 70.0)] {
            let name = format!("seedring_torrent_{name}_bytes");
            let found: Vec<f64> = samples.iter().filter(|it| it.0 == name).map(|it| it.2).collect();
            assert_eq!(found, [value], "{name}");
        }
    }

    #[test]
    fn single_torrents_are_shown_up_to_the_bound_and_not_beyond() {
        let many = |count| vec![named("x"); count];
        let samples = |each| {
            let text = render(&MetricsSnapshot { each, ..MetricsSnapshot::default() }, Format::OpenMetrics);
            parse(&text).unwrap().iter().filter(|sample| sample.0.starts_with("seedring_torrent_")).count()
        };
        assert_eq!(samples(many(METRICS_TORRENTS_MAX)), 8 * METRICS_TORRENTS_MAX);
        assert_eq!(samples(many(METRICS_TORRENTS_MAX + 1)), 8 * METRICS_TORRENTS_MAX);
    }

    #[test]
    fn a_scrape_of_a_large_machine_stays_below_a_mebibyte() {
        let statistics = crate::engine::statistics::WorkerStatistics::default();
        let text = render(
            &MetricsSnapshot {
                workers: vec![statistics.snapshot(); 16],
                histograms: vec![statistics.histograms(); 16],
                torrents: 10_000,
                each: vec![named(&"x".repeat(255)); METRICS_TORRENTS_MAX],
                ..MetricsSnapshot::default()
            },
            Format::OpenMetrics,
        );
        assert!(text.len() < 1 << 20, "{}", text.len());
    }

    #[test]
    fn of_many_torrents_those_with_the_most_peers_are_chosen() {
        let torrent = |number: u8, peers| TorrentStatus {
            info_hash: InfoHash([number; 20]),
            peers,
            ..named("").status
        };
        let torrents = vec![torrent(1, 5), torrent(2, 9), torrent(3, 1), torrent(4, 5), torrent(5, 7)];
        let chosen = |count| -> Vec<u8> {
            busiest(torrents.clone(), count).iter().map(|torrent| torrent.info_hash.0[0]).collect()
        };
        assert_eq!(chosen(3), [2, 5, 1]);
        assert_eq!(chosen(9), [2, 5, 1, 4, 3]);
        assert!(chosen(0).is_empty());
    }

    #[test]
    fn waits_of_a_torrent_are_told_by_cause() {
        let text = render(
            &MetricsSnapshot { each: vec![named("x")], ..MetricsSnapshot::default() },
            Format::OpenMetrics,
        );
        let info_hash = "ab".repeat(20);
        for (cause, time) in [("window", "1.500000000"), ("cpu", "0.000000007"), ("disk", "0.000000000")] {
            let line = format!(
                "seedring_torrent_waited_seconds_total{{info_hash=\"{info_hash}\",cause=\"{cause}\"}} {time}"
            );
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn histograms_are_cumulative_and_end_with_everything() {
        let statistics = crate::engine::statistics::WorkerStatistics::default();
        let histograms = vec![statistics.histograms(); 2];
        let text = render(&MetricsSnapshot { histograms, ..MetricsSnapshot::default() }, Format::OpenMetrics);
        let samples = parse(&text).unwrap();
        let of = |name: &str| samples.iter().filter(|sample| sample.0 == name).count();
        assert_eq!(of("seedring_worker_request_seconds_bucket"), 2 * 26);
        assert_eq!(of("seedring_worker_send_batch_bytes_bucket"), 2 * 13);
        assert_eq!(of("seedring_worker_turn_seconds_count"), 2);
        assert!(text.contains("seedring_worker_entry_seconds_bucket{worker=\"1\",le=\"+Inf\"} 0\n"));
        assert!(text.contains("_bucket{worker=\"0\",le=\"0.000001024\"} 0\n"), "{text}");
    }

    #[test]
    fn a_name_that_wants_to_be_a_sample_stays_a_name() {
        let name = "x\"} 1\nseedring_peers 9\r\n\\\u{1b}[2J";
        let text = render(
            &MetricsSnapshot { each: vec![named(name)], ..MetricsSnapshot::default() },
            Format::OpenMetrics,
        );
        let shown = "name=\"x\\\"} 1\\nseedring_peers 9\u{fffd}\\n\\\\\u{fffd}[2J\"";
        assert!(text.contains(shown), "{text}");
        assert_eq!(parse(&text).unwrap().iter().filter(|sample| sample.0 == "seedring_peers").count(), 1);
    }

    proptest! {
        #[test]
        fn any_name_parses_back(names in proptest::collection::vec(any::<String>(), 1..4)) {
            let each: Vec<_> = names.iter().map(|name| named(name)).collect();
            let text = render(&MetricsSnapshot { each, ..MetricsSnapshot::default() }, Format::OpenMetrics);
            let lines = text.lines().count();
            // Readers that know more ends of lines find no more lines.
            let ends = |c: char| c == '\n' || is_unprintable(c);
            prop_assert_eq!(text.split_terminator(ends).count(), lines);
            let samples = parse(&text).map_err(TestCaseError::fail)?;
            let shown: Vec<&str> = samples
                .iter()
                .filter(|sample| sample.0 == "seedring_torrent_connections")
                .map(|sample| sample.1[1].1.as_str())
                .collect();
            let kept = |c| if c != '\n' && is_unprintable(c) { '\u{fffd}' } else { c };
            let expected: Vec<String> =
                names.iter().map(|name| name.chars().map(kept).collect()).collect();
            prop_assert_eq!(shown, expected);
        }
    }
}
