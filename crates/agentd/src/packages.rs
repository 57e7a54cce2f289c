//! The packages an agent can be made of: the facade over the store that the rest of the supervisor uses.

use std::collections::BTreeSet;
use std::future::Future;
use std::os::fd::OwnedFd;

use aos_client::{CollectedView, PackageView};
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
            lifecycle: self.config.run.as_ref().map(|run| run.lifecycle.to_string()).unwrap_or_default(),
            capabilities: self.config.capabilities.to_lines(),
            size: self.size_bytes,
            agents,
        }
    }
}

/// Where an archive comes from: what its caller says, as far as polkit lets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This user built it on this machine and vouches for it: no signature is asked for.
    Local {
        /// The user.
        uid: u32,
    },
    /// From anywhere: the trust policy decides.
    Elsewhere,
}

/// Whether anything is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collect {
    /// Only say what would go.
    DryRun,
    /// Remove it.
    Remove,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Packages, `name@digest`.
    pub packages: Vec<PackageRef>,
    /// Bytes of blobs.
    pub bytes: u64,
}

impl Collected {
    /// As it is shown.
    #[must_use]
    pub fn view(&self) -> CollectedView {
        let packages = self.packages.iter().map(PackageRef::to_string).collect();
        CollectedView { packages, bytes: self.bytes }
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
    /// Reads an archive and puts what it holds into the store, if it is trusted.
    fn install(
        &self,
        archive: OwnedFd,
        source: Source,
    ) -> impl Future<Output = Result<(PackageRef, Digest), Failure>> + Send;
    /// Says why the package may not be started: the trust policy is asked as it is now.
    fn check_trust(
        &self,
        reference: &PackageRef,
        digest: &Digest,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Removes the package that a reference names, unless `in_use` says that its manifest is used; the question
    /// is asked while nobody can get a package.
    fn remove(
        &self,
        reference: &PackageRef,
        in_use: InUse,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Removes packages without a name that are not in `keep`, and what no package needs.
    fn collect(
        &self,
        keep: BTreeSet<Digest>,
        collect: Collect,
    ) -> impl Future<Output = Result<Collected, Failure>> + Send;
}
