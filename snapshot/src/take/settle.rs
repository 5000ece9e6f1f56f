//! Waiting for a guest that is being ballooned, outside the pause and for a bounded time.

use super::engine::{Engine, Target};
use super::look::running;
use super::recorder::Recorder;
use crate::ports::{Clock, Control};
use crate::session::{Trouble, limits};

impl<T: Target, K: Control + Clock, R: Recorder> Engine<'_, T, K, R> {
    /// Ballooning takes seconds: a pass before its end would be for nothing, and passes are counted.
    pub(super) fn let_it_settle(&mut self) -> Result<(), Trouble> {
        let mut before = running(self.target.info()?)?.tot_pages;
        for _ in 0..limits::SETTLE_LOOKS_MAX {
            self.desk.attend(&self.counters)?;
            self.desk.wait(limits::SETTLE_NS)?;
            let now = running(self.target.info()?)?.tot_pages;
            if core::mem::replace(&mut before, now) == now {
                break;
            }
        }
        Ok(())
    }
}
