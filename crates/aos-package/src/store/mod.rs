//! The packages that a machine runs: a [`Repository`] that this process has for itself, and beside
//! it the packages' unpacked roots.
//!
//! ```text
//! store.lock, store/, ...    the repository; locked while the store is open
//! rootfs/sha256-<hex>/       the unpacked layers of the package with this manifest digest
//! ```
//!
//! Invariants: what the index lists is complete, its blobs and its root; what it does not list
//! is garbage. So the index is written last when a package comes and first when one goes, and a
//! crash at any point leaves a store that opens and only has garbage to collect.
//!
//! `name:version` is a tag. Importing other contents of the same version moves the tag; the older
//! package stays in the index without a name, for agents that still use it, until [`Store::gc`] is
//! told that none does.
//!
//! Concurrency: one process at a time, by the lock; in it the methods may be called from several
//! threads. Importing works in the directory of a lease and takes the lock on the state only at
//! its end.

mod import;
mod roots;
mod unpack;

pub use import::{Change, ImportError, Imported};
pub use unpack::UnpackError;

use crate::repository::{AttachError, GcMode, Repository, RepositoryError, TagError};
use aos_core::config::ResolvedAgent;
use aos_core::id::{Digest, PackageName, PackageRef, Selector, Version};
use roots::Roots;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The package cannot be listed.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// What came with the package cannot be listed.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Something failed, and so did going back to what the disk says.
    #[error("{first}; going back failed too: {second}")]
    Unrecovered {
        /// The first failure.
        #[source]
        first: Box<StoreError>,
        /// The failure after it.
        second: Box<StoreError>,
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

/// What is in the store, as in its index.
#[derive(Default)]
struct State {
    held: BTreeMap<Digest, StoredPackage>,
    damaged: Vec<DamagedPackage>,
}

/// An open store.
pub struct Store {
    repository: Repository,
    roots: Roots,
    state: Mutex<State>,
}

impl Store {
    /// Opens the store in `root`, which must exist, and makes what is missing in it. Removes what
    /// a crash left behind.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let repository = Repository::open_exclusively(root)?;
        let roots = Roots::open(root)?;
        let state = roots.load(&repository)?;
        let store = Self { repository, roots, state: Mutex::new(state) };
        store.sweep(&store.state())?;
        Ok(store)
    }

    /// The blobs, tags and attachments of the packages. They are for reading: what is tagged or
    /// forgotten there, this store does not know.
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// A panic in another thread cannot leave the state half-changed: it is replaced as a whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All usable packages, by name and version, replaced ones last.
    pub fn list(&self) -> Vec<StoredPackage> {
        let mut packages: Vec<_> = self.state().held.values().cloned().collect();
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
        let removed = self.repository.forget(&BTreeSet::from([package.digest]));
        removed.map_err(|error| self.recover(&mut state, error.into()))?;
        state.held.remove(&package.digest);
        self.sweep(&state)?;
        Ok(package)
    }

    /// Removes replaced packages that are not in `keep`, and everything that no package uses.
    pub fn gc(&self, keep: &BTreeSet<Digest>) -> Result<Collected, StoreError> {
        let mut state = self.state();
        let unused = |package: &&StoredPackage| !package.tagged && !keep.contains(&package.digest);
        let packages: Vec<_> = state.held.values().filter(unused).map(|package| package.digest).collect();
        if !packages.is_empty() {
            let forgotten = self.repository.forget(&packages.iter().copied().collect());
            forgotten.map_err(|error| self.recover(&mut state, error.into()))?;
            state.held.retain(|digest, _| !packages.contains(digest));
        }
        let bytes = self.sweep(&state)?;
        Ok(Collected { packages, bytes })
    }

    /// Removes roots and blobs that no package of the index uses; returns the bytes of the blobs.
    fn sweep(&self, state: &State) -> Result<u64, StoreError> {
        let listed = state.listed();
        self.roots.sweep(&listed)?;
        Ok(self.repository.gc(&listed, &BTreeSet::new(), GcMode::Collect)?.bytes)
    }

    /// After a failed change the state becomes what the disk says, which can be the old or the
    /// new, and what the attempt left is collected.
    fn recover(&self, state: &mut State, first: StoreError) -> StoreError {
        let recovered = self.roots.load(&self.repository).and_then(|loaded| {
            *state = loaded;
            self.sweep(state)
        });
        match recovered {
            Ok(_) => first,
            Err(second) => StoreError::Unrecovered { first: Box::new(first), second: Box::new(second) },
        }
    }
}

impl State {
    /// What the index lists, attachments aside.
    fn listed(&self) -> BTreeSet<Digest> {
        self.held.keys().copied().chain(self.damaged.iter().map(|damaged| damaged.digest)).collect()
    }

    /// Versions of a name that have a tag, lowest first.
    fn versions(&self, name: &PackageName) -> Vec<Version> {
        let tagged = self.held.values().filter(|package| package.tagged && package.agent.name == *name);
        let mut versions: Vec<_> = tagged.map(|package| package.agent.version.clone()).collect();
        versions.sort();
        versions
    }

    fn resolve(&self, reference: &PackageRef) -> Result<StoredPackage, ResolveError> {
        let of_name = self.held.values().filter(|p| p.agent.name == reference.name);
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
