//! `seedring check`: is the content on disk what the torrent says? Success only when all of it is.

use super::CommandError;
use crate::limits;
use crate::metainfo::{Info, Metainfo};
use crate::storage::{self, CheckReport, FileIndex, Layout};
use crate::units::{ByteSize, PieceIndex};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Check content on disk against a torrent.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The .torrent file.
    #[arg(value_name = "FILE")]
    torrent: PathBuf,
    /// The content, or the folder that holds it.
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: CheckArgs) -> Result<(), CommandError> {
    let torrent = read_torrent(&args.torrent)?;
    let info = torrent.info();
    let (layout, root) = storage::locate(info, &args.data)?;
    let expected = |piece: PieceIndex| info.piece_hash(piece);
    let report = storage::check(&layout, &root, &expected, 0, &|_| {}, &AtomicBool::new(false))?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &as_json(&torrent, &layout, &report)).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write_text(&mut out, info, &layout, &report)?;
    }
    out.flush()?;
    if report.is_complete() {
        return Ok(());
    }
    let bad = report.bitfield.len() - report.bitfield.count();
    let what = match bad {
        0 => "files have the wrong length".to_owned(),
        1 => "1 piece is missing or wrong".to_owned(),
        _ => format!("{bad} pieces are missing or wrong"),
    };
    Err(format!("{} is not what {} describes: {what}", args.data.display(), args.torrent.display()).into())
}

fn read_torrent(path: &Path) -> Result<Metainfo, CommandError> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limits::TORRENT_FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    Metainfo::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// A file that is not whole.
#[derive(serde::Serialize)]
struct IncompleteFile {
    path: String,
    bytes: u64,
    pieces: u32,
    bad_pieces: u32,
    problem: Option<String>,
}

fn incomplete_files<'a>(
    layout: &'a Layout,
    report: &'a CheckReport,
) -> impl Iterator<Item = IncompleteFile> + 'a {
    let problem_of = |file: FileIndex| {
        let found = report.problems.binary_search_by_key(&file, |problem| problem.file).ok()?;
        report.problems.get(found).map(|problem| super::with_causes(&problem.error))
    };
    layout.stored_files().filter_map(move |(index, file)| {
        let bad_pieces = report.bad_pieces_of(layout, index);
        let problem = problem_of(index);
        (bad_pieces > 0 || problem.is_some()).then(|| IncompleteFile {
            path: file.path.display().to_string(),
            bytes: file.len,
            pieces: layout.pieces_of(index).len() as u32,
            bad_pieces,
            problem,
        })
    })
}

fn good_bytes(layout: &Layout, report: &CheckReport) -> u64 {
    let pieces = (0..layout.piece_count()).map(PieceIndex);
    let good = pieces.filter(|&piece| report.bitfield.contains(piece));
    good.map(|piece| u64::from(layout.piece_len(piece))).sum()
}

fn write_text(out: &mut impl Write, info: &Info, layout: &Layout, report: &CheckReport) -> io::Result<()> {
    let (good, all) = (report.bitfield.count(), report.bitfield.len());
    let bytes = ByteSize(good_bytes(layout, report));
    let total = ByteSize(layout.total_len());
    writeln!(out, "{}: {good} of {all} pieces are good, {bytes} of {total}", info.name())?;
    for file in incomplete_files(layout, report) {
        writeln!(out, "  {}: {} of {} pieces bad", file.path, file.bad_pieces, file.pieces)?;
        if let Some(problem) = file.problem {
            writeln!(out, "    {problem}")?;
        }
    }
    Ok(())
}

fn as_json(torrent: &Metainfo, layout: &Layout, report: &CheckReport) -> serde_json::Value {
    serde_json::json!({
        "name": torrent.info().name(),
        "info_hash": torrent.info_hash().to_string(),
        "complete": report.is_complete(),
        "pieces": report.bitfield.len(),
        "good_pieces": report.bitfield.count(),
        "bytes": layout.total_len(),
        "good_bytes": good_bytes(layout, report),
        "incomplete_files": incomplete_files(layout, report).collect::<Vec<_>>(),
    })
}
