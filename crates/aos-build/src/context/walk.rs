//! Lists a tree: directories by `getdents`, files by `stat` relative to the directory's descriptor,
//! with several threads.
//!
//! Concurrency: the threads share a stack of directories that are still to be read. A directory
//! holds its parent's descriptor until it is opened; taking the newest first keeps the number of
//! open ones near the depth of the tree.

use super::{Context, Stamp};
use crate::error::BuildError;
use aos_core::path::RelativePath;
use aos_package::bounds::{DEPTH_MAX, FILES_MAX, LINK_MAX, PATH_MAX};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of directory entries that are taken at once: some thousand names.
const BUFFER: usize = 64 << 10;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    File(Stamp),
    Directory,
    Symlink(Box<str>),
}

/// An entry of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its path relative to the whole directory.
    pub(crate) path: Box<str>,
    pub(crate) what: What,
}

/// A directory that is to be read.
struct Open {
    /// The directory above; `None` for the top, which is open.
    parent: Option<Arc<OwnedFd>>,
    path: String,
    depth: usize,
}

/// An error and the path that it is about.
type Failure = Box<(String, BuildError)>;

/// What the threads share.
struct Queue {
    open: Vec<Open>,
    /// Directories that are open or being read.
    pending: usize,
    /// The error with the smallest path, so that the threads' race does not decide which is told.
    error: Option<Failure>,
}

struct Walk<'a> {
    context: &'a Context,
    top: Arc<OwnedFd>,
    queue: Mutex<Queue>,
    changed: Condvar,
    count: AtomicUsize,
}

/// Lists everything below `top`, whose path is `path`.
pub(super) fn walk(
    context: &Context,
    top: OwnedFd,
    path: &str,
    threads: NonZeroUsize,
) -> Result<Vec<Found>, BuildError> {
    let depth = if path.is_empty() { 0 } else { path.split('/').count() };
    let open = vec![Open { parent: None, path: path.to_owned(), depth }];
    let walk = Walk {
        context,
        top: Arc::new(top),
        queue: Mutex::new(Queue { open, pending: 1, error: None }),
        changed: Condvar::new(),
        count: AtomicUsize::new(0),
    };
    let all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.get()).map(|_| scope.spawn(|| walk.sorted())).collect();
        let own = walk.sorted();
        others.into_iter().fold(own, |all, other| merge(all, other.join().unwrap_or_default()))
    });
    if let Some(failure) = walk.queue.into_inner().unwrap_or_else(PoisonError::into_inner).error {
        return Err(failure.1);
    }
    Ok(all)
}

/// One sorted list of two.
fn merge(one: Vec<Found>, two: Vec<Found>) -> Vec<Found> {
    if one.is_empty() || two.is_empty() {
        return if one.is_empty() { two } else { one };
    }
    let mut all = Vec::with_capacity(one.len() + two.len());
    let (mut one, mut two) = (one.into_iter().peekable(), two.into_iter().peekable());
    while let (Some(a), Some(b)) = (one.peek(), two.peek()) {
        all.extend(if a.path <= b.path { one.next() } else { two.next() });
    }
    all.extend(one.chain(two));
    all
}

impl Walk<'_> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this thread finds, sorted while the others sort theirs.
    fn sorted(&self) -> Vec<Found> {
        let mut found = self.work();
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Reads directories until there are none.
    fn work(&self) -> Vec<Found> {
        let mut found = Vec::new();
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            let mut queue = self.queue();
            let open = loop {
                if queue.pending == 0 || queue.error.is_some() {
                    return found;
                }
                match queue.open.pop() {
                    Some(open) => break open,
                    None => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            let below = self.read(&open, &mut found, &mut buffer);
            let mut queue = self.queue();
            queue.pending -= 1;
            match below {
                Ok(below) => {
                    queue.pending += below.len();
                    queue.open.extend(below);
                }
                Err(failure) => {
                    if queue.error.as_ref().is_none_or(|first| failure.0 < first.0) {
                        queue.error = Some(failure);
                    }
                }
            }
            drop(queue);
            self.changed.notify_all();
        }
    }

    /// Reads one directory; returns those in it.
    fn read(&self, open: &Open, found: &mut Vec<Found>, buffer: &mut Vec<u8>) -> Result<Vec<Open>, Failure> {
        let failed = |errno| Box::new((open.path.clone(), self.context.failed(&open.path, errno)));
        let directory = self.open(open).map_err(failed)?;
        let mut below = Vec::new();
        let mut entries = RawDir::new(directory.as_fd(), buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed)?;
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let (name, path) =
                name(&open.path, bytes).map_err(|error| Box::new((open.path.clone(), error)))?;
            let (what, is_directory) = match entry.file_type() {
                FileType::Directory => (None, true),
                FileType::RegularFile | FileType::Symlink => (Some(entry.file_type()), false),
                _ => match self.stat(&directory, name, &path)? {
                    Some(stat) => {
                        let kind = FileType::from_raw_mode(stat.st_mode);
                        (Some(kind), kind == FileType::Directory)
                    }
                    None => continue,
                },
            };
            if self.context.leaves_out(&path, name, is_directory) {
                continue;
            }
            self.admit(&path, open.depth + 1)?;
            let what = if is_directory || what == Some(FileType::Directory) {
                let (parent, depth) = (Some(Arc::clone(&directory)), open.depth + 1);
                below.push(Open { parent, path: path.clone(), depth });
                What::Directory
            } else {
                let Some(stat) = self.stat(&directory, name, &path)? else { continue };
                describe(&directory, name, &path, &stat).map_err(|error| Box::new((path.clone(), error)))?
            };
            found.push(Found { path: path.into_boxed_str(), what });
        }
        Ok(below)
    }

    fn open(&self, open: &Open) -> Result<Arc<OwnedFd>, Errno> {
        let Some(parent) = &open.parent else { return Ok(Arc::clone(&self.top)) };
        let name = open.path.rsplit('/').next().unwrap_or_default();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent.as_ref(), name, flags, Mode::empty()).map(Arc::new)
    }

    /// The attributes of an entry; `None` when it went in the meantime, as if it had not been
    /// listed.
    fn stat(&self, directory: &OwnedFd, name: &str, path: &str) -> Result<Option<Stat>, Failure> {
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Box::new((path.to_owned(), self.context.failed(path, errno)))),
        }
    }

    /// Counts an entry against the bounds.
    fn admit(&self, path: &str, depth: usize) -> Result<(), Failure> {
        let refused = |reason: String| {
            let path = path.to_owned();
            Err(Box::new((path.clone(), BuildError::Unfit { path, reason })))
        };
        if self.count.fetch_add(1, Ordering::Relaxed) >= FILES_MAX {
            return refused(format!("the directory has more than {FILES_MAX} files"));
        }
        if path.len() > PATH_MAX || depth > DEPTH_MAX {
            return refused(format!("a path has more than {PATH_MAX} bytes or {DEPTH_MAX} segments"));
        }
        Ok(())
    }
}

/// The name of an entry as text, and its path.
fn name<'n>(above: &str, bytes: &'n [u8]) -> Result<(&'n str, String), BuildError> {
    let join = |name: &str| if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
    let name = str::from_utf8(bytes).map_err(|_| BuildError::Unfit {
        path: join(&String::from_utf8_lossy(bytes)).escape_debug().to_string(),
        reason: "its name is not UTF-8".to_owned(),
    })?;
    // Nothing is hidden in printable ASCII, and the kernel has checked the rest of the grammar.
    if !bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        name.parse::<RelativePath>().map_err(|error| BuildError::Unfit {
            path: name.escape_debug().to_string(),
            reason: error.to_string(),
        })?;
    }
    Ok((name, join(name)))
}

/// What an entry is by its attributes.
pub(super) fn describe(directory: &OwnedFd, name: &str, path: &str, stat: &Stat) -> Result<What, BuildError> {
    let unfit = |reason: &str| BuildError::Unfit { path: path.to_owned(), reason: reason.to_owned() };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(What::File(Stamp::of(stat))),
        FileType::Directory => Ok(What::Directory),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())
                .map_err(|errno| BuildError::Read { path: path.into(), source: errno.into() })?;
            match target.into_string() {
                Ok(target) if target.is_empty() || target.len() > LINK_MAX => {
                    Err(unfit("its target is too long"))
                }
                Ok(target) => Ok(What::Symlink(target.into_boxed_str())),
                Err(_) => Err(unfit("its target is not UTF-8")),
            }
        }
        _ => Err(unfit("it is neither a file nor a directory nor a symbolic link")),
    }
}
