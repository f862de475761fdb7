//! `seedring lab swarm`: how a crowd fares, and how policies compare in it.

mod figure;
mod report;

use super::super::progress::Progress;
use super::super::{CommandError, UsageError};
use super::distribute::{PEERS_MAX, class, clock_time, figure_file, ground, rate, size};
use crate::choker::Slots;
use crate::lab::distribute::PeerClass;
use crate::lab::observe::{End, Observation};
use crate::lab::run_all;
use crate::lab::scenario::{Crowd, PIECES_USUAL, Scenario, Stay};
use crate::picker::Order;
use crate::service;
use crate::sim::swarm::Policies;
use crate::time::Duration;
use crate::units::{ByteRate, ByteSize};
use clap::builder::PossibleValue;
use figure::FigureKind;
use report::Row;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

const SLOTS_MAX: usize = 100;
/// A transfer that takes longer at a peer's own rate is not simulated.
const TRANSFER_MAX: u64 = 30 * 86_400;

/// How does a crowd fare, and how do policies compare in it?
///
/// Whole swarms of this program's own machines are simulated. Where an option has several values (--order,
/// --slots, --optimistic, --super-seed), every combination meets the same peers, with the same seeds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    seedring lab swarm --order rarest,random,sequential --plot diversity.svg\n  \
    seedring lab swarm --scenario free-riders --free-riders 30% --optimistic on,off --figure fairness --plot f.svg\n  \
    seedring lab swarm --scenario classes --slots 2,4,8\n  \
    seedring lab swarm --scenario seed-leaves --super-seed off,on --runs 10\n\n\
Columns:\n  \
    complete        peers that have everything, of all in all runs\n  \
    median, slowest time from coming to having everything, as are all other columns the median of the runs\n  \
    rarest/mean     copies of the rarest piece against the mean, while peers have a quarter to nine tenths\n  \
    twice at        when every piece was there besides the seed's copy\n  \
    uplinks         part of the honest leeches' uplinks that carried payload while they leeched\n  \
    seed gave       copies of the content\n  \
    given/taken     of honest leeches, from the lowest tenth to the highest\n  \
    from its own    what a group got from itself, of what it got from leeches; at random: if all gave to all alike")]
pub struct SwarmArgs {
    /// What kind of crowd comes; the other options change its numbers
    #[arg(long, value_enum, default_value = "flash-crowd")]
    scenario: Scenario,
    /// How many peers come
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(PEERS_MAX)))]
    peers: u32,
    /// Bytes of the content
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    size: ByteSize,
    /// Pieces at most that the content has
    #[arg(long, value_name = "N", default_value_t = PIECES_USUAL, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pieces: u32,
    /// What the seed can send
    #[arg(long, value_name = "RATE", default_value = "4MB/s", value_parser = rate)]
    seed_up: ByteRate,
    /// What each peer can send [default: 1MB/s]
    #[arg(long, value_name = "RATE", value_parser = rate, conflicts_with = "class")]
    peer_up: Option<ByteRate>,
    /// What each peer can receive [default: no bound]
    #[arg(long, value_name = "RATE", value_parser = rate, conflicts_with = "class")]
    peer_down: Option<ByteRate>,
    /// Peers of several kinds, in proportion to COUNT; DOWN of 0 is no bound; repeatable
    #[arg(long, value_name = "NAME:COUNT:UP:DOWN", value_parser = class)]
    class: Vec<PeerClass>,
    /// Peers that give nothing, as 20%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    free_riders: Option<u32>,
    /// Peers that send wrong bytes in half of their blocks, as 10%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    liars: Option<u32>,
    /// Peers that leave with what they have by then and come back, as 50%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    leavers: Option<u32>,
    /// Mean time between two arrivals, in seconds; 0 lets all come within ten seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    arrivals: Option<Duration>,
    /// How long peers stay when they have everything, in seconds, or forever
    #[arg(long, value_name = "SECONDS", value_parser = stay)]
    stay: Option<Stay>,
    /// Copies that the seed gives before it goes, as 1.05, or never
    #[arg(long, value_name = "COPIES", value_parser = copies)]
    seed_leaves: Option<SeedLeaves>,
    /// Which piece is begun first: rarest, random, sequential
    #[arg(long, value_name = "ORDER", value_delimiter = ',', default_value = "rarest", value_parser = order)]
    order: Vec<Order>,
    /// Regular slots of a leech: a number, or auto as the program has by itself: four, and more as a seed
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "auto", value_parser = slots)]
    slots: Vec<Slots>,
    /// An optimistic slot beside the regular ones: on, off
    #[arg(long, value_name = "SWITCH", value_delimiter = ',', default_value = "on", value_parser = switch)]
    optimistic: Vec<bool>,
    /// The seed super-seeds: on, off
    #[arg(long, value_name = "SWITCH", value_delimiter = ',', default_value = "off", value_parser = switch)]
    super_seed: Vec<bool>,
    /// Runs of each combination, with seeds from --seed on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Seed of the first run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Time of a byte from a peer's line into the net, in milliseconds; two peers are apart by twice that
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    delay: u64,
    /// Draw a figure: FILE.svg or FILE.png; only an older figure is replaced
    #[arg(long, value_name = "FILE", value_parser = figure_file)]
    plot: Option<PathBuf>,
    /// Draw it on a dark ground
    #[arg(long, requires = "plot")]
    dark: bool,
    /// What the figure shows
    #[arg(long, value_enum, default_value = "diversity")]
    figure: FigureKind,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl clap::ValueEnum for Scenario {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.description()))
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    order: Order,
    slots: Slots,
    optimistic: bool,
    super_seed: bool,
}

impl Policy {
    fn policies(self) -> Policies {
        Policies {
            order: self.order,
            slots: self.slots,
            seed_slots: Slots::Auto,
            optimistic: self.optimistic,
            super_seed: self.super_seed,
            ..Policies::default()
        }
    }

    /// As options of the command.
    fn options(self) -> String {
        let order = order_name(self.order);
        let (optimistic, super_seed) = (switch_name(self.optimistic), switch_name(self.super_seed));
        let slots = slots_name(self.slots);
        format!("--order {order} --slots {slots} --optimistic {optimistic} --super-seed {super_seed}")
    }
}

pub fn run(args: SwarmArgs) -> Result<(), CommandError> {
    let crowd = crowd(&args)?;
    let policies = combinations(&args);
    let seeds: Vec<u64> = (0..args.runs).map(|run| args.seed.wrapping_add(u64::from(run))).collect();
    // Every policy once before any twice, so that somebody who stops it early can compare.
    let jobs: Vec<(Policy, u64)> =
        seeds.iter().flat_map(|&seed| policies.iter().map(move |&policy| (policy, seed))).collect();
    let cancel = service::shutdown_flag()?;
    let counter = Progress::start_peers("simulating", jobs.len() as u64 * u64::from(args.peers));
    let runs = run_all(&jobs, |&(policy, seed)| {
        let progress = |peers: u32| counter.add(peers.into());
        (!cancel.load(Relaxed)).then(|| Observation::of(&crowd, policy.policies(), seed, &cancel, progress))
    });
    drop(counter);
    let rows = Row::all(&args, &policies, &jobs, runs);
    let text =
        if args.json { report::json_of(&args, &crowd, &rows)? } else { report::table(&args, &crowd, &rows) };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    let drawn = args
        .plot
        .as_ref()
        .map_or(Ok(()), |path| args.figure.draw(&crowd, &rows).write(path, ground(args.dark)));
    if cancel.load(Relaxed) {
        return Err("stopped; what was known by then stands above".into());
    }
    let late = rows.iter().flat_map(|row| row.runs.iter().map(move |run| (row.policy, run)));
    let late: Vec<String> = late
        .filter(|(_, run)| run.end == End::Late)
        .map(|(policy, run)| format!("\n  {}", replay(&args, policy, run.seed)))
        .collect();
    if late.is_empty() {
        return Ok(drawn?);
    }
    Err(format!(
        "peers that could have had everything have not, after long patience; see again with{}",
        late.concat()
    )
    .into())
}

/// Every combination of the policies' values, without repeats.
fn combinations(args: &SwarmArgs) -> Vec<Policy> {
    let mut all = Vec::new();
    for &order in &args.order {
        for &slots in &args.slots {
            for &optimistic in &args.optimistic {
                for &super_seed in &args.super_seed {
                    let policy = Policy { order, slots, optimistic, super_seed };
                    if !all.contains(&policy) {
                        all.push(policy);
                    }
                }
            }
        }
    }
    all
}

/// The crowd that the scenario alone asks for.
fn usual_crowd(args: &SwarmArgs) -> Crowd {
    let shares: u64 = args.class.iter().map(|class| u64::from(class.share)).sum();
    let up: u128 = args.class.iter().map(|class| u128::from(class.up.0) * u128::from(class.share)).sum();
    let of_classes =
        up.checked_div(shares.into()).map(|mean| ByteRate(u64::try_from(mean).unwrap_or(u64::MAX)));
    let peer_up = args.peer_up.or(of_classes).unwrap_or(ByteRate(1_000_000));
    args.scenario.crowd(args.size.0, args.seed_up, peer_up, args.peers)
}

fn crowd(args: &SwarmArgs) -> Result<Crowd, UsageError> {
    let mut crowd = usual_crowd(args);
    if !args.class.is_empty() {
        crowd.classes = args.class.clone();
    }
    if args.peer_down.is_some() {
        crowd.classes.iter_mut().for_each(|class| class.down = args.peer_down);
    }
    crowd.pieces = args.pieces;
    crowd.delay = Duration::from_millis(args.delay);
    crowd.free_riders = args.free_riders.unwrap_or(crowd.free_riders);
    crowd.liars = args.liars.unwrap_or(crowd.liars);
    crowd.leavers = args.leavers.unwrap_or(crowd.leavers);
    crowd.stay = args.stay.unwrap_or(crowd.stay);
    if let Some(gap) = args.arrivals {
        crowd.arrival_gap = Some(gap).filter(|gap| !gap.is_zero());
    }
    if let Some(SeedLeaves(after)) = args.seed_leaves {
        crowd.seed_goes_after = after;
    }
    if crowd.free_riders + crowd.liars > 1000 {
        return Err(UsageError(
            "free-riders and liars are more than all peers; ask for fewer of them".into(),
        ));
    }
    if crowd.classes.len() > 100 {
        return Err(UsageError("at most 100 classes can be told apart; put some together".into()));
    }
    let slowest =
        crowd.classes.iter().map(|class| class.up.0.min(class.down.map_or(u64::MAX, |down| down.0)));
    let slowest = slowest.chain([args.seed_up.0]).min().unwrap_or(1);
    if args.size.0 / slowest.max(1) > TRANSFER_MAX {
        let (size, rate) = (args.size, ByteRate(slowest));
        return Err(UsageError(format!(
            "{size} at {rate} take longer than 30 days, which is more than is simulated; give a smaller size or higher rates"
        )));
    }
    Ok(crowd)
}

/// The command that runs this again.
fn replay(args: &SwarmArgs, policy: Policy, seed: u64) -> String {
    let (scenario, options) = (args.scenario.name(), policy.options());
    let mut text =
        format!("seedring lab swarm --scenario {scenario} --peers {} --size {}", args.peers, args.size.0);
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!(" --{name} {value}");
        }
    };
    let percent = |share: Option<u32>| share.map(|share| format!("{}%", f64::from(share) / 10.0));
    let rate = |rate: Option<ByteRate>| rate.map(|rate| rate.0.to_string());
    say("pieces", Some(args.pieces.to_string()));
    say("seed-up", rate(Some(args.seed_up)));
    say("peer-up", rate(args.peer_up));
    say("peer-down", rate(args.peer_down));
    for class in &args.class {
        let down = class.down.map_or(0, |down| down.0);
        say("class", Some(format!("{}:{}:{}:{down}", class.name, class.share, class.up.0)));
    }
    say("free-riders", percent(args.free_riders));
    say("liars", percent(args.liars));
    say("leavers", percent(args.leavers));
    say("arrivals", args.arrivals.map(|gap| gap.as_secs_f64().to_string()));
    say(
        "stay",
        args.stay.map(|stay| match stay {
            Stay::ForEver => "forever".to_owned(),
            Stay::For(time) => time.as_secs_f64().to_string(),
        }),
    );
    say(
        "seed-leaves",
        args.seed_leaves.map(|SeedLeaves(after)| match after {
            Some(thousandths) => (f64::from(thousandths) / 1000.0).to_string(),
            None => "never".to_owned(),
        }),
    );
    say("delay", Some(args.delay.to_string()));
    format!("{text} {options} --runs 1 --seed {seed}")
}

/// After how many thousandths of a copy the seed goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeedLeaves(Option<u32>);

fn order_name(order: Order) -> &'static str {
    match order {
        Order::RarestFirst => "rarest",
        Order::Random => "random",
        Order::Sequential => "sequential",
    }
}

fn slots_name(slots: Slots) -> String {
    match slots {
        Slots::Auto => "auto".to_owned(),
        Slots::Fixed(count) => count.to_string(),
    }
}

fn switch_name(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn order(text: &str) -> Result<Order, String> {
    let known = [Order::RarestFirst, Order::Random, Order::Sequential];
    let found = known.into_iter().find(|&order| order_name(order) == text);
    found.ok_or_else(|| format!("{text:?} is no order; there are rarest, random and sequential"))
}

fn slots(text: &str) -> Result<Slots, String> {
    let number = |text: &str| text.parse().ok().filter(|number| (1..=SLOTS_MAX).contains(number));
    match text {
        "auto" => Ok(Slots::Auto),
        _ => number(text)
            .map(Slots::Fixed)
            .ok_or(format!("write a number of slots from 1 to {SLOTS_MAX}, or auto")),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off, or on,off to compare".to_owned()),
    }
}

/// Thousandths.
fn percent(text: &str) -> Result<u32, String> {
    let number: Option<f64> = text.trim().trim_end_matches('%').trim_end().parse().ok();
    let share = number.filter(|share| (0.0..=100.0).contains(share));
    share
        .map(|share| (share * 10.0).round() as u32)
        .ok_or_else(|| format!("{text:?} is no part from 0% to 100%"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: Option<f64> = text.parse().ok();
    let time = number.filter(|time| (0.0..=1e7).contains(time));
    time.map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{text:?} is no time in seconds, from 0 to 10 million"))
}

fn stay(text: &str) -> Result<Stay, String> {
    if text == "forever" { Ok(Stay::ForEver) } else { seconds(text).map(Stay::For) }
}

fn copies(text: &str) -> Result<SeedLeaves, String> {
    if text == "never" {
        return Ok(SeedLeaves(None));
    }
    let number: Option<f64> = text.parse().ok();
    let copies = number.filter(|copies| (0.001..=1e6).contains(copies));
    let thousandths = copies.map(|copies| SeedLeaves(Some((copies * 1000.0).round() as u32)));
    thousandths.ok_or_else(|| format!("{text:?} is no number of copies; write 1.05, or never"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: SwarmArgs,
    }

    fn parse(line: &str) -> Result<SwarmArgs, clap::Error> {
        Line::try_parse_from(["swarm"].into_iter().chain(line.split_whitespace())).map(|line| line.args)
    }

    #[test]
    fn every_combination_of_policies_is_asked_once() {
        let args = parse("--order rarest,random --slots 4,8,4 --optimistic on,off").unwrap();
        let all = combinations(&args);
        assert_eq!(all.len(), 8);
        assert_eq!(all[7].options(), "--order random --slots 8 --optimistic off --super-seed off");
        assert_eq!(combinations(&parse("").unwrap()).len(), 1);
    }

    #[test]
    fn the_command_that_replays_a_run_asks_for_the_same_crowd() {
        for line in [
            "",
            "--scenario steady --peers 7 --size 3MiB --arrivals 2.5 --stay forever --delay 3",
            "--class a:1:50kB/s:0 --class b:2:1MB/s:2MB/s --free-riders 12.5% --liars 3% --leavers 50",
            "--scenario seed-leaves --seed-leaves never --peer-up 77777 --peer-down 1MB --pieces 9 --stay 0",
            "--seed-leaves 1.25 --seed-up 9kB/s --size 1MB",
        ] {
            let args = parse(line).unwrap();
            let policy = combinations(&args)[0];
            let again = replay(&args, policy, 7);
            let again = parse(again.strip_prefix("seedring lab swarm").unwrap()).unwrap();
            assert_eq!(crowd(&args).unwrap(), crowd(&again).unwrap(), "{line}");
            assert_eq!((again.seed, again.runs, combinations(&again)), (7, 1, vec![policy]));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--scenario stampede",
            "--peers 0",
            "--peers 10001",
            "--size 0",
            "--size 99999999TiB",
            "--seed-up 0",
            "--peer-up 0",
            "--order rarest,worst",
            "--slots 0",
            "--slots many",
            "--optimistic maybe",
            "--free-riders 101%",
            "--free-riders -1%",
            "--stay soon",
            "--arrivals NaN",
            "--seed-leaves 0",
            "--runs 0",
            "--plot figure.pdf",
            "--figure nothing",
            "--peer-up 1MB --class a:1:1MB:0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in [
            "--free-riders 60% --liars 50%",
            "--size 15EiB",
            "--size 1GiB --peer-up 1",
            "--size 1TiB --seed-up 5",
        ] {
            let Ok(args) = parse(line) else { continue };
            assert!(crowd(&args).is_err(), "{line}");
        }
    }
}
