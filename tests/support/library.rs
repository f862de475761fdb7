//! Torrents of small real files, and what a peer gets of them from a `seedring seed` that is a process of its own.

use super::Leech;
use seedring::bencode;
use seedring::id::InfoHash;
use seedring::metainfo::Metainfo;
use seedring::storage::piece_hash;
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use seedring::wire::{
    EXTENSION_HANDSHAKE_ID, ExtensionHandshake, ExtensionIds, Message, MetadataMessage, Reserved,
    metadata_piece_count,
};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

/// The number under which our peers take `ut_metadata`.
const METADATA_ID: u8 = 3;

/// A torrent with its bytes.
pub struct Work {
    pub name: String,
    pub info_hash: InfoHash,
    /// Its info dictionary.
    pub info: Vec<u8>,
    /// All files one after the other.
    pub content: Vec<u8>,
    pub torrent: Vec<u8>,
    files: Vec<(String, usize)>,
    piece_len: usize,
}

impl Work {
    /// Random files of these lengths in the folder `name`, or one that is called so itself when it has no name of its own.
    /// Its info dictionary has so many bytes more than it need have.
    pub fn new(seed: u64, name: &str, piece_len: usize, files: &[(&str, usize)], padding: usize) -> Self {
        let content = super::bytes_of(seed, files.iter().map(|(_, len)| len).sum());
        let hashes: Vec<u8> = content.chunks(piece_len).flat_map(piece_hash).collect();
        let torrent = bencode::dict(|torrent| {
            torrent.dict("info", |info| {
                match files {
                    [("", len)] => info.int("length", *len as i64),
                    _ => info.list("files", |list| {
                        for (path, len) in files {
                            list.dict(|file| {
                                file.int("length", *len as i64);
                                file.list("path", |parts| parts.bytes(path));
                            });
                        }
                    }),
                }
                info.bytes("name", name);
                info.bytes("padding", vec![b' '; padding]);
                info.int("piece length", piece_len as i64);
                info.bytes("pieces", hashes);
            });
        });
        let metainfo = Metainfo::parse(&torrent).unwrap();
        let files = files.iter().map(|&(path, len)| (path.to_owned(), len)).collect();
        let (info_hash, info) = (metainfo.info_hash(), metainfo.info_bytes().to_vec());
        Self { name: name.to_owned(), info_hash, info, content, torrent, files, piece_len }
    }

    /// Writes NAME.torrent into this folder.
    pub fn write_torrent(&self, folder: &Path) {
        fs::write(folder.join(format!("{}.torrent", self.name)), &self.torrent).unwrap();
    }

    /// Writes the files into this folder.
    pub fn write_content(&self, folder: &Path) {
        let mut rest = &self.content[..];
        for (path, len) in &self.files {
            let (bytes, behind) = rest.split_at(*len);
            rest = behind;
            let path = folder.join(&self.name).join(path);
            // Joined with nothing, a path ends in a slash.
            let path = path.components().collect::<std::path::PathBuf>();
            fs::create_dir_all(path.parent().expect("it lies in a folder")).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// Its blocks, in order.
    pub fn blocks(&self) -> Vec<BlockSpan> {
        let blocks = self.content.chunks(self.piece_len).enumerate().flat_map(|(piece, bytes)| {
            let piece = PieceIndex(piece as u32);
            let begins = (0..bytes.len() as u32).step_by(BLOCK_LEN as usize);
            begins.map(move |begin| BlockSpan {
                piece,
                begin,
                len: BLOCK_LEN.min(bytes.len() as u32 - begin),
            })
        });
        blocks.collect()
    }

    /// The bytes of a block.
    pub fn bytes(&self, block: BlockSpan) -> &[u8] {
        let start = block.piece.0 as usize * self.piece_len + block.begin as usize;
        &self.content[start..start + block.len as usize]
    }

    /// A peer that has exchanged handshakes with the seed.
    pub fn meet(&self, seed: SocketAddr) -> Leech {
        let stream = TcpStream::connect(seed).unwrap();
        let piece_count = self.content.len().div_ceil(self.piece_len) as u32;
        Leech::meeting(stream, self.info_hash, piece_count, Reserved::OURS)
    }

    /// A peer that may ask for blocks.
    pub fn join(&self, seed: SocketAddr) -> Leech {
        let mut leech = self.meet(seed);
        leech.say(&[Message::HaveNone, Message::Interested]);
        leech.wait_for(|message| *message == Message::Unchoke);
        leech
    }

    /// Everything, asked for at once.
    pub fn fetch(&self, leech: &mut Leech) -> Vec<u8> {
        let (blocks, mut content) = (self.blocks(), Vec::new());
        leech.ask(&blocks);
        leech.take(&blocks, &mut content);
        content
    }

    /// The info dictionary as the seed gives it to a newcomer who has only a magnet link (BEP 9); `None` when it rejects a
    /// piece of it.
    pub fn fetch_info(&self, seed: SocketAddr) -> Option<Vec<u8>> {
        let mut leech = self.meet(seed);
        let ids = ExtensionIds { metadata: Some(METADATA_ID), ..ExtensionIds::default() };
        let ours = ExtensionHandshake { ids, ..ExtensionHandshake::default() }.encode();
        leech.say(&[Message::HaveNone, Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: &ours }]);
        let theirs = leech.hear(|message| match message {
            Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload } => ExtensionHandshake::decode(payload),
            _ => None,
        });
        let (id, len) = (theirs.ids.metadata?, theirs.metadata_len?);
        let mut info = Vec::new();
        for piece in 0..metadata_piece_count(len) {
            let payload = MetadataMessage::Request { piece }.encode();
            leech.say(&[Message::Extended { id, payload: &payload }]);
            let given = leech.hear(|message| match message {
                Message::Extended { id: METADATA_ID, payload } => match MetadataMessage::decode(payload) {
                    Some(MetadataMessage::Data { piece: told, bytes, .. }) if told == piece => {
                        Some(Some(bytes.to_vec()))
                    }
                    Some(MetadataMessage::Reject { piece: told }) if told == piece => Some(None),
                    _ => None,
                },
                _ => None,
            });
            info.extend(given?);
        }
        Some(info)
    }
}
