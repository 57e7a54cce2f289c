//! What of the grammar this version can enforce, decided from a capability alone. The plan of a
//! start refuses what is refused here; whoever builds a package can be told before.

use super::{Capability, KernelPrefix};
use crate::path::AbsolutePath;
use thiserror::Error;

/// Why a capability that the grammar has can be given to no agent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotEnforceable {
    /// The network needs the broker.
    #[error("capability `{0}` needs aos-broker, which this version does not have; remove it")]
    Net(Capability),
    /// The kernel enforces exact paths and whole subtrees only.
    #[error(
        "capability `{capability}`: the kernel cannot enforce `*` inside a path; name each file, or write `{}/**` for everything beneath that directory",
        .below.as_str().trim_end_matches('/')
    )]
    Glob {
        /// The capability.
        capability: Capability,
        /// The directory above the first star.
        below: AbsolutePath,
    },
    /// The whole root is never granted.
    #[error("capability `{0}` names the whole file system; name the directories that the agent needs")]
    Root(Capability),
}

impl Capability {
    /// Whether the kernel can hold an agent to exactly this capability.
    pub fn check_enforceable(&self) -> Result<(), NotEnforceable> {
        let Some(pattern) = self.pattern() else {
            return match self {
                Self::Net(..) => Err(NotEnforceable::Net(self.clone())),
                _ => Ok(()),
            };
        };
        match pattern.kernel_prefix() {
            KernelPrefix::Glob { below } => Err(NotEnforceable::Glob { capability: self.clone(), below }),
            KernelPrefix::Exact(path) | KernelPrefix::Subtree(path) if path == AbsolutePath::root() => {
                Err(NotEnforceable::Root(self.clone()))
            }
            KernelPrefix::Exact(_) | KernelPrefix::Subtree(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_can_hold() {
        for good in ["file_read: /srv/**", "file_write: /srv/a", "exec: /usr/bin/git", "listen: 80"] {
            assert_eq!(good.parse::<Capability>().unwrap().check_enforceable(), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("net: example.org:443", "`net: example.org:443` needs aos-broker"),
            ("file_read: /etc/*.conf", "or write `/etc/**` for everything"),
            ("exec: /*/x", "or write `/**` for everything"),
            ("file_read: /", "names the whole file system"),
            ("file_write: /**", "names the whole file system"),
        ] {
            let error = bad.parse::<Capability>().unwrap().check_enforceable().unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
