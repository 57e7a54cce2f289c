//! The store on disk: where things are, loading the index, changing it, collecting garbage.

use super::files::{make_directory, remove, replace, sync_directory};
use super::{DamagedPackage, Held, State, StoreError, StoredPackage};
use crate::archive::Archive;
use crate::bounds::{IMAGE_CONFIG_MAX, MANIFEST_MAX};
use crate::hashing::digest_of;
use crate::oci::{Descriptor, Index, LAYOUT, Manifest, PackageConfig, REF_NAME};
use aos_core::id::Digest;
use rustix::fs::FlockOperation;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where things are.
pub(super) struct Paths {
    lock: PathBuf,
    layout: PathBuf,
    blobs: PathBuf,
    rootfs: PathBuf,
    pub(super) tmp: PathBuf,
}

/// Names a file in an error.
pub(super) fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { action, path: path.to_owned(), source }
}

/// The name of the directory of a package's root.
fn rootfs_name(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

impl Paths {
    pub(super) fn new(root: &Path) -> Self {
        let layout = root.join("store");
        Self {
            lock: root.join("store.lock"),
            blobs: layout.join("blobs/sha256"),
            layout,
            rootfs: root.join("rootfs"),
            tmp: root.join("tmp"),
        }
    }

    /// Takes the exclusive lock, which the kernel releases with the process.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let path = &self.lock;
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(failed("open", path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(path.clone())),
            Err(errno) => Err(failed("lock", path)(errno.into())),
        }
    }

    /// Makes the directories and the empty index, and empties `tmp`.
    pub(super) fn prepare(&self) -> Result<(), StoreError> {
        remove(&self.tmp).map_err(failed("empty", &self.tmp))?;
        let parent = self.blobs.parent().unwrap_or(&self.layout);
        // Agents reach their root by its name and need not see those of others.
        for (path, mode) in [
            (self.tmp.as_path(), 0o700),
            (&self.layout, 0o700),
            (parent, 0o700),
            (&self.blobs, 0o700),
            (&self.rootfs, 0o711),
        ] {
            make_directory(path, mode).map_err(failed("make", path))?;
        }
        let layout = self.layout.join("oci-layout");
        let index = self.index_path();
        if !layout.exists() {
            replace(&layout, LAYOUT.as_bytes(), &self.tmp).map_err(failed("write", &layout))?;
        }
        if !index.exists() {
            self.write_index(&Index::new(Vec::new()))?;
        }
        Ok(())
    }

    fn index_path(&self) -> PathBuf {
        self.layout.join("index.json")
    }

    fn write_index(&self, index: &Index) -> Result<(), StoreError> {
        let path = self.index_path();
        let bytes = index.to_json().map_err(|source| StoreError::Index { path: path.clone(), source })?;
        replace(&path, &bytes, &self.tmp).map_err(failed("write", &path))
    }

    pub(super) fn rootfs_of(&self, digest: &Digest) -> PathBuf {
        self.rootfs.join(rootfs_name(digest))
    }

    /// Reads the index and what it lists. A package whose files are damaged does not keep the
    /// others from being used.
    pub(super) fn load(&self) -> Result<State, StoreError> {
        let path = self.index_path();
        let bytes = std::fs::read(&path).map_err(failed("read", &path))?;
        let index = Index::parse(&bytes).map_err(|source| StoreError::Index { path, source })?;
        let mut state = State { index, held: BTreeMap::new(), damaged: Vec::new() };
        for descriptor in &state.index.manifests {
            match self.load_package(descriptor) {
                Ok(held) => {
                    state.held.insert(descriptor.digest, held);
                }
                Err(reason) => state.damaged.push(DamagedPackage {
                    digest: descriptor.digest,
                    name: descriptor.annotations.get(REF_NAME).cloned(),
                    reason,
                }),
            }
        }
        Ok(state)
    }

    fn load_package(&self, descriptor: &Descriptor) -> Result<Held, String> {
        let manifest = self.blob(descriptor, MANIFEST_MAX)?;
        let manifest = Manifest::parse(&manifest).map_err(|error| error.to_string())?;
        let config = self.blob(&manifest.config, IMAGE_CONFIG_MAX)?;
        let config = PackageConfig::parse(&config).map_err(|error| error.to_string())?;
        for layer in &manifest.layers {
            let size =
                std::fs::metadata(self.blobs.join(layer.digest.hex())).map(|metadata| metadata.len()).ok();
            if size != Some(layer.size) {
                return Err(format!("its layer {} is not complete", layer.digest));
            }
        }
        let rootfs = self.rootfs_of(&descriptor.digest);
        if !rootfs.is_dir() {
            return Err("its unpacked root is missing".to_owned());
        }
        let tagged = descriptor.annotations.contains_key(REF_NAME);
        let blobs: BTreeMap<_, _> =
            manifest.blobs().chain([descriptor]).map(|blob| (blob.digest, blob.size)).collect();
        let package = StoredPackage {
            digest: descriptor.digest,
            agent: config.agent,
            architecture: config.architecture,
            size: blobs.values().sum(),
            rootfs,
            tagged,
        };
        Ok(Held { package, blobs: blobs.into_keys().collect() })
    }

    /// A small blob, verified.
    fn blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>, String> {
        let wrong = |reason: &str| format!("its blob {} {reason}", descriptor.digest);
        let mut bytes = Vec::new();
        File::open(self.blobs.join(descriptor.digest.hex()))
            .and_then(|file| file.take(max).read_to_end(&mut bytes))
            .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        if digest_of(&bytes) == descriptor.digest { Ok(bytes) } else { Err(wrong("is altered")) }
    }

    /// Makes a change of the index. When it fails, the state becomes what the disk says, which can
    /// be the old or the new, and what the attempt left is collected.
    pub(super) fn change<T>(
        &self,
        state: &mut State,
        attempt: impl FnOnce(&Self, &mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        attempt(self, state).map_err(|first| {
            let recovered = self.load().and_then(|loaded| {
                *state = loaded;
                self.sweep(state)
            });
            match recovered {
                Ok(_) => first,
                Err(second) => StoreError::Unrecovered { first: Box::new(first), second: Box::new(second) },
            }
        })
    }

    /// Adds a package whose blobs and root are complete in `tmp` and durable, and gives it the
    /// tag. Returns the package and the one that had the tag.
    pub(super) fn adopt(
        &self,
        state: &mut State,
        archive: &Archive,
        rootfs: &Path,
    ) -> Result<(StoredPackage, Option<Digest>), StoreError> {
        let blobs = archive.blobs();
        for digest in blobs.keys() {
            let (from, to) = (archive.spool.join(digest.hex()), self.blobs.join(digest.hex()));
            std::fs::rename(&from, &to).map_err(failed("make", &to))?;
        }
        sync_directory(&self.blobs).map_err(failed("sync", &self.blobs))?;
        let digest = archive.manifest.digest;
        let target = self.rootfs_of(&digest);
        if target.exists() {
            // Of a damaged package: mounts of it live on, new ones get the new root.
            let away = self.tmp.join(rootfs_name(&digest));
            std::fs::rename(&target, &away).map_err(failed("replace", &target))?;
            remove(&away).map_err(failed("remove", &away))?;
        }
        std::fs::rename(rootfs, &target).map_err(failed("make", &target))?;
        sync_directory(&self.rootfs).map_err(failed("sync", &self.rootfs))?;
        let name = archive.package.agent.reference().to_string();
        let (index, replaced) = retag(&state.index, &archive.manifest, &name);
        self.write_index(&index)?;

        let package = StoredPackage {
            digest,
            agent: archive.package.agent.clone(),
            architecture: archive.package.architecture.clone(),
            size: blobs.values().sum(),
            rootfs: target,
            tagged: true,
        };
        if let Some(old) = replaced.and_then(|old| state.held.get_mut(&old)) {
            old.package.tagged = false;
        }
        state.damaged.retain(|damaged| damaged.digest != digest);
        state.held.insert(digest, Held { package: package.clone(), blobs: blobs.into_keys().collect() });
        state.index = index;
        Ok((package, replaced))
    }

    /// Gives the tag back to a package that is there.
    pub(super) fn tag(&self, state: &mut State, digest: Digest) -> Result<Option<Digest>, StoreError> {
        let Some(held) = state.held.get(&digest) else { return Ok(None) };
        let name = held.package.reference().to_string();
        let Some(descriptor) = state.index.manifests.iter().find(|d| d.digest == digest) else {
            return Ok(None);
        };
        let (index, replaced) = retag(&state.index, &descriptor.clone(), &name);
        if index != state.index {
            self.write_index(&index)?;
            state.index = index;
        }
        for (other, held) in &mut state.held {
            if *other == digest || replaced == Some(*other) {
                held.package.tagged = *other == digest;
            }
        }
        Ok(replaced)
    }

    /// Takes packages out of the index. Their files become garbage.
    pub(super) fn forget(&self, state: &mut State, digests: &BTreeSet<Digest>) -> Result<(), StoreError> {
        let mut index = state.index.clone();
        index.manifests.retain(|descriptor| !digests.contains(&descriptor.digest));
        self.write_index(&index)?;
        state.index = index;
        state.held.retain(|digest, _| !digests.contains(digest));
        Ok(())
    }

    /// Removes roots and blobs that no package of the index uses; returns the bytes of the blobs.
    /// While a package is damaged its blobs are not known, and no blob is removed.
    pub(super) fn sweep(&self, state: &State) -> Result<u64, StoreError> {
        let roots: BTreeSet<String> = state.index.manifests.iter().map(|d| rootfs_name(&d.digest)).collect();
        for name in names(&self.rootfs)? {
            if !roots.contains(&name) {
                // Renamed first: what is named like a root is one.
                let (from, to) = (self.rootfs.join(&name), self.tmp.join(&name));
                std::fs::rename(&from, &to).map_err(failed("remove", &from))?;
                remove(&to).map_err(failed("remove", &to))?;
            }
        }
        if !state.damaged.is_empty() {
            return Ok(0);
        }
        let used: BTreeSet<String> =
            state.held.values().flat_map(|held| &held.blobs).map(Digest::hex).collect();
        let mut bytes = 0;
        for name in names(&self.blobs)? {
            if !used.contains(&name) {
                let path = self.blobs.join(&name);
                bytes += std::fs::symlink_metadata(&path).map_err(failed("read", &path))?.len();
                remove(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(bytes)
    }
}

/// The index with this manifest under this name; the manifest that had the name keeps its place
/// without it.
fn retag(index: &Index, manifest: &Descriptor, name: &str) -> (Index, Option<Digest>) {
    let mut index = index.clone();
    let mut replaced = None;
    index.manifests.retain(|descriptor| descriptor.digest != manifest.digest);
    for descriptor in &mut index.manifests {
        if descriptor.annotations.get(REF_NAME).is_some_and(|other| other == name) {
            descriptor.annotations.remove(REF_NAME);
            replaced = Some(descriptor.digest);
        }
    }
    let mut named = manifest.clone();
    named.annotations.insert(REF_NAME.to_owned(), name.to_owned());
    index.manifests.push(named);
    index.manifests.sort_by_key(|descriptor| descriptor.digest);
    (index, replaced)
}

/// The names in a directory; one that is not UTF-8 is not ours and stays.
fn names(path: &Path) -> Result<Vec<String>, StoreError> {
    let entries = std::fs::read_dir(path).map_err(failed("list", path))?;
    let names: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
    Ok(names.map_err(failed("list", path))?.into_iter().filter_map(|name| name.into_string().ok()).collect())
}
