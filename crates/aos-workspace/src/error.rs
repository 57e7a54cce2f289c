//! Why an operation on a workspace was not done.

use std::io;

use aos_sandbox::plan::workspace::SNAPSHOTS_MAX;
use rustix::io::Errno;
use thiserror::Error;

/// Why an operation was not done. Names in a message are escaped.
#[derive(Debug, Error)]
pub enum WorkspaceError {
    /// A system call failed.
    #[error("cannot {what} {name}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The union is mounted.
    #[error("the workspace is in use: its agent runs")]
    InUse,
    /// One more would be too many.
    #[error("there are {SNAPSHOTS_MAX} snapshots already; commit, or discard to an earlier one")]
    TooManySnapshots,
    /// A snapshot that is not there.
    #[error("there is no snapshot {0}")]
    NoSnapshot(u32),
    /// A commit into layers of others.
    #[error("what is below the changes is shared with other agents and is never changed")]
    Shared,
    /// A tree that cannot be copied as it is.
    #[error("{path} cannot be copied: {why}")]
    Copy {
        /// Below the tree, escaped; the end of a long one.
        path: String,
        /// Why.
        why: String,
    },
    /// A checkpoint that is not there.
    #[error("there are no files of checkpoint {0}")]
    NoCheckpoint(u32),
    /// What is below the changes was the agent's own then and is not now, or the other way round.
    #[error("the checkpoint is of a fork and the agent is none, or the other way round")]
    ForkOrNot,
    /// A directory that cannot be moved.
    #[error(
        "/{0} is a directory of another user, which cannot be moved out of the way; move it, or give it to the agent's user"
    )]
    Foreign(String),
    /// Not a path of the workspace.
    #[error("{0} is not a path below /workspace")]
    Path(String),
    /// The operation that was cut short left something else than its note.
    #[error("the note of an operation that was cut short is damaged")]
    Intent(#[from] serde_json::Error),
}

impl WorkspaceError {
    /// A failed system call.
    pub(crate) fn io(what: &'static str, name: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let name = name.into();
        move |error| Self::Io { what, name, source: error.into() }
    }
}
