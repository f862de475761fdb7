//! What is printed leaves on threads of its own: whoever prints never waits for whoever reads.
//!
//! Stdout and stderr have a queue each, bounded in bytes, and one thread that writes; where both are terminals they share
//! one, so that what is drawn and what is printed keep their order. What finds a queue full is left out and counted, and
//! the count is printed in its place as soon as there is room. A reader of stdout that has gone is an end ([`reader_gone`]),
//! of stderr it is none. At the end of the process [`finish`] waits for what is queued as long as it moves, and no longer.
//!
//! Short commands, whose result is all that they do, write it directly; whoever pipes them into something slow waits.

use crate::clock;
use crate::limits::{OUTPUT_FINISH_TIMEOUT, OUTPUT_QUEUE_LEN_MAX, OUTPUT_STALL_TIMEOUT};
use crate::time::Duration;
use crate::units::Counted;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;

/// Time between two looks whether the reader of stdout has gone while there is nothing to write.
const GONE_INTERVAL: Duration = Duration::from_millis(500);

static ERR: LazyLock<Channel> = LazyLock::new(|| Channel::start("stderr", descriptor_writer));
static OUT: LazyLock<Channel> = LazyLock::new(|| {
    let shared = io::stdout().is_terminal() && io::stderr().is_terminal();
    if shared { ERR.clone() } else { Channel::start("stdout", descriptor_writer) }
});
static JSON: AtomicBool = AtomicBool::new(false);
static GONE: AtomicBool = AtomicBool::new(false);
static GONE_NEWS: Notify = Notify::const_new();
/// Why stdout takes nothing any more, other than that its reader has gone.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// One of the process's two ways out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

/// From now on lines on stdout are JSON, what is said of those left out included.
pub(super) fn begin_json() {
    JSON.store(true, Relaxed);
}

/// Prints on stdout; `text` brings its line's end.
pub(super) fn out(text: impl Into<String>) {
    OUT.push(Stream::Out, text.into(), true);
}

/// Prints a line on stderr.
pub(super) fn err(line: impl fmt::Display) {
    ERR.push(Stream::Err, format!("{line}\n"), true);
}

/// Prints on stderr what is no loss when it is left out: a bar that is drawn anew all the time.
pub(super) fn draw(text: String) {
    ERR.push(Stream::Err, text, false);
}

/// Waits for what is on its way to stderr, a moment at most: what is written directly would overtake it.
pub(super) fn settle() {
    ERR.wait_until_written(OUTPUT_STALL_TIMEOUT, OUTPUT_STALL_TIMEOUT);
}

/// Ready when nobody reads stdout any more.
async fn reader_gone() {
    loop {
        // Made before the look, so that no news falls between the two.
        let news = GONE_NEWS.notified();
        if GONE.load(Relaxed) {
            return;
        }
        news.await;
    }
}

/// Ready when `signal` is, or when nobody reads stdout any more.
pub(super) async fn asked_to_end(signal: impl Future<Output = ()>) {
    tokio::select! {
        () = signal => {}
        // The reader has heard enough.
        () = reader_gone() => {}
    }
}

/// Waits for what is queued as long as it moves, some seconds at most; nothing may be printed afterwards.
///
/// # Errors
/// Stdout could not be written to, for another reason than that its reader has gone.
pub(super) fn finish() -> io::Result<()> {
    for channel in [&OUT, &ERR] {
        channel.wait_until_written(OUTPUT_STALL_TIMEOUT, OUTPUT_FINISH_TIMEOUT);
    }
    match FAILED.get() {
        Some(error) => Err(io::Error::new(error.kind(), format!("cannot write to stdout: {error}"))),
        None => Ok(()),
    }
}

/// Writes to the stream's descriptor. Not through the library's handles, whose locks others would wait for.
fn descriptor_writer(stream: Stream, bytes: &[u8]) {
    let (out, err) = (io::stdout(), io::stderr());
    let descriptor = match stream {
        Stream::Out => std::os::fd::AsFd::as_fd(&out),
        Stream::Err => std::os::fd::AsFd::as_fd(&err),
    };
    if stream == Stream::Out && (GONE.load(Relaxed) || FAILED.get().is_some()) {
        return;
    }
    if bytes.is_empty() {
        if stream == Stream::Out && has_no_reader(descriptor) {
            note_gone();
        }
        return;
    }
    let Err(error) = write_all(descriptor, bytes) else { return };
    match (stream, error.kind()) {
        (Stream::Out, io::ErrorKind::BrokenPipe) => note_gone(),
        (Stream::Out, _) => _ = FAILED.set(error),
        // There is nowhere left to say it.
        (Stream::Err, _) => {}
    }
}

fn note_gone() {
    GONE.store(true, Relaxed);
    GONE_NEWS.notify_waiters();
}

fn write_all(descriptor: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    while !bytes.is_empty() {
        match rustix::io::write(descriptor, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            // Somebody who shares it has made it so that writing does not wait.
            Err(rustix::io::Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether it is a pipe or socket that nobody reads any more.
fn has_no_reader(descriptor: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut asked = [PollFd::from_borrowed_fd(descriptor, PollFlags::empty())];
    poll(&mut asked, Some(&now)).is_ok() && asked[0].revents().contains(PollFlags::ERR)
}

/// Writes bytes to a stream, or looks whether anybody reads it when there are none.
type Write = dyn Fn(Stream, &[u8]) + Send + Sync;

/// A queue and the thread that empties it.
#[derive(Clone)]
struct Channel(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    write: Box<Write>,
    /// No thread could be started: whoever prints writes.
    direct: bool,
}

#[derive(Default)]
struct Queue {
    texts: VecDeque<(Stream, String)>,
    /// Bytes in `texts`.
    len: usize,
    /// Left out since the last one that found room, by stream.
    left_out: [u64; 2],
    /// The thread is writing.
    writing: bool,
    /// Texts written so far.
    written: u64,
}

impl Channel {
    fn start(name: &str, write: impl Fn(Stream, &[u8]) + Send + Sync + 'static) -> Self {
        let shared = |write: Box<Write>, direct| {
            Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), write, direct })
        };
        let channel = Self(shared(Box::new(write), false));
        let writer = Arc::clone(&channel.0);
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || writer.write_on());
        if started.is_err() {
            return Self(shared(Box::new(descriptor_writer), true));
        }
        channel
    }

    /// Queues a text, or counts it when there is no room and it `counts`.
    fn push(&self, stream: Stream, text: String, counts: bool) {
        if self.0.direct {
            return (self.0.write)(stream, text.as_bytes());
        }
        let mut queue = self.0.lock();
        if queue.len > 0 && queue.len + text.len() > OUTPUT_QUEUE_LEN_MAX {
            queue.left_out[stream as usize] += u64::from(counts);
            return;
        }
        queue.say_what_was_left_out();
        queue.len += text.len();
        queue.texts.push_back((stream, text));
        self.0.changed.notify_all();
    }

    /// Waits until all is written; gives up when nothing was for `stall`, or after `most`.
    fn wait_until_written(&self, stall: Duration, most: Duration) {
        let mut queue = self.0.lock();
        let end = clock::now() + most;
        let (mut written, mut moved_at) = (queue.written, clock::now());
        while queue.writing || !queue.texts.is_empty() || queue.left_out != [0, 0] {
            let now = clock::now();
            if queue.written != written {
                (written, moved_at) = (queue.written, now);
            }
            let patience = (moved_at + stall).min(end).since(now);
            if patience.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(queue, patience);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_on(&self) {
        loop {
            let mut queue = self.lock();
            while queue.texts.is_empty() {
                queue.say_what_was_left_out();
                if queue.texts.is_empty() {
                    let (back, waited) = self
                        .changed
                        .wait_timeout(queue, GONE_INTERVAL)
                        .unwrap_or_else(PoisonError::into_inner);
                    queue = back;
                    if waited.timed_out() && queue.texts.is_empty() {
                        drop(queue);
                        // Nothing to write, but perhaps nobody to write to.
                        (self.write)(Stream::Out, &[]);
                        queue = self.lock();
                    }
                }
            }
            let Some((stream, text)) = queue.texts.pop_front() else { continue };
            queue.len -= text.len();
            queue.writing = true;
            drop(queue);
            (self.write)(stream, text.as_bytes());
            let mut queue = self.lock();
            queue.writing = false;
            queue.written += 1;
            self.changed.notify_all();
        }
    }
}

impl Queue {
    fn say_what_was_left_out(&mut self) {
        for stream in [Stream::Out, Stream::Err] {
            let count = std::mem::take(&mut self.left_out[stream as usize]);
            if count > 0 {
                let text = match stream {
                    Stream::Out if JSON.load(Relaxed) => {
                        format!("{{\"event\":\"left_out\",\"lines\":{count}}}\n")
                    }
                    _ => {
                        format!(
                            "seedring: left out here: {}, which nobody read in time\n",
                            Counted(count, "line")
                        )
                    }
                };
                self.len += text.len();
                self.texts.push_back((stream, text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A channel whose writer takes one text for each word that it is given.
    fn held() -> (Channel, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let (go, wait) = mpsc::channel::<()>();
        let (told, hear) = mpsc::channel();
        let wait = Mutex::new(wait);
        let write = move |_: Stream, bytes: &[u8]| {
            if !bytes.is_empty() {
                // When the test is over it lets go of all.
                let _ = wait.lock().map(|wait| wait.recv());
                let _ = told.send(String::from_utf8_lossy(bytes).into_owned());
            }
        };
        (Channel::start("held", write), go, hear)
    }

    #[test]
    fn what_finds_no_room_is_counted_and_said_in_its_place() {
        let (channel, go, hear) = held();
        let text = |number: usize| format!("{number:0>1000}");
        let most = OUTPUT_QUEUE_LEN_MAX / 1000;
        for number in 0..most + 500 {
            channel.push(Stream::Out, text(number), true);
        }
        channel.push(Stream::Out, text(0), false);
        let lost = channel.0.lock().left_out[0];
        // The writer has taken one, or none yet.
        assert!((499..=500).contains(&lost), "{lost}");
        channel.wait_until_written(Duration::from_millis(1), Duration::from_millis(2));
        (0..most + 3).for_each(|_| go.send(()).expect("the writer lives"));
        let heard: Vec<String> = (0..=most + 500 - lost as usize).map(|_| hear.recv().unwrap()).collect();
        let (notice, texts) = heard.split_last().unwrap();
        assert_eq!(texts, (0..most + 500 - lost as usize).map(text).collect::<Vec<_>>());
        assert_eq!(
            *notice,
            format!("seedring: left out here: {}, which nobody read in time\n", Counted(lost, "line"))
        );
        channel.push(Stream::Err, "behind it".to_owned(), true);
        go.send(()).expect("the writer lives");
        assert_eq!(hear.recv().unwrap(), "behind it");
        channel.wait_until_written(Duration::from_secs(60), Duration::from_secs(60));
        assert_eq!(channel.0.lock().len, 0);
    }

    #[test]
    fn a_text_longer_than_the_queue_is_printed_when_nothing_waits() {
        let (channel, go, hear) = held();
        channel.push(Stream::Out, "x".repeat(OUTPUT_QUEUE_LEN_MAX + 1), true);
        go.send(()).expect("the writer lives");
        assert_eq!(hear.recv().unwrap().len(), OUTPUT_QUEUE_LEN_MAX + 1);
    }
}
