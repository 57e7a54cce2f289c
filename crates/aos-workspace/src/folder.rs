//! One agent's folder of changes, and the operations on it.

use std::fs::{File, TryLockError};
use std::os::fd::OwnedFd;
use std::path::Path;

use aos_core::path::AbsolutePath;
use aos_core::workspace::{Answer, Below, CheckpointStep, Committed, Operation};
use aos_sandbox::plan::workspace::{SNAPSHOTS, SNAPSHOTS_MAX, TRASH, UPPER, WORK, snapshot_name};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2, renameat, syncfs};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{Timespec, nanosleep};

use crate::beneath;
use crate::commit;
use crate::diff::{Text, diff};
use crate::error::WorkspaceError;
use crate::intent::{self, Intent};
use crate::selection::Selection;
use crate::snapshots::Snapshots;
use crate::trash::{self, Fresh};
use crate::view::Stack;

/// A folder of changes, and what is below them.
#[derive(Debug)]
pub struct Folder {
    folder: OwnedFd,
    snapshots: Snapshots,
    trash: OwnedFd,
    lower: Vec<OwnedFd>,
    below: Below,
}

/// Held while the layers change, or are read while no agent runs. The launcher holds it while one does.
struct Lock(#[expect(dead_code, reason = "it is held, not read")] File);

/// How often, and how long between, the lock is tried to be had: two seconds.
const LOCK_TRIES: u32 = 80;
const LOCK_PAUSE_NS: i64 = 25_000_000;

/// An interrupted pause is a shorter one.
fn pause() {
    drop(nanosleep(&Timespec { tv_sec: 0, tv_nsec: LOCK_PAUSE_NS }));
}

/// Opens a directory of the host, without following any link.
fn open_host(path: &AbsolutePath) -> Result<OwnedFd, WorkspaceError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path.as_path(), flags, Mode::empty(), within)
        .map_err(WorkspaceError::io("open", path.to_string()))
}

/// Makes a directory that may be there.
pub(crate) fn make(folder: &OwnedFd, name: &str) -> Result<(), WorkspaceError> {
    match mkdirat(folder, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(WorkspaceError::io("make", name)(error)),
    }
}

pub(crate) fn open(folder: &OwnedFd, name: &str) -> Result<OwnedFd, WorkspaceError> {
    beneath::open_directory(folder, Path::new(name)).map_err(WorkspaceError::io("open", name))
}

impl Folder {
    /// Opens the folder `changes` over `lower`, the topmost first; makes the parts of it that are missing.
    pub fn open(
        changes: &AbsolutePath,
        lower: &[AbsolutePath],
        below: Below,
    ) -> Result<Self, WorkspaceError> {
        let folder = open_host(changes)?;
        for name in [SNAPSHOTS, TRASH] {
            make(&folder, name)?;
        }
        Ok(Self {
            snapshots: Snapshots(open(&folder, SNAPSHOTS)?),
            trash: open(&folder, TRASH)?,
            lower: lower.iter().map(open_host).collect::<Result<_, _>>()?,
            folder,
            below,
        })
    }

    /// Does what is asked, after ending an operation that was cut short. What only reads is done while the agent
    /// runs, too.
    pub fn perform(&self, operation: &Operation) -> Result<Answer, WorkspaceError> {
        let tries = if operation.only_reads() { 1 } else { LOCK_TRIES };
        let mut gave_up_commit = false;
        let lock = match self.lock(tries) {
            Ok(lock) => {
                if let Operation::Discard { to } = operation {
                    gave_up_commit = self.give_up_commit(to.unwrap_or(0))?;
                }
                self.recover()?;
                if !matches!(operation, Operation::Checkpoint(CheckpointStep::Swap)) {
                    // Nobody goes on with a restore that was not begun.
                    self.unstage()?;
                }
                Some(lock)
            }
            Err(WorkspaceError::InUse) if operation.only_reads() => None,
            Err(error) => return Err(error),
        };
        let answer = match operation {
            Operation::Diff { patch } => {
                let text = if *patch { Text::Patch } else { Text::None };
                Ok(Answer::Changes(diff(&self.stack()?, text)))
            }
            Operation::Commit { paths } => self.commit(paths).map(Answer::Committed),
            Operation::Discard { to } => self.discard(to.unwrap_or(0), gave_up_commit),
            Operation::Snapshot { name, at_us } => self.snapshot(name.as_deref(), *at_us),
            Operation::Snapshots => self.snapshots.list().map(Answer::Snapshots),
            Operation::Checkpoint(step) => self.checkpoint(step),
        };
        drop(lock);
        answer
    }

    /// The launcher's init may still be ending when its agent is known to have stopped: a moment is waited for it.
    fn lock(&self, tries: u32) -> Result<Lock, WorkspaceError> {
        let failed = |source| WorkspaceError::Io { what: "lock", name: "the changes".to_owned(), source };
        // An open file of its own: locks belong to those.
        let file = File::from(open(&self.folder, ".")?);
        for _ in 0..tries {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) => pause(),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(WorkspaceError::InUse)
    }

    /// The layers, the changes first.
    fn stack(&self) -> Result<Stack, WorkspaceError> {
        let mut layers = vec![open(&self.folder, UPPER)?];
        for number in self.snapshots.numbers()?.into_iter().rev() {
            layers.push(self.snapshots.open(number)?);
        }
        let own = layers.len();
        for layer in &self.lower {
            layers.push(layer.try_clone().map_err(|source| WorkspaceError::Io {
                what: "open",
                name: "a layer".to_owned(),
                source,
            })?);
        }
        Ok(Stack::new(layers, own))
    }

    /// Ends what was cut short, and deletes what was to be deleted.
    fn recover(&self) -> Result<(), WorkspaceError> {
        match intent::pending(&self.folder)? {
            Some(Intent::Commit { paths, staging }) => {
                self.apply_commit(&paths, &staging, Stack::resumed)?;
            }
            Some(Intent::Discard { to }) => self.apply_discard(to)?,
            Some(Intent::Snapshot { number }) => self.apply_snapshot(number)?,
            Some(Intent::Restore { base }) => self.apply_swap(base.as_deref())?,
            None => self.make_upper()?,
        }
        intent::end(&self.folder)?;
        trash::empty(&self.trash).map_err(WorkspaceError::io("empty", TRASH))
    }

    /// A commit that was cut short does not go on, as one that can never end: the layers are there as before it, and
    /// so is what it has applied. Whether there was one.
    fn give_up_commit(&self, to: u32) -> Result<bool, WorkspaceError> {
        let Some(Intent::Commit { staging, .. }) = intent::pending(&self.folder)? else { return Ok(false) };
        self.check_snapshot(to)?;
        commit::give_up(self.base()?, &staging)?;
        intent::end(&self.folder)?;
        Ok(true)
    }

    fn commit(&self, paths: &[String]) -> Result<Committed, WorkspaceError> {
        // Refused before anything is noted.
        Selection::parse(paths)?;
        self.base()?;
        let mut random = [0_u8; 16];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(WorkspaceError::io("make", "a name"))?;
        let staging = format!(".aos-commit-{:032x}", u128::from_ne_bytes(random));
        self.noted(&Intent::Commit { paths: paths.to_vec(), staging: staging.clone() }, || {
            self.apply_commit(paths, &staging, |stack| stack)
        })
    }

    fn base(&self) -> Result<&OwnedFd, WorkspaceError> {
        match (self.below, self.lower.as_slice()) {
            (Below::Own, [base]) => Ok(base),
            _ => Err(WorkspaceError::Shared),
        }
    }

    /// Applies, and when nothing is left takes the layers away, the lowest first: what is below is equal to the view,
    /// so that what a layer hid no longer differs from what comes to light.
    fn apply_commit(
        &self,
        paths: &[String],
        staging: &str,
        as_it_is: fn(Stack) -> Stack,
    ) -> Result<Committed, WorkspaceError> {
        let selection = Selection::parse(paths)?;
        let is_all = selection.is_all();
        self.make_upper()?;
        let done = commit::commit(&as_it_is(self.stack()?), self.base()?, staging, selection)?;
        if is_all && done.skipped.count == 0 {
            for number in self.snapshots.numbers()? {
                self.drop_snapshot(number)?;
            }
            self.drop_layer(&self.folder, UPPER)?;
            self.make_upper()?;
        }
        Ok(done)
    }

    fn check_snapshot(&self, number: u32) -> Result<(), WorkspaceError> {
        let is_there = number == 0 || self.snapshots.numbers()?.contains(&number);
        if is_there { Ok(()) } else { Err(WorkspaceError::NoSnapshot(number)) }
    }

    fn discard(&self, to: u32, gave_up_commit: bool) -> Result<Answer, WorkspaceError> {
        self.check_snapshot(to)?;
        self.noted(&Intent::Discard { to }, || self.apply_discard(to))?;
        Ok(Answer::Discarded { newest: self.snapshots.newest()?, gave_up_commit })
    }

    /// The newest first: at each point the view is one that there has been.
    pub(crate) fn apply_discard(&self, to: u32) -> Result<(), WorkspaceError> {
        self.drop_layer(&self.folder, UPPER)?;
        for number in self.snapshots.numbers()?.into_iter().rev().filter(|number| *number > to) {
            self.drop_snapshot(number)?;
        }
        self.make_upper()
    }

    fn snapshot(&self, name: Option<&str>, at_us: u64) -> Result<Answer, WorkspaceError> {
        let newest = self.snapshots.newest()?;
        let upper = open(&self.folder, UPPER)?;
        if beneath::names(upper).map_err(WorkspaceError::io("read", UPPER))?.is_empty() {
            return Ok(Answer::Snapshot { newest, made: false });
        }
        if newest >= SNAPSHOTS_MAX {
            return Err(WorkspaceError::TooManySnapshots);
        }
        let number = newest + 1;
        self.snapshots.note(number, name, at_us)?;
        // What the agent wrote is on the disk before it counts as frozen.
        syncfs(&self.folder).map_err(WorkspaceError::io("write", "the changes to the disk"))?;
        self.noted(&Intent::Snapshot { number }, || self.apply_snapshot(number))?;
        Ok(Answer::Snapshot { newest: number, made: true })
    }

    fn apply_snapshot(&self, number: u32) -> Result<(), WorkspaceError> {
        if !self.snapshots.numbers()?.contains(&number) {
            let name = snapshot_name(number);
            renameat(&self.folder, UPPER, &self.snapshots.0, &name)
                .map_err(WorkspaceError::io("freeze", UPPER))?;
        }
        self.make_upper()
    }

    /// Does something between its note and the note's end. Its trash is emptied after that: it does not count any
    /// more.
    pub(crate) fn noted<T>(
        &self,
        intent: &Intent,
        act: impl FnOnce() -> Result<T, WorkspaceError>,
    ) -> Result<T, WorkspaceError> {
        intent::begin(&self.folder, intent)?;
        let done = act()?;
        syncfs(&self.folder).map_err(WorkspaceError::io("write", "the changes to the disk"))?;
        intent::end(&self.folder)?;
        trash::empty(&self.trash).map_err(WorkspaceError::io("empty", TRASH))?;
        Ok(done)
    }

    pub(crate) fn make_upper(&self) -> Result<(), WorkspaceError> {
        make(&self.folder, UPPER)?;
        make(&self.folder, WORK)
    }

    fn drop_snapshot(&self, number: u32) -> Result<(), WorkspaceError> {
        self.drop_layer(&self.snapshots.0, &snapshot_name(number))?;
        self.snapshots.forget(number)
    }

    pub(crate) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    pub(crate) fn trash(&self) -> &OwnedFd {
        &self.trash
    }

    pub(crate) fn lower(&self) -> &[OwnedFd] {
        &self.lower
    }

    pub(crate) fn below(&self) -> Below {
        self.below
    }

    /// The folder that holds the snapshots.
    pub(crate) fn snapshots_folder(&self) -> &OwnedFd {
        &self.snapshots.0
    }

    /// Moves a layer out of the way as a whole.
    pub(crate) fn drop_layer(&self, from: &OwnedFd, name: &str) -> Result<(), WorkspaceError> {
        let failed = || WorkspaceError::io("take away", name);
        let to = Fresh::default().free(&self.trash).map_err(failed())?;
        match renameat(from, name, &self.trash, to) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed()(error)),
        }
    }
}
