//! Contents of files: comparing them, and copying them with what belongs to them.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{
    SeekFrom, Stat, Timespec, Timestamps, XattrFlags, copy_file_range, fgetxattr, flistxattr, fsetxattr,
    ftruncate, futimens, seek,
};
use rustix::io::Errno;

use crate::progress;

/// Files up to this size are compared; a larger one that was written to counts as modified. A sparse file costs
/// nothing to make and all of its size to compare.
const COMPARED_MAX: u64 = 4 << 30;
const PIECE: usize = 128 << 10;
/// Bytes in one call of copy_file_range(2), so that a signal is heard in time.
const RANGE: u64 = 64 << 20;
/// The kernel's XATTR_LIST_MAX and XATTR_SIZE_MAX.
const ATTRIBUTE_MAX: usize = 64 << 10;
/// Attributes that a file takes along: an agent's own, and access lists. overlayfs's marks are not the file's.
const KEPT: &[u8] = b"user.";
const MARKS: &[u8] = b"user.overlay.";
const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
/// A directory has two.
const ACCESS_LISTS: [&[u8]; 2] = [ACCESS_LIST, b"system.posix_acl_default"];
/// The handle of the file that another was copied up from; of no use where that is another one.
const ORIGIN: &[u8] = b"user.overlay.origin";

/// What two files of the same size, too large to be compared, are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Large {
    /// For what may differ.
    Differs,
    /// For the same: one is a copy of the other, made by a commit that was cut short after it.
    Same,
}

/// Whether overlayfs's marks are taken along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// The copy is part of a layer, as what it is made of.
    Kept,
    /// It is not.
    Dropped,
}

/// Whether two regular files have the same content.
pub(crate) fn is_same(a: &File, b: &File, large: Large) -> Result<bool, Errno> {
    let size = |file: &File| file.metadata().map(|metadata| metadata.len()).map_err(errno);
    if size(a)? != size(b)? {
        return Ok(false);
    }
    if size(a)? > COMPARED_MAX {
        return Ok(large == Large::Same);
    }
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    loop {
        progress::made();
        let count = a.read_at(&mut left, at).map_err(errno)?;
        let (Some(new), Some(old)) = (left.get(..count), right.get_mut(..count)) else {
            return Err(Errno::IO);
        };
        if count == 0 {
            return Ok(true);
        }
        match b.read_exact_at(old, at) {
            Ok(()) if old == new => at += count as u64,
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(errno(error)),
        }
    }
}

/// Copies content with its holes, kept attributes and times. `to` is new and empty.
pub(crate) fn copy(from: &File, stat: &Stat, to: &File, marks: Marks) -> Result<(), Errno> {
    let size = from.metadata().map_err(errno)?.len();
    ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let end = seek(from, SeekFrom::Hole(start))?.min(size);
        copy_range(from, to, start, end)?;
        at = end.max(start + 1);
    }
    copy_attributes(from, to, marks)?;
    set_times(to, stat)
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> Result<(), Errno> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        progress::made();
        let count = usize::try_from((end - read_at).min(RANGE)).unwrap_or(PIECE);
        match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), count) {
            Ok(0) => return Err(Errno::IO),
            Ok(_) | Err(Errno::INTR) => {}
            // Two file systems that do not know each other.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_bytes(from, to, read_at, end);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn copy_bytes(from: &File, to: &File, start: u64, end: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; PIECE];
    let mut at = start;
    while at < end {
        progress::made();
        let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        let Some(piece) = buffer.get_mut(..most) else { return Err(Errno::IO) };
        let count = from.read_at(piece, at).map_err(errno)?;
        match piece.get(..count) {
            Some(read) if count > 0 => to.write_all_at(read, at).map_err(errno)?,
            _ => return Err(Errno::IO),
        }
        at += count as u64;
    }
    Ok(())
}

/// Copies the kept attributes of a file or directory.
pub(crate) fn copy_attributes(from: impl AsFd, to: impl AsFd, marks: Marks) -> Result<(), Errno> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let is_kept = |name: &[u8]| match marks {
        Marks::Kept => name.starts_with(KEPT) && name != ORIGIN || ACCESS_LISTS.contains(&name),
        Marks::Dropped => name.starts_with(KEPT) && !name.starts_with(MARKS) || name == ACCESS_LIST,
    };
    let mut list = vec![0_u8; ATTRIBUTE_MAX];
    let length = match flistxattr(from, list.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error),
    };
    let mut value = vec![0_u8; ATTRIBUTE_MAX];
    for name in list.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        if !is_kept(name) {
            continue;
        }
        let length = fgetxattr(from, name, value.as_mut_slice())?;
        fsetxattr(to, name, value.get(..length).unwrap_or_default(), XattrFlags::empty())?;
    }
    Ok(())
}

/// The times of a file as they were.
pub(crate) fn set_times(to: impl AsFd, stat: &Stat) -> Result<(), Errno> {
    futimens(to, &times(stat))
}

/// Access and modification time of a file.
pub(crate) fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
