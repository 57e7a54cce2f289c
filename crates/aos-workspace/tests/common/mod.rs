//! A workspace in a temporary folder, with a real union over it, and what can be seen in a tree.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a panic is the failure report of a test; not all tests use all of it"
)]

pub(crate) mod program;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use aos_core::path::AbsolutePath;
use aos_core::workspace::{Answer, Below, Change, ChangeKind, Operation};
use aos_workspace::{Folder, WorkspaceError};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

/// What is at a path: type, permissions, content or text.
pub(crate) type Entry = (char, u32, Vec<u8>);
/// A tree by path.
pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// All that is below a directory; links are not followed.
pub(crate) fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(root.join(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            let full = root.join(&path);
            let metadata = full.symlink_metadata().unwrap();
            let kind = metadata.file_type();
            let (letter, content) = if kind.is_dir() {
                waiting.push(path.clone());
                ('d', Vec::new())
            } else if kind.is_symlink() {
                ('l', fs::read_link(&full).unwrap().as_os_str().as_bytes().to_owned())
            } else if kind.is_file() {
                ('f', fs::read(&full).unwrap())
            } else if kind.is_fifo() {
                ('p', Vec::new())
            } else {
                ('?', Vec::new())
            };
            let mode = if kind.is_symlink() { 0o777 } else { metadata.mode() & 0o7777 };
            found.insert(path, (letter, mode, content));
        }
    }
    found
}

/// A workspace.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    /// Of a fork: the layers of another one.
    below: Vec<PathBuf>,
}

/// A mounted union; it goes when this is dropped.
pub(crate) struct Union(OwnedFd);

impl Union {
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "run as root: this test mounts unions");
        let place = Self { dir: tempfile::tempdir().unwrap(), below: Vec::new() };
        for name in ["base", "changes"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        place.perform(&Operation::Snapshots).unwrap();
        place
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn absolute(&self, name: &str) -> AbsolutePath {
        self.path(name).to_str().unwrap().parse().unwrap()
    }

    pub(crate) fn folder(&self) -> Folder {
        Folder::open(&self.absolute("changes"), &[self.absolute("base")], Below::Own).unwrap()
    }

    pub(crate) fn perform(&self, operation: &Operation) -> Result<Answer, WorkspaceError> {
        self.folder().perform(operation)
    }

    /// Another workspace over the frozen layers of this one.
    pub(crate) fn fork(&self) -> Self {
        let fork = Self { below: self.lower(), ..Self::new() };
        let folder = Folder::open(&fork.absolute("changes"), &[], Below::Shared).unwrap();
        folder.perform(&Operation::Snapshots).unwrap();
        fork
    }

    /// The layers from the top: snapshots, newest first, and the base.
    fn lower(&self) -> Vec<PathBuf> {
        if !self.below.is_empty() {
            return self.below.clone();
        }
        let mut snapshots: Vec<PathBuf> = fs::read_dir(self.path("changes/snapshots"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        snapshots.sort();
        snapshots.into_iter().rev().chain([self.path("base")]).collect()
    }

    /// The union as the launcher mounts it.
    pub(crate) fn union(&self) -> Union {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        let context = context.as_fd();
        for path in self.lower() {
            fsconfig_set_string(context, "lowerdir+", path).unwrap();
        }
        fsconfig_set_string(context, "upperdir", self.path("changes/upper")).unwrap();
        fsconfig_set_string(context, "workdir", self.path("changes/work")).unwrap();
        fsconfig_set_flag(context, "userxattr").unwrap();
        for (name, value) in [("index", "off"), ("metacopy", "off"), ("xino", "off")] {
            fsconfig_set_string(context, name, value).unwrap();
        }
        fsconfig_create(context).unwrap();
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        Union(fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, flags).unwrap())
    }

    /// What an agent sees.
    pub(crate) fn view(&self) -> Tree {
        tree(&self.union().path())
    }

    pub(crate) fn base(&self) -> Tree {
        tree(&self.path("base"))
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        match self.perform(&Operation::Diff { patch: false }).unwrap() {
            Answer::Changes(changes) => {
                assert_eq!(changes.skipped.count, 0, "{:?}", changes.skipped);
                assert_eq!(changes.count, changes.entries.len() as u64);
                changes.entries
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn commit(&self, paths: &[&str]) -> aos_core::workspace::Committed {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        match self.perform(&Operation::Commit { paths }).unwrap() {
            Answer::Committed(done) => done,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn snapshot(&self, name: &str) -> (u32, bool) {
        let operation = Operation::Snapshot { name: Some(name.to_owned()), at_us: 7 };
        match self.perform(&operation).unwrap() {
            Answer::Snapshot { newest, made } => (newest, made),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn discard(&self, to: Option<u32>) {
        self.perform(&Operation::Discard { to }).unwrap();
    }

    /// Nothing is left of a transaction, and of the operations on it.
    pub(crate) fn assert_settled(&self) {
        for name in ["upper", "snapshots", "trash"] {
            assert_eq!(tree(&self.path("changes").join(name)), Tree::new(), "{name}");
        }
        assert!(!self.path("changes/intent.json").exists());
    }
}

/// The changes that two trees say, by path: what [`Place::changes`] has to find, from another side.
pub(crate) fn expected(before: &Tree, now: &Tree) -> BTreeMap<String, ChangeKind> {
    let mut changes = BTreeMap::new();
    let shown = |path: &Path| aos_core::workspace::escaped(path.as_os_str().as_bytes());
    for (path, (kind, mode, content)) in now {
        let change = match before.get(path) {
            None => Some(ChangeKind::Added),
            Some((old, ..)) if old != kind => Some(ChangeKind::Replaced),
            Some((_, _, old)) if old != content => Some(ChangeKind::Modified),
            Some((_, old, _)) if old != mode => Some(ChangeKind::Mode),
            Some(_) => None,
        };
        changes.extend(change.map(|change| (shown(path), change)));
    }
    for path in before.keys().filter(|path| !now.contains_key(*path)) {
        let is_inner = path
            .ancestors()
            .skip(1)
            .filter(|above| *above != OsStr::new(""))
            .any(|above| now.get(above).is_none_or(|(kind, ..)| *kind != 'd'));
        if !is_inner {
            changes.insert(shown(path), ChangeKind::Deleted);
        }
    }
    changes
}
