//! The machine gives its info dictionary (BEP 9).

use super::*;
use crate::wire::{ExtensionHandshake, METADATA_PIECE_LEN, MetadataMessage};

/// What the machine says next in extended messages: their numbers and payloads.
fn extended_words(talk: &mut Talk) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    talk.machine.poll_control(&mut bytes);
    let mut input = bytes.strip_prefix(b"\x13BitTorrent protocol").map_or(&bytes[..], |rest| &rest[48..]);
    let mut decoder = Decoder::new(DecoderLimits::for_pieces(PIECES));
    let mut words = Vec::new();
    while let Some(message) = decoder.decode(&mut input).expect("the machine speaks the protocol") {
        if let Message::Extended { id, payload } = message {
            words.push((id, payload.to_vec()));
        }
    }
    words
}

#[test]
fn gives_the_info_dictionary_piece_by_piece_under_the_peers_own_number() {
    let info: Vec<u8> = (0..METADATA_PIECE_LEN + 100).map(|n| n as u8).collect();
    let facts = TorrentFacts { info: Some(info.clone().into()), ..facts() };
    let mut talk = Talk::accepted(Reserved::OURS, facts);
    let told = ExtensionHandshake::decode(&extended_words(&mut talk)[0].1).unwrap();
    assert_eq!(told.metadata_len, Some(info.len() as u32));
    let ours = told.ids.metadata.unwrap();
    let ask = |talk: &mut Talk, piece| {
        let payload = MetadataMessage::Request { piece }.encode();
        talk.tell(Message::Extended { id: ours, payload: &payload });
    };
    // Who has told no number of its own cannot be answered.
    ask(&mut talk, 0);
    assert!(!talk.machine.has_output());
    talk.tell(Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" });
    for piece in [1, 0, 2] {
        ask(&mut talk, piece);
    }
    // A handshake that names other messages leaves this one as it was.
    talk.tell(Message::Extended { id: 0, payload: b"d1:md6:ut_pexi1eee" });
    let (head, tail) = info.split_at(METADATA_PIECE_LEN as usize);
    let data = |piece, bytes| MetadataMessage::Data { piece, total_len: told.metadata_len, bytes }.encode();
    let refusal = MetadataMessage::Reject { piece: 2 }.encode();
    assert_eq!(extended_words(&mut talk), [(9, refusal), (9, data(1, tail))]);
    assert!(talk.machine.has_control());
    talk.tell(Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai10eee" });
    assert_eq!(extended_words(&mut talk), [(10, data(0, head))]);
    assert!(!talk.machine.has_output());
    ask(&mut talk, 0);
    talk.tell(Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai0eee" });
    assert!(!talk.machine.has_output());
}

#[test]
fn the_info_dictionary_of_a_private_torrent_is_not_given() {
    let facts = TorrentFacts { info: Some(vec![1; 100].into()), private: true, ..facts() };
    let mut talk = Talk::accepted(Reserved::OURS, facts);
    let told = ExtensionHandshake::decode(&extended_words(&mut talk)[0].1).unwrap();
    assert_eq!((told.metadata_len, told.ids.metadata), (None, None));
    talk.tell(Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" });
    for id in 1..10 {
        let payload = MetadataMessage::Request { piece: 0 }.encode();
        talk.tell(Message::Extended { id, payload: &payload });
    }
    assert!(extended_words(&mut talk).is_empty());
}

#[test]
fn an_info_dictionary_that_is_not_served_is_not_told_of() {
    let mut talk = Talk::accepted(Reserved::OURS, facts());
    let told = ExtensionHandshake::decode(&extended_words(&mut talk)[0].1).unwrap();
    assert_eq!((told.metadata_len, told.ids.metadata), (None, None));
    talk.tell(Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai9eee" });
    let payload = MetadataMessage::Request { piece: 0 }.encode();
    // One is our number for peer exchange, which is told.
    (2..=255).for_each(|id| talk.tell(Message::Extended { id, payload: &payload }));
    assert!(!talk.machine.has_output());
}
