//! What one thread of the load generator counts while it runs. Threads share none of it; the report adds
//! the tallies up at the end.

use crate::time::Instant;
use crate::units::PieceIndex;
use hdrhistogram::Histogram;

/// Counters and the latency histogram of one thread.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Nanoseconds from sending a request to the last byte of its block, three significant digits.
    pub latency: Histogram<u64>,
    /// Requested blocks received.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that nobody had asked for.
    pub unrequested: u64,
    /// Requests rejected (BEP 6).
    pub rejects: u64,
    /// Chokes after an unchoke.
    pub chokes: u64,
    /// Pieces whose hash was right.
    pub pieces_right: u64,
    /// Pieces whose hash was wrong.
    pub pieces_wrong: u64,
    /// The first piece whose hash was wrong.
    pub first_wrong: Option<PieceIndex>,
    /// When the last block was complete.
    pub last_block: Option<Instant>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            latency: Histogram::new_with_max(LATENCY_MAX_NANOS, 3)
                .expect("three digits up to an hour are within what a histogram can be"),
            blocks: 0,
            bytes: 0,
            unrequested: 0,
            rejects: 0,
            chokes: 0,
            pieces_right: 0,
            pieces_wrong: 0,
            first_wrong: None,
            last_block: None,
        }
    }
}

/// One hour: longer latencies count as this.
const LATENCY_MAX_NANOS: u64 = 3_600_000_000_000;

impl Tally {
    /// A requested block is complete. It has a latency unless a choke had dropped its request.
    pub fn record_block(&mut self, now: Instant, len: u32, sent_at: Option<Instant>) {
        self.blocks += 1;
        self.bytes += u64::from(len);
        self.last_block = Some(now);
        if let Some(sent_at) = sent_at {
            self.latency.saturating_record(now.as_nanos().saturating_sub(sent_at.as_nanos()));
        }
    }

    /// A piece was hashed.
    pub fn record_piece(&mut self, piece: PieceIndex, right: bool) {
        if right {
            self.pieces_right += 1;
        } else {
            self.pieces_wrong += 1;
            self.first_wrong.get_or_insert(piece);
        }
    }

    /// Adds another thread's tally.
    pub fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("all tallies have the same bounds");
        self.blocks += other.blocks;
        self.bytes += other.bytes;
        self.unrequested += other.unrequested;
        self.rejects += other.rejects;
        self.chokes += other.chokes;
        self.pieces_right += other.pieces_right;
        self.pieces_wrong += other.pieces_wrong;
        self.first_wrong = self.first_wrong.or(other.first_wrong);
        self.last_block = self.last_block.max(other.last_block);
    }
}
