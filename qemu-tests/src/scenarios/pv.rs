//! PV guests: a take in each mode, every frame and vCPU of the suspended guest against the export, and the restored
//! guest against both. Frames are compared with pfns in page tables, which tell a right table from a wrong one; what
//! may differ is named here, with its reason.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::oracle::{self, Frames};
use super::words::{self, IN_PAUSE, TAKE_WAIT, succeed};
use crate::image::Image;
use crate::lab::{Counter, Guest, GuestKind, GuestSpec, Lab};
use crate::say;
use crate::verdict::check;

/// Where the hook leaves what it saw, in dom0.
const SEEN: &str = "/run/pv";
/// Fewer frames or page tables than this were an error of the test: the guest has 96 MiB, and 1 L1 table for 2 MiB.
const FRAMES_MIN: usize = 20_000;
const TABLES_MIN: usize = 48;

/// `live` with two vCPUs, then `save`.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    each(lab, &[("live", 2), ("save", 1)])?;
    lab.stop_stub()
}

/// The other modes; one guest with vCPUs that are offline; then one guest five times in a row, in each mode once.
pub fn run_more(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    each(lab, &[("staged", 1), ("improved", 1), ("xen", 4)])?;
    let guest = four(lab, "pvoffline")?;
    round_trip(lab, &guest, "staged", 2)?;
    let guest = four(lab, "pvfive")?;
    for mode in ["staged", "live", "save", "xen", "improved"] {
        succeed(lab, &format!("livesave take {} --name {mode} --mode {mode} --max-pause none", guest.name))?;
        let after = guest.wait_whole_pass(lab)?;
        check(after.errors == 0, || format!("after the take in mode {mode}: {after:?}"))?;
        words::tracking_is_off(lab, &guest)?;
        succeed(lab, &format!("livesave verify {}@{mode}", guest.name))?;
    }
    lab.sh(&format!("xl destroy {}", guest.name))?;
    lab.stop_stub()
}

fn each(lab: &Lab, takes: &[(&str, u32)]) -> Result<()> {
    for (mode, vcpus) in takes {
        let guest = lab.create_guest(&spec(&format!("pv{mode}"), *vcpus))?;
        guest.wait_whole_pass(lab)?;
        round_trip(lab, &guest, mode, *vcpus)?;
    }
    Ok(())
}

fn spec(name: &str, vcpus: u32) -> GuestSpec {
    let mut spec = words::target(name, 96, "ls.mem=16 ls.dirty=8 ls.tick=40 ls.publish=2");
    (spec.kind, spec.vcpus) = (GuestKind::Pv, vcpus);
    spec
}

/// A guest with four vCPUs: two online, one that was, one that never came up.
fn four(lab: &Lab, name: &str) -> Result<Guest> {
    let mut spec = spec(name, 3);
    spec.extra.push("maxvcpus = 4".to_owned());
    let guest = lab.create_guest(&spec)?;
    lab.sh(&format!("xl vcpu-set {name} 2"))?;
    lab.wait_until("the third vCPU is offline", TAKE_WAIT, |lab| {
        let states = lab.sh(&format!("xl vcpu-list {name} | awk 'NR > 1 {{ print $5 }}'"))?;
        Ok(states.lines().filter(|state| state.ends_with('p')).count() == 2)
    })?;
    guest.wait_whole_pass(lab)?;
    Ok(guest)
}

fn round_trip(lab: &Lab, guest: &Guest, mode: &str, vcpus: u32) -> Result<()> {
    let name = format!("{}@standing", guest.name);
    let rings = Rings::of(lab, guest)?;
    let (seen, image) = as_it_stood(lab, guest, "standing", &format!("--mode {mode}"), vcpus)?;
    words::tracking_is_off(lab, guest)?;
    let mut masked = rings.while_suspended();

    let end = guest.counter(lab)?.context("no counter")?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave restore {name} --paused"))?;
    let domid = guest.domid(lab)?;
    let restored = oracle::frames(&lab.sh(&format!("probe pvframes {domid}"))?)?;
    masked.extend(image.p2m_frames.iter().map(|pfn| (*pfn, "libxc writes the p2m anew (update_guest_p2m)")));
    masked.extend(image.start_info.map(|pfn| (pfn, "libxc writes start_info anew (process_start_info)")));
    oracle::same_frames(&seen.frames, &restored, &masked, "the restored guest")?;

    lab.sh(&format!("xl unpause {domid}"))?;
    let first = guest.next_counter(lab)?;
    oracle::continues(seen.counter, first, end)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))?;
    say!("   at the pause {:?}, before the end {end:?}, restored at {first:?}, then {whole:?}", seen.counter);
    lab.sh(&format!("xl destroy {}", guest.name))?;
    Ok(())
}

/// Takes the guest, and compares what is exported with what dom0 saw of the guest while it stood.
pub(super) fn as_it_stood(lab: &Lab, guest: &Guest, name: &str, how: &str, vcpus: u32) -> Result<(Standing, Image)> {
    let rings = Rings::of(lab, guest)?;
    take(lab, guest, name, how)?;
    let seen = Standing::seen(lab, vcpus)?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.errors == 0 && after.ticks > seen.counter.ticks, || format!("after the take: {after:?}"))?;
    let image = oracle::export(lab, &format!("{}@{name}", guest.name))?;
    oracle::same_frames(&seen.frames, &image.frames, &rings.while_suspended(), "the export")?;
    same_kinds(&seen.kinds, &image)?;
    same_lines(&seen.vcpus, &image.vcpus)?;
    say!("   the export: {} page tables and {} vCPU records equal", image.kinds.len(), image.vcpus.len());
    Ok((seen, image))
}

/// Takes the guest; meanwhile dom0 looks at everything that the guest is.
fn take(lab: &Lab, guest: &Guest, name: &str, how: &str) -> Result<()> {
    let hook = format!(
        "{IN_PAUSE}; set -e; probe pvframes $LIVESAVE_DOMID > {SEEN}.frames; \
         probe pvvcpus $LIVESAVE_DOMID > {SEEN}.vcpus; \
         xenstore-read /local/domain/$LIVESAVE_DOMID/data/counter > {SEEN}.counter"
    );
    let options = format!("--name {name} {how} --max-pause none --hook-timeout 5m --hook '{hook}'");
    succeed(lab, &format!("livesave take {} {options}", guest.name))?;
    Ok(())
}

/// What dom0 saw while the guest stood still.
pub(super) struct Standing {
    frames: Frames,
    kinds: BTreeMap<u64, String>,
    vcpus: Vec<String>,
    counter: Counter,
}

impl Standing {
    fn seen(lab: &Lab, vcpus: u32) -> Result<Self> {
        let read = |what: &str| lab.sh(&format!("cat {SEEN}.{what}"));
        let text = read("frames")?;
        let (frames, kinds) = (oracle::frames(&text)?, kinds(&text)?);
        check(frames.len() >= FRAMES_MIN && kinds.len() >= TABLES_MIN, || {
            format!("dom0 saw {} frames and {} page tables only", frames.len(), kinds.len())
        })?;
        let lines: Vec<String> = read("vcpus")?.lines().map(str::to_owned).collect();
        let basic = lines.iter().filter(|line| line.starts_with("4 ")).count();
        check(basic == vcpus as usize, || format!("dom0 saw {basic} of {vcpus} vCPUs"))?;
        let counter = Counter::parse(&read("counter")?).context("the counter at the pause")?;
        Ok(Self { frames, kinds, vcpus: lines, counter })
    }
}

/// The page tables of what `probe pvframes` printed.
fn kinds(text: &str) -> Result<BTreeMap<u64, String>> {
    let words = text.lines().map(|line| line.split(' '));
    let typed = words.map(|mut words| Some((words.next()?, words.next()?)));
    typed
        .map(|pair| pair.context("a line of probe pvframes"))
        .filter(|pair| !pair.as_ref().is_ok_and(|(_, kind)| *kind == "NOTAB"))
        .map(|pair| pair.and_then(|(pfn, kind)| Ok((u64::from_str_radix(pfn, 16)?, kind.to_owned()))))
        .collect()
}

fn same_kinds(seen: &BTreeMap<u64, String>, image: &Image) -> Result<()> {
    let named = |kind: u8| format!("L{}TAB{}", kind & 7, if kind & 8 == 0 { "" } else { "+PIN" });
    let in_image: BTreeMap<u64, String> = image.kinds.iter().map(|(pfn, kind)| (*pfn, named(*kind))).collect();
    let differing: Vec<String> = seen
        .keys()
        .chain(in_image.keys())
        .filter(|pfn| seen.get(pfn) != in_image.get(pfn))
        .map(|pfn| format!("{pfn:x} is {:?}, exported as {:?}", seen.get(pfn), in_image.get(pfn)))
        .collect();
    check(differing.is_empty(), || format!("page tables differ: {}", oracle::some(&differing)))
}

fn same_lines(seen: &[String], exported: &[String]) -> Result<()> {
    check(seen == exported, || {
        format!("vCPU records differ: seen\n{}\nexported\n{}", seen.join("\n"), exported.join("\n"))
    })
}

/// The two frames of the guest that dom0 writes to.
pub(super) struct Rings([u64; 2]);

impl Rings {
    /// Xenstore has their machine frames.
    pub fn of(lab: &Lab, guest: &Guest) -> Result<Self> {
        let domid = guest.domid(lab)?;
        let frame = |node: &str| -> Result<u64> {
            let path = format!("/local/domain/{domid}/{node}/ring-ref");
            lab.sh(&format!("probe pfn {domid} $(xenstore-read {path})"))?.parse().context(path)
        };
        Ok(Self([frame("store")?, frame("console")?]))
    }

    /// Frames that may differ between two looks at the suspended guest, each with its reason.
    pub fn while_suspended(&self) -> BTreeMap<u64, &'static str> {
        self.0.iter().map(|pfn| (*pfn, "dom0 empties and fills the ring, whether or not the guest runs")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tables_are_told_from_ordinary_pages() {
        let found = kinds("1 NOTAB ff\na L1TAB 0\nb L4TAB+PIN 0\n").unwrap();
        assert_eq!(found, BTreeMap::from([(10, "L1TAB".to_owned()), (11, "L4TAB+PIN".to_owned())]));
        let mut image = Image { kinds: BTreeMap::from([(10, 1), (11, 0xc)]), ..Image::default() };
        assert!(same_kinds(&found, &image).is_ok());
        image.kinds.insert(10, 9);
        assert!(same_kinds(&found, &image).is_err());
    }
}
