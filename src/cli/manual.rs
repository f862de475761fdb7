//! The man pages: what clap knows of a command, and beside it what no parser knows: examples line by line, exit codes,
//! files, signals and the environment.

use clap::Command;
use clap_mangen::Man;
use roff::{Roff, roman};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A section behind those that clap knows: the commands whose pages have it, all when there is none, and its entries.
struct Section {
    title: &'static str,
    commands: &'static [&'static str],
    entries: &'static [(&'static str, &'static str)],
}

const SECTIONS: [Section; 7] = [
    Section {
        title: "EXIT STATUS",
        commands: &[],
        entries: &[
            ("0", "What was asked for is done, or the user has ended it."),
            ("1", "It failed; one sentence on standard error says whose fault it is and what to do."),
            ("2", "The arguments make no sense."),
        ],
    },
    Section {
        title: "SIGNALS",
        commands: &["seedring-seed"],
        entries: &[
            (
                "SIGINT, SIGTERM",
                "End it: trackers are told, totals are written. A second one does not wait for that.",
            ),
            ("SIGHUP", "Read the folder of torrents again."),
        ],
    },
    Section {
        title: "SIGNALS",
        commands: &["seedring-get"],
        entries: &[(
            "SIGINT, SIGTERM",
            "End it; what is here is noted, and the same command goes on from there. A second one does not wait for that.",
        )],
    },
    Section {
        title: "SIGNALS",
        commands: &["seedring-tracker"],
        entries: &[("SIGINT, SIGTERM", "End it."), ("SIGHUP", "Read the list of info-hashes again.")],
    },
    Section {
        title: "SIGNALS",
        commands: &["seedring-bench", "seedring-lab-distribute", "seedring-lab-swarm", "seedring-lab-check"],
        entries: &[(
            "SIGINT, SIGTERM",
            "End the run and tell what is known by then. A second one tells nothing.",
        )],
    },
    Section {
        title: "FILES",
        commands: &["seedring-seed", "seedring-get"],
        entries: &[(
            "$XDG_STATE_HOME/seedring, or ~/.local/state/seedring",
            "What was checked of each torrent, and how much was given, unless --state-dir names another folder. Without it \
             content is checked again; nothing else is lost.",
        )],
    },
    Section {
        title: "ENVIRONMENT",
        commands: &[],
        entries: &[
            (
                "SEEDRING_LOG",
                "How much is told on standard error: error, warn (without it), info, debug or trace.",
            ),
            ("NO_COLOR", "With any value no colours are used."),
            ("TERM", "dumb has progress written as plain lines."),
        ],
    },
];

/// Writes a page for the command and one for each below it.
pub(super) fn write_pages(command: Command, folder: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_page(&command, folder)
}

fn write_page(command: &Command, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_page(below, folder)?;
    }
    let man = Man::new(command.clone());
    let mut file = File::create(folder.join(man.get_filename()))?;
    man.render_title(&mut file)?;
    man.render_name_section(&mut file)?;
    man.render_synopsis_section(&mut file)?;
    man.render_description_section(&mut file)?;
    man.render_options_section(&mut file)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut file)?;
    }
    let mut roff = Roff::default();
    if let Some(text) = command.get_after_help() {
        write_examples(&mut roff, &text.to_string());
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    for section in &SECTIONS {
        if section.commands.is_empty() || section.commands.contains(&name) {
            roff.control("SH", [section.title]);
            for (term, meaning) in section.entries {
                roff.control("TP", []).text([roff::bold(*term)]).text([roman(*meaning)]);
            }
        }
    }
    roff.to_writer(&mut file)?;
    file.flush()
}

/// The lines of a help text's end: those set in are examples, which stay lines of their own, the others are prose.
fn write_examples(roff: &mut Roff, text: &str) {
    roff.control("SH", ["EXAMPLES"]);
    for line in text.lines() {
        let example = line.strip_prefix("Example: ").or_else(|| line.strip_prefix("  "));
        match example {
            Some(example) => {
                roff.control("nf", []).text([roman(example)]).control("fi", []);
            }
            None if line.trim_end_matches(':') == "Examples" => {}
            None if line.trim().is_empty() => {
                roff.control("PP", []);
            }
            None => {
                roff.text([roman(line)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// A page as its file has it.
    fn page(name: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        write_pages(Cli::command(), folder.path()).unwrap();
        std::fs::read_to_string(folder.path().join(name)).unwrap()
    }

    #[test]
    fn examples_stay_lines_of_their_own() {
        let page = page("seedring-seed.1");
        let (_, examples) = page.split_once(".SH EXAMPLES\n").expect("there are examples");
        assert!(
            examples.starts_with(".nf\nseedring seed holiday\\-videos\n.fi\n.nf\nseedring seed"),
            "{examples}"
        );
        assert!(!page.contains("EXTRA"), "{page}");
    }

    #[test]
    fn every_page_tells_exit_codes_and_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        write_pages(Cli::command(), folder.path()).unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for section in ["EXIT STATUS", "ENVIRONMENT"] {
                assert!(
                    text.contains(&format!(".SH \"{section}\"")) || text.contains(&format!(".SH {section}")),
                    "{path:?}: {text}"
                );
            }
        }
    }

    #[test]
    fn signals_and_files_are_told_of_the_commands_that_have_them() {
        let seed = page("seedring-seed.1");
        assert!(
            seed.contains(".SH SIGNALS") && seed.contains("SIGHUP") && seed.contains(".SH FILES"),
            "{seed}"
        );
        assert!(!page("seedring-show.1").contains(".SH SIGNALS"));
        assert!(page("seedring-lab-swarm.1").contains(".SH SIGNALS"));
        for section in &SECTIONS {
            for command in section.commands {
                assert!(!page(&format!("{command}.1")).is_empty(), "there is no {command}");
            }
        }
    }
}
