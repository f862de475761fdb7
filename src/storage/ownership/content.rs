//! What may be done with each file of a download, judged before any of them is touched.
//!
//! The facts are gathered here: what lies at each path, and the cheapest witness that says it is ours. Nothing is made,
//! extended or locked; [`Content::create`](super::super::Content::create) does that later, and only as permitted, and
//! only with the very file that was judged.

use super::super::error::StorageError;
use super::super::fingerprint::FileStamp;
use super::super::layout::{FileIndex, FileSpan, Layout, LayoutFile};
use super::super::piece_reader::{PieceReader, read_exactly};
use super::super::resume::{BootId, Resume};
use super::super::root::{FileState, Root, birth_of};
use super::super::selection::{FileSelection, intersection, parts_index};
use super::{DownloadFile, InTheWay, Permit, Witness, may_write};
use crate::bitfield::Bitfield;
use crate::units::{BLOCK_LEN, PieceIndex};
use rustix::fd::OwnedFd;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::cell::OnceCell;
use std::ops::Range;
use std::path::Path;

/// Bytes looked at together when a file is searched for something to lose.
const CHUNK_LEN: usize = 256 * 1024;

/// What is known of a torrent's files before a download goes into them.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The pieces that are right.
    pub have: &'a Bitfield,
    /// What is remembered of the torrent.
    pub record: Option<&'a Resume>,
    /// Whether the user said to write over what is not ours.
    pub overwrite: bool,
}

/// What may be done with each file of a download.
#[derive(Clone, Debug)]
pub struct Claims(Vec<Claim>);

/// What may be done with one file, and which that was when it was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Claim {
    pub(in crate::storage) permit: Permit,
    /// Device and inode; `None` where nothing lay.
    pub(in crate::storage) identity: Option<(u64, u64)>,
    /// What the record has noted of a file that was changed since.
    pub(in crate::storage) noted: Option<FileStamp>,
}

impl Claims {
    /// Judges the files of `layout` that are selected, and the parts file, below the folder `root`. Reads as little
    /// content as it can: nothing where a record names a file, one piece where good ones lie in it, otherwise what is
    /// written and in no good piece, up to the first byte that is not zero.
    ///
    /// # Errors
    /// The first file that may not be written, and why; what cannot be looked at.
    pub fn of(
        layout: &Layout,
        root: &Path,
        selection: &FileSelection,
        evidence: Evidence<'_>,
    ) -> Result<Self, StorageError> {
        Self::of_moved(layout, root, selection, evidence, None)
    }

    /// [`Self::of`] where some pieces are right as they lay while another selection was in force: files that were selected then
    /// have their part of them.
    ///
    /// # Errors
    /// The same.
    pub fn of_moved(
        layout: &Layout,
        root: &Path,
        selection: &FileSelection,
        evidence: Evidence<'_>,
        lay: Option<(&Bitfield, &FileSelection)>,
    ) -> Result<Self, StorageError> {
        let mut claims = vec![Claim::NOTHING; layout.files().len() + 1];
        let root = match Root::open(root) {
            Ok(root) => root,
            // It is going to be made, and all files in it.
            Err(StorageError::Missing(_)) => return Ok(Self(claims)),
            Err(error) => return Err(error),
        };
        // A record of another folder says nothing of this one.
        let record = evidence.record.filter(|record| {
            record.folder.as_ref().is_some_and(|folder| root.folder().as_ref() == Some(folder))
        });
        let look = Look {
            layout,
            root: &root,
            selection,
            evidence,
            is_folder_proven: OnceCell::new(),
            stamps: record.map(|record| record.stamps(layout)).unwrap_or_default(),
            known: evidence.record.map(|record| record.stamps(layout)).unwrap_or_default(),
            record,
            claimed: evidence.record.map(|record| claimed(record, &root)),
        };
        let stored = (0..).map(FileIndex).zip(layout.files());
        for (index, file) in stored.filter(|&(index, file)| !file.padding && selection.contains(index)) {
            let lay = lay.filter(|(_, former)| former.contains(index)).map(|(pieces, _)| pieces);
            let is_here = |piece| evidence.have.contains(piece) || lay.is_some_and(|it| it.contains(piece));
            let lacks_pieces = !layout.pieces_of(index).map(PieceIndex).all(is_here);
            let claim = look.judge(&file.path, file.len, lacks_pieces, |state, fd| {
                look.witness(index, file.len, state, fd)
            })?;
            let noted = of_file(&look.stamps, index);
            let claim = Claim { noted, ..claim };
            claims.get_mut(index.0 as usize).into_iter().for_each(|slot| *slot = claim);
        }
        let border = selection.border_pieces(layout);
        if let Some(path) = selection.parts_path()
            && border.count() > 0
        {
            let lacks_pieces = border.iter().any(|piece| !evidence.have.contains(piece));
            let mut good = intersection(&border, evidence.have);
            if let Some((pieces, former)) = lay {
                let lay_there = intersection(&former.border_pieces(layout), pieces);
                lay_there.iter().for_each(|piece| _ = good.insert(piece));
            }
            let claim = look.judge(path, layout.total_len(), lacks_pieces, |state, fd| {
                look.parts_witness(path, &good, state, fd)
            })?;
            let noted = look.record.and_then(|record| record.fingerprint.parts);
            let claim = Claim { noted, ..claim };
            claims.get_mut(parts_index(layout).0 as usize).into_iter().for_each(|slot| *slot = claim);
        }
        Ok(Self(claims))
    }

    /// What may be done with a file; the parts file has the number behind the torrent's.
    pub(in crate::storage) fn of_file(&self, file: FileIndex) -> Claim {
        self.0.get(file.0 as usize).copied().unwrap_or(Claim::NOTHING)
    }
}

impl Claim {
    /// Nothing lay there.
    const NOTHING: Self = Self { permit: Permit::Make, identity: None, noted: None };
}

struct Look<'a> {
    layout: &'a Layout,
    root: &'a Root,
    selection: &'a FileSelection,
    evidence: Evidence<'a>,
    record: Option<&'a Resume>,
    /// What the record knows of files, by number.
    stamps: Vec<Option<FileStamp>>,
    /// Likewise of a record that may be of another folder, or of none.
    known: Vec<Option<FileStamp>>,
    /// The pieces that have to be right if nobody has written over them since the record, be it of this folder or, without a
    /// folder, of what was only seeded.
    claimed: Option<&'a Bitfield>,
    /// Whether something in the torrent's folder is proven to be its, once that was asked.
    is_folder_proven: OnceCell<bool>,
}

impl Look<'_> {
    /// Judges one file of `due` bytes; `witness` is asked only where it matters.
    fn judge(
        &self,
        path: &Path,
        due: u64,
        lacks_pieces: bool,
        witness: impl FnOnce(FileState, &OwnedFd) -> Result<Option<Witness>, StorageError>,
    ) -> Result<Claim, StorageError> {
        let full = || self.root.full_path(path);
        let mut len = 0;
        let mut identity = None;
        let found = match self.root.look(path) {
            Ok(None) => InTheWay::Nothing,
            Err(StorageError::SymbolicLink(_)) => InTheWay::Link,
            Err(StorageError::WrongKind { kind, due: "file", .. }) => InTheWay::NoFile(kind),
            Err(error) => return Err(error),
            Ok(Some(state)) => {
                (len, identity) = (state.len, Some(state.identity));
                let overwrite = self.evidence.overwrite;
                let mut file = DownloadFile {
                    len,
                    due,
                    lacks_pieces,
                    has_other_names: state.has_other_names,
                    witness: None,
                    overwrite,
                };
                if may_write(InTheWay::Download(file)).is_err() && len <= due {
                    let (fd, opened) = self.root.open_file(path)?;
                    file.witness = witness(opened, &fd)?;
                    identity = Some(opened.identity);
                }
                InTheWay::Download(file)
            }
        };
        match may_write(found) {
            Ok(permit) => Ok(Claim { permit, identity, noted: None }),
            Err(refused) => Err(refused.of_download(&full(), len, due)),
        }
    }

    /// What says that a file of the torrent is ours, the cheapest first.
    fn witness(
        &self,
        index: FileIndex,
        due: u64,
        state: FileState,
        fd: &OwnedFd,
    ) -> Result<Option<Witness>, StorageError> {
        let birth = birth_of(fd);
        let naming = self.naming(index, due, state, birth);
        if naming == Naming::AsItWas {
            return Ok(Some(Witness::Record));
        }
        let is_altered = self.is_altered(index, due, state, birth);
        if self.has_telling_piece(index, due) {
            return Ok(Some(match naming {
                _ if is_altered => Witness::Altered,
                Naming::Not => Witness::Piece,
                _ => Witness::Record,
            }));
        }
        let start = self.layout.start_of(index).unwrap_or_default();
        let is_lost =
            self.has_something_to_lose(start, self.evidence.have, state.len, fd).map_err(|errno| {
                let path = self.layout.file(index).map(|file| self.root.full_path(&file.path));
                StorageError::at("read", &path.unwrap_or_default(), errno)
            })?;
        if !is_lost {
            return Ok(Some(Witness::NothingToLose));
        }
        if naming == Naming::Touched && !is_altered {
            return Ok(Some(Witness::Touched));
        }
        Ok(self.is_among_proven(index, due, state.len).then_some(Witness::Folder))
    }

    /// What says that the parts file is ours; its name does not, which is anybody's to take. `good` are the good pieces that
    /// have, or had, bytes in it.
    fn parts_witness(
        &self,
        path: &Path,
        good: &Bitfield,
        state: FileState,
        fd: &OwnedFd,
    ) -> Result<Option<Witness>, StorageError> {
        let named = self.record.and_then(|record| record.fingerprint.parts);
        let naming = Naming::of(named, self.layout.total_len(), state, birth_of(fd));
        if naming == Naming::AsItWas {
            return Ok(Some(Witness::Record));
        }
        // Of its pieces others have parts in files, so that a wrong one says nothing against it.
        if self.has_telling_border(good) {
            return Ok(Some(if naming == Naming::Not { Witness::Piece } else { Witness::Record }));
        }
        let is_lost = self
            .has_something_to_lose(0, good, state.len, fd)
            .map_err(|errno| StorageError::at("read", &self.root.full_path(path), errno))?;
        Ok(match naming {
            _ if !is_lost => Some(Witness::NothingToLose),
            Naming::Touched => Some(Witness::Touched),
            _ => None,
        })
    }

    /// Whether good pieces have a block of bytes in the parts file that are not one repeated.
    fn has_telling_border(&self, good: &Bitfield) -> bool {
        let len_in_parts = |piece: PieceIndex| {
            let spans = self.layout.spans(self.layout.piece_span(piece));
            let is_there = |span: &FileSpan| {
                let place = self.selection.place(self.layout, *span);
                place.is_some_and(|place| place.file == parts_index(self.layout))
            };
            spans.filter(is_there).map(|span| u64::from(span.len)).sum()
        };
        self.are_telling(good.iter().map(|piece| (piece, len_in_parts(piece))))
    }

    /// Whether a file of `len` bytes lies in the torrent's own folder, something there is proven, and its length says that it is
    /// the torrent's: it is the one due, or all pieces whole in what is there are good, one at least.
    fn is_among_proven(&self, index: FileIndex, due: u64, len: u64) -> bool {
        let Some(file) = self.layout.file(index).filter(|file| file.path.components().nth(1).is_some())
        else {
            // A torrent of one file has no folder of its own.
            return false;
        };
        let (start, piece_length) =
            (self.layout.start_of(index).unwrap_or_default(), u64::from(self.layout.piece_length()));
        let mut inside = start.div_ceil(piece_length)..(start + len) / piece_length;
        let is_good =
            |piece: u64| u32::try_from(piece).is_ok_and(|it| self.evidence.have.contains(PieceIndex(it)));
        let is_prefix = !inside.is_empty() && inside.all(is_good);
        let folder = file.path.components().next();
        let is_of_folder = |other: &&LayoutFile| other.path.components().next() == folder;
        (len == due || is_prefix)
            && self.layout.files().iter().filter(is_of_folder).nth(1).is_some()
            && *self
                .is_folder_proven
                .get_or_init(|| self.are_telling(self.with_lens(self.evidence.have.iter())))
    }

    /// Whether the record names this very file, as long as it was made.
    fn naming(&self, index: FileIndex, due: u64, state: FileState, birth: Option<(i64, u32)>) -> Naming {
        let record = self.record.filter(|record| record.selection.contains(index));
        Naming::of(record.and_then(|_| of_file(&self.stamps, index)), due, state, birth)
    }

    /// Whether a piece that lies whole in this very file was right when it was noted and is wrong now. Zeros are not: no byte of
    /// them is anybody's, and disks that lose what they had called written leave them behind. Reads until it is so.
    fn is_altered(&self, index: FileIndex, due: u64, state: FileState, birth: Option<(i64, u32)>) -> bool {
        let Some((record, claimed)) = self.evidence.record.zip(self.claimed) else { return false };
        let is_of_it = of_file(&self.known, index).is_some_and(|stamp| stamp.is_of(state, birth));
        if !is_of_it || !record.selection.contains(index) {
            return false;
        }
        let never = std::sync::atomic::AtomicBool::new(false);
        let mut reader = PieceReader::new(self.layout, self.root, self.selection, &never);
        let mut bytes = Vec::new();
        self.inside(index, due).filter(|&piece| claimed.contains(piece)).any(|piece| {
            bytes.resize(self.layout.piece_len(piece) as usize, 0);
            !self.evidence.have.contains(piece)
                && reader.read(piece, &mut bytes)
                && bytes.iter().any(|&byte| byte != 0)
        })
    }

    /// The pieces that lie whole in a file of so many bytes.
    fn inside(&self, index: FileIndex, len: u64) -> impl Iterator<Item = PieceIndex> + use<> {
        let start = self.layout.start_of(index).unwrap_or_default();
        let piece_length = u64::from(self.layout.piece_length());
        let inside = start.div_ceil(piece_length)..(start + len) / piece_length;
        inside.filter_map(|piece| u32::try_from(piece).ok().map(PieceIndex))
    }

    /// Whether good pieces that are not one byte repeated lie whole in the file, a block of them at least: less may be
    /// the beginning of a text that everybody has, with the user's own lines behind it. The last piece of a torrent may be
    /// a few bytes long, and counts only when it is as long as the others.
    fn has_telling_piece(&self, index: FileIndex, len: u64) -> bool {
        let good = self.inside(index, len).filter(|piece| self.evidence.have.contains(*piece));
        self.are_telling(self.with_lens(good))
    }

    fn with_lens(&self, pieces: impl Iterator<Item = PieceIndex>) -> impl Iterator<Item = (PieceIndex, u64)> {
        pieces.map(|piece| (piece, self.layout.piece_len(piece).into()))
    }

    /// Whether these pieces, which are good, have a block of bytes that are not one repeated; so many bytes of each count.
    /// Reads until it is so.
    fn are_telling(&self, pieces: impl Iterator<Item = (PieceIndex, u64)>) -> bool {
        // A shortage says nothing of whose a file is: it is waited out.
        let never = std::sync::atomic::AtomicBool::new(false);
        let mut reader = PieceReader::new(self.layout, self.root, self.selection, &never);
        let mut bytes = Vec::new();
        let mut telling_len = 0;
        for (piece, len) in pieces {
            bytes.resize(self.layout.piece_len(piece) as usize, 0);
            if reader.read(piece, &mut bytes) && bytes.iter().any(|byte| Some(byte) != bytes.first()) {
                telling_len += len;
            }
            if telling_len >= u64::from(BLOCK_LEN) {
                return true;
            }
        }
        false
    }

    /// Whether a byte of a file that begins at byte `start` of the torrent and lies in no good piece is not zero. Holes are
    /// passed over.
    fn has_something_to_lose(
        &self,
        start: u64,
        good: &Bitfield,
        len: u64,
        fd: &OwnedFd,
    ) -> Result<bool, Errno> {
        let piece_length = u64::from(self.layout.piece_length());
        let mut chunk = vec![0; CHUNK_LEN];
        let mut at = 0;
        while at < len {
            // Behind the last data the kernel answers NXIO; a file system that does not tell has no holes.
            at = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
                Ok(data) => data.max(at),
                Err(Errno::NXIO) => return Ok(false),
                Err(_) => at,
            };
            let piece = (start + at) / piece_length;
            let end = ((piece + 1) * piece_length - start).min(len);
            let is_good = u32::try_from(piece).is_ok_and(|piece| good.contains(PieceIndex(piece)));
            if !is_good && !is_zero(fd, at..end, &mut chunk)? {
                return Ok(true);
            }
            at = end;
        }
        Ok(false)
    }
}

/// What a record says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// It is not of that file, but of another that lay there, or of none.
    Not,
    /// It is of the very file, which was changed since, by us or by others.
    Touched,
    /// It is of the very file, and that is as it was.
    AsItWas,
}

impl Naming {
    fn of(noted: Option<FileStamp>, due: u64, state: FileState, birth: Option<(i64, u32)>) -> Self {
        match noted {
            Some(stamp) if state.len == due && stamp.is_untouched(state, birth) => Self::AsItWas,
            Some(stamp) if state.len == due && stamp.is_of(state, birth) => Self::Touched,
            _ => Self::Not,
        }
    }
}

fn of_file(stamps: &[Option<FileStamp>], index: FileIndex) -> Option<FileStamp> {
    stamps.get(index.0 as usize).copied().flatten()
}

/// What the record calls right and has to be right wherever nobody else has written: after an end in order or within one
/// life of the page cache all of it, otherwise what the disk had.
fn claimed<'a>(record: &'a Resume, root: &Root) -> &'a Bitfield {
    let is_same_boot = record.boot_id.is_some() && record.boot_id == BootId::of_root(root);
    if record.is_clean || is_same_boot { &record.verified } else { &record.durable }
}

/// Whether all bytes of the range are zero, those behind the file's end included.
fn is_zero(fd: &OwnedFd, range: Range<u64>, chunk: &mut [u8]) -> Result<bool, Errno> {
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(chunk.len());
        let Some(part) = chunk.get_mut(..len) else { break };
        part.fill(0);
        let ends = read_exactly(fd, part, at)?.is_some();
        if part.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        if ends {
            break;
        }
        at += len as u64;
    }
    Ok(true)
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
