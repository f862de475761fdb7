//! Every bound of the program in one place: unit, reason, and what happens at the bound.

use crate::time::Duration;

#[path = "limits/magnets.rs"]
mod magnets;
pub use magnets::*;

#[path = "limits/trackers.rs"]
mod trackers;
pub use trackers::*;

// --- Torrent files -----------------------------------------------------------------------------------------

/// Bytes of a .torrent file we read, which the user has chosen: room for `PIECES_MAX` hashes and the names of a few
/// hundred thousand files. A larger file is refused.
pub const TORRENT_FILE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a .torrent file that we make: libtorrent and what is built on it read no more unless told to.
pub const NEW_TORRENT_FILE_LEN_MAX: u64 = 10 * 1024 * 1024;
/// Nesting of lists and dictionaries. Real torrents use 5; deeper input is an error.
pub const BENCODE_DEPTH_MAX: usize = 100;
/// Values in one bencoded document, twelve bytes each; more is an error in bounded time. The longest torrent file we read
/// has no more when each of its files takes 64 bytes there, which is eight values.
pub const BENCODE_TOKENS_MAX: usize = 8_000_000;
/// Pieces of one torrent (libtorrent's default); the bitfield then has 256 KiB.
pub const PIECES_MAX: u32 = 2_097_152;
/// Bytes of one piece at least, of a torrent that has more than one. BEP 3 has no bound, but every piece costs a job of the
/// storage threads and tens of bytes on each connection, whatever its length: below this they are more than the content,
/// and one peer's line would buy a million jobs a second.
pub const PIECE_LEN_MIN: u32 = 1024;
/// Bytes of one piece we accept. BEP 3 has no bound; nobody ships more than 256 MiB.
pub const PIECE_LEN_MAX: u32 = 256 * 1024 * 1024;
/// Components of a file's path below the torrent's own folder.
pub const PATH_DEPTH_MAX: usize = 100;
/// Bytes of one path component, as Linux file systems have it (NAME_MAX).
pub const PATH_COMPONENT_LEN_MAX: usize = 255;
/// Bytes of a file's whole path below the folder it is saved in (PATH_MAX less room for that folder).
pub const PATH_LEN_MAX: usize = 3072;
/// Trackers we take from one torrent or magnet link; the rest is ignored.
pub const TRACKERS_PER_TORRENT_MAX: usize = 100;
/// Web seeds we take from one torrent or magnet link; the rest is ignored.
pub const WEB_SEEDS_PER_TORRENT_MAX: usize = 100;
/// Bytes of a tracker's or web seed's address; a longer one is ignored. Servers take 8 KiB at most.
pub const URL_LEN_MAX: usize = 4096;
/// Peer addresses we take from one magnet link; the rest is ignored.
pub const MAGNET_PEERS_MAX: usize = 100;
/// Numbers and ranges of files that we take from one magnet link (`so`, BEP 53); the rest is ignored.
pub const MAGNET_SELECTED_RANGES_MAX: usize = 1_000;
/// Pieces above which a torrent we make gets longer pieces: 10 GiB of 256 KiB, a torrent file of 800 kB.
pub const NEW_TORRENT_PIECES_WANTED: u64 = 40_960;
/// Bytes of a magnet link we read.
pub const MAGNET_LEN_MAX: usize = 64 * 1024;

// --- Announcing --------------------------------------------------------------------------------------------

/// Shortest time between two regular announces to one tracker, whatever interval it asks for.
pub const ANNOUNCE_INTERVAL_MIN: Duration = Duration::from_secs(60);
/// Longest time between two regular announces, whatever interval the tracker asks for: longer and it forgets us.
pub const ANNOUNCE_INTERVAL_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// Part of the interval by which a regular announce may come late, in percent, so that torrents that were added
/// together drift apart. Trackers forget peers after twice the interval or so.
pub const ANNOUNCE_JITTER_PERCENT: u32 = 10;
/// Patience after a tracker's first failure; doubles with each further one.
pub const ANNOUNCE_RETRY_MIN: Duration = Duration::from_secs(15);
/// Longest patience with a failing tracker, before jitter.
pub const ANNOUNCE_RETRY_MAX: Duration = Duration::from_secs(30 * 60);
/// Longest silence that a tracker's `retry in` (BEP 31) can impose, short of `never`.
pub const ANNOUNCE_RETRY_IN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

// --- Tracker client ----------------------------------------------------------------------------------------

/// Bytes of an HTTP tracker's body that we read, as received and as decompressed. Two thousand peers with names have 200 KiB; more is an error.
pub const TRACKER_BODY_LEN_MAX: usize = 1024 * 1024;
/// Parts of a gzip body (RFC 1952, members) that we read; the rest is ignored. Servers send one.
pub const TRACKER_GZIP_MEMBERS_MAX: usize = 16;
/// Bytes of one HTTP response head; more is an error.
pub const TRACKER_HEAD_LEN_MAX: usize = 32 * 1024;
/// Bytes read from one HTTP connection in all: a body, its chunk headers, and heads (a storm of 1xx included).
pub const TRACKER_CONNECTION_LEN_MAX: usize = TRACKER_BODY_LEN_MAX + 256 * 1024;
/// Bytes of a tracker's address.
pub const TRACKER_URL_LEN_MAX: usize = 4096;
/// Redirects followed for one announce.
pub const TRACKER_REDIRECTS_MAX: usize = 5;
/// Addresses of one tracker tried for one announce.
pub const TRACKER_ADDRESSES_MAX: usize = 4;
/// Time for a TCP connection to a tracker.
pub const TRACKER_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a whole HTTP exchange, name lookup, TLS and redirects included.
pub const TRACKER_EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// First patience with a UDP tracker; doubles with each repetition (BEP 15).
pub const UDP_TRACKER_TIMEOUT: Duration = Duration::from_secs(15);
/// Repetitions of a UDP request. BEP 15 goes to eight (an hour); the announcer's own patience takes over before.
pub const UDP_TRACKER_REPEATS: u32 = 2;
/// Time for which a client may name a UDP connection id (BEP 15).
pub const UDP_CONNECTION_ID_LIFETIME: Duration = Duration::from_secs(60);
/// Sockets with a live UDP connection id that wait for the next announce; above it the oldest is closed.
pub const UDP_LINKS_MAX: usize = 64;
/// Announces and scrapes that are begun at once; further ones wait in line.
pub const TRACKER_REQUESTS_MAX: usize = 50;
/// Announces and scrapes in flight to one host and family, once it has answered; until then one.
pub const TRACKER_REQUESTS_PER_HOST_MAX: usize = 8;
/// Time in which most trackers answer; who is not answered by then waits on, and others are begun meanwhile.
pub const TRACKER_PROMPT_TIME: Duration = Duration::from_secs(1);
/// Announces and scrapes that wait for trackers that did not answer promptly, each with a socket; above it the one that
/// has waited longest is given up.
pub const TRACKER_SILENT_MAX: usize = 400;
/// Unreachable in a row after which a host counts as down: those waiting in line fail at once.
pub const TRACKER_HOST_FAILURES_MAX: u32 = 8;
/// Time for which a host counts as down.
pub const TRACKER_HOST_DOWN_TIME: Duration = Duration::from_secs(60);
/// Hosts remembered before those that nobody waits for are forgotten.
pub const TRACKER_HOSTS_MAX: usize = 1024;
/// Time for which the addresses of a tracker's name are remembered, whether it has any or not.
pub const TRACKER_NAME_LIFETIME: Duration = Duration::from_secs(60);
/// Time for all `stopped` announces of a torrent together.
pub const TRACKER_STOP_TIMEOUT: Duration = Duration::from_secs(3);

// --- Peer wire ---------------------------------------------------------------------------------------------

/// Bytes of one block in a request we serve. BEP 3 clients ask 16 KiB; some ask up to 128 KiB, above is a fault.
pub const REQUEST_LEN_MAX: u32 = 128 * 1024;
/// Bytes of an extended message's payload that we hold in memory: a piece of metadata (BEP 9) and the dictionary before
/// it. Handshakes have a few hundred.
pub const EXTENDED_LEN_MAX: usize = 16 * 1024 + 512;
/// Bytes of a message that we skip because we do not speak its type. More ends the connection.
pub const UNKNOWN_MESSAGE_LEN_MAX: usize = 1024 * 1024;
/// Requests a peer may have queued here; told as `reqq` (BEP 10). Above it they are rejected where the peer knows
/// rejects (BEP 6); where it does not, [`REQUEST_RUNS_MAX`] is the bound.
pub const REQUESTS_QUEUED_MAX: usize = 1000;
/// Runs of requests, 16 bytes each: blocks of one piece, one behind the other. rTorrent knows no `reqq` and asks for
/// three seconds' worth: at 330 MB/s 66,000 blocks, which pieces of 256 KiB make 4100 runs.
pub const REQUEST_RUNS_MAX: usize = 8192;
/// Runs that a cancel is looked for in: those that leave next. A walk costs a microsecond.
pub const REQUEST_RUNS_CANCELLED_MAX: usize = 1000;
/// Requests above the queue's bound that we reject before the connection ends.
pub const REJECTS_MAX: u32 = 50;
/// Requests from a peer that we choke, before the connection ends. A full pipeline may cross our choke on its way.
pub const REQUESTS_WHILE_CHOKED_MAX: u32 = 2000;
/// Bytes of answers waiting for one peer; a peer that makes us say more without reading is closed. What we say of our own
/// accord is not counted: beyond as much, haves are merged and nothing is asked.
pub const CONTROL_QUEUED_LEN_MAX: usize = 64 * 1024;
/// Words in a second of one connection that neither ask for a block nor bring one: messages, and every 64 bytes of what they
/// carry. Above it the connection is not read until the next second. A peer that takes 4 Gbit/s in pieces of 16 KiB tells of
/// as many pieces; reading them takes a few milliseconds.
pub const WORDS_PER_SECOND_MAX: u64 = 32_768;
/// Requests in flight that a peer's own `reqq` may allow us; libtorrent tells 2000 at most, others 250 to 500.
pub const REQUESTS_TOLD_MAX: u32 = 2000;
/// Pieces a peer may allow us while it chokes us, or suggest, that we remember (BEP 6 suggests ten).
pub const ALLOWED_FAST_TAKEN_MAX: usize = 32;
/// Time a choking peer of the fast extension has to answer what it was asked; then the blocks are asked of others.
pub const CHOKED_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Pieces that a peer may say it has lost (BEP 54) before the connection ends.
pub const DONT_HAVES_MAX: u32 = 64;
/// Rejects in a row, without a block between them, from a peer that does not choke us, before the connection ends.
pub const REJECTS_IN_A_ROW_MAX: u32 = 2000;
/// Bytes of blocks that a peer may send without being asked, as when they cross a cancel, before the connection ends;
/// a quarter of what it was asked for comes on top.
pub const WASTE_FREE_LEN: u64 = 4 * 1024 * 1024;
/// Cancelled requests of a connection whose blocks may still come without being waste: more are never under way.
pub const CANCELS_REMEMBERED_MAX: usize = 1024;
/// Bytes of a peer's client name (`v`, BEP 10) that we keep for show; the rest is cut off.
pub const CLIENT_NAME_LEN_MAX: usize = 64;
/// Bytes of an info dictionary that we take from peers and give to them; a larger `metadata_size` is ignored. Peers choose
/// it, so it is half of what a file of the user's own may have: 1.6 million pieces.
pub const METADATA_LEN_MAX: u32 = 32 * 1024 * 1024;
/// Pieces of the info dictionary that a peer may have asked for and not got yet; above it they are rejected.
pub const METADATA_REQUESTS_QUEUED_MAX: usize = 64;
/// Time in which a peer that has had the info dictionary twice earns one more piece of it.
pub const METADATA_PIECE_INTERVAL: Duration = Duration::from_secs(1);
/// Requests for pieces of the info dictionary that we reject before they are not answered any more.
pub const METADATA_REJECTS_MAX: u32 = 50;
/// Time that a peer has to answer a request for a piece of an info dictionary before it is asked for something again.
pub const METADATA_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which one more peer may be asked for a piece of an info dictionary: at 10 kB/s one comes in less.
pub const METADATA_LATE: Duration = Duration::from_secs(2);
/// Time for which a peer that rejects such a request is left alone; doubles each time.
pub const METADATA_REJECT_PATIENCE_MIN: Duration = Duration::from_secs(10);
/// The longest such time.
pub const METADATA_REJECT_PATIENCE_MAX: Duration = Duration::from_secs(120);
/// Peers that one info dictionary is put together from.
pub const METADATA_PEERS_MAX: usize = 100;
/// Lengths told by peers that are followed at once.
pub const METADATA_SIZES_MAX: usize = 16;
/// Bytes held for all of them: two of the longest, so that one that never becomes whole leaves room for another.
pub const METADATA_HELD_LEN_MAX: usize = 2 * METADATA_LEN_MAX as usize;
/// Bytes of one dictionary that was wrong once, given by several peers side by side, each all of it; a longer one is taken
/// from one peer after the other.
pub const METADATA_FED_LEN_MAX: usize = 4 * 1024 * 1024;
/// Time in which a dictionary that has memory while others wait for some has to gain a piece a second; otherwise it goes
/// behind them. Who tells a great length and drips cannot keep the right one out.
pub const METADATA_TURN: Duration = Duration::from_secs(60);
/// Time a connection has to complete its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which a connection is closed. BEP 3 has peers send keep-alives every two minutes.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(240);
/// Our own silence after which we send a keep-alive (BEP 3).
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(110);
/// Time one send may take before the connection is closed: below about 1 KiB a second a peer only holds memory.
pub const SEND_STALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Pieces granted to a choked peer by allowed-fast (BEP 6 suggests ten).
pub const ALLOWED_FAST_MAX: usize = 10;
/// Bytes a choked peer may take of them in one connection, however long the pieces are.
pub const ALLOWED_FAST_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Time until peers of one address prefix are granted allowed-fast pieces of a torrent again, by one worker: coming
/// back is no way around the choker.
pub const ALLOWED_FAST_INTERVAL: Duration = Duration::from_secs(600);
/// Such grants that a worker remembers; above it there are none until some are forgotten.
pub const ALLOWED_FAST_GRANTS_MAX: usize = 16_384;

// --- Between cores -----------------------------------------------------------------------------------------

/// Time between two words of a connection to its home about one and the same thing: where its peer listens, or all that
/// it has. Whoever says it more often is heard of as late.
pub const NEWS_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two wishes of a connection that do not follow an answer to the one before: its peer chokes to and fro, or
/// changes how many requests it takes. Honest peers do that once in seconds.
pub const WISH_CHANGE_INTERVAL: Duration = Duration::from_millis(200);
/// Pieces that a worker has its peers' homes count anew in a second, at about twelve nanoseconds each: a tenth of a core.
pub const RECOUNTED_PIECES_MAX: u64 = 8_000_000;
/// Those of one address prefix, loopback exempt; more has to wait for the next second.
pub const RECOUNTED_PIECES_PER_PREFIX_MAX: u64 = RECOUNTED_PIECES_MAX / 4;
/// Decisions about one connection that wait for room in its worker's mailbox. As many blocks as a torrent has in flight
/// fit, asked and cancelled; a connection with more is closed.
pub const ORDERS_WAITING_MAX: usize = 16_384;
/// Events about single peers that a worker keeps for a session that does not keep up; above it the oldest goes.
pub const PEER_EVENTS_UNSENT_MAX: usize = 4_096;

// --- Encrypted handshakes ----------------------------------------------------------------------------------

/// Public keys that a worker answers in a second, two powers of 768 bits each: about a tenth of a core. Peers beyond that
/// wait, those whose site was answered least lately first, and are closed when their time for the handshake is over; who
/// speaks plaintext is not delayed.
pub const MSE_ANSWERS_MAX: u32 = 400;
/// Those of one site (/24, /48), loopback exempt.
pub const MSE_ANSWERS_PER_PREFIX_MAX: u32 = 40;
/// Time in which a part of them is answered: so long does a site wait that has asked for nothing lately, and the work of one
/// such turn delays others by a few milliseconds.
pub const MSE_ANSWERS_TURN: Duration = Duration::from_millis(100);
/// Bytes of a pad in an encrypted handshake (MSE); a longer one ends the connection.
pub const MSE_PAD_LEN_MAX: usize = 512;
/// Bytes of initial payload that a peer may send along with its encrypted handshake. Its field could say 65535, but
/// nobody is known to send more than a handshake's 68; extension handshake and bitfield of a usual torrent fit, too.
pub const MSE_INITIAL_PAYLOAD_LEN_MAX: usize = 4096;

/// Bytes of pieces of one torrent that are begun and not yet verified and stored: 256 of the usual length. Longer pieces
/// may go above it up to `PIECES_IN_FLIGHT_LEAST`.
pub const PIECES_IN_FLIGHT_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Pieces of one torrent that may be begun however long they are, so that several peers have something to do, as long
/// as they have no more than `LONG_PIECES_IN_FLIGHT_LEN_MAX` bytes; of the longest pieces two.
pub const PIECES_IN_FLIGHT_LEAST: u64 = 8;
/// Bytes of those.
pub const LONG_PIECES_IN_FLIGHT_LEN_MAX: u64 = 256 * 1024 * 1024;
/// Time between two tries to store pieces that the disk has refused.
pub const STORAGE_RETRY_INTERVAL: Duration = Duration::from_secs(10);

// --- Connections -------------------------------------------------------------------------------------------

/// Workers of one process: more cores than any machine has that we know of. Each has a ring, a mailbox and threads.
pub const WORKERS_MAX: u16 = 1024;
/// Connections of one worker.
pub const CONNECTIONS_PER_WORKER_MAX: usize = 32_768;
/// Connections of a torrent up to which we dial the peers that trackers name; beyond it they have to come to us.
pub const DIALLED_PER_TORRENT_MAX: u64 = 200;
/// Connections of one address prefix (/24, /64), over all workers, unless the user says otherwise. A campus behind
/// one prefix fits, a crowd of one party's addresses does not. Loopback is exempt.
pub const CONNECTIONS_PER_PREFIX_MAX: u32 = 512;
/// Time for which a connection that we end is read on, so that a reset does not destroy what the peer has not read yet.
pub const LINGER_TIME: Duration = Duration::from_secs(2);
/// The same of all connections when the process ends; shorter than what a worker has for its end.
pub const LINGER_TIME_AT_END: Duration = Duration::from_millis(500);
/// Bytes that are read and thrown away of a connection that we end.
pub const LINGER_LEN_MAX: u64 = 4 * 1024 * 1024;
/// Connections of one worker that have not completed their handshake; above it the oldest of the site that has most is
/// closed.
pub const HALF_OPEN_PER_WORKER_MAX: usize = 4_096;
/// Connections from one site (/24, /48) of one worker without a finished handshake.
/// Loopback is exempt, since every local test would meet it.
pub const HALF_OPEN_PER_PREFIX_MAX: usize = 256;

// --- Peer list and peer exchange ---------------------------------------------------------------------------

/// Addresses of one torrent that we know and could dial; above it the worst goes. libtorrent keeps 3000.
pub const CANDIDATES_PER_TORRENT_MAX: usize = 3_000;
/// Those at one address (IPv4) or network (/64 of IPv6), unless the user named them. Local networks are exempt.
pub const CANDIDATES_PER_ADDRESS_MAX: usize = 8;
/// Those that one connection may name by peer exchange: four minutes of it at full speed. Nobody fills the list alone.
pub const CANDIDATES_PER_TELLER_MAX: u32 = 200;
/// Connections of a torrent that are being dialled at once.
pub const DIALLING_PER_TORRENT_MAX: usize = 30;
/// Addresses that lead to one connection (its own, other families, other ports); further ones are not linked to it.
pub const ADDRESSES_PER_CONNECTION_MAX: usize = 4;
/// Patience after the first failure to reach a peer: it may just have been restarting.
pub const DIAL_RETRY_QUICK: Duration = Duration::from_secs(5);
/// Patience after the second failure; doubles with each further one.
pub const DIAL_RETRY_MIN: Duration = Duration::from_secs(15);
/// Longest patience, before a quarter of jitter.
pub const DIAL_RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// Patience with a peer that broke the protocol: it will not have learnt it sooner.
pub const PROTOCOL_ERROR_RETRY_MIN: Duration = Duration::from_secs(10 * 60);
/// Time after which a connection counts as a success, and its peer's failures as forgotten.
pub const CONNECTION_STABLE_TIME: Duration = Duration::from_secs(60);
/// Silence after which a connection gives way to a second one of the same peer. Keep-alives come every two minutes.
pub const DUPLICATE_IDLE_TIME: Duration = Duration::from_secs(150);
/// Time a peer's first ban lasts; doubles with each further one.
pub const BAN_TIME_MIN: Duration = Duration::from_secs(60 * 60);
/// Longest ban.
pub const BAN_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Peer ids banned at one address with which the address itself is banned: one liar behind a router is not the whole house,
/// and three names in an hour are one who changes his.
pub const BANNED_NAMES_PER_ADDRESS_MAX: usize = 3;
/// Bans of one torrent; above it the one that ends first is lifted.
pub const BANS_MAX: usize = 4_096;
/// Addresses of our own that we remember never to dial; above it the oldest is forgotten.
pub const OWN_ADDRESSES_MAX: usize = 16;
/// Networks whose word about our address (`yourip`) is kept.
pub const OWN_ADDRESS_VOTES_MAX: usize = 16;
/// Networks that have to agree on it.
pub const OWN_ADDRESS_VOTES_MIN: usize = 3;
/// Peers added, and peers dropped, that one message of peer exchange may have (BEP 11); more are not looked at.
pub const PEX_PEERS_MAX: usize = 50;
/// Bytes of a message of peer exchange; a longer one is not looked at. Two hundred peers of IPv6 have half as much.
pub const PEX_PAYLOAD_LEN_MAX: usize = 8 * 1024;
/// Time between two messages of peer exchange to one peer (BEP 11).
pub const PEX_INTERVAL: Duration = Duration::from_secs(60);
/// Time between two messages of peer exchange from one peer below which the second is ignored: clocks differ.
pub const PEX_INTERVAL_MIN: Duration = Duration::from_secs(55);
/// Messages from a new peer that may come sooner: some tell at once, and then once a minute of their own.
pub const PEX_MESSAGES_FREE: u32 = 2;
/// Time from a peer's arrival to our first message of peer exchange.
pub const PEX_FIRST_DELAY: Duration = Duration::from_secs(5);
/// Time between two looks at a torrent's peers for all messages that are due: in a swarm of ten thousand one look takes
/// about a millisecond.
pub const PEX_BATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Time until we look again when there was nothing to tell.
pub const PEX_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Peers that one peer is told of and that have not been dropped since; above it there is nothing to add.
pub const PEX_TOLD_MAX: usize = 200;
/// Messages of peer exchange too many, or broken, after which a peer is closed. A good one makes up for a bad one.
pub const PEX_OFFENCES_MAX: u32 = 10;

// --- Convictions -------------------------------------------------------------------------------------------

/// Blocks of failed pieces whose hashes and contributors are remembered; above it the oldest piece's are forgotten.
/// About 5 MB.
pub const SUSPECT_BLOCKS_MAX: usize = 65_536;

/// Address prefixes (/24, /64) of one torrent that left with a debt and are remembered, of each kind of debt; above it the
/// one that would be forgotten first goes. About 300 KB.
pub const PREFIX_DEBTS_MAX: usize = 4_096;

// --- Choker ------------------------------------------------------------------------------------------------

/// Time between two rounds of the choker (BEP 3).
pub const CHOKE_ROUND_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two turns of the optimistic slot (BEP 3).
pub const OPTIMISTIC_INTERVAL: Duration = Duration::from_secs(30);
/// Regular slots while leeching: the textbook's four.
pub const REGULAR_SLOTS: usize = 4;
/// Slots that `--upload-slots auto` opens for one torrent at most.
pub const UPLOAD_SLOTS_AUTO_MAX: usize = 4_096;
/// Upload rate of a slot, in bytes a second, below which auto holds fewer slots to be of more use to each peer.
pub const SLOT_RATE_MIN: u64 = 16 * 1024;
/// Upload rate of a slot, in bytes a second, above which auto splits it rather than let an interested peer wait.
pub const SLOT_RATE_PLENTY: u64 = 256 * 1024;
/// Pieces a seed's unchoked peer may take before its slot goes to one that waits.
pub const SEED_QUANTUM_PIECES: u64 = 3;
/// Time a seed's unchoked peer may hold its slot while others wait.
pub const SEED_QUANTUM_TIME: Duration = Duration::from_secs(60);
/// Time during which a peer is a newcomer, three times as likely to be the optimistic choice (BEP 3).
pub const NEWCOMER_TIME: Duration = Duration::from_secs(30);
/// Time between two considerations of one peer, or of one torrent's waiting peers, outside the rounds. A peer that
/// flips its interest a thousand times a second costs one look a second.
pub const FILL_INTERVAL: Duration = Duration::from_secs(1);

/// Time that the holder of a slot has for its first request while others wait: a slow round trip. Doubles each time that
/// its request turns out to have come later, up to eight times as long.
pub const SLOT_UNUSED_TIME: Duration = Duration::from_secs(1);
/// Such doublings.
pub const SLOT_UNUSED_DOUBLINGS_MAX: u32 = 3;
/// Slots beyond those that there are, for peers that are tried because those before them never asked. They double each
/// second; so a line of two hundred who never ask is through in ten.
pub const SLOT_TRIALS_MAX: usize = 64;
/// Time within which a request that came too late for a slot shows that its holder had wanted it.
pub const SLOT_LATE_REQUEST_TIME: Duration = Duration::from_secs(15);
/// Bytes a second at which who has taken blocks is thought to be still receiving them: the slowest line that is served.
/// So long it need not ask for more, up to a round of the choker.
pub const SLOT_LINE_RATE_MIN: u64 = 4 * 1024;
/// Time for which a peer that made no use of its slot stands behind all others; doubles with each further time.
pub const PASSED_OVER_TIME_MIN: Duration = Duration::from_secs(2 * 60);
/// Longest such time.
pub const PASSED_OVER_TIME_MAX: Duration = Duration::from_secs(60 * 60);

// --- Super-seeding -----------------------------------------------------------------------------------------

/// Time that a super-seed waits for a piece it showed to spread, before it shows that peer another: a megabyte
/// passed on at 20 kB/s and more.
pub const SUPERSEED_PATIENCE: Duration = Duration::from_secs(60);
/// Time that a super-seed keeps a piece for a peer that does not ask for it, or takes nothing of it: some slow round trips.
/// Later the piece may be shown to others.
pub const SUPERSEED_ASK_TIME: Duration = Duration::from_secs(3);
/// Time that it keeps a piece for peers that have passed nothing on yet, while one that has waits and no other piece is left.
pub const SUPERSEED_DOUBT_TIME: Duration = Duration::from_secs(1);
/// Time that it keeps a piece for who took it to pass it on, while it is not known how long that takes in this swarm; and for
/// who asks and receives nothing, as slots may be few.
pub const SUPERSEED_SPREAD_TIME: Duration = Duration::from_secs(15);
/// When it is known, so many times as long. Who is much slower than others holds nobody up.
pub const SUPERSEED_SPREAD_TIMES: u32 = 4;
/// But no less than this.
pub const SUPERSEED_SPREAD_TIME_MIN: Duration = Duration::from_secs(5);
/// The part of a torrent's pieces that peers of one address prefix (/24, /64) may be shown at a time: one in so many.
/// Loopback is exempt, and a prefix that is alone.
pub const SUPERSEED_PREFIX_SHARE: u32 = 4;
/// They may always be shown so many.
pub const SUPERSEED_PREFIX_PIECES_MIN: u32 = 4;
/// Time that a super-seed waits for a newcomer's word about what it has before it shows it a piece.
pub const SUPERSEED_STOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Haves that wait for a peer one by one, 9 KB; further ones are merged, and as many go out with one send.
pub const HAVES_PER_SEND_MAX: usize = 1000;

// --- Data path ---------------------------------------------------------------------------------------------

/// Bytes of one send at most: 1 MiB keeps the worker busy for about 0.25 ms.
pub const BATCH_LEN_MAX: u32 = 1024 * 1024;
/// Bytes of one send at least, when that much is asked: below 64 KiB the cost of a send shows.
pub const BATCH_LEN_MIN: u32 = 4 * crate::units::BLOCK_LEN;
/// Bytes of a connection's first send, before anything is known about the line to its peer.
pub const BATCH_LEN_START: u32 = 256 * 1024;
/// Bytes of blocks in one send of an encrypted connection: they are copied and encrypted first, at about 1 GB/s, so
/// this is a quarter of a millisecond of the worker's time and what each such send holds in memory.
pub const ENCRYPTED_BATCH_LEN_MAX: u32 = 256 * 1024;
/// Bytes of messages made in memory of a worker's own (encrypted or gathered blocks, pieces of an info dictionary, many control
/// bytes) that the kernel has not taken yet: what four hundred connections need with a block each, or 32 with a whole batch, while the lines of all are full. Who finds no room waits in line.
pub const COPIED_LEN_MAX: u64 = 8 * 1024 * 1024;
/// Those of them that are for prefixes which hold next to nothing.
pub const COPIED_LEN_RESERVED: u64 = COPIED_LEN_MAX / 4;
/// Those of one address prefix (/24, /64), loopback not exempt.
pub const COPIED_PER_PREFIX_MAX: u64 = COPIED_LEN_MAX / 4;
/// Those of a prefix that may use what is reserved: the longest block. One that holds nothing may have one message in any case.
pub const COPIED_PER_POOR_PREFIX_MAX: u64 = 128 * 1024;
/// One message has at most one part in so many of what is left, so that the last room is shared by many.
pub const COPIED_PART_AT_ONCE: u64 = 32;
/// A connection has at most one byte encrypted at once for so many that it has taken, or one block: who never reads is given
/// little ahead.
pub const COPIED_PER_TAKEN: u64 = 8;
/// Bytes of such a message that are not counted: what a slot takes anyway.
pub const MESSAGE_LEN_UNCOUNTED: usize = 4096;
/// Time for which a connection's message stands still before the connection may go in favour of others that wait for the
/// memory: a block at 3 KiB a second.
pub const STANDSTILL_TIME_MIN: Duration = Duration::from_secs(5);
/// Bytes of all connections of a worker for queued requests, control bytes and messages that have arrived in part, each counted
/// from [`QUEUED_LEN_UNTROUBLED`] on, so that peers that read have next to none of it. Above it those who have any are
/// read once a second.
pub const QUEUED_LEN_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one connection for that which are never too many: 256 requests in any order.
pub const QUEUED_LEN_UNTROUBLED: usize = 4096;
/// Active connections of one worker up to which each may send `BATCH_LEN_MAX` at once.
pub const BATCH_QUOTA_WHOLE_CONNECTIONS: usize = 64;
/// Active connections of one worker from which each sends at most `BATCH_QUOTA_LEAST` at once, so that none waits
/// long for its turn.
pub const BATCH_QUOTA_LEAST_CONNECTIONS: usize = 200;
/// Bytes of such a send: 40 blocks, which is what a peer has usually asked for. In two sends and more the same bytes cost
/// a sixth more processor time at 200 to 1,000 connections.
pub const BATCH_QUOTA_LEAST: u32 = 40 * crate::units::BLOCK_LEN;
/// Bytes that a worker hands to the kernel in a turn, at least: a millisecond of copying, so that receives need not wait.
pub const TURN_LEN_MIN: u64 = 4 * 1024 * 1024;
/// Bytes of a turn for each active connection: with many of them each waits for all others anyway, and who is heard less
/// often has asked for more by then. Longer turns saved a tenth of the processor time at 1,000 connections.
pub const TURN_LEN_PER_CONNECTION: u64 = 64 * 1024;
/// Bytes of a turn at most: four milliseconds.
pub const TURN_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Longest wait that the rate gate proposes, so that a changed limit is noticed soon.
pub const RATE_RETRY_MAX: Duration = Duration::from_secs(1);
/// Bytes the kernel keeps for one peer that its line has not taken yet (TCP_NOTSENT_LOWAT). Without a bound a peer that
/// reads nothing fills its whole send buffer, four megabytes; what a fast line needs on its way is not counted here.
pub const UNSENT_LEN_MAX: u32 = 1024 * 1024;
/// Windows of 256 KiB that a worker has one device read at once: the depth at which fast devices are busy. Further
/// ones wait in line; whoever reads ahead does so only while there is room.
pub const FETCHES_PER_DEVICE_MAX: usize = 32;
/// Time until a window is read again whose read failed for want of memory or threads; doubles each time.
pub const FETCH_RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest such time.
pub const FETCH_RETRY_MAX: Duration = Duration::from_secs(3);
/// Kernel threads of one worker that fetches may hold: as many as 32 devices that all hang take.
pub const FETCH_THREADS_MAX: u32 = 1024;
/// Places of a connection's queue, of 256 KiB at most, that are looked at to read ahead.
pub const READ_AHEAD_WINDOWS_MAX: usize = 32;
/// Batches that are read ahead, so that who takes little has little read for him that is gone again when he takes it.
pub const READ_AHEAD_BATCHES: u64 = 8;
/// Zero-copy bytes of one connection that the kernel has not yet released; above it sends copy.
pub const ZERO_COPY_UNNOTIFIED_MAX: u64 = 4 * 1024 * 1024;

// --- Request pipeline, downloading ---------------------------------------------------------------------------

/// Bytes asked of one peer at once: fills 1 Gbit/s over 100 ms. More would only hold memory of pieces in flight.
pub const REQUESTED_LEN_MAX: u32 = 16 * 1024 * 1024;
/// Requests in flight to a peer that did not say how many it takes (`reqq`, BEP 10): what libtorrent assumes.
pub const REQUESTS_UNTOLD_MAX: u32 = 250;
/// Requests of the first round trip: 128 KiB, fourteen seconds at 10 kB/s at worst.
pub const REQUESTS_START: u32 = 8;
/// Requests kept in flight to the slowest peer, so that its line does not fall idle between two blocks.
pub const REQUESTS_LEAST: u32 = 2;
/// Time of a peer's measured rate that is asked of it at once at most, whatever its delay.
pub const REQUESTED_TIME_MAX: Duration = Duration::from_secs(10);
/// Time without a block after which a peer that owes us some has snubbed us (BEP 3).
pub const SNUB_TIMEOUT: Duration = Duration::from_secs(60);
/// Time a request has at least before its blocks may be asked of others: a short stall is no loss.
pub const REQUEST_LATE_MIN: Duration = Duration::from_secs(6);
/// Time a request has at most before its blocks may be asked of others; shorter than `SNUB_TIMEOUT`.
pub const REQUEST_LATE_MAX: Duration = Duration::from_secs(45);
/// Time a request has while nothing is known of its peer's rate.
pub const REQUEST_LATE_START: Duration = Duration::from_secs(20);

// --- Metrics -----------------------------------------------------------------------------------------------

/// Torrents shown one by one in the metrics; with more only those with the most peers are, since each costs whoever
/// stores them eight series. About 0.2 MB of text, 0.4 MB with the longest names.
pub const METRICS_TORRENTS_MAX: usize = 200;
/// Torrents shown one by one in each second's figures of `--json`, those with the most peers: 40 KB a second.
pub const STATUS_TORRENTS_MAX: usize = 100;
/// Connections of a worker that are looked at in one second to ask the kernel what limits them (TCP_INFO): each question
/// costs about a microsecond.
pub const TCP_INFO_LOOKS_MAX: usize = 1_024;
/// HTTP connections to the metrics; above it the site with most of them loses its oldest. Each may hold one text.
pub const METRICS_CONNECTIONS_MAX: usize = 32;
/// Those from one address (IPv4) or network (/64 of IPv6), loopback exempt.
pub const METRICS_CONNECTIONS_PER_ADDRESS_MAX: usize = 8;

// --- Storage -----------------------------------------------------------------------------------------------

/// Bytes of the buffers that hash together, one piece a thread; larger pieces get fewer threads.
pub const HASH_BUFFERS_LEN_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of a resume file we read: the stamps of all files that a .torrent's tokens allow.
pub const RESUME_FILE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// First bytes of a figure within which its mark is looked for: the head of an SVG or PNG is shorter.
pub const FIGURE_MARK_WITHIN: u64 = 1024;
/// Whole pieces that wait for the storage threads; above it they are given back. Memory bounds them well before.
pub const PIECES_TO_FINISH_MAX: usize = 4096;

/// Blocks that one connection holds aside because somebody else has begun to write them, and cannot end.
pub const BLOCKS_HELD_MAX: usize = 4;
/// Time between two looks whether they have given up.
pub const HELD_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Seconds for which a worker holds content open that nobody asks for.
pub const CONTENT_IDLE_TICKS: u64 = 60;
/// Files open for content that is opened on demand, however many descriptors and mappings a process may have: each
/// costs kernel memory, and none is worth having that nobody has asked for in a minute.
pub const OPEN_FILES_MAX: usize = 32 * 1024;
/// Bytes of info dictionaries that a worker has had read again because peers asked for them; a single longer one is
/// held all the same.
pub const INFO_HELD_LEN_MAX: usize = 8 * 1024 * 1024;
/// Files of one torrent that are opened together; of a torrent with more, those of a part are opened when a peer asks for
/// something in it. A part of the process's share may be less.
pub const PART_FILES_MAX: usize = 256;
/// Files of one torrent that are open to be written to, when they are more than may be open in all. A part of the process's
/// share may be less. More would make the file system's journal no fuller.
pub const WRITTEN_FILES_MAX: usize = 256;
/// Files of one such torrent that are looked at each time: a hundred thousand every two seconds would cost a quarter of a core.
pub const FILES_PER_LOOK_MAX: u32 = 4096;
/// Bytes of a torrent's shortest part that is opened by itself; parts are multiples of it.
pub const PART_LEN_STEP: u64 = 128 * 1024;
/// Threads that open, close and look at files for who must not wait; half as many are the file systems that may hang before
/// others wait for them.
pub const FILE_THREADS_MAX: usize = 64;
/// Those of them that go into one file system at once.
pub const FILE_THREADS_PER_DEVICE_MAX: usize = 2;
/// File systems whose files are looked after, and written, by threads of their own each; further ones share theirs with
/// others.
pub const DEVICE_LANES_MAX: usize = 16;
/// Time for which want of descriptors, memory or threads is waited out where somebody may wait: longer than connections
/// without a handshake live.
pub const SHORTAGE_PATIENCE: Duration = Duration::from_secs(30);
/// Time between two tries meanwhile.
pub const SHORTAGE_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Time after which the user is told of a shortage again.
pub const SHORTAGE_TOLD_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Time for which who opens content waits for other content to be closed in its place.
pub const ROOM_PATIENCE: Duration = Duration::from_millis(200);
/// Time without any progress after which storage that is asked to finish counts as hung and is left behind.
pub const STORAGE_END_PATIENCE: Duration = Duration::from_secs(15);
/// Descriptors that a process needs whoever comes, in one part of what it may have: trackers that are asked, logs, resume and
/// torrent files.
pub const DESCRIPTORS_KEPT_PART: usize = 8;

// --- Picker ------------------------------------------------------------------------------------------------

/// Connections that owe us one block at once, in the endgame or when the first of them is snubbed.
pub const BLOCK_OWED_MAX: usize = 2;
/// Pieces begun and not verified, unless the caller knows how much memory there is: 64 of 4 MiB are 256 MiB.
pub const PIECES_IN_FLIGHT_MAX: usize = 64;
/// Pieces to verify before rarest first begins: something to give soon.
pub const RANDOM_FIRST_PIECES: u32 = 4;
/// Pieces in order of rarity that one choice looks at before it goes through the peer's own pieces instead.
pub const PICK_WALK_MAX: usize = 4_096;
/// Pieces of the peer that such a choice compares; with more it takes the best of a random stretch of so many.
pub const PICK_SAMPLE_MAX: usize = 1_024;
/// Blocks in flight that one question in the endgame compares to find the slowest.
pub const ENDGAME_SAMPLE_MAX: usize = 4_096;
/// Peers whose rates differ by no more than this factor share pieces.
pub const SPEED_CLASS_FACTOR: u64 = 4;

// --- What is printed -----------------------------------------------------------------------------------------

/// Bytes that wait for a reader of stdout, and as many for one of stderr: a minute of JSON at its fullest. What comes
/// beyond is left out and counted.
pub const OUTPUT_QUEUE_LEN_MAX: usize = 4 * 1024 * 1024;
/// Time at the end of the process for which nothing of what waits may be taken, before it is given up.
pub const OUTPUT_STALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Time at the end of the process for all that waits.
pub const OUTPUT_FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of the log in a second, of those worth a warning.
pub const LOG_LINES_MAX: u32 = 20;
/// The same of `SEEDRING_LOG=debug`, which strangers cause: a gigabyte a day at most.
pub const LOG_DEBUG_LINES_MAX: u32 = 100;
/// Lines in a second about what strangers say of themselves or do: who has completed, who was banned.
pub const NEWS_OF_STRANGERS_MAX: u32 = 10;

// --- Starting and ending -------------------------------------------------------------------------------------

/// Time for which an address is tried that somebody has: the kernel may take some hundred milliseconds to close what an
/// ended process left behind in its rings.
pub const BIND_PATIENCE: Duration = Duration::from_secs(1);
/// Time between two such tries.
pub const BIND_RETRY_INTERVAL: Duration = Duration::from_millis(20);

// --- The first announce of each torrent ------------------------------------------------------------------------

/// Time between the first announces of two torrents that wait for theirs: fifty a second.
pub const FIRST_ANNOUNCE_SPREAD: Duration = Duration::from_millis(20);

// --- Torrents that come and go ------------------------------------------------------------------------------

/// Looks at torrents of one group (a folder, or a torrent that was named) under way at once: those that hang with their file
/// system hold no more.
pub const LOOKS_PER_GROUP_MAX: usize = 4;
/// Time after which a file system that has not answered is taken for one that hangs, at the start: whoever can goes on without
/// it. One that was only slow, as a disk that has to start turning, is served a little later.
pub const SILENCE_TIME: Duration = Duration::from_secs(5);
/// Threads that load torrents at the start, those that hang among them: more than there are file systems to hang.
pub const LOADING_THREADS_MAX: usize = 64;
/// Threads that check content, one a device: so many are the disks that may hang before others wait for them.
pub const CHECKING_THREADS_MAX: usize = 16;
/// Time until what has vanished is looked for again; twice as long each time.
pub const LOOK_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest such time: content that comes back is served within a minute.
pub const LOOK_RETRY_MAX: Duration = Duration::from_secs(60);
/// Names tried for a file that is kept aside, before the download says that it cannot keep it: that many were kept already.
pub const ASIDE_NAMES_MAX: u32 = 100;
/// Time between two listings of a folder of which the kernel tells nothing: others may write to a network mount.
pub const FOLDER_LIST_INTERVAL: Duration = Duration::from_secs(10);
/// So many times what a listing takes is the shortest time between two: a slow folder costs a twentieth of its time.
pub const FOLDER_LIST_SHARE: u32 = 20;
/// Torrents that have left and are remembered for their return; above it those of the smallest info-hashes are forgotten, whose totals
/// are then read from their resume files.
pub const DEPARTED_MAX: usize = 100_000;

// --- Files that are numbered anew ----------------------------------------------------------------------------

/// Pieces of a torrent whose hashes are kept to look again at files that have other numbers than before; one in each of so many
/// parts of the torrent. 96 bytes a torrent.
pub const SECOND_LOOK_PIECES_MAX: usize = 4;
/// Bytes of those pieces together, if that is more than one piece: what a second look may have to read.
pub const SECOND_LOOK_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Time between two looks at a torrent's pieces because files were changed without being written to, as it seems: others may
/// change modes, owners and names as often as they like.
pub const TOUCHED_LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Time without anything from the peer after which a block that it owes may be asked of one more that gives.
pub const BLOCK_SILENCE_MAX: Duration = Duration::from_secs(2);
/// Time between two looks at peers that give and could be asked for more than there is to ask for.
pub const WISH_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which an address prefix that left, owed blocks and had given none waits for blocks while others give; doubles
/// with each further time.
pub const BLOCK_DEBT_TIME_MIN: Duration = Duration::from_secs(30);
/// Longest such time.
pub const BLOCK_DEBT_TIME_MAX: Duration = Duration::from_secs(10 * 60);

const _: () = assert!(MAGNET_DIALLED_MAX <= METADATA_PEERS_MAX);
const _: () = assert!(REQUEST_LEN_MAX.is_multiple_of(crate::units::BLOCK_LEN));
const _: () = assert!(BATCH_LEN_MIN <= BATCH_LEN_MAX);
const _: () = assert!(PIECE_LEN_MAX.is_multiple_of(crate::units::BLOCK_LEN));
const _: () = assert!(BATCH_LEN_MIN <= BATCH_LEN_START && BATCH_LEN_START <= BATCH_LEN_MAX);
const _: () = assert!(BATCH_LEN_MIN <= BATCH_QUOTA_LEAST && BATCH_QUOTA_LEAST <= BATCH_LEN_MAX);
const _: () = assert!(BATCH_QUOTA_WHOLE_CONNECTIONS < BATCH_QUOTA_LEAST_CONNECTIONS);
const _: () = assert!(REQUEST_LEN_MAX <= BATCH_LEN_MAX && REQUEST_LEN_MAX <= ENCRYPTED_BATCH_LEN_MAX);
const _: () = assert!(REQUEST_LEN_MAX as u64 <= COPIED_PER_POOR_PREFIX_MAX);
const _: () = assert!(STANDSTILL_TIME_MIN.as_secs() < SEND_STALL_TIMEOUT.as_secs());
const _: () = assert!(KEEP_ALIVE_INTERVAL.as_secs() < DUPLICATE_IDLE_TIME.as_secs());
const _: () = assert!(DUPLICATE_IDLE_TIME.as_secs() < IDLE_TIMEOUT.as_secs());
const _: () = assert!(PEX_INTERVAL_MIN.as_secs() < PEX_INTERVAL.as_secs());
const _: () = assert!(KEEP_ALIVE_INTERVAL.as_secs() < IDLE_TIMEOUT.as_secs());
const _: () = assert!(ANNOUNCE_INTERVAL_MIN.as_secs() < ANNOUNCE_INTERVAL_MAX.as_secs());
const _: () = assert!(ANNOUNCE_RETRY_MIN.as_secs() < ANNOUNCE_RETRY_MAX.as_secs());
const _: () = assert!(TRACKERS_PER_TORRENT_MAX <= u16::MAX as usize);
const _: () = assert!(REQUESTED_LEN_MAX.is_multiple_of(crate::units::BLOCK_LEN));
const _: () = assert!(REQUESTS_LEAST <= REQUESTS_START);
const _: () = assert!(REQUEST_LATE_MAX.as_secs() < SNUB_TIMEOUT.as_secs());
