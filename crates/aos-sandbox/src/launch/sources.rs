//! The host's side of the tree: every source of a bind or union, opened and checked.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use aos_core::path::AbsolutePath;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat};
use rustix::io::Errno;

use super::error::{Context, LaunchError, Layer, fail};
use super::layers::{self, Layers};
use crate::plan::{Bind, CAUSE_BASE, CAUSE_PACKAGE, Missing, Node, Shape, TreeEntry};

/// Bytes of a file that is copied. The largest is the loader's cache: about 100 bytes for each
/// library of the host.
const COPY_MAX_BYTES: u64 = 1 << 20;

/// What an entry of the plan stands on.
#[derive(Debug)]
pub enum Source {
    /// Nothing of the host.
    Inside,
    /// The host lacks it and the plan allows that.
    Absent,
    /// A file or directory of the host.
    Mounted {
        /// It.
        file: OwnedFd,
        /// Whether it is a directory.
        is_directory: bool,
    },
    /// A symbolic link of the host, repeated inside.
    Link(PathBuf),
    /// The directories of a union.
    Union(Vec<OwnedFd>),
    /// The layers of the workspace.
    Layers(Layers),
    /// The content of a file of the host.
    Copied(Vec<u8>),
}

/// Opens the sources of all entries, in order.
pub fn open_all(tree: &[TreeEntry]) -> Result<Vec<Source>, LaunchError> {
    tree.iter().map(open_one).collect()
}

fn open_one(entry: &TreeEntry) -> Result<Source, LaunchError> {
    match &entry.node {
        Node::Bind(bind) => open_bind(entry, bind),
        Node::Overlay { lower, missing, .. } => open_union(entry, lower, *missing),
        Node::Transaction { lower, changes } => layers::open(entry, lower, changes).map(Source::Layers),
        Node::Copy { source, missing } => read_file(entry, source, *missing),
        Node::Symlink { .. } | Node::Generated(_) | Node::Tmpfs { .. } | Node::Proc | Node::Devices => {
            Ok(Source::Inside)
        }
        // A step's own, whose builder opens what it needs of the host.
        Node::BuildRoot { .. }
        | Node::BuildFile(_)
        | Node::BuildTmpfs { .. }
        | Node::Cache { .. }
        | Node::Secrets { .. }
        | Node::Empty => Ok(Source::Inside),
    }
}

fn open_union(entry: &TreeEntry, lower: &[AbsolutePath], missing: Missing) -> Result<Source, LaunchError> {
    let mut directories = Vec::new();
    for path in lower {
        match open_host(path) {
            Ok(directory) => directories.push(directory),
            Err(Errno::NOENT) if missing == Missing::Skip => return Ok(Source::Absent),
            Err(error) => return refuse(entry, path, error),
        }
    }
    Ok(Source::Union(directories))
}

/// Reads a small file of the host; a final symbolic link is its text.
fn read_file(entry: &TreeEntry, source: &AbsolutePath, missing: Missing) -> Result<Source, LaunchError> {
    let file = match open_host(source) {
        Ok(file) => file,
        Err(Errno::NOENT) if missing == Missing::Skip => return Ok(Source::Absent),
        Err(error) => return refuse(entry, source, error),
    };
    let kind = FileType::from_raw_mode(fstat(&file).layer(Layer::Namespace, source)?.st_mode);
    match kind {
        FileType::Symlink => {
            let text = readlinkat(&file, "", Vec::new()).layer(Layer::Namespace, source)?;
            Ok(Source::Link(text.into_string().layer(Layer::Namespace, source)?.into()))
        }
        FileType::RegularFile => {
            let again = format!("/proc/self/fd/{}", file.as_raw_fd());
            let file = File::open(again).layer(Layer::Namespace, source)?;
            let mut content = Vec::new();
            file.take(COPY_MAX_BYTES + 1).read_to_end(&mut content).layer(Layer::Namespace, source)?;
            if content.len() as u64 > COPY_MAX_BYTES {
                return fail(Layer::Namespace, format!("{source} is larger than {COPY_MAX_BYTES} bytes"));
            }
            Ok(Source::Copied(content))
        }
        _ => fail(Layer::Namespace, format!("{source} is not a regular file")),
    }
}

/// Opens a path of the host without following any symbolic link, not even the last one.
pub fn open_host(path: &AbsolutePath) -> Result<OwnedFd, Errno> {
    openat2(
        CWD,
        path.as_path(),
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn open_bind(entry: &TreeEntry, bind: &Bind) -> Result<Source, LaunchError> {
    let file = match open_host(&bind.source) {
        Ok(file) => file,
        Err(Errno::NOENT) if bind.missing == Missing::Skip => return Ok(Source::Absent),
        Err(error) => return refuse(entry, &bind.source, error),
    };
    let stat = fstat(&file).layer(Layer::Grant, &bind.source)?;
    let is_directory = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink if bind.shape == Shape::Mirror => {
            let text = readlinkat(&file, "", Vec::new()).layer(Layer::Grant, &bind.source)?;
            let text = text.into_string().layer(Layer::Grant, &bind.source)?;
            return Ok(Source::Link(text.into()));
        }
        FileType::Symlink => return refuse(entry, &bind.source, Errno::LOOP),
        FileType::Directory => true,
        FileType::RegularFile => false,
        // A socket reaches another process and a device the machine: no capability is about either.
        other => return refuse_for(entry, &special(&bind.source, other)),
    };
    match (bind.shape, is_directory) {
        (Shape::File, true) => fail(
            Layer::Grant,
            format!(
                "{}: {} is a directory; write {}/** for what is beneath it",
                entry.cause, bind.source, bind.source
            ),
        ),
        (Shape::Directory, false) => fail(
            Layer::Grant,
            format!("{}: {} is not a directory; leave out the /**", entry.cause, bind.source),
        ),
        _ => Ok(Source::Mounted { file, is_directory }),
    }
}

/// The failure for a source that cannot be opened: it names the capability and what helps.
pub fn refuse<T>(entry: &TreeEntry, path: &AbsolutePath, error: Errno) -> Result<T, LaunchError> {
    let why = match error {
        Errno::NOENT => format!("{path} does not exist; create it, or remove the capability"),
        Errno::LOOP => format!("{path} is or passes through a symbolic link; name the real path"),
        Errno::ACCESS => {
            format!("{path} is not reachable for the agent's user; give its group search rights")
        }
        error => format!("{path}: {error}"),
    };
    refuse_for(entry, &why)
}

/// Why a source that is neither a file nor a directory nor a link is refused.
fn special(path: &AbsolutePath, kind: FileType) -> String {
    let kind = match kind {
        FileType::Socket => "a socket",
        FileType::Fifo => "a pipe",
        _ => "a device",
    };
    format!("{path} is {kind}; name a regular file or a directory")
}

/// The failure for a source: it names the capability.
fn refuse_for<T>(entry: &TreeEntry, why: &str) -> Result<T, LaunchError> {
    let is_grant = entry.cause != CAUSE_BASE && entry.cause != CAUSE_PACKAGE;
    let cause = if is_grant { format!("capability `{}`", entry.cause) } else { entry.cause.clone() };
    let layer = if is_grant { Layer::Grant } else { Layer::Namespace };
    fail(layer, format!("{cause}: {why}"))
}
