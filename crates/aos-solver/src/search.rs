//! The search: `PubGrub` over a [`Catalogue`], made deterministic and bounded.
//!
//! What the catalogue answers is kept for the time of one search, so that it is asked once, and so that a conflict
//! can be told in the words of the requirements themselves.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use aos_core::id::Version;
use aos_core::lock::PackageKey;
use pubgrub::{Dependencies, DependencyProvider, PackageResolutionStatistics, PubGrubError, VersionSet};
use thiserror::Error;

use crate::choice::Choice;
use crate::conflict::Conflict;
use crate::solution::Solution;
use crate::universe::{Catalogue, Release, Wanted};

/// The most versions of one package. A registry's tag list may be anything; a package that is released daily
/// for ten years has fewer.
pub const MAX_VERSIONS: usize = 4096;
/// The most packages that one version may want; the Agentfile's own bound is lower.
pub const MAX_WANTS: usize = 256;
/// The most packages that are looked at. The proof of a conflict is as deep as the chain of packages that leads to
/// it and is dropped by recursion; ten times as many fit on the stack of a thread (2 MiB).
pub const MAX_PACKAGES: usize = 512;
/// The most decisions of one search. The problem is NP-complete and the catalogue comes from strangers, so that
/// a search may be hopeless: this many take two seconds then. Real
/// trees take one or two decisions for each package.
pub const MAX_STEPS: u32 = 2048;

/// Why there is no solution.
#[derive(Debug, Error)]
pub enum SolveError<E: std::error::Error + 'static> {
    /// The requirements contradict each other or what exists.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Packages need each other in a circle; the first is repeated at the end.
    #[error("the dependencies form a circle: {}", circle(.0))]
    Cycle(Vec<Release>),
    /// The catalogue has no answer.
    #[error(transparent)]
    Catalogue(E),
    /// A package has more versions than [`MAX_VERSIONS`].
    #[error("{package} has {count} versions, at most {MAX_VERSIONS} are considered")]
    TooManyVersions {
        /// The package.
        package: PackageKey,
        /// Its versions.
        count: usize,
    },
    /// There are more packages than [`MAX_PACKAGES`].
    #[error("more than {MAX_PACKAGES} packages are needed")]
    TooManyPackages,
    /// A version wants more than [`MAX_WANTS`].
    #[error("{release} has {count} dependencies, at most {MAX_WANTS} are allowed")]
    TooManyWants {
        /// The version.
        release: Release,
        /// Its dependencies.
        count: usize,
    },
    /// The search took more than [`MAX_STEPS`] decisions.
    #[error("no answer after {MAX_STEPS} decisions: narrower requirements make the search shorter")]
    TooHard,
}

fn circle(releases: &[Release]) -> String {
    releases.iter().map(Release::to_string).collect::<Vec<_>>().join(" -> ")
}

/// Finds one version of every package that `root` needs, directly or not. `root` itself is what the versions are
/// for, with what it wants in `wants`; it is no part of the solution. `locked` are versions to prefer.
///
/// # Errors
/// See [`SolveError`].
pub fn solve<C: Catalogue>(
    root: &Release,
    wants: &[Wanted],
    catalogue: &C,
    locked: &BTreeMap<PackageKey, Version>,
) -> Result<Solution, SolveError<C::Error>> {
    let search = Search {
        catalogue,
        root,
        root_wants: wants,
        locked,
        versions: RefCell::default(),
        wants: RefCell::default(),
        steps: Cell::new(0),
    };
    let chosen = match pubgrub::resolve(&search, root.package.clone(), root.version.clone()) {
        Ok(chosen) => chosen.into_iter().collect::<BTreeMap<PackageKey, Version>>(),
        Err(PubGrubError::NoSolution(tree)) => return Err(Conflict::new(root, &tree, &search).into()),
        Err(
            PubGrubError::ErrorRetrievingDependencies { source, .. }
            | PubGrubError::ErrorChoosingVersion { source, .. }
            | PubGrubError::ErrorInShouldCancel(source),
        ) => return Err(source),
    };
    Solution::new(root, &chosen, &search.wants.into_inner()).map_err(SolveError::Cycle)
}

/// What has been learnt of a package's versions and of what they want.
pub(crate) type Wants = BTreeMap<PackageKey, BTreeMap<Version, Vec<Wanted>>>;

/// One search.
pub(crate) struct Search<'a, C: Catalogue> {
    catalogue: &'a C,
    root: &'a Release,
    root_wants: &'a [Wanted],
    locked: &'a BTreeMap<PackageKey, Version>,
    versions: RefCell<BTreeMap<PackageKey, BTreeSet<Version>>>,
    wants: RefCell<Wants>,
    steps: Cell<u32>,
}

impl<C: Catalogue> Search<'_, C> {
    /// The versions of a package that exist. The root exists in its own version only, whatever a registry has.
    fn existing(&self, package: &PackageKey) -> Result<BTreeSet<Version>, SolveError<C::Error>> {
        if *package == self.root.package {
            return Ok(BTreeSet::from([self.root.version.clone()]));
        }
        if let Some(known) = self.versions.borrow().get(package) {
            return Ok(known.clone());
        }
        if self.versions.borrow().len() >= MAX_PACKAGES {
            return Err(SolveError::TooManyPackages);
        }
        let found = self.catalogue.versions(package).map_err(SolveError::Catalogue)?;
        if found.len() > MAX_VERSIONS {
            return Err(SolveError::TooManyVersions { package: package.clone(), count: found.len() });
        }
        let found: BTreeSet<Version> = found.into_iter().collect();
        self.versions.borrow_mut().insert(package.clone(), found.clone());
        Ok(found)
    }

    /// The versions of a package as far as they were asked for.
    pub(crate) fn known_versions(&self, package: &PackageKey) -> Vec<Version> {
        self.versions.borrow().get(package).map(|known| known.iter().cloned().collect()).unwrap_or_default()
    }

    /// What the versions of `package` in `set` want of `other`, as far as it was asked for.
    pub(crate) fn known_wants(
        &self,
        package: &PackageKey,
        set: &Choice,
        other: &PackageKey,
    ) -> Vec<(Version, Wanted)> {
        let wants = self.wants.borrow();
        let versions = wants.get(package).into_iter().flatten().filter(|(version, _)| set.contains(version));
        versions
            .flat_map(|(version, wanted)| wanted.iter().map(move |one| (version, one)))
            .filter(|(_, wanted)| wanted.package == *other)
            .map(|(version, wanted)| (version.clone(), wanted.clone()))
            .collect()
    }

    fn wants_of(&self, release: &Release) -> Result<Vec<Wanted>, SolveError<C::Error>> {
        let wanted = if *release == *self.root {
            self.root_wants.to_vec()
        } else {
            self.catalogue.wants(release).map_err(SolveError::Catalogue)?
        };
        if wanted.len() > MAX_WANTS {
            return Err(SolveError::TooManyWants { release: release.clone(), count: wanted.len() });
        }
        Ok(wanted)
    }
}

impl<C: Catalogue> DependencyProvider for Search<'_, C> {
    type P = PackageKey;
    type V = Version;
    type VS = Choice;
    /// Packages with conflicts first, then those with the least choice; the package itself makes it an order.
    type Priority = (u32, Reverse<usize>, Reverse<PackageKey>);
    type M = String;
    type Err = SolveError<C::Error>;

    fn prioritize(
        &self,
        package: &PackageKey,
        set: &Choice,
        statistics: &PackageResolutionStatistics,
    ) -> Self::Priority {
        let known = self.versions.borrow();
        let count = known.get(package).into_iter().flatten().filter(|version| set.contains(version)).count();
        let conflicts = if count == 0 { u32::MAX } else { statistics.conflict_count() };
        (conflicts, Reverse(count), Reverse(package.clone()))
    }

    fn choose_version(&self, package: &PackageKey, set: &Choice) -> Result<Option<Version>, Self::Err> {
        let existing = self.existing(package)?;
        let locked = self.locked.get(package);
        let locked = locked.filter(|version| set.contains(version) && existing.contains(version));
        Ok(locked.or_else(|| existing.iter().rev().find(|version| set.contains(version))).cloned())
    }

    fn get_dependencies(
        &self,
        package: &PackageKey,
        version: &Version,
    ) -> Result<Dependencies<PackageKey, Choice, String>, Self::Err> {
        let release = Release { package: package.clone(), version: version.clone() };
        let wanted = self.wants_of(&release)?;
        // One set for each package: what is wanted twice must serve both.
        let mut sets: BTreeMap<PackageKey, Choice> = BTreeMap::new();
        let mut contradicts_itself = false;
        for Wanted { package, requirement } in &wanted {
            if *package == release.package {
                // `PubGrub` knows no package that wants itself. With this version it is a circle, which the
                // solution tells; with another it is never satisfied.
                contradicts_itself |= !requirement.matches(version);
                continue;
            }
            let serving =
                self.existing(package)?.into_iter().filter(|version| requirement.matches(version)).collect();
            let serving = Choice::Among(serving);
            let both = sets.get(package).map_or_else(|| serving.clone(), |set| set.intersection(&serving));
            sets.insert(package.clone(), both);
        }
        self.wants.borrow_mut().entry(release.package).or_default().insert(release.version, wanted);
        if contradicts_itself {
            return Ok(Dependencies::Unavailable("it wants another version of itself".to_owned()));
        }
        Ok(Dependencies::Available(sets.into_iter().collect()))
    }

    fn should_cancel(&self) -> Result<(), Self::Err> {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        if steps > MAX_STEPS { Err(SolveError::TooHard) } else { Ok(()) }
    }
}
