//! What an agent may do: the capability grammar and its algebra.
//!
//! One line each, `name: value`, parsed once and printed back canonically:
//!
//! ```text
//! file_read: /data/**       file_write: /data/out/**     exec: /usr/bin/git
//! net: api.github.com:443   net: *.example.org:443       listen: 8080
//! ```
//!
//! Capabilities only narrow: [`CapabilitySet::narrow`] accepts a child's set when each of its
//! members is covered by one member of the parent's. Coverage is sound: what is covered permits
//! nothing that the covering capability does not.

mod enforce;
mod host;
mod pattern;
mod set;

pub use enforce::NotEnforceable;
pub use host::{HostError, HostName, HostPattern};
pub use pattern::{GLOBS_MAX, KernelPrefix, PathPattern, PatternError};
pub use set::{CAPABILITIES_MAX, CapabilitySet, SetError};

use crate::macros::serde_as_text;
use crate::path::AbsolutePath;
use crate::quoted::Quoted;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// One thing that an agent may do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// Read files and list directories. Gives no right to execute.
    FileRead(PathPattern),
    /// Create, change, remove and also read files. Gives no right to execute.
    FileWrite(PathPattern),
    /// Execute programs.
    Exec(PathPattern),
    /// Connect to a host by name and port.
    Net(HostPattern, u16),
    /// Listen on a TCP port of the agent's own loopback.
    Listen(u16),
}

/// One concrete thing that an agent asks to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Read this file.
    FileRead(AbsolutePath),
    /// Write this file.
    FileWrite(AbsolutePath),
    /// Execute this file.
    Exec(AbsolutePath),
    /// Connect to this host and port.
    Net(HostName, u16),
    /// Listen on this port.
    Listen(u16),
}

/// The capability names of this version, and the form of each value. Parser, messages and schema
/// are derived from it.
pub const KNOWN: [(&str, &str); 5] = [
    ("file_read", "an absolute path pattern, such as `file_read: /data/**`"),
    ("file_write", "an absolute path pattern, such as `file_write: /data/out/**`"),
    ("exec", "an absolute path pattern, such as `exec: /usr/bin/git`"),
    ("net", "HOST:PORT, such as `net: api.github.com:443`"),
    ("listen", "a port, such as `listen: 8080`"),
];

/// Names that the design has and this version does not enforce: refused with that explanation.
pub const NOT_ENFORCED: [&str; 8] =
    ["inference", "tool", "memory", "message", "spawn", "skill", "secret", "device"];

/// Why a text is not a capability.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CapabilityError {
    /// There is no `name: value`.
    #[error("capability {} has not the form `name: value`, such as `file_read: /data/**`", Quoted(.0))]
    Form(String),
    /// The name belongs to a later version.
    #[error("capability `{0}` is not enforced by this version of AOS: remove it")]
    NotEnforced(&'static str),
    /// The name is unknown.
    #[error("unknown capability {}, known are {}", Quoted(.0), known_names())]
    Unknown(String),
    /// The path pattern is wrong.
    #[error("capability `{name}`: {source}")]
    Pattern {
        /// The capability's name.
        name: &'static str,
        /// What is wrong.
        source: PatternError,
    },
    /// The host is wrong.
    #[error("capability `net`: {0}")]
    Host(#[from] HostError),
    /// The port is wrong.
    #[error("capability `{name}`: port {} is not a number from 1 to 65535", Quoted(.text))]
    Port {
        /// The capability's name.
        name: &'static str,
        /// The text.
        text: String,
    },
}

fn known_names() -> String {
    KNOWN.map(|(name, _)| name).join(", ")
}

/// Parses a port: plain digits, no leading zero, 1 to 65535.
fn parse_port(name: &'static str, text: &str) -> Result<u16, CapabilityError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let port = if plain { text.parse().ok() } else { None };
    port.ok_or_else(|| CapabilityError::Port { name, text: text.to_owned() })
}

impl Capability {
    /// The name in the grammar.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::FileRead(_) => "file_read",
            Self::FileWrite(_) => "file_write",
            Self::Exec(_) => "exec",
            Self::Net(..) => "net",
            Self::Listen(_) => "listen",
        }
    }

    /// Parses from the two halves of the line.
    pub fn from_parts(name: &str, value: &str) -> Result<Self, CapabilityError> {
        let pattern = |name: &'static str| {
            value.parse::<PathPattern>().map_err(|source| CapabilityError::Pattern { name, source })
        };
        match name {
            "file_read" => Ok(Self::FileRead(pattern("file_read")?)),
            "file_write" => Ok(Self::FileWrite(pattern("file_write")?)),
            "exec" => Ok(Self::Exec(pattern("exec")?)),
            "net" => {
                let (host, port) = value
                    .rsplit_once(':')
                    .ok_or_else(|| CapabilityError::Host(HostError::NoPort(value.to_owned())))?;
                Ok(Self::Net(host.parse()?, parse_port("net", port)?))
            }
            "listen" => Ok(Self::Listen(parse_port("listen", value)?)),
            _ => Err(match NOT_ENFORCED.into_iter().find(|&later| later == name) {
                Some(later) => CapabilityError::NotEnforced(later),
                None => CapabilityError::Unknown(name.to_owned()),
            }),
        }
    }

    /// True when this capability alone allows `access`.
    pub fn permits(&self, access: &Access) -> bool {
        match (self, access) {
            (Self::FileRead(pattern) | Self::FileWrite(pattern), Access::FileRead(path))
            | (Self::FileWrite(pattern), Access::FileWrite(path))
            | (Self::Exec(pattern), Access::Exec(path)) => pattern.matches(path),
            (Self::Net(host, port), Access::Net(name, to)) => port == to && host.matches(name),
            (Self::Listen(port), Access::Listen(on)) => port == on,
            _ => false,
        }
    }

    /// True when everything that `other` permits, this permits too. Writing covers reading.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::FileRead(a) | Self::FileWrite(a), Self::FileRead(b))
            | (Self::FileWrite(a), Self::FileWrite(b))
            | (Self::Exec(a), Self::Exec(b)) => b.is_subset(a),
            (Self::Net(a, port), Self::Net(b, to)) => port == to && b.is_subset(a),
            (Self::Listen(a), Self::Listen(b)) => a == b,
            _ => false,
        }
    }

    /// True when `other` covers this.
    pub fn is_subset(&self, other: &Self) -> bool {
        other.covers(self)
    }

    /// The path pattern, for the capabilities that have one.
    pub const fn pattern(&self) -> Option<&PathPattern> {
        match self {
            Self::FileRead(pattern) | Self::FileWrite(pattern) | Self::Exec(pattern) => Some(pattern),
            Self::Net(..) | Self::Listen(_) => None,
        }
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
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
        let name = self.name();
        match self {
            Self::FileRead(pattern) | Self::FileWrite(pattern) | Self::Exec(pattern) => {
                write!(f, "{name}: {pattern}")
            }
            Self::Net(host, port) => write!(f, "{name}: {host}:{port}"),
            Self::Listen(port) => write!(f, "{name}: {port}"),
        }
    }
}

serde_as_text!(Capability);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text() {
        for (text, printed) in [
            ("file_read:/data/**", "file_read: /data/**"),
            ("file_write: /data/*.txt", "file_write: /data/*.txt"),
            ("exec:   /usr/bin/git", "exec: /usr/bin/git"),
            ("net: *.example.org:443", "net: *.example.org:443"),
            ("listen: 8080", "listen: 8080"),
        ] {
            assert_eq!(text.parse::<Capability>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn errors_say_what_is_expected() {
        for (bad, says) in [
            ("file_read", "form `name: value`"),
            ("file_read:", "form `name: value`"),
            (": /x", "form `name: value`"),
            ("file_raed: /x", "known are file_read, file_write, exec, net, listen"),
            ("File_read: /x", "unknown capability"),
            ("file_read : /x", "unknown capability `file_read `"),
            ("tool: web_fetch", "not enforced by this version"),
            ("file_read: data", "not absolute"),
            ("file_read: /a\nexec: /usr/bin/sh", "U+000A"),
            ("net: example.org", "HOST:PORT"),
            ("net: example.org:0", "1 to 65535"),
            ("net: example.org:65536", "1 to 65535"),
            ("net: example.org:+1", "1 to 65535"),
            ("listen: 080", "1 to 65535"),
            ("listen: 8080 ", "1 to 65535"),
        ] {
            let error = bad.parse::<Capability>().unwrap_err().to_string();
            assert!(error.contains(says), "{bad:?}: {error}");
        }
    }

    #[test]
    fn writing_covers_reading_and_nothing_covers_exec() {
        let cap = |text: &str| text.parse::<Capability>().unwrap();
        assert!(cap("file_write: /a/**").covers(&cap("file_read: /a/b")));
        assert!(!cap("file_read: /a/**").covers(&cap("file_write: /a/b")));
        assert!(!cap("file_write: /a/**").covers(&cap("exec: /a/b")));
        assert!(!cap("exec: /a/**").covers(&cap("file_read: /a/b")));
        assert!(cap("net: *.a.org:443").covers(&cap("net: x.a.org:443")));
        assert!(!cap("net: *.a.org:443").covers(&cap("net: x.a.org:80")));
    }

    #[test]
    fn every_known_name_parses_and_no_later_one_does() {
        for (name, form) in KNOWN {
            let example = form.split('`').nth(1).unwrap_or_default();
            let example = if example.is_empty() { form } else { example };
            let capability: Capability = example.parse().unwrap();
            assert_eq!(capability.name(), name);
        }
        for name in NOT_ENFORCED {
            assert!(matches!(
                format!("{name}: x").parse::<Capability>(),
                Err(CapabilityError::NotEnforced(_))
            ));
        }
    }
}
