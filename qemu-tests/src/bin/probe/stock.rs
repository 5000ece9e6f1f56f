//! Xen's own image of a guest that stands suspended already: libxl's helper, which is what `xl save` runs, is given
//! everything that libxl gives it, and is told that the suspend is done when it asks for one. Not a byte of the image
//! is ours. What libxl does around it (its own suspend, its own resume, its headers) does not happen.
//!
//! The helper speaks first, on its standard output: a length of 16 bits, the number of a message, arguments; it waits
//! for an int where it wants an answer (Xen: tools/libs/light/libxl_save_helper.c, libxl_save_msgs_gen.pl). It switches
//! dirty tracking off at its end, as after any save, so whoever tracks must have finished.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::image::Image;
use rustix::io::{FdFlags, fcntl_setfd};
use xen_hypercall::types::ShutdownReason;

use crate::Probe;

const HELPER: &str = "/usr/lib/xen-4.17/bin/libxl-save-helper";
/// What the process is called: a take gives way to a helper that saves its guest, and knows it by its name. This one
/// begins when the take needs the guest's memory no more, and does not resume the guest.
const NAME: &str = "stock-writer";

/// Numbers of the messages; a callback is offered by the bit of its number.
const LOG: u16 = 1;
const PROGRESS: u16 = 2;
const SUSPEND: u16 = 3;
const SWITCH_QEMU_LOGDIRTY: u16 = 7;
const COMPLETE: u16 = 10;

/// Writes the image.
pub fn write(probe: &Probe, path: &str) -> Result<()> {
    let info = probe.xen.getdomaininfo(probe.domain, None)?;
    ensure!(info.shutdown == Some(ShutdownReason::SUSPEND), "the guest is not suspended: {:?}", info.shutdown);
    let file = File::create(path).with_context(|| path.to_owned())?;
    fcntl_setfd(&file, FdFlags::empty()).context("a file for the helper")?;
    let callbacks = 1_u32 << SUSPEND | 1 << SWITCH_QEMU_LOGDIRTY;
    let mut helper = Command::new(HELPER);
    // Not live, a plain stream, nothing to be received.
    helper.arg0(NAME).arg("--save-domain").arg(file.as_raw_fd().to_string()).arg("-1").arg(probe.domain.to_string());
    helper.args(["0", &callbacks.to_string(), "0"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = helper.spawn().context(HELPER)?;
    let (answers, messages) = (child.stdin.take().context("stdin")?, child.stdout.take().context("stdout")?);
    let told = converse(BufReader::new(messages), answers);
    let status = child.wait().context(HELPER)?;
    told?;
    ensure!(status.success(), "the helper ended with {status}");
    Ok(())
}

/// Answers until it says that it has done.
fn converse(mut messages: impl Read, mut answers: ChildStdin) -> Result<()> {
    let mut log = String::new();
    loop {
        let mut length = [0; 2];
        messages.read_exact(&mut length).with_context(|| format!("the helper fell silent: {log}"))?;
        let mut message = vec![0; usize::from(u16::from_le_bytes(length))];
        messages.read_exact(&mut message).context("half a message")?;
        let (kind, arguments) = message.split_first_chunk::<2>().context("an empty message")?;
        let answer: i32 = match u16::from_le_bytes(*kind) {
            LOG => {
                log += &String::from_utf8_lossy(arguments).replace('\0', " ");
                continue;
            }
            PROGRESS => continue,
            // It stands, and no device model has dirty pages of its own.
            SUSPEND => 1,
            SWITCH_QEMU_LOGDIRTY | COMPLETE => 0,
            other => bail!("the helper asks for {other}"),
        };
        answers.write_all(&answer.to_le_bytes()).context("an answer")?;
        if *kind == COMPLETE.to_le_bytes() {
            ensure!(arguments.starts_with(&[0; 4]), "the helper failed: {log}");
            // It logs that it closes its handles; without a reader that would kill it.
            std::io::copy(&mut messages, &mut std::io::sink()).context("the helper's last words")?;
            return Ok(());
        }
    }
}

/// Prints what the image holds.
pub fn list(path: &str, out: &mut impl Write) -> Result<()> {
    let image = Image::read_stock(BufReader::new(File::open(path).with_context(|| path.to_owned())?))?;
    for (gfn, digest) in &image.frames {
        writeln!(out, "page {gfn:x} {:x} {digest:x}", image.kinds.get(gfn).unwrap_or(&0))?;
    }
    for (kind, body) in image.records.iter().zip(&image.bodies) {
        let bytes: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "record {kind:x} {} {bytes}", body.len())?;
    }
    Ok(())
}
