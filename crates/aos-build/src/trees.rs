//! Unpacked layers, for steps that run and for copies from stages and packages.
//!
//! `trees/<hex>/tree`: a tree is made in a temporary directory, which is renamed: one that is there
//! is whole. The directory above it is closed to everybody but its owner, since layers have files
//! that everybody may write, and what is changed here is in later builds. A tree belongs to who
//! builds; one that is lent to steps that run, to the account that they run as.

use crate::cache::{Cache, Layer, touch};
use crate::error::BuildError;
use crate::key::Key;
use crate::run::Account;
use crate::tree::{Entry, Item, Listing, Node, Tree};
use aos_core::id::Digest;
use aos_package::repository::Repository;
use aos_package::unpack::{Layer as Packed, Modes, Options as Unpacking, unpack};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags};
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How overlayfs marks a directory that hides those below it, with `userxattr`
/// (Documentation/filesystems/overlayfs.rst).
const OPAQUE: &str = "user.overlay.opaque";

/// Makes trees.
pub(crate) struct Trees<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) repository: &'a Repository,
    pub(crate) now: SystemTime,
}

impl Trees<'_> {
    /// A tree of what layers together make, lowest first.
    pub(crate) fn whole(&self, layers: &[Layer]) -> Result<PathBuf, BuildError> {
        let key = Key::of("tree")
            .list(layers, |key, layer| key.digest(&layer.blob.digest).digest(&layer.diff_id))
            .finish();
        self.make(&key, layers, &Listing::new())
    }

    /// A tree of one layer, with overlayfs's marks for what it hides.
    pub(crate) fn overlay(&self, layer: &Layer, listing: &Listing) -> Result<PathBuf, BuildError> {
        let key = Key::of("overlay").digest(&layer.blob.digest).digest(&layer.diff_id).finish();
        self.make(&key, std::slice::from_ref(layer), listing)
    }

    /// Makes a tree fit for being a lower directory: all in it belongs to the account that steps run
    /// as, since overlayfs changes nothing of it on their behalf.
    pub(crate) fn lend(&self, tree: &Path) -> Result<(), BuildError> {
        let account = Account::of_process();
        let lent = |place: &Path| {
            // The top is given last: when it has its owner, all has.
            if account.is_other() && rustix::fs::lstat(place)?.st_uid != account.uid {
                give(place, account)?;
            }
            Ok(())
        };
        lent(tree.parent().unwrap_or(tree))
            .map_err(|source| BuildError::Cache { directory: self.cache.trees(), source })
    }

    fn make(&self, key: &Digest, layers: &[Layer], marks: &Listing) -> Result<PathBuf, BuildError> {
        let place = self.cache.trees().join(key.hex());
        let path = place.join("tree");
        let failed = |source| BuildError::Cache { directory: self.cache.trees(), source };
        if path.exists() {
            // The time of use is for pruning only.
            drop(touch(&place, self.now));
            return Ok(path);
        }
        let temporary = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(self.cache.trees())
            .map_err(failed)?;
        let root = temporary.path().join("tree");
        std::fs::create_dir(&root).map_err(failed)?;
        self.unpack(layers, &root)?;
        mark(&root, marks).map_err(|errno| failed(errno.into()))?;
        match std::fs::rename(temporary.path(), &place) {
            // It has another name now, and nothing to remove under this one.
            Ok(()) => drop(temporary.keep()),
            // Another build was as fast.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                temporary.close().map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(path)
    }

    fn unpack(&self, layers: &[Layer], root: &Path) -> Result<(), BuildError> {
        let opens: Vec<_> = layers
            .iter()
            .map(|layer| move || self.repository.open_blob(&layer.blob.digest).map_err(io::Error::other))
            .collect();
        let packed: Vec<Packed<'_>> = layers
            .iter()
            .zip(&opens)
            .map(|(layer, open)| Packed { descriptor: &layer.blob, diff_id: layer.diff_id, open })
            .collect();
        unpack(&packed, root, Unpacking { modes: Modes::Kept })?;
        Ok(())
    }
}

/// Marks what a layer hides.
fn mark(root: &Path, listing: &Listing) -> rustix::io::Result<()> {
    for (path, item) in listing {
        match item {
            Item::Whiteout => {
                let path = root.join(&**path);
                match rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0) {
                    // Something of the layer is there instead, which hides as well.
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
            Item::Opaque => {
                let path = root.join(&**path);
                rustix::fs::lsetxattr(&path, OPAQUE, b"y", XattrFlags::empty())?;
            }
            Item::Entry(_) | Item::HardLink(_) => {}
        }
    }
    Ok(())
}

/// Gives a tree to the account, its top last. Nobody else writes to the tree, so paths lead where
/// they say.
fn give(root: &Path, account: Account) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let chown = |path: &Path| rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        if std::fs::symlink_metadata(&path)?.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
        if path != root {
            chown(&path)?;
        }
    }
    Ok(chown(root)?)
}

/// The contents of an unpacked tree by their digests.
pub(crate) struct Stored {
    root: OwnedFd,
    directory: PathBuf,
    paths: BTreeMap<Digest, Box<str>>,
}

impl Stored {
    /// The files of `tree`, unpacked in `directory`.
    pub(crate) fn new(directory: PathBuf, tree: &Tree) -> Result<Self, BuildError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&directory, flags, Mode::empty())
            .map_err(|errno| BuildError::Read { path: directory.clone(), source: errno.into() })?;
        let file = |(path, entry): (&str, &Entry)| match entry.node {
            Node::File { digest, .. } => Some((digest, Box::from(path))),
            _ => None,
        };
        let paths = tree.iter().filter_map(file).collect();
        Ok(Self { root, directory, paths })
    }

    /// Opens the contents of a digest.
    pub(crate) fn open(&self, digest: &Digest) -> Result<File, BuildError> {
        let path = self.paths.get(digest).ok_or(BuildError::Internal("a file of a stage has no path"))?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, &**path, flags, Mode::empty(), resolve)
            .map(File::from)
            .map_err(|errno| BuildError::Read { path: self.directory.join(&**path), source: errno.into() })
    }
}
