//! Why a step did not do its work.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use aos_sandbox::caller::WatchError;
use thiserror::Error;

/// Why a step has no changes.
#[derive(Debug, Error)]
pub enum RunError {
    /// The request cannot be put into a plan: a path, a name or a number of something.
    #[error("the step cannot be run: {0}")]
    Request(String),
    /// A directory of the request is not as it has to be.
    #[error("{}: {why}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A directory or file of the step cannot be made or read.
    #[error("cannot {what}")]
    Io {
        /// What was done, with the object.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The launcher cannot be started.
    #[error("cannot start {}", .launcher.display())]
    Launcher {
        /// The launcher.
        launcher: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A layer of the confinement cannot be had: the step was not started.
    #[error("the step was not started: {why}")]
    Confinement {
        /// The launcher's exit status, which names the layer.
        status: i32,
        /// The layer and why.
        why: String,
    },
    /// The step ended with a failure.
    #[error("the step ended with {}", ended(*.status))]
    Failed {
        /// The exit status; 128 and a signal's number when a signal ended it, as in a shell.
        status: i32,
    },
    /// The step took too long and was ended with all that it started.
    #[error("the step took longer than {} s and was ended", .0.as_secs_f64())]
    Timeout(Duration),
    /// The build was cancelled.
    #[error("the step was cancelled")]
    Cancelled,
    /// The step left something that no layer can have.
    #[error("the step made {what} at {}, which no package can carry", .path.display())]
    NotPackable {
        /// What it is.
        what: &'static str,
        /// Where, inside.
        path: PathBuf,
    },
}

impl From<WatchError> for RunError {
    fn from(WatchError { what, source }: WatchError) -> Self {
        Self::Io { what: what.to_owned(), source }
    }
}

/// A status in words.
fn ended(status: i32) -> String {
    match status - 128 {
        signal @ 1..=64 => format!("status {status} (signal {signal})"),
        _ => format!("status {status}"),
    }
}

/// Names what failed.
pub(super) trait Doing<T> {
    /// The error with what was done.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, RunError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, RunError> {
        self.map_err(|source| RunError::Io { what: what(), source: source.into() })
    }
}
