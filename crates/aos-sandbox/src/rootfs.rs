//! The one look at a package's unpacked root that a plan needs: what is at its top, and what it
//! adds below `/usr`. The only input of what makes plans; bounded, and no symbolic link is followed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aos_core::path::{PathError, RelativePath};
use thiserror::Error;

use crate::plan::ENTRIES_MAX;

/// Entries that are looked at: each becomes at most a tree entry and a rule.
pub const ENTRIES_SCANNED_MAX: usize = ENTRIES_MAX / 4;

/// Directories whose entries are listed too, each after its parent.
const DESCENDED: [&str; 3] = ["usr", "usr/lib", "usr/local"];

/// One entry of a package's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootfsEntry {
    /// Its path below the root.
    pub path: RelativePath,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link with its text.
    Symlink(String),
}

/// Why a package's root cannot be looked at.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The kernel refuses.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name that is not a path in normal form, or not UTF-8.
    #[error("{} has a name that no agent can be given", .path.display())]
    Name {
        /// The entry.
        path: PathBuf,
        /// What is wrong, for names that are UTF-8.
        source: Option<PathError>,
    },
    /// A device, pipe or socket.
    #[error("{} is neither file, directory nor symbolic link", .0.display())]
    Special(PathBuf),
    /// There are too many entries.
    #[error("{} has more than {ENTRIES_SCANNED_MAX} entries at its top and in /usr", .0.display())]
    TooMany(PathBuf),
}

/// Lists the top of a package's root, and of its `/usr`, `/usr/lib` and `/usr/local`, sorted.
pub fn scan(rootfs: &Path) -> Result<Vec<RootfsEntry>, ScanError> {
    let mut entries = list(rootfs, "")?;
    for directory in DESCENDED {
        let is_directory =
            |entry: &RootfsEntry| entry.path.as_str() == directory && entry.kind == EntryKind::Directory;
        if entries.iter().any(is_directory) {
            entries.extend(list(rootfs, directory)?);
        }
        if entries.len() > ENTRIES_SCANNED_MAX {
            return Err(ScanError::TooMany(rootfs.to_owned()));
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// The entries of one directory of the root.
fn list(rootfs: &Path, directory: &str) -> Result<Vec<RootfsEntry>, ScanError> {
    let at = rootfs.join(directory);
    let failed = |source| ScanError::Io { path: at.clone(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(&at).map_err(failed)? {
        if entries.len() >= ENTRIES_SCANNED_MAX {
            return Err(ScanError::TooMany(at));
        }
        entries.push(read_entry(directory, &entry.map_err(failed)?)?);
    }
    Ok(entries)
}

fn read_entry(directory: &str, entry: &fs::DirEntry) -> Result<RootfsEntry, ScanError> {
    let path = entry.path();
    let failed = |source| ScanError::Io { path: path.clone(), source };
    let name = entry.file_name();
    let name = name.to_str().ok_or_else(|| ScanError::Name { path: path.clone(), source: None })?;
    let below = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
    let below = below
        .parse::<RelativePath>()
        .map_err(|source| ScanError::Name { path: path.clone(), source: Some(source) })?;
    let kind = entry.file_type().map_err(failed)?;
    let kind = if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_file() {
        EntryKind::File
    } else if kind.is_symlink() {
        let target = fs::read_link(&path).map_err(failed)?;
        let text = target.to_str().ok_or_else(|| ScanError::Name { path: path.clone(), source: None })?;
        EntryKind::Symlink(text.to_owned())
    } else {
        return Err(ScanError::Special(path));
    };
    Ok(RootfsEntry { path: below, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_top_and_usr_are_listed_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["app/deep", "usr/bin/deep", "usr/lib/x/deep"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("file"), "").unwrap();
        symlink("/etc", root.path().join("usr/local")).unwrap();
        let entries = scan(root.path()).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(names, ["app", "file", "usr", "usr/bin", "usr/lib", "usr/lib/x", "usr/local"]);
        assert_eq!(entries[6].kind, EntryKind::Symlink("/etc".to_owned()));
    }

    #[test]
    fn what_no_agent_can_have_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(scan(&root.path().join("absent")), Err(ScanError::Io { .. })));
        let socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        assert!(matches!(scan(root.path()), Err(ScanError::Special(_))));
        drop(socket);
        fs::remove_file(root.path().join("socket")).unwrap();
        fs::write(root.path().join("a\nb"), "").unwrap();
        assert!(matches!(scan(root.path()), Err(ScanError::Name { .. })));
    }
}
