//! The extension protocol (BEP 10): what the peer tells of itself, and the extended messages of both sides.

use super::*;
use crate::limits::{DONT_HAVES_MAX, EXTENDED_LEN_MAX};
use crate::peer::InfoDictionary;

impl PeerMachine {
    /// The peer lost a piece (BEP 54). Of one that it never had, the message says nothing.
    pub(super) fn handle_dont_have(
        &mut self,
        facts: &TorrentFacts,
        payload: &[u8],
    ) -> Result<Option<PeerEvent>, PeerError> {
        let Ok(piece) = <[u8; 4]>::try_from(payload) else { return Ok(None) };
        let piece = PieceIndex(u32::from_be_bytes(piece));
        require_piece(facts, piece)?;
        if matches!(self.pieces, Pieces::All) {
            self.pieces = Pieces::Some(Bitfield::all(facts.piece_count()));
        }
        let Pieces::Some(bitfield) = &mut self.pieces else { return Ok(None) };
        if !bitfield.remove(piece) {
            return Ok(None);
        }
        self.lost += 1;
        if self.lost > DONT_HAVES_MAX {
            Err(PeerError::LosesPieces)
        } else {
            Ok(Some(PeerEvent::Lost(piece)))
        }
    }

    /// Whether it could be read. A peer may send it again when something has changed (BEP 10).
    pub(super) fn handle_extended_handshake(&mut self, payload: &[u8]) -> bool {
        // BEP 10: what we do not understand is not there.
        let before = self.theirs.as_ref().map_or_else(ExtensionIds::default, |theirs| theirs.ids);
        let Some(handshake) = ExtensionHandshake::decode_after(payload, before) else { return false };
        if handshake.ids.metadata.is_none()
            && let Some(service) = &mut self.metadata
        {
            service.withdraw();
        }
        self.upload_only = handshake.upload_only;
        if let (Some(download), Some(reqq)) = (self.download_mut(), handshake.requests_queued_max) {
            download.handle_reqq(reqq);
        }
        self.theirs = Some(Box::new(handshake));
        true
    }

    pub(super) fn their_ids(&self) -> ExtensionIds {
        self.theirs.as_ref().map_or_else(ExtensionIds::default, |theirs| theirs.ids)
    }

    /// A peer that wants our info dictionary. Who has not told its own number for the answers gets none.
    pub(super) fn handle_metadata_message(&mut self, facts: &TorrentFacts, payload: &[u8]) {
        let (Some(info_len), Some(id)) = (facts.info_len(), self.their_ids().metadata) else { return };
        let Some(MetadataMessage::Request { piece }) = MetadataMessage::decode(payload) else { return };
        let now = self.received_at;
        let service = self.metadata.get_or_insert_with(|| Box::new(MetadataService::new(now, info_len)));
        match service.handle_request(now, piece) {
            Answer::Queued | Answer::Ignore => {}
            Answer::Reject => {
                let payload = MetadataMessage::Reject { piece }.encode();
                encode(&Message::Extended { id, payload: &payload }, &mut self.control);
            }
        }
    }

    /// Appends one promised piece of the info dictionary.
    pub(super) fn poll_metadata(&mut self, out: &mut Vec<u8>) {
        if self.metadata.is_none() {
            return;
        }
        let Phase::Open(open) = &self.phase else { return };
        let facts = Arc::clone(&open.facts);
        let Some(info) = facts.info.as_ref().and_then(InfoDictionary::bytes) else { return };
        let Some(data) = self.metadata.as_mut().and_then(|service| service.poll_data()) else { return };
        let Some(id) = self.their_ids().metadata else { return };
        let Some(bytes) = info.get(data.range) else { return };
        let message = MetadataMessage::Data { piece: data.piece, total_len: facts.info_len(), bytes };
        encode(&Message::Extended { id, payload: &message.encode() }, out);
    }

    /// Bytes that [`poll_control`](Self::poll_control) moves at most.
    pub fn control_len(&self) -> usize {
        let untold = self.untold.as_ref().map_or(0, |untold| untold.as_bytes().len());
        let gives_info = self.metadata.as_ref().is_some_and(|service| service.has_data()) && self.has_info();
        self.control.len() + untold + usize::from(gives_info) * EXTENDED_LEN_MAX
    }

    /// A piece of the info dictionary was promised, and its bytes are not here: they are to be brought.
    pub fn wants_info(&self) -> bool {
        self.metadata.as_ref().is_some_and(|service| service.has_data()) && !self.has_info()
    }

    pub(super) fn has_info(&self) -> bool {
        let Phase::Open(open) = &self.phase else { return false };
        open.facts.info.as_ref().is_some_and(InfoDictionary::is_held)
    }

    /// The info dictionary cannot be had: what was promised of it is taken back.
    pub fn reject_metadata(&mut self) {
        let Some(id) = self.their_ids().metadata else { return };
        while let Some(data) = self.metadata.as_mut().and_then(|service| service.poll_data()) {
            let payload = MetadataMessage::Reject { piece: data.piece }.encode();
            encode(&Message::Extended { id, payload: &payload }, &mut self.control);
        }
    }

    /// The home judges what peers say here; this bounds how much of it a flood makes travel there.
    pub(super) fn count_exchange(&mut self, now: Instant) -> Result<(), PeerError> {
        let (since, count) = &mut self.exchange_window;
        if now.since(*since) >= PEX_INTERVAL_MIN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > PEX_MESSAGES_FREE + PEX_OFFENCES_MAX { Err(PeerError::ExchangeFlood) } else { Ok(()) }
    }

    /// Sends an extended message, if the peer understands it: `id` picks its number from the peer's own. Who has much
    /// to read already goes without.
    pub fn send_extended(&mut self, id: impl FnOnce(&ExtensionIds) -> Option<u8>, payload: &[u8]) {
        if self.control.len() > CONTROL_QUEUED_LEN_MAX {
            return;
        }
        if let Some(id) = self.theirs.as_ref().and_then(|theirs| id(&theirs.ids)) {
            encode(&Message::Extended { id, payload }, &mut self.control);
        }
    }

    /// The payload of the extended message told last.
    pub fn take_extended(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.extended)
    }

    /// What the peer said of its extensions (BEP 10).
    pub fn theirs(&self) -> Option<&ExtensionHandshake> {
        self.theirs.as_deref()
    }

    /// The client's name for itself (BEP 10 `v`), printable and bounded.
    pub fn client(&self) -> Option<&str> {
        self.theirs.as_ref()?.client.as_deref()
    }
}
