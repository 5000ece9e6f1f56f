//! Every frame of the suspended guest, looked at from dom0 while it stands still, is in the export and in the restored
//! guest, and so is the state of its vCPUs. Whatever may differ is named here, with its reason; all else must be equal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::process::Command;

use anyhow::{Context, Result};

use super::words::{self, IN_PAUSE, SET_TAKING, succeed};
use crate::context::ContextRecord;
use crate::image::Image;
use crate::lab::{Counter, Guest, Lab, stream_judge};
use crate::say;
use crate::verdict::check;

const NAME: &str = "oracle@standing";
/// Where the hook leaves what it saw, in dom0.
const SEEN: &str = "/run/oracle";
const EXPORT: &str = "/scratch/oracle.image";
/// Frames that have contents but are no memory of the guest's own would be an error of the test; fewer than this is one
/// too: the guest has 96 MiB.
const FRAMES_MIN: usize = 20_000;

/// Frames by gfn, and the digest of each.
pub(super) type Frames = BTreeMap<u64, u128>;

/// One guest, one take, one restore.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let spec = words::target("oracle", 96, "ls.mem=16 ls.dirty=16 ls.tick=20 ls.publish=2");
    let guest = lab.create_guest(&spec)?;
    guest.wait_whole_pass(lab)?;
    let rings = Rings::of(lab, &guest)?;
    take(lab, &guest)?;
    let pause = Standing::seen(lab)?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.errors == 0 && after.ticks > pause.counter.ticks, || format!("after the take: {after:?}"))?;
    words::tracking_is_off(lab, &guest)?;

    let image = export(lab, NAME)?;
    same_frames(&pause.frames, &image.frames, &rings.while_suspended(), "the export")?;
    same_context(&pause.context, &lines(&image.context), "the export")?;

    // The export took its time: what the guest counts after the restore until we look is less.
    let end = guest.counter(lab)?.context("no counter")?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave restore {NAME} --paused"))?;
    let domid = guest.domid(lab)?;
    let restored = frames(&lab.sh(&format!("probe frames {domid}"))?)?;
    same_frames(&pause.frames, &restored, &rings.after_restore(), "the restored guest")?;
    let context: Vec<String> = lab.sh(&format!("probe vcpu {domid}"))?.lines().map(str::to_owned).collect();
    same_context(&pause.context, &context, "the restored guest")?;

    lab.sh(&format!("xl unpause {domid}"))?;
    let first = guest.next_counter(lab)?;
    continues(pause.counter, first, end)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))?;
    say!("   at the pause {:?}, before the end {end:?}, restored at {first:?}, then {whole:?}", pause.counter);
    lab.sh(&format!("xl destroy {}; rm -f {EXPORT}", guest.name))?;
    lab.stop_stub()
}

/// The restored guest counts on from within the take, not from its start and not from its end.
pub(super) fn continues(before: Counter, first: Counter, destroyed: Counter) -> Result<()> {
    check(first.ticks >= before.ticks && first.ticks < destroyed.ticks, || {
        format!("taken after {before:?}, destroyed after {destroyed:?}, restored at {first:?}")
    })
}

/// Takes the guest; meanwhile dom0 looks at everything that the guest is.
fn take(lab: &Lab, guest: &Guest) -> Result<()> {
    succeed(lab, &format!("livesave take {} --name standing --mode live {}", guest.name, looking())).map(drop)
}

/// Options of a take that make dom0 look at everything that the guest is while it stands. To see how far the guest's
/// frames reach, dom0 asks what is withheld from it meanwhile.
pub(super) fn looking() -> String {
    format!(
        "--max-pause none --hook-timeout 5m --hook '{IN_PAUSE}; set -e; {SET_TAKING} 0; \
         probe frames $LIVESAVE_DOMID > {SEEN}.frames; \
         probe vcpu $LIVESAVE_DOMID > {SEEN}.vcpu; \
         xenstore-read /local/domain/$LIVESAVE_DOMID/data/counter > {SEEN}.counter'"
    )
}

/// What dom0 saw while the guest stood still.
pub(super) struct Standing {
    pub frames: Frames,
    pub context: Vec<String>,
    pub counter: Counter,
}

impl Standing {
    pub fn seen(lab: &Lab) -> Result<Self> {
        let read = |what: &str| lab.sh(&format!("cat {SEEN}.{what}"));
        let frames = frames(&read("frames")?)?;
        check(frames.len() >= FRAMES_MIN, || format!("dom0 saw {} frames only", frames.len()))?;
        let context: Vec<String> = read("vcpu")?.lines().map(str::to_owned).collect();
        let counter = Counter::parse(&read("counter")?).context("the counter at the pause")?;
        Ok(Self { frames, context, counter })
    }
}

/// What `probe frames` printed.
pub(super) fn frames(text: &str) -> Result<Frames> {
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [gfn, _kind, digest] = words.as_slice() else { anyhow::bail!("probe frames said: {line}") };
            Ok((u64::from_str_radix(gfn, 16)?, u128::from_str_radix(digest, 16)?))
        })
        .collect()
}

pub(super) fn lines(records: &[ContextRecord]) -> Vec<String> {
    records.iter().map(ToString::to_string).collect()
}

/// The two frames of the guest that dom0 writes to.
pub(super) struct Rings {
    xenstore: u64,
    console: u64,
}

impl Rings {
    pub fn of(lab: &Lab, guest: &Guest) -> Result<Self> {
        let domid = guest.domid(lab)?;
        let frame = |node: &str| -> Result<u64> {
            let path = format!("/local/domain/{domid}/{node}/ring-ref");
            lab.sh(&format!("xenstore-read {path}"))?.parse().context(path)
        };
        Ok(Self { xenstore: frame("store")?, console: frame("console")? })
    }

    /// Frames that may differ between dom0's look and the stub's, each with its reason.
    pub fn while_suspended(&self) -> BTreeMap<u64, &'static str> {
        [
            (self.xenstore, "xenstored takes and answers what is in the ring, whether or not the guest runs"),
            (self.console, "xenconsoled empties the ring, whether or not the guest runs"),
        ]
        .into()
    }

    /// Frames that may differ in the restored guest.
    pub fn after_restore(&self) -> BTreeMap<u64, &'static str> {
        [
            (self.xenstore, "libxc clears the ring (xc_clear_domain_page, xg_sr_restore_x86_hvm.c)"),
            (self.console, "libxc clears the ring (xc_clear_domain_page, xg_sr_restore_x86_hvm.c)"),
        ]
        .into()
    }
}

/// The same gfns with the same contents, apart from those masked.
pub(super) fn same_frames(
    seen: &Frames,
    other: &Frames,
    masked: &BTreeMap<u64, &'static str>,
    whose: &str,
) -> Result<()> {
    let lacks: Vec<String> = seen.keys().filter(|gfn| !other.contains_key(gfn)).map(hex).collect();
    let extra: Vec<String> = other.keys().filter(|gfn| !seen.contains_key(gfn)).map(hex).collect();
    let differing: Vec<u64> = seen
        .iter()
        .filter(|(gfn, digest)| other.get(gfn).is_some_and(|there| there != *digest))
        .map(|(g, _)| *g)
        .collect();
    let (excused, wrong): (Vec<u64>, Vec<u64>) = differing.into_iter().partition(|gfn| masked.contains_key(gfn));
    let wrong: Vec<String> = wrong.iter().map(hex).collect();
    check(lacks.is_empty() && extra.is_empty() && wrong.is_empty(), || {
        format!("{whose} lacks gfns {}, has {} besides, differs at {}", some(&lacks), some(&extra), some(&wrong))
    })?;
    say!("   {whose}: {} of {} frames equal", seen.len() - excused.len(), seen.len());
    let mut reasons = BTreeMap::<&str, Vec<String>>::new();
    excused.iter().for_each(|gfn| reasons.entry(masked.get(gfn).unwrap_or(&"")).or_default().push(hex(gfn)));
    reasons.iter().for_each(|(reason, gfns)| say!("   {whose}: gfns {} differ: {reason}", some(gfns)));
    Ok(())
}

fn hex(gfn: &u64) -> String {
    format!("{gfn:x}")
}

/// The first few of a list that may be long, and how many there are.
pub(super) fn some(list: &[String]) -> String {
    format!("{}: {}", list.len(), list.get(..16).unwrap_or(list).join(" "))
}

/// Record by record the same.
pub(super) fn same_context(seen: &[String], other: &[String], whose: &str) -> Result<()> {
    check(!seen.is_empty(), || "dom0 saw no vCPU state".to_owned())?;
    let differing: Vec<String> = seen
        .iter()
        .filter(|line| !other.contains(line))
        .chain(other.iter().filter(|line| !seen.contains(line)))
        .cloned()
        .collect();
    check(differing.is_empty() && seen.len() == other.len(), || {
        format!("{whose} has {} records, seen {}; these differ:\n{}", other.len(), seen.len(), differing.join("\n"))
    })?;
    say!("   {whose}: {} records of the HVM context equal", seen.len());
    Ok(())
}

/// Exports the snapshot, has Xen's own tool judge the stream, and reads it.
pub(super) fn export(lab: &Lab, name: &str) -> Result<Image> {
    succeed(lab, &format!("rm -f {EXPORT}; livesave export {name} -o {EXPORT}"))?;
    let here = lab.dir().join("oracle.image");
    lab.get(EXPORT, &here)?;
    let (judge, modules) = stream_judge(lab.dir());
    let mut python = Command::new("python3");
    python.arg(judge).args(["--format", "xl", "--in"]).arg(&here).env("PYTHONPATH", modules);
    let judged = python.output().context("verify-stream-v2")?;
    check(judged.status.success(), || {
        let said = String::from_utf8_lossy(&judged.stdout).into_owned() + &String::from_utf8_lossy(&judged.stderr);
        format!("verify-stream-v2 ended with {}: {said}", judged.status)
    })?;
    say!("   verify-stream-v2 accepts the export");
    let image = Image::read(BufReader::new(File::open(&here).context("the export")?)).context("the export")?;
    std::fs::remove_file(&here).context("the export")?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_frame_is_noticed_unless_it_is_masked() {
        let seen = frames("1 normal ff\n2 normal 0\n").unwrap();
        let masked = BTreeMap::from([(2, "reason")]);
        assert!(same_frames(&seen, &seen, &BTreeMap::new(), "x").is_ok());
        for (other, fine) in [("1 a ff\n2 a 1\n", true), ("1 a fe\n2 a 0\n", false), ("1 a ff\n", false)] {
            assert_eq!(same_frames(&seen, &frames(other).unwrap(), &masked, "x").is_ok(), fine, "{other}");
        }
        let more = frames("1 a ff\n2 a 0\n3 a 0").unwrap();
        assert!(same_frames(&seen, &more, &masked, "x").is_err());
    }

    #[test]
    fn one_wrong_record_is_noticed() {
        let record = |text: &str| vec!["1 0 1 00".to_owned(), text.to_owned()];
        assert!(same_context(&record("2 0 1 aa"), &record("2 0 1 aa"), "x").is_ok());
        assert!(same_context(&record("2 0 1 aa"), &record("2 0 1 ab"), "x").is_err());
        assert!(same_context(&record("2 0 1 aa"), &record("2 0 1 aa")[..1], "x").is_err());
        assert!(same_context(&[], &[], "x").is_err());
    }
}
