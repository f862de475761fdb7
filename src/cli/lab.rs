//! `seedring lab`: the swarm laboratory on the command line.

use super::CommandError;

mod check;
mod distribute;
mod swarm;

/// Ask how a swarm does, by formula and by simulation.
///
/// The simulated peers are this program's own machines: what they do is what the program does. Every simulated run
/// is a function of its seed.
#[derive(Debug, clap::Args)]
pub struct LabArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, clap::Subcommand)]
enum Question {
    Check(check::CheckArgs),
    Distribute(distribute::DistributeArgs),
    Swarm(swarm::SwarmArgs),
}

pub fn run(args: LabArgs) -> Result<(), CommandError> {
    match args.question {
        Question::Check(args) => check::run(args),
        Question::Distribute(args) => distribute::run(args),
        Question::Swarm(args) => swarm::run(args),
    }
}
