//! Keeps every Rust file within the house rules that no lint knows: it opens with `//!`, and it stays small
//! enough to be read at one sitting.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of one file. Above it a border is missing: split by responsibility.
const FILE_LINES_MAX: usize = 700;
/// Bytes of one line. rustfmt wraps code at 110 columns; this catches the strings and comments that it leaves.
const LINE_LEN_MAX: usize = 200;
/// Folders with Rust files of ours; those that do not exist are skipped.
const FOLDERS: [&str; 7] = ["src", "tests", "benches", "fuzz", "loom", "tools", "examples"];

#[test]
fn every_file_opens_with_what_it_decides() {
    refuse(|path, text| {
        let first = text.lines().next().unwrap_or_default();
        (!first.starts_with("//! "))
            .then(|| format!("{}:1: opens with {first:?}, not with `//! `", path.display()))
    });
}

#[test]
fn no_file_grows_beyond_one_sitting() {
    refuse(|path, text| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines of {FILE_LINES_MAX}", path.display()))
    });
}

#[test]
fn no_line_runs_out_of_sight() {
    refuse(|path, text| {
        let (number, line) = text.lines().enumerate().find(|(_, line)| line.len() > LINE_LEN_MAX)?;
        Some(format!("{}:{}: {} bytes of {LINE_LEN_MAX}", path.display(), number + 1, line.len()))
    });
}

#[test]
fn no_file_is_called_after_nothing() {
    const EMPTY_NAMES: [&str; 7] = ["utils", "util", "common", "helpers", "misc", "types", "manager"];
    refuse(|path, _| {
        let named = path.components().filter_map(|part| Path::new(part.as_os_str()).file_stem()?.to_str());
        let empty = named.into_iter().find(|name| EMPTY_NAMES.contains(name));
        empty.map(|name| format!("{}: {name:?} says nothing; name what it holds", path.display()))
    });
}

/// Panics with every complaint that `judge` has about any file.
fn refuse(judge: impl Fn(&Path, &str) -> Option<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in FOLDERS {
        rust_files(&root.join(folder), &mut files);
    }
    assert!(files.len() > 20, "the walk over the sources found almost nothing: {files:?}");
    files.sort();
    let complaints: Vec<String> = files
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).expect("a source file is readable text");
            judge(path.strip_prefix(root).expect("the walk began at the root"), &text)
        })
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a source folder can be listed").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                rust_files(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
