//! `livesave receive`: the other end of `xl migrate`, which keeps the guest's image and leaves the guest where it is.
//!
//! xl gives its guest away only against the word "domain received, ready to unpause", which is never said here:
//! whatever comes instead, and the end of this process is enough, makes it resume the guest (tools/xl/xl_migrate.c,
//! migrate_domain, `failed_resume`). So there is no moment at which the death of anybody costs the guest.

use crate::exit::{Exit, Outcome};
use crate::receive::landing::Landing;
use crate::receive::stream::{self, Received};
use crate::receive::{Patient, Tap};
use crate::show;
use serde_json::json;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::path::Path;

/// What xl waits for before it sends anything (tools/xl/xl.h, migrate_receiver_banner).
const BANNER: &[u8] = b"xl migration receiver ready, send binary domain data.\n";

/// What stands in front of the configuration has to fit this; the stream itself gets a limit of its own.
const HEAD_BYTES_MAX: u64 = 2 << 20;

/// Receives. `ignored` is what `xl migrate -s COMMAND` adds: the host, and xl's command for it.
pub fn run(output: &Path, ignored: &[String], as_json: bool) -> Outcome {
    if stdin().is_terminal() || stdout().is_terminal() {
        let failure = Exit::Usage.fail("a migration does not come from a terminal");
        return Err(failure.hint("`xl migrate -s '' GUEST 'livesave receive FILE'`"));
    }
    understood(ignored)?;
    let trouble = |error: io::Error| Exit::Internal.fail(format_args!("standard input: {error}"));
    let from = File::from(stdin().as_fd().try_clone_to_owned().map_err(trouble)?);
    let received = take(output, Patient(from), stdout().lock())?;
    tell(&received, output, as_json);
    Ok(())
}

/// A command for the other host that is not a plain migration is not for us.
fn understood(ignored: &[String]) -> Outcome {
    let word = |wanted: &str| ignored.iter().any(|word| word == wanted);
    if ignored.is_empty() || (word("migrate-receive") && !word("-r") && !word("--colo")) {
        return Ok(());
    }
    let failure = Exit::Usage.fail(format_args!("not understood: {}", ignored.join(" ")));
    Err(failure.hint("`xl migrate -s '' GUEST 'livesave receive FILE'`; Remus and COLO make no snapshots"))
}

/// The file is there when this returns, and not before.
fn take(output: &Path, from: impl Read, mut to: impl Write) -> Outcome<Received> {
    let landing = Landing::open(output)?;
    let greeted = to.write_all(BANNER).and_then(|()| to.flush());
    greeted.map_err(|error| Exit::SenderGone.fail(format_args!("the sender does not listen: {error}")))?;
    let mut tap = Tap::new(from, landing, HEAD_BYTES_MAX);
    let received = stream::receive(&mut tap)?;
    tap.into_file()?.commit()?;
    Ok(received)
}

/// On standard error: standard output belongs to xl.
fn tell(received: &Received, output: &Path, as_json: bool) {
    let (name, file) = (received.name.escape_debug().to_string(), output.display().to_string());
    let text = if as_json {
        json!({ "received": name, "file": file, "pages": received.pages, "bytes": received.bytes }).to_string()
    } else {
        format!(
            "livesave: '{name}' is in {file}: {} pages, {}. xl now says that the migration failed and resumes the \
             guest: so it has to end",
            received.pages,
            show::size(received.bytes)
        )
    };
    // Standard error may be closed; the file is there.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("livesave-receive-{name}-{}", std::process::id()))
    }

    #[test]
    fn xl_is_greeted_and_never_told_that_it_may_let_go() {
        let path = place("greets");
        let mut said = Vec::new();
        assert_eq!(take(&path, &b"garbage"[..], &mut said).unwrap_err().exit, Exit::SenderGone);
        assert_eq!(said, b"xl migration receiver ready, send binary domain data.\n");
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_exists_is_told_before_anything_is_said() {
        let path = place("exists");
        std::fs::write(&path, "mine").unwrap();
        let mut said = Vec::new();
        assert_eq!(take(&path, io::empty(), &mut said).unwrap_err().exit, Exit::CannotWrite);
        assert_eq!((said, std::fs::read(&path).unwrap()), (Vec::new(), b"mine".to_vec()));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn only_a_plain_migration_is_understood() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(understood(&words("")).is_ok() && understood(&words("host xl -v migrate-receive -e -d")).is_ok());
        for line in ["host", "host xl migrate-receive -r", "host xl migrate-receive --colo"] {
            assert_eq!(understood(&words(line)).unwrap_err().exit, Exit::Usage, "{line}");
        }
    }
}
