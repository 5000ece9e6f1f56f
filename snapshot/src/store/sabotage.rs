//! The safeguards of the store, of takes and of the keeper, each of which the simulator can leave out to see that
//! it notices.
//!
//! Without the feature `sabotage` every question here is a constant, and costs nothing. With it a program that is
//! meant for anybody does not build: see the assertion below. Never a way to configure the store.

/// Something that keeps snapshots safe, besides the flushes (those the simulated disk leaves out).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Safeguard {
    /// The checksum of a superblock slot is compared.
    SlotChecksum = 1,
    /// Of two valid slots the newer one is believed.
    NewestSlot,
    /// Open writes the generation that it believes to both slots.
    Settle,
    /// A commit writes slot B too.
    SlotB,
    /// Meta objects go to the home that the committed generation does not use.
    OtherHome,
    /// Meta objects are written twice.
    Mirror,
    /// The digest of a catalog, a directory or a leaf of the segment table is compared.
    MetaDigest,
    /// The digest of a root, an index, a set of segments or an attachment is compared.
    BlobDigest,
    /// The digest of a page is compared.
    PageDigest,
    /// A run lists the segments of its pages.
    ListedSegments,
    /// After a failed write or flush nothing reaches the device.
    Poison,
    /// Nothing is allocated while it is unknown what some snapshot reaches.
    DamagedWaits,
    /// What a reader holds is not used again.
    Leases,
    /// What an aborted take used is free again.
    ForgetTaken,
    /// A page is taken for that of an older snapshot only if its digest is equal.
    BaseDigest,
    /// Runs that are merged above others keep their holes.
    MergedHoles,
    /// A run on top of others lists the segments of its pages.
    StackedSegments,
    /// The cleaner lets go only of what no other snapshot reaches.
    CleanedOthers,
    /// What was cleaned lists the segments of its pages.
    CleanedSegments,
    /// A guest that stays tracked: bits that another tool cleared are missed.
    Canary,
    /// Bits that a failed incremental take had fetched are the next one's.
    CarriedBits,
    /// After a CLEAN that failed nothing is known.
    LostBits,
    /// After pages came or went nothing is known.
    MovedPages,
    /// What an incremental take is to lie on is looked for in the store.
    KnownBelow,
    /// A word in xenstore counts only for the session that it names.
    Token,
    /// A snapshot is sealed on the keeper's word alone.
    Verdict,
    /// What the last bitmap says is sent.
    LastSet,
    /// The session's guard: what it switched on it switches off when it fails.
    Guard,
    /// A keeper whose stub died resumes the guest.
    DeadStub,
    /// A keeper resumes no suspend of somebody else.
    ForeignSuspend,
    /// A keeper says `resumed` only when the stub has said that all is captured.
    Captured,
    /// Who recovers looks whether the guest stands by the request.
    LateSuspend,
}

#[cfg(feature = "sabotage")]
impl Safeguard {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::SlotChecksum,
        Self::NewestSlot,
        Self::Settle,
        Self::SlotB,
        Self::OtherHome,
        Self::Mirror,
        Self::MetaDigest,
        Self::BlobDigest,
        Self::PageDigest,
        Self::ListedSegments,
        Self::Poison,
        Self::DamagedWaits,
        Self::Leases,
        Self::ForgetTaken,
        Self::BaseDigest,
        Self::MergedHoles,
        Self::StackedSegments,
        Self::CleanedOthers,
        Self::CleanedSegments,
        Self::Canary,
        Self::CarriedBits,
        Self::LostBits,
        Self::MovedPages,
        Self::KnownBelow,
        Self::Token,
        Self::Verdict,
        Self::LastSet,
        Self::Guard,
        Self::DeadStub,
        Self::ForeignSuspend,
        Self::Captured,
        Self::LateSuspend,
    ];
}

#[cfg(feature = "sabotage")]
mod switch {
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::Safeguard;

    static OUT: AtomicU8 = AtomicU8::new(0);

    const _: () = assert!(cfg!(debug_assertions), "a program that is built with `sabotage` is for the simulator only");

    impl Safeguard {
        /// Leaves this one out from now on, or none.
        pub fn leave_out(which: Option<Self>) {
            OUT.store(which.map_or(0, |which| which as u8), Ordering::Relaxed);
        }
    }

    /// Is it left out?
    pub fn out(which: Safeguard) -> bool {
        OUT.load(Ordering::Relaxed) == which as u8
    }
}

#[cfg(not(feature = "sabotage"))]
mod switch {
    /// Nothing is ever left out.
    pub const fn out(_: super::Safeguard) -> bool {
        false
    }
}

pub(crate) use switch::out;
