//! The power cut itself: something runs in dom0, stub and disk are watched, and at the moment QEMU is killed.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::moments::{Moment, Sight, Stage};
use super::{STORE_DISK, Up};
use crate::lab::{Background, DiskWork, STUB};
use crate::scenarios::words::TAKE_WAIT;
use crate::verdict::{Verdict, check, stop};
use crate::wire::Kind;

/// What the store's disk writes in a second while the moment is awaited: a take has a length then, and writes wait in
/// QEMU when it dies.
const BYTES_PER_SECOND: u64 = 4 << 20;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// The stub cleans when it was idle for seconds, or has nothing to clean.
const CLEANING_WAIT: Duration = Duration::from_secs(30);

/// What is awaited.
pub struct Blow {
    words: Receiver<String>,
    command: Option<Background>,
    before: DiskWork,
    sight: Sight,
}

impl Blow {
    /// Watches stub and disk from now on.
    pub fn aim(up: &mut Up) -> Result<Self> {
        let follow = format!("probe follow $(xl domid {STUB})");
        let (say, words) = mpsc::channel();
        let mut port = up.lab.port()?;
        // Its end is the machine's.
        thread::spawn(move || {
            let mut rest = String::new();
            port.run(&follow, TAKE_WAIT, |kind, bytes| {
                if kind == Kind::STDOUT {
                    rest += &String::from_utf8_lossy(bytes);
                }
                while let Some((line, after)) = rest.split_once('\n') {
                    let _ = say.send(line.to_owned());
                    rest = after.to_owned();
                }
            })
        });
        let mut blow = Self { words, command: None, before: DiskWork::default(), sight: Sight::default() };
        // An earlier session's last word; without one it is an empty line.
        let first = blow.words.recv_timeout(TAKE_WAIT);
        ensure!(first.is_ok(), "the stub cannot be followed");
        up.monitor.slow_writes(STORE_DISK, BYTES_PER_SECOND)?;
        blow.again(up)?;
        Ok(blow)
    }

    /// Counts from now on.
    pub fn again(&mut self, up: &mut Up) -> Result<()> {
        (self.before, self.sight) = (up.monitor.disk(STORE_DISK)?, Sight::default());
        Ok(())
    }

    /// Starts the command that is to be cut.
    pub fn begin(&mut self, up: &mut Up, command: &str) -> Result<()> {
        self.again(up)?;
        self.command = Some(up.lab.spawn(command, TAKE_WAIT)?);
        Ok(())
    }

    /// Until the moment has come, or the command has ended before, or there is nothing to clean.
    pub fn wait(&mut self, up: &mut Up, cut: &Moment, take_flushes: u64) -> Result<()> {
        let cleans = cut.stage == Stage::Cleaning;
        let deadline = Instant::now() + if cleans { CLEANING_WAIT } else { TAKE_WAIT };
        while Instant::now() < deadline {
            if let Some(line) = self.words.try_iter().last() {
                self.sight.line = line;
            }
            self.sight.work = up.monitor.disk(STORE_DISK)?.since(&self.before);
            if self.sight.comes(cut, take_flushes) || self.command.as_ref().is_some_and(Background::is_done) {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        if cleans { Ok(()) } else { Err(stop(Verdict::Timeout, format!("the moment never came: {:?}", self.sight))) }
    }

    /// Whether the command has ended. It must not fail.
    pub fn succeeded(&mut self, up: &Up) -> Result<bool> {
        let Some(command) = self.command.take_if(|command| command.is_done()) else { return Ok(false) };
        let output = command.join()?;
        check(output.status == 0, || {
            format!("the command ended with {}: {}\n{}", output.status, output.errors(), up.lab.stub_console())
        })?;
        Ok(true)
    }

    /// QEMU is killed. Where that was.
    pub fn strike(self, up: Up) -> Result<String> {
        let Up { lab, monitor } = up;
        drop(lab);
        drop(monitor);
        if let Some(command) = self.command {
            // The connection is gone, and with it what the command still said.
            let _ = command.join();
        }
        let Sight { line, work, reached } = self.sight;
        let DiskWork { writes, bytes, flushes } = work;
        let since = reached.map(|reached| work.since(&reached));
        let since = since.map_or_else(String::new, |since| format!(", in it {} and {}", since.writes, since.flushes));
        Ok(format!("{line}, {writes} writes of {bytes} bytes and {flushes} flushes{since}"))
    }
}
