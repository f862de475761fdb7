//! A resume file's bytes.
//!
//! Tagged records: `"SEEDRING"`, version (u32), then records of tag (u32), length (u64) and payload, all
//! little-endian, and SHA-1 of everything before. Readers skip tags that they do not know, so new ones need no new
//! version; what an older version did not write is taken to be as it then was. A file that is truncated, damaged,
//! foreign or newer is a reason to check again, never a reason to fail.

use super::super::fingerprint::{FileChange, FileStamp, Fingerprint};
use super::super::hash::piece_hash;
use super::super::selection::FileSelection;
use super::file::ResumeProblem;
use super::{BootId, Resume};
use crate::bitfield::Bitfield;
use crate::id::InfoHash;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

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
const TAG_CHANGES: u32 = 12;
const TAG_PARTS_CHANGE: u32 = 13;
const TAG_FOLDER: u32 = 14;
const TAG_SERIAL: u32 = 15;
const TAG_BIRTHS: u32 = 16;
const TAG_PARTS_BIRTH: u32 = 17;

/// Bytes of one file's stamp: there or not, length, seconds, nanoseconds.
const STAMP_LEN: usize = 1 + 8 + 8 + 4;
/// Bytes of what nobody can put back of it: kept or not, seconds, nanoseconds, inode.
const CHANGE_LEN: usize = 1 + 8 + 4 + 8;
/// Bytes of when it was made: known or not, seconds, nanoseconds.
const BIRTH_LEN: usize = 1 + 8 + 4;

impl Resume {
    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_numbered(0)
    }

    /// [`Self::encode`], with the number that tells the later of two records of one torrent.
    pub(super) fn encode_numbered(&self, serial: u64) -> Vec<u8> {
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
        if self.fingerprint.files.iter().flatten().any(|stamp| stamp.change.is_some()) {
            record(TAG_CHANGES, &encode_changes(&self.fingerprint.files));
        }
        if self.fingerprint.parts.is_some_and(|stamp| stamp.change.is_some()) {
            record(TAG_PARTS_CHANGE, &encode_changes(&[self.fingerprint.parts]));
        }
        if self.fingerprint.files.iter().any(|stamp| birth_of(stamp).is_some()) {
            record(TAG_BIRTHS, &encode_births(&self.fingerprint.files));
        }
        if birth_of(&self.fingerprint.parts).is_some() {
            record(TAG_PARTS_BIRTH, &encode_births(&[self.fingerprint.parts]));
        }
        if let Some(folder) = &self.folder {
            record(TAG_FOLDER, folder.as_os_str().as_bytes());
        }
        if serial > 0 {
            record(TAG_SERIAL, &serial.to_le_bytes());
        }
        let checksum = piece_hash(&bytes);
        bytes.extend(checksum);
        bytes
    }

    /// Whether a file with these bytes may be a record, of whichever version, or what a kill or a power failure has left of one.
    pub(in crate::storage) fn may_begin_with(bytes: &[u8]) -> bool {
        let (head, _) = bytes.split_at(bytes.len().min(MAGIC.len()));
        MAGIC.starts_with(head) || bytes.iter().all(|&byte| byte == 0)
    }

    /// Reads the file's content.
    pub fn decode(bytes: &[u8]) -> Result<Self, ResumeProblem> {
        Self::decode_numbered(bytes).map(|(resume, _)| resume)
    }

    /// [`Self::decode`], with the number that tells the later of two records of one torrent.
    pub(super) fn decode_numbered(bytes: &[u8]) -> Result<(Self, u64), ResumeProblem> {
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
        let serial = records.array(TAG_SERIAL).map_or(0, u64::from_le_bytes);
        Self::of(&records).map(|resume| (resume, serial)).ok_or_else(damaged)
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
        let mut fingerprint = Fingerprint { files: decode_stamps(records.payload(TAG_FILES)?)?, parts };
        if let Some(payload) = records.payload(TAG_CHANGES) {
            add_changes(&mut fingerprint.files, payload)?;
        }
        if let Some(payload) = records.payload(TAG_PARTS_CHANGE) {
            add_changes(std::slice::from_mut(&mut fingerprint.parts), payload)?;
        }
        if let Some(payload) = records.payload(TAG_BIRTHS) {
            add_births(&mut fingerprint.files, payload)?;
        }
        if let Some(payload) = records.payload(TAG_PARTS_BIRTH) {
            add_births(std::slice::from_mut(&mut fingerprint.parts), payload)?;
        }
        let folder = records.payload(TAG_FOLDER).map(|bytes| PathBuf::from(OsStr::from_bytes(bytes)));
        Some(Self {
            info_hash,
            fingerprint,
            verified,
            durable,
            is_clean: records.array(TAG_IS_CLEAN).is_none_or(|[is_clean]: [u8; 1]| is_clean != 0),
            boot_id: records.array(TAG_BOOT_ID).map(BootId),
            folder,
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
                change: None,
            };
            Some((is_there != 0).then_some(kept))
        })
        .collect()
}

fn encode_stamps(stamps: &[Option<FileStamp>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(stamps.len() * STAMP_LEN);
    for stamp in stamps {
        let kept = stamp.unwrap_or(FileStamp { len: 0, mtime_secs: 0, mtime_nanos: 0, change: None });
        bytes.push(u8::from(stamp.is_some()));
        bytes.extend(kept.len.to_le_bytes());
        bytes.extend(kept.mtime_secs.to_le_bytes());
        bytes.extend(kept.mtime_nanos.to_le_bytes());
    }
    bytes
}

/// Adds to stamps what [`encode_changes`] wrote of them; `None` when it is of other stamps.
fn add_changes(stamps: &mut [Option<FileStamp>], bytes: &[u8]) -> Option<()> {
    let (changes, rest) = bytes.as_chunks::<CHANGE_LEN>();
    if !rest.is_empty() || changes.len() != stamps.len() {
        return None;
    }
    for (stamp, change) in stamps.iter_mut().zip(changes) {
        let (&is_kept, rest) = change.split_first()?;
        let (secs, rest) = rest.split_first_chunk()?;
        let (nanos, rest) = rest.split_first_chunk()?;
        let kept = FileChange {
            ctime_secs: i64::from_le_bytes(*secs),
            ctime_nanos: u32::from_le_bytes(*nanos),
            inode: u64::from_le_bytes(rest.try_into().ok()?),
            birth: None,
        };
        if let Some(stamp) = stamp {
            stamp.change = (is_kept != 0).then_some(kept);
        }
    }
    Some(())
}

fn encode_changes(stamps: &[Option<FileStamp>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(stamps.len() * CHANGE_LEN);
    for change in stamps.iter().map(|stamp| stamp.and_then(|stamp| stamp.change)) {
        let kept = change.unwrap_or(FileChange { ctime_secs: 0, ctime_nanos: 0, inode: 0, birth: None });
        bytes.push(u8::from(change.is_some()));
        bytes.extend(kept.ctime_secs.to_le_bytes());
        bytes.extend(kept.ctime_nanos.to_le_bytes());
        bytes.extend(kept.inode.to_le_bytes());
    }
    bytes
}

fn birth_of(stamp: &Option<FileStamp>) -> Option<(i64, u32)> {
    stamp.and_then(|stamp| stamp.change)?.birth
}

/// Adds to stamps what [`encode_births`] wrote of them; `None` when it is of other stamps.
fn add_births(stamps: &mut [Option<FileStamp>], bytes: &[u8]) -> Option<()> {
    let (births, rest) = bytes.as_chunks::<BIRTH_LEN>();
    if !rest.is_empty() || births.len() != stamps.len() {
        return None;
    }
    for (stamp, birth) in stamps.iter_mut().zip(births) {
        let (&is_known, rest) = birth.split_first()?;
        let (secs, rest) = rest.split_first_chunk()?;
        let birth = (i64::from_le_bytes(*secs), u32::from_le_bytes(rest.try_into().ok()?));
        if let Some(change) = stamp.as_mut().and_then(|stamp| stamp.change.as_mut()) {
            change.birth = (is_known != 0).then_some(birth);
        }
    }
    Some(())
}

fn encode_births(stamps: &[Option<FileStamp>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(stamps.len() * BIRTH_LEN);
    for birth in stamps.iter().map(birth_of) {
        let (secs, nanos) = birth.unwrap_or_default();
        bytes.push(u8::from(birth.is_some()));
        bytes.extend(secs.to_le_bytes());
        bytes.extend(nanos.to_le_bytes());
    }
    bytes
}
