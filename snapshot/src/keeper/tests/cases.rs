//! Every failure at every millisecond of a take, for every kind of guest; and every pair of failures.

use super::checks::{check, run, void};
use super::faults::{FAULTS, Fault};
use super::world::{Guest, Manners, SHORT, Who, ms};
use crate::keeper::{
    Action, Cli, Command, Completion, Control, Deadlines, Hook, Machine, Mark, Observation, Outcome, ROWS, Reason,
    Stub, Target, Verdict,
};
use std::format;

const PROMPT: Manners = Manners { ack: Some(3), suspend: Some(4) };
const GUESTS: [(&str, Manners); 5] = [
    ("prompt", PROMPT),
    ("slow", Manners { ack: Some(20), suspend: Some(20) }),
    ("deaf", Manners { ack: None, suspend: None }),
    ("stubborn", Manners { ack: Some(3), suspend: None }),
    ("late", Manners { ack: Some(3), suspend: Some(90) }),
];

#[test]
fn a_take_without_failures_is_resumed_by_us_after_the_edge() {
    let end = run(PROMPT, false, SHORT, &[]);
    check(&end, &[], "plain");
    assert_eq!(end.report.verdict, Verdict::Resumed);
    let times = end.report.times;
    assert!(times.asked < times.acked && times.acked < times.suspended);
    assert!(times.suspended < times.released && times.released <= times.resumed);
    assert!(!end.report.stuck && !end.report.subscribed && !end.report.unheard && !end.report.standing);
}

#[test]
fn every_failure_at_every_moment() {
    for (name, manners) in GUESTS {
        for with_hook in [false, true] {
            for fault in FAULTS {
                for at in 0..130 {
                    let faults = [(at, fault)];
                    let end = run(manners, with_hook, SHORT, &faults);
                    check(&end, &faults, &format!("{name} hook={with_hook} {fault:?}@{at}"));
                }
            }
        }
    }
}

#[test]
fn every_pair_of_failures() {
    for (name, manners) in GUESTS {
        for first in FAULTS {
            for second in FAULTS {
                for at in (0..40).step_by(2) {
                    for gap in [0, 1, 3, 9, 30] {
                        let faults = [(at, first), (at + gap, second)];
                        let end = run(manners, true, SHORT, &faults);
                        check(&end, &faults, &format!("{name} {first:?}@{at} {second:?}+{gap}"));
                    }
                }
            }
        }
    }
}

#[test]
fn a_deaf_guest_loses_the_request_and_nobody_waits_for_a_late_suspend() {
    let end = run(Manners { ack: None, suspend: None }, false, SHORT, &[]);
    assert_eq!(void(&end), Some(Reason::NotAcked));
    assert_eq!(end.only_late_at, None);
    assert_eq!(end.world.guest, Guest::Running);
}

#[test]
fn a_late_suspend_is_resumed_after_the_verdict() {
    let end = run(Manners { ack: Some(3), suspend: Some(90) }, false, SHORT, &[]);
    assert_eq!(void(&end), Some(Reason::NotSuspended));
    assert!(end.only_late_at.is_some());
    assert_eq!((end.world.guest, end.world.resumes), (Guest::Running, 1));
}

#[test]
fn a_foreign_suspend_is_left_alone() {
    for at in 0..7 {
        let end = run(PROMPT, false, SHORT, &[(at, Fault::ForeignSuspend)]);
        assert_eq!(end.world.guest, Guest::Suspended(Who::Foreign), "at {at}");
        assert_eq!((void(&end), end.world.resumes), (Some(Reason::ForeignSuspend), 0), "at {at}");
    }
}

#[test]
fn the_pause_budget_ends_the_pause() {
    let end = run(PROMPT, false, SHORT, &[(13, Fault::StubHangs)]);
    assert_eq!(void(&end), Some(Reason::PauseSpent));
    assert!(end.world.stood_by_us <= 32, "{}", end.world.stood_by_us);
    let patient = Deadlines { pause: None, ..SHORT };
    let end = run(PROMPT, false, patient, &[(13, Fault::StubHangs)]);
    assert_eq!(void(&end), Some(Reason::StubSilent));
}

#[test]
fn each_cause_has_its_name() {
    let cases = [
        (Fault::CliDies, 5, Reason::CliGone),
        (Fault::CliCancels, 13, Reason::Cancelled),
        (Fault::StubDies, 13, Reason::StubGone),
        (Fault::StubGivesUp, 2, Reason::StubGaveUp),
        (Fault::GuestDestroyed, 6, Reason::TargetGone),
        (Fault::GuestPowersOff, 6, Reason::TargetStopped),
        (Fault::ForeignResume, 13, Reason::ForeignResume),
        (Fault::ForeignSave, 2, Reason::ForeignSave),
        (Fault::ForeignSave, 13, Reason::ForeignSave),
        (Fault::RequestOverwritten, 1, Reason::ForeignRequest),
        (Fault::HookFails, 1, Reason::HookFailed),
        (Fault::HookHangs, 1, Reason::HookSlow),
        (Fault::ResumeRefused, 1, Reason::NotResumed),
        (Fault::SubscribeRefused, 1, Reason::NotSilenced),
        (Fault::XenstoreHangs, 3, Reason::NotAsked),
        (Fault::SpuriousEdge, 1, Reason::StubGaveUp),
    ];
    for (fault, at, reason) in cases {
        let end = run(PROMPT, true, SHORT, &[(at, fault)]);
        assert_eq!(void(&end), Some(reason), "{fault:?}");
    }
}

#[test]
fn one_refused_resume_is_tried_again() {
    let end = run(PROMPT, false, SHORT, &[(1, Fault::ResumeRefusedOnce)]);
    assert_eq!(end.report.verdict, Verdict::Resumed);
}

#[test]
fn the_record_says_what_to_undo_before_it_is_done() {
    let seen = Observation {
        target: Target::Running,
        stub: Stub::WantsSuspend,
        stub_stamp: 1,
        control: Control::Unknown,
        released: false,
        cli: Cli::Present,
        saver: false,
        hook: Hook::Idle,
        done: None,
    };
    let mut machine = Machine::new(SHORT, false);
    assert_eq!(machine.mark(), Mark::Watching);
    assert_eq!(machine.step(ms(1), &seen), Action::Do(1, Command::Silence));
    assert_eq!(machine.mark(), Mark::Silenced);
    let done = Some(Completion { seq: 1, outcome: Outcome::Ok });
    assert_eq!(machine.step(ms(2), &Observation { done, ..seen }), Action::Do(2, Command::AskSuspend));
    assert_eq!(machine.mark(), Mark::Asked);
}

#[test]
fn words_of_reasons_are_distinct_and_read_back() {
    for reason in Reason::ALL {
        assert_eq!(Reason::from_word(reason.word()), Some(reason));
    }
    assert_eq!(Reason::from_word("resumed"), None);
}

#[test]
fn the_rows_are_the_defaults() {
    assert_eq!(ROWS.len(), 10);
    assert_eq!(Deadlines::LIVE.pause.map(|d| d.as_secs()), Some(ROWS[2].seconds));
    assert_eq!(Deadlines::SAVE.pause, None);
}
