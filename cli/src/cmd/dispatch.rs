//! Which command runs.

use super::{cancel, doctor, recover, rm, status, take};
use crate::args::{Cli, Command};
use crate::exit::Outcome;
use crate::keeper;

/// Runs the command of this command line.
pub fn run(cli: &Cli) -> Outcome {
    match &cli.command {
        Command::Take(take) => take::run(take, &cli.place),
        Command::Rm { name } => rm::run(name, &cli.place),
        Command::Doctor { guest } => doctor::run(guest.as_deref(), &cli.place),
        Command::Status => status::run(&cli.place),
        Command::Cancel => cancel::run(&cli.place),
        Command::Recover => recover::run(&cli.place),
        Command::Keeper => keeper::process::main(),
        Command::Store(_)
        | Command::Ls { .. }
        | Command::Show { .. }
        | Command::Verify { .. }
        | Command::Export { .. }
        | Command::Restore(_) => Err(crate::exit::Exit::Internal.fail("not there yet")),
    }
}
