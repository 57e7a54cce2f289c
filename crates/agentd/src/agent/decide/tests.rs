//! Tables for each rule, and a machine that plays random histories and checks what must always hold.

use super::*;
use proptest::prelude::*;

fn invocation(number: u8) -> InvocationId {
    InvocationId::from_bytes(&[number; 16]).unwrap()
}

fn wanted(target: Target, lifecycle: Lifecycle) -> Wanted {
    Wanted { target, lifecycle, start_asked: false, runtime_max_us: None }
}

fn known(run: Option<(u8, Option<Outcome>)>) -> Known {
    Known {
        run: run.map(|(number, ended)| KnownRun { invocation: invocation(number), ended }),
        failures: 0,
        retry_at_us: None,
        start_failed: false,
        starting: false,
        stopping: false,
    }
}

fn seen(phase: Phase, run: Option<u8>) -> Seen {
    Seen { phase, invocation: run.map(invocation), started_at_us: 100 }
}

use Lifecycle::{Oneshot, Persistent};
use Outcome::{Failure, Success};
use Phase::{Activating, Active, Deactivating, Failed, Inactive, Maintenance};
use Target::{Rest, Run};

#[test]
fn the_back_off_doubles_up_to_five_minutes() {
    let seconds: Vec<u64> = (1..=11).map(|failures| backoff_us(failures) / 1_000_000).collect();
    assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(backoff_us(u32::MAX), BACKOFF_MAX_US);
    assert_eq!(backoff_us(0), BACKOFF_FIRST_US);
}

#[test]
fn table() {
    let start = |n| Action::RecordStart(invocation(n));
    let cases = [
        // what, wanted, known, seen, expected
        ("nothing known, nothing wanted", wanted(Rest, Oneshot), known(None), seen(Inactive, None), vec![]),
        (
            "a new run",
            wanted(Run, Oneshot),
            Known { starting: true, ..known(None) },
            seen(Active, Some(1)),
            vec![start(1)],
        ),
        (
            "somebody's run",
            wanted(Rest, Oneshot),
            known(None),
            seen(Active, Some(1)),
            vec![start(1), Action::Adopt],
        ),
        (
            "somebody's run that is over",
            wanted(Rest, Oneshot),
            known(None),
            seen(Failed, Some(1)),
            vec![start(1)],
        ),
        (
            "a run ends",
            wanted(Run, Oneshot),
            known(Some((1, None))),
            seen(Inactive, Some(1)),
            vec![Action::RecordEnd],
        ),
        (
            "a run ended while nobody looked",
            wanted(Run, Oneshot),
            known(Some((1, None))),
            seen(Inactive, None),
            vec![Action::RecordLostEnd(Success)],
        ),
        (
            "a run was followed by another while nobody looked",
            wanted(Run, Oneshot),
            known(Some((1, None))),
            seen(Active, Some(2)),
            vec![Action::RecordLostEnd(Success), start(2), Action::Adopt],
        ),
        (
            "one-shot is over",
            wanted(Run, Oneshot),
            known(Some((1, Some(Failure)))),
            seen(Failed, Some(1)),
            vec![Action::Settle],
        ),
        (
            "persistent ended well",
            wanted(Run, Persistent),
            known(Some((1, Some(Success)))),
            seen(Inactive, Some(1)),
            vec![Action::Settle],
        ),
        (
            "persistent failed",
            wanted(Run, Persistent),
            known(Some((1, Some(Failure)))),
            seen(Failed, Some(1)),
            vec![Action::RetryAt(1_000 + BACKOFF_FIRST_US)],
        ),
        (
            "back-off not over",
            wanted(Run, Persistent),
            Known { retry_at_us: Some(2_000), failures: 1, ..known(Some((1, Some(Failure)))) },
            seen(Failed, Some(1)),
            vec![Action::WaitUntil(2_000)],
        ),
        (
            "back-off over",
            wanted(Run, Persistent),
            Known { retry_at_us: Some(1_000), failures: 1, ..known(Some((1, Some(Failure)))) },
            seen(Failed, Some(1)),
            vec![Action::Start],
        ),
        (
            "a start that never became a run",
            wanted(Run, Persistent),
            Known { start_failed: true, ..known(Some((1, Some(Success)))) },
            seen(Inactive, None),
            vec![Action::RetryAt(1_000 + BACKOFF_FIRST_US)],
        ),
        (
            "not wanted",
            wanted(Rest, Persistent),
            known(Some((1, None))),
            seen(Active, Some(1)),
            vec![Action::Stop(StopCause::Asked)],
        ),
        (
            "not wanted and already stopping",
            wanted(Rest, Persistent),
            Known { stopping: true, ..known(Some((1, None))) },
            seen(Active, Some(1)),
            vec![],
        ),
        (
            "not wanted any more while our start is queued",
            wanted(Rest, Oneshot),
            Known { starting: true, ..known(None) },
            seen(Inactive, None),
            vec![Action::Stop(StopCause::Asked)],
        ),
        (
            "stopping takes its time",
            wanted(Rest, Oneshot),
            known(Some((1, None))),
            seen(Deactivating, Some(1)),
            vec![],
        ),
        ("cleaning", wanted(Run, Persistent), known(None), seen(Maintenance, None), vec![]),
        (
            "starting takes its time",
            wanted(Run, Oneshot),
            known(Some((1, None))),
            seen(Activating, Some(1)),
            vec![],
        ),
        ("wanted at boot", wanted(Run, Persistent), known(None), seen(Inactive, None), vec![Action::Start]),
        (
            "one-shot is not started unasked",
            wanted(Run, Oneshot),
            known(None),
            seen(Inactive, None),
            vec![Action::Settle],
        ),
        (
            "asked",
            Wanted { start_asked: true, ..wanted(Run, Oneshot) },
            known(Some((1, Some(Failure)))),
            seen(Failed, Some(1)),
            vec![Action::Start],
        ),
        (
            "too long",
            Wanted { runtime_max_us: Some(500), ..wanted(Run, Oneshot) },
            known(Some((1, None))),
            seen(Active, Some(1)),
            vec![Action::Stop(StopCause::RuntimeLimit)],
        ),
        (
            "not yet too long",
            Wanted { runtime_max_us: Some(5_000), ..wanted(Run, Oneshot) },
            known(Some((1, None))),
            seen(Active, Some(1)),
            vec![Action::WaitUntil(5_100)],
        ),
    ];
    for (what, wanted, known, seen, expected) in cases {
        assert_eq!(decide(1_000, &wanted, &known, &seen), expected, "{what}");
    }
}

#[test]
fn a_long_run_clears_the_failures() {
    let known = Known { failures: 4, ..known(Some((1, None))) };
    let wanted = wanted(Run, Persistent);
    let now = 100 + HEALTHY_US;
    assert_eq!(decide(now - 1, &wanted, &known, &seen(Active, Some(1))), [Action::WaitUntil(now)]);
    assert_eq!(decide(now, &wanted, &known, &seen(Active, Some(1))), [Action::ForgetFailures]);
}

/// A small systemd and a small operator, driven by random choices.
#[derive(Debug)]
struct Machine {
    now_us: u64,
    wanted: Wanted,
    known: Known,
    seen: Seen,
    next: u8,
    starts: Vec<u64>,
    ends_recorded: u32,
    runs_recorded: u32,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    AskStart,
    AskStop,
    ForeignStart,
    JobRuns,
    Exit(bool),
    Collect,
    Wait(u64),
    Crash,
}

impl Machine {
    fn new(lifecycle: Lifecycle) -> Self {
        Self {
            now_us: 1_000_000,
            wanted: wanted(Rest, lifecycle),
            known: known(None),
            seen: seen(Inactive, None),
            next: 1,
            starts: Vec::new(),
            ends_recorded: 0,
            runs_recorded: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::AskStart if self.seen.phase.is_at_rest() && !self.known.starting => {
                self.wanted.target = Run;
                self.wanted.start_asked = true;
            }
            Step::AskStop => {
                self.wanted.target = Rest;
                self.wanted.start_asked = false;
                self.known.retry_at_us = None;
            }
            Step::ForeignStart if self.seen.phase.is_at_rest() => self.begin(Active),
            Step::JobRuns => self.run_job(),
            Step::Exit(ok) if !self.seen.phase.is_at_rest() => {
                self.seen.phase = if ok { Inactive } else { Failed };
            }
            // systemd forgets a unit that ended well when nobody holds it.
            Step::Collect if self.seen.phase == Inactive => self.seen.invocation = None,
            Step::Wait(us) => self.now_us += us,
            // The supervisor starts anew: queued jobs of ours go on, but nobody waits for them.
            Step::Crash => {
                self.known.starting = false;
                self.known.stopping = false;
                self.wanted.start_asked = false;
            }
            _ => {}
        }
    }

    fn begin(&mut self, phase: Phase) {
        self.seen = Seen { phase, invocation: Some(invocation(self.next)), started_at_us: self.now_us };
        self.next = if self.next == u8::MAX { 1 } else { self.next + 1 };
    }

    fn run_job(&mut self) {
        if self.known.stopping {
            if !self.seen.phase.is_at_rest() {
                self.seen.phase = Inactive;
            }
            self.known.stopping = false;
            self.known.starting = false;
        } else if self.known.starting {
            if self.seen.phase.is_at_rest() {
                self.begin(Active);
            }
            // The bookkeeping of the run comes before the flag is taken back, as in the task.
            self.reconcile();
            self.known.starting = false;
        }
    }

    /// What the task does: until only waiting is left.
    fn reconcile(&mut self) {
        for _ in 0..16 {
            let actions = decide(self.now_us, &self.wanted, &self.known, &self.seen);
            let is_waiting = actions.iter().all(|action| matches!(action, Action::WaitUntil(_)));
            for action in actions {
                self.act(action);
            }
            if is_waiting {
                return;
            }
        }
        panic!("does not come to rest: {self:?}");
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::RecordStart(invocation) => {
                self.runs_recorded += 1;
                self.known.run = Some(KnownRun { invocation, ended: None });
                self.known.start_failed = false;
            }
            Action::RecordEnd => self.end(if self.seen.phase == Failed { Failure } else { Success }),
            Action::RecordLostEnd(outcome) => self.end(outcome),
            Action::Adopt => self.wanted.target = Run,
            Action::Settle => self.wanted.target = Rest,
            Action::ForgetFailures => self.known.failures = 0,
            Action::RetryAt(at) => {
                self.known.failures += 1;
                self.known.retry_at_us = Some(at);
            }
            Action::Start => {
                assert!(self.seen.phase.is_at_rest(), "started while it runs: {self:?}");
                assert!(!self.known.starting && !self.known.stopping, "two jobs: {self:?}");
                assert_eq!(self.wanted.target, Run, "started though not wanted");
                if !self.wanted.start_asked {
                    assert_eq!(self.wanted.lifecycle, Persistent, "a one-shot was started unasked");
                }
                self.starts.push(self.now_us);
                self.wanted.start_asked = false;
                self.known.retry_at_us = None;
                self.known.starting = true;
            }
            Action::Stop(_) => {
                assert!(!self.known.stopping, "stopped twice: {self:?}");
                self.known.stopping = true;
            }
            Action::WaitUntil(at) => assert!(at > self.now_us, "waits for the past: {self:?}"),
        }
    }

    fn end(&mut self, outcome: Outcome) {
        let run = self.known.run.as_mut().unwrap();
        assert_eq!(run.ended, None, "an end is recorded twice");
        run.ended = Some(outcome);
        self.ends_recorded += 1;
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::AskStart),
        Just(Step::AskStop),
        Just(Step::ForeignStart),
        Just(Step::JobRuns),
        Just(Step::JobRuns),
        any::<bool>().prop_map(Step::Exit),
        Just(Step::Collect),
        (0..BACKOFF_MAX_US * 3).prop_map(Step::Wait),
        Just(Step::Crash),
    ]
}

proptest! {
    #[test]
    fn any_history_keeps_the_rules(persistent: bool, steps in proptest::collection::vec(step(), 0..60)) {
        let mut machine = Machine::new(if persistent { Persistent } else { Oneshot });
        for step in steps {
            machine.step(step);
            machine.reconcile();
            // Idempotent: with nothing new, nothing but waiting is left.
            let again = decide(machine.now_us, &machine.wanted, &machine.known, &machine.seen);
            prop_assert!(again.iter().all(|action| matches!(action, Action::WaitUntil(_))), "{again:?}");
            // Every recorded run but the last has a recorded end.
            prop_assert!(machine.runs_recorded - machine.ends_recorded <= 1);
            // At rest, the last run's end is known.
            if machine.seen.phase.is_at_rest() {
                prop_assert!(machine.known.run.as_ref().is_none_or(|run| run.ended.is_some()));
            }
            // What is not wanted does not go on running unnoticed.
            if machine.wanted.target == Rest && machine.seen.phase == Active {
                prop_assert!(machine.known.stopping);
            }
        }
    }

    #[test]
    fn retries_never_come_faster_than_the_back_off(waits in proptest::collection::vec(0..BACKOFF_MAX_US, 1..40)) {
        let mut machine = Machine::new(Persistent);
        machine.step(Step::AskStart);
        machine.reconcile();
        for wait in waits {
            for step in [Step::JobRuns, Step::Exit(false), Step::Wait(wait)] {
                machine.step(step);
                machine.reconcile();
            }
        }
        for (failures, pair) in machine.starts.windows(2).enumerate() {
            let least = backoff_us(u32::try_from(failures).unwrap() + 1);
            prop_assert!(pair[1] - pair[0] >= least, "retry {failures} after {}", pair[1] - pair[0]);
        }
    }
}
