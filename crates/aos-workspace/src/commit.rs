//! Making what is below equal to the view, path by path.
//!
//! Each file is made whole in a staging directory of the same file system and renamed to its place; what stood in the
//! way goes to the staging directory. Doing it again from any point comes to the same end, since what is equal is no
//! change any more. Nothing is synchronised file by file: all of it is, before any layer goes away, and until then the
//! layers and the note of the operation are there.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aos_core::workspace::{ChangeKind, Committed, NodeKind};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, chmodat, fchmod, fstat, linkat, mkdirat, mknodat, openat,
    readlinkat, renameat, symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::beneath;
use crate::content;
use crate::error::WorkspaceError;
use crate::selection::Selection;
use crate::trash::{self, Fresh};
use crate::view::{Node, Stack};
use crate::walk::{Found, Next, Visitor, shown, walk};

/// Files with several names that are remembered, so that the names stay one file; further ones become several.
const LINKS_MAX: usize = 100_000;

/// Applies the selected changes to `base`, through its directory `staging`.
pub(crate) fn commit(
    stack: &Stack,
    base: &OwnedFd,
    staging: &str,
    selection: Selection,
) -> Result<Committed, WorkspaceError> {
    let failed = || WorkspaceError::io("use the staging directory", staging);
    match mkdirat(base, staging, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed()(error)),
    }
    let directory = beneath::open_directory(base, Path::new(staging)).map_err(failed())?;
    trash::empty(&directory).map_err(failed())?;
    let mut commit = Commit {
        base,
        staging: &directory,
        fresh: Fresh::default(),
        selection,
        links: HashMap::new(),
        parents: Vec::new(),
        done: Committed::default(),
    };
    let hidden = [CString::new(staging).unwrap_or_default()];
    walk(stack, &hidden, &mut commit);
    let Commit { selection, mut done, .. } = commit;
    done.unchanged = selection.missed();
    trash::empty(&directory).map_err(failed())?;
    unlinkat(base, staging, AtFlags::REMOVEDIR).map_err(failed())?;
    syncfs(base).map_err(WorkspaceError::io("write", "what was committed to the disk"))?;
    Ok(done)
}

/// Takes away the staging directory of a commit that does not go on. What it has put in its place stays.
pub(crate) fn give_up(base: &OwnedFd, staging: &str) -> Result<(), WorkspaceError> {
    let failed = || WorkspaceError::io("remove the staging directory", staging);
    match beneath::open_directory(base, Path::new(staging)) {
        Ok(directory) => trash::empty(&directory).map_err(failed())?,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(failed()(error)),
    }
    unlinkat(base, staging, AtFlags::REMOVEDIR).map_err(failed())
}

struct Commit<'a> {
    base: &'a OwnedFd,
    staging: &'a OwnedFd,
    fresh: Fresh,
    selection: Selection,
    /// Where a file of a layer with several names was put first.
    links: HashMap<(usize, u64), PathBuf>,
    /// New directories on the way to what is selected: made when something in them is.
    parents: Vec<(PathBuf, u32)>,
    done: Committed,
}

impl Visitor for Commit<'_> {
    fn enters(&self, path: &Path) -> bool {
        self.selection.leads_into(path)
    }

    fn change(&mut self, found: &Found<'_>) -> Next {
        let applied =
            if self.selection.take(found.path) { self.apply(found).map(|()| 1) } else { self.pass(found) };
        match applied {
            Ok(count) => self.done.count += count,
            Err(error) => self.skip(found.path, error),
        }
        Next::Continue
    }

    fn skip(&mut self, path: &Path, why: Errno) {
        self.done.skipped.add(&shown(path), &beneath::reason(why));
    }
}

impl Commit<'_> {
    /// A change on the way to what is selected. A directory is needed only if something in it is; where there is none
    /// any more, what is selected in it is gone.
    fn pass(&mut self, found: &Found<'_>) -> Result<u64, Errno> {
        let beneath = self.selection.beneath(found.path);
        let mut count = 0;
        match found.now {
            Node::Directory { stat, .. } if found.kind != ChangeKind::Mode && !beneath.is_empty() => {
                self.parents.push((found.path.to_owned(), beneath::permissions(stat)));
            }
            Node::Directory { .. } => {}
            Node::Leaf { .. } | Node::Absent => {
                for path in beneath {
                    if self.remove(&path)? {
                        self.selection.take(&path);
                        count += 1;
                    }
                }
            }
        }
        Ok(count)
    }

    fn apply(&mut self, found: &Found<'_>) -> Result<(), Errno> {
        self.make_parents(found.path)?;
        let parent = self.parent(found.path)?;
        match found.now {
            Node::Absent => self.displace(&parent, found.name),
            Node::Directory { stat, .. } if found.kind == ChangeKind::Mode => {
                set_mode(&parent, found.name, beneath::permissions(stat))
            }
            Node::Directory { stat, .. } => {
                self.make_directory(&parent, found.name, beneath::permissions(stat))
            }
            // Another name of the same file below keeps its own permissions.
            Node::Leaf { stat, .. }
                if found.kind == ChangeKind::Mode
                    && found.before.stat().is_some_and(|before| before.st_nlink == 1) =>
            {
                set_mode(&parent, found.name, beneath::permissions(stat))
            }
            Node::Leaf { layer, stat } => {
                let source = found.source.ok_or(Errno::NOENT)?;
                let made = self.make(found, source, *layer, stat)?;
                if found.before.kind() == Some(NodeKind::Directory) {
                    self.displace(&parent, found.name)?;
                }
                renameat(self.staging, &made, &parent, found.name)?;
                self.done.bytes = self.done.bytes.saturating_add(beneath::size(stat));
                Ok(())
            }
        }
    }

    fn parent(&self, path: &Path) -> Result<OwnedFd, Errno> {
        beneath::open_directory(self.base, path.parent().unwrap_or(Path::new("")))
    }

    /// Makes the new directories above a path.
    fn make_parents(&mut self, path: &Path) -> Result<(), Errno> {
        let (above, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.parents)
            .into_iter()
            .partition(|(parent, _)| path.starts_with(parent) && path != parent);
        self.parents = others;
        for (directory, mode) in above {
            let name = directory.file_name().map(|name| CString::new(name.as_bytes()));
            let Some(Ok(name)) = name else { return Err(Errno::INVAL) };
            let parent = self.parent(&directory)?;
            self.make_directory(&parent, &name, mode)?;
        }
        Ok(())
    }

    /// Makes a directory in the place of what is no directory.
    fn make_directory(&mut self, parent: &OwnedFd, name: &CStr, mode: u32) -> Result<(), Errno> {
        match beneath::look(parent, name)? {
            Some(stat) if beneath::kind(&stat) == NodeKind::Directory => {}
            Some(_) => {
                self.displace(parent, name)?;
                mkdirat(parent, name, Mode::RWXU)?;
            }
            None => mkdirat(parent, name, Mode::RWXU)?,
        }
        set_mode(parent, name, mode)
    }

    /// Makes a file of a layer again in the staging directory.
    fn make(
        &mut self,
        found: &Found<'_>,
        source: &OwnedFd,
        layer: usize,
        stat: &Stat,
    ) -> Result<CString, Errno> {
        let temporary = self.fresh.free(self.staging)?;
        let is_shared = stat.st_nlink > 1;
        if is_shared && let Some(first) = self.links.get(&(layer, stat.st_ino)) {
            let name = CString::new(first.file_name().unwrap_or_default().as_bytes());
            let directory = self.parent(first)?;
            let flags = AtFlags::empty();
            if linkat(directory, name.unwrap_or_default(), self.staging, &temporary, flags).is_ok() {
                return Ok(temporary);
            }
        }
        match beneath::kind(stat) {
            NodeKind::File => self.copy(source, found.name, &temporary, stat)?,
            NodeKind::Symlink => {
                symlinkat(readlinkat(source, found.name, Vec::new())?, self.staging, &temporary)?;
                utimensat(self.staging, &temporary, &content::times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            kind @ (NodeKind::Fifo | NodeKind::Socket) => {
                let kind = if kind == NodeKind::Fifo { FileType::Fifo } else { FileType::Socket };
                mknodat(self.staging, &temporary, kind, Mode::RUSR | Mode::WUSR, 0)?;
                set_mode(self.staging, &temporary, beneath::permissions(stat))?;
            }
            NodeKind::Device | NodeKind::Directory => return Err(Errno::PERM),
        }
        if is_shared && self.links.len() < LINKS_MAX {
            self.links.insert((layer, stat.st_ino), found.path.to_owned());
        }
        Ok(temporary)
    }

    fn copy(&self, source: &OwnedFd, name: &CStr, to: &CStr, stat: &Stat) -> Result<(), Errno> {
        let from = beneath::open_file(source, name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = std::fs::File::from(openat(self.staging, to, flags, Mode::RUSR | Mode::WUSR)?);
        content::copy(&from, stat, &file, content::Marks::Dropped)?;
        fchmod(&file, Mode::from_raw_mode(beneath::permissions(stat)))
    }

    /// Takes something out of its place, for deletion.
    fn displace(&mut self, parent: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        let to = self.fresh.free(self.staging)?;
        match renameat(parent, name, self.staging, &to) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    /// Removes a path of the base; false when it is not there.
    fn remove(&mut self, path: &Path) -> Result<bool, Errno> {
        let parent = match self.parent(path) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(error) => return Err(error),
        };
        let name = CString::new(path.file_name().unwrap_or_default().as_bytes()).unwrap_or_default();
        let is_there = beneath::look(&parent, &name)?.is_some();
        if is_there {
            self.displace(&parent, &name)?;
        }
        Ok(is_there)
    }
}

/// Sets permissions without following a link: by the open file's own name in `/proc`.
fn set_mode(directory: impl AsFd, name: &CStr, mode: u32) -> Result<(), Errno> {
    let file = openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if beneath::kind(&fstat(&file)?) == NodeKind::Symlink {
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
}
