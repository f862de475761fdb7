//! Bodies as trackers meant them: plain, gzip (RFC 1952) or deflate (RFC 9110, with or without its zlib frame).
//!
//! Servers compress without being asked, say so wrongly, or do not say so at all. A bencoded body never begins as a gzip
//! member does, so what a body begins with counts more than what was said of it. Decompressed bytes have the same bound as
//! received ones, so that no ratio of a compressor makes a body larger than a plain one could be.

use super::TrackerError;
use crate::limits::{TRACKER_BODY_LEN_MAX, TRACKER_GZIP_MEMBERS_MAX};
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use std::io::Read;

/// What we offer to read.
pub(super) const ACCEPTED: &str = "gzip";

/// The first bytes of a gzip member.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The plain body. `encodings` is what the response's header says, empty when it says nothing.
///
/// # Errors
/// When the encoding is none of ours, the bytes are broken, or the body is longer than [`TRACKER_BODY_LEN_MAX`]; the
/// tracker's fault.
pub(super) fn decoded(encodings: &[u8], body: Vec<u8>) -> Result<Vec<u8>, TrackerError> {
    if body.starts_with(&GZIP) {
        return gunzip(&body);
    }
    let is_plain = |coding: &&[u8]| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity");
    let mut codings = encodings.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(is_plain);
    match (codings.next(), codings.next()) {
        (None, _) => Ok(body),
        // It said so of what it did not compress.
        (Some(coding), None) if is_gzip(coding) => Ok(body),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"deflate") => inflate(&body),
        (Some(_), _) => {
            let shown = encodings.get(..32).unwrap_or(encodings);
            Err(TrackerError::Encoded(shown.escape_ascii().to_string()))
        }
    }
}

fn is_gzip(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
}

/// All members, up to what is none.
fn gunzip(mut rest: &[u8]) -> Result<Vec<u8>, TrackerError> {
    let mut plain = Vec::new();
    for _ in 0..TRACKER_GZIP_MEMBERS_MAX {
        if !rest.starts_with(&GZIP) {
            break;
        }
        let mut member = GzDecoder::new(rest);
        read_bounded(&mut member, &mut plain)?;
        rest = member.into_inner();
    }
    Ok(plain)
}

/// With a zlib frame, as it should be, or without, as some servers do it.
fn inflate(body: &[u8]) -> Result<Vec<u8>, TrackerError> {
    let mut plain = Vec::new();
    match read_bounded(ZlibDecoder::new(body), &mut plain) {
        Err(TrackerError::Compressed(_)) => {
            plain.clear();
            read_bounded(DeflateDecoder::new(body), &mut plain)?;
        }
        framed => framed?,
    }
    Ok(plain)
}

fn read_bounded(decoder: impl Read, plain: &mut Vec<u8>) -> Result<(), TrackerError> {
    let room = TRACKER_BODY_LEN_MAX - plain.len();
    let read = decoder.take(room as u64 + 1).read_to_end(plain);
    read.map_err(|error| TrackerError::Compressed(error.to_string()))?;
    if plain.len() > TRACKER_BODY_LEN_MAX {
        return Err(TrackerError::TooLong { limit: TRACKER_BODY_LEN_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bodies_are_read_however_they_were_packed() {
        let body = b"d8:intervali900e5:peers0:e";
        for (encodings, packed) in [
            ("", body.to_vec()),
            ("identity", body.to_vec()),
            ("gzip", gzip(body)),
            ("x-gzip", gzip(body)),
            ("GZIP", gzip(body)),
            (" gzip , identity", gzip(body)),
            ("", gzip(body)),
            ("gzip", body.to_vec()),
            ("gzip", [gzip(&body[..5]), gzip(&body[5..])].concat()),
            ("gzip", [gzip(body), b"\r\n".to_vec()].concat()),
            ("deflate", zlib(body)),
            ("deflate", raw(body)),
        ] {
            assert_eq!(decoded(encodings.as_bytes(), packed).unwrap(), body, "{encodings:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let whole = gzip(b"d8:intervali900ee");
        let mut broken = whole.clone();
        broken[12] ^= 0x55;
        for body in [&whole[..whole.len() - 1], &whole[..3], &broken[..], &GZIP[..]] {
            assert!(matches!(decoded(b"gzip", body.to_vec()), Err(TrackerError::Compressed(_))), "{body:?}");
        }
        assert!(matches!(decoded(b"deflate", b"plain".to_vec()), Err(TrackerError::Compressed(_))));
        for encodings in [&b"br"[..], b"zstd", b"gzip, br", b"deflate, deflate", b"\xff\x1b"] {
            let refused = decoded(encodings, b"de".to_vec()).unwrap_err();
            assert!(matches!(refused, TrackerError::Encoded(_)), "{refused:?}");
            assert!(!refused.to_string().contains('\x1b'));
        }
    }

    #[test]
    fn hostile_45_bombs_are_cut_at_the_bound_of_a_plain_body() {
        let full = vec![0; TRACKER_BODY_LEN_MAX];
        assert_eq!(decoded(b"gzip", gzip(&full)).unwrap(), full);
        let bomb = vec![0; 200 * TRACKER_BODY_LEN_MAX];
        for (encodings, packed) in
            [("gzip", gzip(&bomb)), ("", gzip(&bomb)), ("deflate", zlib(&bomb)), ("deflate", raw(&bomb))]
        {
            assert!(packed.len() < TRACKER_BODY_LEN_MAX);
            assert!(matches!(decoded(encodings.as_bytes(), packed), Err(TrackerError::TooLong { .. })));
        }
        // The parts of a bomb count together, and empty parts do not go on for ever.
        let parts = gzip(&full[..TRACKER_BODY_LEN_MAX / 2 + 1]).repeat(2);
        assert!(matches!(decoded(b"gzip", parts), Err(TrackerError::TooLong { .. })));
        assert_eq!(decoded(b"gzip", gzip(b"").repeat(10_000)).unwrap(), b"");
        // A bomb within a bomb is not opened.
        assert!(decoded(b"gzip", gzip(&gzip(&bomb))).unwrap().starts_with(&GZIP));
    }

    proptest! {
        #[test]
        fn no_body_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            encodings in "(gzip|deflate|identity|br|,| ){0,4}",
        ) {
            let _ = decoded(encodings.as_bytes(), bytes.clone());
            let _ = decoded(encodings.as_bytes(), [&GZIP[..], &[8, 0], &bytes].concat());
        }
    }
}
