//! `aos diff`: what one package has and another has not.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use aos_build::Built;
use aos_package::layer::read::Kind;
use aos_package::repository::Repository;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cli::Format;
use crate::commands::workspace;
use crate::completion;
use crate::contents::{self, Files, Node};
use crate::held::{Freshness, Held};
use crate::output::{Output, Tone};
use crate::place;
use crate::quantity;
use crate::screen;
use crate::store::{self, UserStore};

/// Show what an agent changed in its workspace, or the differences between two packages
///
/// Of one agent with a transactional workspace: what it added, changed and deleted, and has not been committed. The
/// agent may run.
///
/// Of two packages: shows what the second may do that the first may not, first of all; then every other field of their Agentfiles, and
/// the files that were added, removed or changed.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Id of an agent; or a package: of your store, a registry, a directory registry, or a file
    #[arg(value_name = "ID|A", add = completion::removable())]
    before: String,

    /// Another package
    #[arg(value_name = "B", add = completion::stored())]
    after: Option<String>,

    /// Show the text of an agent's changed files, as a unified diff
    #[arg(long, conflicts_with = "after")]
    patch: bool,

    #[command(flatten)]
    format: Format,
}

/// The differences.
#[derive(Debug, Serialize)]
struct Difference {
    before: Side,
    after: Side,
    /// What the second may do and the first may not.
    capabilities_added: Vec<String>,
    /// What the first may do and the second may not.
    capabilities_removed: Vec<String>,
    /// Every other field of the Agentfiles that differs.
    fields: Vec<Field>,
    /// Files, by path.
    files_added: Vec<String>,
    files_removed: Vec<String>,
    files_changed: Vec<Changed>,
}

#[derive(Debug, Serialize)]
struct Side {
    reference: String,
    digest: String,
    size: u64,
}

/// A field of the resolved Agentfile.
#[derive(Debug, Serialize)]
struct Field {
    /// Its path, such as `run.env.LANG`.
    field: String,
    /// `null` when it is not there.
    before: Value,
    /// `null` when it is not there.
    after: Value,
}

/// A file that is in both.
#[derive(Debug, Serialize)]
struct Changed {
    path: String,
    /// What differs: `contents`, `mode`, `type`, `target`.
    what: Vec<&'static str>,
}

/// Runs `aos diff`.
pub(crate) async fn run(args: &DiffArgs, out: Output) -> Result<()> {
    let Some(after) = &args.after else {
        return workspace::diff(&args.before, args.patch, args.format, out).await;
    };
    let store = UserStore::open()?;
    let before = place::open(&args.before, &store, Freshness::Pulled, out).await?;
    let after = place::open(after, &store, Freshness::Pulled, out).await?;
    let difference = {
        let _step = out.step_on_terminal("comparing");
        compare(&before, &after)?
    };
    if args.format.is_json() { out.json(&difference) } else { show(&difference, out).context("cannot print") }
}

fn side(held: &Held) -> Side {
    Side {
        reference: held.config.agent.reference().to_string(),
        digest: held.descriptor.digest.to_string(),
        size: held.size(),
    }
}

fn compare(before: &Held, after: &Held) -> Result<Difference> {
    let lines = |held: &Held| held.config.agent.capabilities.to_lines();
    let (old, new) = (lines(before), lines(after));
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    let mut fields = Vec::new();
    let (a, b) = (serde_json::to_value(&before.config.agent)?, serde_json::to_value(&after.config.agent)?);
    compare_fields("", &a, &b, &mut fields);
    let (was, is) = (files_of(before)?, files_of(after)?);
    let names = |a: &Files, b: &Files| a.keys().filter(|path| !b.contains_key(*path)).cloned().collect();
    Ok(Difference {
        before: side(before),
        after: side(after),
        capabilities_added: only(&new, &old),
        capabilities_removed: only(&old, &new),
        fields,
        files_added: names(&is, &was),
        files_removed: names(&was, &is),
        files_changed: changed(&was, &is),
    })
}

fn files_of(held: &Held) -> Result<Files> {
    contents::files(held.repository(), &held.manifest, &held.config)
}

/// Goes down to the fields that differ. Capabilities are told apart from the others.
fn compare_fields(path: &str, before: &Value, after: &Value, found: &mut Vec<Field>) {
    if before == after || path == "capabilities" {
        return;
    }
    if let (Value::Object(a), Value::Object(b)) = (before, after) {
        let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for name in names {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            compare_fields(
                &below,
                a.get(name).unwrap_or(&Value::Null),
                b.get(name).unwrap_or(&Value::Null),
                found,
            );
        }
        return;
    }
    found.push(Field { field: path.to_owned(), before: before.clone(), after: after.clone() });
}

fn changed(before: &Files, after: &Files) -> Vec<Changed> {
    let both = before.iter().filter_map(|(path, old)| Some((path, old, after.get(path)?)));
    both.filter_map(|(path, old, new)| {
        let what = what_differs(old, new);
        (!what.is_empty()).then(|| Changed { path: path.clone(), what })
    })
    .collect()
}

fn what_differs(old: &Node, new: &Node) -> Vec<&'static str> {
    let mut what = match (&old.kind, &new.kind) {
        (a, b) if a == b => Vec::new(),
        (Kind::File(_), Kind::File(_)) => vec!["contents"],
        (Kind::Symlink(_), Kind::Symlink(_)) | (Kind::HardLink(_), Kind::HardLink(_)) => vec!["target"],
        _ => vec!["type"],
    };
    if old.mode != new.mode {
        what.push("mode");
    }
    what
}

/// What differs between the files of two packages of one store that should be the same, a line each.
pub(crate) fn files(repository: &Repository, first: &Built, second: &Built) -> Result<Vec<String>> {
    let read = |built: &Built| {
        let (manifest, config) = store::package(repository, &built.manifest)?;
        contents::files(repository, &manifest, &config)
    };
    let (was, is) = (read(first)?, read(second)?);
    let paths: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let mut lines = Vec::new();
    for path in paths {
        match (was.get(path), is.get(path)) {
            (Some(old), Some(new)) => {
                let mut what = what_differs(old, new);
                if old.mtime != new.mtime {
                    what.push("time");
                }
                if !what.is_empty() {
                    lines.push(format!("{path}: {}", what.join(", ")));
                }
            }
            (Some(_), None) => lines.push(format!("{path}: only in the first")),
            _ => lines.push(format!("{path}: only in the second")),
        }
    }
    let left = lines.len().saturating_sub(LISTED);
    lines.truncate(LISTED);
    if left > 0 {
        lines.push(format!("and {left} more"));
    }
    Ok(lines)
}

/// Files that an error lists: who looks for the cause needs a few.
const LISTED: usize = 20;

fn show(difference: &Difference, out: Output) -> Result<()> {
    let Difference { before, after, .. } = difference;
    if before.digest == after.digest {
        return Ok(out.line(&format!(
            "{} and {} are the same, {}",
            before.reference, after.reference, after.digest
        ))?);
    }
    for (sign, side, tone) in [("-", before, Tone::Bad), ("+", after, Tone::Good)] {
        let text = format!("{sign} {} {} {}", side.reference, side.digest, quantity::bytes(side.size));
        out.line(&out.paint(tone, &text))?;
    }
    let section = |title: &str, rows: Vec<(Tone, String)>| -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        out.line("")?;
        out.line(&out.paint(Tone::Strong, title))?;
        for (tone, text) in rows {
            out.line(&out.paint(tone, &format!("  {}", screen::one_line(&text))))?;
        }
        Ok(())
    };
    let rows = |sign: &str, tone: Tone, lines: &[String]| -> Vec<(Tone, String)> {
        lines.iter().map(|line| (tone, format!("{sign} {line}"))).collect()
    };
    let mut capabilities = rows("+", Tone::Warn, &difference.capabilities_added);
    capabilities.extend(rows("-", Tone::Good, &difference.capabilities_removed));
    section("What it may do", capabilities)?;
    let fields = difference.fields.iter().map(|field| {
        (Tone::Warn, format!("{}: {} -> {}", field.field, value(&field.before), value(&field.after)))
    });
    section("Agentfile", fields.collect())?;
    let mut files = rows("+", Tone::Good, &difference.files_added);
    files.extend(rows("-", Tone::Bad, &difference.files_removed));
    let changed = difference.files_changed.iter();
    files.extend(changed.map(|file| (Tone::Warn, format!("~ {} ({})", file.path, file.what.join(", ")))));
    section("Files", files)
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "not set".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_told_where_they_differ() {
        let before = json!({"a": {"b": 1, "c": 2}, "capabilities": ["x"], "l": [1]});
        let after = json!({"a": {"b": 1, "d": 3}, "capabilities": ["y"], "l": [1, 2]});
        let mut found = Vec::new();
        compare_fields("", &before, &after, &mut found);
        let told: Vec<String> =
            found.iter().map(|field| format!("{} {} {}", field.field, field.before, field.after)).collect();
        assert_eq!(told, ["a.c 2 null", "a.d null 3", "l [1] [1,2]"]);
    }
}
