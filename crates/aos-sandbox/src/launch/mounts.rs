//! Detached mounts of the host's files and directories, and of file systems in memory, each with its flags
//! before it is attached anywhere.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aos_sys::mount::{Attributes, Reach, set_attributes};
use rustix::fs::{StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, open_tree,
};

use super::error::{Context, LaunchError, Layer, fail};
use crate::plan::{Bind, BindAccess, TreeEntry};

/// What a file system in memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing in it is executed.
    Data,
    /// Anything: a step of a build runs what it writes, and programs are copied for a backend.
    Anything,
}

/// Flags of every file system that is made for an agent.
#[must_use]
pub fn inert() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

/// A copy of a file or directory with all that is mounted below it.
pub fn copy(source: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(source, "", flags)
}

/// A copy of a bind's source with the plan's flags on it and on all that is mounted below.
pub fn bound(entry: &TreeEntry, bind: &Bind, source: &OwnedFd) -> Result<OwnedFd, LaunchError> {
    let what = || format!("{}: cannot copy the mount of {}", entry.cause, bind.source);
    let attributes = Attributes {
        read_only: bind.access != BindAccess::Write,
        no_exec: bind.access != BindAccess::ReadExecute,
        no_dev: true,
        private: true,
    };
    let mount = copy(source).layer(Layer::Namespace, what())?;
    set_attributes(&mount, attributes, Reach::Tree).layer(Layer::Namespace, what())?;
    if bind.access == BindAccess::Write {
        let flags = fstatvfs(&mount).layer(Layer::Namespace, what())?.f_flag;
        if flags.contains(StatVfsMountFlags::RDONLY) {
            return fail(
                Layer::Grant,
                format!(
                    "capability `{}`: {} is read-only here (in a unit: see ReadWritePaths=)",
                    entry.cause, bind.source
                ),
            );
        }
    }
    Ok(mount)
}

/// A read-only union of directories, the first on top.
pub fn union<'a>(lower: impl Iterator<Item = &'a OwnedFd>) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for directory in lower {
        fsconfig_set_string(
            context.as_fd(),
            "lowerdir+",
            format!("/proc/self/fd/{}", directory.as_raw_fd()),
        )?;
    }
    fsconfig_create(context.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// An empty file system in memory.
pub fn new_tmpfs(size_bytes: u64, inodes: u64, mode: &str, content: Content) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", size_bytes.to_string())?;
    fsconfig_set_string(context.as_fd(), "nr_inodes", inodes.to_string())?;
    fsconfig_set_string(context.as_fd(), "mode", mode)?;
    fsconfig_create(context.as_fd())?;
    let flags = match content {
        Content::Data => inert(),
        Content::Anything => inert().difference(MountAttrFlags::MOUNT_ATTR_NOEXEC),
    };
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}
