//! Directory registries: OCI image layouts with several tags, as skopeo reads and writes them
//! (`oci:PATH:NAME:TAG`). A shared directory, or a medium that is carried to a machine without a
//! network.
//!
//! ```text
//! oci-layout, index.json, blobs/sha256/<hex>     OCI image layout 1.0
//! .aos/lock                                      locked by who changes index.json
//! .aos/<random>                                  a file that is being made, locked by its maker
//! ```
//!
//! **Names.** A package's entry in `index.json` has its name in `org.opencontainers.image.ref.name`;
//! what is attached to it has an entry without a name, with its `artifactType` and its subject in
//! `org.aos.subject`. Entries of other tools stay as they are.
//!
//! **Order and concurrency.** Blobs are written to a file, verified, fsynced and renamed; the index
//! is read again, changed and replaced under the lock, last. So concurrent pushers lose nothing,
//! and who reads sees packages that are complete. Other tools do not know the lock: two of them
//! at once lose an entry, as they do among themselves. Nothing is ever deleted here.
//!
//! All functions block: they are for a thread, not for a task.

mod pull;
mod push;

pub use pull::pull;
pub use push::push;

use crate::entries::Entries;
use crate::manifest::digest_of;
use crate::pull::PullError;
use crate::push::PushError;
use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::bounds::{INDEX_MAX, STORE_INDEX_MAX};
use aos_package::oci::{Descriptor, OciError, REF_NAME, check_layout};
use aos_package::repository::{AttachError, BlobError, RepositoryError};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a directory registry is not read or written.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A file cannot be read or written.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It is not an image layout.
    #[error("`{}` is not an OCI image layout", .path.display())]
    Layout {
        /// The file that is wrong.
        path: PathBuf,
        /// What is wrong.
        source: OciError,
    },
    /// A file has more bytes than it may have.
    #[error("`{}` has more than {max} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// There is no such name.
    #[error("`{name}` is not in the directory `{}`, there is {}", .path.display(), List(.known))]
    NotFound {
        /// The directory.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// The names that are there.
        known: Vec<String>,
    },
    /// The name is missing, and there are several.
    #[error("the directory `{}` has several names, say which: {}", .path.display(), List(.known))]
    Several {
        /// The directory.
        path: PathBuf,
        /// The names that are there.
        known: Vec<String>,
    },
    /// A blob is missing.
    #[error("the directory `{}` has no blob {digest}", .path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
        /// The blob.
        digest: Digest,
    },
    /// A blob is something else than its name says.
    #[error("the blob {digest} in `{}` is altered", .path.display())]
    Altered {
        /// The directory.
        path: PathBuf,
        /// The blob.
        digest: Digest,
    },
    /// What is there cannot be pulled.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// What is in the store cannot be pushed.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A blob is not what was expected, or the store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The store failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// An attachment cannot be kept.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl LayoutError {
    /// True when the name is not there.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Names in a message.
struct List<'a>(&'a [String]);

/// Names that a message lists.
const LISTED_MAX: usize = 10;

impl std::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.0.iter().take(LISTED_MAX).map(|name| crate::shown::shown(name)).collect();
        match (names.is_empty(), self.0.len() > LISTED_MAX) {
            (true, _) => f.write_str("no name"),
            (false, more) => write!(f, "{}{}", names.join(", "), if more { ", ..." } else { "" }),
        }
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> LayoutError + 'a {
    move |source| LayoutError::Io { action, path: path.to_owned(), source }
}

/// What a directory registry has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The name, as it is written.
    pub name: String,
    /// The manifest.
    pub descriptor: Descriptor,
}

/// The names in a directory registry, sorted.
pub fn tags(path: &Path) -> Result<Vec<Named>, LayoutError> {
    let directory = Directory::new(path);
    directory.check()?;
    Ok(names(&directory.index()?))
}

fn names(index: &Entries) -> Vec<Named> {
    let named = |mut descriptor: Descriptor| {
        let name = descriptor.annotations.remove(REF_NAME)?;
        Some(Named { name, descriptor })
    };
    let mut found: Vec<_> = index.descriptors().filter_map(named).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The paths of a directory registry.
struct Directory {
    path: PathBuf,
    layout: PathBuf,
    index: PathBuf,
    blobs: PathBuf,
    own: PathBuf,
}

impl Directory {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            layout: path.join("oci-layout"),
            index: path.join("index.json"),
            blobs: path.join("blobs/sha256"),
            own: path.join(".aos"),
        }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Checks the file `oci-layout`.
    fn check(&self) -> Result<(), LayoutError> {
        let bytes = read(&self.layout, INDEX_MAX)?;
        check_layout(&bytes).map_err(|source| LayoutError::Layout { path: self.layout.clone(), source })
    }

    fn index(&self) -> Result<Entries, LayoutError> {
        let bytes = read(&self.index, STORE_INDEX_MAX)?;
        Entries::parse(&bytes).map_err(|source| LayoutError::Layout { path: self.index.clone(), source })
    }

    /// Opens a blob of a known size.
    fn open_blob(&self, digest: Digest, size: u64) -> Result<File, LayoutError> {
        let path = self.blob(&digest);
        let file = match open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LayoutError::Missing { path: self.path.clone(), digest });
            }
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let found = file.metadata().map_err(failed("read", &path))?.len();
        if found == size { Ok(file) } else { Err(BlobError::Size { digest, expected: size, found }.into()) }
    }

    /// The contents of a blob of at most `max` bytes, verified.
    fn read_blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>, LayoutError> {
        let path = self.blob(&descriptor.digest);
        if descriptor.size > max {
            return Err(LayoutError::TooLarge { path, max });
        }
        let mut bytes = Vec::new();
        let file = self.open_blob(descriptor.digest, descriptor.size)?;
        file.take(descriptor.size).read_to_end(&mut bytes).map_err(failed("read", &path))?;
        if digest_of(&bytes) != descriptor.digest {
            return Err(LayoutError::Altered { path: self.path.clone(), digest: descriptor.digest });
        }
        Ok(bytes)
    }

    /// The entry that a name means: the one with exactly this name; without a tag or digest, the
    /// one with the highest version; without a name, the only one.
    fn find(&self, index: &Entries, name: Option<&Reference>) -> Result<Named, LayoutError> {
        let mut all = names(index);
        let known = || names(index).into_iter().map(|named| named.name).collect();
        let Some(name) = name else {
            return match (all.len(), all.pop()) {
                (1, Some(only)) => Ok(only),
                (0, _) => Err(LayoutError::NotFound {
                    path: self.path.clone(),
                    name: String::new(),
                    known: known(),
                }),
                _ => Err(LayoutError::Several { path: self.path.clone(), known: known() }),
            };
        };
        let text = name.to_string();
        let parsed = |named: &Named| named.name.parse::<Reference>().ok();
        let version = |named: &Named| {
            let other = parsed(named).filter(|other| other.repository() == name.repository())?;
            other.tag?.version()
        };
        let exact = all.iter().find(|named| named.name == text);
        let found = match name.digest {
            Some(digest) => all.iter().find(|named| named.descriptor.digest == digest),
            None if name.tag.is_none() => exact.or_else(|| {
                all.iter().filter(|named| version(named).is_some()).max_by_key(|named| version(named))
            }),
            None => exact,
        };
        let missing =
            || LayoutError::NotFound { path: self.path.clone(), name: text.clone(), known: known() };
        found.cloned().ok_or_else(missing)
    }
}

/// Opens a regular file. A pipe or device in the place of a blob must not make us wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file = File::options().read(true).custom_flags(flags.cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = Vec::new();
    let file = open(path).map_err(failed("open", path))?;
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > max {
        return Err(LayoutError::TooLarge { path: path.to_owned(), max });
    }
    Ok(bytes)
}
