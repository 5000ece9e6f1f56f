//! Files of state: locks and the keeper's records under /run/livesave, and how files of any directory are replaced,
//! held, and made for guest memory.
//!
//! A record is written to a new file, synced and renamed, so that a reader never sees half of one. All are 0600, in a
//! directory that is 0700.

use crate::exit::{Exit, Failure, Outcome};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The directory of all state. `LIVESAVE_RUN` moves it, for tests.
pub fn run_dir() -> PathBuf {
    std::env::var_os("LIVESAVE_RUN").map_or_else(|| PathBuf::from("/run/livesave"), PathBuf::from)
}

fn trouble(path: &Path, error: &io::Error) -> Failure {
    Exit::CannotWrite.fail(format_args!("{}: {error}", path.display())).hint("livesave needs /run/livesave, as root")
}

/// Makes the directory if it is not there.
pub fn make_run_dir() -> Outcome<PathBuf> {
    let dir = run_dir();
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|error| trouble(&dir, &error))?;
    Ok(dir)
}

/// A held lock. The file stays; who dies loses the lock.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

/// Takes the lock `name`, or says that it is held.
pub fn lock(name: &str) -> Outcome<Option<Lock>> {
    let path = make_run_dir()?.join(format!("{name}.lock"));
    let options = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = options.map_err(|error| trouble(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(trouble(&path, &error)),
    }
}

/// How often a lock that others hold for moments is tried, and the pause in between.
const HOLD_TRIES: u32 = 100;
const HOLD_PAUSE: Duration = Duration::from_millis(20);

/// Makes `dir` if it is not there, and takes the lock `name` in it, which its holders keep for moments only.
pub fn hold(dir: &Path, name: &str) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let path = dir.join(format!("{name}.lock"));
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    for _ in 0..HOLD_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(HOLD_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Replaces a file by `content`, durably.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let next = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Makes a file for guest memory: new, and for its owner only.
pub fn create_secret(path: &Path) -> Outcome<File> {
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => "name a file that does not exist",
            _ => "is the directory there and writable?",
        };
        Exit::CannotWrite.fail(format_args!("{} cannot be made: {error}", path.display())).hint(hint)
    })
}

/// Bytes from the system's random source.
pub fn random<const N: usize>() -> Outcome<[u8; N]> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    read.map_err(|error| Exit::Internal.fail(format_args!("/dev/urandom: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_replaced_file_is_whole_and_private() {
        let path = std::env::temp_dir().join(format!("livesave-replace-{}", std::process::id()));
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_secret_file_is_private_and_never_over_another() {
        let path = std::env::temp_dir().join(format!("livesave-secret-{}", std::process::id()));
        drop(create_secret(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create_secret(&path).unwrap_err().exit, Exit::CannotWrite);
        fs::remove_file(path).unwrap();
    }
}
