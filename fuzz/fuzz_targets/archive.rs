//! Whole archives, into a store: nothing that is refused leaves a file.
#![no_main]

use aos_package::store::Store;
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use tempfile::TempDir;

static STORE: OnceLock<(TempDir, Store)> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let (dir, store) = STORE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        (dir, store)
    });
    if store.import(bytes).is_ok() {
        for package in store.list() {
            let digest = format!("{}@{}", package.agent.name, package.digest);
            store.remove(&digest.parse().expect("a reference"), |_| false).expect("it is there");
        }
    }
    for place in ["tmp", "leases", "partial", "rootfs", "store/blobs/sha256"] {
        let mut left = std::fs::read_dir(dir.path().join(place)).expect("it is listed");
        assert!(left.next().is_none(), "{place} is not empty");
    }
});
