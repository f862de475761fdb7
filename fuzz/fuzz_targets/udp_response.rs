//! Datagrams from a UDP tracker: peers that can be dialled, messages within their bound, and the same response when
//! written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::tracker_wire::udp::{
    Response, encode_announce_response, encode_connect_response, encode_error, encode_scrape_response,
};
use seedring::tracker_wire::{AddressFamily, push_compact_peer};
use seedring_fuzz::check_message;

fuzz_target!(|data: &[u8]| {
    for family in [AddressFamily::V4, AddressFamily::V6] {
        let Ok(response) = Response::decode(data, family) else { continue };
        let transaction = response.transaction();
        let mut written = Vec::new();
        match &response {
            Response::Connect { connection, .. } => {
                encode_connect_response(&mut written, transaction, *connection)
            }
            Response::Announce { response, .. } => {
                let (leeches, seeds) =
                    (response.leeches.expect("it is there"), response.seeds.expect("it is there"));
                encode_announce_response(&mut written, transaction, response.interval_secs, leeches, seeds);
                for &peer in &response.peers {
                    assert!(peer.port() != 0 && peer.is_ipv4() == (family == AddressFamily::V4));
                    push_compact_peer(&mut written, peer);
                }
            }
            Response::Scrape { entries, .. } => {
                encode_scrape_response(&mut written, transaction, entries.iter().copied())
            }
            Response::Error { message, .. } => {
                check_message(message);
                if message.len() > data.len() {
                    continue;
                }
                encode_error(&mut written, transaction, message);
            }
        }
        if matches!(response, Response::Error { .. }) {
            assert!(Response::decode(&written, family).is_ok());
        } else {
            assert_eq!(Response::decode(&written, family), Ok(response));
        }
    }
});
