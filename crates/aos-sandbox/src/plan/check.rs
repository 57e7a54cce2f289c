//! What holds for every plan, and what for agents' and for steps' alone.

use aos_core::config::Isolation;

use super::build::is_name;
use super::workspace::LOWER_MAX;
use super::{ENTRIES_MAX, Listener, Node, PLAN_VERSION, Purpose, ReadError, SandboxPlan};
use crate::seccomp::Policy;

/// Sockets that one message can carry: `SCM_MAX_FD` of the kernel is 253.
const LISTENERS_MAX: usize = 64;

impl SandboxPlan {
    /// Checks what the format's types do not say.
    pub(super) fn check(&self) -> Result<(), ReadError> {
        if self.version != PLAN_VERSION {
            return Err(ReadError::Version(self.version));
        }
        for (what, count) in [
            ("tree entries", self.tree.len()),
            ("landlock rules", self.landlock.len()),
            ("program rules", self.programs.len()),
            ("listen rules", self.listen.len()),
            ("arguments", self.program.argv.len()),
            ("environment variables", self.program.env.len()),
            ("resource limits", self.rlimits.len()),
        ] {
            if count > ENTRIES_MAX {
                return Err(ReadError::TooMany { what, count });
            }
        }
        self.check_listeners()?;
        match self.purpose {
            Purpose::Agent => self.check_agent(),
            Purpose::Build => self.check_build(),
        }
    }

    fn check_listeners(&self) -> Result<(), ReadError> {
        let is_good = |listener: &Listener| listener.port != 0 && is_name(&listener.name, "-");
        let mut ports: Vec<u16> = self.listeners.iter().map(|listener| listener.port).collect();
        ports.sort_unstable();
        ports.dedup();
        if ports.len() != self.listeners.len()
            || ports.len() > LISTENERS_MAX
            || !self.listeners.iter().all(is_good)
        {
            return Err(ReadError::Listeners);
        }
        Ok(())
    }

    fn check_agent(&self) -> Result<(), ReadError> {
        let mixed = |what| Err(ReadError::Mixed { purpose: "an agent", what });
        if self.seccomp != Policy::Agent {
            return mixed("another system call policy than an agent's");
        }
        if self.tree.iter().any(|entry| entry.node.is_of_build()) {
            return mixed("a part of a build's file tree");
        }
        let is_layered = |node: &Node| match node {
            Node::Transaction { lower, .. } => (1..=LOWER_MAX).contains(&lower.len()),
            _ => true,
        };
        if !self.tree.iter().all(|entry| is_layered(&entry.node)) {
            return Err(ReadError::Layers);
        }
        match self.program.argv.first() {
            Some(program) if program.starts_with('/') => Ok(()),
            _ => Err(ReadError::NoProgram),
        }
    }

    fn check_build(&self) -> Result<(), ReadError> {
        let mixed = |what| Err(ReadError::Mixed { purpose: "a build", what });
        if self.seccomp != Policy::Build {
            return mixed("another system call policy than a build's");
        }
        if self.isolation != Isolation::Native {
            return mixed("an isolation of its own");
        }
        let mut roots =
            self.tree.iter().enumerate().filter(|(_, entry)| {
                entry.path.as_str() == "/" || matches!(entry.node, Node::BuildRoot { .. })
            });
        let is_root_first = matches!(
            roots.next(),
            Some((0, entry)) if entry.path.as_str() == "/" && matches!(entry.node, Node::BuildRoot { .. })
        );
        if !is_root_first || roots.next().is_some() {
            return mixed("another root than one writable union, first");
        }
        let is_agents =
            |node: &Node| matches!(node, Node::Bind(_) | Node::Generated(_) | Node::Transaction { .. });
        if self.tree.iter().any(|entry| is_agents(&entry.node)) {
            return mixed("a part of an agent's file tree");
        }
        if !self.listen.is_empty() {
            return mixed("an agent's right to listen");
        }
        if self.disk.is_some() {
            return mixed("an agent's limit on the disk");
        }
        match self.program.argv.first() {
            Some(program) if program.starts_with('/') || !(program.is_empty() || program.contains('/')) => {
                Ok(())
            }
            _ => Err(ReadError::NoProgram),
        }
    }
}

impl Node {
    /// Whether the node is only ever part of a step's tree.
    pub const fn is_of_build(&self) -> bool {
        match self {
            Self::BuildRoot { .. }
            | Self::BuildFile(_)
            | Self::BuildTmpfs { .. }
            | Self::Cache { .. }
            | Self::Secrets { .. }
            | Self::Empty => true,
            Self::Symlink { .. }
            | Self::Generated(_)
            | Self::Bind(_)
            | Self::Overlay { .. }
            | Self::Transaction { .. }
            | Self::Copy { .. }
            | Self::Tmpfs { .. }
            | Self::Proc
            | Self::Devices => false,
        }
    }
}
