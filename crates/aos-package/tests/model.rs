//! The repository against a model of it: whatever is done in whatever order, its tags, attachments
//! and blobs are those of a few maps, and a collection removes exactly what nothing needs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::oci::Descriptor;
use aos_package::repository::{Depth, GcMode, Lease, Origin, Repository};
use common::{attach, put_package, repository};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Packages and attachments of each, few so that they meet.
const PACKAGES: usize = 4;
const CONTENTS: usize = 2;
const NAMES: [&str; 3] = ["web:1.0.0", "web:2.0.0", "reg.example/team/web:1.0.0"];

#[derive(Debug, Clone)]
enum Operation {
    /// Puts a package through a lease.
    Put(usize, usize),
    /// Puts it and gives it a name.
    Tag(usize, usize),
    Untag(usize),
    /// Attaches something to it, through a lease.
    Attach(usize, usize, usize),
    Forget(usize),
    /// Names it through a lease.
    Pin(usize, usize),
    /// Ends a lease.
    Drop(usize),
    /// Collects, keeping some packages and naming others as roots.
    Collect(BTreeSet<usize>, BTreeSet<usize>),
    /// Opens the store again.
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let (package, lease) = (0..PACKAGES, 0..2_usize);
    let some = || proptest::collection::btree_set(0..PACKAGES, 0..2);
    prop_oneof![
        (package.clone(), lease.clone()).prop_map(|(p, l)| Operation::Put(p, l)),
        (package.clone(), 0..NAMES.len()).prop_map(|(p, n)| Operation::Tag(p, n)),
        (0..NAMES.len()).prop_map(Operation::Untag),
        (package.clone(), 0..CONTENTS, lease.clone()).prop_map(|(p, c, l)| Operation::Attach(p, c, l)),
        package.clone().prop_map(Operation::Forget),
        (package, lease.clone()).prop_map(|(p, l)| Operation::Pin(p, l)),
        lease.prop_map(Operation::Drop),
        (some(), some()).prop_map(|(keep, roots)| Operation::Collect(keep, roots)),
        Just(Operation::Reopen),
    ]
}

/// What should be in the store.
#[derive(Default)]
struct Model {
    tags: BTreeMap<usize, usize>,
    /// Packages that the index lists.
    listed: BTreeSet<usize>,
    /// Attachments that the index lists.
    attached: BTreeSet<(usize, usize)>,
    /// Packages and attachments whose blobs are there.
    stored: BTreeSet<usize>,
    /// What each lease pins.
    leased: [BTreeSet<usize>; 2],
}

impl Model {
    fn collect(&mut self, keep: &BTreeSet<usize>, roots: &BTreeSet<usize>) {
        let pinned = self.leased.iter().flatten().copied();
        let needed: BTreeSet<usize> = self
            .tags
            .values()
            .copied()
            .chain(keep.iter().copied())
            .chain(roots.iter().copied())
            .chain(pinned)
            .collect();
        self.listed.retain(|package| needed.contains(package));
        self.attached.retain(|(package, _)| needed.contains(package));
        self.stored.retain(|package| needed.contains(package));
    }
}

/// The packages and attachments, as they are in a store of their own.
struct World {
    packages: Vec<Descriptor>,
    attachments: BTreeMap<(usize, usize), Digest>,
}

impl World {
    fn new() -> Self {
        let (_dir, repository) = repository();
        let lease = repository.lease().unwrap();
        let packages: Vec<_> = (0..PACKAGES).map(|n| put_package(&lease, &format!("{n}"))).collect();
        let mut attachments = BTreeMap::new();
        for (n, package) in packages.iter().enumerate() {
            for content in 0..CONTENTS {
                let attachment = attach(&lease, package, "application/x", format!("{content}").as_bytes());
                attachments.insert((n, content), attachment.unwrap().descriptor.digest);
            }
        }
        Self { packages, attachments }
    }

    fn digests(&self, packages: &BTreeSet<usize>) -> BTreeSet<Digest> {
        packages.iter().map(|&n| self.packages[n].digest).collect()
    }

    fn compare(&self, repository: &Repository, model: &Model) {
        let tags: BTreeMap<String, Digest> = repository
            .tags()
            .unwrap()
            .into_iter()
            .map(|tag| (tag.reference.to_string(), tag.descriptor.digest))
            .collect();
        let expected: BTreeMap<String, Digest> =
            model.tags.iter().map(|(&name, &n)| (NAMES[name].to_owned(), self.packages[n].digest)).collect();
        assert_eq!(tags, expected);
        let listed: BTreeSet<_> = repository.listed().unwrap().iter().map(|l| l.descriptor.digest).collect();
        assert_eq!(listed, self.digests(&model.listed));
        for (n, package) in self.packages.iter().enumerate() {
            let found: BTreeSet<_> = repository
                .attachments(&package.digest)
                .unwrap()
                .iter()
                .map(|a| a.descriptor.digest)
                .collect();
            let of_package = model.attached.iter().filter(|(of, _)| *of == n);
            assert_eq!(found, of_package.map(|key| self.attachments[key]).collect::<BTreeSet<_>>());
            assert_eq!(repository.blob_size(&package.digest).unwrap().is_some(), model.stored.contains(&n));
        }
        let problems = repository.check(Depth::Contents, &BTreeSet::new()).unwrap();
        assert!(!problems.iter().any(|problem| problem.is_damage()), "{problems:?}");
    }
}

fn put(lease: &Lease, n: usize) -> Descriptor {
    put_package(lease, &format!("{n}"))
}

fn apply(
    world: &World,
    repository: &mut Repository,
    leases: &mut [Lease; 2],
    model: &mut Model,
    operation: &Operation,
) {
    match operation {
        Operation::Put(n, l) => {
            put(&leases[*l], *n);
            model.stored.insert(*n);
            model.leased[*l].insert(*n);
        }
        Operation::Tag(n, name) => {
            let lease = repository.lease().unwrap();
            let package = put(&lease, *n);
            let reference: Reference = NAMES[*name].parse().unwrap();
            let before = repository.tag(&lease, &reference, &package, Origin::Built).unwrap();
            let replaced = model.tags.insert(*name, *n).filter(|old| old != n);
            assert_eq!(before, replaced.map(|old| world.packages[old].digest));
            model.stored.insert(*n);
            model.listed.insert(*n);
        }
        Operation::Untag(name) => {
            let removed = repository.untag(&NAMES[*name].parse().unwrap()).unwrap();
            assert_eq!(removed, model.tags.remove(name).map(|n| world.packages[n].digest));
        }
        Operation::Attach(n, content, l) => {
            let package = put(&leases[*l], *n);
            attach(&leases[*l], &package, "application/x", format!("{content}").as_bytes()).unwrap();
            model.stored.insert(*n);
            model.attached.insert((*n, *content));
            model.leased[*l].insert(*n);
        }
        Operation::Forget(n) => {
            repository.forget(&BTreeSet::from([world.packages[*n].digest])).unwrap();
            model.tags.retain(|_, of| of != n);
            model.listed.remove(n);
            model.attached.retain(|(of, _)| of != n);
        }
        Operation::Pin(n, l) => {
            let there = leases[*l].pin(world.packages[*n].digest).unwrap().is_some();
            assert_eq!(there, model.stored.contains(n));
            model.leased[*l].insert(*n);
        }
        Operation::Drop(l) => {
            leases[*l] = repository.lease().unwrap();
            model.leased[*l].clear();
        }
        Operation::Collect(keep, roots) => {
            let (keeps, extra) = (world.digests(keep), world.digests(roots));
            let dry = repository.gc(&keeps, &extra, GcMode::DryRun).unwrap();
            let done = repository.gc(&keeps, &extra, GcMode::Collect).unwrap();
            assert_eq!(dry, done);
            model.collect(keep, roots);
            let again = repository.gc(&keeps, &extra, GcMode::Collect).unwrap();
            assert_eq!((again.blobs.len(), again.manifests.len(), again.bytes), (0, 0, 0));
        }
        Operation::Reopen => {
            *repository = Repository::open(repository.root()).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_repository_is_what_its_model_is(operations in proptest::collection::vec(operation(), 1..24)) {
        let world = World::new();
        let (dir, mut repository) = repository();
        let mut leases = [repository.lease().unwrap(), repository.lease().unwrap()];
        let mut model = Model::default();
        for operation in &operations {
            apply(&world, &mut repository, &mut leases, &mut model, operation);
            world.compare(&repository, &model);
        }
        drop(leases);
        model.leased = Default::default();
        model.collect(&BTreeSet::new(), &BTreeSet::new());
        common::gc(&repository, &[]);
        world.compare(&repository, &model);
        prop_assert!(repository.check(Depth::Contents, &BTreeSet::new()).unwrap().is_empty());
        for place in ["tmp", "leases", "partial"] {
            prop_assert!(std::fs::read_dir(dir.path().join(place)).unwrap().next().is_none());
        }
    }
}
