//! The power goes, fifty times in two scenarios: QEMU is killed at a moment of a take, or of what comes after one, that
//! is another each time. What dom0 had not flushed is partly lost (`lab/overlay.rs`). Then the same store is booted
//! again: it opens, `store check` finds nothing, it lists what was promised, and its newest snapshot verifies,
//! restores, and goes on without a wrong page. That guest is the one that the next take is of.

mod blow;
mod moments;
mod promise;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use self::blow::Blow;
use self::moments::{INCREMENTAL, KINDS, Moment, Stage, moment};
use self::promise::Promise;
use super::goes_on;
use super::words::{json, number, succeed, target};
use crate::lab::{Content, Disk, Guest, GuestKernel, Lab, Monitor, Spec, overlay};
use crate::runner::Install;
use crate::say;
use crate::verdict::{Verdict, check, stop};

/// Power cuts, and how many of them one store sees; two machines share the work.
const CUTS: usize = 50;
const CUTS_FIRST: usize = 25;
/// The store's disk: mode `live` sets five times the memory aside.
const STORE_MIB: u64 = 1024;
const STORE_DISK: usize = 0;
const STORE_IMAGE: &str = "store.cow";
/// What dom0 has for itself, and the host: one guest and the stub beside it.
const DOM0_MIB: u32 = 768;
const HOST_MIB: u32 = 1536;
const GUEST: &str = "power";
const GUEST_MIB: u32 = 48;
const PARAMETERS: &str = "ls.mem=8 ls.dirty=16 ls.verify=256 ls.tick=20 ls.publish=2";
/// How long the stub dwells in a state in which it is to be met; the cut comes first.
const HOLD_MS: u32 = 60_000;
/// With more snapshots than this the older ones are removed before the next take.
const SNAPSHOTS_MOST: usize = 4;

/// On the machine of `lab up` it would end what it runs on.
pub fn in_lab(_lab: &Lab) -> Result<()> {
    Err(stop(Verdict::Skip, "it kills machines of its own"))
}

/// The first half of the cuts.
pub fn run(spec: &Spec, install: Install) -> Result<()> {
    cuts(spec, install, 0..CUTS_FIRST)
}

/// The other half, of a store of its own.
pub fn run_rest(spec: &Spec, install: Install) -> Result<()> {
    cuts(spec, install, CUTS_FIRST..CUTS)
}

fn cuts(spec: &Spec, install: Install, cuts: Range<usize>) -> Result<()> {
    let store = spec.dir.with_extension("store");
    std::fs::create_dir_all(&spec.dir).context("the machine's directory")?;
    File::create(&store).and_then(|file| file.set_len(STORE_MIB << 20)).context("the store's image")?;
    let result = Power::new(spec, install, store.clone()).all(cuts);
    if result.is_ok() {
        std::fs::remove_file(&store).context("the store's image")?;
    }
    result
}

fn machine(spec: &Spec, store: &Path) -> Spec {
    let mut spec = spec.clone();
    (spec.memory_mib, spec.dom0_mib) = (HOST_MIB, DOM0_MIB);
    let over = Disk { name: STORE_IMAGE.into(), mib: STORE_MIB, content: Content::Over(store.to_owned()) };
    spec.disks.splice(STORE_DISK..=STORE_DISK, [over]);
    spec
}

/// What outlives a power cut: the store, and what was promised of it.
struct Power<'a> {
    spec: Spec,
    install: Install<'a>,
    store: PathBuf,
    promise: Promise,
    guest: Guest,
    gfn: String,
    /// Flushes of a whole take.
    take_flushes: u64,
    cuts: BTreeMap<Stage, usize>,
    unsaid: usize,
}

/// A machine that is up.
struct Up {
    lab: Lab,
    monitor: Monitor,
}

impl<'a> Power<'a> {
    fn new(spec: &Spec, install: Install<'a>, store: PathBuf) -> Self {
        let (spec, guest) = (machine(spec, &store), Guest { name: GUEST.into() });
        let (promise, cuts) = (Promise::default(), BTreeMap::new());
        Self { spec, install, store, promise, guest, gfn: String::new(), take_flushes: 0, cuts, unsaid: 0 }
    }

    fn all(&mut self, cuts: Range<usize>) -> Result<()> {
        for n in cuts.clone() {
            let cut = moment(n);
            self.one(n, n == cuts.start, &cut).with_context(|| format!("cut {n}, {cut:?}"))?;
        }
        let Up { lab, .. } = self.boot()?;
        self.again(&lab, "").context("after the last cut")?;
        let stages: Vec<_> = self.cuts.iter().map(|(stage, count)| format!("{} {count}", stage.word())).collect();
        let (cuts, unsaid) = (cuts.len(), self.unsaid);
        say!("   {cuts} cuts: {}; {unsaid} snapshots were there that nobody was told of", stages.join(", "));
        lab.poweroff()
    }

    /// A boot, and its end.
    fn one(&mut self, n: usize, is_first: bool, cut: &Moment) -> Result<()> {
        let mut up = self.boot()?;
        let hold = if cut.held { format!("hold={}:{HOLD_MS} holds=1", cut.stage.word()) } else { String::new() };
        if is_first {
            self.found(&mut up)?;
            up.lab.stop_stub()?;
            up.lab.start_stub(&hold)?;
        } else {
            self.again(&up.lab, &hold)?;
        }
        let blow = self.until(&mut up, n, cut)?;
        let ended = blow.strike(up)?;
        let (kept, lost) = overlay::settle(&self.spec.dir.join(STORE_IMAGE), &self.store)?;
        *self.cuts.entry(cut.stage).or_default() += 1;
        say!(
            "   cut {n} in {}: {ended}; 128 KiB clusters written since the boot: {kept} kept, {lost} lost",
            cut.stage.word()
        );
        Ok(())
    }

    fn boot(&self) -> Result<Up> {
        let lab = Lab::boot(&self.spec)?;
        (self.install)(&lab)?;
        let monitor = Monitor::open(lab.dir())?;
        Ok(Up { lab, monitor })
    }

    /// A new store, a new guest, and a first snapshot, which tells how often a take flushes.
    fn found(&mut self, up: &mut Up) -> Result<()> {
        up.lab.init_store()?;
        up.lab.start_stub("")?;
        let mut spec = target(GUEST, GUEST_MIB, PARAMETERS);
        // A boot with Debian's needs twice the memory, and each restore and each look at the store reads it.
        spec.kernel = GuestKernel::Small;
        self.guest = up.lab.create_guest(&spec)?;
        self.guest.wait_whole_pass(&up.lab)?;
        self.gfn = self.guest.counter_gfn(&up.lab)?;
        let before = up.monitor.disk(STORE_DISK)?;
        self.take(&up.lab, "first", "--mode live")?;
        let work = up.monitor.disk(STORE_DISK)?.since(&before);
        self.take_flushes = work.flushes;
        say!("   the first take: {work:?}");
        Ok(())
    }

    /// After a cut: nothing is wrong with the store, and its newest snapshot is a guest that goes on.
    fn again(&mut self, lab: &Lab, stub: &str) -> Result<()> {
        succeed(lab, "livesave store check --structure --store /dev/vda")?;
        lab.start_stub(stub)?;
        let said = succeed(lab, "livesave store check")?;
        let listed = json(lab, "livesave ls")?;
        let (names, newest) = names(&listed)?;
        let judged = self.promise.judge(&names).map_err(|wrong| stop(Verdict::Failure, wrong))?;
        say!("   {said}; beyond what was promised {:?}, void {:?}", judged.unsaid, judged.missing);
        self.unsaid += judged.unsaid.len();
        succeed(lab, &format!("livesave verify {newest}"))?;
        succeed(lab, &format!("livesave restore {newest} --paused"))?;
        let stands = self.guest.sample(lab, &self.gfn)?.count;
        let instant = self.promise.stood(&newest).with_context(|| format!("nobody took {newest}"))?;
        instant.is_of(stands)?;
        let whole = goes_on(lab, &self.guest, stands)?;
        say!("   {newest} stands at {stands}, goes on: {whole:?}");
        check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))
    }

    /// Makes what the cut is in the middle of begin, and waits for the moment.
    fn until(&mut self, up: &mut Up, n: usize, cut: &Moment) -> Result<Blow> {
        let newest = format!("{GUEST}@{}", self.prepared(up, n, cut)?);
        let mut blow = Blow::aim(up)?;
        match cut.stage {
            Stage::State(_) | Stage::Sealing => {
                let name = format!("cut{n}");
                let from = self.guest.sample(&up.lab, &self.gfn)?.count;
                self.promise.begins(&format!("{GUEST}@{name}"), from);
                blow.begin(up, &take_command(&name, KINDS[cut.kind]))?;
                blow.wait(up, cut, self.take_flushes)?;
                if blow.succeeded(up)? {
                    self.promise.sealed(&format!("{GUEST}@{name}"), None);
                }
            }
            Stage::Removing => {
                self.promise.going(&newest);
                blow.begin(up, &prune_command())?;
                blow.wait(up, cut, self.take_flushes)?;
                if blow.succeeded(up)? {
                    self.promise.only(&newest);
                }
            }
            Stage::Cleaning => {
                self.prune(&up.lab, &newest)?;
                blow.again(up)?;
                blow.wait(up, cut, self.take_flushes)?;
            }
        }
        Ok(blow)
    }

    /// What must be there before: a snapshot that an incremental take lies on, one to keep while others go, and not too
    /// many. Gives the newest one's name, if it was taken here.
    fn prepared(&mut self, up: &mut Up, n: usize, cut: &Moment) -> Result<String> {
        let name = format!("base{n}");
        let removes = matches!(cut.stage, Stage::Removing | Stage::Cleaning);
        if !cut.held && (removes || cut.kind == INCREMENTAL) {
            self.take(&up.lab, &name, if removes { KINDS[cut.kind] } else { KINDS[INCREMENTAL] })?;
            if !removes && self.promise.len() > SNAPSHOTS_MOST {
                self.prune(&up.lab, &format!("{GUEST}@{name}"))?;
            }
        }
        Ok(name)
    }

    fn prune(&mut self, lab: &Lab, newest: &str) -> Result<()> {
        self.promise.going(newest);
        succeed(lab, &prune_command())?;
        self.promise.only(newest);
        Ok(())
    }

    /// A take that comes to its end.
    fn take(&mut self, lab: &Lab, name: &str, how: &str) -> Result<()> {
        let from = self.guest.sample(lab, &self.gfn)?.count;
        let full = format!("{GUEST}@{name}");
        self.promise.begins(&full, from);
        succeed(lab, &take_command(name, how))?;
        let to = self.guest.sample(lab, &self.gfn)?.count;
        self.promise.sealed(&full, Some(to));
        Ok(())
    }
}

fn take_command(name: &str, how: &str) -> String {
    format!("livesave take {GUEST} --name {name} {how} --max-pause none")
}

fn prune_command() -> String {
    format!("livesave prune {GUEST} --keep-last 1")
}

/// All names, and the newest of them.
fn names(listed: &Value) -> Result<(Vec<String>, String)> {
    let mut all = Vec::new();
    for one in listed.as_array().context("no list")? {
        let name = one.get("name").and_then(Value::as_str).context("no name")?;
        check(one.get("damaged").is_none(), || format!("damaged: {one}"))?;
        all.push((number(one, "/id")?, name.to_owned()));
    }
    all.sort();
    let newest = all.last().map(|(_, name)| name.clone()).context("no snapshot is left")?;
    Ok((all.into_iter().map(|(_, name)| name).collect(), newest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_has_the_highest_number_and_a_damaged_one_is_a_failure() {
        let listed = json!([{"name": "a@2", "id": 7}, {"name": "a@1", "id": 9}]);
        assert_eq!(names(&listed).unwrap(), (vec!["a@2".into(), "a@1".into()], "a@1".into()));
        assert!(names(&json!([{"name": "a@2", "id": 7, "damaged": "x"}])).is_err());
        assert!(names(&json!([])).is_err());
    }
}
