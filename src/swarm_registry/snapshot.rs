//! A registry as bytes, piece by piece, so that a tracker knows its swarms again after a restart.
//!
//! A piece holds whole swarms: info-hash, completed downloads, the site that founded it, how long it has been silent, and
//! its peers, each with how long it has been silent. Times are spans and not points, since another process has another
//! clock; the reader adds how long the bytes have lain about. Numbers are little-endian. Reading never panics and keeps to
//! the registry's bounds, whatever the bytes are.

use super::family::Family;
use super::peer_set::{PeerSet, Role};
use super::{Swarm, SwarmRegistry, seconds};
use crate::id::{InfoHash, Site};
use crate::limits::{PEERS_PER_SWARM_MAX, SWARM_LINGER};
use crate::time::{Duration, Instant};
use std::ops::Bound;

/// The bytes are no piece of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a piece of the tracker's memory is damaged")]
pub struct DamagedPiece;

impl SwarmRegistry {
    /// Appends whole swarms to `out`, beginning behind `after`, until it holds `len_wanted` bytes or all are told. Returns
    /// the last swarm told, behind which the next piece begins; `None` when there was none.
    pub fn write_piece(
        &self,
        now: Instant,
        after: Option<InfoHash>,
        len_wanted: usize,
        out: &mut Vec<u8>,
    ) -> Option<InfoHash> {
        let now_secs = seconds(now);
        let mut last = None;
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (info_hash, swarm) in self.swarms.range((begin, Bound::Unbounded)) {
            if out.len() >= len_wanted {
                break;
            }
            out.extend_from_slice(&info_hash.0);
            out.extend_from_slice(&swarm.completed.to_le_bytes());
            out.extend_from_slice(&swarm.founder.number().to_le_bytes());
            out.extend_from_slice(&now_secs.saturating_sub(swarm.announced_secs).to_le_bytes());
            // Bounded by PEERS_PER_SWARM_MAX.
            out.extend_from_slice(&(swarm.v4.len() as u32).to_le_bytes());
            out.extend_from_slice(&(swarm.v6.len() as u32).to_le_bytes());
            write_peers(&swarm.v4, now_secs, out);
            write_peers(&swarm.v6, now_secs, out);
            last = Some(*info_hash);
        }
        last
    }

    /// Enters what [`Self::write_piece`] wrote `age` ago. Peers that have been silent for too long by now are left out, and
    /// so are torrents that `admits` refuses, those that are known, and what is above the bounds.
    ///
    /// # Errors
    /// When the bytes are no such piece. The registry is then not to be used: it may hold a part of it.
    pub fn read_piece(
        &mut self,
        now: Instant,
        age: Duration,
        mut bytes: &[u8],
        admits: impl Fn(InfoHash) -> bool,
    ) -> Result<(), DamagedPiece> {
        let times = Times {
            now_secs: seconds(now),
            age_secs: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
            lifetime_secs: self.peer_lifetime_secs,
        };
        while !bytes.is_empty() {
            let info_hash = InfoHash(take(&mut bytes)?);
            let completed = u32::from_le_bytes(take(&mut bytes)?);
            let founder = Site::from_number(u64::from_le_bytes(take(&mut bytes)?));
            let silent_secs = u32::from_le_bytes(take(&mut bytes)?);
            let v4_len = u32::from_le_bytes(take(&mut bytes)?) as usize;
            let v6_len = u32::from_le_bytes(take(&mut bytes)?) as usize;
            if v4_len > PEERS_PER_SWARM_MAX || v6_len > PEERS_PER_SWARM_MAX {
                return Err(DamagedPiece);
            }
            let is_new = self.swarms.len() < self.bounds.swarms && !self.swarms.contains_key(&info_hash);
            let is_wanted = is_new && admits(info_hash);
            let mut swarm =
                Swarm { completed, founder, announced_secs: times.heard_at(silent_secs), ..Swarm::default() };
            let room = self.bounds.peers.saturating_sub(self.figures.peers() as usize);
            let room = if is_wanted { room } else { 0 };
            read_peers(&mut bytes, &mut swarm.v4, v4_len, room, times, &mut self.present)?;
            let room = room.saturating_sub(swarm.v4.len());
            read_peers(&mut bytes, &mut swarm.v6, v6_len, room, times, &mut self.present)?;
            let is_remembered = completed > 0
                && u64::from(silent_secs.saturating_add(times.age_secs)) < SWARM_LINGER.as_secs();
            if is_wanted && (swarm.v4.len() + swarm.v6.len() > 0 || is_remembered) {
                self.figures.exchange([0; 4], swarm.counts());
                self.figures.swarms += 1;
                self.founded.enter(founder);
                self.swarms.insert(info_hash, swarm);
            }
        }
        Ok(())
    }
}

/// How spans of silence become points in time.
#[derive(Clone, Copy)]
struct Times {
    now_secs: u32,
    age_secs: u32,
    lifetime_secs: u32,
}

impl Times {
    /// When who had been silent so long was heard. The clock may have begun later: then at its beginning.
    fn heard_at(self, silent_secs: u32) -> u32 {
        self.now_secs.saturating_sub(silent_secs.saturating_add(self.age_secs))
    }

    fn is_alive(self, silent_secs: u32) -> bool {
        silent_secs.saturating_add(self.age_secs) <= self.lifetime_secs
    }
}

fn write_peers<const N: usize>(set: &PeerSet<N>, now_secs: u32, out: &mut Vec<u8>) {
    for (address, role, completed, announced_secs) in set.records() {
        out.extend_from_slice(&address);
        let role = match role {
            Role::Leech => 0,
            Role::PartialSeed => 1,
            Role::Seed => 2,
        };
        out.push(role | u8::from(completed) << 2);
        out.extend_from_slice(&now_secs.saturating_sub(announced_secs).to_le_bytes());
    }
}

fn read_peers<const N: usize>(
    bytes: &mut &[u8],
    set: &mut Family<N>,
    len: usize,
    room: usize,
    times: Times,
    shares: &mut super::Shares,
) -> Result<(), DamagedPiece> {
    for _ in 0..len {
        let address: [u8; N] = take(bytes)?;
        let [flags] = take(bytes)?;
        let silent_secs = u32::from_le_bytes(take(bytes)?);
        let role = match flags & 3 {
            0 => Role::Leech,
            1 => Role::PartialSeed,
            2 => Role::Seed,
            _ => return Err(DamagedPiece),
        };
        if set.len() < room && times.is_alive(silent_secs) {
            set.restore(address, role, flags & 4 != 0, times.heard_at(silent_secs), shares);
        }
    }
    Ok(())
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DamagedPiece> {
    let (field, rest) = bytes.split_first_chunk().ok_or(DamagedPiece)?;
    *bytes = rest;
    Ok(*field)
}

#[cfg(test)]
mod tests {
    use super::super::{Announce, RegistryFigures, SelectedPeers};
    use super::*;
    use crate::rng::Rng;
    use crate::tracker_wire::AnnounceEvent;
    use proptest::prelude::*;

    const LIFETIME: Duration = Duration::from_secs(1000);

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(100_000 + secs)
    }

    /// Three hundred peers of both families in forty swarms, heard of over `secs` seconds.
    fn registry(secs: u64) -> SwarmRegistry {
        let (mut registry, mut rng) = (SwarmRegistry::new(LIFETIME), Rng::from_seed(3));
        for number in 0..300_u64 {
            let ip = if number % 3 == 0 {
                format!("[2001:db8:{number:x}::1]")
            } else {
                format!("10.0.{}.1", number % 256)
            };
            let event = match number % 5 {
                0 => AnnounceEvent::Completed,
                1 => AnnounceEvent::Paused,
                _ => AnnounceEvent::Started,
            };
            let announce = Announce {
                info_hash: InfoHash([(number % 40) as u8; 20]),
                address: format!("{ip}:7").parse().expect("an address"),
                is_seed: number % 5 == 0,
                event,
                wanted: 0,
                both_families: false,
            };
            registry.announce(at(number * secs / 300), &mut rng, &announce, &mut SelectedPeers::default());
        }
        registry
    }

    fn pieces(registry: &SwarmRegistry, now: Instant, len_wanted: usize) -> Vec<Vec<u8>> {
        let (mut pieces, mut after) = (Vec::new(), None);
        loop {
            let mut piece = Vec::new();
            match registry.write_piece(now, after, len_wanted, &mut piece) {
                Some(last) => after = Some(last),
                None => return pieces,
            }
            pieces.push(piece);
        }
    }

    fn read(pieces: &[Vec<u8>], now: Instant, age: u64) -> SwarmRegistry {
        let mut registry = SwarmRegistry::new(LIFETIME);
        for piece in pieces {
            registry.read_piece(now, Duration::from_secs(age), piece, |_| true).expect("it is whole");
        }
        registry
    }

    #[test]
    fn a_registry_comes_back_with_all_it_knew() {
        let old = registry(900);
        for len_wanted in [1, 300, 1 << 20] {
            let pieces = pieces(&old, at(900), len_wanted);
            assert_eq!(pieces.len() == 1, len_wanted == 1 << 20);
            let new = read(&pieces, at(5), 0);
            assert_eq!(new.figures(), RegistryFigures { completed: 0, ..old.figures() });
            for hash in 0..40 {
                let info_hash = InfoHash([hash; 20]);
                assert_eq!(new.scrape(info_hash), old.scrape(info_hash));
                new.swarms[&info_hash].v4.check();
                new.swarms[&info_hash].v6.check();
            }
        }
    }

    #[test]
    fn silence_goes_on_while_nobody_runs() {
        let old = registry(900);
        let all = pieces(&old, at(900), 1 << 20);
        // Heard of 900 seconds ago at most, they die between the 100th and the 1000th second.
        let count = |age| read(&all, at(0), age).figures().peers();
        assert_eq!((count(0), count(100), count(1001)), (300, 300, 0));
        assert!((140..160).contains(&count(550)), "{}", count(550));
        // What is restored dies when it would have.
        let mut new = read(&all, at(0), 550);
        new.expire(at(440), usize::MAX);
        assert!(new.figures().peers() > 0);
        new.expire(at(460), usize::MAX);
        assert_eq!(new.figures().peers(), 0);
        // Completed downloads are remembered for a day.
        assert_eq!(read(&all, at(0), 1001).figures().swarms, 8);
        assert_eq!(read(&all, at(0), SWARM_LINGER.as_secs()).figures(), RegistryFigures::default());
    }

    #[test]
    fn bounds_and_lists_hold_for_what_is_read_too() {
        let all = pieces(&registry(900), at(900), 1 << 20);
        let mut new = SwarmRegistry::new(LIFETIME);
        new.bounds = super::super::Bounds::of(10, 40);
        new.read_piece(at(0), Duration::ZERO, &all[0], |info_hash| info_hash.0[0] % 2 == 0).unwrap();
        assert!(new.swarms.len() <= 10 && new.figures().peers() <= 40);
        assert!(new.swarms.keys().all(|info_hash| info_hash.0[0] % 2 == 0));
        // What is known already counts more than what was once known.
        let figures = new.figures();
        new.read_piece(at(0), Duration::ZERO, &all[0], |info_hash| info_hash.0[0] % 2 == 0).unwrap();
        assert_eq!(new.figures(), figures);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at_byte: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut new = SwarmRegistry::new(LIFETIME);
            let _ = new.read_piece(at(0), Duration::ZERO, &bytes, |_| true);
            let mut piece = pieces(&registry(10), at(900), 1 << 20).remove(0);
            let place = at_byte.index(piece.len());
            piece[place] = byte;
            piece.truncate(cut.index(piece.len()));
            let _ = new.read_piece(at(0), Duration::ZERO, &piece, |_| true);
            for swarm in new.swarms.values() {
                swarm.v4.check();
                swarm.v6.check();
            }
        }
    }
}
