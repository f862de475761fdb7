//! Bounds of fetching a torrent by its magnet link.

use crate::time::Duration;

/// Peers dialled or talked to at once for an info dictionary.
pub const MAGNET_DIALLED_MAX: usize = 50;
/// Those of one address prefix (/24, /64), loopback exempt: half, so that no network keeps out all others.
pub const MAGNET_DIALLED_PER_PREFIX_MAX: usize = MAGNET_DIALLED_MAX / 2;
/// Those of one address (IPv4) or network (/64 of IPv6), loopback exempt.
pub const MAGNET_DIALLED_PER_ADDRESS_MAX: usize = 10;
/// Addresses remembered for that; a newcomer beyond it takes the place of one of the prefix with most.
pub const MAGNET_CANDIDATES_MAX: usize = 2_000;
/// Addresses of one tracker's answer that are looked at: each may cost a walk through all that are remembered.
pub const MAGNET_NAMED_AT_ONCE_MAX: usize = 4 * MAGNET_CANDIDATES_MAX;
/// Dials that came to nothing that one wrong dictionary counts as, against its prefix.
pub const MAGNET_LIE_WEIGHT: u32 = 10;
/// Dials to one address that is never reached.
pub const MAGNET_DIALS_PER_PEER_MAX: u32 = 4;
/// Time until an address is dialled again.
pub const MAGNET_REDIAL_INTERVAL: Duration = Duration::from_secs(30);
/// Time for a connection to a peer.
pub const MAGNET_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that each step of a peer may take while others wait for its place: to introduce itself, to tell a length, to give a
/// piece. Peers far away or busy take a second or two.
pub const MAGNET_STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for all steps of one dial together while others wait.
pub const MAGNET_STAY: Duration = Duration::from_secs(15);
/// Time on top for each piece that was given: at 5 KiB/s a peer stays.
pub const MAGNET_STAY_PER_PIECE: Duration = Duration::from_secs(3);
/// Time that a peer may give nothing while nobody waits for its place.
pub const MAGNET_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that sending a few bytes may take.
pub const MAGNET_WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pieces of an info dictionary from one peer that were not asked for or make no sense, before it is left.
pub const MAGNET_USELESS_MAX: u32 = 50;
/// Time without progress after which a magnet link is given up.
pub const MAGNET_PATIENCE: Duration = Duration::from_secs(600);
