//! The keeper's record on disk: what `livesave recover` has to undo if the keeper itself is killed.
//!
//! It is written and synced before each step that needs undoing, and removed when nothing is left to undo.

use super::throttle::OldCap;
use super::words::Job;
use crate::host::files;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use snapshot::keeper::Mark;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How far the keeper had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing to undo but the stub's log-dirty.
    Watching,
    /// The subscription may be on.
    Silenced,
    /// The guest may have been asked to suspend, and may stand.
    Asked,
    /// It took the request and stood by it: if it runs, it was resumed.
    Standing,
    /// It was resumed; the subscription may be on.
    Resumed,
    /// The guest is fine; the stub may have left its dirty tracking on.
    Tracking,
    /// Nothing.
    Done,
}

impl From<Mark> for Stage {
    fn from(mark: Mark) -> Self {
        match mark {
            Mark::Watching => Self::Watching,
            Mark::Silenced => Self::Silenced,
            Mark::Asked => Self::Asked,
            Mark::Standing => Self::Standing,
            Mark::Resumed => Self::Resumed,
            Mark::Done => Self::Done,
        }
    }
}

impl Stage {
    /// What it means to who undoes it.
    pub fn mark(self) -> Mark {
        match self {
            Self::Watching => Mark::Watching,
            Self::Silenced => Mark::Silenced,
            Self::Asked => Mark::Asked,
            Self::Standing => Mark::Standing,
            Self::Resumed => Mark::Resumed,
            Self::Tracking | Self::Done => Mark::Done,
        }
    }
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this file's form.
    pub version: u32,
    /// The keeper's process.
    pub pid: u32,
    /// How far it had come.
    pub stage: Stage,
    /// When the guest was asked to suspend, in seconds since dom0 booted.
    #[serde(default)]
    pub asked: Option<u64>,
    /// The take.
    pub job: Job,
    /// The guest's CPU cap before we lowered it.
    #[serde(default)]
    pub cap: Option<OldCap>,
    /// It keeps other tools off: see [`super::keepoff`].
    #[serde(default)]
    pub keeps_off: bool,
    /// The hook may have been started, and has not heard yet what became of the snapshot.
    #[serde(default)]
    pub hooked: bool,
}

impl Record {
    /// Where the hook names the disks that it keeps, beside the record at `path`.
    pub fn disks_beside(path: &Path) -> PathBuf {
        path.with_extension("disks")
    }
}

/// The form that this program writes and reads.
pub const VERSION: u32 = 1;

/// The open record of a running keeper.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    record: Record,
}

impl RecordFile {
    /// Writes the first one.
    pub fn create(dir: &Path, job: &Job) -> io::Result<Self> {
        let record = Record {
            version: VERSION,
            pid: std::process::id(),
            stage: Stage::Watching,
            asked: None,
            job: job.clone(),
            cap: None,
            keeps_off: false,
            hooked: false,
        };
        let path = dir.join(format!("{}.json", job.token));
        let file = Self { path, record };
        file.write()?;
        Ok(file)
    }

    /// Brings it up to date, durably.
    pub fn update(&mut self, stage: Stage) -> io::Result<()> {
        if self.record.stage == stage {
            return Ok(());
        }
        self.record.stage = stage;
        if stage == Stage::Asked {
            self.record.asked = Some(since_boot().as_secs());
        }
        self.write()
    }

    /// What it says.
    pub fn stage(&self) -> Stage {
        self.record.stage
    }

    /// The cap to be put back.
    pub fn cap(&self) -> Option<OldCap> {
        self.record.cap
    }

    /// Notes it, durably.
    pub fn set_cap(&mut self, cap: Option<OldCap>) -> io::Result<()> {
        self.record.cap = cap;
        self.write()
    }

    /// Whether other tools are kept off by it.
    pub fn keeps_off(&self) -> bool {
        self.record.keeps_off
    }

    /// The hook is about to be started, or has heard all that it will hear.
    pub fn set_hooked(&mut self, hooked: bool) -> io::Result<()> {
        self.record.hooked = hooked;
        self.write()
    }

    /// Notes it, durably.
    pub fn set_keeps_off(&mut self, keeps_off: bool) -> io::Result<()> {
        self.record.keeps_off = keeps_off;
        self.write()
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it: nothing is left to undo.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    fn write(&self) -> io::Result<()> {
        files::replace(&self.path, &serde_json::to_vec(&self.record)?)
    }
}

/// Since dom0 booted; records do not outlive that, and nobody sets this clock.
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Notes in the record of a dead keeper that its request to the guest is used up or withdrawn.
pub fn settle(path: &Path, record: &Record) -> io::Result<()> {
    files::replace(path, &serde_json::to_vec(&Record { stage: Stage::Resumed, ..record.clone() })?)
}

/// What the record at `path` says; none if it is gone.
pub fn read(path: &Path) -> Result<Option<Record>, String> {
    match std::fs::read(path) {
        Ok(bytes) => parse(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Every record in the directory, with its path; what cannot be read is an error of its own.
pub fn all(dir: &Path) -> io::Result<Vec<(PathBuf, Result<Record, String>)>> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // One that goes while we look is somebody's who ended well.
        if let Some(record) = read(&path).transpose() {
            records.push((path, record));
        }
    }
    Ok(records)
}

fn parse(bytes: &[u8]) -> Result<Record, String> {
    let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if record.version != VERSION || record.job.target().is_none() || record.job.stub().is_none() {
        return Err("written by another version of livesave".to_owned());
    }
    Ok(record)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn job() -> Job {
        Job {
            token: "00112233445566778899aabbccddeeff".to_owned(),
            guest: "web01".to_owned(),
            name: "n".to_owned(),
            domid: 5,
            handle: "4dcbc4f8-22d5-4e1b-9a5e-2a1d0b2c3d4e".to_owned(),
            stub_domid: 2,
            stub_handle: "11111111-2222-4333-8444-555555555555".to_owned(),
            max_pause_ms: None,
            throttle: false,
            hook: None,
            hook_timeout_ms: 1,
            disks: vec!["xvda=/dev/vg0/web01".to_owned()],
        }
    }

    #[test]
    fn a_record_is_there_from_the_start_and_gone_at_the_end() {
        let dir = std::env::temp_dir().join(format!("livesave-records-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut file = RecordFile::create(&dir, &job()).unwrap();
        file.update(Stage::Asked).unwrap();
        let asked = all(&dir).unwrap().pop().unwrap().1.unwrap();
        assert!(asked.asked.is_some());
        settle(&file.path, &asked).unwrap();
        assert_eq!(all(&dir).unwrap().pop().unwrap().1.unwrap().stage, Stage::Resumed);
        file.update(Stage::Silenced).unwrap();
        file.update(Stage::Asked).unwrap();
        let cap = Some(OldCap { scheduler: 6, percent: 70 });
        file.set_cap(cap).unwrap();
        std::fs::write(dir.join("broken.json"), b"{").unwrap();
        let mut found = all(&dir).unwrap();
        found.sort_by_key(|(path, _)| path.clone());
        assert_eq!(found[0].1.as_ref().unwrap().stage, Stage::Asked);
        assert_eq!(found[0].1.as_ref().unwrap().cap, cap);
        assert!(found[1].1.is_err());
        file.remove().unwrap();
        assert_eq!(all(&dir).unwrap().len(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_record_of_another_version_is_not_acted_on() {
        let mut record = Record {
            version: VERSION + 1,
            pid: 1,
            stage: Stage::Asked,
            asked: None,
            job: job(),
            cap: None,
            keeps_off: false,
            hooked: true,
        };
        assert!(parse(&serde_json::to_vec(&record).unwrap()).is_err());
        record.version = VERSION;
        assert!(parse(&serde_json::to_vec(&record).unwrap()).is_ok());
    }
}
