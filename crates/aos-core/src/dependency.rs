//! What a package needs besides itself: other packages by version ranges, services and volumes.
//!
//! Ranges are those of semantic versioning as Cargo writes them (`^1`, `~1.2`, `>=1, <3`, `*`); a
//! dependency names at most one version at a time, so two of one kind and name are one too many.

use crate::config::PackageKind;
use crate::id::{Digest, PackageName, Version};
use crate::macros::serde_as_text;
use crate::quantity::ByteSize;
use crate::quoted::Quoted;
use crate::reference::{BadLocation, Location};
use semver::VersionReq;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Dependencies of a package.
pub const DEPENDENCIES_MAX: usize = 128;
/// Characters of a version range.
pub const REQUIREMENT_MAX: usize = 256;

/// What is depended on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DependencyKind {
    /// Another agent.
    Agent,
    /// A skill.
    Skill,
    /// An MCP server.
    Mcp,
    /// A service that somebody provides, such as a database; no package.
    Service,
    /// A directory of a size that outlives the agent; no package.
    Volume,
}

impl DependencyKind {
    /// Each of them; the word is the field's name in the Agentfile.
    pub const ALL: [Self; 5] = [Self::Agent, Self::Skill, Self::Mcp, Self::Service, Self::Volume];

    /// The word in the Agentfile.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Skill => "skill",
            Self::Mcp => "mcp",
            Self::Service => "service",
            Self::Volume => "volume",
        }
    }

    /// The kind of package that satisfies it; `None` for what is not a package.
    pub const fn package_kind(self) -> Option<PackageKind> {
        match self {
            Self::Agent => Some(PackageKind::Agent),
            Self::Skill => Some(PackageKind::Skill),
            Self::Mcp => Some(PackageKind::McpServer),
            Self::Service | Self::Volume => None,
        }
    }

    /// True when a package satisfies it, so that it is resolved and locked.
    pub const fn is_package(self) -> bool {
        self.package_kind().is_some()
    }
}

impl fmt::Display for DependencyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no kind of dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected agent, skill, mcp, service or volume")]
pub struct NotADependencyKind;

impl FromStr for DependencyKind {
    type Err = NotADependencyKind;

    fn from_str(text: &str) -> Result<Self, NotADependencyKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(NotADependencyKind)
    }
}

/// A range of versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement(VersionReq);

impl Requirement {
    /// Any version that is not a pre-release.
    pub const fn any() -> Self {
        Self(VersionReq::STAR)
    }

    /// True when `version` is in the range.
    pub fn matches(&self, version: &Version) -> bool {
        self.0.matches(version)
    }

    /// The comparators, for a solver.
    pub const fn as_semver(&self) -> &VersionReq {
        &self.0
    }
}

/// A text that is not a range of versions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("version range {} is not valid ({reason}), expected one such as ^1, ~1.2, =1.2.3 or >=1, <3", Quoted(.text))]
pub struct BadRequirement {
    /// The text.
    pub text: String,
    /// What the parser says.
    pub reason: String,
}

impl FromStr for Requirement {
    type Err = BadRequirement;

    fn from_str(text: &str) -> Result<Self, BadRequirement> {
        let bad = |reason: String| BadRequirement { text: text.to_owned(), reason };
        let long = |length: usize| bad(format!("{length} characters, at most {REQUIREMENT_MAX} are allowed"));
        if text.len() > REQUIREMENT_MAX {
            return Err(long(text.len()));
        }
        let parsed = VersionReq::parse(text).map_err(|error| bad(error.to_string()))?;
        // What is printed is read again, and has an operator and a space more for each comparator.
        match parsed.to_string().len() {
            length if length > REQUIREMENT_MAX => Err(long(length)),
            _ => Ok(Self(parsed)),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

serde_as_text!(Requirement);

/// Where the versions of a dependency are looked for: a repository of a registry, or a directory
/// registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Provider(Location);

impl Provider {
    /// The place: a registry's repository without tag and digest, or a layout without a name.
    pub const fn location(&self) -> &Location {
        &self.0
    }
}

/// A text that is no place for versions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadProvider {
    /// It names no place at all.
    #[error(transparent)]
    Location(#[from] BadLocation),
    /// It names one thing, or one of this machine.
    #[error(
        "{} is not a repository, expected one without a tag such as registry.example/team/name, or oci:PATH",
        Quoted(.0)
    )]
    NotARepository(String),
}

impl FromStr for Provider {
    type Err = BadProvider;

    fn from_str(text: &str) -> Result<Self, BadProvider> {
        match text.parse::<Location>()? {
            Location::Registry(reference) if !reference.is_specific() => {
                Ok(Self(Location::Registry(reference)))
            }
            Location::Layout { path, name: None } => Ok(Self(Location::Layout { path, name: None })),
            _ => Err(BadProvider::NotARepository(text.to_owned())),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

serde_as_text!(Provider);

/// One dependency as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// What it is.
    pub kind: DependencyKind,
    /// Its name.
    pub name: PackageName,
    /// The versions that will do; [`Requirement::any`] when none is written.
    pub requirement: Requirement,
    /// Where its versions are looked for; `None` means the store and the configured registries.
    pub from: Option<Provider>,
    /// The size of a volume; `None` for every other kind.
    pub size: Option<ByteSize>,
}

/// One dependency as a package carries it: what was asked for and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolvedDependency {
    /// The manifest that was found; `None` for services and volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What it is.
    pub kind: DependencyKind,
    /// Its name.
    pub name: PackageName,
    /// The versions that will do.
    pub req: Requirement,
    /// The size of a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// The version that was found; `None` for services and volumes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::id::optional_version_text")]
    pub version: Option<Version>,
}

impl Dependency {
    /// What it is found by.
    pub fn key(&self) -> (DependencyKind, &PackageName) {
        (self.kind, &self.name)
    }

    /// Why no start of this version gives it, in words; `None` when it can be had.
    pub fn not_enforceable(&self) -> Option<String> {
        match self.kind {
            DependencyKind::Volume => Some(format!(
                "volume `{}`: this version of AOS cannot enforce its size; remove it",
                self.name
            )),
            DependencyKind::Agent | DependencyKind::Skill | DependencyKind::Mcp | DependencyKind::Service => {
                None
            }
        }
    }
}

impl ResolvedDependency {
    /// The dependency as it was declared, but for where it was looked for.
    pub fn declared(&self) -> Dependency {
        Dependency {
            kind: self.kind,
            name: self.name.clone(),
            requirement: self.req.clone(),
            from: None,
            size: self.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::parse_version;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        for (text, printed, yes, no) in [
            ("^1.2", "^1.2", "1.9.0", "2.0.0"),
            ("1.2", "^1.2", "1.2.0", "1.1.9"),
            ("~1.2", "~1.2", "1.2.9", "1.3.0"),
            ("=1.2.3", "=1.2.3", "1.2.3", "1.2.4"),
            (">=1,<3", ">=1, <3", "2.9.9", "3.0.0"),
            ("*", "*", "0.0.1", "1.0.0-rc.1"),
            ("^0.2", "^0.2", "0.2.5", "0.3.0"),
        ] {
            let requirement: Requirement = text.parse().unwrap();
            assert_eq!(requirement.to_string(), printed);
            assert!(requirement.matches(&parse_version(yes).unwrap()), "{text} {yes}");
            assert!(!requirement.matches(&parse_version(no).unwrap()), "{text} {no}");
        }
        for bad in ["", "latest", "1.2.3.4", "^^1", "1 2", "=", ">=1 <3", "v1"] {
            assert!(bad.parse::<Requirement>().is_err(), "{bad:?}");
        }
        // What is printed is longer than what is written, and has the same bound.
        let long = ["111.111"; 32].join(",");
        assert!(long.parse::<Requirement>().unwrap_err().to_string().contains("at most 256"));
    }

    #[test]
    fn providers() {
        for good in ["registry.example/team/pdf", "localhost:5000/pdf", "oci:/srv/r"] {
            assert_eq!(good.parse::<Provider>().unwrap().to_string(), good);
        }
        for bad in
            ["pdf", "team/pdf", "registry.example/pdf:1", "oci:/srv/r:pdf", "x.aap", "oci-archive:x", ""]
        {
            assert!(bad.parse::<Provider>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn kinds_and_packages() {
        for kind in DependencyKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        let packages = DependencyKind::ALL.map(DependencyKind::is_package);
        assert_eq!(packages, [true, true, true, false, false]);
    }

    proptest! {
        #[test]
        fn what_parses_prints_a_text_of_the_same_meaning(text in "[<>=~^]{0,2}[0-3]{1,2}([.][0-3*]){0,2}(, ?[<>=~^]{0,2}[0-3]){0,2}", patch in 0..4_u64) {
            if let Ok(requirement) = text.parse::<Requirement>() {
                let again: Requirement = requirement.to_string().parse().unwrap();
                prop_assert_eq!(&again, &requirement);
                let version = Version::new(1, 2, patch);
                prop_assert_eq!(again.matches(&version), requirement.matches(&version));
            }
        }
    }
}
