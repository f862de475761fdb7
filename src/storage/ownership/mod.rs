//! Whether a path may be written: the one place that decides it, for every writer of the program.
//!
//! Nothing is written that is not ours. [`may_write`] judges facts and touches no disk; what gathers the facts, and
//! writes, stands beside it: [`Claims`] for the files that a download goes into, [`replace_file`] for torrent files,
//! figures and resume records, which are written beside and then put into their place.
//!
//! | what lies at the path | what happens |
//! |---|---|
//! | nothing | it is made, and only if still nothing lies there then |
//! | a symbolic link, wherever it leads | refused: nothing is written through a link, and no link is replaced |
//! | a folder, FIFO, socket or device | refused |
//! | a file of a download of which no piece is missing, and as long as it is to be | opened for reading only |
//! | a file of a download that lacks a piece, and a resume record names it (same folder, same inode, made then), and nothing speaks against that | written |
//! | the same, it was changed since, and no piece of it tells anything | written; what it holds is kept aside before any of it is lost |
//! | a file that a record calls right where it is wrong, and a good piece that tells something lies in it | written, unless it has other names; what it holds is kept aside first |
//! | a file without a record of it, and a good piece that tells something lies whole inside it | written, unless it has other names (hard links), which would change with it |
//! | the same, and there is nothing to lose: every byte outside of good pieces is zero | the same |
//! | the same, and a witness for its folder says that it is the torrent's beyond reasonable doubt | the same; what it holds is kept aside before any of it is lost |
//! | any other file in a download's way | refused |
//! | a file in a download's way that is longer than the torrent's | refused |
//! | a file in a download's way, and the user said to write over it | written, what is longer cut off; not when it has other names |
//! | a torrent, figure or record where one is to be written | replaced |
//! | the same inside the content that the torrent is of | replaced only when it is a torrent of that content's name |
//! | any other file where one of these is to be written | refused |
//!
//! What speaks for a record is that the file is as it was noted, or has good pieces; what speaks against it is a piece that it calls
//! right and that is wrong now.
//!
//! The parts file of a download of some files (`storage::selection`) is judged as any other: its name is the info-hash's, which
//! everybody knows, and says nothing. It is removed only when all that it holds is in the files, too.
//!
//! A good piece tells something when its bytes are not all the same: zeros are where they are due in many a file. A piece
//! that lies only partly in a file tells nothing of it: a few bytes that begin all files of a kind are soon right. So a
//! file without a whole piece of its own is written only when a record names it, when there is nothing to lose, or when nothing of
//! it can be lost: what lies in the torrent's own folder among files that are proven, and is as long as the torrent's to the byte, is
//! the torrent's beyond reasonable doubt, and what doubt is left costs a copy ([`Aside`]) and not the file.

use super::error::StorageError;
use std::path::Path;

mod aside;
mod content;
mod replace;

pub(super) use aside::Aside;
pub(super) use content::Claim;
pub use content::{Claims, Evidence};
pub use replace::{FileKind, Place, WriteError, look_at_place, replace_file};
pub(super) use replace::{put_aside, remove_record};

/// What lies where something is to be written, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTheWay {
    /// Nothing.
    Nothing,
    /// A symbolic link, wherever it leads.
    Link,
    /// A folder, FIFO, socket or device; as the user calls it.
    NoFile(&'static str),
    /// A file, and a download is to go into it.
    Download(DownloadFile),
    /// A file, and a torrent, figure or record is to take its place.
    Whole(WholeFile),
}

/// A file that a download is to go into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownloadFile {
    /// Bytes.
    pub len: u64,
    /// Bytes that the torrent says.
    pub due: u64,
    /// Whether a piece with bytes in it is not known to be right.
    pub lacks_pieces: bool,
    /// Whether it has other names (hard links).
    pub has_other_names: bool,
    /// What says that it is ours; `None`: nothing does.
    pub witness: Option<Witness>,
    /// Whether the user said to write over what is not ours.
    pub overwrite: bool,
}

/// What says that a file is ours to write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// A resume record of the torrent names the very file, and nothing in it speaks against that.
    Record,
    /// The same, but somebody has changed it since, be it ourselves before a kill, and no piece of it tells whose it is.
    Touched,
    /// Good pieces lie in it, and others are wrong that a record calls right: somebody has written over them since.
    Altered,
    /// Good pieces, not of one byte repeated, lie whole inside it, a block (16 KiB) of them at least.
    Piece,
    /// Every byte outside of good pieces is zero.
    NothingToLose,
    /// Other bytes in the torrent's own folder are proven, and it is as long as it is to be, or shorter, and all pieces that lie
    /// whole in it are good.
    Folder,
}

/// A file that is to be replaced as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeFile {
    /// Whether it is what is to be written in its place: a torrent, one of our figures, a readable record.
    pub is_of_the_kind: bool,
    /// Whether it belongs to the content that a torrent is made of: that itself, or inside it and no torrent of its.
    pub is_content: bool,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Make it; not when something has come there since.
    Make,
    /// Read it: it lacks nothing.
    Read,
    /// Write into it, and extend it where it is too short.
    Write,
    /// The same, and keep what it holds before any of it is lost.
    WriteKeeping,
    /// The same, once all that it holds was kept.
    KeepAndWrite,
    /// The same as writing, after cutting it off to its due length.
    CutOff,
    /// Put the new one into its place.
    Replace,
}

/// Why nothing may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A link is there.
    Link,
    /// No file is there, but this.
    NoFile(&'static str),
    /// It is longer than the torrent's file.
    TooLong,
    /// Nothing says that it is ours.
    NotOurs,
    /// It may be ours, and has other names, which would change with it.
    OtherNames,
    /// It belongs to the content that the torrent is of.
    Content,
}

/// Whether a path may be written where this lies. The module's table is its rules.
///
/// # Errors
/// Why not; the path is then to be left exactly as it is.
pub fn may_write(found: InTheWay) -> Result<Permit, Refused> {
    match found {
        InTheWay::Nothing => Ok(Permit::Make),
        InTheWay::Link => Err(Refused::Link),
        InTheWay::NoFile(kind) => Err(Refused::NoFile(kind)),
        InTheWay::Download(file) => may_download_into(file),
        InTheWay::Whole(WholeFile { is_content: true, .. }) => Err(Refused::Content),
        InTheWay::Whole(WholeFile { is_of_the_kind: false, .. }) => Err(Refused::NotOurs),
        InTheWay::Whole(_) => Ok(Permit::Replace),
    }
}

fn may_download_into(file: DownloadFile) -> Result<Permit, Refused> {
    if file.len == file.due && !file.lacks_pieces {
        return Ok(Permit::Read);
    }
    if file.overwrite && !file.has_other_names {
        return Ok(if file.len > file.due { Permit::CutOff } else { Permit::Write });
    }
    if file.len > file.due {
        return Err(if file.overwrite { Refused::OtherNames } else { Refused::TooLong });
    }
    match file.witness {
        None if file.overwrite => Err(Refused::OtherNames),
        None => Err(Refused::NotOurs),
        Some(Witness::Record) => Ok(Permit::Write),
        // Whatever other names it has, what they had is kept.
        Some(Witness::Touched) => Ok(Permit::WriteKeeping),
        Some(_) if file.has_other_names => Err(Refused::OtherNames),
        Some(Witness::Piece | Witness::NothingToLose) => Ok(Permit::Write),
        Some(Witness::Folder) => Ok(Permit::WriteKeeping),
        Some(Witness::Altered) => Ok(Permit::KeepAndWrite),
    }
}

impl Refused {
    /// The sentence for a file of a download of `due` bytes that has `len`.
    fn of_download(self, path: &Path, len: u64, due: u64) -> StorageError {
        let path = path.to_path_buf();
        match self {
            Self::Link => StorageError::SymbolicLink(path),
            Self::NoFile(kind) => StorageError::WrongKind { path, kind, due: "file" },
            Self::TooLong => StorageError::TooLong { path, expected: due, found: len },
            Self::NotOurs | Self::Content => StorageError::NotOurs(path),
            Self::OtherNames => StorageError::OtherNames(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn download() -> DownloadFile {
        DownloadFile {
            len: 10,
            due: 10,
            lacks_pieces: true,
            has_other_names: false,
            witness: None,
            overwrite: false,
        }
    }

    fn judged(file: DownloadFile) -> Result<Permit, Refused> {
        may_write(InTheWay::Download(file))
    }

    #[test]
    fn where_nothing_lies_it_is_made_and_links_and_folders_are_refused() {
        assert_eq!(may_write(InTheWay::Nothing), Ok(Permit::Make));
        assert_eq!(may_write(InTheWay::Link), Err(Refused::Link));
        assert_eq!(may_write(InTheWay::NoFile("folder")), Err(Refused::NoFile("folder")));
    }

    #[test]
    fn a_strangers_file_in_a_downloads_way_is_refused_whatever_its_length() {
        for len in [0, 9, 10] {
            assert_eq!(judged(DownloadFile { len, ..download() }), Err(Refused::NotOurs), "{len}");
        }
        assert_eq!(judged(DownloadFile { len: 11, ..download() }), Err(Refused::TooLong));
        let shorter_and_whole = DownloadFile { len: 9, lacks_pieces: false, ..download() };
        assert_eq!(judged(shorter_and_whole), Err(Refused::NotOurs));
    }

    #[test]
    fn what_lacks_nothing_is_only_read_even_when_it_has_other_names_or_may_be_written_over() {
        for (has_other_names, overwrite) in [(false, false), (true, false), (false, true), (true, true)] {
            let file = DownloadFile { lacks_pieces: false, has_other_names, overwrite, ..download() };
            assert_eq!(judged(file), Ok(Permit::Read));
        }
        let empty = DownloadFile { len: 0, due: 0, lacks_pieces: false, ..download() };
        assert_eq!(judged(empty), Ok(Permit::Read));
    }

    #[test]
    fn a_witness_lets_a_download_go_on_but_only_a_record_vouches_for_other_names() {
        for witness in [
            Witness::Record,
            Witness::Touched,
            Witness::Altered,
            Witness::Piece,
            Witness::NothingToLose,
            Witness::Folder,
        ] {
            for len in [0, 9, 10] {
                let file = DownloadFile { len, witness: Some(witness), ..download() };
                let permit = match witness {
                    Witness::Folder | Witness::Touched => Permit::WriteKeeping,
                    Witness::Altered => Permit::KeepAndWrite,
                    _ => Permit::Write,
                };
                assert_eq!(judged(file), Ok(permit), "{witness:?} {len}");
                let linked = judged(DownloadFile { has_other_names: true, ..file });
                let by_record = matches!(witness, Witness::Record | Witness::Touched);
                assert_eq!(linked, if by_record { Ok(permit) } else { Err(Refused::OtherNames) });
            }
            let longer = DownloadFile { len: 11, witness: Some(witness), ..download() };
            assert_eq!(judged(longer), Err(Refused::TooLong));
        }
    }

    #[test]
    fn who_says_overwrite_means_it() {
        for (len, permit) in [(0, Permit::Write), (10, Permit::Write), (11, Permit::CutOff)] {
            let file = DownloadFile { len, overwrite: true, ..download() };
            assert_eq!(judged(file), Ok(permit), "{len}");
            // The path was meant, and not the other names.
            let linked = DownloadFile { has_other_names: true, ..file };
            assert_eq!(judged(linked), Err(Refused::OtherNames));
        }
    }

    #[test]
    fn whole_files_are_replaced_by_their_own_kind_only_and_never_as_content() {
        let judged =
            |is_of_the_kind, is_content| may_write(InTheWay::Whole(WholeFile { is_of_the_kind, is_content }));
        assert_eq!(judged(true, false), Ok(Permit::Replace));
        assert_eq!(judged(false, false), Err(Refused::NotOurs));
        assert_eq!(judged(true, true), Err(Refused::Content));
        assert_eq!(judged(false, true), Err(Refused::Content));
    }
}
