//! One connection to a peer that we want nothing of but the info dictionary (BEP 3, 9, 10), sans-IO.
//!
//! Bytes in, [`PeerWord`]s out. What the peer says of its pieces is read past, since nobody knows yet how many there
//! are. We speak neither the fast extension nor requests for blocks, so that a block is always one too many.
//! Deliberately absent: time, sockets and the choice of what to ask.

use crate::id::{InfoHash, PeerId};
use crate::units::BlockSpan;
use crate::wire::{
    Decoder, DecoderLimits, EXTENSION_HANDSHAKE_ID, ExtensionHandshake, ExtensionIds, HANDSHAKE_LEN,
    Handshake, Message, MetadataMessage, Reserved, WireError, check_prefix, encode,
};

/// Our number for `ut_metadata`.
const METADATA_ID: u8 = 2;
/// Extended messages, and nothing else beyond BEP 3.
const RESERVED: Reserved = Reserved([0, 0, 0, 0, 0, 0x10, 0, 0]);

/// What the peer says that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerWord {
    /// It is a peer of this torrent that speaks extensions.
    Introduced,
    /// It has the info dictionary, of this many bytes, and gives it.
    Has(u32),
    /// It does not have the info dictionary, or does not give it, for now.
    HasNot,
    /// A piece; bounded, but not checked in any other way.
    Data {
        /// The piece's number.
        piece: u32,
        /// Bytes of the whole, as told with the piece.
        total_len: Option<u32>,
        /// The piece's bytes.
        bytes: Vec<u8>,
    },
    /// It does not give this piece.
    Reject(u32),
}

/// Why the connection is of no use. All of them are the peer's doing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataPeerError {
    /// Bytes that are no peer wire.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It answers with another torrent.
    #[error("speaks of another torrent, {0}")]
    OtherTorrent(InfoHash),
    /// We have dialled ourselves.
    #[error("is ourselves")]
    Ourselves,
    /// It knows no extensions, so it cannot give the info dictionary.
    #[error("speaks no extensions, so it cannot give the info dictionary")]
    NoExtensions,
    /// A block.
    #[error("sends {0}, which was not asked for")]
    UnwantedBlock(BlockSpan),
}

/// The state of such a connection.
#[derive(Debug)]
pub struct MetadataPeer {
    info_hash: InfoHash,
    peer_id: PeerId,
    /// The peer's handshake, as far as it has come; `None` when it is done.
    handshake: Option<Vec<u8>>,
    decoder: Decoder,
    ids: ExtensionIds,
    out: Vec<u8>,
}

impl MetadataPeer {
    /// A connection that we have opened: our handshake waits to be sent.
    pub fn outgoing(info_hash: InfoHash, peer_id: PeerId) -> Self {
        let ours = Handshake { reserved: RESERVED, info_hash, peer_id };
        Self {
            info_hash,
            peer_id,
            handshake: Some(Vec::new()),
            decoder: Decoder::new(DecoderLimits::without_metadata()),
            ids: ExtensionIds::default(),
            out: ours.encode().to_vec(),
        }
    }

    /// Takes bytes off the front of `input` up to the next word. `Ok(None)`: the input is used up.
    pub fn handle_bytes(&mut self, input: &mut &[u8]) -> Result<Option<PeerWord>, MetadataPeerError> {
        if let Some(gathered) = &mut self.handshake {
            let (head, rest) = input.split_at(input.len().min(HANDSHAKE_LEN - gathered.len()));
            gathered.extend_from_slice(head);
            *input = rest;
            check_prefix(gathered)?;
            let Ok(whole) = <&[u8; HANDSHAKE_LEN]>::try_from(gathered.as_slice()) else { return Ok(None) };
            let theirs = Handshake::decode(whole)?;
            self.handshake = None;
            self.introduce_extensions(&theirs)?;
            return Ok(Some(PeerWord::Introduced));
        }
        while let Some(message) = self.decoder.decode(input)? {
            let word = match message {
                Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload } => {
                    ExtensionHandshake::decode_after(payload, self.ids).map(|theirs| {
                        self.ids = theirs.ids;
                        match (theirs.ids.metadata, theirs.metadata_len) {
                            (Some(_), Some(len)) => PeerWord::Has(len),
                            _ => PeerWord::HasNot,
                        }
                    })
                }
                Message::Extended { id: METADATA_ID, payload } => match MetadataMessage::decode(payload) {
                    Some(MetadataMessage::Data { piece, total_len, bytes }) => {
                        Some(PeerWord::Data { piece, total_len, bytes: bytes.to_vec() })
                    }
                    Some(MetadataMessage::Reject { piece }) => Some(PeerWord::Reject(piece)),
                    // We have nothing to give, and have not said that we had; no answer is owed.
                    Some(MetadataMessage::Request { .. }) | None => None,
                },
                Message::Piece(span) => return Err(MetadataPeerError::UnwantedBlock(span)),
                _ => None,
            };
            if word.is_some() {
                return Ok(word);
            }
        }
        Ok(None)
    }

    fn introduce_extensions(&mut self, theirs: &Handshake) -> Result<(), MetadataPeerError> {
        if theirs.info_hash != self.info_hash {
            return Err(MetadataPeerError::OtherTorrent(theirs.info_hash));
        }
        if theirs.peer_id == self.peer_id {
            return Err(MetadataPeerError::Ourselves);
        }
        if !theirs.reserved.extended() {
            return Err(MetadataPeerError::NoExtensions);
        }
        let ours = ExtensionHandshake {
            ids: ExtensionIds { metadata: Some(METADATA_ID), ..ExtensionIds::default() },
            ..ExtensionHandshake::default()
        };
        let payload = ours.encode();
        encode(&Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: &payload }, &mut self.out);
        Ok(())
    }

    /// Asks for a piece. Nothing happens when the peer has told no number for that.
    pub fn request(&mut self, piece: u32) {
        if let Some(id) = self.ids.metadata {
            let payload = MetadataMessage::Request { piece }.encode();
            encode(&Message::Extended { id, payload: &payload }, &mut self.out);
        }
    }

    /// Tells the peer that we are still there.
    pub fn keep_alive(&mut self) {
        if self.handshake.is_none() {
            encode(&Message::KeepAlive, &mut self.out);
        }
    }

    /// What waits to be sent.
    pub fn poll_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The peer has not finished its handshake.
    pub fn is_strange(&self) -> bool {
        self.handshake.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: InfoHash = InfoHash([1; 20]);
    const US: PeerId = PeerId([2; 20]);

    fn handshake(reserved: Reserved, info_hash: InfoHash, peer_id: PeerId) -> Vec<u8> {
        Handshake { reserved, info_hash, peer_id }.encode().to_vec()
    }

    fn words(peer: &mut MetadataPeer, mut input: &[u8]) -> Result<Vec<PeerWord>, MetadataPeerError> {
        std::iter::from_fn(|| peer.handle_bytes(&mut input).transpose()).collect()
    }

    #[test]
    fn asks_under_the_peers_number_and_hears_the_answers() {
        let mut peer = MetadataPeer::outgoing(HASH, US);
        assert_eq!(peer.poll_output(), handshake(RESERVED, HASH, US));
        let mut said = handshake(Reserved::OURS, HASH, PeerId([3; 20]));
        encode(&Message::HaveAll, &mut said);
        encode(&Message::Bitfield(&[0xff; 99]), &mut said);
        encode(
            &Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai7ee13:metadata_sizei20000ee" },
            &mut said,
        );
        assert_eq!(words(&mut peer, &said), Ok(vec![PeerWord::Introduced, PeerWord::Has(20_000)]));
        assert!(peer.poll_output().ends_with(b"d1:md11:ut_metadatai2eee"));
        peer.request(1);
        assert!(peer.poll_output().ends_with(b"\x14\x07d8:msg_typei0e5:piecei1ee"));
        let mut said = Vec::new();
        for payload in
            [b"d8:msg_typei1e5:piecei1e10:total_sizei20000eexyz".as_slice(), b"d8:msg_typei2e5:piecei0ee"]
        {
            encode(&Message::Extended { id: 2, payload }, &mut said);
        }
        encode(&Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai0eee" }, &mut said);
        let data = PeerWord::Data { piece: 1, total_len: Some(20_000), bytes: b"xyz".to_vec() };
        assert_eq!(words(&mut peer, &said), Ok(vec![data, PeerWord::Reject(0), PeerWord::HasNot]));
    }

    #[test]
    fn says_why_a_peer_is_of_no_use() {
        let error = |said: &[u8]| words(&mut MetadataPeer::outgoing(HASH, US), said).unwrap_err();
        let other = InfoHash([9; 20]);
        let them = PeerId([3; 20]);
        assert_eq!(error(&handshake(Reserved::OURS, other, them)), MetadataPeerError::OtherTorrent(other));
        assert_eq!(error(&handshake(Reserved::OURS, HASH, US)), MetadataPeerError::Ourselves);
        assert_eq!(error(&handshake(Reserved::NONE, HASH, them)), MetadataPeerError::NoExtensions);
        assert!(matches!(error(b"HTTP"), MetadataPeerError::Wire(_)));
        let mut block = handshake(Reserved::OURS, HASH, them);
        encode(&Message::Piece(BlockSpan { len: 5, ..BlockSpan::default() }), &mut block);
        assert!(matches!(error(&block), MetadataPeerError::UnwantedBlock(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_parts_are_survived(parts in prop::collection::vec(
            prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0..21u8, 1 => any::<u8>()], 0..60), 0..20)) {
            let mut peer = MetadataPeer::outgoing(HASH, US);
            let _ = words(&mut peer, &handshake(Reserved::OURS, HASH, PeerId([3; 20])));
            for part in parts {
                if words(&mut peer, &part).is_err() { break; }
            }
        }
    }
}
