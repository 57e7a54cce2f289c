//! `aos start`, `stop`, `restart`, `enable`, `disable`, `remove`: one call for each agent that is named.

use anyhow::Result;
use aos_client::{AgentView, Client, ClientError, Workspace};
use clap::Args;

use crate::completion;
use crate::failure::hinted;
use crate::output::Output;
use crate::supervisor;

/// The agents to act on.
#[derive(Debug, Args)]
pub(crate) struct Ids {
    /// Ids of agents, as `aos list` shows them
    #[arg(value_name = "ID", required = true, add = completion::agents())]
    ids: Vec<String>,
}

/// Remove agents
///
/// Removes a stopped agent with its account and its workspace. Its package stays: `aos packages remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Ids of agents, as `aos list` shows them
    #[arg(value_name = "ID", required = true, add = completion::agents())]
    ids: Vec<String>,

    /// Keep the files of the agent's workspace, in /var/lib/aos-agents/ID
    #[arg(long)]
    keep_workspace: bool,

    /// Stop the agent first if it runs
    #[arg(long)]
    stop: bool,
}

/// What to do with an agent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Start,
    Stop,
    Restart,
    Enable,
    Disable,
    Remove { workspace: Workspace, stop: bool },
}

impl RemoveArgs {
    /// The agents and what to do with them.
    pub(crate) fn action(&self) -> (Ids, Action) {
        let workspace = if self.keep_workspace { Workspace::Keep } else { Workspace::Delete };
        (Ids { ids: self.ids.clone() }, Action::Remove { workspace, stop: self.stop })
    }
}

impl Action {
    /// The verb, for the report of a failure and of a success.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Start => ("start", "started"),
            Self::Stop => ("stop", "stopped"),
            Self::Restart => ("restart", "restarted"),
            Self::Enable => ("enable", "starts at boot"),
            Self::Disable => ("disable", "no longer starts at boot"),
            Self::Remove { .. } => ("remove", "removed"),
        }
    }

    /// Removing what runs takes a word more: the supervisor itself stops an agent that it is to remove.
    async fn check(self, client: &Client, id: &str) -> Result<()> {
        if !matches!(self, Self::Remove { stop: false, .. }) {
            return Ok(());
        }
        let agent = client.agent(id).await.map_err(supervisor::explain)?;
        if is_active(&agent) {
            return Err(hinted(format!("it is {}", agent.state), "`--stop` stops it first"));
        }
        Ok(())
    }

    async fn call(self, client: &Client, id: &str) -> Result<(), ClientError> {
        match self {
            Self::Start => client.start(id).await.map(drop),
            Self::Stop => client.stop(id).await,
            Self::Restart => client.restart(id).await.map(drop),
            Self::Enable => client.enable(id).await,
            Self::Disable => client.disable(id).await,
            Self::Remove { workspace, .. } => client.remove(id, workspace).await,
        }
    }
}

async fn act(client: &Client, action: Action, id: &str) -> Result<()> {
    action.check(client, id).await?;
    action.call(client, id).await.map_err(supervisor::explain)
}

/// True while a process of the agent may exist.
pub(crate) fn is_active(agent: &AgentView) -> bool {
    matches!(agent.state.as_str(), "starting" | "running" | "stopping" | "backoff")
}

/// Acts on every agent that is named. One that fails does not keep the others from their turn.
pub(crate) async fn run(ids: &Ids, action: Action, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let (verb, done) = action.words();
    let mut failed = 0;
    let mut only_error = None;
    for id in &ids.ids {
        let outcome = {
            let _step = out.step_on_terminal(&format!("{verb} {id}"));
            act(&client, action, id).await
        };
        match outcome {
            Ok(()) => out.note(&format!("{id}: {done}")),
            Err(error) => {
                failed += 1;
                let error = error.context(format!("cannot {verb} {id}"));
                if ids.ids.len() == 1 {
                    only_error = Some(error);
                } else {
                    out.error(&error);
                }
            }
        }
    }
    match (failed, only_error) {
        (0, _) => Ok(()),
        (_, Some(error)) => Err(error),
        (failed, None) => {
            Err(hinted(format!("{failed} of {} agents failed", ids.ids.len()), "`aos list` shows the agents"))
        }
    }
}
