//! The tracker's sockets: bound before anything is served, so that every port is known and every mistake
//! reported at once.
//!
//! IPv6 sockets take IPv6 only; IPv4 has its own. Addresses with port zero share one free port, found by
//! trying: the first socket is given a port by the system, and the others must get the same.

use super::{TrackerAddress, TrackerProtocol, TrackerServerError};
use crate::bind_patience::{a_second, bind_patiently, is_taken};
use crate::datagrams::tell_destinations;
use crate::limits::SHARED_PORT_TRIES;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// Connections that wait for their accept.
const BACKLOG: i32 = 1024;
/// Bytes of receive buffer asked for a UDP socket: some 20 ms of a million small datagrams a second. The system
/// may give less.
const UDP_RECEIVE_BUFFER_LEN: usize = 4 * 1024 * 1024;

/// Bound sockets, not blocking.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) http: Vec<TcpListener>,
    pub(super) udp: Vec<UdpSocket>,
}

impl Sockets {
    /// Binds every address.
    pub(super) fn bind(http: &[SocketAddr], udp: &[SocketAddr]) -> Result<Self, TrackerServerError> {
        let is_taken = |error: &TrackerServerError| match error {
            TrackerServerError::Bind { source, .. } => is_taken(source),
            _ => false,
        };
        for _ in 0..SHARED_PORT_TRIES {
            match bind_patiently(|| Self::try_bind(http, udp), is_taken, a_second())? {
                Some(sockets) if sockets.http.is_empty() && sockets.udp.is_empty() => {
                    return Err(TrackerServerError::NoAddress);
                }
                Some(sockets) => return Ok(sockets),
                None => {}
            }
        }
        Err(TrackerServerError::NoSharedPort)
    }

    /// Where they listen, HTTP first.
    pub(super) fn addresses(&self) -> Vec<TrackerAddress> {
        let http = self.http.iter().map(TcpListener::local_addr);
        let udp = self.udp.iter().map(UdpSocket::local_addr);
        let http = http.map(|address| (TrackerProtocol::Http, address));
        http.chain(udp.map(|address| (TrackerProtocol::Udp, address)))
            .filter_map(|(protocol, address)| {
                Some(TrackerAddress { protocol, address: address.ok()?, secure: false })
            })
            .collect()
    }

    /// `None` when the port that the first socket found is taken for another.
    fn try_bind(http: &[SocketAddr], udp: &[SocketAddr]) -> Result<Option<Self>, TrackerServerError> {
        let wanted = http
            .iter()
            .map(|&address| (TrackerProtocol::Http, address))
            .chain(udp.iter().map(|&address| (TrackerProtocol::Udp, address)));
        let has_v4 = http.iter().chain(udp).any(SocketAddr::is_ipv4);
        let mut sockets = Self::default();
        let mut shared_port = None;
        for (protocol, given) in wanted {
            let mut address = given;
            if given.port() == 0 {
                address.set_port(shared_port.unwrap_or(0));
            }
            match sockets.add(protocol, address) {
                Ok(bound) => {
                    if given.port() == 0 {
                        shared_port = Some(bound.port());
                    }
                }
                Err(error) if has_v4 && is_without_ipv6(given, &error) => {
                    tracing::debug!("no IPv6 on this system, {protocol} listens on IPv4 only");
                }
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && given.port() == 0
                        && address.port() != 0 =>
                {
                    return Ok(None);
                }
                Err(source) => return Err(TrackerServerError::Bind { protocol, address: given, source }),
            }
        }
        Ok(Some(sockets))
    }

    fn add(&mut self, protocol: TrackerProtocol, address: SocketAddr) -> io::Result<SocketAddr> {
        let (kind, transport) = match protocol {
            TrackerProtocol::Http => (Type::STREAM, Protocol::TCP),
            TrackerProtocol::Udp => (Type::DGRAM, Protocol::UDP),
        };
        let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(transport))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        match protocol {
            TrackerProtocol::Http => {
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                socket.listen(BACKLOG)?;
                let listener = TcpListener::from(socket);
                let bound = listener.local_addr()?;
                self.http.push(listener);
                Ok(bound)
            }
            TrackerProtocol::Udp => {
                // Less is no error: datagrams are lost earlier under load.
                let _ = socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER_LEN);
                if address.ip().is_unspecified()
                    && let Err(error) = tell_destinations(&socket, address.is_ipv6())
                {
                    tracing::warn!("answers may leave from another address than was asked: {error}");
                }
                socket.bind(&address.into())?;
                let socket = UdpSocket::from(socket);
                let bound = socket.local_addr()?;
                self.udp.push(socket);
                Ok(bound)
            }
        }
    }
}

/// The address of this machine that a peer at `ip` sees: the one that the system would send from. Nothing is
/// sent. `None` without a route.
pub(super) fn local_ip_towards(ip: IpAddr) -> Option<IpAddr> {
    let anywhere = match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((anywhere, 0)).ok()?;
    socket.connect((ip, 9)).ok()?;
    let local = socket.local_addr().ok()?.ip();
    (!local.is_unspecified()).then_some(local)
}

/// The wildcard or loopback of IPv6 on a system that has none.
fn is_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    address.is_ipv6()
        && (address.ip().is_unspecified() || address.ip().is_loopback())
        && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> Vec<SocketAddr> {
        vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
    }

    #[test]
    fn port_zero_is_one_port_for_both_protocols_and_families() {
        let sockets = Sockets::bind(&loopback(0), &loopback(0)).unwrap();
        let addresses = sockets.addresses();
        assert!(addresses.len() >= 2);
        let port = addresses[0].address.port();
        assert!(port != 0 && addresses.iter().all(|listening| listening.address.port() == port));
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let Err(error) = Sockets::bind(&[address], &[]) else { panic!("the port is taken") };
        assert!(error.to_string().contains(&format!("HTTP on {address}")), "{error}");
        assert!(matches!(Sockets::bind(&[], &[]), Err(TrackerServerError::NoAddress)));
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(local_ip_towards(ip), Some(ip));
    }
}
