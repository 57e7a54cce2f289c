//! Why the operations of a repository fail, an enum for each.

use crate::oci::OciError;
use aos_core::id::Digest;
use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a repository cannot be used.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// Another process has it open, or has kept it locked for long.
    #[error("the package store `{}` is in use by another process", .0.display())]
    Locked(PathBuf),
    /// A file of the store cannot be read or written.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The index is damaged.
    #[error("the package store's `{}` is damaged", .path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<OciError>,
    },
    /// The index has more bytes than one may have.
    #[error("the index of the package store has {found} bytes, at most {max} are allowed: remove tags")]
    IndexTooLarge {
        /// What it has, or would have.
        found: u64,
        /// The bound.
        max: u64,
    },
}

/// Names a file in an error.
pub(crate) fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> RepositoryError + 'a {
    move |source| RepositoryError::Io { action, path: path.to_owned(), source }
}

/// Why a blob cannot be read, or is not taken.
#[derive(Debug, Error)]
pub enum BlobError {
    /// It is not in the store.
    #[error("the blob {0} is not in the store")]
    Missing(Digest),
    /// It does not have the size that refers to it.
    #[error("the blob {digest} has {found} bytes, expected {expected}")]
    Size {
        /// The blob.
        digest: Digest,
        /// What refers to it says.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// Its contents do not have its digest.
    #[error("the blob {expected} is altered: its contents have digest {found}")]
    Altered {
        /// The name.
        expected: Digest,
        /// The digest of the contents.
        found: Digest,
    },
    /// It has more bytes than may be read at once.
    #[error("the blob {digest} has {found} bytes, at most {max} are allowed")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// What it has.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// It is not the JSON that it should be.
    #[error("the blob {digest} is not what its media type says")]
    Json {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        source: Box<OciError>,
    },
    /// The store failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Why a tag is not set.
#[derive(Debug, Error)]
pub enum TagError {
    /// The reference has no tag, or has a digest as well.
    #[error("`{0}` cannot be a tag: it must be a name and a tag, without a digest")]
    Reference(String),
    /// Only a manifest can have a tag.
    #[error("{0} is not the media type of an image manifest")]
    MediaType(String),
    /// The manifest or something of it is not there.
    #[error("the package {digest} is not complete")]
    Incomplete {
        /// The manifest.
        digest: Digest,
        /// What is wrong.
        source: BlobError,
    },
    /// The store failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Why something is not attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// Its manifest or something of it cannot be used.
    #[error("the attachment {digest} cannot be used")]
    Attachment {
        /// The artifact manifest.
        digest: Digest,
        /// What is wrong.
        source: BlobError,
    },
    /// What it is attached to is not there, or is something else.
    #[error("the attachment {digest} belongs to {subject}, which cannot be used")]
    Subject {
        /// The artifact manifest.
        digest: Digest,
        /// What it is attached to.
        subject: Digest,
        /// What is wrong.
        source: Box<BlobError>,
    },
    /// The subject has too many.
    #[error("{subject} has {max} attachments, and cannot have more")]
    TooMany {
        /// What they are attached to.
        subject: Digest,
        /// The bound.
        max: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Why a reference does not lead to a manifest.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// There is no such tag or digest.
    #[error("{reference} is not in the store{}", Known(.known))]
    NotFound {
        /// What was asked for.
        reference: String,
        /// Tags of the same name.
        known: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// A list of what there is instead.
struct Known<'a>(&'a [String]);

impl std::fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", but {} is", self.0.join(", ")) }
    }
}

/// True when the disk or a quota is full, anywhere in the chain of causes.
pub fn is_no_space(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
