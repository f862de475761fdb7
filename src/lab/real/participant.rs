//! A process of a real run: what it prints becomes news, and it ends with its owner, even when that is killed.
#![expect(
    unsafe_code,
    reason = "a child asks the kernel for a signal at its parent's end before it becomes its program"
)]

use super::RealError;
use crate::clock;
use crate::time::{Duration, Instant};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;

/// Lines of a program's last words that are told.
const LAST_WORDS: usize = 3;
/// Bytes of one line that are looked at; Seedring's figures have some ten thousand.
const LINE_LEN_MAX: usize = 1 << 20;

/// What a participant says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is there.
    Ready,
    /// It has everything.
    Complete,
    /// Bytes of payload that it gave so far.
    Given(u64),
    /// It will not take part, and why.
    Refused(String),
    /// It will say no more.
    Ended,
}

/// A word, by whom and when.
#[derive(Clone, Debug)]
pub struct News {
    /// 0 is the seed.
    pub number: u32,
    /// When it was heard.
    pub at: Instant,
    /// What.
    pub word: Word,
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Participant {
    child: Child,
    log: PathBuf,
}

impl Participant {
    /// Starts `command`, whose complaints go to a log in `home`. Each line that it prints goes through `understand`.
    pub fn start(
        mut command: Command,
        number: u32,
        home: &Path,
        news: Sender<News>,
        mut understand: impl FnMut(&str) -> Option<Word> + Send + 'static,
    ) -> Result<Self, RealError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |reason| RealError::Start { program, reason };
        let log = home.join("complaints.log");
        let file = File::create(&log).map_err(|reason| RealError::Folder { path: log.clone(), reason })?;
        // A group of its own: a terminal's Ctrl-C is for its owner, who then ends it.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).process_group(0);
        die_with_the_owner(&mut command);
        let mut child = command.spawn().map_err(failed)?;
        let Some(printed) = child.stdout.take() else { return Ok(Self { child, log }) };
        let this = Self { child, log };
        let listen = move || {
            let tell = |word| news.send(News { number, at: clock::now(), word }).is_ok();
            let mut reader = BufReader::new(printed);
            let mut line = Vec::new();
            loop {
                line.clear();
                match std::io::Read::take(&mut reader, LINE_LEN_MAX as u64).read_until(b'\n', &mut line) {
                    Ok(1..) => {}
                    _ => break,
                }
                if let Some(word) = understand(&String::from_utf8_lossy(&line))
                    && !tell(word)
                {
                    // Nobody listens any more; the program must not wait for a reader all the same.
                    let _ = std::io::copy(&mut reader, &mut std::io::sink());
                    return;
                }
            }
            tell(Word::Ended);
        };
        // The thread ends with the program, whose end of the pipe is closed then.
        let thread = std::thread::Builder::new().name(format!("participant {number}")).spawn(listen);
        thread.map_err(|reason| RealError::Start { program: "a thread".into(), reason })?;
        Ok(this)
    }

    /// CPU time that it has used, user and system, in all its threads; `None` when it cannot be told.
    pub fn cpu_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        let ticks = rustix::param::clock_ticks_per_second();
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut next = || fields.next()?.parse::<u64>().ok();
        Some(Duration::from_secs_f64((next()? + next()?) as f64 / ticks.max(1) as f64))
    }

    /// How it ended and its last complaints, on one line.
    pub fn last_words(&mut self) -> String {
        let ended = self.child.try_wait().ok().flatten();
        let status = ended.map_or("it said no more".to_owned(), |status| format!("it ended ({status})"));
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("; ");
        if last.is_empty() { status } else { format!("{status}: {last}") }
    }

    /// Asks it to end by itself.
    pub fn ask_to_end(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // Fails only when it has ended already.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }

    /// Waits until it has ended, for so long at most.
    pub fn wait_for_end(&self, patience: Duration) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // Where that cannot be waited for, it is killed at once.
        let Ok(ending) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            return;
        };
        let mut wait = [rustix::event::PollFd::new(&ending, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut wait, rustix::event::Timespec::try_from(patience).ok().as_ref());
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        // Fails only when it has ended already, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the kernel kill the child when the thread that starts it ends, as it does when its process is killed.
fn die_with_the_owner(command: &mut Command) {
    let ask = || {
        let asked = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        asked.map_err(std::io::Error::from)
    };
    // SAFETY: between fork and exec the closure makes one system call, prctl(2): no allocation, no lock.
    unsafe { command.pre_exec(ask) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn shell(script: &str, home: &Path, news: Sender<News>) -> Participant {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let understand = |line: &str| line.trim().parse().ok().map(Word::Given);
        Participant::start(command, 3, home, news, understand).unwrap()
    }

    #[test]
    fn what_it_prints_is_news_and_its_last_words_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let (sender, news) = channel();
        let mut process = shell("echo 5; echo what; echo 6; echo alas >&2; exit 3", home.path(), sender);
        let words: Vec<Word> = news.iter().map(|news| news.word).collect();
        assert_eq!(words, [Word::Given(5), Word::Given(6), Word::Ended]);
        let last = process.last_words();
        assert!(last.contains("alas"), "{last}");
    }

    #[test]
    fn it_ends_with_its_owner() {
        let home = tempfile::tempdir().unwrap();
        let (sender, news) = channel();
        let process = shell("echo 1; exec sleep 1000", home.path(), sender);
        assert_eq!(news.recv().unwrap().word, Word::Given(1));
        assert!(process.cpu_time().is_some());
        drop(process);
        assert_eq!(news.recv().unwrap().word, Word::Ended);
    }

    #[test]
    fn it_ends_by_itself_when_asked_to() {
        let home = tempfile::tempdir().unwrap();
        let (sender, news) = channel();
        let process = shell("echo 1; exec sleep 1000", home.path(), sender);
        assert_eq!(news.recv().unwrap().word, Word::Given(1));
        process.ask_to_end();
        process.wait_for_end(Duration::from_secs(60));
        assert_eq!(news.recv().unwrap().word, Word::Ended);
    }
}
