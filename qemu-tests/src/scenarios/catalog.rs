//! What a scenario is, and the list of all of them in the order in which they are dealt out.

use anyhow::Result;

use super::{
    aftermath, armed_cost, bad_input, bad_middle, bad_pv, bad_shapes, boot, devices, diff, endings, export_speed,
    flask, guest, hook, incremental, incremental_pv, kills, lvm, many, no_shadow, oracle, others, oxenstored, power,
    pv, pv_hostile, pv_tables, receive, registers, restores, rounds, shapes, staged, stock, stores, take_restore,
    tracked, two,
};
use crate::lab::{Lab, Spec};
use crate::runner::Install;

/// Which machine a scenario runs on.
#[derive(Clone, Copy)]
pub enum Boot {
    /// The ordinary one, used by others before and after.
    Shared,
    /// One of its own, changed by this function.
    Fresh(fn(&mut Spec)),
    /// One of its own, whose hypervisor has no shadow paging, and knows 32-bit PV guests.
    Unshadowed,
    /// As many as it likes, one after the other: it boots them itself. Its guests boot the small kernel.
    Many(fn(&Spec, Install) -> Result<()>),
}

/// One test under nested Xen.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line and in the report; the name of its file.
    pub name: &'static str,
    /// Its machine.
    pub boot: Boot,
    /// Runs only when it is named or with `--slow`.
    pub slow: bool,
    /// The test itself, on a machine that is up. See [`crate::verdict`] for how it says what it saw.
    pub run: fn(&Lab) -> Result<()>,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    vec![
        shared("boot", boot::run),
        // The long ones first: two machines then end at about the same time.
        shared("kills", kills::run),
        shared("bad_input", bad_input::run),
        shared("restores", restores::run),
        shared("take_restore", take_restore::run),
        shared("stores", stores::run),
        shared("aftermath", aftermath::run),
        shared("devices", devices::run),
        shared("receive", receive::run),
        shared("guest", guest::run),
        shared("oracle", oracle::run),
        shared("pv", pv::run),
        shared("others", others::run),
        shared("two", two::run),
        shared("diff", diff::run),
        shared("hook", hook::run),
        shared("lvm", lvm::run),
        Scenario { name: "oxenstored", boot: Boot::Fresh(oxenstored::machine), slow: false, run: oxenstored::run },
        shared("endings", endings::run),
        shared("flask", flask::run),
        shared("registers", registers::run),
        // Not in CI: nine takes of a guest that keeps writing, on a slow disk; take_restore has one.
        Scenario { name: "staged", boot: Boot::Fresh(staged::machine), slow: true, run: staged::run },
        // Not in CI: fifty takes.
        Scenario { name: "export_speed", boot: Boot::Fresh(export_speed::machine), slow: true, run: export_speed::run },
        // Not in CI: nine takes; pv has two.
        Scenario { slow: true, ..shared("pv_more", pv::run_more) },
        // Not in CI: what it shows changes seldom.
        Scenario { slow: true, ..shared("pv_hostile", pv_hostile::run) },
        Scenario { slow: true, ..shared("pv_tables", pv_tables::run) },
        // Not in CI: it takes a second hypervisor.
        Scenario { name: "no_shadow", boot: Boot::Unshadowed, slow: true, run: no_shadow::run },
        // Not in CI: the guests of several processors and the two writers of each page take five minutes and more.
        Scenario { slow: true, ..shared("shapes", shapes::run) },
        Scenario { slow: true, ..shared("stock", stock::run) },
        Scenario { slow: true, ..shared("stock_pv", stock::run_pv) },
        // Not in CI: what it shows changes seldom.
        Scenario { slow: true, ..shared("bad_shapes", bad_shapes::run) },
        // Not in CI: ten takes each, and four restores.
        Scenario { slow: true, ..shared("incremental", incremental::run) },
        Scenario { slow: true, ..shared("incremental_pv", incremental_pv::run) },
        Scenario { slow: true, ..shared("pv_tables_chain", pv_tables::run_chain) },
        // Not in CI: it measures, and judges nothing.
        Scenario { slow: true, ..shared("armed_cost", armed_cost::run) },
        Scenario { slow: true, ..shared("tracked", tracked::run) },
        // Not in CI: six minutes.
        Scenario { slow: true, ..shared("many", many::run) },
        // Not in CI: more guests and more takes than their short namesakes.
        Scenario { slow: true, ..shared("shapes_more", shapes::run_more) },
        Scenario { slow: true, ..shared("many_all", many::run_all) },
        Scenario { slow: true, ..shared("many_pv", many::run_pv) },
        // Not in CI: fifty boots.
        Scenario { name: "power", boot: Boot::Many(power::run), slow: true, run: power::in_lab },
        Scenario { name: "power_rest", boot: Boot::Many(power::run_rest), slow: true, run: power::in_lab },
        // Not in CI: each takes seven to ten minutes, most of them deadlines that have to pass, or rounds.
        Scenario { slow: true, ..shared("bad_pv", bad_pv::run) },
        Scenario { slow: true, ..shared("devices_pv", devices::run_pv) },
        Scenario { slow: true, ..shared("bad_middle", bad_middle::run) },
        Scenario { slow: true, ..shared("rounds", rounds::run) },
        Scenario { slow: true, ..shared("kills_all", kills::run_all) },
    ]
}

fn shared(name: &'static str, run: fn(&Lab) -> Result<()>) -> Scenario {
    Scenario { name, boot: Boot::Shared, slow: false, run }
}
