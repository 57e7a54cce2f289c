//! `aos diff ID`, `commit`, `discard`, `snapshot`, `fork`: transactional workspaces.
//!
//! What is shown was answered as the agent's user, and the supervisor has not read it: it is bounded here, names are
//! escaped by who wrote them, and a patch, whose lines are an agent's, is made safe for a terminal.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};
use aos_client::{Client, WorkspaceAnswer};
use aos_core::workspace::{
    ANSWER_MAX_BYTES, Answer, Change, ChangeKind, Changes, Committed, NodeKind, Operation, Skipped, Snapshot,
};
use clap::Args;
use serde::Serialize;

use crate::cli::Format;
use crate::completion;
use crate::failure::{detailed, hinted};
use crate::output::{Output, Tone};
use crate::quantity;
use crate::screen::Screen;
use crate::supervisor;
use crate::table::{Columns, Text};

/// The workspace as the agent names it.
const INSIDE: &str = "/workspace";

/// Keep what an agent changed in its workspace
///
/// Applies the changes of a transactional workspace to what lies below them: all of them, or those at the paths that
/// are named, with what is beneath. Files appear whole or not at all, and a commit that is cut short is ended by the
/// next operation. The agent has to be stopped.
#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: String,

    /// Only these, below /workspace
    #[arg(value_name = "PATH")]
    paths: Vec<String>,

    #[command(flatten)]
    format: Format,
}

/// Throw away what an agent changed in its workspace
///
/// Takes the changes of a transactional workspace back: all that are not committed, snapshots too, or what came after
/// a snapshot. The agent has to be stopped.
#[derive(Debug, Args)]
pub(crate) struct DiscardArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: String,

    /// Go back to this snapshot
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    to: Option<u32>,
}

/// Freeze what an agent changed in its workspace
///
/// Makes a snapshot of a transactional workspace, to which `aos discard --to` goes back. It takes no time and no space,
/// whatever the size. The agent has to be stopped.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: String,

    /// A name for people
    #[arg(value_name = "NAME", conflicts_with = "list")]
    name: Option<String>,

    /// Show the snapshots instead
    #[arg(long)]
    list: bool,

    #[command(flatten)]
    format: Format,
}

/// Make agents that begin with the files of another
///
/// Each fork is an agent of its own: made of the same package with the same rights, stopped, and with the workspace as
/// it is now below its changes. Nothing is copied, whatever the size and the number, and nothing that a fork does
/// changes the original. Forks share the Unix user of the original, which can be neither committed nor removed while
/// they are there. It has to be stopped, and have a transactional workspace.
#[derive(Debug, Args)]
pub(crate) struct ForkArgs {
    /// Id of an agent, as `aos list` shows it
    #[arg(value_name = "ID", add = completion::agents())]
    id: String,

    /// How many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    number: u32,

    /// Name them PREFIX-1, PREFIX-2, ...; without it the prefix is the agent's id with `-fork`
    #[arg(long = "as", value_name = "PREFIX")]
    prefix: Option<String>,

    #[command(flatten)]
    format: Format,
}

/// What one operation did, for a program.
#[derive(Debug, Serialize)]
struct Made {
    snapshot: u32,
    made: bool,
}

/// Shows the changes of a workspace: `aos diff` with one argument.
pub(crate) async fn diff(id: &str, patch: bool, format: Format, out: Output) -> Result<()> {
    if id.contains([':', '@', '/']) {
        return Err(hinted(
            format!("{id} is a package, and there is nothing to compare it with"),
            "name a second package, or the id of an agent, whose workspace is then shown",
        ));
    }
    let client = supervisor::connect().await?;
    match ask(&client, id, &Operation::Diff { patch }).await? {
        Answer::Changes(changes) if format.is_json() => out.json(&changes),
        Answer::Changes(changes) => match &changes.patch {
            Some(patch) => show_patch(patch, &changes, out).context("cannot print"),
            None => show_changes(&changes, out).context("cannot print"),
        },
        other => Err(unexpected(&other)),
    }
}

/// Runs `aos commit`.
pub(crate) async fn commit(args: &CommitArgs, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let paths = args.paths.iter().map(|path| below_workspace(path)).collect();
    let done = {
        let _step = out.step_on_terminal("committing");
        match ask(&client, &args.id, &Operation::Commit { paths }).await? {
            Answer::Committed(done) => done,
            other => return Err(unexpected(&other)),
        }
    };
    if args.format.is_json() {
        out.json(&done)?;
    } else {
        out.line(&committed(&done))?;
    }
    if done.skipped.count > 0 {
        return Err(detailed(
            anyhow::anyhow!(
                "{} could not be applied and are still changes",
                many(done.skipped.count, "path")
            ),
            listed(&done.skipped),
        ));
    }
    if !done.unchanged.is_empty() {
        return Err(detailed(anyhow::anyhow!("nothing has changed at some paths"), done.unchanged.clone()));
    }
    Ok(())
}

/// Runs `aos discard`.
pub(crate) async fn discard(args: &DiscardArgs, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    match ask(&client, &args.id, &Operation::Discard { to: args.to }).await? {
        Answer::Discarded { newest, gave_up_commit } => {
            if gave_up_commit {
                out.note("note: a commit that was cut short was given up; what it had applied stays");
            }
            match newest {
                0 => Ok(out.line("discarded all changes")?),
                newest => Ok(out.line(&format!("went back to snapshot {newest}"))?),
            }
        }
        other => Err(unexpected(&other)),
    }
}

/// Runs `aos snapshot`.
pub(crate) async fn snapshot(args: &SnapshotArgs, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let operation = match args.list {
        true => Operation::Snapshots,
        false => Operation::Snapshot { name: args.name.clone(), at_us: quantity::now_us() },
    };
    match ask(&client, &args.id, &operation).await? {
        Answer::Snapshots(list) if args.format.is_json() => out.json(&list),
        Answer::Snapshots(list) => show_snapshots(&list, out).context("cannot print"),
        Answer::Snapshot { newest, made } if args.format.is_json() => {
            out.json(&Made { snapshot: newest, made })
        }
        Answer::Snapshot { newest, made: true } => Ok(out.line(&format!("snapshot {newest}"))?),
        Answer::Snapshot { newest: 0, .. } => Ok(out.line("nothing has changed: no snapshot was made")?),
        Answer::Snapshot { newest, .. } => {
            Ok(out.line(&format!("nothing has changed since snapshot {newest}"))?)
        }
        other => Err(unexpected(&other)),
    }
}

/// Runs `aos fork`.
pub(crate) async fn fork(args: &ForkArgs, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let prefix = args.prefix.clone().unwrap_or_else(|| format!("{}-fork", args.id));
    let ids = client
        .fork(&args.id, args.number, &prefix)
        .await
        .map_err(supervisor::explain)
        .with_context(|| format!("cannot fork {}", args.id))?;
    if args.format.is_json() {
        return out.json(&ids);
    }
    match (ids.as_slice(), ids.len()) {
        ([first, .., last], count) => out.line(&format!("made {count} agents, {first} to {last}"))?,
        (ids, _) => ids.iter().try_for_each(|id| out.line(&format!("made {id}")))?,
    }
    Ok(())
}

/// Asks, and reads the answer; one that says why it was not done is an error.
async fn ask(client: &Client, id: &str, operation: &Operation) -> Result<Answer> {
    let what = || format!("{} of the workspace of {id}", operation.as_str());
    let WorkspaceAnswer { done, file } =
        client.workspace(id, operation).await.map_err(supervisor::explain).with_context(what)?;
    let hint = format!("journalctl -u aos-workspace@{id}.service");
    match read_answer(File::from(file)) {
        Ok(Answer::Failed { message }) => Err(anyhow::Error::msg(message).context(what())),
        Ok(answer) if done => Ok(answer),
        Ok(_) => Err(hinted(format!("the {} was cut short; the next operation ends it", what()), hint)),
        Err(error) => Err(hinted(format!("the answer to the {} cannot be read: {error}", what()), hint)),
    }
}

/// Reads an answer, which is bounded.
pub(crate) fn read_answer(file: File) -> Result<Answer> {
    let mut bytes = Vec::new();
    let max = u64::try_from(ANSWER_MAX_BYTES).unwrap_or(u64::MAX);
    file.take(max + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() <= ANSWER_MAX_BYTES, "it has over {ANSWER_MAX_BYTES} bytes");
    Ok(serde_json::from_slice(&bytes)?)
}

fn unexpected(answer: &Answer) -> anyhow::Error {
    let kind = match answer {
        Answer::Changes(_) => "changes",
        Answer::Committed(_) => "a commit",
        Answer::Discarded { .. } => "a discard",
        Answer::Snapshot { .. } | Answer::Snapshots(_) => "snapshots",
        Answer::Saved { .. } | Answer::Done => "a checkpoint",
        Answer::Failed { .. } => "a failure",
    };
    anyhow::anyhow!("the answer is that to another question ({kind})")
}

/// A path as it is asked for: the agent's own names are understood too.
fn below_workspace(path: &str) -> String {
    match path.strip_prefix(INSIDE) {
        Some("") => ".".to_owned(),
        Some(rest) if rest.starts_with('/') => rest.trim_start_matches('/').to_owned(),
        _ => path.to_owned(),
    }
}

fn many(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn committed(done: &Committed) -> String {
    match done.count {
        0 => "nothing to commit".to_owned(),
        count => format!("committed {}, {}", many(count, "change"), quantity::bytes(done.bytes)),
    }
}

/// What could not be done, and how much of it is not listed.
fn listed(skipped: &Skipped) -> Vec<String> {
    let mut lines = skipped.entries.clone();
    let shown = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    if skipped.count > shown {
        lines.push(format!("and {} more", skipped.count - shown));
    }
    lines
}

fn show_changes(changes: &Changes, out: Output) -> std::io::Result<()> {
    if changes.entries.is_empty() {
        out.line("no changes")?;
    } else {
        let mut table = Columns::new(out, &["CHANGE", "SIZE", "PATH"]);
        for change in &changes.entries {
            let (word, tone) = word(change.kind);
            table.row([Text::toned(word, tone), Text::new(measure(change)), Text::new(shown(change))]);
        }
        table.print()?;
    }
    remarks(changes, out);
    Ok(())
}

/// What the list does not have.
fn remarks(changes: &Changes, out: Output) {
    let shown = u64::try_from(changes.entries.len()).unwrap_or(u64::MAX);
    if changes.count > shown {
        let least = if changes.is_cut { "at least " } else { "" };
        out.note(&format!("{shown} of {least}{} changes are shown", changes.count));
    }
    for line in listed(&changes.skipped) {
        out.warn(&format!("not looked at: {line}"));
    }
}

fn show_patch(patch: &str, changes: &Changes, out: Output) -> std::io::Result<()> {
    let screen = if out.is_terminal() { Screen::Plain } else { Screen::Raw };
    for line in patch.split_inclusive('\n') {
        let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
        let mut bytes = screen.show(text.as_bytes());
        bytes.extend_from_slice(end.as_bytes());
        out.bytes(&bytes)?;
    }
    remarks(changes, out);
    Ok(())
}

fn word(kind: ChangeKind) -> (&'static str, Tone) {
    match kind {
        ChangeKind::Added => ("added", Tone::Good),
        ChangeKind::Modified => ("modified", Tone::Warn),
        ChangeKind::Deleted => ("deleted", Tone::Bad),
        ChangeKind::Replaced => ("replaced", Tone::Warn),
        ChangeKind::Mode => ("mode", Tone::Faint),
    }
}

fn noun(node: NodeKind) -> &'static str {
    match node {
        NodeKind::File => "file",
        NodeKind::Directory => "directory",
        NodeKind::Symlink => "link",
        NodeKind::Fifo => "pipe",
        NodeKind::Socket => "socket",
        NodeKind::Device => "device",
    }
}

/// What of a change is a number.
fn measure(change: &Change) -> String {
    match (change.kind, change.node) {
        (ChangeKind::Mode, _) => format!("{:o} > {:o}", change.old_mode, change.mode),
        (ChangeKind::Replaced, node) => {
            format!("{} > {}", change.was.map_or("", noun), noun(node))
        }
        (ChangeKind::Modified, NodeKind::File) => {
            format!("{} > {}", quantity::bytes(change.old_size), quantity::bytes(change.size))
        }
        (ChangeKind::Deleted, NodeKind::File) => quantity::bytes(change.old_size),
        (_, NodeKind::File) => quantity::bytes(change.size),
        (_, node) => noun(node).to_owned(),
    }
}

/// The path; a directory's ends with a slash.
fn shown(change: &Change) -> String {
    let end = if change.node == NodeKind::Directory { "/" } else { "" };
    format!("{}{end}", change.path)
}

fn show_snapshots(list: &[Snapshot], out: Output) -> std::io::Result<()> {
    if list.is_empty() {
        return out.line("no snapshots");
    }
    let now = quantity::now_us();
    let mut table = Columns::new(out, &["NUMBER", "MADE", "NAME"]);
    for snapshot in list {
        table.row([
            Text::new(snapshot.number.to_string()),
            Text::new(quantity::ago(snapshot.at_us, now)),
            Text::or_dash(snapshot.name.as_deref()),
        ]);
    }
    table.print()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_the_workspace_either_way() {
        for (given, asked) in [
            ("src/a", "src/a"),
            ("/workspace/src/a", "src/a"),
            ("/workspace", "."),
            ("/workspace//x", "x"),
            ("/workspaces/x", "/workspaces/x"),
            ("/etc", "/etc"),
        ] {
            assert_eq!(below_workspace(given), asked);
        }
    }

    #[test]
    fn changes_in_words() {
        let change = |kind, node, was| Change {
            path: "p".to_owned(),
            kind,
            node,
            was,
            size: 2048,
            old_size: 10,
            mode: 0o600,
            old_mode: 0o644,
        };
        let added = change(ChangeKind::Added, NodeKind::Directory, None);
        assert_eq!((measure(&added).as_str(), shown(&added).as_str()), ("directory", "p/"));
        assert_eq!(measure(&change(ChangeKind::Mode, NodeKind::File, None)), "644 > 600");
        let replaced = change(ChangeKind::Replaced, NodeKind::Symlink, Some(NodeKind::File));
        assert_eq!(measure(&replaced), "file > link");
        assert!(measure(&change(ChangeKind::Modified, NodeKind::File, None)).contains(" > "));
    }

    #[test]
    fn what_could_not_be_done_is_listed_and_counted() {
        let mut skipped = Skipped::default();
        for _ in 0..150 {
            skipped.add("a", "b");
        }
        assert_eq!(listed(&skipped).last().unwrap(), "and 50 more");
        assert_eq!(committed(&Committed::default()), "nothing to commit");
    }
}
