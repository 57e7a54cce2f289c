//! From a record to a plan on the disk that the unit's launcher will find.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aos_core::id::AgentId;
use aos_core::path::AbsolutePath;
use aos_sandbox::plan::workspace::Transaction;
use aos_sandbox::plan::{PlanInput, SandboxPlan, UnitLimits, derive, derive_transaction};

use super::task::db_failure;
use super::workspace::is_transactional;
use super::{AgentTask, Context};
use crate::db::{Spec, Target};
use crate::failure::Failure;
use crate::files::{self, FileError};
use crate::forks;
use crate::packages::{Package, Packages};
use crate::quota;
use crate::settings::Places;
use crate::systemd::Systemd;

/// The plan's mode: root reads it for the unit as a credential; nobody else but the supervisor needs it.
pub(super) const PLAN_MODE: u32 = 0o640;
/// The folders of plans are the supervisor's.
const FOLDER_MODE: u32 = 0o700;

/// The folder of an agent's files below the state folder.
pub(super) fn agent_folder(places: &Places, id: &AgentId) -> PathBuf {
    places.state.join("agents").join(id.as_str())
}

/// The agent's plan file.
pub(crate) fn plan_path(places: &Places, id: &AgentId) -> PathBuf {
    agent_folder(places, id).join("plan.json")
}

/// The plan that a run which goes on was started with, when the agent's plan file is a newer one.
pub(crate) fn plan_in_force_path(places: &Places, id: &AgentId) -> PathBuf {
    agent_folder(places, id).join("plan-in-force.json")
}

/// Derives the plan of an agent that is made of `spec` and `package`: the package's declaration with the
/// agent's own capabilities and limits in its place. Blocking: it looks at the package's root.
pub fn derive_plan(
    places: &Places,
    id: &AgentId,
    spec: &Spec,
    package: &Package,
) -> Result<SandboxPlan, Failure> {
    let mut declared = package.config.clone();
    declared.capabilities = spec.capabilities.clone();
    declared.limits = spec.limits.clone();
    let entries =
        aos_sandbox::rootfs::scan(package.rootfs.as_path()).map_err(|error| Failure::failed(&error))?;
    let workspace = workspace(places, id)?;
    let input = PlanInput {
        agent: &declared,
        id,
        arguments: &spec.arguments,
        rootfs: &package.rootfs,
        entries: &entries,
        workspace: &workspace,
    };
    let plan = if is_transactional(&declared) {
        let (lower, changes) = (forks::lower(places, id)?, forks::changes(places, id)?);
        derive_transaction(&input, &Transaction { lower: &lower.layers, changes: &changes })
    } else if forks::read(places, id).map_err(file_failure)?.is_some() {
        return Err(Failure::refused(format!(
            "agent {id} is a fork, whose package needs `run.workspace: transactional`; remove the agent first"
        )));
    } else {
        derive(&input)
    };
    plan.map_err(|error| Failure::refused(error.to_string()))
}

fn workspace(places: &Places, id: &AgentId) -> Result<AbsolutePath, Failure> {
    let path = places.workspaces.join(id.as_str());
    let text = path.to_str().ok_or_else(|| Failure::invalid("the folder of workspaces is not UTF-8"))?;
    text.parse().map_err(Failure::invalid)
}

/// Puts the plan where the unit's `LoadCredential=` reads it.
pub(super) fn write_plan(path: &Path, plan: &SandboxPlan) -> Result<(), FileError> {
    let bytes = plan.to_json().map_err(|error| FileError::new("write", path, io::Error::other(error)))?;
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    files::write_atomic(path, &bytes, PLAN_MODE)
}

fn make_folder(folder: &Path) -> Result<(), FileError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
        .map_err(|error| FileError::new("make", folder, error))
}

/// Makes the folder of an agent's files.
pub(super) fn make_agent_folder(places: &Places, id: &AgentId) -> Result<(), FileError> {
    make_folder(&agent_folder(places, id))
}

/// Derives the plan on a blocking thread.
pub(crate) async fn plan_of<S, P: Packages>(
    context: &Arc<Context<S, P>>,
    id: &AgentId,
    spec: &Spec,
) -> Result<SandboxPlan, Failure> {
    let package = context.packages.get(&spec.reference, &spec.digest).await?;
    let (settings, id, spec) = (Arc::clone(&context.settings), id.clone(), spec.clone());
    tokio::task::spawn_blocking(move || derive_plan(&settings.places, &id, &spec, &package))
        .await
        .unwrap_or_else(|error| Err(Failure::failed(&error)))
}

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// Everything before the start job: plan, limits, a clean unit. Returns the queued job.
    pub(super) async fn launch(&mut self, spec: &Spec) -> Result<crate::systemd::Job, Failure> {
        let before = self.sight();
        self.check_trust(spec).await?;
        self.end_cut_short().await?;
        let plan = plan_of(&self.context, &self.id, spec).await?;
        let limits = plan.unit;
        let (places, id) = (self.context.settings.places.clone(), self.id.clone());
        files::blocking("write the plan", move || {
            quota::write(&places, &id, plan.disk)?;
            write_plan(&plan_path(&places, &id), &plan)
        })
        .await
        .map_err(file_failure)?;
        self.plan_is_written(&before).await?;
        let (id, systemd) = (&self.id, &self.context.systemd);
        let failed = |error: crate::systemd::SystemdError| Failure::failed(&error);
        systemd.reset_failed(id).await.map_err(failed)?;
        systemd.limit(id, &limits, &self.seen.limits).await.map_err(failed)?;
        systemd.start(id).await.map_err(failed)
    }
}

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// Once after the supervisor started: limits that systemd does not have, which is so after a boot, are set, so
    /// that a plain `systemctl start` of the unit has them in force. What systemd has is not touched, and each start
    /// by the supervisor sets all of them anyway.
    pub(super) async fn check_limits(&mut self) -> Result<(), Failure> {
        // A start that is about to be made sets them.
        let is_due = !self.limits_checked && !self.start_asked;
        let Some(record) = self.record.as_ref().filter(|_| is_due) else { return Ok(()) };
        // The same as the plan's: it is derived with the record's limits.
        let limits = UnitLimits::of(&record.spec.limits);
        if !self.seen.has(&limits) {
            let _permit = self.context.limiting.acquire().await.map_err(|error| Failure::failed(&error))?;
            tracing::info!(AOS_AGENT = %self.id, "setting its limits");
            let had = self.seen.limits;
            self.context
                .systemd
                .limit(&self.id, &limits, &had)
                .await
                .map_err(|error| Failure::failed(&error))?;
        }
        self.limits_checked = true;
        Ok(())
    }
}

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// Says why the package may not be started.
    pub(super) async fn check_trust(&self, spec: &Spec) -> Result<(), Failure> {
        self.context.packages.check_trust(&spec.reference, &spec.digest).await
    }

    /// Somebody else started the unit: `systemctl start`, or the boot, with the plan of an earlier start. It is
    /// wanted from now on, unless its package is not trusted any more: then it is stopped.
    pub(super) async fn adopt(&mut self) -> Result<(), Failure> {
        let Some(spec) = self.record.as_ref().map(|record| record.spec.clone()) else { return Ok(()) };
        match self.check_trust(&spec).await {
            Ok(()) => {
                self.change(|record| {
                    record.target = Target::Run;
                    record.error = None;
                })
                .await
            }
            Err(failure) => {
                tracing::warn!(AOS_AGENT = %self.id, error = %failure, "started by another and refused");
                self.distrusted = Some(failure.message().to_owned());
                self.want_rest();
                self.store().await.map_err(|error| db_failure(&error))
            }
        }
    }
}

/// The failure for a file error, which may be a full disk.
pub(super) fn file_failure(error: FileError) -> Failure {
    let failure = Failure::failed(&error);
    if error.is_full() {
        Failure::new(aos_client::ErrorKind::NoSpace, failure.message())
            .with_hint("free some space and try again")
    } else {
        failure
    }
}
