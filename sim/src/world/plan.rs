//! What a run is made of: its takes, and what strikes at which step. All of it comes from the seed, or from whoever
//! tries one death at every step.

use snapshot::policy::Busy;
use snapshot::request::{Kind, Mode};

use crate::disk::Faults;
use crate::rng::Rng;

/// A millisecond and a second.
pub const MS: u64 = 1_000_000;
pub const S: u64 = 1000 * MS;

/// Something that happens to somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strike {
    StubDies,
    KeeperDies,
    CliDies,
    PowerCut,
    /// The stub gets no processor for so long; `paused`: by `xl pause`.
    StubStalls {
        ns: u64,
        paused: bool,
    },
    /// The operator, at the keeper's socket.
    CliCancels,
    /// `livesave cancel`.
    CancelNode,
    Destroy,
    /// A reboot: the domid is another domain's.
    DomidReused,
    PowerOff,
    ForeignSuspend,
    ForeignResume,
    ForeignOff,
    Pause,
    Unpause,
    Swap,
    BalloonOut,
    BalloonIn,
    XenstoredStalls(u64),
    XenstoredDies(u64),
    /// The stub is told that it missed watches, and reads every node again.
    Rescan,
    /// A watch of the keeper's does not fire.
    WatchLost,
    /// Somebody writes `poweroff` over our word.
    Overwritten,
    Saver,
    ResumeRefused(u32),
    SubscribeRefused,
    /// Dom0's disk takes nothing more for a while.
    RecordFails,
    StoreLost,
}

/// How the guest answers a request; None: never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manners {
    /// From the request.
    pub ack_ns: Option<u64>,
    /// From the acknowledgement.
    pub suspend_ns: Option<u64>,
}

/// One take.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Wish {
    pub mode: Mode,
    pub kind: Kind,
    pub manners: Manners,
    pub max_pause_ms: Option<u32>,
    pub staging_kib: Option<u32>,
    pub on_busy: Busy,
    /// Writes of the guest between two calls.
    pub writes: u64,
    /// A hypercall of the stub that fails.
    pub hypercall_fails: Option<u64>,
    /// Its disk.
    pub disk: Faults,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For everything that is not said here: content, latencies, what a cut leaves.
    pub seed: u64,
    pub takes: Vec<Wish>,
    /// By step since the run began.
    pub strikes: Vec<(u64, Strike)>,
    /// The guest's CPU cap before anybody touched it.
    pub cap: u16,
}

/// A take that nothing disturbs.
pub fn calm(mode: Mode) -> Wish {
    Wish {
        mode,
        kind: Kind::Full,
        manners: Manners { ack_ns: Some(2 * MS), suspend_ns: Some(3 * MS) },
        max_pause_ms: Some(10_000),
        staging_kib: Some(32),
        on_busy: Busy::Accept,
        writes: 3,
        hypercall_fails: None,
        disk: Faults::default(),
    }
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[usize::try_from(rng.below(of.len() as u64)).unwrap_or(0)]
}

/// Short, long, very long.
fn some_time(rng: &mut Rng) -> u64 {
    pick(rng, &[1, 5, 50, 400, 3000, 12_000, 40_000]) * MS + rng.below(MS)
}

fn manners(rng: &mut Rng) -> Manners {
    let mut after = || match rng.below(12) {
        0 => None,
        1 => Some(29 * S + rng.below(3 * S)),
        2 => Some(rng.below(20 * S)),
        _ => Some(rng.below(20 * MS)),
    };
    Manners { ack_ns: after(), suspend_ns: after() }
}

/// What the disk does: mostly nothing, now and then it fails, fills up, or lies.
fn disk(rng: &mut Rng) -> Faults {
    let at = rng.below(60);
    match rng.below(24) {
        0 => Faults { fail_at: Some(at), ..Faults::default() },
        1 => Faults { fail_from: Some(at), ..Faults::default() },
        2 => Faults { full_from: Some(at), ..Faults::default() },
        3 => Faults { lose_flush: Some(rng.below(8)), ..Faults::default() },
        4 => Faults { lose_write: Some(at), ..Faults::default() },
        5 => Faults { misdirect: Some((at, rng.below(4000))), ..Faults::default() },
        _ => Faults::default(),
    }
}

fn wish(rng: &mut Rng) -> Wish {
    let mode = pick(rng, &[Mode::Save, Mode::Live, Mode::Improved, Mode::Staged, Mode::Staged]);
    Wish {
        mode,
        kind: pick(rng, &[Kind::Full, Kind::Full, Kind::Diff, Kind::Incremental]),
        manners: manners(rng),
        max_pause_ms: pick(rng, &[Some(10_000), Some(10_000), Some(400), None]),
        staging_kib: pick(rng, &[Some(16), Some(32), Some(64), None]),
        on_busy: pick(rng, &[Busy::Accept, Busy::Throttle, Busy::Throttle, Busy::Abort]),
        writes: pick(rng, &[0, 3, 3, 8]),
        hypercall_fails: rng.once_in(12).then(|| rng.below(80)),
        disk: disk(rng),
    }
}

fn strike(rng: &mut Rng) -> Strike {
    let ns = some_time(rng);
    let deaths = [Strike::StubDies, Strike::KeeperDies, Strike::CliDies, Strike::Destroy];
    let others = [
        Strike::PowerCut,
        Strike::StubStalls { ns, paused: rng.once_in(2) },
        Strike::CliCancels,
        Strike::CancelNode,
        Strike::DomidReused,
        Strike::PowerOff,
        Strike::ForeignSuspend,
        Strike::ForeignResume,
        Strike::ForeignOff,
        Strike::Pause,
        Strike::Unpause,
        Strike::Swap,
        Strike::BalloonOut,
        Strike::BalloonIn,
        Strike::XenstoredStalls(ns),
        Strike::XenstoredDies(ns),
        Strike::Rescan,
        Strike::WatchLost,
        Strike::Overwritten,
        Strike::Saver,
        Strike::ResumeRefused(u32::try_from(1 + rng.below(4)).unwrap_or(1)),
        Strike::ResumeRefused(u32::MAX),
        Strike::SubscribeRefused,
        Strike::RecordFails,
        Strike::StoreLost,
    ];
    if rng.once_in(3) { pick(rng, &deaths) } else { pick(rng, &others) }
}

/// The plan of a seed.
pub fn of_seed(seed: u64) -> Plan {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x77);
    let takes: Vec<Wish> = (0..1 + rng.below(3)).map(|_| wish(&mut rng)).collect();
    // A take has a few hundred steps, unless somebody waits.
    let reach = 250 * takes.len() as u64;
    let mut at = rng.below(reach);
    let strikes = (0..rng.below(4)).map(|_| {
        // Half of them soon after the one before.
        at = if rng.once_in(2) { at + rng.below(20) } else { rng.below(reach) };
        (at, strike(&mut rng))
    });
    let strikes = strikes.collect();
    Plan { seed, takes, strikes, cap: pick(&mut rng, &[0, 0, 70]) }
}
