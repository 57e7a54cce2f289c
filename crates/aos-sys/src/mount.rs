//! `mount_setattr(2)`: the flags and the propagation of a mount, or of a whole tree of them, in one
//! call. The rest of the new mount interface is in `rustix::mount`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::Access;
use rustix::io::Errno;

use crate::checked;

/// What to switch on for a mount. Nothing is ever switched off: a bind keeps what its source has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// No change to anything beneath (`MOUNT_ATTR_RDONLY`).
    pub read_only: bool,
    /// No program beneath is executed or mapped executable (`MOUNT_ATTR_NOEXEC`).
    pub no_exec: bool,
    /// Device nodes beneath are inert (`MOUNT_ATTR_NODEV`).
    pub no_dev: bool,
    /// Make the mount's propagation private (`MS_PRIVATE`).
    pub private: bool,
}

/// Whether a call concerns one mount or all that are mounted beneath it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The mount itself.
    One,
    /// The mount and all beneath it (`AT_RECURSIVE`).
    Tree,
}

// linux/mount.h
const ATTR_RDONLY: u64 = 0x1;
const ATTR_NOSUID: u64 = 0x2;
const ATTR_NODEV: u64 = 0x4;
const ATTR_NOEXEC: u64 = 0x8;

/// `struct mount_attr` of linux/mount.h, version 0 (32 bytes).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets `attributes`, and always `nosuid`, on the mount that `mount` refers to: the root of a mount
/// or a detached tree.
pub fn set_attributes(mount: impl AsFd, attributes: Attributes, reach: Reach) -> io::Result<()> {
    let flag = |on: bool, bit: u64| if on { bit } else { 0 };
    let attr = MountAttr {
        attr_set: ATTR_NOSUID
            | flag(attributes.read_only, ATTR_RDONLY)
            | flag(attributes.no_exec, ATTR_NOEXEC)
            | flag(attributes.no_dev, ATTR_NODEV),
        attr_clr: 0,
        propagation: flag(attributes.private, libc::MS_PRIVATE),
        userns_fd: 0,
    };
    apply(mount, &attr, reach)
}

/// Asks whether the calling process may use what a descriptor refers to, by the permissions of the
/// file and the flags of its mount.
pub fn access(file: impl AsFd, wanted: Access) -> Result<(), Errno> {
    // SAFETY: the path is an empty C string and the descriptor is borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            wanted.bits(),
            libc::AT_EMPTY_PATH,
        )
    };
    let failed = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    checked(result).map(drop).map_err(failed)
}

/// Makes the propagation of a mount private and changes nothing else.
pub fn make_private(mount: impl AsFd, reach: Reach) -> io::Result<()> {
    apply(mount, &MountAttr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 }, reach)
}

fn apply(mount: impl AsFd, attr: &MountAttr, reach: Reach) -> io::Result<()> {
    let recursive = if reach == Reach::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, the descriptor is borrowed for the call, and the
    // structure is valid for reading for the length given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    checked(result).map(drop)
}
