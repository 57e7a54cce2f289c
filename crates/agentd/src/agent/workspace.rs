//! Operations on a transactional workspace. They are `aos-workspace@ID.service`'s, as the agent's own user: here it
//! is decided whether they may be done, the request is written, and the answer's file is opened and handed on,
//! unread. One at a time for each agent; what changes layers keeps the agent from starting meanwhile.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use aos_client::ErrorKind;
use aos_core::id::AgentId;
use aos_core::workspace::{CheckpointStep, Operation, Request, VERSION};
use aos_sandbox::plan::DiskLimit;
use rustix::fs::{FileType, Mode, OFlags};
use tokio::time::Instant;

use super::jobs::{JobEnd, Pending, job_end};
use super::launch::{PLAN_MODE, agent_folder, file_failure};
use super::{AgentTask, Reply};
use crate::db::Spec;
use crate::failure::Failure;
use crate::files::{self, FileError};
use crate::forks;
use crate::packages::Packages;
use crate::quota;
use crate::settings::Places;
use crate::systemd::{JobResult, Systemd};

/// Longest wait for the job: the unit's time-out (300 s), the account's before it (30 s), and room.
pub(super) const DEADLINE: Duration = Duration::from_secs(360);
/// Names of forks in a refusal.
const NAMED_MAX: usize = 5;

/// What came of an operation.
#[derive(Debug)]
pub struct Answered {
    /// Whether it was done.
    pub done: bool,
    /// The answer, as `aos_core::workspace::Answer` in JSON.
    pub file: OwnedFd,
}

/// An operation that is under way.
#[derive(Debug)]
pub(super) struct Working {
    pending: Option<Pending>,
    operation: Operation,
    token: String,
    reply: Reply<Answered>,
}

impl Working {
    /// The end of the job, or never when nothing is under way.
    pub(super) async fn end(working: &mut Option<Self>) -> JobEnd {
        match working {
            Some(working) => job_end(&mut working.pending).await,
            None => std::future::pending().await,
        }
    }
}

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// Whether layers of the workspace are being changed.
    pub(super) fn changes_workspace(&self) -> bool {
        self.restoring.is_some()
            || self.working.as_ref().is_some_and(|working| !working.operation.only_reads())
    }

    /// Begins an operation; the answer comes when its job has ended.
    pub(super) async fn work(&mut self, operation: Operation, reply: Reply<Answered>) {
        let token = format!("{:x}", self.context.clock.now_us());
        match self.begin_work(&operation, &token).await {
            Ok(pending) => {
                self.working = Some(Working { pending: Some(pending), operation, token, reply });
            }
            Err(failure) => self.answer(reply, Err(failure)),
        }
    }

    async fn begin_work(&mut self, operation: &Operation, token: &str) -> Result<Pending, Failure> {
        let id = self.id.clone();
        let Some(record) = &self.record else { return Err(Failure::no_agent(id.as_str())) };
        self.refuse_when_restoring("have its workspace worked on")?;
        if self.working.is_some() {
            return Err(Failure::busy(format!(
                "agent {id} has another operation on its workspace under way; try again when it has ended"
            )));
        }
        let package = self.context.packages.get(&record.spec.reference, &record.spec.digest).await?;
        if !is_transactional(&package.config) {
            return Err(Failure::refused(format!(
                "agent {id} has a workspace that is changed in place; `run.workspace: transactional` in its Agentfile keeps changes apart"
            )));
        }
        if !operation.only_reads() {
            self.refuse_when_active(&format!(
                "have its workspace changed underneath it by a {}",
                operation.as_str()
            ))?;
        }
        let (places, asked, token) =
            (self.context.settings.places.clone(), operation.clone(), token.to_owned());
        files::blocking("write a request", move || write_request(&places, &id, asked, token))
            .await
            .map_err(file_failure)??;
        let job = self.context.systemd.work_on_workspace(&self.id).await;
        let job = job.map_err(|error| Failure::failed(&error))?;
        tracing::info!(AOS_AGENT = %self.id, operation = operation.as_str(), "working on its workspace");
        Ok(Pending::new(job, Instant::now() + DEADLINE))
    }

    /// Before a start: what was cut short is ended, since the launcher would refuse. A request that is still there was
    /// not done, or nobody was there to see that it was.
    pub(super) async fn end_cut_short(&self) -> Result<(), Failure> {
        let (places, id) = (self.context.settings.places.clone(), self.id.clone());
        let path = request_path(&places, &id);
        // What cannot be looked at is not missing.
        if !tokio::fs::try_exists(&path).await.unwrap_or(true) {
            return Ok(());
        }
        tracing::info!(AOS_AGENT = %id, "ending an operation on its workspace that was cut short");
        for _ in 0..2 {
            if self.end_cut_short_once().await? {
                let remove = move || files::remove_durably(&path);
                return files::blocking("remove a request", remove).await.map_err(file_failure);
            }
        }
        Err(self.not_ended())
    }

    /// False when the job was that of an operation which went on, asked for by a supervisor that is no more: what is
    /// asked for here has no answer then, and was not done.
    async fn end_cut_short_once(&self) -> Result<bool, Failure> {
        let (places, id) = (self.context.settings.places.clone(), self.id.clone());
        // Every operation does that first, and this one nothing else.
        let token = format!("{:x}", self.context.clock.now_us());
        let answer = places.reports.join(id.as_str()).join(format!("answer-{token}.json"));
        let write = move || write_request(&places, &id, Operation::Snapshots, token);
        files::blocking("write a request", write).await.map_err(file_failure)??;
        let job = self.context.systemd.work_on_workspace(&self.id).await;
        let mut pending =
            Some(Pending::new(job.map_err(|error| Failure::failed(&error))?, Instant::now() + DEADLINE));
        match job_end(&mut pending).await {
            JobEnd::Result(JobResult::Done) => Ok(answer.exists()),
            // Such an operation may fail, too.
            JobEnd::Result(_) if !answer.exists() => Ok(false),
            _ => Err(self.not_ended()),
        }
    }

    fn not_ended(&self) -> Failure {
        let id = &self.id;
        let text = format!("an operation on the workspace of agent {id} was cut short and cannot be ended");
        Failure::new(ErrorKind::Failed, text).with_hint(&format!("journalctl -u aos-workspace@{id}.service"))
    }

    /// A fork and the agent that it comes from are one Unix user with one package.
    pub(super) async fn refuse_other_package(&self, spec: &Spec) -> Result<(), Failure> {
        let old = self.record.as_ref().map(|record| record.spec.digest);
        if old == Some(spec.digest) {
            return Ok(());
        }
        let (places, id, is_new) = (self.context.settings.places.clone(), self.id.clone(), old.is_none());
        let look = move || {
            if is_new {
                return Ok(forks::refuse_noted(&places, &id));
            }
            let other = match forks::read(&places, &id)? {
                Some(fork) => Some(format!("is a fork of {}", fork.parent)),
                None => forks::of(&places, &id)?.first().map(|(fork, _)| format!("has the fork {fork}")),
            };
            Ok(other.map_or(Ok(()), |other| {
                Err(Failure::refused(format!(
                    "agent {id} {other}, with the same Unix user, so it cannot become another package; remove forks first, or choose another id"
                )))
            }))
        };
        files::blocking("look for forks", look).await.map_err(file_failure)?
    }

    /// The job ended: a request that was done goes, and the answer is handed on.
    pub(super) async fn work_ended(&mut self, end: JobEnd) {
        let Some(Working { operation, token, reply, .. }) = self.working.take() else { return };
        tracing::info!(AOS_AGENT = %self.id, operation = operation.as_str(), ?end, "worked on its workspace");
        let is_done = end == JobEnd::Result(JobResult::Done);
        let (places, id) = (self.context.settings.places.clone(), self.id.clone());
        let limit = self.record.as_ref().and_then(|record| DiskLimit::of(&record.spec.limits));
        let opened = files::blocking("open an answer", move || {
            // For a start by somebody else; one by the supervisor does it anyway.
            if let Err(error) = quota::write(&places, &id, limit) {
                tracing::warn!(AOS_AGENT = %id, "its limit on the disk is not noted: {}", crate::failure::chain(&error));
            }
            if is_done {
                files::remove_durably(&request_path(&places, &id))?;
            }
            open_answer(&places.reports.join(id.as_str()).join(format!("answer-{token}.json")))
        });
        let result = match (end, opened.await) {
            (JobEnd::Result(_), Ok(file)) => Ok(Answered { done: is_done, file }),
            (_, Err(error)) if !error.is_missing() => Err(file_failure(error)),
            (end, _) => Err(self.no_answer(&operation, end)),
        };
        self.answer(reply, result);
    }

    pub(super) fn no_answer(&self, operation: &Operation, end: JobEnd) -> Failure {
        let why = match end {
            JobEnd::Late => "it is still under way",
            JobEnd::Lost => "systemd started anew meanwhile",
            JobEnd::Result(JobResult::Timeout) => "it took too long; the next one ends it",
            JobEnd::Result(_) => "it gave no answer",
        };
        let text = format!("agent {}: {} of its workspace: {why}", self.id, operation.as_str());
        Failure::new(ErrorKind::Failed, text)
            .with_hint(&format!("journalctl -u aos-workspace@{}.service", self.id))
    }
}

/// Whether a package wants changes kept apart.
pub(crate) fn is_transactional(config: &aos_core::config::ResolvedAgent) -> bool {
    config.run().is_ok_and(|run| run.workspace == aos_core::config::Workspace::Transactional)
}

pub(super) fn request_path(places: &Places, id: &AgentId) -> std::path::PathBuf {
    agent_folder(places, id).join("workspace.json")
}

/// Writes what the unit's `LoadCredential=` reads, if no fork stands against it.
pub(super) fn write_request(
    places: &Places,
    id: &AgentId,
    operation: Operation,
    token: String,
) -> Result<Result<(), Failure>, FileError> {
    if let Some(failure) = refused_by_forks(places, id, &operation)? {
        return Ok(Err(failure));
    }
    let paths = forks::lower(places, id).and_then(|lower| Ok((lower, forks::changes(places, id)?)));
    let (lower, changes) = match paths {
        Ok(paths) => paths,
        Err(failure) => return Ok(Err(failure)),
    };
    let request = Request {
        version: VERSION,
        token,
        reader_uid: rustix::process::geteuid().as_raw(),
        changes,
        lower: lower.layers,
        below: lower.below,
        operation,
    };
    let path = request_path(places, id);
    let bytes = serde_json::to_vec(&request)
        .map_err(|error| FileError::new("write", &path, io::Error::other(error)))?;
    super::launch::make_agent_folder(places, id)?;
    if needs_room(&request.operation) {
        quota::lift(places, id)?;
    }
    files::write_atomic(&path, &bytes, PLAN_MODE).map(Ok)
}

/// What has content twice before it has it once. The agent is at rest and nobody shares its user meanwhile, so its limit
/// on the disk can wait; the next start sets it again.
const fn needs_room(operation: &Operation) -> bool {
    matches!(operation, Operation::Commit { .. } | Operation::Checkpoint(CheckpointStep::Stage { .. }))
}

/// A commit or discard would change layers that forks share.
fn refused_by_forks(
    places: &Places,
    id: &AgentId,
    operation: &Operation,
) -> Result<Option<Failure>, FileError> {
    let kept = match operation {
        Operation::Commit { .. } => u32::MAX,
        Operation::Discard { to } => to.unwrap_or(0),
        // A restore looks for forks itself, for as long as it takes.
        Operation::Diff { .. }
        | Operation::Snapshot { .. }
        | Operation::Snapshots
        | Operation::Checkpoint(_) => return Ok(None),
    };
    if matches!(operation, Operation::Commit { .. }) && forks::read(places, id)?.is_some() {
        return Ok(Some(Failure::refused(format!(
            "agent {id} is a fork: what is below its changes is its parent's and never changed; take what you want from `aos diff --patch {id}`"
        ))));
    }
    let forks = forks::of(places, id)?;
    let shared = forks.iter().filter(|(_, fork)| kept == u32::MAX || fork.newest > kept);
    let names: Vec<&str> = shared.map(|(id, _)| id.as_str()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    Ok(Some(Failure::refused(format!(
        "agent {id} has forks that share its files, which a {} would change: {}; remove them first",
        operation.as_str(),
        listed(&names)
    ))))
}

/// The first names, and how many more there are.
pub(super) fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Opens an answer without reading it: a regular file, no link, nothing that waits.
pub(super) fn open_answer(path: &Path) -> Result<OwnedFd, FileError> {
    let failed = |error: rustix::io::Errno| FileError::new("open", path, error);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(FileError::new("open", path, io::ErrorKind::InvalidData)),
    }
}
