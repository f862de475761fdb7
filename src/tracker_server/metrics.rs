//! The tracker's figures as text for a monitoring system. Sums only: nothing of a single torrent or peer.

use super::TrackerStatistics;
use crate::exposition::{Exposition, Format, Kind};

/// The text.
pub(super) fn render(statistics: &TrackerStatistics, format: Format) -> String {
    let mut text = Text(Exposition::new(format));
    let swarms = &statistics.swarms;
    let version = env!("CARGO_PKG_VERSION");
    text.0.family("seedring_tracker_build", Kind::Info, "", "Which seedring this is.");
    text.0.sample("seedring_tracker_build_info", &[("version", version)], 1);
    text.gauge("seedring_tracker_torrents", "Torrents known.", &[(&[], swarms.swarms)]);
    text.gauge(
        "seedring_tracker_peers",
        "Peers known.",
        &[
            (&[("family", "ipv4"), ("role", "seed")], swarms.seeds_v4),
            (&[("family", "ipv4"), ("role", "leech")], swarms.leeches_v4),
            (&[("family", "ipv6"), ("role", "seed")], swarms.seeds_v6),
            (&[("family", "ipv6"), ("role", "leech")], swarms.leeches_v6),
        ],
    );
    let by_protocol = |http, udp| {
        let labels: [&[(&str, &str)]; 2] = [&[("protocol", "http")], &[("protocol", "udp")]];
        [(labels[0], http), (labels[1], udp)]
    };
    text.counter(
        "seedring_tracker_completed_downloads",
        "Downloads completed since the start.",
        &[(&[], swarms.completed)],
    );
    let announces = by_protocol(statistics.announces_http, statistics.announces_udp);
    text.counter("seedring_tracker_announces", "Announces answered.", &announces);
    let scrapes = by_protocol(statistics.scrapes_http, statistics.scrapes_udp);
    text.counter("seedring_tracker_scrapes", "Scrapes answered.", &scrapes);
    text.counter("seedring_tracker_connects", "UDP connection ids issued.", &[(&[], statistics.connects)]);
    text.counter(
        "seedring_tracker_refused",
        "Requests refused, and datagrams that were none.",
        &[(&[], statistics.refused)],
    );
    let states: [Sample<'_>; 2] = [
        (&[("result", "written")], statistics.states_written),
        (&[("result", "failed")], statistics.states_not_written),
    ];
    text.counter("seedring_tracker_state_writes", "Times that --state was written, or was not.", &states);
    text.0.finish()
}

/// One sample: its labels and its value.
type Sample<'a> = (&'a [(&'a str, &'a str)], u64);

struct Text(Exposition);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, samples: &[Sample<'_>]) {
        self.0.family(name, Kind::Gauge, "", help);
        samples.iter().for_each(|(labels, value)| self.0.sample(name, labels, value));
    }

    fn counter(&mut self, name: &str, help: &str, samples: &[Sample<'_>]) {
        let total = format!("{name}_total");
        self.0.family(name, Kind::Counter, "", help);
        samples.iter().for_each(|(labels, value)| self.0.sample(&total, labels, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_tell_the_same_samples() {
        let statistics = TrackerStatistics {
            announces_udp: 7,
            refused: 3,
            states_not_written: 2,
            ..TrackerStatistics::default()
        };
        let samples = |format| {
            let text = render(&statistics, format);
            assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        let open = samples(Format::OpenMetrics);
        assert_eq!(open, samples(Format::Prometheus));
        assert!(
            open.contains(&"seedring_tracker_announces_total{protocol=\"udp\"} 7".to_owned()),
            "{open:?}"
        );
        assert!(open.contains(&"seedring_tracker_refused_total 3".to_owned()));
        assert!(open.contains(&"seedring_tracker_state_writes_total{result=\"failed\"} 2".to_owned()));
        let typed =
            |format| render(&statistics, format).contains("# TYPE seedring_tracker_refused_total counter");
        assert!(typed(Format::Prometheus) && !typed(Format::OpenMetrics));
    }
}
