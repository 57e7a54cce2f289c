//! The store's files: directories, atomic replacement, removal, listing.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Makes a directory with exactly this mode, or gives it to one that is there.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    if metadata.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes everything durable that was written to the file system of `path`.
pub(crate) fn sync_all_below(path: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(path)?).map_err(Into::into)
}

/// Replaces a file as a whole: after a crash it has the old or the new contents. `temporary` is
/// the directory in which the new file is made, on the same file system.
pub(crate) fn replace(path: &Path, contents: &[u8], temporary: &Path) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(temporary)?;
    file.write_all(contents)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Removes a file or a directory tree; it may be absent.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The names in a directory; one that is not UTF-8 is not ours and is passed over.
pub(crate) fn names(path: &Path) -> io::Result<Vec<String>> {
    let names: Result<Vec<_>, _> =
        std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
    Ok(names?.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

/// The contents of a file of at most `max` bytes; `None` when it has more.
pub(crate) fn read_bounded(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(if bytes.len() as u64 > max { None } else { Some(bytes) })
}
