//! The decoder against streams cut at every place, and against lengths that lie.

use super::*;
use crate::wire::{encode, piece_header};
use proptest::prelude::*;

const PIECES: u32 = 20;

/// A message without borrow, its payload or body with it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Plain(Message<'static>),
    Bitfield(Vec<u8>),
    Piece(BlockSpan, Vec<u8>),
    Extended(u8, Vec<u8>),
    Unknown(u8, Vec<u8>),
}

impl Owned {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(message) => encode(message, out),
            Self::Bitfield(bytes) => encode(&Message::Bitfield(bytes), out),
            Self::Extended(id, payload) => encode(&Message::Extended { id: *id, payload }, out),
            Self::Piece(span, payload) => {
                out.extend_from_slice(&piece_header(*span));
                out.extend_from_slice(payload);
            }
            Self::Unknown(id, body) => {
                encode(&Message::Unknown { id: *id, len: body.len() as u32 }, out);
                out.extend_from_slice(body);
            }
        }
    }
}

fn decoder() -> Decoder {
    Decoder::new(DecoderLimits {
        extended_len_max: 60,
        unknown_len_max: 200,
        ..DecoderLimits::for_pieces(PIECES)
    })
}

/// Feeds the parts one after another, as a shell does. Bodies of skipped messages come back as zeros.
fn decode_parts<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Result<Vec<Owned>, WireError> {
    let mut decoder = decoder();
    let mut seen: Vec<Owned> = Vec::new();
    for mut input in parts {
        loop {
            let payload = decoder.take_payload(&mut input);
            if let Some(Owned::Piece(_, bytes)) = seen.last_mut() {
                bytes.extend_from_slice(payload);
            }
            match decoder.decode(&mut input)? {
                None => break,
                Some(Message::Bitfield(bytes)) => seen.push(Owned::Bitfield(bytes.to_vec())),
                Some(Message::Extended { id, payload }) => seen.push(Owned::Extended(id, payload.to_vec())),
                Some(Message::Piece(span)) => seen.push(Owned::Piece(span, Vec::new())),
                Some(Message::Unknown { id, len }) => seen.push(Owned::Unknown(id, vec![0; len as usize])),
                Some(Message::KeepAlive) => seen.push(Owned::Plain(Message::KeepAlive)),
                Some(Message::Choke) => seen.push(Owned::Plain(Message::Choke)),
                Some(Message::Unchoke) => seen.push(Owned::Plain(Message::Unchoke)),
                Some(Message::Interested) => seen.push(Owned::Plain(Message::Interested)),
                Some(Message::NotInterested) => seen.push(Owned::Plain(Message::NotInterested)),
                Some(Message::HaveAll) => seen.push(Owned::Plain(Message::HaveAll)),
                Some(Message::HaveNone) => seen.push(Owned::Plain(Message::HaveNone)),
                Some(Message::Have(piece)) => seen.push(Owned::Plain(Message::Have(piece))),
                Some(Message::Suggest(piece)) => seen.push(Owned::Plain(Message::Suggest(piece))),
                Some(Message::AllowedFast(piece)) => seen.push(Owned::Plain(Message::AllowedFast(piece))),
                Some(Message::Request(span)) => seen.push(Owned::Plain(Message::Request(span))),
                Some(Message::Cancel(span)) => seen.push(Owned::Plain(Message::Cancel(span))),
                Some(Message::Reject(span)) => seen.push(Owned::Plain(Message::Reject(span))),
                Some(Message::Port(port)) => seen.push(Owned::Plain(Message::Port(port))),
            }
        }
        assert!(input.is_empty(), "the decoder takes all of its input");
    }
    assert!(decoder.is_between_messages(), "the streams here end with a whole message");
    Ok(seen)
}

fn spans() -> impl Strategy<Value = BlockSpan> {
    (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(piece, begin, len)| BlockSpan {
        piece: PieceIndex(piece),
        begin,
        len,
    })
}

fn messages() -> impl Strategy<Value = Owned> {
    let bytes = |len| prop::collection::vec(any::<u8>(), len);
    let plain = prop_oneof![
        prop::sample::select(vec![
            Message::KeepAlive,
            Message::Choke,
            Message::Unchoke,
            Message::Interested,
            Message::NotInterested,
            Message::HaveAll,
            Message::HaveNone,
        ]),
        any::<u32>().prop_map(|piece| Message::Have(PieceIndex(piece))),
        any::<u32>().prop_map(|piece| Message::Suggest(PieceIndex(piece))),
        any::<u32>().prop_map(|piece| Message::AllowedFast(PieceIndex(piece))),
        spans().prop_map(Message::Request),
        spans().prop_map(Message::Cancel),
        spans().prop_map(Message::Reject),
        any::<u16>().prop_map(Message::Port),
    ];
    prop_oneof![
        4 => plain.prop_map(Owned::Plain),
        1 => bytes(3..4).prop_map(Owned::Bitfield),
        1 => (any::<u8>(), bytes(0..61)).prop_map(|(id, payload)| Owned::Extended(id, payload)),
        1 => (spans(), bytes(0..80)).prop_map(|(span, payload)| {
            Owned::Piece(BlockSpan { len: payload.len() as u32, ..span }, payload)
        }),
        1 => (21..=255u8, 0..199usize).prop_map(|(id, len)| Owned::Unknown(id, vec![0; len])),
        1 => (62..199usize).prop_map(|len| Owned::Unknown(20, vec![0; len])),
    ]
}

proptest! {
    #[test]
    fn every_message_round_trips_however_the_stream_is_cut(
        sent in prop::collection::vec(messages(), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = Vec::new();
        sent.iter().for_each(|message| message.write(&mut stream));

        prop_assert_eq!(&decode_parts([stream.as_slice()]).unwrap(), &sent, "at once");
        prop_assert_eq!(&decode_parts(stream.chunks(1)).unwrap(), &sent, "byte by byte");

        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        places.extend([0, stream.len()]);
        places.sort_unstable();
        let parts = places.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
        prop_assert_eq!(&decode_parts(parts).unwrap(), &sent, "cut anywhere");
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_the_same_way_however_they_are_cut(
        stream in prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0..24u8, 1 => any::<u8>()], 0..200),
    ) {
        let outcome = |size: usize| {
            let mut decoder = decoder();
            let mut lines = Vec::new();
            for mut input in stream.chunks(size) {
                loop {
                    let payload = decoder.take_payload(&mut input);
                    lines.extend(payload.iter().map(|byte| format!("payload {byte}")));
                    match decoder.decode(&mut input) {
                        Ok(None) => break,
                        Ok(Some(message)) => lines.push(format!("{message:?}")),
                        Err(error) => {
                            lines.push(format!("{error}"));
                            return lines;
                        }
                    }
                }
            }
            lines
        };
        let at_once = outcome(stream.len().max(1));
        prop_assert_eq!(&outcome(1), &at_once);
        prop_assert_eq!(&outcome(7), &at_once);
    }
}

fn refusal(len: u32, id: u8) -> Option<WireError> {
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.push(id);
    let mut decoder = decoder();
    let error = decoder.decode(&mut bytes.as_slice()).err();
    assert_eq!(decoder.body.capacity(), 0, "nothing is kept for a length that is only declared");
    error
}

#[test]
fn a_length_of_four_gigabytes_is_refused_for_every_type_before_anything_is_kept() {
    for id in 0..=255 {
        assert!(refusal(u32::MAX, id).is_some(), "type {id}");
    }
}

#[test]
fn messages_of_a_fixed_length_have_that_length_and_no_other() {
    for (ids, right) in [
        (&[0, 1, 2, 3, 14, 15][..], 1),
        (&[4, 13, 17][..], 5),
        (&[6, 8, 16][..], 13),
        (&[9][..], 3),
        (&[5][..], 4),
    ] {
        for &id in ids {
            assert_eq!(refusal(right, id), None, "type {id}");
            assert!(refusal(right + 1, id).is_some(), "type {id}, one byte more");
            if right > 1 {
                assert!(refusal(right - 1, id).is_some(), "type {id}, one byte less");
            }
        }
    }
}

#[test]
fn a_bitfield_of_the_wrong_size_is_refused_by_its_length_alone() {
    assert_eq!(refusal(4, 5), None);
    assert_eq!(refusal(3, 5), Some(WireError::BitfieldLength { len: 2, expected: 3 }));
    assert_eq!(refusal(5, 5), Some(WireError::BitfieldLength { len: 4, expected: 3 }));
}

#[test]
fn without_metadata_any_bitfield_up_to_the_most_pieces_passes() {
    let mut decoder = Decoder::new(DecoderLimits::without_metadata());
    assert_eq!(decoder.decode(&mut [0, 0, 0, 3, 5, 1, 2].as_slice()), Ok(Some(Message::Bitfield(&[1, 2]))));
    let max = PIECES_MAX / 8;
    let mut too_long = (max + 2).to_be_bytes().to_vec();
    too_long.push(5);
    let error = WireError::BitfieldLength { len: max + 1, expected: max as usize };
    assert_eq!(decoder.decode(&mut too_long.as_slice()), Err(error));
}

#[test]
fn piece_messages_have_a_header_and_at_most_the_largest_block() {
    let max = 9 + REQUEST_LEN_MAX;
    assert_eq!(refusal(8, 7), Some(WireError::PieceLength { len: 8, max }));
    assert_eq!(refusal(9, 7), None);
    assert_eq!(refusal(max, 7), None);
    assert_eq!(refusal(max + 1, 7), Some(WireError::PieceLength { len: max + 1, max }));
}

#[test]
fn an_extended_message_needs_a_type_and_one_beyond_the_bound_is_skipped_or_refused() {
    assert_eq!(refusal(1, 20), Some(WireError::ExtendedEmpty));
    assert_eq!(refusal(200, 20), None);
    assert_eq!(refusal(201, 20), Some(WireError::TooLong { id: 20, len: 201, max: 200 }));
    assert_eq!(refusal(201, 99), Some(WireError::TooLong { id: 99, len: 201, max: 200 }));
}

#[test]
fn requests_and_haves_of_any_index_pass_unchanged_for_the_peer_machine_to_judge() {
    let wild = BlockSpan { piece: PieceIndex(u32::MAX), begin: u32::MAX, len: u32::MAX };
    let sent = [Owned::Plain(Message::Request(wild)), Owned::Plain(Message::Have(PieceIndex(u32::MAX)))];
    let mut stream = Vec::new();
    sent.iter().for_each(|message| message.write(&mut stream));
    assert_eq!(decode_parts([stream.as_slice()]).unwrap(), sent);
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let mut stream = Vec::new();
    encode(&Message::Bitfield(&[1, 2, 3]), &mut stream);
    let mut decoder = decoder();
    assert_eq!(decoder.decode(&mut &stream[..6]), Ok(None));
    assert!(decoder.body.capacity() > 0);
    assert_eq!(decoder.decode(&mut &stream[6..]), Ok(Some(Message::Bitfield(&[1, 2, 3]))));
    assert_eq!(decoder.decode(&mut [].as_slice()), Ok(None));
    assert_eq!(decoder.body.capacity(), 0);
}

#[test]
fn nothing_is_decoded_while_payload_is_due_and_the_shell_may_receive_it_elsewhere() {
    let span = BlockSpan { piece: PieceIndex(3), begin: 0, len: 100 };
    let mut decoder = decoder();
    let header = piece_header(span);
    assert_eq!(decoder.decode(&mut header.as_slice()), Ok(Some(Message::Piece(span))));
    let mut input = [0, 0, 0, 0].as_slice();
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert_eq!((decoder.payload_remaining(), input.len()), (100, 4));
    decoder.advance_payload(100);
    assert_eq!(decoder.decode(&mut input), Ok(Some(Message::KeepAlive)));
}
