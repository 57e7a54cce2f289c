//! Unpacks layers into one directory tree.
//!
//! Each layer is read once: while it is decompressed and hashed on other threads, this one makes
//! its files. So a part of a bad layer is on disk before it is known to be bad; it is in a
//! directory that nobody else uses yet, and that the caller removes after an error.
//!
//! Every operation goes through the descriptor of the parent directory, which is opened beneath the
//! tree's root without following a single symbolic link: no entry can reach outside, whatever
//! earlier entries made (see [`tree`]).
//!
//! Owners, set-uid and set-gid bits and extended attributes of the layers are not taken over: all
//! belongs to the user of this process.

use crate::layer::{Budget, Entries, LayerError};
use crate::oci::Descriptor;
use aos_core::id::Digest;
use std::fs::File;
use std::io;
use std::path::Path;
use thiserror::Error;
use tree::{Root, Tree};

mod tree;

/// Why layers cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// A layer is refused.
    #[error("the layer {digest} is refused")]
    Layer {
        /// The layer.
        digest: Digest,
        /// Why.
        source: LayerError,
    },
    /// An entry cannot be made.
    #[error("cannot unpack `{path}`")]
    Entry {
        /// The entry.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The way to an entry has a symbolic link.
    #[error("cannot unpack `{0}`: a symbolic link or a file is on the way to it")]
    Way(String),
    /// A layer has two entries of one name.
    #[error("cannot unpack `{0}`: the layer has it twice")]
    Twice(String),
    /// A hard link does not lead to a file of the package.
    #[error("the hard link `{path}` leads to `{target}`, which is not a file of the package")]
    HardLink {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
    },
}

/// One layer to be unpacked.
pub struct Layer<'a> {
    /// Its media type, digest and size. The digest is for messages; `diff_id` is what is checked.
    pub descriptor: &'a Descriptor,
    /// The digest of the tar inside.
    pub diff_id: Digest,
    /// Opens the blob at its start, when its turn comes; it is read once.
    pub open: &'a dyn Fn() -> io::Result<File>,
}

/// Which permission bits entries get. Set-uid and set-gid bits are never taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Modes {
    /// Files are 0644, or 0755 when anybody may execute them; directories are 0755.
    #[default]
    Plain,
    /// As written (0o777, and the sticky bit of directories), and always at least 0o400 of files and
    /// 0o700 of directories: their owner reads and removes them without privileges.
    Kept,
}

/// How layers are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Permission bits.
    pub modes: Modes,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Entries of all layers, whiteouts and directories that only paths name included.
    pub entries: u64,
    /// Bytes of the tars of all layers.
    pub bytes: u64,
}

/// Unpacks layers, lowest first, into the empty directory `root`, which must be private to this
/// process until it returns. Nothing is made durable: the caller syncs the file system once. After
/// an error `root` has a part of the package, which the caller removes.
///
/// Within a layer the order of entries matters little: whiteouts hide what is in the layers below,
/// wherever they are in it. Directories may come again, other entries not.
pub fn unpack(layers: &[Layer<'_>], root: &Path, options: Options) -> Result<Summary, UnpackError> {
    let mut budget = Budget::of_package();
    let root = Root::open(root, options.modes)?;
    for (index, layer) in layers.iter().enumerate() {
        let digest = layer.descriptor.digest;
        let tree = if index == 0 { root.lowest(digest) } else { root.next(digest) };
        unpack_layer(layer, tree, &mut budget)?;
    }
    let (entries, bytes) = budget.taken();
    Ok(Summary { entries, bytes })
}

fn unpack_layer(layer: &Layer<'_>, mut tree: Tree<'_>, budget: &mut Budget) -> Result<(), UnpackError> {
    let refused = |source| UnpackError::Layer { digest: layer.descriptor.digest, source };
    let blob = (layer.open)().map_err(|error| refused(error.into()))?;
    let mut entries = Entries::open(blob, layer.descriptor, layer.diff_id, budget).map_err(refused)?;
    while let Some((entry, whiteout)) = entries.next(budget).map_err(refused)? {
        match whiteout {
            Some(whiteout) => tree.hide(&whiteout)?,
            None => tree.make(&entry, entries.contents(), budget)?,
        }
    }
    Ok(())
}
