//! Two writers at one disk: the second one listens for the first one's heartbeat before it opens the store.

use snapshot::store::{BEAT_PERIOD_NS, Claim, Heartbeat, Listener, SILENCE_NS, StoreId};

use super::stock::{is_whole, said};
use crate::content::run;
use crate::history::{History, ROOMY};
use crate::judge::Verdict;

const STORE: StoreId = StoreId([1; 16]);
/// The first writer.
const FIRST: [u8; 16] = [3; 16];

/// The first writer beats while the second one listens; true: the second one believes that the store is free.
fn second_claims(history: &History) -> Result<bool, String> {
    let mut disk = history.disk.clone();
    let mut listener = Listener::new([4; 16]);
    let mut now_ns = 5_000_000_000;
    let until_ns = now_ns + 4 * SILENCE_NS;
    while now_ns < until_ns {
        let beat = Heartbeat { writer: FIRST, sequence: now_ns / BEAT_PERIOD_NS, unix: 7, in_use: true };
        beat.write(&mut disk, STORE).map_err(said)?;
        match listener.look(&mut disk, STORE, now_ns).map_err(said)? {
            Claim::Free { .. } => return Ok(true),
            Claim::Taken => return Ok(false),
            Claim::Listen { next_ns } => now_ns = next_ns,
        }
    }
    Err("it listens for ever".to_owned())
}

/// Both take a snapshot, if both think that the store is theirs; what was sealed must be there.
pub fn two() -> Verdict {
    let mut history = History::with(ROOMY, &[("old@1", vec![run(0, 9, 1)])]);
    let mut first = history.open().map_err(said)?;
    let second = if second_claims(&history)? { history.open().ok() } else { None };
    history.take(&mut first, "first@1", &[run(0, 5, 2)]).map_err(said)?;
    if let Some(mut second) = second {
        let _ = history.take(&mut second, "second@1", &[run(0, 5, 3)]);
    }
    is_whole(&history)
}
