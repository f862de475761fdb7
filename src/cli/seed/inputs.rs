//! From what the user typed to torrents whose place on disk is known.

use super::super::create::tell_of;
use super::super::destination::{Destination, absolute};
use super::super::escape::Plain;
use super::super::progress::Progress;
use super::super::view::View;
use super::super::{CommandError, UsageError};
use super::SeedArgs;
use crate::clock;
use crate::limits::SILENCE_TIME;
use crate::metainfo::Metainfo;
use crate::secret_url::TrackerUrl;
use crate::session::collection::Stamp;
use crate::session::content::Located;
use crate::session::folder_watch::{is_torrent_name, list};
use crate::session::make_torrent::{MadeTorrent, MakeOptions, Plan};
use crate::session::torrent_file::{read_torrent, write_torrent};
use crate::storage::{Links, Shelf, open_files_max};
use crossbeam::channel::bounded;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is to be served.
#[derive(Clone)]
pub(super) struct Inputs {
    /// The torrent files of folders, sorted; not looked at yet, for there may be ten thousand.
    pub torrent_files: Vec<TorrentFile>,
    /// Those folders.
    pub folders: Vec<PathBuf>,
    /// Those of them that do not answer.
    pub silent_folders: Vec<PathBuf>,
    /// Where the content of torrents lies that were made here, by torrent file.
    made: BTreeMap<PathBuf, PathBuf>,
    /// Where their content lies; each beside its torrent file when `None`.
    pub data: Option<PathBuf>,
    /// What is done about links in the content.
    pub links: Links,
    /// Where resume files lie.
    pub state_dir: Option<PathBuf>,
    /// What opens their content.
    pub shelf: Shelf,
}

/// A torrent file, and where it was found.
#[derive(Clone, Debug)]
pub(super) struct TorrentFile {
    pub path: PathBuf,
    /// The number of the folder that it lies in; numbers behind those for each that was named.
    pub group: usize,
    /// As it was listed, in a folder.
    pub stamp: Option<Stamp>,
}

/// Whether a torrent is going to be made.
pub(super) fn makes_torrents(args: &SeedArgs) -> bool {
    args.paths.iter().any(|path| !is_torrent(path))
}

/// Makes torrents of files and folders, reads the torrent files named, and finds the content of these; of a folder of
/// torrent files only their names.
pub(super) fn gather(
    args: &SeedArgs,
    trackers: &[TrackerUrl],
    state_dir: Option<&Path>,
    view: &View,
) -> Result<(Inputs, Vec<Located>), CommandError> {
    let mut all = Vec::new();
    let mut inputs = Inputs {
        torrent_files: Vec::new(),
        folders: args.torrents.clone(),
        silent_folders: Vec::new(),
        made: BTreeMap::new(),
        data: args.data.clone(),
        links: if args.follow_links { Links::Follow } else { Links::Refuse },
        state_dir: state_dir.map(Path::to_owned),
        shelf: Shelf::new(open_files_max()),
    };
    let contents = args.paths.iter().filter(|path| !is_torrent(path)).count();
    if args.torrent.is_some() && contents != 1 {
        let refusal = "--torrent names one file, so it goes with one file or folder to share";
        return Err(UsageError(refusal.to_owned()).into());
    }
    let mut destinations = destinations(args)?.into_iter();
    let mut is_silent = false;
    for path in &args.paths {
        let destination = if is_torrent(path) { None } else { destinations.next() };
        let Some(destination) = destination else {
            let (finder, named) = (inputs.clone(), path.clone());
            let found = if is_silent { None } else { patiently(move || finder.find(&named))? };
            match found {
                Some(located) => all.push(located?),
                // It is loaded as those of folders are, and so are those behind it: they may lie where it lies.
                None => {
                    is_silent = true;
                    let group = args.torrents.len() + args.paths.len() + inputs.torrent_files.len();
                    inputs.torrent_files.push(TorrentFile { path: path.clone(), group, stamp: None });
                }
            }
            continue;
        };
        let made = make(path, &destination.path, args, trackers)?;
        let replaced = write_torrent(&destination.path, &made.bytes, path)?;
        view.wrote_torrent(&destination.path, replaced);
        let torrent = std::path::absolute(&destination.path).unwrap_or(destination.path);
        let mut located = Located::find(made.metainfo, &made.root, Links::Refuse, state_dir, &inputs.shelf)?;
        located.trust();
        located.made_here = true;
        located.torrent_file = Some(torrent.clone());
        inputs.made.insert(torrent, located.root.clone());
        all.push(located);
    }
    for (group, folder) in args.torrents.iter().enumerate() {
        let listed = folder.clone();
        let Some(listing) = patiently(move || list(&listed))? else {
            // The folder's watcher lists it when it answers.
            inputs.silent_folders.push(folder.clone());
            continue;
        };
        let listing = listing.map_err(|error| {
            format!("cannot read the folder {}: {error}", Plain(&folder.to_string_lossy()))
        })?;
        let of_folder = |(path, stamp)| TorrentFile { path, group, stamp: Some(stamp) };
        inputs.torrent_files.extend(listing.files.into_iter().map(of_folder));
    }
    Ok((inputs, all))
}

/// Does what may hang on a thread of its own, and gives up waiting for it.
fn patiently<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<Option<T>> {
    let (done, answer) = bounded(1);
    // Nobody waits for it any more when it comes late.
    let work = move || drop(done.send(work()));
    std::thread::Builder::new().name("patience".to_owned()).spawn(work)?;
    Ok(answer.recv_timeout(SILENCE_TIME).ok())
}

fn is_torrent(path: &Path) -> bool {
    is_torrent_name(path) && !path.is_dir()
}

impl Inputs {
    /// Reads a torrent file and finds its content. From any thread.
    pub(super) fn find(&self, torrent: &Path) -> Result<Located, CommandError> {
        self.locate(torrent, read_torrent(torrent)?)
    }

    /// The folder in which the content of a torrent file is looked for, and whether the user named one.
    pub(super) fn data_of<'a>(&'a self, torrent: &'a Path) -> (&'a Path, bool) {
        let beside =
            torrent.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let data = self.made.get(torrent).map(PathBuf::as_path).or(self.data.as_deref());
        (data.unwrap_or(beside), data.is_some())
    }

    /// Finds the content of a torrent file that has been read.
    pub(super) fn locate(&self, torrent: &Path, metainfo: Metainfo) -> Result<Located, CommandError> {
        let (data, is_named) = self.data_of(torrent);
        let located = Located::find(metainfo, data, self.links, self.state_dir.as_deref(), &self.shelf);
        let mut located = located.map_err(|error| {
            let hint = if !is_named { "; name the content's folder with --data" } else { "" };
            format!("the content of {} is not there: {error}{hint}", Plain(&torrent.to_string_lossy()))
        })?;
        located.torrent_file = Some(std::path::absolute(torrent).unwrap_or_else(|_| torrent.to_owned()));
        Ok(located)
    }
}

/// Where the torrents of the files and folders to share go, in their order: known before anything is hashed or written.
fn destinations(args: &SeedArgs) -> Result<Vec<Destination>, CommandError> {
    let mut destinations = Vec::new();
    // Each torrent file that is spoken for, and by what.
    let mut taken: BTreeMap<PathBuf, &Path> = args
        .paths
        .iter()
        .filter(|path| is_torrent(path))
        .map(|path| (absolute(path), path.as_path()))
        .collect();
    for content in args.paths.iter().filter(|path| !is_torrent(path)) {
        let destination = Destination::of(content, args.torrent.as_deref(), "--torrent")?;
        let other = taken.insert(destination.absolute(), content);
        // The same content named twice has the same torrent.
        if let Some(other) = other.filter(|other| other.canonicalize().ok() != content.canonicalize().ok()) {
            let (one, two) = (Plain(&other.to_string_lossy()), Plain(&content.to_string_lossy()));
            let (one, two, file) = (one.to_string(), two.to_string(), destination.path.display());
            return Err(format!(
                "{one} and {two} both have {file} for a torrent file; seed them one at a time, each with a --torrent of its own"
            )
            .into());
        }
        destinations.push(destination);
    }
    Ok(destinations)
}

/// Hashes a file or folder to share.
fn make(
    path: &Path,
    output: &Path,
    args: &SeedArgs,
    trackers: &[TrackerUrl],
) -> Result<MadeTorrent, CommandError> {
    let options = MakeOptions {
        tiers: trackers.iter().map(|tracker| vec![tracker.clone()]).collect(),
        piece_length: args.piece_length,
        creation_date: Some(clock::unix_seconds()),
        exclude: args.choice.exclude.clone(),
        include_system_files: args.choice.include_system_files,
        leave_out: Some(output.to_owned()),
        ..MakeOptions::default()
    };
    let plan = Plan::of(path, options)?;
    tell_of(&plan);
    let progress = Progress::start("hashing", plan.total_len());
    let made = plan.hash(0, &|bytes| progress.add(bytes))?;
    drop(progress);
    Ok(made)
}
