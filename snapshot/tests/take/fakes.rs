//! The ports of the engine over the [`World`]. Each checks what its contract says before it answers.

use std::cell::RefMut;

use snapshot::ports::*;
use snapshot::session::Trouble;
use snapshot::status::{Counters, State, Status};
use snapshot::take::{Attachment, Ground, NewTake, Recorder};
use snapshot::tracking::LEAF_BITS;
use xen_hypercall::types::Gfn;

use super::setup::page_with;
use super::world::{FOREIGN, KEPT, Shared, World, injected};

const BROKEN: TargetError = TargetError::Hypercall { op: "injected", errno: 14 };

pub struct Target(pub Shared);

impl Target {
    /// Each call counts, takes its time, and may be the one that fails.
    fn enter(&mut self) -> Result<RefMut<'_, World>, TargetError> {
        let mut world = self.0.borrow_mut();
        world.target_calls += 1;
        if world.tick() { Err(BROKEN) } else { Ok(world) }
    }

    fn call<A>(&mut self, answer: impl FnOnce(&mut World) -> Result<A, TargetError>) -> Result<A, TargetError> {
        let mut world = self.enter()?;
        world.alive()?;
        answer(&mut world)
    }

    /// A CLEAN: one that fails has cleared what it did not hand out (xen/arch/x86/mm/paging.c, paging_log_dirty_op).
    fn cleaning(&mut self, answer: impl FnOnce(&mut World) -> u64) -> Result<u64, TargetError> {
        let count = self.call(|world| Ok(answer(world)));
        let mut world = self.0.borrow_mut();
        if count.is_ok() || count == Err(BROKEN) {
            world.dirty.fill(false);
            world.protect_all();
        }
        count
    }

    /// A call that compares no handle: another domain that has the domid answers it as well.
    fn ask<A>(&mut self, answer: impl FnOnce(&mut World) -> A) -> Result<A, TargetError> {
        let mut world = self.enter()?;
        if world.dying { Err(TargetError::Gone) } else { Ok(answer(&mut world)) }
    }
}

impl DomainControl for Target {
    fn info(&mut self) -> Result<DomainInfo, TargetError> {
        let world = self.enter()?;
        if world.gone { Err(TargetError::Gone) } else { Ok(world.info()) }
    }

    fn hypercalls(&self) -> u64 {
        self.0.borrow().target_calls
    }

    fn max_gfn(&mut self) -> Result<Gfn, TargetError> {
        self.ask(|world| {
            world.last_look = world.calls;
            Gfn::new(world.setup.gfns as u64 - 1)
        })
    }

    fn static_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.call(|world| {
            assert!(!world.suspend_wanted(), "not in the pause");
            out(RecordKind::X86_CPUID_POLICY, &[1; 24]);
            Ok(())
        })
    }

    fn platform_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.ask(|world| {
            // The state of a guest that runs is worth nothing, but Xen gives it.
            let instant = if world.running() { world.now_ns } else { 0 };
            out(RecordKind::HVM_CONTEXT, &instant.to_le_bytes());
        })
    }
}

fn fill(world: &World, into: &mut [u64]) -> u64 {
    assert_eq!(
        into.len() as u64 * 64,
        (world.setup.gfns as u64).next_multiple_of(LEAF_BITS),
        "whole leaves for every gfn"
    );
    into.fill(0);
    if world.gone {
        into[0] = u64::MAX;
        return 64;
    }
    if !world.log_dirty {
        return 0;
    }
    for (gfn, _) in world.dirty.iter().enumerate().filter(|(_, dirty)| **dirty) {
        into[gfn / 64] |= 1 << (gfn % 64);
    }
    world.dirty.iter().filter(|dirty| **dirty).count() as u64
}

impl DirtyLog for Target {
    fn enable(&mut self) -> Result<(), TargetError> {
        self.call(|world| {
            if world.log_dirty {
                return Err(TargetError::AlreadyOn);
            }
            world.log_dirty = true;
            world.dirty.fill(false);
            world.protect_all();
            Ok(())
        })
    }

    fn clean(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.cleaning(|world| {
            let count = fill(world, into);
            world.cleans += 1;
            count
        })
    }

    fn peek(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.ask(|world| {
            world.early_peeks += u64::from(world.cleans == 0);
            fill(world, into)
        })
    }

    fn peek_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.ask(|world| {
            world.xen_marks_its_own();
            fill(world, into)
        })
    }

    fn clean_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.cleaning(|world| {
            world.xen_marks_its_own();
            fill(world, into)
        })
    }

    fn dirty_count(&mut self) -> Result<u64, TargetError> {
        self.ask(|world| world.dirty.iter().filter(|dirty| **dirty).count() as u64)
    }

    fn still_on(&mut self) -> Result<bool, TargetError> {
        self.call(|world| Ok(std::mem::replace(&mut world.log_dirty, true)))
    }

    fn off(&mut self) -> Result<(), TargetError> {
        self.call(|world| {
            world.log_dirty = false;
            Ok(())
        })
    }
}

fn check_batch(gfns: &[Gfn]) {
    assert!(!gfns.is_empty() && gfns.len() <= BATCH_MAX);
    assert!(gfns.windows(2).all(|pair| pair[0] < pair[1]), "ascending, none twice");
}

impl GuestMemory for Target {
    fn types(&mut self, gfns: &[Gfn], out: &mut [PageType]) -> Result<(), TargetError> {
        check_batch(gfns);
        assert_eq!(gfns.len(), out.len());
        self.ask(|world| {
            world.types_calls += 1;
            for (gfn, kind) in gfns.iter().zip(out) {
                let populated = world.gone || world.memory.get(gfn.raw() as usize).is_some_and(Option::is_some);
                *kind = if populated { PageType::NOTAB } else { PageType::XTAB };
            }
        })
    }

    fn copy(&mut self, gfns: &[Gfn], out: &mut PageSink<'_>) -> Result<(), TargetError> {
        check_batch(gfns);
        let unchecked = self.0.borrow().setup.unchecked_copy;
        if unchecked { self.ask(|_| ()) } else { self.call(|_| Ok(())) }?;
        for (index, gfn) in gfns.iter().enumerate() {
            let page = {
                let mut world = self.0.borrow_mut();
                world.spend(1_000);
                if index % 16 == 0 && world.setup.writes > 0 {
                    world.guest_writes();
                }
                page_of(&world, gfn.raw() as usize)
            };
            if out(index, page.as_ref().map_err(|error| *error)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn land(&mut self, gfns: &[Gfn], at: &mut dyn Landing) -> Result<(), TargetError> {
        check_batch(gfns);
        self.ask(|_| ())?;
        let _ = gfns.iter().enumerate().try_for_each(|(index, gfn)| self.land_one(index, *gfn, at));
        Ok(())
    }
}

impl Target {
    fn land_one(&mut self, index: usize, gfn: Gfn, at: &mut dyn Landing) -> Result<(), Stop> {
        let page = {
            let mut world = self.0.borrow_mut();
            world.spend(1_000);
            if index.is_multiple_of(16) && world.setup.writes > 0 {
                world.guest_writes();
            }
            page_of(&world, gfn.raw() as usize)
        };
        at.land(index, &mut |place| page.map(|page| *place = page))
    }
}

fn page_of(world: &World, gfn: usize) -> Result<Page, PageError> {
    let content = world.gone.then_some(FOREIGN).or(world.memory[gfn]).or(world.is_special(gfn).then_some(world.now_ns));
    let mapped = !world.unmappable || gfn >= world.setup.working_set;
    let content = content.filter(|_| mapped).ok_or(PageError { errno: 22 })?;
    Ok(page_with(content, world.setup.noise))
}

pub struct Line(pub Shared);

impl Clock for Line {
    fn now_ns(&mut self) -> u64 {
        self.0.borrow().now_ns
    }

    fn stolen_ns(&mut self) -> u64 {
        self.0.borrow().stolen_ns
    }

    fn blocked_ns(&mut self) -> u64 {
        self.0.borrow().blocked_ns
    }
}

impl Line {
    fn call<A>(&mut self, answer: impl FnOnce(&mut World) -> A) -> Result<A, ControlLost> {
        let mut world = self.0.borrow_mut();
        if world.tick() || world.xenstore_dead {
            world.xenstore_dead = true;
            return Err(ControlLost);
        }
        Ok(answer(&mut world))
    }
}

impl Control for Line {
    fn publish(&mut self, status: &Status) -> Result<(), ControlLost> {
        let text = status.to_string();
        assert_eq!(Status::parse(text.as_bytes()).as_ref(), Ok(status), "what is published can be read");
        self.call(|world| {
            let over = world.statuses.last().is_some_and(|last| last.state.is_final());
            assert!(!over, "nothing follows a final state");
            let captured = matches!(status.state, State::Captured | State::Flushing | State::Sealed);
            assert!(!captured || world.releases == 1, "captured is said after the edge");
            world.keeper_reads(status);
        })
    }

    fn poll(&mut self) -> Result<Option<Message>, ControlLost> {
        // Polling is free: it must not change which call is the n-th.
        let mut world = self.0.borrow_mut();
        if world.xenstore_dead { Err(ControlLost) } else { Ok(world.messages.pop_front()) }
    }

    fn wait(&mut self, until_ns: u64) -> Result<(), ControlLost> {
        self.call(|world| {
            world.waits += 1;
            let rest_ns = until_ns.saturating_sub(world.now_ns);
            if world.messages.is_empty() {
                world.pass(rest_ns);
            }
        })
    }

    fn release(&mut self) -> Result<(), ControlLost> {
        self.0.borrow_mut().edge();
        self.call(|_| ())
    }
}

pub struct Store(pub Shared);

impl Store {
    fn call<A>(&mut self, answer: impl FnOnce(&mut World) -> A) -> Result<A, Trouble> {
        let mut world = self.0.borrow_mut();
        assert!(!world.stored.broken, "after an error only abort");
        world.store_called();
        if world.tick() {
            world.stored.broken = true;
            return Err(injected());
        }
        Ok(answer(&mut world))
    }

    fn put(&mut self, gfn: Gfn, content: Option<u64>) -> Result<(), Trouble> {
        let mut world = self.0.borrow_mut();
        world.store_called();
        world.stored.content += u64::from(content.is_some_and(|content| content != 0));
        // Whoever has the domid now may have more memory.
        assert!(world.gone || world.stored.content <= world.stored.reserved_pages, "never more than was set aside");
        content.filter(|content| *content != 0).iter().for_each(|_| world.give_to_disk());
        let stored = &mut world.stored;
        assert!(!stored.broken && stored.in_run);
        assert!(stored.last_gfn.replace(gfn.raw()).is_none_or(|last| last < gfn.raw()), "ascending in a run");
        match content {
            Some(content) => stored.pages.insert(gfn.raw(), content),
            None => stored.pages.remove(&gfn.raw()),
        };
        Ok(())
    }
}

impl Recorder for Store {
    fn begin(&mut self, new: &NewTake<'_>) -> Result<Ground, Trouble> {
        assert!(new.reserve_bytes >= new.info.tot_pages * 4096);
        self.call(|world| {
            world.stored.reserved_pages = new.reserve_bytes / 4096;
            assert!(!std::mem::replace(&mut world.stored.begun, true));
            Ground::default()
        })
    }

    fn settle(&mut self) -> Result<(), Trouble> {
        self.0.borrow_mut().wait_for_disk();
        Ok(())
    }

    fn pace(&mut self) -> Pace {
        self.0.borrow().pace()
    }

    fn run_begin(&mut self) -> Result<(), Trouble> {
        self.call(|world| {
            assert!(world.stored.begun && !std::mem::replace(&mut world.stored.in_run, true));
            world.stored.last_gfn = None;
            world.stored.runs += 1;
        })
    }

    fn page(&mut self, gfn: Gfn, page: &Page) -> Result<(), Trouble> {
        let content = u64::from_le_bytes(page[..8].try_into().unwrap());
        assert!(content != 0, "a page of zeros is not content");
        assert_eq!(page[..8], page[PAGE_SIZE - 8..]);
        self.put(gfn, Some(content))
    }

    fn zero(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        self.put(gfn, Some(0))
    }

    fn hole(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        self.put(gfn, None)
    }

    fn run_end(&mut self) -> Result<(), Trouble> {
        self.call(|world| assert!(std::mem::take(&mut world.stored.in_run)))
    }

    fn attach(&mut self, kind: Attachment, bytes: &[u8]) -> Result<(), Trouble> {
        self.call(|world| {
            assert!(!world.suspend_wanted() || world.releases == 1, "no write to disk for it in the pause");
            assert!(world.stored.attachments.iter().all(|(other, _)| *other != kind));
            world.stored.attachments.push((kind, bytes.to_vec()));
        })
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        self.call(|world| {
            assert!(!world.stored.in_run && world.releases == 1);
            world.stored.flushed = true;
        })
    }

    fn seal(&mut self, _: &Counters) -> Result<(), Trouble> {
        self.call(|world| {
            assert!(world.stored.flushed && !world.stored.aborted && world.stored.attachments.len() == 6);
            assert_eq!(world.stored.attachments[5], (Attachment::Disks, KEPT.as_bytes().to_vec()));
            world.stored.sealed = true;
        })
    }

    fn abort(&mut self) -> Result<(), Trouble> {
        let mut world = self.0.borrow_mut();
        assert!(!world.stored.sealed);
        world.stored.aborted = true;
        world.stored.in_run = false;
        Ok(())
    }
}
