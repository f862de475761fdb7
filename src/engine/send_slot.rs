//! One send in the making and in flight: control bytes, then `[13-byte header][block]` pairs, as one message.
//!
//! A slot belongs to the kernel from [`seal`](SendSlot::seal) until the send's last completion; it is boxed
//! and neither grows nor moves meanwhile. It holds the content its extents point into, so a mapping cannot go
//! before its sends do. Slots are pooled: an idle connection has none.
#![expect(unsafe_code, reason = "makes the promise that sealed memory stays")]

use super::ring::MessagePointer;
use super::store::Extent;
use crate::limits::BATCH_LEN_MAX;
use crate::units::BLOCK_LEN;
use crate::wire::PIECE_HEADER_LEN;
use std::sync::Arc;

/// Blocks of one send: a batch of full length in blocks of the usual size.
pub const BLOCKS_PER_SEND_MAX: usize = (BATCH_LEN_MAX / BLOCK_LEN) as usize;
/// Extents of one send; the kernel takes 1024 (UIO_MAXIOV), one is kept for control bytes.
pub const EXTENTS_PER_SEND_MAX: usize = 1023;

/// Stands for a header's address until the slot is sealed; no block lies there.
const HEADER_PLACE: *const u8 = std::ptr::null();

/// A message for one connection.
#[derive(Debug)]
pub struct SendSlot<S> {
    message: libc::msghdr,
    vectors: Vec<libc::iovec>,
    headers: [[u8; PIECE_HEADER_LEN]; BLOCKS_PER_SEND_MAX],
    blocks: usize,
    control: Vec<u8>,
    /// Bytes of blocks that lie in too many extents for one message.
    gathered: Vec<Vec<u8>>,
    content: Option<Arc<S>>,
    payload_len: u64,
    len: u64,
    sealed: bool,
}

// SAFETY: the raw pointers point into the slot itself and into the content it holds.
unsafe impl<S: Send + Sync> Send for SendSlot<S> {}

impl<S> SendSlot<S> {
    /// An empty slot.
    pub fn new() -> Box<Self> {
        Box::new(Self {
            // SAFETY: all-zero bytes are a valid msghdr: null pointers and zero lengths.
            message: unsafe { std::mem::zeroed() },
            vectors: Vec::new(),
            headers: [[0; PIECE_HEADER_LEN]; BLOCKS_PER_SEND_MAX],
            blocks: 0,
            control: Vec::new(),
            gathered: Vec::new(),
            content: None,
            payload_len: 0,
            len: 0,
            sealed: false,
        })
    }

    /// Empties the slot for its next use; must not be in flight.
    pub fn clear(&mut self) {
        self.vectors.clear();
        self.control.clear();
        self.control.shrink_to(4096);
        self.gathered.clear();
        self.blocks = 0;
        self.content = None;
        self.payload_len = 0;
        self.len = 0;
        self.sealed = false;
    }

    /// The control bytes that go first.
    pub fn control(&mut self) -> &mut Vec<u8> {
        assert!(!self.sealed, "a sealed message belongs to the kernel");
        &mut self.control
    }

    /// Whether one more block of this many extents fits.
    pub fn has_room(&self, extents: usize) -> bool {
        self.blocks < BLOCKS_PER_SEND_MAX && self.vectors.len() + extents < EXTENTS_PER_SEND_MAX
    }

    /// Appends a block: its header, and where its bytes lie in `content`.
    pub fn push_block(&mut self, header: [u8; PIECE_HEADER_LEN], extents: &[Extent], content: &Arc<S>) {
        self.push_header(header);
        for extent in extents {
            self.push_vector(extent.address, extent.len);
            self.payload_len += extent.len as u64;
        }
        if self.content.is_none() {
            self.content = Some(Arc::clone(content));
        }
    }

    /// Appends a block whose bytes had to be gathered.
    pub fn push_gathered(&mut self, header: [u8; PIECE_HEADER_LEN], bytes: Vec<u8>) {
        self.push_header(header);
        self.push_vector(bytes.as_ptr(), bytes.len());
        self.payload_len += bytes.len() as u64;
        self.gathered.push(bytes);
    }

    /// Appends a block whose bytes go behind the control bytes, so that all of the message can be encrypted; `read`
    /// appends them. A message has either such blocks or others.
    pub fn push_copied<T>(
        &mut self,
        header: [u8; PIECE_HEADER_LEN],
        read: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> T {
        let control = self.control();
        control.extend_from_slice(&header);
        let start = control.len();
        let outcome = read(control);
        self.payload_len += (self.control.len() - start) as u64;
        self.blocks += 1;
        outcome
    }

    fn push_header(&mut self, header: [u8; PIECE_HEADER_LEN]) {
        assert!(!self.sealed, "a sealed message belongs to the kernel");
        self.headers[self.blocks] = header;
        self.blocks += 1;
        self.push_vector(HEADER_PLACE, PIECE_HEADER_LEN);
    }

    fn push_vector(&mut self, address: *const u8, len: usize) {
        if self.vectors.is_empty() {
            // The control bytes' place; they are still growing.
            self.vectors.push(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 });
        }
        self.vectors.push(libc::iovec { iov_base: address.cast_mut().cast(), iov_len: len });
        self.len += len as u64;
    }

    /// Closes the message. From here to the last completion of its send the slot must stay as it is.
    pub fn seal(self: &mut Box<Self>) -> MessagePointer {
        if self.vectors.is_empty() {
            self.vectors.push(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 });
        }
        self.vectors[0] =
            libc::iovec { iov_base: self.control.as_ptr().cast_mut().cast(), iov_len: self.control.len() };
        self.len += self.control.len() as u64;
        let headers =
            self.vectors[1..].iter_mut().filter(|vector| vector.iov_base.cast_const().cast() == HEADER_PLACE);
        for (vector, header) in headers.zip(&self.headers) {
            vector.iov_base = header.as_ptr().cast_mut().cast();
        }
        let skipped = usize::from(self.control.is_empty());
        self.message.msg_iov = self.vectors[skipped..].as_mut_ptr();
        self.message.msg_iovlen = (self.vectors.len() - skipped) as _;
        self.sealed = true;
        self.message()
    }

    /// The sealed message, to be sent again.
    pub fn message(&self) -> MessagePointer {
        assert!(self.sealed, "an open message may still move");
        // SAFETY: the slot is boxed, every changing method refuses a sealed slot, and the worker keeps it until
        // the last completion. Headers, control and gathered bytes are the slot's own, extents point into
        // mappings of the content it holds.
        unsafe { MessagePointer::new(&raw const self.message) }
    }

    /// Bytes of blocks.
    pub fn payload_len(&self) -> u64 {
        self.payload_len
    }

    /// All bytes; complete once sealed.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.blocks == 0
    }

    /// Blocks in the message.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// The content the message reads from.
    pub fn content(&self) -> Option<&Arc<S>> {
        self.content.as_ref()
    }
}
