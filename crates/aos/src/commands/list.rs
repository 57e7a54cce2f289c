//! `aos list`: the agents.

use anyhow::Result;
use aos_client::AgentView;
use clap::{Args, ValueEnum};

use crate::cli::Format;
use crate::commands::{packages, stored};
use crate::output::{Output, Tone};
use crate::quantity;
use crate::shape;
use crate::supervisor;
use crate::table::{Columns, Text};

/// Show the agents, or the packages of your store
///
/// Shows every agent: its package, its state, whether it starts at boot, when it last started or ended, and the memory
/// it uses. `aos list packages` shows the packages that you built, pulled or imported; `aos packages` shows those that
/// are installed on this machine.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// What to show
    #[arg(value_enum, value_name = "WHAT", default_value_t = What::Agents, hide_default_value = true)]
    what: What,

    /// Show the installed packages instead, as `aos packages` does
    #[arg(long, conflicts_with = "what")]
    packages: bool,

    #[command(flatten)]
    pub(crate) format: Format,
}

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The agents of this machine
    Agents,
    /// The packages of your store
    Packages,
}

/// Runs `aos list`.
pub(crate) async fn run(args: &ListArgs, out: Output) -> Result<()> {
    if args.packages {
        return packages::list(args.format, out).await;
    }
    if args.what == What::Packages {
        return stored::list(args.format, out);
    }
    let client = supervisor::connect().await?;
    let agents = client.agents().await.map_err(supervisor::explain)?;
    if args.format.is_json() {
        return out.json(&agents.iter().map(shape::Agent::from).collect::<Vec<_>>());
    }
    if agents.is_empty() {
        out.note("no agents; `aos run DIR` makes one");
        return Ok(());
    }
    let now = quantity::now_us();
    let mut table = Columns::new(out, &["ID", "PACKAGE", "STATE", "BOOT", "SINCE", "MEMORY"]);
    for agent in &agents {
        table.row([
            Text::toned(&agent.id, Tone::Strong),
            Text::new(&agent.reference),
            state(agent),
            Text::new(if agent.enabled { "yes" } else { "no" }),
            Text::or_dash(since(agent).map(|then| quantity::ago(then, now))),
            Text::or_dash(agent.memory_current.map(quantity::bytes)),
        ]);
    }
    Ok(table.print()?)
}

/// The state with how the last run ended.
pub(crate) fn state(agent: &AgentView) -> Text {
    let tone = match agent.state.as_str() {
        "running" => Tone::Good,
        "failed" => Tone::Bad,
        "starting" | "paused" | "stopping" | "backoff" | "removing" => Tone::Warn,
        _ => Tone::Faint,
    };
    Text::toned(state_words(agent), tone)
}

/// The state in words: `running`, `stopped (exit 0)`, `failed (signal 9)`, `failed (oom-kill)`.
pub(crate) fn state_words(agent: &AgentView) -> String {
    let at_rest = matches!(agent.state.as_str(), "stopped" | "exited" | "failed");
    let ending = match (agent.result.as_deref(), agent.exit_status) {
        _ if !at_rest => None,
        (Some("success"), Some(0)) => Some("exit 0".to_owned()),
        (Some("success"), _) => Some("ended when asked".to_owned()),
        // The launcher passes on the end of an agent by a signal as 128 + signal; Linux has 64 signals, and the
        // launcher's own statuses lie above.
        (Some("exit-code"), Some(status)) if (129..=192).contains(&status) => {
            Some(format!("signal {}", status - 128))
        }
        (Some("exit-code"), Some(status)) => Some(format!("exit {status}")),
        (Some("signal" | "core-dump"), Some(signal)) => Some(format!("signal {signal}")),
        (Some(other), _) => Some(other.to_owned()),
        (None, _) => None,
    };
    ending.map_or_else(|| agent.state.clone(), |ending| format!("{} ({ending})", agent.state))
}

/// When the current state began, as far as it is known.
fn since(agent: &AgentView) -> Option<u64> {
    let active = matches!(agent.state.as_str(), "starting" | "running" | "paused" | "stopping");
    if active { agent.started_at_us } else { agent.exited_at_us.or(agent.started_at_us) }
}
