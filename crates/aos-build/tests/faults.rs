//! A build that is killed or finds the disk full leaves a store that is whole, and the next one goes
//! on. These tests start themselves again as the program that is killed; the full disk needs a mount
//! namespace (root, or unprivileged user namespaces).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic in a helper is the test's failure report, and these tests are about processes"
)]

mod common;

use aos_build::{Cache, Local, Request, Silent, build};
use aos_package::repository::{Depth, Repository};
use common::{chain, directory, later, with_build, write};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Where [`builder`] finds its work: the directory, and the store's.
const WORK: &str = "AOS_TEST_BUILD";
/// Kills of one run; more by AOS_TEST_KILLS.
const KILLS: u64 = 40;

/// The program that is killed: not a test of its own.
#[test]
#[ignore = "started by the other tests"]
fn builder() {
    let work = std::env::var(WORK).unwrap();
    let (directory, store) = work.split_once(':').unwrap();
    let built = Repository::open(Path::new(store)).map_err(|error| chain(&error)).and_then(|repository| {
        build(&Request::new(Path::new(directory), later()), &repository, &Local, &Silent)
            .map_err(|error| chain(&error))
    });
    match built {
        Ok(built) => println!("built {}", built.digest),
        Err(error) => println!("failed {error}"),
    }
}

/// What to start: this program as the builder.
fn builder_of(directory: &Path, store: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "builder", "--nocapture"]);
    command.env(WORK, format!("{}:{}", directory.display(), store.display())).stdout(Stdio::piped());
    command
}

/// A directory that takes a moment to build: three stages, two of them at once.
fn work() -> TempDir {
    let agentfile = with_build("host", "{ copy: { stage: a, from: ., to: /app } }, { copy: { stage: b, from: ., to: /app } }, { copy: { from: main.py, to: /app/ } }")
        .replace(
            "stages: [ ",
            "stages: [ { name: a, from: scratch, steps: [ { copy: { from: a, to: /a } } ] }, { name: b, from: scratch, steps: [ { copy: { from: b, to: /b } } ] }, ",
        );
    let dir = directory(&agentfile, &[("main.py", "")]);
    for n in 0..40 {
        write(dir.path(), &format!("a/{n}"), &format!("{n}").repeat(5000));
        write(dir.path(), &format!("b/{n}"), &format!("{n}").repeat(3000));
    }
    dir
}

/// The store is whole, and what the cache names is there.
fn check(store: &Path) {
    let repository = Repository::open(store).unwrap();
    let cached = Cache::open(&repository).unwrap().layers().unwrap();
    let problems = repository.check(Depth::Contents, &BTreeSet::new()).unwrap();
    let damage: Vec<_> = problems.iter().filter(|problem| problem.is_damage()).collect();
    assert!(damage.is_empty(), "{damage:?}");
    for layer in cached {
        assert!(repository.blob_size(&layer).unwrap().is_some(), "a record names a blob that is not there");
    }
}

#[test]
fn a_killed_build_leaves_a_whole_store() {
    let dir = work();
    let scratch = tempfile::tempdir().unwrap();
    let calm = scratch.path().join("calm");
    let expected =
        build(&Request::new(dir.path(), later()), &Repository::open(&calm).unwrap(), &Local, &Silent)
            .unwrap();
    let kills = std::env::var("AOS_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let store = scratch.path().join("store");
    let mut finished = 0;
    for kill in 0..kills {
        if kill % 8 == 0 && store.exists() {
            fs::remove_dir_all(&store).unwrap();
        }
        let mut child = builder_of(dir.path(), &store).stdout(Stdio::null()).spawn().unwrap();
        // From before the first file is read to after the last is written.
        std::thread::sleep(Duration::from_micros(1000 + kill * 7919 % 60_000));
        child.kill().unwrap();
        finished += u64::from(child.wait().unwrap().success());
        if store.exists() {
            check(&store);
        }
    }
    assert!(finished < kills, "none was killed");
    let output = builder_of(dir.path(), &store).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("built {}", expected.digest)), "{text}");
    check(&store);
    for below in ["cache/scratch", "cache/trees"] {
        let left = fs::read_dir(store.join(below))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(left.count(), 0, "{below}");
    }
}

#[test]
fn a_full_disk_leaves_a_whole_store() {
    let dir = work();
    let mut failures = 0;
    for kib in [64, 128, 192, 256, 320, 512, 16_384] {
        let scratch = tempfile::tempdir().unwrap();
        let store = scratch.path().join("store");
        fs::create_dir(&store).unwrap();
        let builder = builder_of(dir.path(), &store);
        // The first build fails, the second one too; then there is room.
        let script = "mount -t tmpfs -o size=$1k tmpfs \"$2\" && shift 2 && \"$@\"; \"$@\"; \
            mount -o remount,size=64m \"${AOS_TEST_BUILD#*:}\" && \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh", &kib.to_string()]).arg(&store);
        command.arg(builder.get_program()).args(builder.get_args());
        command.env(WORK, format!("{}:{}", dir.path().display(), store.display()));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("built ") || line.starts_with("failed ")).collect();
        assert_eq!(lines.len(), 3, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        for line in &lines[..2] {
            if let Some(error) = line.strip_prefix("failed ") {
                failures += 1;
                assert!(error.contains("No space left on device"), "{error}");
            }
        }
        assert!(lines[2].starts_with("built "), "{}", lines[2]);
    }
    assert!(failures >= 6, "{failures}");
}
