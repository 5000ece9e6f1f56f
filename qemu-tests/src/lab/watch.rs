//! A guest's counter page, watched from dom0 while other things go on (`probe rounds`).

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::guest::Guest;
use super::handle::Lab;
use crate::counter::Sample;

/// Reading a log of some megabytes.
const LOG_WAIT: Duration = Duration::from_secs(120);

/// A watch that runs.
pub struct Watch {
    guest: Guest,
    gfn: String,
    log: String,
}

impl Guest {
    /// The frame in which it counts, hexadecimal.
    pub fn counter_gfn(&self, lab: &Lab) -> Result<String> {
        let text = lab.sh(&format!("xenstore-read /local/domain/{}/data/counter", self.domid(lab)?))?;
        let gfn = text.split(' ').find_map(|word| word.strip_prefix("gfn="));
        gfn.map(str::to_owned).with_context(|| format!("no frame in `{text}`"))
    }

    /// The counter as it stands in that frame.
    pub fn sample(&self, lab: &Lab, gfn: &str) -> Result<Sample> {
        let line = lab.sh(&format!("probe counter {} {gfn}", self.domid(lab)?))?;
        Sample::parse(&line).with_context(|| format!("no sample: {line}"))
    }

    /// Begins to watch.
    pub fn watch(&self, lab: &Lab) -> Result<Watch> {
        let (gfn, log) = (self.counter_gfn(lab)?, format!("/run/watch-{}", self.name));
        let watch = format!("probe rounds {} {gfn} >{log} 2>{log}.err & echo $! >{log}.pid", self.domid(lab)?);
        lab.sh(&format!("{{ {watch}; }} </dev/null"))?;
        let ready = format!("test -s {log}");
        lab.wait_until("the watch has begun", LOG_WAIT, |lab| Ok(lab.run(&ready)?.status == 0))?;
        Ok(Watch { guest: self.clone(), gfn, log })
    }
}

impl Watch {
    /// The frame that it watches.
    #[must_use]
    pub fn gfn(&self) -> &str {
        &self.gfn
    }

    /// Ends it; what it saw.
    pub fn end(self, lab: &Lab) -> Result<Vec<Sample>> {
        let (log, now) = (&self.log, self.guest.counter_gfn(lab)?);
        let killed = lab.run(&format!("kill $(cat {log}.pid)"))?;
        ensure!(killed.status == 0, "the watch has ended by itself: {}", lab.sh(&format!("cat {log}.err"))?);
        ensure!(now == self.gfn, "the guest's kernel moved the counter from {} to {now}", self.gfn);
        let text = String::from_utf8(lab.get_bytes(log)?).context("the watch's log")?;
        // The last line may have been cut by the kill.
        Ok(text.lines().filter_map(Sample::parse).collect())
    }
}
