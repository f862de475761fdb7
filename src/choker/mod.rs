//! Who is unchoked: pure functions from a snapshot of a torrent's peers to decisions (BEP 3).
//!
//! - While leeching, slots go to the interested peers that gave most in the last two rounds, twenty seconds (BEP 3).
//!   One round alone would choke who gives in bursts, as every peer does that we take in turns. Those that give
//!   more but are not interested are unchoked too, since it costs nothing and they may become interested. A peer
//!   that snubbed us is left to the optimistic slot, and to slots that nobody else has use for: when everybody snubs
//!   us, all slots are optimistic (BEP 3), and the download recovers sooner.
//! - While seeding there is nothing to return, and what a peer takes can be gamed, so slots go round: a peer keeps
//!   its slot for a quantum, then those that wait come first, longest wait first. Only a slot that nobody waits for
//!   is kept longer, and then by those that take most.
//! - The unit of fairness is the address prefix: none gets a second slot while another waits, and its turn is over
//!   for all its addresses alike. While leeching this only decides between peers that gave the same.
//! - One optimistic slot goes round at random, newcomers three times as likely. It can be left out, for comparison in
//!   the laboratory.
//! - A peer that took more than the whole torrent while reporting no piece comes last everywhere.
//! - So does, for a while, one that had a slot and asked for nothing while others waited. While leeching this only decides
//!   between peers that gave the same.
//!
//! Invariant: a round gives no more than `slots` interested peers a slot, plus one optimistic, and as many peers
//! again at most are unchoked without interest.
//!
//! Deliberately absent: any reaction to a single message beyond `fill`, so that no peer can make us work by flipping
//! its interest; and any memory of peers that left.

mod auto;
#[cfg(test)]
mod tests;

pub use auto::{Load, SlotDemand, auto_slots};

use crate::id::{AddressPrefix, ConnId};
use crate::limits::{
    CHOKE_ROUND_INTERVAL, NEWCOMER_TIME, OPTIMISTIC_INTERVAL, SEED_QUANTUM_PIECES, SEED_QUANTUM_TIME,
};
use crate::rng::Rng;
use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How many peers of a torrent are unchoked at once, besides the optimistic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// So many. Zero unchokes nobody, not even optimistically.
    Fixed(usize),
    /// Four while leeching; while seeding as many as line and core have room for.
    Auto,
}

/// What the torrent does, which decides what earns a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We want pieces: slots go to those that give.
    Leeching,
    /// We have every piece: slots go round.
    Seeding,
}

/// By what right a peer is unchoked, if it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grant {
    /// It is choked.
    #[default]
    Choked,
    /// Unchoked while not interested, which takes no slot.
    Courtesy,
    /// Unchoked in the optimistic slot.
    Optimistic,
    /// Unchoked in one of the regular slots.
    Regular,
}

/// A peer as the choker sees it at one moment. Bytes are payload.
#[derive(Clone, Copy, Debug)]
pub struct PeerSnapshot {
    /// The peer's connection.
    pub conn: ConnId,
    /// Where it comes from.
    pub prefix: AddressPrefix,
    /// When it joined.
    pub joined_at: Instant,
    /// Whether it wants something from us.
    pub interested: bool,
    /// Whether it says it will not download (BEP 21).
    pub upload_only: bool,
    /// Whether it owes us blocks for over a minute (BEP 3).
    pub snubbed: bool,
    /// By what right it is unchoked now.
    pub grant: Grant,
    /// Of an unchoked peer the begin of its turn, of a choked one the end of its last turn, or when it joined.
    pub since: Instant,
    /// Bytes it took since the last round.
    pub uploaded_in_round: u64,
    /// Bytes it gave since the round before the last.
    pub downloaded_lately: u64,
    /// Bytes it took in its present turn.
    pub uploaded_in_turn: u64,
    /// Bytes it took since it joined.
    pub taken_total: u64,
    /// Pieces it says it has.
    pub reported_pieces: u32,
    /// It made no use of a slot a short while ago, so that others come first.
    pub passed_over: bool,
}

/// The lengths that turns are measured by.
#[derive(Clone, Copy, Debug)]
pub struct TorrentLengths {
    /// Bytes of a piece.
    pub piece_len: u32,
    /// Bytes of the whole torrent.
    pub total_len: u64,
}

/// What a round decided. Reused between rounds to keep its memory.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// Every peer's grant from now on, in the order of the snapshot.
    pub grants: Vec<Grant>,
    /// Choked peers that are to be told they are not, in the order of the snapshot.
    pub unchoke: Vec<ConnId>,
    /// Unchoked peers that are to be choked, in the order of the snapshot.
    pub choke: Vec<ConnId>,
    /// The holders of optimistic slots: one, and while leeching as many more as peers that snubbed us leave empty.
    pub optimistic: Vec<ConnId>,
    /// While leeching, the holders of regular slots, best giver first: when a better giver becomes interested
    /// between rounds, the last of them yields (BEP 3).
    pub ranking: Vec<ConnId>,
}

/// A torrent's choker: its lengths, the last turn of the optimistic slot, and which prefixes were served when.
#[derive(Clone, Debug)]
pub struct Choker {
    lengths: TorrentLengths,
    /// Slots beside the regular ones: the optimistic one, or none.
    extra_slots: usize,
    optimistic_at: Instant,
    served: BTreeMap<AddressPrefix, Instant>,
}

impl Choker {
    /// The choker of a torrent without peers.
    pub fn new(lengths: TorrentLengths) -> Self {
        Self { lengths, extra_slots: 1, optimistic_at: Instant::ZERO, served: BTreeMap::new() }
    }

    /// The same without the optimistic slot. Slots that nobody has earned still go to somebody at random.
    pub fn without_optimistic_slot(self) -> Self {
        Self { extra_slots: 0, ..self }
    }

    /// Bytes of a piece.
    pub fn piece_len(&self) -> u64 {
        u64::from(self.lengths.piece_len)
    }

    /// Slots beside the regular ones.
    pub fn extra_slots(&self) -> usize {
        self.extra_slots
    }

    /// Forgets everybody; for when the last peer has left.
    pub fn reset(&mut self) {
        *self = Self { extra_slots: self.extra_slots, ..Self::new(self.lengths) };
    }

    /// Decides anew about all `peers` into `out`; to be called every `CHOKE_ROUND_INTERVAL`. Costs a sort.
    pub fn round(
        &mut self,
        now: Instant,
        role: Role,
        slots: usize,
        peers: &[PeerSnapshot],
        rng: &mut Rng,
        out: &mut Decisions,
    ) {
        self.note_served(now, peers);
        out.grants.clear();
        out.grants.resize(peers.len(), Grant::Choked);
        out.ranking.clear();
        let chosen: Vec<usize> = self.order(now, role, peers, |_| true).into_iter().take(slots).collect();
        for &index in &chosen {
            out.grants[index] = Grant::Regular;
        }
        if role == Role::Leeching {
            out.ranking.extend(chosen.iter().map(|&index| peers[index].conn));
            grant_courtesies(slots, peers, &chosen, &mut out.grants);
        }
        let wanted = if slots == 0 { 0 } else { self.extra_slots + slots - chosen.len() };
        let optimistic = self.optimistic(now, wanted, peers, &out.grants, rng);
        out.optimistic.clear();
        for index in optimistic {
            out.optimistic.push(peers[index].conn);
            out.grants[index] = Grant::Optimistic;
        }
        out.unchoke.clear();
        out.choke.clear();
        for (peer, &grant) in peers.iter().zip(&out.grants) {
            match (peer.grant == Grant::Choked, grant == Grant::Choked) {
                (true, false) => out.unchoke.push(peer.conn),
                (false, true) => out.choke.push(peer.conn),
                _ => {}
            }
        }
    }

    /// Chooses up to `free` peers for slots that stand empty between rounds: choked ones, or the optimistic one, to
    /// whom a regular slot means no message. Chokes nobody. `peers` may be all peers, or the one peer that just
    /// became interested when no other waits.
    pub fn fill(&self, now: Instant, role: Role, free: usize, peers: &[PeerSnapshot]) -> Vec<ConnId> {
        if free == 0 {
            return Vec::new();
        }
        // Present holders take part in the order, so that their prefixes' further peers stand behind others; as
        // they keep what they have, they are only then taken out of it.
        let order = self.order(now, role, peers, |peer| peer.grant != Grant::Courtesy);
        let others = order.into_iter().filter(|&index| peers[index].grant != Grant::Regular);
        others.take(free).map(|index| peers[index].conn).collect()
    }

    /// Whether the peer took more than there is while claiming to have none of it.
    fn is_demoted(&self, peer: &PeerSnapshot) -> bool {
        peer.reported_pieces == 0 && peer.taken_total > self.lengths.total_len
    }

    /// Whether the holder of a seed's slot has had its turn: enough pieces, enough time, or no use for the slot.
    fn turn_is_over(&self, now: Instant, peer: &PeerSnapshot) -> bool {
        let held = now.since(peer.since);
        let quantum = SEED_QUANTUM_PIECES * u64::from(self.lengths.piece_len);
        peer.uploaded_in_turn >= quantum
            || held >= SEED_QUANTUM_TIME
            || (peer.uploaded_in_round == 0 && held >= CHOKE_ROUND_INTERVAL)
    }

    /// A prefix that holds any slot is being served now; the others keep the time of their last turn.
    fn note_served(&mut self, now: Instant, peers: &[PeerSnapshot]) {
        let mut served = BTreeMap::new();
        for peer in peers {
            if matches!(peer.grant, Grant::Regular | Grant::Optimistic) {
                served.insert(peer.prefix, now);
            } else if let Some(&before) = self.served.get(&peer.prefix) {
                served.entry(peer.prefix).or_insert(before);
            }
        }
        self.served = served;
    }

    /// The interested peers among those that `takes_part` admits, as indices into `peers`, most deserving first.
    fn order(
        &self,
        now: Instant,
        role: Role,
        peers: &[PeerSnapshot],
        takes_part: impl Fn(&PeerSnapshot) -> bool,
    ) -> Vec<usize> {
        let mut ranked: Vec<(Rank, usize)> = peers
            .iter()
            .enumerate()
            .filter(|(_, peer)| peer.interested && takes_part(peer))
            .filter(|(_, peer)| role == Role::Seeding || !peer.snubbed)
            .map(|(index, peer)| (self.rank(now, role, peer), index))
            .collect();
        ranked.sort_unstable();
        // The optimistic slot counts as its prefix's first.
        let optimistic = peers.iter().filter(|peer| peer.grant == Grant::Optimistic);
        let mut chosen_of: BTreeMap<AddressPrefix, usize> = optimistic.map(|peer| (peer.prefix, 1)).collect();
        let mut order: Vec<_> = ranked
            .into_iter()
            .map(|(rank, index)| {
                let count = chosen_of.entry(peers[index].prefix).or_default();
                *count += 1;
                ((rank.demoted, rank.given, rank.passed_over), *count, rank, index)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, _, _, index)| index).collect()
    }

    fn rank(&self, now: Instant, role: Role, peer: &PeerSnapshot) -> Rank {
        let (demoted, passed_over) = (self.is_demoted(peer), peer.passed_over);
        match role {
            Role::Leeching => Rank {
                demoted,
                given: Reverse(peer.downloaded_lately),
                passed_over,
                // Equal givers, as in the first round, keep what they have: to change would only cost messages.
                stage: if peer.grant == Grant::Regular { Stage::InTurn } else { Stage::Waiting },
                turn: peer.since,
                taken: Reverse(0),
                since: peer.since,
                conn: peer.conn,
            },
            Role::Seeding => {
                let served = self.served.get(&peer.prefix).copied().unwrap_or(Instant::ZERO);
                let (stage, turn, taken) = match peer.grant {
                    Grant::Regular if !self.turn_is_over(now, peer) => (Stage::InTurn, peer.since, 0),
                    Grant::Choked => (Stage::Waiting, peer.since.max(served), 0),
                    _ => (Stage::Over, Instant::ZERO, peer.uploaded_in_round),
                };
                let (given, taken) = (Reverse(0), Reverse(taken));
                Rank { demoted, given, passed_over, stage, turn, taken, since: peer.since, conn: peer.conn }
            }
        }
    }

    /// Up to `wanted` holders of optimistic slots, as indices: the present ones until their time is over, then others
    /// at random among those that the regular slots left out, the present ones only if there are no others.
    fn optimistic(
        &mut self,
        now: Instant,
        wanted: usize,
        peers: &[PeerSnapshot],
        grants: &[Grant],
        rng: &mut Rng,
    ) -> Vec<usize> {
        let left_out = (0..peers.len()).filter(|&i| peers[i].interested && grants[i] != Grant::Regular);
        let (present, mut others): (Vec<usize>, Vec<usize>) =
            left_out.partition(|&index| peers[index].grant == Grant::Optimistic);
        let turns = present.is_empty() || now >= self.optimistic_at + OPTIMISTIC_INTERVAL;
        let mut held = if turns { Vec::new() } else { present.clone() };
        held.truncate(wanted);
        let regular = (0..peers.len()).filter(|&index| grants[index] == Grant::Regular);
        let mut served: Vec<AddressPrefix> =
            regular.chain(present.iter().copied()).map(|index| peers[index].prefix).collect();
        served.sort_unstable();
        while held.len() < wanted {
            let Some(index) = self.draw_optimistic(now, &others, &served, peers, rng) else { break };
            held.push(index);
            others.retain(|&other| other != index);
            let place = served.partition_point(|&prefix| prefix < peers[index].prefix);
            served.insert(place, peers[index].prefix);
            if turns {
                self.optimistic_at = now;
            }
        }
        let again = present.into_iter().filter(|index| !held.contains(index)).take(wanted - held.len());
        let again: Vec<usize> = again.collect();
        held.extend(again);
        held
    }

    /// One of the `others` at random, of those in the best standing: who did not take more than there is, made use
    /// of their slots, and whose prefix is not `served` (sorted).
    fn draw_optimistic(
        &self,
        now: Instant,
        others: &[usize],
        served: &[AddressPrefix],
        peers: &[PeerSnapshot],
        rng: &mut Rng,
    ) -> Option<usize> {
        let standing = |index: usize| {
            let peer = &peers[index];
            (self.is_demoted(peer), peer.passed_over, served.binary_search(&peer.prefix).is_ok())
        };
        let best = others.iter().map(|&index| standing(index)).min()?;
        let weighted: Vec<(AddressPrefix, u64, usize)> = others
            .iter()
            .filter(|&&index| standing(index) == best)
            .map(|&index| (peers[index].prefix, weight(now, &peers[index]), index))
            .collect();
        draw(&weighted, rng)
    }
}

/// The order of merit before prefixes are looked at: smaller is better, compared field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    demoted: bool,
    given: Reverse<u64>,
    passed_over: bool,
    stage: Stage,
    turn: Instant,
    taken: Reverse<u64>,
    since: Instant,
    conn: ConnId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    InTurn,
    Waiting,
    Over,
}

/// Unchokes without a slot those that give more than the worst of the `chosen` but want nothing; at most `slots`.
fn grant_courtesies(slots: usize, peers: &[PeerSnapshot], chosen: &[usize], grants: &mut [Grant]) {
    let full = chosen.len() == slots;
    let worst =
        chosen.iter().map(|&index| peers[index].downloaded_lately).min().filter(|_| full).unwrap_or(0);
    let mut givers: Vec<_> = peers
        .iter()
        .enumerate()
        .filter(|(_, peer)| !peer.interested && !peer.upload_only && !peer.snubbed)
        .filter(|(_, peer)| peer.downloaded_lately > worst)
        .map(|(index, peer)| (Reverse(peer.downloaded_lately), peer.conn, index))
        .collect();
    givers.sort_unstable();
    for (_, _, index) in givers.into_iter().take(slots) {
        grants[index] = Grant::Courtesy;
    }
}

/// How likely a peer is the optimistic choice, relative to others (BEP 3: new connections three times as likely).
fn weight(now: Instant, peer: &PeerSnapshot) -> u64 {
    if now.since(peer.joined_at) <= NEWCOMER_TIME { 3 } else { 1 }
}

/// Draws a prefix, then a peer of it, both by weight; a prefix weighs what its heaviest peer does, so that many
/// addresses do not help it.
fn draw(weighted: &[(AddressPrefix, u64, usize)], rng: &mut Rng) -> Option<usize> {
    let mut heaviest: BTreeMap<AddressPrefix, u64> = BTreeMap::new();
    for &(prefix, weight, _) in weighted {
        let heavy = heaviest.entry(prefix).or_default();
        *heavy = weight.max(*heavy);
    }
    let drawn = draw_one(heaviest.iter().map(|(&prefix, &weight)| (prefix, weight)), rng)?;
    let of_prefix = weighted.iter().filter(|&&(prefix, _, _)| prefix == drawn);
    draw_one(of_prefix.map(|&(_, weight, index)| (index, weight)), rng)
}

/// Draws one item by weight; `None` when there are none.
fn draw_one<T>(items: impl Iterator<Item = (T, u64)> + Clone, rng: &mut Rng) -> Option<T> {
    let total = items.clone().map(|(_, weight)| weight).sum();
    let mut ticket = rng.below(total);
    for (item, weight) in items {
        if ticket < weight {
            return Some(item);
        }
        ticket -= weight;
    }
    None
}
