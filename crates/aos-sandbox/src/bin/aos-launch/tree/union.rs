//! Read-only unions of the host's directories.
//!
//! A union is what costs most when a tree is made and again when it is torn down. The directories
//! that an agent sees where the host has them, on top of the root's own memory, therefore come from
//! one union for each top directory, such as `/etc`, of which only these directories are mounted
//! inside: nothing else of it can be reached, as with any bind mount. The union itself is mounted in the
//! root's own memory meanwhile, never on anything of the host: that could be the source of a grant.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use aos_core::path::AbsolutePath;
use aos_sandbox::launch::mounts::{copy, union};
use aos_sandbox::plan::{Node, TreeEntry};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, mkdirat, openat2, statx, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::SCAFFOLD;
use super::mounts::{attach, place};
use super::places::relative;

/// The unions of top directories, and what they are made from.
pub(super) struct Shared<'a> {
    root: &'a OwnedFd,
    host: &'a OwnedFd,
    /// By the top directory's name; `None` where the kernel refuses one.
    made: BTreeMap<&'a str, Option<OwnedFd>>,
}

impl<'a> Shared<'a> {
    /// Nothing yet: a union of a directory of `root`, which is mounted, and the same of `host` is made
    /// when it is needed.
    pub(super) const fn new(root: &'a OwnedFd, host: &'a OwnedFd) -> Self {
        Self { root, host, made: BTreeMap::new() }
    }

    /// The mount of directories of the host on top of the root's own, detached.
    pub(super) fn directory(&mut self, entry: &'a TreeEntry, lower: &[OwnedFd]) -> Result<OwnedFd, Errno> {
        let path = relative(&entry.path);
        if let (Some(source), [directory], Some((top, below))) = (alone(entry), lower, path.split_once('/'))
            && *source == entry.path
        {
            if !self.made.contains_key(top) {
                let made = self.make(top, directory)?;
                self.made.insert(top, made);
            }
            if let Some(Some(made)) = self.made.get(top) {
                return copy(within(made, below)?);
            }
        }
        let own = place(self.root, path)?;
        union([&own].into_iter().chain(lower))
    }

    /// Makes the union of a top directory and mounts it at a place of its own in the root: a mount has to
    /// be in the namespace to be bound. `None` if a package has that name, if the top directory is a mount
    /// of its own, or if something of the host is mounted below it, as where `directory` is: the kernel does
    /// not let an unprivileged user see what is behind that, and neither would the union show what is on it.
    fn make(&self, top: &str, directory: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
        let (own, host) = match (within(self.root, top), within(self.host, top)) {
            (Err(Errno::XDEV), _) | (_, Err(Errno::XDEV)) => return Ok(None),
            (own, host) => (own?, host?),
        };
        if mount_of(&host)? != mount_of(directory)? {
            return Ok(None);
        }
        let made = match union([&own, &host].into_iter()) {
            Err(Errno::INVAL) => return Ok(None),
            made => made?,
        };
        let place = stage(top);
        match mkdirat(self.root, &place, Mode::RWXU) {
            Err(Errno::EXIST) => return Ok(None),
            result => result?,
        }
        attach(self.root, &place, &made)?;
        Ok(Some(made))
    }

    /// Takes the unions and their places away. What was copied of them stays.
    pub(super) fn detach(self) -> Result<(), Errno> {
        for (top, made) in self.made {
            if made.is_some() {
                let place = stage(top);
                // The root is on the scaffold, and nobody else has changed it.
                unmount(format!("{SCAFFOLD}/{place}"), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
                unlinkat(self.root, &place, AtFlags::REMOVEDIR)?;
            }
        }
        Ok(())
    }
}

/// The place of a top directory's union in the root, until it is detached.
fn stage(top: &str) -> String {
    format!(".union.{top}")
}

/// The one directory of the host under a directory of the root's own.
fn alone(entry: &TreeEntry) -> Option<&AbsolutePath> {
    match &entry.node {
        Node::Overlay { lower, on_own: true, .. } => lower.first().filter(|_| lower.len() == 1),
        _ => None,
    }
}

/// The number of the mount that a file is in.
fn mount_of(file: &OwnedFd) -> Result<u64, Errno> {
    Ok(statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// A directory of a mount, found without following a link or leaving the mount.
fn within(mount: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    openat2(
        mount,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}
