//! `livesave doctor`: checks everything that a take needs, and says what to do for each thing that is missing.
//!
//! Each check is a row: fine, a warning, or a fault. Only faults decide the exit status. Nothing is changed.

use super::preflight;
use crate::args::Place;
use crate::domain;
use crate::exit::{Exit, Failure, Outcome};
use crate::host::device::lasting_name;
use crate::host::tree::{self, Tree, XenStore};
use crate::host::xen::Xen;
use crate::host::{files, thin, xl};
use crate::marks::{self, Mark, Standing};
use crate::seen::{self, Sight};
use crate::{catalog, show, stub, waits};
use serde_json::json;
use snapshot::status::StubState;
use std::path::Path;
use xen_hypercall::domctl::{DomainFlags, DomainInfo};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Fine,
    Warning,
    Fault,
}

impl Grade {
    const fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Fault => "FAULT",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    grade: Grade,
    found: String,
    todo: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn fine(&mut self, what: &'static str, found: impl ToString) {
        self.add(what, Grade::Fine, found, "");
    }

    fn add(&mut self, what: &'static str, grade: Grade, found: impl ToString, todo: impl ToString) {
        self.0.push(Finding { what, grade, found: found.to_string(), todo: todo.to_string() });
    }

    fn fault(&mut self, what: &'static str, failure: &Failure) {
        self.add(what, Grade::Fault, &failure.what, failure.hint.clone().unwrap_or_default());
    }
}

/// Checks host, stub, store and, if named, a guest.
pub fn run(guest: Option<&str>, place: &Place) -> Outcome {
    let mut all = Findings::default();
    let xen = devices(&mut all);
    flask(&mut all);
    match tree::connect() {
        Ok(mut store) => {
            all.fine("xenstore", "answers");
            stub_and_store(&mut all, xen.as_ref(), &mut store, place);
            if let (Some(word), Some(xen)) = (guest, &xen) {
                of_guest(&mut all, xen, &mut store, word);
            }
        }
        Err(failure) => all.fault("xenstore", &failure),
    }
    keepers(&mut all);
    if let (Some(xen), Ok(mut store)) = (&xen, tree::connect()) {
        tracked(&mut all, xen, &mut store);
    }
    if let Some(xen) = &xen {
        other_tools(&mut all, xen.taking().map_err(|error| error.to_string()));
    }
    print(&all, place.json)?;
    let faults = all.0.iter().filter(|finding| finding.grade == Grade::Fault).count();
    match faults {
        0 => Ok(()),
        1 => Err(Exit::Unhealthy.fail("one check failed").hint("see the last column")),
        n => Err(Exit::Unhealthy.fail(format_args!("{n} checks failed")).hint("see the last column")),
    }
}

fn print(all: &Findings, as_json: bool) -> Outcome {
    if as_json {
        let rows =
            all.0.iter().map(|f| json!({ "check": f.what, "grade": f.grade.word(), "found": f.found, "todo": f.todo }));
        return show::print_json(&rows.collect());
    }
    let rows =
        all.0.iter().map(|f| vec![f.what.to_owned(), f.grade.word().to_owned(), f.found.clone(), f.todo.clone()]);
    show::print(&show::table(&["CHECK", "RESULT", "FOUND", "TO DO"], rows))
}

fn devices(all: &mut Findings) -> Option<Xen> {
    for path in ["/dev/xen/privcmd", "/dev/xen/hypercall", "/dev/xen/evtchn", "/dev/xen/xenbus"] {
        if !Path::new(path).exists() {
            all.add(
                "devices",
                Grade::Fault,
                format_args!("no {path}"),
                "boot as dom0 and load xen-privcmd and xen-evtchn",
            );
        }
    }
    let xen = match Xen::open() {
        Ok(xen) => xen,
        Err(failure) => {
            all.fault("hypervisor", &failure);
            return None;
        }
    };
    match xen.version() {
        Ok(version) => {
            all.fine("hypervisor", format_args!("Xen {version}"));
            if (version.major, version.minor) < (4, 19) {
                let found = "pages that a guest adds while tracked are not marked dirty (fixed in 4.19.5)";
                all.add("ballooning", Grade::Warning, found, "do not change a guest's memory during a take");
            }
        }
        Err(error) => all.add("hypervisor", Grade::Fault, error, ""),
    }
    Some(xen)
}

fn flask(all: &mut Findings) {
    // Its exit status is the mode: 1 is enforcing (tools/xl/xl_flask.c).
    match xl::output_if(&["getenforce"], waits::XL_LIST, |_, said| !said.is_empty()) {
        Ok(out) => {
            let (grade, found, todo) = judge_flask(&String::from_utf8_lossy(&out));
            all.add("FLASK", grade, found, todo);
        }
        Err(failure) => {
            let todo = "the stub needs a hypervisor with CONFIG_XSM and CONFIG_XSM_FLASK, booted with flask=enforcing";
            all.add("FLASK", Grade::Fault, failure.what, todo);
        }
    }
}

/// What `xl getenforce` said (tools/xl/xl_flask.c: "Enforcing", "Permissive", or "Flask XSM Disabled").
fn judge_flask(said: &str) -> (Grade, String, &'static str) {
    let said = said.trim();
    match said {
        "Enforcing" => (Grade::Fine, "enforcing".to_owned(), ""),
        "Permissive" => (Grade::Warning, "permissive: the stub could do anything".to_owned(), "`xl setenforce 1`"),
        _ => (Grade::Fault, said.to_owned(), "boot Xen with flask=enforcing and the policy as a module"),
    }
}

fn stub_and_store(all: &mut Findings, xen: Option<&Xen>, tree: &mut impl Tree, place: &Place) {
    match stub::read(tree, place) {
        Ok(found) => {
            let node = &found.node;
            let known = format!("domain {}, version {}", found.domain.domid, node.version);
            match node.state {
                StubState::Idle | StubState::Busy => all.fine("stub", known),
                StubState::Starting => all.add("stub", Grade::Warning, "still boots", "wait a few seconds"),
                StubState::Failed => all.add(
                    "stub",
                    Grade::Fault,
                    &node.reason,
                    "`xl console` shows its log; if it says no more `trying again`, start it again",
                ),
            }
            if let Some(Ok(Some(info))) = xen.map(|xen| xen.info(found.domain.domid, None)) {
                if info.is_hvm() {
                    all.add("stub's type", Grade::Fault, "HVM or PVH", "the stub must be a PV domain: type=\"pv\"");
                }
                if info.flags.intersects(DomainFlags::SHUTDOWN | DomainFlags::DYING | DomainFlags::PAUSED) {
                    all.add("stub's state", Grade::Fault, "shut down, dying or paused", "`xl list`; start it again");
                }
            }
            match node.store_id {
                // The row of the stub says why.
                _ if node.state == StubState::Failed => {}
                Some(id) => all.fine("store", format_args!("{id}, {}", show::size(node.blocks.saturating_mul(4096)))),
                None => {
                    all.add("store", Grade::Fault, "the stub has none", "`livesave store init`, then start the stub")
                }
            }
        }
        Err(failure) => all.fault("stub", &failure),
    }
    match stub::store_path(tree, place) {
        Ok(path) => {
            all.fine("store's device", path.display());
            content(all, &path);
            if let Some(what) = thin::found(&path) {
                let todo = "use a volume with its full size: a take that was promised room may fail, and void itself";
                all.add("store's device", Grade::Warning, what, todo);
            }
        }
        Err(failure) => all.fault("store's device", &failure),
    }
}

/// The store as it lies on the device, and what was seen of it.
fn content(all: &mut Findings, path: &Path) {
    let sight = match catalog::open_at(path) {
        Ok(store) => Sight::of(&store.info(), lasting_name(path)),
        Err(failure) => return all.fault("store's content", &failure),
    };
    match seen::look(&sight) {
        Ok(None) => all.fine("store's past", format_args!("generation {}, the newest seen", sight.generation)),
        Ok(Some(doubt)) => all.fault("store's past", &doubt),
        Err(why) => all.add("store's past", Grade::Warning, why, "`livesave store accept`, if the store is right"),
    }
}

fn of_guest(all: &mut Findings, xen: &Xen, tree: &mut impl Tree, word: &str) {
    let found = match domain::resolve_guest(tree, word) {
        Ok(found) => found,
        Err(failure) => return all.fault("guest", &failure),
    };
    match preflight::check(xen, tree, &found) {
        Ok(guest) => {
            all.fine("guest", format_args!("'{}' (domain {}) can be taken", found.name, found.domid));
            match xen.paging_pool(found.domid) {
                _ if !guest.info.is_hvm() => pv_paging(all, preflight::tracks_pv()),
                Ok(bytes) => pool(all, &guest.info, bytes),
                Err(error) => all.add("guest's paging pool", Grade::Warning, error, "`xl dmesg` may say more"),
            }
        }
        Err(failure) => all.fault("guest", &failure),
    }
    let shadow = |info: DomainInfo| info.is_hvm() && !info.flags.contains(DomainFlags::HAP);
    if xen.info(found.domid, None).ok().flatten().is_some_and(shadow) {
        let todo = "boot Xen with hap enabled, or use a CPU that has nested paging";
        all.add("guest's paging", Grade::Warning, "shadow, not HAP: dirty tracking is slow", todo);
    }
    label(all, found.domid.raw());
}

/// A PV guest is tracked by shadow paging, out of the host's free memory, or not at all.
fn pv_paging(all: &mut Findings, tracks_pv: Outcome<bool>) {
    match tracks_pv {
        Ok(true) => all.fine("guest's paging", "PV, with shadow paging for its dirty tracking"),
        Ok(false) => {
            let todo = "build Xen with CONFIG_SHADOW_PAGING, or accept that it stands still for the whole copy";
            all.add("guest's paging", Grade::Warning, "PV without shadow paging: --mode save only", todo);
        }
        Err(failure) => all.fault("guest's paging", &failure),
    }
}

/// Most pages of the paging pool that a tracked guest takes.
///
/// Log-dirty splits superpages as they are written, so in the end the p2m has a table for each 512 pages, and tables
/// above (xen/arch/x86/mm/p2m-pt.c). The bitmap has a leaf for each 32768 gfns, nodes above (paging_mark_pfn_dirty).
/// Beside its memory a PVH guest has special pages below 4 GiB: one more leaf and two more tables. HAP itself needs a
/// monitor table or two for each vCPU.
fn pool_pages(max_pages: u64, vcpus: u64) -> u64 {
    let tree = |leaves: u64| leaves + leaves.div_ceil(512) + leaves.div_ceil(512 * 512) + 1;
    tree(max_pages.div_ceil(512) + 2) + tree(max_pages.div_ceil(32768) + 1) + 2 * vcpus
}

/// Xen gives up tracking when the pool is empty, and the take fails; so a small pool is a warning beforehand.
fn pool(all: &mut Findings, info: &DomainInfo, bytes: u64) {
    let need = pool_pages(info.max_pages, u64::from(info.max_vcpu_id.unwrap_or(0)) + 1) * 4096;
    if bytes >= need {
        let found = format!("{}, tracking needs {}", show::size(bytes), show::size(need));
        return all.fine("guest's paging pool", found);
    }
    let found = format!("{}, but tracking may need {}", show::size(bytes), show::size(need));
    let todo = format!("shadow_memory = {} in its configuration", need.div_ceil(1 << 20));
    all.add("guest's paging pool", Grade::Warning, found, todo);
}

fn label(all: &mut Findings, domid: u16) {
    let Ok(out) = xl::output(&["list", "-Z", &domid.to_string()], waits::XL_LIST) else { return };
    let text = String::from_utf8_lossy(&out);
    let label = text.lines().last().and_then(|line| line.split_whitespace().last()).unwrap_or("?");
    all.fine("guest's label", label);
}

fn keepers(all: &mut Findings) {
    match super::status::keepers() {
        Ok(records) => {
            let dead = records.iter().filter(|(_, lives)| !lives).count();
            if dead > 0 {
                all.add("keepers", Grade::Fault, format_args!("{dead} left something behind"), "`livesave recover`");
            } else {
                all.fine("keepers", format_args!("{} at work", records.len()));
            }
        }
        Err(failure) => all.fault("keepers", &failure),
    }
}

/// The guests that stay tracked between their snapshots, and those that a dead stub left so.
fn tracked(all: &mut Findings, xen: &Xen, store: &mut XenStore) {
    let what = "tracked guests";
    let marks = match files::make_run_dir().and_then(|dir| marks::all(&dir)) {
        Ok(marks) => marks,
        Err(failure) => return all.fault(what, &failure),
    };
    let mut none = true;
    for mark in marks {
        let judged = mark.and_then(|mark| {
            let standing = mark.standing(store, |domid, handle| xen.target(domid, handle))?;
            Ok((mark, standing))
        });
        none &= matches!(judged, Ok((_, Standing::Over)));
        match judged {
            Ok((mark, standing)) => {
                let (grade, found, todo) = judge_mark(&mark, standing);
                if !found.is_empty() {
                    all.add(what, grade, found, todo);
                }
            }
            Err(error) => all.add(what, Grade::Warning, error, "`livesave recover`"),
        }
    }
    if none {
        all.fine(what, "none");
    }
}

fn judge_mark(mark: &Mark, standing: Standing) -> (Grade, String, &'static str) {
    let Mark { guest, domid, stub, stub_domid, .. } = mark;
    let (guest, stub) = (format!("'{guest}' (domain {domid})"), format!("the stub '{stub}' (domain {stub_domid})"));
    match standing {
        Standing::Over => (Grade::Fine, String::new(), ""),
        Standing::Tracked => (Grade::Fine, format!("{guest} stays tracked by {stub}"), ""),
        Standing::AtWork => (Grade::Fine, format!("{guest}: {stub} is at work"), ""),
        Standing::LeftOn => {
            let found = format!("{guest} was tracked by {stub}, which is gone or dead: its tracking may be on");
            (Grade::Fault, found, "`livesave recover`")
        }
    }
}

/// Whether a take can keep saves and migrations off, and whether somebody does so now.
fn other_tools(all: &mut Findings, taking: Result<Option<bool>, String>) {
    let what = "other tools";
    let guarded = files::make_run_dir().is_ok_and(|dir| marks::guards(&dir));
    let needs = super::status::keepers().map(|all| all.iter().any(|(record, lives)| record.keeps_off && *lives));
    match (taking, needs) {
        (Ok(Some(false)), _) => all.fine(what, "kept off while a take runs"),
        (Ok(Some(true)), _) if guarded => all.fine(what, "kept off now: a tracked guest is guarded"),
        (Ok(Some(true)), Ok(true)) => all.fine(what, "kept off now: a take runs"),
        (Ok(Some(true)), _) => {
            all.add(what, Grade::Fault, "saves and migrations are refused, and no take runs", "`livesave recover`");
        }
        (Ok(None), _) => {
            let found = "the policy cannot keep them off: a take gives way to them";
            all.add(what, Grade::Warning, found, "load the policy of this version");
        }
        (Err(error), _) => all.add(what, Grade::Warning, error, "`xl dmesg | grep avc`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tests::tree;

    #[test]
    fn flask_is_judged_by_what_xl_says() {
        assert_eq!(judge_flask("Enforcing\n").0, Grade::Fine);
        assert_eq!(judge_flask("Permissive\n").0, Grade::Warning);
        assert_eq!(judge_flask("Flask XSM Disabled\n").0, Grade::Fault);
    }

    #[test]
    fn the_pool_that_xl_gives_by_default_suffices_and_a_smaller_one_is_a_warning() {
        // libxl_get_required_paging_memory: 1 MiB for each vCPU and 8 KiB for each MiB.
        for (mib, vcpus) in [(64, 1), (128, 1), (1024, 2), (262_144, 64)] {
            let (pages, given) = (mib * 256, 256 * vcpus + 2 * mib);
            let need = pool_pages(pages, vcpus);
            assert!(need <= given, "{mib} MiB, {vcpus} vCPUs: {need} of {given} pages");
            assert!(need >= pages / 512 + pages / 32768, "{mib} MiB: the tables alone take more than {need}");
        }
        let info = DomainInfo { max_pages: 128 * 256, max_vcpu_id: Some(0), ..crate::cmd::preflight::tests::info() };
        let mut all = Findings::default();
        pool(&mut all, &info, 100 * 4096);
        pool(&mut all, &info, 60 * 4096);
        assert_eq!([all.0[0].grade, all.0[1].grade], [Grade::Fine, Grade::Warning]);
    }

    #[test]
    fn a_host_without_stub_has_two_faults_with_a_way_out() {
        let mut all = Findings::default();
        let place = Place { stub: "livesave".to_owned(), store: None, json: false };
        stub_and_store(&mut all, None, &mut tree(&[("/local/domain/0/name", "Domain-0")]), &place);
        assert_eq!(all.0.len(), 2);
        assert!(all.0.iter().all(|finding| finding.grade == Grade::Fault && !finding.todo.is_empty()));
    }
}
