//! The UDP side: datagrams in, answers out, in turns of bounded length.
//!
//! Nothing waits: an answer for which the socket has no room is dropped, as the network may drop it too, and the
//! client asks again.

use super::{Shared, lock};
use crate::clock;
use crate::limits::{UDP_REQUEST_LEN_MAX, UDP_TURN_DATAGRAMS};
use tokio::net::UdpSocket;

/// Serves one socket for ever.
pub(super) async fn serve(socket: UdpSocket, shared: Shared) {
    let mut datagram = [0; UDP_REQUEST_LEN_MAX];
    let mut answer = Vec::with_capacity(UDP_REQUEST_LEN_MAX);
    loop {
        if let Err(error) = socket.readable().await {
            tracing::warn!("the tracker's UDP socket failed: {error}");
            return;
        }
        let now = clock::now();
        for _ in 0..UDP_TURN_DATAGRAMS {
            let (len, source) = match socket.try_recv_from(&mut datagram) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // A client that is gone, told by ICMP; the next datagram is another's.
                Err(_) => continue,
            };
            answer.clear();
            lock(&shared).answer_udp(now, datagram.get(..len).unwrap_or_default(), source, &mut answer);
            if !answer.is_empty() {
                let _ = socket.try_send_to(&answer, source);
            }
        }
        tokio::task::yield_now().await;
    }
}
