//! Two writers at one disk: the second one listens for the first one's heartbeat before it opens the store, and of two
//! that come at the same moment one gives way.

use snapshot::store::{BEAT_PERIOD_NS, Claim, Heartbeat, Listener, SILENCE_NS, STAND_NS, StoreId};

use super::stock::{is_whole, said};
use crate::content::run;
use crate::history::{History, ROOMY};
use crate::judge::Verdict;

const STORE: StoreId = StoreId([1; 16]);
/// The first writer.
const FIRST: [u8; 16] = [3; 16];
const SECOND: [u8; 16] = [4; 16];

/// The first writer beats while the second one listens; true: the second one believes that the store is free.
fn second_claims(history: &History) -> Result<bool, String> {
    let mut disk = history.disk.clone();
    let mut listener = Listener::new(SECOND);
    let (mut now_ns, mut last) = (5_000_000_000, 0);
    let until_ns = now_ns + 4 * SILENCE_NS;
    while now_ns < until_ns {
        let sequence = now_ns / BEAT_PERIOD_NS;
        if core::mem::replace(&mut last, sequence) != sequence {
            Heartbeat { writer: FIRST, sequence, unix: 7, in_use: true }.write(&mut disk, STORE).map_err(said)?;
        }
        match listener.look(&mut disk, STORE, now_ns).map_err(said)? {
            Claim::Free { sequence } => {
                let beat = Heartbeat { writer: SECOND, sequence: sequence + 1, unix: 7, in_use: true };
                beat.write(&mut disk, STORE).map_err(said)?;
                listener.wrote(now_ns);
            }
            Claim::Ours => return Ok(true),
            Claim::Taken => return Ok(false),
            Claim::Listen { next_ns } | Claim::Stand { next_ns } => now_ns = next_ns,
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

/// One of two that claim at the same moment, and its store if it thinks so.
struct Racer {
    writer: [u8; 16],
    listener: Listener,
    last: Option<Claim>,
}

impl Racer {
    fn new(writer: [u8; 16]) -> Self {
        Self { writer, listener: Listener::new(writer), last: None }
    }

    /// What it came to a moment ago is done; true when there is nothing more to come to.
    fn act(&mut self, history: &History, now_ns: u64) -> Result<bool, String> {
        if let Some(Claim::Free { sequence }) = self.last {
            let beat =
                Heartbeat { writer: self.writer, sequence: Heartbeat::following(sequence), unix: 7, in_use: true };
            beat.write(&mut history.disk.clone(), STORE).map_err(said)?;
            self.listener.wrote(now_ns);
        }
        Ok(matches!(self.last, Some(Claim::Ours | Claim::Taken)))
    }

    fn look(&mut self, history: &History, now_ns: u64) -> Result<(), String> {
        self.last = Some(self.listener.look(&mut history.disk.clone(), STORE, now_ns).map_err(said)?);
        Ok(())
    }
}

/// The store was closed in order; both look, then both write, again and again. Whoever thinks that the store is its own
/// beats from then on, and takes a snapshot.
pub fn at_once() -> Verdict {
    let history = &mut History::with(ROOMY, &[("old@1", vec![run(0, 9, 1)])]);
    let mut racers = [Racer::new(FIRST), Racer::new(SECOND)];
    let mut now_ns = 5_000_000_000;
    let until_ns = now_ns + 4 * SILENCE_NS;
    loop {
        for racer in &mut racers {
            if !matches!(racer.last, Some(Claim::Ours | Claim::Taken)) {
                racer.look(history, now_ns)?;
            }
        }
        let mut done = true;
        for racer in &mut racers {
            done &= racer.act(history, now_ns)?;
        }
        if done {
            break;
        }
        if now_ns >= until_ns {
            return Err("they listen for ever".to_owned());
        }
        now_ns += STAND_NS / 2;
        for racer in racers.iter().filter(|racer| racer.last == Some(Claim::Ours)) {
            let beat = Heartbeat { writer: racer.writer, sequence: now_ns, unix: 7, in_use: true };
            beat.write(&mut history.disk.clone(), STORE).map_err(said)?;
        }
    }
    let mut stores = Vec::new();
    for racer in racers.iter().filter(|racer| racer.last == Some(Claim::Ours)) {
        stores.push((racer.writer, history.open().map_err(said)?));
    }
    for (writer, store) in &mut stores {
        let _ = history.take(store, &format!("of{}@1", writer[0]), &[run(0, 5, u64::from(writer[0]))]);
    }
    if stores.is_empty() {
        return Err("nobody has the store".to_owned());
    }
    is_whole(history)
}
