//! An HTTP tracker that only listens: it writes down every announce, answers with no peers, or not at all.

use crate::isolation::address;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Bytes of a request that are kept; announces have some hundred.
const REQUEST_LEN_MAX: usize = 16 * 1024;

/// What the tracker does with an announce after it has written it down.
#[derive(Clone, Copy)]
pub enum Answer {
    /// An interval of half an hour and no peers.
    NoPeers,
    /// Nothing: the connection stays open in silence.
    Silence,
}

/// The running tracker. Dropping it ends its thread.
pub struct ScriptedTracker {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ScriptedTracker {
    /// Starts one on a free port.
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind((address(1), 0)).expect("an empty namespace has free ports");
        let address = listener.local_addr().expect("a listener has an address");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (heard, over) = (heard.clone(), over.clone());
            move || serve(&listener, answer, &heard, &over)
        });
        Self { address, heard, over, thread: Some(thread) }
    }

    /// Where to announce to.
    pub fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// The value of `event` in each announce so far, in order; empty for the regular ones.
    pub fn events(&self) -> Vec<String> {
        self.values("event")
    }

    /// The value of one parameter in each announce so far, in order; empty where it is missing.
    pub fn values(&self, name: &str) -> Vec<String> {
        let heard = self.heard.lock().expect("the tracker's thread does not panic");
        heard.iter().map(|query| value(query, name).to_owned()).collect()
    }
}

impl Drop for ScriptedTracker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread from its accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, answer: Answer, heard: &Mutex<Vec<String>>, over: &AtomicBool) {
    let mut silent = Vec::new();
    for stream in listener.incoming() {
        if over.load(Ordering::Acquire) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        let Some(query) = read_query(&mut stream) else { continue };
        heard.lock().expect("the readers do not panic").push(query);
        match answer {
            Answer::NoPeers => {
                let body = "d8:completei1e10:incompletei0e8:intervali1800e5:peers0:e";
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                // A client that went away has what it wanted.
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
            Answer::Silence => silent.push(stream),
        }
    }
}

/// What stands behind the question mark of the request line.
fn read_query(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = stream.read(&mut buffer).ok()?;
        if read == 0 || request.len() > REQUEST_LEN_MAX {
            return None;
        }
        request.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8(request).ok()?;
    let target = text.split(' ').nth(1)?;
    Some(target.split_once('?')?.1.to_owned())
}

fn value<'a>(query: &'a str, name: &str) -> &'a str {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map_or("", |(_, value)| value)
}
