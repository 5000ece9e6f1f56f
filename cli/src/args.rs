//! The command line, as types. It decides nothing: names and numbers are checked where they are used, so that their
//! errors carry an exit status and a way out of their own.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

mod values;

pub use values::Limit;
use values::{high, kib, limit, time};

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
        /// Every snapshot
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Write a snapshot as an xl save image
    Export {
        /// GUEST@NAME
        name: String,
        /// The file to make; `-` is standard output
        #[arg(short, long, default_value = "-", value_name = "FILE")]
        output: String,
    },
    /// Keep what `xl migrate` sends as an xl save image; the guest stays where it is
    Receive(crate::receive::Args),
    /// Bring a snapshot back with `xl restore`
    Restore(Restore),
    /// Remove a snapshot
    Rm {
        /// GUEST@NAME
        name: String,
    },
    /// Remove the snapshots of a guest that no rule keeps
    Prune(Prune),
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
    /// End the tracking of a guest between its incremental snapshots
    Disarm {
        /// The guest, by name or id
        guest: String,
    },
    /// Say how a guest is taken when `take` is not told: shows the policy, gives one, or takes it away
    Policy(Policy),
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
    /// Say how large a device to make for the snapshots of a guest
    Size {
        /// The guest, by name or id
        #[arg(long, value_name = "DOM", required_unless_present = "memory")]
        guest: Option<String>,
        /// Its memory in MiB, if it does not run
        #[arg(long, value_name = "MIB")]
        memory: Option<u64>,
        /// Snapshots to keep
        #[arg(long, value_name = "N")]
        keep: u64,
        /// How they will be taken
        #[arg(long, value_enum, default_value = "live")]
        mode: Mode,
    },
}

/// `prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// The guest's name
    pub guest: String,
    /// Keep the newest N
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_last: u32,
    /// Keep the newest of each of the last N hours that have one (UTC)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_hourly: u32,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_daily: u32,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_weekly: u32,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove them all, if no rule keeps any
    #[arg(long)]
    pub force: bool,
}

/// `policy`.
#[derive(Debug, Args)]
pub struct Policy {
    /// The guest, by name or id; by its uuid if it does not run
    pub guest: String,
    /// Its takes are incremental
    #[arg(long, conflicts_with = "none")]
    pub incremental: bool,
    /// As `take --pv-tracking`
    #[arg(long, requires = "incremental")]
    pub pv_tracking: bool,
    /// As `take --guard`
    #[arg(long, requires = "incremental")]
    pub guard: bool,
    /// It has no policy: its takes are full ones
    #[arg(long)]
    pub none: bool,
}

/// How a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Suspend, copy everything, resume
    Save,
    /// Copy in rounds while the guest runs, suspend for the rest (Live Save)
    Live,
    /// As live, with fewer rounds when they do not help (Improved Live Save)
    Improved,
    /// As Xen migrates: five rounds, nothing left out
    Xen,
    /// Copy until the rest fits the stub's memory: the guest does not wait for the disk
    Staged,
}

/// What to do with a guest that writes more than fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnBusy {
    /// Suspend it all the same; the rest goes to disk in the pause
    Accept,
    /// Lower its CPU cap until it fits, and put it back
    Throttle,
    /// Give up
    Abort,
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
#[derive(Debug, Clone, Args)]
pub struct Take {
    /// The guest, by name or id
    pub domain: String,
    /// Name of the snapshot: NAME or GUEST@NAME
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How
    #[arg(long, value_enum, default_value = "staged")]
    pub mode: Mode,
    /// Longest pause (500ms, 2s; `none`); past it the guest is resumed and the snapshot void, and mode staged does not
    /// begin one that it predicts to be longer [staged: 2s, save: none, others: 10s]
    #[arg(long, value_parser = limit, value_name = "TIME")]
    pub max_pause: Option<Limit>,
    /// staged: the pause that is good enough to stop copying [300ms, or the longest pause if that is less]
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub target_pause: Option<Duration>,
    /// staged: memory of the stub for what is copied in the pause (64M, 1G) [all that it can spare]
    #[arg(long, value_parser = kib, value_name = "SIZE")]
    pub staging: Option<u32>,
    /// staged: what to do with a guest that writes more than fits [accept]
    #[arg(long, value_enum)]
    pub on_busy: Option<OnBusy>,
    /// improved: a round is futile when more than H times the pages sent became dirty, or, `literal`, when no fewer
    /// became dirty than in the one before [5.1]
    #[arg(long, value_parser = high, value_name = "H")]
    pub h: Option<u32>,
    /// How long to wait for the stub while it takes other guests
    #[arg(long, value_parser = time, default_value = "60m", value_name = "TIME")]
    pub wait: Duration,
    /// Do not wait for the stub: fail if it is in a session
    #[arg(long, conflicts_with = "wait")]
    pub no_wait: bool,
    /// A command run in dom0 while the guest stands still, beside the copy (LIVESAVE_PHASE=captured), and again when it
    /// is known what became of the snapshot (sealed, failed)
    #[arg(long, value_name = "CMD")]
    pub hook: Option<String>,
    /// How long the hook may take
    #[arg(long, value_parser = time, default_value = "10s", value_name = "TIME")]
    pub hook_timeout: Duration,
    /// How the store keeps the pages: lz4 costs less time than the bytes that it saves, but on the fastest disks
    #[arg(long, value_enum, default_value = "lz4")]
    pub compress: Compress,
    /// Write only what differs from the guest's newest snapshot; every page is read all the same
    #[arg(long)]
    pub diff: bool,
    /// Write only what changed since the guest's last incremental snapshot, and leave its writes tracked for the next
    /// one; a full one where that cannot be, with the reason. Of a PV guest with --pv-tracking only
    #[arg(long, conflicts_with = "diff")]
    pub incremental: bool,
    /// With --incremental, of a PV guest: its page tables are all read in every pause
    #[arg(long, requires = "incremental")]
    pub pv_tracking: bool,
    /// Write all of it, whatever the guest's policy says
    #[arg(long, conflicts_with_all = ["diff", "incremental"])]
    pub full: bool,
    /// The snapshot that it must build on: without it, fail instead of taking a full one
    #[arg(long, value_name = "NAME", requires = "incremental")]
    pub parent: Option<String>,
    /// Keep `xl save` and `xl migrate` off all guests of this label while this one stays tracked; without it they work,
    /// and the next snapshot is a full one
    #[arg(long, requires = "incremental")]
    pub guard: bool,
    /// live, improved: round 1 leaves out what is dirty again already (as Xen 4.5.1 did)
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

#[cfg(test)]
pub mod tests {
    use super::*;
    use clap::CommandFactory;

    /// The arguments of this `take`.
    pub fn take(line: &str) -> Take {
        match parse(line).unwrap().command {
            Command::Take(take) => take,
            other => panic!("{other:?}"),
        }
    }

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
    fn sizes_and_factors_are_checked() {
        assert_eq!((kib("64M"), kib("1G"), kib("4K")), (Ok(65_536), Ok(1 << 20), Ok(4)));
        for bad in ["", "64", "M", "0M", "3K", "4096G", "-1M", "1.5G"] {
            assert!(kib(bad).is_err(), "{bad}");
        }
        assert_eq!((high("5.1"), high("1"), high("literal")), (Ok(5100), Ok(1000), Ok(0)));
        for bad in ["", "0", "-1", "NaN", "inf", "1001", "Literal"] {
            assert!(high(bad).is_err(), "{bad}");
        }
        for bad in ["--mode fast", "--target-pause 0ms", "--on-busy hope", "--staging all"] {
            assert!(parse(&format!("livesave take web01 {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_take_has_defaults() {
        let take = take("livesave take web01");
        assert_eq!((take.domain.as_str(), take.mode, take.max_pause), ("web01", Mode::Staged, None));
        assert_eq!((take.on_busy, take.h, take.target_pause, take.staging), (None, None, None, None));
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
