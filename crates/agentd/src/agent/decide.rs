//! What to do next about one agent: a pure function of what is wanted, what is known and what is seen.
//!
//! It has no clock and no memory. The agent's task reads the unit, calls [`decide`], does the actions in order,
//! and calls it again until nothing is left but waiting. Boot, retry and recovery after a crash of the
//! supervisor all go this way.
//!
//! Rules: bookkeeping first (a run that is new is recorded, a run that is over is recorded as ended, exactly
//! once); a unit that somebody else started is adopted, never stopped; a unit that rests is started only when a
//! start was asked for, or when its lifecycle is persistent, it is wanted, and it did not end well; starts after
//! failures wait for the back-off.

use aos_core::config::Lifecycle;

use crate::db::{InvocationId, Target};
use crate::systemd::Phase;

/// First wait after a failure, microseconds.
pub const BACKOFF_FIRST_US: u64 = 1_000_000;
/// Longest wait after failures.
pub const BACKOFF_MAX_US: u64 = 300_000_000;
/// A run this long is healthy: the count of failures starts over.
pub const HEALTHY_US: u64 = 600_000_000;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Run or rest.
    pub target: Target,
    /// Whether a failure is followed by another start.
    pub lifecycle: Lifecycle,
    /// A start was asked for and has not been tried.
    pub start_asked: bool,
    /// Longest run, microseconds.
    pub runtime_max_us: Option<u64>,
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The last run.
    pub run: Option<KnownRun>,
    /// Failures in a row.
    pub failures: u32,
    /// When the next start is due.
    pub retry_at_us: Option<u64>,
    /// The last start was given up before there was a run.
    pub start_failed: bool,
    /// A start job of ours is queued.
    pub starting: bool,
    /// A stop job of ours is queued.
    pub stopping: bool,
}

/// A recorded run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRun {
    /// Which.
    pub invocation: InvocationId,
    /// Whether its end is recorded, and if so whether it ended well.
    pub ended: Option<Outcome>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Well, or stopped as asked.
    Success,
    /// Not well.
    Failure,
}

/// What is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What the unit does.
    pub phase: Phase,
    /// The run that systemd remembers.
    pub invocation: Option<InvocationId>,
    /// When its main process started, 0 when it never did.
    pub started_at_us: u64,
}

/// Why an agent is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// It is not wanted any more.
    Asked,
    /// It has run for as long as it may.
    RuntimeLimit,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Record that this run began.
    RecordStart(InvocationId),
    /// Record the end of the known run as the unit shows it.
    RecordEnd,
    /// Record the end of the known run, which systemd does not remember: it ended well unless the unit failed.
    RecordLostEnd(Outcome),
    /// Somebody else started it: it is wanted now.
    Adopt,
    /// It is over and not to be started again.
    Settle,
    /// It has run well for long.
    ForgetFailures,
    /// Count a failure and start again at this time.
    RetryAt(u64),
    /// Start it.
    Start,
    /// Stop it.
    Stop(StopCause),
    /// Nothing to do before this time.
    WaitUntil(u64),
}

/// The wait after the `failures`th failure in a row.
#[must_use]
pub fn backoff_us(failures: u32) -> u64 {
    // Ten doublings of a second are beyond the longest wait.
    let doublings = failures.saturating_sub(1).min(10);
    (BACKOFF_FIRST_US << doublings).min(BACKOFF_MAX_US)
}

/// What to do next. An empty answer means: nothing until something changes.
#[must_use]
pub fn decide(now_us: u64, wanted: &Wanted, known: &Known, seen: &Seen) -> Vec<Action> {
    if let Some(bookkeeping) = bookkeeping(known, seen) {
        return bookkeeping;
    }
    match (wanted.target, seen.phase) {
        (_, Phase::Deactivating | Phase::Maintenance) => Vec::new(),
        (Target::Rest, Phase::Activating | Phase::Active) => stop_unless_stopping(known, StopCause::Asked),
        (Target::Rest, Phase::Inactive | Phase::Failed) if known.starting => {
            stop_unless_stopping(known, StopCause::Asked)
        }
        (Target::Rest, Phase::Inactive | Phase::Failed) | (Target::Run, Phase::Activating) => Vec::new(),
        (Target::Run, Phase::Active) => while_running(now_us, wanted, known, seen),
        (Target::Run, Phase::Inactive | Phase::Failed) => at_rest(now_us, wanted, known),
    }
}

fn bookkeeping(known: &Known, seen: &Seen) -> Option<Vec<Action>> {
    let is_over = seen.phase.is_at_rest();
    let lost = if seen.phase == Phase::Failed { Outcome::Failure } else { Outcome::Success };
    match (&known.run, &seen.invocation) {
        (Some(run), Some(invocation)) if run.invocation == *invocation => {
            (run.ended.is_none() && is_over).then(|| vec![Action::RecordEnd])
        }
        (Some(run), None) => (run.ended.is_none() && is_over).then(|| vec![Action::RecordLostEnd(lost)]),
        (None, None) => None,
        (run, Some(invocation)) => {
            let mut actions = Vec::new();
            if run.as_ref().is_some_and(|run| run.ended.is_none()) {
                actions.push(Action::RecordLostEnd(Outcome::Success));
            }
            actions.push(Action::RecordStart(invocation.clone()));
            let is_foreign = !known.starting && !known.stopping;
            if is_foreign && matches!(seen.phase, Phase::Activating | Phase::Active) {
                actions.push(Action::Adopt);
            }
            Some(actions)
        }
    }
}

fn stop_unless_stopping(known: &Known, cause: StopCause) -> Vec<Action> {
    if known.stopping { Vec::new() } else { vec![Action::Stop(cause)] }
}

fn while_running(now_us: u64, wanted: &Wanted, known: &Known, seen: &Seen) -> Vec<Action> {
    // A clock that was set back, or a main process that is not recorded yet, is a run that just started.
    let ran_us = if seen.started_at_us == 0 { 0 } else { now_us.saturating_sub(seen.started_at_us) };
    let begun_us = now_us.saturating_sub(ran_us);
    if wanted.runtime_max_us.is_some_and(|max| ran_us >= max) {
        return stop_unless_stopping(known, StopCause::RuntimeLimit);
    }
    if known.failures > 0 && ran_us >= HEALTHY_US {
        return vec![Action::ForgetFailures];
    }
    let healthy_at = (known.failures > 0).then(|| begun_us.saturating_add(HEALTHY_US));
    let limit_at = wanted.runtime_max_us.map(|max| begun_us.saturating_add(max));
    healthy_at.into_iter().chain(limit_at).min().map(Action::WaitUntil).into_iter().collect()
}

fn at_rest(now_us: u64, wanted: &Wanted, known: &Known) -> Vec<Action> {
    if known.starting || known.stopping {
        return Vec::new();
    }
    if wanted.start_asked {
        return vec![Action::Start];
    }
    let outcome = if known.start_failed {
        Some(Outcome::Failure)
    } else {
        known.run.as_ref().and_then(|run| run.ended)
    };
    match (wanted.lifecycle, outcome) {
        (Lifecycle::Oneshot, _) | (Lifecycle::Persistent, Some(Outcome::Success)) => vec![Action::Settle],
        // Wanted, and never started: the supervisor ended between the wish and the start, or it is a new boot.
        (Lifecycle::Persistent, None) => vec![Action::Start],
        (Lifecycle::Persistent, Some(Outcome::Failure)) => match known.retry_at_us {
            None => {
                vec![Action::RetryAt(now_us.saturating_add(backoff_us(known.failures.saturating_add(1))))]
            }
            Some(at) if at <= now_us => vec![Action::Start],
            Some(at) => vec![Action::WaitUntil(at)],
        },
    }
}

#[cfg(test)]
mod tests;
