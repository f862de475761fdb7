//! `seedring lab check`: swarms drawn from seeds, and whether everything held in them that must.

use super::super::CommandError;
use super::super::escape::json;
use super::super::progress::Progress;
use crate::service;
use crate::sim::swarm::{Drawn, Report};
use crate::units::Counted;
use serde_json::json as object;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Failing seeds that are shown; the others are counted.
const FAILURES_SHOWN: usize = 20;

/// Does everything hold that must, in swarms drawn by chance?
///
/// Each seed is a swarm of this program's own machines: content, peers, lines, manners, policies, departures and
/// faults are drawn from it. While everything may go wrong it is checked that no rule is broken; then, with an
/// honest seed and no more faults, that everybody who can complete does.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    seedring lab check --seeds 1..1000\n  \
    seedring lab check --seed 17        the story of one swarm\n\n\
Exit code 1 when something did not hold.")]
pub struct CheckArgs {
    /// The swarms of these seeds: 1..1000, both included
    #[arg(long, value_name = "A..B", default_value = "1..200", value_parser = seeds)]
    seeds: (u64, u64),
    /// The swarm of this seed alone, with its story
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Print one JSON object
    #[arg(long, conflicts_with = "seed")]
    json: bool,
}

/// What is known so far.
#[derive(Debug, Default)]
struct Known {
    runs: u64,
    events: u64,
    recounts: u64,
    failures: Vec<(u64, String)>,
}

pub fn run(args: CheckArgs) -> Result<(), CommandError> {
    match args.seed {
        Some(seed) => tell(seed),
        None => check(args.seeds, args.json),
    }
}

/// One swarm, in words.
fn tell(seed: u64) -> Result<(), CommandError> {
    let cancel = service::shutdown_flag()?;
    let drawn = Drawn::from_seed(seed);
    let mut out = std::io::stdout().lock();
    write!(out, "{drawn}")?;
    out.flush()?;
    let Some(report) = drawn.run(true, &cancel) else { return Err("stopped".into()) };
    for (at, words) in &report.story {
        writeln!(out, "{:>12.3} s  {words}", at.as_nanos() as f64 / 1e9)?;
    }
    for (number, peer) in report.outcomes.iter().enumerate() {
        let completed =
            peer.completed_at.map_or("-".into(), |at| format!("{:.1} s", at.as_nanos() as f64 / 1e9));
        writeln!(
            out,
            "peer {number}: {}, gave {}, took {}, of which {} in vain; complete: {completed}",
            Counted(peer.pieces, "piece"),
            Counted(peer.given, "byte"),
            peer.taken,
            peer.wasted
        )?;
    }
    let ended = report.ended.as_nanos() as f64 / 1e9;
    let (events, recounts) = (Counted(report.events, "event"), Counted(report.recounts, "recount"));
    writeln!(out, "ended at {ended:.1} s after {events} and {recounts}; trace {:016x}", report.trace)?;
    match report.violation {
        Some(violation) => Err(violation.to_string().into()),
        None => Ok(writeln!(out, "all holds")?),
    }
}

fn check((first, last): (u64, u64), as_json: bool) -> Result<(), CommandError> {
    let cancel = service::shutdown_flag()?;
    let (next, known) = (AtomicU64::new(first), Mutex::new(Known::default()));
    let counter = Progress::start_runs("checking", last - first + 1);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed > last || seed < first || cancel.load(Relaxed) {
                return;
            }
            let Some((report, failure)) = check_one(seed, &cancel) else { return };
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.runs += 1;
            known.events += report.as_ref().map_or(0, |report| report.events);
            known.recounts += report.as_ref().map_or(0, |report| report.recounts);
            known.failures.extend(failure.map(|what| (seed, what)));
            drop(known);
            counter.add(1);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    drop(counter);
    let mut known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
    known.failures.sort_unstable();
    let text = if as_json { report(&known, (first, last))? } else { summary(&known, (first, last)) };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    match (known.failures.len(), cancel.load(Relaxed)) {
        (0, false) => Ok(()),
        (0, true) => Err("stopped; what was known by then stands above".into()),
        (count, _) => Err(format!("in {} something did not hold that must", Counted(count, "swarm")).into()),
    }
}

/// Runs one swarm; a panic of the program's own machines is a finding like any other. `None` when cancelled.
fn check_one(seed: u64, cancel: &AtomicBool) -> Option<(Option<Report>, Option<String>)> {
    match catch_unwind(AssertUnwindSafe(|| Drawn::from_seed(seed).run(false, cancel))) {
        Ok(report) => {
            let report = report?;
            let failure = report.violation.as_ref().map(|violation| violation.to_string());
            Some((Some(report), failure))
        }
        Err(_) => Some((None, Some("it panicked; what it said stands above".into()))),
    }
}

fn summary(known: &Known, (first, last): (u64, u64)) -> String {
    let mut text = String::new();
    for (seed, what) in known.failures.iter().take(FAILURES_SHOWN) {
        text += &format!("seed {seed}: {what}\n  replay: seedring lab check --seed {seed}\n");
    }
    let more = known.failures.len().saturating_sub(FAILURES_SHOWN);
    if more > 0 {
        text += &format!("and {more} more\n");
    }
    text + &format!(
        "{} of the swarms {first}..{last}: {}, everything counted anew {}; {} failed\n",
        known.runs,
        Counted(known.events, "event"),
        Counted(known.recounts, "time"),
        known.failures.len()
    )
}

fn report(known: &Known, (first, last): (u64, u64)) -> Result<String, CommandError> {
    let failures: Vec<_> =
        known.failures.iter().map(|(seed, what)| object!({ "seed": seed, "what": what })).collect();
    let report = object!({
        "first": first, "last": last, "runs": known.runs, "events": known.events, "recounts": known.recounts,
        "failures": failures,
    });
    Ok(json(&report)? + "\n")
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("{text:?} names no seeds; write 1..1000");
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let first: u64 = first.trim().parse().map_err(|_| wrong())?;
    let last: u64 = last.trim().parse().map_err(|_| wrong())?;
    match last.checked_sub(first) {
        None => Err("write the smaller number first".into()),
        Some(count) if count >= 1 << 32 => Err("no more than 4294967296 seeds at once".into()),
        Some(_) if last == u64::MAX => Err("write a smaller number".into()),
        Some(_) => Ok((first, last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_and_nonsense_is_refused() {
        assert_eq!(seeds("1..1000"), Ok((1, 1000)));
        assert_eq!(seeds("7"), Ok((7, 7)));
        for bad in ["", "x", "5..1", "1..", "-1..2", "0..99999999999", "18446744073709551615"] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_failed_is_named_with_its_replay() {
        let known = Known { runs: 3, failures: vec![(2, "it broke".into())], ..Known::default() };
        let text = summary(&known, (1, 3));
        assert!(text.contains("seed 2: it broke\n  replay: seedring lab check --seed 2\n"), "{text}");
    }
}
