//! The directory of one step, and its removal whatever the step left in it.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};

use super::Account;
use super::error::{Doing, RunError};

/// Upper and work directory of one step. Removed when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes them below `parent`, for the account.
    pub(super) fn make(parent: &Path, account: Account) -> Result<Self, RunError> {
        let what = || format!("make a directory for the step in {}", parent.display());
        let directory = tempfile::Builder::new().prefix("step-").tempdir_in(parent).doing(what)?;
        let scratch = Self { path: directory.keep() };
        for (path, mode) in
            [(scratch.path.clone(), 0o700), (scratch.upper(), 0o755), (scratch.path.join("work"), 0o700)]
        {
            let what = || format!("make {}", path.display());
            if path != scratch.path {
                fs::create_dir(&path).doing(what)?;
            }
            fs::set_permissions(&path, Permissions::from_mode(mode)).doing(what)?;
            if account.is_other() {
                chown(&path, Some(account.uid), Some(account.gid)).doing(what)?;
            }
        }
        Ok(scratch)
    }

    /// The directory that gets the step's changes.
    pub(super) fn upper(&self) -> PathBuf {
        self.path.join("upper")
    }

    /// The directory that overlayfs works in.
    pub(super) fn work(&self) -> PathBuf {
        self.path.join("work")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is found below the build's scratch directory, which the next
        // garbage collection empties; there is nobody to tell.
        remove(&self.path).unwrap_or_default();
    }
}

/// A directory that is being emptied.
struct Frame {
    /// Its name in the directory above.
    name: CString,
    /// Which directory it is.
    identity: (u64, u64),
    /// Directories in it that are still there.
    left: Vec<CString>,
}

/// Removes a directory with all in it, however deep and whatever its modes: one descriptor goes down
/// and, by `..`, up again.
pub fn remove(path: &Path) -> io::Result<()> {
    let mut current = open_directory(CWD, path)?;
    let mut frames =
        vec![Frame { name: CString::default(), identity: identity(&current)?, left: clear(&current)? }];
    while let Some(frame) = frames.last_mut() {
        if let Some(name) = frame.left.pop() {
            let inner = open_directory(&current, &name)?;
            frames.push(Frame { name, identity: identity(&inner)?, left: clear(&inner)? });
            current = inner;
        } else if let Some(Frame { name, .. }) = frames.pop()
            && let Some(above) = frames.last()
        {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let parent = openat(&current, "..", flags, Mode::empty())?;
            if identity(&parent)? != above.identity {
                return Err(io::Error::other("a directory was moved while it was removed"));
            }
            unlinkat(&parent, &name, AtFlags::REMOVEDIR)?;
            current = parent;
        }
    }
    fs::remove_dir(path)
}

fn identity(directory: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Removes all but directories; the names of those.
fn clear(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut left = Vec::new();
    for name in names(directory)? {
        let stat = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            left.push(name);
        } else {
            unlinkat(directory, &name, AtFlags::empty())?;
        }
    }
    Ok(left)
}

/// Opens a directory that this process owns, after giving itself every right to it.
fn open_directory(at: impl AsFd, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let all = Mode::RWXU;
    let stat = statat(&at, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if !Mode::from_raw_mode(stat.st_mode).contains(all) {
        // By a descriptor of it: a step that still dies may put a link in its place.
        let held = openat(
            &at,
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), all)?;
    }
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// The names in a directory but `.` and `..`.
pub(super) fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_it_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::make(parent.path(), Account::of_process()).unwrap();
        let upper = scratch.upper();
        fs::create_dir_all(upper.join("a/b")).unwrap();
        fs::write(upper.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", upper.join("a/link")).unwrap();
        fs::set_permissions(upper.join("a/b"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(upper.join("a"), Permissions::from_mode(0o555)).unwrap();
        // Deeper than any path name, and than a stack of descriptors.
        let mut directory = open_directory(CWD, &upper).unwrap();
        for _ in 0..1200 {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).unwrap();
            directory = open_directory(&directory, c"d").unwrap();
        }
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        assert!(Path::new("/etc").is_dir());
    }
}
