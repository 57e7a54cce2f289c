//! How a launch fails: the layer that is missing, why, and the exit status that says so.
//!
//! The statuses are systemd's own (systemd.exec(5), "Process Exit Codes") where it has one for the
//! layer, so that `systemctl status` names it; 120 to 125 are our own.

use std::fmt::Display;
use std::io::Write;

/// The layers, each with its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The command line: 2.
    Usage,
    /// The backend is missing, refuses the plan, or ended before the agent ran: 120.
    Isolation,
    /// Landlock: 121.
    Landlock,
    /// A probe, or the kernel's report, contradicts what was set up: 122.
    Probe,
    /// The report cannot be written: 123.
    Report,
    /// The working directory: 200 (CHDIR).
    Directory,
    /// Inherited descriptors: 202 (FDS).
    Descriptors,
    /// The program cannot be executed: 203 (EXEC).
    Exec,
    /// Resource limits: 205 (LIMITS).
    Limits,
    /// Signals, fork, dumpability: 125.
    Process,
    /// The user: 217 (USER).
    User,
    /// Capabilities: 218 (CAPABILITIES).
    Capabilities,
    /// The loopback: 225 (NETWORK).
    Network,
    /// Namespaces and the file tree: 226 (NAMESPACE).
    Namespace,
    /// A granted path: 226 (NAMESPACE).
    Grant,
    /// `no_new_privs`: 227 (`NO_NEW_PRIVILEGES`).
    NoNewPrivileges,
    /// The system call filter: 228 (SECCOMP).
    Seccomp,
    /// Keyrings: 237 (KEYRING).
    Keyring,
    /// The plan: 243 (CREDENTIALS).
    Plan,
    /// The readiness message: 124.
    Notify,
}

impl Layer {
    /// The name in messages.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// The exit status.
    pub const fn exit_status(self) -> u8 {
        self.facts().1
    }

    const fn facts(self) -> (&'static str, u8) {
        match self {
            Self::Usage => ("usage", 2),
            Self::Isolation => ("isolation", 120),
            Self::Landlock => ("landlock", 121),
            Self::Probe => ("probe", 122),
            Self::Report => ("report", 123),
            Self::Notify => ("notify", 124),
            Self::Process => ("process", 125),
            Self::Directory => ("directory", 200),
            Self::Descriptors => ("descriptors", 202),
            Self::Exec => ("exec", 203),
            Self::Limits => ("limits", 205),
            Self::User => ("user", 217),
            Self::Capabilities => ("capabilities", 218),
            Self::Network => ("network", 225),
            Self::Namespace => ("namespace", 226),
            Self::Grant => ("grant", 226),
            Self::NoNewPrivileges => ("no_new_privs", 227),
            Self::Seccomp => ("seccomp", 228),
            Self::Keyring => ("keyring", 237),
            Self::Plan => ("plan", 243),
        }
    }
}

/// A launch that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", .layer.name())]
pub struct LaunchError {
    layer: Layer,
    why: String,
}

impl LaunchError {
    /// The layer that is missing.
    pub const fn layer(&self) -> Layer {
        self.layer
    }
}

/// Writes a line to standard error under a program's name. That nobody reads it cannot be helped.
pub fn print_line(program: &str, text: &str) {
    let line = format!("{program}: {text}\n");
    if std::io::stderr().write_all(line.as_bytes()).is_err() {
        // Standard error is closed or full: the exit status still tells the layer.
    }
}

/// A failure without an error underneath.
pub fn fail<T>(layer: Layer, why: impl Into<String>) -> Result<T, LaunchError> {
    Err(LaunchError { layer, why: why.into() })
}

/// Adds the layer and the object to an error.
pub trait Context<T> {
    /// The error as the failure of a layer.
    fn layer(self, layer: Layer, what: impl Display) -> Result<T, LaunchError>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn layer(self, layer: Layer, what: impl Display) -> Result<T, LaunchError> {
        self.map_err(|error| LaunchError { layer, why: format!("{what}: {error}") })
    }
}
