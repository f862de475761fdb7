//! What a tracker does beside answering: forgets silent peers, reads its files again when they change or when it is told to,
//! and writes its memory down.
//!
//! A file system may hang, so files are touched on threads of their own, which are left behind at the end if need be.

use super::access::{Access, FileState};
use super::state::{NewState, StateError, StateFile};
use super::tls::TlsFiles;
use super::{Shared, lock};
use crate::clock;
use crate::http_server::Tls;
use crate::limits::{STATE_END_TIMEOUT, STATE_INTERVAL, STATE_PIECE_LEN};
use crate::units::Counted;
use serde_json::json;
use std::fmt;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// Something that whoever runs the tracker wants to hear of.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrackerNotice {
    /// The list of torrents was read again.
    ListRead {
        /// Info-hashes in it.
        torrents: usize,
    },
    /// The list of torrents cannot be used; the former one stays in force.
    ListKept(String),
    /// The certificate was read again.
    CertificateRead,
    /// The certificate cannot be used; the former one stays in force.
    CertificateKept(String),
    /// It was asked to read its files again, and has none.
    NothingToRead,
    /// What an earlier run knew was read.
    StateRead {
        /// Torrents that are still known.
        torrents: u64,
        /// Peers that may still be there.
        peers: u64,
    },
    /// What an earlier run knew is not used.
    StateNotRead(StateError),
    /// What this run knows was not written down.
    StateNotWritten(String),
}

impl TrackerNotice {
    /// Whether something is not as it should be.
    pub fn is_warning(&self) -> bool {
        match self {
            Self::ListRead { .. } | Self::CertificateRead | Self::NothingToRead | Self::StateRead { .. } => {
                false
            }
            Self::ListKept(_)
            | Self::CertificateKept(_)
            | Self::StateNotRead(_)
            | Self::StateNotWritten(_) => true,
        }
    }

    /// One flat JSON object. The names are stable.
    pub fn to_json(&self) -> serde_json::Value {
        let name = match self {
            Self::ListRead { .. } => "list_read",
            Self::ListKept(_) => "list_kept",
            Self::CertificateRead => "certificate_read",
            Self::CertificateKept(_) => "certificate_kept",
            Self::NothingToRead => "nothing_to_read",
            Self::StateRead { .. } => "state_read",
            Self::StateNotRead(_) => "state_not_read",
            Self::StateNotWritten(_) => "state_not_written",
        };
        let mut object = json!({ "event": name, "message": self.to_string() });
        match self {
            Self::ListRead { torrents } => object["torrents"] = (*torrents).into(),
            Self::StateRead { torrents, peers } => {
                object["torrents"] = (*torrents).into();
                object["peers"] = (*peers).into();
            }
            _ => {}
        }
        object
    }
}

impl fmt::Display for TrackerNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListRead { torrents } => write!(f, "read the list of torrents again: it has {torrents}"),
            Self::ListKept(why) => write!(f, "the former list of torrents stays in force: {why}"),
            Self::CertificateRead => f.write_str("read the certificate again; new connections get it"),
            Self::CertificateKept(why) => write!(f, "the former certificate stays in force: {why}"),
            Self::NothingToRead => f.write_str("there is no list and no certificate to read again"),
            Self::StateRead { torrents, peers } => {
                let (torrents, peers) = (Counted(*torrents, "torrent"), Counted(*peers, "peer"));
                write!(f, "knows {torrents} and {peers} from the run before")
            }
            Self::StateNotRead(error) => error.fmt(f),
            Self::StateNotWritten(why) => f.write_str(why),
        }
    }
}

/// Forgets silent peers, a part of them each second, for ever.
pub(super) async fn expire(shared: Shared) {
    let mut seconds = every(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        lock(&shared).expire(clock::now());
    }
}

/// The files that may change while the tracker runs.
pub(super) struct Files {
    pub(super) access: Access,
    /// The list's state before it was read.
    pub(super) access_read: Option<FileState>,
    pub(super) tls: Option<(TlsFiles, Tls)>,
}

/// Looks once a second whether the list of torrents has changed, and whether everything is to be read again, for ever.
pub(super) async fn read_again(shared: Shared, mut files: Files, notices: mpsc::Sender<TrackerNotice>) {
    // Who does not take notices does without.
    let tell = |notice: TrackerNotice| {
        tracing::info!("{notice}");
        let _ = notices.try_send(notice);
    };
    let mut seconds = every(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        let asked = std::mem::take(&mut lock(&shared).reload_wanted);
        if files.access.is_file() {
            let (access, read) = (files.access.clone(), files.access_read);
            let look = move || {
                let present = access.file_state();
                let is_new = asked || present.is_some() && present != read;
                is_new.then(|| (present, access.load()))
            };
            if let Some(Some((present, list))) = on_a_thread(look).await {
                files.access_read = present;
                match list {
                    Ok(list) => {
                        tell(TrackerNotice::ListRead { torrents: list.len() });
                        lock(&shared).set_access(list);
                    }
                    Err(error) => tell(TrackerNotice::ListKept(with_causes(&error))),
                }
            }
        }
        if !asked {
            continue;
        }
        if let Some((paths, tls)) = &files.tls {
            let paths = paths.clone();
            match on_a_thread(move || paths.load()).await {
                Some(Ok(acceptor)) => {
                    tls.replace(acceptor);
                    tell(TrackerNotice::CertificateRead);
                }
                Some(Err(error)) => tell(TrackerNotice::CertificateKept(error.to_string())),
                None => {}
            }
        } else if !files.access.is_file() {
            tell(TrackerNotice::NothingToRead);
        }
    }
}

/// Writes the tracker's memory down every few minutes, for ever.
pub(super) async fn write_state(shared: Shared, file: StateFile, notices: mpsc::Sender<TrackerNotice>) {
    let mut turns = every(STATE_INTERVAL);
    turns.tick().await;
    loop {
        turns.tick().await;
        let written = write_state_once(&shared, &file).await;
        lock(&shared).count_state(written.is_ok());
        if let Err(why) = written {
            tracing::warn!("{why}");
            let _ = notices.try_send(TrackerNotice::StateNotWritten(why));
        }
    }
}

/// Writes it down a last time, within [`STATE_END_TIMEOUT`].
pub(super) async fn write_last_state(
    shared: &Shared,
    file: &StateFile,
    notices: &mpsc::Sender<TrackerNotice>,
) {
    let written = tokio::time::timeout(STATE_END_TIMEOUT, write_state_once(shared, file)).await;
    let late = || format!("the tracker's state was not written within {} s", STATE_END_TIMEOUT.as_secs());
    let written = written.unwrap_or_else(|_| Err(late()));
    lock(shared).count_state(written.is_ok());
    if let Err(why) = written {
        let _ = notices.try_send(TrackerNotice::StateNotWritten(why));
    }
}

/// The tracker is stopped for one piece at a time only, and waits for the file between them.
async fn write_state_once(shared: &Shared, file: &StateFile) -> Result<(), String> {
    let (pieces, mut received) = mpsc::channel::<Vec<u8>>(2);
    let (file, unix_now) = (file.clone(), clock::unix_seconds());
    let written = on_a_thread(move || {
        let _alone = file.lock();
        let mut new: NewState = file.create(unix_now)?;
        while let Some(piece) = received.blocking_recv() {
            if piece.is_empty() {
                return new.finish();
            }
            new.piece(&piece)?;
        }
        // Nobody waits for it any more, and a part is worth nothing.
        Ok(())
    });
    let told = async {
        let mut after = None;
        loop {
            let mut piece = Vec::with_capacity(STATE_PIECE_LEN + STATE_PIECE_LEN / 8);
            after = lock(shared).write_piece(clock::now(), after, STATE_PIECE_LEN, &mut piece);
            // An empty one says that it was the last; a closed channel, that the file cannot be written.
            if pieces.send(piece).await.is_err() || after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // Kept open until the thread has said what became of it.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        written = written => match written {
            Some(written) => written.map_err(|error| error.to_string()),
            None => Err("the thread that writes the tracker's state has died".to_owned()),
        },
        () = told => unreachable!("it waits for ever"),
    }
}

/// What `work` returns, done on a thread of its own; `None` when that could not be started, or died.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("tracker files".to_owned());
    thread.spawn(move || done.send(work()).is_ok()).ok()?;
    result.await.ok()
}

fn every(interval: Duration) -> tokio::time::Interval {
    let mut turns = tokio::time::interval(interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns
}

/// An error with all that caused it, in one sentence.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
