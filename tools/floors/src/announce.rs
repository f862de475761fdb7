//! Announces over UDP as fast as a tracker takes them: the load that trackers are compared under.
//!
//! A peer is an address of 127/8 and a port; each announce is preceded by its connect, as in the field, where an
//! interval is longer than a connection id lives. Every source address has one connected socket and up to a window of
//! peers in flight: their connects leave with one system call (UDP_SEGMENT), and when all are answered or lost their
//! announces. So the load costs less than any tracker, which has to answer each by itself. Answers are checked: their
//! transaction, their length, and that peers come back which have announced. Deliberately absent: IPv6, scrapes, options.
#![expect(unsafe_code, reason = "the length of a socket's segments has no safe setter")]

use crate::{Outcome, pin};
use rustix::event::{PollFd, PollFlags, poll};
use seedring::datagrams::Batch;
use seedring::id::{InfoHash, PeerId};
use seedring::rng::Rng;
use seedring::time::{Duration, Instant};
use seedring::tracker_wire::udp::{ANNOUNCE_LEN, ANNOUNCE_RESPONSE_LEN, CONNECT_LEN};
use seedring::tracker_wire::udp::{ConnectionId, Request, TransactionId};
use seedring::tracker_wire::{AnnounceEvent, AnnounceRequest};
use seedring::{clock, time};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Peers asked for in each announce.
const WANTED: u32 = 50;
/// Bytes of a peer in compact form.
const PEER_LEN: usize = 6;
/// The lowest port of a peer.
const PORT_FIRST: u16 = 1024;
/// Silence after which what is in flight counts as lost.
const PATIENCE: Duration = Duration::from_millis(200);
/// One answer of so many has all its peers looked at.
const LOOKED_AT: u64 = 16;
/// One peer of so many is a seed.
const SEED_EVERY: u32 = 4;

/// What is announced, from where, to whom.
#[derive(Debug, clap::Args)]
pub struct Announce {
    /// The tracker
    tracker: SocketAddr,
    /// Torrents announced
    #[arg(long, default_value_t = 1)]
    torrents: u32,
    /// Peers of all torrents together
    #[arg(long, default_value_t = 50_000)]
    peers: u32,
    /// Addresses of 127/8 that the peers have
    #[arg(long, default_value_t = 16)]
    sources: u32,
    /// Requests in flight from each address
    #[arg(long, default_value_t = 12)]
    window: usize,
    /// Seconds before the measure begins
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds measured
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The tracker's process, whose CPU time is to be told
    #[arg(long)]
    process: Option<u32>,
    /// Core to run on
    #[arg(long)]
    pin: Option<usize>,
    /// Only print the info-hashes, for a tracker that serves a list
    #[arg(long)]
    hashes: bool,
}

/// What was seen in the measured time.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    connects: u64,
    announces: u64,
    peers: u64,
    lost: u64,
    bad: u64,
}

/// The peers of one source address.
struct Source {
    socket: UdpSocket,
    number: u32,
    stage: Stage,
    /// One for each peer in flight: its number, and the connection id once it has one.
    flight: Vec<(u32, Option<ConnectionId>)>,
    waiting: usize,
    /// Distinguishes this flight's transactions from the last one's.
    round: u32,
    sent: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Announcing,
}

struct Load<'a> {
    plan: &'a Announce,
    info_hashes: Vec<InfoHash>,
    batch: Batch,
    bytes: Vec<u8>,
    rng: Rng,
    counts: Counts,
}

/// Announces for the time of the plan and prints one line of JSON.
pub fn run(plan: &Announce) -> Outcome<()> {
    if plan.hashes {
        plan.info_hashes().for_each(|info_hash| println!("{info_hash}"));
        return Ok(());
    }
    if plan.sources == 0 || plan.window == 0 || plan.window > 64 || plan.torrents == 0 {
        return Err("at least one source and torrent, and a window of 1 to 64, are needed".into());
    }
    let per_source = plan.peers.div_ceil(plan.torrents).div_ceil(plan.sources);
    if per_source > u32::from(u16::MAX - PORT_FIRST) {
        return Err("so many peers need more sources or torrents: an address has 64,511 ports".into());
    }
    pin(plan.pin)?;
    let mut load = Load {
        plan,
        info_hashes: plan.info_hashes().collect(),
        batch: Batch::new(plan.window, ANNOUNCE_RESPONSE_LEN + PEER_LEN * 200),
        bytes: Vec::new(),
        rng: Rng::from_seed(1),
        counts: Counts::default(),
    };
    let mut sources = Vec::new();
    for number in 0..plan.sources {
        sources.push(Source::open(plan, number)?);
    }
    let begin = clock::now();
    let measured_from = begin + time::Duration::from_secs_f64(plan.warm_up);
    load.drive(&mut sources, measured_from)?;
    load.counts = Counts::default();
    let (tracker_before, own_before, started) =
        (cpu_of(plan.process)?, clock::process_cpu_time(), clock::now());
    load.drive(&mut sources, started + Duration::from_secs_f64(plan.seconds))?;
    let seconds = clock::now().since(started).as_secs_f64();
    let own = (clock::process_cpu_time() - own_before).as_secs_f64();
    let tracker = cpu_of(plan.process)?.zip(tracker_before).map(|(after, before)| after - before);
    let Counts { connects, announces, peers, lost, bad } = load.counts;
    println!(
        "{{\"announces\":{announces},\"connects\":{connects},\"lost\":{lost},\"bad\":{bad},\
         \"peers_per_answer\":{:.1},\"seconds\":{seconds:.3},\"load_cpu_s\":{own:.3},\"tracker_cpu_s\":{}}}",
        peers as f64 / (announces.max(1)) as f64,
        tracker.map_or("null".to_owned(), |cpu| format!("{cpu:.3}")),
    );
    Ok(())
}

impl Load<'_> {
    /// Keeps all sources busy until `end`.
    fn drive(&mut self, sources: &mut [Source], end: Instant) -> Outcome<()> {
        loop {
            let now = clock::now();
            if now >= end {
                return Ok(());
            }
            for source in sources.iter_mut() {
                if source.waiting == 0 {
                    self.next_stage(source, now)?;
                } else if now.since(source.sent) > PATIENCE {
                    self.counts.lost += source.waiting as u64;
                    source.waiting = 0;
                    source.stage = Stage::Announcing;
                    self.next_stage(source, now)?;
                }
            }
            let mut polled: Vec<_> =
                sources.iter().map(|source| PollFd::new(&source.socket, PollFlags::IN)).collect();
            let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            poll(&mut polled, Some(&timeout))?;
            let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
            for (source, _) in sources.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                self.take_answers(source);
            }
        }
    }

    /// Sends the announces of those that have connected, or the connects of the next ones.
    fn next_stage(&mut self, source: &mut Source, now: Instant) -> Outcome<()> {
        self.bytes.clear();
        source.round = source.round.wrapping_add(64);
        source.sent = now;
        let connected = source.stage == Stage::Connecting && source.flight.iter().any(|(_, id)| id.is_some());
        let len = if connected {
            source.stage = Stage::Announcing;
            source.flight.retain(|(_, id)| id.is_some());
            for (place, &(peer, id)) in (0..).zip(&source.flight) {
                let connection = id.expect("those without were just removed");
                let transaction = TransactionId(source.round + place);
                let torrent = (peer + source.number * 7919) % self.plan.torrents;
                let request = self.plan.request(peer, self.info_hashes[torrent as usize]);
                Request::Announce { connection, transaction, request, options: &[] }.encode(&mut self.bytes);
            }
            ANNOUNCE_LEN
        } else {
            source.stage = Stage::Connecting;
            source.flight.clear();
            for place in 0..self.plan.window as u32 {
                let own = self.plan.peers.div_ceil(self.plan.sources).max(1);
                source.flight.push((self.rng.below(own.into()) as u32, None));
                let transaction = TransactionId(source.round + place);
                Request::Connect { transaction }.encode(&mut self.bytes);
            }
            CONNECT_LEN
        };
        source.waiting = source.flight.len();
        set_segment_len(&source.socket, len)?;
        // What the system does not take is lost, and counted when its time is over.
        let _ = source.socket.send(&self.bytes);
        Ok(())
    }

    fn take_answers(&mut self, source: &mut Source) {
        if self.batch.receive(&source.socket).is_err() {
            return;
        }
        for (answer, _) in self.batch.datagrams() {
            let field =
                |at: usize| answer.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
            let (Some(action), Some(transaction)) = (field(0), field(4)) else {
                self.counts.bad += 1;
                continue;
            };
            let place = transaction.wrapping_sub(source.round) as usize;
            let Some((_, id)) = source.flight.get_mut(place) else { continue };
            match (source.stage, action, answer) {
                (Stage::Connecting, 0, [_, _, _, _, _, _, _, _, rest @ ..]) if rest.len() == 8 => {
                    *id = rest.try_into().ok().map(u64::from_be_bytes).map(ConnectionId);
                    self.counts.connects += 1;
                }
                (Stage::Announcing, 1, _) if answer.len() >= ANNOUNCE_RESPONSE_LEN => {
                    let peers = &answer[ANNOUNCE_RESPONSE_LEN..];
                    self.counts.announces += 1;
                    self.counts.peers += (peers.len() / PEER_LEN) as u64;
                    let looked_at = self.counts.announces.is_multiple_of(LOOKED_AT);
                    if !peers.len().is_multiple_of(PEER_LEN)
                        || peers.len() > WANTED as usize * PEER_LEN
                        || looked_at && !self.plan.have_announced(peers)
                    {
                        self.counts.bad += 1;
                    }
                }
                _ => self.counts.bad += 1,
            }
            source.waiting = source.waiting.saturating_sub(1);
        }
    }
}

impl Announce {
    /// The announce of one source's peer: peers go round the torrents first, so that each torrent has peers of many
    /// addresses.
    fn request(&self, peer: u32, info_hash: InfoHash) -> AnnounceRequest {
        let port = PORT_FIRST + (peer / self.torrents) as u16;
        AnnounceRequest {
            info_hash,
            peer_id: PeerId(*b"-SR0000-floorsfloors"),
            port,
            uploaded: 0,
            downloaded: 0,
            left: if peer.is_multiple_of(SEED_EVERY) { 0 } else { 1 << 20 },
            event: AnnounceEvent::None,
            key: peer,
            num_want: Some(WANTED),
        }
    }

    /// Whether all of these are peers of this load.
    fn have_announced(&self, peers: &[u8]) -> bool {
        let ports = self.peers.div_ceil(self.sources).div_ceil(self.torrents).max(1);
        peers.chunks_exact(PEER_LEN).all(|peer| {
            let port = u16::from_be_bytes([peer[4], peer[5]]);
            let source = Ipv4Addr::new(peer[0], peer[1], peer[2], peer[3]);
            (0..self.sources).any(|number| address_of(number) == source)
                && u32::from(port.wrapping_sub(PORT_FIRST)) < ports
        })
    }

    /// The torrents' hashes, spread like real ones.
    fn info_hashes(&self) -> impl Iterator<Item = InfoHash> {
        (0..self.torrents).map(|torrent| {
            let mut info_hash = [0; 20];
            Rng::from_seed(torrent.into()).fill(&mut info_hash);
            InfoHash(info_hash)
        })
    }
}

impl Source {
    fn open(plan: &Announce, number: u32) -> Outcome<Self> {
        let socket = UdpSocket::bind((address_of(number), 0))?;
        socket.connect(plan.tracker)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            number,
            stage: Stage::Announcing,
            flight: Vec::new(),
            waiting: 0,
            round: 0,
            sent: Instant::ZERO,
        })
    }
}

/// Spread over networks.
fn address_of(source: u32) -> Ipv4Addr {
    let [_, _, high, low] = source.to_be_bytes();
    Ipv4Addr::new(127, 100 + low % 100, high, low.max(1))
}

fn set_segment_len(socket: &UdpSocket, len: usize) -> Outcome<()> {
    let len = len as libc::c_int;
    // SAFETY: the kernel reads one integer from the address of a local one.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            std::ptr::from_ref(&len).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// CPU seconds of all threads of a process so far, as its scheduler counted them.
fn cpu_of(process: Option<u32>) -> Outcome<Option<f64>> {
    let Some(process) = process else { return Ok(None) };
    let mut nanoseconds = 0_u64;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let line = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += line.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Some(nanoseconds as f64 / 1e9))
}
