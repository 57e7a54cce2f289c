//! The host's side of a plan: every source, opened without following a link, checked, and as a detached
//! mount with the plan's flags. As `aos-launch` does for its own tree.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aos_core::path::AbsolutePath;
use aos_isolation::layout::Fact;
use aos_sandbox::plan::{Bind, BindAccess, CAUSE_BASE, CAUSE_PACKAGE, Missing, Node, Shape, TreeEntry};
use aos_sys::mount::{Attributes, Reach, set_attributes};
use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstat, fstatvfs, openat2, readlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, open_tree,
};

use crate::error::{Context, Failure, Stage, fail};

/// Bytes of a file that is copied, as of `aos-launch`.
const COPY_MAX_BYTES: u64 = 1 << 20;

/// What an entry of the plan stands on: what is known of it, and the open files.
pub(crate) struct Source {
    pub(crate) fact: Fact,
    pub(crate) files: Vec<OwnedFd>,
}

impl Source {
    fn plain(fact: Fact) -> Self {
        Self { fact, files: Vec::new() }
    }
}

/// Opens the sources of all entries, in order.
pub(crate) fn open_all(tree: &[TreeEntry]) -> Result<Vec<Source>, Failure> {
    tree.iter().map(open_one).collect()
}

fn open_one(entry: &TreeEntry) -> Result<Source, Failure> {
    match &entry.node {
        Node::Bind(bind) => open_bind(entry, bind),
        Node::Overlay { lower, missing, .. } => {
            let mut files = Vec::new();
            for path in lower {
                match open_host(path) {
                    Ok(directory) => files.push(directory),
                    Err(Errno::NOENT) if *missing == Missing::Skip => return Ok(Source::plain(Fact::Absent)),
                    Err(error) => return refuse(entry, path, error),
                }
            }
            Ok(Source { fact: Fact::Directory, files })
        }
        Node::Copy { source, missing } => read_file(entry, source, *missing).map(Source::plain),
        _ => Ok(Source::plain(Fact::Inside)),
    }
}

/// Opens a path of the host without following any symbolic link, not even the last one.
fn open_host(path: &AbsolutePath) -> Result<OwnedFd, Errno> {
    openat2(
        CWD,
        path.as_path(),
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn open_bind(entry: &TreeEntry, bind: &Bind) -> Result<Source, Failure> {
    let file = match open_host(&bind.source) {
        Ok(file) => file,
        Err(Errno::NOENT) if bind.missing == Missing::Skip => return Ok(Source::plain(Fact::Absent)),
        Err(error) => return refuse(entry, &bind.source, error),
    };
    let stat = fstat(&file).stage(Stage::Grant, &bind.source)?;
    let is_directory = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink if bind.shape == Shape::Mirror => {
            return link(&file, &bind.source).map(Source::plain);
        }
        FileType::Symlink => return refuse(entry, &bind.source, Errno::LOOP),
        FileType::Directory => true,
        FileType::RegularFile => false,
        // A socket reaches another process and a device the machine: no capability is about either.
        other => return refuse_for(entry, &special(&bind.source, other)),
    };
    let (cause, source) = (&entry.cause, &bind.source);
    match (bind.shape, is_directory) {
        (Shape::File, true) => fail(
            Stage::Grant,
            format!("{cause}: {source} is a directory; write {source}/** for what is beneath it"),
        ),
        (Shape::Directory, false) => {
            fail(Stage::Grant, format!("{cause}: {source} is not a directory; leave out the /**"))
        }
        _ => Ok(Source { fact: if is_directory { Fact::Directory } else { Fact::File }, files: vec![file] }),
    }
}

/// A symbolic link as its text.
fn link(file: &OwnedFd, path: &AbsolutePath) -> Result<Fact, Failure> {
    let text = readlinkat(file, "", Vec::new()).stage(Stage::Grant, path)?;
    Ok(Fact::Link(text.into_string().stage(Stage::Grant, path)?.into()))
}

/// Reads a small file of the host; a final symbolic link is its text.
fn read_file(entry: &TreeEntry, source: &AbsolutePath, missing: Missing) -> Result<Fact, Failure> {
    let file = match open_host(source) {
        Ok(file) => file,
        Err(Errno::NOENT) if missing == Missing::Skip => return Ok(Fact::Absent),
        Err(error) => return refuse(entry, source, error),
    };
    match FileType::from_raw_mode(fstat(&file).stage(Stage::Namespace, source)?.st_mode) {
        FileType::Symlink => link(&file, source),
        FileType::RegularFile => {
            let again = format!("/proc/self/fd/{}", file.as_raw_fd());
            let mut content = Vec::new();
            File::open(again)
                .and_then(|file| file.take(COPY_MAX_BYTES + 1).read_to_end(&mut content))
                .stage(Stage::Namespace, source)?;
            if content.len() as u64 > COPY_MAX_BYTES {
                return fail(Stage::Namespace, format!("{source} is larger than {COPY_MAX_BYTES} bytes"));
            }
            Ok(Fact::Content(content))
        }
        _ => fail(Stage::Namespace, format!("{source} is not a regular file")),
    }
}

/// The failure for a source that cannot be opened: it names the capability and what helps.
fn refuse<T>(entry: &TreeEntry, path: &AbsolutePath, error: Errno) -> Result<T, Failure> {
    let why = match error {
        Errno::NOENT => format!("{path} does not exist; create it, or remove the capability"),
        Errno::LOOP => format!("{path} is or passes through a symbolic link; name the real path"),
        Errno::ACCESS => {
            format!("{path} is not reachable for the agent's user; give its group search rights")
        }
        error => format!("{path}: {error}"),
    };
    refuse_for(entry, &why)
}

/// Why a source that is neither a file nor a directory nor a link is refused.
fn special(path: &AbsolutePath, kind: FileType) -> String {
    let kind = match kind {
        FileType::Socket => "a socket",
        FileType::Fifo => "a pipe",
        _ => "a device",
    };
    format!("{path} is {kind}; name a regular file or a directory")
}

/// The failure for a source: it names the capability.
fn refuse_for<T>(entry: &TreeEntry, why: &str) -> Result<T, Failure> {
    let is_grant = entry.cause != CAUSE_BASE && entry.cause != CAUSE_PACKAGE;
    let cause = if is_grant { format!("capability `{}`", entry.cause) } else { entry.cause.clone() };
    fail(if is_grant { Stage::Grant } else { Stage::Namespace }, format!("{cause}: {why}"))
}

/// A detached mount of a bind with the plan's flags on it and on all that is mounted below.
pub(crate) fn bound(entry: &TreeEntry, access: BindAccess, source: &OwnedFd) -> Result<OwnedFd, Failure> {
    let what = || format!("{}: cannot copy the mount of {}", entry.cause, entry.path);
    let attributes = Attributes {
        read_only: access != BindAccess::Write,
        no_exec: access != BindAccess::ReadExecute,
        no_dev: true,
        private: true,
    };
    let mount = copy(source).stage(Stage::Namespace, what())?;
    set_attributes(&mount, attributes, Reach::Tree).stage(Stage::Namespace, what())?;
    let flags = fstatvfs(&mount).stage(Stage::Namespace, what())?.f_flag;
    if access == BindAccess::Write && flags.contains(StatVfsMountFlags::RDONLY) {
        let why = format!(
            "capability `{}`: {} is read-only here (in a unit: see ReadWritePaths=)",
            entry.cause, entry.path
        );
        return fail(Stage::Grant, why);
    }
    Ok(mount)
}

/// A detached copy of a file or directory with all that is mounted below it.
pub(crate) fn copy(source: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(source, "", flags)
}

/// A detached read-only union of directories, the first on top.
pub(crate) fn union<'a>(lower: impl Iterator<Item = &'a OwnedFd>) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for directory in lower {
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        fsconfig_set_string(context.as_fd(), "lowerdir+", path)?;
    }
    fsconfig_create(context.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}
