//! Diagnostics: where they go, and how many of them.
//!
//! `SEEDRING_LOG=debug` tells of every peer that comes and goes, which strangers cause. So no more than some lines a second
//! are told, and the next one says how many were left out; what is worth a warning has a bound of its own.

use super::output;
use crate::clock;
use crate::limits::{LOG_DEBUG_LINES_MAX, LOG_LINES_MAX};
use crate::time::{Duration, Instant};
use crate::units::Counted;
use std::io;
use std::sync::{Mutex, PoisonError};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The span that bounds count in.
const SPAN: Duration = Duration::from_secs(1);

static NEWS: Mutex<Budget> = Mutex::new(Budget::new(LOG_LINES_MAX));
static DETAILS: Mutex<Budget> = Mutex::new(Budget::new(LOG_DEBUG_LINES_MAX));

/// Diagnostics go to stderr, by default warnings only; `SEEDRING_LOG=debug` says who comes and goes, and why.
pub(super) fn start() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SEEDRING_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(ToStderr).with_target(false).init();
}

/// So many lines a second.
#[derive(Debug)]
pub(super) struct Budget {
    most: u32,
    since: Instant,
    told: u32,
    left_out: u64,
}

impl Budget {
    pub(super) const fn new(most: u32) -> Self {
        Self { most, since: Instant::ZERO, told: 0, left_out: 0 }
    }

    /// Whether a line may be told now; if so, how many were not since the last one that was.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.since(self.since) >= SPAN {
            (self.since, self.told) = (now, 0);
        }
        if self.told >= self.most {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

struct ToStderr;

/// One line.
struct Line(&'static Mutex<Budget>);

impl<'a> MakeWriter<'a> for ToStderr {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(&NEWS)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line(if *metadata.level() <= Level::INFO { &NEWS } else { &DETAILS })
    }
}

impl io::Write for Line {
    /// The library hands over whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let admitted = self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(clock::now());
        if let Some(left_out) = admitted {
            if left_out > 0 {
                output::err(format_args!(
                    "seedring: left out here: {} of the log",
                    Counted(left_out, "more line")
                ));
            }
            output::err(String::from_utf8_lossy(line).trim_end_matches('\n'));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_are_told_and_the_others_are_counted() {
        let mut budget = Budget::new(3);
        let at = |millis| Instant::ZERO + Duration::from_secs(100) + Duration::from_millis(millis);
        let told: Vec<_> = (0..10).map(|_| budget.admit(at(0))).collect();
        assert_eq!(told[..4], [Some(0), Some(0), Some(0), None]);
        assert_eq!(budget.admit(at(999)), None);
        assert_eq!((budget.admit(at(1000)), budget.admit(at(1000))), (Some(8), Some(0)));
    }
}
