//! The backends, and which one a declaration names.

use std::fmt;
use std::str::FromStr;

use aos_core::config::Isolation;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::programs::Programs;

/// A way to isolate an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Backend {
    /// `aos-launch` itself.
    #[serde(rename = "native")]
    Native,
    /// The OCI runtime crun.
    #[serde(rename = "oci:crun")]
    Crun,
    /// The OCI runtime runc.
    #[serde(rename = "oci:runc")]
    Runc,
    /// gVisor's runsc: a kernel of its own in user space.
    #[serde(rename = "gvisor")]
    Gvisor,
    /// A virtual machine with a kernel of its own.
    #[serde(rename = "vm")]
    Vm,
}

/// Whose kernel serves the agent's system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// The host's.
    Shared,
    /// One in user space.
    Sentry,
    /// One of its own in a virtual machine.
    Own,
}

/// One line of the table of backends.
struct Facts {
    name: &'static str,
    program: &'static str,
    package: &'static str,
    kernel: Kernel,
    isolates: &'static str,
    differs: &'static [&'static str],
}

impl Backend {
    /// Every backend, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Native, Self::Crun, Self::Runc, Self::Gvisor, Self::Vm];

    const fn facts(self) -> Facts {
        match self {
            Self::Native => Facts {
                name: "native",
                program: "aos-launch",
                package: "agentd",
                kernel: Kernel::Shared,
                isolates: "namespaces, Landlock and seccomp by aos-launch",
                differs: &[],
            },
            Self::Crun => Facts {
                name: "oci:crun",
                program: "crun",
                package: "crun",
                kernel: Kernel::Shared,
                isolates: "namespaces and seccomp by crun, then Landlock and seccomp by aos-launch inside",
                differs: &[],
            },
            Self::Runc => Facts {
                name: "oci:runc",
                program: "runc",
                package: "runc",
                kernel: Kernel::Shared,
                isolates: "namespaces and seccomp by runc, then Landlock and seccomp by aos-launch inside",
                differs: &[],
            },
            Self::Gvisor => Facts {
                name: "gvisor",
                program: "runsc",
                package: "runsc",
                kernel: Kernel::Sentry,
                isolates: "a kernel in user space; files by mounts, seccomp inside, no Landlock",
                differs: &[
                    "what can be read outside the workspace, /tmp and grants can be executed; programs that are not granted are not there",
                    "a file on a place without execution cannot be executed, but the loader can map it",
                    "the ports of the agent's own loopback are not restricted; nothing else is on it",
                    "/tmp has a size and no number of files",
                ],
            },
            Self::Vm => Facts {
                name: "vm",
                program: "qemu-system-x86_64",
                package: "qemu-system-x86",
                kernel: Kernel::Own,
                isolates: "a virtual machine, and every layer of aos-launch inside it",
                differs: &[
                    "files of the workspace and of grants cannot be mapped shared and writable",
                    "named pipes and sockets cannot be made in the workspace and grants; in /tmp they can",
                    "locks on files, and what inotify tells of them, are of the machine: they do not reach the host",
                    "of limits.memory the machine itself takes 160 MiB, and its kernel its part of the rest",
                ],
            },
        }
    }

    /// The name in `run.isolation`.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The program that the backend stands on.
    pub const fn program(self) -> &'static str {
        self.facts().program
    }

    /// The Debian package that brings the program.
    pub const fn package(self) -> &'static str {
        self.facts().package
    }

    /// Whose kernel it is.
    pub const fn kernel(self) -> Kernel {
        self.facts().kernel
    }

    /// What it enforces otherwise than `native`, each in a sentence.
    pub const fn differs(self) -> &'static [&'static str] {
        self.facts().differs
    }

    /// What isolates, in words.
    pub const fn isolates(self) -> &'static str {
        self.facts().isolates
    }
}

/// The backend for what an Agentfile declares in `run.isolation`. `oci` leaves the choice open: the first of
/// crun and runc that is installed, or crun, whose absence is then the error.
pub fn choose(isolation: Isolation, programs: &Programs) -> Backend {
    match isolation {
        Isolation::Native => Backend::Native,
        Isolation::Oci
            if programs.find(Backend::Crun).is_none() && programs.find(Backend::Runc).is_some() =>
        {
            Backend::Runc
        }
        Isolation::Oci | Isolation::OciCrun => Backend::Crun,
        Isolation::OciRunc => Backend::Runc,
        Isolation::Gvisor => Backend::Gvisor,
        Isolation::Vm => Backend::Vm,
    }
}

impl Kernel {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Sentry => "gVisor's",
            Self::Own => "own",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no backend has.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no isolation backend; expected native, oci:crun, oci:runc, gvisor or vm")]
pub struct UnknownBackend(String);

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        Self::ALL
            .into_iter()
            .find(|backend| backend.name() == text)
            .ok_or_else(|| UnknownBackend(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_refused() {
        for backend in Backend::ALL {
            assert_eq!(backend.name().parse(), Ok(backend));
            let json = serde_json::to_string(&backend).unwrap();
            assert_eq!(json, format!("\"{backend}\""));
        }
        for bad in ["", "oci", "crun", "Native"] {
            assert_eq!(bad.parse::<Backend>(), Err(UnknownBackend(bad.to_owned())));
        }
    }

    #[test]
    fn oci_is_the_first_runtime_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let programs = Programs::in_directories(vec![directory.path().to_owned()]);
        assert_eq!(choose(Isolation::Oci, &programs), Backend::Crun);
        let install = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        };
        install("runc");
        assert_eq!(choose(Isolation::Oci, &programs), Backend::Runc);
        install("crun");
        assert_eq!(choose(Isolation::Oci, &programs), Backend::Crun);
        assert_eq!(choose(Isolation::OciRunc, &programs), Backend::Runc);
        assert_eq!(choose(Isolation::Gvisor, &programs), Backend::Gvisor);
    }
}
