//! Runs of the machine in the world, and what must hold at the end of each.

use super::faults::Fault;
use super::world::{Guest, Manners, Who, World, ms};
use crate::keeper::{Action, Command, Deadlines, Hook, Machine, Mark, Pace, Reason, Report, Verdict};

pub struct Run {
    pub world: World,
    pub report: Report,
    pub only_late_at: Option<u64>,
}

/// Runs a take to its end, each fault at its millisecond.
pub fn run(manners: Manners, with_hook: bool, deadlines: Deadlines, faults: &[(u64, Fault)]) -> Run {
    let mut world = World::new(manners);
    let mut machine = Machine::new(deadlines, with_hook);
    let mut only_late_at = None;
    for _ in 0..20_000_u32 {
        for (at, fault) in faults {
            if *at == world.t {
                world.inject(*fault);
            }
        }
        let mut acted = 0;
        loop {
            match machine.step(ms(world.t), &world.look()) {
                Action::Do(seq, command) => {
                    assert!(!command.needs_record() || machine.mark() != Mark::Watching, "{command:?}");
                    // Killed after the resume, it must not leave a record by which the suspend is still to come.
                    let used_up = command == Command::Resume && machine.times().acked.is_some();
                    assert!(!used_up || machine.mark() == Mark::Standing, "{:?} at a resume", machine.mark());
                    world.act(seq, command);
                }
                Action::Wait(Pace::Tight | Pace::Easy) => break,
                Action::Finish => return Run { report: machine.report(), world, only_late_at },
            }
            acted += 1;
            assert!(acted < 20, "the keeper never rests: {machine:?}");
        }
        if machine.only_late() {
            only_late_at = only_late_at.or(Some(world.t));
        }
        world.tick();
    }
    panic!("the keeper never finishes: {machine:?}");
}

/// What must hold at the end of every run.
pub fn check(run: &Run, faults: &[(u64, Fault)], what: &str) {
    let had = |fault: Fault| faults.iter().any(|(_, f)| *f == fault);
    let w = &run.world;
    assert!(w.broken.is_empty(), "{what}: {:?}", w.broken);
    if w.guest == Guest::Suspended(Who::Us) {
        assert!(had(Fault::ResumeRefused) && run.report.stuck, "{what}: left stopped by us");
    }
    if w.subscribed {
        assert!(w.guest == Guest::Gone, "{what}: still subscribed");
    }
    // The same word may be written again (a resume interrupted the first try); another word never.
    let first = w.verdicts.first();
    assert!(w.verdicts.iter().all(|v| Some(v) == first), "{what}: two verdicts {:?}", w.verdicts);
    if !had(Fault::XenstoreHangs) {
        assert_eq!(first, Some(&run.report.verdict), "{what}: the verdict that was given");
    }
    if run.report.verdict == Verdict::Resumed {
        assert_eq!(w.resumes, 1, "{what}");
        assert!(w.captured_before_resume, "{what}: resumed before captured");
        assert!(w.hook != Hook::Failed && w.hook != Hook::Running, "{what}: hook {:?}", w.hook);
    }
    assert!(w.resumes <= 1, "{what}: resumed {} times", w.resumes);
    if !had(Fault::ResumeRefused) && !had(Fault::XenstoreHangs) && !had(Fault::XenstoreStalls) {
        assert!(w.stood_by_us <= 30 + 25, "{what}: stood {} ms", w.stood_by_us);
    }
    // A request left behind would bite later.
    if w.node == "suspend" {
        assert!(run.report.standing || matches!(w.guest, Guest::Gone | Guest::Stopped), "{what}: request left");
    }
}

pub fn void(run: &Run) -> Option<Reason> {
    match run.report.verdict {
        Verdict::Void(reason) => Some(reason),
        Verdict::Resumed => None,
    }
}
