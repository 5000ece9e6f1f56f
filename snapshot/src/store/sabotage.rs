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
    /// A writer asks whether the device may be written.
    ReadOnlyDevice,
    /// A writer leaves a device alone of which one slot is somebody else's.
    ForeignSlot,
    /// A device that is smaller than its store is refused.
    ShrunkDevice,
    /// Two valid slots are of one store.
    SlotsOfOneStore,
    /// Two slots of one generation are equal.
    SlotsOfOneHistory,
    /// A newer version is refused by its name.
    NewerVersion,
    /// Features that are unknown are refused.
    UnknownFeatures,
    /// So are, by a writer, those that only a writer has to know.
    WriterFeatures,
    /// The digest of a leaf of the segment table is compared.
    LeafDigest,
    /// Two ids that are reached never share an address.
    SharedAddress,
    /// A snapshot that reaches what has no address is damaged.
    MappedReach,
    /// A removal frees nothing while it is unknown what some snapshot reaches.
    DamagedFreesNothing,
    /// An open unmaps nothing then.
    DamagedStaysMapped,
    /// What a removal frees is in use until nobody reads it.
    FreedWaits,
    /// A free map that is made afresh leaves out what waits for readers.
    KeepWaiting,
    /// What was let go of counts as freed by the commit that did it, not by the generation before.
    LetGoAfter,
    /// A writer that finds a reader of an older generation allocates nothing.
    ReadersAtOpen,
    /// The cleaner does not, either.
    CleanerReaders,
    /// The cleaner frees nothing while it is unknown what another snapshot reaches.
    CleanerDamaged,
    /// What was cleaned has the content that it had.
    CleanedContent,
    /// A take throws away what the cleaner has begun.
    TakeStopsCleaner,
    /// So does a removal.
    RemovalStopsCleaner,
    /// The cleaner flushes a batch before it reads the next one.
    BatchFlush,
    /// It flushes before it reads an attachment.
    PartFlush,
    /// A name is used once.
    NameTaken,
    /// A take that is told of a gfn beyond the limit is refused.
    MaxGfn,
    /// So is a page beyond it.
    GfnLimit,
    /// Each kind of attachment is attached once.
    KindOnce,
    /// No snapshot has more parts than a root may name.
    PartsLimit,
    /// No description is longer than a root may have.
    DescriptionLimit,
    /// The checksum of the heartbeat is compared.
    BeatChecksum,
    /// The checksum of a lease is compared.
    LeaseChecksum,
    /// A store whose heartbeat moves is left alone.
    OneWriter,
    /// A claim that another writer has written over is none.
    ClaimStands,
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
    pub const ALL: [Self; 66] = [
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
        Self::ReadOnlyDevice,
        Self::ForeignSlot,
        Self::ShrunkDevice,
        Self::SlotsOfOneStore,
        Self::SlotsOfOneHistory,
        Self::NewerVersion,
        Self::UnknownFeatures,
        Self::WriterFeatures,
        Self::LeafDigest,
        Self::SharedAddress,
        Self::MappedReach,
        Self::DamagedFreesNothing,
        Self::DamagedStaysMapped,
        Self::FreedWaits,
        Self::KeepWaiting,
        Self::LetGoAfter,
        Self::ReadersAtOpen,
        Self::CleanerReaders,
        Self::CleanerDamaged,
        Self::CleanedContent,
        Self::TakeStopsCleaner,
        Self::RemovalStopsCleaner,
        Self::BatchFlush,
        Self::PartFlush,
        Self::NameTaken,
        Self::MaxGfn,
        Self::GfnLimit,
        Self::KindOnce,
        Self::PartsLimit,
        Self::DescriptionLimit,
        Self::BeatChecksum,
        Self::LeaseChecksum,
        Self::OneWriter,
        Self::ClaimStands,
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
