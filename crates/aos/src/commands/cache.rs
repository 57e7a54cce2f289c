//! `aos cache`: what builds have left for later builds.

use anyhow::{Context, Result};
use aos_build::{Cache, CacheEntry, EntryKind, Prune, Pruned};
use aos_core::quantity::{ByteSize, DurationSpec};
use clap::{Args, Subcommand};

use crate::cli::Format;
use crate::output::{Output, Tone};
use crate::quantity;
use crate::store::UserStore;
use crate::table::{Columns, Text};

/// Show or shrink the build cache
///
/// The cache holds the layers of steps, unpacked bases, and the directories that steps keep between builds. What is
/// removed is made again by the next build that needs it.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Show what is in the cache, the last used first
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Remove what was not used for long, or what is too much
    ///
    /// With both bounds, both hold; with none, everything goes. `aos gc` then frees the layers that no package has.
    Prune {
        /// Keep so many bytes, those used last, such as 5G
        #[arg(long, value_name = "SIZE")]
        keep: Option<ByteSize>,
        /// Remove what was not used for so long, such as 7d
        #[arg(long, value_name = "TIME")]
        older: Option<DurationSpec>,
        #[command(flatten)]
        format: Format,
    },
}

/// Runs `aos cache`.
pub(crate) fn run(args: &CacheArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let cache = Cache::open(store.repository())
        .with_context(|| format!("cannot open the build cache in {}", store.root().display()))?;
    match &args.command {
        CacheCommand::List { format } => list(&cache, *format, out),
        CacheCommand::Prune { keep, older, format } => {
            let what =
                Prune { keep_bytes: keep.map(ByteSize::bytes), older: older.map(DurationSpec::to_std) };
            let pruned = cache.prune(what, quantity::now()).context("cannot prune the build cache")?;
            told(&pruned, *format, out)
        }
    }
}

fn list(cache: &Cache, format: Format, out: Output) -> Result<()> {
    let entries = cache.list().context("cannot read the build cache")?;
    if format.is_json() {
        return out.json(&entries);
    }
    if entries.is_empty() {
        out.note("the build cache is empty");
        return Ok(());
    }
    let now = quantity::now_us();
    let mut table = Columns::new(out, &["KIND", "SIZE", "USED", "NAME", "WHAT"]);
    for entry in &entries {
        table.row([
            Text::new(kind(entry)),
            Text::new(quantity::bytes(entry.bytes)),
            Text::new(quantity::ago(entry.last_used.saturating_mul(1_000_000), now)),
            Text::toned(entry.name.chars().take(12).collect::<String>(), Tone::Faint),
            Text::new(&entry.title),
        ]);
    }
    table.print()?;
    let sum = entries.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
    out.note(&format!("{} in {} entries", quantity::bytes(sum), entries.len()));
    Ok(())
}

const fn kind(entry: &CacheEntry) -> &'static str {
    match entry.kind {
        EntryKind::Step => "step",
        EntryKind::Listing => "listing",
        EntryKind::Files => "files",
        EntryKind::Tree => "tree",
        EntryKind::Mount => "mount",
    }
}

fn told(pruned: &Pruned, format: Format, out: Output) -> Result<()> {
    if format.is_json() {
        return out.json(pruned);
    }
    if pruned.busy > 0 {
        out.note(&format!("{} entries stay, since builds are using them", pruned.busy));
    }
    Ok(out.line(&format!("removed {} in {} entries", quantity::bytes(pruned.bytes), pruned.removed.len()))?)
}
