//! `aos push`: a package of the user store into a registry or a directory registry.

use anyhow::{Context, Result};
use aos_core::reference::{Location, Reference, Tag};
use aos_package::oci::Descriptor;
use aos_registry::{Pushed, layout};
use clap::Args;
use serde::Serialize;

use crate::attachment;
use crate::cli::Format;
use crate::completion;
use crate::failure::hinted;
use crate::held::{self, Held};
use crate::keys::{self, PassphraseArgs};
use crate::output::Output;
use crate::progress::Transfer;
use crate::remote::{self, RegistryArgs};
use crate::store::UserStore;

/// Push a package to a registry
///
/// Pushes a package with what is attached to it: signatures, SBOM, provenance. What the registry has, it is not sent
/// again. The tag is set last. Credentials are those of `docker login` and `skopeo login` (~/.docker/config.json,
/// REGISTRY_AUTH_FILE).
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// A package of your store
    #[arg(value_name = "PACKAGE", add = completion::stored())]
    package: Reference,

    /// HOST/NAME[:TAG] or oci:DIR[:NAME[:TAG]]; the package's own name if it has a registry. Without a tag, the version
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,

    /// Sign the package first: a key's name, as `aos key list` shows it, or a PEM file
    #[arg(long, value_name = "KEY", add = completion::keys())]
    sign: Option<String>,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    format: Format,
}

/// What was pushed.
#[derive(Debug, Serialize)]
struct Sent {
    /// The package.
    reference: String,
    /// Where it is now.
    destination: String,
    /// The manifest.
    digest: String,
    /// Blobs that were sent.
    uploaded: usize,
    /// Blobs that another repository of the registry had.
    mounted: usize,
    /// Blobs that were there.
    skipped: usize,
    /// Signatures, SBOM and provenance that went with it.
    attachments: usize,
}

/// Runs `aos push`.
pub(crate) async fn run(args: &PushArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let mut held = Held::of_store(&store, &args.package)?;
    let destination = destination(args, &held)?;
    if let Some(word) = &args.sign {
        let key = keys::private(word, &args.passphrase)?;
        let signature = attachment::sign(&held.lease, &held.descriptor, &key)?;
        if held.attachments.iter().all(|other| other.descriptor.digest != signature.descriptor.digest) {
            held.attachments.push(signature);
        }
    }
    let attachments: Vec<Descriptor> =
        held.attachments.iter().map(|attachment| attachment.descriptor.clone()).collect();
    let pushed = send(args, &held, &attachments, &destination, out).await?;
    let sent = Sent {
        reference: held.config.agent.reference().to_string(),
        destination: destination.to_string(),
        digest: pushed.digest.to_string(),
        uploaded: pushed.uploaded,
        mounted: pushed.mounted,
        skipped: pushed.skipped,
        attachments: attachments.len(),
    };
    if args.format.is_json() {
        return out.json(&sent);
    }
    out.note(&format!(
        "{}: {} blobs sent, {} from another repository, {} were there; {} attachments",
        sent.digest, sent.uploaded, sent.mounted, sent.skipped, sent.attachments
    ));
    Ok(out.line(&sent.destination)?)
}

async fn send(
    args: &PushArgs,
    held: &Held,
    attachments: &[Descriptor],
    destination: &Location,
    out: Output,
) -> Result<Pushed> {
    let transfer = Transfer::start(out, "pushing", &destination.to_string());
    let (repository, package) = (held.repository(), &held.descriptor);
    match destination {
        Location::Registry(reference) => {
            let client = remote::client(&args.registry)?;
            let pushed = client.push(repository, package, attachments, reference, &transfer).await;
            pushed.map_err(|error| remote::failed(error, "push to", reference))
        }
        Location::Layout { path, name: Some(name) } => {
            let pushed = layout::push(repository, package, attachments, path, name, &transfer);
            pushed.with_context(|| format!("cannot push to {destination}"))
        }
        _ => Err(hinted(
            format!("{destination} is no registry"),
            "write HOST/NAME:TAG, or oci:DIR:NAME:TAG for a directory; `aos export` writes a file",
        )),
    }
}

/// Where to, with a name and a tag.
fn destination(args: &PushArgs, held: &Held) -> Result<Location> {
    let version = || Tag::of_version(&held.config.agent.version);
    let with_tag = |reference: Reference| match reference.is_specific() {
        true => reference,
        false => reference.with_tag(version()),
    };
    let Some(word) = &args.destination else {
        if args.package.registry.is_some() {
            return Ok(Location::Registry(with_tag(args.package.clone())));
        }
        return Err(hinted(
            format!("{} names no registry", args.package),
            format!("say where to: `aos push {} HOST/NAME`", args.package),
        ));
    };
    Ok(match held::location(word)? {
        Location::Registry(reference) => Location::Registry(with_tag(reference)),
        Location::Layout { path, name: None } => {
            let agent = &held.config.agent;
            Location::Layout { path, name: Some(Reference::local(&agent.name, &agent.version)?) }
        }
        Location::Layout { path, name: Some(name) } => Location::Layout { path, name: Some(with_tag(name)) },
        other => other,
    })
}
