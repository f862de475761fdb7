//! What the worker needs of a torrent's content: where a block lies in memory, and whether touching it would
//! wait for a disk. Production is [`storage::Content`](crate::storage::Content), the simulator has its own.

use super::piece_buffer::PieceBuffer;
use super::ring::MappedRange;
use crate::time::Instant;
use crate::torrent::PieceResult;
use crate::units::{BlockSpan, PieceIndex};
use std::os::fd::RawFd;
use std::sync::Arc;

/// Bytes for the kernel to read; never dereferenced by us, since a file can shrink under its mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte in memory.
    pub address: *const u8,
    /// Number of bytes.
    pub len: usize,
}

/// Whether a block can be sent now.
#[derive(Clone, Copy, Debug)]
pub enum Readiness {
    /// Its extents were appended.
    Ready,
    /// A part of it is not in memory, or its fetch has not ended; nothing was appended. Fetch this window first.
    Cold(ColdRange),
    /// The content cannot be served any more; see [`BlockStore::fault`].
    Failed,
}

/// A part of a mapped file that has to be read from its disk before a send may touch it: one window, the unit in which
/// the store brings content into memory. File and offset name it.
#[derive(Clone, Copy, Debug)]
pub struct ColdRange {
    /// The file; open, and no other's number, as long as the store lives.
    pub file: RawFd,
    /// The device it lies on, so that one does not wait for another.
    pub device: u64,
    /// The store's own number for the file.
    pub index: u32,
    /// First byte in the file.
    pub offset: u64,
    /// The same bytes in memory.
    pub mapped: MappedRange,
}

/// Takes whole pieces of one torrent: compares their hashes and stores those that are right.
pub trait PieceSink: std::fmt::Debug + Send + Sync {
    /// Takes a complete buffer and answers exactly once, on any thread. Never waits. The pieces that have no answer yet
    /// are as few as the picker allows in flight.
    fn submit(
        &self,
        piece: PieceIndex,
        bytes: Arc<PieceBuffer>,
        want_block_hashes: bool,
        reply: Box<dyn FnOnce(PieceResult) + Send>,
    );
}

/// Content of one torrent, shared by all cores. It outlives every send that reads from it.
pub trait BlockStore: Send + Sync + 'static {
    /// Appends where the block lies. The block is inside the torrent. Never touches the bytes.
    fn gather(&self, now: Instant, span: BlockSpan, extents: &mut Vec<Extent>) -> Readiness;

    /// Appends the windows that these bytes of one piece touch and that are neither in memory nor being fetched.
    fn find_absent(&self, now: Instant, span: BlockSpan, absent: &mut Vec<ColdRange>);

    /// A fetch of `range` begins: until it has ended well, its window is not in memory.
    fn handle_fetching(&self, range: &ColdRange);

    /// A fetch of `range` has ended, with this errno if it failed. True for a failure that does not pass.
    fn handle_fetched(&self, now: Instant, range: &ColdRange, errno: Option<i32>) -> bool;

    /// A fetch of this range, or a send, failed with this errno for good. Why is found out elsewhere, since that may wait for a
    /// disk, and becomes the content's fault; then `told` is called, on any thread. While somebody finds out already, only
    /// that one is told.
    fn handle_unreadable(
        self: &Arc<Self>,
        at: Option<&ColdRange>,
        errno: i32,
        told: Box<dyn FnOnce() + Send>,
    );

    /// Reads a block into memory of ours. Only for blocks in too many pieces for one send.
    fn read(&self, span: BlockSpan, bytes: &mut Vec<u8>) -> Readiness;

    /// Why this content cannot be served any more.
    fn fault(&self) -> Option<String>;
}
