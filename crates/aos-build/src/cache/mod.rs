//! What earlier builds left to be used again, below `ROOT/cache` of a store.
//!
//! ```text
//! lock                      shared by builds, exclusive for removing what they may be using
//! steps/<2 hex>/<62 hex>    a record of one step's layer, or of what a layer lists; by its key
//! files/<hex>               digests of a context directory's files; by the directory's path
//! trees/<hex>/              unpacked layers, for steps that run; by the layers
//! mounts/<hex>/             cache mounts of steps that run; by their names
//! scratch/                  what running steps write; emptied when no build is running
//! ```
//!
//! **Invariants.** Nothing here is needed: what is missing, damaged or of another version is made
//! anew. A record is written last and by renaming, after the blob that it names, and begins with
//! the digest of its contents: after `kill -9` or a power cut it is whole or does not count. A
//! record whose blob is gone does not count either; using one pins the blob first.
//!
//! The time of last use is the modification time of a record's file, or of a tree's directory.

mod listing;
mod prune;
mod records;

pub use prune::{CacheEntry, CacheError, EntryKind, Prune, Pruned};
pub(crate) use records::{Layer, StepRecord};

use aos_core::id::Digest;
use aos_package::repository::Repository;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A use that comes so soon after the last one is not written down: it would change no decision.
const USE_GRAIN: Duration = Duration::from_secs(60);

/// How the names of directories begin that are not whole yet.
const UNFINISHED: &[u8] = b".";

/// The cache of one store.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Says that a build is using the cache, until it is dropped.
#[derive(Debug)]
pub(crate) struct InUse {
    _lock: File,
}

impl Cache {
    /// The cache of a store; its directories are made when they are missing.
    pub fn open(repository: &Repository) -> io::Result<Self> {
        let cache = Self { root: repository.root().join("cache") };
        let below = [cache.steps(), cache.files(), cache.trees(), cache.mounts(), cache.scratch()];
        for directory in std::iter::once(&cache.root).chain(&below) {
            match std::fs::DirBuilder::new().mode(0o711).create(directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        Ok(cache)
    }

    fn steps(&self) -> PathBuf {
        self.root.join("steps")
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    pub(crate) fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    pub(crate) fn mounts(&self) -> PathBuf {
        self.root.join("mounts")
    }

    /// On the file system of the store; who steps run as can search every directory on the way.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Keeps trees and mounts from being removed.
    pub(crate) fn use_it(&self) -> io::Result<InUse> {
        let lock = self.lock_file()?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            self.clean()?;
        }
        rustix::fs::flock(&lock, FlockOperation::LockShared)?;
        Ok(InUse { _lock: lock })
    }

    /// Removes what killed builds left. Nobody else is using the cache.
    fn clean(&self) -> io::Result<()> {
        for directory in [self.scratch(), self.trees()] {
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                let name = entry.file_name();
                if entry.path().starts_with(self.scratch()) || name.as_encoded_bytes().starts_with(UNFINISHED)
                {
                    prune::remove(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    fn lock_file(&self) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(self.root.join("lock"))
    }

    /// The file of a key.
    fn record(&self, key: &Digest) -> PathBuf {
        let hex = key.hex();
        let (shard, rest) = hex.split_at_checked(2).unwrap_or(("", &hex));
        self.steps().join(shard).join(rest)
    }
}

/// Notes that a record or tree was used. Who cannot write this may still use it.
pub(crate) fn touch(path: &Path, now: SystemTime) -> io::Result<()> {
    let file = File::open(path)?;
    let last = file.metadata()?.modified()?;
    if now.duration_since(last).unwrap_or(Duration::ZERO) > USE_GRAIN {
        file.set_modified(now)?;
    }
    Ok(())
}
