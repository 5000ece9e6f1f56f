//! Where text goes: the PV console ring of dom0's console daemon, and for the last words the hypervisor's own console.
//!
//! All state is in the shared page (xen/include/public/io/console.h: out[2048] at 1024, out_cons at 3080, out_prod at
//! 3084), so an exception in the middle of a write finds nothing locked. The daemon is not believed: indices that make
//! no sense count as a full ring, and a full ring costs a bounded wait and then the text.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

use xen_hypercall::EvtchnPort;

use crate::{hv, time};

/// Bytes of the output ring.
const OUT: u32 = 2048;
/// Where the output ring starts in the page.
const OUT_AT: u64 = 1024;
/// Offset of the daemon's index.
const OUT_CONS: u64 = 3080;
/// Offset of our index.
const OUT_PROD: u64 = 3084;
/// Longest wait for room, in nanoseconds, for one piece of text.
const PATIENCE_NS: u64 = 200_000_000;

/// Address of the ring page; 0 = none yet (or dom0), text goes to the hypervisor's console.
static PAGE: AtomicU64 = AtomicU64::new(0);
static PORT: AtomicU32 = AtomicU32::new(0);
/// Bytes lost to a full ring.
static LOST: AtomicU32 = AtomicU32::new(0);
/// Set by the first who reports a death, so that a fault inside a report ends the domain instead of reporting again.
static DYING: AtomicBool = AtomicBool::new(false);

/// Starts to use the ring at `page`, an address in the 1:1 map.
pub fn attach(page: u64, port: EvtchnPort) {
    PORT.store(port.raw(), Ordering::Relaxed);
    PAGE.store(page, Ordering::Release);
}

/// Bytes that were dropped because nobody read the ring.
pub fn lost() -> u32 {
    LOST.load(Ordering::Relaxed)
}

fn index(page: u64, offset: u64) -> *mut u32 {
    (page + offset) as *mut u32
}

/// Copies what fits and returns how much that was.
fn push(page: u64, text: &[u8]) -> usize {
    // SAFETY: `attach` was given a mapped ring page of ours that stays shared for ever.
    let cons = unsafe { index(page, OUT_CONS).read_volatile() };
    // SAFETY: as above.
    let prod = unsafe { index(page, OUT_PROD).read_volatile() };
    fence(Ordering::SeqCst);
    let room = OUT.saturating_sub(prod.wrapping_sub(cons)) as usize;
    let count = room.min(text.len());
    for (step, &byte) in (0u32..).zip(&text[..count]) {
        let at = page + OUT_AT + u64::from(prod.wrapping_add(step) % OUT);
        // SAFETY: masked to the ring, inside the page.
        unsafe { (at as *mut u8).write_volatile(byte) };
    }
    fence(Ordering::SeqCst);
    // SAFETY: as above; the text is in place before the index moves.
    unsafe { index(page, OUT_PROD).write_volatile(prod.wrapping_add(count as u32)) };
    count
}

/// Writes text; waits a bounded time for room and then drops the rest.
pub fn write(mut text: &[u8]) {
    let page = PAGE.load(Ordering::Acquire);
    if page == 0 {
        hv::console_write(text);
        return;
    }
    let port = EvtchnPort::new(PORT.load(Ordering::Relaxed));
    let deadline = time::now_ns().saturating_add(PATIENCE_NS);
    loop {
        let count = push(page, text);
        text = &text[count..];
        if count != 0 {
            hv::notify(port);
        }
        if text.is_empty() || time::now_ns() >= deadline {
            break;
        }
        if count == 0 {
            hv::wait_and_clear(port, deadline);
        }
    }
    LOST.fetch_add(text.len() as u32, Ordering::Relaxed);
}

/// The last words of a domain: to Xen's console and, without waiting, into the ring.
pub struct Emergency(());

impl Emergency {
    /// None if somebody is dying already.
    pub fn begin() -> Option<Self> {
        (!DYING.swap(true, Ordering::SeqCst)).then_some(Self(()))
    }
}

impl core::fmt::Write for Emergency {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        hv::console_write(text.as_bytes());
        let page = PAGE.load(Ordering::Acquire);
        if page != 0 {
            for piece in text.split_inclusive('\n') {
                let (line, end) = piece.strip_suffix('\n').map_or((piece, ""), |line| (line, "\r\n"));
                push(page, line.as_bytes());
                push(page, end.as_bytes());
            }
            hv::notify(EvtchnPort::new(PORT.load(Ordering::Relaxed)));
        }
        Ok(())
    }
}
