//! `seedring check`.

use super::CommandError;

/// Not yet written.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {}

/// Runs the command.
pub fn run(_args: CheckArgs) -> Result<(), CommandError> {
    Err("not yet written".into())
}
