//! Xenstore over the xenbus device, one message at a time (public/io/xs_wire.h). Paths are relative to our own home.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

/// XS_READ, XS_WRITE and XS_ERROR.
const XS_READ: u32 = 2;
const XS_WRITE: u32 = 11;
const XS_ERROR: u32 = 16;
/// Longest answer that xenstored may send (XENSTORE_PAYLOAD_MAX).
const PAYLOAD_MAX: usize = 4096;

/// A connection to xenstored.
pub struct Bus(File);

impl Bus {
    /// Opens the device.
    pub fn open() -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open("/dev/xen/xenbus").map(Self)
    }

    /// The value of a node; an error if there is none.
    pub fn read(&mut self, path: &str) -> io::Result<String> {
        let payload = self.ask(XS_READ, &[path.as_bytes(), &[0]].concat())?;
        Ok(String::from_utf8_lossy(&payload).into_owned())
    }

    /// Writes a node.
    pub fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
        self.ask(XS_WRITE, &[path.as_bytes(), &[0], value.as_bytes()].concat()).map(drop)
    }

    fn ask(&mut self, kind: u32, body: &[u8]) -> io::Result<Vec<u8>> {
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut message: Vec<u8> = [kind, 0, 0, length].iter().flat_map(|word| word.to_le_bytes()).collect();
        message.extend_from_slice(body);
        self.0.write_all(&message)?;
        let mut header = [0; 16];
        self.0.read_exact(&mut header)?;
        let word =
            |at: usize| header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
        let mut payload = vec![0; (word(12) as usize).min(PAYLOAD_MAX)];
        self.0.read_exact(&mut payload)?;
        if word(0) == XS_ERROR {
            return Err(io::Error::other(String::from_utf8_lossy(&payload).into_owned()));
        }
        Ok(payload)
    }
}
