//! The keeper's hands, in the order of `cli/src/keeper/desk.rs` and `throttle.rs`: hypercalls at once, errands to
//! xenstored one after the other, the guest's CPU cap.

use snapshot::keeper::{Command, Completion, Heard, Outcome};

use super::breakage::{Slip, slip};
use super::host::Host;
use super::keeper::{Errand, News};

impl Host {
    /// Notes what came. True: a command ended, and the machine has to see it before the next event.
    pub fn note(&mut self, news: News) -> bool {
        let Some(keeper) = &mut self.keeper else { return true };
        let mut asked = None;
        let heard = match news {
            News::Status(status) => {
                asked = keeper.throttles.then_some(status.counters.throttle);
                Heard::Status(status.state)
            }
            News::Control(control) => Heard::Control(control),
            News::Edge => Heard::Edge,
            News::Cli(cli) => Heard::Cli(cli),
            News::Done(completion) => Heard::Done(completion),
        };
        let ended = keeper.seen.note(heard);
        asked.into_iter().for_each(|throttle| self.throttle(throttle));
        ended
    }

    /// Carries out a command.
    pub fn act(&mut self, seq: u32, command: Command) {
        if self.keeper.is_none() {
            return;
        }
        self.tell(format_args!("keeper: {command:?}"));
        if !self.record_before(command) {
            return self.answer(seq, false);
        }
        if self.keeper.is_none() {
            return;
        }
        let done = match command {
            Command::Silence => self.silence(true),
            Command::Unsilence => self.silence(false),
            Command::Resume => self.keeper_resumes(),
            Command::StartHook | Command::StopHook => return,
            errand => return self.send(seq, errand),
        };
        self.answer(seq, done);
    }

    fn answer(&mut self, seq: u32, done: bool) {
        let outcome = if done { Outcome::Ok } else { Outcome::Failed };
        self.keeper.iter_mut().for_each(|keeper| keeper.seen.done = Some(Completion { seq, outcome }));
    }

    pub fn silence(&mut self, on: bool) -> bool {
        if on && self.subscribe_refused || self.target() == snapshot::keeper::Target::Gone {
            return false;
        }
        self.subscribed = on;
        true
    }

    fn keeper_resumes(&mut self) -> bool {
        if slip(Slip::NoResume) {
            return true;
        }
        let stood = self.truth.stands.is_some();
        let done = self.resume_by_us();
        self.truth.resumed += u32::from(done && stood);
        done
    }

    fn send(&mut self, seq: u32, command: Command) {
        let now_ns = self.now_ns();
        let ready_ns = now_ns + self.latency_ns();
        let Some(keeper) = &mut self.keeper else { return };
        if command == Command::AskSuspend {
            keeper.seen.control = snapshot::keeper::Control::Unknown;
        }
        let behind_ns = keeper.errands.last().map_or(0, |errand| errand.ready_ns);
        keeper.errands.push(Errand { seq, command, started_ns: now_ns, ready_ns: ready_ns.max(behind_ns) });
    }

    /// The stub asks that so many percent be taken away; each step is taken once, and none after the end.
    fn throttle(&mut self, percent: u64) {
        let Some(keeper) = &mut self.keeper else { return };
        if percent <= keeper.throttled.0 || keeper.throttled.1 {
            return;
        }
        keeper.throttled.0 = percent;
        let Some(record) = &mut self.record else { return };
        let old = match record.cap {
            Some(old) => old,
            None if self.records_fail => return,
            None => *record.cap.insert(self.cap),
        };
        self.step();
        if self.keeper.is_none() {
            return;
        }
        let all = if old == 0 { 100 } else { u64::from(old) };
        self.set_cap(u16::try_from((all * 100_u64.saturating_sub(percent) / 100).max(1)).unwrap_or(u16::MAX));
        self.tally.throttled += 1;
    }

    pub fn set_cap(&mut self, cap: u16) {
        self.cap = cap;
        let percent = if cap == 0 { 100 } else { u64::from(cap).min(100) };
        self.guest.borrow_mut().setup.writes = (self.writes * percent).div_ceil(100);
    }

    /// The guest gets back what it had. Done once.
    pub fn end_throttle(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        if std::mem::replace(&mut keeper.throttled.1, true) {
            return;
        }
        let Some(old) = self.record.as_ref().and_then(|record| record.cap) else { return };
        self.step();
        if self.keeper.is_none() {
            return;
        }
        if !slip(Slip::CapStays) {
            self.set_cap(old);
        }
        self.step();
        if self.keeper.is_some() {
            self.record.iter_mut().for_each(|record| record.cap = None);
        }
    }
}
