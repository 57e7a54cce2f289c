//! `org.aos.Agentd1.Manager`: each method authorises, parses, and calls the service.

use std::sync::Arc;

use aos_client::{
    AgentView, CapabilityView, ChangeOptions, ChangedView, CheckpointOptions, CheckpointView, CollectedView,
    ExecOptions, InstallOptions, PackageView, RunOptions, WorkspaceOptions,
};
use aos_core::capability::CapabilitySet;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{ObjectPath, OwnedFd, OwnedObjectPath};

use super::access::{Gate, Right, rights_to_change};
use super::exec::call_request;
use super::parse;
use crate::agent::AtBoot;
use crate::change::Change;
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

    /// Which rights it needs depends on what is to happen to a run.
    async fn change(
        &self,
        header: &Header<'_>,
        id: &str,
        make: fn(CapabilitySet) -> Change,
        capabilities: &[String],
        options: &ChangeOptions,
    ) -> Result<ChangedView, Failure> {
        let apply = parse::apply(options)?;
        let rights = rights_to_change(&make(CapabilitySet::new()), apply);
        let _pass = self.gate.admit_all(header, rights).await?;
        let change = make(parse::capability_set(capabilities)?);
        self.service.change(&parse::agent_id(id)?, change, apply).await
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

    /// What `Run` would confine the agent by, as JSON. Nothing is made or started.
    #[zbus(out_args("json"))]
    async fn plan(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        reference: String,
        args: Vec<String>,
        options: RunOptions,
    ) -> Result<String, Failure> {
        let _pass = self.gate.admit(&header, Right::Read).await?;
        let (id, reference) = (parse::agent_id(&id)?, parse::reference(&reference)?);
        let outline = self.service.plan(&id, &reference, parse::run_request(args, options)?).await?;
        serde_json::to_string(&outline).map_err(|error| Failure::failed(&error))
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

    /// Freezes all processes of an agent, and waits until they are: they keep what they have, and get no processor
    /// time until `Resume`. `limits.runtime` goes on counting.
    async fn pause(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        self.service.pause(&parse::agent_id(&id)?).await
    }

    /// Lets a paused agent go on.
    async fn resume(&self, #[zbus(header)] header: Header<'_>, id: String) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        self.service.resume(&parse::agent_id(&id)?).await
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

    /// Runs a command in the sandbox of an agent that runs, as its user, with these standard streams, each a pipe or
    /// `/dev/null`. Returns one end of a socket pair (`SOCK_SEQPACKET`): one message with the JSON of
    /// `aos_sandbox::call::CallAnswer` comes out of it when the command has ended; closing it ends the command.
    #[zbus(out_args("answer"))]
    #[allow(clippy::too_many_arguments, reason = "the arguments of the method on the bus")]
    async fn exec(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        command: Vec<String>,
        options: ExecOptions,
        input: OwnedFd,
        output: OwnedFd,
        errors: OwnedFd,
    ) -> Result<OwnedFd, Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        let request = call_request(command, options)?;
        let streams = [input.into(), output.into(), errors.into()];
        Ok(self.service.exec(&parse::agent_id(&id)?, request, streams).await?.into())
    }

    /// Does something with the transactional workspace of an agent: `diff` (option `patch`), `commit` (`paths`),
    /// `discard` (`to`), `snapshot` (`name`), `snapshots`. All but the first and last need the agent to be stopped.
    /// Returns whether it was done, and a file with the answer, which tells why not.
    #[zbus(out_args("done", "answer"))]
    async fn workspace(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        operation: String,
        options: WorkspaceOptions,
    ) -> Result<(bool, OwnedFd), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        let now_us = self.service.registry().context().clock.now_us();
        let operation = parse::workspace_operation(&operation, options, now_us)?;
        let answered = self.service.workspace(&parse::agent_id(&id)?, operation).await?;
        Ok((answered.done, answered.file.into()))
    }

    /// Keeps what an agent is: its files, what it is made of and may do, its arguments, what is wanted of it; and its
    /// package with it. One that runs is frozen while its files are copied. Options: `name`, `processes`. Returns
    /// whether it was done, the checkpoint's number, and a file with the answer, which tells why not.
    #[zbus(out_args("done", "number", "answer"))]
    async fn checkpoint(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        options: CheckpointOptions,
    ) -> Result<(bool, u32, OwnedFd), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        let (name, extent) = parse::checkpoint(options)?;
        let made = self.service.checkpoint(&parse::agent_id(&id)?, name, extent).await?;
        Ok((made.done, made.number, made.file.into()))
    }

    /// Brings a checkpoint back, by its number or name, or with an empty text the newest that was asked for. The agent
    /// is stopped, before and after. `grant` is asked for too when it gives the agent capabilities that neither it nor
    /// a new run of the package has. Returns whether it was done, the number of the checkpoint that has what was
    /// replaced, and a file with the answer.
    #[zbus(out_args("done", "replaced", "answer"))]
    async fn restore(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        checkpoint: String,
    ) -> Result<(bool, u32, OwnedFd), Failure> {
        let pass = self.gate.admit(&header, Right::Manage).await?;
        let (id, which) = (parse::agent_id(&id)?, parse::which_checkpoint(&checkpoint)?);
        let grants = self.service.restore_grants(&id, &which).await?;
        drop(pass);
        let rights: &[Right] = if grants { &[Right::Manage, Right::Grant] } else { &[Right::Manage] };
        let _pass = self.gate.admit_all(&header, rights).await?;
        let made = self.service.restore(&id, which, grants).await?;
        Ok((made.done, made.number, made.file.into()))
    }

    /// Removes checkpoints, each by its number or name, and their files.
    async fn remove_checkpoints(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        checkpoints: Vec<String>,
    ) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        let (id, which) = (parse::agent_id(&id)?, parse::checkpoints(&checkpoints)?);
        self.service.remove_checkpoints(&id, which).await
    }

    /// The checkpoints of an agent, or with an empty text of all agents; oldest first.
    #[zbus(out_args("checkpoints"))]
    async fn list_checkpoints(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
    ) -> Result<Vec<CheckpointView>, Failure> {
        let _pass = self.gate.admit(&header, Right::Read).await?;
        let id = if id.is_empty() { None } else { Some(parse::agent_id(&id)?) };
        self.service.checkpoints(id.as_ref())
    }

    /// Makes agents `PREFIX-1`, `PREFIX-2`, ... that begin with the files of this agent, which is stopped and has a
    /// transactional workspace. They share its layers and its Unix user; nothing is copied. Returns their ids.
    #[zbus(out_args("agents"))]
    async fn fork(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        count: u32,
        prefix: String,
    ) -> Result<Vec<String>, Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        let (id, prefix) = (parse::agent_id(&id)?, parse::agent_id(&prefix)?);
        let forks = self.service.fork(&id, count, prefix.as_str()).await?;
        Ok(forks.iter().map(ToString::to_string).collect())
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

    /// What an agent may do from its next start on and, when that was changed since, what the run that goes on was
    /// given.
    #[zbus(out_args("capabilities"))]
    async fn list_capabilities(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
    ) -> Result<Vec<CapabilityView>, Failure> {
        let _pass = self.gate.admit(&header, Right::Read).await?;
        self.service.capabilities(&parse::agent_id(&id)?)
    }

    /// Gives an agent these capabilities too, also beyond what its package declares. The option `apply` says what
    /// happens to a run: `restart`, `stop` (for which `manage` is asked too), or nothing. The answer's `effect` says how it took effect.
    #[zbus(out_args("changed"))]
    async fn grant_capabilities(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        capabilities: Vec<String>,
        options: ChangeOptions,
    ) -> Result<ChangedView, Failure> {
        self.change(&header, &id, Change::Grant, &capabilities, &options).await
    }

    /// Leaves an agent exactly these capabilities, each of which is part of one that it has. Options and answer as
    /// for `GrantCapabilities`.
    #[zbus(out_args("changed"))]
    async fn narrow_capabilities(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        capabilities: Vec<String>,
        options: ChangeOptions,
    ) -> Result<ChangedView, Failure> {
        self.change(&header, &id, Change::Narrow, &capabilities, &options).await
    }

    /// Takes these capabilities away from an agent, and whatever is part of them. Options and answer as for
    /// `GrantCapabilities`.
    #[zbus(out_args("changed"))]
    async fn revoke_capabilities(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: String,
        capabilities: Vec<String>,
        options: ChangeOptions,
    ) -> Result<ChangedView, Failure> {
        self.change(&header, &id, Change::Revoke, &capabilities, &options).await
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
