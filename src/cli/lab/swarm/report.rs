//! What `seedring lab swarm` prints: a row for each combination of policies, and one for each group of peers in it.

use super::super::super::CommandError;
use super::super::super::escape::json;
use super::super::distribute::classes;
use super::{Policy, SwarmArgs, clock_time, order_name, slots_name, switch_name, usual_crowd};
use crate::choker::Slots;
use crate::lab::middle;
use crate::lab::observe::{End, GroupReport, Observation, Sample};
use crate::lab::scenario::{Crowd, Stay};
use crate::units::{ByteSize, Counted};
use serde_json::{Value, json as object};

/// What is known of one combination of policies.
pub struct Row {
    /// What sets it apart from the others.
    pub label: String,
    pub policy: Policy,
    /// In the order of their seeds.
    pub runs: Vec<Observation>,
}

impl Row {
    /// Sorts runs to the policies they were made with. A run that was stopped is left out where others were not.
    pub fn all(
        args: &SwarmArgs,
        policies: &[Policy],
        jobs: &[(Policy, u64)],
        runs: Vec<Option<Observation>>,
    ) -> Vec<Self> {
        let mut rows: Vec<Self> = policies
            .iter()
            .map(|&policy| Self { label: label(args, policy), policy, runs: Vec::new() })
            .collect();
        for (&(policy, _), run) in jobs.iter().zip(runs) {
            if let (Some(run), Some(row)) = (run, rows.iter_mut().find(|row| row.policy == policy)) {
                row.runs.push(run);
            }
        }
        for row in &mut rows {
            if row.runs.iter().any(|run| run.end != End::Stopped) {
                row.runs.retain(|run| run.end != End::Stopped);
            }
        }
        rows.retain(|row| !row.runs.is_empty());
        rows
    }

    /// The median of the runs, of a time; `None` when it never comes in half of them.
    fn time(&self, of: impl Fn(&Observation) -> Option<f64>) -> Option<f64> {
        middle(self.runs.iter().map(of))
    }

    /// The median of the runs of which it is known.
    fn middle(&self, of: impl Fn(&Observation) -> Option<f64>) -> Option<f64> {
        middle(self.runs.iter().filter_map(of).map(Some))
    }
}

/// What sets a combination apart: its values of the options that have several.
fn label(args: &SwarmArgs, policy: Policy) -> String {
    let mut parts = Vec::new();
    if args.order.len() > 1 {
        parts.push(match order_name(policy.order) {
            "rarest" => "rarest first".to_owned(),
            name => name.to_owned(),
        });
    }
    if args.slots.len() > 1 {
        parts.push(format!("{} slots", slots_name(policy.slots)));
    }
    if args.optimistic.len() > 1 {
        parts.push(format!("optimistic {}", switch_name(policy.optimistic)));
    }
    if args.super_seed.len() > 1 {
        parts.push(format!("super-seed {}", switch_name(policy.super_seed)));
    }
    if parts.is_empty() { "as asked".to_owned() } else { parts.join(", ") }
}

pub fn table(args: &SwarmArgs, crowd: &Crowd, rows: &[Row]) -> String {
    let mut text = head(args, crowd);
    let width = rows.iter().map(|row| row.label.len()).chain(["policies".len()]).max().unwrap_or(0);
    text += &format!(
        "{:width$}   complete      median     slowest   rarest/mean   twice at   uplinks   seed gave    given/taken\n",
        "policies"
    );
    let time = |seconds: Option<f64>| seconds.map_or("-".to_owned(), clock_time);
    for row in rows {
        let low = row.middle(|run| run.fairness.map(|(low, _)| low));
        let high = row.middle(|run| run.fairness.map(|(_, high)| high));
        let fairness = low.zip(high).map_or("-".to_owned(), |(low, high)| format!("{low:.2} to {high:.2}"));
        let (done, all) = row
            .runs
            .iter()
            .fold((0, 0), |(done, all), run| (done + run.completed as usize, all + run.peers.len()));
        text += &format!(
            "{:width$}   {:>8}   {:>9}   {:>9}   {:>11}   {:>8}   {:>7}   {:>9}   {:>12}\n",
            row.label,
            format!("{done}/{all}"),
            time(row.time(|run| run.median)),
            time(row.time(|run| run.slowest)),
            number(row.middle(|run| run.rarest_to_mean), 2),
            time(row.time(|run| run.twice_at)),
            percent(row.middle(|run| run.uplinks)),
            number(row.middle(|run| Some(run.seed_copies)), 2),
            fairness,
        );
    }
    if rows.iter().any(|row| row.runs.iter().any(|run| run.groups.len() > 1)) {
        text += &groups(rows, width);
    }
    for row in rows {
        for run in &row.runs {
            text += &match run.end {
                End::Complete | End::Late => continue,
                End::Lost(pieces) => {
                    format!(
                        "{}: with seed {} no copy was left of {}\n",
                        row.label,
                        run.seed,
                        Counted(pieces, "piece")
                    )
                }
                End::Stopped => format!("{}: the run with seed {} was stopped\n", row.label, run.seed),
            };
        }
    }
    text
}

fn head(args: &SwarmArgs, crowd: &Crowd) -> String {
    let (name, what) = (args.scenario.name(), args.scenario.description());
    let mut text = format!("{name}: {what}\n");
    let changed = changes(&usual_crowd(args), crowd);
    if !changed.is_empty() {
        text += &format!("here: {}\n", changed.join("; "));
    }
    let (peers, size, seed_up) = (Counted(crowd.peers, "peer"), ByteSize(crowd.size), crowd.seed_up);
    let kinds: Vec<String> =
        crowd.classes.iter().map(|class| format!("{} send {}", class.name, class.up)).collect();
    text += &format!("{peers}, {size}; the seed sends {seed_up}, {}; ", kinds.join(", "));
    text += &format!("the middle of {} from seed {} on\n", Counted(args.runs, "run"), args.seed);
    let scale = crowd.scale();
    if scale > 1 {
        text +=
            &format!("simulated with size and rates divided by {scale}, which leaves times as they are\n");
    }
    text + "\n"
}

/// In what a crowd differs from the usual one of its scenario.
fn changes(usual: &Crowd, crowd: &Crowd) -> Vec<String> {
    let percent = |thousandths: u32| f64::from(thousandths) / 10.0;
    let mut all = Vec::new();
    if crowd.free_riders != usual.free_riders {
        all.push(format!("{} % give nothing", percent(crowd.free_riders)));
    }
    if crowd.liars != usual.liars {
        all.push(format!("{} % send wrong bytes", percent(crowd.liars)));
    }
    if crowd.leavers != usual.leavers {
        all.push(format!("{} % leave with what they have and come back", percent(crowd.leavers)));
    }
    if crowd.arrival_gap != usual.arrival_gap {
        all.push(match crowd.arrival_gap {
            Some(gap) => format!("one peer comes every {} on average", clock_time(gap.as_secs_f64())),
            None => "everybody comes within ten seconds".to_owned(),
        });
    }
    if crowd.stay != usual.stay {
        all.push(match crowd.stay {
            Stay::ForEver => "whoever has everything gives on for ever".to_owned(),
            Stay::For(time) => format!("whoever has everything stays {}", clock_time(time.as_secs_f64())),
        });
    }
    if crowd.seed_goes_after != usual.seed_goes_after {
        all.push(match crowd.seed_goes_after {
            Some(copies) => format!("the seed goes when it has given {} copies", f64::from(copies) / 1000.0),
            None => "the seed stays".to_owned(),
        });
    }
    all
}

/// A row for each group of each combination.
fn groups(rows: &[Row], width: usize) -> String {
    let mut text = format!(
        "\n{:width$}   {:<12}   peers   complete      median   gave   took   from its own   at random\n",
        "policies", "group"
    );
    for row in rows {
        let groups = row.runs.first().map_or(&[][..], |run| &run.groups[..]);
        for (place, group) in groups.iter().enumerate().filter(|(_, group)| group.peers > 0) {
            let of =
                |of: fn(&GroupReport) -> Option<f64>| row.middle(|run| run.groups.get(place).and_then(of));
            let median = row.time(|run| run.groups.get(place)?.median);
            text += &format!(
                "{:width$}   {:<12}   {:>5}   {:>8}   {:>9}   {:>4}   {:>4}   {:>12}   {:>9}\n",
                row.label,
                group.name,
                group.peers,
                number(of(|group| Some(group.completed.into())), 0),
                median.map_or("-".to_owned(), clock_time),
                number(of(|group| Some(group.given)), 2),
                number(of(|group| Some(group.taken)), 2),
                percent(of(|group| group.from_own)),
                percent(of(|group| group.from_own_at_random)),
            );
        }
    }
    text
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{:.0} %", value * 100.0))
}

pub fn json_of(args: &SwarmArgs, crowd: &Crowd, rows: &[Row]) -> Result<String, CommandError> {
    let stay = match crowd.stay {
        Stay::ForEver => Value::Null,
        Stay::For(time) => object!(time.as_secs_f64()),
    };
    let part = |thousandths: u32| f64::from(thousandths) / 1000.0;
    let report = object!({
        "scenario": args.scenario.name(), "peers": crowd.peers, "size": crowd.size, "scale": crowd.scale(),
        "seed_up": crowd.seed_up.0, "classes": classes(&crowd.classes), "delay_seconds": crowd.delay.as_secs_f64(),
        "free_riders": part(crowd.free_riders), "liars": part(crowd.liars), "leavers": part(crowd.leavers),
        "arrivals_seconds": crowd.arrival_gap.map(|gap| gap.as_secs_f64()), "stay_seconds": stay,
        "seed_leaves_after_copies": crowd.seed_goes_after.map(part),
        "policies": rows.iter().map(row_object).collect::<Vec<Value>>(),
    });
    Ok(json(&report)? + "\n")
}

fn row_object(row: &Row) -> Value {
    let slots = match row.policy.slots {
        Slots::Auto => object!("auto"),
        Slots::Fixed(count) => object!(count),
    };
    object!({
        "label": row.label, "order": order_name(row.policy.order), "slots": slots,
        "optimistic": row.policy.optimistic, "super_seed": row.policy.super_seed,
        "median_seconds": row.time(|run| run.median), "slowest_seconds": row.time(|run| run.slowest),
        "rarest_to_mean": row.middle(|run| run.rarest_to_mean), "uplinks": row.middle(|run| run.uplinks),
        "seed_copies": row.middle(|run| Some(run.seed_copies)),
        "runs": row.runs.iter().map(run_object).collect::<Vec<Value>>(),
    })
}

fn run_object(run: &Observation) -> Value {
    let (end, lost) = match run.end {
        End::Complete => ("complete", 0),
        End::Lost(pieces) => ("lost", pieces),
        End::Late => ("late", 0),
        End::Stopped => ("stopped", 0),
    };
    let groups: Vec<Value> = run.groups.iter().map(group_object).collect();
    let peers: Vec<Value> = run
        .peers
        .iter()
        .map(|peer| {
            let group = run.groups.get(usize::from(peer.group)).map(|group| group.name.as_str());
            object!({ "group": group, "seconds": peer.took, "given": peer.given, "taken": peer.taken })
        })
        .collect();
    object!({
        "seed": run.seed, "end": end, "lost_pieces": lost, "completed": run.completed,
        "median_seconds": run.median, "slowest_seconds": run.slowest, "rarest_to_mean": run.rarest_to_mean,
        "every_piece_twice_at_seconds": run.twice_at, "uplinks": run.uplinks, "uplinks_busy": run.busy,
        "seed_copies": run.seed_copies, "seed_share": run.seed_share,
        "given_to_taken_p10": run.fairness.map(|(low, _)| low),
        "given_to_taken_p90": run.fairness.map(|(_, high)| high),
        "groups": groups, "peers": peers, "samples": run.samples.iter().map(sample_object).collect::<Vec<Value>>(),
        "trace": format!("{:016x}", run.trace), "events": run.events,
    })
}

fn group_object(group: &GroupReport) -> Value {
    object!({
        "name": group.name, "peers": group.peers, "completed": group.completed, "median_seconds": group.median,
        "given": group.given, "taken": group.taken, "from_own": group.from_own,
        "from_own_at_random": group.from_own_at_random,
    })
}

fn sample_object(sample: &Sample) -> Value {
    object!({
        "seconds": sample.at, "leeches": sample.leeches, "seeds": sample.seeds, "rarest": sample.rarest,
        "mean": sample.mean, "uplinks": sample.uplinks,
    })
}
