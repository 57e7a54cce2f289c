//! What of the grammar this version can enforce, decided from a capability alone. The plan of a
//! start refuses what is refused here; whoever builds a package can be told before.

use super::{Capability, KernelPrefix, Qualifiers, Right};
use crate::path::AbsolutePath;
use thiserror::Error;

/// Why a capability that the grammar has can be given to no agent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotEnforceable {
    /// The broker would enforce it.
    #[error("capability `{0}` needs aos-broker, which this version does not have; remove it")]
    Broker(Box<Capability>),
    /// The kernel enforces the right and not the qualifier.
    #[error(
        "capability `{capability}`: the kernel cannot {what}, so that `{qualifier}` needs aos-broker, which this version does not have; remove it"
    )]
    Qualifier {
        /// The capability.
        capability: Box<Capability>,
        /// The qualifier's name.
        qualifier: &'static str,
        /// What it would take.
        what: &'static str,
    },
    /// Devices are given to no agent.
    #[error("capability `{0}`: this version gives devices to no agent; remove it")]
    Device(Box<Capability>),
    /// The kernel enforces exact paths and whole subtrees only.
    #[error(
        "capability `{capability}`: the kernel cannot enforce `*` inside a path; name each file, or write `{}/**` for everything beneath that directory",
        .below.as_str().trim_end_matches('/')
    )]
    Glob {
        /// The capability.
        capability: Box<Capability>,
        /// The directory above the first star.
        below: AbsolutePath,
    },
    /// The whole root is never granted.
    #[error("capability `{0}` names the whole file system; name the directories that the agent needs")]
    Root(Box<Capability>),
}

impl Qualifiers {
    /// The first qualifier that is there, and what the kernel would have to do to enforce it.
    fn beyond_the_kernel(&self) -> Option<(&'static str, &'static str)> {
        let Self { approval, max_calls, max_bytes, expires } = self;
        [
            (approval.is_some(), "approval", "ask a person"),
            (max_calls.is_some(), "max_calls", "count uses"),
            (max_bytes.is_some(), "max_bytes", "count bytes"),
            (expires.is_some(), "expires", "end a grant at a time"),
        ]
        .into_iter()
        .find_map(|(is_there, name, what)| is_there.then_some((name, what)))
    }
}

impl Capability {
    /// Whether the kernel can hold an agent to exactly this capability.
    pub fn check_enforceable(&self) -> Result<(), NotEnforceable> {
        if matches!(self.right(), Right::Device(_)) {
            return Err(NotEnforceable::Device(Box::new(self.clone())));
        }
        if !self.right().is_of_kernel() {
            return Err(NotEnforceable::Broker(Box::new(self.clone())));
        }
        if let Some((qualifier, what)) = self.qualifiers().beyond_the_kernel() {
            return Err(NotEnforceable::Qualifier { capability: Box::new(self.clone()), qualifier, what });
        }
        match self.pattern().map(super::PathPattern::kernel_prefix) {
            Some(KernelPrefix::Glob { below }) => {
                Err(NotEnforceable::Glob { capability: Box::new(self.clone()), below })
            }
            Some(KernelPrefix::Exact(path) | KernelPrefix::Subtree(path)) if path == AbsolutePath::root() => {
                Err(NotEnforceable::Root(Box::new(self.clone())))
            }
            Some(KernelPrefix::Exact(_) | KernelPrefix::Subtree(_)) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::KNOWN;
    use super::*;

    #[test]
    fn what_the_kernel_can_hold() {
        for good in ["file_read: /srv/**", "file_write: /srv/a", "exec: /usr/bin/git", "listen: 80"] {
            assert_eq!(good.parse::<Capability>().unwrap().check_enforceable(), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("net: example.org:443", "`net: example.org:443` needs aos-broker"),
            ("net: 192.0.2.1:443", "`net: 192.0.2.1:443` needs aos-broker"),
            ("tool: x [max_calls=1]", "`tool: x [max_calls=1]` needs aos-broker"),
            ("device: gpu", "gives devices to no agent"),
            ("file_read: /a [approval=once]", "cannot ask a person, so that `approval` needs aos-broker"),
            ("file_read: /a [max_calls=1]", "cannot count uses, so that `max_calls` needs aos-broker"),
            ("file_write: /a [max_bytes=1]", "cannot count bytes"),
            ("listen: 80 [expires=2027-01-31T18:00:00Z]", "cannot end a grant at a time"),
            ("file_read: /etc/*.conf", "or write `/etc/**` for everything"),
            ("exec: /*/x", "or write `/**` for everything"),
            ("file_read: /", "names the whole file system"),
            ("file_write: /**", "names the whole file system"),
        ] {
            let error = bad.parse::<Capability>().unwrap().check_enforceable().unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
            assert!(error.contains("remove it") || error.contains("name "), "{bad}: {error}");
        }
    }

    /// No name of the grammar is taken and then enforced by nobody.
    #[test]
    fn only_four_names_are_the_kernels() {
        let held = KNOWN.iter().filter(|(_, form)| {
            let example = form.split('`').nth(1).unwrap();
            example.parse::<Capability>().is_ok_and(|capability| capability.check_enforceable().is_ok())
        });
        let names: Vec<&str> = held.map(|(name, _)| *name).collect();
        assert_eq!(names, ["file_read", "file_write", "exec", "listen"]);
    }
}
