//! What an agent may do: the capability grammar and its algebra.
//!
//! One line each, `name: value`, parsed once and printed back canonically; after the value, qualifiers
//! may stand in brackets, which hold for each use:
//!
//! ```text
//! file_read: /data/**          file_write: /data/out/**     exec: /usr/bin/git
//! net: api.github.com:443      net: *.example.org:443       net: 192.0.2.1:5432
//! listen: 8080                 inference: fast              tool: mcp.github.*
//! memory: read                 message: reviewer            spawn: researcher
//! skill: *                     secret: token@api.github.com device: gpu
//!
//! net: api.github.com:443 [approval=once, max_calls=10, max_bytes=1M, expires=2027-01-31T18:00:00Z]
//! ```
//!
//! A bracket opens qualifiers after a space, and no value has one there: a path pattern refuses brackets,
//! an IPv6 address has its own at the start.
//!
//! Capabilities only narrow: [`CapabilitySet::narrow`] accepts a child's set when each of its
//! members is covered by one member of the parent's. Coverage is sound: what is covered permits
//! nothing that the covering capability does not, under no circumstances.
//!
//! The algebra is about names. A path is in normal form and is matched by its text, so that `..` cannot
//! widen it. Symbolic links are unknown here: whoever opens a granted path refuses to pass through one.

mod access;
mod address;
mod enforce;
mod error;
mod host;
mod name;
mod pattern;
#[cfg(test)]
mod properties;
mod qualifier;
mod right;
mod set;

pub use access::{Access, Circumstances};
pub use address::AddressError;
pub use enforce::NotEnforceable;
pub use error::CapabilityError;
pub use host::{HostError, HostName, HostPattern};
pub use name::{
    AnyOr, BadToolName, DeviceName, MemoryUse, ModelAlias, NAME_MAX, NameError, NotAMemoryUse, TOOL_NAME_MAX,
    ToolName, ToolPattern,
};
pub use pattern::{GLOBS_MAX, KernelPrefix, PathPattern, PatternError};
pub use qualifier::{Approval, NotAnApproval, QUALIFIERS, QualifierError, Qualifiers, Unmet};
pub use right::{KNOWN, Right};
pub use set::{CAPABILITIES_MAX, CapabilitySet, SetError};

use crate::macros::serde_as_text;
use std::fmt;
use std::str::FromStr;

/// Bytes of one line: the longest path, with its name and qualifiers.
pub const LINE_MAX_BYTES: usize = 4_352;

/// One thing that an agent may do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capability {
    right: Right,
    qualifiers: Qualifiers,
}

fn bad_qualifier(right: &Right, source: QualifierError) -> CapabilityError {
    CapabilityError::Qualifier { capability: right.to_string(), source: Box::new(source) }
}

impl From<Right> for Capability {
    /// Without qualifiers.
    fn from(right: Right) -> Self {
        Self { right, qualifiers: Qualifiers::default() }
    }
}

impl Capability {
    /// A capability with qualifiers.
    pub const fn new(right: Right, qualifiers: Qualifiers) -> Self {
        Self { right, qualifiers }
    }

    /// What it is for.
    pub const fn right(&self) -> &Right {
        &self.right
    }

    /// What holds for each use.
    pub const fn qualifiers(&self) -> &Qualifiers {
        &self.qualifiers
    }

    /// The name in the grammar.
    pub const fn name(&self) -> &'static str {
        self.right.name()
    }

    /// Parses from the two halves of the line; the value may have qualifiers after it.
    pub fn from_parts(name: &str, value: &str) -> Result<Self, CapabilityError> {
        let length = name.len() + value.len();
        if length > LINE_MAX_BYTES {
            return Err(CapabilityError::TooLong(length));
        }
        let split = value.strip_suffix(']').and_then(|line| line.rsplit_once(" ["));
        let Some((value, list)) = split else {
            return Right::from_parts(name, value).map(Self::from);
        };
        let right = Right::from_parts(name, value)?;
        match Qualifiers::parse_list(list) {
            Ok(qualifiers) => Ok(Self { right, qualifiers }),
            Err(source) => Err(bad_qualifier(&right, source)),
        }
    }

    /// The same with one more qualifier, by its name.
    pub fn qualified(mut self, name: &str, value: &str) -> Result<Self, CapabilityError> {
        match self.qualifiers.set(name, value) {
            Ok(()) => Ok(self),
            Err(source) => Err(bad_qualifier(&self.right, source)),
        }
    }

    /// True when this capability names `access`; its qualifiers may still refuse a use.
    pub fn permits(&self, access: &Access) -> bool {
        self.right.permits(access)
    }

    /// True when this capability alone allows `access` as things are.
    pub fn permits_under(&self, access: &Access, circumstances: &Circumstances<'_>) -> bool {
        self.right.permits(access) && self.qualifiers.check(circumstances).is_ok()
    }

    /// True when everything that `other` permits, this permits too, under the same circumstances.
    pub fn covers(&self, other: &Self) -> bool {
        self.right.covers(&other.right) && other.qualifiers.is_subset(&self.qualifiers)
    }

    /// True when `other` covers this.
    pub fn is_subset(&self, other: &Self) -> bool {
        other.covers(self)
    }

    /// The path pattern, for the capabilities that have one.
    pub const fn pattern(&self) -> Option<&PathPattern> {
        self.right.pattern()
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        if text.len() > LINE_MAX_BYTES {
            return Err(CapabilityError::TooLong(text.len()));
        }
        let (name, value) = text.split_once(':').ok_or_else(|| CapabilityError::Form(text.to_owned()))?;
        // Only the separator is free in its spaces; a space at the end belongs to the value.
        let value = value.trim_start_matches(' ');
        if name.is_empty() || value.is_empty() {
            return Err(CapabilityError::Form(text.to_owned()));
        }
        Self::from_parts(name, value)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.right.fmt(f)?;
        if self.qualifiers.is_empty() { Ok(()) } else { write!(f, " {}", self.qualifiers) }
    }
}

serde_as_text!(Capability);

#[cfg(test)]
mod tests {
    use super::*;

    fn cap(text: &str) -> Capability {
        text.parse().unwrap()
    }

    #[test]
    fn canonical_text() {
        for (text, printed) in [
            ("file_read:/data/**", "file_read: /data/**"),
            ("file_write: /data/*.txt", "file_write: /data/*.txt"),
            ("exec:   /usr/bin/git", "exec: /usr/bin/git"),
            ("net: *.example.org:443", "net: *.example.org:443"),
            ("net:192.0.2.1:80", "net: 192.0.2.1:80"),
            ("net: [2001:db8::1]:80", "net: [2001:db8::1]:80"),
            ("listen: 8080", "listen: 8080"),
            ("tool: mcp.github.*", "tool: mcp.github.*"),
            ("memory:write", "memory: write"),
            ("message: *", "message: *"),
            ("secret: GH_TOKEN@api.github.com", "secret: GH_TOKEN@api.github.com"),
            ("device: gpu", "device: gpu"),
            ("exec: /a [max_bytes=1024,max_calls=3]", "exec: /a [max_calls=3, max_bytes=1K]"),
            ("net: [::1]:80 [approval=once]", "net: [::1]:80 [approval=once]"),
            ("file_read: /a b  [max_calls=1]", "file_read: /a b  [max_calls=1]"),
        ] {
            assert_eq!(cap(text).to_string(), printed);
            assert_eq!(cap(printed), cap(text));
        }
        // The space before the bracket belongs to the line, one more to the path.
        let spaced = cap("file_read: /a b  [max_calls=1]");
        assert_eq!(spaced.pattern().unwrap().as_str(), "/a b ");
    }

    #[test]
    fn errors_say_what_is_expected() {
        let long = format!("file_read: /{}", "a/".repeat(3_000));
        for (bad, says) in [
            ("file_read", "form `name: value`"),
            ("file_read:", "form `name: value`"),
            (": /x", "form `name: value`"),
            ("file_raed: /x", "known are file_read, file_write, exec, net, listen, inference, tool, memory"),
            ("File_read: /x", "unknown capability"),
            ("file_read : /x", "unknown capability `file_read `"),
            ("file_read: data", "not absolute"),
            ("file_read: /a\nexec: /usr/bin/sh", "U+000A"),
            ("net: example.org", "HOST:PORT"),
            ("net: example.org:0", "1 to 65535"),
            ("net: example.org:65536", "1 to 65535"),
            ("net: example.org:+1", "1 to 65535"),
            ("net: [::1]", "not an IPv6 address in brackets"),
            ("net: 127.1:80", "looks like an address"),
            ("net: ::1:80", "allowed are a-z"),
            ("listen: 080", "1 to 65535"),
            ("listen: 8080 ", "1 to 65535"),
            ("inference: Fast", "capability `inference`: model alias has `F`"),
            ("tool: mcp.git*", "capability `tool`: tool `mcp.git*` is not valid"),
            ("memory: all", "capability `memory`: expected read or write"),
            ("message: a_b", "capability `message`: agent id has `_`"),
            ("spawn: ../x", "capability `spawn`: package name has `/`"),
            ("skill: **", "capability `skill`: package name has `*`"),
            ("secret: token", "NAME@HOST"),
            ("secret: token@*.a.org", "capability `secret`: host `*.a.org`"),
            ("secret: token@192.0.2.1", "looks like an address"),
            ("secret: token@a.org:443", "capability `secret`: host"),
            ("secret: a b@a.org", "secret name `a b` is not valid"),
            ("exec: /a [calls=3]", "capability `exec: /a`: unknown qualifier `calls`, known are approval"),
            ("exec: /a []", "form name=value"),
            ("exec: /a [max_calls=3] ", "not part of the grammar"),
            ("exec: /a[max_calls=3]", "not part of the grammar"),
            (&long, "at most 4352 are allowed"),
        ] {
            let error = bad.parse::<Capability>().unwrap_err().to_string();
            assert!(error.contains(says), "{bad:?}: {error}");
        }
    }

    #[test]
    fn writing_covers_reading_and_nothing_covers_exec() {
        for (wide, narrow) in [
            ("file_write: /a/**", "file_read: /a/b"),
            ("net: *.a.org:443", "net: x.a.org:443"),
            ("memory: write", "memory: read"),
            ("message: *", "message: reviewer"),
            ("tool: mcp.*.*", "tool: mcp.github.search"),
            ("exec: /a", "exec: /a [max_calls=9]"),
            ("exec: /a [max_calls=9]", "exec: /a [approval=once, max_calls=9]"),
            ("exec: /a [approval=plan]", "exec: /a [approval=always]"),
            ("exec: /a [expires=2027-01-01T00:00:00Z]", "exec: /a [expires=2026-01-01T00:00:00Z]"),
        ] {
            assert!(cap(wide).covers(&cap(narrow)), "{wide} covers {narrow}");
            assert!(!cap(narrow).covers(&cap(wide)), "{narrow} does not cover {wide}");
        }
        for (one, other) in [
            ("file_write: /a/**", "exec: /a/b"),
            ("exec: /a/**", "file_read: /a/b"),
            ("net: *.a.org:443", "net: x.a.org:80"),
            ("net: *.a.org:443", "net: 192.0.2.1:443"),
            ("net: 192.0.2.1:443", "net: 192.0.2.2:443"),
            ("spawn: *", "skill: *"),
            ("secret: a@a.org", "secret: a@b.org"),
            ("exec: /a [approval=plan]", "exec: /a [approval=once]"),
            ("exec: /a [max_calls=1]", "exec: /a [max_bytes=1]"),
        ] {
            assert!(!cap(one).covers(&cap(other)) && !cap(other).covers(&cap(one)), "{one} {other}");
        }
    }

    #[test]
    fn the_example_of_every_known_name_parses() {
        for (name, form) in KNOWN {
            let examples: Vec<&str> = form.split('`').skip(1).step_by(2).collect();
            assert!(!examples.is_empty(), "{form}");
            for example in examples {
                assert_eq!(cap(example).name(), name);
            }
        }
    }
}
