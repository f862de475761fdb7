//! Keeps the fuzz targets complete: a parser without one, a target without corpus and a file that no `[[bin]]` names
//! fail here. `fuzz/Cargo.toml` is the list that counts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files with public parsers, and the target that feeds them.
const PARSERS: &[(&str, &str)] = &[
    ("bencode/parser.rs", "bencode"),
    ("bitfield.rs", "bitfield"),
    ("id.rs", "units"),
    ("metainfo/info.rs", "info_dictionary"),
    ("metainfo/magnet.rs", "magnet"),
    ("metainfo/mod.rs", "metainfo"),
    ("storage/resume/codec.rs", "resume_file"),
    ("swarm_registry/snapshot.rs", "tracker_memory"),
    ("tracker_wire/http/query.rs", "http_query"),
    ("tracker_wire/http/response.rs", "http_response"),
    ("tracker_wire/udp.rs", "udp_request"),
    ("tracker_wire/udp.rs", "udp_response"),
    ("units.rs", "units"),
    ("wire/decoder.rs", "wire_decoder"),
    ("wire/extension.rs", "extension_handshake"),
    ("wire/handshake.rs", "handshake"),
    ("wire/metadata.rs", "metadata_message"),
    ("wire/mse/policy.rs", "units"),
    ("wire/pex.rs", "pex"),
];

/// How the name of a function begins that makes values of foreign bytes.
const PARSER_NAMES: &[&str] =
    &["parse", "decode", "from_wire", "from_hex", "from_str", "from_bytes", "read_piece"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The `[[bin]]` entries of the fuzz package.
fn targets() -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("the fuzz package is there");
    let entries = manifest.split("[[bin]]").skip(1);
    entries.filter_map(|entry| entry.split('"').nth(1)).map(str::to_owned).collect()
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    entries
        .map(|entry| entry.expect("the folder can be read").path())
        .filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
        .collect()
}

fn source_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn has_public_parser(source: &str) -> bool {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().map(str::trim_start).any(|line| {
        let name = line.strip_prefix("pub fn ").or_else(|| line.strip_prefix("pub const fn "));
        // A trait's methods are public without saying so.
        let name = name.or_else(|| line.strip_prefix("fn ").filter(|name| name.starts_with("from_str(")));
        name.is_some_and(|name| PARSER_NAMES.iter().any(|begin| name.starts_with(begin)))
    })
}

#[test]
fn every_public_parser_has_a_fuzz_target() {
    let (source, targets) = (root().join("src"), targets());
    let mut files = Vec::new();
    source_files(&source, &mut files);
    let found: BTreeSet<String> = files
        .iter()
        .filter(|path| has_public_parser(&fs::read_to_string(path).expect("sources are UTF-8")))
        .filter_map(|path| Some(path.strip_prefix(&source).ok()?.to_string_lossy().into_owned()))
        .collect();
    let listed: BTreeSet<String> = PARSERS.iter().map(|&(file, _)| file.to_owned()).collect();
    assert_eq!(found, listed, "files with public parsers, and those that PARSERS lists");
    for (file, target) in PARSERS {
        assert!(targets.contains(*target), "{file} names a fuzz target {target} that does not exist");
    }
}

#[test]
fn every_fuzz_target_has_its_file_and_its_corpus() {
    let (targets, fuzz) = (targets(), root().join("fuzz"));
    assert_eq!(names_in(&fuzz.join("fuzz_targets")), targets);
    assert_eq!(names_in(&fuzz.join("corpus")), targets);
    for target in &targets {
        let inputs = fs::read_dir(fuzz.join("corpus").join(target)).expect("the folder is there");
        let lens: Vec<u64> =
            inputs.map(|input| input.and_then(|input| input.metadata()).expect("readable").len()).collect();
        assert!((2..=20).contains(&lens.len()), "{target} begins with {} inputs", lens.len());
        assert!(lens.iter().all(|&len| len <= 4096), "{target} has a large input");
    }
}
