//! `--real`: what is checked before anything is started, the real runs one after the other, and how they are told beside
//! what was predicted.

use super::super::super::progress::Progress;
use super::super::super::{CommandError, UsageError};
use super::clock_time;
use crate::lab::distribute::{PeerClass, Question};
use crate::lab::middle_and_last;
use crate::lab::real::swarm::{PeerWish, Wishes};
use crate::lab::real::{Client, Ending, Ground, Net, PEERS_MAX, RealError, baseline, room_for, swarm};
use crate::time::Duration;
use crate::units::{ByteRate, Counted};
use serde_json::{Value, json as object};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A run is given up after so many times what was predicted, and a minute.
const PATIENCE: u32 = 20;
/// Longest run that is begun, by its prediction.
const RUN_TIME_MAX: Duration = Duration::from_secs(3600);
/// CPU time of all that happens to a byte between two peers, in nanoseconds: measured, with SHA-1 in hardware.
const CPU_NANOS_PER_BYTE: f64 = 8.0;
/// Part of all cores above which a run is one of the machine, not of its limits.
const CPU_SHARE_MAX: f64 = 0.8;

/// Options of real runs.
#[derive(Debug, clap::Args)]
pub(super) struct RealArgs {
    /// Do it for real on this machine as well, with N peers, or 1,2,4,8: processes with limits, and an HTTP server
    #[arg(long, value_name = "N", value_parser = numbers)]
    real: Option<Numbers>,
    /// Other clients among the real peers: they and Seedring take turns; repeatable
    #[arg(long, value_name = "CLIENT", value_enum, requires = "real")]
    with: Vec<Rival>,
    /// The folder for the real copies, which are removed afterwards [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR", requires = "real")]
    real_storage: Option<PathBuf>,
    /// Leave the real HTTP server out
    #[arg(long, requires = "real")]
    no_baseline: bool,
    /// This is a network namespace made for it.
    #[arg(long, hide = true, requires = "real")]
    inside_namespace: bool,
}

#[derive(Clone, Debug)]
struct Numbers(Vec<u32>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Rival {
    /// libtorrent-rasterbar, the Python package libtorrent
    Libtorrent,
    /// transmission-daemon, in a network namespace
    Transmission,
    /// aria2c
    Aria2,
}

impl RealArgs {
    /// The numbers of peers that are to be real.
    pub fn numbers(&self) -> &[u32] {
        self.real.as_ref().map_or(&[], |numbers| &numbers.0)
    }
}

/// What is about to be done, and can be.
pub(super) struct Plan {
    numbers: Vec<u32>,
    clients: Vec<Client>,
    storage: PathBuf,
    net: Net,
    program: PathBuf,
    has_baseline: bool,
    seed: u64,
}

impl Plan {
    /// Checks what can be checked before anything is started; `None` when nothing is to be real. To be called before
    /// there are threads: a run that needs a network namespace goes on in another process, which this one becomes.
    pub fn of(args: &RealArgs, question: &Question, seed: u64) -> Result<Option<Self>, CommandError> {
        let Some(&most) = args.numbers().last() else { return Ok(None) };
        let misuse = |error: RealError| UsageError(error.to_string());
        let mut clients = vec![Client::Seedring];
        for rival in &args.with {
            let client = match rival {
                Rival::Libtorrent => Client::Libtorrent,
                Rival::Transmission => Client::Transmission,
                Rival::Aria2 => Client::Aria2,
            };
            client.probe().map_err(misuse)?;
            if !clients.contains(&client) {
                clients.push(client);
            }
        }
        let storage = args.real_storage.clone().unwrap_or_else(std::env::temp_dir);
        let storage = std::path::absolute(storage)?;
        room_for(&storage, u64::from(most) + 1, question.size).map_err(misuse)?;
        for &peers in args.numbers() {
            let fluid = question.fluid(peers);
            let longest = if args.no_baseline { fluid.peer_to_peer() } else { fluid.client_server() };
            if longest.is_none_or(|time| time > RUN_TIME_MAX) {
                let time = longest.map_or("for ever".to_owned(), |time| clock_time(time.as_secs_f64()));
                let or = if args.no_baseline { "" } else { ", or --no-baseline" };
                let cure =
                    format!("a smaller --size, fewer peers or higher rates{or} make it less than an hour");
                return Err(UsageError(format!(
                    "a real run with {} would take {time}; {cure}",
                    people(peers)
                ))
                .into());
            }
        }
        let needs_namespace = clients.iter().any(|client| !client.knows_loopback());
        if needs_namespace && !args.inside_namespace {
            return Err(misuse(enter_namespace(most)).into());
        }
        let plan = Self {
            numbers: args.numbers().to_vec(),
            clients,
            storage,
            net: if needs_namespace { Net::Namespace } else { Net::Loopback },
            program: std::env::current_exe()?,
            has_baseline: !args.no_baseline,
            seed,
        };
        plan.warn(question);
        Ok(Some(plan))
    }

    /// Says so when the machine would be what is measured.
    fn warn(&self, question: &Question) {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get()) as f64;
        let rate = |&peers: &u32| question.fluid(peers).peers_up.0.saturating_add(question.server_up.0);
        let rate = self.numbers.iter().map(rate).max().unwrap_or(0) as f64;
        if rate * CPU_NANOS_PER_BYTE / 1e9 > CPU_SHARE_MAX * cores {
            let rate = ByteRate(rate as u64);
            eprintln!(
                "seedring: all rates together are {rate}, more than {} may carry; lower ones measure lines",
                Counted(cores as usize, "core")
            );
        }
    }

    /// The peers of a run: of each class as many as the question says, one class after the other, clients in turn.
    fn peers(&self, question: &Question, count: u32) -> Vec<PeerWish> {
        let of_class = |(class, &count): (&PeerClass, &u32)| {
            std::iter::repeat_n((class.up, class.down), count as usize).collect::<Vec<_>>()
        };
        let lines = question.counts(count);
        let lines = question.classes.iter().zip(&lines).flat_map(of_class);
        let clients = self.clients.iter().cycle();
        lines.zip(clients).map(|((up, down), &client)| PeerWish { client, up, down }).collect()
    }

    /// Does it all, as far as it comes; `predicted` says how long a swarm takes, if that is known.
    pub fn measure(
        &self,
        question: &Question,
        predicted: impl Fn(u32) -> Option<f64>,
        cancel: &AtomicBool,
    ) -> BTreeMap<u32, Measured> {
        let mut all = BTreeMap::new();
        for &peers in &self.numbers {
            if cancel.load(Relaxed) {
                break;
            }
            all.insert(peers, self.measure_one(question, peers, predicted(peers), cancel));
        }
        all
    }

    fn measure_one(
        &self,
        question: &Question,
        peers: u32,
        predicted: Option<f64>,
        cancel: &AtomicBool,
    ) -> Measured {
        let mut measured = Measured { clients: self.clients.clone(), ..Measured::default() };
        let done = match self.swarm(question, peers, predicted, cancel) {
            Ok(outcome) => {
                measured.swarm = outcome;
                if self.has_baseline && !cancel.load(Relaxed) {
                    self.server(question, peers, cancel).map(|outcome| measured.server = outcome)
                } else {
                    Ok(())
                }
            }
            Err(error) => Err(error),
        };
        measured.failure = done.err().map(|error| error.to_string());
        measured
    }

    fn swarm(
        &self,
        question: &Question,
        peers: u32,
        predicted: Option<f64>,
        cancel: &AtomicBool,
    ) -> Result<Option<swarm::Outcome>, RealError> {
        let bound = question.fluid(peers).peer_to_peer().unwrap_or_default();
        let expected = predicted.map_or(bound, |seconds| Duration::from_secs_f64(seconds).max(bound));
        let wishes = Wishes {
            program: self.program.clone(),
            server_up: question.server_up,
            peers: self.peers(question, peers),
            net: self.net,
            patience: expected.saturating_mul(PATIENCE) + Duration::from_secs(60),
        };
        let Some(ground) = Ground::new(&self.storage, question.size, self.seed, cancel)? else {
            return Ok(None);
        };
        eprintln!("real swarm of {}, about {}", people(peers), clock_time(expected.as_secs_f64()));
        let progress = Progress::start_peers("peers are done", u64::from(peers));
        swarm::run(&wishes, &ground, cancel, || progress.add(1)).map(Some)
    }

    fn server(
        &self,
        question: &Question,
        peers: u32,
        cancel: &AtomicBool,
    ) -> Result<Option<baseline::Outcome>, RealError> {
        let expected = question.fluid(peers).client_server().unwrap_or_default();
        let downs: Vec<_> = self.peers(question, peers).iter().map(|peer| peer.down).collect();
        let Some(ground) = Ground::new(&self.storage, question.size, self.seed, cancel)? else {
            return Ok(None);
        };
        eprintln!("real HTTP server and {}, about {}", people(peers), clock_time(expected.as_secs_f64()));
        let progress = Progress::start_peers("clients are done", u64::from(peers));
        let patience = expected.saturating_mul(PATIENCE) + Duration::from_secs(60);
        baseline::run(&ground, question.server_up, &downs, patience, cancel, || progress.add(1)).map(Some)
    }
}

fn people(peers: u32) -> String {
    Counted(peers, "peer").to_string()
}

/// Goes on in a network namespace of its own; returns only with the reason why not.
fn enter_namespace(peers: u32) -> RealError {
    let commands = Net::Namespace.commands(peers);
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "--", "sh", "-c", script]);
        command
    };
    let probe = unshare(&commands).stdin(Stdio::null()).output();
    match probe {
        Err(error) => {
            return RealError::Namespace(format!("unshare (package util-linux) does not run: {error}"));
        }
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("unshare fails");
            let cure = match rustix::process::geteuid().is_root() {
                _ if said.contains("ip: not found") => ", for which there is the package iproute2",
                true => "",
                false => ", which root may",
            };
            return RealError::Namespace(format!("{said}{cure}"));
        }
        Ok(_) => {}
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return RealError::Namespace(error.to_string()),
    };
    let mut command = unshare(&format!("{commands} && exec \"$@\""));
    command.arg("sh").arg(program).args(std::env::args_os().skip(1)).arg("--inside-namespace");
    RealError::Namespace(command.exec().to_string())
}

/// What came of the real runs with one number of peers.
#[derive(Debug, Default)]
pub(super) struct Measured {
    clients: Vec<Client>,
    swarm: Option<swarm::Outcome>,
    server: Option<baseline::Outcome>,
    failure: Option<String>,
}

impl Measured {
    /// When the last peer of the swarm had everything.
    pub fn slowest(&self) -> Option<f64> {
        middle_and_last(self.swarm.as_ref()?.peers.iter().map(|peer| seconds(peer.completed))).1
    }

    /// The median of the times when peers of the swarm had everything.
    fn median(&self) -> Option<f64> {
        middle_and_last(self.swarm.as_ref()?.peers.iter().map(|peer| seconds(peer.completed))).0
    }

    /// When the last client of the HTTP server had everything.
    pub fn server(&self) -> Option<f64> {
        middle_and_last(self.server.as_ref()?.completed.iter().copied().map(seconds)).1
    }

    /// What went wrong, in words.
    pub fn problems(&self) -> Vec<String> {
        let swarm = self.swarm.as_ref().map(|run| ("", &run.ending));
        let server = self.server.as_ref().map(|run| ("the HTTP server: ", &run.ending));
        let words = |(whose, ending): (&str, &Ending)| match ending {
            Ending::Complete | Ending::Stopped => None,
            Ending::Late => {
                Some(format!("{whose}it took more than twenty times what was predicted and was given up"))
            }
            Ending::Failed(why) => Some(format!("{whose}{why}")),
        };
        self.failure.iter().cloned().chain(swarm.into_iter().chain(server).filter_map(words)).collect()
    }

    /// Part of all cores that the swarm kept busy.
    fn cpu_share(&self) -> Option<f64> {
        let swarm = self.swarm.as_ref()?;
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get()) as f64;
        Some(swarm.cpu().as_secs_f64() / swarm.took.as_secs_f64().max(1e-9) / cores)
    }

    /// The same for programs.
    pub fn report(&self, size: u64) -> Value {
        let swarm = self.swarm.as_ref().map(|swarm| {
            let peers: Vec<Value> = swarm
                .peers
                .iter()
                .map(|peer| {
                    object!({
                        "client": peer.client.name(), "seconds": seconds(peer.completed), "given": peer.given,
                        "cpu_seconds": seconds(peer.cpu), "verified": peer.verified,
                    })
                })
                .collect();
            object!({
                "ended": ended(&swarm.ending), "seconds": swarm.took.as_secs_f64(), "complete": swarm.complete(),
                "median_seconds": self.median(), "slowest_seconds": self.slowest(), "peers": peers,
                "seed_copies": swarm.seed_given.map(|given| given as f64 / size as f64),
                "seed_cpu_seconds": seconds(swarm.seed_cpu), "cpu_seconds": swarm.cpu().as_secs_f64(),
                "cpu_share": self.cpu_share(),
            })
        });
        let server = self.server.as_ref().map(|server| {
            let each: Vec<_> = server.completed.iter().map(|&time| seconds(time)).collect();
            object!({
                "ended": ended(&server.ending), "slowest_seconds": self.server(), "seconds_each": each,
                "verified": server.verified, "cpu_seconds": server.cpu.as_secs_f64(),
            })
        });
        object!({ "peer_to_peer": swarm, "client_server": server, "failure": self.failure })
    }
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

fn ended(ending: &Ending) -> &str {
    match ending {
        Ending::Complete => "complete",
        Ending::Stopped => "stopped",
        Ending::Late => "late",
        Ending::Failed(why) => why,
    }
}

/// What was predicted for a number of peers, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Predicted {
    pub client_server: Option<f64>,
    pub bound: Option<f64>,
    pub simulated: Option<f64>,
}

/// Measured beside predicted, for people.
pub(super) fn table(
    size: u64,
    all: &BTreeMap<u32, Measured>,
    predicted: impl Fn(u32) -> Predicted,
) -> String {
    let mut text = "\nmeasured on this machine, and what was predicted\n".to_owned();
    text += "peers   HTTP server   formula   swarm median   slowest   simulated   off by   of the least   seed gave   CPU\n";
    let time = |seconds: Option<f64>| seconds.map_or("-".to_owned(), clock_time);
    for (&peers, measured) in all {
        let Predicted { client_server, bound, simulated } = predicted(peers);
        let slowest = measured.slowest();
        let off = simulated
            .zip(slowest)
            .map(|(simulated, real)| format!("{:+.1} %", 100.0 * (simulated / real - 1.0)));
        let least = slowest.zip(bound).map(|(real, bound)| format!("{:.2}", real / bound));
        let copies = measured.swarm.as_ref().and_then(|swarm| swarm.seed_given);
        let copies = copies.map(|given| format!("{:.2} x", given as f64 / size as f64));
        let share = measured.cpu_share().map(|share| format!("{:.0} %", 100.0 * share));
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        text += &format!(
            "{peers:>5}   {:>11}   {:>7}   {:>12}   {:>7}   {:>9}   {:>6}   {:>12}   {:>9}   {:>4}\n",
            time(measured.server()),
            time(client_server),
            time(measured.median()),
            time(slowest),
            time(simulated),
            or_dash(off),
            or_dash(least),
            or_dash(copies),
            or_dash(share),
        );
    }
    if all.values().any(|measured| measured.clients.len() > 1) {
        text += "simulated are swarms of this program alone\n";
    }
    for (&peers, measured) in all {
        text += &measured.details(peers);
    }
    text
}

impl Measured {
    /// What the table has no column for: what went wrong, each client's times where there are several, and what was cut
    /// short.
    fn details(&self, peers: u32) -> String {
        let mut text: String = self.problems().iter().map(|what| format!("{peers:>5}   {what}\n")).collect();
        let Some(swarm) = &self.swarm else { return text };
        if self.clients.len() > 1 {
            for &client in &self.clients {
                let own = || swarm.peers.iter().filter(|peer| peer.client == client);
                if own().next().is_none() {
                    continue;
                }
                let (middle, last) = middle_and_last(own().map(|peer| seconds(peer.completed)));
                let time = |seconds: Option<f64>| seconds.map_or("-".to_owned(), clock_time);
                let cpu: Duration = own().filter_map(|peer| peer.cpu).sum();
                text += &format!(
                    "{peers:>5}   {} {}: median {}, slowest {}, CPU {:.1} s\n",
                    own().count(),
                    client.name(),
                    time(middle),
                    time(last),
                    cpu.as_secs_f64(),
                );
            }
        }
        if swarm.ending != Ending::Complete {
            let done = swarm.complete();
            text += &format!(
                "{peers:>5}   {done} of {peers} had everything after {}\n",
                clock_time(swarm.took.as_secs_f64())
            );
        }
        if self.cpu_share().is_some_and(|share| share > CPU_SHARE_MAX) {
            text += &format!(
                "{peers:>5}   the cores were busy: this is the machine's time rather than the lines'\n"
            );
        }
        text
    }
}

fn numbers(text: &str) -> Result<Numbers, String> {
    let number = |text: &str| {
        let number = text.trim().parse().ok().filter(|number| (1..=PEERS_MAX).contains(number));
        number.ok_or(format!("{text:?} is no number of real peers from 1 to {PEERS_MAX}"))
    };
    let mut numbers = text.split(',').map(number).collect::<Result<Vec<u32>, _>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    Ok(Numbers(numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_real_peers_are_read_and_nonsense_is_refused() {
        assert_eq!(numbers("8").unwrap().0, [8]);
        assert_eq!(numbers("16, 1,4,4").unwrap().0, [1, 4, 16]);
        for bad in ["", "0", "65", "1..4", "-1", "x", "1,,2", "99999999999"] {
            assert!(numbers(bad).is_err(), "{bad}");
        }
    }
}
