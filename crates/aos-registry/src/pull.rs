//! Pulling: a package with what is attached to it, or a base image, into a store.
//!
//! **Order.** The manifest is read once, by tag or digest; everything else by the digests in it.
//! Each blob is pinned, then looked for, then transferred into the store's partial file, where an
//! interrupted transfer goes on. The manifest is put last. Attachments come after the package.
//!
//! **Concurrency.** Up to `parallel` blobs at once, each with a task-local stream from the network,
//! a bounded queue, and a thread that hashes and writes. Dropping the future ends the threads;
//! what they wrote stays.

pub(crate) mod attachments;
mod blob;

use crate::Client;
use crate::blocking::blocking;
use crate::bounds::LAYER_MAX;
use crate::error::RequestError;
use crate::manifest::{Fetched, Name};
use crate::progress::Progress;
use crate::session::{Access, Session};
use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::bounds::{ARCHIVE_MAX, IMAGE_CONFIG_MAX};
use aos_package::oci::{Descriptor, ForeignDocument, ForeignManifest, Manifest, OciError, is_index};
use aos_package::repository::{AttachError, BlobError, Lease, RepositoryError};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// Why something is not pulled.
#[derive(Debug, Error)]
pub enum PullError {
    /// The registry, or the way to it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The reference has neither tag nor digest.
    #[error("`{0}` names no version, expected NAME:TAG or NAME@DIGEST")]
    Unspecific(String),
    /// What is there is not a package or an image.
    #[error("`{reference}` cannot be used")]
    Manifest {
        /// What was asked for.
        reference: String,
        /// What is wrong.
        source: OciError,
    },
    /// It is an index, and a package is not.
    #[error("`{0}` is an image for several platforms, not a package")]
    Index(String),
    /// A blob is larger than it may be.
    #[error("`{reference}` has a blob of {found} bytes, at most {max} are allowed")]
    TooLarge {
        /// What was asked for.
        reference: String,
        /// What it has.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// The same blob has two sizes.
    #[error("`{reference}` says that the blob {digest} has {first} bytes, and that it has {second}")]
    Sizes {
        /// What was asked for.
        reference: String,
        /// The blob.
        digest: Digest,
        /// The one size.
        first: u64,
        /// The other size.
        second: u64,
    },
    /// A blob cannot be written.
    #[error("cannot write the blob {digest} into the store")]
    Write {
        /// The blob.
        digest: Digest,
        /// What went wrong.
        source: std::io::Error,
    },
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

/// A package that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its manifest, which the lease pins.
    pub descriptor: Descriptor,
    /// The artifact manifests that are attached to it now.
    pub attachments: Vec<Descriptor>,
}

impl Client {
    /// What a tag means now, or what a digest is.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, PullError> {
        let session = Session::new(&self.transport, reference, Access::Pull)?;
        self.within(async { Ok(fetch(&session, reference).await?.descriptor) }).await
    }

    /// The tags of a repository, sorted.
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<aos_core::reference::Tag>, RequestError> {
        let session = Session::new(&self.transport, reference, Access::Pull)?;
        self.within(session.tags()).await
    }

    /// Pulls a package and what is attached to it into the store of the lease. Attachments that
    /// cannot be used are noted and left out: whether the package is trusted with what it then
    /// has is for the caller to decide.
    pub async fn pull(
        &self,
        reference: &Reference,
        lease: &Lease,
        progress: &dyn Progress,
    ) -> Result<Pulled, PullError> {
        let session = Session::new(&self.transport, reference, Access::Pull)?;
        self.within(async {
            let fetched = fetch(&session, reference).await?;
            if is_index(&fetched.descriptor.media_type) {
                return Err(PullError::Index(reference.to_string()));
            }
            let transfer = Transfer::new(&session, reference, lease, progress);
            transfer.blobs(package_blobs(reference, &fetched.bytes)?).await?;
            let descriptor = transfer.manifest(fetched).await?;
            let (repository, kept) = (lease.repository().clone(), descriptor.clone());
            blocking(move || repository.package(&kept).map(drop)).await?;
            let attachments = attachments::pull(&transfer, &descriptor).await?;
            Ok(Pulled { descriptor, attachments })
        })
        .await
    }

    /// Pulls an image of whichever tool for one architecture (in Go's names, such as `amd64`) into
    /// the store of the lease. Returns its manifest, not that of an index.
    pub async fn pull_image(
        &self,
        reference: &Reference,
        architecture: &str,
        lease: &Lease,
        progress: &dyn Progress,
    ) -> Result<Descriptor, PullError> {
        let session = Session::new(&self.transport, reference, Access::Pull)?;
        self.within(async {
            let mut fetched = fetch(&session, reference).await?;
            if let ForeignDocument::Index(index) =
                ForeignDocument::parse(&fetched.bytes).map_err(refused(reference))?
            {
                let chosen = index.select(architecture).map_err(refused(reference))?;
                fetched = session.manifest(Name::Digest(&chosen.digest)).await?;
            }
            let manifest = ForeignManifest::parse(&fetched.bytes).map_err(refused(reference))?;
            let transfer = Transfer::new(&session, reference, lease, progress);
            let layers = manifest.layers.iter().map(|layer| (layer, LAYER_MAX));
            let blobs = std::iter::once((&manifest.config, IMAGE_CONFIG_MAX)).chain(layers);
            transfer.blobs(distinct(reference, blobs)?).await?;
            transfer.manifest(fetched).await
        })
        .await
    }

    /// Bounds the time of the whole.
    pub(crate) async fn within<T, E: From<RequestError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let total: Duration = self.transport.options.timeouts.total;
        match tokio::time::timeout(total, work).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Total(total).into()),
        }
    }
}

async fn fetch(session: &Session, reference: &Reference) -> Result<Fetched, PullError> {
    let name = Name::of(reference).ok_or_else(|| PullError::Unspecific(reference.to_string()))?;
    Ok(session.manifest(name).await?)
}

pub(crate) fn refused(reference: &impl Display) -> impl Fn(OciError) -> PullError {
    move |source| PullError::Manifest { reference: reference.to_string(), source }
}

/// The blobs of a package's manifest, each once, within bounds.
pub(crate) fn package_blobs(
    reference: &impl Display,
    bytes: &[u8],
) -> Result<BTreeMap<Digest, u64>, PullError> {
    let manifest = Manifest::parse(bytes).map_err(refused(reference))?;
    let layers = manifest.layers.iter().map(|layer| (layer, ARCHIVE_MAX));
    distinct(reference, std::iter::once((&manifest.config, IMAGE_CONFIG_MAX)).chain(layers))
}

/// Blobs, each once, within a bound each.
pub(crate) fn distinct<'a>(
    reference: &impl Display,
    blobs: impl Iterator<Item = (&'a Descriptor, u64)>,
) -> Result<BTreeMap<Digest, u64>, PullError> {
    let mut distinct = BTreeMap::new();
    for (blob, max) in blobs {
        let (first, second) = (*distinct.entry(blob.digest).or_insert(blob.size), blob.size);
        if first != second {
            let (reference, digest) = (reference.to_string(), blob.digest);
            return Err(PullError::Sizes { reference, digest, first, second });
        }
        if blob.size > max {
            return Err(PullError::TooLarge { reference: reference.to_string(), found: blob.size, max });
        }
    }
    Ok(distinct)
}

/// From where, what and where to.
struct Transfer<'a> {
    session: &'a Session,
    reference: &'a Reference,
    lease: &'a Lease,
    progress: &'a dyn Progress,
    /// Blobs that are there: attachments share theirs.
    done: Mutex<BTreeSet<Digest>>,
}

impl<'a> Transfer<'a> {
    fn new(
        session: &'a Session,
        reference: &'a Reference,
        lease: &'a Lease,
        progress: &'a dyn Progress,
    ) -> Self {
        Self { session, reference, lease, progress, done: Mutex::default() }
    }

    /// Transfers blobs, the largest first, so that none of them is waited for alone.
    async fn blobs(&self, mut blobs: BTreeMap<Digest, u64>) -> Result<(), PullError> {
        blobs.retain(|digest, _| self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest));
        let mut ordered: Vec<_> = blobs.into_iter().collect();
        ordered.sort_by_key(|(digest, size)| (std::cmp::Reverse(*size), *digest));
        let parallel = self.session.transport().options.parallel.max(1);
        stream::iter(ordered)
            .map(|(digest, size)| blob::pull(self, digest, size))
            .buffer_unordered(parallel)
            .try_collect()
            .await
    }

    /// Puts a manifest.
    async fn manifest(&self, fetched: Fetched) -> Result<Descriptor, PullError> {
        let lease = self.lease.clone();
        Ok(blocking(move || lease.put(&fetched.descriptor.media_type, &fetched.bytes)).await?)
    }
}
