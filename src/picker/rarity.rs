//! How many peers have each piece, and the pieces that may be begun in that order.
//!
//! Each priority has a shelf: a permutation of its pieces in which those of equal count stand together, with the
//! borders between these runs kept beside. One more copy of a piece is then a swap with the last of its run and a
//! border moved by one; putting a piece on the shelf or taking it off moves one piece of each higher run, which is at
//! most the number of peers. A bitfield that changes many counts sorts the shelves anew in one linear pass.
//!
//! Invariant: `order[place[piece]] == piece` for each piece on a shelf, and run `count` of a shelf holds exactly its
//! pieces of that count. A piece in flight is on no shelf; its place is then its number among those in flight.
//!
//! Peers that have everything are not counted here.

use super::words::{self, ones};

/// The shelf of a piece of some priority above `Skip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShelfIndex(pub(super) usize);

/// What is known of a piece; side by side, since one is seldom wanted without the other.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    /// Peers that have it.
    count: u32,
    place: u32,
}

/// Pieces of one priority that may be begun, fewest copies first.
#[derive(Debug)]
pub(super) struct Shelf {
    order: Vec<u32>,
    /// Where the run of each count begins, and at last the shelf's length.
    starts: Vec<u32>,
}

impl Shelf {
    /// All pieces of the shelf, fewest copies first.
    pub(super) fn pieces(&self) -> &[u32] {
        &self.order
    }

    /// Counts from zero to this one, exclusive, may have pieces.
    pub(super) fn runs(&self) -> usize {
        self.starts.len() - 1
    }

    /// The pieces of which there are `count` copies.
    pub(super) fn run(&self, count: usize) -> &[u32] {
        match (self.starts.get(count), self.starts.get(count + 1)) {
            (Some(&start), Some(&end)) => &self.order[start as usize..end as usize],
            _ => &[],
        }
    }

    fn reach(&mut self, count: usize) {
        if self.starts.len() < count + 2 {
            self.starts.resize(count + 2, self.order.len() as u32);
        }
    }

    fn swap(&mut self, pieces: &mut [Piece], one: u32, other: u32) {
        self.order.swap(one as usize, other as usize);
        pieces[self.order[one as usize] as usize].place = one;
        pieces[self.order[other as usize] as usize].place = other;
    }

    fn insert(&mut self, pieces: &mut [Piece], piece: u32, count: usize) {
        self.reach(count);
        let mut hole = self.order.len() as u32;
        self.order.push(piece);
        if let Some(end) = self.starts.last_mut() {
            *end += 1;
        }
        for above in (count + 1..self.runs()).rev() {
            let start = self.starts[above];
            if start != hole {
                let moved = self.order[start as usize];
                self.order[hole as usize] = moved;
                pieces[moved as usize].place = hole;
                hole = start;
            }
            self.starts[above] += 1;
        }
        self.order[hole as usize] = piece;
        pieces[piece as usize].place = hole;
    }

    fn remove(&mut self, pieces: &mut [Piece], piece: u32, count: usize) {
        let mut hole = pieces[piece as usize].place;
        for run in count..self.runs() {
            let last = self.starts[run + 1] - 1;
            if last != hole {
                let moved = self.order[last as usize];
                self.order[hole as usize] = moved;
                pieces[moved as usize].place = hole;
                hole = last;
            }
            self.starts[run + 1] = last;
        }
        self.order.pop();
    }

    fn raise(&mut self, pieces: &mut [Piece], piece: u32, count: usize) {
        self.reach(count + 1);
        let last = self.starts[count + 1] - 1;
        self.swap(pieces, pieces[piece as usize].place, last);
        self.starts[count + 1] = last;
    }

    fn lower(&mut self, pieces: &mut [Piece], piece: u32, count: usize) {
        let first = self.starts[count];
        self.swap(pieces, pieces[piece as usize].place, first);
        self.starts[count] = first + 1;
    }

    /// Sorts by count, keeping the order within a run.
    fn sort(&mut self, pieces: &mut [Piece]) {
        let mut starts = vec![0_u32; 2];
        for &piece in &self.order {
            let next = pieces[piece as usize].count as usize + 1;
            if starts.len() <= next {
                starts.resize(next + 1, 0);
            }
            starts[next] += 1;
        }
        for run in 1..starts.len() {
            starts[run] += starts[run - 1];
        }
        let mut ends = starts.clone();
        let mut order = vec![0; self.order.len()];
        for &piece in &self.order {
            let end = &mut ends[pieces[piece as usize].count as usize];
            order[*end as usize] = piece;
            pieces[piece as usize].place = *end;
            *end += 1;
        }
        self.order = order;
        self.starts = starts;
    }
}

/// Counts of all pieces, and the shelves.
#[derive(Debug)]
pub(super) struct Rarity {
    pieces: Vec<Piece>,
    /// Pieces of the torrent by count.
    histogram: Vec<u32>,
    /// By priority, `Low` first.
    shelves: [Shelf; 3],
}

impl Rarity {
    /// No copies of any of `piece_count` pieces, and empty shelves.
    pub(super) fn new(piece_count: u32) -> Self {
        let shelf = || Shelf { order: Vec::new(), starts: vec![0, 0] };
        Self {
            pieces: vec![Piece::default(); piece_count as usize],
            histogram: vec![piece_count],
            shelves: [shelf(), shelf(), shelf()],
        }
    }

    /// Puts a piece that is on no shelf on one.
    pub(super) fn shelve(&mut self, piece: u32, shelf: ShelfIndex) {
        let count = self.pieces[piece as usize].count as usize;
        self.shelves[shelf.0].insert(&mut self.pieces, piece, count);
    }

    /// Takes a piece off its shelf.
    pub(super) fn take(&mut self, piece: u32, shelf: ShelfIndex) {
        let count = self.pieces[piece as usize].count as usize;
        self.shelves[shelf.0].remove(&mut self.pieces, piece, count);
    }

    /// One more peer has the piece, which may be on a shelf.
    pub(super) fn raise(&mut self, piece: u32, shelf: Option<ShelfIndex>) {
        let count = self.pieces[piece as usize].count as usize;
        if let Some(shelf) = shelf {
            self.shelves[shelf.0].raise(&mut self.pieces, piece, count);
        }
        self.count_anew(piece, count, count + 1);
    }

    /// One peer fewer has the piece.
    pub(super) fn lower(&mut self, piece: u32, shelf: Option<ShelfIndex>) {
        let count = self.pieces[piece as usize].count as usize;
        if let Some(shelf) = shelf {
            self.shelves[shelf.0].lower(&mut self.pieces, piece, count);
        }
        self.count_anew(piece, count, count - 1);
    }

    /// A peer's pieces change from `old` to `new`, both as bitfields carry them and empty for none.
    pub(super) fn change(&mut self, old: &[u8], new: &[u8], shelf_of: impl Fn(u32) -> Option<ShelfIndex>) {
        let word_count = old.len().max(new.len()).div_ceil(8);
        let changes: u64 = (0..word_count)
            .map(|at| u64::from((words::word(old, at) ^ words::word(new, at)).count_ones()))
            .sum();
        let shelved: usize = self.shelves.iter().map(|shelf| shelf.order.len()).sum();
        let sort = changes > (shelved / SORT_SHARE) as u64;
        for at in 0..word_count {
            let (old, new) = (words::word(old, at), words::word(new, at));
            for piece in ones(new & !old, at) {
                self.raise(piece, if sort { None } else { shelf_of(piece) });
            }
            for piece in ones(old & !new, at) {
                self.lower(piece, if sort { None } else { shelf_of(piece) });
            }
        }
        if sort {
            for shelf in &mut self.shelves {
                shelf.sort(&mut self.pieces);
            }
        }
    }

    /// Writes down the number among those in flight of a piece that is on no shelf.
    pub(super) fn note(&mut self, piece: u32, number: u32) {
        self.pieces[piece as usize].place = number;
    }

    /// The number that `note` wrote down.
    pub(super) fn noted(&self, piece: u32) -> u32 {
        self.pieces[piece as usize].place
    }

    /// Peers that have the piece.
    pub(super) fn count(&self, piece: u32) -> u32 {
        self.pieces.get(piece as usize).map_or(0, |piece| piece.count)
    }

    /// The lowest count of all pieces and how many have it.
    pub(super) fn rarest(&self) -> (u32, u32) {
        let lowest = self.histogram.iter().position(|&pieces| pieces > 0).unwrap_or(0);
        (lowest as u32, self.histogram[lowest])
    }

    /// The shelf.
    pub(super) fn shelf(&self, shelf: ShelfIndex) -> &Shelf {
        &self.shelves[shelf.0]
    }

    /// The shelves, that of the highest priority first.
    pub(super) fn shelves(&self) -> impl Iterator<Item = &Shelf> {
        self.shelves.iter().rev()
    }

    fn count_anew(&mut self, piece: u32, old: usize, new: usize) {
        self.pieces[piece as usize].count = new as u32;
        if self.histogram.len() <= new {
            self.histogram.resize(new + 1, 0);
        }
        self.histogram[old] -= 1;
        self.histogram[new] += 1;
    }
}

/// Sorting the shelves costs about as much as moving one in this many pieces on its own.
const SORT_SHARE: usize = 8;
