//! The pieces begun and not verified: who owes which block, and what is still to be asked.
//!
//! Each piece has a *lead*, the peer that works on it; others of like speed may join. Of an exclusive piece the lead
//! is the only contributor, until it leaves, is snubbed, or owes nothing of it any more, or has not given a block yet
//! while somebody who has takes over; what it was asked by then still counts.
//!
//! Invariant: for each piece `free` counts the blocks that nobody owes, `rescuable` those that only snubbed peers
//! owe, `received` those that came; `open` lists exactly the pieces where one of the first two is not zero; and each
//! peer's `owed` is the number of blocks that name it.
//!
//! The buffers of blocks are kept for the next piece, so nothing is allocated once as many pieces were in flight.

use super::peers::{PeerNumber, Peers};
use super::terms::Others;
use crate::id::ConnId;
use crate::limits::BLOCK_OWED_MAX;

/// A block of a piece in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    owners: [u32; BLOCK_OWED_MAX],
    /// When each was asked, in tenths of a second.
    asked_at: [u32; BLOCK_OWED_MAX],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Rescuable,
    Owed,
    Received,
}

const NOBODY: u32 = u32::MAX;
const RECEIVED: u32 = u32::MAX - 1;
const CLOSED: u32 = u32::MAX;
const FREE: Block = Block { owners: [NOBODY; BLOCK_OWED_MAX], asked_at: [0; BLOCK_OWED_MAX] };

impl Block {
    /// Whether it came.
    pub(super) fn is_received(&self) -> bool {
        self.owners[0] == RECEIVED
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = PeerNumber> + '_ {
        self.owners.iter().copied().filter(|&owner| owner != NOBODY && owner != RECEIVED).map(PeerNumber)
    }

    /// The owners, and when each was asked, in tenths of a second.
    pub(super) fn asked(&self) -> impl Iterator<Item = (PeerNumber, u32)> + '_ {
        let owners = self.owners.iter().copied().zip(self.asked_at);
        let owners = owners.filter(|&(owner, _)| owner != NOBODY && owner != RECEIVED);
        owners.map(|(owner, asked_at)| (PeerNumber(owner), asked_at))
    }

    fn is_owed_by(&self, peer: PeerNumber) -> bool {
        self.owners.contains(&peer.0)
    }

    fn state(&self, peers: &Peers) -> State {
        if self.is_received() {
            return State::Received;
        }
        if self.owners().next().is_none() {
            State::Free
        } else if self.owners().all(|owner| peers.peer(owner).snubbed) {
            State::Rescuable
        } else {
            State::Owed
        }
    }
}

/// A piece in flight.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) piece: u32,
    pub(super) blocks: Vec<Block>,
    pub(super) free: u32,
    pub(super) rescuable: u32,
    pub(super) received: u32,
    pub(super) exclusive: bool,
    /// How many were begun before it.
    pub(super) begun: u64,
    lead: u32,
    lead_owed: u32,
    /// No block before this one is free.
    cursor: u32,
    /// Its place in `open`.
    open_at: u32,
    live: bool,
}

impl Partial {
    /// The peer that works on it.
    pub(super) fn lead(&self) -> Option<PeerNumber> {
        (self.lead != NOBODY).then_some(PeerNumber(self.lead))
    }

    /// Whether nobody works on it at the moment.
    pub(super) fn is_orphan(&self) -> bool {
        self.lead == NOBODY || self.lead_owed == 0
    }

    /// Whether every block came.
    pub(super) fn is_whole(&self) -> bool {
        self.received as usize == self.blocks.len()
    }

    /// Whether it holds a block that `peer` may be asked for, if it has the piece.
    pub(super) fn has_work_for(&self, peer: PeerNumber, peers: &Peers) -> bool {
        (self.free > 0 || (self.rescuable > 0 && !peers.peer(peer).snubbed)) && self.admits(peer, peers)
    }

    /// Whether `peer` may be asked for blocks of it.
    fn admits(&self, peer: PeerNumber, peers: &Peers) -> bool {
        self.takes_from(peer) || self.yields_to(peer, peers)
    }

    /// Whether `peer` may contribute.
    fn takes_from(&self, peer: PeerNumber) -> bool {
        !self.exclusive || self.is_orphan() || self.lead == peer.0
    }

    /// Whether its lead has given nothing yet, unlike `peer`.
    fn yields_to(&self, peer: PeerNumber, peers: &Peers) -> bool {
        let peer = peers.peer(peer);
        self.lead().is_some_and(|lead| !peers.peer(lead).gave && peer.gave && !peer.snubbed)
    }

    /// Whether `peer` owes this block.
    pub(super) fn is_owed(&self, peer: PeerNumber, block: u32) -> bool {
        self.blocks.get(block as usize).is_some_and(|block| block.is_owed_by(peer))
    }

    /// Whether `peer` may contribute this block: it may, or it was asked for it when it might.
    pub(super) fn admits_block(&self, peer: PeerNumber, block: u32) -> bool {
        self.takes_from(peer) || self.blocks.get(block as usize).is_some_and(|block| block.is_owed_by(peer))
    }

    fn follow(&mut self, lead: PeerNumber) {
        self.lead = lead.0;
        self.lead_owed = self.blocks.iter().filter(|block| block.is_owed_by(lead)).count() as u32;
    }
}

/// All pieces in flight, each with a number.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    partials: Vec<Partial>,
    spare: Vec<u32>,
    open: Vec<u32>,
    live: usize,
    begun: u64,
    /// Who owes a block no more because somebody else was asked in its place: connection, piece, block.
    given_up: Vec<(ConnId, u32, u32)>,
}

impl InFlight {
    /// Begins a piece of `blocks` blocks and gives its number.
    pub(super) fn begin(&mut self, piece: u32, blocks: u32, exclusive: bool) -> u32 {
        let number = self.spare.pop().unwrap_or_else(|| {
            self.partials.push(Partial {
                piece: 0,
                blocks: Vec::new(),
                free: 0,
                rescuable: 0,
                received: 0,
                exclusive: false,
                begun: 0,
                lead: NOBODY,
                lead_owed: 0,
                cursor: 0,
                open_at: CLOSED,
                live: false,
            });
            self.partials.len() as u32 - 1
        });
        let partial = &mut self.partials[number as usize];
        partial.blocks.clear();
        partial.blocks.resize(blocks as usize, FREE);
        (partial.piece, partial.free, partial.rescuable, partial.received) = (piece, blocks, 0, 0);
        (partial.exclusive, partial.begun, partial.live) = (exclusive, self.begun, true);
        (partial.lead, partial.lead_owed, partial.cursor) = (NOBODY, 0, 0);
        self.begun += 1;
        self.live += 1;
        self.keep_open(number);
        number
    }

    /// Ends a piece; nobody owes its blocks any more.
    pub(super) fn end(&mut self, number: u32, peers: &mut Peers) {
        let partial = &mut self.partials[number as usize];
        for owner in partial.blocks.iter().flat_map(Block::owners) {
            peers.peer_mut(owner).owed -= 1;
        }
        partial.blocks.clear();
        (partial.free, partial.rescuable, partial.received, partial.live) = (0, 0, 0, false);
        self.live -= 1;
        self.keep_open(number);
        self.spare.push(number);
    }

    /// Asks up to `count` blocks of `peer`, free ones first, and gives their numbers to `asked`.
    pub(super) fn ask(
        &mut self,
        number: u32,
        peer: PeerNumber,
        count: usize,
        now: u32,
        peers: &mut Peers,
        mut asked: impl FnMut(u32),
    ) {
        let partial = &mut self.partials[number as usize];
        // Who is snubbed already would keep an exclusive piece from all others.
        let is_open = partial.is_orphan() || partial.exclusive && partial.yields_to(peer, peers);
        if is_open && partial.lead != peer.0 && !peers.peer(peer).snubbed {
            partial.follow(peer);
        }
        let mut left = count;
        let mut block = partial.cursor;
        while left > 0 && self.partials[number as usize].free > 0 {
            if self.partials[number as usize].blocks[block as usize].state(peers) == State::Free {
                self.ask_block(number, block, peer, now, peers);
                asked(block);
                left -= 1;
            }
            block += 1;
        }
        self.partials[number as usize].cursor = block;
        if peers.peer(peer).snubbed {
            return;
        }
        let mut block = 0;
        while left > 0 && self.partials[number as usize].rescuable > 0 {
            if self.partials[number as usize].blocks[block as usize].state(peers) == State::Rescuable {
                self.ask_block(number, block, peer, now, peers);
                asked(block);
                left -= 1;
            }
            block += 1;
        }
    }

    /// Asks `peer` for a block that it does not owe: there is room for one more to owe it, or one who does is dormant or
    /// much slower. Then this one owes it no more, so that those who give little cannot keep a block from everybody else.
    pub(super) fn ask_block(
        &mut self,
        number: u32,
        block: u32,
        peer: PeerNumber,
        now: u32,
        peers: &mut Peers,
    ) {
        let partial = &self.partials[number as usize];
        let asked = partial.blocks[block as usize];
        let dormant = asked.asked().find(|&(owner, asked_at)| peers.is_dormant(owner, asked_at, peer));
        let slow = || asked.owners().find(|&owner| peers.is_much_faster(peer, owner));
        if let Some(former) = dormant.map(|(owner, _)| owner).or_else(slow).or_else(|| asked.owners().next())
            && !asked.owners.contains(&NOBODY)
        {
            self.unask(number, block, former, peers);
            let piece = self.partials[number as usize].piece;
            self.given_up.push((peers.peer(former).conn, piece, block));
        }
        self.change_block(number, block, peers, |block| {
            let mut places = block.owners.iter_mut().zip(&mut block.asked_at);
            if let Some((owner, asked_at)) = places.find(|(owner, _)| **owner == NOBODY) {
                (*owner, *asked_at) = (peer.0, now);
            }
        });
        peers.peer_mut(peer).owed += 1;
        let partial = &mut self.partials[number as usize];
        partial.lead_owed += u32::from(partial.lead == peer.0);
        if partial.exclusive && partial.lead != peer.0 && !peers.peer(peer).snubbed {
            partial.follow(peer);
        }
    }

    /// `peer` will not give the block; true when it owed it.
    pub(super) fn unask(&mut self, number: u32, block: u32, peer: PeerNumber, peers: &mut Peers) -> bool {
        if !self.partials[number as usize].blocks[block as usize].is_owed_by(peer) {
            return false;
        }
        self.change_block(number, block, peers, |block| {
            for owner in block.owners.iter_mut().filter(|owner| **owner == peer.0) {
                *owner = NOBODY;
            }
        });
        peers.peer_mut(peer).owed -= 1;
        let partial = &mut self.partials[number as usize];
        if partial.lead == peer.0 {
            partial.lead_owed -= 1;
            if partial.lead_owed == 0 {
                partial.lead = NOBODY;
            }
        }
        true
    }

    /// A block that had not come before came from `peer`; gives the others that owed it.
    pub(super) fn receive(&mut self, number: u32, block: u32, peer: PeerNumber, peers: &mut Peers) -> Others {
        let owners = self.partials[number as usize].blocks[block as usize].owners;
        self.change_block(number, block, peers, |block| {
            block.owners = [NOBODY; BLOCK_OWED_MAX];
            block.owners[0] = RECEIVED;
        });
        let partial = &mut self.partials[number as usize];
        let mut others = Others::default();
        for (other, owner) in others.0.iter_mut().zip(owners) {
            if owner == NOBODY {
                continue;
            }
            partial.lead_owed -= u32::from(partial.lead == owner);
            let owner_peer = peers.peer_mut(PeerNumber(owner));
            owner_peer.owed -= 1;
            if owner != peer.0 {
                *other = Some(owner_peer.conn);
            }
        }
        if partial.exclusive && partial.lead == NOBODY && !peers.peer(peer).snubbed {
            partial.follow(peer);
        }
        others
    }

    /// Frees all that `peer` owes and everything it leads.
    pub(super) fn leave(&mut self, peer: PeerNumber, peers: &mut Peers) {
        for number in 0..self.partials.len() as u32 {
            let mut block = 0;
            while peers.peer(peer).owed > 0 && block < self.partials[number as usize].blocks.len() as u32 {
                self.unask(number, block, peer, peers);
                block += 1;
            }
            self.orphan(number, peer);
        }
    }

    /// Marks the peer as snubbed or not, and with it the blocks it owes.
    pub(super) fn snub(&mut self, peer: PeerNumber, snubbed: bool, peers: &mut Peers) {
        peers.peer_mut(peer).snubbed = snubbed;
        for number in 0..self.partials.len() as u32 {
            let partial = &mut self.partials[number as usize];
            let rescuable = partial.blocks.iter().filter(|block| block.state(peers) == State::Rescuable);
            partial.rescuable = rescuable.count() as u32;
            if snubbed {
                self.orphan(number, peer);
            }
            self.keep_open(number);
        }
    }

    /// Who is to be told that it owes a block no more: connection, piece, block.
    pub(super) fn poll_given_up(&mut self) -> Option<(ConnId, u32, u32)> {
        self.given_up.pop()
    }

    /// The piece in flight of that number, if it is one.
    pub(super) fn partial(&self, number: u32) -> Option<&Partial> {
        self.partials.get(number as usize).filter(|partial| partial.live)
    }

    /// Numbers of the pieces that have free or rescuable blocks.
    pub(super) fn open(&self) -> &[u32] {
        &self.open
    }

    /// All pieces in flight with their numbers, from the number `first` on and round.
    pub(super) fn round_from(&self, first: usize) -> impl Iterator<Item = (u32, &Partial)> {
        let count = self.partials.len();
        (0..count).map(move |step| (first + step) % count).filter_map(|number| {
            let partial = &self.partials[number];
            partial.live.then_some((number as u32, partial))
        })
    }

    /// How many are in flight.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Numbers given so far: those of the pieces in flight are lower.
    pub(super) fn numbers(&self) -> usize {
        self.partials.len()
    }

    fn orphan(&mut self, number: u32, lead: PeerNumber) {
        let partial = &mut self.partials[number as usize];
        if partial.lead == lead.0 {
            (partial.lead, partial.lead_owed) = (NOBODY, 0);
        }
    }

    fn change_block(&mut self, number: u32, at: u32, peers: &Peers, change: impl FnOnce(&mut Block)) {
        let partial = &mut self.partials[number as usize];
        let block = &mut partial.blocks[at as usize];
        let before = block.state(peers);
        change(block);
        let after = block.state(peers);
        for (state, count) in [
            (State::Free, &mut partial.free),
            (State::Rescuable, &mut partial.rescuable),
            (State::Received, &mut partial.received),
        ] {
            *count -= u32::from(before == state);
            *count += u32::from(after == state);
        }
        if after == State::Free {
            partial.cursor = partial.cursor.min(at);
        }
        self.keep_open(number);
    }

    fn keep_open(&mut self, number: u32) {
        let partial = &mut self.partials[number as usize];
        let open = partial.free + partial.rescuable > 0;
        if open && partial.open_at == CLOSED {
            partial.open_at = self.open.len() as u32;
            self.open.push(number);
        } else if !open && partial.open_at != CLOSED {
            let hole = partial.open_at;
            partial.open_at = CLOSED;
            self.open.swap_remove(hole as usize);
            if let Some(&moved) = self.open.get(hole as usize) {
                self.partials[moved as usize].open_at = hole;
            }
        }
    }
}
