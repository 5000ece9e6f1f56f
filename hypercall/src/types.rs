//! The names of things in Xen: domains, frames, grant references, event channel ports.
//!
//! Each is a newtype over the integer of the ABI, so that a guest frame number cannot be passed where a machine frame
//! number belongs. None of them is a proof: a number that came from a peer is still only a number.

use core::fmt;

/// Bytes of a page, the only page size that this project maps.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

macro_rules! newtypes {
    ($( $(#[$meta:meta])* $name:ident($raw:ty), $format:literal; )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[repr(transparent)]
        pub struct $name($raw);

        impl $name {
            /// Names the thing with this number; every number is accepted.
            #[must_use]
            pub const fn new(raw: $raw) -> Self {
                Self(raw)
            }

            /// The number as it stands in the ABI.
            #[must_use]
            pub const fn raw(self) -> $raw {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(", $format, ")"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    )* };
}

newtypes! {
    /// A domain (xen.h: `domid_t`). Domids are re-used: compare the [`DomHandle`] as well.
    DomId(u16), "{}";
    /// A pseudo-physical frame: the number that a PV guest has given to one of its frames.
    Pfn(u64), "{:#x}";
    /// A guest frame: what Xen calls a frame of a domain; for PVH and HVM an index into the p2m, for PV the MFN.
    Gfn(u64), "{:#x}";
    /// A machine frame.
    Mfn(u64), "{:#x}";
    /// An entry of a domain's grant table (grant_table.h: `grant_ref_t`).
    GrantRef(u32), "{}";
    /// An event channel port of one domain (event_channel.h: `evtchn_port_t`).
    EvtchnPort(u32), "{}";
}

impl DomId {
    /// The control domain.
    pub const DOM0: Self = Self(0);
    /// The caller itself, where a call accepts it (xen.h: `DOMID_SELF`).
    pub const SELF: Self = Self(0x7ff0);
    /// The first number that is no ordinary domain (xen.h: `DOMID_FIRST_RESERVED`).
    pub const FIRST_RESERVED: Self = Self(0x7ff0);
    /// No domain (xen.h: `DOMID_INVALID`).
    pub const INVALID: Self = Self(0x7ff4);

    /// Whether an ordinary domain can have this number.
    #[must_use]
    pub const fn is_ordinary(self) -> bool {
        self.0 < Self::FIRST_RESERVED.0
    }
}

impl Mfn {
    /// No frame (`INVALID_MFN`; in a p2m: nothing is populated here).
    pub const INVALID: Self = Self(u64::MAX);

    /// The machine address of the frame's first byte, or None for a number beyond 52 bits of address.
    #[must_use]
    pub const fn address(self) -> Option<u64> {
        if self.0 >> (52 - PAGE_SHIFT) == 0 { Some(self.0 << PAGE_SHIFT) } else { None }
    }
}

/// A domain's handle: the uuid that the toolstack gave it at creation (xen.h: `xen_domain_handle_t`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct DomHandle([u8; 16]);

impl DomHandle {
    /// The handle with these bytes, in the order in which a uuid is written.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes, in the order in which a uuid is written.
    #[must_use]
    pub const fn raw(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for DomHandle {
    /// As a uuid: `8-4-4-4-12` lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DomHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DomHandle({self})")
    }
}

/// Why a domain shut down (sched.h: `SHUTDOWN_*`). The guest chooses the number, so it is no enum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct ShutdownReason(u8);

impl ShutdownReason {
    /// The guest powered off.
    pub const POWEROFF: Self = Self(0);
    /// The guest wants a reboot.
    pub const REBOOT: Self = Self(1);
    /// The guest suspended: its state is ready to be saved.
    pub const SUSPEND: Self = Self(2);
    /// The guest crashed.
    pub const CRASH: Self = Self(3);
    /// The guest's watchdog expired.
    pub const WATCHDOG: Self = Self(4);
    /// The guest asked for a soft reset (kexec).
    pub const SOFT_RESET: Self = Self(5);

    /// The reason with this number; every number is accepted.
    #[must_use]
    pub const fn new(raw: u8) -> Self {
        Self(raw)
    }

    /// The number as it stands in the ABI.
    #[must_use]
    pub const fn raw(self) -> u8 {
        self.0
    }
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 6] = ["poweroff", "reboot", "suspend", "crash", "watchdog", "soft-reset"];
        match NAMES.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "shutdown code {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_handle_prints_as_a_uuid() {
        let handle = DomHandle::new(core::array::from_fn(|i| (i as u8) << 4 | 0xf));
        assert_eq!(handle.to_string(), "0f1f2f3f-4f5f-6f7f-8f9f-afbfcfdfefff");
    }

    #[test]
    fn ordinary_domains_end_below_the_reserved_numbers() {
        assert!(DomId::new(0x7fef).is_ordinary());
        assert!(!DomId::SELF.is_ordinary());
        assert!(!DomId::INVALID.is_ordinary());
    }

    #[test]
    fn a_machine_address_has_at_most_52_bits() {
        assert_eq!(Mfn::new(0xff_ffff_ffff).address(), Some(0x000f_ffff_ffff_f000));
        assert_eq!(Mfn::new(0x100_0000_0000).address(), None);
        assert_eq!(Mfn::INVALID.address(), None);
    }

    #[test]
    fn a_shutdown_reason_names_itself_and_unknown_ones_keep_their_number() {
        assert_eq!(ShutdownReason::SUSPEND.to_string(), "suspend");
        assert_eq!(ShutdownReason::new(99).to_string(), "shutdown code 99");
    }
}
