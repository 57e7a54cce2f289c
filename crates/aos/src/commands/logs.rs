//! `aos logs`: what an agent wrote.

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::cli::Format;
use crate::completion;
use crate::failure::hinted;
use crate::journal::{Entry, Kind, Query, Reader};
use crate::output::{Output, Tone};
use crate::screen::{self, Screen};
use crate::supervisor;

/// Show what an agent wrote
///
/// Shows the output of all runs that the journal still has, oldest first. On a terminal, control characters in
/// it are shown as escapes.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: aos_core::id::AgentId,

    /// Show new lines as they are written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,

    /// Show the last N lines only
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,

    /// Show lines since then: a date, a time, or `-1h`, `yesterday` (see journalctl(1))
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,

    /// Show what systemd says about the agent's unit, too
    #[arg(long)]
    system: bool,

    #[command(flatten)]
    format: Format,
}

/// An entry as JSON, one a line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation_id: Option<&'a str>,
    source: &'static str,
    text: String,
}

/// Runs `aos logs`.
pub(crate) async fn run(args: &LogsArgs, out: Output) -> Result<()> {
    let query = Query {
        unit: args.id.unit_name(),
        follow: args.follow,
        lines: args.lines,
        since: args.since.clone(),
        with_system: args.system,
        after: None,
    };
    let mut reader = Reader::start(&query)?;
    let mut printer = Printer { out, json: args.format.is_json() };
    let mut empty = true;
    while let Some(entry) = reader.next().await? {
        empty = false;
        printer.print(&entry)?;
    }
    let complaint = reader.complaint().await;
    if empty {
        return nothing(args, &complaint, out).await;
    }
    if !complaint.is_empty() {
        out.warn(&screen::one_line(&complaint));
    }
    Ok(())
}

/// Tells why there is nothing: no such agent, no right, or no output.
async fn nothing(args: &LogsArgs, complaint: &str, out: Output) -> Result<()> {
    if complaint.contains("insufficient permissions") || complaint.contains("not seeing messages") {
        return Err(hinted(
            "the journal cannot be read by you",
            "use sudo, or be a member of the group `systemd-journal`",
        ));
    }
    if !complaint.is_empty() {
        return Err(anyhow::anyhow!("journalctl: {}", screen::one_line(complaint)));
    }
    let id = args.id.as_str();
    let client = supervisor::connect().await?;
    client.agent(id).await.map_err(supervisor::explain).with_context(|| format!("no output of {id}"))?;
    out.note(&format!("{id} has written nothing that the journal still has"));
    Ok(())
}

struct Printer {
    out: Output,
    json: bool,
}

impl Printer {
    fn print(&mut self, entry: &Entry) -> Result<()> {
        if self.json {
            let (source, text) = match &entry.kind {
                Kind::Output { bytes, .. } => ("agent", String::from_utf8_lossy(bytes).into_owned()),
                Kind::System(text) => ("system", text.clone()),
                Kind::Dropped(count) => ("journal", format!("{count} lines were dropped")),
            };
            let invocation_id = entry.invocation.as_deref();
            let line = Line { time_us: entry.time_us, invocation_id, source, text };
            return Ok(self.out.line(&serde_json::to_string(&line)?)?);
        }
        match &entry.kind {
            Kind::Output { bytes, ends_line } => Ok(self.out.bytes(&shown(self.out, bytes, *ends_line))?),
            Kind::System(text) => {
                let text = format!("systemd: {}", screen::one_line(text));
                Ok(self.out.line(&self.out.paint(Tone::Faint, &text))?)
            }
            Kind::Dropped(count) => {
                self.out.warn(&dropped(*count));
                Ok(())
            }
        }
    }
}

/// A piece of output as it is printed: a whole line ends with a line break.
pub(crate) fn shown(out: Output, bytes: &[u8], ends_line: bool) -> Vec<u8> {
    let screen = match (out.is_terminal(), out.colours()) {
        (false, _) => Screen::Raw,
        (true, false) => Screen::Plain,
        (true, true) => Screen::Coloured,
    };
    let mut shown = screen.show(bytes);
    if ends_line {
        shown.push(b'\n');
    }
    shown
}

/// The warning about lines that journald did not keep.
pub(crate) fn dropped(count: u64) -> String {
    format!("the journal dropped {count} lines of the agent, which wrote too much in too short a time")
}
