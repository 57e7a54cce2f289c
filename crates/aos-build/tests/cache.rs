//! The cache: what is used again, what is not, and what happens when it is damaged or gone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic in a helper is the test's failure report, and tests read the clock"
)]

mod common;

use aos_build::{
    Cache, CacheUse, Comparison, Difference, EntryKind, Local, Options, Prune, Request, Silent, build,
    check_reproducible,
};
use aos_package::repository::GcMode;
use common::{SIMPLE, Told, directory, later, options, store, with_build, write};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const TWO: &str = "{ copy: { from: lib, to: /app/lib } }, { copy: { from: src, to: /app } }";

fn two_steps() -> tempfile::TempDir {
    directory(&with_build("host", TWO), &[("lib/a", "a"), ("src/main.py", "1")])
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn what_did_not_change_is_not_made_again() {
    let dir = two_steps();
    let store = store();
    let told = |options: Options| {
        let told = Told::default();
        build(&Request::new(dir.path(), options), &store.repository, &Local, &told).unwrap();
        told.lines()
    };
    let (lib, src) = ("[app 1/2] copy lib /app/lib", "[app 2/2] copy src /app");
    let first = told(options());
    assert_eq!(
        first,
        [format!("started {lib}"), format!("done {lib}"), format!("started {src}"), format!("done {src}")]
    );
    let again = told(options());
    assert_eq!(
        again,
        [
            format!("started {lib}"),
            format!("cached {lib}"),
            format!("started {src}"),
            format!("cached {src}")
        ]
    );
    write(dir.path(), "src/main.py", "2");
    assert_eq!(
        told(options())[1..],
        [format!("cached {lib}"), format!("started {src}"), format!("done {src}")]
    );
    write(dir.path(), "lib/a", "b");
    assert_eq!(
        told(options())[1..],
        [format!("done {lib}"), format!("started {src}"), format!("cached {src}")]
    );
    let anew = told(Options { cache: CacheUse::Ignore, ..options() });
    assert_eq!(anew, first);
}

#[test]
fn the_same_files_elsewhere_are_found() {
    let (one, two) = (two_steps(), two_steps());
    let store = store();
    let first = store.build(one.path()).unwrap();
    let second = store.build(two.path()).unwrap();
    assert_eq!((second.digest, second.cached_steps), (first.digest, 2));
    // Another time makes other layers.
    let dated = store.build_with(one.path(), Options { source_date_epoch: 1, ..options() }).unwrap();
    assert_eq!(dated.cached_steps, 0);
}

#[test]
fn a_file_that_changes_within_the_clock_s_tick_is_read_again() {
    let dir = directory(SIMPLE, &[("main.py", "1")]);
    let store = store();
    // The build begins now, and the file is from now: it is not remembered.
    let now = || Options::at(SystemTime::now());
    let first = store.build_with(dir.path(), now()).unwrap();
    let path = dir.path().join("main.py");
    let before = fs::metadata(&path).unwrap();
    for _ in 0..20 {
        write(dir.path(), "main.py", "2");
        assert_ne!(store.build_with(dir.path(), now()).unwrap().digest, first.digest);
        write(dir.path(), "main.py", "1");
        assert_eq!(store.build_with(dir.path(), now()).unwrap().digest, first.digest);
    }
    // Its modification time says nothing.
    store.build_with(dir.path(), later()).unwrap();
    write(dir.path(), "main.py", "2");
    fs::File::options().write(true).open(&path).unwrap().set_modified(before.modified().unwrap()).unwrap();
    assert_ne!(store.build_with(dir.path(), later()).unwrap().digest, first.digest);
}

#[test]
fn what_is_remembered_of_files_is_used_and_may_be_damaged() {
    let dir = directory(SIMPLE, &[("main.py", "1"), ("a", ""), ("a.b", ""), ("a-b/c", "")]);
    let store = store();
    let first = store.build_with(dir.path(), later()).unwrap();
    let remembered = files_below(&store.repository.root().join("cache/files"));
    assert_eq!(remembered.len(), 1);
    let good = fs::read(&remembered[0]).unwrap();
    // It is used: a wrong digest under a right checksum would be believed, and no other is.
    for at in [0, 8, 40, 44, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&remembered[0], bad).unwrap();
        assert_eq!(store.build_with(dir.path(), later()).unwrap().digest, first.digest, "{at}");
        assert_eq!(fs::read(&remembered[0]).unwrap(), good, "written anew after {at}");
    }
    fs::write(&remembered[0], &good[..good.len() / 2]).unwrap();
    assert_eq!(store.build_with(dir.path(), later()).unwrap().digest, first.digest);
    // An unreadable file shows that nothing is read when all is known, and that it is otherwise.
    fs::write(&remembered[0], &good).unwrap();
    let before = fs::metadata(&remembered[0]).unwrap().modified().unwrap();
    store.build_with(dir.path(), later()).unwrap();
    assert_eq!(fs::metadata(&remembered[0]).unwrap().modified().unwrap(), before, "nothing was learned");
}

#[test]
fn damaged_records_and_missing_blobs_are_made_again() {
    let dir = two_steps();
    let store = store();
    let first = store.build(dir.path()).unwrap();
    let (digest, layers) = (first.digest, first.layers.clone());
    let records = files_below(&store.repository.root().join("cache/steps"));
    assert_eq!(records.len(), 2);
    for record in &records {
        let good = fs::read(record).unwrap();
        for bad in [&b""[..], b"AOSSTEP1", &good[..good.len() - 1], &[&good[..], b" "].concat()] {
            fs::write(record, bad).unwrap();
            let built = store.build(dir.path()).unwrap();
            assert_eq!((built.digest, built.cached_steps), (digest, 1));
            assert_eq!(fs::read(record).unwrap(), good);
        }
    }
    drop(first);
    for layer in &layers {
        fs::remove_file(store.repository.layout().join("blobs/sha256").join(layer.digest.hex())).unwrap();
        let built = store.build(dir.path()).unwrap();
        assert_eq!((built.digest, built.cached_steps), (digest, 1));
    }
    assert_eq!(store.build(dir.path()).unwrap().cached_steps, 2);
}

#[test]
fn a_build_leaves_nothing_temporary() {
    let dir = two_steps();
    let store = store();
    drop(store.build(dir.path()).unwrap());
    write(dir.path(), "src/main.py", "");
    fs::remove_dir_all(dir.path().join("lib")).unwrap();
    store.build(dir.path()).unwrap_err();
    for below in ["tmp", "leases", "partial", "cache/scratch", "cache/trees"] {
        assert_eq!(fs::read_dir(store.repository.root().join(below)).unwrap().count(), 0, "{below}");
    }
}

#[test]
fn pruning_keeps_what_was_used_last() {
    let store = store();
    let cache = Cache::open(&store.repository).unwrap();
    let dir = two_steps();
    let now = SystemTime::now();
    let hour = |n: u64| now + Duration::from_secs(3600 * n);
    store.build_with(dir.path(), Options::at(hour(1))).unwrap();
    write(dir.path(), "src/main.py", "2");
    store.build_with(dir.path(), Options::at(hour(5))).unwrap();
    let list = cache.list().unwrap();
    let steps: Vec<_> = list.iter().filter(|entry| entry.kind == EntryKind::Step).collect();
    assert_eq!(steps.len(), 3);
    assert!(steps.iter().any(|entry| entry.title == "[app 1/2] copy lib /app/lib" && entry.bytes > 0));
    assert_eq!(cache.layers().unwrap().len(), 3);

    let old = Prune { older: Some(Duration::from_secs(3600 * 2)), keep_bytes: None };
    let pruned = cache.prune(old, hour(6)).unwrap();
    let titles: Vec<_> =
        pruned.removed.iter().filter(|e| e.kind == EntryKind::Step).map(|e| e.title.as_str()).collect();
    assert_eq!(titles, ["[app 2/2] copy src /app"], "the one that was used an hour ago stays");
    assert_eq!(cache.layers().unwrap().len(), 2);
    // What the cache has and no package needs is garbage unless the collector is told.
    let keep = cache.layers().unwrap();
    let dry = store.repository.gc(&BTreeSet::new(), &keep, GcMode::DryRun).unwrap();
    assert_eq!(dry.blobs.iter().filter(|blob| keep.contains(blob)).count(), 0);

    let all: u64 = cache.list().unwrap().iter().map(|entry| entry.bytes).sum();
    let kept = cache.prune(Prune { keep_bytes: Some(all), older: None }, hour(6)).unwrap();
    assert!(kept.removed.is_empty());
    let some = cache.prune(Prune { keep_bytes: Some(all - 1), older: None }, hour(6)).unwrap();
    assert_eq!(some.removed.len(), 1);
    cache.prune(Prune::default(), hour(6)).unwrap();
    assert_eq!(cache.list().unwrap(), []);
    assert_eq!(store.build(dir.path()).unwrap().cached_steps, 0);
}

#[test]
fn two_builds_at_once_make_the_same() {
    let dir = two_steps();
    let store = store();
    let digests: Vec<_> = std::thread::scope(|scope| {
        let builds: Vec<_> =
            (0..4).map(|_| scope.spawn(|| store.build(dir.path()).unwrap().digest)).collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    assert!(
        store
            .repository
            .check(aos_package::repository::Depth::Contents, &BTreeSet::new())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn reproducible_or_what_differs() {
    let dir = two_steps();
    let scratch = tempfile::tempdir().unwrap();
    let request = Request::new(dir.path(), options());
    let same = check_reproducible(&request, scratch.path(), &Local, &Silent).unwrap();
    assert_eq!(same.difference, None);
    assert_eq!(same.digests[0], same.digests[1]);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);

    // A file that is another one each time, as a step that runs may make it.
    struct Changing(PathBuf);
    impl aos_build::Progress for Changing {
        fn event(&self, step: &aos_build::StepName<'_>, event: aos_build::Event<'_>) {
            if step.number == 2 && matches!(event, aos_build::Event::Done { .. }) {
                fs::write(&self.0, "changed").unwrap();
            }
        }
    }
    let changing = Changing(dir.path().join("lib/a"));
    let Comparison { difference, .. } =
        check_reproducible(&request, scratch.path(), &Local, &changing).unwrap();
    let Some(Difference::Path { layer: 1, path, what }) = difference else { panic!("{difference:?}") };
    assert_eq!((path.as_str(), what.as_str()), ("app/lib/a", "has other contents: 1 and 7 bytes"));
}

#[test]
fn a_file_that_changes_during_the_build_is_an_error() {
    /// Changes a file after the first step is done.
    struct Writer(PathBuf);
    impl aos_build::Progress for Writer {
        fn event(&self, _: &aos_build::StepName<'_>, event: aos_build::Event<'_>) {
            if let aos_build::Event::Bytes { .. } = event {
                let size = fs::metadata(&self.0).unwrap().len() as usize;
                fs::write(&self.0, vec![b'x'; size]).unwrap();
            }
        }
    }
    // Large enough to be read twice, and for a report between its neighbours.
    let dir = directory(SIMPLE, &[("main.py", "")]);
    fs::write(dir.path().join("a"), vec![b'a'; 5 << 20]).unwrap();
    fs::write(dir.path().join("z"), vec![b'z'; 5 << 20]).unwrap();
    let store = store();
    let writer = Writer(dir.path().join("z"));
    let request = Request::new(dir.path(), options());
    let error = build(&request, &store.repository, &Local, &writer).unwrap_err();
    assert_eq!(error.to_string(), "`z` changed while it was read: build again");
    assert!(store.repository.tags().unwrap().is_empty());
}
