//! From a torrent and a folder to files that can be downloaded into: what is there already is kept.
//!
//! What an earlier run remembers is believed as far as its record vouches for it; pieces that it cannot vouch for but
//! that may have been written are hashed, and nothing else is. Without a record, every piece is hashed whose bytes
//! might be there. Files that are there and not ours are left as they are, and so is everything else then: see
//! [`may_write`](crate::storage::may_write).

use super::content::{Checked, ServedContent};
use super::patterns::{NoPattern, Patterns};
use crate::bitfield::Bitfield;
use crate::metainfo::Metainfo;
use crate::storage::{
    Allocation, BootId, Claims, DownloadContent, Evidence, FileIndex, FileSelection, Former, Layout, Resume,
    StorageError, Subset, Target, Verdict, check_some, forget_cached, layout_in, open_files_max,
    pieces_with_data, resume_path,
};
use crate::units::PieceIndex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the user wants of a torrent.
#[derive(Clone, Debug, Default)]
pub struct DownloadOptions {
    /// The folder that the torrent's file or folder goes into.
    pub root: PathBuf,
    /// The files wanted; all of them when empty.
    pub only: Vec<String>,
    /// Files to have before the others.
    pub first: Vec<String>,
    /// The files wanted by their numbers (BEP 53), as a magnet link says it; all of them when `None`.
    pub only_indices: Option<Vec<u32>>,
    /// What is done about disk space.
    pub allocation: Allocation,
    /// Whether files in the way that are not this torrent's are written over.
    pub overwrite: bool,
    /// Where resume files lie.
    pub state_dir: Option<PathBuf>,
    /// Files of the torrent that may be open at once; `None` for as many as the process's share.
    pub open_files_max: Option<usize>,
}

/// Why nothing can be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// What `--only` says is no pattern; the user's fault.
    #[error("{pattern:?} is no pattern of file names: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No file is selected; the user's fault.
    #[error("no file of the torrent matches --only; `seedring show --files` lists them")]
    NothingSelected,
    /// The disk's fault.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A torrent whose place on disk is known, before its pieces are looked at.
#[derive(Debug)]
pub struct Planned {
    /// The torrent.
    pub metainfo: Metainfo,
    options: DownloadOptions,
    layout: Arc<Layout>,
    selection: FileSelection,
    first: Bitfield,
    resume: Option<Resume>,
    trusted: Bitfield,
    /// Pieces to hash.
    candidates: Bitfield,
    /// Pieces to hash as they lay while another selection was in force.
    former: Option<Former>,
}

impl Planned {
    /// Finds out what is wanted and what is there. Reads no content and makes no file.
    ///
    /// # Errors
    /// A pattern that is none, or selects nothing; a torrent that makes no layout.
    pub fn new(metainfo: Metainfo, options: DownloadOptions) -> Result<Self, DownloadError> {
        let layout = Arc::new(layout_in(metainfo.info(), &options.root).map_err(StorageError::from)?);
        let selection = select(&metainfo, &layout, &options)?;
        let first = first_pieces(&metainfo, &layout, &options)?;
        let resume = options
            .state_dir
            .as_deref()
            .and_then(|folder| Resume::load(&resume_path(folder, metainfo.info_hash())).ok())
            .filter(|resume| resume.info_hash == metainfo.info_hash());
        let verdict = match &resume {
            Some(resume) => resume.judge(&layout, &options.root, &selection, BootId::of(&options.root)),
            None => Verdict::CheckAll,
        };
        let none = Bitfield::none(layout.piece_count());
        let (trusted, candidates) = match verdict {
            Verdict::Trust(trusted) => (trusted, none),
            Verdict::TrustAndLookAt { trusted, candidates } => (trusted, candidates),
            // A folder that is not there holds nothing.
            Verdict::CheckAll => {
                (none.clone(), pieces_with_data(&layout, &options.root, &selection).unwrap_or(none))
            }
        };
        let former = Former::find(&layout, &options.root, metainfo.info_hash(), &selection, resume.as_ref());
        let former = former.and_then(|former| former.without(&trusted)?.without(&candidates));
        Ok(Self { metainfo, options, layout, selection, first, resume, trusted, candidates, former })
    }

    /// Bytes that have to be hashed first.
    pub fn check_len(&self) -> u64 {
        let moved = self.former.iter().flat_map(|former| former.pieces().iter());
        self.candidates.iter().chain(moved).map(|piece| u64::from(self.layout.piece_len(piece))).sum()
    }

    /// Hashes what has to be, and opens the files for downloading into.
    ///
    /// # Errors
    /// A file in the way that is not ours: see [`Claims::of`]. What the disk says: see [`DownloadContent::create`].
    pub fn open(
        self,
        on_progress: &(dyn Fn(u64) + Sync),
        cancel: &AtomicBool,
    ) -> Result<Checked, StorageError> {
        let Self { metainfo, options, layout, selection, first, resume, trusted, candidates, former } = self;
        let mut durable = Bitfield::none(layout.piece_count());
        let kept = resume.as_ref().into_iter().flat_map(|resume| resume.durable.iter());
        kept.filter(|&piece| trusted.contains(piece)).for_each(|piece| {
            durable.insert(piece);
        });
        let mut verified = trusted;
        let info = metainfo.info();
        let expected = |piece: PieceIndex| info.piece_hash(piece);
        if candidates.count() > 0 {
            let subset = Subset { pieces: &candidates, selection: &selection };
            if let Some(resume) = resume.as_ref().filter(|resume| !resume.is_clean) {
                // That run may have ended because the disk did not take what memory still shows; of what it vouches for it
                // knew better.
                let mut unknown = candidates.clone();
                resume.verified.iter().for_each(|piece| _ = unknown.remove(piece));
                forget_cached(&layout, &options.root, Subset { pieces: &unknown, ..subset });
            }
            let report = check_some(&layout, &options.root, subset, &expected, 0, on_progress, cancel)?;
            report.bitfield.iter().for_each(|piece| {
                verified.insert(piece);
            });
        }
        let evidence = Evidence { have: &verified, record: resume.as_ref(), overwrite: options.overwrite };
        let mut lay = None;
        if let Some(former) = &former {
            let subset = Subset { pieces: former.pieces(), selection: former.selection() };
            let report = check_some(&layout, &options.root, subset, &expected, 0, on_progress, cancel)?;
            lay = Some((former, report.bitfield));
        }
        let as_it_lay = lay.as_ref().map(|(former, pieces)| (pieces, former.selection()));
        let claims = Claims::of_moved(&layout, &options.root, &selection, evidence, as_it_lay)?;
        let target = Target {
            root: &options.root,
            selection: &selection,
            allocation: options.allocation,
            claims: &claims,
            have: &verified,
            durable: &durable,
            files_max: options.open_files_max.unwrap_or_else(open_files_max),
        };
        let (content, _) = DownloadContent::create(layout, target)?;
        if let Some((former, right)) = &lay {
            let taken = former.take_along(&options.root, right, &expected, &content);
            taken.iter().for_each(|piece| _ = verified.insert(piece));
        }
        let fingerprint = content.fingerprint();
        let uploaded = resume.as_ref().map_or(0, |resume| resume.uploaded);
        let downloaded = resume.as_ref().map_or(0, |resume| resume.downloaded);
        if let Some(folder) = &options.state_dir {
            let noted = Resume {
                durable: durable.clone(),
                is_clean: false,
                boot_id: content.boot_id(),
                folder: content.folder(),
                selection: selection.clone(),
                uploaded,
                downloaded,
                ..Resume::clean(metainfo.info_hash(), fingerprint.clone(), verified.clone())
            };
            // Before the first piece is written, since the old record does not know of writing; on the disk, since it says
            // that the files made here are ours. That it cannot be noted is told when more is to be.
            let _ = noted.save(&resume_path(folder, metainfo.info_hash()));
        }
        Ok(Checked {
            metainfo,
            torrent_file: None,
            made_here: false,
            content: ServedContent::Download(content),
            is_noted: false,
            verified,
            durable,
            fingerprint,
            uploaded,
            downloaded,
            problems: Vec::new(),
            selection: Some(selection),
            first: Some(first),
        })
    }
}

/// Which files are wanted: those that any pattern matches, or a number names.
fn select(
    metainfo: &Metainfo,
    layout: &Layout,
    options: &DownloadOptions,
) -> Result<FileSelection, DownloadError> {
    if options.only.is_empty() && options.only_indices.is_none() {
        return Ok(FileSelection::all());
    }
    let patterns = patterns(&options.only)?;
    let mut selected = false;
    let selection = FileSelection::only(layout, metainfo.info_hash(), |file: FileIndex| {
        let by_number = options.only_indices.as_ref().is_some_and(|some| some.contains(&file.0));
        let is_wanted = by_number || matches(&patterns, metainfo, file);
        selected |= is_wanted;
        is_wanted
    });
    if selected { Ok(selection) } else { Err(DownloadError::NothingSelected) }
}

/// The pieces of the files to have before the others.
fn first_pieces(
    metainfo: &Metainfo,
    layout: &Layout,
    options: &DownloadOptions,
) -> Result<Bitfield, DownloadError> {
    let patterns = patterns(&options.first)?;
    let mut pieces = Bitfield::none(layout.piece_count());
    let files = (0..).map(FileIndex).take(layout.files().len());
    for file in files.filter(|&file| matches(&patterns, metainfo, file)) {
        for piece in layout.pieces_of(file) {
            pieces.insert(PieceIndex(piece));
        }
    }
    Ok(pieces)
}

/// Whether a pattern matches a file's path within the torrent; one with a `/` also with the torrent's own folder in front.
fn matches(patterns: &Patterns, metainfo: &Metainfo, file: FileIndex) -> bool {
    let info = metainfo.info();
    // The torrent's own path, under whatever spelling the file lies on the disk.
    info.files().get(file.0 as usize).map(|file| file.path().as_path()).is_some_and(|path| {
        // A torrent of one file has no folder.
        let inside = path.strip_prefix(info.name()).ok().filter(|inside| inside.file_name().is_some());
        patterns.matches(inside.unwrap_or(path)) || patterns.matches_with_folder(path)
    })
}

fn patterns(only: &[String]) -> Result<Patterns, DownloadError> {
    Patterns::new(only).map_err(|NoPattern { pattern, reason }| DownloadError::Pattern { pattern, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bencode;

    /// A torrent of the folder `album` with files of 10 bytes each.
    fn metainfo(files: &[&str]) -> Metainfo {
        let bytes = bencode::dict(|torrent| {
            torrent.dict("info", |info| {
                info.list("files", |list| {
                    for path in files {
                        list.dict(|file| {
                            file.int("length", 10);
                            file.list("path", |components| {
                                path.split('/').for_each(|component| components.bytes(component));
                            });
                        });
                    }
                });
                info.bytes("name", "album");
                info.int("piece length", 16_384);
                info.bytes("pieces", [7; 20]);
            });
        });
        Metainfo::parse(&bytes).expect("a good torrent")
    }

    fn selected(only: &[&str]) -> Result<Vec<u32>, DownloadError> {
        let metainfo = metainfo(&["one.mkv", "extras/two.mkv", "extras/deep/three.txt"]);
        let layout = Layout::of(metainfo.info()).expect("a good torrent");
        let only = only.iter().map(|&pattern| pattern.to_owned()).collect();
        let selection = select(&metainfo, &layout, &DownloadOptions { only, ..DownloadOptions::default() })?;
        Ok((0..3).filter(|&file| selection.contains(FileIndex(file))).collect())
    }

    #[test]
    fn patterns_select_names_at_any_depth_or_paths() {
        assert_eq!(selected(&[]).unwrap(), [0, 1, 2]);
        assert_eq!(selected(&["*.mkv"]).unwrap(), [0, 1]);
        assert_eq!(selected(&["/*.mkv"]).unwrap(), [0]);
        assert_eq!(selected(&["album/*.mkv"]).unwrap(), [0]);
        assert_eq!(selected(&["deep"]).unwrap(), [2]);
        assert!(matches!(selected(&["album"]), Err(DownloadError::NothingSelected)), "that is all of it");
        assert_eq!(selected(&["**/*.mkv"]).unwrap(), [0, 1]);
        assert_eq!(selected(&["album/extras/**"]).unwrap(), [1, 2]);
        assert_eq!(selected(&["extras/*", "one.*"]).unwrap(), [0, 1, 2]);
        assert_eq!(selected(&["extras/*.mkv", "one.*"]).unwrap(), [0, 1]);
        assert!(matches!(selected(&["*.iso"]), Err(DownloadError::NothingSelected)));
        assert!(matches!(selected(&["[x"]), Err(DownloadError::Pattern { .. })));
    }

    #[test]
    fn pieces_of_files_to_have_first_are_found() {
        let metainfo = metainfo(&["one.mkv", "two.mkv"]);
        let layout = Layout::of(metainfo.info()).expect("a good torrent");
        let first = |pattern: &str| {
            let first = vec![pattern.to_owned()];
            first_pieces(&metainfo, &layout, &DownloadOptions { first, ..DownloadOptions::default() })
        };
        assert_eq!(first("two.*").unwrap().count(), 1);
        assert_eq!(first("three.*").unwrap().count(), 0);
        assert!(first("{").is_err());
    }

    #[test]
    fn what_another_client_saved_under_its_own_spelling_is_gone_on_with() {
        let bytes = bencode::dict(|torrent| {
            torrent.dict("info", |info| {
                info.list("files", |list| {
                    list.dict(|file| {
                        file.int("length", 10);
                        file.list("path", |components| components.bytes(b"Beyonc\xe9.flac"));
                    });
                });
                info.bytes("name", "album");
                info.int("piece length", 16_384);
                info.bytes("pieces", crate::storage::piece_hash(&[7; 10]));
            });
        });
        for spelling in ["Beyoncé.flac", "Beyonc\u{fffd}.flac", "Beyonc_.flac"] {
            let scratch = tempfile::tempdir().unwrap();
            let folder = scratch.path().join("album");
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join(spelling), [7; 10]).unwrap();
            let options = DownloadOptions { root: scratch.path().to_owned(), ..DownloadOptions::default() };
            let planned = Planned::new(Metainfo::parse(&bytes).unwrap(), options).unwrap();
            assert_eq!(planned.check_len(), 10, "{spelling}");
            let checked = planned.open(&|_| {}, &AtomicBool::new(false)).unwrap();
            assert_eq!(checked.verified.count(), 1, "{spelling}");
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is made beside it");
        }
    }

    /// Files of these lengths with other bytes each, in pieces of 16 KiB.
    fn torrent_of(files: &[(&str, usize)]) -> (Vec<u8>, Vec<u8>) {
        let mut content = vec![0; files.iter().map(|(_, len)| len).sum()];
        crate::rng::Rng::from_seed(11).fill(&mut content);
        let hashes: Vec<u8> = content.chunks(16_384).flat_map(crate::storage::piece_hash).collect();
        let torrent = bencode::dict(|torrent| {
            torrent.dict("info", |info| {
                info.list("files", |list| {
                    for (path, len) in files {
                        list.dict(|file| {
                            file.int("length", *len as i64);
                            file.list("path", |components| components.bytes(path));
                        });
                    }
                });
                info.bytes("name", "album");
                info.int("piece length", 16_384);
                info.bytes("pieces", hashes);
            });
        });
        (torrent, content)
    }

    /// Each of the files shares pieces with those beside it, and `small` has none of its own.
    const FILES: [(&str, usize); 4] = [("one", 40_000), ("small", 500), ("two", 50_000), ("three", 40_000)];

    /// Opens a download of some files into a folder; the wanted pieces that are lacking.
    fn lacking(torrent: &[u8], root: &std::path::Path, only: &[&str], has_record: bool) -> (u32, Checked) {
        let options = DownloadOptions {
            root: root.to_owned(),
            only: only.iter().map(|&pattern| pattern.to_owned()).collect(),
            state_dir: has_record.then(|| root.join("state")),
            ..DownloadOptions::default()
        };
        let checked = loop {
            let planned = Planned::new(Metainfo::parse(torrent).unwrap(), options.clone()).unwrap();
            match planned.open(&|_| {}, &AtomicBool::new(false)) {
                // What was dropped before is closed on a thread of its own.
                Err(StorageError::InUse(_)) => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        let wanted = checked.selection.as_ref().unwrap().wanted_pieces(checked.content.layout());
        let here = wanted.iter().filter(|&piece| checked.verified.contains(piece)).count();
        (wanted.count() - here as u32, checked)
    }

    fn write_album(root: &std::path::Path, content: &[u8]) {
        let mut start = 0;
        std::fs::create_dir_all(root.join("album")).unwrap();
        for (name, len) in FILES {
            std::fs::write(root.join("album").join(name), &content[start..start + len]).unwrap();
            start += len;
        }
    }

    #[test]
    fn some_files_of_content_that_is_there_are_there() {
        let (torrent, content) = torrent_of(&FILES);
        for has_record in [false, true] {
            for only in [&["one"][..], &["small"], &["two"], &["one", "three"], &[]] {
                let scratch = tempfile::tempdir().unwrap();
                write_album(scratch.path(), &content);
                if has_record {
                    assert_eq!(lacking(&torrent, scratch.path(), &[], true).0, 0);
                }
                assert_eq!(lacking(&torrent, scratch.path(), only, has_record).0, 0, "{only:?}");
                for (name, len) in FILES {
                    let file = std::fs::metadata(scratch.path().join("album").join(name)).unwrap();
                    assert_eq!(file.len(), len as u64);
                }
            }
        }
    }

    #[test]
    fn what_lies_at_the_borders_of_some_files_is_used_for_the_others_and_removed_when_no_longer_needed() {
        let (torrent, content) = torrent_of(&FILES);
        for has_record in [false, true] {
            let scratch = tempfile::tempdir().unwrap();
            let root = scratch.path();
            // All pieces that have a byte of `one` or `two` are here; between them lies `small`.
            let (_, checked) = lacking(&torrent, root, &["one", "two"], has_record);
            let ServedContent::Download(open) = &checked.content else { panic!("it is downloaded") };
            let layout = Arc::clone(open.layout());
            for piece in checked.selection.as_ref().unwrap().wanted_pieces(&layout).iter() {
                let start = piece.0 as usize * 16_384;
                let bytes = &content[start..start + layout.piece_len(piece) as usize];
                open.write_piece(piece, bytes).unwrap();
            }
            open.finish().unwrap();
            let info_hash = checked.metainfo.info_hash();
            let parts = root.join(format!(".{info_hash}.parts"));
            let all = FileSelection::all();
            let remove = |selection: &FileSelection| {
                crate::storage::remove_unused_parts(&layout, root, selection, info_hash).unwrap();
                parts.exists()
            };
            assert!(remove(checked.selection.as_ref().unwrap()), "it is needed");
            assert!(remove(&all), "somebody has it open");
            drop(checked);
            let (lacks, checked) = lacking(&torrent, root, &[], has_record);
            assert_eq!(lacks, 2, "those of `three` alone");
            assert_eq!(std::fs::read(root.join("album/small")).unwrap(), content[40_000..40_500]);
            // Likewise.
            while remove(&all) {
                std::thread::yield_now();
            }
            assert!(!remove(&all));
            drop(checked);
            assert_eq!(lacking(&torrent, root, &[], has_record).0, 2);
            // Somebody else's file of that name: bytes at another place, others at their place, more than the torrent has.
            let mut longer = content.clone();
            longer.push(1);
            for strangers in [&content[1..], &[1; 500], &longer] {
                std::fs::write(&parts, strangers).unwrap();
                assert!(remove(&all));
                assert_eq!(std::fs::read(&parts).unwrap(), strangers);
            }
        }
    }

    #[test]
    fn nothing_is_checked_where_nothing_is() {
        let scratch = tempfile::tempdir().unwrap();
        let options = DownloadOptions { root: scratch.path().join("new"), ..DownloadOptions::default() };
        let planned = Planned::new(metainfo(&["a", "b"]), options).unwrap();
        assert_eq!(planned.check_len(), 0);
        let checked = planned.open(&|_| {}, &AtomicBool::new(false)).unwrap();
        assert_eq!(checked.verified.count(), 0);
        assert_eq!(std::fs::metadata(scratch.path().join("new/album/b")).unwrap().len(), 10);
    }
}
