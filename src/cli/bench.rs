//! `seedring bench`: what the user typed becomes one run of the load generator and its report.

use super::{CommandError, UsageError};
use crate::load::{self, Content, Options, Order, Target, Until};
use crate::metainfo::Metainfo;
use crate::service;
use crate::time::Duration;
use crate::units::{ByteRate, ByteSize};
use crate::wire::CryptoMethods;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

/// Time that a run takes when the user names none.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// Time after which a run for so many bytes is given up, when the user names none.
const BYTES_TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// Download from a seeder over many connections at once and report how it served.
///
/// Works against any BitTorrent client that seeds the torrent. Nothing is written to disk. Ends with exit
/// code 1 when the target refuses, serves nothing, serves wrong data or drops all connections.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: seedring bench 127.0.0.1:6881 film.torrent --connections 50 --duration 30s")]
pub struct BenchArgs {
    /// Where the seeder listens for peers
    #[arg(value_name = "IP:PORT")]
    target: String,
    /// The torrent that it seeds
    #[arg(value_name = "TORRENT")]
    torrent: PathBuf,
    /// Connections, each with a peer id of its own
    #[arg(long, short = 'c', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Requests of 16 KiB to keep in flight on each connection
    #[arg(long, short = 'd', value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    depth: u32,
    /// Time to run from the first unchoke, as 10s, 500ms, 2m [default: 10s, or 1h with --bytes]
    #[arg(long, value_name = "T", value_parser = duration)]
    duration: Option<Duration>,
    /// Stop after so many bytes over all connections, or after the duration, whichever comes first
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    bytes: Option<ByteSize>,
    /// Hash every piece and compare it with the torrent (costs CPU here, not at the seeder)
    #[arg(long)]
    verify: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
    /// Order in which each connection asks for pieces
    #[arg(long, value_enum, default_value_t = OrderArg::Random)]
    order: OrderArg,
    /// Ask for no more than this over all connections
    #[arg(long, value_name = "RATE")]
    rate: Option<ByteRate>,
    /// Threads that share the connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Cores to pin the threads to, in turn
    #[arg(long, value_name = "CORE", value_delimiter = ',')]
    pin: Vec<usize>,
    /// Seed of the order of pieces and of the peer ids, to repeat a run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Connect from this many loopback addresses (127.0.0.1 and up), 28000 connections fit one; default: as many as needed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=250))]
    source_addresses: Option<u8>,
    /// Handshakes that each thread has under way at a time; more than the target's listen backlog costs a second
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    burst: u32,
    /// Begin with an encrypted handshake and offer this for the payload
    #[arg(long, value_enum)]
    encryption: Option<EncryptionArg>,
    /// Bytes of each socket's receive buffer; without it the kernel sizes them by what is read
    #[arg(long, value_name = "SIZE")]
    receive_buffer: Option<ByteSize>,
    /// Whether received blocks are copied out of the kernel or discarded there
    #[arg(long, value_enum, default_value_t = PayloadArg::Copy)]
    payload: PayloadArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum EncryptionArg {
    /// RC4; its price is paid here, too
    Rc4,
    /// Plaintext behind the handshake
    Plaintext,
}

impl EncryptionArg {
    const fn offered(self) -> CryptoMethods {
        match self {
            Self::Rc4 => CryptoMethods::RC4,
            Self::Plaintext => CryptoMethods::PLAINTEXT,
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OrderArg {
    /// Another random order on each connection and pass
    Random,
    /// From the first piece to the last
    Sequential,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PayloadArg {
    /// Receive into memory, as a real client does; costs no more CPU, since fewer system calls do it
    Copy,
    /// Receive headers only; not with --verify
    Discard,
}

/// Runs the command.
pub fn run(args: BenchArgs) -> Result<(), CommandError> {
    if args.verify && args.payload == PayloadArg::Discard {
        let refusal = "--verify needs the payload, so --payload discard cannot go with it";
        return Err(UsageError(refusal.to_owned()).into());
    }
    let target = target(&args)?;
    let loopback_addresses = u8::try_from(args.connections.div_ceil(20_000)).unwrap_or(u8::MAX).min(250);
    let options = Options {
        connections: args.connections as usize,
        depth: args.depth as usize,
        until: Until {
            elapsed: args.duration.unwrap_or(if args.bytes.is_some() {
                BYTES_TIME_MAX
            } else {
                DURATION_DEFAULT
            }),
            bytes: args.bytes.map(|size| size.0),
        },
        verify: args.verify,
        order: match args.order {
            OrderArg::Random => Order::Random,
            OrderArg::Sequential => Order::Sequential,
        },
        rate: args.rate,
        threads: args.threads as usize,
        pin: args.pin,
        seed: args.seed,
        source_addresses: args.source_addresses.unwrap_or_else(|| {
            let is_loopback_v4 = target.address.is_ipv4() && target.address.ip().is_loopback();
            if is_loopback_v4 { loopback_addresses } else { 1 }
        }),
        burst: args.burst as usize,
        encryption: args.encryption.map(EncryptionArg::offered),
        discard: args.payload == PayloadArg::Discard,
        receive_buffer: args.receive_buffer.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX)),
    };
    // Ctrl-C ends the run, and what it came to is told.
    let interrupted = service::shutdown_flag()?;
    let report = load::run(&target, &options, |_| !interrupted.load(Relaxed))?;
    if report.blocks == 0
        && !args.json
        && let Some(complaint) = report.complaint()
    {
        return Err(complaint.into());
    }
    let text = if args.json { serde_json::to_string(&report)? } else { report.to_string() };
    writeln!(std::io::stdout(), "{text}")?;
    match report.complaint() {
        Some(complaint) => Err(complaint.into()),
        None => Ok(()),
    }
}

fn target(args: &BenchArgs) -> Result<Target, CommandError> {
    let address = resolve(&args.target)?;
    let bytes = std::fs::read(&args.torrent)
        .map_err(|error| format!("cannot read {}: {error}", args.torrent.display()))?;
    let metainfo = Metainfo::parse(&bytes)
        .map_err(|error| format!("{} is no usable torrent: {error}", args.torrent.display()))?;
    let content = Content::of(metainfo.info())
        .ok_or_else(|| format!("{} has no content to ask for", args.torrent.display()))?;
    Ok(Target { address, info_hash: metainfo.info_hash(), content })
}

fn bytes(text: &str) -> Result<ByteSize, String> {
    match text.parse() {
        Ok(ByteSize(0)) => Err("nothing is no amount to stop after".to_owned()),
        Ok(size) => Ok(size),
        Err(error) => Err(format!("{error}")),
    }
}

fn resolve(text: &str) -> Result<SocketAddr, CommandError> {
    let misuse = |error| UsageError(format!("{text:?} is no IP:PORT: {error}"));
    let found = text.to_socket_addrs().map_err(misuse)?.next();
    found.ok_or_else(|| format!("{text:?} has no address").into())
}

/// Reads `500ms`, `10s`, `2m`, `1h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let refusal = || format!("{text:?} is no time; write for example 500ms, 10s or 2m");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(refusal()),
    };
    let number: f64 = number.parse().map_err(|_| refusal())?;
    Duration::try_from_secs_f64(number * factor).ok().filter(|time| !time.is_zero()).ok_or_else(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "s", "0s", "-1s", "5 weeks", "1e400s", "9999999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
