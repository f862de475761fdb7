//! The trackers that the tests play, and what all tests ask them.

use seedring::id::{InfoHash, PeerId};
use seedring::time::Duration;
use seedring::tracker_client::{ClientConfig, TrackerClient, TrackerError};
use seedring::tracker_wire::udp::{
    ConnectionId, Request, encode_announce_response, encode_connect_response, url_data,
};
use seedring::tracker_wire::{AddressFamily, AnnounceEvent, AnnounceRequest, AnnounceResponse};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

pub const V4: AddressFamily = AddressFamily::V4;
pub const V6: AddressFamily = AddressFamily::V6;
pub const GOOD: &[u8] = b"d8:intervali900e5:peers6:\x01\x02\x03\x04\x1a\xe1e";
pub const PASSKEY: &str = "0123456789abcdef0123456789abcdef";

pub fn request(event: AnnounceEvent) -> AnnounceRequest {
    AnnounceRequest {
        info_hash: InfoHash([7; 20]),
        peer_id: PeerId(*b"-SR0100-abcdefghijkl"),
        port: 6881,
        uploaded: 1,
        downloaded: 2,
        left: 3,
        event,
        key: 4,
        num_want: None,
    }
}

pub async fn announce(
    client: &TrackerClient,
    url: &str,
    family: AddressFamily,
    event: AnnounceEvent,
) -> Result<AnnounceResponse, TrackerError> {
    client.announce(url, family, &request(event)).await
}

pub fn client() -> TrackerClient {
    TrackerClient::new(ClientConfig::default()).unwrap()
}

pub fn impatient(milliseconds: u64) -> TrackerClient {
    let short = Duration::from_millis(milliseconds);
    TrackerClient::new(ClientConfig {
        exchange_timeout: short,
        udp_timeout: short,
        ..ClientConfig::default()
    })
    .unwrap()
}

pub fn ok(body: &[u8]) -> Vec<u8> {
    reply(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len()), body)
}

pub fn reply(head: &str, body: &[u8]) -> Vec<u8> {
    [head.as_bytes(), b"\r\n", body].concat()
}

pub fn redirect(location: &str) -> Vec<u8> {
    reply(&format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n"), b"")
}

/// What a scripted tracker says to one request.
#[derive(Clone)]
pub struct Script {
    pub first: Vec<u8>,
    /// Repeated until the client has gone.
    pub then_for_ever: Vec<u8>,
    /// Keep the connection open in silence at the end.
    pub hang: bool,
}

pub fn say(first: Vec<u8>) -> Script {
    Script { first, then_for_ever: Vec::new(), hang: false }
}

pub async fn perform<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    respond: impl Fn(&str) -> Script,
) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let script = respond(&head);
    let _ = stream.write_all(&script.first).await;
    if !script.then_for_ever.is_empty() {
        while stream.write_all(&script.then_for_ever).await.is_ok() {}
    }
    if script.hang {
        let _ = stream.read_u8().await;
    }
    let _ = stream.shutdown().await;
    Some(head)
}

/// Serves `respond` on `ip`; the requests' heads and their senders come back over the channel.
pub async fn http_tracker(
    ip: &str,
    respond: impl Fn(&str) -> Script + Send + Sync + 'static,
) -> (SocketAddr, mpsc::UnboundedReceiver<(SocketAddr, String)>) {
    let listener = TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, seen) = mpsc::unbounded_channel();
    let respond = Arc::new(respond);
    tokio::spawn(async move {
        loop {
            let (stream, from) = listener.accept().await.unwrap();
            let (respond, heads) = (Arc::clone(&respond), heads.clone());
            tokio::spawn(async move {
                let head = perform(stream, |head| {
                    let _ = heads.send((from, head.to_owned()));
                    respond(head)
                });
                head.await
            });
        }
    });
    (address, seen)
}

/// The outcome of one announce to an HTTP tracker that always plays `script`.
pub async fn outcome(client: &TrackerClient, script: Script) -> Result<u32, TrackerError> {
    let (address, _seen) = http_tracker("127.0.0.1", move |_| script.clone()).await;
    let url = format!("http://{address}/announce");
    announce(client, &url, V4, AnnounceEvent::None).await.map(|response| response.interval_secs)
}

/// A UDP tracker that a test plays by hand.
pub struct UdpTracker {
    socket: UdpSocket,
}

impl UdpTracker {
    pub async fn start(ip: &str) -> Self {
        Self { socket: UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).await.unwrap() }
    }

    pub fn url(&self) -> String {
        format!("udp://{}/announce?{PASSKEY}", self.socket.local_addr().unwrap())
    }

    pub async fn hear(&mut self) -> (SocketAddr, Vec<u8>) {
        let mut datagram = vec![0; 4096];
        let (len, from) = self.socket.recv_from(&mut datagram).await.unwrap();
        datagram.truncate(len);
        (from, datagram)
    }

    pub async fn send(&self, to: SocketAddr, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut datagram = Vec::new();
        encode(&mut datagram);
        self.socket.send_to(&datagram, to).await.unwrap();
    }

    pub async fn connect(&self, to: SocketAddr, asked: &[u8]) {
        let Request::Connect { transaction } = Request::decode(asked).unwrap() else { panic!("{asked:?}") };
        self.send(to, |out| encode_connect_response(out, transaction, ConnectionId(99))).await;
    }

    pub async fn serve(&mut self) {
        loop {
            let (from, asked) = self.hear().await;
            match Request::decode(&asked).unwrap() {
                Request::Connect { .. } => self.connect(from, &asked).await,
                _ => {
                    self.answer(from, &asked).await;
                }
            }
        }
    }

    pub async fn answer(&self, to: SocketAddr, asked: &[u8]) -> AnnounceRequest {
        let Request::Announce { connection, transaction, request, options } = Request::decode(asked).unwrap()
        else {
            panic!("{asked:?}")
        };
        assert_eq!(connection, ConnectionId(99));
        assert_eq!(url_data(options), format!("/announce?{PASSKEY}").into_bytes());
        self.send(to, |out| announce_response(out, transaction)).await;
        request
    }
}

pub fn announce_response(out: &mut Vec<u8>, transaction: seedring::tracker_wire::udp::TransactionId) {
    encode_announce_response(out, transaction, 900, 6, 5);
    out.extend([1, 2, 3, 4, 0x1a, 0xe1]);
}
