//! A device that fails at each of its operations, runs out of room at each write, loses or misdirects each write.

use crate::disk::Faults;
use crate::explore::ends;
use crate::judge;
use crate::rng::Rng;
use crate::workloads::{self, Work};

/// Workloads whose operations fail one by one.
const FAILING: [&str; 5] = ["reformat", "rounds", "reuse", "clean-reuse", "engine-live"];
/// Places to which each write is misdirected.
const MISDIRECTED: u64 = 4;

/// What was tried, and what was wrong.
#[derive(Default)]
pub struct Tally {
    /// Operations that failed, each in each way.
    pub errors: u64,
    /// Writes that were lost or went astray.
    pub lies: u64,
    /// States of the disk that were looked at.
    pub states: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
}

/// Tries all of it.
pub fn all(seed: u64) -> Tally {
    let mut tally = Tally::default();
    for (name, work) in FAILING.into_iter().filter_map(workloads::find) {
        let clean = work(seed, Faults::default());
        let (operations, writes) = {
            let state = clean.disk.0.borrow();
            (state.operations, state.writes)
        };
        for number in 0..operations {
            tally.error(name, work, seed, Faults { fail_at: Some(number), ..Faults::default() });
            tally.error(name, work, seed, Faults { fail_from: Some(number), ..Faults::default() });
        }
        for number in 0..writes {
            tally.error(name, work, seed, Faults { full_from: Some(number), ..Faults::default() });
            tally.lie(name, work, seed, Faults { lose_write: Some(number), ..Faults::default() });
            let used: Vec<u64> = clean.disk.image().used().collect();
            let mut rng = Rng(seed ^ number);
            for _ in 0..MISDIRECTED {
                let target = used[usize::try_from(rng.below(used.len() as u64)).unwrap_or(0)];
                tally.lie(name, work, seed, Faults { misdirect: Some((number, target)), ..Faults::default() });
            }
        }
    }
    tally
}

impl Tally {
    /// A device that says so: nothing that was promised is lost, nothing is half there.
    fn error(&mut self, name: &str, work: Work, seed: u64, faults: Faults) {
        self.errors += 1;
        let history = work(seed, faults);
        self.wrong.extend(history.wrong.iter().map(|wrong| format!("{name}, {faults:?}: {wrong}")));
        let allowed = history.allowed.last().cloned().unwrap_or_default();
        for image in ends(&history, &mut Rng(seed), 2) {
            self.states += 1;
            if let Err(error) = judge::whole(history.blocks(), &image, &allowed, self.states.is_multiple_of(8)) {
                self.wrong.push(format!("{name}, {faults:?}: {error}"));
            }
        }
    }

    /// A device that lies: what is handed out is right.
    fn lie(&mut self, name: &str, work: Work, seed: u64, faults: Faults) {
        self.lies += 1;
        let history = work(seed, faults);
        let known: Vec<_> = history.allowed.iter().flatten().cloned().collect();
        for image in ends(&history, &mut Rng(seed), 1) {
            self.states += 1;
            let device = crate::disk::Disk::with(history.blocks(), image);
            if let Err(error) = judge::honest(device, &known) {
                self.wrong.push(format!("{name}, {faults:?}: {error}"));
            }
        }
    }
}
