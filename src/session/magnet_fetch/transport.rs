//! How bytes go to a peer and come from it. The one place that knows whether they are encrypted on the way.

use crate::limits::MAGNET_CONNECT_TIMEOUT;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A connection to a peer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Transport {
    /// Bytes as they are.
    Plain(TcpStream),
}

impl Transport {
    /// Connects to `address`, from `bind` where given.
    ///
    /// # Errors
    /// The kernel's, and `TimedOut` after [`MAGNET_CONNECT_TIMEOUT`].
    pub async fn connect(address: SocketAddr, bind: Option<IpAddr>) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bind) = bind.filter(|bind| bind.is_ipv4() == address.is_ipv4()) {
            socket.bind(SocketAddr::new(bind, 0))?;
        }
        tokio::time::timeout(MAGNET_CONNECT_TIMEOUT, socket.connect(address)).await?.map(Self::Plain)
    }

    /// Receives some bytes; none at the end of the stream. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer).await,
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
        }
    }
}
