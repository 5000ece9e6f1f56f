//! What can go wrong, and how it strikes the world.

use super::world::{Guest, STALL_MS, Who, World};
use crate::keeper::{Cli, Stub};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    CliDies,
    CliCancels,
    StubDies,
    StubGivesUp,
    StubHangs,
    GuestDestroyed,
    GuestPowersOff,
    ForeignSuspend,
    ForeignResume,
    ForeignSave,
    XenstoreHangs,
    XenstoreStalls,
    RequestOverwritten,
    HookFails,
    HookHangs,
    ResumeRefusedOnce,
    ResumeRefused,
    SubscribeRefused,
    SpuriousEdge,
}

pub const FAULTS: [Fault; 20] = [
    Fault::None,
    Fault::CliDies,
    Fault::CliCancels,
    Fault::StubDies,
    Fault::StubGivesUp,
    Fault::StubHangs,
    Fault::GuestDestroyed,
    Fault::GuestPowersOff,
    Fault::ForeignSuspend,
    Fault::ForeignResume,
    Fault::ForeignSave,
    Fault::XenstoreHangs,
    Fault::XenstoreStalls,
    Fault::RequestOverwritten,
    Fault::HookFails,
    Fault::HookHangs,
    Fault::ResumeRefusedOnce,
    Fault::ResumeRefused,
    Fault::SubscribeRefused,
    Fault::SpuriousEdge,
];

impl World {
    pub fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::None => {}
            Fault::CliDies => self.cli = Cli::Gone,
            Fault::CliCancels => self.cli = Cli::Cancels,
            Fault::StubDies => self.stub = Stub::Gone,
            Fault::StubGivesUp if self.stub != Stub::Gone => {
                self.stub = Stub::GaveUp;
                self.edge = true;
            }
            Fault::StubGivesUp => {}
            Fault::StubHangs => self.stub_hangs = true,
            Fault::GuestDestroyed => self.guest = Guest::Gone,
            Fault::GuestPowersOff if self.guest == Guest::Running => self.guest = Guest::Stopped,
            Fault::GuestPowersOff => {}
            // After the guest took our word its suspend is ours, whoever else wished for one.
            // A resume and a suspend between two looks cannot be told from nothing at all.
            Fault::ForeignSuspend if self.foreign_resume_at == self.t => {}
            Fault::ForeignSuspend if self.guest == Guest::Running && self.suspend_at.is_none() => {
                self.guest = Guest::Suspended(Who::Foreign);
                self.ack_at = None;
            }
            Fault::ForeignSuspend => {}
            Fault::ForeignResume if matches!(self.guest, Guest::Suspended(_)) => {
                self.guest = Guest::Running;
                self.foreign_resume_at = self.t;
            }
            Fault::ForeignResume => {}
            Fault::ForeignSave => self.saver = true,
            Fault::XenstoreHangs => self.xenstore_back = u64::MAX,
            Fault::XenstoreStalls => self.xenstore_back = self.xenstore_back.max(self.t + STALL_MS),
            Fault::RequestOverwritten => {
                self.node = "poweroff";
                self.foreign_word = true;
                self.ack_at = None;
            }
            Fault::HookFails => self.hook_fails = true,
            Fault::HookHangs => self.hook_hangs = true,
            Fault::ResumeRefusedOnce => self.resume_refused = self.resume_refused.max(1),
            Fault::ResumeRefused => self.resume_refused = u32::MAX,
            Fault::SubscribeRefused => self.subscribe_refused = true,
            Fault::SpuriousEdge => self.edge = true,
        }
    }
}
