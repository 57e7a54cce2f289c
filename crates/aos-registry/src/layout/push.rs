//! From a store into a directory.

use super::{Directory, LayoutError, failed};
use crate::bounds::PIECE;
use crate::entries::Entries;
use crate::progress::{Meter, Progress};
use crate::push::{Document, Load, PushError, Pushed};
use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::oci::{Descriptor, LAYOUT, REF_NAME, SUBJECT};
use aos_package::repository::Repository;
use rustix::fs::FlockOperation;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::NamedTempFile;

/// The file that is locked by who changes the index, or makes a file.
const LOCK: &str = "lock";

/// Pushes a package of the store, with artifact manifests that are attached to it, into a
/// directory, which is made if it is missing. Everything must be pinned or tagged by the caller.
/// It blocks.
pub fn push(
    repository: &Repository,
    package: &Descriptor,
    attachments: &[Descriptor],
    path: &Path,
    name: &Reference,
    progress: &dyn Progress,
) -> Result<Pushed, LayoutError> {
    let digest = package.digest;
    if name.digest.is_some_and(|named| named != digest) || (name.tag.is_none() && name.digest.is_some()) {
        return Err(PushError::Reference { reference: name.to_string(), digest }.into());
    }
    let load = Load::read(repository, package.clone(), attachments.to_vec(), name)?;
    let directory = Directory::new(path);
    directory.prepare()?;
    let mut pushed = Pushed { digest, uploaded: 0, mounted: 0, skipped: 0 };
    for (digest, size) in &load.blobs {
        let source = |_: ()| repository.verified_blob(&Descriptor::new("", *digest, *size));
        if directory.put(*digest, *size, || Ok(source(())?), progress)? {
            pushed.uploaded += 1;
        } else {
            pushed.skipped += 1;
        }
    }
    for Document { descriptor, bytes } in std::iter::once(&load.package).chain(&load.attachments) {
        directory.put(
            descriptor.digest,
            descriptor.size,
            || Ok(io::Cursor::new(bytes)),
            &crate::progress::Silent,
        )?;
    }
    directory.list(&load, &name.to_string())?;
    Ok(pushed)
}

/// A witness that the directory is locked, exclusively or shared; the kernel releases the lock
/// with the file.
struct Locked(#[expect(dead_code, reason = "closing it releases the lock")] File);

impl Directory {
    /// Makes what is missing, and removes what pushers left that were killed.
    fn prepare(&self) -> Result<(), LayoutError> {
        for path in [&self.blobs, &self.own] {
            std::fs::create_dir_all(path).map_err(failed("make", path))?;
        }
        let locked = self.lock(FlockOperation::LockExclusive)?;
        self.sweep(&locked)?;
        if !self.index.exists() {
            self.replace(&locked, &self.index, &bytes(&self.index, &Entries::empty())?)?;
        }
        if self.layout.exists() {
            self.check()
        } else {
            self.replace(&locked, &self.layout, LAYOUT.as_bytes())
        }
    }

    /// Waits for the lock.
    fn lock(&self, operation: FlockOperation) -> Result<Locked, LayoutError> {
        let path = self.own.join(LOCK);
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open", &path))?;
        rustix::fs::flock(&file, operation).map_err(|errno| failed("lock", &path)(errno.into()))?;
        Ok(Locked(file))
    }

    /// Removes files that are being made by nobody: their makers have them locked.
    fn sweep(&self, _exclusive: &Locked) -> Result<(), LayoutError> {
        for entry in std::fs::read_dir(&self.own).map_err(failed("list", &self.own))? {
            let path = entry.map_err(failed("list", &self.own))?.path();
            if path.file_name().is_some_and(|name| name == LOCK) {
                continue;
            }
            let file = match super::open(&path) {
                Ok(file) => file,
                // It got its name just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("open", &path)(error)),
            };
            Self::discard(&path, &file)?;
        }
        Ok(())
    }

    /// Removes a file that was opened in a locked directory, unless its maker has it locked.
    fn discard(path: &Path, file: &File) -> Result<(), LayoutError> {
        if rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        match std::fs::remove_file(path) {
            // Its maker gave it its name, and closed it, since it was opened here. Nobody makes
            // another one under the old name meanwhile: the directory is locked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(failed("remove", path)),
        }
    }

    /// Puts a blob, unless it is there with its size; says whether it did.
    fn put<R: Read>(
        &self,
        digest: Digest,
        size: u64,
        source: impl FnOnce() -> Result<R, LayoutError>,
        progress: &dyn Progress,
    ) -> Result<bool, LayoutError> {
        let target = self.blob(&digest);
        let mut meter = Meter::new(progress, digest, size);
        if std::fs::symlink_metadata(&target).is_ok_and(|found| found.is_file() && found.len() == size) {
            meter.finish();
            return Ok(false);
        }
        let mut file = self.temporary(&self.lock(FlockOperation::LockShared)?)?;
        let (mut reader, mut buffer, mut written) = (source()?, vec![0; PIECE], 0);
        loop {
            let count = reader.read(&mut buffer).map_err(|source| PushError::Read { digest, source })?;
            let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { break };
            file.write_all(piece).map_err(failed("write", &target))?;
            written += count as u64;
            meter.reach(written);
        }
        self.keep(file, &target)?;
        Ok(true)
    }

    /// Adds the package and its attachments to the index, under the lock.
    fn list(&self, load: &Load, name: &str) -> Result<(), LayoutError> {
        let locked = self.lock(FlockOperation::LockExclusive)?;
        sync_directory(&self.blobs)?;
        let old = self.index()?;
        let mut index = old.clone();
        let wrong = |source| LayoutError::Layout { path: self.index.clone(), source };
        let package = &load.package.descriptor;
        if index.named(name) != Some(package.digest) {
            index.unname(name);
            let mut entry = Descriptor::new(&package.media_type, package.digest, package.size);
            entry.artifact_type = package.artifact_type.clone();
            entry.annotations.insert(REF_NAME.to_owned(), name.to_owned());
            index.add(&entry).map_err(wrong)?;
        }
        for Document { descriptor, .. } in
            load.attachments.iter().filter(|one| !old.has(&one.descriptor.digest))
        {
            let mut entry = descriptor.clone();
            entry.annotations.remove(REF_NAME);
            entry.annotations.insert(SUBJECT.to_owned(), package.digest.to_string());
            index.add(&entry).map_err(wrong)?;
        }
        if index == old { Ok(()) } else { self.replace(&locked, &self.index, &bytes(&self.index, &index)?) }
    }

    /// A new file, locked by us: nobody sweeps between its making and its locking.
    fn temporary(&self, _witness: &Locked) -> Result<NamedTempFile, LayoutError> {
        let file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(&self.own)
            .map_err(failed("make a file in", &self.own))?;
        rustix::fs::flock(file.as_file(), FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| failed("lock", file.path())(errno.into()))?;
        Ok(file)
    }

    /// Makes a file durable and gives it its name.
    fn keep(&self, file: NamedTempFile, target: &Path) -> Result<(), LayoutError> {
        file.as_file().sync_all().map_err(failed("sync", target))?;
        file.persist(target).map_err(|error| failed("make", target)(error.error))?;
        Ok(())
    }

    /// Replaces a file as a whole.
    fn replace(&self, locked: &Locked, target: &Path, contents: &[u8]) -> Result<(), LayoutError> {
        let mut file = self.temporary(locked)?;
        file.write_all(contents).map_err(failed("write", target))?;
        self.keep(file, target)?;
        sync_directory(&self.path)
    }
}

fn bytes(path: &Path, index: &Entries) -> Result<Vec<u8>, LayoutError> {
    index.to_json().map_err(|source| LayoutError::Layout { path: path.to_owned(), source })
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> Result<(), LayoutError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_takes_what_nobody_makes_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(&place.path().join("shared"));
        directory.prepare().unwrap();
        let left = directory.own.join("left by a pusher that was killed");
        std::fs::write(&left, "").unwrap();
        let made = directory.temporary(&directory.lock(FlockOperation::LockShared).unwrap()).unwrap();
        let path = made.path().to_owned();
        directory.prepare().unwrap();
        assert!(!left.exists() && path.exists());

        // Between the sweep's open and its lock, the maker gives the file its name.
        let file = super::super::open(&path).unwrap();
        let target = directory.blobs.join("made");
        directory.keep(made, &target).unwrap();
        Directory::discard(&path, &file).unwrap();
        assert!(target.exists() && !path.exists());
    }
}
