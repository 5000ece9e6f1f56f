//! The kernel's log: warnings and worse are counted and shown on the console after the word KERNEL, so that a test sees
//! those that came with a suspend, a resume or a restore.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use crate::Published;

/// Longest record (kernel/printk/printk.c, CONSOLE_EXT_LOG_MAX).
const RECORD_MAX: usize = 8192;
/// KERN_WARNING; what is more urgent has a lower number.
const WARNING: u32 = 4;

/// Follows the log.
pub fn start(shared: &Arc<Published>) {
    let shared = Arc::clone(shared);
    thread::spawn(move || match File::open("/dev/kmsg") {
        Ok(log) => follow(log, &shared),
        Err(error) => println!("GUEST /dev/kmsg: {error}"),
    });
}

fn follow(mut log: File, shared: &Published) {
    let mut record = vec![0; RECORD_MAX];
    loop {
        let length = match log.read(&mut record) {
            Ok(length) => length,
            // The record was overwritten before it was read; the next read goes on behind the gap.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
            Err(error) => return println!("GUEST /dev/kmsg: {error}"),
        };
        let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
        if let Some(warning) = warning(&text) {
            shared.warnings.fetch_add(1, Ordering::Relaxed);
            println!("KERNEL {warning}");
        }
    }
}

/// The first line of a record of the kernel's own that is a warning or worse: `priority,sequence,time,flags;text`.
fn warning(record: &str) -> Option<&str> {
    let (head, text) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    (priority <= WARNING).then(|| text.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_warnings_count() {
        assert_eq!(warning("4,100,5,-;clocksource jumps\n SUBSYSTEM=x\n"), Some("clocksource jumps"));
        assert_eq!(warning("2,100,5,-;panic"), Some("panic"));
        assert_eq!(warning("6,100,5,-;hello"), None);
        assert_eq!(warning("12,100,5,-;a warning of a process"), None);
        assert_eq!(warning("nonsense"), None);
    }
}
