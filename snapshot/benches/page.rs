//! What a page costs on its way into the store and out of it, on a device of memory: what the host can measure of the
//! copy path. The rest is counted in the stub.
//!
//! Nothing is judged here: the numbers are for comparing two states of the code on one machine. With `--profile stub`
//! the code is optimised as it is in the stub.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use snapshot::copy::is_zero;
use snapshot::ports::{BlockDevice, BlockIdx, IoError, PAGE_SIZE, Page};
use snapshot::store::{
    Catalog, Compression, FormatOptions, Keys, NewSnapshot, Packer, SealInfo, Sharing, Store, format,
};
use xen_hypercall::types::Gfn;

/// Pages of a measurement: 16 MiB, more than a cache holds.
const PAGES: usize = 4096;
/// Blocks of the device: 64 MiB.
const BLOCKS: usize = 16_384;

/// A device that only copies.
struct Memory(Vec<u8>);

impl Memory {
    fn range(&self, at: BlockIdx, bytes: usize) -> Result<std::ops::Range<usize>, IoError> {
        let start = usize::try_from(at.0).unwrap().saturating_mul(PAGE_SIZE);
        let end = start.saturating_add(bytes);
        if end <= self.0.len() { Ok(start..end) } else { Err(IoError::OutOfRange { at }) }
    }
}

impl BlockDevice for Memory {
    fn blocks(&self) -> u64 {
        (self.0.len() / PAGE_SIZE) as u64
    }

    fn read_only(&self) -> bool {
        false
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        let range = self.range(at, data.len())?;
        self.0[range].copy_from_slice(data);
        Ok(())
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        let range = self.range(at, into.len())?;
        into.copy_from_slice(&self.0[range]);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

/// A page that no packer makes smaller, another one for each seed.
fn noise(seed: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in &mut page {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    page
}

/// A page that packs to about a quarter: noise, then a pattern.
fn text(seed: u64) -> Page {
    let mut page = noise(seed);
    for (at, byte) in page.iter_mut().enumerate().skip(PAGE_SIZE / 4) {
        *byte = (at % 16) as u8;
    }
    page
}

fn pages(of: fn(u64) -> Page) -> Vec<Page> {
    (0..PAGES as u64).map(of).collect()
}

fn single(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("page");
    group.throughput(Throughput::Bytes(PAGE_SIZE as u64));
    zero_test(&mut group);
    let (keys, one) = (Keys::of(&[7; 32]), noise(1));
    group.bench_function("copy", |bench| {
        let mut into = [0; PAGE_SIZE];
        bench.iter(|| black_box(&mut into).copy_from_slice(black_box(&one)));
    });
    group.bench_function("digest", |bench| bench.iter(|| keys.page(black_box(&one))));
    for (name, page) in [("pack compressible", text(1)), ("pack incompressible", one)] {
        group.bench_function(name, |bench| {
            // A new packer each time: one that has missed often tries no more.
            bench.iter_batched_ref(
                || Packer::new(Compression::Lz4).unwrap(),
                |packer| packer.pack(black_box(&page)).map(<[u8]>::len),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn zero_test(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (zero, mut first, mut last) = ([0; PAGE_SIZE], [0; PAGE_SIZE], [0; PAGE_SIZE]);
    first[0] = 1;
    last[PAGE_SIZE - 1] = 1;
    for (name, page) in [("zero test, zero", &zero), ("zero test, first", &first), ("zero test, last", &last)] {
        group.bench_function(name, |bench| bench.iter(|| is_zero(black_box(page))));
    }
}

fn formatted() -> Store<Memory> {
    let mut device = Memory(vec![0; BLOCKS * PAGE_SIZE]);
    let options = FormatOptions { label: "bench", store_id: [1; 16], key: [2; 32], now_unix: 0 };
    format(&mut device, &options).unwrap();
    Store::open(device).map_err(|failed| failed.error).unwrap()
}

fn new(compression: Compression) -> NewSnapshot<'static> {
    NewSnapshot {
        name: "bench@1",
        guest_name: "bench",
        guest_uuid: [7; 16],
        mode: "live",
        created_unix: 0,
        max_gfn: Gfn::new(PAGES as u64),
        reserve_bytes: 0,
        compression,
        sharing: Sharing::Nothing,
        why_full: "",
    }
}

/// A run of these pages in a take, which is given up, or sealed.
fn store_all(store: &mut Store<Memory>, compression: Compression, pages: &[Page], seal: bool) {
    let mut taking = store.begin(&new(compression)).unwrap();
    taking.run_begin().unwrap();
    for (gfn, page) in (0..).zip(pages) {
        // As the copy does it.
        if is_zero(page) { taking.zero(Gfn::new(gfn)) } else { taking.page(Gfn::new(gfn), page) }.unwrap();
    }
    taking.run_end().unwrap();
    if seal {
        taking.seal(&SealInfo::default()).unwrap();
    }
}

fn storing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Bytes((PAGES * PAGE_SIZE) as u64)).sample_size(20);
    let mut store = formatted();
    for (name, compression, of) in [
        ("raw", Compression::None, noise as fn(u64) -> Page),
        ("raw, tried to pack", Compression::Lz4, noise),
        ("packed", Compression::Lz4, text),
        ("zero", Compression::Lz4, |_| [0; PAGE_SIZE]),
        ("duplicate", Compression::Lz4, |_| noise(1)),
    ] {
        let pages = pages(of);
        group.bench_function(name, |bench| bench.iter(|| store_all(&mut store, compression, &pages, false)));
    }
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Bytes((PAGES * PAGE_SIZE) as u64)).sample_size(20);
    for (name, of) in [("raw", noise as fn(u64) -> Page), ("packed", text)] {
        let mut store = formatted();
        store_all(&mut store, Compression::Lz4, &pages(of), true);
        let mut catalog = Catalog::open(store.into_device()).map_err(|failed| failed.error).unwrap();
        group.bench_function(name, |bench| {
            bench.iter(|| assert!(catalog.snapshot("bench@1").unwrap().verify(&mut |_, _| {}).unwrap().is_clean()));
        });
    }
    group.finish();
}

criterion_group!(benches, single, storing, reading);
criterion_main!(benches);
