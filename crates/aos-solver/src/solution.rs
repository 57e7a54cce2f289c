//! The answer: one version of each package, in an order in which each comes after what it needs.

use std::collections::{BTreeMap, BTreeSet};

use aos_core::id::Version;
use aos_core::lock::PackageKey;

use crate::search::Wants;
use crate::universe::Release;

/// One package of a solution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The package and its version.
    pub release: Release,
    /// The packages that it needs, sorted; each is in the solution.
    pub needs: Vec<PackageKey>,
}

/// One version of each package that is needed: each package comes after all that it needs, and packages that do
/// not need each other are sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Solution {
    /// The packages in their order.
    pub packages: Vec<Chosen>,
}

impl Solution {
    /// The version of a package, when it is needed.
    pub fn version(&self, package: &PackageKey) -> Option<&Version> {
        self.packages.iter().find(|chosen| chosen.release.package == *package).map(|c| &c.release.version)
    }

    /// Orders what was chosen.
    ///
    /// # Errors
    /// A circle, when the packages need each other in one: its first member is repeated at its end.
    pub(crate) fn new(
        root: &Release,
        chosen: &BTreeMap<PackageKey, Version>,
        wants: &Wants,
    ) -> Result<Self, Vec<Release>> {
        let mut walk = Walk { chosen, wants, done: BTreeSet::new(), packages: Vec::new() };
        // A circle through the root is found from the root, since all that was chosen is reachable from it.
        walk.visit(&root.package)?;
        let mut packages = walk.packages;
        packages.retain(|one| one.release.package != root.package);
        Ok(Self { packages })
    }
}

/// A walk along what is needed, deepest first. It keeps its own stack: a chain of dependencies from strangers
/// may be longer than a thread's stack is deep.
struct Walk<'a> {
    chosen: &'a BTreeMap<PackageKey, Version>,
    wants: &'a Wants,
    done: BTreeSet<PackageKey>,
    packages: Vec<Chosen>,
}

impl Walk<'_> {
    fn needs(&self, package: &PackageKey) -> Vec<PackageKey> {
        let version = self.chosen.get(package);
        let wanted = version.and_then(|version| self.wants.get(package)?.get(version));
        let needs: BTreeSet<&PackageKey> = wanted.into_iter().flatten().map(|one| &one.package).collect();
        needs.into_iter().cloned().collect()
    }

    fn release(&self, package: &PackageKey) -> Option<Release> {
        let version = self.chosen.get(package)?.clone();
        Some(Release { package: package.clone(), version })
    }

    fn visit(&mut self, from: &PackageKey) -> Result<(), Vec<Release>> {
        let mut path = vec![(from.clone(), self.needs(from).into_iter())];
        while let Some((package, rest)) = path.last_mut() {
            let Some(next) = rest.next() else {
                let package = package.clone();
                path.pop();
                self.finish(package);
                continue;
            };
            if let Some(start) = path.iter().position(|(on_path, _)| *on_path == next) {
                let members = path.iter().skip(start).map(|(on_path, _)| on_path).chain([&next]);
                return Err(members.filter_map(|package| self.release(package)).collect());
            }
            if !self.done.contains(&next) {
                let needs = self.needs(&next);
                path.push((next, needs.into_iter()));
            }
        }
        Ok(())
    }

    fn finish(&mut self, package: PackageKey) {
        if let Some(release) = self.release(&package) {
            let needs = self.needs(&package);
            self.packages.push(Chosen { release, needs });
        }
        self.done.insert(package);
    }
}
