//! The lock of a store: taken for one operation, or held for life by the one process that has the
//! store to itself.
//!
//! The kernel's `flock` belongs to an open file description, and each operation opens the file
//! anew: threads of one process exclude each other as processes do. What must only happen under
//! a lock asks for its guard as a witness.
//!
//! Whoever waits for the lock has the turn, which is the lock of the store's directory, and lets
//! it go with the lock in hand. So who comes back for the lock at once queues behind those that
//! waited, and nobody starves.

use super::error::{RepositoryError, failed};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// Longest wait for a lock. An operation holds it for milliseconds, a collection of many gigabytes
/// for seconds; a process that was stopped in between must not stop all others for ever.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// First and longest pause between two tries: short beside an operation that syncs a file.
const PAUSE: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(2));

/// Who may use the store.
pub(super) enum Lock {
    /// Every process, each operation by itself.
    Operation {
        /// The store's directory, whose lock is the turn.
        turn: PathBuf,
        /// The file of the lock.
        path: PathBuf,
    },
    /// This process, whose threads exclude each other. The file is closed with the repository.
    Process(RwLock<()>, #[expect(dead_code, reason = "closing it releases the lock")] File),
}

/// Somebody reads or pins; nobody changes the index or removes a blob.
pub(super) enum Shared<'a> {
    File(#[expect(dead_code, reason = "closing it releases the lock")] File),
    Thread(#[expect(dead_code, reason = "dropping it releases the lock")] RwLockReadGuard<'a, ()>),
}

/// Nobody else reads, pins or changes anything.
pub(super) enum Exclusive<'a> {
    File(#[expect(dead_code, reason = "closing it releases the lock")] File),
    Thread(#[expect(dead_code, reason = "dropping it releases the lock")] RwLockWriteGuard<'a, ()>),
}

/// A witness that the index cannot change.
pub(super) trait Locked {}
impl Locked for Shared<'_> {}
impl Locked for Exclusive<'_> {}

impl Lock {
    /// Locks each operation on the store in `root`.
    pub(super) fn each(root: &Path) -> Result<Self, RepositoryError> {
        let path = path(root);
        open(&path)?;
        Ok(Self::Operation { turn: root.to_owned(), path })
    }

    /// Locks now and until the end of the process.
    pub(super) fn held(root: &Path) -> Result<Self, RepositoryError> {
        let path = path(root);
        let file = open(&path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self::Process(RwLock::new(()), file)),
            Err(Errno::WOULDBLOCK) => Err(RepositoryError::Locked(path)),
            Err(errno) => Err(failed("lock", &path)(errno.into())),
        }
    }

    pub(super) fn shared(&self) -> Result<Shared<'_>, RepositoryError> {
        match self {
            Self::Operation { turn, path } => {
                queue(turn, path, FlockOperation::NonBlockingLockShared).map(Shared::File)
            }
            Self::Process(gate, _) => Ok(Shared::Thread(gate.read().unwrap_or_else(PoisonError::into_inner))),
        }
    }

    pub(super) fn exclusive(&self) -> Result<Exclusive<'_>, RepositoryError> {
        match self {
            Self::Operation { turn, path } => {
                queue(turn, path, FlockOperation::NonBlockingLockExclusive).map(Exclusive::File)
            }
            Self::Process(gate, _) => {
                Ok(Exclusive::Thread(gate.write().unwrap_or_else(PoisonError::into_inner)))
            }
        }
    }
}

fn path(root: &Path) -> PathBuf {
    root.join("store.lock")
}

fn open(path: &Path) -> Result<File, RepositoryError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(failed("open", path))
}

/// Takes the turn, then the lock.
fn queue(turn: &Path, path: &Path, operation: FlockOperation) -> Result<File, RepositoryError> {
    let started = Instant::now();
    let directory = File::open(turn).map_err(failed("open", turn))?;
    let _turn = wait(directory, turn, FlockOperation::NonBlockingLockExclusive, started)?;
    wait(open(path)?, path, operation, started)
}

/// Tries until the lock is there or the wait is over.
fn wait(
    file: File,
    path: &Path,
    operation: FlockOperation,
    started: Instant,
) -> Result<File, RepositoryError> {
    let (mut pause, longest) = PAUSE;
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if started.elapsed() < WAIT_MAX => {
                std::thread::sleep(pause);
                pause = longest.min(pause * 2);
            }
            Err(Errno::WOULDBLOCK) => return Err(RepositoryError::Locked(path.to_owned())),
            Err(errno) => return Err(failed("lock", path)(errno.into())),
        }
    }
}
