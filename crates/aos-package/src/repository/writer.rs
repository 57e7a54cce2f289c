//! Writing a blob: hashed on the way, verified at its end, then given its name.
//!
//! A partial file belongs to the writer that has it locked. Nobody else writes it, renames it or
//! removes it: a collector looks under the exclusive lock of the store which of them are locked,
//! and a writer opens and locks under the shared one.

use super::BLOB_MODE;
use super::error::{BlobError, RepositoryError, failed};
use super::lease::Lease;
use super::lock::Shared;
use crate::hashing::Hashing;
use crate::oci::Descriptor;
use aos_core::id::Digest;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// Hashed at once of what is there already.
const BUFFER: usize = 128 << 10;

/// A blob that is being written; see [`Lease::writer`]. Dropping it keeps the partial file.
pub struct BlobWriter {
    lease: Lease,
    expected: Option<(Digest, u64)>,
    output: Hashing<File>,
    place: Place,
}

/// Where the bytes are.
enum Place {
    /// In a file that outlives the process.
    Partial(PathBuf),
    /// In a file that goes when this does.
    Temporary(TempPath),
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Partial(path) => path,
            Self::Temporary(path) => path,
        }
    }
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobWriter({}, {} bytes)", self.path().display(), self.offset())
    }
}

impl BlobWriter {
    pub(super) fn open(lease: &Lease, expected: Option<(Digest, u64)>) -> Result<Self, BlobError> {
        let partial = match &expected {
            Some((digest, size)) => {
                let inner = &lease.repository().inner;
                let path = inner.paths.partial.join(digest.hex());
                // A collector removes what nobody has locked: not between opening and locking.
                let shared = inner.lock.shared()?;
                let opened = open_partial(&shared, &path)?;
                drop(shared);
                let output = opened.map(|file| resume(file, *digest, *size).map_err(failed("resume", &path)));
                output.transpose()?.map(|output| (output, Place::Partial(path)))
            }
            None => None,
        };
        let (output, place) = match partial {
            Some(partial) => partial,
            None => {
                let (file, path) = lease.temporary()?.into_parts();
                (Hashing::new(file), Place::Temporary(path))
            }
        };
        Ok(Self { lease: lease.clone(), expected, output, place })
    }

    /// Bytes that are there: the next to be written is the one after them.
    pub fn offset(&self) -> u64 {
        self.output.count()
    }

    /// The file that is written.
    pub(super) fn path(&self) -> &Path {
        self.place.path()
    }

    /// Verifies the blob, makes it durable, pins it and gives it its name. A blob that is shorter
    /// than expected stays as a partial file; one with other contents is removed.
    pub fn commit(self, media_type: &str) -> Result<Descriptor, BlobError> {
        let Self { lease, expected, output, place } = self;
        let (file, found, count) = output.finish();
        if let Some((digest, size)) = expected {
            if count < size {
                return Err(BlobError::Size { digest, expected: size, found: count });
            }
            if digest != found {
                std::fs::remove_file(place.path()).map_err(failed("remove", place.path()))?;
                return Err(BlobError::Altered { expected: digest, found });
            }
        }
        file.sync_all().map_err(failed("sync", place.path()))?;
        let repository = lease.repository();
        let target = repository.inner.paths.blob(&found);
        let shared = repository.inner.lock.shared()?;
        lease.pin_locked(&shared, found)?;
        if !is_named(&file, place.path()).map_err(failed("read", place.path()))? {
            // Somebody removed it by hand; what has its name now is another writer's.
            let gone = io::Error::new(io::ErrorKind::NotFound, "the file was removed while it was written");
            return Err(failed("rename", place.path())(gone).into());
        }
        std::fs::rename(place.path(), &target).map_err(failed("make", &target))?;
        if let Place::Temporary(path) = place {
            // It has another name now, and nothing to remove under this one.
            path.keep().map(drop).map_err(|error| failed("make", &target)(error.error))?;
        }
        Ok(Descriptor::new(media_type, found, count))
    }

    /// Gives the blob up, and what there is of it.
    pub fn discard(self) -> Result<(), RepositoryError> {
        match self.place {
            Place::Partial(path) => std::fs::remove_file(&path).map_err(failed("remove", &path)),
            Place::Temporary(path) => {
                let named = path.to_path_buf();
                path.close().map_err(failed("remove", &named))
            }
        }
    }
}

impl Write for BlobWriter {
    /// Fails with [`io::ErrorKind::FileTooLarge`] beyond the expected size.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((digest, size)) = self.expected
            && bytes.len() as u64 > size.saturating_sub(self.offset())
        {
            let message = format!("the blob {digest} has more than the {size} bytes that are expected");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Opens and locks a partial file, or `None` when another writer has it.
fn open_partial(_witness: &Shared<'_>, path: &Path) -> Result<Option<File>, RepositoryError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(BLOB_MODE);
    loop {
        let file = options.open(path).map_err(failed("open", path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(failed("lock", path)(errno.into())),
        }
        // Between opening and locking, another writer may have finished and renamed it.
        if is_named(&file, path).map_err(failed("read", path))? {
            return Ok(Some(file));
        }
    }
}

/// True when an open file is the one of this name.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let (open, named) = (file.metadata()?, std::fs::symlink_metadata(path));
    match named {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Hashes what is there. What is too long, or complete and something else, starts anew.
fn resume(file: File, digest: Digest, size: u64) -> io::Result<Hashing<File>> {
    let length = file.metadata()?.len();
    let mut output = Hashing::new(file);
    if length <= size {
        let mut buffer = vec![0; BUFFER];
        while output.read(&mut buffer)? > 0 {}
        if output.count() < size || output.digest() == digest {
            return Ok(output);
        }
    }
    let (mut file, _, _) = output.finish();
    file.set_len(0)?;
    file.rewind()?;
    Ok(Hashing::new(file))
}
