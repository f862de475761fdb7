//! Floors: the least CPU that sending or receiving a torrent's bytes can cost on this machine, to judge a seeder and
//! a downloader by.
//!
//! `writev`, `sendmsg`, `sendfile` and `ring` speak just enough of the peer wire for `seedring bench` (one mapped
//! file, every peer unchoked, no bounds, no fairness beyond a batch per turn); `raw` streams without framing
//! into a discarding sink; `receive` takes blocks, hashes pieces and writes them; `hash` reads and hashes;
//! `cold` brings content into memory. Each prints its
//! own CPU seconds per GiB. `nocopy-sink` is the far end of a device that sends without copying; `http` loads a web
//! server with the same file, to compare a seeder with that; `announce` is the load for trackers; `events` is the bare
//! heap of a simulation. These are prototypes to compare with and nothing to serve a swarm with: a peer that misbehaves
//! is merely dropped.

mod announce;
mod cold;
mod events;
mod framed;
mod hash;
mod http;
mod nocopy;
mod peer;
mod raw;
mod receive;
mod ring;

use clap::{Parser, Subcommand, ValueEnum};
use seedring::metainfo::Metainfo;
use seedring::time::Duration;
use seedring::units::ByteSize;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;

/// Bare send loops that any seeder on this machine can be judged by
#[derive(Debug, Parser)]
#[command(name = "floors", version)]
struct Cli {
    #[command(subcommand)]
    floor: Floor,
}

#[derive(Debug, Subcommand)]
enum Floor {
    /// Answer requests with one writev of headers and mapped blocks for up to 256 KiB
    Writev(Serve),
    /// The same with sendmsg
    Sendmsg(Serve),
    /// Answer each request with its header (MSG_MORE) and one sendfile
    Sendfile(Serve),
    /// The same through a bare ring: one multishot receive, one SENDMSG for what is queued
    Ring(Serve),
    /// Stream a file in steps of 256 KiB to a sink that discards it, without any framing
    Raw(Raw),
    /// Receive blocks from a loopback sender, hash their pieces, write them; one line of JSON
    Receive(Receive),
    /// Read a file piece by piece and hash it on one thread; one line of JSON
    Hash(Hash),
    /// Take blocks from a seeder behind a device that never copies what it sends; needs root
    NocopySink(NocopySink),
    /// Ask a web server for ranges of a file over kept-alive connections; one line of JSON
    Http(http::Http),
    /// Announce to a tracker over UDP as fast as it answers; one line of JSON
    Announce(announce::Announce),
    /// Bring windows of 256 KiB of a file into memory, in random order, many at once; one line of JSON
    Cold(cold::Cold),
    /// Take events from a heap and put others in, on one thread; one line of JSON
    Events(events::Events),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// The torrent, of a single file
    torrent: PathBuf,
    /// The file
    data: PathBuf,
    /// Where to listen; the address is printed
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Go on listening after the last connection has closed, until killed; prints no cost
    #[arg(long)]
    stay: bool,
}

#[derive(Debug, clap::Args)]
struct Raw {
    /// How to send
    #[arg(value_enum)]
    method: RawMethod,
    /// The file
    data: PathBuf,
    /// Bytes to send, over and over the file
    #[arg(long, default_value = "8GiB")]
    bytes: ByteSize,
    /// Core of the sender
    #[arg(long)]
    pin: Option<usize>,
    /// Core of the sink
    #[arg(long)]
    pin_sink: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RawMethod {
    /// From the mapped file
    Writev,
    /// From the page cache
    Sendfile,
}

#[derive(Debug, clap::Args)]
struct Receive {
    /// How to receive and write
    #[arg(value_enum)]
    method: ReceiveMethod,
    /// The file to write, which must not exist and is removed at the end
    data: PathBuf,
    /// Bytes to receive
    #[arg(long, default_value = "2GiB")]
    bytes: ByteSize,
    /// Bytes of a piece
    #[arg(long, default_value = "256KiB")]
    piece_length: ByteSize,
    /// Pieces hashed at once: 1 or 4
    #[arg(long, default_value_t = 1)]
    lanes: usize,
    /// Pieces whose blocks come in turn
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Blocks of one read at most, where they go straight to their place
    #[arg(long, default_value_t = 4)]
    frames: usize,
    /// Core of the receiver
    #[arg(long)]
    pin: Option<usize>,
    /// Core of the sender
    #[arg(long)]
    pin_sender: Option<usize>,
}

#[derive(Debug, clap::Args)]
struct Hash {
    /// The file
    data: PathBuf,
    /// Bytes of a piece
    #[arg(long, default_value = "256KiB")]
    piece_length: ByteSize,
    /// Pieces hashed at once: 1 or 4
    #[arg(long, default_value_t = 1)]
    lanes: usize,
    /// Core to run on
    #[arg(long)]
    pin: Option<usize>,
}

#[derive(Debug, clap::Args)]
struct NocopySink {
    /// The seeder
    seeder: SocketAddrV4,
    /// Its torrent
    torrent: PathBuf,
    /// The veth device of the seeder's side
    #[arg(long)]
    near: String,
    /// Its other end, where nobody has an address
    #[arg(long)]
    far: String,
    /// The peers' address, in the near end's network
    #[arg(long)]
    address: Ipv4Addr,
    /// Peers
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Blocks that each asks for in advance; half of them come as one send, up to the seeder's bound
    #[arg(long, default_value_t = 128)]
    depth: u32,
    /// Seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Core to run on, of which it takes all
    #[arg(long)]
    pin: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReceiveMethod {
    /// Into a buffer of 64 KiB, copied to the piece's buffer, pwrite
    Copy,
    /// Straight into the piece's buffer, pwrite
    Readv,
    /// Straight into the mapped file
    Mapped,
    /// Straight into the piece's buffer, written through io_uring
    Uring,
}

/// Bytes of one batch of a framed floor, as the seeder coalesces.
const BATCH_LEN: usize = 256 * 1024;

/// Errors end the program with a sentence; nothing here is worth handling.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let result = match Cli::parse().floor {
        Floor::Writev(serve) => framed::run(&serve, framed::Method::Writev),
        Floor::Sendmsg(serve) => framed::run(&serve, framed::Method::Sendmsg),
        Floor::Sendfile(serve) => framed::run(&serve, framed::Method::Sendfile),
        Floor::Ring(serve) => ring::run(&serve),
        Floor::Raw(raw) => raw::run(&raw),
        Floor::Receive(receive) => receive::run(&receive),
        Floor::Hash(hash) => hash::run(&hash),
        Floor::NocopySink(sink) => drain(&sink),
        Floor::Http(http) => http::run(&http),
        Floor::Announce(plan) => announce::run(&plan),
        Floor::Cold(cold) => cold::run(&cold),
        Floor::Events(events) => events::run(&events),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floors: {error}");
            ExitCode::from(1)
        }
    }
}

/// Drains a seeder behind a device that never copies, and prints when all peers are served, and what came.
fn drain(options: &NocopySink) -> Outcome<()> {
    pin(options.pin)?;
    let metainfo = Metainfo::parse(&std::fs::read(&options.torrent)?)?;
    let sink = nocopy::Sink {
        seeder: options.seeder,
        near: options.near.clone(),
        far: options.far.clone(),
        address: options.address,
        connections: options.connections,
        depth: options.depth,
        duration: Duration::from_secs(options.seconds),
        bytes: u64::MAX,
    };
    let drained = nocopy::drain(&sink, &metainfo, || println!(r#"{{"event":"serving"}}"#))?;
    let nocopy::Drained { bytes, duration, packets, acknowledgements, bytes_of_the_least } = drained;
    let nanos = u64::try_from(duration.as_nanos())?;
    let seen = serde_json::json!({
        "event": "done", "bytes": bytes, "nanos": nanos, "packets": packets,
        "acknowledgements": acknowledgements, "bytes_of_the_least": bytes_of_the_least,
    });
    println!("{seen}");
    Ok(())
}

/// Maps a file for reading.
#[expect(unsafe_code, reason = "mapping a file is unsafe by nature")]
fn map(file: &std::fs::File) -> Outcome<memmap2::Mmap> {
    // SAFETY: the bytes are handed to the kernel only, never read here, so a file that changes or shrinks
    // meanwhile makes a send fail or send other bytes, and no reference ever observes the change.
    Ok(unsafe { memmap2::Mmap::map(file)? })
}

/// Pins the calling thread.
fn pin(core: Option<usize>) -> Outcome<()> {
    let Some(core) = core else { return Ok(()) };
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores)
        .map_err(|error| format!("cannot pin to core {core}: {error}"))?;
    Ok(())
}

/// Prints what the run cost.
fn print_cost(what: &str, bytes: u64, cpu_seconds: f64, seconds: f64) {
    let gibibytes = bytes as f64 / f64::from(1 << 30);
    println!(
        "{what}: {gibibytes:.3} GiB in {seconds:.3} s, {cpu_seconds:.3} CPU-seconds, {:.4} per GiB",
        cpu_seconds / gibibytes.max(f64::MIN_POSITIVE)
    );
}
