//! QEMU's monitor: what it has done for a disk, and how fast it may.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The socket in a machine's directory.
pub const SOCKET: &str = "monitor";
/// QEMU answers at once, unless the host is very busy.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Events and other lines before an answer, at most.
const LINES_MAX: usize = 1000;

/// What QEMU did for one disk since the boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskWork {
    /// Writes that are done.
    pub writes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flushes that are done.
    pub flushes: u64,
}

impl DiskWork {
    /// What was done between an earlier look and this one.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            writes: self.writes.saturating_sub(before.writes),
            bytes: self.bytes.saturating_sub(before.bytes),
            flushes: self.flushes.saturating_sub(before.flushes),
        }
    }
}

/// A conversation in QMP (docs/interop/qmp-spec.txt in QEMU).
pub struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to the machine in `dir`.
    pub fn open(dir: &Path) -> Result<Self> {
        // A socket's path is limited to 107 bytes.
        let here = File::open(dir).with_context(|| dir.display().to_string())?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", here.as_raw_fd());
        let stream = UnixStream::connect(path).context("QEMU's monitor")?;
        stream.set_read_timeout(Some(ANSWER_WAIT)).context("QEMU's monitor")?;
        let mut monitor = Self { lines: BufReader::new(stream) };
        monitor.line()?;
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// What was done for the n-th disk.
    pub fn disk(&mut self, index: usize) -> Result<DiskWork> {
        let answer = self.ask("query-blockstats", &json!({}))?;
        work_of(&answer, index).with_context(|| format!("no disk {index} in {answer}"))
    }

    /// Lets the n-th disk write no more than this in a second.
    pub fn slow_writes(&mut self, index: usize, bytes_per_second: u64) -> Result<()> {
        let mut limits = json!({ "device": format!("disk{index}"), "bps_wr": bytes_per_second });
        for none in ["bps", "bps_rd", "iops", "iops_rd", "iops_wr"] {
            limits[none] = 0.into();
        }
        self.ask("block_set_io_throttle", &limits).map(drop)
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let text = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.lines.get_mut().write_all(text.as_bytes()).context("QEMU's monitor")?;
        for _ in 0..LINES_MAX {
            let mut answer = self.line()?;
            if answer.get("error").is_some() {
                bail!("QEMU refuses {command}: {answer}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
        bail!("QEMU does not answer {command}")
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).context("QEMU's monitor")?;
        serde_json::from_str(&line).with_context(|| format!("QEMU's monitor says `{line}`"))
    }
}

fn work_of(answer: &Value, index: usize) -> Option<DiskWork> {
    let name = format!("disk{index}");
    let stats = answer.as_array()?.iter().find(|one| one["device"] == name.as_str())?.get("stats")?;
    let number = |key: &str| stats.get(key)?.as_u64();
    Some(DiskWork {
        writes: number("wr_operations")?,
        bytes: number("wr_bytes")?,
        flushes: number("flush_operations")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_for_a_disk_is_read_by_its_name() {
        let disk = |name: &str, writes: u64| {
            let stats = json!({ "wr_operations": writes, "wr_bytes": 4096 * writes, "flush_operations": 3 });
            json!({ "device": name, "stats": stats })
        };
        let answer = json!([disk("disk1", 8), disk("disk0", 9), { "device": "other" }]);
        let work = work_of(&answer, 0).unwrap();
        assert_eq!(work, DiskWork { writes: 9, bytes: 9 * 4096, flushes: 3 });
        assert_eq!(work.since(&work_of(&answer, 1).unwrap()).writes, 1);
        assert_eq!(work_of(&answer, 2), None);
    }
}
