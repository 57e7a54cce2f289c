//! What the solver is told: packages, their versions, and what each version wants.

use std::fmt;

use aos_core::dependency::Requirement;
use aos_core::id::Version;
use aos_core::lock::PackageKey;

/// One version of a package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The package.
    pub package: PackageKey,
    /// Its version.
    pub version: Version,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.package, self.version)
    }
}

/// A package that something wants, and which versions of it serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The package.
    pub package: PackageKey,
    /// The versions that serve.
    pub requirement: Requirement,
}

/// Where versions and their wants come from: the local store, registries, or a table in a test.
///
/// Both functions are called at most once for the same arguments.
pub trait Catalogue {
    /// Why a question has no answer.
    type Error: std::error::Error + 'static;

    /// The versions of a package, in any order; none when nobody has heard of it.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn versions(&self, package: &PackageKey) -> Result<Vec<Version>, Self::Error>;

    /// What one of the versions wants.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn wants(&self, release: &Release) -> Result<Vec<Wanted>, Self::Error>;
}
