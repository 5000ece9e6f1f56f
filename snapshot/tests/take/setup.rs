//! How a world is made, what can happen to it, how slow its disk is, and what its store has in the end.

use std::collections::BTreeMap;

use snapshot::names::Token;
use snapshot::policy::{Busy, HIGH_DEFAULT_MILLI};
use snapshot::ports::{PAGE_SIZE, Pace, Page};
use snapshot::request::{Kind, Mode, Take};
use snapshot::store::Compression;
use snapshot::take::{Attachment, Hold};
use xen_hypercall::types::{DomHandle, DomId, EvtchnPort};

use super::world::World;

pub const TOKEN: Token = Token([7; 16]);
pub const HANDLE: DomHandle = DomHandle::new([3; 16]);
/// Gfns of the guest, if nothing else is said.
pub const GFNS: usize = 3000;

/// The store, as a model.
#[derive(Default, Debug)]
pub struct Stored {
    pub begun: bool,
    pub in_run: bool,
    pub last_gfn: Option<u64>,
    pub pages: BTreeMap<u64, u64>,
    pub runs: u32,
    pub attachments: Vec<(Attachment, Vec<u8>)>,
    pub flushed: bool,
    pub sealed: bool,
    pub aborted: bool,
    pub broken: bool,
    /// Calls while the guest stood for us.
    pub in_pause: u32,
    /// Calls while it stood though we had let it go.
    pub in_its_way: u32,
    /// Pages with content so far, and how many were said to come at most.
    pub content: u64,
    pub reserved_pages: u64,
}

impl World {
    /// The store is given something.
    pub fn store_called(&mut self) {
        self.stored.in_pause += u32::from(self.stands());
        self.stored.in_its_way += u32::from(self.shutdown.is_some() && self.releases > 0);
    }
}

/// What happens to the world at the call with a given number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Destroy,
    /// The guest is gone and another domain has its domid, with pages of its own.
    DomidReused,
    Shutdown(u8),
    ForeignOff,
    ForeignResume,
    Pause,
    BalloonOut(usize),
    BalloonIn(usize),
    /// One page leaves, another comes: the size stays.
    Swap,
    Cancel,
    VerdictVoid,
    VerdictResumed,
    XenstoreDies,
    /// The store's device is being detached.
    StoreLost,
    /// The working set cannot be mapped, or can again.
    Mappable(bool),
}

/// How the world is made.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub mode: Mode,
    pub kind: Kind,
    /// Of the snapshot.
    pub name: String,
    pub parent: Option<String>,
    pub round1_skip: bool,
    pub max_pause_ms: Option<u32>,
    /// Gfns of the guest.
    pub gfns: usize,
    /// Pages of memory.
    pub memory: usize,
    /// Writes between two calls.
    pub writes: u64,
    /// Pages that are written.
    pub working_set: usize,
    /// A gfn that is no memory, and is marked dirty all the same in the end: a page of Xen's that the guest uses.
    pub dirty_hole: Option<usize>,
    pub suspend_after_ns: u64,
    pub log_dirty_on: bool,
    pub never_suspends: bool,
    /// A page that is added is marked dirty (Xen 4.19.5 and later).
    pub marks_added: bool,
    /// Batches are not compared with the handle.
    pub unchecked_copy: bool,
    pub keeper_dead: bool,
    pub keeper_voids: bool,
    /// A port call that fails, by number from 0.
    pub fault_at: Option<u64>,
    pub events: Vec<(u64, Event)>,
    pub hold: Option<Hold>,
    pub memory_bytes: usize,
    pub target_pause_ms: u32,
    pub staging_kib: Option<u32>,
    pub on_busy: Busy,
    /// The keeper says when the guest took the request.
    pub acks: bool,
    /// The keeper throttles the guest when it is asked to.
    pub obeys: bool,
    /// What a call takes.
    pub call_ns: u64,
    /// Nanoseconds that the guest takes of the one processor, while it runs, for each of ours.
    pub guest_share: u64,
    /// What the disk takes for a page with content, and how many it is behind before it is waited for.
    pub disk_ns: u64,
    pub disk_queue: u64,
    /// So many pages are answered together.
    pub disk_step: u64,
    /// Bytes of a page with content that are noise and do not pack; the others are zeros, but for two words.
    pub noise: usize,
    /// What the guest writes is never a page of zeros.
    pub no_zeros: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            mode: Mode::Live,
            kind: Kind::Full,
            name: "now".to_owned(),
            parent: None,
            round1_skip: false,
            max_pause_ms: None,
            gfns: GFNS,
            memory: 1300,
            writes: 8,
            working_set: 300,
            dirty_hole: None,
            suspend_after_ns: 5_000_000,
            log_dirty_on: false,
            never_suspends: false,
            marks_added: false,
            unchecked_copy: false,
            keeper_dead: false,
            keeper_voids: false,
            fault_at: None,
            events: Vec::new(),
            hold: None,
            memory_bytes: 8 << 20,
            target_pause_ms: 300,
            staging_kib: Some(4 * 350),
            on_busy: Busy::Accept,
            acks: false,
            obeys: false,
            call_ns: 30_000,
            guest_share: 0,
            disk_ns: 0,
            disk_queue: 0,
            disk_step: 1,
            noise: 0,
            no_zeros: false,
        }
    }
}

/// The request for the take of such a world.
pub fn take_request(setup: &Setup) -> Take {
    Take {
        token: TOKEN,
        domid: DomId::new(9),
        handle: HANDLE,
        name: format!("web01@{}", setup.name).parse().unwrap(),
        mode: setup.mode,
        created_unix: 1,
        release_port: EvtchnPort::new(5),
        max_pause_ms: setup.max_pause_ms,
        round1_skip: setup.round1_skip,
        h_milli: HIGH_DEFAULT_MILLI,
        target_pause_ms: setup.target_pause_ms,
        staging_kib: setup.staging_kib,
        on_busy: setup.on_busy,
        config_chunks: 0,
        compression: Compression::Lz4,
        kind: setup.kind,
        parent: setup.parent.as_deref().map(|parent| parent.parse().unwrap()),
        pv_tracking: false,
    }
}

/// A page with content; behind its first word comes so much noise.
pub fn page_with(content: u64, noise: usize) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut state = content;
    for word in page[..if content == 0 { 0 } else { noise.max(8) }].chunks_exact_mut(8) {
        word.copy_from_slice(&state.to_le_bytes());
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).rotate_left(17).wrapping_add(content);
    }
    page[PAGE_SIZE - 8..].copy_from_slice(&content.to_le_bytes());
    page
}

impl World {
    /// The disk is given a page. Whoever waits for it leaves the processor to the guest.
    pub fn give_to_disk(&mut self) {
        let page_ns = self.setup.disk_ns * self.setup.noise.max(8) as u64 / PAGE_SIZE as u64;
        if self.disk_idle_ns <= self.now_ns {
            self.disk_idle_ns = self.now_ns;
            self.disk_step_ns = self.now_ns;
        }
        self.disk_idle_ns += page_ns;
        self.disk_busy_ns += page_ns;
        // Whoever has given it more than it has room for waits until a step is done, and goes on for so long.
        let behind_ns = self.setup.disk_queue * self.setup.disk_ns;
        if self.disk_idle_ns.saturating_sub(self.disk_step_ns) > behind_ns {
            self.disk_step_ns += self.setup.disk_step * self.setup.disk_ns;
            let step_ns = self.disk_step_ns;
            self.wait_until(step_ns);
        }
    }

    /// Until it has done all.
    pub fn wait_for_disk(&mut self) {
        self.wait_until(self.disk_idle_ns);
        self.disk_step_ns = self.now_ns;
    }

    fn wait_until(&mut self, until_ns: u64) {
        while self.now_ns < until_ns {
            let ns = (until_ns - self.now_ns).min(self.setup.call_ns);
            self.now_ns += ns;
            self.blocked_ns += ns;
            self.guest_ran_ns += if self.running() { ns } else { 0 };
            (0..self.setup.writes).for_each(|_| self.guest_writes());
        }
    }

    /// What the disk says of itself.
    pub fn pace(&self) -> Pace {
        let done_ns = self.disk_busy_ns - self.disk_idle_ns.saturating_sub(self.now_ns).min(self.disk_busy_ns);
        let bytes = |pages: u64| pages * 4096;
        let done_bytes = bytes(done_ns.checked_div(self.setup.disk_ns).unwrap_or(0));
        Pace {
            done_bytes,
            paced_bytes: done_bytes,
            paced_ns: done_ns,
            depth_bytes: bytes(self.setup.disk_queue),
            step_bytes: bytes(self.setup.disk_step),
            requests: self.stored.runs.into(),
            ..Pace::default()
        }
    }
}
