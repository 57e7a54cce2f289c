//! What a tree of files brings in: the components that dpkg's database and the manifests of Python,
//! npm and Cargo name.
//!
//! Pure: the caller walks the tree, asks [`Manifest::at`] which files matter, and gives their bytes
//! to [`Manifest::read`]. The files come from anywhere, so they are bounded, and what one says is
//! text that is written into an SBOM and believed by nobody.

mod cargo;
mod dpkg;
mod npm;
mod python;
mod stanza;

use std::fmt;
use thiserror::Error;

/// Bytes of a manifest: a Debian desktop's dpkg status has 8 MiB, a large `package-lock.json` too.
pub const MANIFEST_MAX: usize = 64 << 20;
/// Components of one manifest: Debian has 70,000 packages.
pub const COMPONENTS_MAX: usize = 100_000;
/// Bytes of a component's name, version or note.
pub const TEXT_MAX: usize = 1024;

/// Why a manifest is not read.
#[derive(Debug, Error)]
#[error("{what} {path:?}: {problem}")]
pub struct InventoryError {
    /// What kind of file.
    what: Manifest,
    /// The file.
    path: String,
    /// What is wrong.
    problem: Problem,
}

/// What is wrong with a manifest.
#[derive(Debug, Error)]
enum Problem {
    #[error("it has {0} bytes, at most {MANIFEST_MAX} are allowed")]
    TooLong(usize),
    #[error("it names more than {COMPONENTS_MAX} components")]
    TooMany,
    #[error("line {0} is not UTF-8")]
    NotText(usize),
    #[error("line {0} is neither `Name: value` nor a continuation")]
    Stanza(usize),
    #[error("a component has no {0}")]
    Missing(&'static str),
    #[error("{0}")]
    Format(String),
}

/// Where a component comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ecosystem {
    /// A Debian package.
    Debian,
    /// A crate.
    Cargo,
    /// A package of npm.
    Npm,
    /// A distribution of Python.
    Python,
}

/// A hash as a manifest gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checksum {
    /// The name that SPDX has for the algorithm.
    pub algorithm: &'static str,
    /// Lowercase hex digits.
    pub hex: String,
}

/// One thing that is brought in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component {
    /// Where it comes from.
    pub ecosystem: Ecosystem,
    /// Its name.
    pub name: String,
    /// Its version; `None` when the manifest leaves it open.
    pub version: Option<String>,
    /// Debian's architecture.
    pub architecture: Option<String>,
    /// The source package and its version, when they differ.
    pub source: Option<String>,
    /// Who maintains it.
    pub supplier: Option<String>,
    /// The licence, in the manifest's words.
    pub license: Option<String>,
    /// A hash of what was downloaded.
    pub checksum: Option<Checksum>,
    /// The manifest that names it.
    pub found_in: String,
}

impl Component {
    fn new(ecosystem: Ecosystem, name: &str, version: Option<&str>, found_in: &str) -> Self {
        Self {
            ecosystem,
            name: bounded(name),
            version: version.map(bounded),
            architecture: None,
            source: None,
            supplier: None,
            license: None,
            checksum: None,
            found_in: found_in.to_owned(),
        }
    }

    /// The package URL (<https://github.com/package-url/purl-spec>).
    pub fn purl(&self) -> String {
        let name = match self.ecosystem {
            Ecosystem::Debian => format!("deb/debian/{}", quote(&self.name, "")),
            Ecosystem::Cargo => format!("cargo/{}", quote(&self.name, "")),
            // A scope is the namespace: its `@` is quoted, the `/` after it is not.
            Ecosystem::Npm => format!("npm/{}", quote(&self.name, "/")),
            Ecosystem::Python => {
                format!("pypi/{}", quote(&self.name.to_ascii_lowercase().replace('_', "-"), ""))
            }
        };
        let version =
            self.version.as_deref().map(|version| format!("@{}", quote(version, ""))).unwrap_or_default();
        let architecture = self.architecture.as_deref();
        let architecture = architecture.map(|name| format!("?arch={}", quote(name, ""))).unwrap_or_default();
        format!("pkg:{name}{version}{architecture}")
    }
}

/// Percent-encodes what a package URL's parts may not hold; `also` and the colon stay.
fn quote(text: &str, also: &str) -> String {
    let stays = |c: char| c.is_ascii_alphanumeric() || ".-_~:".contains(c) || also.contains(c);
    text.chars().fold(String::with_capacity(text.len()), |mut quoted, c| {
        if stays(c) {
            quoted.push(c);
        } else {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| quoted.push_str(&format!("%{byte:02X}")));
        }
        quoted
    })
}

/// The start of a text, at a character's boundary.
fn bounded(text: &str) -> String {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

/// A kind of file that names components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manifest {
    /// `var/lib/dpkg/status`, or a file of `var/lib/dpkg/status.d`.
    Dpkg,
    /// `*.dist-info/METADATA`: a distribution that is installed.
    PythonInstalled,
    /// `requirements.txt` and `requirements-*.txt`: what is asked for.
    PythonRequirements,
    /// `package-lock.json`.
    NpmLock,
    /// `Cargo.lock`.
    CargoLock,
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dpkg => "dpkg status",
            Self::PythonInstalled => "Python metadata",
            Self::PythonRequirements => "Python requirements",
            Self::NpmLock => "npm lock file",
            Self::CargoLock => "Cargo lock file",
        })
    }
}

impl Manifest {
    /// The kind of the file at `path`, which is relative to the tree's root; `None` for the files
    /// that name no components.
    pub fn at(path: &str) -> Option<Self> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        match name {
            "status" if folder == "var/lib/dpkg" => Some(Self::Dpkg),
            // Each package has its status there, and its hashes in NAME.md5sums.
            _ if folder == "var/lib/dpkg/status.d" && !name.ends_with(".md5sums") => Some(Self::Dpkg),
            "METADATA" if folder.ends_with(".dist-info") => Some(Self::PythonInstalled),
            "package-lock.json" => Some(Self::NpmLock),
            "Cargo.lock" => Some(Self::CargoLock),
            _ if name.starts_with("requirements") && name.ends_with(".txt") => Some(Self::PythonRequirements),
            _ => None,
        }
    }

    /// The components that the file at `path` names, in its order.
    pub fn read(self, path: &str, bytes: &[u8]) -> Result<Vec<Component>, InventoryError> {
        self.components(path, bytes).map_err(|problem| InventoryError {
            what: self,
            path: bounded(path),
            problem,
        })
    }

    fn components(self, path: &str, bytes: &[u8]) -> Result<Vec<Component>, Problem> {
        if bytes.len() > MANIFEST_MAX {
            return Err(Problem::TooLong(bytes.len()));
        }
        let text = str::from_utf8(bytes).map_err(|error| {
            let before = bytes.iter().take(error.valid_up_to());
            Problem::NotText(1 + before.filter(|byte| **byte == b'\n').count())
        })?;
        let components = match self {
            Self::Dpkg => dpkg::read(path, text)?,
            Self::PythonInstalled => python::installed(path, text)?,
            Self::PythonRequirements => python::requirements(path, text),
            Self::NpmLock => npm::read(path, text)?,
            Self::CargoLock => cargo::read(path, text)?,
        };
        if components.len() > COMPONENTS_MAX { Err(Problem::TooMany) } else { Ok(components) }
    }
}

#[cfg(test)]
mod tests;
