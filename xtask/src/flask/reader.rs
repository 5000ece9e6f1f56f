//! A cursor over the bytes of a compiled policy.
//!
//! Every read is checked against the end, so a loop over a count read from the file ends with the file at the latest.
//! Integers are little-endian. Names and field order are those of Xen's xen/xsm/flask/ss/policydb.c.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

/// The longest name that is believed; the real ones have some 30 bytes.
const NAME_LEN_MAX: usize = 256;

/// The largest bit that is believed in a bitmap of types.
const BIT_MAX: u32 = 1 << 16;

/// A cursor; see the module.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).context("length overflows")?;
        let slice = self.bytes.get(self.at..end).with_context(|| format!("truncated at byte {}", self.at))?;
        self.at = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    /// A 16 bit integer.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A 32 bit integer.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// `N` integers of 32 bits.
    pub fn u32s<const N: usize>(&mut self) -> Result<[u32; N]> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.u32()?;
        }
        Ok(words)
    }

    /// A name of `len` bytes.
    pub fn name(&mut self, len: u32) -> Result<String> {
        let len = usize::try_from(len)?;
        if len > NAME_LEN_MAX {
            bail!("a name of {len} bytes at byte {}", self.at);
        }
        Ok(std::str::from_utf8(self.take(len)?)?.to_owned())
    }

    /// The set bits of an ebitmap (ebitmap_read).
    pub fn bitmap(&mut self) -> Result<BTreeSet<u32>> {
        let [unit, _high_bit, nodes] = self.u32s()?;
        if unit != u64::BITS {
            bail!("a bitmap in units of {unit} bits at byte {}", self.at);
        }
        let mut set = BTreeSet::new();
        for _ in 0..nodes {
            let start = self.u32()?;
            let map = u64::from_le_bytes(self.array()?);
            if start > BIT_MAX {
                bail!("a bitmap that starts at bit {start} at byte {}", self.at);
            }
            set.extend((0..u64::BITS).filter(|bit| map >> bit & 1 == 1).map(|bit| start + bit));
        }
        Ok(set)
    }

    /// Fails unless everything was read.
    pub fn finish(self) -> Result<()> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            rest => bail!("{rest} bytes after the end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmap_bits_are_counted_from_the_start_bit() {
        let mut bytes = Vec::new();
        for word in [64_u32, 128, 1, 64] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(0b101_u64.to_le_bytes());
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.bitmap().unwrap(), BTreeSet::from([64, 66]));
        reader.finish().unwrap();
    }

    #[test]
    fn reads_beyond_the_end_are_errors() {
        assert!(Reader::new(&[1, 2, 3]).u32().is_err());
        assert!(Reader::new(&[0; 600]).name(300).is_err());
        assert!(Reader::new(&[0]).finish().is_err());
    }
}
