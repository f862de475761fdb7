//! Which torrents of a collection are served: torrent files come, change and go, content vanishes and comes back.
//!
//! Pure: it is told what folders list, what a look at a torrent has found, and what the session has lost, and says what is to be
//! looked at when. A look may hang with its file system, so that no more than a few of one group (a folder, a torrent that was named) are
//! under way at once, and those of other groups go on. Invariant: an answer to a look counts only while its ticket is the torrent's
//! newest one. Deliberately absent: any file system and any thread.

use crate::id::InfoHash;
use crate::limits::{LOOK_RETRY_MAX, LOOK_RETRY_MIN, LOOKS_PER_GROUP_MAX};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Time for which content that has to be checked must not change before it is.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// Time after which content that was checked often counts as content that is checked now and then.
const PEACE_TIME: Duration = Duration::from_secs(3600);

/// What tells one state of a torrent file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub len: u64,
    /// Last write, seconds since 1970 and nanoseconds.
    pub mtime: (i64, i64),
    /// Number of the file.
    pub inode: u64,
}

/// A look at one torrent that is to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its torrent file.
    pub path: PathBuf,
    /// For the answer.
    pub ticket: u64,
    /// To which group it belongs.
    pub group: usize,
    /// Whether it was served in this run and is not any more: then all of its content that was there is waited for.
    pub was_served: bool,
}

/// What a look has found: a torrent, and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The torrent.
    pub info_hash: InfoHash,
    /// What tells its trackers from others.
    pub trackers: u64,
    /// Whether its content has to be checked first.
    pub needs_check: bool,
    /// What tells this state of its files from others, when it has to be checked.
    pub files: u64,
}

/// What becomes of what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is to be served at once.
    Serve,
    /// It is to be checked, and then served.
    Check,
    /// It is served, and is to be checked where its files are not what they were, and then served anew.
    CheckAnew,
    /// Another file has the same torrent, which is served from there; the user is to hear of it.
    Double,
    /// Nothing is to be done.
    Leave,
}

/// What is not to be served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Whether something else is to be served in its place.
    pub is_replaced: bool,
}

/// Torrents by their torrent files.
#[derive(Debug, Default)]
pub struct Collection {
    entries: BTreeMap<PathBuf, Entry>,
    /// From which file each torrent is served.
    served: BTreeMap<InfoHash, PathBuf>,
    /// By time, what is to be looked at.
    due: BTreeSet<(Instant, PathBuf)>,
    /// Looks under way, by group.
    looking: BTreeMap<usize, usize>,
    tickets: u64,
}

#[derive(Debug)]
struct Entry {
    group: usize,
    /// As it was listed; none of a file that was named.
    stamp: Option<Stamp>,
    ticket: u64,
    state: State,
    info_hash: Option<InfoHash>,
    trackers: u64,
    /// Looks in a row that have led to nothing.
    failures: u32,
    /// What the user was told last.
    told: Option<String>,
    /// Its content at the last look that found it in need of a check.
    seen: Option<u64>,
    /// Its content when a check led to nothing.
    refused: Option<u64>,
    /// Its content when it was served anew.
    renewed: Option<u64>,
    /// Checks, the last of them then, since it was left in peace or the user wanted it looked at: what changes often is left alone
    /// for longer.
    checks: u32,
    checked_at: Option<Instant>,
    /// Files of it have come while it is served.
    is_changed: bool,
    /// It is checked while it is served.
    is_anew: bool,
    /// Another file has this torrent as well, which was told.
    double_of: Option<InfoHash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is looked at then.
    Due(Instant),
    /// It is being looked at, or checked.
    Busy,
    /// It is served, or was handed over to be.
    Served,
    /// Another file has the same torrent.
    Double,
}

impl Entry {
    fn new(group: usize, stamp: Option<Stamp>, state: State) -> Self {
        Self {
            group,
            stamp,
            ticket: 0,
            state,
            info_hash: None,
            trackers: 0,
            failures: 0,
            told: None,
            seen: None,
            refused: None,
            renewed: None,
            checks: 0,
            checked_at: None,
            is_changed: false,
            is_anew: false,
            double_of: None,
        }
    }

    /// Whether its content has been at rest for long enough; otherwise when to look at it again.
    fn is_at_rest(&mut self, now: Instant, files: u64) -> Result<(), Instant> {
        if self.checked_at.is_some_and(|then| now.since(then) >= PEACE_TIME) {
            (self.checks, self.checked_at) = (0, None);
        }
        if self.seen.replace(files) != Some(files) {
            let shift = self.checks.min(16);
            return Err(now + (SETTLE_TIME * (1 << shift)).min(LOOK_RETRY_MAX));
        }
        self.checks += 1;
        self.checked_at = Some(now);
        Ok(())
    }

    /// When it is tried again after so many failures.
    fn retry_at(&self, now: Instant) -> Instant {
        let shift = self.failures.saturating_sub(1).min(16);
        now + (LOOK_RETRY_MIN * (1 << shift)).min(LOOK_RETRY_MAX)
    }
}

impl Collection {
    /// Somebody else looks at this file first, and tells what came of it.
    pub fn add_expected(&mut self, path: PathBuf, group: usize, stamp: Option<Stamp>) {
        self.entries.insert(path, Entry::new(group, stamp, State::Busy));
    }

    /// A torrent is served from this file, or about to be.
    pub fn add_served(
        &mut self,
        path: PathBuf,
        group: usize,
        stamp: Option<Stamp>,
        info_hash: InfoHash,
        trackers: u64,
    ) {
        let state = if self.served.contains_key(&info_hash) { State::Double } else { State::Served };
        let entry = Entry { info_hash: Some(info_hash), trackers, ..Entry::new(group, stamp, state) };
        if state == State::Served {
            self.served.insert(info_hash, path.clone());
        }
        self.entries.insert(path, entry);
    }

    /// A torrent could not be served from this file; the user was told why.
    pub fn add_failed(
        &mut self,
        now: Instant,
        path: PathBuf,
        group: usize,
        stamp: Option<Stamp>,
        told: String,
    ) {
        let mut entry = Entry { failures: 1, told: Some(told), ..Entry::new(group, stamp, State::Busy) };
        let at = entry.retry_at(now);
        entry.state = State::Due(at);
        self.due.insert((at, path.clone()));
        self.entries.insert(path, entry);
    }

    /// The torrent files of a folder, all of them: what is new or changed is looked at, and what is gone is answered.
    pub fn handle_listing(
        &mut self,
        now: Instant,
        group: usize,
        files: &BTreeMap<PathBuf, Stamp>,
    ) -> Vec<Gone> {
        let of_group =
            self.entries.iter().filter(|(path, it)| it.group == group && !files.contains_key(*path));
        let missing: Vec<PathBuf> = of_group.map(|(path, _)| path.clone()).collect();
        let gone = missing.iter().filter_map(|path| self.remove(now, path)).collect();
        for (path, stamp) in files {
            match self.entries.get_mut(path) {
                Some(entry) if entry.stamp == Some(*stamp) => {}
                Some(entry) => {
                    entry.stamp = Some(*stamp);
                    (entry.failures, entry.refused) = (0, None);
                    self.look_soon(now, path);
                }
                None => {
                    self.entries.insert(path.clone(), Entry::new(group, Some(*stamp), State::Busy));
                    self.look_soon(now, path);
                }
            }
        }
        gone
    }

    /// The session serves a torrent no longer: its content has failed, or it had none that is right.
    pub fn handle_lost(&mut self, now: Instant, info_hash: InfoHash) {
        let Some(path) = self.served.remove(&info_hash) else { return };
        if let Some(entry) = self.entries.get_mut(&path) {
            entry.failures += 1;
            (entry.is_changed, entry.is_anew) = (false, false);
            // What the session tells of it is told; what the first looks find is the same in other words.
            entry.told = None;
            let at = entry.retry_at(now);
            self.look_at(at, &path);
        }
    }

    /// Files have come of a torrent that is served without them. Told again and again as long as it is so.
    pub fn handle_changed(&mut self, now: Instant, info_hash: InfoHash) {
        let Some(path) = self.served.get(&info_hash).cloned() else { return };
        let Some(entry) = self.entries.get_mut(&path).filter(|it| !it.is_changed && !it.is_anew) else {
            return;
        };
        entry.is_changed = true;
        // A look that is under way, or due, sees it.
        if entry.state == State::Served {
            self.look_soon(now, &path);
        }
    }

    /// A torrent that was checked while it was served is served anew.
    pub fn handle_renewed(&mut self, info_hash: InfoHash) {
        let Some(path) = self.served.get(&info_hash) else { return };
        if let Some(entry) = self.entries.get_mut(path).filter(|entry| entry.is_anew) {
            (entry.is_anew, entry.failures, entry.renewed) = (false, 0, entry.seen);
            if entry.state == State::Busy {
                entry.state = State::Served;
            }
        }
    }

    /// The user wants everything looked at again.
    pub fn handle_hangup(&mut self, now: Instant) {
        let again = |entry: &Entry| entry.stamp.is_none() || matches!(entry.state, State::Due(_));
        let paths: Vec<PathBuf> =
            self.entries.iter().filter(|(_, entry)| again(entry)).map(|(path, _)| path.clone()).collect();
        for path in paths {
            if let Some(entry) = self.entries.get_mut(&path) {
                (entry.failures, entry.checks, entry.refused) = (0, 0, None);
                self.look_soon(now, &path);
            }
        }
    }

    /// The next look that is due and may begin.
    pub fn poll_look(&mut self, now: Instant) -> Option<Look> {
        let looking = &self.looking;
        let may_begin = |path: &PathBuf| {
            let group = self.entries.get(path).map_or(0, |entry| entry.group);
            looking.get(&group).is_none_or(|&count| count < LOOKS_PER_GROUP_MAX)
        };
        let due = self.due.iter().take_while(|(at, _)| *at <= now).find(|(_, path)| may_begin(path));
        let (at, path) = due?.clone();
        self.due.remove(&(at, path.clone()));
        let entry = self.entries.get_mut(&path)?;
        self.tickets += 1;
        (entry.ticket, entry.state) = (self.tickets, State::Busy);
        *self.looking.entry(entry.group).or_default() += 1;
        let is_served = |hash: &InfoHash| self.served.get(hash) == Some(&path);
        let was_served = entry.info_hash.is_some_and(|hash| !is_served(&hash));
        Some(Look { path, ticket: entry.ticket, group: entry.group, was_served })
    }

    /// The file that a torrent is served from.
    pub fn served_from(&self, info_hash: InfoHash) -> Option<&Path> {
        self.served.get(&info_hash).map(PathBuf::as_path)
    }

    /// When the next look is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A look has found a torrent and its content. Also answers what it takes the place of.
    pub fn handle_found(&mut self, now: Instant, look: &Look, found: Found) -> (Verdict, Option<Gone>) {
        self.end_look(look);
        let path = &look.path;
        let Some(entry) = self.entries.get_mut(path).filter(|entry| entry.ticket == look.ticket) else {
            return (Verdict::Leave, None);
        };
        let before = entry.info_hash.filter(|hash| self.served.get(hash) == Some(path));
        if before == Some(found.info_hash) && entry.trackers == found.trackers {
            return (self.judge_changes(now, path, found), None);
        }
        let is_elsewhere = self.served.get(&found.info_hash).is_some_and(|other| other != path);
        if !is_elsewhere && found.needs_check {
            if entry.refused == Some(found.files) {
                // Nothing has changed since it was found to be no use.
                entry.failures += 1;
                let at = entry.retry_at(now);
                self.look_at(at, path);
                return (Verdict::Leave, None);
            }
            if let Err(at) = entry.is_at_rest(now, found.files) {
                self.look_at(at, path);
                return (Verdict::Leave, None);
            }
        }
        (entry.info_hash, entry.trackers) = (Some(found.info_hash), found.trackers);
        (entry.is_changed, entry.is_anew, entry.renewed) = (false, false, None);
        let gone = before.map(|info_hash| Gone { info_hash, is_replaced: true });
        entry.state = if is_elsewhere { State::Double } else { State::Served };
        let before_double = std::mem::replace(&mut entry.double_of, is_elsewhere.then_some(found.info_hash));
        if let Some(before) = before {
            self.free(now, before);
        }
        if is_elsewhere {
            let is_told = before_double == Some(found.info_hash);
            return (if is_told { Verdict::Leave } else { Verdict::Double }, gone);
        }
        self.served.insert(found.info_hash, path.clone());
        (if found.needs_check { Verdict::Check } else { Verdict::Serve }, gone)
    }

    /// What becomes of a torrent that is served and has been found again.
    fn judge_changes(&mut self, now: Instant, path: &Path, found: Found) -> Verdict {
        let Some(entry) = self.entries.get_mut(path) else { return Verdict::Leave };
        if !entry.is_changed || !found.needs_check || entry.renewed == Some(found.files) {
            entry.is_changed = false;
            entry.state = if entry.is_anew { State::Busy } else { State::Served };
            return Verdict::Leave;
        }
        let at = if entry.refused == Some(found.files) {
            entry.failures += 1;
            Err(entry.retry_at(now))
        } else {
            entry.is_at_rest(now, found.files)
        };
        match at {
            Err(at) => {
                self.look_at(at, path);
                Verdict::Leave
            }
            Ok(()) => {
                (entry.is_changed, entry.is_anew, entry.state) = (false, true, State::Busy);
                Verdict::CheckAnew
            }
        }
    }

    /// A look has found no torrent, or no content. Answers whether the user is to be told so.
    pub fn handle_not_found(&mut self, now: Instant, look: &Look, why: &str) -> bool {
        self.end_look(look);
        let Some(entry) = self.entries.get_mut(&look.path).filter(|entry| entry.ticket == look.ticket) else {
            return false;
        };
        if let Some(info_hash) = entry.info_hash.filter(|hash| self.served.get(hash) == Some(&look.path)) {
            // What is served is served on: a torrent file that cannot be read now is no torrent that is gone.
            tracing::debug!(%info_hash, %why, "its torrent file cannot be read now");
            entry.state = if entry.is_anew { State::Busy } else { State::Served };
            if entry.is_changed {
                entry.failures += 1;
                let at = entry.retry_at(now);
                self.look_at(at, &look.path);
            }
            return false;
        }
        // A file that has just come may not have been written to its end: it is told when it stays so. What was lost has been
        // told by the session.
        let is_new = entry.info_hash.is_none() && entry.failures > 0;
        let is_told = is_new && entry.told.as_deref() != Some(why);
        if is_told {
            entry.told = Some(why.to_owned());
        }
        entry.failures += 1;
        let at = entry.retry_at(now);
        self.look_at(at, &look.path);
        is_told
    }

    /// What was to be checked, or served, has not become a torrent that is served.
    /// Its files were `files` then; as they were found when `None`.
    pub fn handle_refused(&mut self, now: Instant, info_hash: InfoHash, files: Option<u64>) {
        let Some(path) = self.served.get(&info_hash).cloned() else { return };
        if let Some(entry) = self.entries.get_mut(&path) {
            entry.refused = files.or(entry.seen);
            if std::mem::take(&mut entry.is_anew) {
                // It is served on as it was.
                entry.is_changed = true;
                entry.failures += 1;
                let at = entry.retry_at(now);
                return self.look_at(at, &path);
            }
        }
        self.handle_lost(now, info_hash);
    }

    /// What is served from a file that is gone, or from none.
    fn remove(&mut self, now: Instant, path: &Path) -> Option<Gone> {
        let entry = self.entries.remove(path)?;
        if let State::Due(at) = entry.state {
            self.due.remove(&(at, path.to_owned()));
        }
        let info_hash = entry.info_hash.filter(|hash| self.served.get(hash).is_some_and(|of| of == path))?;
        let is_replaced = self.free(now, info_hash);
        Some(Gone { info_hash, is_replaced })
    }

    /// A torrent is served from its file no longer: another file that has it may take its place.
    fn free(&mut self, now: Instant, info_hash: InfoHash) -> bool {
        self.served.remove(&info_hash);
        let is_double = |entry: &Entry| entry.state == State::Double && entry.info_hash == Some(info_hash);
        let double = self.entries.iter().find(|(_, entry)| is_double(entry)).map(|(path, _)| path.clone());
        if let Some(double) = &double {
            self.look_soon(now, double);
        }
        double.is_some()
    }

    fn look_soon(&mut self, now: Instant, path: &Path) {
        self.look_at(now, path);
    }

    fn look_at(&mut self, at: Instant, path: &Path) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        if let State::Due(before) = entry.state {
            self.due.remove(&(before, path.to_owned()));
        }
        // What is under way says nothing any more.
        entry.ticket = 0;
        entry.state = State::Due(at);
        self.due.insert((at, path.to_owned()));
    }

    fn end_look(&mut self, look: &Look) {
        if let Some(count) = self.looking.get_mut(&look.group) {
            *count -= 1;
            if *count == 0 {
                self.looking.remove(&look.group);
            }
        }
    }
}

#[cfg(test)]
mod tests;
