//! A pulse: something from outside that reaches the machine every second.
//!
//! Under QEMU's emulation of nested SVM the timer interrupt on which Xen sleeps is now and then lost: hypervisor, dom0
//! and guests stand still together until any other interrupt comes, minutes later if nobody types. It was seen by the
//! guests' processor time, which stopped for as long as the test waited in silence, and went on at the first command
//! from outside. A greeting on one of the console ports is such an interrupt. It wakes hypervisor and dom0 only: a stub
//! or a guest that waits for something that never comes still does.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::client::Port;

/// Between two greetings.
const BEAT: Duration = Duration::from_secs(1);
/// For an answer. None is no failure here: whoever waits for the machine has a deadline of his own.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Beats until it is dropped.
pub struct Pulse {
    _end: Sender<()>,
}

impl Pulse {
    /// Begins with the machine in `dir`.
    pub fn start(dir: &Path) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let dir = dir.to_owned();
        thread::spawn(move || {
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                let _ = Port::open(&dir, ANSWER_WAIT);
            }
        });
        Self { _end: end }
    }
}
