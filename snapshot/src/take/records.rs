//! libxc records kept in memory exactly as they go into the stream: type, length, body, padding to 8 bytes.
//!
//! Bounded, and its memory taken before the guest is touched: records of the pause must not wait for an allocator.

use alloc::vec::Vec;

use crate::fault::Fault;
use crate::ports::RecordKind;
use crate::session::Trouble;

/// Records of one kind of moment.
#[derive(Debug)]
pub struct Records {
    bytes: Vec<u8>,
    overflow: bool,
}

impl Records {
    /// Room for `capacity` bytes; `None` if there is no memory for it.
    pub fn try_new(capacity: usize) -> Option<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(capacity).ok()?;
        Some(Self { bytes, overflow: false })
    }

    /// Adds a record. What does not fit makes the whole invalid.
    pub fn push(&mut self, kind: RecordKind, body: &[u8]) {
        let padding = body.len().next_multiple_of(8) - body.len();
        let fits = self.bytes.capacity() - self.bytes.len() >= 8 + body.len() + padding;
        let Some(length) = u32::try_from(body.len()).ok().filter(|_| fits) else {
            self.overflow = true;
            return;
        };
        self.bytes.extend_from_slice(&kind.0.to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(body);
        self.bytes.resize(self.bytes.len() + padding, 0);
    }

    /// Empties it; the room stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.overflow = false;
    }

    /// The records, if all have fitted.
    pub fn bytes(&self) -> Result<&[u8], Trouble> {
        if self.overflow {
            return Err(Trouble::new(Fault::NoMemory, "the guest's state records are larger than planned"));
        }
        Ok(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_padded_to_eight_and_says_its_own_length() {
        let mut records = Records::try_new(64).unwrap();
        records.push(RecordKind::X86_TSC_INFO, &[1, 2, 3]);
        assert_eq!(records.bytes().unwrap(), [8, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_does_not_fit_spoils_the_whole() {
        let mut records = Records::try_new(24).unwrap();
        records.push(RecordKind::HVM_CONTEXT, &[0; 17]);
        assert_eq!(records.bytes().unwrap_err().fault, Fault::NoMemory);
    }
}
