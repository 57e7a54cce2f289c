//! Builds twice and compares: does the same input give the same bytes?

use crate::bases::Bases;
use crate::engine::{Built, build};
use crate::error::BuildError;
use crate::options::{CacheUse, Options, Request};
use crate::progress::Progress;
use aos_core::id::Digest;
use aos_package::layer::LayerError;
use aos_package::layer::read::{Item, Items, Kind};
use aos_package::oci::Descriptor;
use aos_package::repository::{BlobError, Repository, RepositoryError};
use serde::Serialize;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why two builds cannot be compared.
#[derive(Debug, Error)]
pub enum ReproduceError {
    /// A build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A store for the comparison cannot be made.
    #[error("cannot make a store in `{}`", .directory.display())]
    Scratch {
        /// The directory.
        directory: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A store failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A blob cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A layer cannot be read.
    #[error("the layer {digest} cannot be read again")]
    Layer {
        /// The layer.
        digest: Digest,
        /// Why not.
        source: LayerError,
    },
}

/// What the comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The digests of the two packages.
    pub digests: [Digest; 2],
    /// The first difference; `None` when the packages are the same.
    pub difference: Option<Difference>,
}

/// Where two packages differ first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// A file of a layer.
    Path {
        /// The layer's number, counted from 1, the lowest first.
        layer: usize,
        /// The file.
        path: String,
        /// What of it.
        what: String,
    },
    /// The layers list the same, and their bytes differ.
    Bytes {
        /// The layer's number, counted from 1, the lowest first.
        layer: usize,
    },
    /// One has more layers.
    Layers {
        /// How many each has.
        counts: [usize; 2],
    },
    /// The layers are the same, and what the configs carry differs.
    Config,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { layer, path, what } => write!(f, "layer {layer}: `/{path}` {what}"),
            Self::Bytes { layer } => write!(f, "layer {layer}: the same files in other bytes"),
            Self::Layers { counts: [one, two] } => write!(f, "one has {one} layers, the other {two}"),
            Self::Config => f.write_str("the same layers, and another config"),
        }
    }
}

/// Builds twice without any cache, in two stores below `scratch` that go with it, and compares.
pub fn check_reproducible(
    request: &Request<'_>,
    scratch: &Path,
    bases: &dyn Bases,
    progress: &dyn Progress,
) -> Result<Comparison, ReproduceError> {
    let store = || {
        let place = |source| ReproduceError::Scratch { directory: scratch.to_owned(), source };
        let directory =
            tempfile::Builder::new().prefix("aos-reproduce-").tempdir_in(scratch).map_err(place)?;
        // Steps run as another user, who must find their files.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(directory.path(), open).map_err(place)?;
        Ok::<_, ReproduceError>((Repository::open(&directory.path().join("store"))?, directory))
    };
    let ((first, _one), (second, _two)) = (store()?, store()?);
    let options = Options { cache: CacheUse::Ignore, ..request.options.clone() };
    let request = Request { options, ..request.clone() };
    let one = build(&request, &first, bases, progress)?;
    let two = build(&request, &second, bases, progress)?;
    let difference =
        if one.digest == two.digest { None } else { Some(compare((&first, &one), (&second, &two))?) };
    Ok(Comparison { digests: [one.digest, two.digest], difference })
}

type Side<'a> = (&'a Repository, &'a Built);

/// The first difference of two packages that are not the same.
fn compare(one: Side<'_>, two: Side<'_>) -> Result<Difference, ReproduceError> {
    let (a, b) = (one.0.package(&one.1.manifest)?, two.0.package(&two.1.manifest)?);
    let layers = a.0.layers.iter().zip(&a.1.diff_ids).zip(b.0.layers.iter().zip(&b.1.diff_ids));
    for (index, (a, b)) in layers.enumerate() {
        if a == b {
            continue;
        }
        let found = differing(items(one.0, a)?, items(two.0, b)?)?;
        return Ok(match found {
            Some((path, what)) => Difference::Path { layer: index + 1, path, what },
            None => Difference::Bytes { layer: index + 1 },
        });
    }
    let counts = [a.0.layers.len(), b.0.layers.len()];
    Ok(if counts[0] == counts[1] { Difference::Config } else { Difference::Layers { counts } })
}

fn items(repository: &Repository, layer: (&Descriptor, &Digest)) -> Result<Vec<Item>, ReproduceError> {
    let (blob, &diff_id) = layer;
    let failed = |source| ReproduceError::Layer { digest: blob.digest, source };
    let items = Items::open(repository.open_blob(&blob.digest)?, blob, diff_id).map_err(failed)?;
    items.collect::<Result<_, _>>().map_err(failed)
}

/// The first path of two sorted lists at which they differ, and in what.
fn differing(one: Vec<Item>, two: Vec<Item>) -> Result<Option<(String, String)>, ReproduceError> {
    let (mut one, mut two) = (one.into_iter().peekable(), two.into_iter().peekable());
    loop {
        let path = |item: &Item| item.path.as_ref().map(ToString::to_string).unwrap_or_default();
        let (a, b) = (one.peek(), two.peek());
        let only = |item: &Item, which: &str| Ok(Some((path(item), format!("is only in the {which} build"))));
        match (a, b) {
            (None, None) => return Ok(None),
            (Some(a), None) => return only(a, "first"),
            (None, Some(b)) => return only(b, "second"),
            (Some(a), Some(b)) if path(a) < path(b) => return only(a, "first"),
            (Some(a), Some(b)) if path(a) > path(b) => return only(b, "second"),
            (Some(a), Some(b)) if a != b => return Ok(Some((path(a), difference(a, b)))),
            _ => {
                one.next();
                two.next();
            }
        }
    }
}

fn difference(a: &Item, b: &Item) -> String {
    let what = match (&a.kind, &b.kind) {
        (Kind::File(one), Kind::File(two)) if one != two => {
            return format!("has other contents: {} and {} bytes", a.size, b.size);
        }
        (one, two) if one != two => "is something else",
        _ if a.mode != b.mode => return format!("has other permissions: {:o} and {:o}", a.mode, b.mode),
        _ => "has another time",
    };
    what.to_owned()
}
