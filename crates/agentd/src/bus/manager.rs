//! `org.aos.Agentd1.Manager`: each method authorises, parses, and calls the service.

use std::sync::Arc;

use aos_client::{AgentView, CollectedView, InstallOptions, PackageView, RunOptions};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{ObjectPath, OwnedFd, OwnedObjectPath};

use super::access::{Gate, Right};
use super::parse;
use crate::agent::AtBoot;
use crate::db::Removal;
use crate::explain;
use crate::failure::Failure;
use crate::packages::{Collect, Packages, Source};
use crate::service::Service;
use crate::systemd::Systemd;

/// The manager object.
#[derive(Debug)]
pub struct Manager<S, P> {
    service: Arc<Service<S, P>>,
    gate: Gate,
}

impl<S: Systemd, P: Packages> Manager<S, P> {
    /// The manager of `service` behind `gate`.
    #[must_use]
    pub fn new(service: Arc<Service<S, P>>, gate: Gate) -> Self {
        Self { service, gate }
    }
}

/// The path of an agent's object.
pub(super) fn agent_path(id: &str) -> Result<OwnedObjectPath, Failure> {
    let path =
        ObjectPath::try_from(aos_client::names::agent_path(id)).map_err(|error| Failure::failed(&error))?;
    Ok(path.into())
}

#[zbus::interface(name = "org.aos.Agentd1.Manager")]
impl<S: Systemd, P: Packages> Manager<S, P> {
    /// Puts the package archive behind the descriptor (a regular file or a pipe) into the store, if the machine's
    /// trust policy trusts it. With the option `local` the caller vouches for it as built on this machine, and
    /// polkit is asked for that instead. Returns `name:version` and the digest of the manifest.
    #[zbus(out_args("reference", "digest"))]
    async fn install(
        &self,
        #[zbus(header)] header: Header<'_>,
        archive: OwnedFd,
        options: InstallOptions,
    ) -> Result<(String, String), Failure> {
        let is_local = options.local == Some(true);
        let right = if is_local { Right::InstallLocal } else { Right::Install };
        let pass = self.gate.admit(&header, right).await?;
        let source = if is_local { Source::Local { uid: pass.uid() } } else { Source::Elsewhere };
        let (reference, digest) = self.service.install(archive.into(), source).await?;
        Ok((reference.to_string(), digest.to_string()))
    }

    /// Creates or replaces the agent and starts it. Returns once it is ready, or with the reason why not.
    #[zbus(out_args("agent", "invocation_id"))]
    async fn run(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        reference: String,
        args: Vec<String>,
        options: RunOptions,
    ) -> Result<(OwnedObjectPath, String), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        let (id, reference) = (parse::agent_id(&id)?, parse::reference(&reference)?);
        let request = parse::run_request(args, options)?;
        let invocation = self.service.run(&id, &reference, request).await?;
        Ok((agent_path(id.as_str())?, invocation.to_string()))
    }

    /// Starts a stopped agent.
    #[zbus(out_args("invocation_id"))]
    async fn start(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<String, Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        Ok(self.service.start(&parse::agent_id(&id)?).await?.to_string())
    }

    /// Stops an agent, and waits until it has stopped.
    async fn stop(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        self.service.stop(&parse::agent_id(&id)?).await
    }

    /// Stops an agent and starts it again.
    #[zbus(out_args("invocation_id"))]
    async fn restart(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<String, Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        Ok(self.service.restart(&parse::agent_id(&id)?).await?.to_string())
    }

    /// Makes the agent start at boot.
    async fn enable(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        self.service.enable(&parse::agent_id(&id)?, AtBoot::Start).await
    }

    /// The agent does not start at boot any more; it is not stopped.
    async fn disable(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        self.service.enable(&parse::agent_id(&id)?, AtBoot::Ignore).await
    }

    /// Removes the agent, its Unix user, and its workspace unless that is to be kept.
    async fn remove(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        keep_workspace: bool,
    ) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        let removal = if keep_workspace { Removal::KeepWorkspace } else { Removal::DeleteWorkspace };
        self.service.remove(&parse::agent_id(&id)?, removal).await
    }

    /// All agents, sorted by id.
    #[zbus(out_args("agents"))]
    async fn list_agents(&self, #[zbus(header)] header: Header<'_>) -> Result<Vec<AgentView>, Failure> {
        let _pass = self.gate.admit(&header, Right::Read).await?;
        Ok(self.service.agents().await)
    }

    /// One agent.
    #[zbus(out_args("agent"))]
    async fn get_agent(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<AgentView, Failure> {
        let _pass = self.gate.admit(&header, Right::Read).await?;
        self.service.agent(&parse::agent_id(&id)?).await
    }

    /// All packages, sorted by reference.
    #[zbus(out_args("packages"))]
    async fn list_packages(&self, #[zbus(header)] header: Header<'_>) -> Result<Vec<PackageView>, Failure> {
        let _pass = self.gate.admit(&header, Right::Read).await?;
        self.service.list_packages().await
    }

    /// Removes a package that no agent uses.
    async fn remove_package(
        &self,
        #[zbus(header)] header: Header<'_>,
        reference: String,
    ) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Install).await?;
        self.service.remove_package(&parse::reference(&reference)?).await
    }

    /// Removes packages that lost their name and that no agent uses, and what no package needs; or only says
    /// which they are. Returns `packages`, each `name@digest`, and `bytes`.
    #[zbus(out_args("collected"))]
    async fn collect(
        &self,
        #[zbus(header)] header: Header<'_>,
        dry_run: bool,
    ) -> Result<CollectedView, Failure> {
        let _pass = self.gate.admit(&header, Right::Install).await?;
        let collect = if dry_run { Collect::DryRun } else { Collect::Remove };
        Ok(self.service.collect(collect).await?.view())
    }

    /// What was asked and what is in force around the agent, as JSON.
    #[zbus(out_args("json"))]
    async fn explain(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<String, Failure> {
        let _pass = self.gate.admit(&header, Right::Read).await?;
        let id = parse::agent_id(&id)?;
        explain::explain(&self.service, &id).await
    }

    /// An agent's state changed. The state is `removed` when the agent is no more.
    #[zbus(signal)]
    pub(super) async fn agent_changed(emitter: &SignalEmitter<'_>, id: &str, state: &str)
    -> zbus::Result<()>;

    /// A run ended.
    #[zbus(signal)]
    pub(super) async fn agent_exited(
        emitter: &SignalEmitter<'_>,
        id: &str,
        invocation_id: &str,
        result: &str,
        exit_status: i32,
    ) -> zbus::Result<()>;

    /// Version of the supervisor.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }
}
