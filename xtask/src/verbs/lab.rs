//! `cargo xtask lab`: nested Xen that lives between commands.
//!
//! `lab up` boots it, `lab run -- CMD`, `lab put`, `lab get` and `lab install` use it as often as wanted, `lab down`
//! ends it. Without a subcommand it boots a machine, takes commands from standard input, and ends with it. All state is
//! in `target/qemu/lab`, so checkouts do not meet.

use std::io::{BufRead, IsTerminal, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use qemu_tests::lab::{Lab, Spec};
use qemu_tests::wire::{EXIT_TIMEOUT, Kind};

use crate::images;
use crate::paths;
use crate::sh;

/// Arguments of `cargo xtask lab`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Boot, run this command in dom0, and end.
    #[arg(long, value_name = "CMD")]
    run: Option<String>,
}

#[derive(Subcommand)]
enum Action {
    /// Boot a machine that stays.
    Up(Up),
    /// Run a command in dom0; its exit status becomes ours.
    Run {
        /// Seconds that it may take.
        #[arg(long, default_value_t = 600)]
        timeout: u64,
        /// The command; one word is given to the shell as it is.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Copy a file into dom0.
    Put {
        /// Here.
        from: PathBuf,
        /// In dom0.
        to: String,
    },
    /// Copy a file out of dom0.
    Get {
        /// In dom0.
        from: String,
        /// Here.
        to: PathBuf,
    },
    /// Build stub, CLI and test kernel, and copy them into dom0.
    Install,
    /// Show what Xen and dom0's kernel said on the serial line.
    Log,
    /// End the machine.
    Down,
}

#[derive(clap::Args)]
struct Up {
    /// Memory of the nested host, MiB.
    #[arg(long, default_value_t = 4096)]
    memory: u32,
    /// Its processors; a second one makes emulation slower, not faster.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// More words for Xen's command line.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    xen: String,
    /// More words for dom0's command line (`ls.xenstored=oxenstored`).
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    dom0: String,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match &args.action {
        None => once(args.run.as_deref()),
        Some(Action::Up(up)) => boot(up),
        Some(Action::Run { timeout, command }) => {
            let status = stream(&running()?, &command.join(" "), Duration::from_secs(*timeout))?;
            std::process::exit(status);
        }
        Some(Action::Put { from, to }) => running()?.put(from, to),
        Some(Action::Get { from, to }) => running()?.get(from, to),
        Some(Action::Install) => {
            super::dist::programs()?;
            install(&running()?)
        }
        Some(Action::Log) => {
            print!("{}", running()?.serial());
            Ok(())
        }
        Some(Action::Down) => running()?.poweroff(),
    }
}

/// Builds what a machine boots from and describes the ordinary machine.
pub fn spec(dir: PathBuf) -> Result<Spec> {
    Ok(Spec::new(images::build()?, dir))
}

/// Copies what `cargo xtask dist` (or `test`) left into dom0, to where an installed host has it.
pub fn install(lab: &Lab) -> Result<()> {
    let files = [
        ("dist/livesave-stubdom", "/usr/lib/livesave/livesave-stubdom"),
        ("dist/livesave", "/usr/sbin/livesave"),
        ("dist/livesave.cfg", "/etc/xen/livesave.cfg"),
        ("images/prober", "/boot/prober"),
        ("images/narrow", "/boot/narrow"),
    ];
    let mut copied = 0;
    for (name, to) in files {
        let from = paths::target().join(name);
        if from.exists() {
            lab.put(&from, to)?;
            copied += 1;
        }
    }
    ensure!(copied > 0, "target/dist is empty; `cargo xtask dist` fills it");
    Ok(())
}

fn lab_dir() -> PathBuf {
    paths::target().join("qemu").join("lab")
}

/// The machine of `lab up`.
pub fn running() -> Result<Lab> {
    Lab::attach(&lab_dir())
}

fn boot(up: &Up) -> Result<()> {
    let mut spec = spec(lab_dir())?;
    spec.memory_mib = up.memory;
    spec.cpus = up.cpus;
    spec.xen_extra.clone_from(&up.xen);
    spec.dom0_extra.clone_from(&up.dom0);
    let lab = start(&spec)?;
    lab.keep();
    println!("up; `cargo xtask lab run -- xl list`, `cargo xtask lab down`");
    Ok(())
}

/// Boots a machine and says where its log is.
pub fn start(spec: &Spec) -> Result<Lab> {
    sh::heading("nested Xen");
    println!("$ qemu-system-x86_64 ...; the whole command: {}", spec.dir.join("command").display());
    let started = std::time::Instant::now();
    let lab = Lab::boot(spec)?;
    println!("dom0 is up after {:.1} s; log: {}", started.elapsed().as_secs_f64(), log_of(lab.dir()));
    Ok(lab)
}

fn log_of(dir: &Path) -> String {
    dir.join("serial.log").display().to_string()
}

/// A machine for one command, or for as many as standard input has.
fn once(command: Option<&str>) -> Result<()> {
    let lab = start(&spec(paths::target().join("qemu").join("once"))?)?;
    let status = match command {
        Some(command) => stream(&lab, command, Duration::from_secs(3600))?,
        None => shell(&lab)?,
    };
    lab.poweroff()?;
    ensure!(status == 0, "the command ended with {status}");
    Ok(())
}

/// Each line is a command of its own: directories and variables do not carry over.
fn shell(lab: &Lab) -> Result<i32> {
    println!("each line runs in a shell of its own in dom0; end of input ends the machine");
    let terminal = stdin().is_terminal();
    let mut status = 0;
    loop {
        if terminal {
            print!("dom0# ");
            stdout().flush().context("stdout")?;
        }
        let mut line = String::new();
        if stdin().lock().read_line(&mut line).context("stdin")? == 0 {
            return Ok(status);
        }
        if !line.trim().is_empty() {
            status = stream(lab, line.trim(), Duration::from_secs(3600))?;
        }
    }
}

/// Runs a command with its output on ours.
fn stream(lab: &Lab, command: &str, timeout: Duration) -> Result<i32> {
    let status = lab.port()?.run(command, timeout, |kind, bytes| {
        // A closed pipe of ours is no reason to lose the command's exit status.
        let _ = if kind == Kind::STDERR {
            std::io::stderr().write_all(bytes)
        } else {
            stdout().write_all(bytes).and_then(|()| stdout().flush())
        };
    })?;
    if status == EXIT_TIMEOUT {
        eprintln!("killed after {timeout:?}");
        return Ok(124);
    }
    Ok(if status < 0 { 128 - status } else { status })
}
