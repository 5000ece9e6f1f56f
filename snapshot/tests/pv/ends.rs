//! The other ends of a take: a keeper that suspends when asked, a store that remembers.

use std::collections::BTreeMap;

use snapshot::fields::Line as Text;
use snapshot::policy::Busy;
use snapshot::ports::*;
use snapshot::pv::{PvTarget, TypeRanges};
use snapshot::request::{Kind, Mode, Take};
use snapshot::session::Trouble;
use snapshot::status::{Counters, State, Status};
use snapshot::store::{Compression, Digest};
use snapshot::take::{Armed, Attachment, Before, Engine, Ground, NewTake, Options, Recorder};
use snapshot::verdict::Verdict;
use xen_hypercall::types::{DomId, EvtchnPort, Gfn};

use super::guest::Shared;
use super::host::{HANDLE, Host};

/// Looks for messages from the guest's word that it suspends until it stands: a batch is copied meanwhile.
const FREEZES: u32 = 3;

/// The keeper's end of the line.
pub struct Wire {
    guest: Shared,
    now_ns: u64,
    statuses: Vec<Status>,
    releases: u32,
    asked: bool,
    verdict: Option<Message>,
    /// The guest tidies its page tables up before it suspends.
    tidy: bool,
    /// Looks for messages until a guest that freezes stands.
    freezing: Option<u32>,
    /// What the keeper says in the end.
    resumed: bool,
}

impl Clock for Wire {
    fn now_ns(&mut self) -> u64 {
        self.now_ns += 1000;
        self.now_ns
    }

    fn stolen_ns(&mut self) -> u64 {
        0
    }
}

impl Control for Wire {
    fn publish(&mut self, status: &Status) -> Result<(), ControlLost> {
        self.statuses.push(status.clone());
        if status.state == State::WantSuspend && self.freezing.is_none() {
            self.guest.borrow_mut().suspend(self.tidy);
        }
        self.asked |= status.state == State::WantSuspend;
        if status.state == State::Captured {
            let ((reason, disks), resumed) = (Default::default(), self.resumed);
            self.verdict = Some(Message::Verdict(Verdict { token: status.token, resumed, reason, disks }));
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Message>, ControlLost> {
        let Some(left) = self.freezing.filter(|_| self.asked) else { return Ok(self.verdict.take()) };
        self.freezing = left.checked_sub(1);
        if left == FREEZES {
            return Ok(Some(Message::Acked));
        }
        if self.freezing.is_none() {
            self.guest.borrow_mut().suspend(self.tidy);
        }
        Ok(None)
    }

    fn wait(&mut self, until_ns: u64) -> Result<(), ControlLost> {
        self.now_ns = self.now_ns.max(until_ns);
        Ok(())
    }

    fn release(&mut self) -> Result<(), ControlLost> {
        self.releases += 1;
        Ok(())
    }
}

/// A store that remembers.
#[derive(Default)]
pub struct Stored {
    pub pages: BTreeMap<u64, Page>,
    pub attachments: Vec<(Attachment, Vec<u8>)>,
    pub sealed: bool,
    pub runs: u32,
    /// Pages that were given to it.
    pub given: u64,
    /// Number of the snapshot.
    pub number: u64,
    /// The snapshot before, which it may lie on.
    pub below: Option<(u64, BTreeMap<u64, Page>)>,
}

impl Stored {
    pub fn attachment(&self, kind: Attachment) -> Option<&[u8]> {
        self.attachments.iter().find(|(other, _)| *other == kind).map(|(_, bytes)| bytes.as_slice())
    }

    /// What a restore would see.
    pub fn typed(&self) -> BTreeMap<u64, (u8, Page)> {
        let types = self.attachment(Attachment::PageTypes).unwrap_or_default();
        let mut types = TypeRanges::parse(types.to_vec()).unwrap();
        self.pages.iter().map(|(pfn, page)| (*pfn, (types.kind_of(Gfn::new(*pfn)).0, *page))).collect()
    }
}

impl Recorder for Stored {
    fn begin(&mut self, new: &NewTake<'_>) -> Result<Ground, Trouble> {
        if let Some(number) = new.on_top {
            let (below, pages) = self.below.take().expect("it lies on one that is there");
            assert_eq!(number, below);
            self.pages = pages;
        }
        Ok(Ground { why_full: Text::of(new.why_full), ..Ground::default() })
    }

    fn knows(&mut self, snapshot: u64, content: &Digest) -> Result<bool, Trouble> {
        Ok(*content == Digest([snapshot as u8; 16]) && self.below.as_ref().is_some_and(|(below, _)| *below == snapshot))
    }

    fn room(&self) -> u64 {
        1 << 30
    }

    fn sealed(&self) -> Option<(u64, Digest)> {
        self.sealed.then_some((self.number, Digest([self.number as u8; 16])))
    }

    fn run_begin(&mut self) -> Result<(), Trouble> {
        self.runs += 1;
        Ok(())
    }

    fn page(&mut self, gfn: Gfn, page: &Page) -> Result<(), Trouble> {
        self.given += 1;
        self.pages.insert(gfn.raw(), *page);
        Ok(())
    }

    fn zero(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        self.given += 1;
        self.pages.insert(gfn.raw(), [0; PAGE_SIZE]);
        Ok(())
    }

    fn hole(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        self.pages.remove(&gfn.raw());
        Ok(())
    }

    fn run_end(&mut self) -> Result<(), Trouble> {
        Ok(())
    }

    fn attach(&mut self, kind: Attachment, bytes: &[u8]) -> Result<(), Trouble> {
        self.attachments.push((kind, bytes.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        Ok(())
    }

    fn seal(&mut self, _: &Counters) -> Result<(), Trouble> {
        self.sealed = true;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Trouble> {
        Ok(())
    }
}

/// Fewer than a busy guest leaves for the last set now and then.
const STAGING_PAGES: u32 = 120;

/// How a take is to go.
pub struct Order {
    pub mode: Mode,
    /// The guest takes foreign mappings down before it suspends.
    pub tidy: bool,
    pub kind: Kind,
    pub pv_tracking: bool,
    /// What is known of the guest's tracking.
    pub before: Before,
    /// The store's end, with what is in it already.
    pub stored: Stored,
    /// What the keeper says in the end.
    pub resumed: bool,
}

/// One take from beginning to end, or why it did not begin.
pub fn take(guest: &Shared, mode: Mode, tidy: bool) -> Result<(Status, Stored), TargetError> {
    let (before, stored) = Default::default();
    let order = Order { mode, tidy, kind: Kind::Full, pv_tracking: false, before, stored, resumed: true };
    let (status, stored, armed) = take_in(guest, order)?;
    assert!(armed.is_none() && !guest.borrow().log_dirty, "tracking is off: {status:?}");
    Ok((status, stored))
}

/// The same, of a guest that may stay tracked.
pub fn take_in(guest: &Shared, order: Order) -> Result<(Status, Stored, Option<Armed>), TargetError> {
    let Order { mode, tidy, kind, pv_tracking, before, mut stored, resumed } = order;
    let request = Take {
        token: snapshot::names::Token([7; 16]),
        domid: DomId::new(9),
        handle: HANDLE,
        name: "web01@now".parse().unwrap(),
        mode,
        created_unix: 1,
        release_port: EvtchnPort::new(5),
        max_pause_ms: None,
        round1_skip: false,
        h_milli: 0,
        target_pause_ms: 300,
        staging_kib: (mode == Mode::Staged).then_some(4 * STAGING_PAGES),
        on_busy: Busy::Accept,
        compression: Compression::Lz4,
        kind,
        parent: None,
        pv_tracking,
        config_chunks: 0,
    };
    guest.borrow_mut().calls = 0;
    let mut target = PvTarget::open(Host(guest.clone()))?;
    let freezing = (mode == Mode::Staged).then_some(FREEZES);
    let (theirs, statuses) = (guest.clone(), Vec::new());
    let mut wire =
        Wire { guest: theirs, now_ns: 0, statuses, releases: 0, asked: false, verdict: None, tidy, freezing, resumed };
    let options = Options { memory_bytes: if mode == Mode::Staged { 8 << 20 } else { 1 << 20 }, hold: None };
    let engine = Engine::new(&mut target, &mut wire, &mut stored, &request, b"{}", options);
    let (status, after) = engine.run_after(before);
    assert_eq!(wire.releases, 1);
    assert_eq!(stored.sealed, status.state == State::Sealed);
    Ok((status, stored, after.armed))
}
