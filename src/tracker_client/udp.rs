//! Exchanges with UDP trackers (BEP 15, BEP 41).
//!
//! Each exchange has a socket of its own that is connected to the tracker's address, so the kernel drops what
//! comes from elsewhere and reports closed ports. The socket is kept with its connection id for the id's
//! minute: some trackers tie the id to our port. Datagrams that are no answer to the very transaction are
//! ignored and waited past.

use super::target::Target;
use super::{ClientConfig, TrackerError};
use crate::clock;
use crate::id::InfoHash;
use crate::limits;
use crate::time::Instant;
use crate::tracker_wire::udp::{ConnectionId, Request, Response, TransactionId, url_data_options};
use crate::tracker_wire::{AddressFamily, AnnounceRequest, AnnounceResponse, ScrapeEntry};
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Bytes of the largest datagram there can be.
const DATAGRAM_LEN_MAX: usize = 65_536;

/// Sockets with a connection id that wait for the next exchange, oldest first.
#[derive(Default)]
pub(super) struct Links {
    idle: RefCell<Vec<Link>>,
}

/// A socket connected to one tracker.
struct Link {
    socket: UdpSocket,
    address: SocketAddr,
    /// The id to name and when it came.
    connection: Option<(ConnectionId, Instant)>,
}

/// What is asked once a connection id is known.
enum Question<'a> {
    Announce { request: &'a AnnounceRequest, options: Vec<u8> },
    Scrape { info_hashes: Vec<u8> },
}

impl Links {
    pub(super) async fn announce(
        &self,
        config: &ClientConfig,
        target: &Target,
        family: AddressFamily,
        request: &AnnounceRequest,
        alive: &dyn Fn(),
    ) -> Result<(AnnounceResponse, IpAddr), TrackerError> {
        let path = target.path_and_query();
        let options = if path.len() > 1 { url_data_options(path.as_bytes()) } else { Vec::new() };
        match self.exchange(config, target, family, &Question::Announce { request, options }, alive).await? {
            (Response::Announce { response, .. }, from) => Ok((response, from)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    pub(super) async fn scrape(
        &self,
        config: &ClientConfig,
        target: &Target,
        family: AddressFamily,
        info_hashes: &[InfoHash],
        alive: &dyn Fn(),
    ) -> Result<Vec<ScrapeEntry>, TrackerError> {
        let info_hashes = info_hashes.iter().flat_map(|hash| hash.0).collect();
        match self.exchange(config, target, family, &Question::Scrape { info_hashes }, alive).await? {
            (Response::Scrape { entries, .. }, _) => Ok(entries),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Asks, and asks again with doubled patience while nothing comes. Calls `alive` when the tracker gives a connection
    /// id, however it answers then. Gives the answer and who gave it.
    async fn exchange(
        &self,
        config: &ClientConfig,
        target: &Target,
        family: AddressFamily,
        question: &Question<'_>,
        alive: &dyn Fn(),
    ) -> Result<(Response, IpAddr), TrackerError> {
        let resolving = timeout(config.exchange_timeout, target.resolve(&config.names, family)).await;
        let addresses = resolving.unwrap_or(Err(TrackerError::Timeout(config.exchange_timeout)))?;
        let address = *addresses.first().expect("resolve gives at least one address");
        let mut link = match self.take(address) {
            Some(link) => link,
            None => Link::open(config, address).await?,
        };
        let mut waited = crate::time::Duration::ZERO;
        let was_heard = Cell::new(false);
        let heard = || {
            was_heard.set(true);
            alive();
        };
        for repeat in 0..=config.udp_repeats {
            let patience = config.udp_timeout.saturating_mul(1 << repeat.min(8));
            match timeout(patience, link.ask(family, question, &heard)).await {
                Ok(Ok(Response::Error { message, .. })) => {
                    self.keep(link);
                    return Err(TrackerError::Refused { reason: message, retry: None });
                }
                Ok(Ok(response)) => {
                    self.keep(link);
                    return Ok((response, address.ip()));
                }
                Ok(Err(source)) => return Err(TrackerError::Connect { address, source }),
                Err(_) => {
                    waited += patience;
                    link.connection = None;
                }
            }
        }
        Err(if was_heard.get() { TrackerError::Ignored(waited) } else { TrackerError::Timeout(waited) })
    }

    fn take(&self, address: SocketAddr) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|link| link.live_connection().is_some());
        let position = idle.iter().rposition(|link| link.address == address)?;
        Some(idle.remove(position))
    }

    fn keep(&self, link: Link) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= limits::UDP_LINKS_MAX {
            idle.remove(0);
        }
        idle.push(link);
    }
}

impl Link {
    async fn open(config: &ClientConfig, address: SocketAddr) -> Result<Self, TrackerError> {
        let local = config.local(AddressFamily::of(address.ip()));
        let bind = |source| TrackerError::Bind { local: local.ip(), source };
        let socket = UdpSocket::bind(local).await.map_err(bind)?;
        socket.connect(address).await.map_err(|source| TrackerError::Connect { address, source })?;
        Ok(Self { socket, address, connection: None })
    }

    fn live_connection(&self) -> Option<ConnectionId> {
        let (connection, since) = self.connection?;
        (clock::now().since(since) < limits::UDP_CONNECTION_ID_LIFETIME).then_some(connection)
    }

    /// Asks once. A tracker may have forgotten an id of earlier; its refusal counts with a fresh one only.
    async fn ask(
        &mut self,
        family: AddressFamily,
        question: &Question<'_>,
        heard: &dyn Fn(),
    ) -> std::io::Result<Response> {
        let reused = self.live_connection().is_some();
        match self.ask_as_connected(family, question, heard).await? {
            Response::Error { .. } if reused => {
                self.connection = None;
                self.ask_as_connected(family, question, heard).await
            }
            response => Ok(response),
        }
    }

    /// Gets a connection id if there is none alive, then asks.
    async fn ask_as_connected(
        &mut self,
        family: AddressFamily,
        question: &Question<'_>,
        heard: &dyn Fn(),
    ) -> std::io::Result<Response> {
        let connection = match self.live_connection() {
            Some(connection) => connection,
            None => match self.round_trip(family, |transaction| Request::Connect { transaction }).await? {
                Response::Connect { connection, .. } => {
                    self.connection = Some((connection, clock::now()));
                    heard();
                    connection
                }
                refusal => return Ok(refusal),
            },
        };
        self.round_trip(family, |transaction| match question {
            Question::Announce { request, options } => {
                let request = (*request).clone();
                Request::Announce { connection, transaction, request, options }
            }
            Question::Scrape { info_hashes } => Request::Scrape { connection, transaction, info_hashes },
        })
        .await
    }

    /// Sends one packet and waits for its answer or a refusal, however long that takes.
    async fn round_trip<'a>(
        &self,
        family: AddressFamily,
        request: impl FnOnce(TransactionId) -> Request<'a>,
    ) -> std::io::Result<Response> {
        let transaction = TransactionId(u32::from_ne_bytes(clock::random_bytes()));
        let request = request(transaction);
        let mut datagram = Vec::new();
        request.encode(&mut datagram);
        self.socket.send(&datagram).await?;
        datagram.resize(DATAGRAM_LEN_MAX, 0);
        loop {
            let len = self.socket.recv(&mut datagram).await?;
            let Ok(response) = Response::decode(&datagram[..len], family) else { continue };
            if response.transaction() == transaction && answers(&response, &request) {
                return Ok(response);
            }
        }
    }
}

fn answers(response: &Response, request: &Request<'_>) -> bool {
    matches!(
        (request, response),
        (_, Response::Error { .. })
            | (Request::Connect { .. }, Response::Connect { .. })
            | (Request::Announce { .. }, Response::Announce { .. })
            | (Request::Scrape { .. }, Response::Scrape { .. })
    )
}

/// Cannot happen, since [`answers`] let it pass; an error all the same rather than a panic.
fn unexpected(response: &Response) -> TrackerError {
    TrackerError::Refused { reason: format!("unexpected packet {:?}", response.transaction()), retry: None }
}
