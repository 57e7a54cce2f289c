//! Lists what is in a layer, without unpacking it.

use super::{Budget, Entries, LayerError, Whiteout};
use crate::hashing::Hashing;
use crate::oci::Descriptor;
use crate::tarball;
use aos_core::id::Digest;
use aos_core::path::RelativePath;
use std::fs::File;
use std::io;
use std::iter::FusedIterator;

/// What an entry of a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file and the digest of its contents.
    File(Digest),
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(String),
    /// A hard link and the file that it leads to.
    HardLink(RelativePath),
    /// What the layers below have at this path is hidden.
    Whiteout,
    /// What the layers below have in this directory is hidden.
    Opaque,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its path below the root; of a whiteout, what is hidden. `None` is the root, which can only
    /// be [`Kind::Opaque`].
    pub path: Option<RelativePath>,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file, 0 of all others.
    pub size: u64,
    /// Permission bits as written, special bits included.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// The entries of a layer in the order in which it has them, within the bounds of a package. Each
/// comes as soon as it has been read; that the layer is the declared one is known when the iterator
/// ends without an error.
///
/// Unlike unpacking, it does not notice entries that come twice or that lead nowhere.
pub struct Items {
    entries: Option<Entries>,
    budget: Budget,
}

impl Items {
    /// Reads a blob from its start. `diff_id` is the digest of the tar in it.
    pub fn open(blob: File, layer: &Descriptor, diff_id: Digest) -> Result<Self, LayerError> {
        let budget = Budget::of_package();
        Ok(Self { entries: Some(Entries::open(blob, layer, diff_id, &budget)?), budget })
    }
}

impl Iterator for Items {
    type Item = Result<Item, LayerError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = item(self.entries.as_mut()?, &mut self.budget).transpose();
        if !matches!(item, Some(Ok(_))) {
            self.entries = None;
        }
        item
    }
}

impl FusedIterator for Items {}

fn item(entries: &mut Entries, budget: &mut Budget) -> Result<Option<Item>, LayerError> {
    let Some((entry, whiteout)) = entries.next(budget)? else { return Ok(None) };
    let (path, kind) = match whiteout {
        Some(Whiteout::Path(path)) => (Some(path), Kind::Whiteout),
        Some(Whiteout::Contents(path)) => (path, Kind::Opaque),
        None => {
            let kind = match entry.kind {
                tarball::Kind::File => {
                    let mut hash = Hashing::new(io::sink());
                    let contents = entries.contents();
                    while let bytes @ [_, ..] = contents.fill_contents()? {
                        hash.note(bytes);
                        let count = bytes.len();
                        contents.consume(count);
                    }
                    Kind::File(hash.finish().1)
                }
                tarball::Kind::Directory => Kind::Directory,
                tarball::Kind::Symlink(target) => Kind::Symlink(target),
                tarball::Kind::HardLink(target) => Kind::HardLink(target),
            };
            (Some(entry.path), kind)
        }
    };
    Ok(Some(Item { path, kind, size: entry.size, mode: entry.mode, mtime: entry.mtime }))
}
