//! A store of OCI blobs that several processes use at once.
//!
//! ```text
//! store.lock                 locked for an operation, shared or exclusively; holds nothing
//! store/                     an OCI image layout: oci-layout, index.json, blobs/sha256/<hex>
//! partial/<hex>              a blob that has not arrived completely; locked by who writes it
//! leases/<pid>-<random>      what a process needs, a line of hex each; locked while it lives
//! tmp/<lease>/               files of the holder of this lease
//! tmp/<other>                a file being made by the holder of the exclusive lock
//! ```
//!
//! **Names.** `index.json` lists each manifest once for each of its tags, under its reference in
//! the annotation `org.opencontainers.image.ref.name`, and once without it when it has no tag.
//! Attachments (artifact manifests with a subject) are listed without a name, with their
//! `artifactType`. Where a package comes from is the annotation `org.aos.origin`.
//!
//! **Invariant.** What the index lists is there: the manifest, its config and its layers, and for
//! an attachment its subject. What is not reachable from it is garbage, or pinned by a lease.
//!
//! **Order of writing.** A blob is written to a file in `tmp` or `partial`, verified, fsynced and
//! renamed, so whatever has the name of a blob has its contents, after a power cut too. The index
//! is written last when something comes and first when it goes: the directory of blobs is fsynced,
//! then a new index is written, fsynced, renamed over the old one and its directory fsynced. A
//! kill or a full disk at any point leaves the old or the new index and garbage beside it.
//!
//! **Concurrency.** Blobs come without a lock. The index is read again and replaced under the
//! exclusive lock. A blob is pinned (a line in a lease) under the shared lock, before it is renamed
//! to its name or found to be there; [`Repository::gc`] holds the exclusive lock from reading the
//! pins to removing the last blob. So a blob that was put or found stays until its lease ends. The
//! kernel releases all locks of a process with it: a lease that can be locked pins nothing.

mod check;
mod collect;
mod error;
mod files;
mod index;
mod lease;
mod lock;
mod reach;
mod read;
mod transfer;
mod writer;

pub use check::{Depth, Problem};
pub use collect::{Collected, GcMode};
pub use error::{AttachError, BlobError, RepositoryError, ResolveError, TagError, is_no_space};
pub use index::{Attachment, Listed, Origin, Tagged};
pub use lease::Lease;
pub use read::VerifiedBlob;
pub use transfer::{ExportError, ImportError, Imported};
pub use writer::BlobWriter;

pub(crate) use error::failed;
pub(crate) use files::{make_directory, names, remove, sync_all_below, sync_directory};

use crate::oci::{Index, LAYOUT};
use aos_core::id::Digest;
use lock::Lock;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Mode of a blob's file. The directories above let nobody else in.
const BLOB_MODE: u32 = 0o644;

/// An open store. Clones are the same store; all methods block, and may be called from any thread.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    paths: Paths,
    lock: Lock,
}

/// Where things are.
struct Paths {
    layout: PathBuf,
    blobs: PathBuf,
    partial: PathBuf,
    leases: PathBuf,
    tmp: PathBuf,
}

impl Paths {
    fn new(root: &Path) -> Self {
        let layout = root.join("store");
        Self {
            blobs: layout.join("blobs/sha256"),
            layout,
            partial: root.join("partial"),
            leases: root.join("leases"),
            tmp: root.join("tmp"),
        }
    }

    fn index(&self) -> PathBuf {
        self.layout.join("index.json")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.inner.root.display())
    }
}

impl Repository {
    /// Opens the store in `root`, and makes what is missing, the directory itself included.
    pub fn open(root: &Path) -> Result<Self, RepositoryError> {
        std::fs::create_dir_all(root).map_err(failed("make", root))?;
        Self::with(root, Lock::each(root)?)
    }

    /// Opens the store in `root`, which must exist, for this process alone.
    pub fn open_exclusively(root: &Path) -> Result<Self, RepositoryError> {
        Self::with(root, Lock::held(root)?)
    }

    fn with(root: &Path, lock: Lock) -> Result<Self, RepositoryError> {
        let (root, paths) = (root.to_owned(), Paths::new(root));
        let repository = Self { inner: Arc::new(Inner { root, paths, lock }) };
        repository.prepare()?;
        Ok(repository)
    }

    /// Makes the directories and the empty index, where they are missing.
    fn prepare(&self) -> Result<(), RepositoryError> {
        let paths = &self.inner.paths;
        let (layout, index) = (paths.layout.join("oci-layout"), paths.index());
        let above = paths.layout.join("blobs");
        for path in [&paths.tmp, &paths.partial, &paths.leases, &paths.layout, &above, &paths.blobs] {
            make_directory(path, 0o700).map_err(failed("make", path))?;
        }
        if layout.exists() && index.exists() {
            return Ok(());
        }
        let locked = self.inner.lock.exclusive()?;
        if !layout.exists() {
            files::replace(&layout, LAYOUT.as_bytes(), &paths.tmp).map_err(failed("write", &layout))?;
        }
        if !index.exists() {
            self.write_index(&locked, &Index::new(Vec::new()))?;
        }
        Ok(())
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The OCI image layout below it, which other tools can read.
    pub fn layout(&self) -> &Path {
        &self.inner.paths.layout
    }

    /// A lease, which keeps what is put or named through it.
    pub fn lease(&self) -> Result<Lease, RepositoryError> {
        Lease::new(self)
    }
}
