//! The directory that a package is built from, read through one descriptor: no path leads out of
//! it, and no symbolic link is followed.

use super::BuildError;
use crate::archive::EXTENSION;
use aos_core::agentfile::{AGENTFILE_MAX_BYTES, Agentfile, FILE_NAMES, Format};
use aos_core::path::RelativePath;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The file that names what is left out.
const IGNORE_FILE: &str = ".aosignore";
/// Bytes of `.aosignore`: some thousand patterns.
const IGNORE_MAX: u64 = 64 << 10;
/// Version control's own data is never part of a package.
const NEVER: &str = ".git";

/// The directory.
pub(super) struct Context {
    root: OwnedFd,
    directory: PathBuf,
    ignored: Gitignore,
    /// The Agentfile's name and format.
    agentfile: (&'static str, Format),
}

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File { size: u64, executable: bool },
    Directory,
    Symlink(String),
}

impl Context {
    /// Opens a directory, which must have an Agentfile.
    pub(super) fn open(directory: &Path) -> Result<Self, BuildError> {
        let failed = |errno: Errno| BuildError::Read { path: directory.to_owned(), source: errno.into() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty()).map_err(failed)?;
        let mut context = Self {
            root,
            directory: directory.to_owned(),
            ignored: Gitignore::empty(),
            agentfile: ("", Format::Yaml),
        };
        context.agentfile = context.find_agentfile()?;
        context.ignored = context.read_ignore_file()?;
        Ok(context)
    }

    fn find_agentfile(&self) -> Result<(&'static str, Format), BuildError> {
        let mut found = None;
        for (name, format) in FILE_NAMES {
            match (self.stat(name), found) {
                (Err(Errno::NOENT), _) => {}
                (Err(errno), _) => return Err(self.failed(name, errno)),
                (Ok(_), None) => found = Some((name, format)),
                (Ok(_), Some((first, _))) => {
                    let directory = self.directory.clone();
                    return Err(BuildError::TwoAgentfiles { directory, first, second: name });
                }
            }
        }
        found.ok_or_else(|| BuildError::NoAgentfile {
            directory: self.directory.clone(),
            expected: FILE_NAMES.map(|(name, _)| name).join(", "),
        })
    }

    /// Parses the Agentfile. Errors call it by its path as the user gave it.
    pub(super) fn agentfile(&self) -> Result<Agentfile, BuildError> {
        let (name, format) = self.agentfile;
        let text = self.read_text(name, AGENTFILE_MAX_BYTES as u64)?;
        Ok(Agentfile::parse(&text, format, &self.directory.join(name).display().to_string())?)
    }

    fn read_ignore_file(&self) -> Result<Gitignore, BuildError> {
        match self.stat(IGNORE_FILE) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(Gitignore::empty()),
            Err(errno) => return Err(self.failed(IGNORE_FILE, errno)),
        }
        let text = self.read_text(IGNORE_FILE, IGNORE_MAX)?;
        let mut builder = GitignoreBuilder::new("");
        for (index, line) in text.lines().enumerate() {
            let wrong =
                |error: ignore::Error| BuildError::Ignore { line: index + 1, message: error.to_string() };
            builder.add_line(None, line).map_err(wrong)?;
        }
        builder.build().map_err(|error| BuildError::Ignore { line: 0, message: error.to_string() })
    }

    fn read_text(&self, name: &str, max: u64) -> Result<String, BuildError> {
        let path = self.directory.join(name);
        let unfit = |reason: String| BuildError::Input { path: path.clone(), reason };
        let (file, size) = self.open_file(name).map_err(|error| match error {
            BuildError::Unfit { reason, .. } => unfit(reason),
            error => error,
        })?;
        if size > max {
            return Err(unfit(format!("{size} bytes, at most {max} are allowed")));
        }
        let mut text = String::new();
        match file.take(max).read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(unfit("it is not UTF-8".to_owned()))
            }
            Err(source) => Err(BuildError::Read { path, source }),
        }
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // A fifo must not hold us; openat2 refuses this flag beside O_PATH, which never waits.
        let wait = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | wait;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    fn failed(&self, path: &str, errno: Errno) -> BuildError {
        let unfit = |reason: &str| BuildError::Unfit { path: path.to_owned(), reason: reason.to_owned() };
        match errno {
            Errno::LOOP | Errno::NOTDIR => {
                unfit("a symbolic link or a file is on the way to it, and links are not followed")
            }
            errno => BuildError::Read { path: self.directory.join(path), source: errno.into() },
        }
    }

    /// Opens a file for reading, and its size.
    pub(super) fn open_file(&self, path: &str) -> Result<(File, u64), BuildError> {
        let fd = self.open_beneath(path, OFlags::RDONLY).map_err(|errno| self.failed(path, errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.failed(path, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((File::from(fd), u64::try_from(stat.st_size).unwrap_or(0))),
            _ => Err(BuildError::Unfit { path: path.to_owned(), reason: "it is not a file".to_owned() }),
        }
    }

    /// The attributes of the entry itself. The way to it has no symbolic links.
    fn stat(&self, path: &str) -> Result<Stat, Errno> {
        let (above, name) = path.rsplit_once('/').unwrap_or((".", path));
        let directory = self.open_beneath(above, OFlags::PATH | OFlags::DIRECTORY)?;
        rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// What an entry is; `None` when it does not exist.
    pub(super) fn source(&self, path: &RelativePath) -> Result<Option<Source>, BuildError> {
        match self.stat(path.as_str()) {
            Ok(stat) => self.describe(path.as_str(), &stat).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(path.as_str(), errno)),
        }
    }

    fn describe(&self, path: &str, stat: &Stat) -> Result<Source, BuildError> {
        let unfit = |reason: &str| BuildError::Unfit { path: path.to_owned(), reason: reason.to_owned() };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Source::File {
                size: u64::try_from(stat.st_size).unwrap_or(0),
                executable: stat.st_mode & 0o100 != 0,
            }),
            FileType::Directory => Ok(Source::Directory),
            FileType::Symlink => {
                let (above, name) = path.rsplit_once('/').unwrap_or((".", path));
                let target = self
                    .open_beneath(above, OFlags::PATH | OFlags::DIRECTORY)
                    .and_then(|directory| rustix::fs::readlinkat(&directory, name, Vec::new()))
                    .map_err(|errno| self.failed(path, errno))?;
                target.into_string().map(Source::Symlink).map_err(|_| unfit("its target is not UTF-8"))
            }
            _ => Err(unfit("it is neither a file nor a directory nor a symbolic link")),
        }
    }

    /// The entries of a directory that are not left out, sorted; `None` is the whole directory.
    pub(super) fn list(
        &self,
        path: Option<&RelativePath>,
    ) -> Result<Vec<(RelativePath, Source)>, BuildError> {
        let shown = path.map_or(".", RelativePath::as_str);
        let failed = |errno| self.failed(shown, errno);
        let directory = self.open_beneath(shown, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let name = str::from_utf8(bytes).map_err(|_| BuildError::Unfit {
                path: self
                    .directory
                    .join(shown)
                    .join(String::from_utf8_lossy(bytes).as_ref())
                    .display()
                    .to_string(),
                reason: "its name is not UTF-8".to_owned(),
            })?;
            let text = path.map_or_else(|| name.to_owned(), |above| format!("{above}/{name}"));
            let below = text.parse::<RelativePath>().map_err(|error| BuildError::Unfit {
                path: name.escape_debug().to_string(),
                reason: error.to_string(),
            })?;
            if name == NEVER || (path.is_none() && self.is_own(name)) {
                continue;
            }
            let stat = self.stat(below.as_str()).map_err(|errno| self.failed(below.as_str(), errno))?;
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if !self.ignored.matched(below.as_str(), is_directory).is_ignore() {
                let source = self.describe(below.as_str(), &stat)?;
                entries.push((below, source));
            }
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(entries)
    }

    /// True for files at the top that describe the package or are its results.
    fn is_own(&self, name: &str) -> bool {
        name == self.agentfile.0
            || name == IGNORE_FILE
            || name.rsplit_once('.').is_some_and(|(_, ending)| ending == EXTENSION)
    }

    /// True when `.aosignore` leaves out this entry or a directory above it.
    pub(super) fn is_ignored(&self, path: &RelativePath, is_directory: bool) -> bool {
        path.segments().any(|segment| segment == NEVER)
            || self.ignored.matched_path_or_any_parents(path.as_str(), is_directory).is_ignore()
    }
}
