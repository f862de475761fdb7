//! One HTTP exchange with a tracker: connect, ask, follow redirects, read a bounded body.
//!
//! Redirects are followed a few times, to http and https only, never from https to http, and never from a
//! tracker of the public network into this machine's own network. Every hop is resolved once and judged on
//! the addresses that are then connected to.

use super::bounded::Bounded;
use super::target::{Scheme, Target, is_inward};
use super::{ClientConfig, Retry, TrackerError, coding};
use crate::bencode::parse_prefix;
use crate::limits;
use crate::secret_url::{RedactedUrl, redacted_host};
use crate::time::Duration;
use crate::tracker_wire::http::response::ResponseError;
use crate::tracker_wire::{AddressFamily, message_text};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

const USER_AGENT: &str = concat!("seedring/", env!("CARGO_PKG_VERSION"));

/// A tracker's body, with the status it came with: some refuse with words and an error status together.
#[derive(Debug)]
pub(super) struct Answer {
    /// Who answered, behind all redirects.
    pub(super) from: IpAddr,
    status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    /// Reads the body with `decode`; an error status without a readable refusal is an error of its own.
    pub(super) fn read<T>(
        &self,
        decode: impl FnOnce(&[u8]) -> Result<T, ResponseError>,
    ) -> Result<T, TrackerError> {
        match decode(&self.body) {
            Err(ResponseError::Failure(reason)) => {
                Err(TrackerError::Refused { reason, retry: retry_in(&self.body) })
            }
            _ if !self.status.is_success() => Err(TrackerError::Status(self.status.as_u16())),
            Err(error) => Err(TrackerError::Answer(error)),
            Ok(value) => Ok(value),
        }
    }
}

/// Asks `target` by `family` and reads the answer, within the configured time.
pub(super) async fn exchange(
    config: &ClientConfig,
    tls: &TlsConnector,
    target: Target,
    family: AddressFamily,
) -> Result<Answer, TrackerError> {
    timeout(config.exchange_timeout, follow(config, tls, target, family))
        .await
        .unwrap_or(Err(TrackerError::Timeout(config.exchange_timeout)))
}

async fn follow(
    config: &ClientConfig,
    tls: &TlsConnector,
    mut target: Target,
    family: AddressFamily,
) -> Result<Answer, TrackerError> {
    let mut addresses = target.resolve(&config.names, family).await?;
    let from_public = addresses.iter().any(|address| !is_inward(address.ip()));
    for _ in 0..=limits::TRACKER_REDIRECTS_MAX {
        match ask(config, tls, &target, &addresses).await? {
            Reply::Answer(answer) => return Ok(answer),
            Reply::Redirect(location) => {
                target = redirected(&target, &location)?;
                addresses = target.resolve(&config.names, family).await?;
                judge_hop(from_public, &target, &addresses)?;
            }
        }
    }
    Err(TrackerError::RedirectsTooMany)
}

enum Reply {
    Answer(Answer),
    Redirect(String),
}

/// Where `location` leads from `target`, when it may.
fn redirected(target: &Target, location: &str) -> Result<Target, TrackerError> {
    let refused = |why| TrackerError::Redirect {
        to: RedactedUrl(&location.chars().take(256).collect::<String>()).to_string(),
        why,
    };
    let url = target.url.join(location).map_err(|_| refused("is no address"))?;
    if url.as_str().len() > 2 * limits::TRACKER_URL_LEN_MAX {
        return Err(refused("is too long"));
    }
    let next = Target::new(url).map_err(|_| refused("is neither http nor https"))?;
    match (target.scheme, next.scheme) {
        (_, Scheme::Udp) => Err(refused("is neither http nor https")),
        (Scheme::Https, Scheme::Http) => Err(refused("would give up encryption")),
        _ => Ok(next),
    }
}

/// A tracker of the public network may not send us anywhere else.
fn judge_hop(from_public: bool, target: &Target, addresses: &[SocketAddr]) -> Result<(), TrackerError> {
    if from_public && addresses.iter().any(|address| is_inward(address.ip())) {
        let to = RedactedUrl(target.url.as_str()).to_string();
        return Err(TrackerError::Redirect { to, why: "leads out of the public network" });
    }
    Ok(())
}

async fn ask(
    config: &ClientConfig,
    tls: &TlsConnector,
    target: &Target,
    addresses: &[SocketAddr],
) -> Result<Reply, TrackerError> {
    let (stream, from) = connect(config, addresses).await?;
    if target.scheme != Scheme::Https {
        return speak(stream, from, target).await;
    }
    // The library's words quote the certificate, a stranger's text, and the host.
    let bad = |why: String| TrackerError::Tls {
        host: redacted_host(&target.host),
        why: message_text(why.as_bytes()),
    };
    let name = ServerName::try_from(target.host.clone()).map_err(|error| bad(error.to_string()))?;
    speak(tls.connect(name, stream).await.map_err(|error| bad(error.to_string()))?, from, target).await
}

/// A connection to the first address that takes one, and that address; from the one we are bound to.
async fn connect(
    config: &ClientConfig,
    addresses: &[SocketAddr],
) -> Result<(TcpStream, IpAddr), TrackerError> {
    let mut failed = None;
    for &address in addresses {
        let local = config.local(AddressFamily::of(address.ip()));
        let bound =
            if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.and_then(|socket| {
                if local.ip().is_unspecified() { Ok(socket) } else { socket.bind(local).map(|()| socket) }
            });
        let socket = bound.map_err(|source| TrackerError::Bind { local: local.ip(), source })?;
        match timeout(config.connect_timeout, socket.connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address.ip())),
            Ok(Err(source)) => failed = Some(TrackerError::Connect { address, source }),
            Err(_) => failed = Some(TrackerError::Timeout(config.connect_timeout)),
        }
    }
    Err(failed.unwrap_or(TrackerError::Timeout(config.connect_timeout)))
}

/// One request and its answer over `stream`, which leads to `from`.
async fn speak<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    from: IpAddr,
    target: &Target,
) -> Result<Reply, TrackerError> {
    let (stream, exceeded) = Bounded::new(stream, limits::TRACKER_CONNECTION_LEN_MAX);
    let broken = |error: hyper::Error| {
        if exceeded.get() {
            TrackerError::TooLong { limit: limits::TRACKER_CONNECTION_LEN_MAX }
        } else {
            TrackerError::Http(error)
        }
    };
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_header_size(limits::TRACKER_HEAD_LEN_MAX)
        .max_buf_size(2 * limits::TRACKER_HEAD_LEN_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let host = target.url.host_str().unwrap_or_default();
    let host = target.url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
    let request = Request::get(target.path_and_query())
        .header(header::HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT_ENCODING, coding::ACCEPTED)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| TrackerError::BadUrl {
            url: RedactedUrl(target.url.as_str()).to_string(),
            why: error.to_string(),
        })?;
    let conversation = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        match location(&response) {
            Some(location) => Ok(Reply::Redirect(location)),
            None => read_body(response, from, broken).await.map(Reply::Answer),
        }
    };
    let mut conversation = std::pin::pin!(conversation);
    let mut connection = Box::pin(connection);
    let early = tokio::select! {
        biased;
        reply = &mut conversation => Some(reply),
        _ = &mut connection => None,
    };
    // A finished connection has handed over all it read; what is missing is reported to the conversation.
    drop(connection);
    match early {
        Some(reply) => reply,
        None => conversation.await,
    }
}

fn location<B>(response: &Response<B>) -> Option<String> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(header::LOCATION).filter(|_| redirects)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

async fn read_body<B: Body<Data = Bytes, Error = hyper::Error> + Unpin>(
    response: Response<B>,
    from: IpAddr,
    broken: impl Fn(hyper::Error) -> TrackerError,
) -> Result<Answer, TrackerError> {
    let limit = limits::TRACKER_BODY_LEN_MAX;
    let (parts, mut body) = response.into_parts();
    if body.size_hint().lower() > limit as u64 {
        return Err(TrackerError::TooLong { limit });
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(&broken)?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(TrackerError::TooLong { limit });
        }
        bytes.extend_from_slice(&data);
    }
    let encodings: Vec<&[u8]> =
        parts.headers.get_all(header::CONTENT_ENCODING).iter().map(header::HeaderValue::as_bytes).collect();
    Ok(Answer { from, status: parts.status, body: coding::decoded(&encodings.join(&b','), bytes)? })
}

/// The `retry in` beside a failure reason (BEP 31): minutes as a number, or `never`.
fn retry_in(body: &[u8]) -> Option<Retry> {
    let (document, _) = parse_prefix(body).ok()?;
    let retry = document.root().lookup(b"retry in")?;
    if retry.as_bytes() == Some(b"never") {
        return Some(Retry::Never);
    }
    // Some write the number as a string.
    let minutes = retry.as_uint().or_else(|| retry.as_str()?.parse().ok())?;
    Some(Retry::In(Duration::from_secs(minutes.saturating_mul(60))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_in_is_minutes_or_never() {
        let minutes = |minutes: u64| Some(Retry::In(Duration::from_secs(minutes * 60)));
        assert_eq!(retry_in(b"d14:failure reason2:no8:retry in5:nevere"), Some(Retry::Never));
        assert_eq!(retry_in(b"d14:failure reason2:no8:retry ini20ee"), minutes(20));
        assert_eq!(retry_in(b"d14:failure reason2:no8:retry in2:20e"), minutes(20));
        assert_eq!(retry_in(b"d14:failure reason2:no8:retry ini-1ee"), None);
        assert_eq!(retry_in(b"d14:failure reason2:noe"), None);
    }

    #[test]
    fn hostile_44_a_public_tracker_cannot_redirect_into_our_network() {
        let target = Target::parse("http://t.example/announce").unwrap();
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        for inward in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "::1", "fe80::1", "fd00::1"]
        {
            let judged = judge_hop(true, &target, &[address("1.1.1.1"), address(inward)]);
            assert!(matches!(judged, Err(TrackerError::Redirect { .. })), "{inward}");
            assert!(judge_hop(false, &target, &[address(inward)]).is_ok(), "trackers of our own network may");
        }
        assert!(judge_hop(true, &target, &[address("1.1.1.1")]).is_ok());
    }
}
