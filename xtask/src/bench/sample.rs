//! One run, as numbers: what was measured and counted, and the line of the raw data.
//!
//! A run that failed has no numbers, only its line; nothing is computed from it.

use qemu_tests::standing::{Change, stood_ns};
use serde_json::Value;

use super::plan::Mechanism;

macro_rules! numbers {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// What a run gave. `None`: not counted by this mechanism.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Numbers { $($(#[$doc])* pub $field: Option<u64>,)* }

        impl Numbers {
            /// The columns of the raw data.
            pub const NAMES: &[&str] = &[$(stringify!($field),)*];

            /// Their values.
            pub fn values(&self) -> Vec<Option<u64>> {
                vec![$(self.$field,)*]
            }

            /// From columns by name; one that is not there was not counted then.
            fn of(mut column: impl FnMut(&str) -> Option<u64>) -> Self {
                Self { $($field: column(stringify!($field)),)* }
            }
        }
    };
}

numbers! {
    /// The guest stood, seen from outside, microseconds.
    pause_us,
    /// The command, microseconds.
    total_us,
    /// Our part of the pause.
    stub_us,
    /// Pages of the guest.
    memory_pages,
    /// Pages sent, zero pages included, each as often as it was sent.
    pages_sent,
    /// Rounds, the last set included.
    rounds,
    /// Bytes of memory or image, before packing.
    bytes,
    /// Pages in the pause.
    pause_pages,
    /// Hypercalls of the stub in the pause.
    pause_calls,
    /// Pages that waited in memory.
    staged_pages,
    /// CLEAN calls.
    cleans,
    /// PEEK calls.
    peeks,
    /// What was told of the pause before the suspend.
    predicted_us,
    /// What was told when the guest stood.
    renewed_us,
    /// Time in ENABLE, each CLEAN and OFF, for which Xen may stop the guest unseen: the sum.
    stalls_us,
    /// The longest.
    stall_max_us,
    /// Requests that the store's backend got.
    blkif_requests,
    /// KiB that they wrote.
    blkif_kib,
    /// Notifications that it got.
    blkif_notifications,
    /// Calls in which dom0's kernel mapped or unmapped grants; nobody but the store's backend has any then.
    grant_calls,
    /// Of the pages sent, those that hold nothing but zeros.
    zero_pages,
    /// Pages that fit the staging memory.
    staging_pages,
    /// The whole run, its preparation and the look at the guest afterwards included.
    slot_us,
    /// Of that, what the nested machine's threads waited for a processor of ours.
    host_wait_us,
    /// What `dd` past the page cache got from this machine's disk, KiB a second.
    dd_kib_per_s,
    /// Which boot of which machine: what is compared was measured within one.
    boot,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Sample {
    /// `pvh` or `pv`.
    pub kind: &'static str,
    /// The guest's cap; 0: it writes nothing.
    pub cap: u32,
    /// How.
    pub mechanism: &'static str,
    /// Which run, from 1.
    pub run: u32,
    /// What it gave, or why it does not count.
    pub outcome: Result<Numbers, String>,
}

/// The backend's counters, and when the command began or ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backend {
    /// Requests.
    pub requests: u64,
    /// Sectors of 512 bytes written.
    pub sectors: u64,
    /// Notifications.
    pub notifications: u64,
    /// Calls that map or unmap grants, if they are counted.
    pub grant_calls: Option<u64>,
}

impl Backend {
    /// From three numbers on a line, or four.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(|word| word.parse::<u64>().ok());
        let mut next = || numbers.next()?;
        Some(Self { requests: next()?, sectors: next()?, notifications: next()?, grant_calls: next() })
    }
}

impl Numbers {
    /// What `livesave take --json` counted.
    pub fn of_take(take: &Value) -> Self {
        let number = |pointer: &str| take.pointer(pointer).and_then(Value::as_u64);
        let rounds = take.pointer("/trace/rounds").and_then(Value::as_array).into_iter().flatten();
        let stalls_us: Vec<u64> = rounds.flat_map(stalls_us).collect();
        Self {
            stub_us: number("/pause/stub_us"),
            memory_pages: number("/memory_pages"),
            pages_sent: number("/pages").zip(number("/zero_pages")).map(|(pages, zero)| pages + zero),
            rounds: number("/rounds"),
            bytes: number("/bytes"),
            pause_pages: number("/pause/pages"),
            pause_calls: number("/pause/calls"),
            staged_pages: number("/pause/staged"),
            cleans: number("/cleans"),
            peeks: number("/peeks"),
            predicted_us: number("/pause/predicted_us"),
            renewed_us: number("/pause/renewed_us"),
            stalls_us: Some(stalls_us.iter().sum()),
            stall_max_us: stalls_us.iter().copied().max(),
            zero_pages: number("/zero_pages"),
            staging_pages: number("/pause/staging"),
            ..Self::default()
        }
    }

    /// What `livesave receive --json` said, on one line among xl's.
    pub fn of_receive(errors: &str) -> Option<Self> {
        let line = errors.lines().find(|line| line.starts_with("{\"") && line.contains("received"))?;
        let said: Value = serde_json::from_str(line).ok()?;
        let number = |key: &str| said.get(key).and_then(Value::as_u64);
        Some(Self { pages_sent: Some(number("pages")?), bytes: Some(number("bytes")?), ..Self::default() })
    }

    /// Adds what the observer saw.
    pub fn observed(self, changes: &[Change]) -> Result<Self, String> {
        let pause_ns = stood_ns(changes).ok_or_else(|| format!("the observer saw no whole pause: {changes:?}"))?;
        Ok(Self { pause_us: Some(pause_ns / 1000), ..self })
    }

    /// Adds what the backend counted.
    pub fn with_backend(self, before: Backend, after: Backend) -> Self {
        Self {
            blkif_requests: after.requests.checked_sub(before.requests),
            blkif_kib: after.sectors.checked_sub(before.sectors).map(|sectors| sectors / 2),
            blkif_notifications: after.notifications.checked_sub(before.notifications),
            grant_calls: after
                .grant_calls
                .zip(before.grant_calls)
                .and_then(|(after, before)| after.checked_sub(before)),
            ..self
        }
    }
}

/// ENABLE, CLEAN and OFF of a round, microseconds. What the pause's own PEEK takes is in the pause.
fn stalls_us(round: &Value) -> [u64; 3] {
    let in_pause = matches!(round.get("kind").and_then(Value::as_str), Some("last-set" | "everything"));
    let us = |key: &str| round.get(key).and_then(Value::as_u64).unwrap_or(0) / 1000;
    [us("enable_ns"), if in_pause { 0 } else { us("fetch_ns") }, us("off_ns")]
}

/// Columns before the numbers.
const KEYS: usize = 5;

impl Sample {
    /// Reads a line of the raw data, whose columns `head` names.
    pub fn parse(head: &str, line: &str) -> Option<Self> {
        let mut words = line.split(',');
        let kind = words.next().and_then(|word| ["pvh", "pv"].into_iter().find(|kind| *kind == word))?;
        let cap = words.next()?.parse().ok()?;
        let mechanism = words.next()?;
        let mechanism = Mechanism::ALL.map(Mechanism::name).into_iter().find(|name| *name == mechanism)?;
        let (run, failed) = (words.next()?.parse().ok()?, words.next()?);
        let names: Vec<&str> = head.split(',').skip(KEYS).collect();
        let numbers: Vec<Option<u64>> = words.map(|word| word.parse().ok()).collect();
        let is_whole = names.len() == numbers.len() && names.iter().all(|name| Numbers::NAMES.contains(name));
        let at = |name: &str| names.iter().position(|one| *one == name);
        let numbers = Numbers::of(|name| *numbers.get(at(name)?)?);
        let outcome = if failed.is_empty() { Ok(numbers) } else { Err(failed.to_owned()) };
        is_whole.then_some(Self { kind, cap, mechanism, run, outcome })
    }

    /// The first line of the raw data.
    pub fn head() -> String {
        format!("kind,cap,mechanism,run,failed,{}", Numbers::NAMES.join(","))
    }

    /// A line of it.
    pub fn line(&self) -> String {
        let (failed, numbers) = match &self.outcome {
            Ok(numbers) => (String::new(), numbers.clone()),
            Err(why) => (why.replace([',', '\n', '"'], " "), Numbers::default()),
        };
        let values =
            numbers.values().into_iter().map(|value| value.map_or_else(String::new, |value| value.to_string()));
        let values: Vec<String> = values.collect();
        format!("{},{},{},{},{failed},{}", self.kind, self.cap, self.mechanism, self.run, values.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_take_gives_its_counters_and_its_stalls() {
        let take = serde_json::json!({
            "memory_pages": 10, "pages": 7, "zero_pages": 4, "rounds": 2, "bytes": 28672, "cleans": 1, "peeks": 3,
            "pause": {
                "stub_us": 5, "pages": 2, "calls": 9, "staged": 2, "staging": 8, "predicted_us": 6, "renewed_us": 5,
            },
            "trace": {"rounds": [
                {"kind": "full", "enable_ns": 2000}, {"kind": "dirty", "fetch_ns": 4000},
                {"kind": "last-set", "fetch_ns": 90000, "off_ns": 7000},
            ]},
        });
        let numbers = Numbers::of_take(&take);
        assert_eq!((numbers.pages_sent, numbers.stalls_us, numbers.stall_max_us), (Some(11), Some(13), Some(7)));
        assert_eq!((numbers.pause_calls, numbers.blkif_requests), (Some(9), None));
        assert_eq!((numbers.zero_pages, numbers.staging_pages), (Some(4), Some(8)));
    }

    #[test]
    fn a_receiver_is_found_among_xls_words() {
        let said = "xc: info\n{\"bytes\":9,\"file\":\"x\",\"pages\":3,\"received\":\"g\"}\nMigration failed";
        let numbers = Numbers::of_receive(said).unwrap();
        assert_eq!((numbers.pages_sent, numbers.bytes), (Some(3), Some(9)));
        assert_eq!(Numbers::of_receive("Migration failed"), None);
    }

    #[test]
    fn a_failed_run_has_a_line_and_no_numbers() {
        let sample = |outcome| Sample { kind: "pv", cap: 10, mechanism: "live", run: 2, outcome };
        let columns = |line: &str| line.split(',').count();
        let failed = sample(Err("status 27, \"foreign\"".to_owned())).line();
        assert!(failed.starts_with("pv,10,live,2,status 27  ") && failed.ends_with(",,"), "{failed}");
        assert_eq!((columns(&failed), columns(&Sample::head())), (Numbers::NAMES.len() + 5, Numbers::NAMES.len() + 5));
        let numbers = Numbers { pause_us: Some(5), ..Numbers::default() };
        for outcome in [Ok(numbers.clone()), Err("status 27".to_owned())] {
            let read = Sample::parse(&Sample::head(), &sample(outcome.clone()).line()).unwrap();
            assert_eq!((read.kind, read.cap, read.mechanism, read.run, read.outcome), ("pv", 10, "live", 2, outcome));
        }
        for bad in ["", "pv,10,live,2,,5", "pv,10,walk,2,,", &Sample::head()] {
            assert!(Sample::parse(&Sample::head(), bad).is_none(), "{bad}");
        }
        assert!(sample(Ok(numbers)).line().starts_with("pv,10,live,2,,5,,"));
    }

    #[test]
    fn older_data_is_read_by_the_names_of_its_columns() {
        let read = |head: &str| Sample::parse(&format!("kind,cap,mechanism,run,failed,{head}"), "pv,10,live,2,,5,7");
        let numbers = read("total_us,rounds").unwrap().outcome.unwrap();
        assert_eq!((numbers.total_us, numbers.rounds, numbers.pause_us), (Some(5), Some(7), None));
        assert!(read("total_us,miles").is_none() && read("total_us").is_none());
    }

    #[test]
    fn a_pause_that_has_no_end_fails_the_run() {
        let seen = |runs| Change { at_ns: if runs { 9_000 } else { 4_000 }, runs };
        assert_eq!(Numbers::default().observed(&[seen(false), seen(true)]).unwrap().pause_us, Some(5));
        assert!(Numbers::default().observed(&[seen(false)]).is_err() && Numbers::default().observed(&[]).is_err());
    }

    #[test]
    fn a_backend_that_was_made_anew_counts_nothing() {
        let at = |text| Backend::parse(text).unwrap();
        let numbers = Numbers::default().with_backend(at("5 100 7 1"), at("9 300 6 1"));
        assert_eq!(
            (numbers.blkif_requests, numbers.blkif_kib, numbers.blkif_notifications),
            (Some(4), Some(100), None)
        );
        assert_eq!(numbers.grant_calls, Some(0));
        let uncounted = Numbers::default().with_backend(at("5 100 7"), at("9 300 8"));
        assert_eq!((uncounted.grant_calls, uncounted.blkif_notifications), (None, Some(1)));
        assert!(Backend::parse("5 100").is_none());
    }
}
