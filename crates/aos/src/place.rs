//! Opening a package wherever it is.

use anyhow::{Context, Result};
use aos_core::reference::{Location, Reference};
use aos_package::oci::Descriptor;
use aos_package::repository::Lease;
use aos_registry::{Client, layout};

use crate::held::{self, Freshness, Held};
use crate::output::Output;
use crate::progress::Transfer;
use crate::remote::{self, RegistryArgs};
use crate::store::UserStore;

/// Takes the package in hand that a word names.
pub(crate) async fn open(word: &str, store: &UserStore, freshness: Freshness, out: Output) -> Result<Held> {
    open_with(word, store, freshness, &RegistryArgs::default(), out).await
}

/// The same, with settings for registries.
pub(crate) async fn open_with(
    word: &str,
    store: &UserStore,
    freshness: Freshness,
    settings: &RegistryArgs,
    out: Output,
) -> Result<Held> {
    let location = held::location(word)?;
    match &location {
        Location::Local(reference) => return Held::of_store(store, reference),
        Location::Archive(path) => return Held::of_file(path),
        Location::Registry(reference) if freshness == Freshness::Pulled => {
            if store.repository().resolve(reference).is_ok() {
                return Held::of_store(store, reference);
            }
        }
        Location::Registry(_) | Location::Layout { .. } => {}
    }
    let scratch = held::scratch()?;
    let lease = aos_package::repository::Repository::open(scratch.path())?.lease()?;
    let descriptor = match &location {
        Location::Layout { path, name } => from_layout(path, name.as_ref(), &lease, out)?,
        Location::Registry(reference) => {
            from_registry(&remote::client(settings)?, reference, &lease, out).await?
        }
        Location::Local(_) | Location::Archive(_) => anyhow::bail!("`{word}` was opened already"),
    };
    Held::new(location, descriptor, None, lease, Some(scratch))
}

/// Brings a package and what is attached to it from a registry into the store of a lease. A reference without a tag
/// means the highest version.
pub(crate) async fn from_registry(
    client: &Client,
    reference: &Reference,
    lease: &Lease,
    out: Output,
) -> Result<Descriptor> {
    let transfer = Transfer::start(out, "pulling", &reference.to_string());
    let pulled = client.pull(reference, lease, &transfer).await;
    Ok(pulled.map_err(|error| remote::failed(error, "pull", reference))?.descriptor)
}

/// The reference with its tag: the highest version of the repository when none was given.
pub(crate) async fn newest(client: &Client, reference: &Reference) -> Result<Reference> {
    if reference.is_specific() {
        return Ok(reference.clone());
    }
    let tags = client.tags(reference).await.map_err(|error| remote::failed(error, "find", reference))?;
    let newest = tags.into_iter().filter_map(|tag| Some((tag.version()?, tag))).max();
    let newest = newest.map(|(_, tag)| reference.with_tag(tag));
    newest.with_context(|| format!("{reference} has no tag that is a version: name one, as {reference}:TAG"))
}

/// Brings a package from a directory registry.
pub(crate) fn from_layout(
    path: &std::path::Path,
    name: Option<&Reference>,
    lease: &Lease,
    out: Output,
) -> Result<Descriptor> {
    let transfer = Transfer::start(out, "pulling", &path.display().to_string());
    let pulled = layout::pull(path, name, lease, &transfer);
    Ok(pulled
        .with_context(|| format!("cannot pull from the directory registry {}", path.display()))?
        .descriptor)
}
