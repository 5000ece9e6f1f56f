//! How a guest is taken when nobody says it: a file of dom0 for each guest, by its uuid.
//!
//! It lies in dom0's own file system and not in xenstore, because what decides here must be out of the guest's reach,
//! and because it outlives the guest's reboot, the host's, and a restore of the guest. Invariants: what is not
//! understood to the last key is refused, never followed in part; a take reads it and never writes it.

use crate::args;
use crate::exit::{Exit, Failure, Outcome};
use crate::host::files;
use crate::seen;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The form that this program writes and reads.
const VERSION: u32 = 1;
/// Most bytes of the file.
const FILE_MAX: u64 = 4096;

/// What a guest's policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    version: u32,
    /// `--incremental`.
    pub incremental: bool,
    /// `--pv-tracking`.
    pub pv_tracking: bool,
    /// `--guard`.
    pub guard: bool,
}

impl Policy {
    /// Incremental takes.
    pub const fn incremental(pv_tracking: bool, guard: bool) -> Self {
        Self { version: VERSION, incremental: true, pv_tracking, guard }
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let policy: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if policy.version != VERSION {
            return Err("written by another version of livesave".to_owned());
        }
        if !policy.incremental && (policy.pv_tracking || policy.guard) {
            return Err("it asks for what only an incremental take has".to_owned());
        }
        Ok(policy)
    }

    /// As the options of a take that it stands for.
    pub fn options(self) -> String {
        let known = [("--incremental", self.incremental), ("--pv-tracking", self.pv_tracking), ("--guard", self.guard)];
        let given: Vec<&str> = known.into_iter().filter(|(_, given)| *given).map(|(word, _)| word).collect();
        if given.is_empty() { "--full".to_owned() } else { given.join(" ") }
    }

    /// The take as the policy wants it.
    fn applied(self, take: &args::Take) -> args::Take {
        let Self { incremental, pv_tracking, guard, .. } = self;
        args::Take { incremental, pv_tracking, guard, ..take.clone() }
    }
}

/// Did whoever asked for the take say of what kind it is to be?
const fn is_explicit(take: &args::Take) -> bool {
    take.full || take.diff || take.incremental
}

/// What was chosen, and the policy that was followed, if one was. It is not looked at where the kind was said.
pub fn follow(take: &args::Take, handle: &str) -> Outcome<(args::Take, Option<Policy>)> {
    if is_explicit(take) {
        return Ok((take.clone(), None));
    }
    let policy = read(handle)?;
    Ok((policy.map_or_else(|| take.clone(), |policy| policy.applied(take)), policy))
}

fn dir() -> PathBuf {
    seen::state_dir().join("policy")
}

fn file(handle: &str) -> PathBuf {
    dir().join(handle).with_extension("json")
}

fn bad(path: &Path, why: &str) -> Failure {
    let failure = Exit::BadPolicy.fail(format_args!("the policy {}: {why}", path.display()));
    failure
        .hint("`livesave policy GUEST --incremental` or `--none` replaces it; or say --full, --diff or --incremental")
}

/// The policy of the guest with this uuid; none if nobody gave it one.
pub fn read(handle: &str) -> Outcome<Option<Policy>> {
    let path = file(handle);
    let mut text = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut text));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(bad(&path, &error.to_string())),
        Ok(_) => Policy::parse(&text).map(Some).map_err(|why| bad(&path, &why)),
    }
}

/// Gives the guest a policy, durably, in the place of the one that it had.
pub fn write(handle: &str, policy: Policy) -> Outcome {
    let path = file(handle);
    let written = DirBuilder::new().recursive(true).mode(0o700).create(dir());
    let text = serde_json::to_vec(&policy).map_err(io::Error::from);
    let written = written.and(text).and_then(|text| files::replace(&path, &text));
    written.map_err(|error| cannot(&path, &error))
}

/// Takes the guest's policy away. False if it had none.
pub fn remove(handle: &str) -> Outcome<bool> {
    let path = file(handle);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(cannot(&path, &error)),
    }
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Exit::CannotWrite
        .fail(format_args!("{}: {error}", path.display()))
        .hint("livesave needs /var/lib/livesave, as root")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::tests::take;

    #[test]
    fn golden_text_and_what_is_not_understood_is_refused() {
        let policy = Policy::incremental(true, false);
        let golden = r#"{"version":1,"incremental":true,"pv_tracking":true,"guard":false}"#;
        assert_eq!(serde_json::to_string(&policy).unwrap(), golden);
        assert_eq!(Policy::parse(golden.as_bytes()), Ok(policy));
        for cut in 0..golden.len() {
            assert!(Policy::parse(&golden.as_bytes()[..cut]).is_err(), "{cut}");
        }
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1,", ""),
            ("true", "1"),
            ("true", "\"yes\""),
            ("\"guard\"", "\"gard\""),
            ("}", ",\"colour\":\"red\"}"),
            ("}", ",\"guard\":true}"),
            ("\"incremental\":true", "\"incremental\":false"),
            ("}", "}}"),
        ] {
            assert!(Policy::parse(golden.replacen(from, to, 1).as_bytes()).is_err(), "{from} {to}");
        }
    }

    #[test]
    fn what_was_said_wins_and_a_policy_decides_the_rest() {
        let decided = |policy: Policy, line: &str| {
            let asked = take(line);
            let done = if is_explicit(&asked) { asked } else { policy.applied(&asked) };
            (done.incremental, done.pv_tracking, done.guard, done.diff, done.mode)
        };
        let mode = args::Mode::Staged;
        let policy = Policy::incremental(true, true);
        assert_eq!(decided(policy, "livesave take web01"), (true, true, true, false, mode));
        let live = decided(policy, "livesave take web01 --mode live --name x");
        assert_eq!(live, (true, true, true, false, args::Mode::Live), "the mode is no matter of the policy");
        assert_eq!(decided(policy, "livesave take web01 --full"), (false, false, false, false, mode));
        assert_eq!(decided(policy, "livesave take web01 --diff"), (false, false, false, true, mode));
        assert_eq!(decided(policy, "livesave take web01 --incremental"), (true, false, false, false, mode));
        assert_eq!(policy.options(), "--incremental --pv-tracking --guard");
        let full = Policy { incremental: false, pv_tracking: false, guard: false, version: VERSION };
        assert_eq!(
            (full.options().as_str(), full.applied(&take("livesave take web01")).incremental),
            ("--full", false)
        );
    }
}
