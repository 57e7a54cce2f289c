//! For random trees and random changes through a real union: the difference is what two trees say, and a commit makes
//! what is below equal to what the agent saw.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is the failure report of a test")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{Place, Tree, expected, tree};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// One thing that an agent does.
#[derive(Clone, Debug)]
enum Act {
    Write(PathBuf, u8),
    Append(PathBuf, u8),
    Directory(PathBuf),
    Link(PathBuf, u8),
    HardLink(PathBuf, PathBuf),
    Pipe(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    Mode(PathBuf, u8),
}

fn path() -> impl Strategy<Value = PathBuf> {
    let part = prop_oneof![Just("a"), Just("b"), Just("c"), Just("\u{e9} \n")];
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.into_iter().collect())
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (path(), any::<u8>()).prop_map(|(path, byte)| Act::Write(path, byte)),
        2 => (path(), any::<u8>()).prop_map(|(path, byte)| Act::Append(path, byte)),
        4 => path().prop_map(Act::Directory),
        1 => (path(), 0_u8..3).prop_map(|(path, byte)| Act::Link(path, byte)),
        1 => (path(), path()).prop_map(|(path, to)| Act::HardLink(path, to)),
        1 => path().prop_map(Act::Pipe),
        4 => path().prop_map(Act::Remove),
        3 => (path(), path()).prop_map(|(path, to)| Act::Rename(path, to)),
        2 => (path(), 0_u8..4).prop_map(|(path, mode)| Act::Mode(path, mode)),
    ]
}

/// Does it where that is possible; what is impossible is no change.
fn perform(root: &Path, act: &Act) {
    let at = |path: &PathBuf| root.join(path);
    let content = |byte: &u8| vec![*byte; usize::from(*byte) + 1];
    let is_there = |path: &PathBuf| at(path).symlink_metadata().is_ok();
    let done = match act {
        Act::Write(path, byte) if !at(path).is_symlink() && !is_pipe(&at(path)) => {
            fs::write(at(path), content(byte))
        }
        Act::Append(path, byte) if at(path).symlink_metadata().is_ok_and(|found| found.is_file()) => {
            let old = fs::read(at(path)).unwrap();
            fs::write(at(path), [old, content(byte)].concat())
        }
        Act::Directory(path) => fs::create_dir(at(path)),
        Act::Link(path, byte) => symlink(format!("../{byte}/etc/passwd"), at(path)),
        Act::HardLink(path, to) => fs::hard_link(at(path), at(to)),
        Act::Pipe(path) => mknodat(CWD, at(path), FileType::Fifo, Mode::RUSR, 0).map_err(Into::into),
        Act::Remove(path) if at(path).symlink_metadata().is_ok_and(|found| found.is_dir()) => {
            fs::remove_dir_all(at(path))
        }
        Act::Remove(path) => fs::remove_file(at(path)),
        // EXDEV for a directory from below: mv(1) copies then.
        Act::Rename(path, to) => fs::rename(at(path), at(to)),
        Act::Mode(path, mode) if is_there(path) && !at(path).is_symlink() => {
            let mode = [0o700, 0o755, 0o644, 0o000][usize::from(*mode)];
            fs::set_permissions(at(path), Permissions::from_mode(mode))
        }
        _ => Ok(()),
    };
    // Refused by the state of the tree: the next act finds it as it is.
    drop(done);
}

fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}

fn do_all(root: &Path, acts: &[Act]) {
    for act in acts {
        perform(root, act);
    }
}

/// A base, and a list of rounds: each is what an agent did before the next snapshot.
fn workspace() -> impl Strategy<Value = (Vec<Act>, Vec<Vec<Act>>)> {
    let acts = prop::collection::vec(act(), 0..25);
    (prop::collection::vec(act(), 0..25), prop::collection::vec(acts, 1..4))
}

fn made(base: &[Act], rounds: &[Vec<Act>]) -> (Place, Vec<Tree>) {
    let place = Place::new();
    do_all(&place.path("base"), base);
    let mut views = vec![place.base()];
    for (number, acts) in rounds.iter().enumerate() {
        if number > 0 {
            place.snapshot("round");
        }
        let union = place.union();
        do_all(&union.path(), acts);
        drop(union);
        views.push(place.view());
    }
    (place, views)
}

fn found(place: &Place) -> BTreeMap<String, aos_core::workspace::ChangeKind> {
    place.changes().into_iter().map(|change| (change.path, change.kind)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_commit_makes_the_base_what_the_agent_saw((base, rounds) in workspace()) {
        let (place, views) = made(&base, &rounds);
        let (before, view) = (place.base(), views.last().unwrap().clone());
        prop_assert_eq!(found(&place), expected(&before, &view));
        prop_assert_eq!(&place.base(), &before, "a diff changes nothing");
        let done = place.commit(&[]);
        prop_assert_eq!(done.skipped.count, 0, "{:?}", done);
        prop_assert_eq!(place.base(), view);
        place.assert_settled();
        prop_assert_eq!(place.changes(), []);
    }

    #[test]
    fn a_commit_of_a_path_changes_that_path_and_not_the_view(
        (base, rounds) in workspace(), chosen in path(),
    ) {
        let (place, views) = made(&base, &rounds);
        let (before, view) = (place.base(), views.last().unwrap().clone());
        let chosen_text = chosen.to_str().unwrap();
        place.commit(&[chosen_text]);
        prop_assert_eq!(&place.view(), &view, "the agent sees no difference");
        let base = place.base();
        let part = |tree: &Tree, inside: bool| -> Tree {
            tree.iter().filter(|(path, _)| path.starts_with(&chosen) == inside)
                .map(|(path, entry)| (path.clone(), entry.clone())).collect()
        };
        prop_assert_eq!(part(&base, true), part(&view, true));
        // Beside it only the directories that lead to it may be new, or in the place of something else.
        for (path, entry) in part(&base, false) {
            prop_assert!(
                before.get(&path) == Some(&entry) || (chosen.starts_with(&path) && view.get(&path) == Some(&entry)),
                "{:?}", path
            );
        }
        let missing = before.keys().find(|path| {
            !path.starts_with(&chosen) && !base.contains_key(*path)
                && !path.ancestors().any(|above| chosen.starts_with(above) && !above.as_os_str().is_empty())
        });
        prop_assert_eq!(missing, None);
        // What is left is still there to commit.
        place.commit(&[]);
        prop_assert_eq!(place.base(), view);
    }

    #[test]
    fn discarding_goes_back_to_each_view_that_was((base, rounds) in workspace(), to in 0_u32..3) {
        let (place, views) = made(&base, &rounds);
        let before = place.base();
        let Ok(aos_core::workspace::Answer::Snapshots(list)) =
            place.perform(&aos_core::workspace::Operation::Snapshots) else { panic!() };
        // A round without a change makes no snapshot, so the view of a snapshot is found by what it froze.
        let view_of = |place: &Place| place.view();
        let to = u32::min(to, list.len() as u32);
        if to > 0 {
            place.discard(Some(to));
            let view = view_of(&place);
            prop_assert!(views.contains(&view), "a view that there has been");
            prop_assert_eq!(tree(&place.path("changes/upper")), Tree::new());
        }
        place.discard(None);
        prop_assert_eq!(&place.base(), &before);
        prop_assert_eq!(place.view(), before);
        place.assert_settled();
    }
}
