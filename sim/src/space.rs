//! What a store needs when the last snapshots of one guest are kept, and each take changes a part of it at random:
//! takes that share, removals of the oldest, and the cleaner between them.

use anyhow::{Result, anyhow, ensure};
use snapshot::store::{
    Catalog, Cleaned, Compression, FormatOptions, NewSnapshot, PageRef, SealInfo, Sharing, Store, StoreError, format,
};
use xen_hypercall::types::Gfn;

use crate::content::{PACKS, page};
use crate::disk::Disk;
use crate::history::{GUEST, new};
use crate::image::Image;
use crate::replay;
use crate::rng::Rng;

/// One page in so many is changed by each take.
const CHANGED: u64 = 8;
/// The store may be so many tenths of what lives in it.
const TENTHS: u64 = 13;
/// Steps in which a cleaner must have come to an end.
const CLEANING_STEPS: usize = 1_000_000;

/// How the takes are made.
const MODES: [(&str, bool, Compression); 4] = [
    ("diff", false, Compression::None),
    ("diff, lz4", false, Compression::Lz4),
    ("incremental", true, Compression::None),
    ("incremental, lz4", true, Compression::Lz4),
];

/// A guest, the snapshots of it that are kept, and the store.
struct Kept {
    disk: Disk,
    store: Store<Disk>,
    since: bool,
    compression: Compression,
    guest: Vec<u64>,
    /// Number and pages of each snapshot, oldest first.
    snapshots: Vec<(u64, Vec<u64>)>,
}

/// Shows the table; fails if a store is larger than it may be, or holds anything wrong.
pub fn table(mib: u64, takes: u64, keep: usize, seed: u64) -> Result<()> {
    replay::note("space", seed);
    println!(
        "{takes} takes of {mib} MiB, the last {keep} kept, 1/{CHANGED} changed at random by each; after the cleaner:"
    );
    println!("mode               live MiB  used MiB  ratio  worst  takes wrote MiB  cleaner wrote MiB");
    for (mode, since, compression) in MODES {
        let mut kept = Kept::new(mib, keep, since, compression)?;
        let mut rng = Rng(seed);
        let (mut worst, mut wrote) = (0.0_f64, (0, 0));
        let mut last = (0, 0);
        for number in 0..takes {
            wrote.0 += kept.take(number, &mut rng)?;
            kept.forget(keep)?;
            wrote.1 += kept.clean()?;
            if number as usize >= keep && (number % 10 == 9 || number + 1 == takes) {
                last = (kept.live()?, kept.used());
                worst = worst.max(last.1 as f64 / last.0 as f64);
            }
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let ratio = last.1 as f64 / last.0 as f64;
        println!(
            "{mode:<17} {:>9.1} {:>9.1}  {ratio:>5.3}  {worst:>5.3} {:>16.0} {:>18.0}",
            mib(last.0),
            mib(last.1),
            mib(wrote.0),
            mib(wrote.1)
        );
        kept.judge()?;
        ensure!(last.1 * 10 <= last.0 * TENTHS, "{mode}: more than {TENTHS} tenths of the live data");
    }
    Ok(())
}

fn said(error: StoreError) -> anyhow::Error {
    anyhow!("{error}")
}

fn made(blocks: u64) -> Result<Store<Disk>> {
    let mut disk = Disk::with(blocks, Image::default());
    format(&mut disk, &FormatOptions { label: "sim", store_id: [1; 16], key: [2; 32], now_unix: 3 }).map_err(said)?;
    Store::open(disk).map_err(|failed| said(failed.error))
}

impl Kept {
    fn new(mib: u64, keep: usize, since: bool, compression: Compression) -> Result<Self> {
        let mut store = made((mib * 256 + 4096) * (2 + keep as u64))?;
        let disk = store.device_mut().clone();
        Ok(Self { disk, store, since, compression, guest: vec![0; (mib * 256) as usize], snapshots: Vec::new() })
    }

    /// Half of the pages pack.
    fn content(gfn: u64, number: u64, compression: Compression) -> u64 {
        let packs = compression == Compression::Lz4 && (gfn ^ number) & 1 == 1;
        (number + 1) << 33 | if packs { PACKS } else { 0 } | (gfn + 1)
    }

    /// Bytes written.
    fn take(&mut self, number: u64, rng: &mut Rng) -> Result<u64> {
        let first = self.snapshots.is_empty();
        let dirty: Vec<u64> = (0..self.guest.len() as u64).filter(|_| first || rng.once_in(CHANGED)).collect();
        for gfn in &dirty {
            self.guest[*gfn as usize] = Self::content(*gfn, number, self.compression);
        }
        let base = self.snapshots.last().map(|(id, _)| *id);
        let (sharing, handed) = match base {
            Some(base) if self.since => (Sharing::Since(base), dirty),
            Some(base) => (Sharing::Equal(base), (0..self.guest.len() as u64).collect()),
            None => (Sharing::Nothing, dirty),
        };
        let name = format!("web01@{number}");
        let mut taking =
            self.store.begin(&NewSnapshot { sharing, compression: self.compression, ..new(&name) }).map_err(said)?;
        taking.run_begin().map_err(said)?;
        for gfn in handed {
            taking.page(Gfn::new(gfn), &page(self.guest[gfn as usize])).map_err(said)?;
        }
        taking.run_end().map_err(said)?;
        let sealed = taking.seal(&SealInfo::default()).map_err(said)?;
        self.snapshots.push((sealed.id, self.guest.clone()));
        Ok(sealed.bytes_written)
    }

    fn forget(&mut self, keep: usize) -> Result<()> {
        while self.snapshots.len() > keep {
            let (id, _) = self.snapshots.remove(0);
            let (name, _) = self.store.named(id).map_err(said)?;
            self.store.remove(&name).map_err(said)?;
        }
        Ok(())
    }

    /// Bytes written.
    fn clean(&mut self) -> Result<u64> {
        self.disk.0.borrow_mut().log.clear();
        for _ in 0..CLEANING_STEPS {
            if self.store.clean_step().map_err(said)? == Cleaned::Nothing {
                let written = self.disk.0.borrow().written();
                self.disk.0.borrow_mut().log.clear();
                return Ok(written);
            }
        }
        Err(anyhow!("a cleaner that comes to no end"))
    }

    fn used(&self) -> u64 {
        let info = self.store.info();
        u64::from(info.segments - info.free_segments.unwrap_or(0)) << 20
    }

    /// Bytes of all different pages in the snapshots that are kept, as they would be stored in one.
    fn live(&self) -> Result<u64> {
        let mut all: Vec<u64> = self.snapshots.iter().flat_map(|(_, pages)| pages.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        if self.compression == Compression::None {
            return Ok(all.len() as u64 * 4096);
        }
        let mut store = made(all.len() as u64 * 2 + 4096)?;
        let mut taking = store.begin(&NewSnapshot { compression: self.compression, ..new("all@1") }).map_err(said)?;
        taking.run_begin().map_err(said)?;
        for (gfn, content) in (0..).zip(&all) {
            taking.page(Gfn::new(gfn), &page(*content)).map_err(said)?;
        }
        taking.run_end().map_err(said)?;
        let sealed = taking.seal(&SealInfo::default()).map_err(said)?;
        // Without its index.
        Ok(sealed.stored_bytes - all.len() as u64 * 32)
    }

    /// The store is sound, and every page of every snapshot is right.
    fn judge(&mut self) -> Result<()> {
        let mut catalog = Catalog::open(self.disk.clone()).map_err(|failed| said(failed.error))?;
        let report = catalog.check(true, &mut |_, _| {}).map_err(said)?;
        ensure!(report.is_clean(), "{:?}", report.first);
        let free = Some(report.segments - report.reached);
        ensure!(self.store.info().free_segments == free, "leaked segments");
        ensure!(self.store.newest_of(&GUEST).map_err(said)?.is_some(), "no snapshot");
        for (id, wanted) in &self.snapshots {
            let (name, _) = self.store.named(*id).map_err(said)?;
            let mut reader = catalog.snapshot(&name).map_err(said)?;
            let mut pages = reader.pages().map_err(said)?;
            let mut wanted = (0..).zip(wanted);
            while let Some((gfn, found)) = pages.next_page().map_err(said)? {
                let right =
                    wanted.next().is_some_and(|(at, content)| at == gfn.raw() && page(*content) == *found.bytes());
                ensure!(right && found != PageRef::Zero, "{name}: a wrong page at gfn {gfn}");
            }
            ensure!(wanted.next().is_none(), "{name}: pages are missing");
        }
        Ok(())
    }
}
