//! From what the user typed to torrents whose place on disk is known.

use super::super::CommandError;
use super::super::destination::Destination;
use super::super::escape::Plain;
use super::super::progress::Progress;
use super::super::view::View;
use super::SeedArgs;
use crate::clock;
use crate::id::InfoHash;
use crate::session::content::Located;
use crate::session::make_torrent::{MakeOptions, Plan};
use crate::session::torrent_file::{read_torrent, write_torrent};
use crate::tracker_server::{TrackerProtocol, TrackerServer};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

/// What is to be served.
pub(super) struct Inputs {
    /// The torrents, found on disk.
    pub located: Vec<Located>,
    /// Where their torrent files lie.
    pub torrent_files: BTreeMap<InfoHash, PathBuf>,
}

/// The addresses that clients are to announce to: what the user named, or the embedded tracker's.
pub(super) fn announce_urls(args: &SeedArgs, tracker: Option<&TrackerServer>) -> Vec<String> {
    let Some(tracker) = tracker else { return args.tracker.clone() };
    let mut urls = Vec::new();
    for listening in tracker.local_addrs() {
        let address = reachable(listening.address);
        if address.ip().is_unspecified() {
            continue;
        }
        urls.push(match listening.protocol {
            TrackerProtocol::Http => format!("http://{address}/announce"),
            TrackerProtocol::Udp => format!("udp://{address}/announce"),
        });
    }
    urls
}

/// Where others reach a socket that listens on all addresses of IPv4. Of IPv6 addresses a machine has many, and
/// none is the obvious one.
pub(super) fn reachable(listening: SocketAddr) -> SocketAddr {
    if listening.ip() == Ipv4Addr::UNSPECIFIED {
        return SocketAddr::new(address_for_others(), listening.port());
    }
    listening
}

/// The address under which others most likely reach this machine: the one its default route leaves from.
/// Nothing is sent. 192.0.2.1 belongs to nobody (RFC 5737).
fn address_for_others() -> IpAddr {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr())
        })
        .map(|address| address.ip())
        .ok()
        .filter(|ip| !ip.is_unspecified())
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Makes torrents of files and folders, reads torrent files, and finds the content of all.
pub(super) fn gather(
    args: &SeedArgs,
    trackers: &[String],
    state_dir: Option<&Path>,
    view: &View,
) -> Result<Inputs, CommandError> {
    let mut inputs = Inputs { located: Vec::new(), torrent_files: BTreeMap::new() };
    let contents = args.paths.iter().filter(|path| !is_torrent(path)).count();
    if args.torrent.is_some() && contents != 1 {
        return Err("--torrent names one file, so it goes with one file or folder to share".into());
    }
    for path in &args.paths {
        if is_torrent(path) {
            let located = find(path, args.data.as_deref(), state_dir)?;
            inputs.add(located, path);
        } else {
            let (located, torrent) = make(path, args, trackers, state_dir)?;
            inputs.add(located, &torrent);
        }
    }
    if let Some(folder) = &args.torrents {
        let read = |error| format!("cannot read the folder {}: {error}", folder.display());
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(read)? {
            files.push(entry.map_err(read)?.path());
        }
        files.retain(|path| is_torrent(path));
        files.sort();
        for path in files {
            // One bad torrent among thousands is told and left out.
            match find(&path, args.data.as_deref(), state_dir) {
                Ok(located) => inputs.add(located, &path),
                Err(error) => view.complain(&super::super::with_causes(error.as_ref())),
            }
        }
        if inputs.located.is_empty() {
            return Err(format!("{} holds no .torrent that can be seeded", folder.display()).into());
        }
    }
    Ok(inputs)
}

impl Inputs {
    fn add(&mut self, located: Located, torrent: &Path) {
        let path = std::path::absolute(torrent).unwrap_or_else(|_| torrent.to_owned());
        self.torrent_files.insert(located.metainfo.info_hash(), path);
        self.located.push(located);
    }
}

fn is_torrent(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("torrent")) && !path.is_dir()
}

fn find(torrent: &Path, data: Option<&Path>, state_dir: Option<&Path>) -> Result<Located, CommandError> {
    let metainfo = read_torrent(torrent)?;
    let beside = torrent.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let located = Located::find(metainfo, data.unwrap_or(beside), state_dir).map_err(|error| {
        let hint = if data.is_none() { "; name the content's folder with --data" } else { "" };
        format!("the content of {} is not there: {error}{hint}", Plain(&torrent.to_string_lossy()))
    })?;
    Ok(located)
}

fn make(
    path: &Path,
    args: &SeedArgs,
    trackers: &[String],
    state_dir: Option<&Path>,
) -> Result<(Located, PathBuf), CommandError> {
    let output = Destination::of(path, args.torrent.as_deref(), "--torrent")?.path;
    let options = MakeOptions {
        tiers: trackers.iter().map(|tracker| vec![tracker.clone()]).collect(),
        piece_length: args.piece_length,
        creation_date: Some(clock::unix_seconds()),
        leave_out: Some(output.clone()),
        ..MakeOptions::default()
    };
    let plan = Plan::of(path, options)?;
    for left_out in plan.left_out() {
        eprintln!("{} is left out: {}", Plain(&left_out.path.to_string_lossy()), left_out.reason);
    }
    let progress = Progress::start("hashing", plan.total_len());
    let made = plan.hash(0, &|bytes| progress.add(bytes))?;
    drop(progress);
    write_torrent(&output, &made.bytes)?;
    let mut located = Located::find(made.metainfo, &made.root, state_dir)?;
    located.trust();
    Ok((located, output))
}
