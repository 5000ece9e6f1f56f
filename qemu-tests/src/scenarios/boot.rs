//! The lab itself: FLASK enforces our policy, xenstored and xenconsoled answer, the disks are there.

use anyhow::Result;

use crate::lab::Lab;
use crate::verdict::check;

/// Looks at what every other scenario relies on.
pub fn run(lab: &Lab) -> Result<()> {
    // Its exit status is the mode, 1 for enforcing.
    let mode = lab.run("xl getenforce")?.text();
    check(mode == "Enforcing", || format!("xl getenforce says {mode}"))?;
    let label = lab.sh("xl list -Z | awk '$1 == \"Domain-0\" { print $NF }'")?;
    check(label == "system_u:system_r:dom0_t", || format!("dom0 is labelled {label}"))?;
    let name = lab.sh("xenstore-write /local/lab 1 && xenstore-read /local/lab && xenstore-rm /local/lab")?;
    check(name == "1", || format!("xenstore answered {name}"))?;
    let sectors = lab.sh("cat /sys/class/block/vda/size")?;
    check(sectors == "8388608", || format!("the store's disk has {sectors} sectors"))?;
    lab.sh("test -w /scratch && pidof xenconsoled && test -c /dev/xen/privcmd")?;
    Ok(())
}
