//! Collecting garbage.
//!
//! Roots are: what has a tag, what living leases pin, what the caller keeps or names; all that
//! these refer to; and what is attached to any of it. The collector holds the exclusive lock from
//! reading the leases to removing the last blob, so nobody pins in between.
//!
//! What no entry of the index leads to goes first: on a full disk that makes the room that the new
//! index needs. Then the index is replaced, then what it no longer lists is removed.

use super::Repository;
use super::error::{RepositoryError, failed};
use super::files::{names, remove};
use super::index::{is_attachment, subject_of};
use super::lease::Leases;
use super::lock::Exclusive;
use super::reach::Reach;
use crate::oci::{Index, REF_NAME};
use aos_core::id::Digest;
use rustix::fs::FlockOperation;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Whether anything is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcMode {
    /// Only say what would go.
    DryRun,
    /// Remove it.
    Collect,
}

/// What [`Repository::gc`] removed, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Packages and attachments that are no longer in the index, by digest.
    pub manifests: Vec<Digest>,
    /// Blobs, manifests among them, by digest.
    pub blobs: Vec<Digest>,
    /// Bytes of these blobs, and of leftovers.
    pub bytes: u64,
    /// Files that crashed processes left: partial blobs, temporary files, leases.
    pub leftovers: usize,
    /// Manifests that are needed and cannot be read. While there is one, the blobs that it needs
    /// are not known, and no blob is removed.
    pub damaged: Vec<Digest>,
}

/// What is in the directory of blobs.
pub(super) struct Blobs {
    /// The blobs by digest, with their sizes.
    pub(super) blobs: Vec<(Digest, u64)>,
    /// Files that are no blobs.
    pub(super) strange: Vec<PathBuf>,
}

impl Repository {
    /// Removes what nothing needs. `keep` are manifests that are in use, `extra_roots` blobs that
    /// something outside of the store needs, such as a build cache; those of either that are
    /// manifests keep all that they refer to.
    pub fn gc(
        &self,
        keep: &BTreeSet<Digest>,
        extra_roots: &BTreeSet<Digest>,
        mode: GcMode,
    ) -> Result<Collected, RepositoryError> {
        let locked = self.inner.lock.exclusive()?;
        let plan = Plan::new(self, &locked, keep, extra_roots)?;
        match mode {
            GcMode::DryRun => Ok(plan.collected),
            GcMode::Collect => plan.carry_out(self, &locked),
        }
    }

    /// What is in the directory of blobs.
    pub(super) fn all_blobs(&self) -> Result<Blobs, RepositoryError> {
        let directory = &self.inner.paths.blobs;
        let (mut blobs, mut strange) = (Vec::new(), Vec::new());
        for name in names(directory).map_err(failed("list", directory))? {
            let path = directory.join(&name);
            let metadata = match std::fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("read", &path)(error)),
            };
            match format!("sha256:{name}").parse() {
                Ok(digest) if metadata.is_file() => blobs.push((digest, metadata.len())),
                _ => strange.push(path),
            }
        }
        blobs.sort_unstable();
        strange.sort();
        Ok(Blobs { blobs, strange })
    }

    /// Files that nobody uses any more: of dead leases, and partial blobs that nobody writes.
    pub(super) fn leftovers(&self, leases: &Leases) -> Result<Vec<PathBuf>, RepositoryError> {
        let paths = &self.inner.paths;
        let mut found = leases.dead.clone();
        for name in names(&paths.tmp).map_err(failed("list", &paths.tmp))? {
            if !leases.living.contains(&name) {
                found.push(paths.tmp.join(name));
            }
        }
        for name in names(&paths.partial).map_err(failed("list", &paths.partial))? {
            let path = paths.partial.join(name);
            if !is_locked(&path)? {
                found.push(path);
            }
        }
        Ok(found)
    }
}

/// True when somebody has a file locked; one that is gone is nobody's.
fn is_locked(path: &Path) -> Result<bool, RepositoryError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("open", path)(error)),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(failed("lock", path)(errno.into())),
    }
}

/// Bytes of a file, or of the files of a directory tree. What goes meanwhile has none.
fn bytes_below(path: &Path) -> u64 {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| bytes_below(&entry.path())).sum()
}

/// What is to be done.
struct Plan {
    /// The index as it will be, if it changes.
    index: Option<Index>,
    /// Blobs that not even the present index needs.
    first: Vec<Digest>,
    /// Blobs that the new index does not need.
    last: Vec<Digest>,
    leftovers: Vec<PathBuf>,
    collected: Collected,
}

impl Plan {
    fn new(
        repository: &Repository,
        witness: &Exclusive<'_>,
        keep: &BTreeSet<Digest>,
        extra_roots: &BTreeSet<Digest>,
    ) -> Result<Self, RepositoryError> {
        let index = repository.read_index(witness)?;
        let leases = Leases::read(&repository.inner.paths.leases)?;
        let mut reach = Reach::new(repository);
        for entry in &index.manifests {
            let kept = entry.annotations.contains_key(REF_NAME) || keep.contains(&entry.digest);
            if kept && !is_attachment(entry) {
                reach.manifest(entry)?;
            }
        }
        for digest in keep.iter().chain(extra_roots).chain(&leases.pinned) {
            reach.blob(digest)?;
        }
        reach.attachments(&index)?;
        let leftovers = repository.leftovers(&leases)?;
        let damaged: Vec<_> = reach.damaged.keys().copied().collect();
        let needed = reach.blobs;

        let mut new = index.clone();
        // An attachment that somebody pinned, and whose subject goes, goes too.
        new.manifests.retain(|entry| {
            let of_needed = subject_of(entry).is_none_or(|subject| needed.contains(&subject));
            needed.contains(&entry.digest) && of_needed
        });
        let digests = |index: &Index| -> BTreeSet<_> { index.manifests.iter().map(|e| e.digest).collect() };
        let mut collected = Collected {
            manifests: digests(&index).difference(&digests(&new)).copied().collect(),
            leftovers: leftovers.len(),
            bytes: leftovers.iter().map(|path| bytes_below(path)).sum(),
            damaged,
            blobs: Vec::new(),
        };
        let (mut first, mut last) = (Vec::new(), Vec::new());
        if collected.damaged.is_empty() {
            // What an entry that goes refers to, too, stays until the entry is gone.
            let mut still = Reach::new(repository);
            still.index(&index)?;
            let unsure = !still.damaged.is_empty();
            for (digest, size) in repository.all_blobs()?.blobs {
                if needed.contains(&digest) {
                    continue;
                }
                collected.bytes += size;
                collected.blobs.push(digest);
                if unsure || still.blobs.contains(&digest) { &mut last } else { &mut first }.push(digest);
            }
        }
        let index = (new != index).then_some(new);
        Ok(Self { index, first, last, leftovers, collected })
    }

    fn carry_out(
        self,
        repository: &Repository,
        locked: &Exclusive<'_>,
    ) -> Result<Collected, RepositoryError> {
        for path in &self.leftovers {
            remove(path).map_err(failed("remove", path))?;
        }
        remove_blobs(repository, &self.first)?;
        if let Some(index) = &self.index {
            repository.write_index(locked, index)?;
        }
        remove_blobs(repository, &self.last)?;
        Ok(self.collected)
    }
}

fn remove_blobs(repository: &Repository, blobs: &[Digest]) -> Result<(), RepositoryError> {
    blobs.iter().try_for_each(|digest| {
        let path = repository.inner.paths.blob(digest);
        remove(&path).map_err(failed("remove", &path))
    })
}
