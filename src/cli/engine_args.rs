//! What the commands that meet peers have in common: where they listen, how many threads, what they give.

use super::CommandError;
use crate::choker::Slots;
use crate::engine::listener::Port;
use crate::engine::{Engine, EngineConfig, EngineEvent, ZeroCopyMode};
use crate::limits::{CONNECTIONS_PER_PREFIX_MAX, WORKERS_MAX};
use crate::storage::{Content, descriptors_needed, raise_file_limit};
use crate::units::ByteRate;
use crate::wire::Encryption;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::net::IpAddr;
use tokio::sync::mpsc;

/// Events the engine may have on their way to the session.
const ENGINE_EVENTS_MAX: usize = 4096;

/// The port that peers expect, when the user names none.
const PORT_DEFAULT: u16 = 6881;

/// What becomes of a command whose user has named no port, when somebody has the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnnamedPort {
    /// It fails: who serves should be where it was.
    OrFail,
    /// It takes any free one.
    OrAny,
}

/// Options of the engine.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EngineArgs {
    /// Address to listen on and connect from [default: all, IPv4 and IPv6]
    #[arg(long, value_name = "IP")]
    pub bind: Option<IpAddr>,
    /// Port for peers; 0 takes any free one [default: 6881, or any free one for get when that is taken]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(WORKERS_MAX)))]
    workers: Option<u16>,
    /// Do not pin worker threads to cores
    #[arg(long)]
    no_pin: bool,
    /// Peers of a torrent served at once, or auto: four while downloading, then as many as line and cores have room
    /// for
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = slots)]
    pub upload_slots: Slots,
    /// Upload limit of all torrents together, as 10MB/s; 0 uploads nothing
    #[arg(long, value_name = "RATE")]
    upload_limit: Option<ByteRate>,
    /// Connections of one address prefix (/24 of IPv4, /64 of IPv6) at most; loopback is exempt
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_PER_PREFIX_MAX, value_parser = clap::value_parser!(u32).range(1..))]
    prefix_connections: u32,
    /// Send pages without copying them: auto finds out where that works
    #[arg(long, value_name = "auto|always|never", default_value = "auto", hide_possible_values = true, value_parser = words(zero_copy, ["auto", "always", "never"]))]
    zero_copy: ZeroCopyMode,
    /// Encrypted connections: allow takes them and tries them where plaintext fails, with plaintext payload wherever the
    /// peer agrees; prefer tries them first and picks RC4, which costs six times the CPU; require takes nothing else
    #[arg(long, value_name = "allow|prefer|require|off", default_value_t = Encryption::Allow, hide_possible_values = true, value_parser = words(encryption, ["off", "allow", "prefer", "require"]))]
    pub encryption: Encryption,
    /// Ask the kernel once a second what limits the connections that send (TCP_INFO), for --json and --metrics
    #[arg(long)]
    tcp_info: bool,
}

impl EngineArgs {
    /// What the user has to know of the port that was taken in place of the usual one.
    pub fn port_taken_instead(&self, engine: &Engine<Content>) -> Option<String> {
        let port = engine.addresses().first()?.port();
        let is_other = self.port.is_none() && port != PORT_DEFAULT;
        is_other
            .then(|| format!("another program has port {PORT_DEFAULT}; peers reach this one on port {port}"))
    }

    /// Starts the engine, and gives what it tells.
    pub fn start(
        &self,
        download_limit: Option<ByteRate>,
        unnamed_port: UnnamedPort,
    ) -> Result<(Engine<Content>, mpsc::Receiver<EngineEvent>), CommandError> {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let needed = descriptors_needed(self.workers.map_or_else(cores, usize::from));
        // Waiting for others to close theirs would be in vain.
        if let Ok(allowed) = raise_file_limit()
            && allowed < needed
        {
            let too_few = format!(
                "this process may have {allowed} files and sockets open, and needs {needed} at least; raise the limit (ulimit -n, or \
                 LimitNOFILE= of the service), or say --workers 1"
            );
            return Err(too_few.into());
        }
        let config = EngineConfig {
            bind: self.bind,
            port: Port {
                number: self.port.unwrap_or(PORT_DEFAULT),
                or_any: self.port.is_none() && unnamed_port == UnnamedPort::OrAny,
            },
            workers: self.workers.map(usize::from),
            unpinned: self.no_pin,
            upload_limit: self.upload_limit,
            download_limit,
            zero_copy: self.zero_copy,
            encryption: self.encryption,
            tcp_info: self.tcp_info,
            open_files_max: None,
            prefix_connections_max: Some(self.prefix_connections),
        };
        let (sender, events) = mpsc::channel(ENGINE_EVENTS_MAX);
        let make_sink = || {
            let sender = sender.clone();
            let sink = move |event| {
                sender.try_send(event).or_else(|unsent| match unsent {
                    mpsc::error::TrySendError::Full(event) => Err(event),
                    // Nobody listens any more.
                    mpsc::error::TrySendError::Closed(_) => Ok(()),
                })
            };
            Box::new(sink) as _
        };
        Ok((Engine::start(&config, make_sink)?, events))
    }
}

fn slots(text: &str) -> Result<Slots, String> {
    match text {
        "auto" => Ok(Slots::Auto),
        "0" => Err("without slots nobody is served; to upload nothing say --upload-limit 0".to_owned()),
        number => number.parse().map(Slots::Fixed).map_err(|_| "write a number, or auto".to_owned()),
    }
}

/// A limit of what is downloaded.
pub(super) fn download_limit(text: &str) -> Result<ByteRate, String> {
    match text.parse() {
        Ok(ByteRate(0)) => Err("at a rate of 0 nothing is ever downloaded; give one above 0".to_owned()),
        Ok(rate) => Ok(rate),
        Err(error) => Err(format!("{error}")),
    }
}

/// Takes one of these words, which shells offer.
fn words<T: Clone + Send + Sync + 'static>(
    read: fn(String) -> Option<T>,
    words: impl Into<PossibleValuesParser>,
) -> impl TypedValueParser<Value = T> {
    words.into().try_map(move |word| read(word).ok_or("it is none of the words offered"))
}

fn zero_copy(word: String) -> Option<ZeroCopyMode> {
    match word.as_str() {
        "auto" => Some(ZeroCopyMode::Auto),
        "always" => Some(ZeroCopyMode::Always),
        "never" => Some(ZeroCopyMode::Never),
        _ => None,
    }
}

fn encryption(word: String) -> Option<Encryption> {
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_under_which_nothing_could_happen_are_refused_with_their_cure() {
        assert!(slots("0").unwrap_err().contains("--upload-limit 0"));
        assert_eq!(slots("1"), Ok(Slots::Fixed(1)));
        assert!(download_limit("0").unwrap_err().contains("above 0"));
        assert!(download_limit("0kB/s").unwrap_err().contains("above 0"));
        assert_eq!(download_limit("1kB/s"), Ok(ByteRate(1000)));
    }
}
