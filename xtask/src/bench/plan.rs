//! What is compared with what: mechanisms, guests, loads, and the order of the runs.
//!
//! The number of the run changes slowest: whenever time runs out, every cell has as many runs as any other, give or
//! take one. A kind of guest stays on one machine, so that what is compared was measured beside each other. What an
//! hour has no room for comes after all else, as far as the time goes.

use qemu_tests::lab::GuestKind;

/// A way to a snapshot of a running guest, or to a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// `xl save -c`, into a pipe whose other end writes past the page cache: the paper's Xen Save.
    XlSave,
    /// `xl migrate` to the same host: its Xen Live Migration.
    XlMigrate,
    /// `xl migrate` to `livesave receive`: its Live Migration Save, VNsnap.
    Receive,
    /// `livesave take --mode`: Live Save, Improved Live Save, Xen's policy to the same store, and ours.
    Take(&'static str),
}

impl Mechanism {
    /// All of them, as the paper lists them, ours last.
    pub const ALL: [Self; 7] = [
        Self::XlSave,
        Self::XlMigrate,
        Self::Receive,
        Self::Take("live"),
        Self::Take("improved"),
        Self::Take("xen"),
        Self::Take("staged"),
    ];

    /// In data and plots.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XlSave => "xl-save",
            Self::XlMigrate => "xl-migrate",
            Self::Receive => "vnsnap",
            Self::Take(mode) => mode,
        }
    }
}

/// A guest, made anew for each load that its configuration decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bed {
    /// PVH or PV.
    pub kind: GuestKind,
    /// It writes at random into half of its memory, else nothing.
    pub writes: bool,
}

impl Bed {
    /// In data and plots.
    pub const fn kind(self) -> &'static str {
        match self.kind {
            GuestKind::Pvh => "pvh",
            GuestKind::Pv => "pv",
        }
    }
}

/// What is run, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The guests.
    pub kinds: Vec<GuestKind>,
    /// CPU caps of the guest that writes; 100 is none, 0 is a guest that is idle.
    pub caps: Vec<u32>,
    /// What is compared.
    pub mechanisms: Vec<Mechanism>,
    /// Runs of each cell.
    pub runs: u32,
    /// No run begins later.
    pub minutes: u64,
    /// Nested machines side by side; each has one processor.
    pub machines: usize,
}

/// One run that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which run of its cell, from 1.
    pub run: u32,
    /// On which guest.
    pub bed: Bed,
    /// The guest's cap.
    pub cap: u32,
    /// How.
    pub mechanism: Mechanism,
}

impl Step {
    /// Whether an hour has to have room for it: idle, without a cap, and at the cap that the goals are about.
    pub fn is_first(&self) -> bool {
        matches!(self.cap, 0 | 40 | 100)
    }
}

impl Plan {
    /// Within an hour on two cores: a machine for each kind of guest.
    pub fn full() -> Self {
        Self {
            kinds: vec![GuestKind::Pvh, GuestKind::Pv],
            caps: vec![0, 10, 40, 100],
            mechanisms: Mechanism::ALL.to_vec(),
            runs: 5,
            minutes: 55,
            machines: 2,
        }
    }

    /// In minutes: one run each, of one kind of guest.
    pub fn quick() -> Self {
        Self { kinds: vec![GuestKind::Pvh], caps: vec![0, 100], runs: 1, minutes: 8, machines: 1, ..Self::full() }
    }

    /// Which kinds of guest each machine has. A kind is never on two: what is compared shares a machine.
    pub fn shares(&self) -> Vec<Vec<GuestKind>> {
        let machines = self.machines.clamp(1, self.kinds.len().max(1));
        let of = |machine: usize| self.kinds.iter().skip(machine).step_by(machines).copied().collect();
        (0..machines).map(of).collect()
    }

    /// The runs on the machine that has these guests, in order.
    pub fn steps(&self, kinds: &[GuestKind]) -> Vec<Step> {
        let mut steps = Vec::new();
        for run in 1..=self.runs {
            for (bed, cap) in kinds.iter().flat_map(|kind| self.loads(*kind)) {
                steps.extend(self.mechanisms.iter().map(|mechanism| Step { run, bed, cap, mechanism: *mechanism }));
            }
        }
        // Stable: within either part the order stays.
        steps.sort_by_key(|step| !step.is_first());
        steps
    }

    fn loads(&self, kind: GuestKind) -> Vec<(Bed, u32)> {
        self.caps.iter().map(|cap| (Bed { kind, writes: *cap > 0 }, *cap)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_mechanism_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Mechanism::ALL.iter().map(|mechanism| mechanism.name()).collect();
        assert_eq!(names.len(), Mechanism::ALL.len());
    }

    #[test]
    fn the_number_of_the_run_changes_slowest_and_no_cell_is_left_out() {
        let plan = Plan::full();
        for machines in [1, 2, 9] {
            let plan = Plan { machines, ..plan.clone() };
            let steps: Vec<Vec<Step>> = plan.shares().iter().map(|kinds| plan.steps(kinds)).collect();
            let is_sorted = |steps: &Vec<Step>| steps.is_sorted_by_key(|step| (!step.is_first(), step.run));
            assert!(steps.iter().all(is_sorted), "{machines}");
            assert_eq!(steps.iter().map(Vec::len).sum::<usize>(), 7 * 2 * 4 * 5, "{machines}");
        }
        let steps = plan.steps(&plan.kinds);
        assert_eq!(steps.iter().filter(|step| step.bed.writes).count(), 7 * 2 * 3 * 5);
        // Idle, 40, and without a cap.
        assert_eq!(steps.iter().filter(|step| step.is_first()).count(), 7 * 3 * 2 * 5);
    }

    #[test]
    fn a_kind_of_guest_is_on_one_machine_only() {
        let plan = Plan::full();
        assert_eq!(plan.shares(), [[GuestKind::Pvh], [GuestKind::Pv]]);
        assert_eq!(Plan { machines: 1, ..plan.clone() }.shares(), [[GuestKind::Pvh, GuestKind::Pv]]);
        assert_eq!((Plan { machines: 0, ..plan }.shares().len(), Plan::quick().shares().len()), (1, 1));
    }

    #[test]
    fn a_guest_is_idle_at_no_cap_but_nought() {
        let quick = Plan::quick();
        let steps = quick.steps(&quick.kinds);
        assert_eq!(steps.len(), 14);
        assert!(steps.iter().all(|step| step.bed.writes == (step.cap > 0)) && steps.iter().any(|step| step.cap == 0));
        let loaded = Plan { caps: vec![10], ..quick };
        assert!(loaded.steps(&loaded.kinds).iter().all(|step| step.cap == 10 && step.bed.writes));
    }
}
