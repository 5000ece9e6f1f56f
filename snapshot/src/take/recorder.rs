//! What the engine needs from the store: one snapshot in the making. The store's writer is behind it in production,
//! a model in the tests.

use core::fmt;

use xen_hypercall::types::Gfn;

use crate::fields::Line;
use crate::ports::{DomainInfo, Pace, Page};
use crate::request::Take;
use crate::session::Trouble;
use crate::status::Counters;
use crate::store::Digest;

/// Small things that belong to a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attachment {
    /// The guest's configuration, JSON as dom0 sent it.
    ConfigJson,
    /// libxc records (X86_PV_INFO, X86_CPUID_POLICY, X86_MSR_POLICY), whole records as they go into a stream.
    StaticRecords,
    /// libxc records of the instant of the pause (X86_TSC_INFO, HVM_CONTEXT, HVM_PARAMS; for PV X86_PV_P2M_FRAMES,
    /// X86_TSC_INFO, SHARED_INFO, X86_PV_VCPU_*).
    PlatformRecords,
    /// The session's counters, lines `key=value`.
    Stats,
    /// The rounds, as [`crate::trace`] encodes them.
    Trace,
    /// Which pages of a PV guest are page tables ([`crate::pv::PageTypes`]).
    PageTypes,
    /// Where the disks were kept as they were at the pause ([`crate::verdict::Disks`]).
    Disks,
}

impl fmt::Display for Attachment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ConfigJson => "configuration",
            Self::StaticRecords => "static records",
            Self::PlatformRecords => "platform records",
            Self::Stats => "statistics",
            Self::Trace => "trace",
            Self::PageTypes => "page types",
            Self::Disks => "kept disks",
        })
    }
}

/// What a snapshot is begun with.
#[derive(Clone, Copy, Debug)]
pub struct NewTake<'a> {
    /// The request.
    pub take: &'a Take,
    /// The guest at that moment.
    pub info: DomainInfo,
    /// Highest gfn.
    pub max_gfn: Gfn,
    /// Upper bound of what will be written, which the store sets aside now.
    pub reserve_bytes: u64,
    /// The snapshot that it lies on.
    pub on_top: Option<u64>,
    /// Why it lies on none, although it should; empty otherwise.
    pub why_full: &'a str,
}

/// What a new snapshot turned out to build on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ground {
    /// The older snapshot; empty: none.
    pub base: Line,
    /// Why none, where one was wanted; for people.
    pub why_full: Line,
}

/// One snapshot in the making. After an error only `abort` is called. What is answered here by default is the answer
/// of one that shares nothing with any other.
pub trait Recorder {
    /// Sets space aside and begins. Nothing is visible before `seal`.
    fn begin(&mut self, new: &NewTake<'_>) -> Result<Ground, Trouble>;
    /// Is there a snapshot of this number with this content? In another store, or in one that went back, another
    /// snapshot may have the number.
    fn knows(&mut self, _snapshot: u64, _content: &Digest) -> Result<bool, Trouble> {
        Ok(false)
    }
    /// Bytes that pages may still take, beyond what was set aside as well.
    fn room(&self) -> u64 {
        0
    }
    /// The number of the snapshot and the digest of its content, once it is sealed.
    fn sealed(&self) -> Option<(u64, Digest)> {
        None
    }
    /// Bytes that the sealed snapshot cost the device.
    fn written(&self) -> u64 {
        0
    }
    /// Pages so far that an older snapshot had already.
    fn shared(&self) -> u64 {
        0
    }
    /// Begins a run: pages in ascending order of gfn, which win over those of earlier runs.
    fn run_begin(&mut self) -> Result<(), Trouble>;
    /// A page with content.
    fn page(&mut self, gfn: Gfn, page: &Page) -> Result<(), Trouble>;
    /// A page of zeros.
    fn zero(&mut self, gfn: Gfn) -> Result<(), Trouble>;
    /// A gfn that is no memory (any more).
    fn hole(&mut self, gfn: Gfn) -> Result<(), Trouble>;
    /// Ends the run.
    fn run_end(&mut self) -> Result<(), Trouble>;
    /// Waits until the device has answered all that it was given. What can be learnt from it is how long that takes.
    fn settle(&mut self) -> Result<(), Trouble> {
        Ok(())
    }
    /// What the device has done by now. Asked after each batch.
    fn pace(&mut self) -> Pace {
        Pace::default()
    }
    /// Adds an attachment, once for each kind.
    fn attach(&mut self, kind: Attachment, bytes: &[u8]) -> Result<(), Trouble>;
    /// Everything so far is durable on return; the seal is still to come.
    fn flush(&mut self) -> Result<(), Trouble>;
    /// Makes the snapshot exist.
    fn seal(&mut self, counters: &Counters) -> Result<(), Trouble>;
    /// Drops what was begun; harmless if nothing was.
    fn abort(&mut self) -> Result<(), Trouble>;
}
