//! The nested host of a benchmark: its machine, its guests, one run.
//!
//! All mechanisms write to disks of the same rate, which is below what any of them could use; the observer is the same
//! for all. A guest is as good as new after each run, or it is made anew.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::lab::{Guest, GuestKernel, GuestSpec, Lab, STORE_DEVICE, STUB, Spec, TARGET_LABEL};
use qemu_tests::standing::Change;

use super::plan::{Bed, Mechanism};
use super::sample::{Backend, Numbers};
use crate::simulate::replay;

/// The longest run.
const RUN_WAIT: Duration = Duration::from_secs(900);
/// Until a process in dom0 has begun, or the stub is ready.
pub const BEGIN_WAIT: Duration = Duration::from_secs(60);
/// What the disk's rate is measured with.
const DD_MIB: u64 = 16;
/// Where images go: the scratch disk, as slow as the store's.
const IMAGE: &str = "/scratch/bench.image";
/// The trace of dom0's kernel.
const TRACING: &str = "/sys/kernel/tracing";
/// The cap of a guest between two runs.
const CALM_PERCENT: u32 = 20;
/// The observer's words.
const SEEN: &str = "/run/bench.standing";

/// What a benchmark needs of the machine beside the ordinary.
pub fn machine(mut spec: Spec, bytes_per_second: u64) -> Spec {
    // Later words win: Xen's own log is a cost in the pause. With slices of 30 ms on the one processor the observer
    // would see late what it is to see.
    "sched=credit sched_credit_tslice_ms=2 loglvl=warning guest_loglvl=warning".clone_into(&mut spec.xen_extra);
    spec.disk_bytes_per_second = Some(bytes_per_second);
    spec
}

/// Memory of the stub for guests of that size: the half that they write to has to fit its staging.
pub const fn stub_mib(memory_mib: u32) -> u32 {
    memory_mib / 2 + 64
}

/// Starts the stub with so much; how many requests xenstored had from it by then.
pub fn start_stub(lab: &Lab, memory_mib: u32) -> Result<String> {
    lab.write_stub_config(STORE_DEVICE, "w", "")?;
    let memory = stub_mib(memory_mib);
    lab.sh(&format!("sed -i 's/^memory .*/memory = {memory}/' /run/livesave.cfg; xl create -q /run/livesave.cfg"))?;
    lab.wait_until("the stub is idle", BEGIN_WAIT, Lab::stub_is_idle)?;
    let node = lab.sh(&format!("xenstore-read /local/domain/$(xl domid {STUB})/data/livesave/stub"))?;
    let requests = node.split("\\n").find_map(|line| line.strip_prefix("xenstore-requests="));
    requests.map(str::to_owned).with_context(|| format!("no count of requests in `{node}`"))
}

/// From now on dom0's kernel notes each call that maps or unmaps grants. A kernel that cannot has none counted.
pub fn trace_grants(lab: &Lab) -> Result<()> {
    let command = format!(
        "{{ [ -e {TRACING}/trace ] || mount -t tracefs none {TRACING}; }} && cd {TRACING} && \
         echo gnttab_map_refs gnttab_unmap_refs >set_ftrace_filter && echo function >current_tracer"
    );
    let output = lab.run(&command)?;
    if output.status != 0 {
        println!("   no grants are counted: {}", output.errors());
    }
    Ok(())
}

/// A guest that writes at random into half of its memory, or nothing at all. It checks a page for each eight that
/// it writes: checking costs what writing does, and what a cap is for is dirty pages.
pub fn guest(bed: Bed, memory_mib: u32) -> GuestSpec {
    let (load, pages) = (if bed.writes { "w" } else { "i" }, memory_mib / 2 * 256);
    let mut spec = GuestSpec::new(&format!("bench-{}-{load}", bed.kind()));
    (spec.kind, spec.memory_mib, spec.label) = (bed.kind, memory_mib, Some(TARGET_LABEL.to_owned()));
    let work = if bed.writes {
        "ls.dirty=32 ls.verify=4 ls.random=1 ls.tick=1 ls.publish=5"
    } else {
        "ls.dirty=0 ls.verify=8 ls.tick=100 ls.publish=5"
    };
    spec.kernel = GuestKernel::Small;
    spec.parameters = format!("ls.mem={} ls.set={pages} {work}", memory_mib / 2);
    spec
}

/// The snapshot that a take of this guest leaves for a moment.
pub fn snapshots(bed: Bed, memory_mib: u32) -> String {
    format!("{}@bench", guest(bed, memory_mib).name)
}

/// Time that the threads of the machine in `dir` have waited for a processor of ours so far.
pub fn waited(dir: &Path) -> Option<Duration> {
    let pid = fs::read_to_string(dir.join("pid")).ok()?;
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.trim())).ok()?;
    let of = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some(Duration::from_nanos(tasks.flatten().filter_map(of).sum()))
}

/// What `dd` past the page cache takes, in KiB a second, on the store's disk before it is one; and what memory takes.
pub fn rates(lab: &Lab) -> Result<(f64, f64)> {
    let timed = |command: &str, kib: u64| -> Result<f64> {
        let started = Instant::now();
        let output = lab.run_for(command, RUN_WAIT)?;
        ensure!(output.status == 0, "`{command}`: {}", output.errors());
        Ok(kib as f64 / started.elapsed().as_secs_f64())
    };
    let disk = format!("dd if=/dev/zero of={STORE_DEVICE} bs=1M count={DD_MIB} oflag=direct");
    let memory = "dd if=/dev/zero of=/dev/null bs=64k count=8192";
    Ok((timed(&disk, DD_MIB * 1024)?, timed(memory, 8192 * 64)?))
}

/// One run. Whatever is not as it must be afterwards is an error, and the run counts nowhere.
pub fn run(lab: &Lab, guest: &Guest, cap: u32, mechanism: Mechanism) -> Result<Numbers> {
    let (began, waited_before) = (Instant::now(), waited(lab.dir()));
    let numbers = measured(lab, guest, cap, mechanism)?;
    let waited = waited(lab.dir()).zip(waited_before).map(|(after, before)| after.saturating_sub(before));
    let us = |time: Duration| u64::try_from(time.as_micros()).ok();
    Ok(Numbers { slot_us: us(began.elapsed()), host_wait_us: waited.and_then(us), ..numbers })
}

fn measured(lab: &Lab, guest: &Guest, cap: u32, mechanism: Mechanism) -> Result<Numbers> {
    prepare(lab, guest)?;
    let before = backend(lab);
    let observer = observe(lab, guest, mechanism)?;
    set_cap(lab, &guest.name, if cap == 100 { 0 } else { cap })?;
    let started = Instant::now();
    let done = perform(lab, &guest.name, mechanism);
    let total_us = u64::try_from(started.elapsed().as_micros()).ok();
    set_cap(lab, &guest.name, CALM_PERCENT)?;
    let changes = observer(lab)?;
    let numbers = done?.observed(&changes).map_err(anyhow::Error::msg)?;
    let after = backend(lab);
    clear(lab, guest, mechanism)?;
    settle(lab, guest)?;
    let numbers = Numbers { total_us: numbers.total_us.or(total_us), ..numbers };
    Ok(match (mechanism, before, after) {
        (Mechanism::Take(_), Some(before), Some(after)) => numbers.with_backend(before, after),
        _ => numbers,
    })
}

/// The next take is of the same name.
fn clear(lab: &Lab, guest: &Guest, mechanism: Mechanism) -> Result<()> {
    match mechanism {
        Mechanism::Take(_) => lab.sh(&format!("livesave rm {}@bench", guest.name)).map(drop),
        _ => Ok(()),
    }
}

/// A guest that xl built anew has not said that it can suspend.
fn prepare(lab: &Lab, guest: &Guest) -> Result<()> {
    let node = format!("/local/domain/{}/control/feature-suspend", guest.domid(lab)?);
    lab.sh(&format!("xenstore-write {node} 1; rm -f {IMAGE}*")).map(drop)
}

/// Before a run it is the run's, after it a low one: what is to be done in dom0 in between need not wait for a guest
/// that writes as fast as it can.
fn set_cap(lab: &Lab, name: &str, percent: u32) -> Result<()> {
    // A guest that did not survive the run is somebody else's finding.
    lab.run(&format!("xl sched-credit -d {name} -c {percent}")).map(drop)
}

/// The guest counts on, and no page of it is wrong.
fn settle(lab: &Lab, guest: &Guest) -> Result<()> {
    let before = guest.next_counter(lab)?;
    let mut now = before;
    lab.wait_until("the guest counts on", BEGIN_WAIT, |lab| {
        now = guest.counter(lab)?.unwrap_or(now);
        Ok(now.ticks != before.ticks)
    })?;
    ensure!(now.errors == 0, "pages of the guest are wrong: {now:?}");
    Ok(())
}

fn observe(lab: &Lab, guest: &Guest, mechanism: Mechanism) -> Result<impl FnOnce(&Lab) -> Result<Vec<Change>>> {
    // To look for it elsewhere costs the keeper its processor.
    let moves = if mechanism == Mechanism::XlMigrate { "moves" } else { "" };
    let watch = format!("probe standing {} {moves} >{SEEN} 2>{SEEN}.err & echo $! >{SEEN}.pid", guest.domid(lab)?);
    lab.sh(&format!("rm -f {SEEN}; {{ {watch}; }} </dev/null"))?;
    lab.wait_until("the observer looks", BEGIN_WAIT, |lab| Ok(lab.run(&format!("test -s {SEEN}"))?.status == 0))?;
    Ok(|lab: &Lab| {
        lab.sh(&format!("kill $(cat {SEEN}.pid)")).context("the observer ended by itself")?;
        let text = String::from_utf8(lab.get_bytes(SEEN)?).context("the observer's words")?;
        Ok(text.lines().filter_map(Change::parse).collect())
    })
}

/// What the store's backend counted; nothing where it counts nothing.
fn backend(lab: &Lab) -> Option<Backend> {
    let command = format!(
        "cd /sys/bus/xen-backend/devices/vbd-$(xl domid {STUB})-51712/statistics && \
         echo $(($(cat rd_req)+$(cat wr_req)+$(cat f_req))) $(cat wr_sect) \
         $(awk '/blkif-backend/ {{ n += $2 }} END {{ print n + 0 }}' /proc/interrupts) \
         $(grep -qx function {TRACING}/current_tracer && grep -c '<-' {TRACING}/trace)"
    );
    Backend::parse(&lab.run(&command).ok()?.text())
}

fn perform(lab: &Lab, name: &str, mechanism: Mechanism) -> Result<Numbers> {
    match mechanism {
        Mechanism::XlSave => save(lab, name),
        Mechanism::XlMigrate => migrate(lab, name),
        Mechanism::Receive => {
            let command = format!("xl migrate -s '' {name} 'livesave receive --json {IMAGE}'");
            // For xl it failed: the guest is still here.
            let output = lab.run_for(&command, RUN_WAIT)?;
            Numbers::of_receive(&output.errors()).with_context(|| format!("`{command}`: {}", output.errors()))
        }
        Mechanism::Take(mode) => take(lab, name, mode),
    }
}

fn take(lab: &Lab, name: &str, mode: &str) -> Result<Numbers> {
    let command = format!("livesave take {name} --name bench --mode {mode} --max-pause none --json");
    let output = lab.run_for(&command, RUN_WAIT)?;
    ensure!(output.status == 0, "`{command}` ended with {}: {}", output.status, output.errors());
    let taken = serde_json::from_str(&output.text()).with_context(|| format!("`{command}`: {}", output.text()))?;
    // The simulator's policy, given what the stub recorded, must come to the same rounds and pages.
    replay::run(&taken).context("the simulator does not agree with the stub")?;
    let numbers = Numbers::of_take(&taken);
    Ok(Numbers { total_us: taken.get("elapsed_us").and_then(serde_json::Value::as_u64), ..numbers })
}

/// Past the page cache, as a disk that is slower than memory would have it for a guest of any size.
fn save(lab: &Lab, name: &str) -> Result<Numbers> {
    let command = format!(
        "mkfifo {IMAGE}.fifo && {{ dd if={IMAGE}.fifo of={IMAGE} bs=1M iflag=fullblock oflag=direct & \
         xl save -c {name} {IMAGE}.fifo; R=$?; wait; [ $R = 0 ] && stat -c %s {IMAGE}; }}"
    );
    let output = lab.run_for(&command, RUN_WAIT)?;
    ensure!(output.status == 0, "xl save: {}", output.errors());
    Ok(Numbers { bytes: output.text().trim().parse().ok(), ..Numbers::default() })
}

fn migrate(lab: &Lab, name: &str) -> Result<Numbers> {
    let count = "/run/bench.bytes";
    let command = format!("xl migrate -s '' {name} 'dd bs=64k 2>{count} | xl migrate-receive' && cat {count}");
    let output = lab.run_for(&command, RUN_WAIT)?;
    ensure!(output.status == 0, "xl migrate: {}", output.errors());
    let bytes = output.text().lines().find_map(|line| line.split_once(" bytes")?.0.parse().ok());
    Ok(Numbers { bytes, ..Numbers::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use qemu_tests::lab::GuestKind;

    #[test]
    fn a_guest_writes_half_of_its_memory_or_nothing() {
        let writes = guest(Bed { kind: GuestKind::Pv, writes: true }, 96);
        assert!(writes.config().contains("ls.dirty=32 ls.verify=4"));
        assert!(writes.config().contains("ls.set=12288") && writes.config().contains("ls.random=1"));
        let idle = guest(Bed { kind: GuestKind::Pvh, writes: false }, 96);
        assert!(idle.config().contains("ls.dirty=0") && idle.name != writes.name);
    }

    #[test]
    fn what_a_process_waited_is_read_of_all_its_threads() {
        let dir = std::env::temp_dir().join(format!("bench-waited-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("pid"), format!("{}\n", std::process::id())).unwrap();
        assert!(waited(&dir).is_some());
        fs::write(dir.join("pid"), "none").unwrap();
        assert!(waited(&dir).is_none());
        fs::remove_dir_all(&dir).unwrap();
    }
}
