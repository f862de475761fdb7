//! The least CPU that receiving a torrent's bytes can cost: frames of a header and a block from a loopback sender into
//! pieces, SHA-1 over each, each into its file. Decides how a downloader receives.
//!
//! The sender is a thread on another core whose CPU time is subtracted. Blocks of `in_flight` pieces come in turn, as
//! from as many peers; with one they come piece after piece and never leave the cache. The receiver knows
//! the order, as one that has requested it does. What was written is compared afterwards, outside the measure.
//! Deliberately absent: request messages, and any bytes but the expected.
#![expect(
    unsafe_code,
    reason = "blocks go into buffers and mappings by their address, and io_uring takes addresses"
)]

use crate::{Outcome, Receive, ReceiveMethod, pin};
use io_uring::{IoUring, opcode, types};
use seedring::{clock, storage};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const BLOCK_LEN: usize = 16 * 1024;
const HEADER_LEN: usize = 13;
const FRAME_LEN: usize = HEADER_LEN + BLOCK_LEN;
/// Bytes of the buffer of the method that copies.
const COPY_BUFFER_LEN: usize = 64 * 1024;
/// Bytes that the sender sends over and over; not a multiple of a piece, so that pieces differ.
const SOURCE_LEN: usize = 64 * 1024 * 1024 + BLOCK_LEN;
/// Frames of one send.
const SEND_FRAMES: usize = 32;

/// Which frame carries which block.
#[derive(Clone, Copy)]
struct Order {
    piece_len: usize,
    pieces: usize,
    in_flight: usize,
}

impl Order {
    fn blocks(self) -> usize {
        self.piece_len / BLOCK_LEN
    }

    fn frames(self) -> usize {
        self.pieces * self.blocks()
    }

    /// Frames of the pieces that come together.
    fn round(self) -> usize {
        self.in_flight * self.blocks()
    }

    /// Piece, and first byte within it.
    fn block_of(self, frame: usize) -> (usize, usize) {
        let within = frame % self.round();
        let piece = frame / self.round() * self.in_flight + within % self.in_flight;
        (piece, within / self.in_flight * BLOCK_LEN)
    }

    fn source_of(frame: usize) -> usize {
        frame * BLOCK_LEN % SOURCE_LEN
    }
}

/// Receives once and prints one line of JSON.
pub fn run(receive: &Receive) -> Outcome<()> {
    let piece_len = usize::try_from(receive.piece_length.0)?;
    if piece_len == 0 || !piece_len.is_multiple_of(BLOCK_LEN) {
        return Err("the piece length must be a multiple of 16 KiB".into());
    }
    let in_flight = receive.in_flight.max(1);
    let pieces = usize::try_from(receive.bytes.0)? / piece_len / in_flight * in_flight;
    let order = Order { piece_len, pieces, in_flight };
    if pieces == 0 {
        return Err("the bytes must be enough for the pieces in flight".into());
    }
    let mut source = vec![0; SOURCE_LEN];
    seedring::rng::Rng::from_seed(1).fill(&mut source);
    let source = Arc::new(source);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (pin_sender, sent) = (receive.pin_sender, Arc::clone(&source));
    let sender = std::thread::spawn(move || -> Outcome<f64> {
        pin(pin_sender)?;
        let (socket, _) = listener.accept()?;
        send(socket, &sent, order)?;
        Ok(clock::thread_cpu_time().as_secs_f64())
    });
    pin(receive.pin)?;
    let file = File::options().read(true).write(true).create_new(true).open(&receive.data)?;
    file.set_len((pieces * piece_len) as u64)?;
    let outcome = measure(receive, order, &file, address, sender).and_then(|line| {
        compare(order, &file, &source)?;
        println!("{line}");
        Ok(())
    });
    std::fs::remove_file(&receive.data)?;
    outcome
}

fn measure(
    receive: &Receive,
    order: Order,
    file: &File,
    address: std::net::SocketAddr,
    sender: std::thread::JoinHandle<Outcome<f64>>,
) -> Outcome<String> {
    let mut pieces = Pieces::new(receive, order, file)?;
    let (cpu_before, started) = (clock::process_cpu_time(), clock::now());
    let socket = TcpStream::connect(address)?;
    match receive.method {
        ReceiveMethod::Copy => pieces.receive_copying(&socket)?,
        _ => pieces.receive_straight(&socket, receive.frames.max(1))?,
    }
    pieces.finish()?;
    let seconds = clock::now().since(started).as_secs_f64();
    let sender_cpu = sender.join().map_err(|_| "the sender died")??;
    let cpu = (clock::process_cpu_time() - cpu_before).as_secs_f64() - sender_cpu;
    let gibibytes = (order.pieces * order.piece_len) as f64 / f64::from(1 << 30);
    Ok(format!(
        "{{\"method\":\"{:?}\",\"lanes\":{},\"in_flight\":{},\"frames\":{},\"piece_length\":{},\"gib\":{gibibytes:.3},\
         \"seconds\":{seconds:.3},\"cpu_s_per_gib\":{:.4},\"sender_cpu_s_per_gib\":{:.4}}}",
        receive.method,
        receive.lanes,
        order.in_flight,
        receive.frames,
        order.piece_len,
        cpu / gibibytes,
        sender_cpu / gibibytes
    ))
}

fn send(mut socket: TcpStream, source: &[u8], order: Order) -> Outcome<()> {
    for first in (0..order.frames()).step_by(SEND_FRAMES) {
        let frames = first..(first + SEND_FRAMES).min(order.frames());
        let headers: Vec<[u8; HEADER_LEN]> = frames.clone().map(|frame| header(order, frame)).collect();
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(2 * SEND_FRAMES);
        for (frame, header) in frames.zip(&headers) {
            let from = Order::source_of(frame);
            slices.extend([IoSlice::new(header), IoSlice::new(&source[from..from + BLOCK_LEN])]);
        }
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            let count = socket.write_vectored(slices)?;
            IoSlice::advance_slices(&mut slices, count);
        }
    }
    Ok(())
}

/// A piece message's head (BEP 3): length, type 7, piece, begin.
fn header(order: Order, frame: usize) -> [u8; HEADER_LEN] {
    let (piece, begin) = order.block_of(frame);
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&((FRAME_LEN - 4) as u32).to_be_bytes());
    header[4] = 7;
    header[5..9].copy_from_slice(&(piece as u32).to_be_bytes());
    header[9..].copy_from_slice(&(begin as u32).to_be_bytes());
    header
}

/// Pieces that are being filled, hashed and written.
struct Pieces<'a> {
    order: Order,
    lanes: usize,
    file: &'a File,
    /// Buffers in turn, unless the file is mapped.
    slots: Vec<Vec<u8>>,
    map: Option<memmap2::MmapMut>,
    ring: Option<(IoUring, VecDeque<usize>)>,
    /// Whole, not yet hashed.
    whole: Vec<usize>,
    hashes: u8,
}

impl<'a> Pieces<'a> {
    fn new(receive: &Receive, order: Order, file: &'a File) -> Outcome<Self> {
        let lanes = if receive.lanes >= 4 { 4 } else { 1 };
        let is_mapped = receive.method == ReceiveMethod::Mapped;
        // Twice what is filled at once, so that a ring may still write the others.
        let slots = if is_mapped { 0 } else { 2 * order.in_flight.max(lanes) };
        let map = match is_mapped {
            // SAFETY: the file has just been made by this process, and nobody else writes to it or cuts it off.
            true => Some(unsafe { memmap2::MmapMut::map_mut(file)? }),
            false => None,
        };
        let ring = match receive.method {
            ReceiveMethod::Uring => Some((IoUring::new(64)?, VecDeque::new())),
            _ => None,
        };
        let slots = vec![vec![0; order.piece_len]; slots];
        Ok(Self { order, lanes, file, slots, map, ring, whole: Vec::new(), hashes: 0 })
    }

    /// Where a block goes.
    fn block_at(&mut self, piece: usize, begin: usize) -> *mut u8 {
        let slots = self.slots.len();
        match &mut self.map {
            Some(map) => map[piece * self.order.piece_len + begin..][..BLOCK_LEN].as_mut_ptr(),
            None => self.slots[piece % slots][begin..][..BLOCK_LEN].as_mut_ptr(),
        }
    }

    fn piece(&self, piece: usize) -> &[u8] {
        match &self.map {
            Some(map) => &map[piece * self.order.piece_len..][..self.order.piece_len],
            None => &self.slots[piece % self.slots.len()],
        }
    }

    fn receive_copying(&mut self, socket: &TcpStream) -> Outcome<()> {
        let mut buffer = vec![0; COPY_BUFFER_LEN];
        let (mut held, mut frame, mut within) = (0, 0, 0);
        while frame < self.order.frames() {
            let (_, count) = rustix::net::recv(socket, &mut buffer[held..], rustix::net::RecvFlags::empty())?;
            if count == 0 {
                return Err("the sender ended early".into());
            }
            held += count;
            let mut taken = 0;
            while taken < held && frame < self.order.frames() {
                let rest = held - taken;
                if within == 0 {
                    if rest < HEADER_LEN {
                        break;
                    }
                    if buffer[taken..taken + HEADER_LEN] != header(self.order, frame) {
                        return Err("a strange header".into());
                    }
                    (taken, within) = (taken + HEADER_LEN, HEADER_LEN);
                    continue;
                }
                let len = rest.min(FRAME_LEN - within);
                let (piece, begin) = self.order.block_of(frame);
                let at = self.block_at(piece, begin);
                // SAFETY: `at` is the block's own 16 KiB, of which `within - HEADER_LEN + len` are not exceeded,
                // and no reference to them exists meanwhile.
                unsafe {
                    std::ptr::copy_nonoverlapping(buffer[taken..].as_ptr(), at.add(within - HEADER_LEN), len);
                }
                (taken, within) = (taken + len, within + len);
                if within == FRAME_LEN {
                    (frame, within) = (frame + 1, 0);
                    self.handle_block(frame)?;
                }
            }
            buffer.copy_within(taken..held, 0);
            held -= taken;
        }
        Ok(())
    }

    /// Headers and blocks of up to `at_once` frames in one readv, none of them beyond the pieces of one round.
    fn receive_straight(&mut self, socket: &TcpStream, at_once: usize) -> Outcome<()> {
        let mut headers = vec![[0_u8; HEADER_LEN]; at_once];
        let (mut frame, mut within) = (0, 0);
        // The bytes of a header that came in an earlier read.
        let mut kept = [0_u8; HEADER_LEN];
        while frame < self.order.frames() {
            let end = (frame + at_once).min((frame / self.order.round() + 1) * self.order.round());
            let mut slices: Vec<IoSliceMut<'_>> = Vec::with_capacity(2 * at_once);
            for (next, header) in (frame..end).zip(&mut headers) {
                let skipped = if next == frame { within } else { 0 };
                if skipped < HEADER_LEN {
                    slices.push(IoSliceMut::new(&mut header[skipped..]));
                }
                let (piece, begin) = self.order.block_of(next);
                let in_block = skipped.saturating_sub(HEADER_LEN);
                let at = self.block_at(piece, begin);
                // SAFETY: the block's own 16 KiB from `in_block` on; the blocks of a round do not overlap, and
                // nothing else refers to them until the read has returned.
                let block = unsafe { std::slice::from_raw_parts_mut(at.add(in_block), BLOCK_LEN - in_block) };
                slices.push(IoSliceMut::new(block));
            }
            let mut count = rustix::io::readv(socket, &mut slices)?;
            if count == 0 {
                return Err("the sender ended early".into());
            }
            let mut index = 0;
            while count > 0 {
                let len = count.min(FRAME_LEN - within);
                if within < HEADER_LEN {
                    let came = within..(within + len).min(HEADER_LEN);
                    kept[came.clone()].copy_from_slice(&headers[index][came]);
                    if within + len >= HEADER_LEN && kept != header(self.order, frame) {
                        return Err("a strange header".into());
                    }
                }
                (within, count) = (within + len, count - len);
                if within == FRAME_LEN {
                    (frame, within, index) = (frame + 1, 0, index + 1);
                    self.handle_block(frame)?;
                }
            }
        }
        Ok(())
    }

    /// The frame before `frame` has come: it may have been its piece's last.
    fn handle_block(&mut self, frame: usize) -> Outcome<()> {
        let (piece, begin) = self.order.block_of(frame - 1);
        if begin + BLOCK_LEN < self.order.piece_len {
            return Ok(());
        }
        self.whole.push(piece);
        if self.whole.len() == self.lanes {
            self.complete()?;
        }
        Ok(())
    }

    /// Hashes and writes what is whole.
    fn complete(&mut self) -> Outcome<()> {
        let whole = std::mem::take(&mut self.whole);
        let bytes: Vec<&[u8]> = whole.iter().map(|&piece| self.piece(piece)).collect();
        for hash in storage::piece_hashes(&bytes) {
            self.hashes ^= hash[0];
        }
        if self.map.is_some() {
            return Ok(());
        }
        for piece in whole {
            let offset = (piece * self.order.piece_len) as u64;
            if self.ring.is_none() {
                self.file.write_all_at(self.piece(piece), offset)?;
                continue;
            }
            let (at, len) = (self.piece(piece).as_ptr(), self.order.piece_len as u32);
            let write = opcode::Write::new(types::Fd(self.file.as_raw_fd()), at, len).offset(offset);
            let Some((ring, writing)) = &mut self.ring else { continue };
            // SAFETY: the buffer lives until `finish`, and is not written to before this write has been reaped.
            unsafe { ring.submission().push(&write.build())? };
            writing.push_back(piece);
        }
        // Before the slots come round again, the older half has to be written.
        let keep = self.slots.len() / 2;
        self.reap(keep)
    }

    /// Waits until no more than `keep` writes are under way.
    fn reap(&mut self, keep: usize) -> Outcome<()> {
        let Some((ring, writing)) = &mut self.ring else { return Ok(()) };
        ring.submit_and_wait(writing.len().saturating_sub(keep))?;
        for entry in ring.completion() {
            if entry.result() != self.order.piece_len as i32 {
                return Err(format!("a write answered {}", entry.result()).into());
            }
            writing.pop_front();
        }
        Ok(())
    }

    fn finish(&mut self) -> Outcome<()> {
        if !self.whole.is_empty() {
            self.complete()?;
        }
        self.reap(0)
    }
}

/// Whether the file has what was sent.
fn compare(order: Order, file: &File, source: &[u8]) -> Outcome<()> {
    let mut block = vec![0; BLOCK_LEN];
    for frame in 0..order.frames() {
        let (piece, begin) = order.block_of(frame);
        file.read_exact_at(&mut block, (piece * order.piece_len + begin) as u64)?;
        let from = Order::source_of(frame);
        if block != source[from..from + BLOCK_LEN] {
            return Err(format!("piece {piece} has other bytes at {begin}").into());
        }
    }
    Ok(())
}
