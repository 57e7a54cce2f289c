//! `aos lock`: which versions of its dependencies a package gets.

use std::path::PathBuf;

use anyhow::{Context, Result};
use aos_core::lock::Lockfile;
use clap::{Args, ValueHint};
use serde::Serialize;

use crate::cli::Format;
use crate::dependencies::{self, Fetcher, LockMode, SourceArgs};
use crate::output::{Output, Tone};
use crate::store::UserStore;
use crate::table::{Columns, Text};

/// Choose the versions of dependencies, and write Agentfile.lock
///
/// Finds one version of each agent, skill and MCP server that the Agentfile needs, directly or not, in your store, in the
/// places that `from:` names, and beside the packages that need it. What is locked stays as long as it fits; `aos build`
/// does the same when the lock is missing or does not fit. Keep the file with the Agentfile: it is what makes two builds
/// the same.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// A folder with an Agentfile
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    folder: PathBuf,

    /// The Agentfile; the one in the folder if it is not given
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,

    /// Take the newest versions that fit: of these packages, or of all
    #[arg(long, value_name = "NAME", num_args = 0..)]
    update: Option<Vec<String>>,

    /// Write nothing: fail when the lock does not fit the Agentfile
    #[arg(long, conflicts_with = "update")]
    locked: bool,

    #[command(flatten)]
    sources: SourceArgs,

    #[command(flatten)]
    format: Format,
}

/// A lock, and what became of it.
#[derive(Debug, Serialize)]
struct View {
    /// True when the file was written.
    changed: bool,
    /// `KIND NAME VERSION` that are there now and were not.
    added: Vec<String>,
    /// Those that were there and are not.
    removed: Vec<String>,
    packages: Vec<PackageView>,
}

#[derive(Debug, Serialize)]
struct PackageView {
    kind: String,
    name: String,
    version: String,
    digest: String,
    /// `local`, or where its versions are.
    source: String,
    dependencies: Vec<String>,
}

/// Runs `aos lock`.
pub(crate) fn run(args: &LockArgs, out: Output) -> Result<()> {
    let mode = match (&args.update, args.locked) {
        (Some(names), _) => LockMode::Update(names.clone()),
        (None, true) => LockMode::Frozen,
        (None, false) => LockMode::Solve,
    };
    let store = UserStore::open()?;
    let runtime = crate::runtime()?;
    let fetcher =
        Fetcher::new(&store, &args.sources, Lockfile::default(), runtime.handle().clone(), out, None);
    let lease = store.lease()?;
    let declared = dependencies::declared(&args.folder, args.file.as_deref(), &fetcher, &lease)?;
    let change = dependencies::lock(&declared, &args.folder, &fetcher, &lease, &mode)
        .with_context(|| format!("cannot lock the dependencies of {}", args.folder.display()))?;
    let view = View {
        changed: change.written.is_some(),
        added: change.added,
        removed: change.removed,
        packages: packages(&change.lock),
    };
    if args.format.is_json() {
        return out.json(&view);
    }
    show(&view, out)
}

fn packages(lock: &Lockfile) -> Vec<PackageView> {
    lock.packages()
        .map(|package| PackageView {
            kind: package.kind.to_string(),
            name: package.name.to_string(),
            version: package.version.to_string(),
            digest: package.digest.to_string(),
            source: package.source.to_string(),
            dependencies: package.dependencies.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

fn show(view: &View, out: Output) -> Result<()> {
    for line in &view.removed {
        out.note(&format!("- {line}"));
    }
    for line in &view.added {
        out.note(&format!("+ {line}"));
    }
    if !view.changed {
        out.note("Agentfile.lock stays as it is");
    }
    if view.packages.is_empty() {
        out.note("there is nothing to lock: the Agentfile needs no package");
        return Ok(());
    }
    let mut table = Columns::new(out, &["KIND", "NAME", "VERSION", "FROM", "DIGEST"]);
    for package in &view.packages {
        table.row([
            Text::new(&package.kind),
            Text::toned(&package.name, Tone::Strong),
            Text::new(&package.version),
            Text::new(&package.source),
            Text::toned(super::stored::short(&package.digest), Tone::Faint),
        ]);
    }
    Ok(table.print()?)
}
