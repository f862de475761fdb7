//! The command line: what the user typed becomes one call into the floors below, and its result an exit
//! code: 0 done, 1 failed (one sentence on stderr: whose fault, what to do), 2 usage.

use crate::metainfo::MagnetError;
use crate::secret_url::RedactedUrl;
use crate::session::downloading::DownloadError;
use crate::session::make_torrent::MakeError;
use crate::storage::outlive_file_size_limit;
use crate::tracker_server::TrackerServerError;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

mod bench;
mod check;
mod create;
mod destination;
mod engine_args;
mod escape;
mod generate;
mod get;
mod lab;
mod limited;
mod log;
mod manual;
mod output;
mod progress;
mod seed;
mod show;
mod terminal;
mod tracker;
mod view;

/// A BitTorrent seeder engine on io_uring.
#[derive(Debug, Parser)]
#[command(name = "seedring", version, max_term_width = 100)]
#[command(after_help = "Examples:\n  \
    seedring seed holiday-videos                     share a folder, tracker included\n  \
    seedring get debian.torrent -o /srv/iso          download, and give on meanwhile\n  \
    seedring seed debian.torrent --data /srv/iso     seed what you have already\n  \
    seedring check debian.torrent /srv/iso           is it what the torrent says?\n  \
    seedring bench 127.0.0.1:6881 debian.torrent     how does a seeder hold under load?\n  \
    seedring lab distribute --preset textbook        how long until N peers have a file?\n\n\
    SEEDRING_LOG=debug says who comes and goes, and why.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Seed(seed::SeedArgs),
    Get(get::GetArgs),
    Create(create::CreateArgs),
    Show(show::ShowArgs),
    Check(check::CheckArgs),
    Tracker(tracker::TrackerArgs),
    Bench(bench::BenchArgs),
    Lab(lab::LabArgs),
    Generate(generate::GenerateArgs),
}

/// What went wrong, as the user reads it: one sentence that says whose fault it is and what to do next.
/// Any error of the floors below becomes one through `?`, followed by its causes.
pub type CommandError = Box<dyn std::error::Error + Send + Sync>;

/// What was asked makes no sense as a whole, though each option does by itself; the exit code says so.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Parses the process's arguments and runs the command.
pub fn main() -> ExitCode {
    // Before anything is written, be it help or a log.
    outlive_file_size_limit();
    let matches = Cli::command().try_get_matches().and_then(no_address_for_a_file);
    let cli = matches
        .and_then(|matches| {
            Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))
        })
        .unwrap_or_else(|error| without_keys(error).exit());
    log::start();
    let result = match cli.command {
        Command::Seed(args) => seed::run(args),
        Command::Get(args) => get::run(args),
        Command::Create(args) => create::run(args),
        Command::Show(args) => show::run(args),
        Command::Check(args) => check::run(args),
        Command::Tracker(args) => tracker::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Lab(args) => lab::run(args),
        Command::Generate(args) => generate::run(args),
    };
    let result = result.and_then(|()| Ok(output::finish()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            output::err(format_args!("seedring: {}", escape::Plain(&with_causes(error.as_ref()))));
            // What cannot be said here cannot be said anywhere.
            let _ = output::finish();
            ExitCode::from(if is_misuse(error.as_ref()) { 2 } else { 1 })
        }
    }
}

/// Refuses web addresses where a file is wanted, before their keys are told as parts of a path that is not there.
fn no_address_for_a_file(matches: ArgMatches) -> Result<ArgMatches, clap::Error> {
    let Some((name, values)) = matches.subcommand() else { return Ok(matches) };
    let mut command = Cli::command();
    let Some(subcommand) = command.find_subcommand_mut(name) else { return Ok(matches) };
    let given = subcommand
        .get_positionals()
        .filter_map(|argument| values.try_get_raw(argument.get_id().as_str()).ok()?);
    let address = given.flatten().filter_map(|value| value.to_str()).find(|value| {
        value.split_once("://").is_some_and(|(scheme, _)| {
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
    });
    match address.map(RedactedUrl) {
        None => Ok(matches),
        Some(shown) => {
            let refusal = format!("{shown} is an address, where a file is wanted; download it first\n");
            Err(subcommand.error(clap::error::ErrorKind::ValueValidation, refusal))
        }
    }
}

/// An address that cannot be used may hold a key all the same.
fn without_keys(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    let is_address = |value: &&ContextValue| matches!(value, ContextValue::String(option) if ["--tracker ", "--webseed "].iter().any(|name| option.starts_with(name)));
    if error.get(ContextKind::InvalidArg).filter(is_address).is_some()
        && let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidValue)
    {
        let shown = RedactedUrl(given).to_string();
        error.insert(ContextKind::InvalidValue, ContextValue::String(shown));
    }
    error
}

/// Whether an argument is wrong, whoever has seen it: the parser, or a floor below that reads what it says.
fn is_misuse(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let is_pattern =
        matches!(error.downcast_ref(), Some(DownloadError::Pattern { .. } | DownloadError::NothingSelected))
            || matches!(error.downcast_ref(), Some(MakeError::Pattern { .. }));
    // A link of a kind that is not served is none the less a link.
    let is_link = matches!(error.downcast_ref(), Some(link) if !matches!(link, MagnetError::V2Only));
    let is_listener = matches!(error.downcast_ref(), Some(TrackerServerError::NoAddress));
    is_pattern || is_link || is_listener || error.is::<UsageError>()
}

/// What is lacking where the kernel's own words are all that is known, and the cure. Nothing but a thread that cannot be started
/// answers EAGAIN and comes as far as here.
fn lack(errno: i32) -> Option<&'static str> {
    match errno {
        libc::EAGAIN => Some(
            "no thread can be started; raise the limits of this process (ulimit -u and ulimit -v, or TasksMax= and MemoryMax= of \
             the service)",
        ),
        libc::ENOMEM => {
            Some("no memory is left; raise the limit (ulimit -v, or MemoryMax= of the service), or free some")
        }
        libc::EMFILE | libc::ENFILE => Some(
            "too many files and sockets are open; raise the limit (ulimit -n, or LimitNOFILE= of the service)",
        ),
        _ => None,
    }
}

/// A reader that has seen enough is no failure.
fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::BrokenPipe
        {
            return true;
        }
        cause = current.source();
    }
    false
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let lack = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error).and_then(lack);
    let mut text = lack.map_or_else(|| error.to_string(), |lack| format!("{lack}: {error}"));
    let mut cause = error.source();
    while let Some(current) = cause {
        let message = current.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = current.source();
    }
    text
}
