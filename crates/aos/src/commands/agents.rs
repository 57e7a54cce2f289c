//! `aos start`, `stop`, `restart`, `pause`, `resume`, `enable`, `disable`, `remove`: one call for each agent that is named.

use anyhow::{Context, Error, Result};
use aos_client::{AgentView, Client, ClientError, Workspace};
use aos_core::reference::Reference;
use clap::Args;
use serde::Serialize;

use crate::cli::Format;
use crate::completion;
use crate::failure::{self, hinted};
use crate::output::Output;
use crate::store::UserStore;
use crate::supervisor;

/// The agents to act on.
#[derive(Debug, Args)]
pub(crate) struct Ids {
    /// Ids of agents, as `aos list` shows them
    #[arg(value_name = "ID", required = true, add = completion::agents())]
    ids: Vec<String>,

    #[command(flatten)]
    format: Format,
}

/// What became of one agent or package.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// The agent's id, or the package's name.
    name: String,
    /// True when it was done.
    done: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Remove agents, or packages of your store
///
/// Removes a stopped agent with its account and its workspace. Its package stays: `aos packages remove`. A word with a
/// `:`, `@` or `/` is a package of your store: it loses this name, and `aos gc` removes what has no name.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Ids of agents, as `aos list` shows them, or packages, as `aos list packages` shows them
    #[arg(value_name = "ID|PACKAGE", required = true, add = completion::removable())]
    ids: Vec<String>,

    /// Keep the files of the agent's workspace, in /var/lib/aos-agents/ID
    #[arg(long)]
    keep_workspace: bool,

    /// Stop the agent first if it runs
    #[arg(long)]
    stop: bool,

    #[command(flatten)]
    format: Format,
}

/// What to do with an agent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Start,
    Stop,
    Restart,
    Pause,
    Resume,
    Enable,
    Disable,
    Remove { workspace: Workspace, stop: bool },
}

impl RemoveArgs {
    /// The agents and what to do with them, and the packages.
    pub(crate) fn action(&self) -> (Ids, Action, Vec<String>) {
        let workspace = if self.keep_workspace { Workspace::Keep } else { Workspace::Delete };
        // No id has one of these.
        let (packages, ids) =
            self.ids.iter().cloned().partition(|word: &String| word.contains([':', '@', '/']));
        (Ids { ids, format: self.format }, Action::Remove { workspace, stop: self.stop }, packages)
    }
}

impl Action {
    /// The verb, for the report of a failure and of a success.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Start => ("start", "started"),
            Self::Stop => ("stop", "stopped"),
            Self::Restart => ("restart", "restarted"),
            Self::Pause => ("pause", "paused"),
            Self::Resume => ("resume", "resumed"),
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
            Self::Pause => client.pause(id).await,
            Self::Resume => client.resume(id).await,
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
    matches!(agent.state.as_str(), "starting" | "running" | "paused" | "stopping" | "backoff")
}

/// Takes names away from packages of the user store.
fn untag(word: &str, out: Output, format: Format) -> Result<()> {
    let store = UserStore::open()?;
    let reference: Reference = word.parse().with_context(|| format!("`{word}` names no package"))?;
    let digest = store.find(&reference)?.digest;
    let names = if reference.digest.is_some() {
        store.tags_of(&digest)?.into_iter().map(|tagged| tagged.reference).collect()
    } else {
        vec![reference]
    };
    for name in names {
        store.repository().untag(&name)?;
        if !format.is_json() {
            out.note(&format!("{name}: removed"));
        }
    }
    Ok(())
}

/// Runs `aos remove`.
pub(crate) async fn remove(args: &RemoveArgs, out: Output) -> Result<()> {
    let (ids, action, packages) = args.action();
    let mut outcomes = Vec::new();
    for word in &packages {
        let done = untag(word, out, args.format).with_context(|| format!("cannot remove {word}"));
        outcomes.push((word.clone(), done));
    }
    if !ids.ids.is_empty() {
        outcomes.extend(act_on_all(&ids, action, out).await?);
    }
    told(outcomes, args.format, out)
}

/// Runs `aos start` and the others.
pub(crate) async fn run(ids: &Ids, action: Action, out: Output) -> Result<()> {
    told(act_on_all(ids, action, out).await?, ids.format, out)
}

type Outcomes = Vec<(String, Result<()>)>;

/// Acts on every agent that is named. One that fails does not keep the others from their turn.
async fn act_on_all(ids: &Ids, action: Action, out: Output) -> Result<Outcomes> {
    let client = supervisor::connect().await?;
    let (verb, done) = action.words();
    let mut outcomes = Vec::new();
    for id in &ids.ids {
        let outcome = {
            let _step = out.step_on_terminal(&format!("{verb} {id}"));
            act(&client, action, id).await
        };
        if outcome.is_ok() && !ids.format.is_json() {
            out.note(&format!("{id}: {done}"));
        }
        outcomes.push((id.clone(), outcome.with_context(|| format!("cannot {verb} {id}"))));
    }
    Ok(outcomes)
}

/// Tells what became of each, and fails when one failed.
fn told(outcomes: Outcomes, format: Format, out: Output) -> Result<()> {
    if format.is_json() {
        let view = |(name, outcome): &(String, Result<()>)| Outcome {
            name: name.clone(),
            done: outcome.is_ok(),
            error: outcome.as_ref().err().map(failure::sentence),
        };
        out.json(&outcomes.iter().map(view).collect::<Vec<_>>())?;
    }
    let count = outcomes.len();
    let mut errors: Vec<Error> = outcomes.into_iter().filter_map(|(_, outcome)| outcome.err()).collect();
    if count <= 1 {
        return errors.pop().map_or(Ok(()), Err);
    }
    for error in &errors {
        out.error(error);
    }
    match errors.len() {
        0 => Ok(()),
        failed => Err(hinted(format!("{failed} of {count} failed"), "`aos list` shows the agents")),
    }
}
