//! Range requests over kept-alive HTTP connections, to load a web server as `seedring bench` loads a seeder: the same
//! file, the same bytes in flight, one thread. Every answer must be 206 of the length that was asked for; a server that
//! answers anything else ends the run. No redirects, no chunks, no TLS.

use crate::{Outcome, pin};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use seedring::clock;
use seedring::rng::Rng;
use seedring::time::{Duration, Instant};
use seedring::units::ByteSize;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};

const RECEIVE_LEN: usize = 256 * 1024;
/// An answer's header that is longer than this comes from no server that this is for.
const HEADER_LEN_MAX: usize = 4096;

#[derive(Debug, clap::Args)]
pub struct Http {
    /// Where the server listens
    server: SocketAddr,
    /// The path of the file there
    path: String,
    /// Bytes of the file
    #[arg(long)]
    bytes: ByteSize,
    /// Bytes of one request
    #[arg(long, default_value = "256KiB")]
    range: ByteSize,
    /// Connections
    #[arg(long, default_value_t = 10)]
    connections: usize,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 2)]
    depth: usize,
    /// Seconds to run
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Core to run on
    #[arg(long)]
    pin: Option<usize>,
}

struct Connection {
    socket: TcpStream,
    /// When the requests in flight were sent, oldest first.
    asked: VecDeque<Instant>,
    /// The answer's header as far as it has come.
    header: Vec<u8>,
    /// Bytes of the body that are still to come; none while the header is read.
    body_left: Option<u64>,
    bytes: u64,
}

/// Asks until the time is over; prints one line of JSON with what came.
pub fn run(http: &Http) -> Outcome<()> {
    pin(http.pin)?;
    let ranges = http.bytes.0 / http.range.0;
    if ranges == 0 || http.range.0 == 0 || http.depth == 0 {
        return Err("the file holds no range".into());
    }
    let mut rng = Rng::from_seed(1);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections = Vec::new();
    for index in 0..http.connections {
        let socket = TcpStream::connect(http.server)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        epoll::add(&poll, &socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        connections.push(Connection {
            socket,
            asked: VecDeque::new(),
            header: Vec::new(),
            body_left: None,
            bytes: 0,
        });
    }
    let (started, cpu_before) = (clock::now(), clock::process_cpu_time());
    let until = started + Duration::from_secs_f64(http.seconds);
    for connection in &mut connections {
        for _ in 0..http.depth {
            connection.ask(http, &mut rng, ranges)?;
        }
    }
    let mut received = vec![0; RECEIVE_LEN];
    let mut latencies = Vec::new();
    let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
    while clock::now() < until {
        events.clear();
        let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&patience)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let connection = &mut connections[event.data.u64() as usize];
            let answered = latencies.len();
            connection.receive(http, &mut received, &mut latencies)?;
            for _ in answered..latencies.len() {
                connection.ask(http, &mut rng, ranges)?;
            }
        }
    }
    let seconds = clock::now().since(started).as_secs_f64();
    let cpu = clock::process_cpu_time().saturating_sub(cpu_before).as_secs_f64();
    print_report(&connections, latencies, seconds, cpu);
    Ok(())
}

impl Connection {
    /// Asks for a range at random.
    fn ask(&mut self, http: &Http, rng: &mut Rng, ranges: u64) -> Outcome<()> {
        let first = rng.below(ranges) * http.range.0;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nRange: bytes={first}-{}\r\n\r\n",
            http.path,
            http.server,
            first + http.range.0 - 1
        );
        let sent = rustix::net::send(&self.socket, request.as_bytes(), SendFlags::NOSIGNAL)?;
        if sent < request.len() {
            return Err("the server does not read requests".into());
        }
        self.asked.push_back(clock::now());
        Ok(())
    }

    /// Takes what has come; adds the time of every answer that is complete with it.
    fn receive(&mut self, http: &Http, received: &mut [u8], latencies: &mut Vec<Duration>) -> Outcome<()> {
        let len = match rustix::net::recv(&self.socket, &mut *received, RecvFlags::empty()) {
            Ok((_, 0)) => return Err("the server has closed a connection".into()),
            Ok((len, _)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut input = &received[..len];
        while !input.is_empty() {
            let Some(left) = self.body_left else {
                input = self.read_header(http, input)?;
                continue;
            };
            let here = left.min(input.len() as u64);
            input = &input[here as usize..];
            self.bytes += here;
            self.body_left = Some(left - here).filter(|&left| left > 0);
            if self.body_left.is_none() {
                let asked = self.asked.pop_front().ok_or("an answer that nobody asked for")?;
                latencies.push(clock::now().since(asked));
            }
        }
        Ok(())
    }

    /// Takes a header's bytes; what is left of the input once it is complete.
    fn read_header<'a>(&mut self, http: &Http, input: &'a [u8]) -> Outcome<&'a [u8]> {
        let before = self.header.len();
        self.header.extend_from_slice(&input[..input.len().min(HEADER_LEN_MAX)]);
        let Some(end) = self.header.windows(4).position(|four| four == b"\r\n\r\n") else {
            if self.header.len() >= HEADER_LEN_MAX {
                return Err("a header without end".into());
            }
            return Ok(&[]);
        };
        let text = std::str::from_utf8(&self.header[..end])?.to_ascii_lowercase();
        let expected = format!("content-length: {}", http.range.0);
        if !text.starts_with("http/1.1 206") || !text.lines().any(|line| line == expected) {
            return Err(format!("not the range that was asked for: {text}").into());
        }
        self.header.clear();
        self.body_left = Some(http.range.0);
        Ok(&input[end + 4 - before..])
    }
}

/// As `seedring bench --json`, as far as there is anything to say.
fn print_report(connections: &[Connection], mut latencies: Vec<Duration>, seconds: f64, cpu: f64) {
    latencies.sort_unstable();
    let percentile = |share: f64| {
        let at = ((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    };
    let bytes: u64 = connections.iter().map(|connection| connection.bytes).sum();
    let served = connections.iter().filter(|connection| connection.bytes > 0).count();
    let squares: f64 = connections.iter().map(|connection| (connection.bytes as f64).powi(2)).sum();
    let jain = (bytes as f64).powi(2) / (connections.len() as f64 * squares).max(f64::MIN_POSITIVE);
    let gibibytes = bytes as f64 / f64::from(1 << 30);
    println!(
        "{{\"bytes\": {bytes}, \"bytes_per_second\": {:.0}, \"own_cpu_seconds_per_gib\": {:.6}, \
         \"latency\": {{\"p50_us\": {:.1}, \"p99_us\": {:.1}, \"p999_us\": {:.1}}}, \
         \"per_connection\": {{\"jain\": {jain:.6}}}, \"reached\": {{\"served\": {served}}}}}",
        bytes as f64 / seconds,
        cpu / gibibytes.max(f64::MIN_POSITIVE),
        percentile(0.5),
        percentile(0.99),
        percentile(0.999),
    );
}
