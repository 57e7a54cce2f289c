//! What a build needs from outside its directory: images, packages and dependencies. Somebody who
//! has a network brings them into the repository; this crate has none.

use aos_core::dependency::DependencyKind;
use aos_core::id::{Digest, PackageName};
use aos_core::reference::Reference;
use aos_package::oci::Descriptor;
use aos_package::repository::{Lease, Repository};
use std::error::Error;

/// Why something cannot be brought.
pub type BaseError = Box<dyn Error + Send + Sync>;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wanted {
    /// An image of another tool, by a reference that has a registry. When the reference leads to an
    /// index, the manifest of [`crate::Options::architecture`] is wanted.
    Image(Reference),
    /// A package.
    Package(Reference),
    /// A dependency of the Agentfile.
    Dependency {
        /// What it is.
        kind: DependencyKind,
        /// Its name.
        name: PackageName,
    },
}

/// Brings images and packages into the repository. Called from several threads at once.
pub trait Bases: Sync {
    /// Brings the manifest, its config and its layers into `repository`, pinned by `lease`, and
    /// returns the manifest's descriptor. With `locked`, which Agentfile.lock says, nothing else
    /// may be returned. What is in the repository already needs no network.
    fn bring(
        &self,
        wanted: &Wanted,
        locked: Option<Digest>,
        repository: &Repository,
        lease: &Lease,
    ) -> Result<Descriptor, BaseError>;
}

/// Brings what the repository has, and nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub struct Local;
