//! One seed of this program and its peers, for real: from the start of the peers' processes until the last has everything.
//!
//! The seed makes the torrent and is its tracker; peers know it by that alone. All stay until the last is done.

use super::clients::{self, Place};
use super::ground::{CONTENT_NAME, Ground};
use super::participant::{News, Participant, Word};
use super::{Client, Ending, Net, RealError};
use crate::clock;
use crate::time::{Duration, Instant};
use crate::units::ByteRate;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

/// How often it is looked whether the user has had enough.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How often a program that does not speak by itself is asked.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// Time for the seed to come up, besides that for hashing.
const SEED_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes a second that the slowest machine hashes.
const HASH_RATE_MIN: u64 = 20_000_000;
/// Time after the last peer's completion in which figures of what was given may still come: they come once a second.
const FIGURES_PATIENCE: Duration = Duration::from_millis(2500);

/// Time for a program to clear up after itself before it is killed.
const CLEARING_PATIENCE: Duration = Duration::from_secs(5);

/// One peer that is to take part.
#[derive(Clone, Debug)]
pub struct PeerWish {
    /// What it is.
    pub client: Client,
    /// Its upload limit.
    pub up: ByteRate,
    /// Its download limit; `None` for none.
    pub down: Option<ByteRate>,
}

/// A real run.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// The program that seeds, and of which its own peers are: this one.
    pub program: PathBuf,
    /// What the seed may send.
    pub server_up: ByteRate,
    /// The peers.
    pub peers: Vec<PeerWish>,
    /// Where the addresses lie.
    pub net: Net,
    /// Time after which it is given up.
    pub patience: Duration,
}

/// What became of one peer.
#[derive(Clone, Debug)]
pub struct PeerOutcome {
    /// What it is.
    pub client: Client,
    /// From the start of the processes until it said that it had everything.
    pub completed: Option<Duration>,
    /// Bytes of payload that it gave, where it tells.
    pub given: Option<u64>,
    /// CPU time that it used until the last was done.
    pub cpu: Option<Duration>,
    /// Its copy was compared with the original and is the same.
    pub verified: bool,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// How long it went on.
    pub took: Duration,
    /// The peers, in the order of the wishes.
    pub peers: Vec<PeerOutcome>,
    /// Bytes of payload that the seed gave.
    pub seed_given: Option<u64>,
    /// CPU time of the seed since the peers started.
    pub seed_cpu: Option<Duration>,
}

impl Outcome {
    /// CPU time of all.
    pub fn cpu(&self) -> Duration {
        self.peers.iter().filter_map(|peer| peer.cpu).chain(self.seed_cpu).sum()
    }

    /// Peers that have everything.
    pub fn complete(&self) -> usize {
        self.peers.iter().filter(|peer| peer.completed.is_some()).count()
    }
}

/// Runs it. `tell` hears of every peer that is done.
///
/// # Errors
/// When it cannot begin; what happens later is told by [`Outcome::ending`].
pub fn run(
    wishes: &Wishes,
    ground: &Ground,
    cancel: &AtomicBool,
    mut tell: impl FnMut(),
) -> Result<Outcome, RealError> {
    let (sender, news) = channel();
    let torrent = ground.home("torrent")?.join("content.torrent");
    let mut seed = start_seed(wishes, ground, &torrent, sender.clone())?;
    let patience = SEED_PATIENCE + Duration::from_secs(ground.size() / HASH_RATE_MIN);
    let mut run = Run {
        outcome: Outcome {
            ending: Ending::Complete,
            took: Duration::ZERO,
            peers: Vec::new(),
            seed_given: None,
            seed_cpu: None,
        },
        began: clock::now(),
    };
    let ready = run.listen(&news, patience, cancel, |run, news| match news.word {
        Word::Ready => Some(Ending::Complete),
        Word::Ended => Some(Ending::Failed(String::new())),
        _ => run.heard(news),
    });
    match ready {
        Ending::Complete => {}
        Ending::Stopped => return Ok(Outcome { ending: Ending::Stopped, ..run.outcome }),
        Ending::Late => return Err(RealError::Seed(format!("not within {} s", patience.as_secs()))),
        Ending::Failed(_) => return Err(RealError::Seed(seed.last_words())),
    }
    let seed_cpu_before = seed.cpu_time();
    run.began = clock::now();
    let mut peers = Vec::new();
    let mut copies = Vec::new();
    for (number, wish) in (1..).zip(&wishes.peers) {
        let (peer, copy) = start_peer(wishes, wish, number, ground, &torrent, &sender)?;
        peers.push(peer);
        copies.push(copy);
        run.outcome.peers.push(PeerOutcome {
            client: wish.client,
            completed: None,
            given: None,
            cpu: None,
            verified: false,
        });
    }
    let count = wishes.peers.len();
    let mut ended = None;
    let mut ending = run.listen(&news, wishes.patience, cancel, |run, news| {
        if news.word == Word::Ended {
            ended = Some(news.number);
            return Some(Ending::Failed(String::new()));
        }
        if let Word::Refused(why) = &news.word {
            return Some(Ending::Failed(format!("peer {}: {why}", news.number)));
        }
        run.heard(news);
        if news.word == Word::Complete {
            tell();
        }
        (run.outcome.complete() == count).then_some(Ending::Complete)
    });
    run.outcome.took = clock::now().since(run.began);
    for (peer, process) in run.outcome.peers.iter_mut().zip(&peers) {
        peer.cpu = process.process.cpu_time();
    }
    run.outcome.seed_cpu =
        seed.cpu_time().zip(seed_cpu_before).map(|(now, before)| now.saturating_sub(before));
    if let Some(number) = ended {
        ending = Ending::Failed(match number.checked_sub(1).and_then(|at| peers.get_mut(at as usize)) {
            Some(peer) => format!("peer {number} ({}): {}", peer.client.name(), peer.process.last_words()),
            None => format!("the seed: {}", seed.last_words()),
        });
    }
    if ending == Ending::Complete {
        // Everybody's figures once more: those of now are up to a second old.
        let at = clock::now();
        let mut silent: Vec<u32> = (0..=count as u32).filter(|&number| run.tells(number)).collect();
        run.listen(&news, FIGURES_PATIENCE, cancel, |run, news| {
            if matches!(news.word, Word::Given(_)) && news.at > at {
                silent.retain(|&number| number != news.number);
            }
            run.heard(news);
            silent.is_empty().then_some(Ending::Complete)
        });
    }
    let clearing: Vec<_> = peers.iter().filter(|peer| peer.client.clears_up()).collect();
    clearing.iter().for_each(|peer| peer.process.ask_to_end());
    clearing.iter().for_each(|peer| peer.process.wait_for_end(CLEARING_PATIENCE));
    drop((seed, peers));
    for (number, (peer, copy)) in (1..).zip(run.outcome.peers.iter_mut().zip(&copies)) {
        if peer.completed.is_none() {
            continue;
        }
        match ground.compare(copy, cancel) {
            Ok(()) => peer.verified = true,
            Err(_) if cancel.load(Relaxed) => ending = Ending::Stopped,
            Err(why) => {
                ending = Ending::Failed(format!("the copy of peer {number} ({}): {why}", peer.client.name()));
            }
        }
    }
    run.outcome.ending = ending;
    Ok(run.outcome)
}

fn start_seed(
    wishes: &Wishes,
    ground: &Ground,
    torrent: &Path,
    news: Sender<News>,
) -> Result<Participant, RealError> {
    let home = ground.home("seed")?;
    let place =
        Place { saved: home.clone(), home, address: wishes.net.address(0), up: wishes.server_up, down: None };
    let command = clients::seedring_seed(&wishes.program, &ground.content(), torrent, &place);
    Participant::start(command, 0, &place.home, news, clients::figures)
}

/// A peer's process, and whoever asks it how far it is, who ends with it.
struct Peer {
    client: Client,
    process: Participant,
    _asking: Option<Sender<()>>,
}

/// Starts a peer; with it comes the path of its copy.
fn start_peer(
    wishes: &Wishes,
    wish: &PeerWish,
    number: u32,
    ground: &Ground,
    torrent: &Path,
    news: &Sender<News>,
) -> Result<(Peer, PathBuf), RealError> {
    let home = ground.home(&format!("peer-{number}"))?;
    let saved = ground.home(&format!("copy-{number}"))?;
    let copy = saved.join(CONTENT_NAME);
    let place = Place { home, saved, address: wishes.net.address(number), up: wish.up, down: wish.down };
    let (command, understand) = wish.client.leech(&wishes.program, torrent, &place)?;
    let process = Participant::start(command, number, &place.home, news.clone(), understand)?;
    let mut asking = None;
    if let Some(mut control) = wish.client.control(torrent, &place) {
        let (until, stop) = channel::<()>();
        let news = news.clone();
        let ask = move || {
            while stop.recv_timeout(ASK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                for word in control.ask() {
                    // Nobody listens any more: the next turn ends it.
                    let _ = news.send(News { number, at: clock::now(), word });
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("asking {number}")).spawn(ask);
        thread.map_err(|reason| RealError::Start { program: "a thread".into(), reason })?;
        asking = Some(until);
    }
    Ok((Peer { client: wish.client, process, _asking: asking }, copy))
}

struct Run {
    outcome: Outcome,
    began: Instant,
}

impl Run {
    /// Takes a participant's word.
    fn heard(&mut self, news: &News) -> Option<Ending> {
        let began = self.began;
        let peer = news.number.checked_sub(1).and_then(|at| self.outcome.peers.get_mut(at as usize));
        match (&news.word, peer) {
            (Word::Given(bytes), None) => self.outcome.seed_given = Some(*bytes),
            (Word::Given(bytes), Some(peer)) => peer.given = Some(*bytes),
            (Word::Complete, Some(peer)) => {
                peer.completed.get_or_insert(news.at.since(began));
            }
            _ => {}
        }
        None
    }

    /// Whether a participant tells what it gives, and goes on doing so.
    fn tells(&self, number: u32) -> bool {
        let peer = number.checked_sub(1).and_then(|at| self.outcome.peers.get(at as usize));
        peer.is_none_or(|peer| peer.client == Client::Seedring)
    }

    /// Listens until `judge` has found an ending, time is up, or the user has had enough.
    fn listen(
        &mut self,
        news: &Receiver<News>,
        patience: Duration,
        cancel: &AtomicBool,
        mut judge: impl FnMut(&mut Self, &News) -> Option<Ending>,
    ) -> Ending {
        let until = clock::now() + patience;
        loop {
            if cancel.load(Relaxed) {
                return Ending::Stopped;
            }
            let left = until.since(clock::now());
            if left.is_zero() {
                return Ending::Late;
            }
            match news.recv_timeout(left.min(LOOK_INTERVAL)) {
                Ok(news) => {
                    if let Some(ending) = judge(self, &news) {
                        return ending;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // A sender is held by the caller.
                Err(RecvTimeoutError::Disconnected) => return Ending::Late,
            }
        }
    }
}
