//! The packages an agent can be made of: the facade over the store that the rest of the supervisor uses.

use std::collections::BTreeSet;
use std::future::Future;
use std::os::fd::OwnedFd;

use aos_client::PackageView;
use aos_core::config::ResolvedAgent;
use aos_core::id::{Digest, PackageRef};
use aos_core::path::AbsolutePath;

use crate::failure::Failure;

/// A package in the store, unpacked.
#[derive(Debug, Clone)]
pub struct Package {
    /// `name:version`.
    pub reference: PackageRef,
    /// Its manifest.
    pub digest: Digest,
    /// What it declares.
    pub config: ResolvedAgent,
    /// Its unpacked root.
    pub rootfs: AbsolutePath,
    /// Bytes in the store.
    pub size_bytes: u64,
}

impl Package {
    /// As it is shown; `agents` use it.
    #[must_use]
    pub fn view(&self, agents: Vec<String>) -> PackageView {
        PackageView {
            reference: self.reference.to_string(),
            name: self.config.name.to_string(),
            version: self.config.version.to_string(),
            digest: self.digest.to_string(),
            description: self
                .config
                .description
                .as_ref()
                .map(|text| text.as_str().to_owned())
                .unwrap_or_default(),
            lifecycle: self.config.run.lifecycle.to_string(),
            capabilities: self.config.capabilities.to_lines(),
            size: self.size_bytes,
            agents,
        }
    }
}

/// Says whether the package with this manifest is used.
pub type InUse = Box<dyn Fn(&Digest) -> bool + Send>;

/// A store of packages. Every method does its blocking work elsewhere.
pub trait Packages: Send + Sync + 'static {
    /// The package that a reference names.
    fn resolve(&self, reference: &PackageRef) -> impl Future<Output = Result<Package, Failure>> + Send;
    /// The package with this manifest.
    fn get(
        &self,
        reference: &PackageRef,
        digest: &Digest,
    ) -> impl Future<Output = Result<Package, Failure>> + Send;
    /// All packages, sorted by reference.
    fn list(&self) -> impl Future<Output = Result<Vec<Package>, Failure>> + Send;
    /// Reads an archive and puts what it holds into the store.
    fn install(&self, archive: OwnedFd)
    -> impl Future<Output = Result<(PackageRef, Digest), Failure>> + Send;
    /// Removes the package that a reference names, unless `in_use` says that its manifest is used; the question
    /// is asked while nobody can get a package.
    fn remove(
        &self,
        reference: &PackageRef,
        in_use: InUse,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Removes replaced packages that are not in `keep`.
    fn collect(&self, keep: BTreeSet<Digest>) -> impl Future<Output = Result<(), Failure>> + Send;
}
