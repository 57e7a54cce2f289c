//! The unpacked roots of packages, and what of the index can be used.

use super::{DamagedPackage, State, StoreError, StoredPackage};
use crate::oci::Descriptor;
use crate::repository::{Repository, RepositoryError, failed, make_directory, names, remove, sync_directory};
use aos_core::id::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the roots are, and where one that goes is until it is gone.
pub(super) struct Roots {
    directory: PathBuf,
    away: PathBuf,
}

/// The name of the directory of a package's root.
fn name_of(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

impl Roots {
    /// Makes the directory below the store's.
    pub(super) fn open(root: &Path) -> Result<Self, RepositoryError> {
        let directory = root.join("rootfs");
        // Agents reach their root by its name and need not see those of others.
        make_directory(&directory, 0o711).map_err(failed("make", &directory))?;
        Ok(Self { directory, away: root.join("tmp") })
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(name_of(digest))
    }

    /// Reads what the index lists. A package whose files are damaged does not keep the others
    /// from being used.
    pub(super) fn load(&self, repository: &Repository) -> Result<State, StoreError> {
        let mut state = State::default();
        for listed in repository.listed()? {
            let digest = listed.descriptor.digest;
            match self.load_package(repository, &listed.descriptor, !listed.names.is_empty()) {
                Ok(package) => {
                    state.held.insert(digest, package);
                }
                Err(reason) => {
                    let name = listed.names.into_iter().next();
                    state.damaged.push(DamagedPackage { digest, name, reason });
                }
            }
        }
        Ok(state)
    }

    fn load_package(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        tagged: bool,
    ) -> Result<StoredPackage, String> {
        let (manifest, config) = repository.package(descriptor).map_err(|error| error.to_string())?;
        for layer in &manifest.layers {
            if repository.blob_size(&layer.digest).map_err(|error| error.to_string())? != Some(layer.size) {
                return Err(format!("its layer {} is not complete", layer.digest));
            }
        }
        let rootfs = self.path(&descriptor.digest);
        if !rootfs.is_dir() {
            return Err("its unpacked root is missing".to_owned());
        }
        let blobs: BTreeMap<_, _> =
            manifest.blobs().chain([descriptor]).map(|blob| (blob.digest, blob.size)).collect();
        Ok(StoredPackage {
            digest: descriptor.digest,
            agent: config.agent,
            architecture: config.architecture,
            size: blobs.values().sum(),
            rootfs,
            tagged,
        })
    }

    /// Gives a complete and durable directory tree to a package as its root. One that is there, of
    /// a damaged package, is replaced: mounts of it live on, new ones get the new root.
    pub(super) fn adopt(&self, digest: &Digest, tree: &Path) -> Result<PathBuf, RepositoryError> {
        let target = self.path(digest);
        if target.exists() {
            self.remove(&name_of(digest))?;
        }
        std::fs::rename(tree, &target).map_err(failed("make", &target))?;
        sync_directory(&self.directory).map_err(failed("sync", &self.directory))?;
        Ok(target)
    }

    /// Removes roots of other packages than these.
    pub(super) fn sweep(&self, packages: &BTreeSet<Digest>) -> Result<(), RepositoryError> {
        let roots: BTreeSet<String> = packages.iter().map(name_of).collect();
        let found = names(&self.directory).map_err(failed("list", &self.directory))?;
        found.iter().filter(|name| !roots.contains(*name)).try_for_each(|name| self.remove(name))
    }

    /// Renamed first: what is named like a root is one. What stays in `tmp` after a crash is
    /// garbage of the repository.
    fn remove(&self, name: &str) -> Result<(), RepositoryError> {
        let (from, to) = (self.directory.join(name), self.away.join(name));
        remove(&to).map_err(failed("remove", &to))?;
        std::fs::rename(&from, &to).map_err(failed("remove", &from))?;
        remove(&to).map_err(failed("remove", &to))
    }
}
