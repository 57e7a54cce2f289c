//! The tree that layers are unpacked into.
//!
//! Names are resolved one segment at a time, from a directory that is held open, without following
//! links; the way to the last entry stays open, since neighbours follow each other. Entries are
//! made exclusively: what is there already is found by that, and is a mistake if the same layer
//! made it. For that, and since whiteouts may come after what their layer puts in the place of what
//! they hide, the paths that a layer has touched are remembered as 128-bit hashes, keyed at random:
//! at most some 400,000, the entries and the directories on the way to them.

use super::{Modes, UnpackError};
use crate::layer::{Budget, LayerError, Whiteout};
use crate::tarball::{Entry, Kind, TarReader};
use aos_core::id::Digest;
use aos_core::path::RelativePath;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

/// How directories are opened to look up names in them.
const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
/// How directories are opened to list them.
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// The directory that layers are unpacked into.
pub(super) struct Root {
    fd: Rc<OwnedFd>,
    modes: Modes,
    /// The permission bits that survive creation: without those of the umask.
    granted: u32,
}

/// The tree as one layer sees it.
pub(super) struct Tree<'r> {
    root: &'r Root,
    /// The layer, for messages.
    layer: Digest,
    /// What the layer has touched; of the lowest one that is all there is.
    touched: Option<Touched>,
    /// The path of the directory above the last entry.
    at: String,
    /// The directories on that path, each with the length of its own path.
    way: Vec<(usize, Rc<OwnedFd>)>,
}

/// Opens `path` beneath a directory; no link is followed anywhere.
fn in_directory(directory: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve)
}

/// The directory above an entry, and its name there.
fn split(path: &RelativePath) -> (&str, &str) {
    path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()))
}

fn failed(path: &str) -> impl Fn(Errno) -> UnpackError + '_ {
    move |errno| match errno {
        // What openat2 and the others answer when a segment is a link or a file.
        Errno::LOOP | Errno::NOTDIR => UnpackError::Way(path.to_owned()),
        errno => UnpackError::Entry { path: path.to_owned(), source: errno.into() },
    }
}

impl Root {
    pub(super) fn open(path: &Path, modes: Modes) -> Result<Self, UnpackError> {
        let shown = path.display().to_string();
        let flags = LISTED | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed(&shown))?;
        let granted = granted(&fd).map_err(failed(&shown))?;
        Ok(Self { fd: Rc::new(fd), modes, granted })
    }

    /// The tree for the lowest layer: nothing is there yet.
    pub(super) fn lowest(&self, layer: Digest) -> Tree<'_> {
        Tree { root: self, layer, touched: None, at: String::new(), way: Vec::new() }
    }

    /// The tree for a layer above what is there.
    pub(super) fn next(&self, layer: Digest) -> Tree<'_> {
        Tree { touched: Some(Touched::default()), ..self.lowest(layer) }
    }

    /// The mode of a directory for which a layer says this one.
    const fn directory_mode(&self, mode: u32) -> u32 {
        match self.modes {
            Modes::Plain => 0o755,
            Modes::Kept => mode & 0o1777 | 0o700,
        }
    }

    /// The mode of a file for which a layer says this one.
    const fn file_mode(&self, mode: u32) -> u32 {
        match self.modes {
            Modes::Plain if mode & 0o111 == 0 => 0o644,
            Modes::Plain => 0o755,
            Modes::Kept => mode & 0o777 | 0o400,
        }
    }

    /// Gives a new directory the bits that the umask has taken.
    fn grant(&self, parent: &OwnedFd, name: &str, mode: u32) -> Result<(), Errno> {
        if mode & !self.granted == 0 { Ok(()) } else { chmod(parent, name, mode) }
    }
}

impl Tree<'_> {
    /// Makes an entry.
    pub(super) fn make<R: BufRead>(
        &mut self,
        entry: &Entry,
        contents: &mut TarReader<R>,
        budget: &mut Budget,
    ) -> Result<(), UnpackError> {
        let path = &entry.path;
        let parent = self.parent(path, budget)?;
        match &entry.kind {
            Kind::Directory => self.make_directory(&parent, entry)?,
            Kind::Symlink(target) => {
                let link = |name: &str| rustix::fs::symlinkat(target, &parent, name);
                self.place(&parent, path, link)?;
            }
            Kind::HardLink(target) => self.make_hard_link(&parent, path, target)?,
            Kind::File => self.make_file(&parent, entry, contents)?,
        }
        if let Some(touched) = &mut self.touched {
            touched.insert(path.as_str());
        }
        Ok(())
    }

    /// The directory above an entry, made if need be.
    fn parent(&mut self, path: &RelativePath, budget: &mut Budget) -> Result<Rc<OwnedFd>, UnpackError> {
        let (above, _) = split(path);
        if self.at != above {
            while self.way.last().is_some_and(|(end, _)| !leads_to(&self.at, *end, above)) {
                self.way.pop();
            }
            let mut start = self.way.last().map_or(0, |(end, _)| *end + 1);
            while let Some(rest) = above.get(start..).filter(|rest| !rest.is_empty()) {
                let end = start + rest.find('/').unwrap_or(rest.len());
                let fd = self.enter(path, above.get(..end).unwrap_or_default(), start, budget)?;
                self.way.push((end, fd));
                start = end + 1;
            }
            self.at.clear();
            self.at.push_str(above);
        }
        Ok(Rc::clone(self.way.last().map_or(&self.root.fd, |(_, fd)| fd)))
    }

    /// Opens a directory on the way to `path`, or makes it. Its own path is `directory`, its name is
    /// what comes from `start` on; the one above it is the last of the way.
    fn enter(
        &mut self,
        path: &RelativePath,
        directory: &str,
        start: usize,
        budget: &mut Budget,
    ) -> Result<Rc<OwnedFd>, UnpackError> {
        let above = self.way.last().map_or(&self.root.fd, |(_, fd)| fd);
        let name = directory.get(start..).unwrap_or_default();
        let failed = failed(path.as_str());
        let fd = match in_directory(above, name, PLACE) {
            Err(Errno::NOENT) => {
                budget.take_file().map_err(|source| self.refused(source))?;
                let mode = self.root.directory_mode(0o755);
                rustix::fs::mkdirat(above, name, Mode::from_raw_mode(mode)).map_err(&failed)?;
                self.root.grant(above, name, mode).map_err(&failed)?;
                in_directory(above, name, PLACE)
            }
            other => other,
        };
        let fd = fd.map_err(failed)?;
        if let Some(touched) = &mut self.touched {
            touched.insert(directory);
        }
        Ok(Rc::new(fd))
    }

    /// Makes something that is not a directory: `make` fails when the name is taken.
    fn place<T>(
        &self,
        parent: &OwnedFd,
        path: &RelativePath,
        mut make: impl FnMut(&str) -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        let (_, name) = split(path);
        match make(name) {
            Err(Errno::EXIST) => {
                self.clear(parent, path)?;
                make(name)
            }
            other => other,
        }
        .map_err(failed(path.as_str()))
    }

    /// Makes room for an entry that the layers below have, too.
    fn clear(&self, parent: &OwnedFd, path: &RelativePath) -> Result<(), UnpackError> {
        let below = self.touched.as_ref().is_some_and(|touched| !touched.contains(path.as_str()));
        if !below {
            return Err(UnpackError::Twice(path.to_string()));
        }
        remove(parent, split(path).1).map_err(failed(path.as_str()))
    }

    fn make_directory(&self, parent: &OwnedFd, entry: &Entry) -> Result<(), UnpackError> {
        let path = &entry.path;
        let (_, name) = split(path);
        let failed = failed(path.as_str());
        let mode = self.root.directory_mode(entry.mode);
        let make = || rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode));
        match make() {
            Err(Errno::EXIST) if kind(parent, name) == Ok(FileType::Directory) => {
                // Another layer, or another entry of this one, may have said something else.
                let keep = self.root.modes == Modes::Plain;
                return if keep { Ok(()) } else { chmod(parent, name, mode).map_err(failed) };
            }
            Err(Errno::EXIST) => {
                self.clear(parent, path)?;
                make()
            }
            other => other,
        }
        .and_then(|()| self.root.grant(parent, name, mode))
        .map_err(failed)
    }

    fn make_hard_link(
        &self,
        parent: &OwnedFd,
        path: &RelativePath,
        target: &RelativePath,
    ) -> Result<(), UnpackError> {
        let bad = || UnpackError::HardLink { path: path.to_string(), target: target.to_string() };
        let (above, source) = split(target);
        let directory = self.existing(above).ok().flatten().filter(|_| path != target).ok_or_else(bad)?;
        if kind(&directory, source) != Ok(FileType::RegularFile) {
            return Err(bad());
        }
        self.place(parent, path, |name| {
            rustix::fs::linkat(&directory, source, parent, name, AtFlags::empty())
        })
    }

    fn make_file<R: BufRead>(
        &self,
        parent: &OwnedFd,
        entry: &Entry,
        contents: &mut TarReader<R>,
    ) -> Result<(), UnpackError> {
        let path = entry.path.as_str();
        let mode = self.root.file_mode(entry.mode);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.place(parent, &entry.path, |name| {
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(mode))
        })?;
        let mut file = File::from(fd);
        loop {
            let bytes = contents.fill_contents().map_err(|error| self.refused(error.into()))?;
            if bytes.is_empty() {
                break;
            }
            file.write_all(bytes).map_err(|source| UnpackError::Entry { path: path.to_owned(), source })?;
            let count = bytes.len();
            contents.consume(count);
        }
        if mode & !self.root.granted != 0 {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed(path))?;
        }
        // Interpreters compare a source's time with that of its compiled form.
        let time = Timespec { tv_sec: i64::try_from(entry.mtime).unwrap_or(0), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&file, &times).map_err(failed(path))
    }

    fn refused(&self, source: LayerError) -> UnpackError {
        UnpackError::Layer { digest: self.layer, source }
    }

    /// A directory of the tree, if it is there; the root has the empty path.
    fn existing(&self, path: &str) -> Result<Option<OwnedFd>, UnpackError> {
        match in_directory(&self.root.fd, if path.is_empty() { "." } else { path }, PLACE) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(path)(errno)),
        }
    }

    /// Applies a whiteout to what the layers below have there, which may be nothing.
    pub(super) fn hide(&self, whiteout: &Whiteout) -> Result<(), UnpackError> {
        let Some(touched) = &self.touched else { return Ok(()) };
        match whiteout {
            Whiteout::Contents(directory) => {
                let path = directory.as_ref().map_or("", RelativePath::as_str);
                let Some(directory) = self.existing(path)? else { return Ok(()) };
                touched.prune(&directory, path).map_err(failed(path))
            }
            Whiteout::Path(path) => {
                let (above, name) = split(path);
                let Some(parent) = self.existing(above)? else { return Ok(()) };
                let failed = failed(path.as_str());
                if !touched.contains(path.as_str()) {
                    return remove(&parent, name).map_err(failed);
                }
                if kind(&parent, name).map_err(&failed)? != FileType::Directory {
                    return Ok(());
                }
                let directory = in_directory(&parent, name, PLACE).map_err(&failed)?;
                touched.prune(&directory, path.as_str()).map_err(failed)
            }
        }
    }
}

/// True when the first `end` bytes of `at` are a directory on the way to `above`, or that itself.
fn leads_to(at: &str, end: usize, above: &str) -> bool {
    let directory = at.get(..end).unwrap_or_default();
    above.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The permission bits that new files in a directory get when all are asked for; none if that
/// cannot be found out, and then all are set explicitly.
fn granted(directory: &OwnedFd) -> Result<u32, Errno> {
    if rustix::fs::fstat(directory)?.st_mode & Mode::SGID.as_raw_mode() != 0 {
        // Directories inherit the bit.
        return Ok(0);
    }
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, ".", flags, Mode::from_raw_mode(0o777)) {
        Ok(file) => Ok(rustix::fs::fstat(&file)?.st_mode & 0o777),
        // A file system without files that have no name.
        Err(_) => Ok(0),
    }
}

/// The kind of an entry, which is not followed if it is a link.
fn kind(parent: &OwnedFd, name: &str) -> Result<FileType, Errno> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// Sets the mode of an entry that is known to be a directory.
fn chmod(parent: &OwnedFd, name: &str, mode: u32) -> Result<(), Errno> {
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
}

/// Removes an entry and all that is in it; it may be absent. The tree is at most as deep as paths
/// are long.
fn remove(parent: &OwnedFd, name: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let flags = LISTED | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove(&directory, entry.file_name())?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// The paths that a layer has made something at, and those of the directories above them.
#[derive(Default)]
struct Touched {
    /// Two keys of 64 bits: with one, collisions among 400,000 paths are conceivable.
    keys: (RandomState, RandomState),
    paths: HashSet<(u64, u64)>,
}

impl Touched {
    fn key(&self, path: &str) -> (u64, u64) {
        (self.keys.0.hash_one(path), self.keys.1.hash_one(path))
    }

    fn insert(&mut self, path: &str) {
        self.paths.insert(self.key(path));
    }

    fn contains(&self, path: &str) -> bool {
        self.paths.contains(&self.key(path))
    }

    /// Removes what is in a directory, except what the layer has put there.
    fn prune(&self, directory: &OwnedFd, path: &str) -> Result<(), Errno> {
        let listed = in_directory(directory, ".", LISTED)?;
        for entry in Dir::read_from(&listed)? {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if matches!(bytes, b"." | b"..") {
                continue;
            }
            // All names of the tree come from layers, whose paths are text.
            let name = str::from_utf8(bytes).map_err(|_| Errno::ILSEQ)?;
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            if !self.contains(&path) {
                remove(directory, name)?;
            } else if kind(directory, name)? == FileType::Directory {
                self.prune(&in_directory(directory, name, PLACE)?, &path)?;
            }
        }
        Ok(())
    }
}
