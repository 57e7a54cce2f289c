//! The limit of an agent's directories on the disk: a project quota of the file system that they are on.
//!
//! The project's number is the agent's uid. A directory that counts for it passes that on to all that is made in it, so
//! that only what was there before has to be visited, once. The directory itself is marked last: when it is marked, so
//! is everything in it. An agent cannot change a mark, since that is refused in every user namespace but the first.
//!
//! What is in the directories was made by an agent: the same rules as in the whole crate hold for how it is looked at.
//! Symbolic links, pipes, sockets and whiteouts that were there before cannot be marked and are not counted; those
//! that are made later are.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aos_core::workspace::NodeKind;
use aos_sandbox::disk::{self, DiskError};
use aos_sandbox::plan::DiskLimit;
use aos_sys::quota::{self, Limits, Project};
use rustix::io::Errno;
use thiserror::Error;

use crate::beneath;
use crate::walk::shown;

/// Bytes of the paths of directories that wait to be visited.
const WAITING_MAX_BYTES: usize = 256 << 20;

/// Why a limit was not set.
#[derive(Debug, Error)]
pub enum QuotaError {
    /// The file system cannot.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A system call failed.
    #[error("cannot {what} {name}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what, escaped.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl QuotaError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let name = shown(path);
        move |source| Self::Io { what, name, source }
    }
}

/// A directory of an agent, held open.
#[derive(Debug)]
pub struct Limited {
    directory: File,
    path: PathBuf,
    project: u32,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files and directories that count for the project since now.
    pub marked: u64,
    /// Bytes that the project uses.
    pub used_bytes: u64,
    /// Inodes that it uses.
    pub used_inodes: u64,
}

impl Limited {
    /// Opens a directory that is to count for a project.
    pub fn open(path: &Path, project: u32) -> Result<Self, QuotaError> {
        let directory =
            beneath::open_root(path).map_err(Errno::into).map_err(QuotaError::io("open", path))?;
        Ok(Self { directory: directory.into(), path: path.to_owned(), project })
    }

    /// Puts a limit in force, or takes away the one that there is.
    pub fn limit(&self, limit: Option<DiskLimit>) -> Result<Done, QuotaError> {
        match (self.refusal(), limit) {
            (Some(error), Some(_)) => return Err(error.into()),
            // Where there can be no limit, there is none to take away.
            (Some(_), None) => return Ok(Done::default()),
            (None, _) => {}
        }
        let mut marked = 0;
        if !self.is_marked()? {
            // Half of what is here may already count, and be too much for a limit that is still set.
            self.set(Limits::default())?;
            marked = self.mark_all()?;
        }
        self.set(
            limit.map_or(Limits::default(), |limit| Limits { bytes: limit.bytes, inodes: limit.inodes }),
        )?;
        let (_, used) = quota::usage(&self.directory, self.project)
            .map_err(QuotaError::io("read the quota of", &self.path))?;
        Ok(Done { marked, used_bytes: used.bytes, used_inodes: used.inodes })
    }

    /// Why the file system cannot keep to a limit.
    fn refusal(&self) -> Option<DiskError> {
        match quota::state(&self.directory) {
            Ok(state) if state.is_counted && state.is_enforced => None,
            // One that has quotas and has them off says the same as one that has none.
            Err(error) if error.raw_os_error() != Some(Errno::NOSYS.raw_os_error()) => {
                Some(DiskError::Io { path: self.path.clone(), source: error })
            }
            _ => Some(disk::lacking(&self.directory, &self.path)),
        }
    }

    fn set(&self, limits: Limits) -> Result<(), QuotaError> {
        quota::set_limits(&self.directory, self.project, limits)
            .map_err(QuotaError::io("set the quota of", &self.path))
    }

    const fn own(&self, is_inherited: bool) -> Project {
        Project { id: self.project, is_inherited }
    }

    fn is_marked(&self) -> Result<bool, QuotaError> {
        let project = quota::project(&self.directory).map_err(QuotaError::io("look at", &self.path))?;
        Ok(project == self.own(true))
    }

    /// Marks all beneath, and then the directory itself.
    fn mark_all(&self) -> Result<u64, QuotaError> {
        let mut marked = 0;
        let (mut waiting, mut waiting_bytes) = (vec![PathBuf::new()], 0_usize);
        while let Some(path) = waiting.pop() {
            waiting_bytes = waiting_bytes.saturating_sub(path.as_os_str().len());
            let below = self.mark_in(&path, &mut marked)?;
            waiting_bytes += below.iter().map(|path| path.as_os_str().len()).sum::<usize>();
            if waiting_bytes > WAITING_MAX_BYTES {
                return Err(QuotaError::io("visit all directories of", &self.path)(Errno::TOOBIG.into()));
            }
            waiting.extend(below);
        }
        marked += self.mark(&self.directory, true).map_err(QuotaError::io("mark", &self.path))?;
        Ok(marked)
    }

    /// Marks what is in a directory; the directories in it are to be visited.
    fn mark_in(&self, path: &Path, marked: &mut u64) -> Result<Vec<PathBuf>, QuotaError> {
        let whole = self.path.join(path);
        let failed = |error: Errno| QuotaError::io("visit", &whole)(error.into());
        let directory = beneath::open_directory(&self.directory, path).map_err(failed)?;
        let mut below = Vec::new();
        for name in beneath::names(&directory).map_err(failed)?.iter() {
            let inner = path.join(beneath::part(name));
            let failed = |error: io::Error| QuotaError::io("mark", &self.path.join(&inner))(error);
            let Some(stat) = beneath::look(&directory, name).map_err(|error| failed(error.into()))? else {
                continue;
            };
            match beneath::kind(&stat) {
                NodeKind::Directory => {
                    let opened = match beneath::open_directory(&directory, beneath::part(name)) {
                        // Something else is mounted there, whose space is not this file system's.
                        Err(Errno::XDEV) => continue,
                        opened => opened.map_err(|error| failed(error.into()))?,
                    };
                    *marked += self.mark(opened, true).map_err(failed)?;
                    below.push(inner);
                }
                NodeKind::File => {
                    let file: File =
                        beneath::open_file(&directory, name).map_err(|error| failed(error.into()))?;
                    *marked += self.mark(file, false).map_err(failed)?;
                }
                _ => {}
            }
        }
        Ok(below)
    }

    /// Lets one count for the project; 1 if it did not.
    fn mark(&self, file: impl AsFd, is_inherited: bool) -> io::Result<u64> {
        let own = self.own(is_inherited);
        if quota::project(&file)? == own {
            return Ok(0);
        }
        quota::set_project(file, own).map(|()| 1)
    }
}
