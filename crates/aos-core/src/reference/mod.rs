//! Names of packages and images in registries: `web:1.0.0`, `reg.example:5000/team/web:1.0.0`,
//! `reg.example/team/web@sha256:...`, in the grammar of the OCI distribution specification
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests>).
//!
//! A name without a registry is local: there is no default registry, so that a name never means a
//! stranger's host. Every type is valid once it exists, and prints what it was parsed from.

mod location;

pub use location::{BadLocation, Location};

use crate::id::{Digest, IdError, PackageName, VERSION_MAX, Version, parse_version};
use crate::macros::{is_its_text, serde_as_text};
use crate::quoted::Quoted;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use thiserror::Error;

/// Characters of a repository's path: many registries take 255 at most for host and path.
pub const REPOSITORY_PATH_MAX: usize = 255;
/// Characters of a tag (OCI distribution specification).
pub const TAG_MAX: usize = 128;
/// Characters of a registry: a DNS name (RFC 1035: 253) and `:65535`.
pub const REGISTRY_MAX: usize = 259;
/// Characters of a DNS label (RFC 1035).
const LABEL_MAX: usize = 63;

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// The text is empty.
    #[error("reference is empty")]
    Empty,
    /// The text starts like an address of another tool.
    #[error("reference {} starts with `{scheme}`: leave it out", Quoted(.text))]
    Scheme {
        /// The text.
        text: String,
        /// What it starts with.
        scheme: &'static str,
    },
    /// The registry is wrong.
    #[error(
        "registry {} is not valid, expected HOST or HOST:PORT in lower case, such as registry.example:5000",
        Quoted(.0)
    )]
    Registry(String),
    /// The path is too long.
    #[error("repository {} has {length} characters, at most {REPOSITORY_PATH_MAX} are allowed", Quoted(.text))]
    PathTooLong {
        /// The path.
        text: String,
        /// Characters found.
        length: usize,
    },
    /// A part of the path is wrong.
    #[error(
        "repository {} has the part {}: parts have a-z and 0-9, and `.`, `_`, `__` or `-` between them",
        Quoted(.path),
        Quoted(.part)
    )]
    PathPart {
        /// The path.
        path: String,
        /// The part.
        part: String,
    },
    /// The tag is wrong.
    #[error(
        "tag {} is not valid, expected 1 to {TAG_MAX} of letters, digits, `_`, `.` and `-`, the first none of `.` and `-`",
        Quoted(.0)
    )]
    Tag(String),
    /// The digest is wrong.
    #[error(transparent)]
    Digest(#[from] IdError),
}

/// A registry: `HOST` or `HOST:PORT`, where the host is a lower-case name, an IPv4 address or an
/// IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registry(String);

impl Registry {
    /// The host without the port; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        split_port(&self.0).0
    }

    /// The port, when one is written.
    pub fn port(&self) -> Option<u16> {
        split_port(&self.0).1.and_then(|port| port.parse().ok())
    }
}

/// The host and the port's digits; brackets hold an address that has colons itself.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address);
    }
    let label = |label: &str| {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(good)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.split('.').all(label)
}

fn is_port(text: &str) -> bool {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    plain && text.parse::<u16>().is_ok()
}

impl FromStr for Registry {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (host, port) = split_port(text);
        if text.len() > REGISTRY_MAX || !is_host(host) || !port.is_none_or(is_port) {
            return Err(ReferenceError::Registry(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The path of a repository: parts of lower-case letters and digits, joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryPath(String);

impl RepositoryPath {
    /// The parts from the left.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The last part: what a package's name is compared with.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

/// Letters and digits with single separators between them: `.`, `_`, `__` or any number of `-`.
fn is_path_part(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut rest = part;
    loop {
        let end = rest.bytes().position(|b| !word(b)).unwrap_or(rest.len());
        let Some((run, tail)) = rest.split_at_checked(end) else { return false };
        if run.is_empty() {
            return false;
        }
        if tail.is_empty() {
            return true;
        }
        let dashes = tail.bytes().take_while(|&b| b == b'-').count();
        let length = match tail.as_bytes() {
            [b'_', b'_', ..] => 2,
            [b'_' | b'.', ..] => 1,
            _ => dashes,
        };
        match tail.get(length..) {
            Some(next) if length > 0 => rest = next,
            _ => return false,
        }
    }
}

impl FromStr for RepositoryPath {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > REPOSITORY_PATH_MAX {
            return Err(ReferenceError::PathTooLong { text: text.to_owned(), length: text.len() });
        }
        match text.split('/').find(|part| !is_path_part(part)) {
            None => Ok(Self(text.to_owned())),
            Some(part) => Err(ReferenceError::PathPart { path: text.to_owned(), part: part.to_owned() }),
        }
    }
}

impl TryFrom<&PackageName> for RepositoryPath {
    type Error = ReferenceError;

    /// A package's name as a repository. Names with two separators in a row have none.
    fn try_from(name: &PackageName) -> Result<Self, ReferenceError> {
        name.as_str().parse()
    }
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The tag of a version: its text, with `_` for the `+` that no tag may have (as Helm does it).
    pub fn of_version(version: &Version) -> Self {
        Self(version.to_string().replace('+', "_"))
    }

    /// The version that the tag names; `None` for tags such as `latest`.
    pub fn version(&self) -> Option<Version> {
        if self.0.len() > VERSION_MAX {
            return None;
        }
        // A version has no `_`, so the first one stands for `+`.
        parse_version(&self.0.replacen('_', "+", 1)).ok()
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let good = text.len() <= TAG_MAX
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if good { Ok(Self(text.to_owned())) } else { Err(ReferenceError::Tag(text.to_owned())) }
    }
}

/// A reference: `[REGISTRY/]PATH[:TAG][@DIGEST]`. With both, the digest decides what is meant, and
/// the tag says how it is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Reference {
    /// Where it is; `None` means this machine's store.
    pub registry: Option<Registry>,
    /// The repository.
    pub path: RepositoryPath,
    /// The tag.
    pub tag: Option<Tag>,
    /// The manifest's digest.
    pub digest: Option<Digest>,
}

/// True when the first of several parts of a reference is a registry.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

impl Reference {
    /// A reference of its parts. An error when the path without a registry would be read as one with
    /// a registry, such as `a.b/c`.
    pub fn new(
        registry: Option<Registry>,
        path: RepositoryPath,
        tag: Option<Tag>,
        digest: Option<Digest>,
    ) -> Result<Self, ReferenceError> {
        match path.as_str().split_once('/') {
            Some((first, _)) if registry.is_none() && is_registry(first) => {
                Err(ReferenceError::Registry(path.0))
            }
            _ => Ok(Self { registry, path, tag, digest }),
        }
    }

    /// The local reference `name:version` of a package. A name with two separators in a row, which
    /// no registry takes, has none.
    pub fn local(name: &PackageName, version: &Version) -> Result<Self, ReferenceError> {
        let path = RepositoryPath::try_from(name)?;
        Ok(Self { registry: None, path, tag: Some(Tag::of_version(version)), digest: None })
    }

    /// True when it names one thing: it has a tag or a digest.
    pub const fn is_specific(&self) -> bool {
        self.tag.is_some() || self.digest.is_some()
    }

    /// `[REGISTRY/]PATH`, without tag and digest.
    pub fn repository(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.path),
            None => self.path.to_string(),
        }
    }

    /// The same repository with another tag and no digest.
    pub fn with_tag(&self, tag: Tag) -> Self {
        Self { tag: Some(tag), digest: None, ..self.clone() }
    }

    /// The same repository with a digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }
}

/// Addresses of other tools, whose references have a scheme.
const SCHEMES: [&str; 3] = ["docker://", "https://", "http://"];

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if let Some(scheme) = SCHEMES.into_iter().find(|scheme| text.starts_with(scheme)) {
            return Err(ReferenceError::Scheme { text: text.to_owned(), scheme });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((first, rest)) if is_registry(first) => (Some(first.parse()?), rest),
            _ => (None, rest),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag.parse()?)),
            None => (rest, None),
        };
        Ok(Self { registry, path: path.parse()?, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        write!(f, "{}", self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

is_its_text!(Registry, RepositoryPath, Tag);
serde_as_text!(Reference);

#[cfg(test)]
mod tests;
