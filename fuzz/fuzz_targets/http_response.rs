//! Bodies of HTTP trackers: within the bounds, and the same answer when written and read again, compact and not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::limits::{TRACKER_ID_LEN_MAX, TRACKER_MESSAGE_LEN_MAX, TRACKER_RESPONSE_PEERS_MAX};
use seedring::tracker_wire::http::response::{
    AnnounceAnswer, ResponseError, decode_announce, decode_scrape, encode_scrape,
};
use seedring::tracker_wire::{AnnounceResponse, ScrapeEntry, push_compact_peer};
use seedring_fuzz::check_message;

fuzz_target!(|data: &[u8]| {
    match decode_announce(data) {
        Ok(response) => check_announce(response),
        Err(ResponseError::Failure(reason)) => check_message(&reason),
        Err(_) => {}
    }
    if let Ok(mut files) = decode_scrape(data) {
        assert!(files.len() <= TRACKER_RESPONSE_PEERS_MAX);
        let mut body = Vec::new();
        encode_scrape(&mut body, &mut files);
        assert_eq!(decode_scrape(&body), Ok(files));
    }
});

fn check_announce(response: AnnounceResponse) {
    assert!(response.peers.len() <= TRACKER_RESPONSE_PEERS_MAX);
    assert!(response.peers.iter().all(|peer| peer.port() != 0));
    assert!(response.tracker_id.as_ref().is_none_or(|id| id.len() <= TRACKER_ID_LEN_MAX));
    response.warning.as_deref().into_iter().for_each(check_message);

    let (mut peers_v4, mut peers_v6) = (Vec::new(), Vec::new());
    for &peer in &response.peers {
        push_compact_peer(if peer.is_ipv4() { &mut peers_v4 } else { &mut peers_v6 }, peer);
    }
    let figures = ScrapeEntry {
        seeds: response.seeds.unwrap_or(0),
        completed: response.completed.unwrap_or(0),
        leeches: response.leeches.unwrap_or(0),
        partial_seeds: 0,
    };
    // A message that was cut is cut again at another place.
    let warning = response.warning.clone().filter(|warning| warning.len() <= TRACKER_MESSAGE_LEN_MAX);
    let answer = AnnounceAnswer {
        interval_secs: response.interval_secs,
        min_interval_secs: response.min_interval_secs,
        figures,
        peers_v4: &peers_v4,
        peers_v6: &peers_v6,
        external_ip: response.external_ip,
        warning: warning.as_deref(),
    };
    let (v4, v6): (Vec<_>, Vec<_>) = response.peers.iter().partition(|peer| peer.is_ipv4());
    let expected = AnnounceResponse {
        seeds: Some(figures.seeds),
        completed: Some(figures.completed),
        leeches: Some(figures.leeches),
        peers: [v4, v6].concat(),
        warning: warning.clone(),
        tracker_id: None,
        ..response
    };
    for compact in [true, false] {
        let mut body = Vec::new();
        answer.encode(compact, &mut body);
        assert_eq!(decode_announce(&body).as_ref(), Ok(&expected));
    }
}
