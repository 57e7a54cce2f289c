//! The state database: agents and their last runs, in `/var/lib/aos/state.sqlite`.
//!
//! One thread owns the connection; a [`Db`] is a handle that sends it work over a bounded queue (a full queue
//! makes the sender wait) and waits for the answer with a deadline. WAL with `synchronous=FULL`: what was
//! answered survives a power cut, and what is changed needs no room on the disk
//! ([`reserve`]). Mode 0600. A second supervisor on the same state is refused by a lock on `state.lock`, held as long as the thread lives.

mod checkpoints;
mod records;
mod reserve;
mod schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aos_core::id::AgentId;
use rusqlite::Connection;
use rustix::fs::{FlockOperation, Mode, OFlags};
use tokio::sync::{mpsc, oneshot};

pub use checkpoints::{Cause, Checkpoint, Kept};
pub use records::{AgentRecord, End, InvocationId, Origin, Origins, Provenance, Removal, Run, Spec, Target};

/// Jobs that wait for the thread. Each waits for its answer, so this bounds callers, not work.
const QUEUE: usize = 64;
/// Longest wait for an answer; a commit takes milliseconds, also on a slow disk under load.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long SQLite waits for another process that reads the file, such as an administrator's shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Another supervisor holds the state.
    #[error("another agentd holds {}; stop it first (systemctl stop agentd)", .0.display())]
    Locked(PathBuf),
    /// A file operation failed.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite reports an error.
    #[error("the state database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// The schema cannot be brought up to date, or is newer than this program.
    #[error("the state database has a schema this version cannot use")]
    Migration(#[from] rusqlite_migration::Error),
    /// A row does not hold what this program writes.
    #[error("the record of agent {agent} is damaged: {what}")]
    Damaged {
        /// The agent.
        agent: String,
        /// What is wrong.
        what: String,
    },
    /// No answer in time; the work may still be done.
    #[error("the state database did not answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// The thread is gone.
    #[error("the state database is closed")]
    Closed,
}

impl DbError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Sqlite(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }

    /// Whether a file could not be opened, read or written.
    fn is_of_files(&self) -> bool {
        let error = match self {
            Self::Sqlite(error) => error,
            Self::Migration(rusqlite_migration::Error::RusqliteError { err, .. }) => err,
            _ => return false,
        };
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
        matches!(error.sqlite_error_code(), Some(CannotOpen | DiskFull | ReadOnly | SystemIoFailure))
    }

    /// Whether a record to be inserted is there already.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) = self else { return false };
        error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY
    }
}

/// The handle. The thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Db {
    jobs: mpsc::Sender<Job>,
    deadline: Duration,
}

impl Db {
    /// Locks the state, opens the database below `folder`, brings its schema up to date and starts the thread.
    pub fn open(folder: &Path) -> Result<Self, DbError> {
        let lock = lock(&folder.join("state.lock"))?;
        let connection = open(&folder.join("state.sqlite"))?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || serve(connection, queue, lock))
            .map_err(|source| DbError::Open { path: folder.to_owned(), source })?;
        Ok(Self { jobs, deadline: DEADLINE })
    }

    /// The same with another deadline.
    #[cfg(test)]
    pub(crate) fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Keeps the thread from its work until the answer is dropped.
    #[cfg(test)]
    pub(crate) async fn stall(&self) -> std::sync::mpsc::Sender<()> {
        let (release, released) = std::sync::mpsc::channel();
        let job: Job = Box::new(move |_| assert!(released.recv().is_err()));
        self.jobs.send(job).await.unwrap();
        release
    }

    /// Runs `work` on the thread, and waits for its result. When the caller goes away the work is still done.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if answer.send(work(connection)).is_err() {
                tracing::debug!("nobody waits for the database's answer any more");
            }
        });
        let exchange = async {
            self.jobs.send(job).await.map_err(|_| DbError::Closed)?;
            result.await.map_err(|_| DbError::Closed)?
        };
        tokio::time::timeout(self.deadline, exchange).await.map_err(|_| DbError::Deadline)?
    }

    /// A round trip to the thread, for the heartbeat.
    pub async fn ping(&self) -> Result<(), DbError> {
        self.call(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?)).await
    }

    /// All agents, sorted by id. A damaged record is an error of its own, not of the rest.
    pub async fn agents(&self) -> Result<Vec<Result<AgentRecord, DbError>>, DbError> {
        self.call(records::all).await
    }

    /// Inserts or replaces an agent's record; its runs stay.
    pub async fn put(&self, record: &AgentRecord) -> Result<(), DbError> {
        let record = record.clone();
        self.call(move |connection| records::put(connection, &record)).await
    }

    /// Inserts many records: all or none. An id that has a record, even a damaged one, is a conflict. After an error
    /// none is there, or none is left when what was asked before is done.
    pub async fn insert_all(&self, records: &[AgentRecord]) -> Result<(), DbError> {
        let ids: Vec<_> = records.iter().map(|record| record.id.clone()).collect();
        // Who sets it decides: the thread right before it commits, or the caller who does not wait any longer.
        let decided = Arc::new(AtomicBool::new(false));
        let (records, wanted) = (records.to_vec(), Arc::clone(&decided));
        let may_commit = move || !wanted.swap(true, Ordering::SeqCst);
        let result = self.call(move |connection| records::insert_all(connection, &records, may_commit)).await;
        if matches!(result, Err(DbError::Deadline)) && decided.swap(true, Ordering::SeqCst) {
            self.delete_all(&ids).await?;
        }
        result
    }

    /// Deletes many agents' records and their runs: all or none.
    pub async fn delete_all(&self, ids: &[AgentId]) -> Result<(), DbError> {
        let ids = ids.to_vec();
        self.call(move |connection| records::delete_all(connection, &ids)).await
    }

    /// What is kept of each agent beside its record; agents of which nothing is are left out.
    pub async fn kept(&self) -> Result<BTreeMap<AgentId, Kept>, DbError> {
        self.call(checkpoints::all).await
    }

    /// Adds a checkpoint. After an error there is none, or none is left when what was asked before is done.
    pub async fn add_checkpoint(&self, agent: &AgentId, checkpoint: &Checkpoint) -> Result<(), DbError> {
        let (id, one) = (agent.clone(), checkpoint.clone());
        let result = self.call(move |connection| checkpoints::add(connection, &id, &one)).await;
        if matches!(result, Err(DbError::Deadline)) {
            self.remove_checkpoints(agent, &[checkpoint.number]).await?;
        }
        result
    }

    /// Deletes checkpoints: all or none.
    pub async fn remove_checkpoints(&self, agent: &AgentId, numbers: &[u32]) -> Result<(), DbError> {
        let (id, numbers) = (agent.clone(), numbers.to_vec());
        self.call(move |connection| checkpoints::remove(connection, &id, &numbers)).await
    }

    /// Puts the record of a checkpoint, and notes that its files are to follow: both or none.
    pub async fn begin_restore(&self, record: &AgentRecord, number: u32) -> Result<(), DbError> {
        let record = record.clone();
        self.call(move |connection| checkpoints::begin_restore(connection, &record, number)).await
    }

    /// Puts a record, and notes that no files are to follow: both or none.
    pub async fn end_restore(&self, record: &AgentRecord) -> Result<(), DbError> {
        let record = record.clone();
        self.call(move |connection| checkpoints::end_restore(connection, &record)).await
    }

    /// Deletes an agent's record and its runs.
    pub async fn delete(&self, id: &AgentId) -> Result<(), DbError> {
        let id = id.clone();
        self.call(move |connection| records::delete(connection, &id)).await
    }
}

fn serve(mut connection: Connection, mut queue: mpsc::Receiver<Job>, lock: rustix::fd::OwnedFd) {
    while let Some(job) = queue.blocking_recv() {
        job(&mut connection);
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the state database did not close cleanly");
    }
    drop(lock);
}

fn lock(path: &Path) -> Result<rustix::fd::OwnedFd, DbError> {
    let failed = |error: rustix::io::Errno| DbError::Open { path: path.to_owned(), source: error.into() };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(fd),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DbError::Locked(path.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

fn open(path: &Path) -> Result<Connection, DbError> {
    // Made before SQLite opens it, so that it and its WAL (which inherits the mode) are private from the start.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let failed = |error: rustix::io::Errno| DbError::Open { path: path.to_owned(), source: error.into() };
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o600)).map_err(failed)?;
    drop(fd);
    let mut connection = match connect(path, Index::Shared) {
        // The file of the index shrinks when it is opened, and cannot grow again on a disk that is full.
        Err(error) if error.is_of_files() => {
            tracing::warn!(%error, "the state database keeps its index in memory: other programs cannot read it");
            connect(path, Index::Private)
        }
        connected => connected,
    }?;
    reserve::make(&mut connection, path);
    Ok(connection)
}

/// Where the index of the log is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    /// In a file beside it, so that an administrator's shell can read the database too.
    Shared,
    /// In memory.
    Private,
}

fn connect(path: &Path, index: Index) -> Result<Connection, DbError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if index == Index::Private {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    reserve::configure(&connection)?;
    schema::migrations().to_latest(&mut connection)?;
    Ok(connection)
}

#[cfg(test)]
mod tests;
