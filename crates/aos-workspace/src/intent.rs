//! The note of an operation that has begun. It is on the disk before the first change and goes after the last.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use aos_sandbox::plan::workspace::INTENT;
use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::beneath;
use crate::error::WorkspaceError;

const NEW: &str = "intent.new";
/// A request's paths are the largest part of it.
const MAX_BYTES: u64 = 16 << 20;

/// What is being done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Intent {
    Commit {
        paths: Vec<String>,
        /// The directory for half-made files, in the root of what is below.
        staging: String,
    },
    Discard {
        /// The newest snapshot that stays.
        to: u32,
    },
    Snapshot {
        number: u32,
    },
    /// What was staged of a checkpoint is put in place.
    Restore {
        /// The staging directory in the workspace; a fork has none.
        base: Option<String>,
    },
}

/// Puts a note down, durably.
pub(crate) fn begin(folder: &OwnedFd, intent: &Intent) -> Result<(), WorkspaceError> {
    write(folder, NEW, &serde_json::to_vec(intent)?)?;
    let failed = || WorkspaceError::io("note", "an operation");
    renameat(folder, NEW, folder, INTENT).map_err(failed())?;
    fsync(folder).map_err(failed())
}

/// Takes the note away.
pub(crate) fn end(folder: &OwnedFd) -> Result<(), WorkspaceError> {
    let failed = || WorkspaceError::io("end", "an operation");
    match unlinkat(folder, INTENT, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => fsync(folder).map_err(failed()),
        Err(error) => Err(failed()(error)),
    }
}

/// The note that is there.
pub(crate) fn pending(folder: &OwnedFd) -> Result<Option<Intent>, WorkspaceError> {
    match read(folder, INTENT)? {
        Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        None => Ok(None),
    }
}

/// Writes a small file whole, to the disk.
pub(crate) fn write(folder: &OwnedFd, name: &str, bytes: &[u8]) -> Result<(), WorkspaceError> {
    let failed = || WorkspaceError::io("write", name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed())?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|source| WorkspaceError::Io {
        what: "write",
        name: name.to_owned(),
        source,
    })
}

/// Reads a small file.
pub(crate) fn read(folder: &OwnedFd, name: &str) -> Result<Option<Vec<u8>>, WorkspaceError> {
    let c_name = std::ffi::CString::new(name).unwrap_or_default();
    let file = match beneath::open_file(folder, &c_name) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(WorkspaceError::io("read", name)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|source| WorkspaceError::Io {
        what: "read",
        name: name.to_owned(),
        source,
    })?;
    Ok(Some(bytes))
}
