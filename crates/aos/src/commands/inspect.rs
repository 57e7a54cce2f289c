//! `aos inspect`: all that a package says of itself, and what is attached to it.

use anyhow::{Context, Result};
use aos_core::config::ResolvedAgent;
use aos_core::id::Digest;
use aos_package::repository::{Attachment, Origin};
use aos_trust::signature::PREDICATE_ANNOTATION;
use clap::Args;
use serde::Serialize;

use crate::cli::Format;
use crate::completion;
use crate::held::{Freshness, Held};
use crate::output::{Output, Tone};
use crate::place;
use crate::quantity;
use crate::remote::RegistryArgs;
use crate::screen;
use crate::store::UserStore;
use crate::table::{Columns, Text};
use crate::trust;

/// Show what a package is
///
/// Shows what a package carries: what it may do, what it needs and starts, its layers, and what is attached to it.
/// A package that is not in your store is fetched for the time of looking; nothing of it is kept.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A package: of your store, a registry, a directory registry, or a file
    #[arg(value_name = "PACKAGE", add = completion::stored())]
    package: String,

    /// Ask the registry, also when your store has the package
    #[arg(long)]
    remote: bool,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    format: Format,
}

/// A package as it is shown.
#[derive(Debug, Serialize)]
struct View<'a> {
    /// `name:version`, as the package says.
    reference: String,
    /// Where it was found.
    location: String,
    /// The manifest.
    digest: String,
    /// Bytes of config and layers, packed.
    size: u64,
    /// In Go's names: `amd64`, `arm64`.
    architecture: &'a str,
    /// `built`, `pulled` or `imported`; absent for what is not in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'static str>,
    /// The resolved Agentfile, as the package carries it.
    agent: &'a ResolvedAgent,
    /// The layers, lowest first.
    layers: Vec<LayerView<'a>>,
    /// What is attached.
    attachments: Vec<AttachmentView<'a>>,
    /// What the trust policy makes of it.
    trust: TrustView,
}

#[derive(Debug, Serialize)]
struct LayerView<'a> {
    digest: Digest,
    diff_id: Digest,
    media_type: &'a str,
    size: u64,
}

#[derive(Debug, Serialize)]
struct AttachmentView<'a> {
    digest: Digest,
    artifact_type: &'a str,
    /// The predicate's type, as the attachment claims it.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicate: Option<&'a str>,
    size: u64,
}

#[derive(Debug, Serialize)]
struct TrustView {
    trusted: bool,
    /// The ids of the keys whose signatures count.
    keys: Vec<String>,
    /// The rule that allows it, or why none does.
    reason: String,
}

/// Runs `aos inspect`.
pub(crate) async fn run(args: &InspectArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let freshness = if args.remote { Freshness::Registry } else { Freshness::Pulled };
    let held = place::open_with(&args.package, &store, freshness, &args.registry, out).await?;
    let view = View {
        reference: held.config.agent.reference().to_string(),
        location: held.location.to_string(),
        digest: held.descriptor.digest.to_string(),
        size: held.size(),
        architecture: &held.config.architecture,
        origin: held.origin.map(|origin| origin.as_str()),
        agent: &held.config.agent,
        layers: layers(&held),
        attachments: held.attachments.iter().map(attachment).collect(),
        trust: trusted(&store, &held),
    };
    if args.format.is_json() { out.json(&view) } else { show(&view, out).context("cannot print") }
}

fn layers(held: &Held) -> Vec<LayerView<'_>> {
    let pairs = held.manifest.layers.iter().zip(&held.config.diff_ids);
    pairs
        .map(|(layer, diff_id)| LayerView {
            digest: layer.digest,
            diff_id: *diff_id,
            media_type: &layer.media_type,
            size: layer.size,
        })
        .collect()
}

fn attachment(attachment: &Attachment) -> AttachmentView<'_> {
    AttachmentView {
        digest: attachment.descriptor.digest,
        artifact_type: &attachment.artifact_type,
        predicate: attachment.manifest.annotations.get(PREDICATE_ANNOTATION).map(String::as_str),
        size: attachment.manifest.layers.iter().map(|layer| layer.size).sum(),
    }
}

fn trusted(store: &UserStore, held: &Held) -> TrustView {
    if held.origin == Some(Origin::Built) {
        let reason = "built here: this machine needs no signature of it".to_owned();
        return TrustView { trusted: true, keys: Vec::new(), reason };
    }
    let envelopes = trust::envelopes(held.repository(), &held.attachments);
    let from = match &held.location {
        aos_core::reference::Location::Registry(reference) => Some(reference),
        _ => None,
    };
    match trust::decide(store, &held.descriptor, &held.config, from, &envelopes) {
        Ok(trusted) => TrustView {
            trusted: true,
            keys: trusted.keys.iter().map(ToString::to_string).collect(),
            reason: trust::words(&trusted),
        },
        Err(error) => TrustView { trusted: false, keys: Vec::new(), reason: error.root_cause().to_string() },
    }
}

fn show(view: &View<'_>, out: Output) -> Result<()> {
    let agent = view.agent;
    let mut lines = vec![
        ("package", format!("{} ({})", view.reference, agent.kind)),
        (
            "from",
            view.origin
                .map_or_else(|| view.location.clone(), |origin| format!("{} ({origin})", view.location)),
        ),
        ("digest", view.digest.clone()),
        ("size", format!("{} for {}", quantity::bytes(view.size), view.architecture)),
    ];
    if let Some(description) = &agent.description {
        lines.push(("about", description.as_str().to_owned()));
    }
    if let Some(run) = &agent.run {
        lines.push(("starts", run.entrypoint.argv().collect::<Vec<_>>().join(" ")));
        lines.push(("lifecycle", run.lifecycle.to_string()));
    }
    let ports: Vec<String> = agent.expose.iter().map(ToString::to_string).collect();
    if !ports.is_empty() {
        lines.push(("listens on", ports.join(", ")));
    }
    lines.push(("trust", view.trust.reason.clone()));
    for (name, text) in &lines {
        out.line(&format!("{} {}", out.paint(Tone::Strong, &format!("{name:<11}")), screen::one_line(text)))?;
    }
    out.line("")?;
    capabilities(agent, out)?;
    dependencies(agent, out)?;
    contents(view, out)
}

fn capabilities(agent: &ResolvedAgent, out: Output) -> Result<()> {
    let lines = agent.capabilities.to_lines();
    if lines.is_empty() {
        out.line("It may do nothing outside its own workspace.")?;
    } else {
        out.line(&out.paint(Tone::Strong, "It may, where its Unix user may:"))?;
        for line in lines {
            out.line(&format!("  {}", screen::one_line(&line)))?;
        }
    }
    Ok(())
}

fn dependencies(agent: &ResolvedAgent, out: Output) -> Result<()> {
    if agent.dependencies.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let mut table = Columns::new(out, &["NEEDS", "WANTED", "FOUND", "DIGEST"]);
    for one in &agent.dependencies {
        table.row([
            Text::new(format!("{} {}", one.kind, one.name)),
            Text::new(one.req.to_string()),
            Text::or_dash(one.version.as_ref().map(ToString::to_string)),
            Text::toned(one.digest.map_or_else(|| "-".to_owned(), |digest| digest.to_string()), Tone::Faint),
        ]);
    }
    Ok(table.print()?)
}

fn contents(view: &View<'_>, out: Output) -> Result<()> {
    out.line("")?;
    let mut table = Columns::new(out, &["CONTENT", "SIZE", "DIGEST", "TYPE"]);
    for layer in &view.layers {
        table.row([
            Text::new("layer"),
            Text::new(quantity::bytes(layer.size)),
            Text::toned(layer.digest.to_string(), Tone::Faint),
            Text::new(layer.media_type),
        ]);
    }
    for attachment in &view.attachments {
        table.row([
            Text::new("attachment"),
            Text::new(quantity::bytes(attachment.size)),
            Text::toned(attachment.digest.to_string(), Tone::Faint),
            Text::new(attachment.predicate.unwrap_or(attachment.artifact_type)),
        ]);
    }
    Ok(table.print()?)
}
