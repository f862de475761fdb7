//! Figures as text for a monitoring system: OpenMetrics 1.0.0 for who asks for it, else the older text format of Prometheus
//! (0.0.4), which differs in its media type, in the names and types of counters and infos, and in its end.
//!
//! Invariant: whatever a label holds, the text stays well formed, line by line.

use hyper::HeaderMap;
use hyper::header::ACCEPT;
use std::fmt::{Display, Write};

/// In which format the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
}

impl Format {
    /// Both.
    pub const ALL: [Self; 2] = [Self::OpenMetrics, Self::Prometheus];

    /// What a request with these headers reads.
    pub fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let is_open = |value: &str| value.to_ascii_lowercase().contains("application/openmetrics-text");
        if accepted.into_iter().any(is_open) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The text's media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What a family's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They come and go.
    Gauge,
    /// Counts of values below bounds.
    Histogram,
    /// Labels that say what something is; its value is 1.
    Info,
}

/// A text in the making.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    /// An empty text.
    pub const fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Opens a family. `name` is without the suffixes of its samples; `unit` is what it ends with, or nothing; `help` is a
    /// sentence of ours and holds nothing to escape.
    pub fn family(&mut self, name: &str, kind: Kind, unit: &str, help: &str) {
        let is_open = self.format == Format::OpenMetrics;
        // The older format knows a counter by the name of its samples, and no infos.
        let (suffix, word) = match (kind, is_open) {
            (Kind::Counter, true) => ("", "counter"),
            (Kind::Counter, false) => ("_total", "counter"),
            (Kind::Info, true) => ("", "info"),
            (Kind::Info, false) => ("_info", "gauge"),
            (Kind::Gauge, _) => ("", "gauge"),
            (Kind::Histogram, _) => ("", "histogram"),
        };
        self.line(format_args!("# TYPE {name}{suffix} {word}"));
        if is_open && !unit.is_empty() {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name}{suffix} {help}"));
    }

    /// A sample of the family that was opened last; `name` has the suffix, as `_total` of counters.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text += name;
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text += if index == 0 { "{" } else { "," };
            self.text += label;
            self.text += "=\"";
            self.push_escaped(text);
            self.text.push('"');
        }
        self.text += if labels.is_empty() { " " } else { "} " };
        self.line(value);
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text += "# EOF\n";
        }
        self.text
    }

    /// Escapes a label's value as the specification has it. Control characters and the other ends of lines that
    /// readers know are allowed there and still become U+FFFD: they would break readers that are less exact, and
    /// command the terminal of who looks with curl.
    fn push_escaped(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.text += "\\\\",
                '"' => self.text += "\\\"",
                '\n' => self.text += "\\n",
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    self.text.push(char::REPLACEMENT_CHARACTER);
                }
                c => self.text.push(c),
            }
        }
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.text, "{line}").expect("writing into a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        let mut headers = HeaderMap::new();
        assert_eq!(Format::wanted(&headers), Format::Prometheus);
        headers.insert(ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
        assert_eq!(Format::wanted(&headers), Format::Prometheus);
        headers.append(ACCEPT, HeaderValue::from_static("application/openmetrics-text;version=1.0.0"));
        assert_eq!(Format::wanted(&headers), Format::OpenMetrics);
    }

    #[test]
    fn each_format_names_counters_and_infos_in_its_own_way() {
        let text = |format| {
            let mut text = Exposition::new(format);
            text.family("a_bytes", Kind::Counter, "bytes", "A.");
            text.sample("a_bytes_total", &[("name", "x\n\"\\\u{1b}")], 7);
            text.family("b", Kind::Info, "", "B.");
            text.sample("b_info", &[], 1);
            text.finish()
        };
        let sample = "a_bytes_total{name=\"x\\n\\\"\\\\\u{fffd}\"} 7\n";
        assert_eq!(
            text(Format::OpenMetrics),
            format!(
                "# TYPE a_bytes counter\n# UNIT a_bytes bytes\n# HELP a_bytes A.\n{sample}\
                 # TYPE b info\n# HELP b B.\nb_info 1\n# EOF\n"
            )
        );
        assert_eq!(
            text(Format::Prometheus),
            format!(
                "# TYPE a_bytes_total counter\n# HELP a_bytes_total A.\n{sample}\
                 # TYPE b_info gauge\n# HELP b_info B.\nb_info 1\n"
            )
        );
    }
}
