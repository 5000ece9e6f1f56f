//! Xen, as dom0's commands and the keeper use it: look at a domain, make its suspend silent, resume it.
//!
//! A domain is always named by domid *and* handle; a domid that belongs to another domain now counts as gone.

use crate::exit::{Exit, Failure};
use snapshot::keeper::Target;
use xen_hypercall::cap::CpuCap;
use xen_hypercall::dom0::{Resumed, fast_resume};
use xen_hypercall::domctl::{DomainFlags, DomainInfo};
use xen_hypercall::transport::privcmd::Privcmd;
use xen_hypercall::types::{DomHandle, DomId, EvtchnPort};
use xen_hypercall::version::{XenVersion, xen_version};
use xen_hypercall::{Domctl, Error, Result, XenErrno, flask, memory};

/// A port that is valid in the target's event channel table (below 4096, the two-level limit) and that no guest ever
/// binds: a notification to it goes nowhere, which is the point.
pub const SILENT_PORT: EvtchnPort = EvtchnPort::new(4000);

/// The boolean of flask/livesave.te.
const TAKING: &str = "livesave_taking";

/// The hypervisor.
#[derive(Debug)]
pub struct Xen {
    domctl: Domctl<Privcmd>,
}

/// What an error of Xen means to a command.
pub fn trouble(what: &str, error: Error) -> Failure {
    let exit = match error {
        Error::Host { .. } => Exit::NoXen,
        Error::UnknownVersion { .. } => Exit::Unsupported,
        Error::NotFound { .. } => Exit::NoDomain,
        _ => match error.xen() {
            Some(XenErrno::EPERM | XenErrno::EACCES) => Exit::Denied,
            Some(XenErrno::ENOMEM) => Exit::NoMemory,
            _ => Exit::Internal,
        },
    };
    let failure = exit.fail(format_args!("{what}: {error}"));
    match exit {
        Exit::NoXen => failure.hint("run livesave in dom0, as root, with the module xen-privcmd loaded"),
        Exit::Denied => failure.hint("`livesave doctor` checks the FLASK policy; `xl dmesg | grep avc` shows the call"),
        _ => failure,
    }
}

impl Xen {
    /// Opens the devices and asks for the version.
    pub fn open() -> std::result::Result<Self, Failure> {
        let open = Privcmd::open().and_then(Domctl::probe);
        Ok(Self { domctl: open.map_err(|error| trouble("Xen", error))? })
    }

    /// The hypervisor's version.
    pub fn version(&self) -> Result<XenVersion> {
        xen_version(self.domctl.transport())
    }

    /// The domain, if it exists under this handle.
    pub fn info(&self, domid: DomId, handle: Option<DomHandle>) -> Result<Option<DomainInfo>> {
        match self.domctl.getdomaininfo(domid, handle) {
            Ok(info) => Ok(Some(info)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How the target stands. An error of the call itself is taken for "running": nothing follows from it but
    /// deadlines.
    pub fn target(&self, domid: DomId, handle: DomHandle) -> Target {
        match self.info(domid, Some(handle)) {
            Ok(None) => Target::Gone,
            Ok(Some(info)) => target_of(&info),
            Err(_) => Target::Running,
        }
    }

    /// Makes suspends of the domain silent, or announced again.
    pub fn silence(&self, domid: DomId, handle: DomHandle, silent: bool) -> Result<()> {
        self.domctl.getdomaininfo(domid, Some(handle))?;
        self.domctl.subscribe(domid, silent.then_some(SILENT_PORT))
    }

    /// Fast resume of a suspended domain. `Ok(false)`: it was not suspended.
    pub fn resume(&self, domid: DomId, handle: DomHandle) -> Result<bool> {
        match fast_resume(&self.domctl, domid, handle)? {
            Resumed::Done | Resumed::ExtendedStateLost(_) => Ok(true),
            Resumed::NotSuspended(_) => Ok(false),
        }
    }

    /// Whether the domain still has memory to be populated on demand.
    pub fn populates_on_demand(&self, domid: DomId) -> Result<bool> {
        Ok(memory::pod_target(self.domctl.transport(), domid)?.pod_entries != 0)
    }

    /// Bytes of the domain's paging pool.
    pub fn paging_pool(&self, domid: DomId) -> Result<u64> {
        self.domctl.paging_pool_bytes(domid)
    }

    /// Whether log-dirty is on: ENABLE tells, and is undone when it was off. Only inside [`keepoff::lifted`]: if the
    /// OFF is refused, tracking stays on.
    ///
    /// [`keepoff::lifted`]: crate::keeper::keepoff::lifted
    pub fn log_dirty_on(&self, domid: DomId) -> Result<bool> {
        match self.domctl.logdirty_enable(domid) {
            Ok(()) => self.domctl.logdirty_off(domid).map(|()| false),
            Err(error) if error.xen() == Some(XenErrno::EINVAL) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether the policy's boolean is on that keeps other tools off while a take runs. None: the policy has none.
    pub fn taking(&self) -> Result<Option<bool>> {
        flask::boolean(self.domctl.transport(), TAKING)
    }

    /// Sets it.
    pub fn set_taking(&self, on: bool) -> Result<()> {
        flask::set_boolean(self.domctl.transport(), TAKING, on)
    }

    /// Whether dom0 lacks what the boolean withholds, for this domain: the question with which libxc begins a save.
    pub fn keeps_tools_off(&self, domid: DomId) -> bool {
        let answer = memory::maximum_gpfn(self.domctl.transport(), domid);
        matches!(answer.map_err(|error| error.xen()), Err(Some(XenErrno::EACCES | XenErrno::EPERM)))
    }

    /// The cap on the domain's processor time.
    pub fn cpu_cap(&self, domid: DomId, handle: DomHandle) -> Result<CpuCap> {
        self.domctl.getdomaininfo(domid, Some(handle))?;
        self.domctl.cpu_cap(domid)
    }

    /// Sets it.
    pub fn set_cpu_cap(&self, domid: DomId, handle: DomHandle, cap: CpuCap) -> Result<()> {
        self.domctl.getdomaininfo(domid, Some(handle))?;
        self.domctl.set_cpu_cap(domid, cap)
    }

    /// Switches log-dirty off. Only inside [`keepoff::lifted`](crate::keeper::keepoff::lifted).
    pub fn log_dirty_off(&self, domid: DomId) -> Result<()> {
        self.domctl.logdirty_off(domid)
    }
}

/// What the keeper sees in an answer of Xen.
pub fn target_of(info: &DomainInfo) -> Target {
    match info.shutdown {
        _ if info.flags.contains(DomainFlags::DYING) => Target::Gone,
        None => Target::Running,
        Some(_) if info.is_suspended() => Target::Suspended,
        Some(_) => Target::Stopped,
    }
}
