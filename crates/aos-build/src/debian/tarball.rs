//! Reads the tar of a Debian root, and leaves out what tells of the machine or the day, or what a
//! package cannot have: devices and sockets, caches and lists of apt, logs, the machine's id, its
//! name and its name servers. The list of sources becomes that of [`DEFAULT_MIRROR`], whichever
//! mirror was used.

use super::{DebianError, Wanted};
use crate::layer::{Contents, Planned};
use crate::options::DEFAULT_MIRROR;
use crate::spool::Spool;
use crate::tree::{Entry, Item, Node};
use aos_core::id::Digest;
use aos_package::bounds::{FILES_MAX, LAYER_UNPACKED_MAX, LINK_MAX, PATH_MAX};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use tar::{Archive, EntryType};

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
    /// Its entries, not sorted yet.
    pub(super) items: Vec<Planned>,
    pub(super) contents: Spool,
    /// The digest of the suite's signed release file.
    pub(super) release: Digest,
}

/// Entries while they are collected.
struct Reading {
    entries: BTreeMap<Box<str>, Planned>,
    /// Hard links, each with the file that it leads to.
    links: Vec<(Box<str>, Box<str>)>,
    contents: Spool,
    release: Option<Digest>,
    bytes: u64,
}

/// Reads a whole tar.
pub(super) fn read(input: impl Read, wanted: &Wanted<'_>, scratch: &Path) -> Result<Root, DebianError> {
    let spool = |source| DebianError::Scratch { directory: scratch.to_owned(), source };
    let mut reading = Reading {
        entries: BTreeMap::new(),
        links: Vec::new(),
        contents: Spool::new(scratch).map_err(spool)?,
        release: None,
        bytes: 0,
    };
    let mut archive = Archive::new(input);
    for entry in archive.entries().map_err(DebianError::Read)? {
        reading.take(&mut entry.map_err(DebianError::Read)?, wanted)?;
    }
    // What is behind the end of the tar is padding; mmdebstrap waits until it has been read.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(DebianError::Read)?;
    reading.finish(wanted)
}

impl Reading {
    fn take(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        wanted: &Wanted<'_>,
    ) -> Result<(), DebianError> {
        let path = path(&entry.path_bytes())?;
        if path.starts_with(LISTS) && path.ends_with("Release") {
            self.take_release(entry)?;
        }
        if path.is_empty() || is_out(&path) {
            return Ok(());
        }
        let refused = |reason: &str| DebianError::Entry { path: path.to_string(), reason: reason.to_owned() };
        if path.len() > PATH_MAX || self.entries.len() >= FILES_MAX {
            return Err(refused("there are too many files, or its path is too long"));
        }
        let link = |entry: &tar::Entry<'_, _>| {
            let target = entry.link_name_bytes().map(|bytes| bytes.into_owned()).unwrap_or_default();
            String::from_utf8(target).map_err(|_| refused("its target is not UTF-8"))
        };
        let header = entry.header();
        let number = |number: io::Result<u64>| number.ok().and_then(|n| u32::try_from(n).ok());
        let (Some(uid), Some(gid)) = (number(header.uid()), number(header.gid())) else {
            return Err(refused("its owner is not a number"));
        };
        let mode = header.mode().map_err(DebianError::Read)?;
        let mtime = header.mtime().map_err(DebianError::Read)?.min(wanted.options.source_date_epoch);
        let (node, mode, contents) = match header.entry_type() {
            EntryType::Directory => (Node::Directory, mode & 0o1777, Contents::None),
            EntryType::Regular | EntryType::Continuous => {
                let (node, contents) = self.file(entry, &path)?;
                (node, mode & 0o777, contents)
            }
            EntryType::Symlink => {
                let target = link(entry)?;
                if target.is_empty() || target.len() > LINK_MAX {
                    return Err(refused("its target is too long"));
                }
                (Node::Symlink(target.into()), 0o777, Contents::None)
            }
            EntryType::Link => {
                let target = self::path(link(entry)?.as_bytes())?;
                self.links.push((path, target));
                return Ok(());
            }
            // Devices, pipes: a package has none.
            _ => return Ok(()),
        };
        let item = Item::Entry(Entry { node, mode, uid, gid });
        self.entries.insert(path.clone(), Planned { path, item, contents, mtime: Some(mtime) });
        Ok(())
    }

    fn file(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        path: &str,
    ) -> Result<(Node, Contents), DebianError> {
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.bytes > LAYER_UNPACKED_MAX {
            let reason = format!("the root has more than {LAYER_UNPACKED_MAX} bytes");
            return Err(DebianError::Entry { path: path.to_owned(), reason });
        }
        let spooled = self.contents.add(entry).map_err(DebianError::Read)?;
        Ok((Node::File { size: spooled.size, digest: spooled.digest }, Contents::Spooled(spooled.offset)))
    }

    /// Notes the suite's release file: the first in the order of names is that of the mirror.
    fn take_release(&mut self, entry: &mut impl Read) -> Result<(), DebianError> {
        let mut hash = Sha256::new();
        let mut buffer = [0; 8192];
        let mut bounded = entry.take(RELEASE_MAX);
        loop {
            let count = bounded.read(&mut buffer).map_err(DebianError::Read)?;
            if count == 0 {
                break;
            }
            hash.update(buffer.get(..count).unwrap_or_default());
        }
        self.release.get_or_insert(Digest::from_bytes(hash.finalize().into()));
        Ok(())
    }

    fn finish(mut self, wanted: &Wanted<'_>) -> Result<Root, DebianError> {
        let release = self.release.ok_or(DebianError::NoRelease)?;
        self.settle_links()?;
        self.add_sources(wanted);
        let items = self.entries.into_values().collect();
        Ok(Root { items, contents: self.contents, release })
    }

    /// Of the names of one file, the first in order holds the contents: that is the order of a
    /// layer's entries.
    fn settle_links(&mut self) -> Result<(), DebianError> {
        let mut groups: BTreeMap<Box<str>, Vec<Box<str>>> = BTreeMap::new();
        for (path, target) in std::mem::take(&mut self.links) {
            groups.entry(target).or_default().push(path);
        }
        for (target, mut names) in groups {
            let Some(planned) = self.entries.remove(&target) else {
                let reason = "it is a hard link to what the root does not have".to_owned();
                return Err(DebianError::Entry {
                    path: names.first().map(ToString::to_string).unwrap_or_default(),
                    reason,
                });
            };
            names.push(target);
            names.sort();
            let mut names = names.into_iter();
            let Some(first) = names.next() else { continue };
            for name in names {
                let item = Item::HardLink(first.clone());
                let planned =
                    Planned { path: name.clone(), item, contents: Contents::None, mtime: planned.mtime };
                self.entries.insert(name, planned);
            }
            self.entries.insert(first.clone(), Planned { path: first, ..planned });
        }
        Ok(())
    }

    fn add_sources(&mut self, wanted: &Wanted<'_>) {
        let text = format!("deb {DEFAULT_MIRROR} {} main\n", wanted.suite);
        let digest = Digest::from_bytes(Sha256::digest(text.as_bytes()).into());
        let node = Node::File { size: text.len() as u64, digest };
        let contents = Contents::Memory(Arc::from(text.into_bytes()));
        let item = Item::Entry(Entry { node, mode: 0o644, uid: 0, gid: 0 });
        let mtime = Some(wanted.options.source_date_epoch);
        self.entries.insert(SOURCES.into(), Planned { path: SOURCES.into(), item, contents, mtime });
    }
}

/// A path of the tar without `./` and slashes around it; empty is the root.
fn path(bytes: &[u8]) -> Result<Box<str>, DebianError> {
    let text = str::from_utf8(bytes).map_err(|_| DebianError::Entry {
        path: String::from_utf8_lossy(bytes).escape_debug().to_string(),
        reason: "its name is not UTF-8".to_owned(),
    })?;
    let text = text.strip_prefix("./").unwrap_or(text).trim_matches('/');
    Ok(if text == "." { "".into() } else { text.into() })
}

fn is_out(path: &str) -> bool {
    let below = |directory: &&str| path.strip_prefix(*directory).is_some_and(|rest| rest.starts_with('/'));
    // dpkg keeps the file lists of before its last change beside those of now.
    let old = path.starts_with("var/lib/dpkg/") && path.ends_with("-old");
    old || OUT.contains(&path) || EMPTY.iter().any(|directory| below(&directory))
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
        assert_eq!(&*path(b"./usr/bin/").unwrap(), "usr/bin");
        assert_eq!(&*path(b"./").unwrap(), "");
        assert!(path(b"./a\xff").is_err());
    }
}
