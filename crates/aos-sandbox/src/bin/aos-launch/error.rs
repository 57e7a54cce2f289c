//! How a launch fails: the layer that is missing, why, and the exit status that says so.
//!
//! The statuses are systemd's own (systemd.exec(5), "Process Exit Codes") where it has one for the
//! layer, so that `systemctl status` names it; 121 to 125 are this program's.

use std::fmt::Display;
use std::io::Write;

/// The kernel has no Landlock, or one below the floor: what to change.
pub(crate) const NO_LANDLOCK: &str = "the kernel offers less than Landlock ABI 6; boot Linux 6.12 or newer, with `landlock` in `lsm=` (/sys/kernel/security/lsm shows what is in force)";
/// The kernel lets this user make no namespaces: what to change.
pub(crate) const NO_NAMESPACES: &str = "cannot make the namespaces; allow unprivileged user namespaces: sysctl user.max_user_namespaces above 0 and, where they exist, kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0";
/// The kernel takes no filter of system calls: what to change.
pub(crate) const NO_FILTER: &str = "cannot filter system calls; the kernel needs CONFIG_SECCOMP_FILTER";

/// The layers, each with its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// The command line: 2.
    Usage,
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
    pub(crate) const fn name(self) -> &'static str {
        self.facts().0
    }

    /// The exit status.
    pub(crate) const fn exit_status(self) -> u8 {
        self.facts().1
    }

    const fn facts(self) -> (&'static str, u8) {
        match self {
            Self::Usage => ("usage", 2),
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
pub(crate) struct LaunchError {
    layer: Layer,
    why: String,
}

impl LaunchError {
    /// The layer that is missing.
    pub(crate) const fn layer(&self) -> Layer {
        self.layer
    }

    /// Writes the one line of the failure to standard error. That nobody reads it cannot be helped.
    pub(crate) fn print(&self) {
        print_line(&self.to_string());
    }
}

/// Writes a line to standard error under this program's name.
pub(crate) fn print_line(text: &str) {
    let line = format!("aos-launch: {text}\n");
    if std::io::stderr().write_all(line.as_bytes()).is_err() {
        // Standard error is closed or full: the exit status still tells the layer.
    }
}

/// A failure without an error underneath.
pub(crate) fn fail<T>(layer: Layer, why: impl Into<String>) -> Result<T, LaunchError> {
    Err(LaunchError { layer, why: why.into() })
}

/// Adds the layer and the object to an error.
pub(crate) trait Context<T> {
    /// The error as the failure of a layer.
    fn layer(self, layer: Layer, what: impl Display) -> Result<T, LaunchError>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn layer(self, layer: Layer, what: impl Display) -> Result<T, LaunchError> {
        self.map_err(|error| LaunchError { layer, why: format!("{what}: {error}") })
    }
}
