//! A walk over what the transaction changes: the union with its own layers beside the union without them.
//!
//! Only directories that a layer of the transaction has are entered, so the cost is that of the changes and not of
//! the workspace. A directory is opened anew by its path when its turn comes: descriptors do not add up with depth.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aos_core::workspace::{ChangeKind, NodeKind};
use rustix::fs::readlinkat;
use rustix::io::Errno;

use crate::beneath::{self, Names};
use crate::content;
use crate::view::{Merged, Node, Stack};

/// The kernel's `PATH_MAX`, without the closing NUL.
const PATH_BYTES_MAX: usize = 4095;

/// Bytes of the paths of directories that wait: an agent can have a great many, each with a long path. One more is
/// passed over.
const WAITING_MAX_BYTES: usize = 256 << 20;

/// One changed path.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) path: &'a Path,
    pub(crate) name: &'a CStr,
    pub(crate) kind: ChangeKind,
    pub(crate) now: &'a Node,
    pub(crate) before: &'a Node,
    /// The directory that holds what is there now.
    pub(crate) source: Option<&'a OwnedFd>,
    /// The directory that holds what was there.
    pub(crate) old_source: Option<&'a OwnedFd>,
}

/// What to do after one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Go on.
    Continue,
    /// Look at nothing more.
    Stop,
}

/// Who is told of changes.
pub(crate) trait Visitor {
    /// Whether to look at all beneath a directory.
    fn enters(&self, path: &Path) -> bool;
    /// A change. Parents come before what is in them.
    fn change(&mut self, found: &Found<'_>) -> Next;
    /// What could not be looked at.
    fn skip(&mut self, path: &Path, why: Errno);
}

/// A directory whose turn comes.
struct Waiting {
    path: PathBuf,
    now: Vec<usize>,
    /// Empty when there was no directory.
    before: Vec<usize>,
}

impl Waiting {
    /// What it costs to remember it, about.
    fn bytes(&self) -> usize {
        let numbers = self.now.len() + self.before.len();
        size_of::<Self>() + self.path.as_os_str().len() + numbers * size_of::<usize>()
    }
}

/// Goes over all changes, except those under names of the root that are `hidden`.
pub(crate) fn walk(stack: &Stack, hidden: &[CString], visitor: &mut impl Visitor) {
    let mut waiting = vec![Waiting { path: PathBuf::new(), now: stack.all(), before: stack.below() }];
    let mut waiting_bytes = 0_usize;
    while let Some(directory) = waiting.pop() {
        waiting_bytes = waiting_bytes.saturating_sub(directory.bytes());
        let is_root = directory.path.as_os_str().is_empty();
        match enter(stack, &directory) {
            Err(error) => visitor.skip(&directory.path, error),
            Ok((now, before, names)) => {
                // The last is entered first.
                for name in names.iter().rev() {
                    if is_root && hidden.iter().any(|one| one.as_c_str() == name) {
                        continue;
                    }
                    let path = directory.path.join(beneath::part(name));
                    if path.as_os_str().len() > PATH_BYTES_MAX {
                        visitor.skip(&path, Errno::NAMETOOLONG);
                        continue;
                    }
                    match one(stack, &now, &before, name, &path, visitor) {
                        Err(error) => visitor.skip(&path, error),
                        Ok((Next::Stop, _)) => return,
                        Ok((Next::Continue, Some(next)))
                            if waiting_bytes + next.bytes() > WAITING_MAX_BYTES =>
                        {
                            visitor.skip(&path, Errno::TOOBIG);
                        }
                        Ok((Next::Continue, next)) => {
                            waiting_bytes += next.as_ref().map_or(0, Waiting::bytes);
                            waiting.extend(next);
                        }
                    }
                }
            }
        }
    }
}

/// Opens a directory of both unions, with the names that may differ.
fn enter(stack: &Stack, directory: &Waiting) -> Result<(Merged, Merged, Names), Errno> {
    let now = stack.open(&directory.path, &directory.now)?;
    let before = stack.open(&directory.path, &directory.before)?;
    let mut names = Names::default();
    // What shows through from below is the same, unless there was nothing before.
    now.collect(|layer| stack.is_own(layer) || !before.has(layer), &mut names)?;
    if before.layers().any(|layer| !now.has(layer)) {
        before.collect(|_| true, &mut names)?;
    }
    Ok((now, before, names))
}

fn one(
    stack: &Stack,
    now: &Merged,
    before: &Merged,
    name: &CStr,
    path: &Path,
    visitor: &mut impl Visitor,
) -> Result<(Next, Option<Waiting>), Errno> {
    let (is, was) = (now.resolve(name)?, before.resolve(name)?);
    let source = holder(now, &is);
    let old_source = holder(before, &was);
    if let Some(kind) = compare(stack, name, &is, &was, source.zip(old_source))? {
        let found = Found { path, name, kind, now: &is, before: &was, source, old_source };
        if visitor.change(&found) == Next::Stop {
            return Ok((Next::Stop, None));
        }
    }
    let below = |was: Node| match was {
        Node::Directory { layers, .. } => layers,
        _ => Vec::new(),
    };
    let next = match is {
        Node::Directory { layers, .. }
            if visitor.enters(path)
                && (!matches!(was, Node::Directory { .. })
                    || layers.iter().any(|layer| stack.is_own(*layer))) =>
        {
            Some(Waiting { path: path.to_owned(), now: layers, before: below(was) })
        }
        _ => None,
    };
    Ok((Next::Continue, next))
}

/// The directory of the layer that has the topmost entry.
fn holder<'a>(merged: &'a Merged, node: &Node) -> Option<&'a OwnedFd> {
    match node {
        Node::Absent => None,
        Node::Leaf { layer, .. } => merged.part(*layer),
        Node::Directory { layers, .. } => layers.first().and_then(|layer| merged.part(*layer)),
    }
}

/// What differs; the content of files is read only where nothing else does.
fn compare(
    stack: &Stack,
    name: &CStr,
    is: &Node,
    was: &Node,
    sources: Option<(&OwnedFd, &OwnedFd)>,
) -> Result<Option<ChangeKind>, Errno> {
    let (Some(new), Some(old)) = (is.stat(), was.stat()) else {
        return Ok(match (is, was) {
            (Node::Absent, Node::Absent) => None,
            (Node::Absent, _) => Some(ChangeKind::Deleted),
            _ => Some(ChangeKind::Added),
        });
    };
    if beneath::kind(new) != beneath::kind(old) {
        return Ok(Some(ChangeKind::Replaced));
    }
    if matches!(is, Node::Leaf { layer, .. } if !stack.is_own(*layer)) {
        return Ok(None);
    }
    let is_same = match (beneath::kind(new), sources) {
        (NodeKind::File, Some((now, before))) => {
            // A copy has the time of what it was made from.
            let is_copy =
                stack.resumes() && (new.st_mtime, new.st_mtime_nsec) == (old.st_mtime, old.st_mtime_nsec);
            let large = if is_copy { content::Large::Same } else { content::Large::Differs };
            new.st_size == old.st_size
                && content::is_same(
                    &beneath::open_file(now, name)?,
                    &beneath::open_file(before, name)?,
                    large,
                )?
        }
        (NodeKind::Symlink, Some((now, before))) => {
            let text = |directory: &OwnedFd| readlinkat(directory, name, Vec::new());
            return Ok((text(now)?.as_bytes() != text(before)?.as_bytes()).then_some(ChangeKind::Modified));
        }
        _ => true,
    };
    if !is_same {
        return Ok(Some(ChangeKind::Modified));
    }
    Ok((beneath::permissions(new) != beneath::permissions(old)).then_some(ChangeKind::Mode))
}

/// A path as it is in an answer.
pub(crate) fn shown(path: &Path) -> String {
    aos_core::workspace::escaped(path.as_os_str().as_bytes())
}
