//! What is checked of a guest before anything is touched. The stub checks again what it can see itself.

use crate::config::Config;
use crate::domain::Found;
use crate::exit::{Exit, Failure, Outcome};
use crate::host::tree::Tree;
use crate::host::xen::{self, Xen};
use crate::host::xl;
use crate::waits;
use xen_hypercall::domctl::{DomainFlags, DomainInfo};

/// A guest that can be taken, for all that dom0 sees.
#[derive(Debug)]
pub struct Guest {
    /// What Xen says.
    pub info: DomainInfo,
    /// Its configuration.
    pub config: Config,
}

/// What Xen's answer alone says against a take.
pub fn against(info: &DomainInfo, name: &str) -> Option<Failure> {
    if info.flags.contains(DomainFlags::DYING) {
        return Some(Exit::ShutDown.fail(format_args!("the guest '{name}' is being destroyed")));
    }
    if let Some(reason) = info.shutdown {
        let failure = Exit::ShutDown.fail(format_args!("the guest '{name}' is shut down ({reason})"));
        return Some(failure.hint("`livesave recover` resumes it if a take of ours left it so"));
    }
    if info.flags.contains(DomainFlags::PAUSED) {
        let failure = Exit::Paused.fail(format_args!("the guest '{name}' is paused"));
        return Some(failure.hint(format_args!("`xl unpause {name}` first")));
    }
    if !info.is_hvm() {
        return Some(not_pvh(name, "pv"));
    }
    None
}

fn not_pvh(name: &str, kind: &str) -> Failure {
    Exit::NotPvh.fail(format_args!("the guest '{name}' is of type {kind}")).hint("only PVH guests can be taken")
}

/// What xenstore says against a take.
pub fn store_against(tree: &mut impl Tree, found: &Found) -> Outcome<Option<Failure>> {
    let control = format!("/local/domain/{}/control", found.domid);
    let name = &found.name;
    if tree.get(&format!("{control}/feature-suspend"))?.as_deref() != Some("1") {
        let failure = Exit::NoSuspend.fail(format_args!("the guest '{name}' does not offer suspend"));
        let hint = format!(
            "its kernel needs Xen's suspend support (Linux: CONFIG_HIBERNATE_CALLBACKS) and must have booted; if it \
             was migrated or restored by xl since, it says so no more: `xenstore-write {control}/feature-suspend 1`"
        );
        return Ok(Some(failure.hint(hint)));
    }
    let request = tree.get(&format!("{control}/shutdown"))?.unwrap_or_default();
    if !request.is_empty() {
        let shown: String = request.chars().filter(|c| !c.is_control()).take(32).collect();
        let failure = Exit::Foreign.fail(format_args!("a request '{shown}' to the guest '{name}' is pending"));
        return Ok(Some(failure.hint("wait until the guest has taken it")));
    }
    Ok(None)
}

/// What libxl made, read before anything is asked of the guest: a guest that cannot be taken at all is not to be told
/// that it lacks something else.
pub fn made_against(tree: &mut impl Tree, found: &Found) -> Outcome<Option<Failure>> {
    let (domid, name) = (found.domid, &found.name);
    if tree.get(&format!("/libxl/{domid}/type"))?.as_deref() == Some("hvm") {
        let failure = Exit::NotPvh.fail(format_args!("the guest '{name}' is of type hvm, with a device model"));
        return Ok(Some(failure.hint("HVM guests are not supported yet: the device model has a state of its own")));
    }
    if !tree.list(&format!("/local/domain/0/backend/pci/{domid}"))?.is_empty() {
        let failure = Exit::NotPvh.fail(format_args!("the guest '{name}' has passed-through PCI devices"));
        let hint = "their writes are not tracked, and a restore could not bring them back: detach them";
        return Ok(Some(failure.hint(hint)));
    }
    Ok(None)
}

/// Checks everything.
pub fn check(xen: &Xen, tree: &mut impl Tree, found: &Found) -> Outcome<Guest> {
    let name = &found.name;
    let info = xen.info(found.domid, None).map_err(|error| xen::trouble("getdomaininfo", error))?;
    let info = info.ok_or_else(|| Exit::NoDomain.fail(format_args!("the guest '{name}' is gone")))?;
    // First: a guest that is being saved may stand, or have a request pending, and that would be told as the cause.
    if let Some(saver) = xl::saver_of(found.domid.raw(), name) {
        let failure = Exit::LogDirtyOn.fail(format_args!("the guest '{name}' is being saved or migrated: {saver}"));
        return Err(failure.hint("wait for its end"));
    }
    let mut failure = made_against(tree, found)?.or_else(|| against(&info, name));
    if failure.is_none() {
        failure = store_against(tree, found)?;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    let pod = xen.populates_on_demand(found.domid);
    if pod.map_err(|error| xen::trouble("XENMEM_get_pod_target", error))? {
        let failure = Exit::PopulateOnDemand.fail(format_args!("the guest '{name}' is populate-on-demand"));
        return Err(failure.hint("start it with maxmem equal to memory"));
    }
    let listing = xl::output(&["list", "-l", &found.domid.to_string()], waits::XL_LIST)?;
    let config = Config::from_xl_list(&listing, found.domid.raw())?;
    match config.kind() {
        Some("pvh") => Ok(Guest { info, config }),
        kind => Err(not_pvh(name, kind.unwrap_or("unknown"))),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::domain::tests::tree;
    use xen_hypercall::types::{DomId, Mfn, ShutdownReason};

    pub fn info() -> DomainInfo {
        DomainInfo {
            domain: DomId::new(5),
            handle: Default::default(),
            flags: DomainFlags::HVM_GUEST | DomainFlags::HAP,
            shutdown: None,
            tot_pages: 32768,
            max_pages: 32768,
            outstanding_pages: 0,
            shr_pages: 0,
            paged_pages: 0,
            shared_info_frame: Mfn::INVALID,
            cpu_time_ns: 0,
            online_vcpus: 1,
            max_vcpu_id: Some(0),
            ssidref: 0,
            cpupool: 0,
        }
    }

    #[test]
    fn a_running_pvh_guest_passes() {
        assert_eq!(against(&info(), "g"), None);
    }

    #[test]
    fn each_state_that_prevents_a_take_has_its_exit_status() {
        let with = |flags| DomainInfo { flags, ..info() };
        let cases = [
            (with(DomainFlags::HVM_GUEST | DomainFlags::DYING), Exit::ShutDown),
            (with(DomainFlags::HVM_GUEST | DomainFlags::PAUSED), Exit::Paused),
            (with(DomainFlags::empty()), Exit::NotPvh),
            (DomainInfo { shutdown: Some(ShutdownReason::SUSPEND), ..info() }, Exit::ShutDown),
        ];
        for (info, exit) in cases {
            assert_eq!(against(&info, "g").unwrap().exit, exit, "{info:?}");
        }
    }

    #[test]
    fn what_libxl_made_is_told_before_what_the_guest_lacks() {
        let found = Found { domid: DomId::new(5), name: "web01".to_owned() };
        let against = |nodes: &[(&str, &str)]| made_against(&mut tree(nodes), &found).unwrap();
        assert_eq!(against(&[("/libxl/5/type", "pvh")]), None);
        assert_eq!(against(&[("/libxl/6/type", "hvm"), ("/local/domain/0/backend/pci/6/0", "")]), None);
        let hvm = against(&[("/libxl/5/type", "hvm")]).unwrap();
        assert_eq!((hvm.exit, hvm.what.contains("device model")), (Exit::NotPvh, true));
        let pci = against(&[("/libxl/5/type", "pv"), ("/local/domain/0/backend/pci/5/0", "")]).unwrap();
        assert_eq!((pci.exit, pci.what.contains("PCI")), (Exit::NotPvh, true));
    }

    #[test]
    fn a_guest_without_suspend_or_with_a_request_is_refused() {
        let found = Found { domid: DomId::new(5), name: "web01".to_owned() };
        let mut offers =
            tree(&[("/local/domain/5/control/feature-suspend", "1"), ("/local/domain/5/control/shutdown", "")]);
        assert_eq!(store_against(&mut offers, &found).unwrap(), None);
        offers.insert("/local/domain/5/control/shutdown".to_owned(), "reboot".to_owned());
        assert_eq!(store_against(&mut offers, &found).unwrap().unwrap().exit, Exit::Foreign);
        let mut mute = tree(&[("/local/domain/5/control/feature-suspend", "0")]);
        assert_eq!(store_against(&mut mute, &found).unwrap().unwrap().exit, Exit::NoSuspend);
    }
}
