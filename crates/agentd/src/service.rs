//! The operations on agents and packages, with valid types in and out. The bus server parses and authorises, then
//! calls these; everything that needs more than one agent's task is here.
//!
//! A package that is about to be used is reserved ([`Reservations`]) before it is looked up, and a package is
//! removed only when it is neither used by a record nor reserved, which the store asks while nobody can look
//! one up. So a package cannot vanish between "it is there" and "an agent is made of it".

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aos_client::{AgentView, CapabilityView, ChangedView, PackageView};
use aos_core::capability::CapabilitySet;
use aos_core::config::Limits;
use aos_core::id::{AgentId, Digest, PackageRef};
use aos_sandbox::plan::Outline;

use crate::agent::change::Changed;
use crate::agent::{AtBoot, Command, plan_of};
use crate::change::{Apply, Change, Effect};
use crate::db::{InvocationId, Removal, Spec};
use crate::failure::Failure;
use crate::packages::{Collect, Collected, Package, Packages, Source};
use crate::registry::Registry;
use crate::systemd::Systemd;

/// Ids whose Unix user or group would be one of the system's own.
const RESERVED_IDS: &[&str] = &["agents", "apid", "broker"];

/// What a caller of `Run` asks for beside the package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunRequest {
    /// Arguments after those of the package.
    pub arguments: Vec<String>,
    /// A subset of the package's capabilities.
    pub capabilities: Option<CapabilitySet>,
    /// Limits that replace the package's.
    pub limits: Limits,
}

/// The operations.
#[derive(Debug)]
pub struct Service<S, P> {
    registry: Arc<Registry<S, P>>,
    reservations: Arc<Reservations>,
}

impl<S: Systemd, P: Packages> Service<S, P> {
    /// Over the agents of `registry`.
    #[must_use]
    pub fn new(registry: Arc<Registry<S, P>>) -> Self {
        Self { registry, reservations: Arc::default() }
    }

    /// The agents.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry<S, P>> {
        &self.registry
    }

    pub(crate) fn packages(&self) -> &Arc<P> {
        &self.registry.context().packages
    }

    /// Puts an archive into the store, if it is trusted.
    pub async fn install(&self, archive: OwnedFd, source: Source) -> Result<(PackageRef, Digest), Failure> {
        let installed = self.packages().install(archive, source).await?;
        self.tidy().await;
        Ok(installed)
    }

    /// Makes or replaces agent `id` and starts it.
    pub async fn run(
        &self,
        id: &AgentId,
        reference: &PackageRef,
        request: RunRequest,
    ) -> Result<InvocationId, Failure> {
        let package = self.packages().resolve(reference).await?;
        let _reservation = self.reservations.reserve(package.digest);
        // Reserved now; whether it is still there is asked again when the plan is made.
        self.registry.run(id, spec(id, package, request)?).await
    }

    /// What [`Service::run`] would confine the agent by, without making one.
    pub async fn plan(
        &self,
        id: &AgentId,
        reference: &PackageRef,
        request: RunRequest,
    ) -> Result<Outline, Failure> {
        // Not reserved: who may only read must not keep a package from being removed.
        let package = self.packages().resolve(reference).await?;
        self.packages().check_trust(&package.reference, &package.digest).await?;
        let spec = spec(id, package, request)?;
        let plan = plan_of(self.registry.context(), id, &spec).await?;
        Ok(Outline::of(&plan))
    }

    /// Starts an agent.
    pub async fn start(&self, id: &AgentId) -> Result<InvocationId, Failure> {
        self.registry.get(id)?.ask(Command::Start).await
    }

    /// Stops and starts an agent.
    pub async fn restart(&self, id: &AgentId) -> Result<InvocationId, Failure> {
        self.registry.get(id)?.ask(Command::Restart).await
    }

    /// Stops an agent.
    pub async fn stop(&self, id: &AgentId) -> Result<(), Failure> {
        self.registry.get(id)?.ask(Command::Stop).await
    }

    /// Freezes an agent's processes.
    pub async fn pause(&self, id: &AgentId) -> Result<(), Failure> {
        self.registry.get(id)?.ask(Command::Pause).await
    }

    /// Lets a paused agent go on.
    pub async fn resume(&self, id: &AgentId) -> Result<(), Failure> {
        self.registry.get(id)?.ask(Command::Resume).await
    }

    /// What an agent may do, and what it had that a run which goes on was given.
    pub fn capabilities(&self, id: &AgentId) -> Result<Vec<CapabilityView>, Failure> {
        let handle = self.registry.get(id)?;
        let record = handle.record().ok_or_else(|| Failure::no_agent(id.as_str()))?;
        let runs = handle.view().is_some_and(|view| view.main_pid.is_some());
        Ok(crate::change::views(&record, runs))
    }

    /// Changes what an agent may do; a run for which the change is not in force by itself is then restarted or
    /// stopped, if that is asked for.
    pub async fn change(&self, id: &AgentId, change: Change, apply: Apply) -> Result<ChangedView, Failure> {
        let handle = self.registry.get(id)?;
        let changed = handle.ask(|reply| Command::Change(Box::new(change), reply)).await?;
        if changed.in_force.is_none() || changed.effect == Effect::Now {
            return Ok(crate::change::view(changed));
        }
        let (what, ended, effect) = match apply {
            Apply::NextStart => return Ok(crate::change::view(changed)),
            Apply::Restart => ("restarted", self.restart(id).await.map(drop), Effect::Restart),
            Apply::Stop => ("stopped", self.stop(id).await, Effect::Stopped),
        };
        let note = format!("the capabilities of agent {id} are changed, but it is not {what}");
        ended.map_err(|failure| Failure::new(failure.kind(), format!("{note}: {failure}")))?;
        Ok(crate::change::view(Changed { effect, in_force: None, ..changed }))
    }

    /// Makes an agent start at boot, or not.
    pub async fn enable(&self, id: &AgentId, at_boot: AtBoot) -> Result<(), Failure> {
        self.registry.get(id)?.ask(|reply| Command::Enable(at_boot, reply)).await
    }

    /// Removes an agent.
    pub async fn remove(&self, id: &AgentId, removal: Removal) -> Result<(), Failure> {
        self.registry.get(id)?.ask(|reply| Command::Remove(removal, reply)).await?;
        self.tidy().await;
        Ok(())
    }

    /// One agent, with its memory and its use of the disk as they are now, and its kind of workspace.
    pub async fn agent(&self, id: &AgentId) -> Result<AgentView, Failure> {
        let handle = self.registry.get(id)?;
        let view = handle.view().ok_or_else(|| Failure::no_agent(id.as_str()))?;
        let workspace = match handle.record() {
            Some(record) => self.workspace_of(&record.spec).await,
            None => None,
        };
        Ok(AgentView { workspace, ..self.with_disk(id, self.with_memory(view).await).await })
    }

    /// What limits its workspace on the disk, as the file system says it now.
    async fn with_disk(&self, id: &AgentId, mut view: AgentView) -> AgentView {
        let workspace = self.registry.context().settings.places.workspaces.join(id.as_str());
        let measured = tokio::task::spawn_blocking(move || aos_sandbox::disk::measure(&workspace)).await;
        // A directory that is not there yet has no limit either.
        if let Some(measured) = measured.ok().and_then(Result::ok).filter(|measured| measured.is_limited) {
            view.disk_limit = Some(measured.limit_bytes);
            view.disk_used = measured.used_bytes;
        }
        view
    }

    /// The kind of workspace that a package declares; an agent is shown without its package too.
    async fn workspace_of(&self, spec: &Spec) -> Option<String> {
        let package = self.packages().get(&spec.reference, &spec.digest).await.ok()?;
        package.config.run().ok().map(|run| run.workspace.to_string())
    }

    /// All agents, sorted by id.
    pub async fn agents(&self) -> Vec<AgentView> {
        let mut views = Vec::new();
        for view in self.registry.all().iter().filter_map(|handle| handle.view()) {
            views.push(self.with_memory(view).await);
        }
        views
    }

    /// Memory changes without a signal; it is read from the control group where the unit was last seen.
    async fn with_memory(&self, mut view: AgentView) -> AgentView {
        if view.main_pid.is_some() {
            let file = self
                .registry
                .context()
                .settings
                .places
                .cgroups
                .join(format!("aos.slice/aos-default.slice/{}/memory.current", view.unit));
            let text = tokio::fs::read_to_string(file).await.ok();
            view.memory_current = text.and_then(|text| text.trim_end().parse().ok()).or(view.memory_current);
        }
        view
    }

    /// All packages, sorted by reference.
    pub async fn list_packages(&self) -> Result<Vec<PackageView>, Failure> {
        let mut users = self.registry.users();
        let packages = self.packages().list().await?;
        Ok(packages
            .iter()
            .map(|package| package.view(users.remove(&package.digest).unwrap_or_default()))
            .collect())
    }

    /// Removes a package that no agent uses.
    pub async fn remove_package(&self, reference: &PackageRef) -> Result<(), Failure> {
        self.registry.refuse_when_unread()?;
        let (registry, reservations) = (Arc::clone(&self.registry), Arc::clone(&self.reservations));
        let in_use =
            move |digest: &Digest| reservations.holds(digest) || registry.users().contains_key(digest);
        self.packages().remove(reference, Box::new(in_use)).await
    }

    /// Removes packages that lost their name and that nobody uses any more, or says which. What the record of any
    /// agent is made of stays, whether the agent runs, is enabled or rests.
    pub async fn collect(&self, collect: Collect) -> Result<Collected, Failure> {
        self.registry.refuse_when_unread()?;
        let mut keep: BTreeSet<Digest> = self.reservations.all();
        keep.extend(self.registry.users().into_keys());
        self.packages().collect(keep, collect).await
    }

    /// Collects after something was replaced. Best effort: the next call does it.
    pub async fn tidy(&self) {
        if let Err(error) = self.collect(Collect::Remove).await {
            tracing::warn!(%error, "replaced packages cannot be collected");
        }
    }
}

/// What agent `id` is made of when `package` is run as `request` asks.
fn spec(id: &AgentId, package: Package, request: RunRequest) -> Result<Spec, Failure> {
    if RESERVED_IDS.contains(&id.as_str()) {
        return Err(Failure::invalid(format!("the agent id {id} is reserved; choose another")));
    }
    let declared = package.config;
    let lifecycle = declared.run().map_err(|error| Failure::invalid(error.to_string()))?.lifecycle;
    let capabilities = match request.capabilities {
        None => declared.capabilities,
        Some(narrower) => declared.capabilities.narrow(narrower).map_err(|error| {
            Failure::refused(format!("{error}; an agent can have no more than its package declares"))
        })?,
    };
    Ok(Spec {
        reference: package.reference,
        digest: package.digest,
        lifecycle,
        arguments: request.arguments,
        capabilities,
        limits: merge(declared.limits, request.limits),
    })
}

/// The package's limits, with those that were asked for in their place.
fn merge(package: Limits, asked: Limits) -> Limits {
    asked.over(&package)
}

/// Packages that are about to be used.
#[derive(Debug, Default)]
pub struct Reservations(Mutex<BTreeMap<Digest, usize>>);

/// Keeps a package reserved while it lives.
#[derive(Debug)]
pub struct Reservation {
    reservations: Arc<Reservations>,
    digest: Digest,
}

impl Reservations {
    fn reserve(self: &Arc<Self>, digest: Digest) -> Reservation {
        *self.table().entry(digest).or_default() += 1;
        Reservation { reservations: Arc::clone(self), digest }
    }

    fn holds(&self, digest: &Digest) -> bool {
        self.table().contains_key(digest)
    }

    fn all(&self) -> BTreeSet<Digest> {
        self.table().keys().copied().collect()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Digest, usize>> {
        // The critical sections cannot panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut table = self.reservations.table();
        if let Some(count) = table.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_count() {
        let reservations = Arc::new(Reservations::default());
        let digest = Digest::from_bytes([1; 32]);
        let (a, b) = (reservations.reserve(digest), reservations.reserve(digest));
        drop(a);
        assert!(reservations.holds(&digest));
        drop(b);
        assert!(!reservations.holds(&digest) && reservations.all().is_empty());
    }
}
