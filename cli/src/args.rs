//! The command line, as types. It decides nothing: names and numbers are checked where they are used, so that their
//! errors carry an exit status and a way out of their own.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Live snapshots of running Xen guests.
#[derive(Debug, Parser)]
#[command(
    name = "livesave",
    version,
    about,
    disable_help_subcommand = true,
    after_help = "Exit statuses: docs/operating/exit-codes.md"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to find stub and store.
    #[command(flatten)]
    pub place: Place,
}

/// Where the stub and its store are.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The stub domain, by name or id
    #[arg(long, global = true, default_value = "livesave", env = "LIVESAVE_STUB", value_name = "DOM")]
    pub stub: String,
    /// The store's device or file, when it is not that of a running stub
    #[arg(long, global = true, env = "LIVESAVE_STORE", value_name = "PATH")]
    pub store: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a store on a block device
    #[command(subcommand)]
    Store(Store),
    /// Take a snapshot of a running guest
    Take(Take),
    /// List the snapshots
    Ls {
        /// Only those of this guest
        guest: Option<String>,
    },
    /// Show one snapshot
    Show {
        /// GUEST@NAME
        name: String,
    },
    /// Read and check a snapshot, or all of them
    Verify {
        /// GUEST@NAME; without it, every snapshot
        name: Option<String>,
    },
    /// Write a snapshot as an xl save image
    Export {
        /// GUEST@NAME
        name: String,
        /// The file to make; `-` is standard output
        #[arg(short, long, default_value = "-", value_name = "FILE")]
        output: String,
    },
    /// Bring a snapshot back with `xl restore`
    Restore(Restore),
    /// Remove a snapshot
    Rm {
        /// GUEST@NAME
        name: String,
    },
    /// Check hypervisor, policy, stub, store and guest
    Doctor {
        /// A guest to check as well, by name or id
        guest: Option<String>,
    },
    /// Show the stub and the session under way
    Status,
    /// End the session under way
    Cancel,
    /// Set right what a killed keeper left behind
    Recover,
    /// The process that owns the guest during a take; started by `take`
    #[command(hide = true)]
    Keeper,
}

/// What can be done to a store.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Write an empty store; refuses a device that holds anything
    Init {
        /// Block device or file
        device: PathBuf,
        /// A label for people, at most 63 bytes
        #[arg(long, default_value = "")]
        label: String,
        /// The device's path once more: what is on it is lost
        #[arg(long, value_name = "DEVICE")]
        destroy_contents_of: Option<PathBuf>,
    },
    /// Check the whole store: every segment free or reachable, every pointer, digest and second copy
    Check {
        /// Leave out the pages: structure only
        #[arg(long)]
        structure: bool,
    },
    /// Take the store as it is now for the right one, after it went back or was exchanged
    Accept,
}

/// How a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Suspend, copy everything, resume
    Save,
    /// Copy in rounds while the guest runs, suspend for the rest
    Live,
}

/// How pages are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compress {
    /// LZ4, each page alone, where it pays
    Lz4,
    /// As they are
    None,
}

/// `take`.
#[derive(Debug, Args)]
pub struct Take {
    /// The guest, by name or id
    pub domain: String,
    /// Name of the snapshot: NAME or GUEST@NAME
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How
    #[arg(long, value_enum, default_value = "live")]
    pub mode: Mode,
    /// Longest pause (500ms, 2s; `none`); past it the guest is resumed and the snapshot void [live: 10s, save: none]
    #[arg(long, value_parser = limit, value_name = "TIME")]
    pub max_pause: Option<Limit>,
    /// A command run in dom0 while the guest stands still, beside the copy
    #[arg(long, value_name = "CMD")]
    pub hook: Option<String>,
    /// How long the hook may take
    #[arg(long, value_parser = time, default_value = "10s", value_name = "TIME")]
    pub hook_timeout: Duration,
    /// How the store keeps the pages: lz4 costs less time than the bytes that it saves, but on the fastest disks
    #[arg(long, value_enum, default_value = "lz4")]
    pub compress: Compress,
    /// Round 1 leaves out what is dirty again already (as Xen 4.5.1 did)
    #[arg(long)]
    pub round1_skip: bool,
}

/// `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// GUEST@NAME
    pub name: String,
    /// Make another guest: new name, uuid and MACs
    #[arg(long, value_name = "NAME")]
    pub clone: Option<String>,
    /// Use PATH for the disk VDEV
    #[arg(long = "disk", value_name = "VDEV=PATH")]
    pub disks: Vec<String>,
    /// Use the writable disks as they are now, although they may have moved on since the snapshot
    #[arg(long)]
    pub disks_as_they_are: bool,
    /// Leave the guest paused
    #[arg(long)]
    pub paused: bool,
    /// With --clone: keep the MAC addresses
    #[arg(long, requires = "clone")]
    pub keep_macs: bool,
}

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { time(text).map(|time| Limit(Some(time))) }
}

/// `500ms`, `2s`, `1m`: whole numbers with a unit, above zero and at most an hour.
fn time(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().map_err(|_| "a number and ms, s or m".to_owned())?;
    let time = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err("a unit is missing: ms, s or m".to_owned()),
    };
    if time.is_zero() || time > Duration::from_secs(3600) {
        return Err("more than nothing and at most an hour".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(time("3m"), Ok(Duration::from_secs(180)));
        for bad in ["", "5", "ms", "0s", "61m", "1h", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(time(bad).is_err(), "{bad}");
        }
        assert_eq!(limit("none"), Ok(Limit(None)));
    }

    #[test]
    fn a_take_has_live_defaults() {
        let Command::Take(take) = parse("livesave take web01").unwrap().command else { panic!() };
        assert_eq!((take.domain.as_str(), take.mode, take.max_pause), ("web01", Mode::Live, None));
        assert_eq!(take.hook_timeout, Duration::from_secs(10));
    }

    #[test]
    fn json_and_stub_may_stand_after_the_command() {
        let cli = parse("livesave ls --json --stub 7").unwrap();
        assert!(cli.place.json);
        assert_eq!(cli.place.stub, "7");
    }

    #[test]
    fn keep_macs_needs_clone() {
        assert!(parse("livesave restore a@b --keep-macs").is_err());
        assert!(parse("livesave restore a@b --clone c --keep-macs").is_ok());
    }
}
