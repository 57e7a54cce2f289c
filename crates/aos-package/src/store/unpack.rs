//! What the store asks of an unpacked package.

use crate::unpack::{Modes, Options};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::path::Path;

pub(super) use crate::unpack::Layer;
pub use crate::unpack::UnpackError;

/// Unpacks layers, lowest first, into the empty directory `root`, for agents that run as other
/// users and read only.
pub(super) fn unpack(layers: &[Layer<'_>], root: &Path) -> Result<(), UnpackError> {
    crate::unpack::unpack(layers, root, Options { modes: Modes::Plain }).map(drop)
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
