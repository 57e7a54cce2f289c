//! Small files: atomic and durable writes, and bounded reads of what others wrote. Blocking; callers use
//! [`blocking`] or are on a thread of their own.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

/// Names of one file.
const LINKS_MAX: usize = 10_000;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(crate) fn new(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { what, path: path.to_owned(), source: source.into() }
    }

    /// Whether the file is just not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the disk or the quota is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Puts `bytes` at `path` with `mode`, whole or not at all, on the disk before it returns. The folder must
/// belong to this process alone: a leftover temporary file is replaced.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(FileError::new("write", path, io::ErrorKind::InvalidInput));
    };
    let temporary = folder.join(format!(".{}.new", name.to_string_lossy()));
    remove(&temporary)?;
    let write = || -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file: std::fs::File = rustix::fs::open(&temporary, flags, Mode::from_raw_mode(0o600))?.into();
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        let error = FileError::new("write", path, error);
        return Err(remove(&temporary).err().unwrap_or(error));
    }
    sync_folder(folder)
}

/// Puts the same `bytes` under many names in a folder, durably: one file with many names, and one write of the folder
/// to the disk. After a crash some names may be there.
pub fn write_many<'a>(
    folder: &Path,
    names: impl Iterator<Item = &'a str>,
    bytes: &[u8],
    mode: u32,
) -> Result<(), FileError> {
    let mut source: Option<(PathBuf, usize)> = None;
    for name in names {
        let path = folder.join(name);
        remove(&path)?;
        match &mut source {
            // ext4 takes 65,000 names of a file.
            Some((first, count)) if *count < LINKS_MAX => {
                std::fs::hard_link(first, &path).map_err(|error| FileError::new("write", &path, error))?;
                *count += 1;
            }
            _ => {
                write_new(&path, bytes, mode).map_err(|error| FileError::new("write", &path, error))?;
                source = Some((path, 1));
            }
        }
    }
    sync_folder(folder)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file: std::fs::File = rustix::fs::open(path, flags, Mode::from_raw_mode(mode))?.into();
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives a file another name in the same folder, in the place of what has that name. Durable, and it needs no space.
pub fn rename_durably(from: &Path, to: &Path) -> Result<(), FileError> {
    std::fs::rename(from, to).map_err(|error| FileError::new("rename", from, error))?;
    to.parent().map_or(Ok(()), sync_folder)
}

/// Removes a file; it may be missing. Durable.
pub fn remove_durably(path: &Path) -> Result<(), FileError> {
    remove(path)?;
    match path.parent() {
        Some(folder) if folder.exists() => sync_folder(folder),
        _ => Ok(()),
    }
}

/// Removes files of a folder; each, and the folder, may be missing. Durable, with one write to the disk.
pub fn remove_many<'a>(folder: &Path, names: impl Iterator<Item = &'a str>) -> Result<(), FileError> {
    for name in names {
        remove(&folder.join(name))?;
    }
    match sync_folder(folder) {
        Err(error) if error.is_missing() => Ok(()),
        synced => synced,
    }
}

fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, error)),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), FileError> {
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| FileError::new("sync", folder, error))
}

/// Reads at most `max` bytes of a regular file, without following a final link or waiting on a pipe. A larger
/// file is an error.
pub fn read_bounded(path: &Path, max: usize) -> Result<Vec<u8>, FileError> {
    let read = || -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file: std::fs::File = rustix::fs::open(path, flags, Mode::empty())?.into();
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(max as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {max} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|error| FileError::new("read", path, error))
}

/// Runs blocking file work on the runtime's blocking threads.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(FileError::new(what, Path::new("(worker)"), io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn writes_whole_files_with_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        for text in ["one", "two and longer", ""] {
            write_atomic(&path, text.as_bytes(), 0o640).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        }
        std::fs::write(dir.path().join(".plan.json.new"), "left over").unwrap();
        write_atomic(&path, b"x", 0o640).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        remove_durably(&path).unwrap();
        remove_durably(&path).unwrap();
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("x")).unwrap();
        std::fs::write(dir.path().join("x/y"), "").unwrap();
        assert!(write_atomic(&dir.path().join("x"), b"", 0o600).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomic(&dir.path().join("missing/file"), b"", 0o600).unwrap_err().is_missing());
    }

    #[test]
    fn reads_are_bounded_and_take_regular_files_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        assert!(read_bounded(&path, 4).is_err());
        std::os::unix::fs::symlink(&path, dir.path().join("l")).unwrap();
        assert!(read_bounded(&dir.path().join("l"), 5).is_err());
        let fifo = dir.path().join("p");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(read_bounded(&fifo, 5).is_err());
        assert!(read_bounded(dir.path(), 5).is_err());
    }
}
