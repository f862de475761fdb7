//! `seedring create`: a torrent file from a file or folder.

use super::CommandError;
use super::destination::Destination;
use super::escape::{self, Plain};
use super::output;
use super::progress::Progress;
use crate::clock;
use crate::metainfo::Magnet;
use crate::metainfo::builder::check_piece_length;
use crate::secret_url::{Keys, TrackerUrl, WebSeedUrl};
use crate::session::make_torrent::{MadeTorrent, MakeOptions, Plan};
use crate::session::patterns::pattern_rule;
use crate::session::torrent_file::write_torrent;
use crate::units::{ByteSize, Counted};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use url::Url;

/// Make a torrent file from a file or folder.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// The file or folder to share
    path: PathBuf,
    /// Where to write the torrent file; only a torrent is replaced there [default: NAME.torrent in the current folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A tracker's address (http, https or udp); the first given is asked first
    #[arg(long, value_name = "URL", value_parser = tracker_url)]
    tracker: Vec<TrackerUrl>,
    /// An address that serves the same content over HTTP
    #[arg(long, value_name = "URL", value_parser = web_seed_url)]
    webseed: Vec<WebSeedUrl>,
    /// Bytes of a piece, a power of two from 16KiB to 256MiB [default: 256KiB, growing for large content]
    #[arg(long, value_name = "SIZE", value_parser = piece_length)]
    piece_length: Option<u32>,
    /// Let clients find peers through the trackers only
    #[arg(long)]
    private: bool,
    /// A text for those who open the torrent
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// A mark that gives the same content another info-hash
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Print the magnet link with the addresses that hold a key (a passkey, a password), which it leaves out otherwise
    #[arg(long)]
    show_keys: bool,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What of a folder goes into its torrent.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ChoiceArgs {
    #[arg(long, value_name = "GLOB", help = concat!("Leave out files and folders that match; repeatable. ", pattern_rule!()))]
    pub(super) exclude: Vec<String>,
    /// Share also what systems and tools leave in folders: .DS_Store, Thumbs.db, desktop.ini, .git and the like
    #[arg(long)]
    pub(super) include_system_files: bool,
}

/// Says what of a folder its torrent will not have, and which names in it are one on other systems.
pub(super) fn tell_of(plan: &Plan) {
    for left_out in plan.left_out() {
        output::err(format_args!(
            "{} is left out: {}",
            Plain(&left_out.path.to_string_lossy()),
            left_out.reason
        ));
    }
    for alike in plan.alike() {
        let (first, second) = (Plain(&alike.first), Plain(&alike.second));
        output::err(format_args!(
            "{first} and {second} differ in {} only: Windows and macOS take them for one; rename one of them",
            alike.difference
        ));
    }
}

/// What has been made. The fields are the JSON contract.
#[derive(Serialize)]
struct Created {
    name: String,
    info_hash: String,
    length: u64,
    piece_length: u32,
    piece_count: u32,
    file_count: usize,
    torrent: String,
    /// Whether another torrent lay there.
    replaced: bool,
    magnet: String,
}

/// Runs the command.
pub fn run(args: CreateArgs) -> Result<(), CommandError> {
    let options = MakeOptions {
        tiers: args.tracker.into_iter().map(|tracker| vec![tracker]).collect(),
        web_seeds: args.webseed,
        piece_length: args.piece_length,
        private: args.private,
        comment: args.comment,
        source: args.source,
        creation_date: Some(clock::unix_seconds()),
        exclude: args.choice.exclude,
        include_system_files: args.choice.include_system_files,
        leave_out: None,
    };
    let destination = Destination::of(&args.path, args.output.as_deref(), "-o")?;
    let output = &destination.path;
    let plan = Plan::of(&args.path, MakeOptions { leave_out: Some(output.clone()), ..options })?;
    tell_of(&plan);
    let progress = Progress::start("hashing", plan.total_len());
    let made = plan.hash(0, &|bytes| progress.add(bytes))?;
    drop(progress);
    let replaced = write_torrent(output, &made.bytes, &args.path)?;
    report(&made, output, replaced, args.json, Keys::shown_if(args.show_keys))
}

fn report(
    made: &MadeTorrent,
    output: &Path,
    replaced: bool,
    json: bool,
    keys: Keys,
) -> Result<(), CommandError> {
    let info = made.metainfo.info();
    let created = Created {
        name: info.name().to_owned(),
        info_hash: made.metainfo.info_hash().to_string(),
        length: info.total_len(),
        piece_length: info.piece_length(),
        piece_count: info.piece_count(),
        file_count: info.files().len(),
        torrent: output.to_string_lossy().into_owned(),
        replaced,
        magnet: made.metainfo.magnet().link(keys),
    };
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", escape::json(&created)?)?;
        return Ok(());
    }
    let size = ByteSize(created.length);
    let piece = ByteSize(created.piece_length.into());
    writeln!(out, "name        {}", Plain(&created.name))?;
    writeln!(out, "info-hash   {}", created.info_hash)?;
    writeln!(out, "size        {size} in {} of {piece}", Counted(created.piece_count, "piece"))?;
    let note = if replaced { " (replaced)" } else { "" };
    writeln!(out, "torrent     {}{note}", Plain(&created.torrent))?;
    writeln!(out, "magnet      {}{}", created.magnet, left_out(&made.metainfo.magnet(), keys))?;
    Ok(())
}

/// What is said behind a magnet link that lacks the addresses with keys.
pub(super) fn left_out(magnet: &Magnet, keys: Keys) -> &'static str {
    let is_short = keys == Keys::Hidden && magnet.holds_key();
    if is_short { "  (without the addresses that hold keys; --show-keys has them in it)" } else { "" }
}

pub(super) fn tracker_url(text: &str) -> Result<TrackerUrl, String> {
    url_of(text, &["http", "https", "udp"]).map(TrackerUrl::from)
}

fn web_seed_url(text: &str) -> Result<WebSeedUrl, String> {
    url_of(text, &["http", "https"]).map(WebSeedUrl::from)
}

fn url_of(text: &str, schemes: &[&str]) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("this is no URL: {error}"))?;
    if !schemes.contains(&url.scheme()) || !url.has_host() {
        return Err(format!("this is no address of the kinds {}", schemes.join(", ")));
    }
    // As the user wrote it: trackers tell torrents apart by passkeys in addresses.
    let fit = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    if fit { Ok(text.to_owned()) } else { Err("an address has no blanks in it".to_owned()) }
}

pub(super) fn piece_length(text: &str) -> Result<u32, String> {
    let size: ByteSize = text.parse().map_err(|error: crate::units::UnitError| error.to_string())?;
    let length = u32::try_from(size.0).unwrap_or(u32::MAX);
    check_piece_length(length).map_err(|error| error.to_string())?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_piece_lengths_are_judged_before_anything_is_hashed() {
        for good in ["http://t/a", "udp://t:1/announce", "https://[::1]:2/?passkey=x"] {
            assert_eq!(tracker_url(good).unwrap().reveal(), good);
        }
        for bad in ["", "t:80", "ftp://t/", "udp:", "http://t/a b", "/path"] {
            assert!(tracker_url(bad).is_err(), "{bad}");
        }
        assert!(web_seed_url("udp://t:1/").is_err());
        assert_eq!(piece_length("1MiB"), Ok(1 << 20));
        for bad in ["0", "1000", "8KiB", "48KiB", "512MiB", "9999TiB", "x"] {
            assert!(piece_length(bad).is_err(), "{bad}");
        }
    }
}
