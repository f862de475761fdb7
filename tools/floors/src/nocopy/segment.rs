//! TCP segments over IPv4 over Ethernet, as bytes (RFC 791, RFC 9293).
//!
//! Pure. Builds what one side of a connection sends, checksums included, and reads what it receives. Options are known
//! for SYN only. Deliberately absent: fragments, IPv6, checking of checksums (the device loses nothing).

use std::net::SocketAddrV4;

/// Headers of Ethernet, IPv4 and TCP without options.
pub const HEADERS_LEN: usize = 54;
/// Bytes of payload in one segment of ours: what fits Ethernet's 1,500.
pub const PAYLOAD_LEN_MAX: usize = 1460;
/// Power of two that the window we tell is scaled by.
const WINDOW_SCALE: u8 = 8;
/// The window we tell: 4 MiB, what a receiver with Linux' usual bounds comes to.
const WINDOW: u16 = (4 << 20 >> WINDOW_SCALE) as u16;

/// The connection begins.
pub const SYN: u8 = 2;
/// The connection ends at once.
pub const RST: u8 = 4;
/// There is payload to hand on.
pub const PUSH: u8 = 8;
/// The acknowledged number is valid.
pub const ACK: u8 = 16;

/// The two ends of a connection, ours first.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Our device's Ethernet address; any will do.
    pub our_device: [u8; 6],
    /// The seeder's.
    pub their_device: [u8; 6],
    /// Our address and port.
    pub ours: SocketAddrV4,
    /// The seeder's.
    pub theirs: SocketAddrV4,
}

/// What a received segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The port it is for.
    pub port: u16,
    /// Number of its first byte.
    pub sequence: u32,
    /// SYN, RST, FIN, ...
    pub flags: u8,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Writes a segment of ours over `out`.
pub fn encode(ends: &Ends, sequence: u32, acknowledged: u32, flags: u8, payload: &[u8], out: &mut Vec<u8>) {
    // Largest segment we take, as Ethernet has it, and the window's scale.
    let options: &[u8] = if flags & SYN == 0 { &[] } else { &[2, 4, 0x05, 0xb4, 1, 3, 3, WINDOW_SCALE] };
    let tcp_len = 20 + options.len() + payload.len();
    out.clear();
    out.extend(ends.their_device);
    out.extend(ends.our_device);
    out.extend([0x08, 0x00]);
    out.extend([0x45, 0]);
    out.extend(((20 + tcp_len) as u16).to_be_bytes());
    out.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    out.extend(ends.ours.ip().octets());
    out.extend(ends.theirs.ip().octets());
    let checksum = checksum(&out[14..34], 0);
    out[24..26].copy_from_slice(&checksum.to_be_bytes());
    out.extend(ends.ours.port().to_be_bytes());
    out.extend(ends.theirs.port().to_be_bytes());
    out.extend(sequence.to_be_bytes());
    out.extend(acknowledged.to_be_bytes());
    out.extend([((20 + options.len()) as u8 / 4) << 4, flags]);
    out.extend(WINDOW.to_be_bytes());
    out.extend([0; 4]);
    out.extend(options);
    out.extend(payload);
    let checksum = self::checksum(&out[26..], 6 + tcp_len as u32);
    out[50..52].copy_from_slice(&checksum.to_be_bytes());
}

/// Reads a segment; `None` for anything else.
pub fn decode(frame: &[u8]) -> Option<Segment<'_>> {
    let is_tcp = frame.len() >= HEADERS_LEN && frame[12..15] == [0x08, 0x00, 0x45] && frame[23] == 6;
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if !is_tcp {
        return None;
    }
    // Short frames may be padded.
    let end = 14 + usize::from(word(16));
    Some(Segment {
        port: word(36),
        sequence: u32::from(word(38)) << 16 | u32::from(word(40)),
        flags: frame[47],
        payload: frame.get(34 + usize::from(frame[46] >> 4) * 4..end.min(frame.len()))?,
    })
}

/// The internet checksum (RFC 1071) over `bytes` and a sum of further words; of TCP the pseudo header's addresses stand
/// right in front of the segment.
fn checksum(bytes: &[u8], further: u32) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum = words.sum::<u32>() + further;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn ends() -> Ends {
        Ends {
            our_device: [2, 0, 0, 0, 0, 2],
            their_device: [2, 0, 0, 0, 0, 1],
            ours: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 40_000),
            theirs: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 6881),
        }
    }

    #[test]
    fn a_segment_comes_back_as_it_was_written() {
        for payload in [&b""[..], b"1", b"seventeen bytes.."] {
            let mut frame = vec![];
            encode(&ends(), 0xfedc_ba98, 7, ACK | PUSH, payload, &mut frame);
            let segment = Segment { port: 6881, sequence: 0xfedc_ba98, flags: ACK | PUSH, payload };
            assert_eq!(decode(&frame), Some(segment));
        }
    }

    #[test]
    fn a_receiver_finds_both_checksums_right() {
        for flags in [SYN, ACK] {
            let mut frame = vec![];
            encode(&ends(), 1, 2, flags, b"odd", &mut frame);
            assert_eq!(checksum(&frame[14..34], 0), 0, "of the packet's header");
            let tcp_len = frame.len() as u32 - 34;
            assert_eq!(checksum(&frame[26..], 6 + tcp_len), 0, "of the segment");
        }
    }

    #[test]
    fn the_checksum_is_the_one_of_the_rfc() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), !0xddf2);
    }

    #[test]
    fn what_is_no_tcp_segment_is_none() {
        assert_eq!(decode(&[0; 60]), None);
        assert_eq!(decode(&[]), None);
    }
}
