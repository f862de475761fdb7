//! `seedring show`.

use super::CommandError;

/// Not yet written.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {}

/// Runs the command.
pub fn run(_args: ShowArgs) -> Result<(), CommandError> {
    Err("not yet written".into())
}
