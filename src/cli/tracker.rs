//! `seedring tracker`.

use super::CommandError;

/// Not yet written.
#[derive(Debug, clap::Args)]
pub struct TrackerArgs {}

/// Runs the command.
pub fn run(_args: TrackerArgs) -> Result<(), CommandError> {
    Err("not yet written".into())
}
