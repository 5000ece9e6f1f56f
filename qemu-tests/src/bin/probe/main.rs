//! `probe`: looks at a guest from dom0, independently of everything under test. Output is one record a line, for
//! scenarios to compare; any failure ends it with a message and exit status 1.

#![forbid(unsafe_code)]

mod bus;
mod follow;
mod frames;
mod peace;
mod pv;
mod rounds;
mod selftest;
mod standing;
mod state;
mod stock;
mod strike;
mod talk;
mod watch;

use std::io::{BufWriter, Write};

use anyhow::{Context, Result, bail};
use xen_hypercall::transport::privcmd::Privcmd;
use xen_hypercall::{DomId, Domctl};

const USAGE: &str = "usage: probe COMMAND DOMID
  frames     `gfn type digest` of every populated frame (PVH, HVM)
  pvframes   the same of a suspended PV guest, `pfn type digest`, page tables with pfns
  pvvcpus    `type vcpu length digest` of what an image has for each of its vCPUs
  pfn MFN    the pfn of a PV guest's machine frame, both decimal
  page GFN   the contents of one frame
  vcpu       `type instance length bytes` of every record of the HVM context; the TSC reads 0
  registers  a PV guest's registers that carry a hypercall's arguments
  ports      `port status remote-domain remote-port` of every event channel in use
  rounds GFN   `from to ticks steps`: Xen's time in ns around a look at the guest's counter, until killed
  counter GFN  one such look
  follow     `state=S round=R pages=P` of a stub's session at each change, until killed; the domain is the stub
  info       what getdomaininfo says
  peace SECONDS  waits until the guest runs and counts, untracked and unknown to any keeper
  logdirty   status|on|off|clean|dirty: whether log-dirty is off (status leaves it as it was); the pages that were dirty
  cputime    processor time that the guest has used, nanoseconds
  stock FILE  has Xen's own save helper write the image of a guest that is suspended already
  image FILE  `page gfn type digest`, `record type length bytes` of such an image; the domid does not matter
  talk       a number to the guest's network card and back, again and again, until killed; the domid does not matter
  suspendwatch [MICROSECONDS]: each change of the shutdown flag, polled at this interval (500), until killed
  standing   [moves]: each change between running and standing still, with Xen's time, until killed; `moves` looks for
             it in other domains too
  strike STUB destroy|kill PID...: `stood_us=N`: how long the guest stood after their end
  resume     fast resume, as `xc_domain_resume`
  pause, unpause
  selftest   checks the dom0 side of xen-hypercall; DOMID is any guest";

/// What every command works with.
pub struct Probe {
    /// The hypervisor.
    pub xen: Domctl<Privcmd>,
    /// The guest.
    pub domain: DomId,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [command, domain, rest @ ..] = args.as_slice() else { bail!(USAGE) };
    let domain = DomId::new(domain.parse().with_context(|| format!("{domain} is no domid"))?);
    let probe = Probe { xen: Domctl::probe(Privcmd::open()?)?, domain };
    let mut out = BufWriter::new(std::io::stdout().lock());
    match (*command, rest) {
        ("frames", []) => frames::run(&probe, &mut out)?,
        ("pvframes", []) => pv::frames(&probe, &mut out)?,
        ("pvvcpus", []) => pv::vcpus(&probe, &mut out)?,
        ("pfn", [mfn]) => pv::pfn(&probe, mfn, &mut out)?,
        ("vcpu", []) => state::context(&probe, &mut out)?,
        ("page", [gfn]) => frames::one(&probe, gfn, &mut out)?,
        ("registers", []) => state::registers(&probe, &mut out)?,
        ("ports", []) => state::ports(&probe, &mut out)?,
        ("rounds", [gfn]) => rounds::run(&probe, gfn, &mut out)?,
        ("counter", [gfn]) => rounds::once(&probe, gfn, &mut out)?,
        ("peace", [seconds]) => peace::run(&probe, seconds.parse().context("the seconds")?, &mut out)?,
        ("follow", []) => follow::run(&probe, &mut out)?,
        ("info", []) => state::info(&probe, &mut out)?,
        ("logdirty", [what]) => state::log_dirty(&probe, what, &mut out)?,
        ("cputime", []) => state::cpu_time(&probe, &mut out)?,
        ("suspendwatch", []) => watch::run(&probe, watch::INTERVAL_US, &mut out)?,
        ("suspendwatch", [interval]) => watch::run(&probe, interval.parse().context("the interval")?, &mut out)?,
        ("standing", []) => standing::run(&probe, false, &mut out)?,
        ("standing", ["moves"]) => standing::run(&probe, true, &mut out)?,
        ("strike", [stub, blow @ ..]) => strike::run(&probe, stub, blow, &mut out)?,
        ("resume", []) => state::resume(&probe, &mut out)?,
        ("pause", []) => probe.xen.pause(domain)?,
        ("unpause", []) => probe.xen.unpause(domain)?,
        ("stock", [file]) => stock::write(&probe, file)?,
        ("image", [file]) => stock::list(file, &mut out)?,
        ("talk", []) => talk::run(&mut out)?,
        ("selftest", []) => selftest::run(&probe, &mut out)?,
        _ => bail!(USAGE),
    }
    out.flush().context("writing")
}
