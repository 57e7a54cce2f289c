//! `aos explain`: for each layer of confinement, what was asked, what is in force, and why.

use anyhow::{Context, Result};
use aos_client::explanation::{Explanation, Source};
use clap::Args;
use serde_json::Value;

use crate::cli::Format;
use crate::commands::capability::state;
use crate::completion;
use crate::output::{Output, Tone};
use crate::screen;
use crate::supervisor;
use crate::table::{Columns, Text};

/// Show what confines an agent
///
/// Shows what each capability gives the agent, and for each layer of the sandbox what was asked for and what is in
/// force: as the launcher read it back from the kernel when the agent started, and as /proc and the control group
/// show it now.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: String,

    #[command(flatten)]
    format: Format,
}

/// Runs `aos explain`.
pub(crate) async fn run(args: &ExplainArgs, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let json = client
        .explain(&args.id)
        .await
        .map_err(supervisor::explain)
        .with_context(|| format!("cannot explain {}", args.id))?;
    let unreadable = "the supervisor's explanation cannot be read: do the versions differ?";
    if args.format.is_json() {
        // All fields that the supervisor sent, also those that this version does not know.
        let value: Value = serde_json::from_str(&json).context(unreadable)?;
        return out.json(&value);
    }
    show(&serde_json::from_str(&json).context(unreadable)?, out)
}

fn show(explanation: &Explanation, out: Output) -> Result<()> {
    out.line(&headline(explanation))?;
    for note in &explanation.notes {
        out.line(&format!("note: {}", screen::one_line(note)))?;
    }
    out.line("")?;
    show_capabilities(explanation, out)?;
    if explanation.grants.is_empty() {
        out.line("It is granted nothing beyond what every agent has.")?;
    } else {
        let mut table = Columns::new(out, &["GRANTED", "BY", "BECAUSE OF"]);
        for grant in &explanation.grants {
            table.row([Text::new(&grant.what), Text::new(&grant.layer), Text::new(&grant.cause)]);
        }
        table.print()?;
    }
    out.line("")?;
    let mut table = Columns::new(out, &["LAYER", "ASKED", "IN FORCE", "OK", "SEEN BY", "BECAUSE OF"]);
    for row in &explanation.layers {
        table.row([
            Text::toned(&row.layer, Tone::Strong),
            Text::new(&row.asked),
            Text::or_dash((!row.in_force.is_empty()).then_some(&row.in_force)),
            verdict(row.ok),
            Text::toned(seen_by(row.source), Tone::Faint),
            Text::toned(&row.cause, Tone::Faint),
        ]);
    }
    table.print()?;
    let count = explanation.layers.iter().filter(|row| row.ok == Some(false)).count();
    if count > 0 {
        out.line("")?;
        let layers = if count == 1 { "1 layer is".to_owned() } else { format!("{count} layers are") };
        out.line(&out.paint(Tone::Bad, &format!("{layers} not in force as asked")))?;
    }
    Ok(())
}

/// What the next start gives the agent, and whether what runs has it.
fn show_capabilities(explanation: &Explanation, out: Output) -> Result<()> {
    if explanation.capabilities.is_empty() {
        return Ok(());
    }
    let mut table = Columns::new(out, &["CAPABILITY", "STATE", "ENFORCED BY"]);
    for row in &explanation.capabilities {
        let (words, tone) = state(row.declared, row.in_force);
        table.row([
            Text::toned(&row.capability, Tone::Strong),
            Text::toned(words, tone),
            Text::new(&row.enforced_by),
        ]);
    }
    table.print()?;
    Ok(out.line("")?)
}

fn headline(explanation: &Explanation) -> String {
    let mut text = format!("{} ({}) is {}", explanation.agent, explanation.reference, explanation.state);
    if let Some(pid) = explanation.pid {
        text.push_str(&format!(", process {pid}"));
    }
    if let Some(kernel) = &explanation.kernel {
        text.push_str(&format!("; kernel {kernel}"));
    }
    if let Some(landlock) = &explanation.landlock {
        text.push_str(&format!(", Landlock ABI {} of {}", landlock.effective_abi, landlock.kernel_abi));
    }
    screen::one_line(&text)
}

fn verdict(ok: Option<bool>) -> Text {
    match ok {
        Some(true) => Text::toned("yes", Tone::Good),
        Some(false) => Text::toned("NO", Tone::Bad),
        None => Text::new("-"),
    }
}

const fn seen_by(source: Source) -> &'static str {
    match source {
        Source::Launcher => "launcher",
        Source::Proc => "/proc",
        Source::Cgroup => "cgroup",
        Source::Plan => "plan",
        Source::Systemd => "systemd",
        Source::Filesystem => "file system",
    }
}
