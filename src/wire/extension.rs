//! The extension handshake (BEP 10): which extended messages the sender understands, under which numbers,
//! and a few facts about it (`upload_only` of BEP 21, `metadata_size` of BEP 9).
//!
//! Tolerant by intent: a value of the wrong kind or out of range is as if it were absent, because clients
//! in the field send all sorts of things here and none of them is a reason to part. What is kept is bounded.
//! Deliberately absent: `ipv4`, `ipv6` and `e`, which we have no use for.

use crate::bencode::{self, Value};
use crate::limits::{CLIENT_NAME_LEN_MAX, METADATA_LEN_MAX, REQUESTS_TOLD_MAX};
use std::net::IpAddr;

/// The extended message that carries the extension handshake.
pub const EXTENSION_HANDSHAKE_ID: u8 = 0;

/// Numbers for the extended messages; `None` where the sender does not understand that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// `lt_donthave` (BEP 54).
    pub dont_have: Option<u8>,
    /// `upload_only` as a message, sent when the state changes (libtorrent's).
    pub upload_only: Option<u8>,
    /// `ut_metadata` (BEP 9).
    pub metadata: Option<u8>,
    /// `ut_pex` (BEP 11).
    pub pex: Option<u8>,
}

/// An extension handshake, ours or theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionHandshake {
    /// `m`: the messages the sender understands, 1 to 255.
    pub ids: ExtensionIds,
    /// `reqq`: requests the sender keeps queued for us; 1 to [`REQUESTS_TOLD_MAX`].
    pub requests_queued_max: Option<u32>,
    /// `v`: the sender's client and version, free of control characters; for show only.
    pub client: Option<String>,
    /// `yourip`: our address as the sender sees it. Hearsay.
    pub your_address: Option<IpAddr>,
    /// `p`: the port on which the sender accepts connections, not zero.
    pub port: Option<u16>,
    /// `upload_only` (BEP 21): the sender wants nothing.
    pub upload_only: bool,
    /// `metadata_size` (BEP 9): bytes of the info dictionary, 1 to [`METADATA_LEN_MAX`].
    pub metadata_len: Option<u32>,
}

impl ExtensionHandshake {
    /// Reads the payload of extended message 0. `None` when it is no dictionary at all; the caller may
    /// then take the peer for one without extensions.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        Self::decode_after(payload, ExtensionIds::default())
    }

    /// The same for a handshake after the first: the messages that it does not name keep the numbers that they had
    /// `before`, since BEP 10 has a peer tell changes only.
    pub fn decode_after(payload: &[u8], before: ExtensionIds) -> Option<Self> {
        // Some clients pad the message; what stands behind the dictionary is nobody's business.
        let (document, _) = bencode::parse_prefix(payload).ok()?;
        let root = document.root();
        root.as_dict()?;
        let number = |key: &str, min: u32, max: u32| {
            let value = root.lookup(key.as_bytes())?.as_uint()?;
            u32::try_from(value).ok().filter(|value| (min..=max).contains(value))
        };
        Some(Self {
            ids: root.lookup(b"m").map_or(before, |names| before.changed(names)),
            requests_queued_max: root.lookup(b"reqq").and_then(Value::as_uint).filter(|&told| told > 0).map(
                |told| u32::try_from(told).map_or(REQUESTS_TOLD_MAX, |told| told.min(REQUESTS_TOLD_MAX)),
            ),
            client: root
                .lookup(b"v")
                .and_then(Value::as_bytes)
                .map(printable)
                .filter(|name| !name.is_empty()),
            your_address: root.lookup(b"yourip").and_then(Value::as_bytes).and_then(address),
            port: number("p", 1, u32::from(u16::MAX)).and_then(|port| u16::try_from(port).ok()),
            upload_only: root.lookup(b"upload_only").and_then(Value::as_uint).is_some_and(|flag| flag != 0),
            metadata_len: number("metadata_size", 1, METADATA_LEN_MAX),
        })
    }

    /// The payload for extended message 0.
    pub fn encode(&self) -> Vec<u8> {
        bencode::dict(|out| {
            out.dict("m", |names| {
                for (name, id) in self.ids.names() {
                    if let Some(id) = id {
                        names.int(name, i64::from(id));
                    }
                }
            });
            if let Some(len) = self.metadata_len {
                out.int("metadata_size", i64::from(len));
            }
            if let Some(port) = self.port {
                out.int("p", i64::from(port));
            }
            if let Some(requests) = self.requests_queued_max {
                out.int("reqq", i64::from(requests));
            }
            if self.upload_only {
                out.int("upload_only", 1);
            }
            if let Some(client) = &self.client {
                out.bytes("v", client);
            }
            match self.your_address {
                Some(IpAddr::V4(address)) => out.bytes("yourip", address.octets()),
                Some(IpAddr::V6(address)) => out.bytes("yourip", address.octets()),
                None => {}
            }
        })
    }
}

impl ExtensionIds {
    fn changed(self, names: Value<'_, '_>) -> Self {
        let id = |name: &str, before: Option<u8>| {
            let Some(value) = names.lookup(name.as_bytes()) else { return before };
            // Zero means that the sender has switched the message off.
            value.as_uint().and_then(|id| u8::try_from(id).ok()).filter(|&id| id != 0)
        };
        Self {
            dont_have: id("lt_donthave", self.dont_have),
            upload_only: id("upload_only", self.upload_only),
            metadata: id("ut_metadata", self.metadata),
            pex: id("ut_pex", self.pex),
        }
    }

    /// In the order in which bencode wants keys.
    fn names(self) -> [(&'static str, Option<u8>); 4] {
        [
            ("lt_donthave", self.dont_have),
            ("upload_only", self.upload_only),
            ("ut_metadata", self.metadata),
            ("ut_pex", self.pex),
        ]
    }
}

/// The first bytes of a client's name, safe to print.
fn printable(name: &[u8]) -> String {
    let head = &name[..name.len().min(CLIENT_NAME_LEN_MAX)];
    String::from_utf8_lossy(head)
        .chars()
        .filter(|c| !c.is_control() && *c != char::REPLACEMENT_CHARACTER)
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::from(octets).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_a_client_in_the_field_sends() {
        let sent = b"d1:md11:lt_donthavei7e11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei31235e\
                     1:pi6881e4:reqqi500e11:upload_onlyi1e1:v17:Transmission 4.006:yourip4:\x7f\0\0\x01e";
        let expected = ExtensionHandshake {
            ids: ExtensionIds { dont_have: Some(7), metadata: Some(2), pex: Some(1), upload_only: None },
            requests_queued_max: Some(500),
            client: Some("Transmission 4.00".into()),
            your_address: Some(IpAddr::from([127, 0, 0, 1])),
            port: Some(6881),
            upload_only: true,
            metadata_len: Some(31_235),
        };
        assert_eq!(ExtensionHandshake::decode(sent), Some(expected));
    }

    #[test]
    fn values_out_of_range_or_of_the_wrong_kind_are_as_if_absent() {
        let long_name = format!("d1:v1000000:{}e", "x".repeat(1_000_000));
        let none = ExtensionHandshake::default();
        for sent in [
            b"de".as_slice(),
            b"d1:mi5ee",
            b"d1:ml1:aee",
            b"d1:md11:ut_metadatai0e6:ut_pexi256eee",
            b"d1:md11:ut_metadatai-1e6:ut_pex1:1ee",
            b"d4:reqqi-5ee",
            b"d4:reqqi0ee",
            b"d13:metadata_sizei0ee",
            b"d13:metadata_sizei-1ee",
            b"d13:metadata_sizei2147483648ee",
            b"d1:pi0ee",
            b"d1:pi65536ee",
            b"d6:yourip3:abce",
            b"d1:v3:\xff\xfe\xfde",
            b"d1:v0:e",
            b"d11:upload_onlyi0ee",
        ] {
            assert_eq!(ExtensionHandshake::decode(sent).as_ref(), Some(&none), "{}", sent.escape_ascii());
        }
        for sent in [b"".as_slice(), b"i5e", b"le", b"d4:reqq99999999999:", b"garbage"] {
            assert_eq!(ExtensionHandshake::decode(sent), None, "{}", sent.escape_ascii());
        }
        let huge = ExtensionHandshake::decode(b"d4:reqqi9223372036854775807ee");
        assert_eq!(huge.and_then(|handshake| handshake.requests_queued_max), Some(REQUESTS_TOLD_MAX));
        let name = ExtensionHandshake::decode(long_name.as_bytes()).and_then(|handshake| handshake.client);
        assert_eq!(name.map(|name| name.len()), Some(CLIENT_NAME_LEN_MAX));
    }

    #[test]
    fn a_later_handshake_changes_only_the_numbers_it_names() {
        let first = ExtensionIds { metadata: Some(3), pex: Some(1), ..ExtensionIds::default() };
        let later = |payload| ExtensionHandshake::decode_after(payload, first).map(|handshake| handshake.ids);
        assert_eq!(later(b"de"), Some(first));
        assert_eq!(later(b"d1:mdee"), Some(first));
        assert_eq!(later(b"d1:md6:ut_pexi0eee"), Some(ExtensionIds { pex: None, ..first }));
        assert_eq!(later(b"d1:md11:ut_metadatai9eee"), Some(ExtensionIds { metadata: Some(9), ..first }));
    }

    #[test]
    fn a_client_name_cannot_drive_a_terminal() {
        let handshake = ExtensionHandshake::decode(b"d1:v10:\x1b[31mEvil\x07e").unwrap_or_default();
        assert_eq!(handshake.client.as_deref(), Some("[31mEvil"));
    }

    proptest! {
        #[test]
        fn handshakes_round_trip(
            ids in prop::array::uniform4(prop::option::of(1..=255u8)),
            requests in prop::option::of(1..=REQUESTS_TOLD_MAX),
            client in prop::option::of("[a-zA-Z0-9 .]{1,40}"),
            address in prop::option::of(any::<[u8; 4]>()),
            port in prop::option::of(1..=65_535u16),
            upload_only: bool,
            metadata_len in prop::option::of(1..=METADATA_LEN_MAX),
        ) {
            let [dont_have, upload_only_id, metadata, pex] = ids;
            let handshake = ExtensionHandshake {
                ids: ExtensionIds { dont_have, upload_only: upload_only_id, metadata, pex },
                requests_queued_max: requests,
                client,
                your_address: address.map(IpAddr::from),
                port,
                upload_only,
                metadata_len,
            };
            prop_assert_eq!(ExtensionHandshake::decode(&handshake.encode()), Some(handshake));
        }

        #[test]
        fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = ExtensionHandshake::decode(&payload);
        }
    }
}
