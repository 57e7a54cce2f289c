//! The second pass of the assembly: mounts, each with its flags before it is attached.

use std::os::fd::{AsFd, OwnedFd};

use aos_sandbox::launch::devices::DEVICES;
use aos_sandbox::launch::mounts::{self, Content, copy, inert, new_tmpfs, union};
use aos_sandbox::launch::sources::Source;
use aos_sandbox::plan::{Bind, BindAccess, Node, TreeEntry};
use aos_sys::mount::{Attributes, Reach, set_attributes};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, major, minor, openat2, readlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::ProcSource;
use super::places::relative;
use super::transaction;
use super::union::Shared;
use crate::error::{Context, LaunchError, Layer, fail, print_line};

/// Mounts every entry that is a mount, in order.
pub(super) fn mount_all(
    root: &OwnedFd,
    host: &OwnedFd,
    tree: &[TreeEntry],
    sources: &[Source],
    proc_source: ProcSource,
) -> Result<(), LaunchError> {
    let mut shared = Shared::new(root, host);
    for (entry, source) in tree.iter().zip(sources) {
        let path = relative(&entry.path);
        let what = || format!("{}: cannot mount {}", entry.cause, entry.path);
        match (&entry.node, source) {
            (Node::Bind(bind), Source::Mounted { file, .. }) => {
                let mount = bound(entry, bind, file)?;
                attach(root, path, &mount).layer(Layer::Namespace, what())?;
            }
            (Node::Overlay { on_own, .. }, Source::Union(lower)) => {
                let mount = if *on_own { shared.directory(entry, lower) } else { union(lower.iter()) };
                let mount = mount.layer(Layer::Namespace, what())?;
                attach(root, path, &mount).layer(Layer::Namespace, what())?;
            }
            (Node::Transaction { .. }, Source::Layers(layers)) => {
                let mount = transaction::mount(layers)?;
                attach(root, path, &mount).layer(Layer::Namespace, what())?;
            }
            (Node::Tmpfs { size_bytes, inodes }, _) => {
                let mount =
                    new_tmpfs(*size_bytes, *inodes, "1777", Content::Data).layer(Layer::Namespace, what())?;
                attach(root, path, &mount).layer(Layer::Namespace, what())?;
            }
            (Node::Proc, _) => {
                let mount = processes(proc_source)?;
                attach(root, path, &mount).layer(Layer::Namespace, what())?;
            }
            (Node::Devices, _) => mount_devices(root, path)?,
            _ => {}
        }
    }
    shared.detach().layer(Layer::Namespace, "cannot detach the host's directories")
}

/// The place in the new tree, found without following a link or leaving the tree.
pub(super) fn place(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    openat2(
        root,
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

pub(super) fn attach(root: &OwnedFd, path: &str, mount: impl AsFd) -> Result<(), Errno> {
    let place = place(root, path)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// A copy with the flags of the bind.
fn bound(entry: &TreeEntry, bind: &Bind, source: &OwnedFd) -> Result<OwnedFd, LaunchError> {
    let mount = mounts::bound(entry, bind, source)?;
    note_refusal(entry, bind, &mount);
    Ok(mount)
}

/// A grant gives no right that the file's own permissions deny; say so, since it looks like a
/// failure of the grant. Confinement does not depend on it.
fn note_refusal(entry: &TreeEntry, bind: &Bind, mount: &OwnedFd) {
    let wanted = match bind.access {
        BindAccess::Write => rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
        BindAccess::Read | BindAccess::ReadExecute => rustix::fs::Access::READ_OK,
    };
    if aos_sys::mount::access(mount, wanted) == Err(Errno::ACCESS) {
        print_line(&format!(
            "note: {}: the permissions of {} deny it to the agent's user; chgrp it to aos-agents, or use setfacl",
            entry.cause, bind.source
        ));
    }
}

/// `/proc` of the own pid namespace: only processes, and of these only what the agent may inspect.
pub(super) fn processes(source: ProcSource) -> Result<OwnedFd, LaunchError> {
    match source {
        ProcSource::Fresh => new_proc().layer(
            Layer::Namespace,
            "cannot mount a process file system (is something mounted over parts of /proc here?)",
        ),
        ProcSource::OfUnit => proc_of_unit(),
    }
}

fn new_proc() -> Result<OwnedFd, Errno> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "hidepid", "invisible")?;
    fsconfig_set_string(context.as_fd(), "subset", "pid")?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, inert() | MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// The unit's own `/proc`, if it shows this pid namespace and no kernel settings.
fn proc_of_unit() -> Result<OwnedFd, LaunchError> {
    let what = "cannot use the unit's /proc";
    let source = openat2(
        CWD,
        "/proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
    .layer(Layer::Namespace, what)?;
    let own = readlinkat(&source, "self", Vec::new()).layer(Layer::Namespace, what)?;
    if own.to_bytes() != b"1" {
        return fail(Layer::Namespace, "the unit's /proc does not show the unit's own pid namespace");
    }
    let beyond = rustix::fs::statat(&source, "sysrq-trigger", rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    if beyond.map(drop) != Err(Errno::NOENT) {
        return fail(
            Layer::Namespace,
            "the unit's /proc shows more than processes (ProcSubset=pid is missing)",
        );
    }
    let mount = copy(&source).layer(Layer::Namespace, what)?;
    let attributes = Attributes { read_only: true, no_exec: true, no_dev: true, private: true };
    set_attributes(&mount, attributes, Reach::Tree).layer(Layer::Namespace, what)?;
    Ok(mount)
}

pub(super) fn mount_devices(root: &OwnedFd, path: &str) -> Result<(), LaunchError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host = openat2(CWD, "/dev", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let host = host.layer(Layer::Namespace, "/dev")?;
    let inside = place(root, path).layer(Layer::Namespace, "/dev")?;
    for device in DEVICES {
        let what = || format!("/dev/{}", device.name);
        let mount = device_of(&host, device.name).layer(Layer::Namespace, what())?;
        let stat = fstat(&mount).layer(Layer::Namespace, what())?;
        let is_character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        if !is_character || (major(stat.st_rdev), minor(stat.st_rdev)) != device.number {
            return fail(Layer::Namespace, format!("{} is another device", what()));
        }
        let attributes = Attributes { no_exec: true, private: true, ..Attributes::default() };
        set_attributes(&mount, attributes, Reach::One).layer(Layer::Namespace, what())?;
        // The place is a name in a directory that was just made: nothing to be led astray by.
        move_mount(&mount, "", &inside, device.name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .layer(Layer::Namespace, what())?;
    }
    let terminals = new_terminals().layer(Layer::Namespace, "cannot make pseudo-terminals")?;
    attach(root, &format!("{path}/pts"), &terminals).layer(Layer::Namespace, "/dev/pts")
}

/// A detached copy of one file of the host's `/dev`; of a link, the link itself.
fn device_of(host: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(host, name, flags)
}

/// A pseudo-terminal file system of the agent's own.
fn new_terminals() -> Result<OwnedFd, Errno> {
    let context = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "ptmxmode", "0666")?;
    fsconfig_set_string(context.as_fd(), "mode", "0620")?;
    fsconfig_create(context.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}
