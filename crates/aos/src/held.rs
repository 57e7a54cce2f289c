//! A package in hand, wherever a word of the command line says that it is: in the user store, in a registry, in a
//! directory registry, or in a file.
//!
//! What is not in the user store is brought into a temporary one that goes with the value, so that looking at a
//! package leaves nothing behind; only `aos pull` and `aos import` bring packages into the store.

use std::path::Path;

use anyhow::{Context, Result};
use aos_core::reference::{Location, Reference};
use aos_package::oci::{Descriptor, Manifest, PackageConfig};
use aos_package::repository::{Attachment, Lease, Origin, Repository};
use tempfile::TempDir;

use crate::environment;
use crate::failure::HintExt;
use crate::package;
use crate::store::{self, UserStore};

/// A package in hand.
#[derive(Debug)]
pub(crate) struct Held {
    /// Where it was found.
    pub(crate) location: Location,
    /// Its manifest.
    pub(crate) descriptor: Descriptor,
    /// What the manifest says.
    pub(crate) manifest: Manifest,
    /// What its config says.
    pub(crate) config: PackageConfig,
    /// What is attached to it.
    pub(crate) attachments: Vec<Attachment>,
    /// How it came into the user store; `None` when it is not from there.
    pub(crate) origin: Option<Origin>,
    /// Keeps it; ends before the temporary store does.
    pub(crate) lease: Lease,
    /// The temporary store it is in.
    _scratch: Option<TempDir>,
}

/// Parses where a package is.
pub(crate) fn location(word: &str) -> Result<Location> {
    word.parse::<Location>()
        .hint("NAME:VERSION is in your store, HOST/NAME:TAG in a registry, oci:DIR:NAME:TAG in a directory, FILE.aap a file")
        .with_context(|| format!("`{word}` names no package"))
}

/// Whether what the user store has of a registry may stand for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It may: what was pulled is what is meant.
    Pulled,
    /// It may not: the registry is asked.
    Registry,
}

impl Held {
    /// The repository it is in.
    pub(crate) fn repository(&self) -> &Repository {
        self.lease.repository()
    }

    /// The bytes of its config and layers, packed.
    pub(crate) fn size(&self) -> u64 {
        self.manifest.blobs().map(|blob| blob.size).sum()
    }

    /// Takes a package of the user store in hand.
    pub(crate) fn of_store(store: &UserStore, reference: &Reference) -> Result<Self> {
        let lease = store.lease()?;
        let descriptor = store.hold(reference, &lease)?;
        let tags = store.tags_of(&descriptor.digest)?;
        let named = tags.iter().find(|tagged| tagged.reference == *reference).or_else(|| tags.first());
        let origin = named.map(|tagged| tagged.origin);
        let location = if reference.registry.is_some() {
            Location::Registry(reference.clone())
        } else {
            Location::Local(reference.clone())
        };
        Self::new(location, descriptor, origin, lease, None)
    }

    /// Reads a package file.
    pub(crate) fn of_file(path: &Path) -> Result<Self> {
        let scratch = scratch()?;
        let lease = Repository::open(scratch.path())?.lease()?;
        let file = package::open(path)?;
        let imported = lease
            .repository()
            .import_archive(&lease, file)
            .with_context(|| format!("{} is refused", path.display()))?;
        Self::new(Location::Archive(path.to_owned()), imported.descriptor, None, lease, Some(scratch))
    }

    /// Takes in hand what `bring` brought into the repository of a lease.
    pub(crate) fn new(
        location: Location,
        descriptor: Descriptor,
        origin: Option<Origin>,
        lease: Lease,
        scratch: Option<TempDir>,
    ) -> Result<Self> {
        let (manifest, config) = store::package(lease.repository(), &descriptor)?;
        let attachments = lease.repository().attachments(&descriptor.digest)?;
        Ok(Self { location, descriptor, manifest, config, attachments, origin, lease, _scratch: scratch })
    }
}

/// A directory for a temporary store.
pub(crate) fn scratch() -> Result<TempDir> {
    let place = environment::temporary_directory();
    tempfile::Builder::new()
        .prefix("aos-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .tempdir_in(&place)
        .with_context(|| format!("cannot make a temporary folder in {}", place.display()))
}
