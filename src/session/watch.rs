//! The thread that looks after files: have they changed under us, and what is to be remembered of them?
//!
//! It is a thread of its own because a file system may hang, and neither payload nor trackers shall wait for
//! it. Torrents with peers are looked at every two seconds, all others a few at a time.

use crate::bitfield::Bitfield;
use crate::engine::SharedTorrent;
use crate::id::InfoHash;
use crate::storage::{Content, Fingerprint, Resume, resume_path};
use crate::time::Duration;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Torrents without peers looked at each time.
const IDLE_TORRENTS_PER_LOOK: usize = 50;
/// Looks between two rounds of writing resume files of torrents that have uploaded something.
const LOOKS_PER_SAVE: u32 = 30;

/// A torrent to look after.
pub struct Watched {
    /// The torrent.
    pub shared: Arc<SharedTorrent<Content>>,
    /// Its files when they were checked.
    pub fingerprint: Fingerprint,
    /// The pieces that were right then.
    pub verified: Bitfield,
    /// Bytes uploaded in earlier runs.
    pub uploaded_before: u64,
}

enum Message {
    Watch(Box<Watched>),
    Forget { info_hash: InfoHash, uploaded: u64 },
}

/// The thread. Dropping it writes what is to be remembered and waits for that.
pub struct Watcher {
    messages: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts looking after files; resume files go to `state_dir`. Without a thread to be had, nobody looks, and
    /// the user is told.
    pub fn start(state_dir: Option<PathBuf>) -> Self {
        let (messages, receiver) = unbounded();
        let thread = std::thread::Builder::new().name("watcher".to_owned()).spawn(move || {
            Watch { state_dir, torrents: BTreeMap::new(), next: None, looks: 0 }.run(&receiver)
        });
        if let Err(error) = &thread {
            tracing::warn!(%error, "files are not watched: no thread could be started");
        }
        Self { messages: Some(messages), thread: thread.ok() }
    }

    /// Looks after a torrent from now on.
    pub fn watch(&self, torrent: Watched) {
        self.send(Message::Watch(Box::new(torrent)));
    }

    /// Writes a torrent's resume file and looks after it no longer.
    pub fn forget(&self, info_hash: InfoHash, uploaded: u64) {
        self.send(Message::Forget { info_hash, uploaded });
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages {
            // Nobody listens only when the thread could not be started.
            let _ = messages.send(message);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.messages = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watch {
    state_dir: Option<PathBuf>,
    torrents: BTreeMap<InfoHash, (Box<Watched>, u64)>,
    /// Where the round of idle torrents goes on.
    next: Option<InfoHash>,
    looks: u32,
}

impl Watch {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            match messages.recv_timeout(LOOK_INTERVAL) {
                Ok(Message::Watch(torrent)) => self.watch(torrent),
                Ok(Message::Forget { info_hash, uploaded }) => {
                    if let Some((torrent, _)) = self.torrents.remove(&info_hash) {
                        self.save(&torrent, uploaded);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn watch(&mut self, torrent: Box<Watched>) {
        self.save(&torrent, torrent.uploaded_before);
        let uploaded = torrent.uploaded_before;
        self.torrents.insert(torrent.shared.facts.info_hash, (torrent, uploaded));
    }

    fn look(&mut self) {
        self.looks += 1;
        let from = self.next.unwrap_or(InfoHash([0; 20]));
        let mut idle: Vec<InfoHash> = self
            .torrents
            .range(from..)
            .map(|(info_hash, _)| *info_hash)
            .take(IDLE_TORRENTS_PER_LOOK + 1)
            .collect();
        self.next = (idle.len() > IDLE_TORRENTS_PER_LOOK).then(|| idle.pop()).flatten();
        for (info_hash, (torrent, _)) in &self.torrents {
            let busy = torrent.shared.connections.load(Relaxed) > 0;
            if (busy || idle.binary_search(info_hash).is_ok())
                && torrent.shared.content.fault().is_none()
                && let Err(fault) = torrent.shared.content.verify_files()
            {
                // The session finds it with the content within a second.
                torrent.shared.content.fail(fault);
            }
        }
        if self.looks.is_multiple_of(LOOKS_PER_SAVE) {
            self.save_changed();
        }
    }

    fn save_changed(&mut self) {
        let mut torrents = std::mem::take(&mut self.torrents);
        for (torrent, saved) in torrents.values_mut() {
            let uploaded = torrent.uploaded_before + torrent.shared.uploaded.load(Relaxed);
            if std::mem::replace(saved, uploaded) != uploaded {
                self.save(torrent, uploaded);
            }
        }
        self.torrents = torrents;
    }

    fn save(&self, torrent: &Watched, uploaded: u64) {
        let Some(state_dir) = &self.state_dir else { return };
        let info_hash = torrent.shared.facts.info_hash;
        let (fingerprint, verified) = (torrent.fingerprint.clone(), torrent.verified.clone());
        let resume = Resume { uploaded, ..Resume::clean(info_hash, fingerprint, verified) };
        if let Err(error) = resume.save(&resume_path(state_dir, info_hash)) {
            tracing::warn!(%error, "what was checked will be checked again: no resume file could be written");
        }
    }
}
