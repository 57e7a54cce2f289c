//! Removing an agent: stop, data, account, files, record, in this order.
//!
//! The wish to remove is in the record before the first step, so that a removal that was cut short, by a crash
//! or by a failing step, is resumed when the supervisor starts or when it is asked for again. Every step may
//! have been done before.

use std::path::PathBuf;
use std::time::Duration;

use aos_client::ErrorKind;
use aos_core::id::AgentId;
use tokio::time::Instant;

use super::Event;
use super::launch::{agent_folder, file_failure};
use super::task::{AgentTask, db_failure};
use super::workspace::listed;
use crate::db::{Removal, Target};
use crate::enabled;
use crate::failure::Failure;
use crate::files::{self, FileError};
use crate::forks;
use crate::packages::Packages;
use crate::quota;
use crate::systemd::{Data, Job, JobResult, Phase, Systemd, SystemdError};

/// Longest wait for the stop (its time-out is 30 s) and for the account's removal (30 s).
const JOB_DEADLINE: Duration = Duration::from_secs(90);
/// Longest wait for systemd to delete the data; a large workspace takes a while.
const CLEAN_DEADLINE: Duration = Duration::from_secs(300);
/// How often the unit is looked at while its data is deleted, when no signal comes.
const CLEAN_POLL: Duration = Duration::from_millis(250);

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// Removes the agent. On failure the record stays, marked, and the removal can be asked for again.
    pub(super) async fn remove(&mut self, removal: Removal) -> Result<(), Failure> {
        if self.record.is_none() {
            return Err(Failure::no_agent(self.id.as_str()));
        }
        self.refuse_when_shared().await?;
        self.want_rest();
        for waiter in std::mem::take(&mut self.stop_waiters) {
            self.answer(waiter, Ok(()));
        }
        if let Some(restart) = self.restart.take() {
            self.answer(restart, Err(Failure::refused("removed before it was started again")));
        }
        self.change(|record| {
            record.removing = Some(removal);
            record.target = Target::Rest;
        })
        .await?;
        self.publish().await;
        match self.remove_all(removal).await {
            Ok(()) => {
                self.record = None;
                tracing::info!(AOS_AGENT = %self.id, "removed");
                self.emit(Event::Removed { id: self.id.clone() }).await;
                Ok(())
            }
            Err(failure) => {
                let failure =
                    Failure::new(failure.kind(), format!("agent {} is not removed: {failure}", self.id))
                        .with_hint(&format!("`aos remove {}` tries again", self.id));
                self.change(|record| record.error = Some(failure.message().to_owned())).await?;
                Err(failure)
            }
        }
    }

    /// Others work with its files, or `aos-workspace` does.
    async fn refuse_when_shared(&self) -> Result<(), Failure> {
        if self.working.is_some() {
            return Err(Failure::busy(format!(
                "agent {} has an operation on its workspace under way; try again when it has ended",
                self.id
            )));
        }
        let (places, id) = (self.context.settings.places.clone(), self.id.clone());
        let forks = files::blocking("look for forks", move || forks::of(&places, &id));
        let forks = forks.await.map_err(file_failure)?;
        let names: Vec<&str> = forks.iter().map(|(id, _)| id.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "agent {} has forks that share its files: {}; remove them first",
            self.id,
            listed(&names)
        )))
    }

    async fn remove_all(&mut self, removal: Removal) -> Result<(), Failure> {
        // First of all it must not start again.
        let (places, id) = (self.context.settings.places.clone(), self.id.clone());
        let disable = move || enabled::disable(&places.enabled, &id);
        files::blocking("change what starts at boot", disable).await.map_err(file_failure)?;
        self.stop_for_removal().await?;
        self.clean(removal).await?;
        self.remove_account().await?;
        let (folder, id) = (agent_folder(&self.context.settings.places, &self.id), self.id.clone());
        let places = self.context.settings.places.clone();
        let forget = move || {
            remove_folder(&folder, &id)?;
            quota::remove(&places, &id)?;
            forks::remove(&places, &id)
        };
        files::blocking("remove", forget).await.map_err(file_failure)?;
        self.context.systemd.release(&self.id).await.map_err(|error| Failure::failed(&error))?;
        self.held = false;
        self.context.db.delete(&self.id).await.map_err(|error| db_failure(&error))
    }

    async fn stop_for_removal(&mut self) -> Result<(), Failure> {
        self.look().await?;
        self.starting = None;
        self.stopping = None;
        // Also when it is at rest: a queued start is cancelled by it.
        let job = self.stop_job().await?;
        finish(job, "stop").await?;
        self.look().await?;
        if !self.seen.phase.is_at_rest() {
            return Err(Failure::new(ErrorKind::Failed, "it does not stop"));
        }
        self.context.systemd.reset_failed(&self.id).await.map_err(|error| Failure::failed(&error))
    }

    /// Lets systemd delete the agent's folders.
    async fn clean(&mut self, removal: Removal) -> Result<(), Failure> {
        let data: &[Data] = match removal {
            Removal::KeepWorkspace => &[Data::Runtime],
            Removal::DeleteWorkspace => &[Data::State, Data::Runtime],
        };
        self.context.systemd.clean(&self.id, data).await.map_err(|error| Failure::failed(&error))?;
        let deadline = Instant::now() + CLEAN_DEADLINE;
        loop {
            self.look().await?;
            match self.seen.phase {
                Phase::Inactive => return Ok(()),
                Phase::Failed => {
                    return Err(Failure::new(ErrorKind::Failed, "systemd could not delete its data"));
                }
                _ if Instant::now() > deadline => {
                    return Err(Failure::new(ErrorKind::Failed, "its data is still being deleted"));
                }
                _ => self.wait_for_poke(CLEAN_POLL).await,
            }
        }
    }

    async fn remove_account(&self) -> Result<(), Failure> {
        let hint = format!("journalctl -u aos-account-remove@{}.service", self.id);
        let start = |error: SystemdError| Failure::failed(&error);
        let job = self.context.systemd.remove_account(&self.id).await.map_err(start)?;
        finish(job, "remove the Unix user of").await.map_err(|failure| failure.with_hint(&hint))
    }
}

/// Waits for a job of the removal.
async fn finish(job: Job, what: &str) -> Result<(), Failure> {
    match tokio::time::timeout(JOB_DEADLINE, job.end).await {
        Ok(Ok(JobResult::Done)) => Ok(()),
        Ok(Ok(result)) => Err(Failure::new(ErrorKind::Failed, format!("cannot {what} it: job {result:?}"))),
        Ok(Err(_)) => Err(Failure::new(ErrorKind::Failed, "systemd started anew meanwhile")),
        Err(_) => Err(Failure::new(
            ErrorKind::Failed,
            format!("cannot {what} it within {} s", JOB_DEADLINE.as_secs()),
        )),
    }
}

/// Removes the agent's own folder, and nothing else: the folder's name is the agent's id.
fn remove_folder(folder: &PathBuf, id: &AgentId) -> Result<(), FileError> {
    if folder.file_name().and_then(|name| name.to_str()) != Some(id.as_str()) {
        return Err(FileError::new("remove", folder, std::io::ErrorKind::InvalidInput));
    }
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::new("remove", folder, error))
        }
        _ => Ok(()),
    }
}
