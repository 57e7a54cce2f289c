//! A folder held open, and the few file operations done in it: bounded reads, atomic writes, links, removal.
//! Every name is one path component below the open folder, and no final symbolic link is followed.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// Records and the counter are far smaller; anything larger is not ours.
const READ_MAX: u64 = 16 * 1024;

/// What stands under a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A symbolic link to this.
    Link(Vec<u8>),
    /// A folder, socket, device, or a file beyond the bound.
    Other,
}

/// A folder, held open.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: rustix::fd::OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens `path`, making it (0755) when it is missing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Self::open_existing(path)
    }

    /// Opens `path`, which somebody else makes: this program may write nothing above it.
    pub(crate) fn open_existing(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())?, path: path.to_owned() })
    }

    /// The path, for messages.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes the exclusive lock `name`; it is held until the result is dropped. Waits for other runs, whose
    /// number and length systemd bounds.
    pub(crate) fn lock(&self, name: &str) -> io::Result<rustix::fd::OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))?;
        rustix::fs::flock(&fd, FlockOperation::LockExclusive)?;
        Ok(fd)
    }

    /// The names in the folder that are UTF-8; this program makes no others.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// What is there under `name`.
    pub(crate) fn look(&self, name: &str) -> io::Result<Found> {
        let stat = match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&self.fd, name, Vec::new())?;
                Ok(Found::Link(target.into_bytes()))
            }
            FileType::RegularFile => self.read(name),
            _ => Ok(Found::Other),
        }
    }

    fn read(&self, name: &str) -> io::Result<Found> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file: std::fs::File = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?.into();
        let mut bytes = Vec::new();
        file.take(READ_MAX + 1).read_to_end(&mut bytes)?;
        Ok(if bytes.len() as u64 > READ_MAX { Found::Other } else { Found::File(bytes) })
    }

    /// Puts `bytes` under `name`, whole or not at all, and on the disk before it returns.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = format!(".{name}.new");
        self.remove(&temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file: std::fs::File =
            rustix::fs::openat(&self.fd, &temporary, flags, Mode::from_raw_mode(0o644))?.into();
        // The mode is exact whatever the umask: others read these records.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        rustix::fs::renameat(&self.fd, &temporary, &self.fd, name)?;
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Makes the symbolic link `name` -> `target`; an equal one may be there already.
    pub(crate) fn link(&self, name: &str, target: &str) -> io::Result<()> {
        match rustix::fs::symlinkat(target, &self.fd, name) {
            Err(Errno::EXIST) if self.look(name)? == Found::Link(target.as_bytes().to_vec()) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Removes `name`; it may be missing.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes removals and links durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}
