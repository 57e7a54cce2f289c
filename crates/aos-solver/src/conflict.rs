//! Why there is no solution, in words: who wants what, and what exists.
//!
//! `PubGrub` proves that there is none by a tree of deductions. The proof is for machines; what a person can act on
//! are its leaves, the requirements that take part in it, beside the versions that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aos_core::dependency::Requirement;
use aos_core::id::Version;
use aos_core::lock::PackageKey;
use pubgrub::{DerivationTree, External};
use thiserror::Error;

use crate::choice::Choice;
use crate::search::Search;
use crate::universe::{Catalogue, Release};

/// The most versions that are listed; the newest are. A person looks for the newest that would do.
const LISTED: usize = 6;

/// A requirement that takes part in a conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Who has it.
    pub package: PackageKey,
    /// The versions of who has it, ascending; the ones that were looked at.
    pub versions: Vec<Version>,
    /// What it wants.
    pub wanted: PackageKey,
    /// Which versions of that would serve.
    pub requirement: Requirement,
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = listed(&self.versions);
        write!(f, "{} {versions} wants {} {}", self.package, self.wanted, self.requirement)
    }
}

/// The versions of a package that takes part in a conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// The package.
    pub package: PackageKey,
    /// Its versions, ascending.
    pub versions: Vec<Version>,
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.versions.is_empty() {
            return write!(f, "there is no {}", self.package);
        }
        write!(f, "{} exists in {}", self.package, listed(&self.versions))?;
        if self.versions.iter().all(|version| !version.pre.is_empty()) {
            f.write_str(" (a pre-release serves only a requirement that names it)")?;
        }
        Ok(())
    }
}

/// Newest first, so that what is left out is old.
fn listed(versions: &[Version]) -> String {
    let newest: Vec<String> = versions.iter().rev().take(LISTED).map(Version::to_string).collect();
    match versions.len().checked_sub(LISTED).filter(|left| *left > 0) {
        Some(left) => format!("{} and {left} older", newest.join(", ")),
        None => newest.join(", "),
    }
}

/// Requirements that no set of versions satisfies.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no versions satisfy what {root} needs: {}", sentence(.wants, .existing))]
pub struct Conflict {
    /// What the versions are for.
    pub root: Release,
    /// The requirements that contradict each other, the root's first.
    pub wants: Vec<Want>,
    /// What exists of what they want, sorted by package.
    pub existing: Vec<Existing>,
}

fn sentence(wants: &[Want], existing: &[Existing]) -> String {
    let wants = wants.iter().map(Want::to_string);
    wants.chain(existing.iter().map(Existing::to_string)).collect::<Vec<_>>().join("; ")
}

impl Conflict {
    /// One line without the details, for whoever shows [`Conflict::wants`] and [`Conflict::existing`] as lists.
    pub fn summary(&self) -> String {
        format!("no versions satisfy what {} needs", self.root)
    }

    /// Takes the leaves of a proof, with what the search knows of them.
    pub(crate) fn new<C: Catalogue>(
        root: &Release,
        proof: &DerivationTree<PackageKey, Choice, String>,
        search: &Search<'_, C>,
    ) -> Self {
        let mut groups: BTreeMap<(bool, PackageKey, PackageKey, String), Group> = BTreeMap::new();
        for (package, set, wanted) in edges(proof) {
            for (version, want) in search.known_wants(package, set, wanted) {
                let text = want.requirement.to_string();
                let key = (*package != root.package, package.clone(), wanted.clone(), text);
                let group = groups
                    .entry(key)
                    .or_insert_with(|| Group { versions: BTreeSet::new(), requirement: want.requirement });
                group.versions.insert(version);
            }
        }
        let packages: BTreeSet<PackageKey> = groups.keys().map(|(_, _, wanted, _)| wanted.clone()).collect();
        let existing = packages.into_iter().map(|package| {
            let versions = if package == root.package {
                vec![root.version.clone()]
            } else {
                search.known_versions(&package)
            };
            Existing { package, versions }
        });
        let wants = groups.into_iter().map(|((_, package, wanted, _), group)| Want {
            package,
            versions: group.versions.into_iter().collect(),
            wanted,
            requirement: group.requirement,
        });
        Self { root: root.clone(), wants: wants.collect(), existing: existing.collect() }
    }
}

/// One requirement, and the versions of one package that have it.
struct Group {
    versions: BTreeSet<Version>,
    requirement: Requirement,
}

/// The dependencies among a proof's leaves. The proof shares its branches and may be deep: each branch is walked
/// once, on a stack of its own.
fn edges(proof: &DerivationTree<PackageKey, Choice, String>) -> Vec<(&PackageKey, &Choice, &PackageKey)> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut left = vec![proof];
    while let Some(branch) = left.pop() {
        match branch {
            DerivationTree::External(External::FromDependencyOf(package, set, wanted, _)) => {
                found.push((package, set, wanted));
            }
            // What is unusable is so because of what it wants of itself.
            DerivationTree::External(External::Custom(package, set, _)) => {
                found.push((package, set, package))
            }
            DerivationTree::External(_) => {}
            DerivationTree::Derived(derived) => {
                if derived.shared_id.is_none_or(|id| seen.insert(id)) {
                    left.extend([&*derived.cause1, &*derived.cause2]);
                }
            }
        }
    }
    found
}
