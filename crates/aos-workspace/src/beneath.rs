//! Looking at what lies beneath an open directory, without following a link and without leaving it.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aos_core::workspace::NodeKind;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, fstat, openat, openat2, statat,
};
use rustix::io::Errno;

use crate::progress;

/// Names that are read of one directory, and their bytes: they are held in memory, for one layer at a time
/// and for all together. A directory with more is not looked at.
const NAMES_MAX: usize = 2_000_000;
const NAMES_MAX_BYTES: usize = 64 << 20;
/// Names of a directory that is deleted, which may have any number, are read so many at a time.
const BATCH: usize = 10_000;
/// overlayfs's mark of a directory that hides those below it.
const OPAQUE: &str = "user.overlay.opaque";
/// What of a mode is kept: no set-user-id and no set-group-id bit.
const PERMISSIONS: u32 = 0o1777;

const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory by its path below another; the empty path is that one.
pub(crate) fn open_directory(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat2(root, path, DIRECTORY, Mode::empty(), WITHIN)
}

/// Opens a directory of the system's own, by its absolute path.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    openat(rustix::fs::CWD, path, DIRECTORY, Mode::empty())
}

/// What has a name in a directory.
pub(crate) fn look(directory: impl AsFd, name: &CStr) -> Result<Option<Stat>, Errno> {
    progress::made();
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names in a directory, in no order.
pub(crate) fn names(directory: impl AsFd) -> Result<Names, Errno> {
    let mut names = Names::default();
    for entry in Dir::read_from(directory)? {
        names.add(entry?.file_name())?;
    }
    Ok(names)
}

/// Some of the names in a directory; none only if there is none.
pub(crate) fn some_names(directory: impl AsFd) -> Result<Names, Errno> {
    let mut names = Names::default();
    for entry in Dir::read_from(directory)? {
        names.add(entry?.file_name())?;
        if names.all.len() >= BATCH {
            break;
        }
    }
    Ok(names)
}

/// Names of one directory in order, bounded in number and bytes.
#[derive(Debug, Default)]
pub(crate) struct Names {
    all: BTreeSet<CString>,
    bytes: usize,
}

impl Names {
    /// Adds one that is not there; `E2BIG` if that is too much.
    pub(crate) fn add(&mut self, name: &CStr) -> Result<(), Errno> {
        if matches!(name.to_bytes(), b"." | b"..") || self.all.contains(name) {
            return Ok(());
        }
        self.bytes += name.to_bytes_with_nul().len();
        if self.all.len() >= NAMES_MAX || self.bytes > NAMES_MAX_BYTES {
            return Err(Errno::TOOBIG);
        }
        self.all.insert(name.to_owned());
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &CStr> {
        self.all.iter().map(CString::as_c_str)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// Why something was passed over, in an answer.
pub(crate) fn reason(error: Errno) -> String {
    match error {
        Errno::TOOBIG => format!(
            "too many names to look at (over {NAMES_MAX}, or {} MiB, in one directory)",
            NAMES_MAX_BYTES >> 20
        ),
        error => error.to_string(),
    }
}

/// Whether a directory hides those below it.
pub(crate) fn is_opaque(directory: impl AsFd) -> Result<bool, Errno> {
    let mut value = [0_u8; 4];
    match fgetxattr(directory, OPAQUE, &mut value) {
        Ok(length) => Ok(value.get(..length) == Some(b"y")),
        // Longer than any mark, and a file system without attributes.
        Err(Errno::NODATA | Errno::RANGE | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether it stands for "nothing is here": a character device 0/0 (Documentation/filesystems/overlayfs.rst).
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// What it is.
pub(crate) fn kind(stat: &Stat) -> NodeKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        _ => NodeKind::Device,
    }
}

/// Its permissions.
pub(crate) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & PERMISSIONS
}

/// The length of a regular file, 0 of all else.
pub(crate) fn size(stat: &Stat) -> u64 {
    if kind(stat) == NodeKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 }
}

/// Opens a regular file for reading; anything else is `EINVAL`, and nothing is waited for.
pub(crate) fn open_file(directory: impl AsFd, name: &CStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())?;
    match kind(&fstat(&file)?) {
        NodeKind::File => Ok(file.into()),
        _ => Err(Errno::INVAL),
    }
}

/// A name as a path of one part.
pub(crate) fn part(name: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_directory_are_bounded_in_bytes() {
        let name = |number: usize| CString::new(format!("{number:0>255}")).unwrap();
        let most = NAMES_MAX_BYTES / 256;
        let mut names = Names::default();
        for number in 0..most {
            names.add(&name(number)).unwrap();
        }
        // Of another layer: it is there already.
        names.add(&name(0)).unwrap();
        assert_eq!(names.add(&name(most)), Err(Errno::TOOBIG));
        assert_eq!(names.iter().count(), most);
        assert!(reason(Errno::TOOBIG).contains("64 MiB"));
    }
}
