//! Bitfields: what is accepted has the right length, no spare bits, and counts its own bits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::bitfield::Bitfield;
use seedring::units::PieceIndex;

fuzz_target!(|data: &[u8]| {
    let Some((&spare, payload)) = data.split_first() else { return };
    let len = (payload.len() as u32 * 8).saturating_sub(u32::from(spare % 9));
    let Ok(bitfield) = Bitfield::from_wire(payload, len) else { return };
    assert_eq!((bitfield.as_bytes(), bitfield.len()), (payload, len));
    let pieces: Vec<PieceIndex> =
        (0..len.saturating_add(16)).map(PieceIndex).filter(|&piece| bitfield.contains(piece)).collect();
    assert_eq!(pieces.len(), bitfield.count() as usize);

    let mut again = Bitfield::none(len);
    assert!(pieces.iter().all(|&piece| again.insert(piece) && !again.insert(piece)));
    assert_eq!(again, bitfield);
    assert!(pieces.iter().all(|&piece| again.remove(piece)));
    assert_eq!(again, Bitfield::none(len));
});
