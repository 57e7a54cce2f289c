//! How `aos-isolate` fails: the stage, why, and the exit status that says so. The statuses are those of
//! `aos-launch` for the same causes, and 120 for the backend itself.

use std::fmt::Display;
use std::io::Write;

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The command line: 2.
    Usage,
    /// The backend is missing, refuses the plan, or ended before the agent ran: 120.
    Isolation,
    /// The report cannot be written: 123.
    Report,
    /// The readiness message: 124.
    Notify,
    /// Signals, fork, descriptors: 125.
    Process,
    /// The program cannot be executed: 203.
    Exec,
    /// The user: 217.
    User,
    /// A granted path: 226.
    Grant,
    /// Namespaces and the file tree: 226.
    Namespace,
    /// The plan: 243.
    Plan,
}

impl Stage {
    const fn facts(self) -> (&'static str, u8) {
        match self {
            Self::Usage => ("usage", 2),
            Self::Isolation => ("isolation", 120),
            Self::Report => ("report", 123),
            Self::Notify => ("notify", 124),
            Self::Process => ("process", 125),
            Self::Exec => ("exec", 203),
            Self::User => ("user", 217),
            Self::Grant => ("grant", 226),
            Self::Namespace => ("namespace", 226),
            Self::Plan => ("plan", 243),
        }
    }

    /// The exit status.
    pub(crate) const fn exit_status(self) -> u8 {
        self.facts().1
    }
}

/// A start that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", .stage.facts().0)]
pub(crate) struct Failure {
    stage: Stage,
    why: String,
}

impl Failure {
    /// The exit status of the stage.
    pub(crate) const fn exit_status(&self) -> u8 {
        self.stage.exit_status()
    }
}

/// Writes a line to standard error under this program's name.
pub(crate) fn print_line(text: &str) {
    let line = format!("aos-isolate: {text}\n");
    if std::io::stderr().write_all(line.as_bytes()).is_err() {
        // Standard error is closed or full: the exit status still tells the stage.
    }
}

/// A failure without an error underneath.
pub(crate) fn fail<T>(stage: Stage, why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { stage, why: why.into() })
}

/// Adds the stage and the object to an error.
pub(crate) trait Context<T> {
    /// The error as the failure of a stage.
    fn stage(self, stage: Stage, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn stage(self, stage: Stage, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure { stage, why: format!("{what}: {error}") })
    }
}
