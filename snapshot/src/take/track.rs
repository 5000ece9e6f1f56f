//! Dirty tracking on and off, where the hypervisor has it.

use super::engine::{Engine, Target, done};
use super::recorder::Recorder;
use crate::fault::Fault;
use crate::ports::{Clock, Control, TargetError};
use crate::request::Kind;
use crate::session::{Observation, Trouble, limits};

impl<T: Target, K: Control + Clock, R: Recorder> Engine<'_, T, K, R> {
    /// A hypervisor without shadow paging cannot track a PV guest (xen/arch/x86/mm/shadow/none.c). Suspended first, it
    /// needs no tracking, which then serves to notice other hands alone.
    pub(super) fn enable(&mut self) -> Result<Observation, Trouble> {
        let asked_ns = self.desk.now_ns();
        match self.target.enable() {
            Ok(()) => {
                self.tracked = true;
                let took_ns = self.desk.now_ns().saturating_sub(asked_ns);
                Self::work(&mut self.work)?.tape.enabled(took_ns);
            }
            Err(TargetError::Unsupported) if !self.policy.is_live() && self.take.kind != Kind::Incremental => {}
            Err(TargetError::Unsupported) => {
                let reason =
                    "this hypervisor cannot track the guest (PV without shadow paging): take it with --mode save";
                return Err(Trouble::new(Fault::Unsupported, reason));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Observation::Done)
    }

    pub(super) fn tracking_off(&mut self) -> Result<Observation, Trouble> {
        if !self.tracked {
            return Ok(Observation::Done);
        }
        let asked_ns = self.desk.now_ns();
        let answer = self.target.off();
        let took_ns = self.desk.now_ns().saturating_sub(asked_ns);
        if let Some(work) = &mut self.work {
            work.tape.switched_off(took_ns);
        }
        if answer.is_err() {
            // Another tool in the middle of a call makes Xen answer -EBUSY: give it a moment before the next attempt.
            let _ = self.desk.wait(limits::OFF_RETRY_NS);
        }
        done(answer)
    }
}
