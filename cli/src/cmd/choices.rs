//! What the operator chose for a take, in the stub's terms: mode, pauses, the way with a busy guest.

use crate::args;
use crate::exit::{Exit, Failure, Outcome};
use serde_json::{Value, json};
use snapshot::names::Name;
use snapshot::policy::{Busy, HIGH_DEFAULT_MILLI};
use snapshot::request::{Kind, Mode, TARGET_PAUSE_MS};
use std::time::Duration;

/// Default pause budget of a live take, milliseconds.
const LIVE_PAUSE_MS: u64 = 10_000;
/// The same of a staged one.
const STAGED_PAUSE_MS: u64 = 2_000;

/// The mode, as the stub calls it.
pub const fn mode(mode: args::Mode) -> Mode {
    match mode {
        args::Mode::Save => Mode::Save,
        args::Mode::Live => Mode::Live,
        args::Mode::Improved => Mode::Improved,
        args::Mode::Xen => Mode::Xen,
        args::Mode::Staged => Mode::Staged,
    }
}

/// What is taken from an older snapshot.
pub const fn kind(take: &args::Take) -> Kind {
    match take {
        args::Take { incremental: true, .. } => Kind::Incremental,
        args::Take { diff: true, .. } => Kind::Diff,
        _ => Kind::Full,
    }
}

/// NAME or GUEST@NAME of the snapshot to build on.
pub fn parent(take: &args::Take, guest: &str) -> Outcome<Option<Name>> {
    let Some(text) = &take.parent else { return Ok(None) };
    let short = text.strip_prefix(guest).and_then(|rest| rest.strip_prefix('@')).unwrap_or(text);
    let bad = |error| Exit::Usage.fail(format_args!("'{text}' is no snapshot of '{guest}': {error}"));
    short.parse().map(Some).map_err(bad)
}

/// The way with a busy guest, as the stub calls it.
pub const fn busy(take: &args::Take) -> Busy {
    match take.on_busy {
        None | Some(args::OnBusy::Accept) => Busy::Accept,
        Some(args::OnBusy::Throttle) => Busy::Throttle,
        Some(args::OnBusy::Abort) => Busy::Abort,
    }
}

/// What means nothing in the mode must not be given: it would be believed to be in force.
pub fn refuse_strays(take: &args::Take) -> Outcome {
    use args::Mode::{Improved, Live, Staged};
    let known: [(&str, bool, &[args::Mode]); 5] = [
        ("--target-pause", take.target_pause.is_some(), &[Staged]),
        ("--staging", take.staging.is_some(), &[Staged]),
        ("--on-busy", take.on_busy.is_some(), &[Staged]),
        ("--round1-skip", take.round1_skip, &[Live, Improved]),
        ("--h", take.h.is_some(), &[Improved]),
    ];
    let Some((option, _, modes)) = known.iter().find(|(_, given, modes)| *given && !modes.contains(&take.mode)) else {
        return Ok(());
    };
    let what = format!("{option} means nothing in mode {}", mode(take.mode));
    let modes: Vec<_> = modes.iter().map(|known| format!("--mode {}", mode(*known))).collect();
    Err(Exit::Usage.fail(what).hint(format!("leave it out, or add {}", modes.join(" or "))))
}

/// The limit of mode `improved`, in thousandths.
pub fn h_milli(take: &args::Take) -> u32 {
    take.h.unwrap_or(HIGH_DEFAULT_MILLI)
}

/// Why a guest is taken in another mode than was asked for.
const UNTRACKED: &str = "a PV guest, and this hypervisor has no shadow paging to track it: taken with --mode save, so \
                         it stands still for the whole copy";

/// A PV guest that is to stay tracked, and nobody has said that it may.
pub fn pv_is_asked_for(guest: &str) -> Failure {
    let what = format_args!("'{guest}' is a PV guest: it stays tracked between its snapshots only with --pv-tracking");
    Exit::Unsupported.fail(what).hint("add it: the page tables are all read in every pause then; or use --diff")
}

/// Of a PV guest an incremental take is refused that cannot be, before anything is touched.
fn refuse_incremental(take: &args::Take, tracks_pv: bool) -> Outcome {
    if !take.pv_tracking {
        return Err(pv_is_asked_for(&take.domain));
    }
    let what = format_args!("this hypervisor has no shadow paging: it cannot track the PV guest '{}'", take.domain);
    let failure = || Exit::Unsupported.fail(what).hint("use --diff, which reads every page and writes what differs");
    if tracks_pv { Ok(()) } else { Err(failure()) }
}

/// What was chosen, as far as the guest can be taken so, and why if it is another mode: a hypervisor without shadow
/// paging cannot track a PV guest, which is suspended first then.
pub fn for_guest(
    take: &args::Take,
    pv: bool,
    tracks_pv: impl FnOnce() -> Outcome<bool>,
) -> Outcome<(args::Take, Option<&'static str>)> {
    if !pv || take.mode == args::Mode::Save && !take.incremental {
        return Ok((take.clone(), None));
    }
    let tracks = tracks_pv()?;
    if take.incremental {
        refuse_incremental(take, tracks)?;
    }
    if tracks {
        return Ok((take.clone(), None));
    }
    Ok((args::Take { mode: args::Mode::Save, ..take.clone() }, Some(UNTRACKED)))
}

/// The longest pause, milliseconds.
pub fn max_pause_ms(take: &args::Take) -> Option<u64> {
    let default = match take.mode {
        args::Mode::Save => None,
        args::Mode::Staged => Some(STAGED_PAUSE_MS),
        _ => Some(LIVE_PAUSE_MS),
    };
    take.max_pause.map_or(default, |limit| limit.0.map(millis))
}

/// The pause that is good enough; one above the longest pause can never be good enough.
pub fn target_ms(take: &args::Take) -> Outcome<u32> {
    let most = max_pause_ms(take).unwrap_or(u64::MAX);
    let target = take.target_pause.map_or(u64::from(TARGET_PAUSE_MS).min(most), millis);
    if target > most {
        let what = format!("--target-pause {target} ms is longer than the longest pause, {most} ms");
        return Err(Exit::Usage.fail(what).hint("raise --max-pause, or lower --target-pause"));
    }
    Ok(u32::try_from(target).unwrap_or(u32::MAX))
}

/// What the policy was told beside the counts, for whoever puts the trace before it again.
pub fn settings(take: &args::Take) -> Outcome<Value> {
    Ok(json!({
        "target_pause_ms": target_ms(take)?, "max_pause_ms": max_pause_ms(take), "on_busy": busy(take).as_str(),
        "h_milli": h_milli(take), "round1_skip": take.round1_skip,
    }))
}

/// As milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::tests::take;

    #[test]
    fn what_means_nothing_in_the_mode_is_refused() {
        for option in ["--target-pause 1s", "--staging 64M", "--on-busy accept"] {
            let line = format!("livesave take web01 {option}");
            assert_eq!(refuse_strays(&take(&line)), Ok(()), "staged is the default");
            for mode in ["save", "live", "improved", "xen"] {
                let failure = refuse_strays(&take(&format!("{line} --mode {mode}"))).unwrap_err();
                assert_eq!(failure.exit, Exit::Usage);
                assert!(failure.what.contains(option.split(' ').next().unwrap()), "{}", failure.what);
            }
        }
        let said = |line: &str| refuse_strays(&take(&format!("livesave take web01 {line}"))).map_err(|why| why.what);
        assert_eq!(said("--max-pause 1s"), Ok(()));
        assert_eq!(said("--round1-skip --mode live"), Ok(()));
        assert_eq!(said("--round1-skip --h 2 --mode improved"), Ok(()));
        assert_eq!(said("--round1-skip"), Err("--round1-skip means nothing in mode staged".to_owned()));
        assert_eq!(said("--h 2 --mode live"), Err("--h means nothing in mode live".to_owned()));
    }

    #[test]
    fn a_pv_guest_that_cannot_be_tracked_is_suspended_first() {
        let (staged, save) = ("livesave take web01 --mode staged --max-pause 5s", "livesave take web01 --mode save");
        let chosen = |line: &str, pv, tracks: Outcome<bool>| for_guest(&take(line), pv, || tracks);
        let (settled, why) = chosen(staged, true, Ok(false)).unwrap();
        assert_eq!((settled.mode, max_pause_ms(&settled)), (args::Mode::Save, Some(5000)), "the limit stays");
        assert!(why.unwrap().contains("--mode save"));
        for (line, pv, tracks) in [(staged, true, Ok(true)), (staged, false, Ok(false)), (save, true, Ok(false))] {
            let (settled, why) = chosen(line, pv, tracks).unwrap();
            assert_eq!((settled.mode, why), (take(line).mode, None), "{line} {pv}");
        }
        let unknown = || Err(Exit::XlFailed.fail("xl info"));
        assert_eq!(chosen(staged, true, unknown()).unwrap_err().exit, Exit::XlFailed);
        assert!(chosen(staged, false, unknown()).is_ok() && chosen(save, true, unknown()).is_ok(), "nobody asks then");
    }

    #[test]
    fn an_incremental_take_of_a_pv_guest_is_asked_for_or_refused() {
        let chosen = |line: &str, pv, tracks| for_guest(&take(line), pv, || Ok(tracks));
        let (plain, asked) =
            ("livesave take web01 --incremental", "livesave take web01 --incremental --pv-tracking --mode save");
        assert!(chosen(plain, false, false).is_ok() && chosen(asked, true, true).is_ok());
        for (line, tracks, words) in [(plain, true, "--pv-tracking"), (asked, false, "no shadow paging")] {
            let failure = chosen(line, true, tracks).unwrap_err();
            assert_eq!(failure.exit, Exit::Unsupported, "{line}");
            let said = failure.to_string();
            assert!(said.contains(words) && said.contains("--diff"), "{said}");
        }
    }

    #[test]
    fn a_target_above_the_longest_pause_is_refused() {
        let target = |line: &str| target_ms(&take(line));
        let staged = "livesave take web01 --mode staged";
        assert_eq!(target(staged), Ok(300));
        assert_eq!(target(&format!("{staged} --max-pause 100ms")), Ok(100), "the default yields");
        assert_eq!(target(&format!("{staged} --target-pause 2s")), Ok(2000));
        assert_eq!(target(&format!("{staged} --target-pause 3s --max-pause none")), Ok(3000));
        assert_eq!(target(&format!("{staged} --target-pause 2001ms")).unwrap_err().exit, Exit::Usage);
    }
}
