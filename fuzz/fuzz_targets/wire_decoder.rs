//! The peer wire's decoder: cut anywhere, a stream has the same messages and the same fault as in one part, and the
//! messages written again are the stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::wire::{Decoder, DecoderLimits, Message, WireError, encode};
use seedring_fuzz::Parts;

fuzz_target!(|data: &[u8]| {
    let Some((&[pieces, bounds, seed], stream)) = data.split_first_chunk::<3>() else { return };
    let limits = DecoderLimits {
        extended_len_max: if bounds & 1 == 0 { 60 } else { 2000 },
        unknown_len_max: if bounds & 2 == 0 { 200 } else { 3000 },
        ..if bounds & 4 == 0 {
            DecoderLimits::for_pieces(u32::from(pieces))
        } else {
            DecoderLimits::without_metadata()
        }
    };
    let whole = decode(limits, [stream]);
    assert_eq!(whole, decode(limits, Parts::of(stream, seed)));
    assert_eq!(whole, decode(limits, stream.chunks(1)));

    assert!(stream.starts_with(&whole.written));
});

#[derive(Debug, PartialEq)]
struct Decoded {
    /// The messages encoded again, payload and skipped bodies with them.
    written: Vec<u8>,
    messages: usize,
    fault: Option<WireError>,
    between_messages: bool,
}

fn decode<'p>(limits: DecoderLimits, parts: impl IntoIterator<Item = &'p [u8]>) -> Decoded {
    let mut decoder = Decoder::new(limits);
    let mut decoded = Decoded { written: Vec::new(), messages: 0, fault: None, between_messages: true };
    // Bytes of a skipped body to come.
    let mut skipped = 0;
    for mut input in parts {
        loop {
            let body = &input[..input.len().min(skipped)];
            let before = input;
            match decoder.decode(&mut input) {
                Ok(Some(message)) => {
                    assert_eq!(skipped, body.len(), "a message follows only on the whole body");
                    skipped = if let Message::Unknown { len, .. } = message { len as usize } else { 0 };
                    decoded.written.extend_from_slice(body);
                    encode(&message, &mut decoded.written);
                    decoded.messages += 1;
                    continue;
                }
                Ok(None) => {}
                Err(fault) => {
                    assert!(!before.is_empty(), "a fault is told with the byte that makes it one");
                    decoded.written.extend_from_slice(body);
                    return Decoded { fault: Some(fault), between_messages: false, ..decoded };
                }
            }
            let due = decoder.payload_remaining();
            if due == 0 || input.is_empty() {
                assert!(input.is_empty(), "the decoder takes all of its input");
                skipped -= body.len();
                decoded.written.extend_from_slice(body);
                break;
            }
            let payload = decoder.take_payload(&mut input);
            assert_eq!(decoder.payload_remaining(), due - payload.len() as u32);
            decoded.written.extend_from_slice(payload);
        }
    }
    decoded.between_messages = decoder.is_between_messages();
    decoded
}
