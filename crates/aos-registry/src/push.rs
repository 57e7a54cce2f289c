//! Pushing a package, with what is attached to it, from a store.
//!
//! **Order.** Blobs, then the manifest by digest, then attachments and their list, and the tag
//! last: who sees the tag sees everything, signatures too. A push that is interrupted leaves blobs
//! that the next one finds.

mod blob;
mod source;

use crate::Client;
use crate::blocking::blocking;
use crate::bounds::{MOUNT_SCOPES_MAX, MOUNTS_MAX};
use crate::error::RequestError;
use crate::manifest::{Name, Noted};
use crate::progress::Progress;
use crate::session::{Access, Session};
use aos_core::id::Digest;
use aos_core::reference::{Reference, RepositoryPath};
use aos_package::bounds::MANIFEST_MAX;
use aos_package::oci::{ArtifactManifest, Descriptor, Manifest, OciError};
use aos_package::repository::{BlobError, Repository, RepositoryError};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Why something is not pushed.
#[derive(Debug, Error)]
pub enum PushError {
    /// The registry, or the way to it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The reference has neither tag nor digest, or the digest of something else.
    #[error("`{reference}` cannot name {digest}, expected NAME:TAG")]
    Reference {
        /// The reference.
        reference: String,
        /// The package.
        digest: Digest,
    },
    /// The manifest in the store is not one.
    #[error("{digest} cannot be pushed")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// What is wrong.
        source: OciError,
    },
    /// What should be attached belongs to something else.
    #[error("the attachment {attachment} belongs to {subject}, not to the package")]
    Subject {
        /// The attachment.
        attachment: Digest,
        /// What it belongs to.
        subject: Digest,
    },
    /// A blob cannot be read while it is uploaded.
    #[error("cannot read the blob {digest} of the store")]
    Read {
        /// The blob.
        digest: Digest,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A blob is missing or altered.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The store failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The package's manifest.
    pub digest: Digest,
    /// Blobs that were uploaded.
    pub uploaded: usize,
    /// Blobs that another repository of the registry had.
    pub mounted: usize,
    /// Blobs that the repository had.
    pub skipped: usize,
}

/// How a blob got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Uploaded,
    Mounted,
    Skipped,
}

/// A manifest that is pushed, and its bytes.
pub(crate) struct Document {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
}

/// All that is pushed.
pub(crate) struct Load {
    pub(crate) package: Document,
    pub(crate) attachments: Vec<Document>,
    /// Each blob once, with its size.
    pub(crate) blobs: BTreeMap<Digest, u64>,
    /// Other repositories of the registry that have a blob, as far as the store knows.
    elsewhere: BTreeMap<Digest, Vec<RepositoryPath>>,
}

impl Client {
    /// Pushes a package of the store, with artifact manifests that are attached to it, under a
    /// reference with a tag, a digest, or both. Everything must be pinned or tagged by the caller.
    pub async fn push(
        &self,
        repository: &Repository,
        package: &Descriptor,
        attachments: &[Descriptor],
        reference: &Reference,
        progress: &dyn Progress,
    ) -> Result<Pushed, PushError> {
        let digest = package.digest;
        if !reference.is_specific() || reference.digest.is_some_and(|named| named != digest) {
            return Err(PushError::Reference { reference: reference.to_string(), digest });
        }
        let load = {
            let (repository, package, reference) = (repository.clone(), package.clone(), reference.clone());
            let attachments = attachments.to_vec();
            blocking(move || Load::read(&repository, package, attachments, &reference)).await?
        };
        let session = Session::new(&self.transport, reference, Access::Push { mounts: load.mounts() })?;
        self.within(async {
            let pushed = blobs(&session, repository, &load, progress).await?;
            manifests(&session, &load, reference).await?;
            Ok(pushed)
        })
        .await
    }
}

async fn blobs(
    session: &Session,
    repository: &Repository,
    load: &Load,
    progress: &dyn Progress,
) -> Result<Pushed, PushError> {
    let mut ordered: Vec<_> = load.blobs.iter().map(|(digest, size)| (*digest, *size)).collect();
    ordered.sort_by_key(|(digest, size)| (std::cmp::Reverse(*size), *digest));
    // The first question is asked alone: its answer may be a login, and one is enough for all.
    let mut known = BTreeMap::new();
    if let Some((digest, size)) = ordered.first() {
        known.insert(*digest, blob::is_there(session, *digest, *size).await?);
    }
    let (none, known) = (Vec::new(), &known);
    let parallel = session.transport().options.parallel.max(1);
    let ways: Vec<Way> = stream::iter(ordered)
        .map(|(digest, size)| {
            let elsewhere = load.elsewhere.get(&digest).unwrap_or(&none);
            let blob = blob::Blob { session, digest, size, known: known.get(&digest).copied() };
            blob.push(repository, elsewhere, progress)
        })
        .buffer_unordered(parallel)
        .try_collect()
        .await?;
    let count = |way| ways.iter().filter(|other| **other == way).count();
    Ok(Pushed {
        digest: load.package.descriptor.digest,
        uploaded: count(Way::Uploaded),
        mounted: count(Way::Mounted),
        skipped: count(Way::Skipped),
    })
}

async fn manifests(session: &Session, load: &Load, reference: &Reference) -> Result<(), PushError> {
    let Document { descriptor, bytes } = &load.package;
    session.put_manifest(Name::Digest(&descriptor.digest), &descriptor.media_type, bytes).await?;
    let mut unlisted = Vec::new();
    for attachment in &load.attachments {
        let Document { descriptor, bytes } = attachment;
        let noted =
            session.put_manifest(Name::Digest(&descriptor.digest), &descriptor.media_type, bytes).await?;
        if noted == Noted::No {
            unlisted.push(descriptor.clone());
        }
    }
    if !unlisted.is_empty() {
        session.list_by_tag(&descriptor.digest, &unlisted).await?;
    }
    if let Some(tag) = &reference.tag {
        session.put_manifest(Name::Tag(tag), &descriptor.media_type, bytes).await?;
    }
    Ok(())
}

impl Load {
    /// Reads the manifests, and looks for the blobs in other repositories. It blocks.
    pub(crate) fn read(
        repository: &Repository,
        package: Descriptor,
        attachments: Vec<Descriptor>,
        reference: &Reference,
    ) -> Result<Self, PushError> {
        let digest = package.digest;
        let refused = |digest| move |source| PushError::Manifest { digest, source };
        let bytes = repository.read_blob(&package, MANIFEST_MAX)?;
        let manifest = Manifest::parse(&bytes).map_err(refused(digest))?;
        let mut blobs: BTreeMap<_, _> = manifest.blobs().map(|blob| (blob.digest, blob.size)).collect();
        let package = Document { descriptor: package, bytes: bytes.into() };
        let mut documents = Vec::new();
        for descriptor in attachments {
            let attachment = descriptor.digest;
            let bytes = repository.read_blob(&descriptor, MANIFEST_MAX)?;
            let manifest = ArtifactManifest::parse(&bytes).map_err(refused(attachment))?;
            if manifest.subject.digest != digest {
                return Err(PushError::Subject { attachment, subject: manifest.subject.digest });
            }
            blobs.extend(manifest.blobs().map(|blob| (blob.digest, blob.size)));
            // The list of attachments shows what kind each is, and its notes.
            let listed = Descriptor {
                artifact_type: Some(manifest.artifact_type),
                annotations: manifest.annotations,
                ..descriptor
            };
            documents.push(Document { descriptor: listed, bytes: bytes.into() });
        }
        let elsewhere = elsewhere(repository, reference, &blobs)?;
        Ok(Self { package, attachments: documents, blobs, elsewhere })
    }

    /// The repositories that blobs may be mounted from.
    fn mounts(&self) -> Vec<RepositoryPath> {
        let distinct: BTreeSet<_> = self.elsewhere.values().flatten().cloned().collect();
        distinct.into_iter().take(MOUNT_SCOPES_MAX).collect()
    }
}

/// The other repositories of the same registry that, by our tags, have some of these blobs.
fn elsewhere(
    repository: &Repository,
    reference: &Reference,
    blobs: &BTreeMap<Digest, u64>,
) -> Result<BTreeMap<Digest, Vec<RepositoryPath>>, PushError> {
    let mut found: BTreeMap<Digest, Vec<RepositoryPath>> = BTreeMap::new();
    let mut paths = BTreeSet::new();
    for tagged in repository.tags()? {
        let other = tagged.reference;
        if other.registry != reference.registry || other.path == reference.path {
            continue;
        }
        // A package that cannot be read is no reason not to push this one.
        let Ok((manifest, _)) = repository.package(&tagged.descriptor) else { continue };
        let Ok(attached) = repository.attachments(&tagged.descriptor.digest) else { continue };
        let all = manifest.blobs().chain(attached.iter().flat_map(|one| one.manifest.blobs()));
        let shared: Vec<_> = all.filter(|blob| blobs.contains_key(&blob.digest)).collect();
        if shared.is_empty() || (paths.len() == MOUNT_SCOPES_MAX && !paths.contains(&other.path)) {
            continue;
        }
        paths.insert(other.path.clone());
        for blob in shared {
            let known = found.entry(blob.digest).or_default();
            if known.len() < MOUNTS_MAX && !known.contains(&other.path) {
                known.push(other.path.clone());
            }
        }
    }
    Ok(found)
}
