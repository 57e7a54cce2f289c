//! What happens to an upper directory when its step has ended, before anybody sees it: set-user-id
//! and set-group-id bits are taken off, sockets and pipes removed, devices refused. The owner's
//! copy on disk is then harmless outside the sandbox too.

use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, chmodat, unlinkat};

use super::error::{Doing, RunError};
use super::walk::{Found, PERMISSIONS, Walk, WalkError};

/// Entries that one step may change: as many as a layer may have.
const ENTRIES_MAX: u64 = 1_000_000;
/// Things that are told one by one; the rest is counted.
const NOTES_MAX: usize = 20;

/// What settling did, for a person.
#[derive(Debug, Default)]
pub(super) struct Notes {
    lines: Vec<String>,
    more: u64,
}

impl Notes {
    fn add(&mut self, line: impl FnOnce() -> String) {
        if self.lines.len() < NOTES_MAX {
            self.lines.push(line());
        } else {
            self.more += 1;
        }
    }

    /// The lines.
    pub(super) fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("and {} more", self.more));
        }
        self.lines
    }
}

/// Settles the directory.
pub(super) fn settle(upper: &Path) -> Result<Notes, RunError> {
    let mut notes = Notes::default();
    let mut walk = Walk::new(upper).map_err(failed)?;
    let mut count = 0_u64;
    while let Some(found) = walk.step().map_err(failed)? {
        count += 1;
        if count > ENTRIES_MAX {
            return Err(RunError::NotPackable {
                what: "over 1000000 changes, one of them",
                path: found.path,
            });
        }
        settle_one(&found, &mut notes)?;
    }
    Ok(notes)
}

fn settle_one(found: &Found<'_>, notes: &mut Notes) -> Result<(), RunError> {
    let what = || format!("settle {}", found.path.display());
    match FileType::from_raw_mode(found.stat.st_mode) {
        FileType::RegularFile | FileType::Directory => {
            let mode = Mode::from_raw_mode(found.stat.st_mode);
            if mode != mode & PERMISSIONS {
                notes.add(|| format!("{}: set-user-id or set-group-id bit taken off", found.path.display()));
                chmodat(found.parent, &found.name, mode & PERMISSIONS, AtFlags::empty()).doing(what)?;
            }
            Ok(())
        }
        FileType::Symlink => Ok(()),
        FileType::Socket | FileType::Fifo => {
            notes.add(|| format!("{}: a socket or pipe, left out", found.path.display()));
            unlinkat(found.parent, &found.name, AtFlags::empty()).doing(what)
        }
        FileType::CharacterDevice if found.stat.st_rdev == 0 => Ok(()),
        _ => Err(RunError::NotPackable { what: "a device", path: found.path.clone() }),
    }
}

fn failed(error: WalkError) -> RunError {
    match error {
        WalkError::Io { path, source } => {
            RunError::Io { what: format!("read {} of the step's changes", path.display()), source }
        }
        WalkError::TooDeep(path) => RunError::NotPackable { what: "a path too deep or too long", path },
    }
}
