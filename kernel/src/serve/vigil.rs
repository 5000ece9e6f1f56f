//! The guests that stay tracked between their snapshots, and a look at each of them every second.
//!
//! Xen 4.17 does not mark a page that is added to a guest's p2m, so memory that leaves and comes back between two
//! snapshots leaves no trace but in the guest's size: whoever wants to rely on the dirty bits has to have watched it.
//! Invariants: every guest here has its tracking on, by us; who leaves this list in any way but with a take has it
//! switched off. The list is short and bounded.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use snapshot::fields::Line;
use snapshot::ports::{DirtyLog, DomainControl, TargetError};
use snapshot::store::Store;
use snapshot::take::{After, Armed, Before, Habits};
use xen_drivers::platform::Platform;
use xen_hypercall::{DomHandle, DomId};

use crate::platform::Xen;
use crate::ports::{Disk, XenTarget};
use crate::{error, info, warn};

/// Most guests that stay tracked: each costs five bits for every page of its address space, a PV guest eight.
const GUESTS_MAX: usize = 4;
/// Reasons that are remembered for guests that are tracked no more.
const REASONS_MAX: usize = 16;
/// Between two looks.
const LOOK_NS: u64 = 1_000_000_000;
/// Between two looks at the dirty bits of one guest: Xen stops it for each.
const BITS_NS: u64 = 5_000_000_000;
/// Memory that nobody looked at for longer may have left and come back.
const GAP_NS: u64 = 10_000_000_000;

struct Watched {
    armed: Armed,
    looked_ns: u64,
    bits_ns: u64,
    /// Its tracking is to end, and could not be switched off so far.
    ends: bool,
}

/// The list.
#[derive(Default)]
pub struct Vigil {
    guests: Vec<Watched>,
    reasons: Vec<(DomHandle, Line)>,
    habits: Habits,
    next_ns: u64,
    changed: bool,
}

impl Vigil {
    /// When the next look is due.
    pub fn next_ns(&self) -> u64 {
        if self.guests.is_empty() { u64::MAX } else { self.next_ns }
    }

    /// What is known of a guest that is about to be taken. It is on the list no more.
    pub fn before(&mut self, domid: DomId, handle: DomHandle) -> Before {
        self.look();
        let known = |watched: &Watched| watched.armed.domid == domid && watched.armed.handle == handle;
        let armed = self.guests.iter().position(known).map(|at| self.guests.swap_remove(at).armed);
        let why = self.reasons.iter().position(|(guest, _)| *guest == handle).map(|at| self.reasons.swap_remove(at).1);
        let first = || Line::of("the guest was not tracked so far");
        Before { armed, why: why.unwrap_or_else(first), freeze_ns: self.habits.freeze_ns(handle) }
    }

    /// A take has ended: if the guest stays tracked, it is on the list from now on.
    pub fn keep(&mut self, guest: DomHandle, after: After) {
        if let Some(freeze_ns) = after.freeze_ns {
            self.habits.learn(guest, freeze_ns);
        }
        let Some(armed) = after.armed else { return };
        let now_ns = Xen.now_ns();
        if self.guests.len() >= GUESTS_MAX {
            let oldest = self.guests.remove(0).armed;
            self.let_go(oldest, Line::of(format_args!("the stub tracks {GUESTS_MAX} guests at most")));
        }
        info!("domain {} stays tracked since {}", armed.domid, armed.name);
        self.next_ns = now_ns.saturating_add(LOOK_NS);
        self.guests.push(Watched { armed, looked_ns: now_ns, bits_ns: now_ns.saturating_add(BITS_NS), ends: false });
    }

    /// Whether guests have left the list since this was last asked, without a request.
    pub fn changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// Looks at the size of each, if it is time. One that is gone is forgotten.
    pub fn look(&mut self) {
        let now_ns = Xen.now_ns();
        if self.guests.is_empty() || now_ns < self.next_ns {
            return;
        }
        self.next_ns = now_ns.saturating_add(LOOK_NS);
        let mut gone = None;
        self.guests.retain_mut(|watched| {
            let Watched { armed, looked_ns, .. } = watched;
            match XenTarget::new(armed.domid, armed.handle).and_then(|mut target| target.info()) {
                Err(TargetError::Gone) => {
                    info!("domain {} is gone, and tracked no more", armed.domid);
                    gone = Some(armed.handle);
                    return false;
                }
                Err(error) => warn!("looking at domain {}: {error}", armed.domid),
                Ok(info) => {
                    let gap_ns = now_ns.saturating_sub(core::mem::replace(looked_ns, now_ns));
                    if info.tot_pages != armed.tot_pages {
                        doubt(armed, Line::of("the guest's memory changed its size since its last snapshot"));
                    } else if gap_ns > GAP_NS {
                        let seconds = gap_ns / 1_000_000_000;
                        doubt(armed, Line::of(format_args!("nobody looked at the guest's memory for {seconds} s")));
                    }
                }
            }
            true
        });
        // Two at the same moment: the other one's next snapshot says less of why it is a full one.
        if let Some(handle) = gone {
            self.changed = true;
            self.remember(handle, Line::of("the domain that was tracked has ended: rebooted, migrated or destroyed"));
        }
    }

    /// Looks at the dirty bits of one guest, if it is time. Only while no session runs: it would cost its pause.
    pub fn look_at_bits(&mut self) {
        let now_ns = Xen.now_ns();
        let Some(watched) = self.guests.iter_mut().find(|watched| now_ns >= watched.bits_ns) else { return };
        watched.bits_ns = now_ns.saturating_add(BITS_NS);
        if watched.ends {
            let domid = watched.armed.domid;
            let (ending, kept) =
                core::mem::take(&mut self.guests).into_iter().partition(|one| one.armed.domid == domid);
            self.guests = kept;
            let ending: Vec<Watched> = ending;
            ending.into_iter().for_each(|one| self.let_go(one.armed, Line::default()));
            self.changed = true;
            return;
        }
        let armed = &mut watched.armed;
        let looked = XenTarget::new(armed.domid, armed.handle).and_then(|mut target| armed.look(&mut target));
        if let Err(error) = looked {
            warn!("the dirty bits of domain {}: {error}", armed.domid);
        }
    }

    /// Ends the tracking of a guest, whose ever it is: dom0 has looked that nobody saves or migrates the guest. False:
    /// it is not on the list.
    pub fn disarm(&mut self, domid: DomId, handle: DomHandle) -> Result<bool, TargetError> {
        let known = |watched: &Watched| watched.armed.domid == domid && watched.armed.handle == handle;
        let Some(at) = self.guests.iter().position(known) else { return Ok(false) };
        off(domid, handle)?;
        self.guests.swap_remove(at);
        self.remember(handle, Line::of("its tracking was switched off by `livesave disarm`"));
        Ok(true)
    }

    /// A snapshot was removed: what is known since it is of no more use.
    pub fn removed(&mut self, store: &mut Store<Disk>) {
        let (kept, lost) = core::mem::take(&mut self.guests)
            .into_iter()
            .partition(|watched| store.named(watched.armed.snapshot).is_ok());
        self.guests = kept;
        let lost: Vec<Watched> = lost;
        for Watched { armed, .. } in lost {
            let why = Line::of(format_args!("{} was removed", armed.name));
            self.let_go(armed, why);
        }
    }

    /// The domain ends: no guest is left tracked.
    pub fn end(&mut self) {
        for Watched { armed, .. } in core::mem::take(&mut self.guests) {
            self.let_go(armed, Line::default());
        }
    }

    /// Their domids, for the stub's node.
    pub fn list(&self) -> Line {
        let mut text = String::new();
        for Watched { armed, .. } in &self.guests {
            let space = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{space}{}", armed.domid);
        }
        Line::of(text)
    }

    /// One that cannot be let go stays on the list, and is tried again.
    fn let_go(&mut self, mut armed: Armed, why: Line) {
        let (domid, handle) = (armed.domid, armed.handle);
        match XenTarget::new(domid, handle).and_then(|mut target| armed.let_go(&mut target)) {
            Ok(true) => info!("domain {domid} is tracked no more: {why}"),
            Ok(false) => warn!("domain {domid}: another tool has its dirty tracking, which is left alone"),
            Err(TargetError::Gone) => {}
            Err(error) if self.guests.len() > GUESTS_MAX => error!("domain {domid} stays tracked: {error}"),
            Err(error) => {
                error!("domain {domid} stays tracked: {error}");
                doubt(&mut armed, why.clone());
                let now_ns = Xen.now_ns();
                let bits_ns = now_ns.saturating_add(BITS_NS);
                self.guests.push(Watched { armed, looked_ns: now_ns, bits_ns, ends: true });
            }
        }
        self.remember(handle, why);
    }

    fn remember(&mut self, handle: DomHandle, why: Line) {
        self.reasons.retain(|(guest, _)| *guest != handle);
        if self.reasons.len() >= REASONS_MAX {
            self.reasons.remove(0);
        }
        self.reasons.push((handle, why));
    }
}

/// The first doubt stands.
fn doubt(armed: &mut Armed, why: Line) {
    if armed.doubt.is_empty() {
        info!("domain {}: the next snapshot is a full one: {why}", armed.domid);
        armed.doubt = why;
    }
}

fn off(domid: DomId, handle: DomHandle) -> Result<(), TargetError> {
    XenTarget::new(domid, handle)?.off()
}
