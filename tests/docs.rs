//! Keeps the documentation true: every relative link leads somewhere, and every command line and option that
//! README.md shows is one that the binary has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn every_relative_link_leads_somewhere() {
    let mut complaints = Vec::new();
    for file in markdown_files() {
        let text = fs::read_to_string(&file).expect("documentation is readable text");
        let folder = file.parent().expect("a file lies in a folder");
        for target in links(&without_code(&text)) {
            let path = target.split('#').next().unwrap_or_default();
            if !path.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                let found = folder.join(path);
                if !found.exists() {
                    complaints.push(format!("{}: {target} leads nowhere", file.display()));
                }
            } else if path.is_empty() && !anchors(&text).contains(&target[1..]) {
                complaints.push(format!("{}: no heading for {target}", file.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn the_readme_quotes_the_newest_record_of_speed() {
    let is_record = |path: &&PathBuf| path.to_string_lossy().ends_with("-versus.md");
    let records = markdown_files();
    // Their names begin with the date.
    let newest = records.iter().rfind(is_record).expect("there is a record of tools/versus");
    let record = fs::read_to_string(newest).expect("a record is readable");
    let readme = fs::read_to_string(root().join("README.md")).expect("the README is readable");
    // Links of the record start where it lies.
    let quoted = speed(&readme).replace("](benches/record/", "](");
    assert!(quoted == speed(&record), "`tools/versus --readme` puts {} into README.md", newest.display());
    assert!(quoted.lines().any(|line| line.starts_with('|')), "the record has no table");
}

/// What stands between the two marks.
fn speed(text: &str) -> &str {
    let (_, rest) = text.split_once("<!-- speed:begin -->").expect("the speed section begins");
    rest.split_once("<!-- speed:end -->").expect("the speed section ends").0
}

#[test]
fn every_command_line_in_the_readme_is_understood() {
    let Ok(readme) = fs::read_to_string(root().join("README.md")) else { return };
    let mut complaints = Vec::new();
    for line in command_lines(&readme) {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        // Capitals stand for what the reader puts there.
        if command.starts_with(|c: char| c == '-' || c.is_ascii_uppercase()) || command.is_empty() {
            continue;
        }
        // A command of commands: the next word says which.
        let inner = words.clone().next().filter(|_| command == "lab").unwrap_or_default();
        let Some(help) = help(&format!("{command} {inner}")) else {
            complaints.push(format!("seedring has no command {command:?}: {line}"));
            continue;
        };
        for option in words.filter(|word| word.starts_with("--")).map(long_name) {
            if !has_option(&help, option) {
                complaints.push(format!("seedring {command} has no {option}: {line}"));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_option_the_readme_names_exists() {
    let Ok(readme) = fs::read_to_string(root().join("README.md")) else { return };
    let all = help_of_all_commands();
    // Options in prose stand in backticks; those of cargo and other programs are in command lines of theirs.
    let named = readme.split('`').skip(1).step_by(2).filter(|code| code.starts_with("--"));
    let missing: Vec<&str> = named.map(long_name).filter(|option| !has_option(&all, option)).collect();
    assert!(missing.is_empty(), "README.md names options that no command has: {missing:?}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn markdown_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of ours can be listed") {
            let path = entry.expect("a folder of ours can be listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if name.ends_with(".md") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The targets of inline links and images.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    targets.filter(|target| !target.is_empty()).map(str::to_owned).collect()
}

fn without_code(text: &str) -> String {
    let prose = text.split("```").step_by(2).collect::<String>();
    prose.split('`').step_by(2).collect()
}

/// Anchors of the headings, as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// What follows `seedring ` in the lines of code blocks and in inline code, continuation lines joined.
fn command_lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let blocks = joined.split("```").skip(1).step_by(2).flat_map(str::lines);
    let prose: String = joined.split("```").step_by(2).collect();
    let inline = prose.split('`').skip(1).step_by(2);
    let lines = blocks.chain(inline).map(|line| line.trim().trim_start_matches("$ "));
    lines
        .filter_map(|line| {
            let (program, rest) = line.split_once(' ')?;
            let is_ours = program == "seedring" || program.ends_with("/seedring");
            is_ours.then(|| rest.split(" #").next().unwrap_or_default().to_owned())
        })
        .collect()
}

/// `--name=value],` as `--name`.
fn long_name(word: &str) -> &str {
    let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(word.len());
    &word[..end]
}

fn has_option(help: &str, option: &str) -> bool {
    help.match_indices(option).any(|(at, _)| long_name(&help[at..]) == option)
}

fn help(command: &str) -> Option<String> {
    let words = command.split_whitespace().chain(["--help"]);
    let output = Command::new(env!("CARGO_BIN_EXE_seedring")).args(words).output();
    let output = output.expect("the binary under test can be started");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn help_of_all_commands() -> String {
    let commands = [
        "seed",
        "get",
        "create",
        "show",
        "check",
        "tracker",
        "bench",
        "lab distribute",
        "lab swarm",
        "generate",
    ];
    commands.iter().filter_map(|command| help(command)).collect::<String>() + "\n--help --version\n"
}

#[test]
fn command_lines_and_links_are_found() {
    let text = "See [this](a.md#b) and ![that](<x y>).\n```sh\n$ seedring seed X \\\n  --port 1 # why --not\n```\n\
                `seedring show F --json` but not `cargo run --release`.";
    assert_eq!(links(&without_code(text)), ["a.md#b", "<x"]);
    assert_eq!(command_lines(text), ["seed X    --port 1", "show F --json"]);
    assert_eq!(long_name("--port=1"), "--port");
    assert!(!has_option("  --tracker-port <N>", "--tracker"));
}
