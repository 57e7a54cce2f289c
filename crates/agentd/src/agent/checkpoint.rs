//! Checkpoints: what an agent is, kept, and brought back. The files are `aos-workspace`'s, which copies them as the
//! agent's own user (`aos_workspace`'s `checkpoint` has how); what the agent is made of is a row of the database.
//!
//! An agent that runs is frozen while its files are copied, and goes on after that. A file beside its plan says that
//! it is frozen for this reason, so that one whose supervisor died meanwhile goes on when the next one looks.
//!
//! To bring a checkpoint back:
//!
//! 1. the plan is taken away, so that nobody starts the agent half-way; `plan_stale` brings it back after a crash;
//! 2. what there is becomes a checkpoint of its own; the copy of the other is staged beside the files. Until here
//!    everything can fail, and then all is as it was;
//! 3. one transaction puts the record of the checkpoint and notes that its files are to follow: it has happened;
//! 4. the files are moved into place, and the note goes. This is done again until it succeeds, also by the next
//!    supervisor; meanwhile the agent is not started.
//!
//! When the database does not answer in step 3 it may still do what it was asked, so the record as it was is put after
//! it, again and again until that succeeds; only then anything else is done.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use aos_client::ErrorKind;
use aos_core::id::AgentId;
use aos_core::workspace::{CheckpointStep, Operation};
use tokio::time::Instant;

use super::jobs::{JobEnd, Pending, job_end};
use super::launch::{agent_folder, file_failure, plan_of};
use super::task::{AgentTask, db_failure};
use super::workspace::{Answered, DEADLINE, open_answer, request_path, write_request};
use crate::checkpoint::{Which, find, is_wider};
use crate::db::{AgentRecord, Cause, Checkpoint, Target};
use crate::enabled;
use crate::failure::Failure;
use crate::files;
use crate::forks::{self, Fork};
use crate::packages::Packages;
use crate::settings::Places;
use crate::systemd::{Freezer, JobResult, Phase, Systemd};

/// Numbers of checkpoints: their folders have four digits.
const NUMBER_MAX: u32 = 9999;

/// What became of a request about checkpoints.
#[derive(Debug)]
pub struct Checkpointed {
    /// Whether it was done; else the answer says why not.
    pub done: bool,
    /// The checkpoint that was made.
    pub number: u32,
    /// What `aos-workspace` says.
    pub file: OwnedFd,
}

/// A restore that is not at its end.
#[derive(Debug)]
pub(super) enum Restoring {
    /// The record is the checkpoint's; the files are to follow.
    Forward,
    /// It was given up, and the database may not know.
    Back,
}

fn frozen_path(places: &Places, id: &AgentId) -> PathBuf {
    agent_folder(places, id).join("frozen-for-checkpoint")
}

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// Keeps what the agent is now.
    pub(super) async fn checkpoint(&mut self, name: Option<String>) -> Result<Checkpointed, Failure> {
        self.refuse_other_work("be checkpointed")?;
        self.look().await?;
        let is_running = self.seen.phase == Phase::Active && self.stopping.is_none();
        if !is_running {
            self.refuse_when_active("be checkpointed")?;
        }
        let number = self.next_number(name.as_deref())?;
        let is_mine = is_running && self.freeze_for_checkpoint().await?;
        let saved = self.save(number, name, Cause::Asked).await;
        if is_mine {
            self.thaw_after_checkpoint().await?;
        }
        saved
    }

    /// Nothing else is done with its files.
    fn refuse_other_work(&self, what: &str) -> Result<(), Failure> {
        let id = &self.id;
        if self.record.is_none() {
            return Err(Failure::no_agent(id.as_str()));
        }
        self.refuse_when_restoring(what)?;
        match self.working {
            None => Ok(()),
            Some(_) => Err(Failure::busy(format!(
                "agent {id} cannot {what} while an operation on its workspace is under way; try again when it has ended"
            ))),
        }
    }

    /// A restore that has begun is ended before anything else.
    pub(super) fn refuse_when_restoring(&self, what: &str) -> Result<(), Failure> {
        match &self.restoring {
            None => Ok(()),
            Some(_) => Err(Failure::busy(format!(
                "agent {id} cannot {what} while a checkpoint is being brought back, which is tried again until it succeeds",
                id = self.id
            ))
            .with_hint(&format!("journalctl -u agentd -u aos-workspace@{}.service", self.id))),
        }
    }

    /// The number of a new checkpoint, if there may be one.
    fn next_number(&self, name: Option<&str>) -> Result<u32, Failure> {
        let (id, kept) = (&self.id, &self.kept);
        let most = self.context.settings.limits.max_checkpoints;
        let numbers = kept.numbers();
        if numbers.len() >= most {
            return Err(Failure::refused(format!(
                "agent {id} has {most} checkpoints, and no more are allowed (max_checkpoints in /etc/aos/agentd.toml)"
            ))
            .with_hint(&format!("remove some: aos checkpoint {id} --remove NUMBER")));
        }
        if name.is_some() && kept.checkpoints.iter().any(|one| one.name.as_deref() == name) {
            let name = name.unwrap_or_default();
            return Err(Failure::refused(format!("agent {id} has a checkpoint {name} already")));
        }
        let next = numbers.iter().max().map_or(1, |newest| newest + 1);
        let free = (1..=NUMBER_MAX).find(|number| !numbers.contains(number));
        if next <= NUMBER_MAX { Ok(next) } else { free.ok_or_else(|| Failure::refused("no number is left")) }
    }

    /// Freezes an agent that runs; false when somebody else has.
    async fn freeze_for_checkpoint(&mut self) -> Result<bool, Failure> {
        if self.seen.freezer.is_frozen() {
            return Ok(false);
        }
        let (places, id) = (self.context.settings.places.clone(), self.id.clone());
        let note = move || {
            super::launch::make_agent_folder(&places, &id)?;
            files::write_atomic(&frozen_path(&places, &id), b"", 0o600)
        };
        files::blocking("note that it is frozen", note).await.map_err(file_failure)?;
        match self.pause().await {
            Ok(()) => Ok(true),
            Err(failure) => {
                self.forget_note_of_frozen().await?;
                Err(failure)
            }
        }
    }

    async fn thaw_after_checkpoint(&mut self) -> Result<(), Failure> {
        self.look().await?;
        if self.seen.phase == Phase::Active && self.seen.freezer != Freezer::Running {
            self.resume().await?;
        }
        self.forget_note_of_frozen().await
    }

    async fn forget_note_of_frozen(&self) -> Result<(), Failure> {
        let path = frozen_path(&self.context.settings.places, &self.id);
        let forget = move || files::remove_durably(&path);
        files::blocking("forget that it is frozen", forget).await.map_err(file_failure)
    }

    /// An agent that was frozen for a checkpoint by a supervisor that died goes on; looked at once.
    pub(super) async fn thaw_what_was_left(&mut self) -> Result<(), Failure> {
        if self.thaw_looked {
            return Ok(());
        }
        if frozen_path(&self.context.settings.places, &self.id).exists() {
            tracing::warn!(AOS_AGENT = %self.id, "it was frozen for a checkpoint that was cut short, and goes on");
            self.thaw_after_checkpoint().await?;
        }
        self.thaw_looked = true;
        Ok(())
    }

    /// Copies the files and notes what the agent is. Nothing is left of one that is not done.
    async fn save(
        &mut self,
        number: u32,
        name: Option<String>,
        cause: Cause,
    ) -> Result<Checkpointed, Failure> {
        let step = CheckpointStep::Save { number, keep: self.kept.numbers() };
        let Answered { done, file } = self.do_step(step).await?;
        self.forget_request().await?;
        if !done {
            return Ok(Checkpointed { done, number, file });
        }
        let fork = self.fork_note().await?;
        let Some(record) = &self.record else { return Err(Failure::no_agent(self.id.as_str())) };
        let checkpoint = Checkpoint {
            number,
            name,
            at_us: self.context.clock.now_us(),
            cause,
            spec: record.spec.clone(),
            origins: record.origins.clone(),
            in_force: record.in_force.clone(),
            target: record.target,
            fork,
        };
        // Without the row, the next step that has to do with checkpoints deletes the files.
        self.context.db.add_checkpoint(&self.id, &checkpoint).await.map_err(|error| db_failure(&error))?;
        tracing::info!(AOS_AGENT = %self.id, number, cause = cause.as_str(), "checkpoint");
        self.kept.checkpoints.push(checkpoint);
        self.publish().await;
        Ok(Checkpointed { done, number, file })
    }

    async fn fork_note(&self) -> Result<Option<Fork>, Failure> {
        let (places, id) = (self.context.settings.places.clone(), self.id.clone());
        files::blocking("read whose fork it is", move || forks::read(&places, &id))
            .await
            .map_err(file_failure)
    }

    /// Has a step done, and waits for it. The request stays until it is forgotten, so that a start in between ends
    /// what was cut short.
    async fn do_step(&self, step: CheckpointStep) -> Result<Answered, Failure> {
        let operation = Operation::Checkpoint(step);
        let token = format!("{:x}", self.context.clock.now_us());
        let (places, id) = (self.context.settings.places.clone(), self.id.clone());
        let (asked, request_token) = (operation.clone(), token.clone());
        files::blocking("write a request", move || write_request(&places, &id, asked, request_token))
            .await
            .map_err(file_failure)??;
        let job = self.context.systemd.work_on_workspace(&self.id).await;
        let job = job.map_err(|error| Failure::failed(&error))?;
        tracing::info!(AOS_AGENT = %self.id, operation = operation.as_str(), "working on its workspace");
        let end = job_end(&mut Some(Pending::new(job, Instant::now() + DEADLINE))).await;
        let answer = self.context.settings.places.reports.join(self.id.as_str());
        let answer = answer.join(format!("answer-{token}.json"));
        match (end, files::blocking("open an answer", move || open_answer(&answer)).await) {
            (JobEnd::Result(result), Ok(file)) => Ok(Answered { done: result == JobResult::Done, file }),
            (_, Err(error)) if !error.is_missing() => Err(file_failure(error)),
            (end, _) => Err(self.no_answer(&operation, end)),
        }
    }

    async fn forget_request(&self) -> Result<(), Failure> {
        let path = request_path(&self.context.settings.places, &self.id);
        files::blocking("remove a request", move || files::remove_durably(&path)).await.map_err(file_failure)
    }

    /// Removes checkpoints: first what is known of them, then their files.
    pub(super) async fn remove_checkpoints(&mut self, which: &[Which]) -> Result<(), Failure> {
        self.refuse_other_work("have checkpoints removed")?;
        let numbers = which.iter().map(|which| self.find_number(which)).collect::<Result<Vec<_>, _>>()?;
        self.forget_checkpoints(&numbers).await
    }

    async fn forget_checkpoints(&mut self, numbers: &[u32]) -> Result<(), Failure> {
        let removed = self.context.db.remove_checkpoints(&self.id, numbers).await;
        removed.map_err(|error| db_failure(&error))?;
        self.kept.checkpoints.retain(|one| !numbers.contains(&one.number));
        self.kept.damaged.retain(|number| !numbers.contains(number));
        self.publish().await;
        let Answered { done, .. } = self.do_step(CheckpointStep::Prune { keep: self.kept.numbers() }).await?;
        match done {
            // One that was not done stays, so that the next start ends it: something may be staged.
            true => self.forget_request().await,
            false => Err(Failure::new(
                ErrorKind::Failed,
                format!(
                    "checkpoints of agent {} are forgotten, but their files are not deleted yet",
                    self.id
                ),
            )
            .with_hint(&format!(
                "the next checkpoint does it; journalctl -u aos-workspace@{}.service",
                self.id
            ))),
        }
    }

    fn find_number(&self, which: &Which) -> Result<u32, Failure> {
        match which {
            Which::Number(number) if self.kept.damaged.contains(number) => Ok(*number),
            _ => find(&self.kept, which, &self.id).map(|one| one.number),
        }
    }

    /// Brings a checkpoint back; the agent is stopped, before and after. The number in the answer is that of the
    /// checkpoint which has what was replaced.
    pub(super) async fn restore(&mut self, which: &Which, may_grant: bool) -> Result<Checkpointed, Failure> {
        self.refuse_other_work("be restored")?;
        self.look().await?;
        self.refuse_when_active("be restored")?;
        let checkpoint = find(&self.kept, which, &self.id)?.clone();
        self.check_restorable(&checkpoint, may_grant).await?;
        let replaced = self.next_number(None)?;
        self.change(|record| record.plan_stale = true).await?;
        let before = self.sight();
        self.remove_old_plan().await?;
        let saved = self.save(replaced, None, Cause::Replaced).await?;
        if !saved.done {
            return Ok(saved);
        }
        match self.put_checkpoint(&checkpoint, &before).await {
            Ok(None) => Ok(saved),
            // Nothing was replaced, so nothing is kept of it.
            Ok(Some(Answered { done, file })) => {
                self.forget_checkpoints(&[replaced]).await?;
                Ok(Checkpointed { done, number: 0, file })
            }
            Err(failure) if self.restoring.is_some() => Err(failure),
            Err(failure) => {
                self.forget_checkpoints(&[replaced]).await?;
                Err(failure)
            }
        }
    }

    /// Everything that can be known before anything is touched.
    async fn check_restorable(&self, checkpoint: &Checkpoint, may_grant: bool) -> Result<(), Failure> {
        let (id, spec) = (&self.id, &checkpoint.spec);
        let Some(record) = &self.record else { return Err(Failure::no_agent(id.as_str())) };
        if !may_grant && is_wider(&self.context.packages, record, checkpoint).await? {
            return Err(Failure::refused(format!(
                "checkpoint {} of agent {id} has capabilities that neither the agent nor its package has now; bringing them back needs the right org.aos.agentd1.grant",
                checkpoint.number
            )));
        }
        self.check_trust(spec).await?;
        self.refuse_other_package(spec).await?;
        let (places, own) = (self.context.settings.places.clone(), id.clone());
        let forks = files::blocking("look for forks", move || forks::of(&places, &own));
        if let Some((fork, _)) = forks.await.map_err(file_failure)?.first() {
            return Err(Failure::refused(format!(
                "agent {id} has the fork {fork}, which shares its files; remove forks first"
            )));
        }
        if self.fork_note().await? != checkpoint.fork {
            return Err(Failure::refused(format!(
                "checkpoint {} of agent {id} was made when what is below its files was another agent's, or other files of it",
                checkpoint.number
            )));
        }
        plan_of(&self.context, id, spec).await.map(drop)
    }

    /// Steps 2 to 4 but for what is kept; an answer says why it was not done.
    async fn put_checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
        before: &super::change::Sight,
    ) -> Result<Option<Answered>, Failure> {
        let staged = self.do_step(CheckpointStep::Stage { number: checkpoint.number }).await?;
        if !staged.done {
            return Ok(Some(staged));
        }
        self.look().await?;
        if self.sight() != *before || !self.is_at_rest() {
            return Err(Failure::busy(format!("agent {} ran meanwhile; try again", self.id)));
        }
        let plan = plan_of(&self.context, &self.id, &checkpoint.spec).await?;
        let (folder, id) = (self.context.settings.places.enabled.clone(), self.id.clone());
        files::blocking("change what starts at boot", move || match enabled::is_enabled(&folder, &id) {
            true => enabled::enable(&folder, &id, &plan.unit),
            false => Ok(()),
        })
        .await
        .map_err(file_failure)?;
        self.begin_restore(checkpoint).await?;
        self.go_on_with_restore().await?;
        Ok(None)
    }

    /// Step 3.
    async fn begin_restore(&mut self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let Some(old) = &self.record else { return Err(Failure::no_agent(self.id.as_str())) };
        let record = AgentRecord {
            spec: checkpoint.spec.clone(),
            origins: checkpoint.origins.clone(),
            target: Target::Rest,
            failures: 0,
            retry_at_us: None,
            error: None,
            in_force: None,
            plan_stale: true,
            ..old.clone()
        };
        if let Err(error) = self.context.db.begin_restore(&record, checkpoint.number).await {
            self.restoring = Some(Restoring::Back);
            // Most often this succeeds at once, or the database did nothing.
            if let Err(failure) = self.go_on_with_restore().await {
                self.trouble(&failure);
            }
            return Err(db_failure(&error));
        }
        tracing::info!(AOS_AGENT = %self.id, number = checkpoint.number, "restoring");
        self.record = Some(record);
        self.kept.restoring = Some(checkpoint.number);
        self.restoring = Some(Restoring::Forward);
        self.publish().await;
        Ok(())
    }

    /// Takes a restore that has begun to its end, and one that was given up back. Can be done again.
    pub(super) async fn go_on_with_restore(&mut self) -> Result<(), Failure> {
        match &self.restoring {
            None => return Ok(()),
            Some(Restoring::Back) => {}
            Some(Restoring::Forward) => {
                let Answered { done, .. } = self.do_step(CheckpointStep::Swap).await?;
                if !done {
                    let text = format!(
                        "agent {} is being restored, and its files cannot be put in place; it is tried again",
                        self.id
                    );
                    return Err(Failure::new(ErrorKind::Failed, text)
                        .with_hint(&format!("journalctl -u aos-workspace@{}.service", self.id)));
                }
            }
        }
        if let Some(record) = &mut self.record {
            record.plan_stale = true;
        }
        if let Some(record) = &self.record {
            self.context.db.end_restore(record).await.map_err(|error| db_failure(&error))?;
        }
        // Of one that was given up the request stays: the next start has its copy taken away.
        if matches!(self.restoring, Some(Restoring::Forward)) {
            self.forget_request().await?;
        }
        self.restoring = None;
        self.kept.restoring = None;
        Ok(())
    }
}
