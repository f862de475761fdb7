//! `seedring tracker`: a tracker by itself, until SIGINT or SIGTERM.
//!
//! Stdout says where it listens, one line an address, then its figures: on a terminal one live line on stderr,
//! elsewhere a plain line a minute when something happened, with `--json` one object a second.

use super::progress::live_line;
use super::{CommandError, output};
use crate::limits::TRACKER_INTERVAL_DEFAULT;
use crate::service;
use crate::time::Duration;
use crate::tracker_server::{
    Access, IpNet, TlsFiles, TrackerAddress, TrackerConfig, TrackerHandle, TrackerNotice, TrackerServer,
    TrackerStatistics,
};
use indicatif::ProgressBar;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

const PORT_DEFAULT: u16 = 6969;
/// Seconds between two plain lines.
const PLAIN_INTERVAL_SECS: u64 = 60;

/// Run a tracker over HTTP and UDP, on IPv4 and IPv6.
///
/// It keeps its swarms in memory, with --state over restarts, too, and ends at SIGINT or SIGTERM. SIGHUP has the list of
/// info-hashes and the certificate read again; any change of the list does so, too. Each time it says what came of it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  seedring tracker\n  seedring tracker --http 127.0.0.1:8000 --udp none\n  \
                        seedring tracker --allow ours.txt --interval 15m\n  \
                        seedring tracker --http 127.0.0.1:6969 --trusted-proxy 127.0.0.1\n  \
                        seedring tracker --http 443 --tls fullchain.pem privkey.pem --state tracker.state"
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
    /// Believe this proxy when it says whom it speaks for (X-Forwarded-For, Forwarded): an IP or a network as 10.0.0.0/8;
    /// repeatable
    #[arg(long, value_name = "CIDR", value_parser = network)]
    trusted_proxy: Vec<IpNet>,
    /// Speak TLS on all HTTP addresses, with this certificate (its chain behind it) and this key, both PEM
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"])]
    tls: Option<Vec<PathBuf>>,
    /// Serve the tracker's figures to Prometheus at http://IP:PORT/metrics; port 0 takes any free one
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// Keep what the tracker knows in this file: read at the start, written every five minutes and at the end
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
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
    let tls = match args.tls.as_deref() {
        Some([certificate, key]) => Some(TlsFiles { certificate: certificate.clone(), key: key.clone() }),
        // clap takes two of them or none.
        _ => None,
    };
    let config = TrackerConfig {
        http: addresses(&args.http),
        udp: addresses(&args.udp),
        interval: args.interval,
        access,
        trusted_proxies: args.trusted_proxy,
        tls,
        metrics: args.metrics,
        state: args.state,
        ..TrackerConfig::default()
    };
    let server = TrackerServer::bind(config)?;
    service::run(serve(server, args.json))?
}

async fn serve(mut server: TrackerServer, json: bool) -> Result<(), CommandError> {
    if json {
        output::begin_json();
    }
    // Before anybody hears that we are there, and sends one.
    let (shutdown, mut hangups) = (output::asked_to_end(service::shutdown_signal()?), service::hangups()?);
    let handle = server.handle();
    for address in server.local_addrs() {
        say(&listening(address, json));
    }
    if let Some(address) = server.metrics_addr() {
        say(&metrics_at(address, json));
    }
    let live = live_line(json);
    let mut notices = server.take_notices();
    let telling = async {
        while let Some(notice) = heard(&mut notices).await {
            tell(&notice, live.as_ref(), json);
        }
        std::future::pending::<Result<(), CommandError>>().await
    };
    let reloads = async {
        while hangups.recv().await.is_some() {
            handle.reload();
        }
        std::future::pending::<Result<(), CommandError>>().await
    };
    tokio::select! {
        served = server.run(shutdown) => served?,
        () = report(handle.clone(), live.clone(), json) => {}
        failed = reloads => failed?,
        failed = telling => failed?,
    }
    while let Some(notice) = notices.as_mut().and_then(|notices| notices.try_recv().ok()) {
        tell(&notice, live.as_ref(), json);
    }
    say(&if json { status(&handle.statistics(), "ended") } else { handle.statistics().to_string() });
    Ok(())
}

async fn heard(notices: &mut Option<mpsc::Receiver<TrackerNotice>>) -> Option<TrackerNotice> {
    notices.as_mut()?.recv().await
}

/// A word about the tracker's files: with `--json` an object, else a line, on stderr when something is wrong.
fn tell(notice: &TrackerNotice, live: Option<&ProgressBar>, json: bool) {
    if json {
        return say(&notice.to_json().to_string());
    }
    let told = || if notice.is_warning() { output::err(notice) } else { say(&notice.to_string()) };
    live.map_or_else(told, |live| live.suspend(told));
}

/// Tells the figures.
async fn report(handle: TrackerHandle, live: Option<ProgressBar>, json: bool) {
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
            say(&status(&now, "status"));
        } else if second % PLAIN_INTERVAL_SECS == 0 && now != told {
            say(&now.to_string());
            told = now;
        }
        before = now;
    }
}

fn metrics_at(address: SocketAddr, json: bool) -> String {
    let url = format!("http://{address}/metrics");
    if json {
        json!({ "event": "metrics", "address": address, "url": url }).to_string()
    } else {
        format!("metrics at {url}")
    }
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

/// One line on stdout, which may be read or not.
fn say(line: &str) {
    output::out(format!("{line}\n"));
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

/// A network, or an address alone.
fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "write an IP as 10.0.0.1 or a network as 10.0.0.0/8 or fd00::/8".to_owned())
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
    fn proxies_are_addresses_or_networks() {
        assert_eq!(network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("fd00::1").unwrap().to_string(), "fd00::1/128");
        assert!(network("10.0.0.0/33").is_err() && network("proxy").is_err() && network("").is_err());
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
