//! `seedring create`.

use super::CommandError;

/// Not yet written.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {}

/// Runs the command.
pub fn run(_args: CreateArgs) -> Result<(), CommandError> {
    Err("not yet written".into())
}
