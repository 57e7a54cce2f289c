//! Reads what a layer lists.

use crate::cache::Layer;
use crate::error::BuildError;
use crate::tree::{Entry, Item, Listing, Node};
use aos_core::path::RelativePath;
use aos_package::layer::LayerError;
use aos_package::layer::read::{Item as Read, Items, Kind};
use aos_package::repository::Repository;

/// Permission bits of entries, and the sticky bit of directories.
const MODE: u32 = 0o1777;

/// What a layer lists, in its order; its contents are verified on the way. Who owns what in a
/// foreign layer is not taken over: it is root's.
pub(crate) fn listing(repository: &Repository, layer: &Layer) -> Result<Listing, BuildError> {
    let refused = |source: LayerError| BuildError::Refused { digest: layer.blob.digest, source };
    let blob = repository.open_blob(&layer.blob.digest)?;
    let items = Items::open(blob, &layer.blob, layer.diff_id).map_err(refused)?;
    items.map(|item| item.map(entry).map_err(refused)).collect()
}

fn entry(read: Read) -> (Box<str>, Item) {
    let path = read.path.as_ref().map_or("", RelativePath::as_str).into();
    let owned = |node: Node| Item::Entry(Entry { node, mode: read.mode & MODE, uid: 0, gid: 0 });
    let item = match read.kind {
        Kind::File(digest) => owned(Node::File { size: read.size, digest }),
        Kind::Directory => owned(Node::Directory),
        Kind::Symlink(target) => owned(Node::Symlink(target.into())),
        Kind::HardLink(target) => Item::HardLink(target.as_str().into()),
        Kind::Whiteout => Item::Whiteout,
        Kind::Opaque => Item::Opaque,
    };
    (path, item)
}
