//! What an Agentfile, and the files and packages that it extends, declare to depend on: before anything is built, so
//! that the lock can be made first. Files and parents are read as a build reads them, which checks them whole later.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aos_build::extend;
use aos_core::agentfile::FILE_NAMES;
use aos_core::config::PackageKind;
use aos_core::dependency::{Dependency, DependencyKind};
use aos_core::id::{PackageName, Version};
use aos_core::lock::PackageKey;
use aos_package::repository::Lease;
use aos_solver::Release;

use super::fetch::Fetcher;
use crate::failure::hinted;
use crate::store;

/// A package to be built, and what it needs.
#[derive(Debug)]
pub(crate) struct Declared {
    /// The package.
    pub(crate) root: Release,
    /// Its dependencies, by kind and name.
    pub(crate) dependencies: Vec<Dependency>,
}

/// Reads what a folder declares. `named` is the Agentfile when it is not the one in the folder.
pub(crate) fn declared(
    folder: &Path,
    named: Option<&Path>,
    fetcher: &Fetcher<'_>,
    lease: &Lease,
) -> Result<Declared> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => in_folder(folder)?,
    };
    let text = extend::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lineage = extend::lineage(&path, &text)?;
    let (kind, metadata) = lineage.child();
    let root = release(kind, &metadata.name, &metadata.version);
    extend::extend(&mut lineage, |reference| -> Result<_> {
        let package = fetcher.package(reference, reference.digest, lease)?;
        let (_, config) = store::package(fetcher.store.repository(), &package)?;
        Ok((package.digest, config.agent))
    })?;
    Ok(Declared { root, dependencies: lineage.declared_dependencies()? })
}

/// What the dependencies are of.
fn release(kind: PackageKind, name: &PackageName, version: &Version) -> Release {
    let kind = match kind {
        PackageKind::Agent => DependencyKind::Agent,
        PackageKind::Skill => DependencyKind::Skill,
        PackageKind::McpServer => DependencyKind::Mcp,
    };
    Release { package: PackageKey { kind, name: name.clone() }, version: version.clone() }
}

/// The Agentfile of a folder. Of two, the build says which to keep.
fn in_folder(folder: &Path) -> Result<PathBuf> {
    let names = FILE_NAMES.iter().map(|(name, _)| folder.join(name));
    names.into_iter().find(|path| path.exists()).ok_or_else(|| {
        let expected = FILE_NAMES.map(|(name, _)| name).join(", ");
        hinted(
            format!("no Agentfile in `{}`, expected one of {expected}", folder.display()),
            "`-f FILE` names one that is elsewhere; `aos convert` makes one from another system's manifest",
        )
    })
}
