//! The task of one agent: it looks, decides, acts, and answers.
//!
//! Loop: wait for a command, a poke, the end of a job, or a time that was asked for; then reconcile: read the
//! unit and do what [`decide`] says until only waiting is left. A job is waited for in the same loop, so a stop
//! is served while a start is under way. Failures of systemd or the database make it look again a little later.

use std::sync::Arc;
use std::time::Duration;

use aos_client::{AgentView, ErrorKind};
use aos_core::id::AgentId;
use aos_core::state::{AgentState, ExitResult};
use tokio::time::Instant;

use super::checkpoint::Restoring;
use super::decide::{Action, HEALTHY_US, Known, KnownRun, Outcome, Seen, Wanted, decide};
use super::jobs::{Pending, job_end};
use super::view::{self, Activity, OnDisk};
use super::workspace::Working;
use super::{Context, Ends, Event, Reply};
use crate::db::{AgentRecord, DbError, End, InvocationId, Kept, Run, Target};
use crate::failure::Failure;
use crate::packages::Packages;
use crate::systemd::{Systemd, UnitState};

/// When to look again after systemd or the database failed.
const TROUBLE_WAIT: Duration = Duration::from_secs(5);
/// Decisions in one go; more than a handful would be a contradiction between decision and action.
const ROUNDS_MAX: usize = 16;
/// Longest wait for the receiver of events, which only sends signals on the bus.
const EVENT_DEADLINE: Duration = Duration::from_secs(5);

/// The state of one agent's task.
#[derive(Debug)]
pub struct AgentTask<S, P> {
    pub(super) id: AgentId,
    pub(super) context: Arc<Context<S, P>>,
    ends: Ends,
    pub(super) record: Option<AgentRecord>,
    pub(super) seen: UnitState,
    pub(super) starting: Option<Pending>,
    pub(super) stopping: Option<Pending>,
    /// An operation on its workspace.
    pub(super) working: Option<Working>,
    /// What is kept beside the record.
    pub(super) kept: Kept,
    /// A restore that is not at its end.
    pub(super) restoring: Option<Restoring>,
    /// Whether it was looked if it is frozen for a checkpoint that was cut short.
    pub(super) thaw_looked: bool,
    /// A start was asked for and not tried.
    pub(super) start_asked: bool,
    /// The last start led to no run at all.
    pub(super) start_failed: bool,
    /// The stop under way is for the runtime limit.
    pub(super) ran_too_long: bool,
    /// Why the run that somebody else began is being stopped.
    pub(super) distrusted: Option<String>,
    pub(super) start_waiters: Vec<Reply<InvocationId>>,
    pub(super) stop_waiters: Vec<Reply<()>>,
    /// A start to be made when the stop is done.
    pub(super) restart: Option<Reply<InvocationId>>,
    /// The unit is held. systemd counts, so it is held once; systemd keeps the count when it is executed anew.
    pub(super) held: bool,
    /// The limits in force were compared with the record's since this process started.
    pub(super) limits_checked: bool,
    /// What the disk said at the last publication.
    disk: OnDisk,
    look_again: Option<Instant>,
    /// Answers that wait for the next publication: who is answered and then looks sees what it was told.
    answers: Vec<Answer>,
}

/// An answer that only has to be sent.
struct Answer(Box<dyn FnOnce() + Send + Sync>);

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// A task for `id`, with its record; without one, its first command is in the mailbox already.
    #[must_use]
    pub fn new(id: AgentId, context: Arc<Context<S, P>>, ends: Ends, record: Option<AgentRecord>) -> Self {
        let kept = ends.kept.borrow().clone();
        Self {
            id,
            context,
            ends,
            record,
            seen: UnitState::unknown(),
            starting: None,
            stopping: None,
            working: None,
            restoring: kept.restoring.map(|_| Restoring::Forward),
            kept,
            thaw_looked: false,
            start_asked: false,
            start_failed: false,
            ran_too_long: false,
            distrusted: None,
            start_waiters: Vec::new(),
            stop_waiters: Vec::new(),
            restart: None,
            held: false,
            limits_checked: false,
            disk: OnDisk::default(),
            look_again: None,
            answers: Vec::new(),
        }
    }

    /// Answers, after the next publication. A caller that has gone away does not want it.
    pub(super) fn answer<T: Send + Sync + 'static>(&mut self, reply: Reply<T>, result: Result<T, Failure>) {
        self.answers.push(Answer(Box::new(move || {
            if reply.send(result).is_err() {
                tracing::debug!("the caller went away before the answer");
            }
        })));
    }

    /// Runs until the agent is removed, nothing came of it, or all handles are gone.
    pub async fn run(mut self) {
        if let Some(removal) = self.record.as_ref().and_then(|record| record.removing)
            && let Err(failure) = self.remove(removal).await
        {
            self.trouble(&failure);
        }
        self.reconcile().await;
        loop {
            self.publish().await;
            for Answer(send) in self.answers.drain(..) {
                send();
            }
            if self.record.is_none() {
                match self.next_or_close() {
                    Some(command) => self.serve(command).await,
                    None => return,
                }
            } else {
                let look_again = self.look_again;
                // Cancel-safe arms: receiving from a channel or a oneshot takes nothing when dropped, a
                // notification that was not received stays, timers hold nothing.
                tokio::select! {
                    command = self.ends.commands.recv() => match command {
                        Some(command) => self.serve(command).await,
                        None => return,
                    },
                    () = self.ends.poke.notified() => {}
                    end = job_end(&mut self.starting) => self.start_ended(end).await,
                    end = job_end(&mut self.stopping) => self.stop_ended(end).await,
                    end = Working::end(&mut self.working) => self.work_ended(end).await,
                    () = sleep_until(look_again) => {}
                }
            }
            self.reconcile().await;
        }
    }

    /// Without a record: the next command that waits, or `None` once the mailbox is closed and empty.
    fn next_or_close(&mut self) -> Option<super::Command> {
        if let Ok(command) = self.ends.commands.try_recv() {
            return Some(command);
        }
        self.ends.commands.close();
        self.ends.commands.try_recv().ok()
    }

    /// No process of the agent is left and no job of ours is queued.
    pub(super) fn is_at_rest(&self) -> bool {
        self.seen.phase.is_at_rest() && self.starting.is_none() && self.stopping.is_none()
    }

    /// Reads the unit and does what is to be done.
    pub(super) async fn reconcile(&mut self) {
        self.look_again = None;
        if self.record.as_ref().is_none_or(|record| record.removing.is_some()) {
            return;
        }
        if let Err(failure) = self.look().await {
            return self.trouble(&failure);
        }
        if let Err(failure) = self.go_on_with_restore().await {
            self.trouble(&failure);
        }
        if let Err(failure) = self.thaw_what_was_left().await {
            self.trouble(&failure);
        }
        if let Err(failure) = self.check_limits().await {
            self.trouble(&failure);
        }
        self.settle().await;
        // After the bookkeeping: a run that began meanwhile may have been given the plan that is to be replaced.
        if let Err(failure) = self.renew_plan().await {
            self.trouble(&failure);
        }
    }

    /// Decides and acts until nothing is left but waiting.
    pub(super) async fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let Some(actions) = self.decide() else { return };
            let is_waiting = actions.iter().all(|action| matches!(action, Action::WaitUntil(_)));
            for action in actions {
                if let Err(failure) = self.act(action).await {
                    return self.trouble(&failure);
                }
            }
            if is_waiting && !self.answer_at_rest() {
                return;
            }
        }
        tracing::error!(AOS_AGENT = %self.id, seen = ?self.seen, "decisions do not come to rest");
        self.look_again = Some(Instant::now() + TROUBLE_WAIT);
    }

    /// Reads the unit; holds it first, so that the end of a run stays readable.
    pub(super) async fn look(&mut self) -> Result<(), Failure> {
        if !self.held {
            self.context.systemd.hold(&self.id).await.map_err(|error| Failure::failed(&error))?;
            self.held = true;
        }
        self.seen = self.context.systemd.read(&self.id).await.map_err(|error| Failure::failed(&error))?;
        Ok(())
    }

    /// Something that must work did not: say so, and look again soon.
    pub(super) fn trouble(&mut self, failure: &Failure) {
        tracing::warn!(AOS_AGENT = %self.id, error = %failure, "cannot reconcile; trying again");
        self.look_again = Some(Instant::now() + TROUBLE_WAIT);
    }

    fn decide(&self) -> Option<Vec<Action>> {
        let record = self.record.as_ref()?;
        let wanted = Wanted {
            target: record.target,
            lifecycle: record.spec.lifecycle,
            start_asked: self.start_asked,
            runtime_max_us: record.spec.limits.runtime.map(|span| span.usec()),
        };
        let known = Known {
            run: record
                .run
                .as_ref()
                .map(|run| KnownRun { invocation: run.invocation.clone(), ended: view::outcome(record) }),
            failures: record.failures,
            retry_at_us: record.retry_at_us,
            start_failed: self.start_failed,
            starting: self.starting.is_some(),
            // A start waits for it as for a stop; it is begun at rest only.
            stopping: self.stopping.is_some() || self.changes_workspace(),
        };
        let seen = Seen {
            phase: self.seen.phase,
            invocation: self.seen.invocation.clone(),
            started_at_us: self.seen.started_at_us,
        };
        Some(decide(self.context.clock.now_us(), &wanted, &known, &seen))
    }

    async fn act(&mut self, action: Action) -> Result<(), Failure> {
        match action {
            Action::RecordStart(invocation) => self.record_start(invocation).await,
            Action::RecordEnd => {
                let end = self.seen.end();
                self.record_end(end).await
            }
            Action::RecordLostEnd(outcome) => {
                let result = match outcome {
                    Outcome::Success => ExitResult::Success,
                    Outcome::Failure => self.seen.result,
                };
                self.record_end(End { at_us: None, result, status: 0 }).await
            }
            Action::Adopt => self.adopt().await,
            Action::Settle => self.change(|record| record.target = Target::Rest).await,
            Action::ForgetFailures => self.change(|record| record.failures = 0).await,
            Action::RetryAt(at) => {
                self.change(|record| {
                    record.failures = record.failures.saturating_add(1);
                    record.retry_at_us = Some(at);
                })
                .await
            }
            Action::Start => self.start().await,
            Action::Stop(cause) => self.stop(cause).await,
            Action::WaitUntil(at_us) => {
                let wait = at_us.saturating_sub(self.context.clock.now_us());
                self.look_again = Some(Instant::now() + Duration::from_micros(wait));
                Ok(())
            }
        }
    }

    /// Changes the record, on the disk too.
    pub(super) async fn change(&mut self, change: impl FnOnce(&mut AgentRecord)) -> Result<(), Failure> {
        if let Some(record) = &mut self.record {
            change(record);
        }
        self.store().await.map_err(|error| db_failure(&error))
    }

    pub(super) async fn store(&self) -> Result<(), DbError> {
        match &self.record {
            Some(record) => self.context.db.put(record).await,
            None => Ok(()),
        }
    }

    async fn record_start(&mut self, invocation: InvocationId) -> Result<(), Failure> {
        let started_at_us = match self.seen.started_at_us {
            0 => self.context.clock.now_us(),
            at => at,
        };
        tracing::info!(AOS_AGENT = %self.id, AOS_INVOCATION = %invocation, "run began");
        self.start_failed = false;
        self.ran_too_long = false;
        self.distrusted = None;
        let boot = self.context.settings.boot_id.clone();
        self.change(|record| {
            record.run = Some(Run { invocation, boot, started_at_us, end: None });
            if !record.plan_stale {
                record.in_force = None;
            }
        })
        .await
    }

    async fn record_end(&mut self, mut end: End) -> Result<(), Failure> {
        let id = &self.id;
        let Some(record) = &mut self.record else { return Ok(()) };
        let Some(run) = &mut record.run else { return Ok(()) };
        if std::mem::take(&mut self.ran_too_long) {
            end.result = ExitResult::Timeout;
        }
        let ran_us = end.at_us.map_or(0, |at| at.saturating_sub(run.started_at_us));
        run.end = Some(end.clone());
        let invocation = run.invocation.clone();
        if !record.plan_stale {
            record.in_force = None;
        }
        if ran_us >= HEALTHY_US {
            record.failures = 0;
        }
        record.error = match (self.distrusted.take(), &end.result) {
            (Some(why), _) => Some(why),
            (None, ExitResult::Success) => None,
            (None, _) => Some(format!("{}; journalctl -u {}", self.seen.why(&end), id.unit_name())),
        };
        tracing::info!(
            AOS_AGENT = %id, AOS_INVOCATION = %invocation, AOS_RESULT = %end.result,
            AOS_EXIT_STATUS = end.status, "run ended"
        );
        self.store().await.map_err(|error| db_failure(&error))?;
        let (result, status) = (end.result.as_str(), end.status);
        self.emit(Event::Exited { id: self.id.clone(), invocation, result, status }).await;
        Ok(())
    }

    /// Waits for a poke, at most this long.
    pub(super) async fn wait_for_poke(&self, most: Duration) {
        if tokio::time::timeout(most, self.ends.poke.notified()).await.is_err() {
            tracing::trace!(AOS_AGENT = %self.id, "no poke; looking again");
        }
    }

    fn activity(&self) -> Activity {
        Activity {
            starting: self.starting.is_some() || self.start_asked,
            stopping: self.stopping.is_some(),
            start_failed: self.start_failed,
        }
    }

    /// The state in one word; `None` without a record.
    pub(super) fn state(&self) -> Option<AgentState> {
        self.record.as_ref().map(|record| view::state(record, &self.seen, self.activity()))
    }

    /// Makes the view visible, and tells when it changed.
    pub(super) async fn publish(&mut self) {
        let before = self.ends.view.borrow().clone();
        self.read_disk().await;
        let activity = self.activity();
        let now = self.record.as_ref().map(|record| view::view(record, &self.seen, activity, &self.disk));
        self.ends.record.send_replace(self.record.clone());
        self.ends.kept.send_replace(self.kept.clone());
        self.ends.view.send_replace(now.clone());
        if let Some(now) = now
            && before.as_ref().is_none_or(|before| differ(before, &now))
        {
            self.emit(Event::Changed { before: before.map(Box::new), now: Box::new(now) }).await;
        }
    }

    /// Reads what the view needs from the disk, on a blocking thread. A damaged user record is told once.
    async fn read_disk(&mut self) {
        let (settings, id) = (Arc::clone(&self.context.settings), self.id.clone());
        match tokio::task::spawn_blocking(move || view::on_disk(&settings.places, &id)).await {
            Ok(disk) => {
                if let Some(trouble) = &disk.trouble
                    && self.disk.trouble != disk.trouble
                {
                    tracing::warn!(AOS_AGENT = %self.id, "the agent's uid is not known: {trouble}");
                }
                self.disk = disk;
            }
            // What was read before stands.
            Err(error) => tracing::error!(AOS_AGENT = %self.id, %error, "the disk could not be read"),
        }
    }

    /// Tells of an event. The state is what counts and can be read; an event that cannot be told is dropped with
    /// a message.
    pub(super) async fn emit(&self, event: Event) {
        if tokio::time::timeout(EVENT_DEADLINE, self.context.events.send(event)).await.is_err() {
            tracing::warn!(AOS_AGENT = %self.id, "a signal was dropped: the bus does not take it");
        }
    }
}

/// Whether a difference is worth a signal: memory changes all the time.
fn differ(before: &AgentView, now: &AgentView) -> bool {
    let mut before = before.clone();
    before.memory_current = now.memory_current;
    before != *now
}

/// The failure for a database error, which may be a full disk.
pub(crate) fn db_failure(error: &DbError) -> Failure {
    let failure = Failure::failed(error);
    if error.is_full() {
        return Failure::new(ErrorKind::NoSpace, failure.message())
            .with_hint("free some space and try again");
    }
    failure
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
