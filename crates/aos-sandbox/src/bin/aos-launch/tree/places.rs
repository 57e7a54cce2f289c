//! The first pass of the assembly: directories, links, generated files and mount points in the
//! root's own memory.

use std::os::fd::{AsFd, OwnedFd};

use aos_core::path::AbsolutePath;
use aos_sandbox::launch::devices::{DEVICE_DIRECTORIES, DEVICE_LINKS, DEVICES};
use aos_sandbox::launch::sources::Source;
use aos_sandbox::plan::{Identity, Node, TreeEntry};
use rustix::fs::{FileType, Mode, OFlags, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use crate::error::{Context, LaunchError, Layer};

const DIRECTORY_MODE: Mode = Mode::from_bits_retain(0o755);
const FILE_MODE: Mode = Mode::from_bits_retain(0o644);

/// Makes the place of every entry that lies in the root's own memory.
pub(super) fn make_all(
    root: &OwnedFd,
    tree: &[TreeEntry],
    sources: &[Source],
    identity: &Identity,
) -> Result<(), LaunchError> {
    let mut last_above = "";
    for (index, (entry, source)) in tree.iter().zip(sources).enumerate() {
        let before = tree.iter().zip(sources).take(index);
        if is_own(&entry.path, before) && !matches!(source, Source::Absent) {
            let path = relative(&entry.path);
            let above = path.rsplit_once('/').map_or("", |(above, _)| above);
            // Entries of one directory follow each other.
            if above != last_above {
                make_parents(root, path)?;
                last_above = above;
            }
            make_one(root, entry, source, identity)?;
        }
    }
    Ok(())
}

/// Whether a path lies in the root's own memory: the nearest earlier entry above it is a plain
/// directory of the root, or a union on top of one.
fn is_own<'a>(path: &AbsolutePath, before: impl Iterator<Item = (&'a TreeEntry, &'a Source)>) -> bool {
    let above = before
        .filter(|(entry, source)| {
            entry.path != *path && path.is_within(&entry.path) && !matches!(source, Source::Absent)
        })
        .max_by_key(|(entry, _)| entry.path.as_str().len());
    match above.map(|(entry, _)| &entry.node) {
        None | Some(Node::Devices) => true,
        Some(Node::Overlay { on_own, .. }) => *on_own,
        Some(_) => false,
    }
}

fn make_one(
    root: &OwnedFd,
    entry: &TreeEntry,
    source: &Source,
    identity: &Identity,
) -> Result<(), LaunchError> {
    let path = relative(&entry.path);
    let failed = |path: &str| format!("cannot make the place /{path}");
    match (&entry.node, source) {
        (_, Source::Link(to)) => {
            ignore_existing(symlinkat(to, root, path)).layer(Layer::Namespace, failed(path))
        }
        (Node::Symlink { to }, _) => {
            ignore_existing(symlinkat(to.as_str(), root, path)).layer(Layer::Namespace, failed(path))
        }
        (Node::Generated(file), _) => write_file(root, path, file.content(identity).as_bytes()),
        (_, Source::Copied(content)) => write_file(root, path, content),
        (_, Source::Mounted { is_directory: false, .. }) => write_file(root, path, b""),
        (Node::Devices, _) => make_devices(root, path),
        _ => make_directory(root, path),
    }
}

/// A path below the root's descriptor.
pub(super) fn relative(path: &AbsolutePath) -> &str {
    path.as_str().trim_start_matches('/')
}

pub(super) fn make_parents(root: &OwnedFd, path: &str) -> Result<(), LaunchError> {
    for (end, _) in path.match_indices('/') {
        make_directory(root, path.get(..end).unwrap_or_default())?;
    }
    Ok(())
}

pub(super) fn make_directory(root: &OwnedFd, path: &str) -> Result<(), LaunchError> {
    ignore_existing(mkdirat(root, path, DIRECTORY_MODE))
        .layer(Layer::Namespace, format!("cannot make the directory /{path}"))
}

/// A place may be named twice, such as a parent that is an entry of its own.
pub(super) fn ignore_existing(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

pub(super) fn write_file(root: impl AsFd, path: &str, content: &[u8]) -> Result<(), LaunchError> {
    let what = || format!("cannot make the file /{path}");
    if content.is_empty() {
        // A place for a mount: it is never opened, so neither here.
        let made = mknodat(root, path, FileType::RegularFile, FILE_MODE, 0);
        return ignore_existing(made).layer(Layer::Namespace, what());
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat(root, path, flags, FILE_MODE).layer(Layer::Namespace, what())?;
    let written = rustix::io::write(&file, content).layer(Layer::Namespace, what())?;
    if written == content.len() { Ok(()) } else { crate::error::fail(Layer::Namespace, what()) }
}

/// `/dev` with mount points for the devices, its links, and the directories that get mounts.
pub(super) fn make_devices(root: &OwnedFd, path: &str) -> Result<(), LaunchError> {
    make_directory(root, path)?;
    for directory in DEVICE_DIRECTORIES {
        make_directory(root, &format!("{path}/{directory}"))?;
    }
    for device in DEVICES {
        write_file(root, &format!("{path}/{}", device.name), b"")?;
    }
    for (name, to) in DEVICE_LINKS {
        let path = format!("{path}/{name}");
        symlinkat(to, root, &path).layer(Layer::Namespace, format!("cannot make the link /{path}"))?;
    }
    Ok(())
}
