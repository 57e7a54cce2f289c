//! Reads the tar of a Debian root, and leaves out what tells of the machine or the day: caches and
//! lists of apt, logs, the machine's id, its name and its name servers. The list of sources becomes
//! that of [`DEFAULT_MIRROR`], whichever mirror was used.

use super::{DebianError, Wanted};
use crate::layer::{Contents, Planned};
use crate::options::DEFAULT_MIRROR;
use crate::spool::Spool;
use crate::tarball::{Collected, TarballError, path};
use crate::tree::{Entry, Item, Node};
use aos_core::id::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use tar::Archive;

/// Files that are left out.
const OUT: [&str; 9] = [
    "etc/machine-id",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/apt/sources.list",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/cache/ldconfig/aux-cache",
    "var/lib/systemd/random-seed",
];
/// Directories that are kept, and are empty.
const EMPTY: [&str; 11] = [
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log",
    "var/tmp",
    "etc/apt/sources.list.d",
];
/// The list of sources that replaces the mirror's.
const SOURCES: &str = "etc/apt/sources.list";
/// Where apt keeps the release files of its sources.
const LISTS: &str = "var/lib/apt/lists/";
/// Bytes of a release file; Debian's have some 200 KiB.
const RELEASE_MAX: u64 = 8 << 20;

/// A root as it was made.
pub(super) struct Root {
    /// Its entries.
    pub(super) items: Vec<Planned>,
    pub(super) contents: Spool,
    /// The digest of the suite's signed release file.
    pub(super) release: Digest,
}

/// Reads a whole tar.
pub(super) fn read(input: impl Read, wanted: &Wanted<'_>, scratch: &Path) -> Result<Root, DebianError> {
    let spool = |source| DebianError::Scratch { directory: scratch.to_owned(), source };
    let mut collected = Collected::new(scratch).map_err(spool)?;
    let mut release = None;
    let mut archive = Archive::new(input);
    for entry in archive.entries().map_err(TarballError::Read)? {
        let mut entry = entry.map_err(TarballError::Read)?;
        let path = path(&entry.path_bytes())?;
        // The first in the order of names is that of the mirror.
        if release.is_none() && path.starts_with(LISTS) && path.ends_with("Release") {
            release = Some(digest_of(&mut entry)?);
        }
        if !is_out(&path) {
            collected.take(&mut entry, path, wanted.options.source_date_epoch)?;
        }
    }
    // What is behind the end of the tar is padding; mmdebstrap waits until it has been read.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(TarballError::Read)?;
    let release = release.ok_or(DebianError::NoRelease)?;
    collected.put(sources(wanted));
    let (items, contents) = collected.finish()?;
    Ok(Root { items, contents, release })
}

/// The digest of a release file.
fn digest_of(entry: &mut impl Read) -> Result<Digest, TarballError> {
    let mut bytes = Vec::new();
    entry.take(RELEASE_MAX).read_to_end(&mut bytes)?;
    Ok(Digest::from_bytes(Sha256::digest(bytes).into()))
}

fn sources(wanted: &Wanted<'_>) -> Planned {
    let text = format!("deb {DEFAULT_MIRROR} {} main\n", wanted.suite);
    let digest = Digest::from_bytes(Sha256::digest(text.as_bytes()).into());
    let node = Node::File { size: text.len() as u64, digest };
    let item = Item::Entry(Entry { node, mode: 0o644, uid: 0, gid: 0 });
    let contents = Contents::Memory(Arc::from(text.into_bytes()));
    Planned { path: SOURCES.into(), item, contents, mtime: None }
}

fn is_out(path: &str) -> bool {
    let below = |directory: &&str| path.strip_prefix(*directory).is_some_and(|rest| rest.starts_with('/'));
    // dpkg keeps the file lists of before its last change beside those of now.
    let old = path.starts_with("var/lib/dpkg/") && path.ends_with("-old");
    old || OUT.contains(&path) || EMPTY.iter().any(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out() {
        for out in ["dev/null", "var/log/apt/term.log", "etc/machine-id", "var/lib/dpkg/status-old"] {
            assert!(is_out(out), "{out}");
        }
        for kept in ["dev", "var/log", "var/lib/dpkg/status", "device", "etc/apt/sources.list.d"] {
            assert!(!is_out(kept), "{kept}");
        }
    }
}
