//! Listening sockets: one per worker and address family, all on one port, so that the kernel spreads
//! connections over the workers (SO_REUSEPORT).

use crate::bind_patience::{a_second, bind_patiently, is_taken};
use crate::limits::UNSENT_LEN_MAX;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// Connections the kernel keeps for a worker that has not accepted them yet.
const BACKLOG: i32 = 4096;

/// Cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", cure(source))]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there, choose another one with --port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    }
}

/// The sockets of all workers.
#[derive(Debug)]
pub struct Listeners {
    /// By worker.
    pub sockets: Vec<Vec<OwnedFd>>,
    /// Where peers reach us; the same port everywhere.
    pub addresses: Vec<SocketAddr>,
}

/// Where to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// The port; 0 for any free one.
    pub number: u16,
    /// Whether any other does as well when somebody has this one.
    pub or_any: bool,
}

impl From<u16> for Port {
    fn from(number: u16) -> Self {
        Self { number, or_any: false }
    }
}

/// Listens for `workers` workers on `bind`, or on all addresses of both families. Port 0 takes any free port,
/// the same for both families. A port that is taken is tried for about a second, unless another will do. A machine without
/// IPv6 does without it, unless it was asked for by name.
pub fn listen(bind: Option<IpAddr>, port: Port, workers: usize) -> Result<Listeners, ListenError> {
    let is_taken = |error: &ListenError| is_taken(&error.source);
    if port.or_any && port.number != 0 {
        return match listen_once(bind, port.number, workers) {
            Err(error) if is_taken(&error) => listen_once(bind, 0, workers),
            other => other,
        };
    }
    bind_patiently(|| listen_once(bind, port.number, workers), is_taken, a_second())
}

fn listen_once(bind: Option<IpAddr>, port: u16, workers: usize) -> Result<Listeners, ListenError> {
    // Whether another program already has the port is asked without SO_REUSEPORT first: with it, a second
    // process of ours would quietly take half of the connections.
    const TRIES: usize = 16;
    let mut last = None;
    for _ in 0..TRIES {
        match try_listen(bind, port, workers) {
            Err(error) if port == 0 && error.source.kind() == io::ErrorKind::AddrInUse => last = Some(error),
            other => return other,
        }
    }
    Err(last.expect("the loop ran and ended only with this error"))
}

fn try_listen(bind: Option<IpAddr>, port: u16, workers: usize) -> Result<Listeners, ListenError> {
    let wanted: Vec<IpAddr> = match bind {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let mut listeners =
        Listeners { sockets: (0..workers).map(|_| Vec::new()).collect(), addresses: Vec::new() };
    let mut port = port;
    for ip in wanted {
        let address = SocketAddr::new(ip, port);
        let probe = match socket(address, false) {
            Ok(probe) => probe,
            Err(error) if bind.is_none() && ip.is_ipv6() && is_without_ipv6(&error) => continue,
            Err(source) => return Err(ListenError { address, source }),
        };
        port = local_port(&probe).map_err(|source| ListenError { address, source })?;
        drop(probe);
        let address = SocketAddr::new(ip, port);
        for of_worker in &mut listeners.sockets {
            let listener = socket(address, true)
                .and_then(|socket| socket.listen(BACKLOG).map(|()| socket))
                .map_err(|source| ListenError { address, source })?;
            of_worker.push(listener.into());
        }
        listeners.addresses.push(address);
    }
    Ok(listeners)
}

fn socket(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_cloexec(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it. Batches are complete messages: nothing is gained by waiting for more.
    socket.set_tcp_nodelay(true)?;
    // Inherited as well.
    socket.set_tcp_notsent_lowat(UNSENT_LEN_MAX)?;
    socket.bind(&address.into())?;
    if !share {
        socket.listen(1)?;
    }
    Ok(socket)
}

fn local_port(socket: &Socket) -> io::Result<u16> {
    Ok(socket.local_addr()?.as_socket().map_or(0, |address| address.port()))
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_one_port_on_both_families() {
        let listeners = listen(None, Port::default(), 3).unwrap();
        assert!(listeners.sockets.iter().all(|of_worker| of_worker.len() == listeners.addresses.len()));
        let port = listeners.addresses[0].port();
        assert_ne!(port, 0);
        assert!(listeners.addresses.iter().all(|address| address.port() == port));
    }

    #[test]
    fn a_taken_port_is_refused_with_a_cure_even_to_ourselves() {
        let loopback = Some(Ipv4Addr::LOCALHOST.into());
        let first = listen(loopback, Port::default(), 1).unwrap();
        let port = first.addresses[0].port();
        let error = listen(loopback, port.into(), 1).unwrap_err();
        assert!(error.to_string().contains("--port"), "{error}");
    }

    #[test]
    fn another_port_is_taken_where_any_will_do() {
        let loopback = Some(Ipv4Addr::LOCALHOST.into());
        let first = listen(loopback, Port::default(), 1).unwrap();
        let taken = first.addresses[0].port();
        let second = listen(loopback, Port { number: taken, or_any: true }, 2).unwrap();
        assert!(![0, taken].contains(&second.addresses[0].port()));
        drop(first);
        let third = listen(loopback, Port { number: taken, or_any: true }, 1).unwrap();
        assert_eq!(third.addresses[0].port(), taken, "the usual one is as good as any");
    }
}
