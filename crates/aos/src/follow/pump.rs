//! From the journal to standard output, without losing a line.
//!
//! While the run goes on, a following `journalctl` is read. When the run has ended, journald may still hold lines
//! in its sockets: root asks it to write them (`journalctl --sync` returns after everything received before has
//! been written), others wait until nothing new comes. Then the follower is ended, what it had printed is read,
//! and a last query reads what came after the last entry seen.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use crate::commands::logs::{dropped, shown};
use crate::failure::advised;
use crate::journal::{self, Entry, Kind, Query, Reader};
use crate::output::Output;
use crate::screen;

/// How often a `journalctl` that ended by itself is started again.
const MAX_RESTARTS: u32 = 5;
/// How long the journal is watched for late lines when it cannot be synced, and how often.
const SETTLE_ROUNDS: u32 = 20;
const SETTLE_EVERY: Duration = Duration::from_millis(150);
/// This many rounds without a new line mean that nothing comes any more.
const QUIET_ROUNDS: u32 = 2;
/// The last lines shown of a run that did not start.
const SAID_LINES: usize = 20;

/// Whose lines, from where.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The agent's unit.
    pub(super) unit: String,
    /// The newest entry before the run.
    pub(super) after: Option<String>,
    /// The run before this one, whose late lines are not ours.
    pub(super) previous: Option<String>,
}

/// Copies one run's lines.
pub(super) struct Pump {
    source: Source,
    reader: Reader,
    out: Output,
    seen: Vec<String>,
    line_open: bool,
}

impl Pump {
    /// Starts to read.
    pub(super) fn start(source: Source, invocation: String, out: Output) -> Result<Self> {
        let reader = Reader::start(&query(&source, source.after.clone(), true))?;
        Ok(Self { source, reader, out, seen: vec![invocation], line_open: false })
    }

    /// Copies until `finished`, then what is left.
    pub(super) async fn run(mut self, mut finished: oneshot::Receiver<()>) -> Result<()> {
        let mut restarts = 0;
        loop {
            // Both branches are cancel safe: see `Reader::next`; a oneshot keeps its value.
            let entry = tokio::select! {
                // A dropped sender means that nobody waits for the rest.
                end = &mut finished => match end {
                    Ok(()) => break,
                    Err(_) => return Ok(()),
                },
                entry = self.reader.next() => entry?,
            };
            match entry {
                Some(entry) => self.print(&entry, true)?,
                None if restarts < MAX_RESTARTS => {
                    restarts += 1;
                    self.report_end(restarts).await;
                    tokio::time::sleep(SETTLE_EVERY).await;
                    self.restart(true)?;
                }
                None => return self.blind(finished).await,
            }
        }
        self.drain().await
    }

    /// Tells once why `journalctl` ended.
    async fn report_end(&mut self, restarts: u32) {
        let complaint = self.reader.complaint().await;
        if restarts == 1 && !complaint.is_empty() {
            self.out.warn(&format!("journalctl: {}", screen::one_line(&complaint)));
        }
    }

    /// Without a journal the agent still runs; its exit status is awaited.
    async fn blind(&mut self, finished: oneshot::Receiver<()>) -> Result<()> {
        let error = advised(
            anyhow::anyhow!("the agent's output cannot be read"),
            "use sudo, or be a member of the group `systemd-journal`",
        );
        self.out.error(&error);
        if finished.await.is_err() {
            // Nobody waits for the end any more; there is nothing left to do either way.
        }
        Ok(())
    }

    fn restart(&mut self, follow: bool) -> Result<()> {
        let after = self.reader.cursor.clone().or_else(|| self.source.after.clone());
        self.reader = Reader::start(&query(&self.source, after, follow))?;
        Ok(())
    }

    /// Reads what came before the end of the run and has not been read.
    async fn drain(&mut self) -> Result<()> {
        let synced = rustix::process::geteuid().is_root() && self.sync().await;
        self.reader.stop()?;
        self.rest().await?;
        let mut quiet = 0;
        for round in 0..SETTLE_ROUNDS {
            if round > 0 {
                tokio::time::sleep(SETTLE_EVERY).await;
            }
            self.restart(false)?;
            let count = self.rest().await?;
            quiet = if count == 0 { quiet + 1 } else { 0 };
            if synced || quiet >= QUIET_ROUNDS {
                break;
            }
        }
        if self.line_open && self.out.is_terminal() {
            self.out.bytes(b"\n")?;
        }
        Ok(())
    }

    async fn sync(&self) -> bool {
        match journal::sync().await {
            Ok(()) => true,
            Err(error) => {
                self.out.warn(&format!("the last lines may be missing: {error:#}"));
                false
            }
        }
    }

    /// Copies to the end of the current query; returns how many entries there were.
    async fn rest(&mut self) -> Result<u32> {
        let mut count = 0;
        while let Some(entry) = self.reader.next().await? {
            count += 1;
            self.print(&entry, false)?;
        }
        Ok(count)
    }

    /// Prints an entry of ours. While the run goes on, a new invocation is a restart of it; afterwards it is
    /// somebody else's run.
    fn print(&mut self, entry: &Entry, going_on: bool) -> Result<()> {
        if let Some(invocation) = &entry.invocation
            && !self.seen.contains(invocation)
        {
            let foreign = self.source.after.is_none() || self.source.previous.as_ref() == Some(invocation);
            if foreign || !going_on {
                return Ok(());
            }
            self.seen.push(invocation.clone());
        }
        match &entry.kind {
            Kind::Output { bytes, ends_line } => {
                self.out.bytes(&shown(self.out, bytes, *ends_line))?;
                self.line_open = !ends_line;
            }
            Kind::Dropped(count) => self.out.warn(&dropped(*count)),
            Kind::System(_) => {}
        }
        Ok(())
    }
}

fn query(source: &Source, after: Option<String>, follow: bool) -> Query {
    Query { unit: source.unit.clone(), after, follow, ..Query::default() }
}

/// What the unit and systemd said about a run that did not start; nothing when the journal cannot be read.
pub(super) async fn said(source: &Source) -> Vec<String> {
    let lines = read_said(source).await.unwrap_or_default();
    let skipped = lines.len().saturating_sub(SAID_LINES);
    lines.into_iter().skip(skipped).collect()
}

async fn read_said(source: &Source) -> Result<Vec<String>> {
    if source.after.is_none() {
        return Ok(Vec::new());
    }
    if rustix::process::geteuid().is_root() {
        journal::sync().await.context("the journal is not up to date")?;
    }
    let mut reader = Reader::start(&query(source, source.after.clone(), false))?;
    let mut lines = Vec::new();
    while let Some(entry) = reader.next().await? {
        if let Kind::Output { bytes, .. } = &entry.kind {
            lines.push(screen::one_line(&String::from_utf8_lossy(bytes)));
        }
    }
    Ok(lines)
}
