//! Snapshots that share pages with older ones: by digest (`Sharing::Equal`), or by lying on top (`Sharing::Since`).

use std::collections::BTreeSet;

use snapshot::ports::BlockDevice;
use snapshot::store::{Catalog, NewSnapshot, SealInfo, Sharing, Store, StoreError, layout};

use crate::disk::{Disk, Op, Rng};
use crate::space::clean;
use crate::world::{Expected, PACKS, Run, compare, fill, flatten, formatted, new, open, packed_run, page, run};

/// 64 MiB.
const LARGE: u64 = 16_384;
/// What a commit and what belongs to a snapshot may cost, besides its pages and its index.
const FIXED: u64 = 64 << 10;

/// A take beside the snapshot of this name, or beside none.
fn beside(
    store: &mut Store<Disk>,
    name: &str,
    runs: &[Run],
    sharing: fn(u64) -> Sharing,
    base: Option<&str>,
) -> Result<snapshot::store::SnapshotSummary, StoreError> {
    let listed = store.list()?;
    let id = base.and_then(|base| listed.iter().find(|one| one.name == base)).map(|one| one.id);
    let sharing = id.map_or(Sharing::Nothing, sharing);
    let mut taking = store.begin(&NewSnapshot { sharing, ..new(name, 0) })?;
    fill(&mut taking, runs)?;
    taking.seal(&SealInfo { sealed_unix: 2, rounds: 1, ..SealInfo::default() })
}

fn catalog(disk: &Disk) -> Catalog<Disk> {
    Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap()
}

/// Everything that is there is right, the whole store is sound, and nothing is leaked.
fn all_right(disk: &Disk, expected: &Expected) {
    let mut reader = catalog(disk);
    let names: BTreeSet<String> = reader.list().unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, expected.keys().cloned().collect());
    expected.iter().for_each(|(name, pages)| compare(&mut reader, name, pages).unwrap());
    let report = reader.check(true, &mut |_, _| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.first);
    let info = open(disk).info();
    assert_eq!(info.free_segments, Some(info.segments - report.reached));
}

fn written(disk: &Disk, from: usize) -> u64 {
    disk.0.borrow().log[from..].iter().filter(|op| matches!(op, Op::Write(..))).count() as u64 * 4096
}

/// Pages that a random change gives to so many of `pages` gfns; some become zero, some go.
fn change(rng: &mut Rng, pages: u64, one_in: u64, salt: u64) -> Run {
    let chosen: Vec<u64> = (0..pages).filter(|_| rng.below(one_in) == 0).collect();
    let content = |gfn: u64, kind: u64| match kind {
        0 => None,
        1 => Some(0),
        2 => Some(PACKS | salt << 8 | (gfn + 1)),
        _ => Some(salt * 1_000_000 + gfn + 1),
    };
    chosen.into_iter().map(|gfn| (gfn, content(gfn, rng.below(9)))).collect()
}

#[test]
fn a_differential_take_writes_what_differs_and_stands_alone() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    let first = run(0, 3000, 1);
    let mut second = first.clone();
    second.extend((0..3000).filter(|gfn| gfn % 100 == 7).map(|gfn| (gfn, Some(9_000_000 + gfn))));
    beside(&mut store, "a@1", std::slice::from_ref(&first), Sharing::Equal, None).unwrap();
    let from = disk.0.borrow().log.len();
    let sealed = beside(&mut store, "a@2", std::slice::from_ref(&second), Sharing::Equal, Some("a@1")).unwrap();
    let changed = second.iter().filter(|(gfn, content)| first[gfn] != **content).count() as u64;
    assert_eq!(sealed.shared_pages, sealed.data_pages - changed);
    let cost = written(&disk, from);
    assert!(cost <= changed * 4096 + 3000 * 32 + FIXED, "{cost} bytes for {changed} pages");
    let expected = |names: &[(&str, &Run)]| -> Expected {
        names.iter().map(|(name, run)| ((*name).to_owned(), flatten(&[(*run).clone()]))).collect()
    };
    all_right(&disk, &expected(&[("a@1", &first), ("a@2", &second)]));
    let lineage = catalog(&disk).snapshot("a@2").unwrap().info().lineage.clone();
    assert_eq!((lineage.kind.as_str(), lineage.base.as_str()), ("diff", "a@1"));
    store.remove("a@1").unwrap();
    all_right(&disk, &expected(&[("a@2", &second)]));
    store.remove("a@2").unwrap();
    assert_eq!(store.info().free_segments, Some(store.info().segments));
}

#[test]
fn of_several_rounds_each_is_compared() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    let first = packed_run(0, 1500, 1);
    beside(&mut store, "a@1", std::slice::from_ref(&first), Sharing::Equal, None).unwrap();
    // The second round puts pages back to what the older snapshot has.
    let rounds = [packed_run(0, 1500, 2), first.clone().split_off(&700), Run::from([(3, None), (9, Some(0))])];
    let sealed = beside(&mut store, "a@2", &rounds, Sharing::Equal, Some("a@1")).unwrap();
    // Equal pages of the take itself are found before the older snapshot is asked.
    assert!(sealed.shared_pages >= 400, "{}", sealed.shared_pages);
    let expected = [("a@1", flatten(&[first])), ("a@2", flatten(&rounds))];
    all_right(&disk, &expected.map(|(name, pages)| (name.to_owned(), pages)).into());
}

/// Blocks of pages, known by their content, that were read since `from`.
fn pages_read(disk: &Disk, contents: &BTreeSet<u64>) -> usize {
    let pages: Vec<_> = contents.iter().map(|content| page(*content)).collect();
    let state = disk.0.borrow();
    let read = state.read_blocks.iter().filter_map(|block| state.view.get(block));
    read.filter(|block| pages.iter().any(|page| *page == ***block)).count()
}

/// Writes at most payload + 32 B per page + 64 KiB, and reads no page at all; twice the pages cost twice as much.
#[test]
fn an_incremental_take_costs_what_changed() {
    let mut costs = Vec::new();
    for changed in [0u64, 100, 400, 800, 1600, 3200] {
        let disk = formatted(2 * LARGE);
        let mut store = open(&disk);
        let first: Run = (0..6400).map(|gfn| (gfn, Some(gfn + 1))).collect();
        beside(&mut store, "a@1", std::slice::from_ref(&first), Sharing::Since, None).unwrap();
        let step = 6400u64.checked_div(changed).unwrap_or(1);
        let dirty: Run = (0..changed).map(|n| (n * step, Some(7_000_000 + n))).collect();
        let (half, rest): (Run, Run) = dirty.into_iter().partition(|(gfn, _)| gfn % 3 == 0);
        disk.0.borrow_mut().read_blocks.clear();
        let from = disk.0.borrow().log.len();
        beside(&mut store, "a@2", &[half, rest], Sharing::Since, Some("a@1")).unwrap();
        let cost = written(&disk, from);
        assert!(cost <= changed * (4096 + 32) + FIXED, "{cost} bytes for {changed} pages");
        let stored: BTreeSet<u64> = (1..40).chain(7_000_000..7_000_040).collect();
        assert_eq!(pages_read(&disk, &stored), 0, "clean pages were read");
        costs.push((changed, cost));
    }
    let fixed = costs[0].1;
    for (changed, cost) in &costs {
        assert!(*cost <= fixed + FIXED / 2 + changed * (4096 + 33), "{costs:?}");
    }
    println!("{costs:?}");
}

#[test]
fn a_chain_of_fifty_survives_random_deletions() {
    for (seed, sharing) in [(1, Sharing::Since as fn(u64) -> Sharing), (2, Sharing::Equal), (3, Sharing::Since)] {
        let disk = formatted(LARGE);
        let mut store = open(&disk);
        let mut rng = Rng(seed);
        let mut expected = Expected::new();
        let mut state = run(0, 400, 1);
        beside(&mut store, "a@00", std::slice::from_ref(&state), sharing, None).unwrap();
        expected.insert("a@00".to_owned(), flatten(&[state.clone()]));
        for number in 1..=50u64 {
            let rounds = [change(&mut rng, 420, 12, number), change(&mut rng, 420, 60, 100 + number)];
            rounds.iter().for_each(|round| state.extend(round));
            let (name, base) = (format!("a@{number:02}"), format!("a@{:02}", number - 1));
            // What lies on top is handed the changes, what is compared is handed everything.
            let whole = [state.clone()];
            let runs: &[Run] = if sharing(0) == Sharing::Since(0) { &rounds } else { &whole };
            beside(&mut store, &name, runs, sharing, Some(&base)).unwrap();
            expected.insert(name, flatten(&whole));
            while rng.below(2) == 0 && expected.len() > 1 {
                // Any but the newest, on which the next one builds.
                let victim = expected.keys().nth(rng.below(expected.len() as u64 - 1) as usize).unwrap().clone();
                store.remove(&victim).unwrap();
                expected.remove(&victim);
            }
            if number % 17 == 0 {
                clean(&mut store);
                store = open(&disk);
            }
        }
        println!("{} of 51 survive", expected.len());
        all_right(&disk, &expected);
        for name in expected.keys() {
            assert!(catalog(&disk).snapshot(name).unwrap().info().runs <= layout::RUNS_MAX as u32);
        }
        expected.keys().for_each(|name| store.remove(name).unwrap());
        assert_eq!(store.info().free_segments, Some(store.info().segments), "all is free again");
    }
}

/// Full, differential and incremental takes, removals, cleanings and new writers in random order, against a model.
#[test]
fn any_order_of_takes_and_removals_keeps_what_is_left() {
    for seed in 0..12 {
        let disk = formatted(LARGE);
        let mut store = open(&disk);
        let mut rng = Rng(seed + 100);
        let (mut expected, mut state, mut last) = (Expected::new(), run(0, 120, seed), None::<(String, Run)>);
        for number in 0..60u64 {
            let name = format!("a@{number:02}");
            let round = change(&mut rng, 130, 6, number + 1);
            state.extend(&round);
            let whole = [state.clone()];
            let alive = last.clone().filter(|(name, _)| expected.contains_key(name));
            match rng.below(8) {
                0 => beside(&mut store, &name, &whole, Sharing::Equal, None).map(|_| ()).unwrap(),
                1 | 2 => {
                    let base = expected.keys().nth(rng.below(expected.len().max(1) as u64) as usize).cloned();
                    beside(&mut store, &name, &whole, Sharing::Equal, base.as_deref()).map(|_| ()).unwrap();
                }
                3 if !expected.is_empty() => {
                    let victim = expected.keys().nth(rng.below(expected.len() as u64) as usize).unwrap().clone();
                    store.remove(&victim).unwrap();
                    expected.remove(&victim);
                    continue;
                }
                4 => {
                    clean(&mut store);
                    continue;
                }
                5 => {
                    store = open(&disk);
                    continue;
                }
                _ => match alive {
                    Some((base, before)) => {
                        let dirty = state.iter().filter(|(gfn, content)| before.get(gfn) != Some(*content));
                        let dirty: Run = dirty.map(|(gfn, content)| (*gfn, *content)).collect();
                        beside(&mut store, &name, &[dirty], Sharing::Since, Some(&base)).map(|_| ()).unwrap();
                    }
                    None => beside(&mut store, &name, &whole, Sharing::Since, None).map(|_| ()).unwrap(),
                },
            }
            expected.insert(name.clone(), flatten(&whole));
            last = Some((name, state.clone()));
        }
        all_right(&disk, &expected);
    }
}

#[test]
fn a_base_that_is_gone_is_an_error_and_nothing_changes() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    beside(&mut store, "a@1", &[run(0, 10, 1)], Sharing::Equal, None).unwrap();
    let before = (store.info(), disk.image());
    for sharing in [Sharing::Equal(77), Sharing::Since(77)] {
        let refused = store.begin(&NewSnapshot { sharing, ..new("a@2", 0) }).map(|_| ());
        assert_eq!(refused, Err(StoreError::NotFound));
    }
    assert_eq!((store.info(), disk.image()), before);
    assert_eq!(store.newest_of(&[7; 16]).unwrap(), Some((1, "a@1".to_owned())));
    assert_eq!(store.newest_of(&[8; 16]).unwrap(), None, "another guest");
    assert!(disk.blocks() > 0);
}

/// Bytes of all pages that any of these snapshots has, each counted once.
fn live_bytes(expected: &Expected) -> u64 {
    expected.values().flat_map(|pages| pages.values()).collect::<BTreeSet<_>>().len() as u64 * 4096
}

/// Keeps the last 7, of which each changed an eighth at random: what they share is cleaned, and stays shared.
#[test]
fn what_snapshots_share_is_cleaned_and_stays_shared() {
    for sharing in [Sharing::Equal as fn(u64) -> Sharing, Sharing::Since] {
        let disk = formatted(2 * LARGE);
        let mut store = open(&disk);
        let mut rng = Rng(5);
        let (mut expected, mut state, mut last) = (Expected::new(), Run::new(), None::<String>);
        for number in 0..30u64 {
            let name = format!("a@{number:02}");
            let all = 0..4000u64;
            let dirty =
                all.filter(|_| number == 0 || rng.below(8) == 0).map(|gfn| (gfn, Some(number << 20 | (gfn + 1))));
            let dirty: Run = dirty.collect();
            state.extend(&dirty);
            let handed = if sharing(0) == Sharing::Since(0) { dirty } else { state.clone() };
            beside(&mut store, &name, &[handed], sharing, last.as_deref()).unwrap();
            expected.insert(name.clone(), flatten(&[state.clone()]));
            last = Some(name);
            if expected.len() > 7 {
                store.remove(&expected.pop_first().unwrap().0).unwrap();
            }
            let digests = |store: &mut Store<Disk>| -> Vec<_> {
                store.list().unwrap().into_iter().map(|one| one.snapshot.unwrap().root_digest).collect()
            };
            let before = digests(&mut store);
            // A writer that stops in the middle of a family goes on where it was.
            for _ in 0..number * 3 {
                store.clean_step().unwrap();
            }
            store.stop_cleaning();
            clean(&mut store);
            assert_eq!(digests(&mut store), before);
            let used = u64::from(store.info().segments - store.info().free_segments.unwrap()) << 20;
            let live = live_bytes(&expected);
            // Each snapshot has a segment that is filled in part.
            assert!(used * 10 <= live * 13 + (20 << 20), "{used} used for {live}, {number}");
        }
        all_right(&disk, &expected);
        expected.keys().for_each(|name| store.remove(name).unwrap());
        assert_eq!(store.info().free_segments, Some(store.info().segments), "all is free again");
    }
}

/// A snapshot with a damaged page stays as it is, and what it shares with others too; they are cleaned without it.
#[test]
fn a_damaged_member_of_a_family_is_left_alone() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    let mut state: Run = (0..3000).map(|gfn| (gfn, Some(gfn + 1))).collect();
    beside(&mut store, "a@0", std::slice::from_ref(&state), Sharing::Equal, None).unwrap();
    let mut expected = Expected::new();
    for number in 1..4u64 {
        // Nine tenths go at once; the rest is shared by all.
        state.extend((0..3000).filter(|gfn| gfn % 10 != 0).map(|gfn| (gfn, Some(0))));
        state.insert(number, Some(77_000 + number));
        let (name, base) = (format!("a@{number}"), format!("a@{}", number - 1));
        beside(&mut store, &name, std::slice::from_ref(&state), Sharing::Equal, Some(&base)).unwrap();
        expected.insert(name, flatten(&[state.clone()]));
    }
    store.remove("a@0").unwrap();
    let wanted = page(1);
    let at = *disk.0.borrow().view.iter().find(|(_, block)| ***block == wanted).unwrap().0;
    let mut bad = wanted;
    bad[9] ^= 1;
    disk.0.borrow_mut().view.insert(at, std::rc::Rc::new(bad));
    let before = disk.image();
    assert_eq!(clean(&mut store), 0, "all of them have that page");
    assert_eq!(before.get(&at), disk.image().get(&at));
    disk.0.borrow_mut().view.insert(at, std::rc::Rc::new(wanted));
    all_right(&disk, &expected);
    assert!(clean(&mut open(&disk)) > 5, "and it is cleaned once the page is right");
    all_right(&disk, &expected);
}

/// Runs of each snapshot of a chain whose takes hand in so many pages.
fn chain_of(takes: u64, pages: u64) -> Vec<u32> {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    let base: Run = (0..2000).map(|gfn| (gfn, Some(gfn + 1))).collect();
    beside(&mut store, "a@00", &[base], Sharing::Since, None).unwrap();
    for number in 1..=takes {
        let handed = (0..pages).map(|page| (number * pages + page, Some(number << 20 | (page + 1)))).collect();
        let (name, below) = (format!("a@{number:02}"), format!("a@{:02}", number - 1));
        beside(&mut store, &name, &[handed], Sharing::Since, Some(&below)).unwrap();
    }
    store.list().unwrap().into_iter().map(|one| one.snapshot.unwrap().runs).collect()
}

#[test]
fn a_snapshot_has_so_many_runs_at_most_and_a_large_one_is_not_merged_for_a_small_one() {
    let small = chain_of(20, 1);
    // The base stays below; all above it became one.
    assert_eq!((small[15], small[16], small[17]), (16, 2, 3), "{small:?}");
    let mut below = chain_of(15, 200);
    assert!(below.iter().all(|runs| *runs <= 16) && below.pop() == Some(16), "{below:?}");
}
