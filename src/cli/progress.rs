//! Progress on everything that lasts: a bar on a terminal, a few plain lines elsewhere.
//!
//! It goes to stderr, so that stdout stays what the command prints. Without a terminal a line comes with
//! every tenth, and not more often than every two seconds: short work stays silent. Colour only on a
//! terminal, and not when NO_COLOR is set (no-color.org).

use super::output;
use crate::clock;
use crate::time::{Duration, Instant};
use crate::units::ByteSize;
use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike,
};
use std::io::{self, IsTerminal};
use std::sync::{LazyLock, Mutex, PoisonError};

const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// Progress of one piece of work, counted in bytes, runs or peers. Any thread may report.
pub(super) struct Progress {
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Plain(Mutex<Plain>),
}

/// What has been said in plain lines.
struct Plain {
    verb: &'static str,
    total: u64,
    /// What is counted, when it is not bytes.
    unit: Option<&'static str>,
    done: u64,
    tenths_told: u64,
    told_at: Instant,
}

/// Whether stderr is a terminal that can draw over what it has drawn.
fn can_redraw() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stderr().is_terminal() && !dumb
}

/// Times a second that a bar is drawn at most.
const DRAWN_PER_SECOND: u8 = 20;

/// Draws all bars of the process, below each other, on stderr through its queue.
fn bars() -> &'static MultiProgress {
    static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(Queued::default()), DRAWN_PER_SECOND);
        MultiProgress::with_draw_target(target)
    });
    &BARS
}

/// A bar among the others; drawn only once it is one of them.
fn bar(total: Option<u64>) -> ProgressBar {
    bars().add(ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()))
}

/// A terminal behind the queue of stderr. What is drawn goes there as a whole.
#[derive(Debug, Default)]
struct Queued(Mutex<String>);

impl Queued {
    fn add(&self, text: impl std::fmt::Display) -> io::Result<()> {
        use std::fmt::Write;
        // A string takes all that is written to it.
        let _ = write!(self.0.lock().unwrap_or_else(PoisonError::into_inner), "{text}");
        Ok(())
    }

    fn size(&self) -> (u16, u16) {
        let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
        // A terminal that does not know says zero.
        size.filter(|size| size.ws_col > 0).map_or((80, 24), |size| (size.ws_col, size.ws_row))
    }

    /// Control sequences that do nothing for zero steps would do one.
    fn step(&self, count: usize, direction: char) -> io::Result<()> {
        if count > 0 { self.add(format_args!("\x1b[{count}{direction}")) } else { Ok(()) }
    }
}

impl TermLike for Queued {
    fn width(&self) -> u16 {
        self.size().0.max(1)
    }

    fn height(&self) -> u16 {
        self.size().1.max(1)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.step(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.step(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.step(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.step(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.add(format_args!("{s}\n"))
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.add(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let drawn = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if !drawn.is_empty() {
            output::draw(drawn);
        }
        Ok(())
    }
}

/// One line that changes, for commands that run until they are told to stop; `None` where nobody would see it change.
pub(super) fn live_line(json: bool) -> Option<ProgressBar> {
    if json || !can_redraw() || !std::io::stdout().is_terminal() {
        return None;
    }
    let live = bar(None);
    Some(live.with_style(ProgressStyle::with_template("{wide_msg}").ok()?))
}

/// Gives a live line a second one, its prefix.
pub(super) fn add_line(live: &ProgressBar) {
    if let Ok(style) = ProgressStyle::with_template("{wide_msg}\n{prefix}") {
        live.set_style(style);
    }
}

impl Progress {
    /// Begins to show that `total` bytes are being worked on; `verb` as in `hashing`.
    pub(super) fn start(verb: &'static str, total: u64) -> Self {
        Self::counting(verb, total, None)
    }

    /// Begins to show that `total` runs are being worked on.
    pub(super) fn start_runs(verb: &'static str, total: u64) -> Self {
        Self::counting(verb, total, Some("runs"))
    }

    /// Begins to show how many of `total` peers are done, simulated or real.
    pub(super) fn start_peers(verb: &'static str, total: u64) -> Self {
        Self::counting(verb, total, Some("peers"))
    }

    fn counting(verb: &'static str, total: u64, unit: Option<&'static str>) -> Self {
        if !can_redraw() {
            let plain = Plain { verb, total, unit, done: 0, tenths_told: 0, told_at: clock::now() };
            return Self { shown: Shown::Plain(Mutex::new(plain)) };
        }
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let bar = bar(Some(total));
        if let Ok(style) = ProgressStyle::with_template(&template(colour, unit)) {
            bar.set_style(style.with_key("left", write_left).progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.set_message(verb);
        Self { shown: Shown::Bar(bar) }
    }

    /// So many bytes, or runs, more are done.
    pub(super) fn add(&self, bytes: u64) {
        match &self.shown {
            Shown::Bar(bar) => bar.inc(bytes),
            Shown::Plain(plain) => {
                let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(line) = plain.advance(bytes, clock::now()) {
                    output::err(line);
                }
            }
        }
    }
}

/// The bar goes away with the work, so that the result or the error stands alone.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
            // The result is not to come before it has gone.
            output::settle();
        }
    }
}

impl Plain {
    /// The line that is due, if one is.
    fn advance(&mut self, bytes: u64, now: Instant) -> Option<String> {
        self.done = self.done.saturating_add(bytes);
        let tenths = self.done.saturating_mul(10) / self.total.max(1);
        if tenths <= self.tenths_told || now.since(self.told_at) < PLAIN_INTERVAL {
            return None;
        }
        self.tenths_told = tenths;
        self.told_at = now;
        let percent = tenths.min(10) * 10;
        let total = self
            .unit
            .map_or_else(|| ByteSize(self.total).to_string(), |unit| format!("{} {unit}", self.total));
        Some(format!("{}: {percent} % of {total}", self.verb))
    }
}

/// How long it will take, once that can be said.
fn write_left(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    if state.pos() > 0 {
        let _ = write!(out, "{} left", HumanDuration(state.eta()));
    }
}

fn template(colour: bool, unit: Option<&str>) -> String {
    let bar = if colour { "{msg} {bar:30.cyan} {percent:>3} %" } else { "{msg} {bar:30} {percent:>3} %" };
    match unit {
        None => {
            format!("{bar}  {{binary_bytes}} of {{binary_total_bytes}}  {{binary_bytes_per_sec}}  {{left}}")
        }
        Some(unit) => format!("{bar}  {{pos}} of {{len}} {unit}  {{left}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_are_sparse() {
        let mut plain = Plain {
            verb: "hashing",
            total: 1000,
            unit: None,
            done: 0,
            tenths_told: 0,
            told_at: Instant::ZERO,
        };
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        assert_eq!(plain.advance(500, at(1)), None, "too early");
        assert_eq!(plain.advance(49, at(2)).as_deref(), Some("hashing: 50 % of 1000 B"));
        assert_eq!(plain.advance(50, at(9)), None, "no new tenth");
        assert_eq!(plain.advance(401, at(20)).as_deref(), Some("hashing: 100 % of 1000 B"));
        assert!(plain.advance(u64::MAX, at(30)).is_some(), "more than the total is no failure");
    }

    #[test]
    fn both_templates_are_understood_and_threads_may_report() {
        assert!(
            [true, false].iter().all(|&colour| ProgressStyle::with_template(&template(colour, None)).is_ok())
        );
        let progress = Progress::start("testing", 400);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| progress.add(100));
            }
        });
    }
}
