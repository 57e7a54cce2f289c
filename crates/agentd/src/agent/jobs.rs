//! The start and stop jobs of an agent: queueing them, and what their ends mean for those who wait.

use std::time::Duration;

use aos_client::ErrorKind;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::decide::StopCause;
use super::task::AgentTask;
use crate::db::{InvocationId, Run, Target};
use crate::failure::Failure;
use crate::packages::Packages;
use crate::systemd::{Job, JobResult, Systemd};

/// Longest wait for a start job: the time-outs of the account (30 s), of the limit on the disk (120 s) and of the unit
/// itself (60 s), and room.
const START_DEADLINE: Duration = Duration::from_secs(240);
/// Longest wait for a stop job: the unit's time-out (30 s), the kill after it, and room.
const STOP_DEADLINE: Duration = Duration::from_secs(90);

/// A queued job.
#[derive(Debug)]
pub(super) struct Pending {
    end: oneshot::Receiver<JobResult>,
    deadline: Instant,
    /// The run before it, to know a new one.
    before: Option<InvocationId>,
}

impl Pending {
    /// A job that is no start.
    pub(super) fn new(job: Job, deadline: Instant) -> Self {
        Self { end: job.end, deadline, before: None }
    }
}

/// How the wait for a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// systemd said so.
    Result(JobResult),
    /// systemd or the bus went away.
    Lost,
    /// Not within the deadline; the job may still be there.
    Late,
}

/// The end of a job, or never when there is none.
pub(super) async fn job_end(pending: &mut Option<Pending>) -> JobEnd {
    match pending {
        None => std::future::pending().await,
        Some(pending) => match tokio::time::timeout_at(pending.deadline, &mut pending.end).await {
            Ok(Ok(result)) => JobEnd::Result(result),
            Ok(Err(_)) => JobEnd::Lost,
            Err(_) => JobEnd::Late,
        },
    }
}

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// Queues a start.
    pub(super) async fn start(&mut self) -> Result<(), Failure> {
        let Some(record) = &self.record else { return Ok(()) };
        let spec = record.spec.clone();
        let before = record.run.as_ref().map(|run| run.invocation.clone());
        let is_asked = std::mem::take(&mut self.start_asked);
        self.change(|record| record.retry_at_us = None).await?;
        let launched = match self.forget_frozen().await {
            Ok(()) => self.launch(&spec).await,
            Err(failure) => Err(failure),
        };
        match launched {
            Ok(Job { end }) => {
                self.starting = Some(Pending { end, deadline: Instant::now() + START_DEADLINE, before });
                Ok(())
            }
            Err(failure) => {
                self.start_failed = true;
                self.give_up_start(&failure, is_asked).await
            }
        }
    }

    /// A start that did not lead to a running agent. One that a person asked for is not tried again.
    async fn give_up_start(&mut self, failure: &Failure, is_asked: bool) -> Result<(), Failure> {
        tracing::warn!(AOS_AGENT = %self.id, error = %failure, "not started");
        for waiter in std::mem::take(&mut self.start_waiters) {
            self.answer(waiter, Err(failure.clone()));
        }
        self.change(|record| {
            record.error = Some(failure.message().to_owned());
            if is_asked {
                record.target = Target::Rest;
            }
        })
        .await
    }

    /// The start job ended. What it led to is read and recorded while the start still counts as ours.
    pub(super) async fn start_ended(&mut self, end: JobEnd) {
        self.reconcile().await;
        let Some(pending) = self.starting.take() else { return };
        let run = self.record.as_ref().and_then(|record| record.run.clone());
        let is_new = run.as_ref().is_some_and(|run| Some(&run.invocation) != pending.before.as_ref());
        match (end, &run) {
            // Not new when somebody else's start was faster than ours; it runs all the same.
            (JobEnd::Result(JobResult::Done), Some(run)) if is_new || run.end.is_none() => {
                for waiter in std::mem::take(&mut self.start_waiters) {
                    self.answer(waiter, Ok(run.invocation.clone()));
                }
            }
            (JobEnd::Result(JobResult::Canceled), _) if self.start_waiters.is_empty() => {}
            _ => {
                let failure = self.why_not_started(end, run.as_ref().filter(|_| is_new));
                self.start_failed = !is_new;
                let is_asked = !self.start_waiters.is_empty();
                if let Err(failure) = self.give_up_start(&failure, is_asked).await {
                    self.trouble(&failure);
                }
            }
        }
    }

    fn why_not_started(&self, end: JobEnd, run: Option<&Run>) -> Failure {
        let unit = self.id.unit_name();
        let why = match (end, run.and_then(|run| run.end.as_ref())) {
            (_, Some(end)) => self.seen.why(end),
            (JobEnd::Late, None) => {
                format!("it was still starting after {} s and is being stopped", START_DEADLINE.as_secs())
            }
            (JobEnd::Lost, None) => "systemd started anew meanwhile".to_owned(),
            (JobEnd::Result(JobResult::Dependency), None) => {
                format!("its Unix user could not be made (journalctl -u aos-account@{}.service)", self.id)
            }
            (JobEnd::Result(JobResult::Timeout), None) => "it was not ready in time".to_owned(),
            (JobEnd::Result(JobResult::Canceled), None) => "the start was cancelled".to_owned(),
            (JobEnd::Result(JobResult::Frozen), None) => {
                "systemd holds it to be frozen (systemctl thaw aos.slice aos-default.slice)".to_owned()
            }
            (JobEnd::Result(_), None) => "systemd could not start its unit".to_owned(),
        };
        let text = format!("agent {} did not start: {why}", self.id);
        Failure::new(ErrorKind::Failed, text).with_hint(&format!("journalctl -u {unit}"))
    }

    /// Queues a stop.
    pub(super) async fn stop(&mut self, cause: StopCause) -> Result<(), Failure> {
        tracing::info!(AOS_AGENT = %self.id, ?cause, "stopping");
        if cause == StopCause::RuntimeLimit {
            // Its end counts as a failure, as with systemd's RuntimeMaxSec=.
            self.ran_too_long = true;
        }
        let job = match self.stop_job().await {
            Ok(job) => job,
            Err(failure) => {
                self.stop_refused(&failure);
                return Err(failure);
            }
        };
        self.stopping =
            Some(Pending { end: job.end, deadline: Instant::now() + STOP_DEADLINE, before: None });
        Ok(())
    }

    /// systemd did not take the stop job. A stop is tried again for as long as it is wanted; a restart is given up.
    fn stop_refused(&mut self, failure: &Failure) {
        let is_restart = self.restart.is_some() && self.stop_waiters.is_empty();
        self.answer_stop(failure);
        if let Some(record) = self.record.as_mut().filter(|_| is_restart) {
            record.target = Target::Run;
        }
    }

    /// Whoever waits for a stop hears why there is none.
    fn answer_stop(&mut self, failure: &Failure) {
        for waiter in std::mem::take(&mut self.stop_waiters) {
            self.answer(waiter, Err(failure.clone()));
        }
        if let Some(restart) = self.restart.take() {
            self.answer(restart, Err(failure.clone()));
        }
    }

    /// The stop job ended. At rest, [`AgentTask::reconcile`] answers those who wait; else they hear why not.
    pub(super) async fn stop_ended(&mut self, end: JobEnd) {
        self.stopping = None;
        if let Err(failure) = self.look().await {
            return self.trouble(&failure);
        }
        // A stop job that was replaced by somebody's start leaves an agent that runs, and is stopped again.
        if self.seen.phase.is_at_rest() || end == JobEnd::Result(JobResult::Canceled) {
            return;
        }
        let unit = self.id.unit_name();
        let why = if end == JobEnd::Late { "it does not stop" } else { "systemd did not stop it" };
        let text =
            format!("agent {}: {why}; systemctl status {unit}; systemctl kill -s KILL {unit}", self.id);
        let failure = Failure::new(ErrorKind::Failed, text);
        self.answer_stop(&failure);
        if let Err(error) = self.change(|record| record.error = Some(failure.message().to_owned())).await {
            self.trouble(&error);
        }
    }

    /// At rest: whoever waited for it is answered, and a restart goes on. True when there is a start to make.
    pub(super) fn answer_at_rest(&mut self) -> bool {
        if !self.is_at_rest() {
            return false;
        }
        for waiter in std::mem::take(&mut self.stop_waiters) {
            self.answer(waiter, Ok(()));
        }
        match self.restart.take() {
            Some(reply) => {
                self.ask_start(reply);
                self.start_asked
            }
            None => false,
        }
    }
}
