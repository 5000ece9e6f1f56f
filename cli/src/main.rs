//! livesave: live snapshots of running Xen guests, the dom0 side.
//!
//! `args` is the command line, `cmd` holds a file for each command, `keeper` the process that owns a guest during a
//! take, `host` what dom0 offers. Decisions about a guest are made in `snapshot::keeper`, never here.
#![forbid(unsafe_code)]

mod args;
mod catalog;
mod cmd;
mod config;
mod domain;
mod exit;
mod host;
mod image;
mod keeper;
mod marks;
mod policy;
mod queue;
mod receive;
mod seen;
mod show;
mod stub;
mod waits;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match cmd::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            show::failure(&failure, cli.place.json);
            ExitCode::from(failure.exit.code())
        }
    }
}
