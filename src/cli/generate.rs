//! `seedring generate`: man pages and shell completions, from the same description that parses the arguments,
//! so that neither can lag behind. Packagers run it; nothing generated is kept in the repository.

use super::{Cli, CommandError, manual};
use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;
use std::fs;
use std::path::{Path, PathBuf};

/// Write man pages or shell completions into a folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seedring generate man /usr/share/man/man1\n  \
    seedring generate completions completions")]
pub struct GenerateArgs {
    /// What to write
    #[arg(value_enum)]
    what: Kind,
    /// The folder, created when it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A page for seedring and one for each command
    Man,
    /// Files for bash, elvish, fish, PowerShell and zsh
    Completions,
}

/// Runs the command.
pub fn run(args: GenerateArgs) -> Result<(), CommandError> {
    let written = fs::create_dir_all(&args.folder).and_then(|()| match args.what {
        Kind::Man => manual::write_pages(Cli::command(), &args.folder),
        Kind::Completions => completions(&args.folder),
    });
    written.map_err(|error| format!("cannot write to {}: {error}", args.folder.display()).into())
}

fn completions(folder: &Path) -> std::io::Result<()> {
    let mut command = Cli::command();
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut command, "seedring", folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(what: Kind) -> (tempfile::TempDir, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        run(GenerateArgs { what, folder: folder.path().join("new") }).unwrap();
        let entries = fs::read_dir(folder.path().join("new")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        (folder, names)
    }

    #[test]
    fn every_command_has_a_man_page() {
        let (folder, names) = generated(Kind::Man);
        assert!(names.contains(&"seedring.1".to_owned()), "{names:?}");
        for command in Cli::command().get_subcommands() {
            assert!(names.contains(&format!("seedring-{}.1", command.get_name())), "{names:?}");
        }
        let page = fs::read_to_string(folder.path().join("new/seedring-seed.1")).unwrap();
        assert!(page.contains("tracker\\-port"), "{page}");
    }

    #[test]
    fn every_shell_has_its_completions() {
        let (folder, names) = generated(Kind::Completions);
        assert_eq!(names, ["_seedring", "_seedring.ps1", "seedring.bash", "seedring.elv", "seedring.fish"]);
        let bash = fs::read_to_string(folder.path().join("new/seedring.bash")).unwrap();
        assert!(bash.contains("--tracker-port"), "{bash}");
        // Words that an option takes are offered, too.
        for words in ["auto always never", "off allow prefer require"] {
            assert!(bash.contains(words), "{words}: {bash}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = run(GenerateArgs { what: Kind::Man, folder: file.path().join("below") }).unwrap_err();
        assert!(error.to_string().starts_with("cannot write to "), "{error}");
    }
}
