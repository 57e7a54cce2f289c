//! The raw proxies: one trait per interface, as introspection shows them. [`crate::Client`] is the comfortable
//! way to use them.

use crate::capability::{CapabilityView, ChangeOptions, ChangedView};
use crate::checkpoint::{CheckpointOptions, CheckpointView};
use crate::exec::ExecOptions;
use crate::view::{AgentView, CollectedView, InstallOptions, PackageView, RunOptions};
use crate::workspace::WorkspaceOptions;
use zbus::{OwnedFd, OwnedObjectPath};

/// `org.aos.Agentd1.Manager`.
#[zbus::proxy(
    interface = "org.aos.Agentd1.Manager",
    default_service = "org.aos.Agentd1",
    default_path = "/org/aos/Agentd1"
)]
pub trait Manager {
    /// Puts a package archive into the store; returns `name:version` and the manifest's digest.
    #[zbus(allow_interactive_auth)]
    fn install(&self, archive: OwnedFd, options: InstallOptions) -> zbus::Result<(String, String)>;

    /// Creates or replaces the agent and starts it; returns its path and the invocation id.
    #[zbus(allow_interactive_auth)]
    fn run(
        &self,
        id: &str,
        reference: &str,
        args: &[&str],
        options: RunOptions,
    ) -> zbus::Result<(OwnedObjectPath, String)>;

    /// What `run` would confine the agent by, as JSON.
    #[zbus(allow_interactive_auth)]
    fn plan(&self, id: &str, reference: &str, args: &[&str], options: RunOptions) -> zbus::Result<String>;

    /// Starts a stopped agent; returns the invocation id.
    #[zbus(allow_interactive_auth)]
    fn start(&self, id: &str) -> zbus::Result<String>;

    /// Stops an agent.
    #[zbus(allow_interactive_auth)]
    fn stop(&self, id: &str) -> zbus::Result<()>;

    /// Stops and starts; returns the new invocation id.
    #[zbus(allow_interactive_auth)]
    fn restart(&self, id: &str) -> zbus::Result<String>;

    /// Freezes an agent's processes.
    #[zbus(allow_interactive_auth)]
    fn pause(&self, id: &str) -> zbus::Result<()>;

    /// Lets a paused agent go on.
    #[zbus(allow_interactive_auth)]
    fn resume(&self, id: &str) -> zbus::Result<()>;

    /// Makes the agent start at boot.
    #[zbus(allow_interactive_auth)]
    fn enable(&self, id: &str) -> zbus::Result<()>;

    /// Undoes [`Manager::enable`]; does not stop the agent.
    #[zbus(allow_interactive_auth)]
    fn disable(&self, id: &str) -> zbus::Result<()>;

    /// Keeps what the agent is; returns whether it was done, the number, and the answer.
    #[zbus(allow_interactive_auth)]
    fn checkpoint(&self, id: &str, options: CheckpointOptions) -> zbus::Result<(bool, u32, OwnedFd)>;

    /// Brings a checkpoint back; returns whether it was done, the number of the one that has what was replaced, and
    /// the answer.
    #[zbus(allow_interactive_auth)]
    fn restore(&self, id: &str, checkpoint: &str) -> zbus::Result<(bool, u32, OwnedFd)>;

    /// Removes checkpoints.
    #[zbus(allow_interactive_auth)]
    fn remove_checkpoints(&self, id: &str, checkpoints: &[&str]) -> zbus::Result<()>;

    /// The checkpoints of an agent, or of all.
    #[zbus(allow_interactive_auth)]
    fn list_checkpoints(&self, id: &str) -> zbus::Result<Vec<CheckpointView>>;

    /// Starts a command in the sandbox of an agent that runs, with these standard streams, all pipes; returns a socket
    /// (`SOCK_SEQPACKET`) out of which the answer comes. Closing that ends the command.
    #[zbus(allow_interactive_auth)]
    fn exec(
        &self,
        id: &str,
        command: &[&str],
        options: ExecOptions,
        input: OwnedFd,
        output: OwnedFd,
        errors: OwnedFd,
    ) -> zbus::Result<OwnedFd>;

    /// Does something with the agent's transactional workspace; returns whether it was done, and the answer.
    #[zbus(allow_interactive_auth)]
    fn workspace(
        &self,
        id: &str,
        operation: &str,
        options: WorkspaceOptions,
    ) -> zbus::Result<(bool, OwnedFd)>;

    /// Makes agents that begin with the files of this one; returns their ids.
    #[zbus(allow_interactive_auth)]
    fn fork(&self, id: &str, count: u32, prefix: &str) -> zbus::Result<Vec<String>>;

    /// Removes the agent, its account, and its workspace unless it is to be kept.
    #[zbus(allow_interactive_auth)]
    fn remove(&self, id: &str, keep_workspace: bool) -> zbus::Result<()>;

    /// All agents, sorted by id.
    #[zbus(allow_interactive_auth)]
    fn list_agents(&self) -> zbus::Result<Vec<AgentView>>;

    /// One agent.
    #[zbus(allow_interactive_auth)]
    fn get_agent(&self, id: &str) -> zbus::Result<AgentView>;

    /// All packages, sorted by reference.
    #[zbus(allow_interactive_auth)]
    fn list_packages(&self) -> zbus::Result<Vec<PackageView>>;

    /// Removes a package that no agent uses.
    #[zbus(allow_interactive_auth)]
    fn remove_package(&self, reference: &str) -> zbus::Result<()>;

    /// Removes packages that lost their name and that no agent uses, or only says which.
    #[zbus(allow_interactive_auth)]
    fn collect(&self, dry_run: bool) -> zbus::Result<CollectedView>;

    /// What was asked and what the kernel confirms, as JSON.
    #[zbus(allow_interactive_auth)]
    fn explain(&self, id: &str) -> zbus::Result<String>;

    /// What an agent may do, and what the run that goes on was given.
    #[zbus(allow_interactive_auth)]
    fn list_capabilities(&self, id: &str) -> zbus::Result<Vec<CapabilityView>>;

    /// Gives an agent these capabilities too.
    #[zbus(allow_interactive_auth)]
    fn grant_capabilities(
        &self,
        id: &str,
        capabilities: &[&str],
        options: ChangeOptions,
    ) -> zbus::Result<ChangedView>;

    /// Leaves an agent exactly these capabilities.
    #[zbus(allow_interactive_auth)]
    fn narrow_capabilities(
        &self,
        id: &str,
        capabilities: &[&str],
        options: ChangeOptions,
    ) -> zbus::Result<ChangedView>;

    /// Takes these capabilities away.
    #[zbus(allow_interactive_auth)]
    fn revoke_capabilities(
        &self,
        id: &str,
        capabilities: &[&str],
        options: ChangeOptions,
    ) -> zbus::Result<ChangedView>;

    /// An agent's state changed.
    #[zbus(signal)]
    fn agent_changed(&self, id: &str, state: &str) -> zbus::Result<()>;

    /// A run ended.
    #[zbus(signal)]
    fn agent_exited(&self, id: &str, invocation_id: &str, result: &str, exit_status: i32)
    -> zbus::Result<()>;

    /// Version of the supervisor.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
}

/// `org.aos.Agentd1.Agent`, one object per agent.
#[zbus::proxy(
    interface = "org.aos.Agentd1.Agent",
    default_service = "org.aos.Agentd1",
    assume_defaults = false
)]
pub trait Agent {
    /// The agent.
    #[zbus(allow_interactive_auth)]
    fn get(&self) -> zbus::Result<AgentView>;

    /// Starts the agent; returns the invocation id.
    #[zbus(allow_interactive_auth)]
    fn start(&self) -> zbus::Result<String>;

    /// Stops the agent.
    #[zbus(allow_interactive_auth)]
    fn stop(&self) -> zbus::Result<()>;

    /// Freezes the agent's processes.
    #[zbus(allow_interactive_auth)]
    fn pause(&self) -> zbus::Result<()>;

    /// Lets the paused agent go on.
    #[zbus(allow_interactive_auth)]
    fn resume(&self) -> zbus::Result<()>;
}
