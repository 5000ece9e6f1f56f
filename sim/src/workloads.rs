//! What is done to a store before the power goes: short workloads one by one, and random ones by seed.
//!
//! A workload goes on after an error, as somebody might who does not look; the history says what may be there then.

use snapshot::ports::BlockDevice;
use snapshot::prune::{Rules, kept};
use snapshot::request::Mode;
use snapshot::status::State;
use snapshot::store::{Store, StoreError, layout};

use crate::content::{PACKS, Run, packed_run, random_runs, run};
use crate::disk::{Disk, Faults};
use crate::explore;
use crate::history::{History, LONG, ROOMY, SMALL, TIGHT};
use crate::rng::Rng;
use crate::take;

/// A workload: from a seed and a plan of faults to what happened.
pub type Work = fn(u64, Faults) -> History;

/// Name, what it is about, and the workload.
pub const ALL: [(&str, &str, Work); 24] = [
    ("format", "making a store on a blank device", |_, faults| formatting(History::blank(SMALL), faults)),
    ("reformat", "making a store over one with two snapshots", |_, faults| {
        formatting(History::with(SMALL, &[("old@1", vec![run(0, 5, 1)]), ("old@2", vec![run(0, 5, 2)])]), faults)
    }),
    ("take", "one small take, every subset of its writes", |_, faults| on_one(ROOMY, faults, one_take)),
    ("rounds", "a take of several rounds, with holes", |_, faults| on_one(ROOMY, faults, rounds)),
    ("packed", "pages that pack and equal pages, and removal", |_, faults| on_one(ROOMY, faults, packed)),
    ("abort", "a take that is given up, then another", |_, faults| on_one(ROOMY, faults, aborted)),
    ("reuse", "removing, and using the space at once", |_, faults| on_one(TIGHT, faults, reuse)),
    ("restart", "two takes with an open between", |_, faults| on_one(ROOMY, faults, restart)),
    ("clean", "cleaning a sparse snapshot", |_, faults| on_sparse(faults, |_, _| Ok(()))),
    ("clean-reuse", "cleaning, then takes into what it freed", |_, faults| on_sparse(faults, refill)),
    ("prune", "pruning to the last two", |_, faults| on_one(ROOMY, faults, prune)),
    ("diff", "what differs from the newest, removal of what is shared", |_, faults| on_one(ROOMY, faults, diffs)),
    ("chain", "one on top of the other, removed from below", |_, faults| on_one(ROOMY, faults, chain)),
    ("long-chain", "until runs have to be merged", |_, faults| on_one(LONG, faults, long_chain)),
    ("chain-clean", "a chain, pruned and cleaned", |_, faults| on_chain(faults)),
    ("diff-clean", "what snapshots share, pruned, cleaned and reused", |_, faults| on_diffs(faults)),
    ("full", "takes until the store is full, removal, takes", |_, faults| on_one(TIGHT, faults, full)),
    ("engine-save", "a whole take: the guest stands", |seed, faults| by_engine(seed, faults, Mode::Save)),
    ("engine-live", "a whole take: rounds while the guest writes", |seed, faults| by_engine(seed, faults, Mode::Live)),
    ("engine-staged", "a whole take: the last set to memory", |seed, faults| by_engine(seed, faults, Mode::Staged)),
    ("engine-tracked", "incremental takes of a guest that stays tracked", tracked),
    ("bad-sector", "a sector that cannot be read for a while", |seed, _| bad_sector(seed)),
    ("bad-sector-remove", "what a removal does while a sector cannot be read", |seed, _| bad_sector_remove(seed)),
    ("random", "random work, cut at random moments and gone on with", random),
];

/// The workload of this name.
pub fn find(name: &str) -> Option<(&'static str, Work)> {
    ALL.iter().find(|(known, ..)| *known == name).map(|(name, _, work)| (*name, *work))
}

fn formatting(mut history: History, faults: Faults) -> History {
    history.disk.plan(faults);
    let _ = history.format(2);
    history
}

/// Does something to a store that holds one snapshot.
fn on_one(blocks: u64, faults: Faults, work: fn(&mut History, &mut Store<Disk>) -> Result<(), StoreError>) -> History {
    let mut history = History::with(blocks, &[("old@1", vec![run(0, 9, 1)])]);
    history.disk.plan(faults);
    if let Ok(mut store) = history.open() {
        let _ = work(&mut history, &mut store);
    }
    history
}

fn one_take(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    history.take(store, "new@1", &[run(0, 2, 2)])
}

fn rounds(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    history.take(store, "new@1", &[run(0, 9, 2), run(2, 4, 3), Run::from([(1, None), (5, Some(4))])])
}

fn packed(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    let _ = history.take(store, "new@1", &[packed_run(0, 40, 2), packed_run(8, 9, 3), run(2, 4, 3)]);
    let _ = history.remove(store, "old@1");
    history.take(store, "new@2", &[packed_run(0, 30, 2)])
}

fn aborted(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    let _ = history.abort(store, &[run(0, 9, 2)]);
    history.take(store, "new@1", &[run(0, 5, 3)])
}

fn reuse(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    let _ = history.take(store, "new@1", &[run(0, 5, 2)]);
    let _ = history.remove(store, "old@1");
    let _ = history.take(store, "new@2", &[run(0, 5, 3)]);
    let _ = history.remove(store, "new@1");
    history.take(store, "new@3", &[run(0, 5, 4)])
}

fn restart(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    let _ = history.take(store, "new@1", &[run(0, 7, 2)]);
    let mut store = history.open()?;
    history.take(&mut store, "new@2", &[run(0, 7, 3)])
}

/// A store whose second snapshot is mostly superseded pages, while it is cleaned, and what follows.
fn on_sparse(faults: Faults, then: fn(&mut History, &mut Store<Disk>) -> Result<(), StoreError>) -> History {
    // Three segments of pages, of which few are left in each.
    let superseded = (0..900).filter(|gfn| gfn % 150 > 2).map(|gfn| (gfn, Some(0))).collect();
    let snapshots = [("old@1", vec![run(0, 5, 1)]), ("new@1", vec![run(0, 900, 2), superseded])];
    let mut history = History::with(ROOMY, &snapshots);
    history.disk.plan(faults);
    if let Ok(mut store) = history.open() {
        let _ = history.clean(&mut store);
        let _ = then(&mut history, &mut store);
    }
    history
}

fn refill(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    for number in 2..5 {
        let _ = history.take(store, &format!("new@{number}"), &[run(0, 5, 2 + number)]);
    }
    history.remove(store, "old@1")
}

fn prune(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    for number in 2..5 {
        let _ = history.take(store, &format!("old@{number}"), &[run(0, 4, number)]);
    }
    let listed = store.list()?;
    let times: Vec<u64> = (0..).zip(&listed).map(|(number, one)| one.created_unix + number).collect();
    let keep = kept(&times, &Rules { last: 2, ..Rules::default() });
    for (one, _) in listed.iter().zip(keep).filter(|(_, keep)| !keep) {
        let _ = history.remove(store, &one.name);
    }
    let _ = history.clean(store);
    history.take(store, "new@1", &[run(0, 5, 9)])
}

fn diffs(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    let mut guest = run(0, 9, 1);
    guest.extend(run(3, 3, 2));
    let _ = history.diff(store, "new@1", std::slice::from_ref(&guest));
    guest.extend([(0, None), (3, Some(5)), (8, Some(0))]);
    let _ = history.diff(store, "new@2", &[guest.clone(), run(20, 2, 2)]);
    let _ = history.remove(store, "old@1");
    let _ = history.take(store, "new@3", &[run(0, 8, 4)]);
    history.remove(store, "new@1")
}

/// The names of a chain.
fn name(number: u64) -> String {
    format!("new@{number}")
}

/// A guest that is changed again and again: each change is one take on top of the one before.
fn changes(number: u64) -> [Run; 2] {
    let one = Run::from([(number % 9, None), ((number + 3) % 9, Some(0)), (10 + number, Some(77 + number))]);
    [run(number % 7, 2, 20 + number), one]
}

fn chain(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    let mut whole = vec![run(0, 9, 1)];
    let _ = history.take(store, &name(0), &whole);
    for number in 0..4 {
        let rounds = changes(number);
        whole.extend(rounds.iter().cloned());
        let _ = history.since(store, (&name(number + 1), &name(number)), &rounds, &whole);
        if number > 1 {
            let _ = history.remove(store, &name(number - 1));
        }
    }
    let _ = history.remove(store, "old@1");
    history.take(store, "new@9", &[run(0, 8, 4)])
}

/// Two runs a take: after eight of them there are more than a root may name.
fn long_chain(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    // Equal pages lie in one place, but each has an entry: too many for small runs to be merged with.
    let mut whole = vec![(0..80).map(|gfn| (gfn, Some(PACKS | 5))).collect::<Run>()];
    let _ = history.take(store, &name(0), &whole);
    for number in 0..9 {
        let rounds = [Run::from([(number, None)]), Run::from([(20 + number, Some(77 + number))])];
        whole.extend(rounds.iter().cloned());
        let _ = history.since(store, (&name(number + 1), &name(number)), &rounds, &whole);
        if number > 0 {
            let _ = history.remove(store, &name(number));
        }
    }
    history.remove(store, "old@1")
}

/// A chain whose oldest snapshot is mostly superseded, pruned to its last two and cleaned, and what follows.
fn on_chain(faults: Faults) -> History {
    let mut history = History::with(LONG, &[("old@1", vec![run(0, 900, 2)])]);
    let superseded: Run = (0..900).filter(|gfn| gfn % 150 > 2).map(|gfn| (gfn, Some(0))).collect();
    let whole = [run(0, 900, 2), superseded.clone(), run(900, 40, 3)];
    if let Ok(mut store) = history.open() {
        let _ = history.since(&mut store, ("new@1", "old@1"), std::slice::from_ref(&superseded), &whole[..2]);
        let _ = history.since(&mut store, ("new@2", "new@1"), &whole[2..], &whole);
    }
    let mut history = history.afresh();
    history.disk.plan(faults);
    if let Ok(mut store) = history.open() {
        let _ = history.remove(&mut store, "old@1");
        let _ = history.clean(&mut store);
        let _ = history.since(
            &mut store,
            ("new@3", "new@2"),
            &[run(0, 400, 9)],
            &[whole.as_slice(), &[run(0, 400, 9)]].concat(),
        );
    }
    history
}

/// Three snapshots that share what is mostly superseded, cleaned with a take in between, and what follows.
fn on_diffs(faults: Faults) -> History {
    let mut guest = run(0, 900, 2);
    let mut history = History::with(LONG, &[("old@1", vec![guest.clone()])]);
    if let Ok(mut store) = history.open() {
        guest.extend((0..900).filter(|gfn| gfn % 90 > 2).map(|gfn| (gfn, Some(0))));
        let _ = history.diff(&mut store, &name(0), std::slice::from_ref(&guest));
        for number in 1..3 {
            guest.extend([(number, Some(70 + number)), (900 + number, Some(80 + number))]);
            let _ = history.diff(&mut store, &name(number), std::slice::from_ref(&guest));
        }
    }
    let mut history = history.afresh();
    history.disk.plan(faults);
    if let Ok(mut store) = history.open() {
        let _ = history.remove(&mut store, "old@1");
        let _ = history.clean_until_freed(&mut store);
        guest.extend([(5, Some(0)), (7, Some(99))]);
        let _ = history.diff(&mut store, &name(3), std::slice::from_ref(&guest));
        let _ = history.clean(&mut store);
        let _ = history.remove(&mut store, &name(1));
        let _ = history.take(&mut store, &name(4), &[run(0, 40, 9)]);
    }
    history
}

/// Each take is larger than a segment.
fn full(history: &mut History, store: &mut Store<Disk>) -> Result<(), StoreError> {
    for number in 1..4 {
        let _ = history.take(store, &format!("new@{number}"), &[run(0, 330, 1 + number)]);
    }
    let _ = history.remove(store, "old@1");
    let _ = history.remove(store, "new@1");
    history.take(store, "new@9", &[run(0, 20, 9)])
}

fn by_engine(seed: u64, faults: Faults, mode: Mode) -> History {
    let mut history = History::with(ROOMY, &[("old@1", vec![run(0, 3, 1)])]);
    history.disk.plan(faults);
    if let Ok(mut store) = history.open() {
        take::engine(&mut history, &mut store, mode, seed, Some(20 + seed % 40));
        let ended = take::engine(&mut history, &mut store, mode, seed, None);
        if faults == Faults::default() && ended != State::Sealed {
            history.wrong.push(format!("a take that nothing disturbs is not sealed: {ended:?}"));
        }
    }
    history
}

fn tracked(seed: u64, faults: Faults) -> History {
    let mut history = History::with(LONG, &[("old@1", vec![run(0, 3, 1)])]);
    history.disk.plan(faults);
    if let Ok(store) = history.open() {
        take::chain(&mut history, store, seed, faults);
    }
    history
}

/// A root or a set of segments cannot be read while a writer is at work: what it reaches is unknown, not free.
fn bad_sector(seed: u64) -> History {
    let mut history = History::with(ROOMY, &[("old@1", vec![run(0, 9, 1)]), ("old@2", vec![run(0, 9, 2)])]);
    let magic: &[u8] = if seed.is_multiple_of(2) { &layout::ROOT_MAGIC } else { &layout::Kind::SEGMENT_SET.0 };
    let image = history.disk.image();
    let unreadable = image.used().find(|at| image.bytes(*at).starts_with(magic));
    history.disk.plan(Faults { unreadable, ..Faults::default() });
    if let Ok(mut store) = history.open() {
        for number in 1..5 {
            let _ = history.take(&mut store, &format!("new@{number}"), &[run(0, 250, 3)]);
        }
    }
    history.disk.plan(Faults::default());
    if let Ok(mut store) = history.open() {
        let _ = history.take(&mut store, "new@9", &[run(0, 5, 4)]);
    }
    history
}

/// The root of a snapshot cannot be read while another one is removed, or when the store is opened for that.
fn bad_sector_remove(seed: u64) -> History {
    let mut history = History::with(ROOMY, &[("old@1", vec![run(0, 9, 1)]), ("old@2", vec![run(0, 9, 2)])]);
    let image = history.disk.image();
    let unreadable = image.used().find(|at| image.bytes(*at).starts_with(&layout::ROOT_MAGIC));
    let bad = Faults { unreadable, ..Faults::default() };
    if !seed.is_multiple_of(2) {
        history.disk.plan(bad);
    }
    if let Ok(mut store) = history.open() {
        history.disk.plan(bad);
        let _ = history.remove(&mut store, "old@2");
        let _ = history.take(&mut store, "new@1", &[run(0, 250, 3)]);
    }
    history.disk.plan(Faults::default());
    if let Ok(mut store) = history.open() {
        let _ = history.take(&mut store, "new@9", &[run(0, 5, 4)]);
    }
    history
}

/// A flush of this number fails during `reuse`; then the store is opened again and used.
pub fn failed_flush(number: u64, faults: Faults) -> History {
    let mut history = on_one(TIGHT, Faults { lose_flush: Some(number), ..faults }, reuse);
    history.disk.plan(faults);
    if let Ok(mut store) = history.open() {
        history.settle(&mut store);
        for number in 5..8 {
            // Full is fine, where a removal did not happen.
            let _ = history.take(&mut store, &format!("new@{number}"), &[run(0, 5, number + 3)]);
        }
    }
    history
}

/// Random work, cut at a random moment, again and again on what the cut left; the last part is to be explored.
fn random(seed: u64, faults: Faults) -> History {
    let mut rng = Rng(seed);
    let snapshots = [("old@1", random_runs(&mut rng)), ("old@2", random_runs(&mut rng))];
    let mut history = History::with(if rng.once_in(3) { TIGHT } else { ROOMY }, &snapshots);
    for part in 0..1 + rng.below(3) {
        if part > 0 {
            let (image, allowed) = explore::random_cut(&history, &mut rng);
            let next = History::new(Disk::with(history.blocks(), image), allowed);
            history = History { wrong: history.wrong, unsettled: true, ..next };
        }
        history.disk.plan(faults);
        random_part(&mut history, &mut rng, part);
    }
    history
}

fn random_part(history: &mut History, rng: &mut Rng, part: u64) {
    let Ok(mut store) = history.open() else {
        return history.wrong.push("cannot open what a cut left".to_owned());
    };
    history.settle(&mut store);
    for number in 0..2 + rng.below(3) {
        let names: Vec<String> = history.possible.iter().flatten().flat_map(|held| held.keys().cloned()).collect();
        match rng.below(8) {
            0 | 1 if !names.is_empty() => {
                let chosen = usize::try_from(rng.below(names.len() as u64)).unwrap_or(0);
                let _ = history.remove(&mut store, &names[chosen]);
            }
            2 => drop(history.abort(&mut store, &random_runs(rng))),
            3 => drop(history.clean(&mut store)),
            4 if !names.iter().any(|name| name == take::NAME) => {
                take::engine(history, &mut store, Mode::Live, rng.next(), Some(rng.below(400)));
            }
            5 => drop(history.disk.flush()),
            6 if rng.once_in(2) => drop(history.diff(&mut store, &format!("new@{part}-{number}"), &random_runs(rng))),
            _ => drop(history.take(&mut store, &format!("new@{part}-{number}"), &random_runs(rng))),
        }
    }
}
