//! The mechanisms of the paper's evaluation and ours, each driven by the policy code of the product.
//!
//! A run is one take: the model gives what a round counts, [`Policy::decide`] says what follows.

use snapshot::policy::{Busy, Decision, Disk, High, Outlook, Policy, RoundStats, Settings};
use snapshot::request::Mode;

use super::model::{EMPTY_PAUSE_S, Guest, HOT, Noise, Race, writes_at};

/// Pages a second to the local disk, 88 MB/s: Live Save's downtime at high caps over the pages of its last set.
const DISK_RATE: f64 = 21_500.0;
/// 117 MB/s: Xen Save's downtime over the guest's memory.
const SAVE_RATE: f64 = 28_645.0;
/// VNsnap's, of which table 4 implies 15 700 to 22 600: evenly within a quarter of this.
const VNSNAP_RATE: f64 = 18_000.0;
/// Copying into memory: a page in a microsecond (map and copy, measured on one core).
const STAGE_NS: u64 = 1000;
/// What a staged pause costs without pages.
const STAGED_EMPTY_NS: u64 = 5_000_000;
/// h that makes figure 5 (a) bend where the paper's does.
const PAPER_H: u32 = 5100;
/// h with which the re-derived table of the replica was computed.
const REPLICA_H: u32 = 4700;

/// A mechanism and its variant.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Mechanism {
    /// Name in data and plots.
    pub name: &'static str,
    mode: Mode,
    rate: f64,
    /// The rate itself is known as a range only.
    wide: bool,
    round1_skip: bool,
    high: High,
    compare_first: bool,
    busy: Busy,
    /// MiB for each GiB of the guest.
    staging_mib: f64,
    /// One of the paper's five, as it was.
    pub papers: bool,
}

const fn mechanism(name: &'static str, mode: Mode, rate: f64) -> Mechanism {
    let high = High::Sent { milli: PAPER_H };
    Mechanism {
        name,
        mode,
        rate,
        wide: false,
        round1_skip: false,
        high,
        compare_first: false,
        busy: Busy::Accept,
        staging_mib: 0.0,
        papers: false,
    }
}

const fn staged(name: &'static str, staging_mib: f64, busy: Busy) -> Mechanism {
    Mechanism { staging_mib, busy, ..mechanism(name, Mode::Staged, DISK_RATE) }
}

/// The paper's five first: Xen 4.5.1 skips in round 1, so its two live ones do, and so do the figures of the paper's
/// own two, which were built on it. Then the readings of the paper's text, Xen's rule of today, and ours.
pub const MECHANISMS: [Mechanism; 13] = [
    Mechanism { papers: true, ..mechanism("save", Mode::Save, SAVE_RATE) },
    Mechanism { round1_skip: true, papers: true, ..mechanism("migration", Mode::Live, 26_000.0) },
    Mechanism { round1_skip: true, wide: true, papers: true, ..mechanism("vnsnap", Mode::Live, VNSNAP_RATE) },
    Mechanism { round1_skip: true, papers: true, ..mechanism("live-skip", Mode::Live, DISK_RATE) },
    Mechanism {
        round1_skip: true,
        compare_first: true,
        high: High::Sent { milli: REPLICA_H },
        papers: true,
        ..mechanism("improved-skip", Mode::Improved, DISK_RATE)
    },
    mechanism("live", Mode::Live, DISK_RATE),
    mechanism("improved", Mode::Improved, DISK_RATE),
    Mechanism { round1_skip: true, high: High::NoLess, ..mechanism("improved-literal-h", Mode::Improved, DISK_RATE) },
    mechanism("xen", Mode::Xen, DISK_RATE),
    staged("staged-32M", 32.0, Busy::Accept),
    staged("staged-128M", 128.0, Busy::Accept),
    staged("staged-half", 512.0, Busy::Accept),
    staged("staged-32M-throttle", 32.0, Busy::Throttle),
];

/// What one run measured.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Run {
    /// Rounds, the last set counted as one.
    pub rounds: f64,
    /// Mean of D/T over the rounds before the last, pages a second.
    pub frequency: f64,
    /// Mean of the pages that became dirty in a round before the last.
    pub dirty: f64,
    /// Mean time of rounds 2 to the last but one, seconds.
    pub round_s: f64,
    /// Seconds.
    pub downtime_s: f64,
    /// Seconds.
    pub total_s: f64,
    /// Pages sent.
    pub pages: f64,
}

/// One take under way.
struct Take<'a> {
    mechanism: &'a Mechanism,
    race: Race,
    cap: f64,
    policy: Policy,
    noise: Noise,
    outlook: Outlook,
    previous: f64,
    rounds: Vec<(f64, f64)>,
    sent: f64,
}

impl Mechanism {
    /// One run at a cap, with a guest of `gib` GiB; without a seed, the run in which all is as expected.
    pub fn run(&self, gib: f64, cap: f64, seed: Option<u64>) -> Run {
        let guest = Guest::new(gib, cap);
        let mut noise = Noise::new(seed);
        let rate = noise.rate(self.rate, self.wide);
        let settings = Settings {
            round1_skip: self.round1_skip,
            high: self.high,
            compare_first: self.compare_first,
            busy: self.busy,
            ..Settings::default()
        };
        let outlook = Outlook {
            staging_pages: (self.staging_mib * gib * 256.0) as u64,
            fixed_ns: STAGED_EMPTY_NS,
            stage_ns: STAGE_NS,
            // Nothing is packed in the model, and it has no device that is behind: the last page is waited for.
            pack_ns: 0,
            stored_bytes: 0,
            store_ns: (1e9 / rate) as u64,
            disk: Disk::NONE,
        };
        let policy = Policy::new(self.mode, settings);
        let race = Race { guest, rate };
        let take = Take {
            mechanism: self,
            race,
            cap,
            policy,
            noise,
            outlook,
            previous: guest.memory,
            rounds: Vec::new(),
            sent: 0.0,
        };
        take.run()
    }
}

impl Take<'_> {
    fn run(mut self) -> Run {
        if !self.policy.is_live() {
            return self.save();
        }
        let mut number = 1;
        let mut round = self.race.first(self.policy.skips(1));
        loop {
            let dirty = self.noise.count(self.race.guest.written, round.dirty);
            self.sent += round.sent;
            self.rounds.push((round.seconds, dirty));
            match self.policy.decide(&self.stats(number, round.sent, dirty)) {
                Decision::StopAndCopy => return self.end(dirty),
                Decision::Continue => {}
                Decision::Throttle(percent) => {
                    self.race.guest.writes = writes_at(self.cap * (1.0 - f64::from(percent) / 100.0));
                }
                // Nothing here has a limit that could be passed.
                Decision::Abort(_) => return Run::default(),
            }
            self.previous = dirty;
            number += 1;
            round = self.race.next(dirty / self.race.guest.written, self.policy.skips(number));
        }
    }

    fn save(&self) -> Run {
        let Guest { memory, .. } = self.race.guest;
        let downtime_s = EMPTY_PAUSE_S + memory / self.race.rate;
        Run { rounds: 1.0, downtime_s, total_s: downtime_s, pages: memory, ..Run::default() }
    }

    fn stats(&self, round: u32, sent_round: f64, dirty: f64) -> RoundStats {
        let memory = self.race.guest.memory;
        let room = memory * self.policy.reserve_factor() as f64;
        RoundStats {
            round,
            memory: memory as u64,
            dirty_previous: self.previous as u64,
            dirty_current: dirty as u64,
            sent_round: sent_round as u64,
            sent_total: self.sent as u64,
            unsent: 0,
            space_left: (room - self.sent).max(0.0) as u64,
            outlook: self.outlook,
            ..RoundStats::default()
        }
    }

    fn end(self, dirty: f64) -> Run {
        let last = dirty + HOT;
        let (downtime_s, flush_s) = if self.mechanism.mode == Mode::Staged {
            let staged = last.min(self.outlook.staging_pages as f64);
            (self.outlook.pause_us(last as u64) as f64 / 1e6, staged / self.race.rate)
        } else {
            (EMPTY_PAUSE_S + last / self.race.rate, 0.0)
        };
        let count = self.rounds.len() as f64;
        let middle: Vec<f64> = self.rounds.iter().skip(1).map(|(seconds, _)| *seconds).collect();
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / count;
        Run {
            rounds: count + 1.0,
            frequency: mean(&mut self.rounds.iter().map(|(seconds, dirty)| dirty / seconds.max(1e-9))),
            dirty: mean(&mut self.rounds.iter().map(|(_, dirty)| *dirty)),
            round_s: middle.iter().sum::<f64>() / (middle.len() as f64).max(1.0),
            downtime_s,
            total_s: self.rounds.iter().map(|(seconds, _)| seconds).sum::<f64>() + downtime_s + flush_s,
            pages: self.sent + last,
        }
    }
}
