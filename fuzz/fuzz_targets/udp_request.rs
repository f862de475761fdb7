//! Datagrams to a UDP tracker: the same request when written and read again, and options that give back what was put in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::limits::UDP_SCRAPE_HASHES_MAX;
use seedring::tracker_wire::AnnounceEvent;
use seedring::tracker_wire::udp::{Request, info_hashes, url_data, url_data_options};

fuzz_target!(|data: &[u8]| {
    assert!(url_data(data).len() <= data.len());
    assert_eq!(url_data(&url_data_options(data)), data);

    let Ok(mut request) = Request::decode(data) else { return };
    if let Request::Scrape { info_hashes: list, .. } = &request {
        assert!((1..=UDP_SCRAPE_HASHES_MAX).contains(&info_hashes(list).count()));
    }
    let mut written = Vec::new();
    request.encode(&mut written);
    assert!(written.len() <= data.len());
    // BEP 15 has no word for a partial seed's event: it is read, and never written.
    if let Request::Announce { request, .. } = &mut request
        && request.event == AnnounceEvent::Paused
    {
        request.event = AnnounceEvent::None;
    }
    assert_eq!(Request::decode(&written), Ok(request));
});
