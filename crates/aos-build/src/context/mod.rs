//! The directory that a package is built from, read through one descriptor: no path leads out of
//! it, and no symbolic link is followed.
//!
//! [`Context::walk`] lists what is below a path once, by directory descriptors and with several
//! threads; [`files`] knows the digests of files that have not changed since an earlier build.

mod files;
mod hash;
mod ignored;
mod revision;
mod stamp;
mod walk;

pub(crate) use files::FileDigests;
pub(crate) use hash::is_changed;
pub(crate) use revision::revision;
pub(crate) use stamp::Stamp;
pub(crate) use walk::{Found, What};

use crate::error::BuildError;
use aos_core::agentfile::{AGENTFILE_MAX_BYTES, FILE_NAMES, Format};
use aos_core::path::RelativePath;
use aos_package::archive::EXTENSION;
use ignore::gitignore::Gitignore;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The file that names what is left out.
const IGNORE_FILE: &str = ".aosignore";
/// Bytes of `.aosignore`: some thousand patterns.
const IGNORE_MAX: u64 = 64 << 10;
/// Version control's own data is never part of a package.
const NEVER: &str = ".git";

/// The directory.
pub(crate) struct Context {
    root: OwnedFd,
    directory: PathBuf,
    ignored: Gitignore,
    /// The Agentfile's text.
    text: String,
    format: Format,
    /// The name that errors give it.
    origin: String,
    /// Its name at the top of the directory, when it is there: it is no part of the package.
    own_name: Option<String>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({})", self.directory.display())
    }
}

impl Context {
    /// Opens a directory and reads its Agentfile, or the one that is named: a path that is taken
    /// from where the program runs, as any other file that a person names.
    pub(crate) fn open(directory: &Path, agentfile: Option<&Path>) -> Result<Self, BuildError> {
        let failed = |errno: Errno| BuildError::Read { path: directory.to_owned(), source: errno.into() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty()).map_err(failed)?;
        let mut context = Self {
            root,
            directory: directory.to_owned(),
            ignored: Gitignore::empty(),
            text: String::new(),
            format: Format::Yaml,
            origin: String::new(),
            own_name: None,
        };
        match agentfile {
            Some(path) => context.take_named(path)?,
            None => context.take_found()?,
        }
        context.ignored = context.read_ignore_file()?;
        Ok(context)
    }

    /// The Agentfile's text, its format and the name that errors give it.
    pub(crate) fn agentfile(&self) -> (&str, Format, &str) {
        (&self.text, self.format, &self.origin)
    }

    /// The path as the user gave it.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn take_found(&mut self) -> Result<(), BuildError> {
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
        let (name, format) = found.ok_or_else(|| BuildError::NoAgentfile {
            directory: self.directory.clone(),
            expected: FILE_NAMES.map(|(name, _)| name).join(", "),
        })?;
        self.text = self.read_text(name, AGENTFILE_MAX_BYTES as u64)?;
        self.origin = self.directory.join(name).display().to_string();
        (self.format, self.own_name) = (format, Some(name.to_owned()));
        Ok(())
    }

    fn take_named(&mut self, path: &Path) -> Result<(), BuildError> {
        let read = |source| BuildError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        self.text = text_of(path, file, AGENTFILE_MAX_BYTES as u64)?;
        self.origin = path.display().to_string();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.format = Format::of_file_name(name);
        let inside = |name: &&str| {
            let (named, own) = (rustix::fs::stat(path), self.stat(name));
            matches!((named, own), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
        };
        self.own_name = Some(name).filter(inside).map(str::to_owned);
        Ok(())
    }

    fn read_ignore_file(&self) -> Result<Gitignore, BuildError> {
        match self.stat(IGNORE_FILE) {
            Ok(_) => ignored::parse(&self.read_text(IGNORE_FILE, IGNORE_MAX)?),
            Err(Errno::NOENT) => Ok(Gitignore::empty()),
            Err(errno) => Err(self.failed(IGNORE_FILE, errno)),
        }
    }

    /// Reads a text file of the directory.
    pub(crate) fn read_text(&self, name: &str, max: u64) -> Result<String, BuildError> {
        let path = self.directory.join(name);
        match self.open_file(name) {
            Ok((file, _)) => text_of(&path, file, max),
            Err(BuildError::Unfit { reason, .. }) => Err(BuildError::Input { path, reason }),
            Err(error) => Err(error),
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

    /// Opens a file for reading, and what it is now.
    pub(crate) fn open_file(&self, path: &str) -> Result<(File, Stamp), BuildError> {
        let fd = self.open_beneath(path, OFlags::RDONLY).map_err(|errno| self.failed(path, errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.failed(path, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((File::from(fd), Stamp::of(&stat))),
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
    pub(crate) fn entry(&self, path: &RelativePath) -> Result<Option<Found>, BuildError> {
        let stat = match self.stat(path.as_str()) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed(path.as_str(), errno)),
        };
        let (above, name) = path.as_str().rsplit_once('/').unwrap_or((".", path.as_str()));
        let parent = self
            .open_beneath(above, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|errno| self.failed(path.as_str(), errno))?;
        let what = walk::describe(&parent, name, path.as_str(), &stat)?;
        Ok(Some(Found { path: path.as_str().into(), what }))
    }

    /// Everything below a directory (`None` is the whole) that is not left out, sorted by the
    /// bytes of the paths, which are relative to the whole.
    pub(crate) fn walk(
        &self,
        below: Option<&RelativePath>,
        threads: NonZeroUsize,
    ) -> Result<Vec<Found>, BuildError> {
        let shown = below.map_or(".", RelativePath::as_str);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let top = self.open_beneath(shown, flags).map_err(|errno| self.failed(shown, errno))?;
        walk::walk(self, top, below.map_or("", RelativePath::as_str), threads)
    }

    /// Whether the walk leaves out an entry.
    fn leaves_out(&self, path: &str, name: &str, is_directory: bool) -> bool {
        name == NEVER
            || (path.len() == name.len() && self.is_own(name))
            || (!self.ignored.is_empty() && self.ignored.matched(path, is_directory).is_ignore())
    }

    /// True for files at the top that describe the package or are its results.
    fn is_own(&self, name: &str) -> bool {
        self.own_name.as_deref() == Some(name)
            || name == IGNORE_FILE
            || name == aos_core::lock::LOCK_FILE_NAME
            || name.rsplit_once('.').is_some_and(|(_, ending)| ending == EXTENSION)
    }

    /// True when `.aosignore` leaves out this entry or a directory above it.
    pub(crate) fn is_ignored(&self, path: &RelativePath, is_directory: bool) -> bool {
        path.segments().any(|segment| segment == NEVER)
            || self.ignored.matched_path_or_any_parents(path.as_str(), is_directory).is_ignore()
    }
}

/// The whole of a bounded text file.
fn text_of(path: &Path, file: File, max: u64) -> Result<String, BuildError> {
    let unfit = |reason: String| BuildError::Input { path: path.to_owned(), reason };
    let read = |source| BuildError::Read { path: path.to_owned(), source };
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(unfit("it is not a file".to_owned()));
    }
    if metadata.len() > max {
        return Err(unfit(format!("{} bytes, at most {max} are allowed", metadata.len())));
    }
    let mut text = String::new();
    match file.take(max).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(unfit("it is not UTF-8".to_owned()))
        }
        Err(source) => Err(read(source)),
    }
}
