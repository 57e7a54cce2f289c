//! Names and references: the agent id, the package name and version, content digests and package
//! references. Each is a newtype that is valid once it exists; on the wire it is its text.

use crate::macros::serde_as_text;
use crate::quoted::Quoted;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

pub use semver::Version;

/// The agent's Unix user is `aos-ID`, and utmp holds 31 characters of a user name.
pub const AGENT_ID_MAX: usize = 27;
/// A package name is also a file name and a DNS label in a registry.
pub const PACKAGE_NAME_MAX: usize = 63;
/// `name:version` stays far below the 255 bytes of a file name and of an OCI reference.
pub const VERSION_MAX: usize = 64;

/// Why a text is not an id. `what` names the kind of id, for the message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// The text is empty.
    #[error("{what} is empty")]
    Empty {
        /// The kind of id.
        what: &'static str,
    },
    /// The text is longer than the bound.
    #[error("{what} has {length} characters, at most {max} are allowed")]
    TooLong {
        /// The kind of id.
        what: &'static str,
        /// Characters found.
        length: usize,
        /// Characters allowed.
        max: usize,
    },
    /// A character is not in the alphabet.
    #[error("{what} has {} at position {position}, allowed are {allowed}", Quoted(.found.encode_utf8(&mut [0; 4])))]
    BadCharacter {
        /// The kind of id.
        what: &'static str,
        /// The character.
        found: char,
        /// Its place, counted in characters from 1.
        position: usize,
        /// The alphabet, in words.
        allowed: &'static str,
    },
    /// The first or last character is not a letter or digit.
    #[error("{what} {} must start and end with a letter or digit", Quoted(.text))]
    BadEdge {
        /// The kind of id.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Two dots follow each other.
    #[error("{what} {} must not contain `..`", Quoted(.text))]
    DoubleDot {
        /// The kind of id.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The text is not `sha256:` and 64 lowercase hex digits.
    #[error("digest {} is not `sha256:` followed by 64 lowercase hex digits", Quoted(.text))]
    BadDigest {
        /// The text.
        text: String,
    },
    /// The text is not a semantic version.
    #[error("version {} is not of the form MAJOR.MINOR.PATCH (semver.org): {reason}", Quoted(.text))]
    BadVersion {
        /// The text.
        text: String,
        /// What the semver parser says.
        reason: String,
    },
}

/// Checks length, alphabet and edges of an ASCII name.
pub(crate) fn check_name(
    what: &'static str,
    text: &str,
    max: usize,
    inner: &str,
    allowed: &'static str,
) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if let Some((index, found)) = text.chars().enumerate().find(|&(_, c)| !good(c) && !inner.contains(c)) {
        return Err(IdError::BadCharacter { what, found, position: index + 1, allowed });
    }
    if text.len() > max {
        return Err(IdError::TooLong { what, length: text.len(), max });
    }
    if !text.starts_with(good) || !text.ends_with(good) {
        return Err(IdError::BadEdge { what, text: text.to_owned() });
    }
    Ok(())
}

/// The name of one agent on one machine: 1 to 27 characters of `[a-z0-9-]`, a letter or digit at
/// both ends. It needs no escaping in unit names, D-Bus, paths and user names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(String);

impl AgentId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The systemd unit that runs the agent.
    pub fn unit_name(&self) -> String {
        format!("aos-agent@{}.service", self.0)
    }

    /// The Unix user (and group) that the agent runs as.
    pub fn user_name(&self) -> String {
        format!("aos-{}", self.0)
    }
}

impl FromStr for AgentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        check_name("agent id", text, AGENT_ID_MAX, "-", "a-z, 0-9 and `-`")?;
        Ok(Self(text.to_owned()))
    }
}

/// The name of a package: 1 to 63 characters of `[a-z0-9._-]`, a letter or digit at both ends, no
/// `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageName(String);

impl PackageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PackageName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let what = "package name";
        check_name(what, text, PACKAGE_NAME_MAX, "._-", "a-z, 0-9, `.`, `_` and `-`")?;
        if text.contains("..") {
            return Err(IdError::DoubleDot { what, text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

/// Parses a semantic version of at most [`VERSION_MAX`] characters.
pub fn parse_version(text: &str) -> Result<Version, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what: "version" });
    }
    if text.len() > VERSION_MAX {
        return Err(IdError::TooLong { what: "version", length: text.len(), max: VERSION_MAX });
    }
    Version::parse(text)
        .map_err(|error| IdError::BadVersion { text: text.to_owned(), reason: error.to_string() })
}

/// A SHA-256 content digest, `sha256:` and 64 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of content whose SHA-256 is `bytes`.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String does not fail.
            if write!(text, "{byte:02x}").is_err() {
                text.clear();
            }
            text
        })
    }
}

impl FromStr for Digest {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::BadDigest { text: text.to_owned() };
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which build of a named package is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Selector {
    /// The highest version present.
    Newest,
    /// Exactly this version.
    Version(Version),
    /// Exactly this content.
    Digest(Digest),
}

/// A reference to a package: `name`, `name:version` or `name@sha256:...`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageRef {
    /// The package's name.
    pub name: PackageName,
    /// Which build of it.
    pub selector: Selector,
}

impl PackageRef {
    /// The reference `name:version`.
    pub fn exact(name: PackageName, version: Version) -> Self {
        Self { name, selector: Selector::Version(version) }
    }
}

impl FromStr for PackageRef {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (name, selector) = if let Some((name, digest)) = text.split_once('@') {
            (name, Selector::Digest(digest.parse()?))
        } else if let Some((name, version)) = text.split_once(':') {
            (name, Selector::Version(parse_version(version)?))
        } else {
            (text, Selector::Newest)
        };
        Ok(Self { name: name.parse()?, selector })
    }
}

impl fmt::Display for PackageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            Selector::Newest => write!(f, "{}", self.name),
            Selector::Version(version) => write!(f, "{}:{version}", self.name),
            Selector::Digest(digest) => write!(f, "{}@{digest}", self.name),
        }
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for AgentId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for PackageName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

serde_as_text!(AgentId);
serde_as_text!(PackageName);
serde_as_text!(Digest);
serde_as_text!(PackageRef);

/// [`version_text`] for a field that may be absent, with `#[serde(default)]`.
pub(crate) mod optional_version_text {
    use super::{Version, version_text};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        version: &Option<Version>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match version {
            Some(version) => version_text::serialize(version, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Version>, D::Error> {
        version_text::deserialize(deserializer).map(Some)
    }
}

/// Serde for a [`Version`] field that keeps the bound of [`parse_version`]:
/// `#[serde(with = "aos_core::id::version_text")]`.
pub mod version_text {
    use super::{Version, parse_version};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use std::borrow::Cow;

    /// Writes the version as text.
    pub fn serialize<S: Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(version)
    }

    /// Reads the version from bounded text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
        parse_version(&Cow::<'de, str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_ids() {
        for good in ["a", "0", "web-1", "a--b", &"x".repeat(27)] {
            assert_eq!(good.parse::<AgentId>().unwrap().to_string(), good);
        }
        let long = "x".repeat(300);
        for (bad, says) in [
            ("", "agent id is empty"),
            ("-a", "must start and end"),
            ("a-", "must start and end"),
            ("A", "`A` at position 1"),
            ("a/b", "`/` at position 2"),
            ("a..b", "`.` at position 2"),
            ("a\nb", "`\\n` at position 2"),
            ("é", "`é` at position 1"),
            (long.as_str(), "300 characters, at most 27"),
        ] {
            let error = bad.parse::<AgentId>().unwrap_err().to_string();
            assert!(error.contains(says), "{bad:?}: {error}");
        }
        let id: AgentId = "web-1".parse().unwrap();
        assert_eq!(id.unit_name(), "aos-agent@web-1.service");
        assert_eq!(id.user_name(), "aos-web-1");
        assert!("aos-".len() + AGENT_ID_MAX <= 31);
    }

    #[test]
    fn package_names() {
        for good in ["a", "site.watch_2-x", "9p", &"x".repeat(63)] {
            assert_eq!(good.parse::<PackageName>().unwrap().as_str(), good);
        }
        let long = "x".repeat(300);
        for bad in ["", ".", "..", "a..b", "../a", "a/b", "a\n", "a\0", "A", ".a", "a.", "ä", &long] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn digests() {
        let text = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for bad in [
            "".to_owned(),
            "sha256:".to_owned(),
            text.to_uppercase(),
            text.replace("sha256", "sha512"),
            format!("{text}0"),
            text.replace('f', "g"),
            format!("sha256:{}é", "0".repeat(62)),
            format!("sha256:+{}", "0".repeat(63)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn references() {
        let digest = format!("web@sha256:{}", "a".repeat(64));
        for good in ["web", "web:1.2.0", "web:1.0.0-rc.1+b5", &digest] {
            assert_eq!(good.parse::<PackageRef>().unwrap().to_string(), good);
        }
        for bad in
            ["", ":1.0.0", "web:", "web:1", "web:v1.0.0", "web:01.0.0", "web@sha256:aa", "web@", "w/b:1.0.0"]
        {
            assert!(bad.parse::<PackageRef>().is_err(), "{bad:?}");
        }
        assert!(parse_version(&format!("1.0.0-{}", "a".repeat(80))).is_err());
    }

    #[test]
    fn on_the_wire_an_id_is_its_text() {
        let id: AgentId = serde_json::from_str("\"web\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"web\"");
        assert!(serde_json::from_str::<AgentId>("\"w b\"").is_err());
    }
}
