//! Domctls: the control operations on one domain. The frame of every domctl, the choice of the interface version, and
//! the operations on the domain as a whole; log-dirty is in [`crate::shadow`], vCPUs in [`crate::vcpu`], the rest in
//! [`crate::memory`] and [`crate::hvm`].
//!
//! The interface version comes from a table over Xen's version, never from probing: a refusal by FLASK and a wrong
//! version are the same answer (-EACCES).

use bitflags::bitflags;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::abi::domctl as raw;
use crate::abi::xen::HYPERVISOR_DOMCTL;
use crate::types::ShutdownReason;
use crate::version::{self, XenVersion};
use crate::{DomHandle, DomId, Error, EvtchnPort, Loan, Mfn, Result, Transport, XenErrno};

/// Domctl interface versions by Xen's minor version; of Xen 4 (domctl.h of each release).
const INTERFACE_VERSIONS: &[(u16, u32)] = &[(17, 0x15), (18, 0x16), (19, 0x17), (20, 0x17), (21, 0x17), (22, 0x18)];

/// The domctl interface version of a Xen version.
///
/// # Errors
/// [`Error::UnknownVersion`] for a version whose structures nobody has checked.
pub fn interface_version(xen: XenVersion) -> Result<u32> {
    let known = INTERFACE_VERSIONS.iter().find(|(minor, _)| xen.major == 4 && *minor == xen.minor);
    known.map(|(_, version)| *version).ok_or(Error::UnknownVersion { major: xen.major, minor: xen.minor })
}

/// Issues domctls in the interface version of the hypervisor at hand.
#[derive(Clone, Copy, Debug)]
pub struct Domctl<T> {
    transport: T,
    version: u32,
}

impl<T: Transport> Domctl<T> {
    /// Asks Xen for its version and chooses the interface version.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`], or what Xen answered to the question.
    pub fn probe(transport: T) -> Result<Self> {
        let version = interface_version(version::xen_version(&transport)?)?;
        Ok(Self { transport, version })
    }

    /// The transport below.
    pub const fn transport(&self) -> &T {
        &self.transport
    }

    /// The interface version in use.
    pub const fn interface_version(&self) -> u32 {
        self.version
    }

    /// Issues one domctl; `payload` goes in and, if the call succeeds, comes back with Xen's answers.
    ///
    /// # Safety
    /// Every address in `payload` is on loan for what the operation reads or writes there.
    pub(crate) unsafe fn issue<P>(&self, call: &'static str, cmd: u32, domain: DomId, payload: &mut P) -> Result<()>
    where
        P: FromBytes + IntoBytes + Immutable + KnownLayout,
    {
        const { assert!(size_of::<P>() <= raw::PAYLOAD_LEN) };
        let mut frame = raw::Domctl {
            cmd,
            interface_version: self.version,
            domain: domain.raw(),
            pad: [0; 3],
            payload: [0; raw::PAYLOAD_LEN / 8],
        };
        frame.payload.as_mut_bytes()[..size_of::<P>()].copy_from_slice(payload.as_bytes());
        let loan = self.transport.lend_mut(frame.as_mut_bytes())?;
        // SAFETY: the frame is on loan, the caller vouches for the addresses in it, and no domctl that is issued
        // here touches the caller's own memory or registers otherwise.
        let value = unsafe { self.transport.call1(HYPERVISOR_DOMCTL, loan.address()) };
        drop(loan);
        Error::check(call, value)?;
        payload.as_mut_bytes().copy_from_slice(&frame.payload.as_bytes()[..size_of::<P>()]);
        Ok(())
    }

    /// Issues a domctl that has no structure of its own.
    fn bare(&self, call: &'static str, cmd: u32, domain: DomId) -> Result<()> {
        // SAFETY: there is no address.
        unsafe { self.issue(call, cmd, domain, &mut [0u8; 0]) }
    }

    /// What the domain is and does, if it is the domain that is meant.
    ///
    /// Up to 4.21 Xen answers for the next domain when the one asked for does not exist, and domids are re-used; so
    /// the answer is compared with the domid and, if given, the handle.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the domain is gone or another; else what Xen answered.
    pub fn getdomaininfo(&self, domain: DomId, handle: Option<DomHandle>) -> Result<DomainInfo> {
        let mut info = raw::GetDomainInfo::new_zeroed();
        // SAFETY: there is no address.
        let done = unsafe { self.issue("XEN_DOMCTL_getdomaininfo", raw::GETDOMAININFO, domain, &mut info) };
        match done {
            Err(Error::Xen { errno: XenErrno::ESRCH, .. }) => return Err(Error::NotFound { domain, found: None }),
            other => other?,
        }
        if info.domain != domain.raw() {
            return Err(Error::NotFound { domain, found: None });
        }
        let found = DomHandle::new(info.handle);
        match handle {
            Some(wanted) if wanted != found => Err(Error::NotFound { domain, found: Some(found) }),
            _ => Ok(DomainInfo::from_raw(&info)),
        }
    }

    /// The first domain with a domid of at least `from`, for listing domains in dom0. Xen 4.17 to 4.21.
    ///
    /// # Errors
    /// What Xen answered, but for "there is none" (-ESRCH), which is `Ok(None)`.
    pub fn next_domain(&self, from: DomId) -> Result<Option<DomainInfo>> {
        let mut info = raw::GetDomainInfo::new_zeroed();
        // SAFETY: there is no address.
        match unsafe { self.issue("XEN_DOMCTL_getdomaininfo", raw::GETDOMAININFO, from, &mut info) } {
            Err(Error::Xen { errno: XenErrno::ESRCH, .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(DomainInfo::from_raw(&info))),
        }
    }

    /// Pauses the domain; pauses are counted.
    ///
    /// # Errors
    /// What Xen answered; -EOVERFLOW beyond 255 pauses.
    pub fn pause(&self, domain: DomId) -> Result<()> {
        self.bare("XEN_DOMCTL_pausedomain", raw::PAUSEDOMAIN, domain)
    }

    /// Undoes one pause.
    ///
    /// # Errors
    /// What Xen answered; -EINVAL if the domain is not paused.
    pub fn unpause(&self, domain: DomId) -> Result<()> {
        self.bare("XEN_DOMCTL_unpausedomain", raw::UNPAUSEDOMAIN, domain)
    }

    /// Continues a domain that has shut down, whatever the reason: see [`crate::vcpu`] for the whole of a fast resume.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn resumedomain(&self, domain: DomId) -> Result<()> {
        self.bare("XEN_DOMCTL_resumedomain", raw::RESUMEDOMAIN, domain)
    }

    /// Destroys the domain. Xen is preemptible here: -ERESTART is handled by Xen itself.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn destroydomain(&self, domain: DomId) -> Result<()> {
        self.bare("XEN_DOMCTL_destroydomain", raw::DESTROYDOMAIN, domain)
    }

    /// Sends the news of the domain's next suspends to `port` (of the domain itself) instead of to dom0; None: to dom0
    /// again. A port that is closed makes suspends silent: never leave one behind.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn subscribe(&self, domain: DomId, port: Option<EvtchnPort>) -> Result<()> {
        let mut op = raw::Subscribe { port: port.map_or(0, EvtchnPort::raw) };
        // SAFETY: there is no address.
        unsafe { self.issue("XEN_DOMCTL_subscribe", raw::SUBSCRIBE, domain, &mut op) }
    }

    /// Width of a PV domain's addresses: 32 or 64. PVH and HVM: -EOPNOTSUPP.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn get_address_size(&self, domain: DomId) -> Result<u32> {
        let mut op = raw::AddressSize::new_zeroed();
        // SAFETY: there is no address.
        unsafe { self.issue("XEN_DOMCTL_get_address_size", raw::GET_ADDRESS_SIZE, domain, &mut op) }?;
        Ok(op.size)
    }

    /// How the domain sees the TSC. Xen pauses the domain for it.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn gettscinfo(&self, domain: DomId) -> Result<raw::TscInfo> {
        let mut op = raw::TscInfo::new_zeroed();
        // SAFETY: there is no address.
        unsafe { self.issue("XEN_DOMCTL_gettscinfo", raw::GETTSCINFO, domain, &mut op) }?;
        Ok(op)
    }

    /// The largest numbers of CPUID leaves and MSRs that a policy can have.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn cpu_policy_size(&self, domain: DomId) -> Result<(u32, u32)> {
        let mut op = raw::CpuPolicy::new_zeroed();
        // SAFETY: the addresses are null, which asks for the sizes.
        unsafe { self.issue("XEN_DOMCTL_get_cpu_policy", raw::GET_CPU_POLICY, domain, &mut op) }?;
        Ok((op.nr_leaves, op.nr_msrs))
    }

    /// The domain's CPUID and MSR policy; how many of each were written.
    ///
    /// # Errors
    /// What Xen answered; -ENOBUFS if there is too little room.
    pub fn get_cpu_policy(
        &self,
        domain: DomId,
        leaves: &mut [raw::CpuidLeaf],
        msrs: &mut [raw::MsrEntry],
    ) -> Result<(usize, usize)> {
        const CALL: &str = "XEN_DOMCTL_get_cpu_policy";
        let (nr_leaves, nr_msrs) = (count(CALL, leaves.len())?, count(CALL, msrs.len())?);
        let leaf_loan = self.transport.lend_mut(leaves.as_mut_bytes())?;
        let msr_loan = self.transport.lend_mut(msrs.as_mut_bytes())?;
        let mut op = raw::CpuPolicy {
            nr_leaves,
            nr_msrs,
            leaves: leaf_loan.address(),
            msrs: msr_loan.address(),
            ..raw::CpuPolicy::new_zeroed()
        };
        // SAFETY: both arrays are on loan for the numbers of entries given.
        unsafe { self.issue(CALL, raw::GET_CPU_POLICY, domain, &mut op) }?;
        Ok((bounded(CALL, op.nr_leaves.into(), nr_leaves.into())?, bounded(CALL, op.nr_msrs.into(), nr_msrs.into())?))
    }
}

/// A length as the `u32` that an operation wants.
pub(crate) fn count(call: &'static str, len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::Argument { call, rule: "the buffer has more than 2^32 entries" })
}

/// A number that Xen returned, if it is not above the room that it had.
pub(crate) fn bounded(call: &'static str, got: u64, room: u64) -> Result<usize> {
    match usize::try_from(got) {
        Ok(value) if got <= room => Ok(value),
        _ => Err(Error::Short { call, asked: room, got }),
    }
}

bitflags! {
    /// What a domain is and does (domctl.h: `XEN_DOMINF_*`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct DomainFlags: u32 {
        /// Being destroyed.
        const DYING = raw::DOMINF_DYING;
        /// PVH or HVM.
        const HVM_GUEST = raw::DOMINF_HVM_GUEST;
        /// Shut down; the reason says why.
        const SHUTDOWN = raw::DOMINF_SHUTDOWN;
        /// Paused by a control domain.
        const PAUSED = raw::DOMINF_PAUSED;
        /// All vCPUs wait for an event.
        const BLOCKED = raw::DOMINF_BLOCKED;
        /// A vCPU runs.
        const RUNNING = raw::DOMINF_RUNNING;
        /// Under a debugger.
        const DEBUGGED = raw::DOMINF_DEBUGGED;
        /// Runs xenstored.
        const XS_DOMAIN = raw::DOMINF_XS_DOMAIN;
        /// Hardware-assisted paging.
        const HAP = raw::DOMINF_HAP;
    }
}

/// The answer of getdomaininfo, about a domain that was compared with the one meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DomainInfo {
    /// The domain.
    pub domain: DomId,
    /// Its handle.
    pub handle: DomHandle,
    /// What it is and does.
    pub flags: DomainFlags,
    /// Why it shut down, if it did.
    pub shutdown: Option<ShutdownReason>,
    /// Pages that it has.
    pub tot_pages: u64,
    /// Pages that it may have.
    pub max_pages: u64,
    /// Pages claimed for it but not given yet.
    pub outstanding_pages: u64,
    /// Pages that it shares with others.
    pub shr_pages: u64,
    /// Pages that are paged out.
    pub paged_pages: u64,
    /// PV: the frame of its shared_info.
    pub shared_info_frame: Mfn,
    /// CPU time in nanoseconds.
    pub cpu_time_ns: u64,
    /// vCPUs that are online.
    pub online_vcpus: u32,
    /// The highest vCPU number; None if it has no vCPU.
    pub max_vcpu_id: Option<u32>,
    /// Its security label, as a number.
    pub ssidref: u32,
    /// Its CPU pool.
    pub cpupool: u32,
}

impl DomainInfo {
    fn from_raw(info: &raw::GetDomainInfo) -> Self {
        let flags = DomainFlags::from_bits_truncate(info.flags);
        let reason = ShutdownReason::new((info.flags >> raw::DOMINF_SHUTDOWN_SHIFT).to_le_bytes()[0]);
        Self {
            domain: DomId::new(info.domain),
            handle: DomHandle::new(info.handle),
            flags,
            shutdown: flags.contains(DomainFlags::SHUTDOWN).then_some(reason),
            tot_pages: info.tot_pages,
            max_pages: info.max_pages,
            outstanding_pages: info.outstanding_pages,
            shr_pages: info.shr_pages,
            paged_pages: info.paged_pages,
            shared_info_frame: Mfn::new(info.shared_info_frame),
            cpu_time_ns: info.cpu_time,
            online_vcpus: info.nr_online_vcpus,
            max_vcpu_id: Some(info.max_vcpu_id).filter(|id| *id != raw::INVALID_MAX_VCPU_ID),
            ssidref: info.ssidref,
            cpupool: info.cpupool,
        }
    }

    /// Whether the domain is PVH or HVM (else PV).
    #[must_use]
    pub const fn is_hvm(&self) -> bool {
        self.flags.contains(DomainFlags::HVM_GUEST)
    }

    /// Whether the domain stands still because it suspended itself, and is not being destroyed.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.shutdown == Some(ShutdownReason::SUSPEND) && !self.flags.contains(DomainFlags::DYING)
    }
}
