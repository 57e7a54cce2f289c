//! Reads tars that other programs made into the items of a layer: devices and pipes are left out,
//! which packages do not have; names are sorted; owners are kept as numbers. Contents go to a
//! [`Spool`].

use crate::layer::{Contents, Planned};
use crate::spool::Spool;
use crate::tree::{Entry, Item, Node};
use aos_package::bounds::{FILES_MAX, LAYER_UNPACKED_MAX, LINK_MAX, PATH_MAX};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use tar::EntryType;
use thiserror::Error;

/// The prefix of a whiteout's name, and the name of the whiteout of all in its directory (OCI image
/// specification, "Whiteouts").
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Why a tar cannot become a layer.
#[derive(Debug, Error)]
pub enum TarballError {
    /// It cannot be read.
    #[error("the tar cannot be read")]
    Read(#[from] io::Error),
    /// It has something that no package can have.
    #[error("`{path}` cannot be packed: {reason}")]
    Entry {
        /// The entry.
        path: String,
        /// Why.
        reason: String,
    },
}

/// The items of a layer while they are collected.
pub(crate) struct Collected {
    items: BTreeMap<(Box<str>, bool), Planned>,
    /// Hard links, each with the file that it leads to.
    links: Vec<(Box<str>, Box<str>)>,
    contents: Spool,
    bytes: u64,
}

impl Collected {
    /// Nothing yet; contents go to a file in `scratch`.
    pub(crate) fn new(scratch: &Path) -> io::Result<Self> {
        let contents = Spool::new(scratch)?;
        Ok(Self { items: BTreeMap::new(), links: Vec::new(), contents, bytes: 0 })
    }

    /// Puts an item in its place; what an opaque directory hides stands beside the directory.
    pub(crate) fn put(&mut self, planned: Planned) {
        self.items.insert((planned.path.clone(), planned.item == Item::Opaque), planned);
    }

    /// Takes an entry of a tar. Its time is at most `latest`.
    pub(crate) fn take(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        path: Box<str>,
        latest: u64,
    ) -> Result<(), TarballError> {
        let refused = |reason: &str| refused(&path, reason);
        if path.is_empty() {
            return Ok(());
        }
        if path.len() > PATH_MAX || self.items.len() >= FILES_MAX {
            return Err(refused("there are too many files, or its path is too long"));
        }
        let header = entry.header();
        let number = |number: io::Result<u64>| number.ok().and_then(|n| u32::try_from(n).ok());
        let (Some(uid), Some(gid)) = (number(header.uid()), number(header.gid())) else {
            return Err(refused("its owner is not a number"));
        };
        let (mode, mtime) = (header.mode()?, Some(header.mtime()?.min(latest)));
        let (node, mode, contents) = match header.entry_type() {
            EntryType::Directory => (Node::Directory, mode & 0o1777, Contents::None),
            EntryType::Regular | EntryType::Continuous => {
                if let Some(planned) = whiteout(&path) {
                    self.put(planned);
                    return Ok(());
                }
                let (node, contents) = self.file(entry, &path)?;
                (node, mode & 0o777, contents)
            }
            EntryType::Symlink => {
                let target = link(entry, &path)?;
                if target.is_empty() || target.len() > LINK_MAX {
                    return Err(refused("its target is too long"));
                }
                (Node::Symlink(target.into()), 0o777, Contents::None)
            }
            EntryType::Link => {
                let target = self::path(link(entry, &path)?.as_bytes())?;
                self.links.push((path, target));
                return Ok(());
            }
            // Devices and pipes.
            _ => return Ok(()),
        };
        let item = Item::Entry(Entry { node, mode, uid, gid });
        self.put(Planned { path, item, contents, mtime });
        Ok(())
    }

    fn file(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        path: &str,
    ) -> Result<(Node, Contents), TarballError> {
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.bytes > LAYER_UNPACKED_MAX {
            return Err(refused(path, &format!("the files have more than {LAYER_UNPACKED_MAX} bytes")));
        }
        let spooled = self.contents.add(entry)?;
        Ok((Node::File { size: spooled.size, digest: spooled.digest }, Contents::Spooled(spooled.offset)))
    }

    /// The items, sorted, and their contents. Of the names of one file, the first in order holds
    /// the contents: that is the order of a layer's entries.
    pub(crate) fn finish(mut self) -> Result<(Vec<Planned>, Spool), TarballError> {
        let mut groups: BTreeMap<Box<str>, Vec<Box<str>>> = BTreeMap::new();
        for (path, target) in std::mem::take(&mut self.links) {
            groups.entry(target).or_default().push(path);
        }
        for (target, mut names) in groups {
            let found = self.items.remove(&(target.clone(), false));
            let Some(planned) = found.filter(|found| !matches!(found.contents, Contents::None)) else {
                let path = names.first().map(ToString::to_string).unwrap_or_default();
                return Err(refused(&path, "it is a hard link to what is no file of the same tar"));
            };
            names.push(target);
            names.sort();
            names.dedup();
            let mut names = names.into_iter();
            let Some(first) = names.next() else { continue };
            for name in names {
                let item = Item::HardLink(first.clone());
                self.put(Planned { path: name, item, contents: Contents::None, mtime: planned.mtime });
            }
            self.put(Planned { path: first, ..planned });
        }
        Ok((self.items.into_values().collect(), self.contents))
    }
}

fn refused(path: &str, reason: &str) -> TarballError {
    TarballError::Entry { path: path.to_owned(), reason: reason.to_owned() }
}

fn link(entry: &tar::Entry<'_, impl Read>, path: &str) -> Result<String, TarballError> {
    let target = entry.link_name_bytes().map(|bytes| bytes.into_owned()).unwrap_or_default();
    String::from_utf8(target).map_err(|_| refused(path, "its target is not UTF-8"))
}

/// The item that a whiteout's name stands for.
fn whiteout(path: &str) -> Option<Planned> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let hidden = name.strip_prefix(WHITEOUT)?;
    let (path, item) = if name == OPAQUE {
        (above.to_owned(), Item::Opaque)
    } else if above.is_empty() {
        (hidden.to_owned(), Item::Whiteout)
    } else {
        (format!("{above}/{hidden}"), Item::Whiteout)
    };
    Some(Planned { path: path.into(), item, contents: Contents::None, mtime: None })
}

/// A path of a tar without `./` and slashes around it; empty is the root.
pub(crate) fn path(bytes: &[u8]) -> Result<Box<str>, TarballError> {
    let text = str::from_utf8(bytes).map_err(|_| {
        refused(&String::from_utf8_lossy(bytes).escape_debug().to_string(), "its name is not UTF-8")
    })?;
    let text = text.strip_prefix("./").unwrap_or(text).trim_matches('/');
    Ok(if text == "." { "".into() } else { text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative() {
        assert_eq!(&*path(b"./usr/bin/").unwrap(), "usr/bin");
        assert_eq!(&*path(b"/usr/bin").unwrap(), "usr/bin");
        assert_eq!(&*path(b"./").unwrap(), "");
        assert!(path(b"./a\xff").is_err());
    }

    #[test]
    fn whiteouts() {
        let of = |path: &str| whiteout(path).map(|planned| (planned.path.to_string(), planned.item));
        assert_eq!(of("a/.wh.b"), Some(("a/b".to_owned(), Item::Whiteout)));
        assert_eq!(of(".wh.b"), Some(("b".to_owned(), Item::Whiteout)));
        assert_eq!(of("a/.wh..wh..opq"), Some(("a".to_owned(), Item::Opaque)));
        assert_eq!(of("a/b"), None);
    }
}
