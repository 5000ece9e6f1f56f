//! Reading nodes through the kernel's door to xenstored, without a process for each.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};

/// XS_READ and XS_ERROR (public/io/xs_wire.h).
const READ: u32 = 2;
const ERROR: u32 = 16;
/// Longest answer that xenstored may send (XENSTORE_PAYLOAD_MAX).
const PAYLOAD_MAX: usize = 4096;

/// A conversation.
pub struct Bus(File);

impl Bus {
    /// Begins it.
    pub fn open() -> Result<Self> {
        let door = "/dev/xen/xenbus";
        OpenOptions::new().read(true).write(true).open(door).context(door).map(Self)
    }

    /// The value of a node, if there is one.
    pub fn read(&mut self, path: &str) -> Result<Option<String>> {
        let length = u32::try_from(path.len() + 1)?;
        let mut message: Vec<u8> = [READ, 0, 0, length].iter().flat_map(|word| word.to_le_bytes()).collect();
        message.extend_from_slice(path.as_bytes());
        message.push(0);
        self.0.write_all(&message).context("xenstore")?;
        let mut header = [0; 16];
        self.0.read_exact(&mut header).context("xenstore")?;
        let [kind, _, _, length] = [0, 4, 8, 12].map(|at| {
            let word = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            u32::from_le_bytes(word)
        });
        ensure!(length as usize <= PAYLOAD_MAX, "xenstored answers with {length} bytes");
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).context("xenstore")?;
        Ok((kind != ERROR).then(|| String::from_utf8_lossy(&payload).into_owned()))
    }
}
