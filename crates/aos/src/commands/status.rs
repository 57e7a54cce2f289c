//! `aos status`: one agent in detail, or the supervisor and a count of the agents.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aos_client::{AgentView, Client};
use clap::Args;
use serde_json::json;

use crate::cli::Format;
use crate::commands::list::state_words;
use crate::completion;
use crate::journal::{Kind, Query, Reader};
use crate::output::{Output, Tone};
use crate::quantity;
use crate::screen::{self, Screen};
use crate::shape;
use crate::supervisor;

/// The last lines of output that are shown with an agent.
const TAIL_LINES: u64 = 10;

/// Show an agent, or the supervisor
///
/// With an ID: the agent's state, package, unit, account, capabilities and last output. Without: the versions, and
/// how many agents are in which state.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: Option<String>,

    #[command(flatten)]
    format: Format,
}

/// Runs `aos status`.
pub(crate) async fn run(args: &StatusArgs, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    match &args.id {
        Some(id) => agent(&client, id, args.format, out).await,
        None => machine(&client, args.format, out).await,
    }
}

async fn machine(client: &Client, format: Format, out: Output) -> Result<()> {
    let version = client.version().await.map_err(supervisor::explain)?;
    let agents = client.agents().await.map_err(supervisor::explain)?;
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for agent in &agents {
        *states.entry(agent.state.as_str()).or_default() += 1;
    }
    let own = env!("CARGO_PKG_VERSION");
    if format.is_json() {
        let states = serde_json::to_value(&states)?;
        return out.json(&json!({"aos": own, "agentd": version, "agents": agents.len(), "states": states}));
    }
    out.line(&format!("aos     {own}"))?;
    out.line(&format!("agentd  {}", screen::one_line(&version)))?;
    let counts: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    out.line(&format!("agents  {}", screen::one_line(&counts)))?;
    for failed in agents.iter().filter(|agent| agent.state == "failed") {
        let id = screen::one_line(&failed.id);
        out.line(&format!(
            "        {} see: aos status {id}",
            out.paint(Tone::Bad, &format!("{id} failed;"))
        ))?;
    }
    Ok(())
}

async fn agent(client: &Client, id: &str, format: Format, out: Output) -> Result<()> {
    let view =
        client.agent(id).await.map_err(supervisor::explain).with_context(|| format!("cannot show {id}"))?;
    if format.is_json() {
        return out.json(&shape::Agent::from(&view));
    }
    for (label, value) in fields(&view, quantity::now_us()) {
        let label = out.paint(Tone::Faint, &format!("{label:>13}"));
        out.line(&format!("{label}  {value}"))?;
    }
    tail(&view, out).await
}

fn fields(view: &AgentView, now_us: u64) -> Vec<(&'static str, String)> {
    let text = |text: &str| screen::one_line(text);
    let ago = |then: u64| quantity::ago(then, now_us);
    let mut fields = vec![
        ("Agent", text(&view.id)),
        ("Package", format!("{} ({})", text(&view.reference), text(&view.lifecycle))),
        ("Digest", text(&view.digest)),
        ("State", text(&state_words(view))),
    ];
    fields.extend(view.error.as_deref().map(|error| ("Error", text(error))));
    fields.extend(view.started_at_us.map(|then| ("Started", ago(then))));
    let at_rest = view.main_pid.is_none();
    fields.extend(view.exited_at_us.filter(|_| at_rest).map(|then| ("Ended", ago(then))));
    fields.push(("At boot", if view.enabled { "starts" } else { "does not start" }.to_owned()));
    fields.extend(view.main_pid.map(|pid| ("Main process", pid.to_string())));
    fields.extend(view.memory_current.map(|count| ("Memory", quantity::bytes(count))));
    fields.extend(view.disk_limit.map(|limit| ("Disk", disk(limit, view.disk_used))));
    fields.push(("Unit", text(&view.unit)));
    let uid = view.uid.map(|uid| format!(" ({uid})")).unwrap_or_default();
    fields.push(("User", format!("{}{uid}", text(&view.user))));
    fields.push(("Workspace", workspace(view)));
    let mut label = "Capabilities";
    for capability in &view.capabilities {
        fields.push((label, text(capability)));
        label = "";
    }
    if view.capabilities.is_empty() {
        fields.push((label, "none".to_owned()));
    }
    if let Some(given) = &view.in_force {
        let given = if given.is_empty() { "nothing".to_owned() } else { given.join(", ") };
        fields.push(("Until restart", text(&format!("changed, but what runs was given: {given}"))));
    }
    fields
}

/// How much of the disk the agent uses of what it may.
fn disk(limit: u64, used: Option<u64>) -> String {
    let limit = quantity::bytes(limit);
    used.map_or_else(|| format!("at most {limit}"), |used| format!("{} of {limit}", quantity::bytes(used)))
}

/// Where the agent's files are; of a transactional workspace those that it changed, since a fork shares the others.
fn workspace(view: &AgentView) -> String {
    let id = screen::one_line(&view.id);
    match view.workspace.as_deref() {
        Some("transactional") => format!("transactional, changes in /var/lib/aos-changes/{id}"),
        _ => format!("/var/lib/aos-agents/{id}"),
    }
}

/// The last lines of the current or last run. Status does not fail for a journal that cannot be read.
async fn tail(view: &AgentView, out: Output) -> Result<()> {
    let query = Query { unit: view.unit.clone(), lines: Some(TAIL_LINES), ..Query::default() };
    let Ok(mut reader) = Reader::start(&query) else { return Ok(()) };
    let screen = if out.colours() { Screen::Coloured } else { Screen::Plain };
    let mut first = true;
    while let Ok(Some(entry)) = reader.next().await {
        let Kind::Output { bytes, .. } = entry.kind else { continue };
        if entry.invocation.is_some() && entry.invocation != view.invocation_id {
            continue;
        }
        if first {
            out.line("")?;
            first = false;
        }
        let mut line = screen.show(&bytes);
        line.push(b'\n');
        out.bytes(&line)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_an_operator_asks_about_is_there() {
        let view = AgentView {
            id: "watch".into(),
            reference: "sitewatch:1.0.0".into(),
            digest: "sha256:00".into(),
            state: "failed".into(),
            enabled: true,
            desired: "stopped".into(),
            lifecycle: "oneshot".into(),
            main_pid: None,
            invocation_id: None,
            result: Some("exit-code".into()),
            exit_status: Some(3),
            started_at_us: Some(0),
            exited_at_us: Some(60_000_000),
            memory_current: None,
            disk_limit: Some(1 << 30),
            disk_used: Some(10 << 20),
            unit: "aos-agent@watch.service".into(),
            uid: Some(1_879_113_728),
            user: "aos-watch".into(),
            capabilities: vec!["file_read: /srv/**".into(), "exec: /usr/bin/git".into()],
            in_force: None,
            workspace: None,
            error: Some("exit status 3\nsee the log".into()),
        };
        let lines: Vec<String> =
            fields(&view, 120_000_000).iter().map(|(label, value)| format!("{label:>13}  {value}")).collect();
        insta::assert_snapshot!(lines.join("\n"));
        let view = AgentView { workspace: Some("transactional".into()), ..view };
        let shown = fields(&view, 120_000_000).into_iter().find(|(label, _)| *label == "Workspace");
        assert_eq!(shown.unwrap().1, "transactional, changes in /var/lib/aos-changes/watch");
    }
}
