//! A peer that believes nothing: it notes which pieces it is offered, fetches them where it may, and compares.

use super::Album;
use seedring::bitfield::Bitfield;
use seedring::id::PeerId;
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use seedring::wire::{Decoder, DecoderLimits, Handshake, Message, Reserved, encode};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

/// What it has seen when the connection ended.
#[derive(Debug)]
pub struct Observed {
    /// Pieces it was offered.
    pub offered: Bitfield,
    /// Bytes that it fetched; all of them were right.
    pub fetched: u64,
    /// What was wrong.
    pub complaint: Option<String>,
}

/// Listens until the other side ends, and fetches up to `enough` bytes of what it is offered.
pub fn observe(address: SocketAddr, album: &Album, enough: u64) -> Observed {
    meet(address, album, enough, false)
}

/// Fetches `len` bytes and leaves.
pub fn fetch(address: SocketAddr, album: &Album, len: u64) -> Observed {
    meet(address, album, len, true)
}

fn meet(address: SocketAddr, album: &Album, enough: u64, leaves: bool) -> Observed {
    let count = album.layout.piece_count();
    let mut observer = Observer {
        album,
        seen: Observed { offered: Bitfield::none(count), fetched: 0, complaint: None },
        to_ask: Vec::new(),
        is_unchoked: false,
        awaited: None,
        answer: Vec::new(),
    };
    // Whatever goes wrong with the socket: the other side was killed.
    let _ = observer.run(address, enough, leaves);
    observer.seen
}

struct Observer<'a> {
    album: &'a Album,
    seen: Observed,
    to_ask: Vec<BlockSpan>,
    is_unchoked: bool,
    awaited: Option<BlockSpan>,
    /// What has come of the awaited block.
    answer: Vec<u8>,
}

impl Observer<'_> {
    fn run(&mut self, address: SocketAddr, enough: u64, leaves: bool) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let mut peer_id = PeerId(*b"-XX0000-observer0000");
        peer_id.0[18..].copy_from_slice(&stream.local_addr()?.port().to_be_bytes());
        let info_hash = self.album.metainfo.info_hash();
        stream.write_all(&Handshake { reserved: Reserved::OURS, info_hash, peer_id }.encode())?;
        stream.read_exact(&mut [0; 68])?;
        let mut hello = Vec::new();
        encode(&Message::HaveNone, &mut hello);
        encode(&Message::Interested, &mut hello);
        stream.write_all(&hello)?;
        let mut decoder = Decoder::new(DecoderLimits::for_pieces(self.album.layout.piece_count()));
        let mut unread = Vec::new();
        let mut buffer = [0; 65_536];
        loop {
            let mut input = &unread[..];
            loop {
                if decoder.payload_remaining() > 0 {
                    if input.is_empty() {
                        break;
                    }
                    self.answer.extend_from_slice(decoder.take_payload(&mut input));
                } else if let Some(message) = decoder.decode(&mut input).expect("it speaks the protocol") {
                    self.handle(&message);
                } else {
                    break;
                }
                self.judge_answer(decoder.payload_remaining());
            }
            unread = input.to_vec();
            if self.seen.complaint.is_some() || leaves && self.seen.fetched >= enough {
                return Ok(());
            }
            if self.is_unchoked
                && self.seen.fetched < enough
                && self.awaited.is_none()
                && let Some(span) = self.to_ask.pop()
            {
                self.awaited = Some(span);
                let mut request = Vec::new();
                encode(&Message::Request(span), &mut request);
                stream.write_all(&request)?;
            }
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            unread.extend_from_slice(&buffer[..read]);
        }
    }

    fn handle(&mut self, message: &Message<'_>) {
        match *message {
            Message::Unchoke => self.is_unchoked = true,
            Message::Choke => (self.is_unchoked, self.awaited) = (false, None),
            Message::Have(piece) => self.offer(piece),
            Message::HaveAll => {
                (0..self.album.layout.piece_count()).for_each(|piece| self.offer(PieceIndex(piece)))
            }
            Message::Bitfield(bytes) => {
                let offered =
                    Bitfield::from_wire(bytes, self.album.layout.piece_count()).expect("as long as due");
                offered.iter().for_each(|piece| self.offer(piece));
            }
            Message::Reject(_) => self.awaited = None,
            Message::Piece(_) => self.answer.clear(),
            _ => {}
        }
    }

    fn offer(&mut self, piece: PieceIndex) {
        if self.seen.offered.insert(piece) {
            let len = self.album.layout.piece_len(piece);
            self.to_ask.extend((0..len).step_by(BLOCK_LEN as usize).map(|begin| BlockSpan {
                piece,
                begin,
                len: BLOCK_LEN.min(len - begin),
            }));
        }
    }

    fn judge_answer(&mut self, remaining: u32) {
        if let Some(span) = self.awaited
            && remaining == 0
            && self.answer.len() == span.len as usize
        {
            let begin =
                span.piece.0 as usize * self.album.layout.piece_length() as usize + span.begin as usize;
            let due: Range<usize> = begin..begin + span.len as usize;
            if self.answer != self.album.content[due] {
                self.seen.complaint = Some(format!("{span:?} is not what was published"));
            }
            self.seen.fetched += u64::from(span.len);
            self.awaited = None;
            self.answer.clear();
        }
    }
}
