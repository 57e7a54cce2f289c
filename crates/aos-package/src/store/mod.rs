//! The local store of packages.
//!
//! ```text
//! store.lock                 held by the process that has the store open
//! store/                     an OCI image layout: oci-layout, index.json, blobs/sha256/<hex>
//! rootfs/sha256-<hex>/       the unpacked layers of the package with this manifest digest
//! tmp/                       imports and removals under way; emptied when the store is opened
//! ```
//!
//! Invariants: what `index.json` lists is complete, its blobs and its root; what it does not list
//! is garbage. So the index is written last when a package comes and first when one goes, by
//! replacing the file, and a crash at any point leaves a store that opens and only has garbage to
//! collect.
//!
//! `name:version` is a tag. Importing other contents of the same version moves the tag; the older
//! package stays in the index without a name, for agents that still use it, until [`Store::gc`] is
//! told that none does.
//!
//! Concurrency: one process at a time, by the lock; in it the methods may be called from several
//! threads. Importing works in `tmp/` and takes the lock on the index only at its end.

mod disk;
mod files;
mod import;
mod unpack;

pub use import::{Change, ImportError, Imported};
pub use unpack::UnpackError;

use crate::oci::{Index, OciError};
use aos_core::config::ResolvedAgent;
use aos_core::id::{Digest, PackageName, PackageRef, Selector, Version};
use disk::Paths;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the package store `{}` is in use by another process", .0.display())]
    Locked(PathBuf),
    /// A file of the store cannot be read or written.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Something failed, and so did going back to what the disk says.
    #[error("{first}; going back failed too: {second}")]
    Unrecovered {
        /// The first failure.
        #[source]
        first: Box<StoreError>,
        /// The failure after it.
        second: Box<StoreError>,
    },
    /// The index is damaged.
    #[error("the package store's `{}` is damaged", .path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: OciError,
    },
}

/// Why a reference does not lead to a package.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// There is no such package.
    #[error("no package {reference} is installed{}", Installed(.installed))]
    NotFound {
        /// What was asked for.
        reference: PackageRef,
        /// Versions that are there.
        installed: Vec<Version>,
    },
    /// The package's files are damaged.
    #[error("the package {reference} is damaged, install it again: {reason}")]
    Damaged {
        /// What was asked for.
        reference: PackageRef,
        /// What is wrong.
        reason: String,
    },
}

/// Why a package cannot be removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// The reference does not lead to one.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Several versions are there.
    #[error("{name} has several versions: name one of {}", List(.versions))]
    Ambiguous {
        /// The name.
        name: PackageName,
        /// Its versions.
        versions: Vec<Version>,
    },
    /// Somebody uses it.
    #[error("the package {0} is in use: remove the agents that use it first")]
    InUse(PackageRef),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct List<'a>(&'a [Version]);

impl std::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, version) in self.0.iter().enumerate() {
            write!(f, "{}{version}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

struct Installed<'a>(&'a [Version]);

impl std::fmt::Display for Installed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", installed versions are {}", List(self.0)) }
    }
}

/// A package in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPackage {
    /// The digest of its manifest.
    pub digest: Digest,
    /// What it carries.
    pub agent: ResolvedAgent,
    /// The architecture it is for, in Go's names.
    pub architecture: String,
    /// Bytes of its blobs; layers may be shared.
    pub size: u64,
    /// Its unpacked root.
    pub rootfs: PathBuf,
    /// True when `name:version` means this one; false when it was replaced and is kept for those
    /// that use it.
    pub tagged: bool,
}

impl StoredPackage {
    /// The reference `name:version`.
    pub fn reference(&self) -> PackageRef {
        self.agent.reference()
    }
}

/// A package of the index whose files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedPackage {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its tag, if it has one.
    pub name: Option<String>,
    /// What is wrong.
    pub reason: String,
}

/// What [`Store::gc`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Replaced packages that nobody uses any more.
    pub packages: Vec<Digest>,
    /// Bytes of blobs.
    pub bytes: u64,
}

/// A usable package of the index.
struct Held {
    package: StoredPackage,
    blobs: BTreeSet<Digest>,
}

/// What is in the store, as in `index.json`.
struct State {
    index: Index,
    held: BTreeMap<Digest, Held>,
    damaged: Vec<DamagedPackage>,
}

/// An open store.
pub struct Store {
    paths: Paths,
    state: Mutex<State>,
    /// Closing it releases the lock.
    _lock: File,
}

impl Store {
    /// Opens the store in `root`, which must exist, and makes what is missing in it. Removes what
    /// a crash left behind.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let paths = Paths::new(root);
        let lock = paths.lock()?;
        paths.prepare()?;
        let state = paths.load()?;
        let store = Self { paths, state: Mutex::new(state), _lock: lock };
        store.paths.sweep(&store.state())?;
        Ok(store)
    }

    /// A panic in another thread cannot leave the state half-changed: it is replaced as a whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All usable packages, by name and version, replaced ones last.
    pub fn list(&self) -> Vec<StoredPackage> {
        let mut packages: Vec<_> = self.state().held.values().map(|held| held.package.clone()).collect();
        packages.sort_by(|a, b| {
            let key =
                |p: &StoredPackage| (!p.tagged, p.agent.name.clone(), p.agent.version.clone(), p.digest);
            key(a).cmp(&key(b))
        });
        packages
    }

    /// Packages that the index lists and whose files are damaged.
    pub fn damaged(&self) -> Vec<DamagedPackage> {
        self.state().damaged.clone()
    }

    /// The package that a reference means. A name alone means its highest version.
    pub fn resolve(&self, reference: &PackageRef) -> Result<StoredPackage, ResolveError> {
        self.state().resolve(reference)
    }

    /// Removes a package, unless `in_use` says that its digest is used. A name alone is enough
    /// when it has one version.
    pub fn remove(
        &self,
        reference: &PackageRef,
        in_use: impl Fn(&Digest) -> bool,
    ) -> Result<StoredPackage, RemoveError> {
        let mut state = self.state();
        if reference.selector == Selector::Newest {
            let versions = state.versions(&reference.name);
            if versions.len() > 1 {
                return Err(RemoveError::Ambiguous { name: reference.name.clone(), versions });
            }
        }
        let package = state.resolve(reference)?;
        if in_use(&package.digest) {
            return Err(RemoveError::InUse(package.reference()));
        }
        self.paths
            .change(&mut state, |paths, state| paths.forget(state, &BTreeSet::from([package.digest])))?;
        self.paths.sweep(&state)?;
        Ok(package)
    }

    /// Removes replaced packages that are not in `keep`, and everything that no package uses.
    pub fn gc(&self, keep: &BTreeSet<Digest>) -> Result<Collected, StoreError> {
        let mut state = self.state();
        let unused = |held: &&Held| !held.package.tagged && !keep.contains(&held.package.digest);
        let packages: BTreeSet<_> =
            state.held.values().filter(unused).map(|held| held.package.digest).collect();
        if !packages.is_empty() {
            self.paths.change(&mut state, |paths, state| paths.forget(state, &packages))?;
        }
        let bytes = self.paths.sweep(&state)?;
        Ok(Collected { packages: packages.into_iter().collect(), bytes })
    }
}

impl State {
    /// Versions of a name that have a tag, lowest first.
    fn versions(&self, name: &PackageName) -> Vec<Version> {
        let tagged =
            self.held.values().filter(|held| held.package.tagged && held.package.agent.name == *name);
        let mut versions: Vec<_> = tagged.map(|held| held.package.agent.version.clone()).collect();
        versions.sort();
        versions
    }

    fn resolve(&self, reference: &PackageRef) -> Result<StoredPackage, ResolveError> {
        let of_name = self.held.values().map(|held| &held.package).filter(|p| p.agent.name == reference.name);
        let found = match &reference.selector {
            Selector::Newest => {
                of_name.filter(|p| p.tagged).max_by(|a, b| a.agent.version.cmp(&b.agent.version))
            }
            Selector::Version(version) => of_name.filter(|p| p.tagged).find(|p| p.agent.version == *version),
            Selector::Digest(digest) => of_name.into_iter().find(|p| p.digest == *digest),
        };
        if let Some(package) = found {
            return Ok(package.clone());
        }
        let text = reference.to_string();
        let meant = |damaged: &&DamagedPackage| match &reference.selector {
            Selector::Digest(digest) => damaged.digest == *digest,
            Selector::Version(_) => damaged.name.as_ref() == Some(&text),
            Selector::Newest => damaged
                .name
                .as_ref()
                .is_some_and(|name| name.split(':').next() == Some(reference.name.as_str())),
        };
        Err(match self.damaged.iter().find(meant) {
            Some(damaged) => {
                ResolveError::Damaged { reference: reference.clone(), reason: damaged.reason.clone() }
            }
            None => ResolveError::NotFound {
                reference: reference.clone(),
                installed: self.versions(&reference.name),
            },
        })
    }
}
