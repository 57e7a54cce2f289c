//! Pulling what is attached to a package. Anybody who may write to the repository may attach
//! something: what cannot be used is noted and left out, and never fails the package.

use super::{PullError, Transfer};
use crate::blocking::blocking;
use crate::manifest::{Fetched, Name};
use crate::progress::Progress;
use aos_core::id::Digest;
use aos_package::bounds::{ATTACHMENT_MAX, ATTACHMENTS_MAX, MANIFEST_MAX};
use aos_package::oci::{ArtifactManifest, Descriptor, MANIFEST_TYPE};
use aos_package::repository::{AttachError, BlobError};
use std::collections::BTreeMap;
use std::fmt::Display;

/// What signatures, SBOMs and provenance statements are, and comes first.
const ENVELOPE_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

/// Which attachments are pulled: each once, envelopes first, as many as a package may have.
pub(crate) fn chosen(mut listed: Vec<Descriptor>, progress: &dyn Progress) -> Vec<Descriptor> {
    listed.sort_by_key(|entry| (entry.artifact_type.as_deref() != Some(ENVELOPE_TYPE), entry.digest));
    listed.dedup_by_key(|entry| entry.digest);
    if listed.len() > ATTACHMENTS_MAX {
        let left = listed.len() - ATTACHMENTS_MAX;
        progress.note(&format!(
            "{left} of {} attachments are left out: {ATTACHMENTS_MAX} are kept",
            listed.len()
        ));
        listed.truncate(ATTACHMENTS_MAX);
    }
    listed
}

/// Pulls and attaches what is attached to a package; returns what is kept.
pub(super) async fn pull(
    transfer: &Transfer<'_>,
    subject: &Descriptor,
) -> Result<Vec<Descriptor>, PullError> {
    let listed = chosen(transfer.session.referrers(&subject.digest).await?, transfer.progress);
    let mut kept = Vec::new();
    for entry in listed {
        match one(transfer, &entry, subject).await {
            Ok(attached) => kept.push(attached),
            Err(error) if is_its_own(&error) => {
                transfer.progress.note(&format!(
                    "the attachment {} is left out: {}",
                    entry.digest,
                    chain(&error)
                ));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(kept)
}

async fn one(
    transfer: &Transfer<'_>,
    entry: &Descriptor,
    subject: &Descriptor,
) -> Result<Descriptor, PullError> {
    let fetched: Fetched = transfer.session.manifest(Name::Digest(&entry.digest)).await?;
    let bound = std::iter::once((&fetched.descriptor, MANIFEST_MAX));
    super::distinct(transfer.reference, bound)?;
    let manifest = ArtifactManifest::parse(&fetched.bytes).map_err(super::refused(transfer.reference))?;
    if manifest.subject.digest != subject.digest {
        let what = transfer.session.named(Name::Digest(&entry.digest));
        return Err(transfer.session.wrong(&what, "it is attached to something else").into());
    }
    transfer.blobs(attachment_blobs(transfer.reference, &manifest)?).await?;
    let mut descriptor = transfer.manifest(fetched).await?;
    descriptor.media_type = MANIFEST_TYPE.to_owned();
    let (repository, lease) = (transfer.lease.repository().clone(), transfer.lease.clone());
    let attached = blocking(move || repository.attach(&lease, &descriptor)).await?;
    Ok(attached.descriptor)
}

/// The blobs of an attachment, each once; parsing has bounded them.
pub(crate) fn attachment_blobs(
    reference: &impl Display,
    manifest: &ArtifactManifest,
) -> Result<BTreeMap<Digest, u64>, PullError> {
    super::distinct(reference, manifest.blobs().map(|blob| (blob, ATTACHMENT_MAX)))
}

/// True for what is wrong with one attachment, not with the registry or the store.
pub(crate) fn is_its_own(error: &PullError) -> bool {
    match error {
        PullError::Request(error) => !error.may_pass(),
        PullError::Manifest { .. } | PullError::TooLarge { .. } | PullError::Sizes { .. } => true,
        PullError::Blob(BlobError::Repository(_)) => false,
        PullError::Blob(_) => true,
        PullError::Attach(AttachError::Repository(_)) => false,
        PullError::Attach(_) => true,
        _ => false,
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
