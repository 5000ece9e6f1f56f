//! The guest's life: a turn, a rest, a look at xenstore. `data/shift` in its part of it holds `TURNS WRONG LIVES`.

use alloc::format;

use livesave_stubdom::boot::StartInfo;
use livesave_stubdom::mm::m2p;
use livesave_stubdom::{hv, info, panic, time};
use xen_drivers::xenstore::{Nodes, XsError};
use xen_hypercall::Mfn;

use super::life::Life;
use super::moving::Moving;
use super::tree::Tree;

/// Machine frames whose entries fill one superpage.
const PIECE: usize = 1 << 18;
/// Turns between two looks at xenstore.
const LOOK: u64 = 128;
/// Turns between two rests, and how long one is: others want the processor too.
const SPELL: u64 = 4;
const REST_NS: u64 = 100_000;

/// Shifts `frames` frames for ever. `page` is the start_info page. With the word `doomed` on the command line it ends
/// itself when it is asked to suspend.
pub fn shift(page: *const u8, start: StartInfo, frames: usize) -> ! {
    let doomed = start.command_line().is_some_and(|line| line.contains("doomed"));
    let mut life = Life::begin(page, start);
    let tree = Tree::new(&life.start).unwrap_or_else(|| panic::die(&"no memory for the tree"));
    tree.publish();
    let mut moving = Moving::new(frames).unwrap_or_else(|| panic::die(&"no memory for the tables"));
    if let Err(error) = life.store.write("control/feature-suspend", "1") {
        panic::die(&format_args!("xenstore: {error}"));
    }
    info!("shifting: {frames} frames; M2P: {} holes", holes());
    for turn in 1u64.. {
        moving.turn();
        if turn.is_multiple_of(SPELL) {
            hv::wait_and_clear(life.start.store_port, time::now_ns() + REST_NS);
        }
        if turn.is_multiple_of(LOOK)
            && let Err(error) = look(&mut life, &tree, &mut moving, (turn, doomed))
        {
            panic::die(&format_args!("xenstore: {error}"));
        }
    }
    hv::power_off()
}

/// Pieces of the M2P that Xen has not mapped: a read there faults, and what a page table in the making holds may name
/// any frame.
fn holes() -> usize {
    let pieces = (0..m2p::limit()).step_by(PIECE);
    pieces.filter(|&mfn| m2p::entry(Mfn::new(mfn)).is_none()).count()
}

/// Tells how it goes, and suspends if it is asked to.
fn look(life: &mut Life, tree: &Tree, moving: &mut Moving, (turn, doomed): (u64, bool)) -> Result<(), XsError> {
    life.store.write("data/shift", format!("{turn} {} {}", moving.wrong, life.count))?;
    if life.store.find_text("control/shutdown")?.as_deref() != Some("suspend") {
        return Ok(());
    }
    life.store.write("control/shutdown", "")?;
    if doomed {
        hv::crash();
    }
    life.suspend();
    tree.publish();
    moving.check_all();
    info!("back at turn {turn}: {} wrong, lives {}", moving.wrong, life.count);
    Ok(())
}
