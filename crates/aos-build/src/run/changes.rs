//! The upper directory of a finished step, as entries that a layer can have.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, chmodat, fchmod, openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;
use thiserror::Error;

use super::scratch::Scratch;
use super::walk::{Found, PERMISSIONS, Walk, WalkError};

/// What a step changed. Its directory is removed when this is dropped.
#[derive(Debug)]
pub struct Changes {
    scratch: Scratch,
    notes: Vec<String>,
}

/// One changed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path, relative to the root; not always UTF-8.
    pub path: PathBuf,
    /// What is there now.
    pub kind: ChangeKind,
    /// Its permissions, `0o1777` at most: never a set-user-id or set-group-id bit. Of no meaning
    /// for symbolic links and whiteouts.
    pub mode: u32,
}

/// What is at a changed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// A directory.
    Directory {
        /// Whether nothing of the lower directories shows in it.
        opaque: bool,
    },
    /// A regular file of its own.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// Another name of a file that came before.
    HardLink {
        /// That file's path, relative to the root.
        to: PathBuf,
    },
    /// A symbolic link.
    Symlink {
        /// Its text.
        to: PathBuf,
    },
    /// Nothing: what the lower directories have there is removed.
    Whiteout,
}

/// Why changes cannot be read.
#[derive(Debug, Error)]
pub enum ChangesError {
    /// The kernel refuses.
    #[error("cannot read {} of the step's changes", .path.display())]
    Io {
        /// The entry, relative to the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory is not as the step left it.
    #[error("{} of the step's changes cannot be in a layer", .0.display())]
    Unexpected(PathBuf),
}

impl Changes {
    pub(super) fn new(scratch: Scratch, notes: Vec<String>) -> Self {
        Self { scratch, notes }
    }

    /// The upper directory: it may be a lower directory of a next step while this value lives.
    pub fn upper(&self) -> PathBuf {
        self.scratch.upper()
    }

    /// What was left out or altered, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Every change: parents before what is in them, names in the order of their bytes.
    pub fn entries(&self) -> Result<Entries, ChangesError> {
        Ok(Entries { walk: Walk::new(&self.upper())?, names: BTreeMap::new(), is_over: false })
    }

    /// Opens a changed regular file for reading.
    pub fn open(&self, path: &Path) -> Result<File, ChangesError> {
        let failed = |error: Errno| ChangesError::Io { path: path.to_owned(), source: error.into() };
        let upper =
            openat(CWD, self.upper(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(failed)?;
        let open = || {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            openat2(&upper, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
        };
        let file = match open() {
            // Its owner may read what the owner gives itself the right to.
            Err(Errno::ACCESS) => {
                let mode = statat(&upper, path, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?.st_mode;
                let mode = Mode::from_raw_mode(mode) & PERMISSIONS;
                chmodat(&upper, path, mode | Mode::RUSR, AtFlags::empty()).map_err(failed)?;
                let file = open().map_err(failed)?;
                fchmod(&file, mode).map_err(failed)?;
                file
            }
            other => other.map_err(failed)?,
        };
        let file = File::from(file);
        let is_file =
            file.metadata().map_err(|source| ChangesError::Io { path: path.to_owned(), source })?.is_file();
        if is_file { Ok(file) } else { Err(ChangesError::Unexpected(path.to_owned())) }
    }
}

/// The changes in order.
#[derive(Debug)]
pub struct Entries {
    walk: Walk,
    /// The first path of every file with several names.
    names: BTreeMap<(u64, u64), PathBuf>,
    is_over: bool,
}

impl Iterator for Entries {
    type Item = Result<Change, ChangesError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let Self { walk, names, .. } = self;
        let change = match walk.step() {
            Ok(None) => None,
            Ok(Some(found)) => Some(change(found, names)),
            Err(error) => Some(Err(error.into())),
        };
        self.is_over = !matches!(change, Some(Ok(_)));
        change
    }
}

fn change(found: Found<'_>, names: &mut BTreeMap<(u64, u64), PathBuf>) -> Result<Change, ChangesError> {
    let stat = &found.stat;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => ChangeKind::Directory { opaque: found.is_opaque },
        FileType::RegularFile => {
            let first =
                (stat.st_nlink > 1).then(|| names.get(&(stat.st_dev, stat.st_ino)).cloned()).flatten();
            if stat.st_nlink > 1 && first.is_none() {
                names.insert((stat.st_dev, stat.st_ino), found.path.clone());
            }
            match first {
                Some(to) => ChangeKind::HardLink { to },
                None => ChangeKind::File { size: u64::try_from(stat.st_size).unwrap_or_default() },
            }
        }
        FileType::Symlink => {
            let to = readlinkat(found.parent, &found.name, Vec::new())
                .map_err(|error| ChangesError::Io { path: found.path.clone(), source: error.into() })?;
            ChangeKind::Symlink { to: OsString::from_vec(to.into_bytes()).into() }
        }
        FileType::CharacterDevice if stat.st_rdev == 0 => ChangeKind::Whiteout,
        _ => return Err(ChangesError::Unexpected(found.path)),
    };
    let mode = (Mode::from_raw_mode(stat.st_mode) & PERMISSIONS).as_raw_mode();
    Ok(Change { path: found.path, kind, mode })
}

impl From<WalkError> for ChangesError {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Io { path, source } => Self::Io { path, source },
            WalkError::TooDeep(path) => Self::Unexpected(path),
        }
    }
}
