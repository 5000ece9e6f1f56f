//! What the operator chose for a take, in the stub's terms: mode, pauses, the way with a busy guest.

use crate::args;
use crate::exit::{Exit, Outcome};
use snapshot::policy::Busy;
use snapshot::request::{Mode, TARGET_PAUSE_MS};
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

/// The way with a busy guest, as the stub calls it.
pub const fn busy(busy: args::OnBusy) -> Busy {
    match busy {
        args::OnBusy::Accept => Busy::Accept,
        args::OnBusy::Throttle => Busy::Throttle,
        args::OnBusy::Abort => Busy::Abort,
    }
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

/// As milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn take(line: &str) -> args::Take {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Take(take) => take,
            other => panic!("{other:?}"),
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
