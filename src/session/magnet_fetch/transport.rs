//! How bytes go to a peer and come from it. The one place that knows whether they are encrypted on the way.

use crate::clock;
use crate::id::InfoHash;
use crate::limits::{HANDSHAKE_TIMEOUT, MAGNET_CONNECT_TIMEOUT};
use crate::rng::Rng;
use crate::wire::{Answering, CryptoMethods, HANDSHAKE_LEN, MseStream, SkeyHash};
use std::collections::BTreeMap;
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
    /// Bytes behind an encrypted handshake.
    Encrypted(Box<Encrypted>),
}

/// A connection that began with an encrypted handshake (MSE).
#[derive(Debug)]
pub struct Encrypted {
    stream: TcpStream,
    mse: MseStream,
    pads: Rng,
    /// The peer's first bytes, which came with the end of the handshake.
    ready: Vec<u8>,
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

    /// Begins anew with an encrypted handshake on a connection that has just been opened, and offers these methods for
    /// what follows. Our own `handshake` goes along: it is sent when this returns.
    ///
    /// # Errors
    /// The kernel's, `InvalidData` for what is no encrypted handshake or selects what was not offered, `TimedOut` after
    /// [`HANDSHAKE_TIMEOUT`].
    pub async fn encrypt(
        self,
        info_hash: InfoHash,
        offered: CryptoMethods,
        handshake: &[u8; HANDSHAKE_LEN],
    ) -> io::Result<Self> {
        let Self::Plain(stream) = self else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut pads = clock::random_rng();
        let secret = clock::random_bytes();
        let mse = MseStream::outgoing(secret, &mut pads, info_hash, offered, handshake);
        let mut encrypted = Box::new(Encrypted { stream, mse, pads, ready: Vec::new() });
        tokio::time::timeout(HANDSHAKE_TIMEOUT, encrypted.shake_hands()).await??;
        Ok(Self::Encrypted(encrypted))
    }

    /// Receives some bytes; none at the end of the stream. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer).await,
            Self::Encrypted(encrypted) => encrypted.receive(buffer).await,
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Encrypted(encrypted) => {
                let mut bytes = bytes.to_vec();
                encrypted.mse.encrypt(&mut bytes);
                encrypted.stream.write_all(&bytes).await
            }
        }
    }
}

impl Encrypted {
    async fn shake_hands(&mut self) -> io::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let mut output = Vec::new();
            self.mse.poll_output(&mut output);
            self.stream.write_all(&output).await?;
            if self.mse.is_open() {
                return Ok(());
            }
            let len = self.stream.read(&mut buffer).await?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let bytes = buffer.get_mut(..len).unwrap_or_default();
            self.ready = self.decrypted(bytes)?;
        }
    }

    async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.ready.is_empty() {
            let len = self.ready.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(self.ready.drain(..len)) {
                *to = from;
            }
            return Ok(len);
        }
        let len = self.stream.read(buffer).await?;
        // The handshake is over, so that every byte is the peer wire's and stays where it is.
        self.decrypt(buffer.get_mut(..len).unwrap_or_default())?;
        Ok(len)
    }

    /// What of received bytes is the peer wire.
    fn decrypted(&mut self, bytes: &mut [u8]) -> io::Result<Vec<u8>> {
        let (mut wire, start) = self.decrypt(bytes)?;
        wire.extend_from_slice(bytes.get(start..).unwrap_or_default());
        Ok(wire)
    }

    fn decrypt(&mut self, bytes: &mut [u8]) -> io::Result<(Vec<u8>, usize)> {
        // Who has dialled is asked for no torrent.
        let skeys = BTreeMap::<SkeyHash, InfoHash>::new();
        let mut answering = Answering { secret: clock::random_bytes, pads: &mut self.pads, skeys: &skeys };
        let received = self.mse.receive(bytes, &mut answering);
        let received = received.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((received.first, received.start))
    }
}
