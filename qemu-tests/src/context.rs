//! The records of an HVM context (public/arch-x86/hvm/save.h), as `XEN_DOMCTL_gethvmcontext` and a save image have
//! them, with what no two looks at a standing guest agree on set to zero.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use xen_hypercall::abi::hvm::{HW_CPU_TSC, SAVE_CPU, SAVE_END, SaveDescriptor};
use zerocopy::FromBytes;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextRecord {
    /// `HVM_SAVE_CODE`.
    pub typecode: u16,
    /// Of which vCPU or device.
    pub instance: u16,
    /// Its bytes; the TSC of a vCPU reads 0: it counts on while the guest stands still.
    pub body: Vec<u8>,
}

impl fmt::Display for ContextRecord {
    /// `type instance length bytes`, on one line.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {} ", self.typecode, self.instance, self.body.len())?;
        self.body.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The records of a context up to its end record, which must be the last.
pub fn records(mut rest: &[u8]) -> Result<Vec<ContextRecord>> {
    let mut records = Vec::new();
    loop {
        let (head, after) = SaveDescriptor::read_from_prefix(rest).ok().context("the context has no end")?;
        let (body, next) = after.split_at_checked(head.length as usize).context("a record exceeds the context")?;
        if head.typecode == SAVE_END {
            ensure!(next.is_empty(), "{} bytes after the context's end", next.len());
            return Ok(records);
        }
        let mut body = body.to_vec();
        if head.typecode == SAVE_CPU
            && let Some(tsc) = body.get_mut(HW_CPU_TSC..HW_CPU_TSC + 8)
        {
            tsc.fill(0);
        }
        records.push(ContextRecord { typecode: head.typecode, instance: head.instance, body });
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        [&kind.to_le_bytes()[..], &[0, 0], &length.to_le_bytes(), body].concat()
    }

    #[test]
    fn all_but_the_tsc_counts() {
        let end = record(SAVE_END, &[]);
        let mut cpu = vec![1; HW_CPU_TSC + 16];
        let before = records(&[record(SAVE_CPU, &cpu), end.clone()].concat()).unwrap();
        cpu[HW_CPU_TSC + 7] = 2;
        assert_eq!(records(&[record(SAVE_CPU, &cpu), end.clone()].concat()).unwrap(), before);
        cpu[HW_CPU_TSC + 8] = 2;
        assert_ne!(records(&[record(SAVE_CPU, &cpu), end.clone()].concat()).unwrap(), before);
        assert_eq!(records(&[record(5, &[7, 8]), end].concat()).unwrap()[0].to_string(), "5 0 2 0708");
    }

    #[test]
    fn a_context_that_is_cut_or_goes_on_is_refused() {
        let whole = [record(5, &[1, 2, 3]), record(SAVE_END, &[])].concat();
        for length in 0..whole.len() {
            assert!(records(&whole[..length]).is_err(), "{length}");
        }
        assert!(records(&[&whole[..], &[0]].concat()).is_err());
    }
}
