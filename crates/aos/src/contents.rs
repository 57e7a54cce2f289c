//! The files of a package, as its layers leave them: listed without unpacking, or unpacked into a folder.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use aos_package::layer::read::{Item, Items, Kind};
use aos_package::oci::{Descriptor, Manifest, PackageConfig};
use aos_package::repository::Repository;
use aos_package::unpack::{self, Layer, Options, Summary};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// What it is, with the digest of a file's contents or the target of a link.
    pub(crate) kind: Kind,
    /// Bytes of a file.
    pub(crate) size: u64,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
}

/// The files by their paths below the root.
pub(crate) type Files = BTreeMap<String, Node>;

/// Reads the files of a package.
pub(crate) fn files(repository: &Repository, manifest: &Manifest, config: &PackageConfig) -> Result<Files> {
    let mut files = Files::new();
    for (layer, diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
        let refused = || format!("cannot read the layer {}", layer.digest);
        let blob = repository.open_blob(&layer.digest)?;
        let items: Vec<Item> =
            Items::open(blob, layer, *diff_id).and_then(|items| items.collect()).with_context(refused)?;
        // A layer hides what is below it, and nothing of itself.
        for item in &items {
            hide(&mut files, item);
        }
        files.extend(items.into_iter().filter_map(node));
    }
    Ok(files)
}

/// Unpacks the layers of a package into an empty folder, which is nobody else's meanwhile.
pub(crate) fn unpack(
    repository: &Repository,
    layers: &[Descriptor],
    config: &PackageConfig,
    folder: &Path,
    options: Options,
) -> Result<Summary> {
    let open: Vec<_> = layers
        .iter()
        .map(|layer| move || repository.open_blob(&layer.digest).map_err(io::Error::other))
        .collect();
    let layers: Vec<Layer<'_>> = layers
        .iter()
        .zip(&config.diff_ids)
        .zip(&open)
        .map(|((descriptor, diff_id), open)| Layer { descriptor, diff_id: *diff_id, open })
        .collect();
    unpack::unpack(&layers, folder, options)
        .with_context(|| format!("cannot unpack {}", config.agent.reference()))
}

/// Takes away what a whiteout hides.
fn hide(files: &mut Files, item: &Item) {
    let path = item.path.as_ref().map(|path| path.as_str());
    match (&item.kind, path) {
        (Kind::Whiteout, Some(path)) => {
            files.remove(path);
            remove_below(files, path);
        }
        (Kind::Opaque, Some(path)) => remove_below(files, path),
        (Kind::Opaque, None) => files.clear(),
        // A file in the place of a directory takes all that was in it.
        (Kind::File(_) | Kind::Symlink(_) | Kind::HardLink(_), Some(path)) => remove_below(files, path),
        _ => {}
    }
}

fn remove_below(files: &mut Files, path: &str) {
    let prefix = format!("{path}/");
    let below: Vec<String> = files
        .range(prefix.clone()..)
        .take_while(|(other, _)| other.starts_with(&prefix))
        .map(|(p, _)| p.clone())
        .collect();
    for path in below {
        files.remove(&path);
    }
}

fn node(item: Item) -> Option<(String, Node)> {
    let path = item.path?.as_str().to_owned();
    match item.kind {
        Kind::Whiteout | Kind::Opaque => None,
        kind => Some((path, Node { kind, size: item.size, mode: item.mode, mtime: item.mtime })),
    }
}
