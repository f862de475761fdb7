//! The clients, one row each: how it is started on a torrent and how it says that it has everything.

mod aria2;
mod libtorrent;
mod qbittorrent;
mod rtorrent;
mod transmission;

use crate::content::Content;
use crate::process::Process;
use crate::waiting::wait_for;
use seedring::clock;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time for one small download. libtorrent tries a peer again after 60 s when the first attempt failed,
/// and a busy machine makes everything slower.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(180);

/// An unmodified client.
pub struct Client {
    /// Its name.
    pub name: &'static str,
    /// The address that it listens on and connects from.
    address: Ipv4Addr,
    /// Whether it creates the files that have no bytes.
    pub creates_empty_files: bool,
    start: fn(&Paths) -> Download,
}

/// All of them, those that are fast with one seed first. Versions: whatever tools/install-test-clients finds.
pub const CLIENTS: [Client; 5] =
    [libtorrent::CLIENT, aria2::CLIENT, qbittorrent::CLIENT, rtorrent::CLIENT, transmission::CLIENT];

/// Where one client works.
struct Paths {
    /// What it is started on: a torrent file's path, or a magnet link.
    source: String,
    /// Settings and logs.
    home: PathBuf,
    /// What it downloads.
    saved: PathBuf,
    wishes: Wishes,
}

/// How a client is run.
#[derive(Clone, Copy, Default)]
struct Wishes {
    /// It speaks to nobody in plaintext.
    encrypted: bool,
    /// It has everything before it starts, and stays when it has checked that.
    seeds: bool,
}

impl Paths {
    fn log(&self) -> PathBuf {
        self.home.join("output.log")
    }
}

/// Looks whether a client has everything; the error says what it has.
type Probe = dyn FnMut(&mut Process) -> Result<(), String>;

/// A started client: its process, and the question whether it has everything.
struct Download {
    process: Process,
    is_complete: Box<Probe>,
}

/// A client at work on one torrent. Dropping it ends the client.
pub struct Running {
    client: &'static Client,
    download: Download,
    /// The folder it saves to.
    pub saved: PathBuf,
}

impl Client {
    /// Starts it on `torrent` with everything it writes in a new folder below `scratch`.
    pub fn start(&'static self, torrent: &Path, scratch: &Path) -> Running {
        self.start_as(torrent, scratch, Wishes::default())
    }

    /// The same, told to take encrypted connections only.
    pub fn start_encrypted(&'static self, torrent: &Path, scratch: &Path) -> Running {
        self.start_as(torrent, scratch, Wishes { encrypted: true, seeds: false })
    }

    fn start_as(&'static self, torrent: &Path, scratch: &Path, wishes: Wishes) -> Running {
        let home = scratch.join(self.name);
        let saved = home.join("saved");
        std::fs::create_dir_all(&saved).expect("a scratch folder takes folders");
        // A copy with a plain name: rTorrent's settings file cannot name every path.
        let copy = home.join("wanted.torrent");
        std::fs::copy(torrent, &copy).expect("the seeder's torrent file can be read");
        self.start_on(copy.display().to_string(), home, saved, wishes)
    }

    /// Starts it with everything there already: it checks what it has, and then seeds. `content` is a folder with the
    /// torrent's file or folder in it; it works on a copy.
    pub fn start_seeding(&'static self, torrent: &Path, content: &Content, scratch: &Path) -> Running {
        content.copy_to(&scratch.join(self.name).join("saved"));
        self.start_as(torrent, scratch, Wishes { seeds: true, encrypted: false })
    }

    /// The same, told to take encrypted connections only.
    pub fn start_seeding_encrypted(
        &'static self,
        torrent: &Path,
        content: &Content,
        scratch: &Path,
    ) -> Running {
        content.copy_to(&scratch.join(self.name).join("saved"));
        self.start_as(torrent, scratch, Wishes { seeds: true, encrypted: true })
    }

    /// The same with nothing but a magnet link.
    pub fn start_on_magnet(&'static self, link: &str, scratch: &Path) -> Running {
        let home = scratch.join(self.name);
        let saved = home.join("saved");
        std::fs::create_dir_all(&saved).expect("a scratch folder takes folders");
        self.start_on(link.to_owned(), home, saved, Wishes::default())
    }

    fn start_on(&'static self, source: String, home: PathBuf, saved: PathBuf, wishes: Wishes) -> Running {
        let paths = Paths { source, home, saved: saved.clone(), wishes };
        Running { client: self, download: (self.start)(&paths), saved }
    }
}

impl Running {
    /// What its process has printed so far.
    pub fn printed(&self) -> String {
        self.download.process.printed()
    }

    /// Waits until it says that it has everything.
    pub fn wait_until_complete(&mut self) {
        self.wait_until_complete_within(DOWNLOAD_TIMEOUT);
    }

    /// The same with more time, for large content.
    pub fn wait_until_complete_within(&mut self, limit: Duration) {
        let Download { process, is_complete } = &mut self.download;
        let name = self.client.name;
        let start = clock::now();
        wait_for(&format!("{name} to have everything"), limit, || {
            is_complete(process)
                .map_err(|complaint| format!("{complaint}; it printed:\n{}", process.last_words()))
        });
        eprintln!("{name} had everything after {:.1?}", clock::now().since(start));
    }
}
