//! Takes that wait for the stub, which has one session at a time: who came first is taken first.
//!
//! Each waiting command holds a numbered ticket, a locked file below /run/livesave, from when it comes until its take
//! is over; who dies loses the lock, and with it the place. Nothing else is shared between the takes of two guests: a
//! take that fails gives its place to the next and has no other effect on it.

use crate::args::Place;
use crate::exit::{Exit, Failure, Outcome};
use crate::host::files;
use crate::host::tree::XenStore;
use crate::stub::{self, Stub};
use snapshot::status::StubState;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Most commands that may wait.
pub const WAITING_MAX: usize = 64;
/// Between two looks at the queue.
const LOOK: Duration = Duration::from_millis(300);
/// The lock under which tickets are made.
const LOCK: &str = "queue";
const SUFFIX: &str = "ticket";

/// A place in the queue of one stub.
#[derive(Debug)]
pub struct Ticket {
    path: PathBuf,
    number: u64,
    _locked: File,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A file that stays behind unlocked is nobody's, and removed by the next who comes.
        let _ = fs::remove_file(&self.path);
    }
}

/// One who waits, or whose take runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The ticket's number.
    pub number: u64,
    /// The guest's name.
    pub guest: String,
}

fn trouble(error: io::Error) -> Failure {
    Exit::CannotWrite.fail(format_args!("the queue: {error}")).hint("livesave needs /run/livesave, as root")
}

/// A domain's name as part of a file's name.
fn plain(stub: &str) -> String {
    stub.chars().map(|c| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' }).collect()
}

/// All tickets of this stub, alive or not, by number.
fn tickets(dir: &Path, stub: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let start = format!("{}.", plain(stub));
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix(&start).and_then(|rest| rest.strip_suffix(SUFFIX)?.strip_suffix('.'));
        all.extend(number.and_then(|number| number.parse().ok()).map(|number| (number, path)));
    }
    all.sort();
    Ok(all)
}

/// Whether somebody holds it.
fn is_held(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the last place.
fn enter(dir: &Path, stub: &str, guest: &str) -> Outcome<Ticket> {
    let _lock = files::hold(dir, LOCK).map_err(trouble)?;
    let all = tickets(dir, stub).map_err(trouble)?;
    let mut alive = 0;
    for (_, path) in &all {
        if is_held(path).map_err(trouble)? {
            alive += 1;
        } else {
            let _ = fs::remove_file(path);
        }
    }
    if alive >= WAITING_MAX {
        let failure = Exit::Busy.fail(format_args!("{alive} takes wait for the stub already"));
        return Err(failure.hint("wait until there are fewer, or run a second stub with a store of its own"));
    }
    let number = all.last().map_or(0, |(last, _)| last + 1);
    let path = dir.join(format!("{}.{number}.{SUFFIX}", plain(stub)));
    let make = || {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
        file.lock()?;
        file.write_all(guest.as_bytes())?;
        Ok(file)
    };
    let file = make().map_err(trouble)?;
    Ok(Ticket { path, number, _locked: file })
}

/// Everybody in the queue of this stub, the first first.
pub fn waiting(dir: &Path, stub: &str) -> io::Result<Vec<Waiting>> {
    let mut held = Vec::new();
    for (number, path) in tickets(dir, stub)? {
        if is_held(&path)? {
            let guest = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            held.push(Waiting { number, guest });
        }
    }
    Ok(held)
}

impl Ticket {
    /// How many were there before us and still are.
    fn before(&self, dir: &Path, stub: &str) -> io::Result<usize> {
        Ok(waiting(dir, stub)?.iter().filter(|other| other.number < self.number).count())
    }
}

/// Waits for our turn, at most so long; `say` is told each time that our place changes. The ticket keeps others back
/// until it is dropped. None as a limit: no waiting.
pub fn turn(
    store: &mut XenStore,
    place: &Place,
    guest: &str,
    limit: Option<Duration>,
    mut say: impl FnMut(&str),
) -> Outcome<(Ticket, Stub)> {
    let dir = files::make_run_dir()?;
    let name = stub::read(store, place)?.domain.name;
    let ticket = enter(&dir, &name, guest)?;
    let until = Instant::now() + limit.unwrap_or_default();
    let mut told = String::new();
    loop {
        let stub = stub::read(store, place)?;
        let before = ticket.before(&dir, &name).map_err(trouble)?;
        let busy = stub.node.state == StubState::Busy;
        // Whoever is not busy and not idle says why it cannot serve; nobody waits for that.
        let free = !busy && before == 0 && files::lock(&format!("stub-{}", stub.domain.domid))?.is_some();
        if free || !matches!(stub.node.state, StubState::Idle | StubState::Busy) {
            return Ok((ticket, stub::trusted(store, place)?));
        }
        if Instant::now() >= until {
            return Err(no_turn(before, limit));
        }
        let place_now = words(before);
        if told != place_now {
            say(&place_now);
            told = place_now;
        }
        thread::sleep(LOOK);
    }
}

/// Our place, for people.
fn words(before: usize) -> String {
    match before {
        0 => "waiting for the stub: this take is the next".to_owned(),
        1 => "waiting for the stub: one take is before this one".to_owned(),
        n => format!("waiting for the stub: {n} takes are before this one"),
    }
}

fn no_turn(before: usize, limit: Option<Duration>) -> Failure {
    let others = if before > 0 { format!(", {before} other takes wait") } else { String::new() };
    match limit {
        None => Exit::Busy
            .fail(format_args!("the stub is in a session{others}"))
            .hint("leave out --no-wait, or `livesave cancel`"),
        Some(limit) => Exit::Busy
            .fail(format_args!("the stub is in a session{others}; no turn within {} s", limit.as_secs()))
            .hint("wait longer with --wait, or `livesave cancel`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("livesave-queue-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn who_came_first_is_first_and_who_leaves_makes_room() {
        let dir = dir("order");
        let one = enter(&dir, "stub", "web01").unwrap();
        let two = enter(&dir, "stub", "web02").unwrap();
        let three = enter(&dir, "stub", "web03").unwrap();
        let other = enter(&dir, "another.stub", "web04").unwrap();
        let before = |ticket: &Ticket| ticket.before(&dir, "stub").unwrap();
        assert_eq!((before(&one), before(&two), before(&three)), (0, 1, 2));
        assert_eq!(other.before(&dir, "another.stub").unwrap(), 0);
        let guests: Vec<String> = waiting(&dir, "stub").unwrap().into_iter().map(|one| one.guest).collect();
        assert_eq!(guests, ["web01", "web02", "web03"]);
        drop(two);
        assert_eq!((before(&one), before(&three)), (0, 1));
        drop(one);
        assert_eq!(before(&three), 0);
        let last = enter(&dir, "stub", "web05").unwrap();
        assert_eq!((before(&three), before(&last)), (0, 1));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn who_died_has_no_place() {
        let dir = dir("dead");
        fs::write(dir.join("stub.0.ticket"), "web01").unwrap();
        fs::write(dir.join("stub.x.ticket"), "").unwrap();
        let one = enter(&dir, "stub", "web02").unwrap();
        assert_eq!(one.number, 1);
        assert_eq!(one.before(&dir, "stub").unwrap(), 0);
        assert!(!dir.join("stub.0.ticket").exists(), "its file goes when the next one comes");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_queue_has_an_end() {
        let dir = dir("full");
        let all: Vec<Ticket> = (0..WAITING_MAX).map(|n| enter(&dir, "stub", &n.to_string()).unwrap()).collect();
        assert_eq!(enter(&dir, "stub", "late").unwrap_err().exit, Exit::Busy);
        drop(all);
        assert!(enter(&dir, "stub", "late").is_ok());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_wait_that_is_over_names_the_way_out() {
        let (none, some) = (no_turn(0, None), no_turn(3, Some(Duration::from_secs(60))));
        assert_eq!((none.exit, some.exit), (Exit::Busy, Exit::Busy));
        assert!(
            none.to_string().contains("hint:") && some.what.contains("3 other takes") && some.what.contains("60 s")
        );
    }
}
