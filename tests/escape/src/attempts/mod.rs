//! The attempts as code. They run inside the sandbox, each in a process of its own.

pub mod exec;
pub mod files;
pub mod kernel;
pub mod process;
pub mod sockets;
pub mod steps;
pub mod watch;

use std::ffi::CString;
use std::io;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// The agent's own program, inside.
pub const PROGRAM: &str = "/app/escape-probe";
/// The granted port.
pub const PORT: u16 = 8080;

/// What the runner prepared on the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Params {
    /// A directory granted for reading, with `file` and `repo/.git/config` in it.
    pub readable: String,
    /// A directory granted for writing.
    pub writable: String,
    /// The host's place of the workspace. A grant that holds it was asked for.
    pub workspace: String,
    /// The host's place of the package's root. A grant that holds it was asked for.
    pub package: String,
    /// A world-readable file of the host that is not granted.
    pub secret: String,
    /// A process of the same user outside.
    pub neighbour_pid: i32,
    /// A TCP port on which the host's loopback answers.
    pub host_port: u16,
    /// An abstract socket of the host.
    pub abstract_name: String,
    /// The service manager's socket, abstract.
    pub notify_name: String,
    /// A System V shared memory segment of the host.
    pub shm_key: i32,
    /// A POSIX message queue of the host, which all may open.
    pub queue_name: String,
    /// A Unix socket of the host, which all may connect to.
    pub host_socket: String,
}

/// What one attempt found: nothing wrong, or what was refused, or something else.
pub type Step = Result<(), Refusal>;

/// Why an attempt did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The kernel refused each part.
    Errors(Vec<i32>),
    /// It is something else.
    Other(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        error
            .raw_os_error()
            .map_or_else(|| Self::Other(error.to_string()), |number| Self::Errors(vec![number]))
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Errors(vec![error.raw_os_error()])
    }
}

impl From<i32> for Refusal {
    fn from(error: i32) -> Self {
        Self::Errors(vec![error])
    }
}

impl From<Step> for Outcome {
    fn from(step: Step) -> Self {
        match step {
            Ok(()) => Self::Done,
            Err(Refusal::Errors(errors)) => Self::Refused(errors),
            Err(Refusal::Other(text)) => Self::Other(text),
        }
    }
}

/// Something that is neither success nor a refusal.
pub(crate) fn other<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Other(text.into()))
}

/// Runs all parts: refused only if each is, done as soon as one works.
pub(crate) fn all_refused<T>(parts: impl IntoIterator<Item = (String, Result<T, Refusal>)>) -> Step {
    let mut errors = Vec::new();
    for (name, part) in parts {
        match part {
            Ok(_) => return other(format!("{name} works")),
            Err(Refusal::Errors(found)) => errors.extend(found),
            Err(Refusal::Other(text)) => return other(format!("{name}: {text}")),
        }
    }
    Err(Refusal::Errors(errors))
}

/// A part of an attempt with its name.
pub(crate) fn part<T, E: Into<Refusal>>(
    name: impl Into<String>,
    result: Result<T, E>,
) -> (String, Result<T, Refusal>) {
    (name.into(), result.map_err(Into::into))
}

/// A text for a raw call.
pub(crate) fn c(text: &str) -> Result<CString, Refusal> {
    CString::new(text).map_err(|error| Refusal::Other(error.to_string()))
}

/// Succeeds only if the condition holds.
pub(crate) fn ensure(condition: bool, otherwise: &str) -> Step {
    if condition { Ok(()) } else { other(otherwise) }
}
