//! `Agentfile.lock`: which version and content each dependency has, for builds that find the same
//! tomorrow. TOML that a person can read and a diff shows well:
//!
//! ```toml
//! version = 1
//!
//! [[package]]
//! kind = "agent"
//! name = "summariser"
//! version = "1.4.2"
//! digest = "sha256:..."
//! source = "registry.example/team/summariser"
//! dependencies = ["skill pdf 2.0.0"]
//! ```
//!
//! One kind and name has one version. Packages are sorted by kind and name, so that equal locks are
//! equal bytes.

use crate::dependency::DependencyKind;
use crate::graph::{Cycle, topological};
use crate::id::{Digest, PackageName, Version, parse_version};
use crate::macros::serde_as_text;
use crate::quoted::Quoted;
use crate::reference::{BadLocation, Location};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The file's name, beside the Agentfile.
pub const LOCK_FILE_NAME: &str = "Agentfile.lock";
/// The format's version.
pub const LOCK_VERSION: u32 = 1;
/// Bytes of a lock file: [`PACKAGES_MAX`] packages of some hundred bytes each.
pub const LOCK_MAX_BYTES: usize = 2 * 1024 * 1024;
/// Packages of a lock file: far more than agents have dependencies.
pub const PACKAGES_MAX: usize = 4096;

/// Where a locked package was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// In the store of the machine, written `local`.
    Local,
    /// Elsewhere.
    At(Location),
}

/// The word for [`Source::Local`].
const LOCAL: &str = "local";

impl FromStr for Source {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, BadLocation> {
        if text == LOCAL { Ok(Self::Local) } else { text.parse().map(Self::At) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str(LOCAL),
            Self::At(location) => write!(f, "{location}"),
        }
    }
}

serde_as_text!(Source);

/// What a package is found by in a lock: its kind and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageKey {
    /// What it is.
    pub kind: DependencyKind,
    /// Its name.
    pub name: PackageName,
}

impl fmt::Display for PackageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// One version of a package, written `KIND NAME VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockedDependency {
    /// What it is.
    pub kind: DependencyKind,
    /// Its name.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
}

/// A text that is not a locked dependency.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("dependency {} has not the form KIND NAME VERSION, such as `skill pdf 2.0.0`", Quoted(.0))]
pub struct BadLockedDependency(String);

impl FromStr for LockedDependency {
    type Err = BadLockedDependency;

    fn from_str(text: &str) -> Result<Self, BadLockedDependency> {
        let parse = || {
            let (kind, rest) = text.split_once(' ')?;
            let (name, version) = rest.split_once(' ')?;
            let version = parse_version(version).ok()?;
            Some(Self { kind: kind.parse().ok()?, name: name.parse().ok()?, version })
        };
        parse().ok_or_else(|| BadLockedDependency(text.to_owned()))
    }
}

impl fmt::Display for LockedDependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind, self.name, self.version)
    }
}

serde_as_text!(LockedDependency);

/// One package of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// What it is: a kind that is a package.
    pub kind: DependencyKind,
    /// Its name.
    pub name: PackageName,
    /// Its version.
    #[serde(with = "crate::id::version_text")]
    pub version: Version,
    /// Its manifest.
    pub digest: Digest,
    /// Where it was found.
    pub source: Source,
    /// What it depends on, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<LockedDependency>,
}

/// A lock: the packages by kind and name, consistent with each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lockfile {
    packages: BTreeMap<PackageKey, LockedPackage>,
}

/// Why packages are not a lock.
#[derive(Debug, Error)]
pub enum LockError {
    /// The file is too large.
    #[error("{LOCK_FILE_NAME} has {0} bytes, at most {LOCK_MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// The TOML or a value of it is wrong.
    #[error("{LOCK_FILE_NAME} is not valid")]
    Read(#[from] toml::de::Error),
    /// The lock cannot be written.
    #[error("{LOCK_FILE_NAME} cannot be written")]
    Write(#[from] toml::ser::Error),
    /// The format is of another version.
    #[error(
        "{LOCK_FILE_NAME} has version {0}, this version of AOS reads {LOCK_VERSION}: make it anew with `aos lock`"
    )]
    Version(u32),
    /// There are too many packages.
    #[error("{LOCK_FILE_NAME} has {0} packages, at most {PACKAGES_MAX} are allowed")]
    TooMany(usize),
    /// A package is there twice.
    #[error("{LOCK_FILE_NAME} has `{0}` twice")]
    Twice(PackageKey),
    /// A service or volume is locked.
    #[error("{LOCK_FILE_NAME} has `{0}`, which is not a package")]
    NotAPackage(PackageKey),
    /// Packages need each other in a circle.
    #[error("{LOCK_FILE_NAME}: packages need each other in a circle: {0}")]
    Cycle(Cycle<PackageKey>),
    /// A dependency is not in the lock, or in another version.
    #[error(
        "{LOCK_FILE_NAME}: `{package}` needs `{dependency}`, which is not in it: make it anew with `aos lock`"
    )]
    Missing {
        /// The package.
        package: PackageKey,
        /// What it needs.
        dependency: Box<LockedDependency>,
    },
}

/// The file as TOML has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    package: Vec<LockedPackage>,
}

/// The one field that tells whether the others can be read.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

impl LockedPackage {
    /// What it is found by.
    pub fn key(&self) -> PackageKey {
        PackageKey { kind: self.kind, name: self.name.clone() }
    }
}

impl Lockfile {
    /// A lock of packages in any order; each dependency must be one of them.
    pub fn new(packages: impl IntoIterator<Item = LockedPackage>) -> Result<Self, LockError> {
        let mut lock = Self::default();
        for mut package in packages {
            let key = package.key();
            if !package.kind.is_package() {
                return Err(LockError::NotAPackage(key));
            }
            package.dependencies.sort();
            package.dependencies.dedup();
            if lock.packages.insert(key.clone(), package).is_some() {
                return Err(LockError::Twice(key));
            }
            if lock.packages.len() > PACKAGES_MAX {
                return Err(LockError::TooMany(lock.packages.len()));
            }
        }
        lock.check()?;
        Ok(lock)
    }

    fn check(&self) -> Result<(), LockError> {
        for package in self.packages.values() {
            for dependency in &package.dependencies {
                let found = self.get(dependency.kind, &dependency.name);
                if found.is_none_or(|found| found.version != dependency.version) {
                    return Err(LockError::Missing {
                        package: package.key(),
                        dependency: Box::new(dependency.clone()),
                    });
                }
            }
        }
        self.order().map(|_| ())
    }

    /// The packages in an order in which each comes after all that it needs.
    pub fn order(&self) -> Result<Vec<PackageKey>, LockError> {
        let key = |dependency: &LockedDependency| PackageKey {
            kind: dependency.kind,
            name: dependency.name.clone(),
        };
        let needs = self.packages.iter();
        let needs = needs.map(|(of, package)| (of.clone(), package.dependencies.iter().map(key).collect()));
        topological(&needs.collect()).map_err(LockError::Cycle)
    }

    /// The packages, by kind and name.
    pub fn packages(&self) -> impl Iterator<Item = &LockedPackage> {
        self.packages.values()
    }

    /// The package of a kind and name.
    pub fn get(&self, kind: DependencyKind, name: &PackageName) -> Option<&LockedPackage> {
        self.packages.get(&PackageKey { kind, name: name.clone() })
    }

    /// Reads the text of a lock file.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        if text.len() > LOCK_MAX_BYTES {
            return Err(LockError::TooLarge(text.len()));
        }
        let head: Head = toml::from_str(text)?;
        if head.version != LOCK_VERSION {
            return Err(LockError::Version(head.version));
        }
        let file: File = toml::from_str(text)?;
        Self::new(file.package)
    }

    /// The text of the lock file; equal locks have equal texts.
    pub fn to_toml(&self) -> Result<String, LockError> {
        let package = self.packages.values().cloned().collect();
        let body = toml::to_string(&File { version: LOCK_VERSION, package })?;
        Ok(format!("# Written by `aos lock`: do not edit.\n{body}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = r#"# Written by `aos lock`: do not edit.
version = 1

[[package]]
kind = "agent"
name = "summariser"
version = "1.4.2"
digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
source = "registry.example/team/summariser"
dependencies = ["skill pdf 2.0.0"]

[[package]]
kind = "skill"
name = "pdf"
version = "2.0.0"
digest = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
source = "local"
"#;

    #[test]
    fn text_round_trips() {
        let lock = Lockfile::parse(TEXT).unwrap();
        assert_eq!(lock.to_toml().unwrap(), TEXT);
        assert_eq!(
            lock.order().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["skill pdf", "agent summariser"]
        );
        let empty = Lockfile::default();
        assert_eq!(Lockfile::parse(&empty.to_toml().unwrap()).unwrap(), empty);
    }

    #[test]
    fn what_is_wrong_is_said() {
        fn chain(error: &dyn std::error::Error) -> String {
            std::iter::successors(Some(error), |error| error.source())
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(": ")
        }
        let pdf = &TEXT[TEXT.rfind("[[package]]").unwrap()..];
        for (from, to, says) in [
            ("version = 1\n", "version = 2\n", "has version 2, this version of AOS reads 1"),
            ("version = 1\n", "", "missing field `version`"),
            ("version = 1\n", "version = 1\nextra = 1\n", "unknown field `extra`"),
            ("source = \"local\"", "source = \"local\"\nx = 1", "unknown field `x`"),
            ("source = \"local\"", "source = \"local\"\nsource = \"local\"", "duplicate key"),
            ("source = \"local\"", "source = \"../x\"", "registry `..`"),
            ("\"skill\"", "\"service\"", "`service pdf`, which is not a package"),
            ("\"pdf\"", "\"../pdf\"", "package name"),
            ("\"2.0.0\"", "\"2\"", "version `2`"),
            ("sha256:b", "sha256:B", "digest"),
            (
                "skill pdf 2.0.0",
                "skill pdf 2.0.1",
                "`agent summariser` needs `skill pdf 2.0.1`, which is not in it",
            ),
            ("skill pdf 2.0.0", "skill pdf", "has not the form KIND NAME VERSION"),
            (
                "source = \"local\"",
                "source = \"local\"\ndependencies = [\"agent summariser 1.4.2\"]",
                "in a circle: `agent summariser` needs `skill pdf` needs `agent summariser`",
            ),
            (pdf, &pdf.repeat(2), "has `skill pdf` twice"),
        ] {
            assert!(TEXT.contains(from), "{from}");
            let error = chain(&Lockfile::parse(&TEXT.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(says), "{to}\n{error}");
        }
        assert!(matches!(Lockfile::parse(&" ".repeat(LOCK_MAX_BYTES + 1)), Err(LockError::TooLarge(_))));
    }

    fn kinds() -> impl Strategy<Value = DependencyKind> {
        prop::sample::select(vec![DependencyKind::Agent, DependencyKind::Skill, DependencyKind::Mcp])
    }

    fn packages() -> impl Strategy<Value = Vec<LockedPackage>> {
        let source = prop::sample::select(vec!["local", "registry.example/a/b", "oci:/srv/r", "oci:r x:web"]);
        let version = (0..3_u64, 0..3_u64, prop::option::of("[a-z]{1,3}")).prop_map(|(major, minor, pre)| {
            let pre = pre.map(|pre| format!("-{pre}")).unwrap_or_default();
            parse_version(&format!("{major}.{minor}.0{pre}")).unwrap()
        });
        let package = (kinds(), "[a-c]{1,2}", version, any::<[u8; 32]>(), source, any::<u8>()).prop_map(
            |(kind, name, version, digest, source, needs)| {
                let package = LockedPackage {
                    kind,
                    name: name.parse().unwrap(),
                    version,
                    digest: Digest::from_bytes(digest),
                    source: source.parse().unwrap(),
                    dependencies: Vec::new(),
                };
                (package, needs)
            },
        );
        prop::collection::vec(package, 0..8).prop_map(|packages| {
            let unique: BTreeMap<_, _> = packages.into_iter().map(|pair| (pair.0.key(), pair)).collect();
            let all: Vec<(LockedPackage, u8)> = unique.into_values().collect();
            // Each needs some of those before it, so that there is no circle.
            let needs = |index: usize, bits: u8| {
                let some =
                    all.iter().take(index).enumerate().filter(move |(at, _)| bits >> (at % 8) & 1 == 1);
                some.map(|(_, (other, _))| LockedDependency {
                    kind: other.kind,
                    name: other.name.clone(),
                    version: other.version.clone(),
                })
            };
            all.iter()
                .enumerate()
                .map(|(index, (package, bits))| LockedPackage {
                    dependencies: needs(index, *bits).collect(),
                    ..package.clone()
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn any_lock_round_trips(packages in packages()) {
            let lock = Lockfile::new(packages.clone()).unwrap();
            let text = lock.to_toml().unwrap();
            prop_assert_eq!(&Lockfile::parse(&text).unwrap(), &lock);
            // The order in which packages were found leaves no trace.
            let reversed = Lockfile::new(packages.into_iter().rev()).unwrap();
            prop_assert_eq!(reversed.to_toml().unwrap(), text);
        }

        #[test]
        fn no_change_of_a_character_panics(index in 0..400_usize, c in any::<char>()) {
            let changed: String = TEXT.chars().enumerate().map(|(i, old)| if i == index { c } else { old }).collect();
            if let Ok(lock) = Lockfile::parse(&changed) {
                prop_assert_eq!(&Lockfile::parse(&lock.to_toml().unwrap()).unwrap(), &lock);
            }
        }
    }
}
