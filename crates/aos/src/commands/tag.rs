//! `aos tag`: another name for a package of the user store.

use anyhow::{Context, Result};
use aos_core::reference::Reference;
use aos_package::repository::Origin;
use clap::Args;
use serde::Serialize;

use crate::cli::Format;
use crate::completion;
use crate::failure::HintExt;
use crate::output::Output;
use crate::store::UserStore;

/// Give a package of your store another name
///
/// The package has all its names until `aos remove` takes one away. A name with a registry is what `aos push` pushes
/// to.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// A package of your store
    #[arg(value_name = "PACKAGE", add = completion::stored())]
    package: Reference,

    /// The new name, NAME:TAG or HOST/NAME:TAG; what had it loses it
    #[arg(value_name = "NAME:TAG")]
    name: Reference,

    #[command(flatten)]
    format: Format,
}

/// A name that was given.
#[derive(Debug, Serialize)]
struct Tagged {
    /// The name.
    reference: String,
    /// The manifest.
    digest: String,
    /// What had the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<String>,
}

/// Runs `aos tag`.
pub(crate) fn run(args: &TagArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let lease = store.lease()?;
    let descriptor = store.hold(&args.package, &lease)?;
    let tags = store.tags_of(&descriptor.digest)?;
    let origin = tags.iter().map(|tagged| tagged.origin).min().unwrap_or(Origin::Imported);
    let replaced = store
        .repository()
        .tag(&lease, &args.name, &descriptor, origin)
        .hint("write NAME:TAG, such as web:1.0.0 or registry.example/team/web:1.0.0")
        .with_context(|| format!("cannot tag {} as {}", args.package, args.name))?;
    let tagged = Tagged {
        reference: args.name.to_string(),
        digest: descriptor.digest.to_string(),
        replaced: replaced.map(|digest| digest.to_string()),
    };
    if args.format.is_json() {
        return out.json(&tagged);
    }
    if let Some(replaced) = &tagged.replaced {
        out.note(&format!("{} was {replaced}", tagged.reference));
    }
    out.note(&format!("{}: {}", tagged.reference, tagged.digest));
    Ok(())
}
