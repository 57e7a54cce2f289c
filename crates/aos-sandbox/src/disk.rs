//! What the kernel says of an agent's limit on the disk, without any privilege: the project that its directories
//! count for, and what statfs(2) reports of a directory whose project has a limit.
//!
//! ext4 and xfs report such a directory as a file system of the limit's size (`ext4_statfs_project`,
//! `xfs_qm_statvfs`), only while limits are enforced: so the kernel's own word is compared with what was asked.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aos_sys::quota::{self, Project};
use rustix::fs::{Mode, OFlags, StatFs, fstatfs, major, minor, open, statfs};
use thiserror::Error;

use crate::plan::{DiskLimit, Node, SandboxPlan};

/// The mounts that this process sees.
const MOUNTS: &str = "/proc/self/mountinfo";
/// How ext4 and xfs name project quotas among their options.
const MOUNT_OPTION: &str = "prjquota";
// linux/magic.h, and fs/xfs/libxfs/xfs_format.h.
const EXT4: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;

/// Why a limit is not in force, and what to change.
#[derive(Debug, Error)]
pub enum DiskError {
    /// A system call failed.
    #[error("cannot look at {}", path.display())]
    Io {
        /// At what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file system knows no projects.
    #[error(
        "limits.disk needs project quotas, which the file system of {} does not have: put it on ext4 or xfs, or remove the limit", .0.display()
    )]
    NoProjects(PathBuf),
    /// The file system could, and does not.
    #[error(
        "limits.disk needs project quotas, which the file system of {} does not enforce: mount it with the option `prjquota` (ext4 needs `tune2fs -O project -Q prjquota` once, while it is not mounted), or remove the limit", .0.display()
    )]
    NotEnforced(PathBuf),
    /// Nobody set it.
    #[error("limits.disk is not in force for {}: start the agent with `aos start`; journalctl -u aos-quota@*", .0.display())]
    NotSet(PathBuf),
}

/// Checks that the limit of a plan is in force for every directory that the agent can fill, as the agent's user.
pub fn check(plan: &SandboxPlan) -> Result<(), DiskError> {
    let Some(limit) = &plan.disk else { return Ok(()) };
    filled(plan).try_for_each(|directory| check_one(directory, limit))
}

/// The directories of the host that are the agent's own and that it fills.
fn filled(plan: &SandboxPlan) -> impl Iterator<Item = &Path> {
    plan.tree.iter().filter(|entry| entry.path.as_str() == crate::plan::WORKSPACE).filter_map(|entry| {
        match &entry.node {
            Node::Bind(bind) => Some(bind.source.as_path()),
            Node::Transaction { changes, .. } => Some(changes.as_path()),
            _ => None,
        }
    })
}

fn check_one(path: &Path, limit: &DiskLimit) -> Result<(), DiskError> {
    let failed = |source: io::Error| DiskError::Io { path: path.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = File::from(open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?);
    let now = Size::of(&fstatfs(&directory).map_err(|error| failed(error.into()))?);
    let own = Project { id: rustix::process::geteuid().as_raw(), is_inherited: true };
    let is_own = quota::project(&directory).is_ok_and(|project| project == own);
    if is_own && now.bytes <= limit.bytes && now.inodes <= limit.inodes {
        return Ok(());
    }
    let has_option =
        has_mount_option(&directory, &std::fs::read_to_string(MOUNTS).map_err(failed)?).map_err(failed)?;
    if has_option { Err(DiskError::NotSet(path.to_owned())) } else { Err(lacking(&directory, path)) }
}

/// Why the file system of a directory enforces no limit of a project.
pub fn lacking(directory: &File, path: &Path) -> DiskError {
    let kind = fstatfs(directory).ok().and_then(|now| u64::try_from(now.f_type).ok());
    match kind {
        Some(EXT4 | XFS) => DiskError::NotEnforced(path.to_owned()),
        _ => DiskError::NoProjects(path.to_owned()),
    }
}

/// Whether the file system of a directory is mounted with project quotas, as proc_pid_mountinfo(5) has it.
fn has_mount_option(directory: &File, mounts: &str) -> io::Result<bool> {
    let device = directory.metadata()?.dev();
    let device = format!("{}:{}", major(device), minor(device));
    Ok(mounts.lines().any(|line| {
        let is_its = line.split(' ').nth(2) == Some(device.as_str());
        let options = line.rsplit(' ').next().unwrap_or_default();
        is_its && options.split(',').any(|option| option == MOUNT_OPTION)
    }))
}

/// How large a file system is, or the part of it that a directory's project may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    bytes: u64,
    free_bytes: u64,
    inodes: u64,
    free_inodes: u64,
}

impl Size {
    fn of(now: &StatFs) -> Self {
        let block = u64::try_from(now.f_bsize).unwrap_or(0);
        Self {
            bytes: now.f_blocks.saturating_mul(block),
            free_bytes: now.f_bfree.saturating_mul(block),
            inodes: now.f_files,
            free_inodes: now.f_ffree,
        }
    }
}

/// How much a directory may hold, and what of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Whether that is less than its file system's size: it has a limit of its own.
    pub is_limited: bool,
    /// Bytes that may be used.
    pub limit_bytes: u64,
    /// Inodes that may be used.
    pub limit_inodes: u64,
    /// Bytes that are used; `None` without a limit, and when the file system as a whole has less room than the limit
    /// leaves, since the kernel then reports that.
    pub used_bytes: Option<u64>,
    /// Inodes that are used, likewise.
    pub used_inodes: Option<u64>,
}

/// How much a directory may hold. Needs no right to read it.
pub fn measure(directory: &Path) -> io::Result<Measured> {
    let parent = directory.parent().unwrap_or(directory);
    // Others fill and empty the file system meanwhile.
    let before = Size::of(&statfs(parent)?);
    let own = Size::of(&statfs(directory)?);
    let after = Size::of(&statfs(parent)?);
    Ok(between(&before, &own, &after))
}

fn between(before: &Size, own: &Size, after: &Size) -> Measured {
    let is_limited = own.bytes < before.bytes || own.inodes < before.inodes;
    let used = |total: u64, free: u64, outer: [u64; 2]| {
        let is_known = is_limited && outer.iter().all(|outer| free < *outer);
        is_known.then(|| total.saturating_sub(free))
    };
    Measured {
        is_limited,
        limit_bytes: own.bytes,
        limit_inodes: own.inodes,
        used_bytes: used(own.bytes, own.free_bytes, [before.free_bytes, after.free_bytes]),
        used_inodes: used(own.inodes, own.free_inodes, [before.free_inodes, after.free_inodes]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(bytes: u64, free_bytes: u64, inodes: u64, free_inodes: u64) -> Size {
        Size { bytes, free_bytes, inodes, free_inodes }
    }

    #[test]
    fn what_is_used_follows_from_what_is_free_unless_the_disk_is_fuller() {
        let outer = size(1000, 500, 100, 50);
        let measured = |own: &Size| between(&outer, own, &outer);
        let free = measured(&outer);
        assert!(!free.is_limited && free.used_bytes.is_none() && free.used_inodes.is_none());
        let limited = measured(&size(200, 150, 20, 15));
        assert_eq!((limited.is_limited, limited.limit_bytes, limited.limit_inodes), (true, 200, 20));
        assert_eq!((limited.used_bytes, limited.used_inodes), (Some(50), Some(5)));
        let full = measured(&size(200, 0, 20, 0));
        assert_eq!((full.used_bytes, full.used_inodes), (Some(200), Some(20)));
        // 700 may be used and only 500 are there: how many are used cannot be told.
        let crowded = measured(&size(700, 500, 20, 15));
        assert_eq!((crowded.used_bytes, crowded.used_inodes), (None, Some(5)));
        let freed = size(1000, 700, 100, 50);
        assert_eq!(between(&outer, &size(900, 500, 20, 15), &freed).used_bytes, None);
    }

    #[test]
    fn the_mount_option_is_that_of_the_directorys_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let directory = File::open(dir.path()).unwrap();
        let device = directory.metadata().unwrap().dev();
        let line = |device: &str, options: &str| format!("29 1 {device} / / rw - ext4 /dev/vda {options}\n");
        let own = format!("{}:{}", major(device), minor(device));
        let has = |text: &str| has_mount_option(&directory, text).unwrap();
        assert!(has(&(line("0:99999", "rw") + &line(&own, "rw,prjquota"))));
        assert!(has(&line(&own, "prjquota,errors=remount-ro")));
        assert!(!has(&(line("0:99999", "rw,prjquota") + &line(&own, "rw,usrquota"))));
        assert!(!has(&line(&own, "rw,noprjquota")) && !has(""));
    }

    #[test]
    fn a_directory_without_a_limit_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!measure(dir.path()).unwrap().is_limited);
        assert!(measure(&dir.path().join("missing")).is_err());
        let limit = DiskLimit { bytes: u64::MAX, inodes: u64::MAX };
        // Nobody set one here, whatever the file system can.
        let why = check_one(dir.path(), &limit).unwrap_err();
        assert!(!matches!(why, DiskError::Io { .. }), "{why}");
        assert!(matches!(check_one(Path::new("/proc"), &limit), Err(DiskError::NoProjects(_))));
        assert!(matches!(check_one(&dir.path().join("missing"), &limit), Err(DiskError::Io { .. })));
    }
}
