//! Transmission's RPC: JSON over HTTP/1.0, one request a connection, with a session id that its first answer tells.

use super::participant::Word;
use crate::time::Duration;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

/// Longest silence of a daemon on this machine.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER_LEN_MAX: u64 = 1 << 20;

/// One daemon with one torrent.
#[derive(Debug)]
pub struct Control {
    address: SocketAddr,
    session: String,
    /// The torrent, until the daemon has taken it.
    torrent: Option<PathBuf>,
    complete: bool,
}

impl Control {
    pub fn new(address: SocketAddr, torrent: PathBuf) -> Self {
        Self { address, session: String::new(), torrent: Some(torrent), complete: false }
    }

    /// Asks how far it is: what it has given so far, and once that it has everything.
    pub fn ask(&mut self) -> Vec<Word> {
        if let Some(torrent) = &self.torrent {
            let arguments = json!({ "filename": torrent });
            match self.call("torrent-add", &arguments) {
                None => return Vec::new(),
                Some(Err(why)) => return vec![Word::Refused(format!("it does not take the torrent: {why}"))],
                Some(Ok(_)) => self.torrent = None,
            }
        }
        let fields = json!({ "fields": ["percentDone", "leftUntilDone", "status", "uploadedEver"] });
        let Some(Ok(answer)) = self.call("torrent-get", &fields) else { return Vec::new() };
        let torrent = &answer["torrents"][0];
        let mut words: Vec<Word> = torrent["uploadedEver"].as_u64().map(Word::Given).into_iter().collect();
        // 6: it seeds. While it checks what it has, nothing may be left although nothing has been looked at.
        let complete = torrent["leftUntilDone"] == 0
            && torrent["percentDone"].as_f64() == Some(1.0)
            && torrent["status"] == 6;
        if complete && !std::mem::replace(&mut self.complete, true) {
            words.push(Word::Complete);
        }
        words
    }

    /// One call, and why the daemon did not do it; `None` until it is up and has told its session.
    fn call(&mut self, method: &str, arguments: &Value) -> Option<Result<Value, String>> {
        let body = json!({ "method": method, "arguments": arguments }).to_string();
        let answer = self.post(&body).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let session = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("X-Transmission-Session-Id").then(|| value.trim().to_owned())
        });
        if let Some(session) = session {
            self.session = session;
        }
        let mut json: Value = serde_json::from_str(body).ok()?;
        Some(match json["result"].as_str()? {
            "success" => Ok(json["arguments"].take()),
            why => Err(why.to_owned()),
        })
    }

    fn post(&self, body: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let head = format!(
            "POST /transmission/rpc HTTP/1.0\r\nHost: {}\r\nX-Transmission-Session-Id: {}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            self.session,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_LEN_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
