//! The section `build`: stages and what they start from.

use super::lineage::PARENT_STAGE;
use super::step::Step;
use crate::macros::{is_its_text, serde_as_text};
use crate::quoted::Quoted;
use crate::reference::{Reference, ReferenceError};
use crate::text::{EnvName, EnvValue};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Characters of a stage's name.
pub const STAGE_NAME_MAX: usize = 63;
/// The suite of `from: debian`.
pub const DEFAULT_SUITE: &str = "trixie";
/// Characters of a suite's name; Debian's own have at most 16.
const SUITE_MAX: usize = 63;
/// Characters of a Debian package's name and version together.
const DEBIAN_PACKAGE_MAX: usize = 255;

/// Build arguments, by name: what `${NAME}` stands for.
pub type Arguments = BTreeMap<EnvName, EnvValue>;

/// The section `build`, its arguments substituted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The declared arguments with the values that they have.
    pub args: Arguments,
    /// The stages in the order of the file, those of a parent first; at least one. The last makes
    /// the package.
    pub stages: Vec<Stage>,
}

/// One stage of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name, unique in the file.
    pub name: StageName,
    /// What it starts from.
    pub from: Base,
    /// Debian packages to install; only with [`Base::Debian`].
    pub packages: Vec<DebianPackage>,
    /// Stages that must be done before, besides those that `from` and copy steps name.
    pub depends_on: Vec<StageName>,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Base {
    /// The host's read-only `/usr`: `host`.
    Host,
    /// Nothing: `scratch`.
    Scratch,
    /// A Debian root made by mmdebstrap: `debian`, `debian:SUITE`.
    Debian(Suite),
    /// The result of another stage: `stage:NAME`.
    Stage(StageName),
    /// A package of ours: `aap:REF`. The reference has a tag or a digest.
    Package(Reference),
    /// An image of a registry: `registry.example/python:3.13`. The reference has a registry, and a
    /// tag or a digest.
    Image(Reference),
}

/// The forms of a base, each with what it means: for messages, schema and reference page.
pub(super) const BASES: [(&str, &str); 6] = [
    ("host", "the host's read-only /usr, with the package's directories beside it"),
    ("scratch", "nothing but what the steps make"),
    ("debian[:SUITE]", "a Debian root (default trixie) with the stage's `packages`"),
    ("stage:NAME", "what another stage made, with its variables and working directory"),
    ("aap:REF", "a package of ours by tag or digest, such as aap:base:1.0.0"),
    ("HOST/PATH:TAG", "an image of a registry, such as registry.example/python:3.13"),
];

/// A text that is not a base.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadBase {
    /// The text has no known form.
    #[error("{} is not a base, expected {}", Quoted(.0), forms())]
    Form(String),
    /// The suite is wrong.
    #[error(transparent)]
    Suite(#[from] BadSuite),
    /// The stage's name is wrong.
    #[error(transparent)]
    Stage(#[from] BadStageName),
    /// The reference is wrong.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The reference has neither tag nor digest.
    #[error("{} has no tag and no digest, so that it means something else each day", Quoted(.0))]
    NotSpecific(String),
}

fn forms() -> String {
    BASES.map(|(form, _)| form).join(", ")
}

impl Base {
    /// The stage that it starts from, when it is one.
    pub const fn stage(&self) -> Option<&StageName> {
        match self {
            Self::Stage(name) => Some(name),
            _ => None,
        }
    }
}

fn specific(text: &str) -> Result<Reference, BadBase> {
    let reference: Reference = text.parse()?;
    if reference.is_specific() { Ok(reference) } else { Err(BadBase::NotSpecific(text.to_owned())) }
}

impl FromStr for Base {
    type Err = BadBase;

    fn from_str(text: &str) -> Result<Self, BadBase> {
        match text.split_once(':') {
            None if text == "host" => return Ok(Self::Host),
            None if text == "scratch" => return Ok(Self::Scratch),
            None if text == "debian" => return Ok(Self::Debian(Suite::default())),
            Some(("debian", suite)) => return Ok(Self::Debian(suite.parse()?)),
            Some(("stage", name)) => return Ok(Self::Stage(name.parse()?)),
            Some(("aap", reference)) => return Ok(Self::Package(specific(reference)?)),
            _ => {}
        }
        // A name without a registry would be a guess; with a scheme the parser says what to do.
        if !text.contains('/') {
            return Err(BadBase::Form(text.to_owned()));
        }
        let reference: Reference = text.parse()?;
        if reference.registry.is_none() {
            return Err(BadBase::Form(text.to_owned()));
        }
        specific(text).map(Self::Image)
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Scratch => f.write_str("scratch"),
            Self::Debian(suite) => write!(f, "debian:{suite}"),
            Self::Stage(name) => write!(f, "stage:{name}"),
            Self::Package(reference) => write!(f, "aap:{reference}"),
            Self::Image(reference) => write!(f, "{reference}"),
        }
    }
}

serde_as_text!(Base);

/// The name of a build stage: 1 to 63 characters of `[a-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageName(String);

impl StageName {
    /// The name of the stage that a package which is extended becomes.
    pub(super) fn parent() -> Self {
        Self(PARENT_STAGE.to_owned())
    }
}

/// A text that is not a stage name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("stage name {} is not valid, expected 1 to 63 characters of a-z, 0-9, `_` and `-`", Quoted(.0))]
pub struct BadStageName(String);

impl FromStr for StageName {
    type Err = BadStageName;

    fn from_str(text: &str) -> Result<Self, BadStageName> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if text.is_empty() || text.len() > STAGE_NAME_MAX || !text.bytes().all(good) {
            return Err(BadStageName(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name of a Debian suite, such as `trixie`, `sid` or `trixie-backports`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Suite(String);

/// A text that is not a suite's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("suite {} is not valid, expected a name of a-z, 0-9 and `-` such as {DEFAULT_SUITE}", Quoted(.0))]
pub struct BadSuite(String);

impl Default for Suite {
    fn default() -> Self {
        Self(DEFAULT_SUITE.to_owned())
    }
}

impl FromStr for Suite {
    type Err = BadSuite;

    fn from_str(text: &str) -> Result<Self, BadSuite> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let letter = text.starts_with(|c: char| c.is_ascii_lowercase());
        if !letter || text.len() > SUITE_MAX || !text.bytes().all(good) {
            return Err(BadSuite(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A Debian package to install, `NAME` or `NAME=VERSION`, in the grammar of Debian policy 5.6.1 and
/// 5.6.12, so that it can be no option and no pattern of apt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DebianPackage(String);

/// A text that is not a Debian package.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("Debian package {} is not valid, expected NAME or NAME=VERSION, such as python3", Quoted(.0))]
pub struct BadDebianPackage(String);

impl DebianPackage {
    /// The package's name.
    pub fn name(&self) -> &str {
        self.0.split('=').next().unwrap_or_default()
    }

    /// The version that it must have.
    pub fn version(&self) -> Option<&str> {
        self.0.split_once('=').map(|(_, version)| version)
    }
}

impl FromStr for DebianPackage {
    type Err = BadDebianPackage;

    fn from_str(text: &str) -> Result<Self, BadDebianPackage> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let (name, version) = match text.split_once('=') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let good_name = name.len() >= 2
            && name.bytes().next().is_some_and(word)
            && name.bytes().all(|b| word(b) || b"+-.".contains(&b));
        let good_version = |version: &str| {
            version.bytes().next().is_some_and(|b| b.is_ascii_digit())
                && version.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.:~".contains(&b))
        };
        // apt reads a `-` or `+` at the end as "remove" or "install".
        let plain_end = !name.ends_with('-') && (version.is_none() || !text.ends_with('-'));
        if text.len() > DEBIAN_PACKAGE_MAX || !good_name || !plain_end || !version.is_none_or(good_version) {
            return Err(BadDebianPackage(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

is_its_text!(StageName, Suite, DebianPackage);
