//! `Agentfile.lock` beside an Agentfile: read, checked, solved anew, written.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aos_core::id::Version;
use aos_core::lock::{
    LOCK_FILE_NAME, LOCK_MAX_BYTES, LockError, LockedDependency, LockedPackage, Lockfile, PackageKey,
};
use aos_package::repository::Lease;
use aos_solver::{Release, Solution, SolveError, Wanted, solve};

use super::declared::Declared;
use super::fetch::Fetcher;
use super::offers::{OfferError, Offers};
use crate::exit::{Exit, ExitExt, marked};
use crate::failure::{advised, detailed, hinted};
use crate::package;

/// What may become of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LockMode {
    /// It stays when it fits; else it is solved anew, and what fits stays.
    Fit,
    /// It must fit: nothing is solved or written.
    Frozen,
    /// It stays when it fits; else it is solved anew, and nothing is written.
    Look,
    /// It is solved anew; what fits stays.
    Solve,
    /// It is solved anew, and these packages, or all when none is named, may change.
    Update(Vec<String>),
}

/// A lock, and what became of it.
#[derive(Debug)]
pub(crate) struct Change {
    /// The lock.
    pub(crate) lock: Lockfile,
    /// What is there now and was not, `skill pdf 2.0.0`.
    pub(crate) added: Vec<String>,
    /// What was there and is not, likewise.
    pub(crate) removed: Vec<String>,
    /// The file that was written; `None` when it stays as it was.
    pub(crate) written: Option<PathBuf>,
}

/// Reads the lock of a folder; `None` when there is none.
pub(crate) fn read(folder: &Path) -> Result<Option<Lockfile>> {
    let path = folder.join(LOCK_FILE_NAME);
    let file = match package::open_plain(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut text = String::new();
    let read = file.take(LOCK_MAX_BYTES as u64 + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Lockfile::parse(&text).map(Some).with_context(|| format!("cannot use {}", path.display()))
}

/// Brings the lock of a folder and its Agentfile together.
pub(crate) fn lock(
    declared: &Declared,
    folder: &Path,
    fetcher: &Fetcher<'_>,
    lease: &Lease,
    mode: &LockMode,
) -> Result<Change> {
    let old = read(folder)?;
    let needs = declared.dependencies.iter().any(|dependency| dependency.kind.is_package());
    if !needs && old.is_none() {
        return Ok(unchanged(Lockfile::default()));
    }
    let misfit = misfit(declared, old.as_ref());
    match (mode, misfit, &old) {
        (LockMode::Fit | LockMode::Look | LockMode::Frozen, None, Some(lock)) => {
            return Ok(unchanged(lock.clone()));
        }
        (LockMode::Frozen, Some(misfit), _) => {
            return Err(marked(hinted(misfit, "`aos lock` brings the lock up to date"), Exit::Unsolvable));
        }
        _ => {}
    }
    let solved = anew(declared, old.as_ref(), fetcher, lease, mode)?;
    if old.as_ref() == Some(&solved) || *mode == LockMode::Look {
        return Ok(unchanged(solved));
    }
    let path = folder.join(LOCK_FILE_NAME);
    let text = solved.to_toml()?;
    package::write_whole(&path, |file| Ok(file.write_all(text.as_bytes())?))?;
    let (before, after) = (lines(old.as_ref()), lines(Some(&solved)));
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    Ok(Change {
        added: only(&after, &before),
        removed: only(&before, &after),
        lock: solved,
        written: Some(path),
    })
}

fn unchanged(lock: Lockfile) -> Change {
    Change { lock, added: Vec::new(), removed: Vec::new(), written: None }
}

fn lines(lock: Option<&Lockfile>) -> Vec<String> {
    let packages = lock.into_iter().flat_map(Lockfile::packages);
    packages.map(|package| format!("{} {}", package.key(), package.version)).collect()
}

/// Why a lock does not fit an Agentfile.
fn misfit(declared: &Declared, lock: Option<&Lockfile>) -> Option<String> {
    let Some(lock) = lock else { return Some(format!("there is no {LOCK_FILE_NAME}")) };
    let packages = declared.dependencies.iter().filter(|dependency| dependency.kind.is_package());
    packages.into_iter().find_map(|wanted| match lock.get(wanted.kind, &wanted.name) {
        None => Some(format!("{LOCK_FILE_NAME} has no {} {}", wanted.kind, wanted.name)),
        Some(found) if !wanted.requirement.matches(&found.version) => Some(format!(
            "{LOCK_FILE_NAME} has {} {} {}, and the Agentfile wants {}",
            wanted.kind, wanted.name, found.version, wanted.requirement
        )),
        Some(_) => None,
    })
}

/// Solves the dependencies of an Agentfile.
fn anew(
    declared: &Declared,
    old: Option<&Lockfile>,
    fetcher: &Fetcher<'_>,
    lease: &Lease,
    mode: &LockMode,
) -> Result<Lockfile> {
    let mut kept: BTreeMap<PackageKey, LockedPackage> = BTreeMap::new();
    for package in old.into_iter().flat_map(Lockfile::packages) {
        if stays(mode, package) {
            kept.insert(package.key(), package.clone());
        }
    }
    let preferred: BTreeMap<PackageKey, Version> =
        kept.iter().map(|(key, package)| (key.clone(), package.version.clone())).collect();
    let offers = Offers::new(fetcher, lease, &declared.dependencies, kept);
    let wants: Vec<Wanted> = declared
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind.is_package())
        .map(|dependency| Wanted {
            package: PackageKey { kind: dependency.kind, name: dependency.name.clone() },
            requirement: dependency.requirement.clone(),
        })
        .collect();
    let solution = solve(&declared.root, &wants, &offers, &preferred).map_err(told)?;
    locked(&solution, &offers)
}

/// Whether a locked package keeps its version as long as that fits.
fn stays(mode: &LockMode, package: &LockedPackage) -> bool {
    match mode {
        LockMode::Update(names) => {
            !names.is_empty() && !names.iter().any(|name| *name == package.name.as_str())
        }
        LockMode::Fit | LockMode::Look | LockMode::Frozen | LockMode::Solve => true,
    }
}

/// The solver's error for a person: a conflict as a list, with what to do.
fn told(error: SolveError<OfferError>) -> anyhow::Error {
    match error {
        SolveError::Conflict(conflict) => {
            let wants = conflict.wants.iter().map(ToString::to_string);
            let lines: Vec<String> = wants.chain(conflict.existing.iter().map(ToString::to_string)).collect();
            let error = anyhow::anyhow!("{}", conflict.summary());
            let advice = "widen a requirement in the Agentfile, or name where more versions are: \
                          `from:` of a dependency, or --from HOST/PATH";
            marked(detailed(advised(error, advice), lines), Exit::Unsolvable)
        }
        SolveError::Catalogue(error) => error.into(),
        other => marked(other, Exit::Unsolvable),
    }
}

/// The lock of a solution.
fn locked(solution: &Solution, offers: &Offers<'_>) -> Result<Lockfile> {
    let mut packages = Vec::new();
    for chosen in &solution.packages {
        let Release { package, version } = &chosen.release;
        let (digest, source) =
            offers.brought(&chosen.release).with_context(|| format!("{} was not brought", chosen.release))?;
        let needs = chosen.needs.iter().filter_map(|need| {
            let version = solution.version(need)?.clone();
            Some(LockedDependency { kind: need.kind, name: need.name.clone(), version })
        });
        packages.push(LockedPackage {
            kind: package.kind,
            name: package.name.clone(),
            version: version.clone(),
            digest,
            source,
            dependencies: needs.collect(),
        });
    }
    let lock: Result<Lockfile, LockError> = Lockfile::new(packages);
    lock.exit(Exit::Unsolvable)
}
