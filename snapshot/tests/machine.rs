//! The session's machine against arbitrary observations: whatever is seen, in whatever order, what was switched on is
//! switched off, the release happens once, a seal needs its reasons, and the end comes.

use proptest::prelude::*;
use snapshot::fault::Fault;
use snapshot::fields::Line;
use snapshot::names::Token;
use snapshot::policy::{Busy, Disk, Outlook, Policy, RoundStats, Settings};
use snapshot::request::Mode;
use snapshot::session::{Action, Capture, Machine, Observation, Pass, Trouble, limits};
use snapshot::status::State;
use snapshot::verdict::Verdict;

const SECOND_NS: u64 = 1_000_000_000;

/// Far more than any session needs.
const STEPS_MAX: usize = 1000;

fn verdict(resumed: bool) -> Observation {
    Observation::Verdict(Verdict { token: Token([0; 16]), resumed, reason: Line::default(), disks: Default::default() })
}

fn trouble(fault: Fault) -> Observation {
    Observation::Trouble(Trouble::new(fault, "said the test"))
}

fn stats(round: u32, dirty_current: u64) -> RoundStats {
    let outlook = Outlook {
        staging_pages: 100,
        fixed_ns: 1000,
        stage_ns: 1000,
        store_ns: 10_000,
        pack_ns: 0,
        stored_bytes: 0,
        disk: Disk::NONE,
    };
    let sums = RoundStats { sent_round: 100, sent_total: 1000, space_left: 1000, outlook, ..RoundStats::default() };
    RoundStats { round, memory: 1000, dirty_previous: 100, dirty_current, ..sums }
}

fn policy(mode: Mode) -> Policy {
    Policy::new(mode, Settings { busy: Busy::Throttle, max_pause_us: Some(500), ..Settings::default() })
}

/// What the outside is like, as the actions left it.
#[derive(Default, Debug)]
struct Outside {
    tracking: bool,
    releases: u32,
    captured: bool,
    flushed: bool,
    resumed: bool,
    sealed: bool,
    begun: bool,
    /// Tracking stays on after a take.
    stays: Stays,
}

/// How tracking is meant to go on.
#[derive(Default, Clone, Copy, PartialEq, Debug)]
enum Stays {
    #[default]
    Off,
    /// After this one.
    After,
    /// Since an earlier one; whether what is known since is whole.
    Since(bool),
}

impl Outside {
    /// Does `action` with the luck that `choice` says, and tells what was seen.
    fn act(&mut self, action: Action, choice: u8, round: u32) -> Observation {
        assert!(!self.sealed || action == Action::Finish, "nothing follows a seal");
        if choice < 20 && action != Action::Release {
            return self.fail(action, choice);
        }
        match action {
            Action::Prepare => {
                self.begun = true;
                let on_top = matches!(self.stays, Stays::Since(_)) && choice.is_multiple_of(2);
                self.tracking = on_top;
                if on_top {
                    return Observation::OnTop;
                }
            }
            Action::Arm => assert!(self.tracking && self.captured && self.releases == 1),
            Action::Enable => self.tracking = true,
            Action::Round(_) => {
                assert!(self.tracking, "rounds need tracking");
                return Observation::Round(stats(round, u64::from(choice)), choice.is_multiple_of(11));
            }
            Action::Recheck => return Observation::Rechecked(choice.is_multiple_of(3)),
            Action::AwaitSuspend if choice.is_multiple_of(2) => return Observation::Nothing,
            Action::AwaitSuspend if choice % 3 == 1 => return Observation::Acked,
            Action::AwaitSuspend => return Observation::Suspended,
            Action::Chase if choice % 2 == 1 => return Observation::Suspended,
            Action::Chase => return Observation::Nothing,
            Action::Capture(_) => self.captured = true,
            Action::Release => {
                self.releases += 1;
                if choice < 20 {
                    return trouble(Fault::ControlLost);
                }
            }
            Action::TrackingOff => self.tracking = false,
            Action::Flush => self.flushed = true,
            Action::AwaitVerdict if choice.is_multiple_of(3) => return Observation::Nothing,
            Action::AwaitVerdict => {
                self.resumed = choice % 3 == 1;
                return verdict(self.resumed);
            }
            Action::Seal => {
                assert!(self.captured && self.flushed && self.resumed && self.releases == 1);
                self.sealed = true;
                self.begun = false;
            }
            Action::Discard => self.begun = false,
            Action::Finish => {}
        }
        Observation::Done
    }

    fn fail(&mut self, action: Action, choice: u8) -> Observation {
        let faults = [Fault::Cancelled, Fault::Hypercall, Fault::Gone, Fault::Store, Fault::ForeignSuspend];
        let fault = faults[usize::from(choice) % faults.len()];
        if action == Action::Prepare {
            self.begun = true;
        }
        if action == Action::TrackingOff && fault == Fault::Gone {
            self.tracking = false;
        }
        if action == Action::Discard {
            self.begun = false;
        }
        trouble(fault)
    }
}

/// Runs a session to its end. `strange` observations, which answer no action, come in between.
fn run(policy: Policy, choices: &[u8], strange: bool, stays: Stays) -> (Outside, Machine) {
    let on = matches!(stays, Stays::Since(_));
    let mut machine = if stays == Stays::Off { Machine::new(policy) } else { Machine::staying(policy, on) };
    machine.carry(stays == Stays::Since(true));
    let mut outside = Outside { stays, tracking: on, ..Outside::default() };
    let (mut now_ns, mut seen) = (0, Observation::Begin);
    for step in 0..STEPS_MAX {
        let action = machine.step(now_ns, seen);
        if action == Action::Finish {
            return (outside, machine);
        }
        let choice = choices[step % choices.len()];
        now_ns += u64::from(choice % 5 + 1) * SECOND_NS;
        seen = outside.act(action, choice, machine.round());
        // Not in place of an order that was carried out: that engine would be beyond help.
        let waits = matches!(action, Action::AwaitSuspend | Action::AwaitVerdict | Action::Recheck | Action::Round(_));
        if strange && waits && choice.is_multiple_of(7) {
            seen = Observation::Begin;
        }
    }
    panic!("no end in sight: {machine:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn every_way_out_keeps_the_promises(
        choices in prop::collection::vec(any::<u8>(), 1..80),
        mode in 0usize..5,
        strange: bool,
        stays in 0usize..4,
    ) {
        let stays = [Stays::Off, Stays::After, Stays::Since(true), Stays::Since(false)][stays];
        let policy = policy(Mode::ALL[mode].0);
        let (outside, machine) = run(policy, &choices, strange, stays);
        let left_on = machine.trouble().is_some_and(|trouble| trouble.fault == Fault::TrackingLeftOn);
        prop_assert_eq!(outside.releases, 1);
        let may_stay = stays != Stays::Off && outside.sealed || stays == Stays::Since(true);
        prop_assert!(!outside.tracking || left_on || may_stay && machine.tracks(), "{:?}", machine);
        prop_assert!(!outside.begun, "{:?}", machine);
        prop_assert!(machine.state().is_final());
        prop_assert_eq!(outside.sealed, machine.state() == State::Sealed);
        prop_assert!(outside.sealed || machine.trouble().is_some());
        prop_assert!(machine.round() <= policy.rounds() + limits::FULL_PASSES_MAX);
    }
}

/// Steps through `seen` from the beginning; the actions that follow.
fn script(policy: Policy, seen: &[(u64, Observation)]) -> Vec<Action> {
    let mut machine = Machine::new(policy);
    let mut actions = vec![machine.step(0, Observation::Begin)];
    actions.extend(seen.iter().map(|(now_ns, seen)| machine.step(*now_ns, seen.clone())));
    actions
}

fn done() -> (u64, Observation) {
    (0, Observation::Done)
}

#[test]
fn a_take_that_goes_well() {
    use Action::*;
    let seen = [
        done(),
        done(),
        (0, Observation::Round(stats(1, 500), false)),
        (0, Observation::Round(stats(2, 0), false)),
        (0, Observation::Round(RoundStats { dirty_previous: 0, ..stats(3, 0) }, false)),
        (0, Observation::Rechecked(false)),
        (0, Observation::Nothing),
        (0, Observation::Suspended),
        done(),
        done(),
        done(),
        done(),
        (0, Observation::Nothing),
        (0, verdict(true)),
        done(),
    ];
    let expected = [
        Prepare,
        Enable,
        Round(Pass::Full),
        Round(Pass::Dirty),
        Round(Pass::Dirty),
        Recheck,
        AwaitSuspend,
        AwaitSuspend,
        Capture(snapshot::session::Capture::LastSet),
        Release,
        TrackingOff,
        Flush,
        AwaitVerdict,
        AwaitVerdict,
        Seal,
        Finish,
    ];
    assert_eq!(script(policy(Mode::Live), &seen), expected);
}

#[test]
fn save_suspends_first() {
    let actions = script(policy(Mode::Save), &[done(), done(), (0, Observation::Suspended)]);
    let expected = [Action::Prepare, Action::Enable, Action::AwaitSuspend, Action::Capture(Capture::Everything)];
    assert_eq!(actions, expected);
}

#[test]
fn an_enable_that_failed_is_not_undone() {
    let seen = [done(), (0, trouble(Fault::LogDirtyOn)), done(), done()];
    let expected = [Action::Prepare, Action::Enable, Action::Release, Action::Discard, Action::Finish];
    assert_eq!(script(policy(Mode::Live), &seen), expected, "somebody else's tracking stays on");
}

#[test]
fn off_is_tried_often_enough_and_no_longer() {
    let mut seen = vec![done(), done(), (0, trouble(Fault::Cancelled)), done()];
    seen.extend((0..limits::OFF_ATTEMPTS).map(|_| (0, trouble(Fault::Hypercall))));
    let actions = script(policy(Mode::Live), &seen);
    let offs = actions.iter().filter(|action| **action == Action::TrackingOff).count();
    assert_eq!(offs, limits::OFF_ATTEMPTS as usize);
    assert_eq!(actions.last(), Some(&Action::Discard));
}

#[test]
fn waits_end_at_their_deadline_and_not_before() {
    let wait = limits::SUSPEND_WAIT_NS;
    let seen = [done(), done(), (wait - 1, Observation::Nothing), (wait, Observation::Nothing)];
    assert_eq!(script(policy(Mode::Save), &seen)[3..], [Action::AwaitSuspend, Action::Release]);
}

#[test]
fn the_copy_while_the_guest_freezes_is_made_once_and_by_staged_alone() {
    let acked = || (0, Observation::Acked);
    let seen = [done(), done(), (0, Observation::Round(stats(1, 5), false)), (0, Observation::Rechecked(false))];
    let chased = |mode| {
        let more = [acked(), (0, Observation::Nothing), acked(), (0, Observation::Suspended)];
        script(policy(mode), &[&seen[..], &more[..]].concat())[4..].to_vec()
    };
    use Action::{AwaitSuspend, Chase};
    let capture = Action::Capture(Capture::LastSet);
    assert_eq!(chased(Mode::Staged), [AwaitSuspend, Chase, AwaitSuspend, AwaitSuspend, capture]);
    assert_eq!(chased(Mode::Xen), [AwaitSuspend, AwaitSuspend, AwaitSuspend, AwaitSuspend, capture]);
}

#[test]
fn a_throttle_is_said_and_stays() {
    let mut machine = Machine::new(policy(Mode::Staged));
    for seen in [Observation::Begin, Observation::Done, Observation::Done] {
        machine.step(0, seen);
    }
    let mut levels = vec![];
    for round in 1..=14 {
        machine.step(0, Observation::Round(stats(round, 200), false));
        levels.push(machine.throttle());
    }
    assert_eq!(levels[..4], [0, 50, 60, 70]);
    let said = machine.trouble().unwrap();
    assert_eq!(said.fault, Fault::PauseTooLong, "{levels:?}");
    let reason = "the pause would be 1 ms: 200 pages are dirty, 100 fit";
    assert_eq!(said.to_string(), format!("{}: {reason}", Fault::PauseTooLong));
}

#[test]
fn tracking_since_an_earlier_take_is_ended_by_one_of_another_kind_even_if_it_is_refused() {
    let mut machine = Machine::new(policy(Mode::Live));
    machine.carry(true);
    assert_eq!(machine.step(0, Observation::Begin), Action::Prepare);
    // Tracking was to be switched off, and the knowledge is gone, whether or not that succeeded.
    machine.carry(false);
    assert_eq!(machine.step(0, trouble(Fault::Hypercall)), Action::Release);
    assert_eq!(machine.step(0, Observation::Done), Action::TrackingOff);
    assert_eq!(machine.step(0, Observation::Done), Action::Discard);
    assert_eq!(machine.step(0, Observation::Done), Action::Finish);
    assert_eq!(machine.state(), State::Refused);
    assert!(!machine.tracks());
}

/// How often tracking is switched off, if it always fails, by a take after which it is to stay on.
fn offs(seen: &[(u64, Observation)]) -> u32 {
    let mut machine = Machine::staying(policy(Mode::Save), false);
    machine.step(0, Observation::Begin);
    let mut actions: Vec<Action> = seen.iter().map(|(now_ns, seen)| machine.step(*now_ns, seen.clone())).collect();
    actions.extend((0..10).map(|_| machine.step(0, trouble(Fault::Hypercall))));
    actions.iter().filter(|action| **action == Action::TrackingOff).count() as u32
}

#[test]
fn what_is_to_stay_on_and_does_not_is_off_after_as_many_attempts_as_else() {
    let captured = [done(), done(), (0, Observation::Suspended), done(), done()];
    assert_eq!(offs(&captured), limits::OFF_ATTEMPTS, "it was not armed");
    let given_up = [done(), done(), (0, trouble(Fault::Cancelled)), done()];
    assert_eq!(offs(&given_up), limits::OFF_ATTEMPTS, "there is no snapshot");
}

#[test]
fn the_last_set_is_a_round() {
    let mut machine = Machine::new(policy(Mode::Live));
    machine.step(0, Observation::Begin);
    let round = |stats| Observation::Round(stats, false);
    let rounds = [stats(1, 500), stats(2, 0), RoundStats { dirty_previous: 0, ..stats(3, 0) }].map(round);
    let seen = [Observation::Done, Observation::Done].into_iter().chain(rounds);
    for seen in seen.chain([Observation::Rechecked(false), Observation::Nothing]) {
        machine.step(0, seen);
    }
    let before = machine.round();
    assert_eq!(machine.step(0, Observation::Suspended), Action::Capture(Capture::LastSet));
    assert_eq!(machine.round(), before + 1);
    assert!(before > 1);
}

#[test]
fn what_is_known_since_an_earlier_take_means_that_tracking_is_on_where_it_does_not_stay() {
    let after = |mut machine: Machine, whole| {
        machine.carry(whole);
        machine.tracks()
    };
    let (plain, stays) = (|| Machine::new(policy(Mode::Live)), || Machine::staying(policy(Mode::Live), false));
    assert!(after(plain(), true) && !after(plain(), false) && !after(stays(), true) && !after(stays(), false));
}
