//! The file of a received image. It has no name before it is whole and on the disk: whoever sees the name has the
//! image, and a receiver that dies, or whose host does, leaves nothing.
//!
//! Where the file system has no files without a name (NFS), a hidden name beside the final one stands in; a receiver
//! that is killed leaves that.

use crate::exit::{Exit, Failure, Outcome};
use rustix::fs::{AtFlags, CWD, OFlags, linkat};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What is written between two waits for the disk: what is left to wait for at the end, while the guest stands, is
/// less, and dom0's memory does not fill with an image that nobody reads.
const SYNC_BYTES: u64 = 8 << 20;

/// A file on its way to a name.
#[derive(Debug)]
pub struct Landing {
    file: File,
    path: PathBuf,
    /// The name that stands in, until it is taken away.
    hidden: Option<PathBuf>,
    unsynced: u64,
}

impl Landing {
    /// A file for its owner only that will be `path`, which must not exist.
    pub fn open(path: &Path) -> Outcome<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        let name = path.file_name().ok_or_else(|| refused(path, &io::ErrorKind::InvalidFilename.into()))?;
        let dir = dir_of(path);
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let nameless = options.clone().custom_flags(OFlags::TMPFILE.bits().cast_signed()).open(dir);
        let (file, hidden) = match nameless {
            Ok(file) => (file, None),
            Err(error) if has_no_nameless_files(&error) => {
                let hidden = dir.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
                let file = options.create_new(true).open(&hidden).map_err(|error| refused(&hidden, &error))?;
                (file, Some(hidden))
            }
            Err(error) => return Err(refused(path, &error)),
        };
        Ok(Self { file, path: path.to_owned(), hidden, unsynced: 0 })
    }

    /// All is there: on the disk first, under its name then. The name may have been taken meanwhile.
    pub fn commit(self) -> Outcome {
        let failed = |error: &io::Error| refused(&self.path, error);
        self.file.sync_all().map_err(|error| failed(&error))?;
        let named = match &self.hidden {
            Some(hidden) => fs::hard_link(hidden, &self.path),
            None => {
                let nameless = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, nameless, CWD, &self.path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
            }
        };
        named.map_err(|error| failed(&error))?;
        // Without its directory on the disk the name is lost with the power, the image with it: say so.
        File::open(dir_of(&self.path)).and_then(|dir| dir.sync_all()).map_err(|error| failed(&error))
    }
}

impl Write for Landing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // After a commit the image has its own name; before one, half an image is worse than none.
            let _ = fs::remove_file(hidden);
        }
    }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// open(2): a kernel or a file system that does not know `O_TMPFILE`.
fn has_no_nameless_files(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory)
}

fn exists(path: &Path) -> Failure {
    Exit::CannotWrite.fail(format_args!("{} exists", path.display())).hint("name a file that does not exist")
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return exists(path);
    }
    let failure = Exit::CannotWrite.fail(format_args!("{} cannot be made: {error}", path.display()));
    failure.hint("is the directory there, writable, and not full?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("livesave-landing-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        dir
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole() {
        let dir = dir("whole");
        let path = dir.join("image");
        let mut landing = Landing::open(&path).unwrap();
        landing.write_all(&vec![7; SYNC_BYTES as usize + 1]).unwrap();
        assert!(!path.exists());
        landing.commit().unwrap();
        assert_eq!(names(&dir), ["image"]);
        let data = fs::metadata(&path).unwrap();
        assert_eq!((data.len(), data.permissions().mode() & 0o777), (SYNC_BYTES + 1, 0o600));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_was_not_committed_leaves_nothing_hidden_or_not() {
        let dir = dir("dropped");
        let path = dir.join("image");
        drop(Landing::open(&path).unwrap());
        assert_eq!(names(&dir), [""; 0]);
        let hidden = dir.join(".image.1");
        let file = File::create(&hidden).unwrap();
        drop(Landing { file, path, hidden: Some(hidden), unsynced: 0 });
        assert_eq!(names(&dir), [""; 0]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_hidden_name_gives_way_to_the_final_one() {
        let dir = dir("hidden");
        let (path, hidden) = (dir.join("image"), dir.join(".image.1"));
        let file = File::create(&hidden).unwrap();
        Landing { file, path, hidden: Some(hidden), unsynced: 0 }.commit().unwrap();
        assert_eq!(names(&dir), ["image"]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_is_written_over_even_if_it_came_meanwhile() {
        let dir = dir("taken");
        let path = dir.join("image");
        let landing = Landing::open(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert_eq!(landing.commit().unwrap_err().exit, Exit::CannotWrite);
        assert_eq!(Landing::open(&path).unwrap_err().exit, Exit::CannotWrite);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(Landing::open(&dir.join("no/such")).unwrap_err().exit, Exit::CannotWrite);
        assert_eq!(Landing::open(Path::new("/")).unwrap_err().exit, Exit::CannotWrite);
        fs::remove_dir_all(dir).unwrap();
    }
}
