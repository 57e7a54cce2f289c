//! What is never granted: a capability, or a pattern of paths whatever the access.

use std::fmt;
use std::str::FromStr;

use aos_core::capability::{Capability, KernelPrefix, PathPattern, PatternError};

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deny {
    /// What this capability covers, and what would cover it.
    Capability(Capability),
    /// Every access to these paths.
    Paths(PathPattern),
}

impl Deny {
    /// Whether a capability would give something of it.
    pub(crate) fn is_about(&self, capability: &Capability) -> bool {
        match self {
            Self::Capability(denied) => denied.covers(capability) || capability.covers(denied),
            Self::Paths(denied) => capability.pattern().is_some_and(|pattern| {
                let holds = match pattern.kernel_prefix() {
                    KernelPrefix::Exact(path) | KernelPrefix::Subtree(path) => denied.matches(&path),
                    KernelPrefix::Glob { .. } => false,
                };
                holds || pattern.is_subset(denied) || denied.is_subset(pattern)
            }),
        }
    }
}

impl FromStr for Deny {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        match text.parse() {
            Ok(capability) => Ok(Self::Capability(capability)),
            Err(_) => text.parse().map(Self::Paths),
        }
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(capability) => capability.fmt(f),
            Self::Paths(pattern) => pattern.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied() {
        let about = |deny: &str, capability: &str| {
            deny.parse::<Deny>().unwrap().is_about(&capability.parse().unwrap())
        };
        for (deny, capability) in [
            ("/srv/private/**", "file_read: /srv/private/a"),
            ("/srv/private/**", "exec: /srv/private"),
            ("/srv/private/a", "file_read: /srv/**"),
            ("exec: /usr/bin/*", "exec: /usr/bin/git"),
            ("file_write: /srv/**", "file_read: /srv/a"),
            ("listen: 80", "listen: 80"),
        ] {
            assert!(about(deny, capability), "{deny}: {capability}");
        }
        for (deny, capability) in [
            ("/srv/private/**", "file_read: /srv/public"),
            ("/srv/**", "listen: 80"),
            ("exec: /usr/bin/*", "file_read: /usr/bin/git"),
            ("listen: 80", "listen: 81"),
        ] {
            assert!(!about(deny, capability), "{deny}: {capability}");
        }
        assert!("relative".parse::<Deny>().is_err());
    }
}
