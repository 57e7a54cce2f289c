//! The workspace as a transaction: the writable union of its layers.
//!
//! The kernel makes a directory of its own when it makes the union, and mounts it read-only when that fails. An agent
//! that has used up its limit on the disk could then not even delete: so a file in the folder of changes, which has no
//! name inside, keeps some room for it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aos_sandbox::launch::layers::Layers;
use aos_sandbox::launch::mounts::inert;
use aos_sandbox::plan::workspace::ROOM;
use aos_sys::quota;
use rustix::fs::{
    AtFlags, FallocateFlags, Mode, OFlags, StatVfsMountFlags, fallocate, fstatvfs, openat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::error::{Context, LaunchError, Layer, fail};

/// Options of the union. What the agent synchronises is on the disk, so it is not `volatile`; the rest is off
/// because the changes are read, frozen and applied as plain files.
const OPTIONS: [(&str, &str); 3] = [("index", "off"), ("metacopy", "off"), ("xino", "off")];

/// Bytes that are kept: the kernel needs a block or two, and what it notes about files may exceed the limit by a few.
const ROOM_BYTES: u64 = 64 << 10;

/// The writable union.
pub(super) fn mount(layers: &Layers) -> Result<OwnedFd, LaunchError> {
    give_room(layers).layer(Layer::Namespace, "cannot make room in the folder of changes")?;
    let mount = made(layers)?;
    let flags = fstatvfs(&mount).layer(Layer::Namespace, "cannot look at the union of the workspace")?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return fail(
            Layer::Namespace,
            "the folder of changes has no room left on the disk, or in limits.disk, so that the workspace would be read-only: `aos commit`, `aos discard`, or a higher limit",
        );
    }
    keep_room(layers).layer(Layer::Namespace, "cannot keep room in the folder of changes")?;
    Ok(mount)
}

/// Gives back what was kept.
fn give_room(layers: &Layers) -> Result<(), Errno> {
    match unlinkat(&layers.folder, ROOM, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Keeps room for the next time where there is a limit; less, where there is not as much.
fn keep_room(layers: &Layers) -> Result<(), Errno> {
    if !quota::project(&layers.folder).is_ok_and(|project| project.is_inherited) {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(&layers.folder, ROOM, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::DQUOT | Errno::NOSPC) => return Ok(()),
        opened => opened?,
    };
    let mut bytes = ROOM_BYTES;
    while bytes > 0 {
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::DQUOT | Errno::NOSPC) => bytes /= 2,
            // Not every file system can.
            Err(Errno::OPNOTSUPP) => break,
            done => return done,
        }
    }
    Ok(())
}

fn made(layers: &Layers) -> Result<OwnedFd, LaunchError> {
    let what = "cannot make the union of the workspace (/var/lib/aos-changes has to be on a file system that takes user attributes, such as ext4, xfs, btrfs or tmpfs, and not on another union)";
    union(layers).layer(Layer::Namespace, what)
}

fn union(layers: &Layers) -> Result<OwnedFd, Errno> {
    let path = |directory: &OwnedFd| format!("/proc/self/fd/{}", directory.as_raw_fd());
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for directory in &layers.lower {
        fsconfig_set_string(context.as_fd(), "lowerdir+", path(directory))?;
    }
    fsconfig_set_string(context.as_fd(), "upperdir", path(&layers.upper))?;
    fsconfig_set_string(context.as_fd(), "workdir", path(&layers.work))?;
    fsconfig_set_flag(context.as_fd(), "userxattr")?;
    for (name, value) in OPTIONS {
        fsconfig_set_string(context.as_fd(), name, value)?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, inert())
}
