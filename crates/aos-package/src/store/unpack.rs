//! Unpacks layers into one directory tree.
//!
//! Every operation goes through the descriptor of the parent directory, which is opened beneath
//! the tree's root without following a single symbolic link: no entry can reach outside, whatever
//! earlier entries made. The tree's directory must be private to this process while it is filled.
//!
//! Owners, special permission bits and extended attributes of the layers are not taken over: all
//! belongs to the store's user, files are 0644 or 0755, directories 0755. Agents run as other
//! users and can read, not write.

use crate::layer::{LayerError, Whiteout, entries, examine, whiteout};
use crate::oci::Descriptor;
use crate::store::files::in_directory;
use crate::tarball::{Entry, Kind, TarReader};
use aos_core::id::Digest;
use aos_core::path::RelativePath;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Copied at once from layers to files.
const BUFFER: usize = 128 << 10;

/// Why layers cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// A layer is refused.
    #[error("the layer {digest} is refused")]
    Layer {
        /// The layer.
        digest: Digest,
        /// Why.
        source: LayerError,
    },
    /// An entry cannot be made.
    #[error("cannot unpack `{path}`")]
    Entry {
        /// The entry.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The way to an entry has a symbolic link.
    #[error("cannot unpack `{0}`: a symbolic link or a file is on the way to it")]
    Way(String),
    /// A hard link does not lead to a file of the package.
    #[error("the hard link `{path}` leads to `{target}`, which is not a file of the package")]
    HardLink {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
    },
}

/// One layer to be unpacked.
pub(super) struct Layer<'a> {
    pub(super) descriptor: &'a Descriptor,
    pub(super) diff_id: Digest,
    /// Opens the blob at its start; a layer is read twice.
    pub(super) open: &'a dyn Fn() -> io::Result<File>,
}

/// Unpacks layers, lowest first, into the empty directory `root`. All layers are examined before
/// the first is unpacked.
pub(super) fn unpack(layers: &[Layer<'_>], root: &Path) -> Result<(), UnpackError> {
    let mut budget = crate::layer::Budget::of_package();
    let mut whiteouts = Vec::new();
    for layer in layers {
        let refused = |source| UnpackError::Layer { digest: layer.descriptor.digest, source };
        let blob = (layer.open)().map_err(|error| refused(error.into()))?;
        whiteouts.push(examine(blob, layer.descriptor, layer.diff_id, &mut budget).map_err(refused)?);
    }
    let mut tree = Tree::open(root)?;
    for (layer, whiteouts) in layers.iter().zip(whiteouts) {
        // A layer's whiteouts hide what is below it, and nothing of itself: so they come first.
        whiteouts.iter().try_for_each(|whiteout| tree.hide(whiteout))?;
        let refused = |source| UnpackError::Layer { digest: layer.descriptor.digest, source };
        let blob = (layer.open)().map_err(|error| refused(error.into()))?;
        let mut tar = entries(blob, layer.descriptor).map_err(refused)?;
        while let Some(entry) = tar.next_entry().map_err(|error| refused(error.into()))? {
            if whiteout(&entry).map_err(refused)?.is_none() {
                tree.make(&entry, &mut tar)?;
            }
        }
    }
    Ok(())
}

/// The tree that is filled.
struct Tree {
    root: OwnedFd,
    path: PathBuf,
    /// The directory of the last entry: neighbours follow each other.
    last: Option<(String, OwnedFd)>,
    buffer: Vec<u8>,
}

/// The directory above an entry, and its name there.
fn split(path: &RelativePath) -> (&str, &str) {
    path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()))
}

fn entry_error(path: &RelativePath) -> impl Fn(Errno) -> UnpackError + '_ {
    |errno| match errno {
        // What openat2 and the others answer when a segment is a link or a file.
        Errno::LOOP | Errno::NOTDIR => UnpackError::Way(path.to_string()),
        errno => UnpackError::Entry { path: path.to_string(), source: errno.into() },
    }
}

impl Tree {
    fn open(root: &Path) -> Result<Self, UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|errno| UnpackError::Entry { path: root.display().to_string(), source: errno.into() })?;
        Ok(Self { root: fd, path: root.to_owned(), last: None, buffer: vec![0; BUFFER] })
    }

    fn open_directory(&self, path: &str) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { "." } else { path };
        in_directory(&self.root, path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens a directory and makes those on the way that do not exist.
    fn make_directory(&self, path: &str) -> Result<OwnedFd, Errno> {
        match self.open_directory(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let mut above = self.open_directory("")?;
        let mut start = 0;
        for end in ends {
            let name = path.get(start..end).unwrap_or_default();
            match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => rustix::fs::chmodat(&above, name, Mode::from_raw_mode(0o755), AtFlags::empty())?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            above = in_directory(&above, name, OFlags::PATH | OFlags::DIRECTORY)?;
            start = end + 1;
        }
        Ok(above)
    }

    /// The directory above an entry, made if need be.
    fn parent(&mut self, path: &RelativePath) -> Result<OwnedFd, UnpackError> {
        let (above, _) = split(path);
        let failed = entry_error(path);
        let fd = match self.last.take() {
            Some((last, fd)) if last == above => fd,
            _ => self.make_directory(above).map_err(&failed)?,
        };
        let copy = rustix::io::fcntl_dupfd_cloexec(&fd, 0).map_err(failed)?;
        self.last = Some((above.to_owned(), fd));
        Ok(copy)
    }

    /// Removes an entry of the tree, whatever it is. Its parent has no links on the way.
    fn remove(&mut self, parent: &OwnedFd, path: &RelativePath) -> Result<(), UnpackError> {
        let (_, name) = split(path);
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {
                self.last = None;
                let path_error = |source| UnpackError::Entry { path: path.to_string(), source };
                std::fs::remove_dir_all(self.path.join(path.as_str())).map_err(path_error)
            }
            Err(errno) => Err(entry_error(path)(errno)),
        }
    }

    /// Applies a whiteout to what is there. What it names may be absent.
    fn hide(&mut self, whiteout: &Whiteout) -> Result<(), UnpackError> {
        let directory = match whiteout {
            Whiteout::Path(path) => {
                return match self.open_directory(split(path).0) {
                    Ok(parent) => self.remove(&parent, path),
                    Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(entry_error(path)(errno)),
                };
            }
            Whiteout::Contents(directory) => directory,
        };
        let shown = directory.as_ref().map_or("", RelativePath::as_str);
        let failed = |source| UnpackError::Entry { path: shown.to_owned(), source };
        match self.open_directory(shown) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(UnpackError::Way(shown.to_owned())),
            Err(errno) => return Err(failed(errno.into())),
        }
        self.last = None;
        for entry in std::fs::read_dir(self.path.join(shown)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_directory = entry.file_type().map_err(failed)?.is_dir();
            let path = entry.path();
            if is_directory { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                .map_err(failed)?;
        }
        Ok(())
    }

    fn make<R: Read>(&mut self, entry: &Entry, contents: &mut TarReader<R>) -> Result<(), UnpackError> {
        let path = &entry.path;
        let (_, name) = split(path);
        let parent = self.parent(path)?;
        if entry.kind == Kind::Directory && is_directory(&parent, name) {
            return Ok(());
        }
        let link_source = match &entry.kind {
            Kind::HardLink(target) if target == path => return Err(hard_link(path, target)),
            Kind::HardLink(target) => Some(self.link_source(path, target)?),
            _ => None,
        };
        self.remove(&parent, path)?;
        let failed = entry_error(path);
        match &entry.kind {
            Kind::Directory => self.make_directory(path.as_str()).map(drop).map_err(failed),
            Kind::Symlink(target) => rustix::fs::symlinkat(target, &parent, name).map_err(failed),
            Kind::HardLink(target) => {
                let (directory, source) = link_source.ok_or_else(|| hard_link(path, target))?;
                rustix::fs::linkat(&directory, source, &parent, name, AtFlags::empty()).map_err(failed)
            }
            Kind::File => self.make_file(&parent, entry, contents),
        }
    }

    /// The directory and name of the file that a hard link leads to.
    fn link_source<'t>(
        &self,
        path: &RelativePath,
        target: &'t RelativePath,
    ) -> Result<(OwnedFd, &'t str), UnpackError> {
        let (above, name) = split(target);
        let directory = self.open_directory(above).map_err(|_| hard_link(path, target))?;
        match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok((directory, name))
            }
            _ => Err(hard_link(path, target)),
        }
    }

    fn make_file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        entry: &Entry,
        contents: &mut TarReader<R>,
    ) -> Result<(), UnpackError> {
        let path = &entry.path;
        let (_, name) = split(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(entry_error(path))?;
        let mut file = File::from(fd);
        let failed = |source| UnpackError::Entry { path: path.to_string(), source };
        loop {
            let count = contents.read(&mut self.buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            file.write_all(self.buffer.get(..count).unwrap_or_default()).map_err(failed)?;
        }
        let mode = if entry.mode & 0o111 == 0 { 0o644 } else { 0o755 };
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(entry_error(path))?;
        // Interpreters compare a source's time with that of its compiled form.
        let time = Timespec { tv_sec: i64::try_from(entry.mtime).unwrap_or(0), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&file, &times).map_err(entry_error(path))
    }
}

fn hard_link(path: &RelativePath, target: &RelativePath) -> UnpackError {
    UnpackError::HardLink { path: path.to_string(), target: target.to_string() }
}

fn is_directory(parent: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// True when `path` leads to an executable file of the unpacked tree, links taken as the agent
/// would see them: the tree is their root.
pub(super) fn has_program(root: &Path, path: &str) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    match found.and_then(rustix::fs::fstat) {
        Ok(stat) => {
            Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o100 != 0)
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
        Err(errno) => Err(errno),
    }
}
