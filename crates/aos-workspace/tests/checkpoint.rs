//! Checkpoints: everything of a workspace kept and brought back, also what an agent made to harm who does it, and at
//! whatever moment it is killed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, and starting the program is the point"
)]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

use aos_core::workspace::{Answer, Below, CheckpointStep, Operation};
use aos_workspace::{Folder, WorkspaceError};
use common::program::Program;
use common::{Place, tree};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, getxattr, mkdirat, mknodat, setxattr};

fn save(number: u32, keep: &[u32]) -> Operation {
    Operation::Checkpoint(CheckpointStep::Save { number, keep: keep.to_vec() })
}

fn stage(number: u32) -> Operation {
    Operation::Checkpoint(CheckpointStep::Stage { number })
}

fn swap() -> Operation {
    Operation::Checkpoint(CheckpointStep::Swap)
}

fn restore(place: &Place, number: u32) {
    place.perform(&stage(number)).unwrap();
    place.perform(&swap()).unwrap();
    assert!(!place.path("changes/stage.json").exists() && !place.path("changes/restore").exists());
    assert!(!place.path("changes/intent.json").exists());
    assert_eq!(tree(&place.path("changes/trash")).len(), 0);
}

/// What makes two trees the same beyond their contents: times of files, and which names are one file.
fn identity(root: &Path) -> Vec<(String, i64, i64, u64)> {
    let mut all: Vec<_> = tree(root)
        .keys()
        .map(|path| {
            let metadata = root.join(path).symlink_metadata().unwrap();
            (format!("{path:?}"), metadata.mtime(), metadata.mtime_nsec(), metadata.nlink())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_persistent_workspace_comes_back_as_it_was() {
    let place = Place::new();
    let base = place.path("base");
    fs::create_dir_all(base.join("d/e")).unwrap();
    fs::write(base.join("d/e/f"), "old").unwrap();
    fs::write(base.join("a"), "a").unwrap();
    fs::hard_link(base.join("a"), base.join("d/b")).unwrap();
    let (before, times) = (place.base(), identity(&base));
    let saved = place.perform(&save(1, &[])).unwrap();
    assert!(matches!(saved, Answer::Saved { entries: 5, bytes } if bytes > 0), "{saved:?}");
    fs::write(base.join("d/e/f"), "new").unwrap();
    fs::remove_file(base.join("a")).unwrap();
    fs::write(base.join("more"), "x").unwrap();
    let after = place.base();
    place.perform(&save(2, &[1])).unwrap();
    restore(&place, 1);
    assert_eq!((place.base(), identity(&base)), (before.clone(), times));
    restore(&place, 2);
    assert_eq!(place.base(), after);
    restore(&place, 1);
    assert_eq!(place.base(), before, "as often as one likes");
}

#[test]
fn a_transactional_workspace_comes_back_with_its_changes_and_snapshots() {
    let place = Place::new();
    fs::create_dir_all(place.path("base/d")).unwrap();
    for name in ["base/d/x", "base/gone", "base/kept"] {
        fs::write(place.path(name), "below").unwrap();
    }
    let union = place.union();
    fs::remove_file(union.path().join("gone")).unwrap();
    fs::remove_dir_all(union.path().join("d")).unwrap();
    fs::create_dir(union.path().join("d")).unwrap();
    drop(union);
    place.snapshot("first");
    fs::write(place.union().path().join("kept"), "changed").unwrap();
    let (view, base, changes) = (place.view(), place.base(), place.changes());
    // While the union is mounted, as of an agent that is frozen.
    let union = place.union();
    place.perform(&save(1, &[])).unwrap();
    drop(union);
    place.commit(&[]);
    assert_ne!(place.base(), base);
    restore(&place, 1);
    assert_eq!((place.view(), place.base()), (view, base));
    assert_eq!(place.changes(), changes);
    place.discard(Some(1));
    assert_eq!(fs::read(place.union().path().join("kept")).unwrap(), b"below");
}

#[test]
fn what_an_agent_can_make_is_kept_exactly() {
    let place = Place::new();
    let base = place.path("base");
    let odd = base.join(OsStr::from_bytes(b"odd \xff\n\x1b[31m"));
    fs::write(&odd, "odd").unwrap();
    symlink("/etc/shadow", base.join("shadow")).unwrap();
    symlink("/etc", base.join("etc")).unwrap();
    mknodat(CWD, base.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    drop(UnixListener::bind(base.join("socket")).unwrap());
    let sparse = File::create(base.join("sparse")).unwrap();
    sparse.set_len(1 << 42).unwrap();
    sparse.write_all_at(b"end", (1 << 42) - 3).unwrap();
    for name in ["one", "set"] {
        fs::write(base.join(name), "x").unwrap();
    }
    for number in 0..50 {
        fs::hard_link(base.join("one"), base.join(format!("link{number}"))).unwrap();
    }
    fs::set_permissions(base.join("set"), Permissions::from_mode(0o6755)).unwrap();
    setxattr(base.join("one"), "user.note", b"\0\xff", XattrFlags::empty()).unwrap();
    fs::create_dir(base.join("closed")).unwrap();
    setxattr(base.join("closed"), "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    fs::write(base.join("closed/in"), "x").unwrap();
    fs::set_permissions(base.join("closed"), Permissions::from_mode(0o1000)).unwrap();
    place.perform(&save(1, &[])).unwrap();
    let read = |name: &str| fs::symlink_metadata(base.join(name)).unwrap();
    let kept = place.path("changes/checkpoints/0001/base");
    for entry in fs::read_dir(&base).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
        .unwrap();
    }
    restore(&place, 1);
    assert_eq!(fs::read(&odd).unwrap(), b"odd");
    assert_eq!(fs::read_link(base.join("shadow")).unwrap().to_str(), Some("/etc/shadow"));
    assert_eq!(fs::read_link(base.join("etc")).unwrap().to_str(), Some("/etc"));
    assert!(read("pipe").file_type().is_fifo() && read("socket").file_type().is_socket());
    assert_eq!((read("sparse").len(), read("sparse").blocks() < 1024), (1 << 42, true));
    assert_eq!((read("one").nlink(), read("one").ino()), (51, read("link7").ino()));
    assert_eq!(read("set").mode() & 0o7777, 0o755, "no set-id bit");
    assert_eq!(read("closed").mode() & 0o7777, 0o1000);
    assert_eq!(fs::read(base.join("closed/in")).unwrap(), b"x");
    let mut value = [0_u8; 8];
    assert_eq!(getxattr(base.join("one"), "user.note", &mut value).unwrap(), 2);
    assert_eq!(getxattr(base.join("closed"), "user.overlay.opaque", &mut value).unwrap(), 1);
    // The links by which a copy finds files again are no part of it.
    assert_eq!(fs::symlink_metadata(kept.join("one")).unwrap().nlink(), 51);
    assert!(!place.path("changes/checkpoints/0001/links").exists());
}

#[test]
fn deep_and_wide_trees_are_copied_whole() {
    const DEPTH: usize = 3_000;
    const WIDTH: usize = 12_000;
    let place = Place::new();
    let mut directory = File::open(place.path("base")).unwrap();
    for _ in 0..DEPTH {
        mkdirat(&directory, "n", Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        directory = File::from(rustix::fs::openat(&directory, "n", flags, Mode::empty()).unwrap());
    }
    for number in 0..WIDTH {
        fs::write(place.path(format!("base/{number}")), "").unwrap();
    }
    let Answer::Saved { entries, .. } = place.perform(&save(1, &[])).unwrap() else { panic!() };
    assert_eq!(entries, (DEPTH + WIDTH) as u64);
    restore(&place, 1);
    let Answer::Saved { entries, .. } = place.perform(&save(2, &[1])).unwrap() else { panic!() };
    assert_eq!(entries, (DEPTH + WIDTH) as u64);
    // Such a tree is deleted as well.
    place.perform(&Operation::Checkpoint(CheckpointStep::Prune { keep: vec![2] })).unwrap();
    assert_eq!(fs::read_dir(place.path("changes/checkpoints")).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_kept_or_put_back_ends_it_and_leaves_nothing() {
    let place = Place::new();
    let base = place.path("base");
    fs::create_dir(base.join("d")).unwrap();
    mknodat(CWD, base.join("d/device"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 3))
        .unwrap();
    let refused = |place: &Place, says: &str| {
        let error = place.perform(&save(1, &[])).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(fs::read_dir(place.path("changes/checkpoints")).unwrap().count(), 0, "{says}");
        assert_eq!(tree(&place.path("changes/trash")).len(), 0);
    };
    refused(&place, "/d/device cannot be copied: a device");
    fs::remove_file(base.join("d/device")).unwrap();
    fs::create_dir(base.join("d/theirs")).unwrap();
    chown(base.join("d/theirs"), Some(7), Some(7)).unwrap();
    refused(&place, "/d/theirs cannot be copied");
    fs::remove_dir(base.join("d/theirs")).unwrap();
    place.perform(&save(1, &[])).unwrap();
    // Somebody's directory in the way is found before anything has moved.
    fs::create_dir(base.join("theirs")).unwrap();
    chown(base.join("theirs"), Some(7), Some(7)).unwrap();
    fs::write(base.join("new"), "new").unwrap();
    let before = place.base();
    let error = place.perform(&stage(1)).unwrap_err();
    assert!(matches!(&error, WorkspaceError::Foreign(name) if name == "theirs"), "{error}");
    assert!(matches!(place.perform(&stage(7)), Err(WorkspaceError::NoCheckpoint(7))));
    assert_eq!(place.base(), before);
    assert!(!place.path("changes/stage.json").exists());
    // Without anything staged a swap was done before.
    assert_eq!(place.perform(&swap()).unwrap(), Answer::Done);
    assert_eq!(place.base(), before);
    // A number is taken once.
    place.perform(&save(2, &[1])).unwrap_err();
}

#[test]
fn a_number_that_is_there_and_kept_is_not_written_over() {
    let place = Place::new();
    fs::write(place.path("base/a"), "1").unwrap();
    place.perform(&save(1, &[])).unwrap();
    fs::write(place.path("base/a"), "2").unwrap();
    place.perform(&save(1, &[1])).unwrap_err();
    assert_eq!(fs::read(place.path("changes/checkpoints/0001/base/a")).unwrap(), b"1");
    // One whose row was never stored is.
    place.perform(&save(1, &[])).unwrap();
    assert_eq!(fs::read(place.path("changes/checkpoints/0001/base/a")).unwrap(), b"2");
}

#[test]
fn what_was_staged_and_not_begun_is_given_up() {
    let place = Place::new();
    fs::write(place.path("base/a"), "1").unwrap();
    place.perform(&save(1, &[])).unwrap();
    let before = place.base();
    // What a start has done first, and what the supervisor does after a copy that failed.
    let prune = Operation::Checkpoint(CheckpointStep::Prune { keep: vec![1] });
    for next in [Operation::Snapshots, prune, save(2, &[1])] {
        place.perform(&stage(1)).unwrap();
        assert_ne!(place.base(), before);
        place.perform(&next).unwrap();
        assert_eq!(place.base(), before, "{next:?}");
        assert!(!place.path("changes/stage.json").exists());
    }
}

#[test]
fn forks_keep_their_changes_and_not_what_is_anothers() {
    let place = Place::new();
    fs::write(place.path("base/a"), "1").unwrap();
    let fork = place.fork();
    fs::write(fork.union().path().join("mine"), "1").unwrap();
    let folder = Folder::open(&fork.absolute("changes"), &[place.absolute("base")], Below::Shared).unwrap();
    folder.perform(&save(1, &[])).unwrap();
    assert!(!fork.path("changes/checkpoints/0001/base").exists());
    fs::remove_file(fork.path("changes/upper/mine")).unwrap();
    folder.perform(&stage(1)).unwrap();
    folder.perform(&swap()).unwrap();
    assert_eq!(fs::read(fork.path("changes/upper/mine")).unwrap(), b"1");
    assert_eq!(tree(&place.path("base")).len(), 1);
    assert!(matches!(fork.perform(&stage(1)), Err(WorkspaceError::ForkOrNot)));
}

/// Two states of a workspace, with enough in each for a restore to be cut short in.
fn two_states() -> Program {
    let program = Program::new();
    let place = &program.place;
    let fill = |mark: &str, names: std::ops::Range<u32>| {
        for number in names {
            let directory = place.path(format!("base/d{number}"));
            fs::create_dir_all(&directory).unwrap();
            for inner in 0..4 {
                fs::write(directory.join(format!("f{inner}")), mark.repeat(5_000)).unwrap();
            }
        }
    };
    fill("first ", 0..40);
    fs::write(place.union().path().join("d1/f1"), "a change").unwrap();
    place.snapshot("one");
    fs::remove_dir_all(place.union().path().join("d2")).unwrap();
    place.perform(&save(1, &[])).unwrap();
    fs::remove_dir_all(place.path("base/d7")).unwrap();
    fill("second ", 20..60);
    fs::write(place.union().path().join("other"), "another change").unwrap();
    program
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_or_the_new() {
    let quiet = two_states();
    let old = (quiet.place.base(), quiet.place.view());
    assert!(quiet.command(&stage(1)).status().unwrap().success());
    let begun = Instant::now();
    assert!(quiet.command(&swap()).status().unwrap().success());
    let whole = begun.elapsed();
    let new = (quiet.place.base(), quiet.place.view());
    assert_ne!(old, new);
    let mut cut_short = 0;
    for step in 0..10_u32 {
        let program = two_states();
        assert!(program.command(&stage(1)).status().unwrap().success());
        let mut child = program.command(&swap()).spawn().unwrap();
        std::thread::sleep(whole * step / 9);
        child.kill().unwrap();
        child.wait().unwrap();
        let is_begun = program.place.path("changes/intent.json").exists();
        cut_short += usize::from(is_begun);
        // What the supervisor does when it looks again.
        let (status, answer) = program.run(&swap());
        assert!(status.success(), "{answer:?}");
        assert!((program.place.base(), program.place.view()) == new, "{step} begun: {is_begun}");
        assert!(!program.place.path("changes/stage.json").exists());
    }
    assert!(cut_short > 2, "only {cut_short} kills came in the middle");
}

#[test]
fn a_kill_before_that_leaves_everything_as_it_was() {
    for (operation, rounds) in [(save(2, &[1]), 4), (stage(1), 4)] {
        let quiet = two_states();
        let begun = Instant::now();
        assert!(quiet.command(&operation).status().unwrap().success());
        let whole = begun.elapsed();
        for step in 0..rounds {
            let program = two_states();
            let old = (program.place.base(), program.place.view());
            let kept = tree(&program.place.path("changes/checkpoints/0001"));
            let mut child = program.command(&operation).spawn().unwrap();
            std::thread::sleep(whole * step / rounds);
            child.kill().unwrap();
            child.wait().unwrap();
            let (status, answer) = program.run(&Operation::Snapshots);
            assert!(status.success(), "{answer:?}");
            assert!((program.place.base(), program.place.view()) == old, "{operation:?} {step}");
            assert!(tree(&program.place.path("changes/checkpoints/0001")) == kept);
            let (status, answer) = program.run(&save(3, &[1]));
            assert!(status.success(), "{answer:?}");
            let names: Vec<_> = fs::read_dir(program.place.path("changes/checkpoints"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            assert_eq!(names.len(), 2, "what was cut short is gone: {names:?}");
        }
    }
}

/// Every size of a file system that is too small for it: what is there stays, and what is half-made goes.
#[test]
fn a_full_disk_changes_nothing() {
    let mut full = 0;
    for kib in [1_400_usize, 1_800, 2_200, 3_000] {
        let place = Place::new();
        let mount = |options: &str| {
            let status = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(place.path("changes"))
                .status();
            assert!(status.unwrap().success());
        };
        mount(&format!("size={kib}k"));
        fs::write(place.path("base/a"), vec![1; 1_000_000]).unwrap();
        let before = place.base();
        place.perform(&save(1, &[])).unwrap();
        match place.perform(&save(2, &[1])) {
            Ok(_) => {}
            Err(error) => {
                full += 1;
                assert!(error.to_string().contains("aos checkpoint"), "{error}");
                assert!(!place.path("changes/checkpoints/new").exists());
            }
        }
        fs::write(place.path("base/a"), "less").unwrap();
        // The file system of the workspace is another one, so there is room for what is staged there.
        restore(&place, 1);
        assert_eq!(place.base(), before);
        let status = std::process::Command::new("umount").arg(place.path("changes")).status();
        assert!(status.unwrap().success());
    }
    assert!(full >= 2, "{full}");
}

/// For the page of documentation: what a checkpoint of 200 MB costs.
#[test]
fn two_hundred_megabytes_in_two_thousand_files() {
    let program = Program::new();
    for number in 0..2_000 {
        fs::write(program.place.path(format!("base/{number}")), vec![number as u8; 100 << 10]).unwrap();
    }
    let mut times = Vec::new();
    for operation in [save(1, &[]), stage(1), swap()] {
        let mut command = program.command(&operation);
        let begun = Instant::now();
        assert!(command.status().unwrap().success());
        times.push(begun.elapsed().as_millis());
    }
    println!(
        "200 MB in 2,000 files: kept in {} ms, staged in {} ms, put in place in {} ms",
        times[0], times[1], times[2]
    );
}
