//! Bounds of trackers, of both sides.

use crate::time::Duration;

/// Bytes of a tracker's failure reason, warning or error that we keep; the rest is cut off.
pub const TRACKER_MESSAGE_LEN_MAX: usize = 512;
/// Peers we take from one announce response; the rest is ignored. Trackers send 50 to 200.
pub const TRACKER_RESPONSE_PEERS_MAX: usize = 2_000;
/// Bytes of a tracker id that we keep and send back (BEP 3); a longer one is forgotten.
pub const TRACKER_ID_LEN_MAX: usize = 256;
/// Torrents of one UDP scrape: as many as fit one packet (BEP 15); the rest is left out of the answer.
pub const UDP_SCRAPE_HASHES_MAX: usize = 74;
/// Torrents of one HTTP scrape; more is refused. A request line of 8 KiB holds about 115.
pub const HTTP_SCRAPE_HASHES_MAX: usize = 128;
/// Time between two announces of a client that a tracker asks for when it is told nothing else.
pub const TRACKER_INTERVAL_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// Peers a tracker gives in one answer, whatever was wanted.
pub const TRACKER_PEERS_MAX: usize = 200;
/// Peers a tracker gives to who does not say how many.
pub const TRACKER_PEERS_DEFAULT: usize = 50;
/// Peers in one UDP answer over IPv6: 1226 bytes, within the 1232 that every path carries.
pub const UDP_PEERS_V6_MAX: usize = 67;
/// Torrents a tracker knows. About 300 MB with a peer each. The sites of a /32 of IPv6 may together found as many as are left
/// free, and so may a site (/24 of IPv4, /48 of IPv6) up to [`SWARMS_PER_SITE_MAX`]; for more they have to push out one of
/// who has as many.
pub const SWARMS_MAX: usize = 2_000_000;
/// Those founded by one site: 40 MB with a peer each. A seed box has 100,000. For more it has to push out its own.
pub const SWARMS_PER_SITE_MAX: usize = 262_144;
/// Peers of one address family in one swarm; above it a newcomer takes the place of the poorest claim it finds.
pub const PEERS_PER_SWARM_MAX: usize = 65_536;
/// Peers of one address (IPv4) or network (/64 of IPv6) in one swarm; above it they displace their oldest.
/// Loopback is exempt, since every local swarm lives there.
pub const PEERS_PER_ADDRESS_MAX: usize = 64;
/// Peers of one site (/24 of IPv4, /48 of IPv6) in one swarm, two for each address of a full /24; above it they displace
/// their oldest. Loopback is exempt.
pub const PEERS_PER_SITE_MAX: usize = 512;
/// Peers of all swarms of a tracker, shared out by site as [`SWARMS_MAX`] is. About 1 GB at worst.
pub const REGISTRY_PEERS_MAX: usize = 16_000_000;
/// Those of one site; further ones are answered and not kept. With all its swarms about 50 MB at worst.
pub const REGISTRY_PEERS_PER_SITE_MAX: usize = 393_216;
/// Swarms, or peers, that a newcomer looks at for a claim poorer than its own: a few microseconds, and one in sixteen
/// million misses a site that holds nine of ten.
pub const EVICTION_LOOKS: usize = 8;
/// Records that one announce looks at for expired ones: two, so that a swarm in use cleans itself.
pub const ANNOUNCE_SWEEP_PEERS: usize = 2;
/// Records that a tracker's turn of expiry, one a second, looks at: a few milliseconds.
pub const EXPIRY_WORK_MAX: usize = 100_000;
/// Time for which a UDP connection id is issued; it is accepted for as long again (BEP 15 has two minutes).
pub const CONNECTION_ID_WINDOW: Duration = Duration::from_secs(120);
/// Datagrams a tracker's socket takes before other tasks have their turn.
pub const UDP_TURN_DATAGRAMS: usize = 64;
/// Bytes of the longest datagram a tracker reads: a scrape of 74 torrents, an announce with options.
pub const UDP_REQUEST_LEN_MAX: usize = 2048;
/// HTTP connections of a tracker; above it the site (/24 of IPv4, /48 of IPv6) with most of them loses its oldest.
pub const HTTP_CONNECTIONS_MAX: usize = 4096;
/// HTTP connections of a tracker from one address (IPv4) or network (/64 of IPv6); above it new ones are
/// closed at once. Loopback is exempt, since every local client comes from there.
pub const HTTP_CONNECTIONS_PER_ADDRESS_MAX: usize = 128;
/// Bytes of an HTTP request's line and headers; the least that the HTTP library takes. More is answered 431.
pub const HTTP_REQUEST_LEN_MAX: usize = 8192;
/// Headers of an HTTP request; more is answered 431.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Time an HTTP client has for a request's line and headers, and between two requests.
pub const HTTP_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which an HTTP connection to us is asked to end, whatever goes on over it.
pub const HTTP_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Time it then has to end by itself.
pub const HTTP_CLOSING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a file of allowed or denied info-hashes: about 1.5 million of them.
pub const ACCESS_FILE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a PEM file with a certificate, its chain, or a key.
pub const TLS_FILE_LEN_MAX: u64 = 1024 * 1024;
/// Time between two writings of what a tracker knows.
pub const STATE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Time for the last one, at the end.
pub const STATE_END_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a piece of it: a fraction of a millisecond in which the tracker does nothing else. Two pieces are in memory.
pub const STATE_PIECE_LEN: usize = 256 * 1024;
/// Bytes of a piece that ends with the largest swarm there can be.
pub const STATE_PIECE_LEN_MAX: usize = STATE_PIECE_LEN + 64 + PEERS_PER_SWARM_MAX * (11 + 23);
/// Words about a tracker's files that wait for their reader; above it they are dropped.
pub const TRACKER_NOTICES_MAX: usize = 64;
/// Ports tried until one is free for every socket that shall share it.
pub const SHARED_PORT_TRIES: usize = 32;
/// Reports of completed downloads that wait for their reader; above it they are only counted.
pub const COMPLETED_REPORTS_MAX: usize = 1024;
/// Time that a tracker remembers the completed downloads of a swarm without peers.
pub const SWARM_LINGER: Duration = Duration::from_secs(24 * 60 * 60);
