//! One send in the making and in flight: control bytes, then `[13-byte header][block]` pairs, as one message.
//!
//! A slot belongs to the kernel from [`seal`](SendSlot::seal) until the send's last completion. What the kernel reads lies
//! in memory that the slot's vectors own: none of them grows meanwhile, and it stays where it is when the slot's box moves.
//! The slot holds the content its extents point into, so a mapping cannot go before its sends do. Slots are pooled: an
//! idle connection has none.
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
    /// One message, in memory of its own.
    message: Vec<libc::msghdr>,
    vectors: Vec<libc::iovec>,
    headers: Vec<[u8; PIECE_HEADER_LEN]>,
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
            message: vec![unsafe { std::mem::zeroed() }],
            vectors: Vec::new(),
            headers: Vec::with_capacity(BLOCKS_PER_SEND_MAX),
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
        self.headers.clear();
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

    /// Makes room for so many bytes of blocks that are copied, so that memory is taken once and no more than needed.
    pub fn reserve(&mut self, len: u64, blocks: usize) {
        let headers = blocks.min(BLOCKS_PER_SEND_MAX) * PIECE_HEADER_LEN;
        self.control().reserve_exact(usize::try_from(len).unwrap_or(0) + headers);
    }

    /// Bytes of memory that were copied for this message.
    pub fn copied_len(&self) -> usize {
        self.control.capacity() + self.gathered.iter().map(Vec::capacity).sum::<usize>()
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
        self.headers.push(header);
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
        self.message[0].msg_iov = self.vectors[skipped..].as_mut_ptr();
        self.message[0].msg_iovlen = (self.vectors.len() - skipped) as _;
        self.sealed = true;
        self.message()
    }

    /// The sealed message, to be sent again.
    pub fn message(&self) -> MessagePointer {
        assert!(self.sealed, "an open message may still move");
        // SAFETY: every changing method refuses a sealed slot, and the worker keeps it until the last completion. Message,
        // vectors, headers, control and gathered bytes lie in memory of the slot's vectors, extents point into mappings of
        // the content it holds.
        unsafe { MessagePointer::new(self.message.as_ptr()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Content that its messages point into.
    type Bytes = Vec<u8>;

    fn extent(content: &Bytes, start: usize, len: usize) -> Extent {
        let part = &content[start..start + len];
        Extent { address: part.as_ptr(), len: part.len() }
    }

    /// Reads a sealed message as the kernel would.
    fn read(message: MessagePointer) -> Vec<u8> {
        // SAFETY: the message is sealed, and its slot lives for as long as the test reads.
        let vectors = unsafe {
            let message = &*message.as_ptr();
            std::slice::from_raw_parts(message.msg_iov, message.msg_iovlen)
        };
        let mut bytes = Vec::new();
        for vector in vectors {
            // SAFETY: each vector points into the slot or into content that the slot holds.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), vector.iov_len)
            });
        }
        bytes
    }

    #[test]
    fn a_sealed_message_is_read_in_order_after_its_slot_has_moved() {
        let content = Arc::new((0..100).collect::<Bytes>());
        let mut slot = SendSlot::new();
        slot.control().extend_from_slice(b"control");
        slot.push_block([1; PIECE_HEADER_LEN], &[extent(&content, 0, 3), extent(&content, 50, 2)], &content);
        slot.push_gathered([2; PIECE_HEADER_LEN], vec![9; 4]);
        let message = slot.seal();
        // In flight the slot lies with many others; the box is moved, its content stays.
        let mut in_flight = Vec::from([SendSlot::new()]);
        in_flight.push(slot);
        let whole = [&b"control"[..], &[1; 13], &[0, 1, 2, 50, 51], &[2; 13], &[9; 4]].concat();
        assert_eq!(read(message), whole);
        let slot = in_flight.pop().expect("just pushed");
        assert_eq!((slot.len(), slot.payload_len(), slot.blocks()), (whole.len() as u64, 9, 2));
        // The same message again, as after a refused zero-copy send.
        assert_eq!(read(slot.message()), whole);
    }

    #[test]
    fn content_stays_until_the_slot_is_cleared_and_a_cleared_slot_serves_again() {
        let content = Arc::new(vec![7; 10]);
        let mut slot = SendSlot::new();
        slot.push_block([1; PIECE_HEADER_LEN], &[extent(&content, 0, 10)], &content);
        let message = slot.seal();
        let gone = Arc::downgrade(&content);
        drop(content);
        assert_eq!(read(message), [vec![1; 13], vec![7; 10]].concat());
        slot.clear();
        assert!(gone.upgrade().is_none() && slot.is_empty());
        slot.control().push(5);
        let message = slot.seal();
        assert_eq!(read(message), [5]);
    }

    #[test]
    fn a_message_has_no_more_blocks_and_extents_than_the_kernel_takes() {
        let content = Arc::new(vec![7; 4]);
        let mut slot = SendSlot::new();
        while slot.has_room(1) {
            slot.push_block([1; PIECE_HEADER_LEN], &[extent(&content, 0, 4)], &content);
        }
        assert_eq!(slot.blocks(), BLOCKS_PER_SEND_MAX);
        assert_eq!(read(slot.seal()).len(), BLOCKS_PER_SEND_MAX * 17);
    }

    #[test]
    fn copied_blocks_follow_the_control_bytes() {
        let mut slot = SendSlot::<Bytes>::new();
        slot.control().push(3);
        let answer = slot.push_copied([1; PIECE_HEADER_LEN], |bytes| {
            bytes.extend_from_slice(&[4; 5]);
            "read"
        });
        assert_eq!((answer, slot.payload_len(), slot.blocks()), ("read", 5, 1));
        assert_eq!(read(slot.seal()), [vec![3], vec![1; 13], vec![4; 5]].concat());
    }
}
