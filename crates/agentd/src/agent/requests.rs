//! What an agent's task does with a command: it changes what is wanted and notes who waits; reconciling does the
//! rest, and the end of a job gives the answer.

use aos_core::state::AgentState;

use super::launch::{file_failure, plan_of, plan_path, write_plan};
use super::task::{AgentTask, db_failure};
use super::{AtBoot, Command, Reply};
use crate::db::{AgentRecord, DbError, InvocationId, Spec, Target};
use crate::enabled;
use crate::failure::Failure;
use crate::files;
use crate::packages::Packages;
use crate::quota;
use crate::systemd::Systemd;

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// Serves one command.
    pub(super) async fn serve(&mut self, command: Command) {
        match command {
            Command::Run(spec, reply) => self.run_new(*spec, reply).await,
            Command::Start(reply) => self.ask_start(reply),
            Command::Restart(reply) => self.ask_restart(reply).await,
            Command::Stop(reply) => self.ask_stop(reply).await,
            Command::Pause(reply) => {
                let result = self.pause().await;
                self.answer(reply, result);
            }
            Command::Resume(reply) => {
                let result = self.resume().await;
                self.answer(reply, result);
            }
            Command::Enable(at_boot, reply) => {
                let result = self.set_enabled(at_boot).await;
                self.answer(reply, result);
            }
            Command::Change(change, reply) => {
                let result = self.change_capabilities(&change).await;
                self.answer(reply, result);
            }
            Command::Workspace(operation, reply) => self.work(*operation, reply).await,
            Command::Checkpoint(name, reply) => {
                let result = self.checkpoint(name).await;
                self.answer(reply, result);
            }
            Command::Restore(which, may_grant, reply) => {
                let result = self.restore(&which, may_grant).await;
                self.answer(reply, result);
            }
            Command::RemoveCheckpoints(which, reply) => {
                let result = self.remove_checkpoints(&which).await;
                self.answer(reply, result);
            }
            Command::Remove(removal, reply) => {
                let result = self.remove(removal).await;
                self.answer(reply, result);
            }
        }
    }

    /// Makes or replaces the record, then starts. Nothing is stored when the plan cannot be derived.
    async fn run_new(&mut self, spec: Spec, reply: Reply<InvocationId>) {
        match self.replace_record(spec).await {
            Ok(()) => self.ask_start(reply),
            Err(failure) => self.answer(reply, Err(failure)),
        }
    }

    async fn replace_record(&mut self, spec: Spec) -> Result<(), Failure> {
        self.refuse_when_active("be run anew")?;
        self.refuse_other_package(&spec).await?;
        self.check_trust(&spec).await?;
        let plan = plan_of(&self.context, &self.id, &spec).await?;
        let (folder, id) = (self.context.settings.places.enabled.clone(), self.id.clone());
        files::blocking("change what starts at boot", move || match enabled::is_enabled(&folder, &id) {
            true => enabled::enable(&folder, &id, &plan.unit),
            false => Ok(()),
        })
        .await
        .map_err(file_failure)?;
        let origins = self.origins_of_new(&spec).await?;
        let old = self.record.as_ref();
        let record = AgentRecord {
            id: self.id.clone(),
            spec,
            target: Target::Rest,
            failures: 0,
            retry_at_us: None,
            error: None,
            removing: None,
            created_at_us: old.map_or_else(|| self.context.clock.now_us(), |old| old.created_at_us),
            origins,
            in_force: None,
            plan_stale: true,
            run: old.and_then(|old| old.run.clone()),
        };
        if let Err(failure) = self.remove_old_plan().await {
            self.keep_old_record(None).await;
            return Err(failure);
        }
        if let Err(error) = self.context.db.put(&record).await {
            self.keep_old_record(Some(&error)).await;
            return Err(db_failure(&error));
        }
        self.record = Some(record);
        // Visible before the answer: from now on its package is in use.
        self.publish().await;
        self.look().await
    }

    /// Before the new record: after a crash in between nothing may start with what the agent had. What began with it
    /// right before is seen afterwards.
    pub(super) async fn remove_old_plan(&mut self) -> Result<(), Failure> {
        if self.record.is_none() {
            return Ok(());
        }
        let path = plan_path(&self.context.settings.places, &self.id);
        let removed = files::blocking("remove the plan", move || files::remove_durably(&path)).await;
        removed.map_err(file_failure)?;
        self.look().await?;
        self.refuse_when_active("be run anew")
    }

    /// The new record is not stored, or may be later: what there was comes back, with its plan.
    async fn keep_old_record(&mut self, error: Option<&DbError>) {
        match &mut self.record {
            Some(record) => record.plan_stale = true,
            None if matches!(error, Some(DbError::Deadline)) => {
                if let Err(error) = self.context.db.delete(&self.id).await {
                    tracing::error!(AOS_AGENT = %self.id, %error, "an agent that was not made may be there later");
                }
            }
            None => {}
        }
    }

    pub(super) fn refuse_when_active(&self, what: &str) -> Result<(), Failure> {
        let id = &self.id;
        if self.record.as_ref().is_some_and(|record| record.removing.is_some()) {
            return Err(Failure::refused(format!(
                "agent {id} is being removed; `aos remove {id}` tries again"
            )));
        }
        self.refuse_when_restoring(what)?;
        if self.changes_workspace() {
            return Err(Failure::busy(format!(
                "agent {id} cannot {what} while its workspace is being changed; try again when that has ended"
            )));
        }
        if self.is_at_rest() && !self.start_asked {
            return Ok(());
        }
        let state = self.state().unwrap_or(AgentState::Running);
        let failure = Failure::refused(format!("agent {id} is {state}, so it cannot {what}"));
        Err(match state {
            AgentState::Paused => {
                failure.with_hint(&format!("let it go on (aos resume {id}) or stop it first (aos stop {id})"))
            }
            _ => failure.with_hint(&format!("stop it first (aos stop {id})")),
        })
    }

    /// Asks for a start; the answer comes when the job has ended.
    pub(super) fn ask_start(&mut self, reply: Reply<InvocationId>) {
        if let Err(failure) = self.refuse_when_active("be started") {
            return self.answer(reply, Err(failure));
        }
        let Some(record) = &mut self.record else {
            return self.answer(reply, Err(Failure::no_agent(self.id.as_str())));
        };
        record.target = Target::Run;
        record.failures = 0;
        record.retry_at_us = None;
        record.error = None;
        self.start_asked = true;
        self.start_waiters.push(reply);
    }

    async fn ask_restart(&mut self, reply: Reply<InvocationId>) {
        let spec = self.record.as_ref().map(|record| record.spec.clone());
        let Some(spec) = spec.filter(|_| !self.is_at_rest()) else { return self.ask_start(reply) };
        // Asked before the stop: what may not be started again goes on.
        if let Err(failure) = self.check_trust(&spec).await {
            return self.answer(reply, Err(failure));
        }
        if self.restart.is_some() {
            return self
                .answer(reply, Err(Failure::busy(format!("agent {} is being restarted already", self.id))));
        }
        self.want_rest();
        self.restart = Some(reply);
    }

    async fn ask_stop(&mut self, reply: Reply<()>) {
        if self.record.is_none() {
            return self.answer(reply, Err(Failure::no_agent(self.id.as_str())));
        }
        self.want_rest();
        if let Some(restart) = self.restart.take() {
            self.answer(restart, Err(Failure::refused("stopped before it was started again")));
        }
        // The wish survives a crash before the stop is done.
        if let Err(error) = self.store().await {
            return self.answer(reply, Err(db_failure(&error)));
        }
        self.stop_waiters.push(reply);
    }

    pub(super) fn want_rest(&mut self) {
        self.start_asked = false;
        if let Some(record) = &mut self.record {
            record.target = Target::Rest;
            record.retry_at_us = None;
        }
        for waiter in std::mem::take(&mut self.start_waiters) {
            self.answer(waiter, Err(Failure::refused("stopped while it was starting")));
        }
    }

    /// What `systemctl enable` made, the supervisor may not undo.
    fn refuse_when_unit_enabled(&self) -> Result<(), Failure> {
        if !self.seen.unit_file_enabled {
            return Ok(());
        }
        let unit = self.id.unit_name();
        Err(Failure::refused(format!("agent {} still starts at boot: its unit is enabled", self.id))
            .with_hint(&format!("systemctl disable {unit}")))
    }

    async fn set_enabled(&mut self, at_boot: AtBoot) -> Result<(), Failure> {
        let Some(record) = &self.record else { return Err(Failure::no_agent(self.id.as_str())) };
        let spec = record.spec.clone();
        let (places, id) = (self.context.settings.places.clone(), self.id.clone());
        if at_boot == AtBoot::Ignore {
            let disable = move || enabled::disable(&places.enabled, &id);
            files::blocking("change what starts at boot", disable).await.map_err(file_failure)?;
            return self.refuse_when_unit_enabled();
        }
        self.refuse_when_restoring("be made to start at boot")?;
        self.check_trust(&spec).await?;
        // The unit reads the plan at boot, when the supervisor may not be there to write it.
        let plan = plan_of(&self.context, &self.id, &spec).await?;
        files::blocking("change what starts at boot", move || {
            quota::write(&places, &id, plan.disk)?;
            write_plan(&plan_path(&places, &id), &plan)?;
            enabled::enable(&places.enabled, &id, &plan.unit)
        })
        .await
        .map_err(file_failure)
    }
}
