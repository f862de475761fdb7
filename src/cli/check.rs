//! `seedring check`: is the content on disk what the torrent says? Success only when all of it is.

use super::CommandError;
use super::escape::{self, Plain};
use super::progress::Progress;
use crate::metainfo::Metainfo;
use crate::session::torrent_file::read_torrent;
use crate::storage::{self, CheckReport, FileIndex, Layout, Links};
use crate::units::{ByteSize, Counted, PieceIndex};
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Check content on disk against a torrent.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The .torrent file
    #[arg(value_name = "FILE")]
    torrent: PathBuf,
    /// The content, or the folder that holds it
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Follow symbolic links in the content, which are your own: files, folders, or the whole of it
    #[arg(long)]
    follow_links: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: CheckArgs) -> Result<(), CommandError> {
    let torrent = read_torrent(&args.torrent)?;
    let info = torrent.info();
    let links = if args.follow_links { Links::Follow } else { Links::Refuse };
    let (layout, root) = storage::locate(info, &args.data, links)?;
    let expected = |piece: PieceIndex| info.piece_hash(piece);
    let progress = Progress::start("checking", layout.total_len());
    let never = AtomicBool::new(false);
    let report = storage::check(&layout, &root, &expected, 0, &|bytes| progress.add(bytes), &never)?;
    drop(progress);
    let checked = Checked::of(&torrent, &layout, &report);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", escape::json(&checked)?)?;
    } else {
        checked.write_text(&mut out)?;
    }
    out.flush()?;
    if report.is_complete() {
        return Ok(());
    }
    let bad = report.bitfield.len() - report.bitfield.count();
    let what = match bad {
        0 => "files have the wrong length".to_owned(),
        1 => "1 piece is missing or wrong".to_owned(),
        _ => format!("{} are missing or wrong", Counted(bad, "piece")),
    };
    Err(format!("{} is not what {} describes: {what}", args.data.display(), args.torrent.display()).into())
}

/// The result. The fields are the JSON contract.
#[derive(Serialize)]
struct Checked {
    name: String,
    info_hash: String,
    complete: bool,
    piece_count: u32,
    good_pieces: u32,
    length: u64,
    good_length: u64,
    incomplete_files: Vec<IncompleteFile>,
}

/// A file that is not whole.
#[derive(Serialize)]
struct IncompleteFile {
    path: String,
    length: u64,
    piece_count: u32,
    bad_pieces: u32,
    /// The bad file that all of its bad pieces are shared with, when nothing else is known against it.
    neighbour_of: Option<String>,
    problem: Option<String>,
}

impl Checked {
    fn of(torrent: &Metainfo, layout: &Layout, report: &CheckReport) -> Self {
        Self {
            name: torrent.info().name().to_owned(),
            info_hash: torrent.info_hash().to_string(),
            complete: report.is_complete(),
            piece_count: report.bitfield.len(),
            good_pieces: report.bitfield.count(),
            length: layout.total_len(),
            good_length: good_len(layout, report),
            incomplete_files: incomplete_files(layout, report).collect(),
        }
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let (good, all) = (ByteSize(self.good_length), ByteSize(self.length));
        let (name, pieces) = (Plain(&self.name), self.piece_count);
        writeln!(out, "{name}: {} of {} good, {good} of {all}", self.good_pieces, Counted(pieces, "piece"))?;
        for file in &self.incomplete_files {
            let (path, bad, pieces) =
                (Plain(&file.path), file.bad_pieces, Counted(file.piece_count, "piece"));
            match &file.neighbour_of {
                Some(other) => {
                    writeln!(out, "  {path}: lacks only bytes at its border with {}", Plain(other))?;
                }
                None => writeln!(out, "  {path}: {bad} of {pieces} bad")?,
            }
            if let Some(problem) = &file.problem {
                writeln!(out, "    {}", Plain(problem))?;
            }
        }
        Ok(())
    }
}

fn incomplete_files<'a>(
    layout: &'a Layout,
    report: &'a CheckReport,
) -> impl Iterator<Item = IncompleteFile> + 'a {
    let problem_of = |file: FileIndex| {
        let found = report.problems.binary_search_by_key(&file, |problem| problem.file).ok()?;
        report.problems.get(found).map(|problem| super::with_causes(&problem.error))
    };
    let neighbours = report.neighbours(layout);
    layout.stored_files().filter_map(move |(index, file)| {
        let bad_pieces = report.bad_pieces_of(layout, index);
        let neighbour_of = |index| {
            let other = layout.file(*neighbours.get(&index)?)?;
            Some(other.path.display().to_string())
        };
        let problem = problem_of(index);
        (bad_pieces > 0 || problem.is_some()).then(|| IncompleteFile {
            path: file.path.display().to_string(),
            length: file.len,
            piece_count: layout.pieces_of(index).len() as u32,
            bad_pieces,
            neighbour_of: neighbour_of(index),
            problem,
        })
    })
}

fn good_len(layout: &Layout, report: &CheckReport) -> u64 {
    let pieces = (0..layout.piece_count()).map(PieceIndex);
    let good = pieces.filter(|&piece| report.bitfield.contains(piece));
    good.map(|piece| u64::from(layout.piece_len(piece))).sum()
}
