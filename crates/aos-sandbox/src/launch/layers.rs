//! The layers of a workspace that is a transaction: opening them, and keeping them from everybody else.
//!
//! The folder of changes is the agent's user's, and has no name inside. What an agent can do to it is through
//! the union alone, so names in it are `aos-workspace`'s and the kernel's; they are opened without following links
//! all the same. An operation that `aos-workspace` has begun and not ended keeps the agent from starting.

use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, OwnedFd};

use aos_core::path::AbsolutePath;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, mkdirat, openat2, statat};
use rustix::io::Errno;
use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

use super::error::{Context, LaunchError, Layer, fail};
use super::sources::{open_host, refuse};
use crate::plan::TreeEntry;
use crate::plan::workspace::{INTENT, SNAPSHOTS, SNAPSHOTS_MAX, UPPER, WORK, snapshot_name, snapshot_number};

/// How often, and how long between, the folder is tried to be had: two seconds. An init ends within milliseconds.
const HOLD_TRIES: u32 = 80;
const HOLD_PAUSE_NS: i64 = 25_000_000;

/// The layers of a workspace.
#[derive(Debug)]
pub struct Layers {
    /// The snapshots, newest first, and what is below them.
    pub lower: Vec<OwnedFd>,
    /// How many of them are snapshots.
    pub snapshots: usize,
    /// The folder that has the changes and the snapshots.
    pub folder: OwnedFd,
    /// The changes.
    pub upper: OwnedFd,
    /// What the kernel needs beside the changes.
    pub work: OwnedFd,
}

/// Opens the layers, and makes the two directories of the union where they are missing.
pub fn open(
    entry: &TreeEntry,
    lower: &[AbsolutePath],
    changes: &AbsolutePath,
) -> Result<Layers, LaunchError> {
    let what = || format!("{}: the changes in {changes}", entry.cause);
    let folder = match open_host(changes) {
        Ok(place) => child(&place, ".").layer(Layer::Namespace, what())?,
        Err(error) => return refuse(entry, changes, error),
    };
    hold(&folder, changes)?;
    match statat(&folder, INTENT, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Ok(_) => {
            return fail(
                Layer::Namespace,
                format!(
                    "{changes}: an operation on the workspace was cut short; `aos start ID` ends it first"
                ),
            );
        }
        Err(error) => return Err(error).layer(Layer::Namespace, what()),
    }
    for name in [UPPER, WORK, SNAPSHOTS] {
        match mkdirat(&folder, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).layer(Layer::Namespace, what()),
        }
    }
    let snapshots = open_snapshots(&folder, changes)?;
    let count = snapshots.len();
    let mut layers = snapshots;
    for path in lower {
        match open_host(path) {
            Ok(layer) => layers.push(layer),
            Err(error) => return refuse(entry, path, error),
        }
    }
    Ok(Layers {
        lower: layers,
        snapshots: count,
        upper: child(&folder, UPPER).layer(Layer::Namespace, what())?,
        work: child(&folder, WORK).layer(Layer::Namespace, what())?,
        folder,
    })
}

/// Keeps `aos-workspace` from the changes for as long as this process lives, which is the init: what an operation
/// does below a mounted union is undefined. An earlier
/// run's init may still be ending when its launcher has told the end: that is waited for, a moment.
fn hold(folder: &OwnedFd, changes: &AbsolutePath) -> Result<(), LaunchError> {
    let lock = File::from(folder.try_clone().layer(Layer::Namespace, changes)?);
    for _ in 0..HOLD_TRIES {
        match lock.try_lock() {
            Ok(()) => {
                // Closed by the end of the init, and in the agent by its exec.
                std::mem::forget(lock);
                return Ok(());
            }
            Err(TryLockError::WouldBlock) => pause().layer(Layer::Namespace, changes)?,
            Err(TryLockError::Error(error)) => return Err(error).layer(Layer::Namespace, changes),
        }
    }
    fail(
        Layer::Namespace,
        format!("{changes} is in use by another agent or operation; try again when it has ended"),
    )
}

/// An interrupted pause is a shorter one.
fn pause() -> Result<(), Errno> {
    let rest = Timespec { tv_sec: 0, tv_nsec: HOLD_PAUSE_NS };
    match nanosleep(&rest) {
        NanosleepRelativeResult::Err(error) => Err(error),
        NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) => Ok(()),
    }
}

/// The snapshots' directories, newest first.
fn open_snapshots(folder: &OwnedFd, changes: &AbsolutePath) -> Result<Vec<OwnedFd>, LaunchError> {
    let what = || format!("the snapshots in {changes}");
    let place = child(folder, SNAPSHOTS).layer(Layer::Namespace, what())?;
    let mut numbers = Vec::new();
    for entry in Dir::read_from(&place).layer(Layer::Namespace, what())? {
        let entry = entry.layer(Layer::Namespace, what())?;
        numbers.extend(entry.file_name().to_str().ok().and_then(snapshot_number));
    }
    if numbers.len() > SNAPSHOTS_MAX as usize {
        return fail(Layer::Namespace, format!("{changes} has over {SNAPSHOTS_MAX} snapshots"));
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers
        .into_iter()
        .map(|number| child(&place, &snapshot_name(number)).layer(Layer::Namespace, what()))
        .collect()
}

/// A directory in another one, open for reading.
fn child(of: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    openat2(
        of,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}
