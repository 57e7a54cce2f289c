//! The package store on the disk, as the supervisor's [`Packages`].
//!
//! Owns the open [`Store`] (which holds its own lock). All its methods block, so each call runs on a blocking
//! thread; reading an archive stops at the bound of the settings, and an archive that blocks (a pipe that nobody
//! fills) is given up after [`INSTALL_DEADLINE`] while its thread ends when the caller closes its end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aos_client::ErrorKind;
use aos_core::id::{Digest, PackageRef, Selector};
use aos_package::repository::GcMode;
use aos_package::store::{ImportError, RemoveError, ResolveError, Store, StoreError, StoredPackage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;

use crate::failure::{Failure, chain};
use crate::packages::{Collect, Collected, InUse, Package, Packages, Source};
use crate::trust::{self, Trust};

/// Longest time one archive may take to arrive and be unpacked.
const INSTALL_DEADLINE: Duration = Duration::from_secs(1800);

/// The store.
pub struct DiskStore {
    store: Arc<Store>,
    trust: Arc<Trust>,
    max_archive_bytes: u64,
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DiskStore")
    }
}

impl DiskStore {
    /// Opens the store below `root` and logs what is damaged in it.
    pub fn open(root: &Path, trust: Trust, max_archive_bytes: u64) -> Result<Self, StoreError> {
        let store = Store::open(root)?;
        for damaged in store.damaged() {
            tracing::error!(digest = %damaged.digest, name = ?damaged.name, reason = %damaged.reason, "a package is damaged");
        }
        Ok(Self { store: Arc::new(store), trust: Arc::new(trust), max_archive_bytes })
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .unwrap_or_else(|error| Err(Failure::failed(&error)))
    }
}

impl Packages for DiskStore {
    async fn resolve(&self, reference: &PackageRef) -> Result<Package, Failure> {
        let reference = reference.clone();
        self.work(move |store| package(store.resolve(&reference).map_err(resolve_failure)?)).await
    }

    async fn get(&self, reference: &PackageRef, digest: &Digest) -> Result<Package, Failure> {
        let by_digest = PackageRef { name: reference.name.clone(), selector: Selector::Digest(*digest) };
        self.resolve(&by_digest).await
    }

    async fn list(&self) -> Result<Vec<Package>, Failure> {
        self.work(|store| store.list().into_iter().map(package).collect()).await
    }

    async fn install(&self, archive: OwnedFd, source: Source) -> Result<(PackageRef, Digest), Failure> {
        let archive = Archive::new(archive, self.max_archive_bytes)?;
        let trust = Arc::clone(&self.trust);
        self.work(move |store| match source {
            Source::Local { uid } => install_local(store, archive, uid),
            Source::Elsewhere => install_trusted(store, archive, &trust),
        })
        .await
    }

    async fn check_trust(&self, reference: &PackageRef, digest: &Digest) -> Result<(), Failure> {
        let by_digest = PackageRef { name: reference.name.clone(), selector: Selector::Digest(*digest) };
        let trust = Arc::clone(&self.trust);
        self.work(move |store| {
            let package = store.resolve(&by_digest).map_err(resolve_failure)?;
            if trust::is_local(store.repository(), &package.digest)? {
                return Ok(());
            }
            let signatures = trust::signatures_of_store(store.repository(), &package.digest)?;
            let decided = trust.decide(&package.agent, package.digest, &signatures);
            decided.map(drop).map_err(Failure::untrusted)
        })
        .await
    }

    async fn remove(&self, reference: &PackageRef, in_use: InUse) -> Result<(), Failure> {
        let reference = reference.clone();
        self.work(move |store| {
            let removed = store.remove(&reference, in_use).map_err(remove_failure)?;
            tracing::info!(AOS_PACKAGE = %removed.reference(), AOS_DIGEST = %removed.digest, "package removed");
            Ok(())
        })
        .await
    }

    async fn collect(&self, keep: BTreeSet<Digest>, collect: Collect) -> Result<Collected, Failure> {
        self.work(move |store| collect_unused(store, &keep, collect)).await
    }
}

/// Installs what the policy trusts.
fn install_trusted(store: &Store, archive: Archive, trust: &Trust) -> Result<(PackageRef, Digest), Failure> {
    let mut trusted = None;
    let admit = |archive: &aos_package::archive::Archive| {
        let signatures = trust::signatures_of_archive(archive, store.repository());
        let signatures = signatures.map_err(|failure| failure.message().to_owned())?;
        trusted = Some(trust.decide(&archive.package.agent, archive.manifest.digest, &signatures)?);
        Ok(())
    };
    let imported =
        store.import_if(archive, admit).map_err(|error| import_failure(&error, ErrorKind::Untrusted))?;
    let (keys, rule) = trusted.map(|trusted| (trusted.keys, trusted.rule.to_string())).unwrap_or_default();
    tracing::info!(
        AOS_PACKAGE = %imported.package.reference(), AOS_DIGEST = %imported.package.digest,
        AOS_ORIGIN = "imported", AOS_KEYS = ?keys, AOS_RULE = rule, change = ?imported.change, "package installed"
    );
    Ok((imported.package.reference(), imported.package.digest))
}

/// Installs what user `uid` vouches for. After a crash between the two steps it is a package like any other.
fn install_local(store: &Store, archive: Archive, uid: u32) -> Result<(PackageRef, Digest), Failure> {
    let mut name = None;
    let admit = |archive: &aos_package::archive::Archive| {
        name = Some(trust::local_name(&archive.package.agent)?);
        Ok(())
    };
    let imported = store
        .import_if(archive, admit)
        .map_err(|error| import_failure(&error, ErrorKind::InvalidArgument))?;
    if let Some(name) = name {
        trust::mark_local(store.repository(), &name, &imported.package.digest)?;
    }
    tracing::info!(
        AOS_PACKAGE = %imported.package.reference(), AOS_DIGEST = %imported.package.digest,
        AOS_ORIGIN = "local", AOS_CALLER_UID = uid, change = ?imported.change, "package installed"
    );
    Ok((imported.package.reference(), imported.package.digest))
}

/// Removes packages without a name that are not in `keep`, or says which.
fn collect_unused(store: &Store, keep: &BTreeSet<Digest>, collect: Collect) -> Result<Collected, Failure> {
    let unused = |package: &StoredPackage| !package.tagged && !keep.contains(&package.digest);
    let packages = store.list().into_iter().filter(unused);
    let packages = packages.map(|p| PackageRef { name: p.agent.name, selector: Selector::Digest(p.digest) });
    let mut packages: Vec<PackageRef> = packages.collect();
    let failed = |error: &dyn std::error::Error| Failure::failed(error);
    if collect == Collect::DryRun {
        // What is damaged stays until it is removed by name.
        let damaged = store.damaged().into_iter().map(|damaged| damaged.digest);
        let keep: BTreeSet<Digest> = keep.iter().copied().chain(damaged).collect();
        let would = store.repository().gc(&keep, &BTreeSet::new(), GcMode::DryRun).map_err(|e| failed(&e))?;
        return Ok(Collected { packages, bytes: would.bytes });
    }
    let collected = store.gc(keep).map_err(|error| failed(&error))?;
    packages.retain(|package| {
        matches!(package.selector, Selector::Digest(digest) if collected.packages.contains(&digest))
    });
    if !packages.is_empty() {
        tracing::info!(?packages, bytes = collected.bytes, "replaced packages collected");
    }
    Ok(Collected { packages, bytes: collected.bytes })
}

fn package(stored: StoredPackage) -> Result<Package, Failure> {
    let rootfs = stored.rootfs.to_str().map(str::parse);
    let Some(Ok(rootfs)) = rootfs else {
        return Err(Failure::new(ErrorKind::Failed, "the store's path is not in normal form"));
    };
    Ok(Package {
        reference: stored.reference(),
        digest: stored.digest,
        config: stored.agent,
        rootfs,
        size_bytes: stored.size,
    })
}

fn resolve_failure(error: ResolveError) -> Failure {
    match error {
        ResolveError::NotFound { .. } => Failure::new(ErrorKind::NotFound, chain(&error)),
        ResolveError::Damaged { .. } => Failure::failed(&error),
    }
}

fn remove_failure(error: RemoveError) -> Failure {
    match error {
        RemoveError::Resolve(error) => resolve_failure(error),
        RemoveError::Ambiguous { .. } => Failure::invalid(chain(&error)),
        RemoveError::InUse(_) => Failure::refused(chain(&error)),
        RemoveError::Store(error) => Failure::failed(&error),
    }
}

/// `refused` is what it means that the archive was not admitted.
fn import_failure(error: &ImportError, refused: ErrorKind) -> Failure {
    let kind = match error {
        ImportError::NoSpace(_) => ErrorKind::NoSpace,
        ImportError::Archive(_) | ImportError::Unpack(_) | ImportError::Unfit(_) => {
            ErrorKind::InvalidArgument
        }
        ImportError::Refused(_) => refused,
        ImportError::Store(_) => ErrorKind::Failed,
    };
    Failure::new(kind, chain(error))
}

/// An archive that is read: bounded in bytes and in time.
struct Archive {
    file: File,
    left_bytes: u64,
    deadline: Instant,
}

impl Archive {
    /// Takes a regular file (a memfd is one) or a pipe, and nothing else.
    fn new(fd: OwnedFd, max_bytes: u64) -> Result<Self, Failure> {
        let stat = rustix::fs::fstat(&fd).map_err(|error| Failure::failed(&error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_size.unsigned_abs() > max_bytes => {
                return Err(Failure::invalid(format!(
                    "the archive has {} bytes, at most {max_bytes} are allowed (max_archive_bytes)",
                    stat.st_size
                )));
            }
            FileType::RegularFile | FileType::Fifo => {}
            _ => return Err(Failure::invalid("the archive must be a regular file or a pipe")),
        }
        let deadline = Instant::now() + INSTALL_DEADLINE;
        Ok(Self { file: fd.into(), left_bytes: max_bytes, deadline })
    }

    /// Waits until the file has something to read. Regular files always have.
    fn wait(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout))? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "the archive did not arrive in time")),
            _ => Ok(()),
        }
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left_bytes == 0 {
            // The end of the archive may be exactly at the bound.
            let mut one = [0; 1];
            self.wait()?;
            return match self.file.read(&mut one)? {
                0 => Ok(0),
                _ => Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "the archive is larger than max_archive_bytes",
                )),
            };
        }
        self.wait()?;
        let most = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left_bytes = self.left_bytes.saturating_sub(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(bytes: &[u8]) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file.into()
    }

    #[test]
    fn only_files_and_pipes_within_the_bound() {
        let mut bytes = Vec::new();
        Archive::new(file(b"12345"), 5).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"12345");
        assert!(Archive::new(file(b"12345"), 4).is_err());
        let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
        assert!(Archive::new(socket.into(), 5).is_err());
        assert!(Archive::new(File::open("/dev/zero").unwrap().into(), 5).is_err());
        assert!(Archive::new(File::open("/").unwrap().into(), 5).is_err());
    }

    #[test]
    fn a_pipe_is_read_to_the_bound() {
        for (max, ok) in [(5, true), (4, false)] {
            let (read, write) = rustix::pipe::pipe().unwrap();
            File::from(write).write_all(b"12345").unwrap();
            let mut bytes = Vec::new();
            let result = Archive::new(read, max).unwrap().read_to_end(&mut bytes);
            assert_eq!(result.is_ok(), ok);
        }
    }

    #[test]
    fn an_archive_that_does_not_come_is_given_up() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let mut archive = Archive::new(read, 5).unwrap();
        archive.deadline = Instant::now();
        assert_eq!(archive.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
