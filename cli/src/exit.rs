//! Exit statuses, one for each cause, and the error that carries one.
//!
//! `docs/operating/exit-codes.md` holds the same table; a test compares them. A number is never used again for
//! something else: scripts of operators depend on it.

use std::fmt;

macro_rules! exits {
    ($($name:ident = $code:literal, $word:literal, $meaning:literal;)*) => {
        /// Why the program ends.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Exit {
            $(#[doc = $meaning] $name = $code,)*
        }

        impl Exit {
            /// Every exit status, in the order of the document.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The status given to the shell.
            pub const fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }

            /// The word in JSON output.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What the document says.
            #[cfg(test)]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// The status of a word, from a keeper's answer.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$name),)* _ => None }
            }
        }
    };
}

exits! {
    Internal = 1, "internal", "something that this program did not expect; the message says what";
    Usage = 2, "usage", "the command line is wrong, or a name in it is not legal";
    NoXen = 3, "no-xen", "not in dom0, or without permission to use Xen";
    Unsupported = 4, "unsupported", "this hypervisor cannot do it, or its version is unknown";
    NoDomain = 5, "no-domain", "no such domain";
    AmbiguousDomain = 6, "ambiguous-domain", "more than one domain fits";
    NoStub = 7, "no-stub", "the stub domain does not run";
    StubNotReady = 8, "stub-not-ready", "the stub is booting, failed, or speaks another protocol";
    Busy = 9, "busy", "another take of this guest, or another session of the stub, is under way";
    NoSuspend = 10, "no-suspend", "the guest does not offer suspend (`control/feature-suspend`)";
    Paused = 11, "paused", "the guest is held by `xl pause`";
    ShutDown = 12, "shut-down", "the guest is shut down or being destroyed";
    PopulateOnDemand = 13, "populate-on-demand", "the guest is populate-on-demand";
    LogDirtyOn = 14, "log-dirty-on", "a migration or `xl save` is under way, or log-dirty is on for another reason";
    NotPvh = 15, "not-pvh", "the guest is of a kind that cannot be taken";
    Denied = 16, "denied", "FLASK or Xen refused a call";
    NoMemory = 17, "no-memory", "paging pool, host or stub are short of memory";
    NameUsed = 18, "name-used", "a snapshot of that name exists";
    NoSnapshot = 19, "no-snapshot", "no snapshot of that name";
    NoSpace = 20, "no-space", "the store has too little room";
    NoStore = 21, "no-store", "the device holds no store, or cannot be found";
    BadStore = 22, "bad-store", "the store is damaged, of a newer version, or its device fails";
    DeviceInUse = 23, "device-in-use", "`store init`: the device carries data, is mounted, or is attached to a domain";
    NotAcked = 24, "not-acked", "the guest did not take the suspend request in time";
    NotSuspended = 25, "not-suspended", "the guest took the request and did not suspend in time";
    GuestEnded = 26, "guest-ended", "the guest powered off, rebooted, crashed or was destroyed meanwhile";
    Foreign = 27, "foreign", "another tool suspended or resumed the guest, or switched its dirty tracking off";
    PauseSpent = 28, "pause-spent", "the pause budget was spent; the guest was resumed";
    Hook = 29, "hook", "the hook failed or took too long";
    Cancelled = 30, "cancelled", "the take was cancelled";
    StubDied = 31, "stub-died", "the stub died or fell silent during the take";
    Void = 32, "void", "the take is void for another cause; the message says which";
    Stuck = 33, "stuck", "THE GUEST MAY STAND STILL, or Xen could not be set back: `livesave recover`";
    GuestLives = 34, "guest-lives", "`restore`: a domain with that name or uuid runs";
    DisksUnmapped = 35, "disks-unmapped", "`restore`: a writable disk has neither a mapping nor a permission";
    XlFailed = 36, "xl-failed", "`xl` could not be run, or failed";
    Unhealthy = 37, "unhealthy", "`doctor` found something that prevents a take";
    BadConfig = 38, "bad-config", "the guest's configuration cannot be read, kept or edited";
    CannotWrite = 39, "cannot-write", "the output cannot be written";
    KeeperLost = 40, "keeper-lost", "the keeper could not start or went away: `livesave recover`";
    Inconsistent = 41, "inconsistent", "`store check` found something that is not as it must be";
    StoreWentBack = 42, "store-went-back", "the store is older than it was when last seen: a copy of its device?";
    StoreSwapped = 43, "store-swapped", "another store is on the device than was seen there";
    PauseTooLong = 44, "pause-too-long", "the pause would be longer than allowed; the guest was not suspended";
    SenderGone = 45, "sender-gone", "`receive`: the sender broke off or fell silent; the guest stays with it";
    BadStream = 46, "bad-stream", "`receive`: what came is no migration that could be restored; nothing is kept";
    BadPolicy = 47, "bad-policy", "the guest's policy is damaged, or of another version; nothing was touched";
}

impl Exit {
    /// The way out if whoever failed knew no better one. No failure is without one.
    pub const fn way_out(self) -> &'static str {
        match self {
            Self::Internal => "run it again; if it stays, report the message with /run/livesave/keeper.log",
            Self::Usage => "`livesave help` and `livesave help COMMAND` show what may be written",
            Self::NoXen => "run livesave as root in dom0, with the module xenfs loaded",
            Self::Unsupported => "`livesave doctor` names what the hypervisor lacks",
            Self::NoDomain => "`xl list` shows the domains",
            Self::AmbiguousDomain => "name the domain by its id; `xl list` shows it",
            Self::NoStub => "`xl create /etc/xen/livesave.cfg`, or name another stub with --stub",
            Self::StubNotReady => "`livesave doctor` says what to do; `xl console` shows the stub's log",
            Self::Busy => "wait for its end, or `livesave cancel`",
            Self::NoSuspend => "the guest's kernel must support suspend under Xen, and must have booted",
            Self::Paused => "`xl unpause` it first",
            Self::ShutDown => "start the guest again; `livesave recover` resumes one that a take left suspended",
            Self::PopulateOnDemand => "start the guest with maxmem equal to memory",
            Self::LogDirtyOn => "wait for the end of the migration or xl save; after a killed stub, `livesave recover`",
            Self::NotPvh => "only PVH and 64-bit PV guests can be taken",
            Self::Denied => "`livesave doctor` checks the FLASK policy; `xl dmesg | grep avc` shows the refused call",
            Self::NoMemory => "give the guest's paging pool (shadow_memory), the stub or the host more memory",
            Self::NameUsed => "choose another with --name, or `livesave rm` the old one",
            Self::NoSnapshot => "`livesave ls` shows the snapshots",
            Self::NoSpace => "`livesave rm` old snapshots, or grow the store",
            Self::NoStore => "name the store's device with --store; `livesave store init` makes one",
            Self::BadStore => "`livesave verify` shows which snapshots are whole; look at the disk",
            Self::DeviceInUse => "take another device, or free this one first",
            Self::NotAcked => "is it hung, or paused by `xl pause`?",
            Self::NotSuspended => "the guest's kernel log says why",
            Self::GuestEnded => "take the guest again when it runs; nothing was stored",
            Self::Foreign => "keep xl save, migrate, shutdown and resume away from a guest during a take",
            Self::PauseSpent => "give more with --max-pause",
            Self::Hook => "/run/livesave/keeper.log holds the hook's output",
            Self::Cancelled => "nothing need be done; take it again when it suits",
            Self::StubDied => "start the stub again, then run `livesave recover`",
            Self::Void => "take it again; /run/livesave/keeper.log and `xl console` of the stub say more",
            Self::Stuck => "run `livesave recover` now",
            Self::GuestLives => "shut it down or destroy it first, or use --clone NAME",
            Self::DisksUnmapped => "map each with --disk VDEV=PATH, or give --disks-as-they-are",
            Self::XlFailed => "its own words stand above; does it work by hand?",
            Self::Unhealthy => "each line above says what to do about it",
            Self::BadConfig => "`xl list -l` shows the configuration that the guest was created with",
            Self::CannotWrite => "is the disk full, or the reader of the pipe gone?",
            Self::KeeperLost => "see /run/livesave/keeper.log, then run `livesave recover`",
            Self::Inconsistent => "`livesave verify` shows which snapshots are whole; export those to another device",
            Self::StoreWentBack => "bring the newest copy back, or `livesave store accept` if this one is wanted",
            Self::StoreSwapped => "look at the stub's disk, or `livesave store accept` if this store is wanted",
            Self::SenderGone => "xl's own words say why; `xl list` on its side shows the guest",
            Self::BadPolicy => "`livesave policy GUEST --none`, then give it one again",
            Self::BadStream => "send with `xl migrate -s '' GUEST 'livesave receive FILE'`, from Xen 4.14 or later",
            Self::PauseTooLong => "raise --max-pause, give the stub more memory, or try --on-busy throttle",
        }
    }
}

/// An error for the operator: what and where, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its cause.
    pub exit: Exit,
    /// What failed, and where.
    pub what: String,
    /// What to do about it, where that is more than [`Exit::way_out`] says.
    pub hint: Option<String>,
}

/// What every command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Exit {
    /// A failure of this cause.
    pub fn fail(self, what: impl fmt::Display) -> Failure {
        Failure { exit: self, what: what.to_string(), hint: None }
    }
}

impl Failure {
    /// The way out: its own, or that of its cause.
    pub fn way_out(&self) -> &str {
        self.hint.as_deref().unwrap_or_else(|| self.exit.way_out())
    }

    /// Adds a way out that fits better than that of the cause.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "livesave: {}\nhint: {}", self.what, self.way_out())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapshot::keeper::ROWS;
    use std::collections::BTreeSet;

    const DOCUMENT: &str = include_str!("../../docs/operating/exit-codes.md");

    fn table(heading: &str) -> Vec<Vec<String>> {
        let section = DOCUMENT.split(heading).nth(1).unwrap();
        let lines = section.lines().skip_while(|line| !line.starts_with("|--")).skip(1);
        lines
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
            .collect()
    }

    #[test]
    fn the_document_lists_exactly_the_exit_codes() {
        let ours: Vec<Vec<String>> = Exit::ALL
            .iter()
            .map(|exit| vec![exit.code().to_string(), format!("`{}`", exit.word()), exit.meaning().to_owned()])
            .collect();
        assert_eq!(table("## Exit statuses"), ours);
    }

    #[test]
    fn the_document_lists_exactly_the_keepers_waits() {
        let ours: Vec<Vec<String>> =
            ROWS.iter().map(|row| vec![row.name.to_owned(), row.seconds.to_string(), row.then.to_owned()]).collect();
        assert_eq!(table("## Waits of the keeper"), ours);
    }

    #[test]
    fn the_document_lists_exactly_the_clis_waits() {
        let ours: Vec<Vec<String>> = crate::waits::ROWS
            .iter()
            .map(|(name, limit, then)| vec![(*name).to_owned(), limit.as_secs().to_string(), (*then).to_owned()])
            .collect();
        assert_eq!(table("## Waits of the other commands"), ours);
    }

    #[test]
    fn codes_and_words_are_distinct() {
        let codes: BTreeSet<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes.len(), Exit::ALL.len());
        for exit in Exit::ALL {
            assert_eq!(Exit::from_word(exit.word()), Some(*exit));
        }
    }

    #[test]
    fn every_cause_prints_a_way_out_of_its_own() {
        let mut seen = BTreeSet::new();
        for exit in Exit::ALL {
            let text = exit.fail("x").to_string();
            let hint = text.strip_prefix("livesave: x\nhint: ").unwrap_or_default().to_owned();
            assert!(hint.len() > 10 && !hint.contains('\n'), "{exit:?}: {text}");
            assert!(seen.insert(hint), "{exit:?} has the hint of another cause");
        }
    }

    #[test]
    fn a_failure_prints_its_way_out() {
        let failure = Exit::NoDomain.fail("no domain 'web01'").hint("`xl list` shows the domains");
        assert_eq!(failure.to_string(), "livesave: no domain 'web01'\nhint: `xl list` shows the domains");
    }
}
