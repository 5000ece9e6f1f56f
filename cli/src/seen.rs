//! What dom0 remembers of each store: its id, where it is at home, and the highest generation that was seen.
//!
//! A generation never goes back by itself, so one that did means an older copy of the device; another id on the same
//! device means another store. Invariants: a store that is doubted is never remembered, so the doubt stays until
//! `livesave store accept`; a file that cannot be read is never overwritten by anything else. The memory is bounded
//! (the store that was not seen for the longest time is forgotten), and its absence is a beginning, not an error.

use crate::exit::{Exit, Failure, Outcome};
use crate::host::files;
use crate::show;
use serde::{Deserialize, Serialize};
use snapshot::store::StoreInfo;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Most stores that are remembered.
const STORES_MAX: usize = 64;
/// Most bytes of the file.
const FILE_MAX: u64 = 128 << 10;
/// The form that this program writes and reads.
const VERSION: u32 = 1;

/// A store as it is found now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Its id, as hex digits.
    pub id: String,
    /// Its generation.
    pub generation: u64,
    /// The device's lasting name, if dom0 knows one.
    pub device: Option<String>,
}

impl Sight {
    /// A store that was opened on `device`.
    pub fn of(info: &StoreInfo, device: String) -> Self {
        Self { id: info.id.to_string(), generation: info.generation.0, device: Some(device) }
    }

    fn place(&self) -> &str {
        self.device.as_deref().unwrap_or("a device that dom0 does not know")
    }
}

/// Why a store is not the one that is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// A higher generation was seen.
    WentBack {
        /// The highest.
        seen: u64,
    },
    /// Another store was on this device.
    Swapped {
        /// Its id.
        was: String,
    },
}

/// One store, remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    id: String,
    generation: u64,
    device: Option<String>,
    /// Accepted beside the store's home: a copy, which is followed on its own.
    copy: bool,
    seen_unix: u64,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    version: u32,
    stores: Vec<Seen>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { version: VERSION, stores: Vec::new() }
    }
}

impl Memory {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let memory: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if memory.version != VERSION || memory.stores.len() > STORES_MAX {
            return Err("written by another version of livesave".to_owned());
        }
        Ok(memory)
    }

    /// The copy on this device, or the store's home.
    fn find(&mut self, sight: &Sight) -> Option<&mut Seen> {
        let same = |seen: &Seen| seen.id == sight.id;
        let copy = self.stores.iter().position(|seen| same(seen) && seen.copy && seen.device == sight.device);
        let index = copy.or_else(|| self.stores.iter().position(|seen| same(seen) && !seen.copy))?;
        self.stores.get_mut(index)
    }

    /// What speaks against this store, if anything.
    fn doubt(&mut self, sight: &Sight) -> Option<Doubt> {
        let here = |seen: &&Seen| seen.device.is_some() && seen.device == sight.device;
        let known_here = self.stores.iter().filter(here).any(|seen| seen.id == sight.id);
        if let Some(other) = self.stores.iter().find(here).filter(|_| !known_here) {
            return Some(Doubt::Swapped { was: other.id.clone() });
        }
        let seen = self.find(sight)?;
        (sight.generation < seen.generation).then_some(Doubt::WentBack { seen: seen.generation })
    }

    /// Remembers a store that nothing speaks against; whether that changed anything.
    fn note(&mut self, sight: &Sight, now_unix: u64) -> bool {
        match self.find(sight) {
            Some(seen) if seen.generation == sight.generation && seen.device == sight.device => return false,
            Some(seen) => {
                (seen.generation, seen.seen_unix) = (sight.generation, now_unix);
                seen.device.clone_from(&sight.device);
            }
            None => self.add(sight, false, now_unix),
        }
        true
    }

    /// Expects this store here from now on, whatever was seen before. A home elsewhere stays.
    fn accept(&mut self, sight: &Sight, now_unix: u64) {
        self.stores.retain(|seen| sight.device.is_none() || seen.device != sight.device);
        let elsewhere = self.stores.iter().any(|seen| seen.id == sight.id && !seen.copy && seen.device.is_some());
        let copy = elsewhere && sight.device.is_some();
        self.stores.retain(|seen| copy || seen.id != sight.id);
        self.add(sight, copy, now_unix);
    }

    fn add(&mut self, sight: &Sight, copy: bool, seen_unix: u64) {
        if self.stores.len() >= STORES_MAX {
            self.stores.sort_by_key(|seen| seen.seen_unix);
            self.stores.drain(..=self.stores.len() - STORES_MAX);
        }
        let Sight { id, generation, device } = sight.clone();
        self.stores.push(Seen { id, generation, device, copy, seen_unix });
    }
}

fn failure(sight: &Sight, doubt: &Doubt) -> Failure {
    let Sight { id, generation, .. } = sight;
    let place = sight.place();
    match doubt {
        Doubt::WentBack { seen } => Exit::StoreWentBack
            .fail(format_args!("the store {id} on {place} is at generation {generation}, but {seen} was seen"))
            .hint("an older copy of its device? Bring the newest back; `livesave store accept` if this one is wanted"),
        Doubt::Swapped { was } => Exit::StoreSwapped
            .fail(format_args!("{place} holds the store {id}, but the store {was} was seen there"))
            .hint("the wrong device? Look at the stub's disk; `livesave store accept` if this store is wanted"),
    }
}

/// The directory of what is to outlive a reboot. `LIVESAVE_STATE` moves it. Unit tests have one of their own.
pub fn state_dir() -> PathBuf {
    if cfg!(test) {
        return std::env::temp_dir().join(format!("livesave-state-{}", std::process::id()));
    }
    std::env::var_os("LIVESAVE_STATE").map_or_else(|| PathBuf::from("/var/lib/livesave"), PathBuf::from)
}

/// The memory on disk, held by its lock.
struct Held {
    path: PathBuf,
    _lock: File,
}

impl Held {
    fn open(dir: &Path) -> Result<Self, String> {
        let _lock = files::hold(dir, "stores").map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { path: dir.join("stores.json"), _lock })
    }

    fn load(&self) -> Result<Memory, String> {
        let mut bytes = Vec::new();
        let read = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Memory::default()),
            opened => opened.and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes)),
        };
        let parsed = read.map_err(|error| error.to_string()).and_then(|_| Memory::parse(&bytes));
        parsed.map_err(|error| format!("{} is damaged: {error}", self.path.display()))
    }

    fn save(&self, memory: &Memory) -> Result<(), String> {
        let bytes = serde_json::to_vec_pretty(memory).map_err(|error| error.to_string())?;
        files::replace(&self.path, &bytes).map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What speaks against the store; what nothing speaks against is remembered. An error says why dom0 cannot tell.
fn judge(dir: &Path, sight: &Sight) -> Result<Option<Doubt>, String> {
    let held = Held::open(dir)?;
    let mut memory = held.load()?;
    let doubt = memory.doubt(sight);
    if doubt.is_none() && memory.note(sight, now_unix()) {
        held.save(&memory)?;
    }
    Ok(doubt)
}

/// Compares the store with what was seen of it. A memory that fails is said aloud and stops nobody: the store itself
/// may be fine, and the guest that is to be restored cannot wait.
pub fn check(sight: &Sight) -> Option<Failure> {
    match look(sight) {
        Ok(failure) => failure,
        Err(why) => {
            let hint = "until `livesave store accept` nobody notices a store that went back or was swapped";
            show::warn(&Exit::CannotWrite.fail(why).hint(hint));
            None
        }
    }
}

/// As [`check`], with the memory's own trouble as an error.
pub fn look(sight: &Sight) -> Result<Option<Failure>, String> {
    judge(&state_dir(), sight).map(|doubt| doubt.map(|doubt| failure(sight, &doubt)))
}

/// Expects this store from now on. A damaged memory is put aside.
pub fn accept(sight: &Sight) -> Outcome {
    let accepted = accept_in(&state_dir(), sight);
    accepted.map_err(|why| Exit::CannotWrite.fail(why).hint("livesave needs /var/lib/livesave, as root"))
}

fn accept_in(dir: &Path, sight: &Sight) -> Result<(), String> {
    let held = Held::open(dir)?;
    let mut memory = match held.load() {
        Ok(memory) => memory,
        Err(why) => {
            let aside = held.path.with_extension("damaged");
            fs::rename(&held.path, &aside).map_err(|error| format!("{why}; {}: {error}", aside.display()))?;
            show::warn(&Exit::CannotWrite.fail(format_args!("{why}; put aside as {}", aside.display())));
            Memory::default()
        }
    };
    memory.accept(sight, now_unix());
    held.save(&memory)
}

#[cfg(test)]
mod tests;
