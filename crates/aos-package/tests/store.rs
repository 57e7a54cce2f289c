//! The store: import, tags, removal, collection, and what a crash may leave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_core::id::PackageRef;
use aos_package::repository::RepositoryError;
use aos_package::store::{Change, RemoveError, ResolveError, Store, StoreError};
use common::{EMPTY, paths, simple, store, version};
use std::collections::BTreeSet;
use std::fs;

fn reference(text: &str) -> PackageRef {
    text.parse().unwrap()
}

#[test]
fn import_is_idempotent_and_survives_reopening() {
    let (dir, store) = store();
    assert_eq!(paths(dir.path()), EMPTY);
    let bytes = simple("print(1)");
    let first = store.import(bytes.as_slice()).unwrap();
    assert_eq!(first.change, Change::Installed);
    let before = paths(dir.path());
    let again = store.import(bytes.as_slice()).unwrap();
    assert_eq!((again.change, &again.package), (Change::Unchanged, &first.package));
    assert_eq!(paths(dir.path()), before);
    drop(store);

    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.list(), std::slice::from_ref(&first.package));
    assert!(store.damaged().is_empty());
    let digest = format!("web@{}", first.package.digest);
    for text in ["web", "web:1.0.0", &digest] {
        assert_eq!(store.resolve(&reference(text)).unwrap(), first.package, "{text}");
    }
    assert_eq!(paths(dir.path()), before);
    assert!(first.package.rootfs.join("app/main.py").is_file());
    assert!(first.package.size > 500);
}

#[test]
fn names_lead_to_the_highest_version() {
    let (_dir, store) = store();
    for text in ["1.9.0", "1.10.0", "1.10.0-rc.1", "0.1.0"] {
        store.import(version(text, "x").as_slice()).unwrap();
    }
    assert_eq!(store.resolve(&reference("web")).unwrap().reference(), reference("web:1.10.0"));
    let listed: Vec<_> = store.list().iter().map(|p| p.agent.version.to_string()).collect();
    assert_eq!(listed, ["0.1.0", "1.9.0", "1.10.0-rc.1", "1.10.0"]);
    let error = store.resolve(&reference("web:2.0.0")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no package web:2.0.0 is installed, installed versions are 0.1.0, 1.9.0, 1.10.0-rc.1, 1.10.0"
    );
    assert_eq!(store.resolve(&reference("other")).unwrap_err().to_string(), "no package other is installed");
    assert!(matches!(store.remove(&reference("web"), |_| false), Err(RemoveError::Ambiguous { .. })));
}

#[test]
fn a_replaced_build_stays_until_nobody_uses_it() {
    let (dir, store) = store();
    let old = store.import(simple("old").as_slice()).unwrap().package;
    let new = store.import(simple("new").as_slice()).unwrap();
    assert_eq!(new.change, Change::Replaced(old.digest));
    assert_eq!(store.resolve(&reference("web:1.0.0")).unwrap().digest, new.package.digest);
    let by_digest = reference(&format!("web@{}", old.digest));
    assert!(!store.resolve(&by_digest).unwrap().tagged);

    let kept = store.gc(&BTreeSet::from([old.digest])).unwrap();
    assert!(kept.packages.is_empty() && old.rootfs.is_dir());
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.resolve(&by_digest).is_ok() && old.rootfs.is_dir());

    // The old build again: the tag goes back.
    let back = store.import(simple("old").as_slice()).unwrap();
    assert_eq!(back.change, Change::Replaced(new.package.digest));
    assert_eq!(store.resolve(&reference("web:1.0.0")).unwrap().digest, old.digest);
    store.import(simple("new").as_slice()).unwrap();

    let collected = store.gc(&BTreeSet::new()).unwrap();
    assert_eq!(collected.packages, [old.digest]);
    assert!(collected.bytes > 0 && !old.rootfs.exists());
    assert!(matches!(store.resolve(&by_digest), Err(ResolveError::NotFound { .. })));
    assert_eq!(store.list(), [new.package]);
}

#[test]
fn removal_leaves_nothing() {
    let (dir, store) = store();
    let one = store.import(version("1.0.0", "x").as_slice()).unwrap().package;
    // The same layer under another version.
    let two = store.import(version("2.0.0", "x").as_slice()).unwrap().package;
    let error = store.remove(&reference("web:1.0.0"), |digest| *digest == one.digest).unwrap_err();
    assert_eq!(error.to_string(), "the package web:1.0.0 is in use: remove the agents that use it first");
    store.remove(&reference("web:1.0.0"), |digest| *digest == two.digest).unwrap();
    assert!(!one.rootfs.exists() && two.rootfs.join("app/main.py").is_file());
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.list(), [two]);
    store.remove(&reference("web"), |_| false).unwrap();
    assert_eq!(paths(dir.path()), EMPTY);
    assert!(store.remove(&reference("web"), |_| false).is_err());
}

#[test]
fn one_process_at_a_time() {
    let (dir, store) = store();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Repository(RepositoryError::Locked(_)))));
    drop(store);
    Store::open(dir.path()).unwrap();
    assert!(Store::open(&dir.path().join("nothing")).is_err());
}

#[test]
fn garbage_of_a_crash_is_collected() {
    let (dir, store) = store();
    let package = store.import(simple("x").as_slice()).unwrap().package;
    drop(store);
    let before = paths(dir.path());
    common::write(dir.path(), "tmp/import-x/blobs/y", "");
    common::write(dir.path(), &format!("store/blobs/sha256/{}", "a".repeat(64)), "half");
    common::write(dir.path(), &format!("rootfs/sha256-{}/app/x", "b".repeat(64)), "half");
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(paths(dir.path()), before);
    assert_eq!(store.list(), [package]);
}

#[test]
fn a_damaged_package_is_told_and_repaired_by_importing_it_again() {
    for damage in ["root", "manifest", "layer"] {
        let (dir, store) = store();
        let bytes = simple("x");
        let package = store.import(bytes.as_slice()).unwrap().package;
        let other = store.import(version("2.0.0", "y").as_slice()).unwrap().package;
        drop(store);
        match damage {
            "root" => fs::remove_dir_all(&package.rootfs).unwrap(),
            "manifest" => {
                let blob = dir.path().join("store/blobs/sha256").join(package.digest.hex());
                fs::write(blob, "{}").unwrap();
            }
            _ => {
                let text = fs::read_dir(dir.path().join("store/blobs/sha256")).unwrap();
                let gzip = |path: &std::path::Path| fs::read(path).unwrap().starts_with(&[0x1f, 0x8b]);
                let layers = text.map(|entry| entry.unwrap().path()).filter(|path| gzip(path));
                layers.for_each(|path| fs::remove_file(path).unwrap());
            }
        }
        let store = Store::open(dir.path()).unwrap();
        assert!(!store.damaged().is_empty(), "{damage}");
        let error = store.resolve(&reference("web:1.0.0")).unwrap_err();
        assert!(error.to_string().contains("is damaged, install it again"), "{damage}: {error}");
        store.import(bytes.as_slice()).unwrap();
        store.import(version("2.0.0", "y").as_slice()).unwrap();
        assert_eq!(store.resolve(&reference("web:1.0.0")).unwrap(), package);
        assert_eq!(store.resolve(&reference("web:2.0.0")).unwrap(), other);
        drop(store);
        assert!(Store::open(dir.path()).unwrap().damaged().is_empty(), "{damage}");
    }
}

#[test]
fn a_damaged_index_is_an_error_that_names_it() {
    let (dir, store) = store();
    drop(store);
    fs::write(dir.path().join("store/index.json"), "{").unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("store/index.json` is damaged"), "{error}");
}

#[test]
fn threads_can_import_at_once() {
    let (dir, store) = store();
    let archives: Vec<_> = (0..4).map(|n| version(&format!("1.0.{}", n / 2), "x")).collect();
    std::thread::scope(|scope| {
        for archive in &archives {
            scope.spawn(|| store.import(archive.as_slice()).unwrap());
        }
    });
    assert_eq!(store.list().len(), 2);
    assert!(fs::read_dir(dir.path().join("tmp")).unwrap().next().is_none());
}
