//! A resume file's bytes.
//!
//! Tagged records: `"SEEDRING"`, version (u32), then records of tag (u32), length (u64) and payload, all
//! little-endian, and SHA-1 of everything before. Readers skip tags that they do not know, so new ones need no new
//! version; what an older version did not write is taken to be as it then was. A file that is truncated, damaged,
//! foreign or newer is a reason to check again, never a reason to fail.

use super::super::fingerprint::{FileStamp, Fingerprint};
use super::super::hash::piece_hash;
use super::super::selection::FileSelection;
use super::file::ResumeProblem;
use super::{BootId, Resume};
use crate::bitfield::Bitfield;
use crate::id::InfoHash;

pub(super) const MAGIC: &[u8; 8] = b"SEEDRING";
pub(super) const VERSION: u32 = 1;
pub(super) const CHECKSUM_LEN: usize = 20;

const TAG_INFO_HASH: u32 = 1;
const TAG_PIECE_COUNT: u32 = 2;
const TAG_VERIFIED: u32 = 3;
const TAG_UPLOADED: u32 = 4;
const TAG_DOWNLOADED: u32 = 5;
const TAG_FILES: u32 = 6;
const TAG_DURABLE: u32 = 7;
const TAG_BOOT_ID: u32 = 8;
const TAG_IS_CLEAN: u32 = 9;
const TAG_SELECTION: u32 = 10;
const TAG_PARTS: u32 = 11;

/// Bytes of one file's stamp: there or not, length, seconds, nanoseconds.
const STAMP_LEN: usize = 1 + 8 + 8 + 4;

impl Resume {
    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        let mut record = |tag: u32, payload: &[u8]| {
            bytes.extend(tag.to_le_bytes());
            bytes.extend((payload.len() as u64).to_le_bytes());
            bytes.extend(payload);
        };
        record(TAG_INFO_HASH, &self.info_hash.0);
        record(TAG_PIECE_COUNT, &self.verified.len().to_le_bytes());
        record(TAG_VERIFIED, self.verified.as_bytes());
        record(TAG_UPLOADED, &self.uploaded.to_le_bytes());
        record(TAG_DOWNLOADED, &self.downloaded.to_le_bytes());
        record(TAG_FILES, &encode_stamps(&self.fingerprint.files));
        record(TAG_DURABLE, self.durable.as_bytes());
        record(TAG_IS_CLEAN, &[u8::from(self.is_clean)]);
        if let Some(BootId(boot_id)) = &self.boot_id {
            record(TAG_BOOT_ID, boot_id);
        }
        if let Some((count, bits)) = self.selection.bits() {
            record(TAG_SELECTION, &[&count.to_le_bytes()[..], &bits].concat());
        }
        if self.fingerprint.parts.is_some() {
            record(TAG_PARTS, &encode_stamps(&[self.fingerprint.parts]));
        }
        let checksum = piece_hash(&bytes);
        bytes.extend(checksum);
        bytes
    }

    /// Reads the file's content.
    pub fn decode(bytes: &[u8]) -> Result<Self, ResumeProblem> {
        let damaged = || ResumeProblem::Damaged;
        if bytes.is_empty() {
            return Err(ResumeProblem::Damaged);
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(ResumeProblem::Foreign)?;
        let (version, _) = rest.split_first_chunk().ok_or_else(damaged)?;
        let version = u32::from_le_bytes(*version);
        if version > VERSION {
            return Err(ResumeProblem::Newer(version));
        }
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or_else(damaged)?;
        if piece_hash(body) != *checksum {
            return Err(ResumeProblem::Damaged);
        }
        let records = Records::of(body.get(MAGIC.len() + 4..).ok_or_else(damaged)?).ok_or_else(damaged)?;
        Self::of(&records).ok_or_else(damaged)
    }

    fn of(records: &Records<'_>) -> Option<Self> {
        let piece_count = u32::from_le_bytes(records.array(TAG_PIECE_COUNT)?);
        let bitfield = |bytes| Bitfield::from_wire(bytes, piece_count).ok();
        let info_hash = InfoHash(records.array(TAG_INFO_HASH)?);
        let verified = bitfield(records.payload(TAG_VERIFIED)?)?;
        let durable = match records.payload(TAG_DURABLE) {
            Some(bytes) => bitfield(bytes)?,
            None => verified.clone(),
        };
        let selection = match records.payload(TAG_SELECTION) {
            Some(payload) => {
                let (count, bits) = payload.split_first_chunk()?;
                FileSelection::from_bits(info_hash, u32::from_le_bytes(*count), bits)?
            }
            None => FileSelection::all(),
        };
        let parts = match records.payload(TAG_PARTS) {
            Some(payload) => decode_stamps(payload)?.into_iter().next().flatten(),
            None => None,
        };
        Some(Self {
            info_hash,
            fingerprint: Fingerprint { files: decode_stamps(records.payload(TAG_FILES)?)?, parts },
            verified,
            durable,
            is_clean: records.array(TAG_IS_CLEAN).is_none_or(|[is_clean]: [u8; 1]| is_clean != 0),
            boot_id: records.array(TAG_BOOT_ID).map(BootId),
            selection,
            uploaded: records.array(TAG_UPLOADED).map_or(0, u64::from_le_bytes),
            downloaded: records.array(TAG_DOWNLOADED).map_or(0, u64::from_le_bytes),
        })
    }
}

/// The records of a file's body, by tag.
struct Records<'a>(Vec<(u32, &'a [u8])>);

impl<'a> Records<'a> {
    fn of(mut body: &'a [u8]) -> Option<Self> {
        let mut records = Vec::new();
        while !body.is_empty() {
            let (tag, rest) = body.split_first_chunk()?;
            let (len, rest) = rest.split_first_chunk()?;
            let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
            let (payload, rest) = rest.split_at_checked(len)?;
            records.push((u32::from_le_bytes(*tag), payload));
            body = rest;
        }
        Some(Self(records))
    }

    fn payload(&self, tag: u32) -> Option<&'a [u8]> {
        self.0.iter().find(|(other, _)| *other == tag).map(|&(_, payload)| payload)
    }

    fn array<const N: usize>(&self, tag: u32) -> Option<[u8; N]> {
        self.payload(tag)?.try_into().ok()
    }
}

fn decode_stamps(bytes: &[u8]) -> Option<Vec<Option<FileStamp>>> {
    let (stamps, rest) = bytes.as_chunks::<STAMP_LEN>();
    if !rest.is_empty() {
        return None;
    }
    stamps
        .iter()
        .map(|stamp| {
            let (&is_there, rest) = stamp.split_first()?;
            let (len, rest) = rest.split_first_chunk()?;
            let (secs, rest) = rest.split_first_chunk()?;
            let kept = FileStamp {
                len: u64::from_le_bytes(*len),
                mtime_secs: i64::from_le_bytes(*secs),
                mtime_nanos: u32::from_le_bytes(rest.try_into().ok()?),
            };
            Some((is_there != 0).then_some(kept))
        })
        .collect()
}

fn encode_stamps(stamps: &[Option<FileStamp>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(stamps.len() * STAMP_LEN);
    for stamp in stamps {
        let kept = stamp.unwrap_or(FileStamp { len: 0, mtime_secs: 0, mtime_nanos: 0 });
        bytes.push(u8::from(stamp.is_some()));
        bytes.extend(kept.len.to_le_bytes());
        bytes.extend(kept.mtime_secs.to_le_bytes());
        bytes.extend(kept.mtime_nanos.to_le_bytes());
    }
    bytes
}
