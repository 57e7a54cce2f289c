//! Leases: what a process needs and nothing else keeps yet.

use super::error::{BlobError, RepositoryError, failed};
use super::files::{make_directory, remove};
use super::lock::Shared;
use super::writer::BlobWriter;
use super::{BLOB_MODE, Repository};
use crate::hashing::digest_of;
use crate::oci::Descriptor;
use aos_core::id::Digest;
use rustix::fs::FlockOperation;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a pin: 64 hex digits and a newline.
const LINE: usize = 65;
/// Random characters of a lease's name, behind the process id that is there for people.
const RANDOM: usize = 12;
/// Compared at once.
const BUFFER: usize = 64 << 10;

/// Keeps what is put or named from being collected, until the last clone of it is dropped or the
/// process ends. A pinned manifest keeps all that it refers to.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    repository: Repository,
    directory: PathBuf,
    path: PathBuf,
    pins: Mutex<Pins>,
}

/// The lease's file, which this process has locked, and what is in it.
struct Pins {
    file: File,
    length: u64,
    pinned: BTreeSet<Digest>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({})", self.inner.path.display())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What stays when this fails has no holder any more: it is garbage.
        for path in [&self.directory, &self.path] {
            drop(remove(path));
        }
    }
}

impl Lease {
    /// A lease that pins nothing yet.
    pub(super) fn new(repository: &Repository) -> Result<Self, RepositoryError> {
        let paths = &repository.inner.paths;
        // A collector would remove the file in the moment between its making and its locking.
        let _shared = repository.inner.lock.shared()?;
        let pid = rustix::process::getpid().as_raw_nonzero();
        let named = tempfile::Builder::new()
            .prefix(&format!("{pid}-"))
            .rand_bytes(RANDOM)
            .tempfile_in(&paths.leases)
            .map_err(failed("make a file in", &paths.leases))?;
        rustix::fs::flock(named.as_file(), FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| failed("lock", named.path())(errno.into()))?;
        let directory = paths.tmp.join(named.path().file_name().unwrap_or_default());
        make_directory(&directory, 0o700).map_err(failed("make", &directory))?;
        let (file, path) =
            named.keep().map_err(|error| failed("keep a file in", &paths.leases)(error.error))?;
        let pins = Mutex::new(Pins { file, length: 0, pinned: BTreeSet::new() });
        Ok(Self { inner: Arc::new(Inner { repository: repository.clone(), directory, path, pins }) })
    }

    /// The store that this is a lease of.
    pub fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    /// A directory for temporary files of this lease's holder, on the file system of the store.
    /// It goes with the lease, or is collected after a crash.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Keeps a blob, whether it is there yet or not, and all that it refers to if it is a
    /// manifest. Returns its size when it is there: from then on it stays.
    pub fn pin(&self, digest: Digest) -> Result<Option<u64>, RepositoryError> {
        let shared = self.inner.repository.inner.lock.shared()?;
        self.pin_locked(&shared, digest)?;
        self.inner.repository.blob_size(&digest)
    }

    /// Keeps a blob. No collector runs between this and what the caller does under the same lock.
    pub(super) fn pin_locked(&self, _witness: &Shared<'_>, digest: Digest) -> Result<(), RepositoryError> {
        let mut pins = self.inner.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if pins.pinned.contains(&digest) {
            return Ok(());
        }
        let line = format!("{}\n", digest.hex());
        if let Err(error) = pins.file.write_all_at(line.as_bytes(), pins.length) {
            // A part of a line at the end is no pin; the next one is written over it.
            return Err(failed("write", &self.inner.path)(error));
        }
        pins.length += line.len() as u64;
        pins.pinned.insert(digest);
        Ok(())
    }

    /// Puts a blob of these bytes. One that is there with the same contents is kept as it is.
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, BlobError> {
        let digest = digest_of(bytes);
        self.pin(digest)?;
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        if self.has(&digest, bytes)? {
            return Ok(descriptor);
        }
        let mut writer = self.writer(None)?;
        let path = writer.path().to_owned();
        writer.write_all(bytes).map_err(failed("write", &path))?;
        writer.commit(media_type)
    }

    /// True when the blob is there and is these bytes.
    fn has(&self, digest: &Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        if self.inner.repository.blob_size(digest)? != Some(bytes.len() as u64) {
            return Ok(false);
        }
        let path = self.inner.repository.inner.paths.blob(digest);
        let mut file = File::open(&path).map_err(failed("open", &path))?;
        let mut buffer = vec![0; BUFFER.min(bytes.len().max(1))];
        let mut rest = bytes;
        loop {
            let count = file.read(&mut buffer).map_err(failed("read", &path))?;
            let Some((now, later)) = rest.split_at_checked(count) else { return Ok(false) };
            if buffer.get(..count) != Some(now) {
                return Ok(false);
            }
            if count == 0 {
                return Ok(rest.is_empty());
            }
            rest = later;
        }
    }

    /// A writer of a blob. With its digest and size, what arrives survives this process until it
    /// is complete: [`BlobWriter::offset`] says where to go on. While another writer has the same
    /// partial file, the blob is written from its start into a file of its own.
    pub fn writer(&self, expected: Option<(Digest, u64)>) -> Result<BlobWriter, BlobError> {
        BlobWriter::open(self, expected)
    }

    /// A new file in the lease's directory.
    pub(super) fn temporary(&self) -> Result<tempfile::NamedTempFile, RepositoryError> {
        let directory = &self.inner.directory;
        tempfile::Builder::new()
            .make_in(directory, |path| {
                let mut options = File::options();
                options.read(true).write(true).create_new(true).mode(BLOB_MODE).open(path)
            })
            .map_err(failed("make a file in", directory))
            .map(|named| {
                let (file, path) = named.into_parts();
                tempfile::NamedTempFile::from_parts(file, path)
            })
    }
}

/// What is found in the directory of leases.
pub(super) struct Leases {
    /// What living leases pin.
    pub(super) pinned: BTreeSet<Digest>,
    /// The names of living leases.
    pub(super) living: BTreeSet<String>,
    /// Leases whose holder has ended.
    pub(super) dead: Vec<PathBuf>,
}

impl Leases {
    /// Reads all leases. The caller holds the lock, so that none appears or grows.
    pub(super) fn read(directory: &Path) -> Result<Self, RepositoryError> {
        let mut found = Self { pinned: BTreeSet::new(), living: BTreeSet::new(), dead: Vec::new() };
        for name in super::files::names(directory).map_err(failed("list", directory))? {
            let path = directory.join(&name);
            let mut file = match File::open(&path) {
                Ok(file) => file,
                // Its holder ended just now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("open", &path)(error)),
            };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => found.dead.push(path),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let mut text = String::new();
                    file.read_to_string(&mut text).map_err(failed("read", &path))?;
                    found.pinned.extend(pins(&text));
                    found.living.insert(name);
                }
                Err(errno) => return Err(failed("lock", &path)(errno.into())),
            }
        }
        Ok(found)
    }
}

/// The digests of a lease's text. A part of a line, after a full disk, is none.
fn pins(text: &str) -> impl Iterator<Item = Digest> {
    text.split_inclusive('\n')
        .filter(|line| line.len() == LINE)
        .filter_map(|line| format!("sha256:{}", line.trim_end()).parse().ok())
}
