//! What the stub says of its session, as it says it: one process that asks xenstored over and over.

use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::Probe;
use crate::bus::Bus;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(5);
/// What is passed on of a status; a change in anything else is none.
const KEYS: [&str; 3] = ["state", "round", "pages"];

/// Prints `state=S round=R pages=P` at the start, an empty line if there is none, and at each change, until the program
/// is killed. The domain is the stub.
pub fn run(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let mut bus = Bus::open()?;
    let path = format!("/local/domain/{}/data/livesave/status", probe.domain);
    let mut last = None;
    loop {
        let now = Some(short(&bus.read(&path)?.unwrap_or_default()));
        if now != last {
            writeln!(out, "{}", now.as_deref().unwrap_or_default())?;
            out.flush()?;
            last = now;
        }
        thread::sleep(INTERVAL);
    }
}

fn short(status: &str) -> String {
    let wanted = |line: &&str| line.split_once('=').is_some_and(|(key, _)| KEYS.contains(&key));
    status.lines().filter(wanted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_followed_is_passed_on() {
        assert_eq!(short("token=0\nstate=copying\nround=2\nrounds=9\npages=17\n"), "state=copying round=2 pages=17");
        assert_eq!(short(""), "");
    }
}
