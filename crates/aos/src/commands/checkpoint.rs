//! `aos checkpoint`, `aos checkpoints`, `aos restore`: what an agent is, kept and brought back.

use std::fs::File;

use anyhow::{Context, Result};
use aos_client::{CheckpointAnswer, CheckpointOptions, CheckpointView};
use aos_core::workspace::Answer;
use clap::Args;
use serde::Serialize;

use super::workspace::read_answer;
use crate::cli::Format;
use crate::completion;
use crate::failure::hinted;
use crate::output::Output;
use crate::quantity;
use crate::supervisor;
use crate::table::{Columns, Text};

/// Keep what an agent is
///
/// Copies all files of the agent's workspace, with changes that are not committed, and notes what it is made of, its
/// arguments and limits, and what it may do. `aos restore` brings all of that back. An agent that runs is frozen while
/// it is copied. The package stays in the machine's store for as long as the checkpoint is there.
#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: String,

    /// A name, beside its number
    #[arg(long, value_name = "NAME", conflicts_with = "remove")]
    name: Option<String>,

    /// Keep the processes too, or say why that is not possible
    #[arg(long, conflicts_with = "remove")]
    processes: bool,

    /// Remove these checkpoints instead, by number or name
    #[arg(long, value_name = "CHECKPOINT", num_args = 1..)]
    remove: Vec<String>,

    #[command(flatten)]
    format: Format,
}

/// List checkpoints
#[derive(Debug, Args)]
pub(crate) struct CheckpointsArgs {
    /// Of this agent only
    #[arg(value_name = "ID", add = completion::agents())]
    id: Option<String>,

    #[command(flatten)]
    format: Format,
}

/// Bring an agent back to a checkpoint
///
/// Puts the files, the package, the arguments, the limits and the capabilities of a checkpoint in the place of what the
/// agent is now. All of it or nothing, also when it is cut short. The agent has to be stopped, and stays so. What was
/// replaced becomes a checkpoint, too. Capabilities that were taken away since come back; when neither the agent nor
/// its package has them now, that needs the right to grant.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: String,

    /// Number or name, as `aos checkpoints` shows them; without it the newest that is not of a restore
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: Option<String>,

    #[command(flatten)]
    format: Format,
}

/// A checkpoint that was made.
#[derive(Debug, Serialize)]
struct Made {
    checkpoint: u32,
    entries: u64,
    bytes: u64,
}

/// A restore that was done.
#[derive(Debug, Serialize)]
struct Restored {
    /// The checkpoint that has what was replaced.
    replaced: u32,
}

/// A checkpoint, for a program.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    agent: &'a str,
    number: u32,
    name: Option<&'a str>,
    at_us: u64,
    cause: &'a str,
    reference: &'a str,
    digest: &'a str,
    desired: &'a str,
    capabilities: &'a [String],
    in_force: Option<&'a [String]>,
}

/// Runs `aos checkpoint`.
pub(crate) async fn checkpoint(args: &CheckpointArgs, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let id = &args.id;
    if !args.remove.is_empty() {
        let names: Vec<&str> = args.remove.iter().map(String::as_str).collect();
        let removed = client.remove_checkpoints(id, &names).await.map_err(supervisor::explain);
        removed.with_context(|| format!("cannot remove checkpoints of {id}"))?;
        return if args.format.is_json() { out.json(&names) } else { Ok(()) };
    }
    let options = CheckpointOptions { name: args.name.clone(), processes: args.processes.then_some(true) };
    let what = || format!("checkpoint of {id}");
    let made = {
        let _step = out.step_on_terminal("copying");
        client.checkpoint(id, options).await.map_err(supervisor::explain).with_context(what)?
    };
    let number = made.number;
    match done(made, id, &what())? {
        Answer::Saved { entries, bytes } if args.format.is_json() => {
            out.json(&Made { checkpoint: number, entries, bytes })
        }
        Answer::Saved { entries, bytes } => {
            Ok(out.line(&format!("checkpoint {number}: {entries} files, {}", quantity::bytes(bytes)))?)
        }
        _ => Err(anyhow::anyhow!("the answer is that to another question")),
    }
}

/// Runs `aos restore`.
pub(crate) async fn restore(args: &RestoreArgs, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let id = &args.id;
    let what = || format!("restore of {id}");
    let restored = {
        let _step = out.step_on_terminal("restoring");
        let asked = client.restore(id, args.checkpoint.as_deref()).await;
        asked.map_err(supervisor::explain).with_context(what)?
    };
    let replaced = restored.number;
    done(restored, id, &what())?;
    if args.format.is_json() {
        return out.json(&Restored { replaced });
    }
    out.line(&format!("restored {id}; what was there before is checkpoint {replaced}"))?;
    Ok(())
}

/// Runs `aos checkpoints`.
pub(crate) async fn list(args: &CheckpointsArgs, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let all = client.checkpoints(args.id.as_deref()).await.map_err(supervisor::explain)?;
    if args.format.is_json() {
        return out.json(&all.iter().map(shown).collect::<Vec<_>>());
    }
    if all.is_empty() {
        return Ok(out.line("no checkpoints")?);
    }
    let now = quantity::now_us();
    let mut table = Columns::new(out, &["AGENT", "NUMBER", "NAME", "MADE", "PACKAGE", "WANTED", "MADE BY"]);
    for one in &all {
        table.row([
            Text::new(&one.agent),
            Text::new(one.number.to_string()),
            Text::or_dash(one.name.as_deref()),
            Text::new(quantity::ago(one.at_us, now)),
            Text::new(&one.reference),
            Text::new(&one.desired),
            Text::new(if one.cause == "replaced" { "restore" } else { "checkpoint" }),
        ]);
    }
    table.print().context("cannot print")
}

fn shown(one: &CheckpointView) -> Shown<'_> {
    Shown {
        agent: &one.agent,
        number: one.number,
        name: one.name.as_deref(),
        at_us: one.at_us,
        cause: &one.cause,
        reference: &one.reference,
        digest: &one.digest,
        desired: &one.desired,
        capabilities: &one.capabilities,
        in_force: one.in_force.as_deref(),
    }
}

/// The answer to what was done, or why it was not.
fn done(answer: CheckpointAnswer, id: &str, what: &str) -> Result<Answer> {
    let hint = format!("journalctl -u aos-workspace@{id}.service");
    match read_answer(File::from(answer.file)) {
        Ok(Answer::Failed { message }) => Err(anyhow::Error::msg(message).context(what.to_owned())),
        Ok(read) if answer.done => Ok(read),
        Ok(_) => Err(hinted(format!("the {what} was cut short, and nothing has changed"), hint)),
        Err(error) => Err(hinted(format!("the answer to the {what} cannot be read: {error}"), hint)),
    }
}
