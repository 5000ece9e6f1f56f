//! Which command runs.

use super::{
    accept, cancel, check, disarm, doctor, export, init, list, policy, prune, receive, recover, restore, rm, size,
    status, take, verify,
};
use crate::args::{Cli, Command, Store};
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
        Command::Disarm { guest } => disarm::run(guest, &cli.place),
        Command::Policy(args) => policy::run(args, &cli.place),
        Command::Recover => recover::run(&cli.place),
        Command::Keeper => keeper::process::main(),
        Command::Store(Store::Init { device, label, destroy_contents_of }) => {
            init::run(device, label, destroy_contents_of.as_deref(), cli.place.json)
        }
        Command::Store(Store::Check { structure }) => check::run(!structure, &cli.place),
        Command::Store(Store::Accept) => accept::run(&cli.place),
        Command::Ls { guest } => list::ls(guest.as_deref(), &cli.place),
        Command::Show { name } => list::show(name, &cli.place),
        Command::Store(Store::Size { guest, memory, keep, mode }) => {
            size::run(guest.as_deref(), *memory, *keep, *mode, &cli.place)
        }
        Command::Prune(prune) => prune::run(prune, &cli.place),
        Command::Verify { name, .. } => verify::run(name.as_deref(), &cli.place),
        Command::Export { name, output } => export::run(name, output, &cli.place),
        Command::Receive(args) => receive::run(&args.file, &args.ignored, cli.place.json),
        Command::Restore(restore) => restore::run(restore, &cli.place),
    }
}
