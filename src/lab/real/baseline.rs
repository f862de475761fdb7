//! The client-server answer, for real: an HTTP/1.1 server gives the file to N clients at once, each of which writes it to
//! a file of its own.
//!
//! The server is hyper on a loopback port. All its connections share one limit, the rate gate that Seedring itself limits
//! uploads with, burst included, and wait for it in turn, so that all get the same. A server of another make behind a
//! limit of the kernel's would need privileges and come to the same: what counts is N copies through one line.

use super::ground::{CONTENT_NAME, Ground};
use super::{Ending, RealError};
use crate::clock;
use crate::pipeline::{RateGate, burst_for};
use crate::time::{Duration, Instant};
use crate::units::{ByteRate, Counted};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinSet, LocalSet};

/// Bytes that a connection sends in its turn.
const TURN_LEN: u64 = 64 * 1024;
/// How often it is looked whether the user has had enough.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// When each client had everything, from the moment in which all began; `None` when it had not.
    pub completed: Vec<Option<Duration>>,
    /// Copies that were compared with the original and are the same.
    pub verified: usize,
    /// CPU time of server and clients.
    pub cpu: Duration,
}

/// Has a server that sends `server_up` give the content to clients that receive `downs`, `None` for no bound. `tell`
/// hears of every client that is done.
///
/// # Errors
/// When it cannot begin; what happens later is told by [`Outcome::ending`].
pub fn run(
    ground: &Ground,
    server_up: ByteRate,
    downs: &[Option<ByteRate>],
    patience: Duration,
    cancel: &AtomicBool,
    mut tell: impl FnMut(),
) -> Result<Outcome, RealError> {
    let folder = ground.home("http")?;
    let copies: Vec<PathBuf> =
        (1..=downs.len()).map(|number| folder.join(format!("{number}-{CONTENT_NAME}"))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(RealError::Server)?;
    let cpu_before = clock::process_cpu_time();
    let mut completed = vec![None; downs.len()];
    let work = async {
        let content = Arc::new(File::open(ground.content()).map_err(RealError::Server)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(RealError::Server)?;
        let address = listener.local_addr().map_err(RealError::Server)?;
        let serving = tokio::task::spawn_local(serve(listener, content, ground.size(), server_up));
        let mut clients = JoinSet::new();
        let began = clock::now();
        for (number, (&down, copy)) in downs.iter().zip(&copies).enumerate() {
            let (copy, size) = (copy.clone(), ground.size());
            clients.spawn_local(async move { (number, fetch(address, &copy, size, down).await) });
        }
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        let ending = loop {
            tokio::select! {
                done = clients.join_next() => match done {
                    None => break Ending::Complete,
                    Some(Ok((number, Ok(at)))) => {
                        completed[number] = Some(at.since(began));
                        tell();
                    }
                    Some(Ok((number, Err(error)))) => break Ending::Failed(format!("client {}: {error}", number + 1)),
                    Some(Err(error)) => break Ending::Failed(error.to_string()),
                },
                _ = looks.tick() => {
                    if cancel.load(Relaxed) {
                        break Ending::Stopped;
                    }
                    if clock::now().since(began) > patience {
                        break Ending::Late;
                    }
                }
            }
        };
        serving.abort();
        Ok::<_, RealError>(ending)
    };
    let mut ending = LocalSet::new().block_on(&runtime, work)?;
    let cpu = clock::process_cpu_time().saturating_sub(cpu_before);
    drop(runtime);
    let mut verified = 0;
    for (number, copy) in copies.iter().enumerate().filter(|&(number, _)| completed[number].is_some()) {
        match ground.compare(copy, cancel) {
            Ok(()) => verified += 1,
            Err(_) if cancel.load(Relaxed) => ending = Ending::Stopped,
            Err(why) => ending = Ending::Failed(format!("the copy of client {}: {why}", number + 1)),
        }
    }
    Ok(Outcome { ending, completed, verified, cpu })
}

/// Answers every request with the content, for ever.
async fn serve(listener: TcpListener, content: Arc<File>, size: u64, limit: ByteRate) {
    let line = Rc::new(Line::new(Some(limit)));
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (content, line) = (Arc::clone(&content), Rc::clone(&line));
        connections.spawn_local(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(|_: Request<Incoming>| {
                let (slices, receiver) = mpsc::channel(1);
                tokio::task::spawn_local(send(Arc::clone(&content), size, Rc::clone(&line), slices));
                async move { Ok::<_, Infallible>(Response::new(Slices { receiver, left: size })) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            // Who hangs up has what he wants or complains himself.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A limit that several share, one after the other.
struct Line {
    gate: RateGate,
    /// Held by whom the next bytes go to; those who wait for it stand in a queue.
    turn: Mutex<()>,
}

impl Line {
    fn new(limit: Option<ByteRate>) -> Self {
        Self { gate: RateGate::new(limit, burst_for(limit)), turn: Mutex::new(()) }
    }

    /// Ready when so many bytes may go.
    async fn take(&self, len: u32) {
        let _turn = self.turn.lock().await;
        loop {
            let now = clock::now();
            match self.gate.try_take(now, len) {
                Ok(()) => return,
                Err(later) => tokio::time::sleep(later.since(now)).await,
            }
        }
    }
}

/// Reads the content and hands it to a connection, as the line has room. An answer that is broken off is too short, which
/// its reader notices.
async fn send(content: Arc<File>, size: u64, line: Rc<Line>, slices: mpsc::Sender<Bytes>) {
    let mut at = 0;
    while at < size {
        let Ok(room) = slices.reserve().await else { return };
        let len = TURN_LEN.min(size - at);
        line.take(len as u32).await;
        let mut slice = vec![0; len as usize];
        if content.read_exact_at(&mut slice, at).is_err() {
            return;
        }
        room.send(slice.into());
        at += len;
    }
}

/// The body of an answer, as it comes.
struct Slices {
    receiver: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let slice = ready!(self.receiver.poll_recv(context));
        self.left -= slice.as_ref().map_or(0, |slice| slice.len() as u64);
        Poll::Ready(slice.map(|slice| Ok(Frame::data(slice))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Downloads the content into a file; when it was all there.
async fn fetch(
    address: SocketAddr,
    copy: &Path,
    size: u64,
    down: Option<ByteRate>,
) -> Result<Instant, Box<dyn std::error::Error>> {
    let mut file = File::create_new(copy)?;
    let line = Line::new(down);
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::task::spawn_local(connection);
    let request = Request::get(format!("/{CONTENT_NAME}")).header("Host", address.to_string());
    let mut answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    if !answer.status().is_success() {
        return Err(format!("the server answers {}", answer.status()).into());
    }
    let mut left = size;
    while let Some(frame) = answer.body_mut().frame().await {
        let Ok(bytes) = frame?.into_data() else { continue };
        line.take(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).await;
        file.write_all(&bytes)?;
        left = left.checked_sub(bytes.len() as u64).ok_or("the server sends too much")?;
    }
    let at = clock::now();
    driving.abort();
    if left == 0 { Ok(at) } else { Err(format!("{} did not come", Counted(left, "byte")).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_the_file_at_the_pace_of_the_line() {
        let below = tempfile::tempdir().unwrap();
        let go_on = AtomicBool::new(false);
        let ground = Ground::new(below.path(), 300_001, 1, &go_on).unwrap().unwrap();
        let rate = ByteRate(2_000_000);
        let mut told = 0;
        let patience = Duration::from_secs(60);
        let outcome = run(&ground, rate, &[None; 3], patience, &go_on, || told += 1).unwrap();
        assert_eq!((outcome.ending, outcome.verified), (Ending::Complete, 3));
        assert_eq!(told, 3);
        // The burst comes on top of the rate.
        let least = Duration::from_secs_f64((3.0 * 300_001.0 - burst_for(Some(rate)) as f64) / 2e6);
        assert!(outcome.completed.iter().flatten().max().unwrap() >= &least);
    }

    #[test]
    fn it_can_be_stopped_and_time_can_be_up() {
        let below = tempfile::tempdir().unwrap();
        let go_on = AtomicBool::new(false);
        let ground = Ground::new(below.path(), 3_000_000, 1, &go_on).unwrap().unwrap();
        let slow = |ground: &Ground, patience, cancel| {
            run(ground, ByteRate(1000), &[None, Some(ByteRate(1))], patience, cancel, || {}).unwrap()
        };
        assert_eq!(slow(&ground, Duration::ZERO, &go_on).ending, Ending::Late);
        drop(ground);
        let ground = Ground::new(below.path(), 3_000_000, 1, &go_on).unwrap().unwrap();
        let outcome = slow(&ground, Duration::from_secs(60), &AtomicBool::new(true));
        assert_eq!((outcome.ending, outcome.completed), (Ending::Stopped, vec![None, None]));
    }
}
