//! One pass over an upper directory by descriptors: no symbolic link is followed, parents come
//! before what is in them, names in the order of their bytes.
//!
//! A directory that its owner may not read is made readable while the pass is in it.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, chmodat, fchmod, fgetxattr, openat, statat};
use rustix::io::Errno;

use super::scratch::names;

/// Directories below each other, each with a descriptor: real trees have some 30.
const DEPTH_MAX: usize = 128;
/// The kernel's `PATH_MAX`, without the closing NUL.
const PATH_BYTES_MAX: usize = 4095;
/// overlayfs's mark of a directory that hides those below it, with `userxattr`
/// (Documentation/filesystems/overlayfs.rst).
const OPAQUE: &str = "user.overlay.opaque";

/// What of a mode is kept: no set-user-id and no set-group-id bit.
pub(super) const PERMISSIONS: Mode = Mode::from_bits_retain(0o1777);

/// A pass.
#[derive(Debug)]
pub(super) struct Walk {
    levels: Vec<Level>,
    /// The directory that was found last and is entered next.
    next: Option<Level>,
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    path: PathBuf,
    /// In reverse order.
    names: Vec<CString>,
    /// The mode to set again on leaving.
    restore: Option<Mode>,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// The directory it is in.
    pub(super) parent: &'a OwnedFd,
    /// Its name there.
    pub(super) name: CString,
    /// Its path below the top.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) stat: Stat,
    /// Whether it is a directory that hides those below it.
    pub(super) is_opaque: bool,
}

/// Why a pass ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum WalkError {
    /// The kernel refuses.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The entry, below the top.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path is too long or too deep.
    #[error("{} is too deep or too long", .0.display())]
    TooDeep(PathBuf),
}

fn at(path: &Path) -> impl FnOnce(Errno) -> WalkError + '_ {
    |error| WalkError::Io { path: path.to_owned(), source: error.into() }
}

impl Walk {
    /// A pass over the directory `top`, which is not part of it.
    pub(super) fn new(top: &Path) -> Result<Self, WalkError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(CWD, top, flags, Mode::empty()).map_err(at(top))?;
        let level = Level::new(directory, PathBuf::new(), None)?;
        Ok(Self { levels: Vec::new(), next: Some(level) })
    }

    /// The next entry.
    pub(super) fn step(&mut self) -> Result<Option<Found<'_>>, WalkError> {
        if let Some(level) = self.next.take() {
            if self.levels.len() >= DEPTH_MAX {
                return Err(WalkError::TooDeep(level.path.clone()));
            }
            self.levels.push(level);
        }
        let name = loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            if let Some(name) = level.names.pop() {
                break name;
            }
            if let Some(level) = self.levels.pop() {
                level.leave()?;
            }
        };
        let Some(level) = self.levels.last() else { return Ok(None) };
        let path = level.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(WalkError::TooDeep(path));
        }
        let stat = statat(&level.directory, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(at(&path))?;
        let mut is_opaque = false;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let inner = level.enter(&name, &path, Mode::from_raw_mode(stat.st_mode))?;
            is_opaque = has_opaque_mark(&inner.directory).map_err(at(&path))?;
            self.next = Some(inner);
        }
        Ok(Some(Found { parent: &level.directory, name, path, stat, is_opaque }))
    }
}

impl Level {
    fn new(directory: OwnedFd, path: PathBuf, restore: Option<Mode>) -> Result<Self, WalkError> {
        let listed = names(&directory);
        let mut names = listed.map_err(|source| WalkError::Io { path: path.clone(), source })?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self { directory, path, names, restore })
    }

    fn enter(&self, name: &CString, path: &Path, mode: Mode) -> Result<Self, WalkError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Root reads everything; an owner only what its mode says.
        let restore = (!mode.contains(Mode::RWXU)).then_some(mode & PERMISSIONS);
        if restore.is_some() {
            chmodat(&self.directory, name, mode | Mode::RWXU, AtFlags::empty()).map_err(at(path))?;
        }
        let directory = openat(&self.directory, name, flags, Mode::empty()).map_err(at(path))?;
        Self::new(directory, path.to_owned(), restore)
    }

    fn leave(mut self) -> Result<(), WalkError> {
        self.restore.take().map_or(Ok(()), |mode| fchmod(&self.directory, mode)).map_err(at(&self.path))
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        if let Some(mode) = self.restore {
            // The pass is given up: a directory that stays readable for its owner is removed with
            // the rest.
            fchmod(&self.directory, mode).unwrap_or_default();
        }
    }
}

fn has_opaque_mark(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut value = [0; 8];
    match fgetxattr(directory, OPAQUE, &mut value) {
        Ok(length) => Ok(value.get(..length) == Some(b"y")),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}
