//! `aos gc`: what no tag, no agent and no build needs goes.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use aos_build::Cache;
use aos_client::{Client, ClientError, Collect};
use aos_package::repository::{Collected, GcMode};
use clap::Args;
use serde::Serialize;

use crate::cli::Format;
use crate::output::Output;
use crate::quantity;
use crate::store::UserStore;
use crate::supervisor;

/// Remove what nothing needs
///
/// Keeps, of your store, what has a tag, what is attached to it, what the build cache has, and what a program that runs
/// now is working with; `aos remove NAME:VERSION` takes a tag away, `aos cache prune` shrinks the cache. Keeps, of the
/// machine's store, what has a name and what an agent uses; it is looked after when the supervisor runs and you may.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,

    /// Leave the machine's store alone
    #[arg(long)]
    user_only: bool,

    #[command(flatten)]
    format: Format,
}

/// What was removed, or would be.
#[derive(Debug, Serialize)]
struct View {
    /// True when nothing was removed.
    dry_run: bool,
    /// Packages and attachments.
    manifests: Vec<String>,
    /// Blobs, manifests among them.
    blobs: Vec<String>,
    /// Files of programs that were interrupted.
    leftovers: usize,
    /// Bytes of all of it.
    bytes: u64,
    /// Manifests that cannot be read: while there are any, no blob is removed.
    damaged: Vec<String>,
    /// The machine's store; absent when it was left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<MachineView>,
}

/// What was removed from the machine's store, or would be.
#[derive(Debug, Serialize)]
struct MachineView {
    /// Packages, each `name@digest`.
    packages: Vec<String>,
    /// Bytes of their blobs.
    bytes: u64,
}

/// Runs `aos gc`.
pub(crate) async fn run(args: &GcArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let mode = if args.dry_run { GcMode::DryRun } else { GcMode::Collect };
    let roots = cached(&store)?;
    let collected = {
        let _step = out.step_on_terminal("looking for what nothing needs");
        store.repository().gc(&BTreeSet::new(), &roots, mode)
    };
    let collected = collected.context("cannot collect what nothing needs")?;
    for digest in &collected.damaged {
        out.warn(&format!(
            "{digest} cannot be read; while it has a tag, no blob is removed: aos store check"
        ));
    }
    let mut view = view(args.dry_run, &collected);
    if !args.user_only {
        view.machine = machine(args.dry_run, out).await?;
    }
    if args.format.is_json() {
        return out.json(&view);
    }
    if args.dry_run {
        for digest in &view.manifests {
            out.line(digest)?;
        }
    }
    let verb = if args.dry_run { "would free" } else { "freed" };
    let text = format!(
        "{verb} {} in {} blobs, {} of them manifests, and {} leftovers",
        quantity::bytes(view.bytes),
        view.blobs.len(),
        view.manifests.len(),
        view.leftovers
    );
    out.line(&text)?;
    let Some(machine) = &view.machine else { return Ok(()) };
    for package in &machine.packages {
        out.line(package)?;
    }
    let bytes = quantity::bytes(machine.bytes);
    Ok(out.line(&format!("in the machine's store: {verb} {bytes} in {} packages", machine.packages.len()))?)
}

/// Looks after the machine's store. Without a supervisor, or the right to do it, it is left alone.
async fn machine(dry_run: bool, out: Output) -> Result<Option<MachineView>> {
    let collect = if dry_run { Collect::DryRun } else { Collect::Remove };
    let collected = match Client::connect().await {
        Ok(client) => client.collect(collect).await,
        Err(error) => Err(error),
    };
    match collected {
        Ok(found) => Ok(Some(MachineView { packages: found.packages, bytes: found.bytes })),
        Err(ClientError::NoBus(_) | ClientError::NotRunning(_)) => Ok(None),
        Err(error) if supervisor::is_not_authorised(&error) => {
            out.note(&format!("the machine's store is left alone: {error}"));
            Ok(None)
        }
        Err(error) => Err(supervisor::explain(error)).context("cannot look after the machine's store"),
    }
}

/// The layers that the build cache has.
pub(crate) fn cached(store: &UserStore) -> Result<BTreeSet<aos_core::id::Digest>> {
    let cache = Cache::open(store.repository()).context("cannot open the build cache")?;
    cache.layers().context("cannot read the build cache")
}

fn view(dry_run: bool, collected: &Collected) -> View {
    let texts = |digests: &[aos_core::id::Digest]| digests.iter().map(ToString::to_string).collect();
    View {
        dry_run,
        manifests: texts(&collected.manifests),
        blobs: texts(&collected.blobs),
        leftovers: collected.leftovers,
        bytes: collected.bytes,
        damaged: texts(&collected.damaged),
        machine: None,
    }
}
