//! Layers that an agent made to harm who reads them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is the failure report of a test")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use aos_core::workspace::{Answer, Below, ChangeKind, ENTRIES_MAX, NodeKind, Operation};
use aos_workspace::{Folder, WorkspaceError};
use common::{Place, Tree, tree};
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

#[test]
fn links_are_copied_and_never_followed() {
    let place = Place::new();
    fs::create_dir(place.path("outside")).unwrap();
    fs::write(place.path("outside/secret"), "secret").unwrap();
    fs::create_dir(place.path("base/dir")).unwrap();
    symlink(place.path("outside"), place.path("base/way")).unwrap();
    // As if the union's own entries had been swapped for links between two operations.
    let upper = place.path("changes/upper");
    symlink(place.path("outside"), upper.join("dir")).unwrap();
    symlink("/etc/shadow", upper.join("shadow")).unwrap();
    fs::create_dir(upper.join("way")).unwrap();
    fs::write(upper.join("way/secret"), "mine").unwrap();
    let Answer::Changes(changes) = place.perform(&Operation::Diff { patch: true }).unwrap() else { panic!() };
    assert!(!changes.patch.unwrap().contains("secret\n+secret"), "nothing outside is read");
    place.commit(&[]);
    assert_eq!(fs::read(place.path("outside/secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(place.path("outside")).unwrap().count(), 1);
    assert_eq!(fs::read_link(place.path("base/shadow")).unwrap().to_str(), Some("/etc/shadow"));
    assert_eq!(fs::read_link(place.path("base/dir")).unwrap(), place.path("outside"));
    assert_eq!(fs::read(place.path("base/way/secret")).unwrap(), b"mine");
}

#[test]
fn layers_that_are_links_are_refused() {
    let place = Place::new();
    fs::create_dir(place.path("outside")).unwrap();
    fs::write(place.path("outside/file"), "x").unwrap();
    fs::remove_dir(place.path("changes/upper")).unwrap();
    symlink(place.path("outside"), place.path("changes/upper")).unwrap();
    for operation in [Operation::Diff { patch: false }, Operation::Commit { paths: Vec::new() }] {
        assert!(matches!(place.perform(&operation), Err(WorkspaceError::Io { .. })), "{operation:?}");
    }
    assert_eq!(place.base(), Tree::new());
    symlink(place.path("changes"), place.path("alias")).unwrap();
    let alias = place.absolute("alias");
    assert!(Folder::open(&alias, &[place.absolute("base")], Below::Own).is_err());
}

#[test]
fn deep_trees_are_bounded_and_can_be_discarded() {
    const DEPTH: usize = 20_000;
    let place = Place::new();
    let upper = place.path("changes/upper");
    let mut directory = openat(CWD, &upper, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        mkdirat(&directory, "d", Mode::RWXU).unwrap();
        directory = openat(&directory, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    drop(directory);
    let Answer::Changes(changes) = place.perform(&Operation::Diff { patch: false }).unwrap() else {
        panic!()
    };
    // As deep as a path may be long: "d/d/.../d".
    assert_eq!((changes.count, changes.skipped.count), (2048, 1));
    assert!(changes.skipped.entries[0].ends_with("too long (os error 36)"), "{:?}", changes.skipped);
    let done = place.commit(&[]);
    assert_eq!((done.count, done.skipped.count), (2048, 1));
    assert!(upper.join("d").exists(), "what could not be applied is still a change");
    place.discard(None);
    place.assert_settled();
}

#[test]
fn odd_names_sizes_and_modes() {
    let place = Place::new();
    let upper = place.path("changes/upper");
    let name = |bytes: &[u8]| upper.join(OsStr::from_bytes(bytes));
    for bytes in [b"\n\x1b[31m".as_slice(), b"\xff\xfe", b"-rf", b" ", &[b'x'; 255]] {
        fs::write(name(bytes), "x").unwrap();
    }
    let sparse = File::create(upper.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"end", (1 << 40) - 3).unwrap();
    drop(sparse);
    mknodat(CWD, upper.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    drop(UnixListener::bind(upper.join("socket")).unwrap());
    fs::write(upper.join("set-id"), "x").unwrap();
    fs::set_permissions(upper.join("set-id"), Permissions::from_mode(0o6755)).unwrap();
    fs::create_dir(upper.join("closed")).unwrap();
    fs::write(upper.join("closed/file"), "x").unwrap();
    fs::hard_link(upper.join("closed/file"), upper.join("other-name")).unwrap();
    fs::set_permissions(upper.join("closed"), Permissions::from_mode(0o000)).unwrap();
    let begun = Instant::now();
    let changes = place.changes();
    let kind = |path: &str| changes.iter().find(|change| change.path == path).map(|change| change.node);
    assert_eq!(kind("\\x0a\\x1b[31m"), Some(NodeKind::File));
    assert_eq!(kind("\\xff\\xfe"), Some(NodeKind::File));
    assert_eq!((kind("pipe"), kind("socket")), (Some(NodeKind::Fifo), Some(NodeKind::Socket)));
    let done = place.commit(&[]);
    assert!(begun.elapsed() < Duration::from_secs(20), "nothing waits for a pipe, or writes a terabyte");
    assert_eq!(done.skipped.count, 0, "{done:?}");
    place.assert_settled();
    let sparse = fs::metadata(place.path("base/sparse")).unwrap();
    assert!(sparse.len() == 1 << 40 && sparse.blocks() < 100, "{}", sparse.blocks());
    assert_eq!(fs::metadata(place.path("base/set-id")).unwrap().mode() & 0o7777, 0o755);
    let (file, other) =
        (fs::metadata(place.path("base/closed/file")).unwrap(), fs::metadata(place.path("base/other-name")));
    assert_eq!(file.ino(), other.unwrap().ino(), "two names stay one file");
}

#[test]
fn answers_are_bounded() {
    let place = Place::new();
    for number in 0..ENTRIES_MAX + 500 {
        fs::write(place.path(format!("changes/upper/{number:0>200}")), "line\n").unwrap();
    }
    let Answer::Changes(changes) = place.perform(&Operation::Diff { patch: true }).unwrap() else { panic!() };
    assert_eq!(changes.count, ENTRIES_MAX as u64 + 500);
    assert_eq!(changes.entries.len(), ENTRIES_MAX);
    let patch = changes.patch.clone().unwrap();
    assert!(patch.len() < 5 << 20 && patch.starts_with("--- /dev/null\n+++ b/000"), "{}", &patch[..100]);
    assert!(patch.ends_with("too long\n") || patch.matches("@@").count() > 1000);
    assert!(serde_json::to_vec(&Answer::Changes(changes)).unwrap().len() < 16 << 20);
    // More names than are read at a time.
    place.discard(None);
    place.assert_settled();
}

#[test]
fn what_looks_like_an_operations_own_is_an_agents() {
    let place = Place::new();
    let union = place.union();
    for name in [".aos-commit-x", "intent.json", "upper"] {
        fs::write(union.path().join(name), "mine").unwrap();
    }
    drop(union);
    let view = place.view();
    place.commit(&[]);
    assert_eq!(place.base(), view);
    place.assert_settled();
}

#[test]
fn a_patch_is_a_patch() {
    let place = Place::new();
    fs::write(place.path("base/text"), "one\ntwo\nthree\n").unwrap();
    fs::write(place.path("base/gone"), "was\n").unwrap();
    fs::write(place.path("base/binary"), b"a\0b").unwrap();
    let before = place.base();
    let union = place.union();
    fs::write(union.path().join("text"), "one\n2\nthree\n").unwrap();
    fs::write(union.path().join("new"), "\u{1b}[31mred").unwrap();
    fs::write(union.path().join("binary"), b"a\0c").unwrap();
    fs::remove_file(union.path().join("gone")).unwrap();
    drop(union);
    let Answer::Changes(changes) = place.perform(&Operation::Diff { patch: true }).unwrap() else { panic!() };
    let patch = changes.patch.unwrap();
    for part in [
        "--- a/text\n+++ b/text\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n",
        "--- /dev/null\n+++ b/new\n",
        "--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-was\n",
        "Not shown: binary",
    ] {
        assert!(patch.contains(part), "{part:?} in {patch}");
    }
    assert_eq!(place.base(), before);
}

#[test]
fn a_mode_of_one_name_is_not_that_of_another() {
    let place = Place::new();
    fs::write(place.path("base/a"), "x").unwrap();
    fs::hard_link(place.path("base/a"), place.path("base/b")).unwrap();
    let union = place.union();
    fs::set_permissions(union.path().join("a"), Permissions::from_mode(0o600)).unwrap();
    drop(union);
    let view = place.view();
    assert_eq!(place.changes().iter().map(|change| change.kind).collect::<Vec<_>>(), [ChangeKind::Mode]);
    place.commit(&[]);
    assert_eq!(tree(&place.path("base")), view);
}

#[test]
fn snapshots_are_numbered_and_bounded_and_shared_layers_refuse() {
    let place = Place::new();
    assert_eq!(place.snapshot("nothing"), (0, false));
    fs::write(place.path("changes/upper/a"), "1").unwrap();
    assert_eq!(place.snapshot("first"), (1, true));
    assert_eq!(place.snapshot("again"), (1, false));
    let Answer::Snapshots(list) = place.perform(&Operation::Snapshots).unwrap() else { panic!() };
    assert_eq!(
        (list.len(), list[0].number, list[0].name.as_deref(), list[0].at_us),
        (1, 1, Some("first"), 7)
    );
    assert!(matches!(place.perform(&Operation::Discard { to: Some(2) }), Err(WorkspaceError::NoSnapshot(2))));
    for number in 2..=100 {
        fs::write(place.path("changes/upper/a"), number.to_string()).unwrap();
        assert_eq!(place.snapshot(""), (number, true));
    }
    fs::write(place.path("changes/upper/a"), "x").unwrap();
    let operation = Operation::Snapshot { name: None, at_us: 0 };
    assert!(matches!(place.perform(&operation), Err(WorkspaceError::TooManySnapshots)));
    let shared = Folder::open(&place.absolute("changes"), &[place.absolute("base")], Below::Shared).unwrap();
    let refused = shared.perform(&Operation::Commit { paths: Vec::new() });
    assert!(matches!(refused, Err(WorkspaceError::Shared)));
    assert_eq!(place.base(), Tree::new());
}

#[test]
fn nothing_is_changed_under_a_mounted_union() {
    let place = Place::new();
    fs::write(place.path("changes/upper/a"), "1").unwrap();
    let held = File::open(place.path("changes")).unwrap();
    held.try_lock().unwrap();
    let snapshot = Operation::Snapshot { name: None, at_us: 0 };
    for operation in [Operation::Commit { paths: Vec::new() }, Operation::Discard { to: None }, snapshot] {
        assert!(matches!(place.perform(&operation), Err(WorkspaceError::InUse)), "{operation:?}");
    }
    assert_eq!(place.changes().len(), 1, "a diff is possible");
    assert_eq!(place.base(), Tree::new());
    drop(held);
    place.commit(&[]);
    assert_eq!(place.base().len(), 1);
}

#[test]
fn layers_go_from_the_bottom_up() {
    let place = Place::new();
    for (name, text) in [("a", "first"), ("b", "kept")] {
        let union = place.union();
        fs::write(union.path().join("both"), text).unwrap();
        fs::write(union.path().join(name), text).unwrap();
        drop(union);
        place.snapshot("");
    }
    let union = place.union();
    fs::write(union.path().join("both"), "last").unwrap();
    drop(union);
    let view = place.view();
    // The snapshots cannot be taken away: what is above them has to be there still.
    let snapshots = openat(CWD, place.path("changes/snapshots"), OFlags::DIRECTORY, Mode::empty()).unwrap();
    rustix::fs::ioctl_setflags(&snapshots, rustix::fs::IFlags::IMMUTABLE).unwrap();
    let failed = place.perform(&Operation::Commit { paths: Vec::new() });
    let seen = place.view();
    rustix::fs::ioctl_setflags(&snapshots, rustix::fs::IFlags::empty()).unwrap();
    assert!(matches!(failed, Err(WorkspaceError::Io { .. })), "{failed:?}");
    assert!(seen == view && place.base() == view);
    assert!(place.path("changes/intent.json").exists());
    place.perform(&Operation::Snapshots).unwrap();
    assert!(place.base() == view);
    place.assert_settled();
}

/// As a commit leaves it that is cut short.
fn begin_commit(place: &Place) {
    fs::write(place.path("changes/intent.json"), r#"{"commit":{"paths":[],"staging":".aos-commit-x"}}"#)
        .unwrap();
    fs::create_dir(place.path("base/.aos-commit-x")).unwrap();
}

#[test]
fn a_commit_that_goes_on_does_not_copy_large_files_again() {
    let place = Place::new();
    let large = |path: &str, seconds: u64| {
        let file = File::create(place.path(path)).unwrap();
        file.set_len(5 << 30).unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        file.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
        fs::metadata(place.path(path)).unwrap().ino()
    };
    let copied = large("base/copied", 7);
    large("changes/upper/copied", 7);
    let other = large("base/other", 8);
    large("changes/upper/other", 9);
    assert_eq!(place.changes().len(), 2, "none is taken for a copy while there is no commit to go on");
    begin_commit(&place);
    place.perform(&Operation::Snapshots).unwrap();
    let number = |path: &str| fs::metadata(place.path(path)).unwrap().ino();
    assert!(number("base/copied") == copied && number("base/other") != other);
    place.assert_settled();
}

#[test]
fn a_discard_gives_up_a_commit_that_was_cut_short() {
    let place = Place::new();
    fs::write(place.path("base/file"), "old").unwrap();
    fs::write(place.path("changes/upper/file"), "new").unwrap();
    begin_commit(&place);
    fs::write(place.path("base/.aos-commit-x/half"), "half").unwrap();
    // A snapshot that is not there: nothing is discarded, and the commit is there still.
    let refused = place.perform(&Operation::Discard { to: Some(3) });
    assert!(matches!(refused, Err(WorkspaceError::NoSnapshot(3))), "{refused:?}");
    assert!(place.path("changes/intent.json").exists());
    let answer = place.perform(&Operation::Discard { to: None }).unwrap();
    assert_eq!(answer, Answer::Discarded { newest: 0, gave_up_commit: true });
    assert_eq!(fs::read(place.path("base/file")).unwrap(), b"old");
    assert_eq!(place.base().len(), 1, "the staging directory goes too");
    place.assert_settled();
    let answer = place.perform(&Operation::Discard { to: None }).unwrap();
    assert_eq!(answer, Answer::Discarded { newest: 0, gave_up_commit: false });
}
