//! The program, as a user without privilege: its answers, and what is left when it is killed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, and starting the program is the point"
)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use aos_core::workspace::{Answer, Operation};
use common::program::{Program, READER, UID};
use common::tree;

#[test]
fn the_answer_is_for_one_reader() {
    let program = Program::new();
    fs::write(program.place.path("changes/upper/a"), "1").unwrap();
    fs::write(program.place.path("answers/answer-6.json"), "old").unwrap();
    let (status, answer) = program.run(&Operation::Diff { patch: false });
    assert!(status.success());
    assert!(matches!(answer, Answer::Changes(changes) if changes.count == 1));
    assert!(!program.place.path("answers/answer-6.json").exists());
    let reads = |uid: u32| {
        let answer = program.answer();
        Command::new("cat").arg(answer).uid(uid).gid(uid).stderr(Stdio::null()).stdout(Stdio::null()).status()
    };
    assert!(reads(READER).unwrap().success() && !reads(READER - 1).unwrap().success());
}

#[test]
fn what_went_wrong_is_in_the_answer() {
    let program = Program::new();
    let (status, answer) = program.run(&Operation::Discard { to: Some(3) });
    assert_eq!(status.code(), Some(1));
    assert!(matches!(answer, Answer::Failed { message } if message.contains("no snapshot 3")));
    fs::write(program.place.path("request"), "{}").unwrap();
    let mut command = Command::new(program.place.path("program"));
    command.arg(program.place.path("request")).arg(program.place.path("answers")).uid(UID).gid(UID);
    assert_eq!(command.status().unwrap().code(), Some(2));
    let mut as_root = Command::new(env!("CARGO_BIN_EXE_aos-workspace"));
    let output = as_root.args(["x", "y"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("never runs as root"));
}

#[test]
fn what_an_agent_closed_to_itself_is_committed_and_what_is_others_is_not() {
    let program = Program::new();
    let upper = program.place.path("changes/upper");
    fs::create_dir_all(upper.join("closed/inner")).unwrap();
    fs::write(upper.join("closed/inner/file"), "x").unwrap();
    fs::write(program.place.path("base/old"), "x").unwrap();
    fs::write(program.place.path("base/dir"), "x").unwrap();
    fs::write(upper.join("old"), "y").unwrap();
    fs::create_dir(program.place.path("foreign")).unwrap();
    fs::write(program.place.path("foreign/file"), "not the agent's").unwrap();
    fs::set_permissions(program.place.path("foreign"), Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(program.place.path("foreign"), upper.join("way")).unwrap();
    program.own();
    for closed in ["closed/inner/file", "closed/inner", "closed"] {
        fs::set_permissions(upper.join(closed), Permissions::from_mode(0o000)).unwrap();
    }
    // A file of somebody else's in a layer: not even its owner's namespace lets the agent's user read it.
    fs::write(upper.join("theirs"), "secret").unwrap();
    let mut command = program.command(&Operation::Commit { paths: Vec::new() });
    chown(upper.join("theirs"), Some(0), Some(0)).unwrap();
    fs::set_permissions(upper.join("theirs"), Permissions::from_mode(0o600)).unwrap();
    assert!(command.status().unwrap().success());
    let answer: Answer = serde_json::from_slice(&fs::read(program.answer()).unwrap()).unwrap();
    let Answer::Committed(done) = answer else { panic!("{answer:?}") };
    assert_eq!(done.skipped.entries, ["theirs: Permission denied (os error 13)"]);
    assert_eq!(fs::read(program.place.path("base/closed/inner/file")).unwrap(), b"x");
    assert_eq!(fs::metadata(program.place.path("base/closed")).unwrap().permissions().mode() & 0o777, 0);
    assert!(!program.place.path("base/theirs").exists() && upper.join("theirs").exists());
    assert_eq!(fs::read(program.place.path("foreign/file")).unwrap(), b"not the agent's");
}

/// The size of issue 4: freezing it is a rename, and a second agent's union of it is a mount.
#[test]
fn two_hundred_megabytes_are_frozen_and_shared_in_a_moment() {
    let program = Program::new();
    let union = program.place.union();
    for number in 0..200 {
        fs::write(union.path().join(number.to_string()), vec![number as u8; 1 << 20]).unwrap();
    }
    drop(union);
    fs::File::open(program.place.path("changes")).unwrap().sync_all().unwrap();
    let snapshot = Operation::Snapshot { name: None, at_us: 1 };
    let mut command = program.command(&snapshot);
    let begun = Instant::now();
    assert!(command.status().unwrap().success());
    let frozen = begun.elapsed();
    let fork = program.place.fork();
    let begun = Instant::now();
    let union = fork.union();
    let mounted = begun.elapsed();
    fs::write(union.path().join("7"), "mine").unwrap();
    drop(union);
    println!(
        "200 MB frozen in {} ms (with writing them to the disk), a fork of them mounted in {} us",
        frozen.as_millis(),
        mounted.as_micros()
    );
    assert_eq!(fs::metadata(program.place.path("changes/snapshots/0001/7")).unwrap().len(), 1 << 20);
    assert!(mounted.as_millis() < 1000 && frozen.as_secs() < 20);
}

/// A workspace in which every kind of change takes a while.
fn busy() -> Program {
    let program = Program::new();
    let base = program.place.path("base");
    for number in 0..40 {
        fs::create_dir(base.join(format!("d{number}"))).unwrap();
        for inner in 0..5 {
            fs::write(base.join(format!("d{number}/f{inner}")), vec![b'o'; 20_000]).unwrap();
        }
    }
    for round in 0..2 {
        let union = program.place.union();
        for number in (round..40).step_by(2) {
            let directory = union.path().join(format!("d{number}"));
            match number % 5 {
                0 => fs::remove_dir_all(&directory).unwrap(),
                1 => {
                    fs::remove_dir_all(&directory).unwrap();
                    fs::create_dir(&directory).unwrap();
                    fs::write(directory.join("new"), "new").unwrap();
                }
                2 => {
                    fs::remove_dir_all(&directory).unwrap();
                    fs::write(&directory, "a file now").unwrap();
                }
                _ => fs::write(directory.join("f1"), vec![b'n'; 100_000]).unwrap(),
            }
        }
        drop(union);
        if round == 0 {
            program.place.snapshot("half");
        }
    }
    program
}

#[test]
fn a_kill_at_any_moment_is_rolled_forward() {
    let operations = [
        Operation::Commit { paths: Vec::new() },
        Operation::Discard { to: None },
        Operation::Discard { to: Some(1) },
        Operation::Snapshot { name: None, at_us: 1 },
    ];
    let mut cut_short = 0;
    for (index, operation) in operations.iter().enumerate() {
        let quiet = busy();
        let begun = Instant::now();
        assert!(quiet.command(operation).status().unwrap().success());
        let whole = begun.elapsed();
        let (end_base, end_view) = (quiet.place.base(), quiet.place.view());
        for step in 0..8_u32 {
            let program = busy();
            let (base, view) = (program.place.base(), program.place.view());
            let mut child = program.command(operation).spawn().unwrap();
            std::thread::sleep(whole * step / 7);
            child.kill().unwrap();
            child.wait().unwrap();
            let is_begun = program.place.path("changes/intent.json").exists();
            cut_short += usize::from(is_begun);
            if is_begun && index == 0 {
                // The kernel's own union, half-way: an agent would see no difference but the staging directory.
                let mut now = program.place.view();
                now.retain(|path, _| !path.to_str().unwrap().starts_with(".aos-commit-"));
                assert!(now == view, "{operation:?} {step}");
            }
            program.own();
            let (status, answer) = program.run(&Operation::Snapshots);
            assert!(status.success(), "{answer:?}");
            let now = (program.place.base(), program.place.view());
            let is_old = now == (base, view);
            let is_done = now == (end_base.clone(), end_view.clone());
            assert!(is_done || (!is_begun && is_old), "{operation:?} {step} begun: {is_begun}");
            assert!(!program.place.path("changes/intent.json").exists());
            assert_eq!(tree(&program.place.path("changes/trash")).len(), 0);
            assert!(!tree(&program.place.path("base")).keys().any(|path| path.starts_with(".aos-commit")));
        }
    }
    assert!(cut_short > 2, "only {cut_short} kills came in the middle");
}
