//! A store and what it must hold: workloads keep both in step.

use std::collections::BTreeMap;
use std::rc::Rc;

use snapshot::ports::{BlockDevice, Page};
use snapshot::store::{
    AttachmentKind, BatchSize, Catalog, Compression, FormatOptions, NewSnapshot, PageRef, SealInfo, Sharing, Store,
    StoreError, Taking, format,
};
use xen_hypercall::types::Gfn;

use crate::disk::{Disk, Image, Rng};

/// Blocks of the smallest device.
pub const SMALL: u64 = 1287;

/// Contents with this bit pack well; the others are noise.
pub const PACKS: u64 = 1 << 32;

/// Content of a page, made from a number; 0 is the zero page.
pub fn page(content: u64) -> Page {
    let mut page = [0; 4096];
    if content & PACKS != 0 {
        let mut rng = Rng(content);
        let tail = 200 + rng.below(3000) as usize;
        page.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 16) as u8 ^ content as u8);
        page.iter_mut().take(tail / 4 * 3).for_each(|byte| *byte = rng.next() as u8);
        return page;
    }
    if content != 0 {
        let mut rng = Rng(content);
        page.chunks_mut(8).for_each(|word| word.copy_from_slice(&rng.next().to_le_bytes()));
    }
    page
}

/// One run: what it says of each gfn; None is a hole.
pub type Run = BTreeMap<u64, Option<u64>>;

/// What snapshots must say: per name the pages.
pub type Expected = BTreeMap<String, BTreeMap<u64, u64>>;

/// The pages of several runs, oldest first.
pub fn flatten(runs: &[Run]) -> BTreeMap<u64, u64> {
    let mut all = Run::new();
    runs.iter().for_each(|run| all.extend(run));
    all.into_iter().filter_map(|(gfn, content)| content.map(|content| (gfn, content))).collect()
}

/// A run of so many pages from a gfn on; every fifth is zero.
pub fn run(from: u64, count: u64, salt: u64) -> Run {
    (from..from + count).map(|gfn| (gfn, Some(if gfn % 5 == 3 { 0 } else { salt * 1_000_000 + gfn + 1 }))).collect()
}

/// As [`run`], of pages that pack, some of them equal to others, and noise between them.
pub fn packed_run(from: u64, count: u64, salt: u64) -> Run {
    let content = |gfn: u64| match gfn % 7 {
        3 => 0,
        5 => salt * 1_000_000 + gfn + 1,
        1 => PACKS | salt << 8,
        _ => PACKS | salt << 8 | (gfn + 1),
    };
    (from..from + count).map(|gfn| (gfn, Some(content(gfn)))).collect()
}

pub fn format_disk(disk: &mut Disk, id: u8) {
    let options = FormatOptions { label: "test", store_id: [id; 16], key: [id ^ 0x5a; 32], now_unix: 1_700_000_000 };
    format(disk, &options).unwrap();
}

pub fn formatted(blocks: u64) -> Disk {
    let mut disk = Disk::new(blocks);
    format_disk(&mut disk, 1);
    disk
}

pub fn open(disk: &Disk) -> Store<Disk> {
    Store::open(disk.clone()).map_err(|failed| failed.error).unwrap()
}

pub fn new(name: &str, reserve_bytes: u64) -> NewSnapshot<'_> {
    NewSnapshot {
        name,
        guest_name: "web01",
        guest_uuid: [7; 16],
        mode: "live",
        created_unix: 1_700_000_001,
        max_gfn: Gfn::new(0xffff),
        reserve_bytes,
        compression: Compression::Lz4,
        sharing: Sharing::Nothing,
        why_full: "",
    }
}

/// Puts runs into a take.
pub fn fill<D: BlockDevice>(taking: &mut Taking<'_, D>, runs: &[Run]) -> Result<(), StoreError> {
    for run in runs {
        taking.run_begin()?;
        for (gfn, content) in run {
            match content {
                Some(content) => taking.page(Gfn::new(*gfn), &page(*content))?,
                None => taking.hole(Gfn::new(*gfn))?,
            }
        }
        taking.run_end()?;
    }
    taking.attach(AttachmentKind::CONFIG_JSON, b"{}")
}

/// A whole take.
pub fn take<D: BlockDevice>(store: &mut Store<D>, name: &str, runs: &[Run]) -> Result<(), StoreError> {
    let mut taking = store.begin(&new(name, 0))?;
    fill(&mut taking, runs)?;
    taking.seal(&SealInfo { sealed_unix: 2, rounds: runs.len() as u32, ..SealInfo::default() }).map(|_| ())
}

/// The pages of a snapshot; the first damage is the answer.
pub fn read<D: BlockDevice>(catalog: &mut Catalog<D>, name: &str) -> Result<BTreeMap<u64, Page>, StoreError> {
    let mut reader = catalog.snapshot(name)?;
    let attachment = reader.attachment(AttachmentKind::CONFIG_JSON)?;
    assert_eq!(attachment.as_deref(), Some(&b"{}"[..]), "a wrong attachment");
    let mut pages = reader.pages()?;
    let mut found = BTreeMap::new();
    let mut last = None;
    while let Some((gfn, page)) = pages.next_page()? {
        assert!(last < Some(gfn.raw()), "gfn {gfn} out of order");
        last = Some(gfn.raw());
        let zero = page == PageRef::Zero;
        assert_eq!(zero, *page.bytes() == [0; 4096], "zero pages are ranges, and only they");
        found.insert(gfn.raw(), *page.bytes());
    }
    Ok(found)
}

/// Compares a snapshot with what it must hold. `Err` is damage that was noticed; a wrong page panics.
pub fn compare<D: BlockDevice>(
    catalog: &mut Catalog<D>,
    name: &str,
    expected: &BTreeMap<u64, u64>,
) -> Result<(), StoreError> {
    // Both sizes of batches, in turn.
    catalog.read_together(BatchSize::LARGE);
    let found = read(catalog, name);
    catalog.read_together(BatchSize::SMALL);
    let found = found?;
    let expected: BTreeMap<u64, Page> = expected.iter().map(|(gfn, content)| (*gfn, page(*content))).collect();
    assert!(found == expected, "{name}: wrong pages");
    let report = catalog.snapshot(name)?.verify(&mut |_, _| {})?;
    assert!(report.is_clean() && report.data_pages + report.zero_pages == expected.len() as u64);
    Ok(())
}

/// The names in a store.
pub fn names<D: BlockDevice>(catalog: &mut Catalog<D>) -> Vec<String> {
    catalog.list().unwrap().into_iter().map(|listed| listed.name).collect()
}

/// Opens an image read-only.
pub fn catalog(blocks: u64, image: &Image) -> Result<Catalog<Disk>, StoreError> {
    let disk = Disk::with(blocks, image.clone());
    disk.0.borrow_mut().read_only = true;
    Catalog::open(disk).map_err(|failed| failed.error)
}

/// A disk with this image, but for one block.
pub fn damaged(blocks: u64, image: &Image, block: u64) -> Disk {
    let mut image = image.clone();
    image.insert(block, Rc::new([0x5a; 4096]));
    Disk::with(blocks, image)
}
