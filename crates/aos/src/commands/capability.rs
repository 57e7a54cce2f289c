//! `aos capability`: what an agent may do, and changing that.

use anyhow::{Context, Result};
use aos_client::{CapabilityView, Change, ChangeOptions, ChangedView};
use aos_core::capability::Capability;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::Format;
use crate::completion;
use crate::output::{Output, Tone};
use crate::quantity;
use crate::screen;
use crate::supervisor;
use crate::table::{Columns, Text};

/// Show and change what an agent may do
///
/// A change is recorded at once and counts for every start from then on. What the kernel enforces is made when a run
/// begins: an agent that runs keeps what it was given until it is restarted (--now) or stopped (--stop). `aos run` with
/// the agent's package begins anew with what the package declares.
#[derive(Debug, Args)]
pub(crate) struct CapabilityArgs {
    #[command(subcommand)]
    command: CapabilityCommand,
}

#[derive(Debug, Subcommand)]
enum CapabilityCommand {
    /// Show what an agent may do
    ///
    /// For each capability: who enforces it, whether the run that goes on has it, where it comes from and since when.
    #[command(visible_alias = "ls")]
    List {
        /// Id of an agent, as `aos list` shows it
        #[arg(value_name = "ID", add = completion::agents())]
        id: String,
        #[command(flatten)]
        format: Format,
    },
    /// Give an agent more, also beyond what its package declares
    Grant(ChangeArgs),
    /// Leave an agent exactly these
    ///
    /// Each has to be a part of something that the agent may do.
    Narrow(ChangeArgs),
    /// Take capabilities away, and what is part of them
    Revoke(RevokeArgs),
}

/// A change.
#[derive(Debug, Args)]
struct ChangeArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: String,

    /// Capabilities, such as 'file_read: /srv/data/**'
    #[arg(value_name = "CAPABILITY", required = true)]
    capabilities: Vec<Capability>,

    #[command(flatten)]
    when: When,
}

/// A revocation.
#[derive(Debug, Args)]
struct RevokeArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: String,

    /// Capabilities, as `aos capability list` shows them
    #[arg(value_name = "CAPABILITY", required_unless_present = "all")]
    capabilities: Vec<Capability>,

    /// Take all of them away
    #[arg(long, conflicts_with = "capabilities")]
    all: bool,

    #[command(flatten)]
    when: When,
}

/// What happens to an agent that runs.
#[derive(Debug, Args)]
struct When {
    /// Restart the agent if the change is not in force for what runs
    #[arg(long, conflicts_with = "stop")]
    now: bool,

    /// Stop the agent if the change is not in force for what runs
    #[arg(long)]
    stop: bool,

    #[command(flatten)]
    format: Format,
}

impl When {
    fn options(&self) -> ChangeOptions {
        let apply = match (self.now, self.stop) {
            (true, _) => Some("restart"),
            (false, true) => Some("stop"),
            (false, false) => None,
        };
        ChangeOptions { apply: apply.map(str::to_owned) }
    }
}

/// Runs `aos capability`.
pub(crate) async fn run(args: &CapabilityArgs, out: Output) -> Result<()> {
    match &args.command {
        CapabilityCommand::List { id, format } => list(id, *format, out).await,
        CapabilityCommand::Grant(args) => {
            change(&args.id, Change::Grant, &args.capabilities, &args.when, out).await
        }
        CapabilityCommand::Narrow(args) => {
            change(&args.id, Change::Narrow, &args.capabilities, &args.when, out).await
        }
        // Nothing is left when exactly nothing may stay.
        CapabilityCommand::Revoke(args) if args.all => {
            change(&args.id, Change::Narrow, &[], &args.when, out).await
        }
        CapabilityCommand::Revoke(args) => {
            change(&args.id, Change::Revoke, &args.capabilities, &args.when, out).await
        }
    }
}

/// One capability, as JSON.
#[derive(Debug, Serialize)]
struct Row<'a> {
    capability: &'a str,
    enforced_by: &'a str,
    declared: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_us: Option<u64>,
}

impl<'a> From<&'a CapabilityView> for Row<'a> {
    fn from(view: &'a CapabilityView) -> Self {
        Self {
            capability: &view.capability,
            enforced_by: &view.enforced_by,
            declared: view.declared,
            in_force: view.in_force,
            origin: view.origin.as_deref(),
            since_us: view.since_us,
        }
    }
}

async fn list(id: &str, format: Format, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let views = client
        .capabilities(id)
        .await
        .map_err(supervisor::explain)
        .with_context(|| format!("cannot show what {id} may do"))?;
    if format.is_json() {
        return out.json(&views.iter().map(Row::from).collect::<Vec<_>>());
    }
    if views.is_empty() {
        out.note(&format!("{id} may do nothing outside its own workspace"));
        return Ok(());
    }
    let now = quantity::now_us();
    let mut table = Columns::new(out, &["CAPABILITY", "STATE", "ENFORCED BY", "FROM", "SINCE"]);
    for view in &views {
        let (words, tone) = state(view.declared, view.in_force);
        table.row([
            Text::toned(&view.capability, Tone::Strong),
            Text::toned(words, tone),
            Text::new(&view.enforced_by),
            Text::or_dash(view.origin.as_deref()),
            Text::or_dash(view.since_us.map(|then| quantity::ago(then, now))),
        ]);
    }
    Ok(table.print()?)
}

/// Whether what runs has a capability that the next start gives or not, in words.
pub(crate) const fn state(declared: bool, in_force: Option<bool>) -> (&'static str, Tone) {
    match (declared, in_force) {
        (true, Some(true)) => ("in force", Tone::Good),
        (true, Some(false)) => ("from the next start", Tone::Warn),
        (true, None) => ("given at the start", Tone::Faint),
        (false, _) => ("revoked, still in force until restart", Tone::Bad),
    }
}

async fn change(
    id: &str,
    change: Change,
    capabilities: &[Capability],
    when: &When,
    out: Output,
) -> Result<()> {
    let lines: Vec<String> = capabilities.iter().map(Capability::to_string).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let client = supervisor::connect().await?;
    let changed = {
        let _step = out.step_on_terminal(&format!("changing what {id} may do"));
        client.change(id, change, &lines, when.options()).await
    };
    let changed =
        changed.map_err(supervisor::explain).with_context(|| format!("cannot change what {id} may do"))?;
    if when.format.is_json() {
        return out.json(&Answer::of(id, &changed));
    }
    for line in words(id, &changed) {
        out.note(&line);
    }
    Ok(())
}

/// What became of a change, as JSON.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    id: &'a str,
    effect: &'a str,
    capabilities: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

impl<'a> Answer<'a> {
    fn of(id: &'a str, changed: &'a ChangedView) -> Self {
        Self {
            id,
            effect: &changed.effect,
            capabilities: &changed.capabilities,
            in_force: changed.in_force.as_deref(),
            note: changed.note.as_deref(),
        }
    }
}

/// What became of a change, in words.
fn words(id: &str, changed: &ChangedView) -> Vec<String> {
    let mut lines = vec![match changed.effect.as_str() {
        "now" => format!("{id}: changed, in force now"),
        "restart" => format!("{id}: changed, restarted, in force now"),
        "stopped" => format!("{id}: changed, stopped, in force from the next start"),
        _ if changed.in_force.is_some() => format!(
            "{id}: changed, in force from the next start; what runs goes on with what it had \
             (aos restart {id}, or --now at once)"
        ),
        _ => format!("{id}: changed, in force from the next start"),
    }];
    lines.extend(changed.note.iter().map(|note| screen::one_line(note)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_it_took_effect_is_told_plainly() {
        let told = |effect: &str, in_force: Option<Vec<String>>| {
            let changed = ChangedView {
                effect: effect.into(),
                capabilities: Vec::new(),
                in_force,
                note: Some("a\nnote".into()),
            };
            words("web", &changed).join("|")
        };
        assert_eq!(told("now", None), "web: changed, in force now|a note");
        assert!(told("next-start", Some(Vec::new())).contains("what runs goes on with what it had"));
        assert!(!told("next-start", None).contains("what runs"));
        assert!(told("stopped", None).contains("stopped, in force from the next start"));
        assert!(told("restart", None).contains("restarted, in force now"));
    }
}
