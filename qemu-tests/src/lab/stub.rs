//! The stub domain in the lab: its store, its start, what it says of itself.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::handle::Lab;
use crate::verdict::{Verdict, stop};

/// Its name in xl.
pub const STUB: &str = "livesave";
/// dom0's disk that holds the store.
pub const STORE_DEVICE: &str = "/dev/vda";
/// Its configuration as installed; the device in it is an example.
const CONFIG: &str = "/etc/xen/livesave.cfg";
const EXAMPLE_DEVICE: &str = "/dev/vg0/livesave";
/// From `xl create` until it takes requests.
const STUB_WAIT: Duration = Duration::from_secs(120);

impl Lab {
    /// Writes a new store; what was on the disk is lost.
    pub fn init_store(&self) -> Result<()> {
        // An older store has roots at both ends of the disk, and is not overwritten by mistake.
        self.sh(&format!("livesave store init {STORE_DEVICE} --destroy-contents-of {STORE_DEVICE}"))?;
        Ok(())
    }

    /// Starts the stub with `extra` on its command line and waits until it is idle.
    pub fn start_stub(&self, extra: &str) -> Result<()> {
        self.create_stub(STORE_DEVICE, "w", extra)?;
        self.wait_until("the stub is idle", STUB_WAIT, |lab| lab.stub_is_idle())
            .map_err(|error| error.context(self.stub_console()))
    }

    /// Starts the stub on any device of dom0, `w` or `r`, ready or not.
    pub fn create_stub(&self, device: &str, access: &str, extra: &str) -> Result<()> {
        self.write_stub_config(device, access, extra)?;
        self.sh("rm -f /var/log/xen/console/guest-livesave.log; xl create -q /run/livesave.cfg")?;
        Ok(())
    }

    /// Leaves in `/run/livesave.cfg` what such a stub is created from.
    pub fn write_stub_config(&self, device: &str, access: &str, extra: &str) -> Result<()> {
        let installed = String::from_utf8(self.get_bytes(CONFIG)?).context("the stub's configuration")?;
        let config = installed
            .replace(&format!("{EXAMPLE_DEVICE},xvda,w"), &format!("{device},xvda,{access}"))
            .replace("extra    = \"\"", &format!("extra    = \"loglevel=4 {extra}\""));
        self.put_bytes(config.as_bytes(), "/run/livesave.cfg")
    }

    /// Waits until the stub says that it cannot serve, and gives its reason.
    pub fn stub_reason(&self) -> Result<String> {
        let node = format!("/local/domain/$(xl domid {STUB})/data/livesave/stub");
        let mut text = String::new();
        self.wait_until("the stub says why it cannot serve", STUB_WAIT, |lab| {
            text = lab.run(&format!("xenstore-read {node} 2>/dev/null"))?.text();
            Ok(text.contains("state=failed"))
        })?;
        let reason = text.split("\\n").find_map(|line| line.strip_prefix("reason="));
        Ok(reason.unwrap_or_default().to_owned())
    }

    /// Ends the stub as an operator would, or destroys it after a while.
    pub fn stop_stub(&self) -> Result<()> {
        self.run(&format!("xl shutdown -w {STUB}"))?;
        self.run(&format!("xl destroy {STUB} 2>/dev/null"))?;
        Ok(())
    }

    /// Whether it takes requests. A stub that said why it cannot, or that is gone, is a FAILURE.
    pub fn stub_is_idle(&self) -> Result<bool> {
        let domid = self.run(&format!("xl domid {STUB}"))?;
        if domid.status != 0 {
            return Err(stop(Verdict::Failure, "the stub is gone"));
        }
        let node = format!("/local/domain/{}/data/livesave/stub", domid.text());
        let text = self.run(&format!("xenstore-read {node} 2>/dev/null"))?.text();
        // xenstore-read shows a newline as two characters.
        let mut lines = text.split("\\n").flat_map(str::lines);
        match lines.find_map(|line| line.strip_prefix("state=")) {
            Some("idle") => Ok(true),
            Some("failed") => Err(stop(Verdict::Failure, format!("the stub failed: {text}"))),
            None | Some("starting" | "busy") => Ok(false),
            Some(other) => bail!("the stub's state is `{other}`"),
        }
    }

    /// What its console showed.
    #[must_use]
    pub fn stub_console(&self) -> String {
        let text = self.run(&format!("tail -n 40 /var/log/xen/console/guest-{STUB}.log"));
        text.map_or_else(|error| error.to_string(), |output| output.text())
    }
}
