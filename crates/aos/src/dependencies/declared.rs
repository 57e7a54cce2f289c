//! What an Agentfile, and the files and packages that it extends, declare to depend on: before anything is built, so
//! that the lock can be made first. The build engine reads the same files again and checks them whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aos_core::agentfile::{AGENTFILE_MAX_BYTES, Draft, EXTENDS_DEPTH_MAX, Extends, FILE_NAMES, Format};
use aos_core::config::PackageKind;
use aos_core::dependency::{Dependency, DependencyKind};
use aos_core::id::{PackageName, Version};
use aos_core::lock::PackageKey;
use aos_package::repository::Lease;
use aos_solver::Release;

use super::fetch::Fetcher;
use crate::failure::hinted;
use crate::package;
use crate::store;

/// A package to be built, and what it needs.
#[derive(Debug)]
pub(crate) struct Declared {
    /// The package.
    pub(crate) root: Release,
    /// Its dependencies, by kind and name.
    pub(crate) dependencies: Vec<Dependency>,
}

type Found = BTreeMap<(DependencyKind, PackageName), Dependency>;

/// Reads what a folder declares. `named` is the Agentfile when it is not the one in the folder.
pub(crate) fn declared(
    folder: &Path,
    named: Option<&Path>,
    fetcher: &Fetcher<'_>,
    lease: &Lease,
) -> Result<Declared> {
    let mut path = match named {
        Some(path) => path.to_owned(),
        None => in_folder(folder)?,
    };
    let mut draft = read(&path)?;
    let metadata = draft.metadata();
    let root = release(draft.kind(), &metadata.name, &metadata.version);
    let mut found = Found::new();
    let mut seen = BTreeSet::new();
    loop {
        take(&mut found, draft.dependencies().iter().cloned());
        // A circle, and too many, are told by the build, with their places.
        if !seen.insert(path.clone()) || seen.len() > EXTENDS_DEPTH_MAX {
            break;
        }
        match draft.extends() {
            None => break,
            Some(Extends::Path(next)) => {
                let next = path.parent().unwrap_or(Path::new(".")).join(next);
                path = if next.is_dir() { in_folder(&next)? } else { next };
                draft = read(&path)?;
            }
            Some(Extends::Package(reference)) => {
                let package = fetcher.package(reference, reference.digest, lease)?;
                let (_, config) = store::package(fetcher.store.repository(), &package)?;
                take(&mut found, config.agent.dependencies.iter().map(|resolved| resolved.declared()));
                break;
            }
        }
    }
    Ok(Declared { root, dependencies: found.into_values().collect() })
}

/// Adds dependencies; what a child has said stays.
fn take(found: &mut Found, dependencies: impl Iterator<Item = Dependency>) {
    for dependency in dependencies {
        found.entry((dependency.kind, dependency.name.clone())).or_insert(dependency);
    }
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

fn read(path: &Path) -> Result<Draft> {
    let file = package::open_plain(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut text = String::new();
    let mut file = file.take(AGENTFILE_MAX_BYTES as u64 + 1);
    file.read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    let origin = path.display().to_string();
    Ok(Draft::parse(&text, Format::of_file_name(&origin), &origin)?)
}
