//! `seedring tracker`: a tracker by itself, until SIGINT or SIGTERM.
//!
//! Stdout says where it listens, one line an address, then its figures: on a terminal one live line on stderr,
//! elsewhere a plain line a minute when something happened, with `--json` one object a second.

use super::CommandError;
use super::progress::live_line;
use crate::limits::TRACKER_INTERVAL_DEFAULT;
use crate::service;
use crate::time::Duration;
use crate::tracker_server::{
    Access, TrackerAddress, TrackerConfig, TrackerHandle, TrackerServer, TrackerStatistics,
};
use serde_json::json;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use tokio::time::MissedTickBehavior;

const PORT_DEFAULT: u16 = 6969;
/// Seconds between two plain lines.
const PLAIN_INTERVAL_SECS: u64 = 60;

/// Run a tracker over HTTP and UDP, on IPv4 and IPv6.
///
/// It keeps its swarms in memory and ends at SIGINT or SIGTERM. SIGHUP has the list of info-hashes read again,
/// as does any change of the file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  seedring tracker\n  seedring tracker --http 127.0.0.1:8000 --udp none\n  \
                        seedring tracker --allow ours.txt --interval 15m"
)]
pub struct TrackerArgs {
    /// Where to listen for HTTP: IP:PORT, IP, PORT or none; repeatable [default: 6969 on all addresses]
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    http: Vec<Listen>,
    /// Where to listen for UDP: IP:PORT, IP, PORT or none; repeatable [default: 6969 on all addresses]
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    udp: Vec<Listen>,
    /// Time between two announces of a client, as 30m, 120s or 1h
    #[arg(long, value_name = "T", default_value = "30m", value_parser = interval)]
    interval: Duration,
    /// Serve only the torrents in this file: an info-hash in hexadecimal a line, # begins a comment
    #[arg(long, value_name = "FILE", conflicts_with = "deny")]
    allow: Option<PathBuf>,
    /// Serve all torrents but those in this file
    #[arg(long, value_name = "FILE")]
    deny: Option<PathBuf>,
    /// Print one JSON object a line: where it listens, then its figures each second
    #[arg(long)]
    json: bool,
}

/// Where to listen for one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listen {
    Nowhere,
    Everywhere(u16),
    At(SocketAddr),
}

/// Runs the command.
pub fn run(args: TrackerArgs) -> Result<(), CommandError> {
    let access = match (args.allow, args.deny) {
        (Some(file), _) => Access::AllowFile(file),
        (None, Some(file)) => Access::DenyFile(file),
        (None, None) => Access::All,
    };
    let has_list = access != Access::All;
    let config = TrackerConfig {
        http: addresses(&args.http),
        udp: addresses(&args.udp),
        interval: args.interval,
        access,
    };
    let server = TrackerServer::bind(config)?;
    service::run(serve(server, has_list, args.json))?
}

async fn serve(server: TrackerServer, has_list: bool, json: bool) -> Result<(), CommandError> {
    let shutdown = service::shutdown_signal()?;
    let handle = server.handle();
    for address in server.local_addrs() {
        say(&listening(address, json))?;
    }
    let reports = report(handle.clone(), json);
    let reloads = async {
        if has_list {
            let mut hangups = service::hangups()?;
            while hangups.recv().await.is_some() {
                handle.reload_access();
            }
        }
        std::future::pending::<Result<(), CommandError>>().await
    };
    tokio::select! {
        served = server.run(shutdown) => served?,
        failed = reports => failed?,
        failed = reloads => failed?,
    }
    say(&if json { status(&handle.statistics(), "ended") } else { handle.statistics().to_string() })?;
    Ok(())
}

/// Tells the figures until writing fails.
async fn report(handle: TrackerHandle, json: bool) -> Result<(), CommandError> {
    let live = live_line(json);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut told) = (handle.statistics(), TrackerStatistics::default());
    for second in 0_u64.. {
        seconds.tick().await;
        let now = handle.statistics();
        if let Some(live) = &live {
            let rate = now.announces() - before.announces();
            live.set_message(format!("{now}, {rate} announces/s"));
        } else if json {
            say(&status(&now, "status"))?;
        } else if second % PLAIN_INTERVAL_SECS == 0 && now != told {
            say(&now.to_string())?;
            told = now;
        }
        before = now;
    }
    Ok(())
}

fn listening(address: TrackerAddress, json: bool) -> String {
    if !json {
        return format!("listening on {address}");
    }
    let (url, protocol) = (address.to_string(), address.protocol.to_string().to_lowercase());
    json!({ "event": "listening", "protocol": protocol, "address": address.address, "url": url }).to_string()
}

fn status(statistics: &TrackerStatistics, event: &str) -> String {
    let mut object = statistics.to_json();
    object["event"] = event.into();
    object.to_string()
}

/// One line on stdout; unlike `println!` it survives a reader that has seen enough.
fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

fn addresses(given: &[Listen]) -> Vec<SocketAddr> {
    let given = if given.is_empty() { &[Listen::Everywhere(PORT_DEFAULT)] } else { given };
    let mut addresses = Vec::new();
    for listen in given {
        match *listen {
            Listen::Nowhere => {}
            Listen::Everywhere(port) => {
                addresses.push((Ipv4Addr::UNSPECIFIED, port).into());
                addresses.push((Ipv6Addr::UNSPECIFIED, port).into());
            }
            Listen::At(address) => addresses.push(address),
        }
    }
    addresses
}

fn listen(text: &str) -> Result<Listen, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Listen::Nowhere);
    }
    let port = text.parse().map(Listen::Everywhere);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = || bare.parse::<IpAddr>().map(|ip| Listen::At((ip, PORT_DEFAULT).into()));
    let address = || text.parse().map(Listen::At);
    port.or_else(|_| address())
        .or_else(|_| ip())
        .map_err(|_| "write IP:PORT as 0.0.0.0:6969 or [::1]:6969, or an IP, a PORT or none".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 60 * 60,
        _ => return Err(format!("{unit:?} is no unit; the units are s, m, h")),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match seconds {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        Some(_) => Err("the interval lies between 1s and 24h".to_owned()),
        None => Err(format!("write it as {}m, 120s or 1h", TRACKER_INTERVAL_DEFAULT.as_secs() / 60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_four_ways() {
        assert_eq!(listen("none"), Ok(Listen::Nowhere));
        assert_eq!(listen("80"), Ok(Listen::Everywhere(80)));
        assert_eq!(listen("127.0.0.1:80"), Ok(Listen::At(([127, 0, 0, 1], 80).into())));
        assert_eq!(listen("[::]:80"), Ok(Listen::At((Ipv6Addr::UNSPECIFIED, 80).into())));
        assert_eq!(listen("::1"), Ok(Listen::At((Ipv6Addr::LOCALHOST, PORT_DEFAULT).into())));
        assert_eq!(listen("[::1]"), listen("::1"));
        assert!(listen("here").is_err() && listen("1.2.3.4:99999").is_err() && listen("").is_err());
        assert_eq!(addresses(&[]).len(), 2);
        assert_eq!(addresses(&[Listen::Nowhere]), []);
    }

    #[test]
    fn intervals_are_written_with_units() {
        for (text, seconds) in [("30m", 1800), ("120s", 120), ("7", 7), ("2h", 7200), ("5 min", 300)] {
            assert_eq!(interval(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "0s", "25h", "-5m", "3 weeks", "99999999999999999999h"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
