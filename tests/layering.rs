//! Keeps the floors: `src/lib.rs` lists the modules in dependency order, and a module names only modules
//! above its own line, tests included. Refuses every `crate::name` and every `super::super…::name` that
//! points to a later module, with file and line.
//!
//! Deliberately simple: it reads text, not syntax. Comments count only as far as they are code links, which
//! may point anywhere, so everything behind `//` is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn a_module_names_only_modules_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let order = modules(&fs::read_to_string(source.join("lib.rs")).expect("the library has a root"));
    assert!(order.len() > 20, "src/lib.rs lists the modules as `pub mod name;`, found {order:?}");
    let mut complaints = Vec::new();
    for module in order.keys() {
        for file in files_of(&source, module) {
            let text = fs::read_to_string(&file).expect("a source file is readable text");
            let shown = file.strip_prefix(&source).expect("the walk began at src").display().to_string();
            let depth = depth(&file, &source);
            complaints.extend(upward_names(&order, module, depth, &text).into_iter().map(|(line, name)| {
                format!("src/{shown}:{line}: {module} names {name}, which stands below it in src/lib.rs")
            }));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn an_upward_name_is_found_wherever_it_stands() {
    let order = modules("pub mod units;\npub mod wire;\npub mod engine;\npub mod session;\n");
    let text = "use crate::units;\n\
                use crate::{units::Piece, engine::{self, Worker}, wire};\n\
                fn f() -> crate::session::S { super::super::session::new() } // crate::engine\n\
                use super::session::S;\n\
                use super::{super::session, text};\n";
    let found = upward_names(&order, "wire", 2, text);
    let expected = [(2, "engine"), (3, "session"), (3, "session"), (5, "session")];
    assert_eq!(found, expected.map(|(line, name)| (line, name.to_owned())));
    let at_the_top = upward_names(&order, "wire", 1, "use super::session::S;");
    assert_eq!(at_the_top, [(1, "session".to_owned())]);
}

/// Each module's place in the order.
fn modules(root: &str) -> BTreeMap<String, usize> {
    root.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .enumerate()
        .map(|(place, name)| (name.to_owned(), place))
        .collect()
}

/// All names of modules that stand below `module`, with their lines, in a file whose module is `depth` steps
/// below the crate's root (1 for `src/wire.rs` and `src/wire/mod.rs`).
fn upward_names(
    order: &BTreeMap<String, usize>,
    module: &str,
    depth: usize,
    text: &str,
) -> Vec<(usize, String)> {
    let code = without_comments(text);
    let roots =
        ["crate::".to_owned(), "super::".repeat(depth), format!("super::{{{}", "super::".repeat(depth - 1))];
    let mut found = Vec::new();
    for (at, root) in places(&code, &roots) {
        for name in first_names(&code[at + root.len()..]) {
            if order.get(&name).is_some_and(|place| *place > order[module]) {
                found.push((code[..at].matches('\n').count() + 1, name));
            }
        }
    }
    found.sort();
    found
}

/// Where one of the roots stands as a path's own beginning.
fn places<'a>(code: &str, roots: &'a [String]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for root in roots {
        for (at, _) in code.match_indices(root.as_str()) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && !matches!(before, '_' | ':' | '$') {
                found.push((at, root.as_str()));
            }
        }
    }
    found
}

/// The first component of a path, or of each path of a `{…}` group.
fn first_names(path: &str) -> Vec<String> {
    let ident = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![ident(path)] };
    let mut names = vec![ident(group)];
    let mut nesting = 0;
    for (at, character) in group.char_indices() {
        match character {
            '{' => nesting += 1,
            '}' if nesting == 0 => break,
            '}' => nesting -= 1,
            ',' if nesting == 0 => names.push(ident(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

fn without_comments(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    lines.join("\n")
}

fn files_of(source: &Path, module: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let file = source.join(format!("{module}.rs"));
    if file.exists() {
        files.push(file);
    }
    collect(&source.join(module), &mut files);
    assert!(!files.is_empty(), "src/lib.rs names {module}, which has no file");
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a source folder can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Steps from the crate's root down to the file's module.
fn depth(file: &Path, source: &Path) -> usize {
    let parts = file.strip_prefix(source).expect("the walk began at src").components().count();
    if file.file_name().is_some_and(|name| name == "mod.rs") { parts - 1 } else { parts }
}
