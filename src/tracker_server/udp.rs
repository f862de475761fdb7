//! The UDP side: datagrams in, answers out, in turns of bounded length.
//!
//! A turn is one batch: what has come by then is answered under one lock and with two system calls. Nothing waits: an
//! answer for which the socket has no room is dropped, as the network may drop it too, and the client asks again.

use super::{Shared, lock};
use crate::clock;
use crate::datagrams::Batch;
use crate::limits::{UDP_REQUEST_LEN_MAX, UDP_TURN_DATAGRAMS};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Serves one socket for ever.
pub(super) async fn serve(socket: UdpSocket, shared: Shared) {
    let mut batch = Batch::new(UDP_TURN_DATAGRAMS, UDP_REQUEST_LEN_MAX);
    loop {
        if let Err(error) = socket.readable().await {
            tracing::warn!("the tracker's UDP socket failed: {error}");
            return;
        }
        // Errors other than "nothing there" are of clients that are gone, told by ICMP; the next batch is others'.
        if socket.try_io(Interest::READABLE, || batch.receive(&socket)).is_ok() {
            let now = clock::now();
            let mut tracker = lock(&shared);
            batch
                .answer_each(&socket, |datagram, source, out| tracker.answer_udp(now, datagram, source, out));
        }
        tokio::task::yield_now().await;
    }
}
