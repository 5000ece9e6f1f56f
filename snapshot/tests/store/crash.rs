//! Power cuts: after every write and every flush of bounded workloads, with many subsets of what was not flushed.

use std::collections::{BTreeMap, BTreeSet};

use snapshot::store::Cleaned;

use crate::disk::{Disk, Faults, Image, Rng, cuts};
use crate::history::{History, State, outcome};
use crate::space::clean;
use crate::world::{Run, SMALL, open, packed_run, run};

/// One segment more than the least: three snapshots fit, and what is removed is used again at once.
const TIGHT: u64 = SMALL + 256;
/// 4 MiB of segments more than the least.
const ROOMY: u64 = SMALL + 1024;

fn sound(history: &History, seed: u64) -> usize {
    let (tried, wrong) = history.explore(seed, usize::MAX);
    println!("{tried} power cuts");
    assert!(wrong.is_empty(), "{} of {tried} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    tried
}

#[test]
fn formatting() {
    let mut history = History::new(Disk::new(SMALL), None);
    history.format(1);
    assert!(sound(&history, 1) > 50);
}

#[test]
fn formatting_over_an_older_store() {
    let mut history = History::with_one_snapshot(SMALL);
    history.format(2);
    assert!(sound(&history, 2) > 50);
}

#[test]
fn a_take_with_rounds() {
    let mut history = History::with_one_snapshot(ROOMY);
    let mut store = open(&history.disk);
    history.take(&mut store, "new@1", &[run(0, 9, 2), run(2, 4, 3), Run::from([(1, None), (5, Some(4))])]).unwrap();
    assert!(sound(&history, 3) > 400);
}

#[test]
fn takes_of_packed_and_equal_pages() {
    let mut history = History::with_one_snapshot(ROOMY);
    let mut store = open(&history.disk);
    history.take(&mut store, "new@1", &[packed_run(0, 40, 2), packed_run(8, 9, 3), run(2, 4, 3)]).unwrap();
    history.remove(&mut store, "old@1").unwrap();
    history.take(&mut store, "new@2", &[packed_run(0, 30, 2)]).unwrap();
    assert!(sound(&history, 8) > 800);
}

/// A store whose first snapshot is mostly superseded pages, from before it is cleaned.
fn sparse() -> History {
    let mut history = History::with_one_snapshot(ROOMY);
    // Three segments of pages, of which few are left in each.
    let runs = [run(0, 900, 2), (0..900).filter(|gfn| gfn % 150 > 2).map(|gfn| (gfn, Some(0))).collect()];
    history.take(&mut open(&history.disk.clone()), "new@1", &runs).unwrap();
    History::new(history.disk, history.now)
}

#[test]
fn cleaning() {
    let mut history = sparse();
    let mut store = open(&history.disk);
    assert!(clean(&mut store) > 0);
    history.remove(&mut store, "old@1").unwrap();
    assert!(sound(&history, 9) > 300);
}

/// How many flushes a cleaning has. The last three are the commit's, the third of which is proved with all commits;
/// those before only keep a bad sector apart from a lost write.
fn flushes_of_a_cleaning() -> u64 {
    let history = sparse();
    let mut store = open(&history.disk);
    history.disk.plan(Faults::default());
    clean(&mut store);
    history.disk.0.borrow().flushes
}

#[test]
fn the_first_two_flushes_of_a_cleaning_cannot_be_left_out() {
    let flushes = flushes_of_a_cleaning();
    for flush in flushes - 3..flushes - 1 {
        let history = sparse();
        let mut store = open(&history.disk);
        history.disk.plan(Faults { swallow_flush: Some(flush), ..Faults::default() });
        clean(&mut store);
        assert!(!history.explore(flush, 1).1.is_empty(), "flush {flush} of {flushes} is not needed");
    }
}

#[test]
fn an_error_at_every_operation_of_a_cleaning_loses_nothing() {
    let total = {
        let history = sparse();
        let mut store = open(&history.disk);
        history.disk.plan(Faults::default());
        clean(&mut store);
        history.disk.0.borrow().operations
    };
    for number in 0..total {
        let history = sparse();
        let mut store = open(&history.disk);
        history.disk.plan(Faults { fail_at: Some(number), ..Faults::default() });
        while !matches!(store.clean_step(), Ok(Cleaned::Nothing) | Err(_)) {}
        let image = history.disk.image();
        if let Err(error) = outcome(ROOMY, image, std::slice::from_ref(&history.now), true) {
            panic!("operation {number} of {total}: {error}");
        }
    }
}

#[test]
fn an_aborted_take_then_another() {
    let mut history = History::with_one_snapshot(ROOMY);
    let mut store = open(&history.disk);
    history.abort(&mut store, &[run(0, 9, 2)]).unwrap();
    history.take(&mut store, "new@1", &[run(0, 5, 3)]).unwrap();
    assert!(sound(&history, 4) > 500);
}

#[test]
fn removing_and_reusing_the_space() {
    let mut history = History::with_one_snapshot(TIGHT);
    let mut store = open(&history.disk);
    history.remove(&mut store, "old@1").unwrap();
    for number in 1..=3 {
        history.take(&mut store, &format!("new@{number}"), &[run(0, 5, 3 + number)]).unwrap();
        if number > 1 {
            history.remove(&mut store, &format!("new@{}", number - 1)).unwrap();
        }
    }
    assert!(sound(&history, 5) > 1500);
}

#[test]
fn two_takes_with_a_restart_between() {
    let mut history = History::with_one_snapshot(ROOMY);
    let mut store = open(&history.disk);
    history.take(&mut store, "new@1", &[run(0, 7, 2)]).unwrap();
    drop(store);
    let mut store = open(&history.disk);
    history.take(&mut store, "new@2", &[run(0, 7, 3)]).unwrap();
    assert!(sound(&history, 6) > 600);
}

/// Open, take, remove, take again: the flushes are two of the open, then three of each commit.
fn reusing(faults: Faults) -> History {
    let mut history = History::with_one_snapshot(TIGHT);
    history.disk.plan(faults);
    let mut store = open(&history.disk);
    history.take(&mut store, "new@1", &[run(0, 5, 2)]).unwrap();
    history.remove(&mut store, "old@1").unwrap();
    history.take(&mut store, "new@2", &[run(0, 5, 3)]).unwrap();
    history.remove(&mut store, "new@1").unwrap();
    history.take(&mut store, "new@3", &[run(0, 5, 4)]).unwrap();
    history
}

#[test]
fn no_flush_of_a_commit_can_be_left_out() {
    assert_eq!(sound(&reusing(Faults::default()), 7).min(1), 1);
    for flush in 2..17 {
        let history = reusing(Faults { swallow_flush: Some(flush), ..Faults::default() });
        assert_eq!(history.disk.0.borrow().flushes, 17);
        let (tried, wrong) = history.explore(flush, 1);
        assert!(!wrong.is_empty(), "flush {flush} is not needed ({tried} cuts)");
    }
}

#[test]
fn no_flush_of_formatting_can_be_left_out() {
    for flush in 0..3 {
        let mut history = History::with_one_snapshot(TIGHT);
        // One commit more, so that catalog and table lie where formatting puts the new ones.
        history.take(&mut open(&history.disk.clone()), "old@2", &[run(0, 5, 2)]).unwrap();
        let mut history = History::new(history.disk, history.now);
        history.disk.plan(Faults { swallow_flush: Some(flush), ..Faults::default() });
        history.format(2);
        assert_eq!(history.disk.0.borrow().flushes, 3);
        assert!(!history.explore(flush, 1).1.is_empty(), "flush {flush} of formatting is not needed");
    }
}

/// A commit whose flush fails while reads go on showing what was lost; then the store is opened again and used.
fn after_a_failed_flush(failing: u64, swallow: Option<u64>) -> (usize, Vec<String>) {
    let mut history = History::with_one_snapshot(TIGHT);
    let mut store = open(&history.disk);
    history.take(&mut store, "new@1", &[run(0, 5, 2)]).unwrap();
    history.disk.plan(Faults { lose_flush: Some(failing), ..Faults::default() });
    let failed = history.remove(&mut store, "old@1");
    assert!(failed.is_err() && store.poisoned());
    drop(store);
    history.disk.plan(Faults { swallow_flush: swallow, ..Faults::default() });
    let mut store = open(&history.disk);
    let removed = store.list().unwrap().len() == 1;
    if removed {
        history.now.as_mut().unwrap().remove("old@1");
    }
    let now = history.now.clone();
    history.disk.mark(history.allowed.len());
    history.allowed.push(vec![now]);
    for number in 2..4 {
        // Full is fine where the removal did not happen.
        let _ = history.take(&mut store, &format!("new@{number}"), &[run(0, 5, number + 3)]);
    }
    history.explore(failing, if swallow.is_some() { 1 } else { usize::MAX })
}

#[test]
fn a_failed_flush_is_settled_at_the_next_open() {
    for failing in 0..3 {
        let (tried, wrong) = after_a_failed_flush(failing, None);
        assert!(wrong.is_empty(), "flush {failing}, {tried} cuts: {:#?}", &wrong[..wrong.len().min(5)]);
    }
    for swallow in 0..2 {
        let wrong: usize = (0..3).map(|failing| after_a_failed_flush(failing, Some(swallow)).1.len()).sum();
        assert!(wrong > 0, "flush {swallow} of an open is not needed");
    }
}

#[test]
fn an_error_at_every_operation_loses_nothing() {
    let total = {
        let history = reusing(Faults::default());
        let state = history.disk.0.borrow();
        state.operations
    };
    assert!(total > 60);
    for (number, from) in (0..total).flat_map(|number| [(number, false), (number, true)]) {
        let mut history = History::with_one_snapshot(TIGHT);
        let faults = match from {
            true => Faults { fail_from: Some(number), ..Faults::default() },
            false => Faults { fail_at: Some(number), ..Faults::default() },
        };
        history.disk.plan(faults);
        let _ = reuse_until_error(&mut history);
        let allowed = history.allowed.last().unwrap().clone();
        let image = history.disk.image();
        if let Err(error) = outcome(TIGHT, image, &allowed, true) {
            panic!("operation {number} (and after: {from}): {error}");
        }
    }
}

fn reuse_until_error(history: &mut History) -> Result<(), snapshot::store::StoreError> {
    let mut store = snapshot::store::Store::open(history.disk.clone()).map_err(|failed| failed.error)?;
    history.take(&mut store, "new@1", &[run(0, 5, 2)])?;
    history.remove(&mut store, "old@1")?;
    history.take(&mut store, "new@2", &[run(0, 5, 3)])?;
    history.remove(&mut store, "new@1")?;
    history.take(&mut store, "new@3", &[run(0, 5, 4)])
}

/// Random workloads with a cut at a random moment, again and again on what the cut left.
#[test]
fn histories_of_many_cuts() {
    for seed in 0..60 {
        let mut rng = Rng(seed);
        let mut history = History::with_one_snapshot(ROOMY);
        for round in 0..6 {
            random_work(&mut history, &mut rng, round);
            let length = history.disk.0.borrow().log.len() as u64;
            let (stop, mut step, mut left) = (rng.below(length + 1), 0, None);
            let log = history.disk.0.borrow().log.clone();
            cuts(&history.start, &log, |cut| {
                if step == stop {
                    left = Some((cut.random(&mut rng), history.allowed[cut.mark].clone()));
                }
                step += 1;
            });
            let (image, allowed) = left.unwrap();
            outcome(ROOMY, image.clone(), &allowed, true).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            history = go_on(image, &allowed);
        }
    }
}

fn go_on(image: Image, allowed: &[State]) -> History {
    let disk = Disk::with(ROOMY, image);
    let found: BTreeSet<_> = open(&disk).list().unwrap().into_iter().map(|listed| listed.name).collect();
    let state = allowed.iter().flatten().find(|state| state.keys().eq(&found));
    let state = state.expect("one of the allowed states").clone();
    History::new(disk, Some(state))
}

fn random_work(history: &mut History, rng: &mut Rng, round: u64) {
    let mut store = open(&history.disk);
    for number in 0..4 {
        let names: Vec<String> = history.now.iter().flat_map(BTreeMap::keys).cloned().collect();
        match rng.below(4) {
            0 if !names.is_empty() => {
                let name = &names[rng.below(names.len() as u64) as usize];
                history.remove(&mut store, name).unwrap();
                clean(&mut store);
            }
            1 => drop(history.abort(&mut store, &[run(0, 4, rng.below(9))])),
            _ => {
                let runs: Vec<Run> =
                    (0..1 + rng.below(4)).map(|_| run(rng.below(20), 1 + rng.below(9), rng.next() >> 44)).collect();
                let _ = history.take(&mut store, &format!("new@{round}-{number}"), &runs);
            }
        }
    }
}
