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
    None
}

/// What its configuration says against a take.
fn config_against(config: &Config, name: &str) -> Option<Failure> {
    let kind = config.kind();
    if !matches!(kind, Some("pvh" | "pv")) {
        let failure = Exit::NotPvh.fail(format_args!("the guest '{name}' is of type {}", kind.unwrap_or("unknown")));
        return Some(failure.hint("only PVH and 64-bit PV guests can be taken"));
    }
    // Those behind a backend that is not dom0's stand here only.
    (config.passed_through() > 0).then(|| passed_through(name))
}

fn passed_through(name: &str) -> Failure {
    let failure = Exit::NotPvh.fail(format_args!("the guest '{name}' has passed-through PCI devices"));
    failure.hint("their writes are not tracked, and a restore could not bring them back: detach them")
}

/// Can this hypervisor track the writes of PV guests? That takes shadow paging, which later versions leave out.
pub fn tracks_pv() -> Outcome<bool> {
    let info = xl::output(&["info"], waits::XL_LIST)?;
    Ok(has_shadow(&String::from_utf8_lossy(&info)))
}

fn has_shadow(info: &str) -> bool {
    let caps = info.lines().find_map(|line| line.strip_prefix("virt_caps"));
    caps.is_some_and(|caps| caps.split([' ', ':']).any(|word| word == "shadow"))
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
        return Ok(Some(passed_through(name)));
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
    // Xen knows no populate-on-demand of PV guests (arch/x86/mm.c, XENMEM_get_pod_target).
    let pod = if info.is_hvm() { xen.populates_on_demand(found.domid) } else { Ok(false) };
    if pod.map_err(|error| xen::trouble("XENMEM_get_pod_target", error))? {
        let failure = Exit::PopulateOnDemand.fail(format_args!("the guest '{name}' is populate-on-demand"));
        return Err(failure.hint("start it with maxmem equal to memory"));
    }
    let listing = xl::output(&["list", "-l", &found.domid.to_string()], waits::XL_LIST)?;
    let config = Config::from_xl_list(&listing, found.domid.raw())?;
    config_against(&config, name).map_or(Ok(Guest { info, config }), Err)
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
            (DomainInfo { shutdown: Some(ShutdownReason::SUSPEND), ..info() }, Exit::ShutDown),
        ];
        for (info, exit) in cases {
            assert_eq!(against(&info, "g").unwrap().exit, exit, "{info:?}");
        }
    }

    #[test]
    fn kinds_that_cannot_be_taken_are_named() {
        let against = |text: &str| config_against(&Config::from_json(text.as_bytes()).unwrap(), "g");
        for fine in ["pv", "pvh"] {
            assert_eq!(against(&format!("{{\"c_info\":{{\"type\":\"{fine}\"}}}}")), None);
        }
        let hvm = against("{\"c_info\":{\"type\":\"hvm\"}}").unwrap();
        assert_eq!((hvm.exit, hvm.what.contains("type hvm")), (Exit::NotPvh, true));
        let pci = against("{\"c_info\":{\"type\":\"pv\"},\"pcidevs\":[{\"bus\":1}]}").unwrap();
        assert_eq!((pci.exit, pci.what.contains("passed-through")), (Exit::NotPvh, true));
    }

    #[test]
    fn shadow_paging_is_read_from_what_xl_says() {
        assert!(has_shadow("free_memory : 1\nvirt_caps              : pv hvm hap shadow gnttab-v1\n"));
        assert!(!has_shadow("virt_caps              : pv hvm hap gnttab-v1\n"));
        assert!(!has_shadow("xen_commandline        : shadow\n"));
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
