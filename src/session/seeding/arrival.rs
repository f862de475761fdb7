//! What comes to a session from those who find and check torrents.

use crate::id::InfoHash;
use crate::session::content::{Checked, Located};
use crate::units::Counted;
use std::sync::atomic::AtomicBool;

/// What the preparing thread sends.
#[derive(Debug)]
pub enum Arrival {
    /// A torrent that can be served.
    Ready(Box<Checked>),
    /// One that is served and takes its own place, since some of its files are not what they were.
    Anew(Box<Checked>),
    /// The user wants the files of all torrents looked at now.
    LookAgain,
    /// One that cannot.
    Failed {
        /// Its name.
        name: String,
        /// The torrent.
        info_hash: InfoHash,
        /// Why, and what to do.
        reason: String,
    },
    /// One that is served and is not to be any more.
    Gone {
        /// The torrent.
        info_hash: InfoHash,
        /// Whether another takes its place.
        is_replaced: bool,
    },
    /// All that was there at the start has arrived, or waits for what does not answer.
    Started {
        /// Whether others may come as long as the session runs.
        more_may_come: bool,
        /// What does not answer.
        waiting_for: Vec<String>,
    },
}

impl Arrival {
    /// Checks what has been found, where that is due.
    pub fn from_located(located: Located, on_progress: &(dyn Fn(u64) + Sync), cancel: &AtomicBool) -> Self {
        let (name, info_hash) = (located.metainfo.info().name().to_owned(), located.metainfo.info_hash());
        match located.check(on_progress, cancel) {
            Ok(checked) if checked.verified.count() == 0 && !checked.verified.is_empty() => {
                let first = checked.problems.first().map_or(String::new(), |problem| format!(" ({problem})"));
                let count = checked.verified.len();
                let reason = format!(
                    "none of its {} is good{first}; name its content with --data",
                    Counted(count, "piece")
                );
                Self::Failed { name, info_hash, reason }
            }
            Ok(checked) => Self::Ready(Box::new(checked)),
            Err(error) => Self::Failed { name, info_hash, reason: error.to_string() },
        }
    }
}
