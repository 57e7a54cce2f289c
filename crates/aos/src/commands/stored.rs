//! `aos list packages`: what is in the user store.

use anyhow::{Context, Result};
use aos_package::repository::{Repository, Tagged};
use serde::Serialize;

use crate::cli::Format;
use crate::output::{Output, Tone};
use crate::quantity;
use crate::store::UserStore;
use crate::table::{Columns, Text};
use crate::trust;

/// One tag of the user store.
#[derive(Debug, Serialize)]
struct Row {
    /// The tag.
    reference: String,
    /// `Agent`, `Skill`, `McpServer`, or `image` for a base image.
    kind: String,
    /// The manifest.
    digest: String,
    /// Bytes of config and layers, packed; absent for what cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// `built`, `pulled` or `imported`.
    origin: &'static str,
    /// Signatures that are attached, good or not; `aos verify` tells which are good.
    signatures: usize,
    /// What the package is for.
    description: String,
}

/// Shows the packages of the user store.
pub(crate) fn list(format: Format, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let tags = store.repository().tags().context("cannot read the package store")?;
    let rows: Vec<Row> = tags.iter().map(|tagged| row(store.repository(), tagged)).collect::<Result<_>>()?;
    if format.is_json() {
        return out.json(&rows);
    }
    if rows.is_empty() {
        out.note("no packages in your store; `aos build` and `aos pull` bring some");
        return Ok(());
    }
    let mut table =
        Columns::new(out, &["PACKAGE", "KIND", "SIZE", "ORIGIN", "SIGNED", "DIGEST", "DESCRIPTION"]);
    for row in &rows {
        let signed = if row.signatures > 0 { row.signatures.to_string() } else { "-".to_owned() };
        table.row([
            Text::toned(&row.reference, Tone::Strong),
            Text::new(&row.kind),
            Text::or_dash(row.size.map(quantity::bytes)),
            Text::new(row.origin),
            Text::new(signed),
            Text::toned(short(&row.digest), Tone::Faint),
            Text::new(&row.description),
        ]);
    }
    Ok(table.print()?)
}

/// A digest as far as people compare it.
pub(crate) fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn row(repository: &Repository, tagged: &Tagged) -> Result<Row> {
    let digest = tagged.descriptor.digest;
    // A base image, or a damaged package, is listed too: it can be removed.
    let package = repository.package(&tagged.descriptor).ok();
    let attachments = repository.attachments(&digest).unwrap_or_default();
    let agent = package.as_ref().map(|(_, config)| &config.agent);
    Ok(Row {
        reference: tagged.reference.to_string(),
        kind: agent.map_or_else(|| "image".to_owned(), |agent| agent.kind.to_string()),
        digest: digest.to_string(),
        size: package.as_ref().map(|(manifest, _)| manifest.blobs().map(|blob| blob.size).sum()),
        origin: tagged.origin.as_str(),
        signatures: attachments.iter().filter(|attachment| trust::is_signature(attachment)).count(),
        description: agent
            .and_then(|agent| agent.description.as_ref())
            .map_or_else(String::new, |text| text.as_str().to_owned()),
    })
}
