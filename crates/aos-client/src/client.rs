//! [`Client`]: the proxies with deadlines, mapped errors and one stream of events.
//!
//! Concurrency: a `Client` is cheap to clone and may be used from many tasks. The event stream must be read or
//! dropped: an unread stream fills the connection's queue and holds up later calls.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aos_core::workspace::Operation;
use futures_util::{Stream, StreamExt as _};

use crate::capability::{CapabilityView, ChangeOptions, ChangedView};
use crate::checkpoint::{CheckpointAnswer, CheckpointOptions, CheckpointView};
use crate::error::ClientError;
use crate::exec::ExecOptions;
use crate::explanation::Explanation;
use crate::proxy::{AgentChangedStream, AgentExitedStream, ManagerProxy};
use crate::view::{AgentView, CollectedView, InstallOptions, PackageView, RunOptions};
use crate::workspace::{WorkspaceAnswer, spelled};

/// Longest wait for an answer. polkit may ask a person for a password (its own limit is 5 minutes), and a start
/// may take the unit's 90 s; a call that is older than this is lost.
pub const CALL_DEADLINE: Duration = Duration::from_secs(420);

/// A connection to the supervisor.
#[derive(Debug, Clone)]
pub struct Client {
    manager: ManagerProxy<'static>,
}

impl Client {
    /// Connects to the system bus. The supervisor is activated by the first call if it does not run.
    ///
    /// # Errors
    /// [`ClientError::NoBus`] when there is no system bus to talk to.
    pub async fn connect() -> Result<Self, ClientError> {
        Self::from_builder(zbus::connection::Builder::system()).await
    }

    /// Connects by `address`, for tests and for a bus in a container.
    ///
    /// # Errors
    /// [`ClientError::NoBus`] when nothing listens there.
    pub async fn connect_to(address: &str) -> Result<Self, ClientError> {
        Self::from_builder(zbus::connection::Builder::address(address)).await
    }

    async fn from_builder(builder: zbus::connection::Builder<'_>) -> Result<Self, ClientError> {
        let connection = builder.method_timeout(CALL_DEADLINE).build().await.map_err(ClientError::NoBus)?;
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .map_err(ClientError::NoBus)?;
        Ok(Self { manager })
    }

    /// The connection, for other proxies.
    pub fn connection(&self) -> &zbus::Connection {
        self.manager.inner().connection()
    }

    /// Puts the package archive open at `archive` into the store; returns `name:version` and the digest.
    ///
    /// # Errors
    /// See [`ClientError`]; every method below likewise.
    pub async fn install(&self, archive: OwnedFd) -> Result<(String, String), ClientError> {
        Ok(self.manager.install(archive.into(), InstallOptions::default()).await?)
    }

    /// As [`Client::install`], for a package that the caller built on this machine and vouches for: it needs no
    /// signature, and its installation is a right of its own.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn install_local(&self, archive: OwnedFd) -> Result<(String, String), ClientError> {
        let options = InstallOptions { local: Some(true) };
        Ok(self.manager.install(archive.into(), options).await?)
    }

    /// Creates or replaces agent `id` from package `reference` and starts it; returns the invocation id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn run(
        &self,
        id: &str,
        reference: &str,
        args: &[&str],
        options: RunOptions,
    ) -> Result<String, ClientError> {
        let (_path, invocation) = self.manager.run(id, reference, args, options).await?;
        Ok(invocation)
    }

    /// Starts a command in the sandbox of an agent that runs, with these pipes as input, output and errors. Out of the
    /// returned socket comes the JSON of `aos_sandbox::call::CallAnswer`; closing it ends the command.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn exec(
        &self,
        id: &str,
        command: &[&str],
        options: ExecOptions,
        [input, output, errors]: [OwnedFd; 3],
    ) -> Result<OwnedFd, ClientError> {
        let (input, output, errors) = (input.into(), output.into(), errors.into());
        Ok(self.manager.exec(id, command, options, input, output, errors).await?.into())
    }

    /// Does something with an agent's transactional workspace.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn workspace(&self, id: &str, operation: &Operation) -> Result<WorkspaceAnswer, ClientError> {
        let (name, options) = spelled(operation);
        let (done, file) = self.manager.workspace(id, name, options).await?;
        Ok(WorkspaceAnswer { done, file: file.into() })
    }

    /// Keeps what an agent is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn checkpoint(
        &self,
        id: &str,
        options: CheckpointOptions,
    ) -> Result<CheckpointAnswer, ClientError> {
        let (done, number, file) = self.manager.checkpoint(id, options).await?;
        Ok(CheckpointAnswer { done, number, file: file.into() })
    }

    /// Brings a checkpoint back, by its name or number; without one the newest that somebody asked for.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn restore(&self, id: &str, checkpoint: Option<&str>) -> Result<CheckpointAnswer, ClientError> {
        let (done, number, file) = self.manager.restore(id, checkpoint.unwrap_or_default()).await?;
        Ok(CheckpointAnswer { done, number, file: file.into() })
    }

    /// Removes checkpoints, by their names or numbers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_checkpoints(&self, id: &str, checkpoints: &[&str]) -> Result<(), ClientError> {
        Ok(self.manager.remove_checkpoints(id, checkpoints).await?)
    }

    /// The checkpoints of an agent, or of all, oldest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn checkpoints(&self, id: Option<&str>) -> Result<Vec<CheckpointView>, ClientError> {
        Ok(self.manager.list_checkpoints(id.unwrap_or_default()).await?)
    }

    /// Makes `count` agents, named after `prefix`, that begin with the files of agent `id`; returns their ids.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fork(&self, id: &str, count: u32, prefix: &str) -> Result<Vec<String>, ClientError> {
        Ok(self.manager.fork(id, count, prefix).await?)
    }

    /// What [`Client::run`] would confine the agent by: the JSON of `aos_sandbox::plan::Outline`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn plan(
        &self,
        id: &str,
        reference: &str,
        args: &[&str],
        options: RunOptions,
    ) -> Result<String, ClientError> {
        Ok(self.manager.plan(id, reference, args, options).await?)
    }

    /// Starts a stopped agent; returns the invocation id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn start(&self, id: &str) -> Result<String, ClientError> {
        Ok(self.manager.start(id).await?)
    }

    /// Stops an agent and waits until it has stopped.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stop(&self, id: &str) -> Result<(), ClientError> {
        Ok(self.manager.stop(id).await?)
    }

    /// Stops and starts; returns the new invocation id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn restart(&self, id: &str) -> Result<String, ClientError> {
        Ok(self.manager.restart(id).await?)
    }

    /// Freezes all processes of an agent and waits until they are.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pause(&self, id: &str) -> Result<(), ClientError> {
        Ok(self.manager.pause(id).await?)
    }

    /// Lets a paused agent go on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resume(&self, id: &str) -> Result<(), ClientError> {
        Ok(self.manager.resume(id).await?)
    }

    /// Makes the agent start at boot.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn enable(&self, id: &str) -> Result<(), ClientError> {
        Ok(self.manager.enable(id).await?)
    }

    /// The agent no longer starts at boot; it is not stopped.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn disable(&self, id: &str) -> Result<(), ClientError> {
        Ok(self.manager.disable(id).await?)
    }

    /// Removes the agent.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove(&self, id: &str, workspace: Workspace) -> Result<(), ClientError> {
        Ok(self.manager.remove(id, workspace == Workspace::Keep).await?)
    }

    /// All agents, sorted by id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn agents(&self) -> Result<Vec<AgentView>, ClientError> {
        Ok(self.manager.list_agents().await?)
    }

    /// One agent.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn agent(&self, id: &str) -> Result<AgentView, ClientError> {
        Ok(self.manager.get_agent(id).await?)
    }

    /// All packages, sorted by reference.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn packages(&self) -> Result<Vec<PackageView>, ClientError> {
        Ok(self.manager.list_packages().await?)
    }

    /// Removes a package that no agent uses.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_package(&self, reference: &str) -> Result<(), ClientError> {
        Ok(self.manager.remove_package(reference).await?)
    }

    /// Removes packages of the machine's store that lost their name and that no agent uses, or only says which.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn collect(&self, collect: Collect) -> Result<CollectedView, ClientError> {
        Ok(self.manager.collect(collect == Collect::DryRun).await?)
    }

    /// The supervisor's JSON about what was asked and what is in force; [`Client::explanation`] parses it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn explain(&self, id: &str) -> Result<String, ClientError> {
        Ok(self.manager.explain(id).await?)
    }

    /// What was asked and what is in force.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Transport`] when the answer does not have the documented form.
    pub async fn explanation(&self, id: &str) -> Result<Explanation, ClientError> {
        let json = self.explain(id).await?;
        serde_json::from_str(&json)
            .map_err(|error| ClientError::Transport(zbus::Error::Failure(format!("explanation: {error}"))))
    }

    /// What an agent may do, and what the run that goes on was given.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn capabilities(&self, id: &str) -> Result<Vec<CapabilityView>, ClientError> {
        Ok(self.manager.list_capabilities(id).await?)
    }

    /// Changes what an agent may do.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change(
        &self,
        id: &str,
        change: Change,
        capabilities: &[&str],
        options: ChangeOptions,
    ) -> Result<ChangedView, ClientError> {
        let manager = &self.manager;
        Ok(match change {
            Change::Grant => manager.grant_capabilities(id, capabilities, options).await,
            Change::Narrow => manager.narrow_capabilities(id, capabilities, options).await,
            Change::Revoke => manager.revoke_capabilities(id, capabilities, options).await,
        }?)
    }

    /// Version of the running supervisor.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn version(&self) -> Result<String, ClientError> {
        Ok(self.manager.version().await?)
    }

    /// Subscribes to state changes and exits. Subscribe before the call whose effect is awaited, then read the
    /// agent once: what happened before is in [`Client::agent`], what happens after is in the stream. The bus passes
    /// signals to root and to members of the groups `aos` and `sudo` only; who may read by a password alone gets
    /// an empty stream, and asks again instead.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(&self) -> Result<EventStream, ClientError> {
        Ok(EventStream {
            changed: self.manager.receive_agent_changed().await?,
            exited: self.manager.receive_agent_exited().await?,
        })
    }
}

/// Whether anything is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collect {
    /// Only say what would go.
    DryRun,
    /// Remove it.
    Remove,
}

/// How what an agent may do is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It gets these too.
    Grant,
    /// It keeps exactly these.
    Narrow,
    /// It loses these.
    Revoke,
}

/// What happens to an agent's files when it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workspace {
    /// They stay in `/var/lib/aos-agents/ID`.
    Keep,
    /// They are deleted.
    Delete,
}

/// Something that happened to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEvent {
    /// Its state changed.
    Changed {
        /// Agent id.
        id: String,
        /// New state, as in [`AgentView::state`].
        state: String,
    },
    /// A run ended.
    Exited {
        /// Agent id.
        id: String,
        /// The run.
        invocation_id: String,
        /// systemd's `Result`.
        result: String,
        /// Exit status or signal number.
        exit_status: i32,
    },
}

/// The supervisor's signals, typed. Signals that do not parse are skipped.
#[derive(Debug)]
pub struct EventStream {
    changed: AgentChangedStream,
    exited: AgentExitedStream,
}

impl Stream for EventStream {
    type Item = AgentEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Poll::Ready(next) = self.exited.poll_next_unpin(cx) {
            let Some(signal) = next else { return Poll::Ready(None) };
            if let Ok(args) = signal.args() {
                return Poll::Ready(Some(AgentEvent::Exited {
                    id: args.id.to_owned(),
                    invocation_id: args.invocation_id.to_owned(),
                    result: args.result.to_owned(),
                    exit_status: args.exit_status,
                }));
            }
        }
        while let Poll::Ready(next) = self.changed.poll_next_unpin(cx) {
            let Some(signal) = next else { return Poll::Ready(None) };
            if let Ok(args) = signal.args() {
                return Poll::Ready(Some(AgentEvent::Changed {
                    id: args.id.to_owned(),
                    state: args.state.to_owned(),
                }));
            }
        }
        Poll::Pending
    }
}
