//! The tracker's figures as text for a monitoring system: OpenMetrics 1.0.0 for who asks for it, else the older text format
//! of Prometheus (0.0.4), which differs in its media type, in the names of counters' types and in its end.
//!
//! Sums only: nothing of a single torrent or peer.

use super::TrackerStatistics;
use hyper::HeaderMap;
use hyper::header::ACCEPT;
use std::fmt::{Display, Write};

/// In which format the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// What a request with these headers reads.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let is_open = |value: &str| value.to_ascii_lowercase().contains("application/openmetrics-text");
        if accepted.into_iter().any(is_open) { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The text.
pub(super) fn render(statistics: &TrackerStatistics, format: Format) -> String {
    let mut text = Text { out: String::new(), format };
    let swarms = &statistics.swarms;
    let version = env!("CARGO_PKG_VERSION");
    let build = "seedring_tracker_build";
    match format {
        Format::OpenMetrics => text.family(build, "info", "Which seedring this is."),
        Format::Prometheus => text.family(&format!("{build}_info"), "gauge", "Which seedring this is."),
    }
    text.samples(&format!("{build}_info"), &[(&[("version", version)], 1)]);
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
    if format == Format::OpenMetrics {
        text.out += "# EOF\n";
    }
    text.out
}

/// One sample: its labels and its value.
type Sample<'a> = (&'a [(&'a str, &'a str)], u64);

struct Text {
    out: String,
    format: Format,
}

impl Text {
    fn gauge(&mut self, name: &str, help: &str, samples: &[Sample<'_>]) {
        self.family(name, "gauge", help);
        self.samples(name, samples);
    }

    fn counter(&mut self, name: &str, help: &str, samples: &[Sample<'_>]) {
        let total = format!("{name}_total");
        let family = if self.format == Format::OpenMetrics { name } else { &total };
        self.family(family, "counter", help);
        self.samples(&total, samples);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn samples(&mut self, name: &str, samples: &[Sample<'_>]) {
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            if labels.is_empty() {
                self.line(format_args!("{name} {value}"));
            } else {
                self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
            }
        }
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.out, "{line}").expect("writing into a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn both_formats_tell_the_same_samples() {
        let statistics = TrackerStatistics { announces_udp: 7, refused: 3, ..TrackerStatistics::default() };
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
        let typed =
            |format| render(&statistics, format).contains("# TYPE seedring_tracker_refused_total counter");
        assert!(typed(Format::Prometheus) && !typed(Format::OpenMetrics));
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        let mut headers = HeaderMap::new();
        assert_eq!(Format::wanted(&headers), Format::Prometheus);
        headers.insert(ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
        assert_eq!(Format::wanted(&headers), Format::Prometheus);
        headers.append(ACCEPT, HeaderValue::from_static("application/openmetrics-text;version=1.0.0"));
        assert_eq!(Format::wanted(&headers), Format::OpenMetrics);
    }
}
