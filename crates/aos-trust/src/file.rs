//! Files whose owner and mode matter: read bounded, checked on the open file, written once.

use rustix::fs::{FileType, Mode, OFlags, RenameFlags, Stat};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Permission bits: group and others may not write.
const WRITE_BY_OTHERS: u32 = 0o022;
/// Permission bits: group and others may do nothing.
const ANY_BY_OTHERS: u32 = 0o077;

/// Why a file or directory is not used.
#[derive(Debug, Error)]
pub enum FileError {
    /// An operation failed.
    #[error("cannot {what} {}: {why}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel says. It is part of the text, so that a refusal is one line.
        why: io::Error,
    },
    /// It is a device, a pipe or a socket, or a file where a directory is needed.
    #[error("{} is not a {expected}", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What is needed.
        expected: &'static str,
    },
    /// The file is too large.
    #[error("{} has more than {max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound in bytes.
        max: usize,
    },
    /// Others could have changed it, or read a secret.
    #[error("{} has mode {mode:04o}: its group or others may {may} it; `chmod {chmod} {}` after checking what is in it", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// The permission bits.
        mode: u32,
        /// What they allow.
        may: &'static str,
        /// What takes it away.
        chmod: &'static str,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to uid {uid}, expected {expected}", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Who may own it.
        expected: &'static str,
    },
    /// The file is there already.
    #[error("{} exists; it is not overwritten", .0.display())]
    Exists(PathBuf),
}

impl FileError {
    pub(crate) fn io(what: &'static str, path: &Path, why: impl Into<io::Error>) -> Self {
        Self::Io { what, path: path.to_owned(), why: why.into() }
    }

    /// True when there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { why, .. } if why.kind() == io::ErrorKind::NotFound)
    }
}

/// What a file must be for it to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Only its owner, who is this process's user, may read it; not a link.
    Secret,
    /// Only root or this process's user can have written it.
    Trusted,
}

/// Reads a regular file of at most `max` bytes. Owner and mode are those of the file that is read,
/// whatever happens to its name meanwhile.
pub(crate) fn read(path: &Path, max: usize, demand: Demand) -> Result<Vec<u8>, FileError> {
    // Without NONBLOCK, opening a pipe waits for a writer.
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if demand == Demand::Secret {
        flags |= OFlags::NOFOLLOW;
    }
    let read = |error| FileError::io("read", path, error);
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| read(error.into()))?;
    let stat = rustix::fs::fstat(&file).map_err(|error| read(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::Kind { path: path.to_owned(), expected: "regular file" });
    }
    check(path, &stat, demand)?;
    let mut bytes = Vec::new();
    File::from(file).take(max as u64 + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() > max {
        return Err(FileError::TooLarge { path: path.to_owned(), max });
    }
    Ok(bytes)
}

/// Checks a directory's owner and mode.
pub(crate) fn check_directory(path: &Path, demand: Demand) -> Result<(), FileError> {
    let stat = rustix::fs::stat(path).map_err(|error| FileError::io("read", path, error))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(FileError::Kind { path: path.to_owned(), expected: "directory" });
    }
    check(path, &stat, demand)
}

fn check(path: &Path, stat: &Stat, demand: Demand) -> Result<(), FileError> {
    let me = rustix::process::geteuid().as_raw();
    let (owner, expected, bits, may, chmod) = match demand {
        Demand::Secret => (stat.st_uid == me, "this user", ANY_BY_OTHERS, "read or write", "go="),
        Demand::Trusted => {
            (stat.st_uid == me || stat.st_uid == 0, "root or this user", WRITE_BY_OTHERS, "write", "go-w")
        }
    };
    if !owner {
        return Err(FileError::Owner { path: path.to_owned(), uid: stat.st_uid, expected });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & bits != 0 {
        return Err(FileError::Mode { path: path.to_owned(), mode, may, chmod });
    }
    Ok(())
}

/// Writes a new file, whole or not at all, on the disk before it returns. A file that is there is
/// not touched.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(FileError::io("create", path, io::ErrorKind::InvalidInput));
    };
    // Two writers, in one process or two, never share a file; a leftover of a killed one is replaced.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let process = rustix::process::getpid().as_raw_nonzero();
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!(".{name}.{process}.{write}.new"));
    if let Err(error) = std::fs::remove_file(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(FileError::io("remove", &temporary, error));
    }
    let write = || -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file: File = rustix::fs::open(&temporary, flags, Mode::from_raw_mode(0o600))?.into();
        file.write_all(bytes)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        file.sync_all()?;
        let here = rustix::fs::CWD;
        rustix::fs::renameat_with(here, &temporary, here, path, RenameFlags::NOREPLACE)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| {
        let removed = std::fs::remove_file(&temporary);
        match (error.kind(), removed) {
            (io::ErrorKind::AlreadyExists, _) => FileError::Exists(path.to_owned()),
            // The first error is the one to report; a temporary file that stays is replaced later.
            (_, Ok(()) | Err(_)) => FileError::io("create", path, error),
        }
    })
}
