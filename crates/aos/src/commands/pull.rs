//! `aos pull`: a package from a registry or a directory registry into the user store.

use anyhow::{Context, Result};
use aos_core::reference::{Location, Reference};
use aos_package::oci::Descriptor;
use aos_package::repository::{Lease, Origin};
use clap::Args;
use serde::Serialize;

use crate::cli::Format;
use crate::failure::hinted;
use crate::held::{self, Held};
use crate::output::Output;
use crate::place;
use crate::quantity;
use crate::remote::{self, RegistryArgs};
use crate::store::UserStore;
use crate::trust;

/// Pull a package into your store
///
/// Brings a package, with what is attached to it, from a registry (HOST/NAME:TAG; without a tag the highest version) or
/// from a directory registry (oci:DIR:NAME:TAG). Every byte is checked; what was interrupted goes on where it stopped.
/// The package gets its tag only when the trust policy allows it: see `aos verify` and docs/packages.md.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// HOST/NAME[:TAG|@DIGEST] or oci:DIR[:NAME[:TAG]]
    #[arg(value_name = "PACKAGE")]
    package: String,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    format: Format,
}

/// A package that came into the store.
#[derive(Debug, Serialize)]
pub(crate) struct Arrived {
    /// The tag in the store.
    pub(crate) reference: String,
    /// The manifest.
    pub(crate) digest: String,
    /// Bytes of config and layers, packed.
    pub(crate) size: u64,
    /// The ids of the keys whose signatures count.
    pub(crate) keys: Vec<String>,
    /// The rule that allows it, `FILE:LINE`.
    pub(crate) rule: String,
}

/// Runs `aos pull`.
pub(crate) async fn run(args: &PullArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let lease = store.lease()?;
    let location = held::location(&args.package)?;
    let (descriptor, reference) = bring(&location, &args.registry, &lease, out).await?;
    let held = Held::new(location, descriptor, None, lease, None)?;
    let arrived = match admit(&store, &held, &reference, Origin::Pulled, &[]) {
        Ok(arrived) => arrived,
        Err(refused) => {
            trust::forget_refused(&store, &held.descriptor)?;
            return Err(refused);
        }
    };
    tell(&arrived, args.format, out)
}

/// Brings a package from another place into the repository of a lease, and says what it is called there.
async fn bring(
    location: &Location,
    settings: &RegistryArgs,
    lease: &Lease,
    out: Output,
) -> Result<(Descriptor, Reference)> {
    match location {
        Location::Registry(reference) => {
            let client = remote::client(settings)?;
            let reference = place::newest(&client, reference).await?;
            let descriptor = place::from_registry(&client, &reference, lease, out).await?;
            // A reference with a digest is kept under its tag, if it has one, else under its version.
            let named = match &reference.tag {
                Some(tag) => reference.with_tag(tag.clone()),
                None => reference.with_tag(version_tag(lease, &descriptor)?),
            };
            Ok((descriptor, named))
        }
        Location::Layout { path, name } => {
            let descriptor = place::from_layout(path, name.as_ref(), lease, out)?;
            match name.as_ref().and_then(|name| Some(name.with_tag(name.tag.clone()?))) {
                Some(named) => Ok((descriptor, named)),
                None => {
                    let (_, config) = crate::store::package(lease.repository(), &descriptor)?;
                    let named = Reference::local(&config.agent.name, &config.agent.version)?;
                    Ok((descriptor, named))
                }
            }
        }
        Location::Archive(path) => {
            Err(hinted(format!("{} is a file", path.display()), "`aos import` reads a package file"))
        }
        Location::Local(reference) => Err(hinted(
            format!("{reference} names no registry"),
            format!("write its registry, too: HOST/{reference}"),
        )),
    }
}

fn version_tag(lease: &Lease, descriptor: &Descriptor) -> Result<aos_core::reference::Tag> {
    let (_, config) = crate::store::package(lease.repository(), descriptor)?;
    Ok(aos_core::reference::Tag::of_version(&config.agent.version))
}

/// Lets a package from outside into the store: when the policy allows it, and under a name that it may have.
pub(crate) fn admit(
    store: &UserStore,
    held: &Held,
    reference: &Reference,
    origin: Origin,
    beside: &[aos_trust::dsse::Envelope],
) -> Result<Arrived> {
    let mut envelopes = trust::envelopes(held.repository(), &held.attachments);
    envelopes.extend_from_slice(beside);
    let from = matches!(held.location, Location::Registry(_)).then_some(reference);
    match &held.location {
        Location::Registry(asked) if asked.digest.is_some() => {}
        _ => trust::check_name(reference, &held.config)?,
    }
    let trusted = trust::decide(store, &held.descriptor, &held.config, from, &envelopes)?;
    let tagged = store.repository().tag(&held.lease, reference, &held.descriptor, origin);
    tagged.with_context(|| format!("cannot keep {reference}"))?;
    Ok(Arrived {
        reference: reference.to_string(),
        digest: held.descriptor.digest.to_string(),
        size: held.size(),
        keys: trusted.keys.iter().map(ToString::to_string).collect(),
        rule: trusted.rule.to_string(),
    })
}

/// Tells of a package that came.
pub(crate) fn tell(arrived: &Arrived, format: Format, out: Output) -> Result<()> {
    if format.is_json() {
        return out.json(arrived);
    }
    let by = match arrived.keys.as_slice() {
        [] => "not signed".to_owned(),
        keys => format!("signed by {}", keys.join(", ")),
    };
    out.note(&format!(
        "{} {}, {by}, allowed by {}",
        arrived.digest,
        quantity::bytes(arrived.size),
        arrived.rule
    ));
    Ok(out.line(&arrived.reference)?)
}
