//! Project quotas of a file system: which project a file counts for (`FS_IOC_FSGETXATTR`, linux/fs.h),
//! and a project's limits (quotactl_fd(2)). The file system is that of the descriptor, whatever its name.
//!
//! Reading a file's project needs an open descriptor only. Changing it is for the file's owner outside
//! of user namespaces; a project's limits and its usage are for `CAP_SYS_ADMIN`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::checked;

// linux/fs.h. The size of the structure is in the numbers.
const IOCTL_GET: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
const IOCTL_SET: libc::Ioctl = 0x401c_5820;
const INHERITS: u32 = 0x200;

// linux/quota.h and linux/dqblk_xfs.h; a command has the kind of quota in its low byte.
const PROJECT: u32 = 2;
const GET_QUOTA: u32 = 0x80_0007;
const SET_QUOTA: u32 = 0x80_0008;
const GET_STATE: u32 = 0x5808;
const STATE_VERSION: i8 = 1;
const IS_COUNTED: u16 = 1 << 4;
const IS_ENFORCED: u16 = 1 << 5;
/// Both limits are valid, and nothing else of the structure.
const LIMITS: u32 = 1 | 4;
/// Limits of space are in blocks of this size, whatever the file system's.
const BLOCK_BYTES: u64 = 1024;

/// What a file counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Project {
    /// The project's number; 0 is what everything else has.
    pub id: u32,
    /// Whether what is made in this directory gets the same project. A file has it never.
    pub is_inherited: bool,
}

/// What a file system does about projects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// It counts what each project uses.
    pub is_counted: bool,
    /// It refuses what exceeds a limit.
    pub is_enforced: bool,
}

/// A project's limits; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of space, in whole KiB.
    pub bytes: u64,
    /// Files, directories and all else that has an inode.
    pub inodes: u64,
}

/// What a project uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of space.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_bytes: u32,
    extents: u32,
    project: u32,
    copy_extent_bytes: u32,
    pad: [u8; 8],
}

/// `struct fs_qfilestatv` of linux/dqblk_xfs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct QuotaFile {
    inode: u64,
    blocks: u64,
    extents: u32,
    pad: u32,
}

/// `struct fs_quota_statv` of linux/dqblk_xfs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct QuotaState {
    version: i8,
    pad1: u8,
    flags: u16,
    in_core: u32,
    files: [QuotaFile; 3],
    times: [i32; 3],
    warnings: [u16; 3],
    pad3: u16,
    pad4: u32,
    pad2: [u64; 7],
}

/// `struct if_dqblk` of linux/quota.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Quota {
    hard_blocks: u64,
    soft_blocks: u64,
    bytes: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// What an open file or directory counts for. `ENOTTY` or `EOPNOTSUPP` where the file system knows no projects.
pub fn project(file: impl AsFd) -> io::Result<Project> {
    let attributes = attributes(&file)?;
    Ok(Project { id: attributes.project, is_inherited: attributes.flags & INHERITS != 0 })
}

/// Lets an open file count for a project, and what will be made in it, if it is a directory. All that is
/// in a directory already stays as it is.
pub fn set_project(file: impl AsFd, project: Project) -> io::Result<()> {
    let mut attributes = attributes(&file)?;
    attributes.project = project.id;
    attributes.flags =
        if project.is_inherited { attributes.flags | INHERITS } else { attributes.flags & !INHERITS };
    // SAFETY: the structure is valid for reading for its whole size, which the command's number names, and the
    // descriptor is borrowed for the call.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), IOCTL_SET, std::ptr::from_ref(&attributes)) };
    checked(result).map(drop)
}

fn attributes(file: &impl AsFd) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the structure is valid for writing for its whole size, which the command's number names, and the
    // descriptor is borrowed for the call.
    let result =
        unsafe { libc::ioctl(file.as_fd().as_raw_fd(), IOCTL_GET, std::ptr::from_mut(&mut attributes)) };
    checked(result).map(|_| attributes)
}

/// What the file system of an open file does about projects. One without quotas says `ENOSYS`.
pub fn state(file: impl AsFd) -> io::Result<State> {
    let mut state = QuotaState { version: STATE_VERSION, ..QuotaState::default() };
    quotactl(file, GET_STATE, 0, &mut state)?;
    let has = |flag: u16| state.flags & flag != 0;
    Ok(State { is_counted: has(IS_COUNTED), is_enforced: has(IS_ENFORCED) })
}

/// Sets the limits of a project on the file system of an open file.
pub fn set_limits(file: impl AsFd, project: u32, limits: Limits) -> io::Result<()> {
    let mut quota = Quota {
        hard_blocks: limits.bytes / BLOCK_BYTES,
        hard_inodes: limits.inodes,
        valid: LIMITS,
        ..Quota::default()
    };
    quotactl(file, SET_QUOTA, project, &mut quota)
}

/// The limits and the usage of a project on the file system of an open file.
pub fn usage(file: impl AsFd, project: u32) -> io::Result<(Limits, Usage)> {
    let mut quota = Quota::default();
    quotactl(file, GET_QUOTA, project, &mut quota)?;
    let limits = Limits { bytes: quota.hard_blocks.saturating_mul(BLOCK_BYTES), inodes: quota.hard_inodes };
    Ok((limits, Usage { bytes: quota.bytes, inodes: quota.inodes }))
}

/// What quotactl_fd(2) reads or writes: a plain structure of the kernel's.
trait Argument: Copy {}
impl Argument for QuotaState {}
impl Argument for Quota {}

fn quotactl<T: Argument>(file: impl AsFd, command: u32, project: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: each command of this module is called with the structure that it takes, which is valid for reading and
    // writing and whose fields take any bits; the descriptor is borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_fd().as_raw_fd(),
            (command << 8) | PROJECT,
            project,
            std::ptr::from_mut(argument),
        )
    };
    checked(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the two commands have the structure's size in them; the others are the kernel's.
    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Attributes>(), 0x1c);
        assert_eq!(size_of::<QuotaState>(), 160);
        assert_eq!(size_of::<Quota>(), 72);
    }

    #[test]
    fn a_file_system_without_projects_says_so() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(project(&proc).is_err());
        assert!(set_project(&proc, Project { id: 7, is_inherited: true }).is_err());
        assert_eq!(state(&proc).unwrap_err().raw_os_error(), Some(libc::ENOSYS));
        assert!(set_limits(&proc, 7, Limits::default()).is_err());
        assert!(usage(&proc, 7).is_err());
    }
}
