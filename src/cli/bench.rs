//! `seedring bench`.

use super::CommandError;

/// Not yet written.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {}

/// Runs the command.
pub fn run(_args: BenchArgs) -> Result<(), CommandError> {
    Err("not yet written".into())
}
