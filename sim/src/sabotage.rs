//! Leaves out every flush and every safeguard of store, take and keeper, one at a time, and demands that the simulator
//! notices.

use anyhow::{Result, bail, ensure};
use snapshot::store::Safeguard;

use crate::bits::{self, Bits};
use crate::disk::{Faults, Phase, Window};
use crate::explore::{Effort, explore};
use crate::workloads::{self, Work};
use crate::world::{Slip, found};
use crate::{faults, replay, scenes};

/// Where to look.
#[derive(Clone, Copy, Debug)]
enum Where {
    /// In a workload.
    Work(&'static str),
    /// Where a flush fails and another writer follows.
    FailedFlush,
    /// In a scene.
    Scene(&'static str),
    /// Where single bits are flipped.
    Flips,
    /// In chains of incremental takes, of which nothing but the content is looked at.
    Chains,
    /// Where each operation of the device fails once, and each write is lost once.
    Errors,
    /// Among guest, stub, keeper and xenstored.
    World,
}

use Where::{Chains, Errors, FailedFlush, Flips, Scene as At, Work as In, World};

/// Every flush of a commit, of an open and of formatting, and where its absence must show.
const FLUSHES: [(Phase, Window, &[Where]); 14] = [
    (Phase::Format, Window::Void, &[In("reformat")]),
    (Phase::Format, Window::Meta, &[In("reformat")]),
    (Phase::Format, Window::Slots, &[In("reformat")]),
    (Phase::Open, Window::SlotB, &[FailedFlush]),
    (Phase::Open, Window::SlotA, &[FailedFlush]),
    (Phase::Take, Window::Meta, &[In("take")]),
    (Phase::Take, Window::SlotA, &[In("take")]),
    (Phase::Take, Window::SlotB, &[In("reuse")]),
    (Phase::Remove, Window::Meta, &[In("reuse")]),
    (Phase::Remove, Window::SlotA, &[In("reuse")]),
    (Phase::Remove, Window::SlotB, &[In("reuse")]),
    (Phase::Clean, Window::Meta, &[In("clean")]),
    (Phase::Clean, Window::SlotA, &[In("clean")]),
    (Phase::Clean, Window::SlotB, &[In("clean-reuse")]),
];

/// Where the absence of a safeguard must show.
fn places(safeguard: Safeguard) -> &'static [Where] {
    match safeguard {
        Safeguard::SlotChecksum | Safeguard::NewestSlot | Safeguard::SlotB => &[In("take")],
        Safeguard::OtherHome | Safeguard::Mirror | Safeguard::MetaDigest => &[In("take")],
        Safeguard::ListedSegments => &[In("full")],
        Safeguard::BaseDigest => &[In("diff")],
        Safeguard::MergedHoles => &[In("long-chain")],
        Safeguard::StackedSegments => &[In("chain-clean")],
        Safeguard::CleanedOthers | Safeguard::CleanedSegments => &[In("diff-clean")],
        Safeguard::Settle => &[FailedFlush],
        Safeguard::BlobDigest | Safeguard::PageDigest => &[Flips],
        Safeguard::Poison => &[FailedFlush, Errors],
        Safeguard::DamagedWaits => &[In("bad-sector")],
        Safeguard::Leases | Safeguard::LetGoAfter | Safeguard::FreedWaits => &[At("reader")],
        Safeguard::KeepWaiting => &[At("reader-twice")],
        Safeguard::ReadersAtOpen | Safeguard::CleanerReaders => &[At("reader-first")],
        Safeguard::ReadOnlyDevice | Safeguard::ForeignSlot | Safeguard::ShrunkDevice => &[At("devices")],
        Safeguard::SlotsOfOneStore | Safeguard::SlotsOfOneHistory => &[At("devices")],
        Safeguard::NewerVersion | Safeguard::UnknownFeatures | Safeguard::WriterFeatures => &[At("devices")],
        Safeguard::LeafDigest => &[In("take")],
        Safeguard::SharedAddress => &[At("shared-address")],
        Safeguard::MappedReach => &[At("unmapped")],
        Safeguard::DamagedFreesNothing | Safeguard::DamagedStaysMapped => &[In("bad-sector-remove")],
        Safeguard::CleanerDamaged => &[At("bad-root")],
        Safeguard::CleanedContent => &[At("false-content")],
        Safeguard::TakeStopsCleaner => &[At("cleaner-take")],
        Safeguard::RemovalStopsCleaner => &[At("cleaner-remove")],
        Safeguard::BatchFlush => &[At("bad-page")],
        Safeguard::PartFlush => &[At("bad-part")],
        Safeguard::NameTaken | Safeguard::DescriptionLimit => &[At("names")],
        Safeguard::MaxGfn | Safeguard::GfnLimit => &[At("gfns")],
        Safeguard::KindOnce | Safeguard::PartsLimit => &[At("parts")],
        Safeguard::BeatChecksum | Safeguard::LeaseChecksum => &[Flips],
        Safeguard::OneWriter => &[At("two-writers")],
        Safeguard::ClaimStands => &[At("two-at-once")],
        Safeguard::ForgetTaken => &[In("abort")],
        Safeguard::Canary | Safeguard::CarriedBits | Safeguard::LostBits => &[Chains],
        Safeguard::MovedPages | Safeguard::KnownBelow => &[Chains],
        Safeguard::Token | Safeguard::Verdict | Safeguard::LastSet | Safeguard::Guard => &[World],
        Safeguard::DeadStub | Safeguard::ForeignSuspend | Safeguard::Captured => &[World],
        Safeguard::LateSuspend => &[World],
    }
}

/// The first wrong point is enough.
const FIRST: Effort = Effort { exhaustive: 7, random: 24, deep: 4, thin: 16, enough: 1 };
/// Seeds of a workload that are tried.
const SEEDS: u64 = 2;
/// Chains of incremental takes that are tried.
const CHAINS: u64 = 400;
/// Flushes of `reuse` that fail once.
const FAILED_FLUSHES: u64 = 17;

/// Something that finds what is missing, and says where.
type Found = Option<(String, String)>;

/// Shows the table, of all or of those whose names have one of the words of `only`, with commas between them; fails if
/// anything can be left out unnoticed. (Power cuts with nothing left out are `crashes`.)
pub fn run_all(only: &str) -> Result<()> {
    let (mut unneeded, mut count) = (Vec::new(), 0);
    let wanted = |what: &str| only.split(',').any(|only| what.contains(only));
    let mut everywhere: Vec<Where> = scenes::ALL.iter().map(|(name, _)| At(name)).collect();
    if only.is_empty() {
        everywhere.extend([Flips, Chains, World]);
    }
    if let Some((place, how)) = search(&everywhere, Faults::default()) {
        bail!("something is wrong with nothing left out: {place}: {how}");
    }
    println!("left out                                  noticed by       how");
    for (phase, window, places) in FLUSHES {
        let what = format!("flush after {window:?} in {phase:?}");
        if !wanted(&what) {
            continue;
        }
        count += 1;
        let faults = Faults { swallow: Some((phase, window)), ..Faults::default() };
        line(&what, search(places, faults), &mut unneeded);
    }
    for safeguard in Safeguard::ALL.into_iter().filter(|safeguard| wanted(&format!("{safeguard:?}"))) {
        count += 1;
        Safeguard::leave_out(Some(safeguard));
        let found = search(places(safeguard), Faults::default());
        Safeguard::leave_out(None);
        line(&format!("{safeguard:?}"), found, &mut unneeded);
    }
    for slip in Slip::ALL.into_iter().filter(|slip| wanted(&format!("{slip:?}"))) {
        count += 1;
        Slip::make(Some(slip));
        let found = search(&[World], Faults::default());
        Slip::make(None);
        line(&format!("{slip:?}, by the keeper's hands"), found, &mut unneeded);
    }
    println!("{count} left out one by one, {} unnoticed", unneeded.len());
    ensure!(count > 0, "nothing has this name");
    ensure!(unneeded.is_empty(), "not needed, or not tested: {}", unneeded.join(", "));
    Ok(())
}

fn line(what: &str, found: Found, unneeded: &mut Vec<String>) {
    match found {
        Some((place, how)) => {
            let how: String = how.chars().take(110).collect();
            println!("{what:<41} {place:<16} {how}");
        }
        None => {
            println!("{what:<41} NOBODY");
            unneeded.push(what.to_owned());
        }
    }
}

/// The first thing that is wrong. Each search is bounded, and goes the same way every time.
fn search(places: &[Where], plan: Faults) -> Found {
    places.iter().find_map(|place| match place {
        In(name) => {
            let (name, work) = workloads::find(name)?;
            let how = (0..SEEDS).find_map(|seed| in_workload(name, work, seed, plan))?;
            Some((name.to_owned(), how))
        }
        FailedFlush => (0..FAILED_FLUSHES).find_map(|number| {
            replay::note("failed-flush", number);
            let outcome = explore(&workloads::failed_flush(number, plan), number, FIRST);
            Some((format!("failed-flush {number}"), outcome.wrong.into_iter().next()?))
        }),
        At(name) => {
            replay::note("sabotage", 0);
            Some(((*name).to_owned(), scenes::find(name)?().err()?))
        }
        Chains => (0..CHAINS).find_map(|seed| {
            let (name, work) = workloads::find("engine-tracked")?;
            replay::note(name, seed);
            Some((format!("{name} {seed}"), work(seed, plan).wrong.into_iter().next()?))
        }),
        Flips => Some(("flipped bits".to_owned(), bits::sweep(Bits::Few).err()?.to_string())),
        World => found().map(|(seed, how)| (format!("world {seed}"), how)),
        Errors => Some(("errors".to_owned(), faults::all(0).wrong.into_iter().next()?)),
    })
}

fn in_workload(name: &str, work: Work, seed: u64, plan: Faults) -> Option<String> {
    replay::note(name, seed);
    explore(&work(seed, plan), seed, FIRST).wrong.into_iter().next()
}
