//! What is compared with what: mechanisms, guests, loads, and the order of the runs.
//!
//! The number of the run changes slowest: whenever time runs out, every cell has as many runs as any other, give or
//! take one.

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
    /// CPU caps of the guest that writes; 100 is none. An idle guest is always there, as cap 0.
    pub caps: Vec<u32>,
    /// Runs of each cell.
    pub runs: u32,
    /// No run begins later.
    pub minutes: u64,
}

impl Plan {
    /// Within an hour on two cores.
    pub fn full() -> Self {
        Self { kinds: vec![GuestKind::Pvh, GuestKind::Pv], caps: vec![100], runs: 5, minutes: 55 }
    }

    /// In minutes: one run each, of one kind of guest.
    pub fn quick() -> Self {
        Self { kinds: vec![GuestKind::Pvh], caps: vec![100], runs: 1, minutes: 20 }
    }

    /// The guests in the order in which they are made; `caps` of each.
    pub fn beds(&self) -> Vec<(Bed, Vec<u32>)> {
        let of = |kind: &GuestKind| {
            [(Bed { kind: *kind, writes: false }, vec![0]), (Bed { kind: *kind, writes: true }, self.caps.clone())]
        };
        self.kinds.iter().flat_map(of).collect()
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
    fn an_idle_guest_is_always_there() {
        let beds = Plan::full().beds();
        assert_eq!(beds.len(), 4);
        assert!(beds.iter().filter(|(bed, _)| !bed.writes).all(|(_, caps)| caps == &[0]));
        assert_eq!(Plan::quick().beds().len(), 2);
    }
}
