//! Guests from 64 MiB to 1 TiB, of which few pages are there: what a take of each costs in memory and in requests.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, ensure};
use snapshot::fields::Line as Text;
use snapshot::ports::*;
use snapshot::request::Mode;
use snapshot::status::{State, Status};
use snapshot::store::Store;
use snapshot::take::{Engine, Options, StoreRecorder};
use snapshot::verdict::Verdict;
use xen_hypercall::types::{DomId, Gfn};

use super::setup::{HANDLE, Setup, TOKEN, take_request};
use super::work::NAME;
use crate::content::page;
use crate::disk::Disk;
use crate::heap;
use crate::history::{CONFIG, History};

/// Sizes of the guests in MiB.
const SIZES: [u64; 8] = [64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1 << 20];
/// Pages that are there, spread evenly over the gfns.
const POPULATED: u64 = 8192;
/// Blocks of the device.
const BLOCKS: u64 = 65_536;
/// What the stub gives the engine for its lists and the last set, besides bitmaps.
const MEMORY_BYTES: usize = 16 << 20;
/// Bitmaps of the guest that a take holds: what is to be sent, what is there, and, with tracking, what a round skips
/// ([`snapshot::tracking`]).
const BITMAPS: usize = 3;
/// All that a take may hold besides them, whatever the size of the guest.
const BESIDE_BYTES: usize = 1 << 20;
/// What a call takes.
const CALL_NS: u64 = 30_000;

/// Prints the table.
pub fn table(largest_mib: u64) -> Result<()> {
    println!("| MiB | mode | heap KiB | bitmaps KiB | besides KiB | index KiB | reads | writes | flushes |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for mib in SIZES.into_iter().filter(|mib| *mib <= largest_mib) {
        for mode in [Mode::Save, Mode::Live] {
            one(mib, mode)?;
        }
    }
    Ok(())
}

fn one(mib: u64, mode: Mode) -> Result<()> {
    let gfns = mib * 256;
    let history = History::empty(BLOCKS);
    let device = Counted { disk: history.disk, reads: 0, writes: 0, flushes: 0 };
    let guest = Guest(Rc::new(RefCell::new(World { gfns, ..World::default() })));
    let bitmap = usize::try_from(gfns / 8)?;
    let (status, peak) = heap::peak(|| take(device, &guest, mode, MEMORY_BYTES + BITMAPS * bitmap));
    let (status, mut store) = status?;
    ensure!(status.state == State::Sealed, "{mib} MiB, {mode}: {status:?}");
    let listed = store.list().map_err(|error| anyhow!("{error:?}"))?;
    let info = listed
        .iter()
        .find(|one| one.name == NAME)
        .context("the snapshot")?
        .snapshot
        .clone()
        .map_err(|error| anyhow!("{error:?}"))?;
    ensure!(info.data_pages == POPULATED, "{} of {POPULATED} pages", info.data_pages);
    let attached: u64 = info.attachments.iter().map(|(_, bytes)| bytes.next_multiple_of(4096)).sum();
    let index = info.stored_bytes.saturating_sub(info.data_pages * 4096 + attached);
    let bitmaps = bitmap * if mode == Mode::Save { BITMAPS - 1 } else { BITMAPS };
    let beside = peak.saturating_sub(bitmaps);
    let Counted { reads, writes, flushes, .. } = store.device_mut();
    let [heap, bitmaps, besides] = [peak, bitmaps, beside].map(|bytes| bytes >> 10);
    println!("| {mib} | {mode} | {heap} | {bitmaps} | {besides} | {} | {reads} | {writes} | {flushes} |", index >> 10);
    ensure!(beside <= BESIDE_BYTES, "a take of {mib} MiB in mode {mode} holds {besides} KiB besides its bitmaps");
    Ok(())
}

fn take(device: Counted, guest: &Guest, mode: Mode, memory_bytes: usize) -> Result<(Status, Store<Counted>)> {
    let request = take_request(&Setup { mode, ..Setup::default() });
    let mut store = Store::open(device).map_err(|failed| anyhow!("{:?}", failed.error))?;
    let mut recorder = StoreRecorder::new(&mut store);
    let options = Options { memory_bytes, hold: None };
    let (mut target, mut control) = (guest.clone(), guest.clone());
    let status = Engine::new(&mut target, &mut control, &mut recorder, &request, CONFIG, options).run();
    drop(recorder);
    Ok((status, store))
}

/// A device that counts requests.
struct Counted {
    disk: Disk,
    reads: u64,
    writes: u64,
    flushes: u64,
}

impl BlockDevice for Counted {
    fn blocks(&self) -> u64 {
        self.disk.blocks()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.writes += 1;
        heap::uncounted(|| self.disk.write(at, data))
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.reads += 1;
        heap::uncounted(|| self.disk.read(at, into))
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.flushes += 1;
        heap::uncounted(|| self.disk.flush())
    }
}

/// A guest that writes nothing, and its keeper.
#[derive(Default)]
struct World {
    gfns: u64,
    now_ns: u64,
    calls: u64,
    tracked: bool,
    suspended: bool,
    released: bool,
    messages: VecDeque<Message>,
}

#[derive(Clone)]
struct Guest(Rc<RefCell<World>>);

impl Guest {
    fn call(&self) -> std::cell::RefMut<'_, World> {
        let mut world = self.0.borrow_mut();
        world.calls += 1;
        world.now_ns += CALL_NS;
        world
    }

    fn there(&self, gfn: Gfn) -> bool {
        gfn.raw().is_multiple_of(self.0.borrow().gfns / POPULATED)
    }
}

impl DomainControl for Guest {
    fn info(&mut self) -> Result<DomainInfo, TargetError> {
        let world = self.call();
        Ok(DomainInfo {
            domid: DomId::new(9),
            handle: HANDLE,
            dying: false,
            shutdown: world.suspended.then_some(ShutdownCode::SUSPEND),
            paused: false,
            hvm: true,
            tot_pages: POPULATED,
            max_pages: world.gfns,
            max_vcpu_id: 1,
            cpu_time_ns: 0,
        })
    }

    fn hypercalls(&self) -> u64 {
        self.0.borrow().calls
    }

    fn max_gfn(&mut self) -> Result<Gfn, TargetError> {
        Ok(Gfn::new(self.call().gfns - 1))
    }

    fn static_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        out(RecordKind::X86_CPUID_POLICY, &[1; 24]);
        Ok(())
    }

    fn platform_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        out(RecordKind::HVM_CONTEXT, &[0; 8]);
        Ok(())
    }
}

impl DirtyLog for Guest {
    fn enable(&mut self) -> Result<(), TargetError> {
        let mut world = self.call();
        if std::mem::replace(&mut world.tracked, true) { Err(TargetError::AlreadyOn) } else { Ok(()) }
    }

    fn clean(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.peek(into)
    }

    fn peek(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        drop(self.call());
        into.fill(0);
        Ok(0)
    }

    fn peek_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.peek(into)
    }

    fn clean_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.peek(into)
    }

    fn dirty_count(&mut self) -> Result<u64, TargetError> {
        drop(self.call());
        Ok(0)
    }

    fn still_on(&mut self) -> Result<bool, TargetError> {
        let mut world = self.call();
        Ok(std::mem::replace(&mut world.tracked, true))
    }

    fn off(&mut self) -> Result<(), TargetError> {
        self.call().tracked = false;
        Ok(())
    }
}

impl GuestMemory for Guest {
    fn types(&mut self, gfns: &[Gfn], out: &mut [PageType]) -> Result<(), TargetError> {
        drop(self.call());
        for (gfn, kind) in gfns.iter().zip(out) {
            *kind = if self.there(*gfn) { PageType::NOTAB } else { PageType::XTAB };
        }
        Ok(())
    }

    fn copy(&mut self, gfns: &[Gfn], out: &mut PageSink<'_>) -> Result<(), TargetError> {
        drop(self.call());
        for (index, gfn) in gfns.iter().enumerate() {
            let content = if self.there(*gfn) { Ok(page(gfn.raw() + 1)) } else { Err(PageError { errno: 22 }) };
            if out(index, content.as_ref().map_err(|error| *error)).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn land(&mut self, gfns: &[Gfn], at: &mut dyn Landing) -> Result<(), TargetError> {
        drop(self.call());
        for (index, gfn) in gfns.iter().enumerate() {
            let there = self.there(*gfn);
            let mut fill = |place: &mut Page| {
                if !there {
                    return Err(PageError { errno: 22 });
                }
                *place = page(gfn.raw() + 1);
                Ok(())
            };
            if at.land(index, &mut fill).is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl Clock for Guest {
    fn now_ns(&mut self) -> u64 {
        self.0.borrow().now_ns
    }

    fn stolen_ns(&mut self) -> u64 {
        0
    }
}

impl Control for Guest {
    fn publish(&mut self, status: &Status) -> Result<(), ControlLost> {
        let mut world = self.call();
        world.suspended |= status.state == State::WantSuspend && !world.released;
        if status.state == State::Captured {
            let verdict = Verdict { token: TOKEN, resumed: true, reason: Text::default(), disks: Default::default() };
            world.messages.push_back(Message::Verdict(verdict));
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Message>, ControlLost> {
        Ok(self.0.borrow_mut().messages.pop_front())
    }

    fn wait(&mut self, until_ns: u64) -> Result<(), ControlLost> {
        let mut world = self.call();
        if world.messages.is_empty() {
            world.now_ns = world.now_ns.max(until_ns);
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), ControlLost> {
        let mut world = self.call();
        (world.suspended, world.released) = (false, true);
        Ok(())
    }
}
