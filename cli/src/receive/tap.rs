//! The wire from the sender to the file: every byte is taken once, goes to the file, and is looked at on the way.
//!
//! A disk that is full does not end it: the sender is heard out, and nothing is kept. A pipe that breaks kills xl's
//! save helper before it has switched the guest's dirty tracking off (libxl__exec gives SIGPIPE back its default).
//!
//! Memory is one buffer; nothing that the sender says makes it larger. No wait is longer than [`waits::SENDER`], and no
//! stream longer than its limit.

use crate::exit::{Exit, Failure, Outcome};
use crate::waits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};

/// Bytes that are read and written at once.
const BUFFER: usize = 256 << 10;

/// A pipe whose other end may fall silent.
#[derive(Debug)]
pub struct Patient(pub File);

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let limit = Timespec { tv_sec: waits::SENDER.as_secs().cast_signed(), tv_nsec: 0 };
        loop {
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, Some(&limit)) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => return self.0.read(into),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The wire.
#[derive(Debug)]
pub struct Tap<R, W> {
    from: R,
    to: W,
    buffer: Vec<u8>,
    taken: u64,
    limit: u64,
    /// Why nothing more is written.
    unwritten: Option<Failure>,
}

impl<R: Read, W: Write> Tap<R, W> {
    /// A wire that lets `limit` bytes pass.
    pub fn new(from: R, to: W, limit: u64) -> Self {
        Self { from, to, buffer: vec![0; BUFFER], taken: 0, limit, unwritten: None }
    }

    /// Another limit, now that more is known.
    pub fn limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Bytes that have passed.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The other end of the wire, if it has everything.
    pub fn into_file(self) -> Outcome<W> {
        self.unwritten.map_or(Ok(self.to), Err)
    }

    /// The next `N` bytes, which belong to `what`.
    pub fn array<const N: usize>(&mut self, what: &str) -> Outcome<[u8; N]> {
        let mut bytes = [0; N];
        self.exactly(what, N as u64, |at, piece| bytes[at..at + piece.len()].copy_from_slice(piece))?;
        Ok(bytes)
    }

    /// The next `length` bytes, which the caller has found to be few.
    pub fn bytes(&mut self, length: usize, what: &str) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        self.exactly(what, length as u64, |_, piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    /// Lets the next `length` bytes pass.
    pub fn pass(&mut self, length: u64, what: &str) -> Outcome {
        self.exactly(what, length, |_, _| {})
    }

    fn exactly(&mut self, what: &str, length: u64, mut look: impl FnMut(usize, &[u8])) -> Outcome {
        if length > self.limit.saturating_sub(self.taken) {
            let said = format!("more than {} bytes for a guest of its size, in {what}", self.limit);
            return Err(Exit::BadStream.fail(said));
        }
        let mut done = 0;
        while done < length {
            let most = usize::try_from(length - done).unwrap_or(BUFFER).min(BUFFER);
            let got = match self.from.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(self.broke_off(what, "broke off")),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::TimedOut => return Err(self.broke_off(what, "fell silent")),
                Err(error) => return Err(self.broke_off(what, &error.to_string())),
            };
            let piece = &self.buffer[..got];
            if self.unwritten.is_none() {
                let failed = |error: io::Error| Exit::CannotWrite.fail(format_args!("the image: {error}"));
                self.unwritten = self.to.write_all(piece).map_err(failed).err();
            }
            look(usize::try_from(done).unwrap_or(usize::MAX), piece);
            (done, self.taken) = (done + got as u64, self.taken + got as u64);
        }
        Ok(())
    }

    fn broke_off(&self, what: &str, how: &str) -> Failure {
        Exit::SenderGone.fail(format_args!("the sender {how} in {what}, after {} bytes", self.taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_what_came_and_no_more() {
        let mut tap = Tap::new(&b"abcdefgh"[..], Vec::new(), 7);
        assert_eq!(tap.array::<2>("x").unwrap(), *b"ab");
        assert_eq!(tap.bytes(3, "x").unwrap(), b"cde");
        tap.pass(1, "x").unwrap();
        assert_eq!(tap.pass(2, "the tail").unwrap_err().exit, Exit::BadStream, "the limit");
        tap.limit(9);
        assert_eq!(tap.pass(3, "the tail").unwrap_err().exit, Exit::SenderGone);
        assert_eq!(tap.into_file().unwrap(), b"abcdefgh");
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let mut room = [0; 4];
        let mut tap = Tap::new(&b"abcdefgh"[..], &mut room[..], 100);
        assert!(tap.pass(8, "x").is_ok(), "the sender is heard out");
        assert_eq!((tap.taken(), tap.into_file().unwrap_err().exit), (8, Exit::CannotWrite));
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let (from, to) = rustix::pipe::pipe().unwrap();
        File::from(to).write_all(b"abc").unwrap();
        let mut text = String::new();
        Patient(File::from(from)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }
}
