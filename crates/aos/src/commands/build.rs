//! `aos build`: a folder into a package of the user store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aos_build::{Built, CacheUse};
use aos_core::reference::Reference;
use aos_package::repository::{Attachment, Origin};
use aos_trust::signature::PREDICATE_ANNOTATION;
use clap::{Args, ValueHint};
use serde::Serialize;

use crate::attachment;
use crate::attest;
use crate::build_progress::{Telling, seconds};
use crate::builder::{self, BuildSettings, Builder};
use crate::cli::Format;
use crate::commands::diff;
use crate::completion;
use crate::dependencies::LockMode;
use crate::exit::{Exit, marked};
use crate::failure::{HintExt, detailed, hinted};
use crate::keys::{self, PassphraseArgs};
use crate::output::Output;
use crate::package;
use crate::quantity;
use crate::store::UserStore;
use crate::table::{Columns, Text};

/// Build a package from a folder
///
/// Reads the Agentfile in the folder, builds its stages, those at once that do not depend on each other, and puts the
/// package into your store under its name and version. The same input gives the same bytes, whoever builds it where and
/// when. Commands of run steps run in the launcher's sandbox, without network unless the step names hosts. Prints the
/// package, or the file with --output.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// A folder with an Agentfile
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    folder: PathBuf,

    /// The Agentfile; the one in the folder if it is not given
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,

    /// Call the package so, whatever the Agentfile says; with a registry, HOST/NAME:TAG, as well
    #[arg(short, long, value_name = "NAME:VERSION")]
    tag: Option<Reference>,

    /// Write the package into this file, too, or `-` for standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    /// Show what would be done, and build nothing
    #[arg(long, conflicts_with_all = ["output", "check_reproducible", "sign"])]
    plan: bool,

    /// Build a second time without the cache, and compare
    #[arg(long)]
    check_reproducible: bool,

    /// Make every step anew
    #[arg(long)]
    no_cache: bool,

    /// Refuse to change Agentfile.lock
    #[arg(long)]
    locked: bool,

    /// Sign the package: a key's name, as `aos key list` shows it, or a PEM file
    #[arg(long, value_name = "KEY", add = completion::keys())]
    sign: Option<String>,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    /// Attach neither provenance nor SBOM
    #[arg(long)]
    bare: bool,

    /// Who builds, as the provenance says: a URI
    #[arg(long, value_name = "URI", default_value = attest::LOCAL_BUILDER, hide_default_value = true)]
    builder: String,

    /// Tell of nothing but failures
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    settings: BuildSettings,

    #[command(flatten)]
    format: Format,
}

/// A package that was built.
#[derive(Debug, Serialize)]
struct View {
    /// `name:version`.
    reference: String,
    /// The manifest.
    digest: String,
    /// `Agent`, `Skill` or `McpServer`.
    kind: String,
    /// Bytes of config and layers, packed.
    size: u64,
    /// Files and folders.
    entries: usize,
    /// The layers, lowest first.
    layers: Vec<String>,
    /// Steps that make layers.
    steps: usize,
    /// Those of them that came from the cache.
    cached_steps: usize,
    /// How long it took.
    seconds: f64,
    /// Predicate types of what is attached.
    attachments: Vec<String>,
    /// The id of the key that it was signed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<String>,
    /// The package file that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// True when it was built twice, and the bytes are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    reproducible: Option<bool>,
    /// What would keep it from running on this machine.
    obstacles: Vec<String>,
}

/// Runs `aos build`.
pub(crate) fn run(args: &BuildArgs, out: Output) -> Result<()> {
    if args.folder.is_file() {
        return Err(hinted(
            format!("{} is a file", args.folder.display()),
            "`aos build` takes a folder with an Agentfile, `aos install` a package",
        ));
    }
    if let Some(output) = args.output.as_deref().filter(|output| *output != Path::new("-")) {
        package::check_parent(output)?;
    }
    if args.output.as_deref() == Some(Path::new("-")) && out.is_terminal() {
        return Err(hinted("a package is no text for a terminal", "name a file, or use a pipe"));
    }
    // Before anything is built: a passphrase is asked for while somebody is there.
    let key = args.sign.as_deref().map(|word| keys::private(word, &args.passphrase)).transpose()?;
    let store = UserStore::open()?;
    let telling = if args.quiet { Telling::Nothing } else { Telling::Steps };
    let builder = Builder::new(&store, &args.folder, args.file.as_deref(), &args.settings, telling, out)?;
    let mode = if args.locked { LockMode::Frozen } else { LockMode::Fit };
    if args.plan {
        return plan(&builder, if args.locked { mode } else { LockMode::Look }, args, out);
    }
    let cache = if args.no_cache { CacheUse::Ignore } else { CacheUse::Use };
    let (name, other) = names(args.tag.as_ref())?;
    let built = builder.build(&mode, name.as_ref(), cache)?;
    let reproducible = args.check_reproducible.then(|| check(&builder, &built, name.as_ref())).transpose()?;
    if let Some(other) = other {
        store.repository().tag(&built.lease, other, &built.manifest, Origin::Built)?;
    }
    let attachments = attach(args, &built, key.as_ref())?;
    let file = write(args, &store, &built, &attachments, out)?;
    let view = View {
        reference: built.reference.to_string(),
        digest: built.digest.to_string(),
        kind: built.agent.kind.to_string(),
        size: size(&store, &built)?,
        entries: built.entries,
        layers: built.layers.iter().map(|layer| layer.digest.to_string()).collect(),
        steps: built.steps,
        cached_steps: built.cached_steps,
        seconds: built.took.as_secs_f64(),
        attachments: attachments.iter().filter_map(predicate).collect(),
        signed_by: key.as_ref().map(|key| key.public().id().to_string()),
        file: file.as_ref().map(|path| path.display().to_string()),
        reproducible,
        obstacles: built.obstacles.iter().map(ToString::to_string).collect(),
    };
    tell(args, &view, built.took, out)
}

fn predicate(attachment: &Attachment) -> Option<String> {
    attachment.manifest.annotations.get(PREDICATE_ANNOTATION).cloned()
}

/// Bytes of config and layers.
fn size(store: &UserStore, built: &Built) -> Result<u64> {
    let (manifest, _) = store.package(&built.manifest)?;
    Ok(manifest.blobs().map(|blob| blob.size).sum())
}

/// The name and version that replace those of the Agentfile, or the name beside them.
fn names(tag: Option<&Reference>) -> Result<(Option<builder::Named>, Option<&Reference>)> {
    let Some(reference) = tag else { return Ok((None, None)) };
    if reference.registry.is_some() {
        if reference.tag.is_none() || reference.digest.is_some() {
            bail!("{reference} is no name to give: write HOST/NAME:TAG");
        }
        return Ok((None, Some(reference)));
    }
    let advice = "write NAME:VERSION, such as web:1.2.0, or only NAME";
    let name = reference.path.as_str().parse().hint(advice);
    let name = name.with_context(|| format!("{reference} names no package"))?;
    let version = match &reference.tag {
        None => None,
        Some(tag) => Some(tag.version().with_context(|| format!("{tag} is no version")).hint(advice)?),
    };
    Ok((Some(builder::Named { name, version }), None))
}

/// Attaches what says where the package comes from, and the signature.
fn attach(
    args: &BuildArgs,
    built: &Built,
    key: Option<&aos_trust::key::PrivateKey>,
) -> Result<Vec<Attachment>> {
    let mut attachments = if args.bare {
        built.lease.repository().attachments(&built.digest)?
    } else {
        attest::attest(&built.lease, built, &args.builder, key)?
    };
    if let Some(key) = key {
        let signature = attachment::sign(&built.lease, &built.manifest, key)?;
        attachments.retain(|other| other.descriptor.digest != signature.descriptor.digest);
        attachments.push(signature);
    }
    Ok(attachments)
}

/// Writes the package file that is asked for.
fn write(
    args: &BuildArgs,
    store: &UserStore,
    built: &Built,
    attachments: &[Attachment],
    out: Output,
) -> Result<Option<PathBuf>> {
    let Some(path) = &args.output else { return Ok(None) };
    let export = |file: &mut std::fs::File| {
        let mut output = std::io::BufWriter::new(file);
        store.repository().export(&built.manifest, attachments, &mut output)?;
        Ok(std::io::Write::flush(&mut output)?)
    };
    if path == Path::new("-") {
        // By way of a file: none is written in part.
        let mut file = package::anonymous()?;
        export(&mut file)?;
        out.copy(package::rewound(file)?)?;
        return Ok(None);
    }
    package::write_whole(path, export)?;
    Ok(Some(path.clone()))
}

/// Builds again without the cache, and compares.
fn check(builder: &Builder<'_>, first: &Built, name: Option<&builder::Named>) -> Result<bool> {
    let second = builder.build(&LockMode::Frozen, name, CacheUse::Ignore)?;
    if second.digest == first.digest {
        return Ok(true);
    }
    let lines = diff::files(builder.store().repository(), first, &second)?;
    // The first keeps its name: the second is a stranger that should be the same.
    let reference = Reference::local(&first.agent.name, &first.agent.version)?;
    builder.store().repository().tag(&first.lease, &reference, &first.manifest, Origin::Built)?;
    let error = hinted(
        format!("{} is not reproducible: built again it is {}", first.reference, second.digest),
        "a command that writes the time, a random number or an order that varies is the usual cause",
    );
    Err(marked(detailed(error, lines), Exit::NotReproducible))
}

fn tell(args: &BuildArgs, view: &View, took: Duration, out: Output) -> Result<()> {
    for obstacle in &view.obstacles {
        out.warn(obstacle);
    }
    let piped = args.output.as_deref() == Some(Path::new("-"));
    if args.format.is_json() && !piped {
        return out.json(view);
    }
    let mut text =
        format!("{} {} {} in {}", view.reference, view.digest, quantity::bytes(view.size), seconds(took));
    if view.steps > 0 {
        text.push_str(&format!(", {} of {} steps cached", view.cached_steps, view.steps));
    }
    if view.reproducible == Some(true) {
        text.push_str(", and the same when built again");
    }
    if let Some(key) = &view.signed_by {
        text.push_str(&format!(", signed by {key}"));
    }
    out.note(&text);
    if piped {
        return Ok(());
    }
    Ok(out.line(view.file.as_ref().unwrap_or(&view.reference))?)
}

/// Shows what would be done.
fn plan(builder: &Builder<'_>, mode: LockMode, args: &BuildArgs, out: Output) -> Result<()> {
    let (name, _) = names(args.tag.as_ref())?;
    let plan = builder.plan(&mode, name.as_ref())?;
    if args.format.is_json() {
        return out.json(&plan);
    }
    out.line(&format!("{} ({})", plan.package, plan.kind))?;
    let headings = aos_build::Plan::COLUMNS.map(str::to_uppercase);
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Columns::new(out, &headings);
    for row in plan.rows() {
        table.row(row.map(Text::new));
    }
    Ok(table.print()?)
}
