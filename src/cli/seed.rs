//! `seedring seed`.

use super::CommandError;

/// Not yet written.
#[derive(Debug, clap::Args)]
pub struct SeedArgs {}

/// Runs the command.
pub fn run(_args: SeedArgs) -> Result<(), CommandError> {
    Err("not yet written".into())
}
