//! The solver against trying everything, on universes small enough for that, and the rules that an answer keeps.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is the failure report of a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use aos_core::dependency::DependencyKind;
use aos_core::id::Version;
use aos_core::lock::PackageKey;
use aos_solver::{Catalogue, Release, Solution, SolveError, Wanted, solve};
use proptest::prelude::*;

type Table = BTreeMap<PackageKey, BTreeMap<Version, Vec<Wanted>>>;

/// A catalogue that is a table. `backwards` answers in another order.
struct Universe<'a> {
    table: &'a Table,
    backwards: bool,
}

impl Catalogue for Universe<'_> {
    type Error = Infallible;

    fn versions(&self, package: &PackageKey) -> Result<Vec<Version>, Infallible> {
        let mut versions: Vec<Version> =
            self.table.get(package).into_iter().flatten().map(|(v, _)| v.clone()).collect();
        if self.backwards {
            versions.reverse();
        }
        Ok(versions)
    }

    fn wants(&self, release: &Release) -> Result<Vec<Wanted>, Infallible> {
        let mut wants = self.table[&release.package][&release.version].clone();
        if self.backwards {
            wants.reverse();
        }
        Ok(wants)
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const VERSIONS: [&str; 4] = ["1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0"];
const REQUIREMENTS: [&str; 8] =
    ["*", "^1", "=1.0.0", "^2", ">=1.1.0", "<2.0.0", "2.0.0-rc.1", ">=1.0.0, <1.1.0"];

fn package(index: usize) -> PackageKey {
    let kind = if index.is_multiple_of(2) { DependencyKind::Skill } else { DependencyKind::Agent };
    PackageKey { kind, name: NAMES[index % NAMES.len()].parse().unwrap() }
}

fn root() -> Release {
    Release {
        package: PackageKey { kind: DependencyKind::Agent, name: "root".parse().unwrap() },
        version: Version::new(1, 0, 0),
    }
}

fn wants() -> impl Strategy<Value = Vec<Wanted>> {
    let want = (0..NAMES.len(), 0..REQUIREMENTS.len()).prop_map(|(name, requirement)| Wanted {
        package: package(name),
        requirement: REQUIREMENTS[requirement].parse().unwrap(),
    });
    proptest::collection::vec(want, 0..3)
}

fn universe() -> impl Strategy<Value = Table> {
    let releases = proptest::collection::btree_map(0..VERSIONS.len(), wants(), 0..=VERSIONS.len());
    proptest::collection::vec(releases, NAMES.len()).prop_map(|packages| {
        let versions = |releases: BTreeMap<usize, Vec<Wanted>>| {
            releases.into_iter().map(|(index, wants)| (VERSIONS[index].parse().unwrap(), wants)).collect()
        };
        packages
            .into_iter()
            .enumerate()
            .map(|(index, releases)| (package(index), versions(releases)))
            .collect()
    })
}

/// Whether any choice of versions satisfies `open`, given what is chosen: by trying each.
fn possible(table: &Table, open: &[Wanted], chosen: &BTreeMap<PackageKey, Version>) -> bool {
    let Some((first, rest)) = open.split_first() else { return true };
    if let Some(version) = chosen.get(&first.package) {
        return first.requirement.matches(version) && possible(table, rest, chosen);
    }
    table.get(&first.package).into_iter().flatten().any(|(version, wants)| {
        let mut chosen = chosen.clone();
        chosen.insert(first.package.clone(), version.clone());
        let open: Vec<Wanted> = rest.iter().chain(wants).cloned().collect();
        first.requirement.matches(version) && possible(table, &open, &chosen)
    })
}

/// Every requirement is satisfied, nothing is there that nothing needs, and each comes after what it needs.
fn check(table: &Table, wants: &[Wanted], solution: &Solution) {
    let mut reachable = BTreeSet::new();
    let mut open: Vec<Wanted> = wants.to_vec();
    while let Some(want) = open.pop() {
        let version = solution.version(&want.package).unwrap();
        assert!(want.requirement.matches(version), "{} {}", want.package, want.requirement);
        if reachable.insert(want.package.clone()) {
            open.extend(table[&want.package][version].iter().cloned());
        }
    }
    let mut before = BTreeSet::new();
    for chosen in &solution.packages {
        assert!(chosen.needs.iter().all(|need| before.contains(need)), "{}", chosen.release);
        assert!(before.insert(chosen.release.package.clone()), "{} is there twice", chosen.release);
    }
    assert_eq!(before, reachable);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn it_finds_what_exists_and_only_that(table in universe(), wants in wants()) {
        let forwards = Universe { table: &table, backwards: false };
        let found = solve(&root(), &wants, &forwards, &BTreeMap::new());
        let exists = possible(&table, &wants, &BTreeMap::new());
        match &found {
            Ok(solution) => check(&table, &wants, solution),
            // A circle is a solution of the requirements that is refused.
            Err(SolveError::Cycle(circle)) => {
                prop_assert!(circle.len() > 1 && circle.first() == circle.last());
                for pair in circle.windows(2) {
                    let wants = &table[&pair[0].package][&pair[0].version];
                    prop_assert!(wants.iter().any(|want| want.package == pair[1].package));
                }
            }
            Err(SolveError::Conflict(conflict)) => {
                prop_assert!(!conflict.wants.is_empty());
                for want in &conflict.wants {
                    prop_assert!(conflict.existing.iter().any(|one| one.package == want.wanted));
                }
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
        prop_assert_eq!(!matches!(found, Err(SolveError::Conflict(_))), exists);
    }

    #[test]
    fn the_order_of_answers_does_not_matter(table in universe(), wants in wants()) {
        let forwards = Universe { table: &table, backwards: false };
        let backwards = Universe { table: &table, backwards: true };
        let turned: Vec<Wanted> = wants.iter().rev().cloned().collect();
        let one = solve(&root(), &wants, &forwards, &BTreeMap::new());
        let other = solve(&root(), &turned, &backwards, &BTreeMap::new());
        prop_assert_eq!(one.map_err(|error| error.to_string()), other.map_err(|error| error.to_string()));
    }

    #[test]
    fn a_locked_solution_stays(table in universe(), wants in wants()) {
        let universe = Universe { table: &table, backwards: false };
        let Ok(solution) = solve(&root(), &wants, &universe, &BTreeMap::new()) else { return Ok(()) };
        // What is newer than the lock, and wants nothing, does not move it.
        let mut grown = table.clone();
        for releases in grown.values_mut() {
            releases.insert(Version::new(1, 9, 0), Vec::new());
        }
        let locked: BTreeMap<PackageKey, Version> = solution
            .packages
            .iter()
            .map(|chosen| (chosen.release.package.clone(), chosen.release.version.clone()))
            .collect();
        let again = solve(&root(), &wants, &Universe { table: &grown, backwards: false }, &locked).unwrap();
        prop_assert_eq!(again, solution);
    }
}
