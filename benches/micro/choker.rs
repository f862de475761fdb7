//! One round of the choker, which comes every ten seconds for each torrent.

use divan::{Bencher, black_box};
use seedring::choker::{Choker, Decisions, Grant, PeerSnapshot, Role, TorrentLengths};
use seedring::id::{AddressPrefix, ConnId};
use seedring::limits::CHOKE_ROUND_INTERVAL;
use seedring::rng::Rng;
use seedring::time::{Duration, Instant};
use std::net::Ipv4Addr;

const SLOTS: usize = 20;
const PEERS: [u32; 3] = [50, 1_000, super::size(10_000, 2_000)];

/// Peers that have been here for a while: most are interested, four share each prefix.
fn peers(count: u32, rng: &mut Rng) -> Vec<PeerSnapshot> {
    let peer = |slot: u32| {
        let [_, high, middle, low] = (slot * 64).to_be_bytes();
        let joined_at = Instant::ZERO + Duration::from_secs(rng.below(1000));
        PeerSnapshot {
            conn: ConnId { worker: 0, slot, generation: 0 },
            prefix: AddressPrefix::of(Ipv4Addr::new(10 + high, middle, low, 1).into()),
            joined_at,
            interested: !slot.is_multiple_of(8),
            upload_only: false,
            snubbed: slot % 16 == 1,
            grant: Grant::Choked,
            since: joined_at,
            uploaded_in_round: 0,
            downloaded_lately: rng.below(1 << 24),
            uploaded_in_turn: 0,
            taken_total: rng.below(1 << 28),
            passed_over: false,
            reported_pieces: 1 + rng.below(1000) as u32,
        }
    };
    (0..count).map(peer).collect()
}

fn rounds(bencher: Bencher<'_, '_>, count: u32, role: Role) {
    let mut rng = Rng::from_seed(1);
    let mut peers = peers(count, &mut rng);
    let mut choker = Choker::new(TorrentLengths { piece_len: 1 << 18, total_len: 1 << 30 });
    let (mut now, mut decisions) = (Instant::ZERO + Duration::from_secs(1000), Decisions::default());
    bencher.bench_local(|| {
        now += CHOKE_ROUND_INTERVAL;
        choker.round(now, role, SLOTS, &peers, &mut rng, &mut decisions);
        for (peer, &grant) in peers.iter_mut().zip(&decisions.grants) {
            if (peer.grant == Grant::Choked) != (grant == Grant::Choked) {
                peer.since = now;
            }
            peer.grant = grant;
        }
        black_box(&decisions);
    });
}

#[divan::bench(args = PEERS)]
fn round_while_seeding(bencher: Bencher<'_, '_>, count: u32) {
    rounds(bencher, count, Role::Seeding);
}

#[divan::bench(args = PEERS)]
fn round_while_leeching(bencher: Bencher<'_, '_>, count: u32) {
    rounds(bencher, count, Role::Leeching);
}
