//! A guest under watch while bad things are done, and a store that must not change: after each of them one look, in one
//! command, since each process costs half a second under emulation.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::after::{self, TAKE_WAIT};
use crate::lab::{Guest, Lab, Output};
use crate::say;
use crate::verdict::{check, is_failure};

/// How long keeper and stub may take to leave the guest alone after a command's end, in seconds.
const PEACE_S: u32 = 60;

/// The watch.
pub struct Ward<'a> {
    /// The host.
    pub lab: &'a Lab,
    /// The guest.
    pub guest: &'a Guest,
    /// What the store held at the start, once there is one.
    listing: Option<String>,
    wrong: Vec<String>,
}

impl<'a> Ward<'a> {
    /// Watches the guest; no store yet.
    pub fn new(lab: &'a Lab, guest: &'a Guest) -> Self {
        Self { lab, guest, listing: None, wrong: Vec::new() }
    }

    /// From here on the store must stay as it is.
    pub fn guard_store(&mut self) -> Result<()> {
        self.listing = Some(after::listing(self.lab)?);
        Ok(())
    }

    /// Shell that sets `$G` to the guest's name and `$D` to its domid.
    pub fn variables(&self) -> Result<String> {
        Ok(format!("G={}; D={}; ", self.guest.name, self.guest.domid(self.lab)?))
    }

    /// The guest runs, counts without a wrong page, is not tracked, no keeper has it on record; the store lists what it
    /// listed. A failure is noted, and told by [`Ward::judge`]: one wrong answer says nothing about the next.
    pub fn unharmed(&mut self, after: &str) -> Result<()> {
        let seen = self.look();
        self.note(after, seen)
    }

    fn look(&self) -> Result<()> {
        // A guest that was migrated or rebooted has another domid than before.
        let mut script = format!("probe peace $(xl domid {}) {PEACE_S} >&2", self.guest.name);
        if self.listing.is_some() {
            let _ = write!(script, " && livesave ls --json --store /dev/vda");
        }
        let output = self.lab.run(&script)?;
        check(output.status == 0, || format!("the guest or the store is not as before: {}", output.errors()))?;
        let same = self.listing.as_ref().is_none_or(|listing| *listing == output.text());
        check(same, || format!("the store held {:?} and holds {}", self.listing, output.text()))
    }

    /// The store lists what it listed.
    pub fn same_store(&self) -> Result<()> {
        self.listing.as_ref().map_or(Ok(()), |listing| after::same_store(self.lab, listing))
    }

    /// Notes a failure and goes on; any other error ends the scenario.
    pub fn note(&mut self, what: &str, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if is_failure(&error) => {
                say!("   FAILURE after `{what}`: {error:#}");
                say!("   the keepers: {}", self.lab.run("tail -n 12 /run/livesave/keeper.log 2>&1")?.text());
                say!("   the stub: {}", self.lab.stub_console());
                self.wrong.push(format!("{what}: {error:#}"));
                Ok(())
            }
            other => other.with_context(|| what.to_owned()),
        }
    }

    /// `what` ended with this exit status, said this and a hint; then the guest is looked at.
    pub fn told(&mut self, what: &str, output: &Output, exit: i32, says: &str) -> Result<()> {
        say!("   {what:<44} {:>2}  {}", output.status, last_lines(&output.errors()));
        let told = told(output, exit, says);
        self.note(what, told)?;
        self.unharmed(what)
    }

    /// A command that must end so.
    pub fn refused(&mut self, what: &str, command: &str, exit: i32, says: &str) -> Result<()> {
        let output = self.lab.run_for(command, TAKE_WAIT)?;
        self.told(what, &output, exit, says)
    }

    /// The store's snapshots are whole; this is dear, so it is done once in a while only.
    pub fn verified(&mut self) -> Result<()> {
        let output = self.lab.run_for("livesave verify --store /dev/vda", TAKE_WAIT)?;
        let whole = check(output.status == 0, || format!("verify says {}: {}", output.text(), output.errors()));
        self.note("verify", whole)
    }

    /// Takes over what another watch found wrong.
    pub fn adopt(&mut self, other: Ward<'_>) {
        self.wrong.extend(other.wrong);
    }

    /// All failures so far.
    pub fn judge(&self) -> Result<()> {
        check(self.wrong.is_empty(), || self.wrong.join("\n"))
    }
}

/// A message of progress may stand before the error.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.iter().position(|line| line.starts_with("livesave: ")).unwrap_or(0);
    lines.get(from..).unwrap_or_default().join(" | ")
}

/// The command failed as it had to: exit status, cause, way out.
pub fn told(output: &Output, exit: i32, says: &str) -> Result<()> {
    let told = output.errors();
    // A command line that clap refuses has its own words for the way out.
    let hinted = exit == 0 || told.contains("\nhint: ") || told.starts_with("hint: ") || told.contains("--help");
    check(output.status == exit && told.contains(says) && hinted, || {
        format!("want {exit}, `{says}` and a hint, got {}: {told} {}", output.status, output.text())
    })
}
