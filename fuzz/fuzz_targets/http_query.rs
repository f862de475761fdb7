//! Queries of announces and scrapes: the same when written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::limits::{HTTP_SCRAPE_HASHES_MAX, TRACKER_ID_LEN_MAX};
use seedring::tracker_wire::http::query::{AnnounceQuery, parse_scrape, scrape_query};

fuzz_target!(|query: &str| {
    if let Ok(announce) = AnnounceQuery::parse(query) {
        assert!(announce.tracker_id.as_ref().is_none_or(|id| id.len() <= TRACKER_ID_LEN_MAX));
        assert_eq!(AnnounceQuery::parse(&announce.to_query()), Ok(announce));
    }
    if let Ok(hashes) = parse_scrape(query) {
        assert!((1..=HTTP_SCRAPE_HASHES_MAX).contains(&hashes.len()));
        assert_eq!(parse_scrape(&scrape_query(&hashes)), Ok(hashes));
    }
});
