//! Why nothing could be learnt.

use std::io;
use std::path::PathBuf;

use aos_core::capability::SetError;
use aos_core::path::PathError;
use aos_sandbox::caller::WatchError;
use aos_sandbox::plan::{PlanError, ReadError};
use aos_sandbox::rootfs::ScanError;
use thiserror::Error;

/// Why learning ends without a list.
#[derive(Debug, Error)]
pub enum LearnError {
    /// The package cannot be started, whatever it is granted.
    #[error("the agent has no plan")]
    Plan(#[from] PlanError),
    /// The plan cannot be written.
    #[error("the plan cannot be written")]
    Format(#[from] ReadError),
    /// The package's files cannot be looked at.
    #[error("cannot look at the package's files")]
    Scan(#[from] ScanError),
    /// A directory of the run has a name that no plan can have.
    #[error("cannot use this directory")]
    Place(#[from] PathError),
    /// The capabilities do not make a set.
    #[error("the list of capabilities cannot be")]
    Set(#[from] SetError),
    /// The launcher cannot be started.
    #[error("cannot start {}", .launcher.display())]
    Launcher {
        /// The launcher.
        launcher: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A layer of the confinement cannot be had.
    #[error("the agent was not started: {0}")]
    Confinement(String),
    /// The system refuses something.
    #[error("cannot {what}")]
    Io {
        /// What was done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The memory of no process could be read.
    #[error(
        "nothing of what the agent asked for could be read: the kernel refuses to show its memory (kernel.yama.ptrace_scope, or another security module)"
    )]
    Blind,
    /// Somebody ended it.
    #[error("learning was interrupted")]
    Interrupted,
    /// A question could not be asked.
    #[error("cannot ask about a capability")]
    Asking(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<WatchError> for LearnError {
    fn from(WatchError { what, source }: WatchError) -> Self {
        Self::Io { what, source }
    }
}

/// Names what failed.
pub(crate) trait Doing<T> {
    /// The error with what was done.
    fn doing(self, what: &'static str) -> Result<T, LearnError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: &'static str) -> Result<T, LearnError> {
        self.map_err(|source| LearnError::Io { what, source: source.into() })
    }
}
