//! What a person reads when there is no solution, and the rules of preference, by example.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is the failure report of a test")]

use std::collections::BTreeMap;

use aos_core::dependency::DependencyKind;
use aos_core::id::Version;
use aos_core::lock::PackageKey;
use aos_solver::{Catalogue, MAX_PACKAGES, MAX_VERSIONS, Release, Solution, SolveError, Wanted, solve};

#[derive(Debug, thiserror::Error)]
#[error("the registry is not there")]
struct Gone;

/// `name version: wants` with wants such as `skill/parser ^1`, comma separated.
#[derive(Default)]
struct Lines(BTreeMap<PackageKey, BTreeMap<Version, Vec<Wanted>>>);

fn package(text: &str) -> PackageKey {
    let (kind, name) = text.split_once('/').unwrap();
    let kind = match kind {
        "agent" => DependencyKind::Agent,
        "skill" => DependencyKind::Skill,
        _ => DependencyKind::Mcp,
    };
    PackageKey { kind, name: name.parse().unwrap() }
}

fn wants(text: &str) -> Vec<Wanted> {
    let one = |text: &str| {
        let (name, requirement) = text.trim().split_once(' ').unwrap();
        Wanted { package: package(name), requirement: requirement.parse().unwrap() }
    };
    text.split(';').filter(|text| !text.trim().is_empty()).map(one).collect()
}

impl Lines {
    fn new(lines: &[&str]) -> Self {
        let mut table = Self::default();
        for line in lines {
            let (release, wanted) = line.split_once(':').unwrap_or((line, ""));
            let (name, version) = release.trim().split_once(' ').unwrap();
            let releases = table.0.entry(package(name)).or_default();
            releases.insert(version.parse().unwrap(), wants(wanted));
        }
        table
    }
}

impl Catalogue for Lines {
    type Error = Gone;

    fn versions(&self, package: &PackageKey) -> Result<Vec<Version>, Gone> {
        if package.name.as_str() == "gone" {
            return Err(Gone);
        }
        Ok(self.0.get(package).map(|releases| releases.keys().cloned().collect()).unwrap_or_default())
    }

    fn wants(&self, release: &Release) -> Result<Vec<Wanted>, Gone> {
        Ok(self.0[&release.package][&release.version].clone())
    }
}

fn root() -> Release {
    Release { package: package("agent/web"), version: Version::new(1, 0, 0) }
}

fn run(lines: &[&str], wanted: &str) -> Result<Solution, SolveError<Gone>> {
    solve(&root(), &wants(wanted), &Lines::new(lines), &BTreeMap::new())
}

fn versions(solution: &Solution) -> Vec<String> {
    solution.packages.iter().map(|chosen| chosen.release.to_string()).collect()
}

fn said(lines: &[&str], wanted: &str) -> String {
    run(lines, wanted).unwrap_err().to_string()
}

#[test]
fn the_highest_version_that_serves_in_the_order_of_need() {
    let lines = ["skill/b 1.0.0: skill/a ^1", "skill/a 1.0.0", "skill/a 1.2.0", "skill/a 2.0.0"];
    assert_eq!(versions(&run(&lines, "skill/b *; skill/a >=1").unwrap()), ["skill a 1.2.0", "skill b 1.0.0"]);
}

#[test]
fn kinds_are_apart() {
    let lines = ["skill/x 1.0.0", "agent/x 2.0.0"];
    assert_eq!(versions(&run(&lines, "skill/x *; agent/x *").unwrap()), ["agent x 2.0.0", "skill x 1.0.0"]);
}

#[test]
fn it_goes_back_where_the_newest_leads_nowhere() {
    let lines = ["skill/a 1.0.0", "skill/b 2.0.0: skill/a ^2", "skill/b 1.0.0: skill/a ^1"];
    assert_eq!(versions(&run(&lines, "skill/b *").unwrap()), ["skill a 1.0.0", "skill b 1.0.0"]);
}

#[test]
fn a_pre_release_only_when_it_is_asked_for() {
    let lines = ["skill/a 1.0.0", "skill/a 2.0.0-rc.1"];
    assert_eq!(versions(&run(&lines, "skill/a >=1").unwrap()), ["skill a 1.0.0"]);
    assert_eq!(versions(&run(&lines, "skill/a >=2.0.0-rc").unwrap()), ["skill a 2.0.0-rc.1"]);
    assert_eq!(
        said(&["skill/a 2.0.0-rc.1"], "skill/a *"),
        "no versions satisfy what agent web 1.0.0 needs: agent web 1.0.0 wants skill a *; skill a exists in \
         2.0.0-rc.1 (a pre-release serves only a requirement that names it)"
    );
}

#[test]
fn a_conflict_says_who_wants_what_and_what_exists() {
    let lines = [
        "agent/fetch 1.4.0: skill/parser ^1",
        "agent/fetch 1.3.0: skill/parser ^1",
        "skill/parser 1.0.0",
        "skill/parser 2.0.0",
        "skill/unrelated 1.0.0",
    ];
    assert_eq!(
        said(&lines, "skill/parser ^2; agent/fetch ^1; skill/unrelated *"),
        "no versions satisfy what agent web 1.0.0 needs: agent web 1.0.0 wants agent fetch ^1; \
         agent web 1.0.0 wants skill parser ^2; agent fetch 1.4.0, 1.3.0 wants skill parser ^1; \
         agent fetch exists in 1.4.0, 1.3.0; skill parser exists in 2.0.0, 1.0.0"
    );
}

#[test]
fn what_nobody_has_is_said() {
    assert_eq!(
        said(&[], "skill/a ^1"),
        "no versions satisfy what agent web 1.0.0 needs: agent web 1.0.0 wants skill a ^1; there is no skill a"
    );
}

#[test]
fn one_want_twice_must_serve_both() {
    let lines = ["skill/a 1.0.0", "skill/a 1.5.0", "skill/a 2.0.0"];
    assert_eq!(versions(&run(&lines, "skill/a ^1; skill/a <1.5.0").unwrap()), ["skill a 1.0.0"]);
    let said = said(&lines, "skill/a ^1; skill/a ^2");
    assert!(said.contains("wants skill a ^1; agent web 1.0.0 wants skill a ^2"), "{said}");
}

#[test]
fn a_circle_is_named() {
    let lines = ["skill/a 1.0.0: skill/b *", "skill/b 1.0.0: skill/c *", "skill/c 1.0.0: skill/b *"];
    assert_eq!(
        said(&lines, "skill/a *"),
        "the dependencies form a circle: skill b 1.0.0 -> skill c 1.0.0 -> skill b 1.0.0"
    );
    assert_eq!(
        said(&["skill/a 1.0.0: agent/web ^1"], "skill/a *"),
        "the dependencies form a circle: agent web 1.0.0 -> skill a 1.0.0 -> agent web 1.0.0"
    );
    let said = said(&["skill/a 1.0.0: agent/web ^2"], "skill/a *");
    assert!(said.contains("agent web exists in 1.0.0"), "{said}");
}

#[test]
fn a_package_that_wants_itself() {
    assert_eq!(
        said(&["skill/a 1.0.0: skill/a ^1"], "skill/a *"),
        "the dependencies form a circle: skill a 1.0.0 -> skill a 1.0.0"
    );
    assert_eq!(
        said(&["skill/a 1.1.0: skill/a =1.0.0"], "skill/a *"),
        "no versions satisfy what agent web 1.0.0 needs: agent web 1.0.0 wants skill a *; \
         skill a 1.1.0 wants skill a =1.0.0; skill a exists in 1.1.0"
    );
    let lines = ["skill/a 1.0.0", "skill/a 1.1.0: skill/a =1.0.0", "skill/a 2.0.0: skill/missing *"];
    assert_eq!(versions(&run(&lines, "skill/a *").unwrap()), ["skill a 1.0.0"]);
}

#[test]
fn the_lock_is_preferred_as_long_as_it_serves() {
    let lines = Lines::new(&["skill/a 1.0.0", "skill/a 1.1.0", "skill/a 2.0.0"]);
    let locked = BTreeMap::from([(package("skill/a"), Version::new(1, 0, 0))]);
    let chosen = |wanted: &str| versions(&solve(&root(), &wants(wanted), &lines, &locked).unwrap());
    assert_eq!(chosen("skill/a *"), ["skill a 1.0.0"]);
    assert_eq!(chosen("skill/a ^2"), ["skill a 2.0.0"]);
    let locked = BTreeMap::from([(package("skill/a"), Version::new(1, 0, 7))]);
    let solution = solve(&root(), &wants("skill/a ^1"), &lines, &locked).unwrap();
    assert_eq!(versions(&solution), ["skill a 1.1.0"]);
}

#[test]
fn a_catalogue_that_fails_is_no_conflict() {
    assert!(matches!(run(&[], "skill/gone *"), Err(SolveError::Catalogue(Gone))));
}

#[test]
fn bounds() {
    let lines: Vec<String> = (0..=MAX_VERSIONS).map(|minor| format!("skill/a 1.{minor}.0")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(said(&lines, "skill/a *"), "skill a has 4097 versions, at most 4096 are considered");
}

#[test]
fn a_long_chain_is_no_depth() {
    let chain = |length: usize, end: &str| {
        let lines: Vec<String> = (1..length)
            .map(|link| format!("skill/x{link} 1.0.0: skill/x{} *", link + 1))
            .chain([format!("skill/x{length} 1.0.0{end}")])
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        run(&lines, "skill/x1 *")
    };
    assert_eq!(chain(MAX_PACKAGES, "").unwrap().packages.len(), MAX_PACKAGES);
    let Err(SolveError::Conflict(conflict)) = chain(MAX_PACKAGES - 1, ": skill/missing *") else { panic!() };
    assert_eq!(conflict.wants.len(), MAX_PACKAGES);
    assert!(matches!(chain(MAX_PACKAGES + 1, ""), Err(SolveError::TooManyPackages)));
}

#[test]
fn a_search_that_grows_without_end_is_given_up() {
    // Every version of one package wants another one that is missing: each is tried, none serves.
    let lines: Vec<String> =
        (0..MAX_PACKAGES - 1).map(|n| format!("skill/a 1.{n}.0: skill/missing-{n} *")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let Err(SolveError::Conflict(conflict)) = run(&lines, "skill/a *") else { panic!() };
    assert_eq!(conflict.existing.len(), MAX_PACKAGES);
    // Eleven packages that exclude each other in one of ten versions: the pigeon-hole problem.
    let mut lines = Vec::new();
    for (bird, hole) in (0..11).flat_map(|bird| (0..10).map(move |hole| (bird, hole))) {
        lines.push(format!("skill/bird-{bird} 1.{hole}.0: skill/hole-{hole} =1.{bird}.0"));
        lines.push(format!("skill/hole-{hole} 1.{bird}.0"));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let birds: Vec<String> = (0..11).map(|bird| format!("skill/bird-{bird} *")).collect();
    assert!(matches!(run(&lines, &birds.join(";")), Err(SolveError::TooHard)));
}
