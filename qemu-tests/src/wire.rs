//! The frames between the host and the agent in dom0, one request at a time on each port.
//!
//! A frame is `magic, kind, length` (three little-endian u32) and a payload of at most [`PAYLOAD_MAX`] bytes. A port
//! outlives its clients, so bytes of an earlier client may still be in flight when the next one connects: a
//! conversation starts with `HELLO nonce`, and [`hunt`] skips whatever comes before a frame's magic.

use std::io::{self, ErrorKind, Read, Write};

/// First word of every frame: "LSv1".
pub const MAGIC: u32 = u32::from_le_bytes(*b"LSv1");
/// Longest payload. Small, because a virtio port's buffers are pages.
pub const PAYLOAD_MAX: usize = 32 * 1024;
/// Ports the agent serves, and with that the number of commands that can run at once.
pub const PORTS: usize = 8;

/// What a frame is. Constants rather than an enum: the peer writes this word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u32);

impl Kind {
    /// Both ways: starts a conversation; the payload is a nonce that the answer repeats.
    pub const HELLO: Self = Self(1);
    /// To dom0: timeout in milliseconds (u32), then a shell command.
    pub const RUN: Self = Self(2);
    /// To dom0: file mode (u32), then a path; DATA frames and END follow.
    pub const PUT: Self = Self(3);
    /// To dom0: a path. The answer is DATA frames and END, or ERROR.
    pub const GET: Self = Self(4);
    /// Bytes of a file.
    pub const DATA: Self = Self(5);
    /// End of a file, or an empty "done".
    pub const END: Self = Self(6);
    /// From dom0: bytes of the command's standard output.
    pub const STDOUT: Self = Self(7);
    /// From dom0: bytes of the command's standard error.
    pub const STDERR: Self = Self(8);
    /// From dom0: the exit status (i32): a code, `-signal`, or [`EXIT_TIMEOUT`].
    pub const EXIT: Self = Self(9);
    /// From dom0: the request failed; a message.
    pub const ERROR: Self = Self(10);
}

/// The exit status of a command that was killed because its time was up.
pub const EXIT_TIMEOUT: i32 = 1000;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// At most [`PAYLOAD_MAX`] bytes.
    pub payload: Vec<u8>,
}

/// Writes one frame in a single write, so that a port shared by threads never interleaves two.
pub fn send(to: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    if payload.len() > PAYLOAD_MAX {
        return Err(io::Error::new(ErrorKind::InvalidInput, "payload of a frame is too long"));
    }
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(12 + payload.len());
    for word in [MAGIC, kind.0, length] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(payload);
    to.write_all(&bytes)?;
    to.flush()
}

/// Reads the next frame; anything but a frame here is an error.
pub fn receive(from: &mut impl Read) -> io::Result<Frame> {
    if word(from)? != MAGIC {
        return Err(io::Error::new(ErrorKind::InvalidData, "no frame where one should start"));
    }
    body(from)
}

/// Skips bytes until a magic, then reads that frame.
pub fn hunt(from: &mut impl Read) -> io::Result<Frame> {
    let mut window = [0_u8; 4];
    loop {
        while u32::from_le_bytes(window) != MAGIC {
            window.rotate_left(1);
            from.read_exact(&mut window[3..])?;
        }
        window = [0; 4];
        match body(from) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {}
            frame => return frame,
        }
    }
}

fn body(from: &mut impl Read) -> io::Result<Frame> {
    let kind = Kind(word(from)?);
    let length = word(from)? as usize;
    if length > PAYLOAD_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "frame longer than any we send"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(Frame { kind, payload })
}

fn word(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// A request's leading u32 and the text after it, or `None` if it is malformed.
#[must_use]
pub fn split_request(payload: &[u8]) -> Option<(u32, &str)> {
    let (number, text) = payload.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), std::str::from_utf8(text).ok()?))
}

/// The inverse of [`split_request`].
#[must_use]
pub fn join_request(number: u32, text: &str) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend_from_slice(text.as_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_these_bytes_and_comes_back() {
        let mut bytes = Vec::new();
        send(&mut bytes, Kind::RUN, &join_request(0x0102, "ls")).unwrap();
        assert_eq!(bytes, b"LSv1\x02\0\0\0\x06\0\0\0\x02\x01\0\0ls");
        let frame = receive(&mut bytes.as_slice()).unwrap();
        assert_eq!(frame.kind, Kind::RUN);
        assert_eq!(split_request(&frame.payload), Some((0x0102, "ls")));
    }

    #[test]
    fn hunting_skips_the_tail_of_an_earlier_conversation() {
        let mut bytes = b"tail LSLSv1\x05\0\0\0\xff\xff\xff\xffmore".to_vec();
        send(&mut bytes, Kind::HELLO, b"nonce").unwrap();
        let frame = hunt(&mut bytes.as_slice()).unwrap();
        assert_eq!((frame.kind, frame.payload.as_slice()), (Kind::HELLO, b"nonce".as_slice()));
    }

    #[test]
    fn a_stray_byte_between_frames_and_a_giant_length_are_errors() {
        assert!(receive(&mut b"xLSv1".as_slice()).is_err());
        assert!(receive(&mut b"LSv1\x05\0\0\0\x01\x80\0\0".as_slice()).is_err());
        assert!(send(&mut Vec::new(), Kind::DATA, &vec![0; PAYLOAD_MAX + 1]).is_err());
        assert_eq!(split_request(b"abc"), None);
    }
}
