//! Our image of a guest against Xen's own of the same guest at the same instant: page by page, record by record.
//!
//! The take owns the suspend. When the stub has captured everything and needs the guest's memory no more, the take's
//! hook runs libxl's save helper, which is what `xl save` runs, on the guest that still stands (`probe stock`). So two
//! independent writers read the same memory, and the export is compared with what Xen's wrote. `xl save -c` itself
//! cannot stand beside a take: a take gives way to it (decision 0013), and it suspends the guest itself, at another
//! instant. What may differ is named here, with its reason; all else must be equal.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::oracle::{self, Frames, Rings, same_context, same_frames};
use super::pv;
use super::words::{self, IN_PAUSE, SET_TAKING, succeed, target};
use crate::context;
use crate::lab::{Guest, GuestKind, Lab};
use crate::say;
use crate::verdict::check;

/// What Xen's writer writes.
pub(super) const IMAGE: &str = "/scratch/stock.image";
/// Records of a libxc stream (docs/specs/libxc-migration-stream.pandoc).
const TSC_INFO: u32 = 8;
const HVM_CONTEXT: u32 = 9;
/// In X86_TSC_INFO: the nanoseconds that the guest has lived, 64 bits. Xen counts them on while the guest stands.
const TSC_ELAPSED: std::ops::Range<usize> = 8..16;

/// One PVH guest in two modes.
pub fn run(lab: &Lab) -> Result<()> {
    both_modes(lab, GuestKind::Pvh)
}

/// One PV guest in two modes.
pub fn run_pv(lab: &Lab) -> Result<()> {
    both_modes(lab, GuestKind::Pv)
}

fn both_modes(lab: &Lab, kind: GuestKind) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let mut spec = target("stock", 96, "ls.mem=16 ls.dirty=16 ls.tick=20 ls.publish=2 ls.cpus=2");
    (spec.kind, spec.vcpus) = (kind, 2);
    let guest = lab.create_guest(&spec)?;
    guest.wait_whole_pass(lab)?;
    for mode in ["live", "staged"] {
        equals(lab, &guest, kind, mode).with_context(|| mode.to_owned())?;
    }
    lab.sh(&format!("xl destroy {}; rm -f {IMAGE}", guest.name))?;
    lab.stop_stub()
}

/// The frames that dom0 writes to while the guest stands.
fn rings(lab: &Lab, guest: &Guest, kind: GuestKind) -> Result<BTreeMap<u64, &'static str>> {
    match kind {
        GuestKind::Pvh => Ok(Rings::of(lab, guest)?.while_suspended()),
        GuestKind::Pv => Ok(pv::Rings::of(lab, guest)?.while_suspended()),
    }
}

fn equals(lab: &Lab, guest: &Guest, kind: GuestKind, mode: &str) -> Result<()> {
    let rings = rings(lab, guest, kind)?;
    let before = guest.counter(lab)?.context("no counter")?;
    take(lab, guest, mode)?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.errors == 0 && after.ticks > before.ticks, || format!("after the take: {before:?}, {after:?}"))?;
    compare(lab, guest, kind, mode, &rings).map(drop)
}

/// Takes the guest; while it stands, Xen's writer writes its image as well. The stub says `flushing` when tracking is
/// off and it will not look at the guest again. The helper is what the policy keeps off while a take runs.
pub(super) fn take(lab: &Lab, guest: &Guest, mode: &str) -> Result<()> {
    take_as(lab, guest, mode, &format!("--mode {mode}"))
}

/// The same, of any name and kind.
pub(super) fn take_as(lab: &Lab, guest: &Guest, name: &str, how: &str) -> Result<()> {
    let hook = format!(
        "{IN_PAUSE}; set -e; S=/local/domain/$(xl domid livesave)/data/livesave/status; i=0; \
         until xenstore-read $S | grep -q state=flushing; do i=$((i+1)); [ $i -lt 300 ]; sleep 0.1; done; \
         {SET_TAKING} 0; probe stock $LIVESAVE_DOMID {IMAGE}"
    );
    succeed(
        lab,
        &format!(
            "livesave take {} --name {name} {how} --max-pause none --hook-timeout 5m --hook '{hook}' \
             || {{ cat /run/livesave/keeper.log >&2; false; }}",
            guest.name
        ),
    )
    .map(drop)
}

/// The export of a [`take`] against the image that Xen's writer wrote then; the number of page tables in both.
pub(super) fn compare(
    lab: &Lab,
    guest: &Guest,
    kind: GuestKind,
    mode: &str,
    rings: &BTreeMap<u64, &'static str>,
) -> Result<usize> {
    words::tracking_is_off(lab, guest)?;
    compare_image(lab, guest, kind, mode, rings)
}

/// The same, whatever became of the guest's tracking.
pub(super) fn compare_image(
    lab: &Lab,
    guest: &Guest,
    kind: GuestKind,
    mode: &str,
    rings: &BTreeMap<u64, &'static str>,
) -> Result<usize> {
    let stock = Stock::parse(&lab.sh(&format!("probe image 0 {IMAGE}"))?)?;
    let ours = oracle::export(lab, &format!("{}@{mode}", guest.name))?;
    same_frames(&stock.frames, &ours.frames, rings, "the export, against Xen's image")?;
    let tables = stock.kinds.len();
    check((tables > 0) == (kind == GuestKind::Pv), || format!("Xen's image has {tables} page tables"))?;
    check(stock.kinds == ours.kinds, || {
        let differing = |one: &BTreeMap<u64, u8>, other: &BTreeMap<u64, u8>| {
            one.iter().filter(|(gfn, kind)| other.get(gfn) != Some(kind)).map(|pair| format!("{pair:x?}")).collect()
        };
        let (theirs, mine): (Vec<_>, Vec<_>) =
            (differing(&stock.kinds, &ours.kinds), differing(&ours.kinds, &stock.kinds));
        format!("types of pages differ: Xen's {}, ours {}", oracle::some(&theirs), oracle::some(&mine))
    })?;
    say!("   the export, against Xen's image: {tables} page tables of the same type");
    let records: Vec<(u32, Vec<u8>)> = ours.records.into_iter().zip(ours.bodies).collect();
    same_records(&stock.records, &records)?;
    Ok(tables)
}

/// What Xen's writer wrote.
struct Stock {
    frames: Frames,
    /// Of pages that are not ordinary ones, bits 28 to 31 of the page's type in the stream.
    kinds: BTreeMap<u64, u8>,
    records: Vec<(u32, Vec<u8>)>,
}

impl Stock {
    /// What `probe image` printed.
    fn parse(text: &str) -> Result<Self> {
        let mut stock = Self { frames: BTreeMap::new(), kinds: BTreeMap::new(), records: Vec::new() };
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["page", gfn, kind, digest] => {
                    let (gfn, kind) = (u64::from_str_radix(gfn, 16)?, u8::from_str_radix(kind, 16)?);
                    stock.frames.insert(gfn, u128::from_str_radix(digest, 16)?);
                    if kind != 0 {
                        stock.kinds.insert(gfn, kind);
                    }
                }
                ["record", kind, length, bytes] => {
                    let bytes = unhex(bytes)?;
                    ensure!(length.parse() == Ok(bytes.len()), "half a record");
                    stock.records.push((u32::from_str_radix(kind, 16)?, bytes));
                }
                _ => anyhow::bail!("probe image said: {line}"),
            }
        }
        Ok(stock)
    }
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).map(|d| d as u8).context("no digit")).collect::<Result<_>>()?;
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

/// The same records in the same order with the same contents, apart from what counts on.
fn same_records(stock: &[(u32, Vec<u8>)], ours: &[(u32, Vec<u8>)]) -> Result<()> {
    let kinds = |records: &[(u32, Vec<u8>)]| records.iter().map(|(kind, _)| *kind).collect::<Vec<_>>();
    check(!stock.is_empty() && kinds(stock) == kinds(ours), || {
        format!("Xen writes the records {:x?}, we {:x?}", kinds(stock), kinds(ours))
    })?;
    for ((kind, theirs), (_, ours)) in stock.iter().zip(ours) {
        if *kind == HVM_CONTEXT {
            let lines = |body: &[u8]| context::records(body).map(|records| oracle::lines(&records));
            same_context(&lines(theirs)?, &lines(ours)?, "the export, against Xen's image")?;
            continue;
        }
        check(masked(*kind, theirs) == masked(*kind, ours), || {
            format!("record {kind:#x} differs:\n{theirs:02x?}\n{ours:02x?}")
        })?;
        say!("   record {kind:#x}: {} bytes equal", theirs.len());
    }
    Ok(())
}

fn masked(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    if kind == TSC_INFO
        && let Some(elapsed) = body.get_mut(TSC_ELAPSED)
    {
        elapsed.fill(0);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_differs_is_noticed_but_for_the_time() {
        let with = |kind: u32, at: usize| {
            let mut body = vec![1; 24];
            body[at] = 2;
            vec![(0x11, vec![7; 8]), (kind, body)]
        };
        assert!(same_records(&with(TSC_INFO, 8), &with(TSC_INFO, 15)).is_ok());
        assert!(same_records(&with(TSC_INFO, 8), &with(TSC_INFO, 16)).is_err());
        assert!(same_records(&with(0xa, 8), &with(0xa, 15)).is_err());
        assert!(same_records(&with(0xa, 8), &with(TSC_INFO, 8)).is_err());
        assert!(same_records(&with(0xa, 8), &with(0xa, 8)[..1]).is_err());
        assert!(same_records(&[], &[]).is_err());
    }

    #[test]
    fn what_the_probe_prints_is_read() {
        let stock = Stock::parse("page a 0 ff\npage b 9 1\nrecord 10 0 \nrecord a 2 0bff\n").unwrap();
        assert_eq!(stock.frames, BTreeMap::from([(10, 255), (11, 1)]));
        assert_eq!(stock.kinds, BTreeMap::from([(11, 9)]));
        assert_eq!(stock.records, [(0x10, vec![]), (0xa, vec![0x0b, 0xff])]);
        assert!(Stock::parse("record a 3 0bff\n").is_err());
    }
}
