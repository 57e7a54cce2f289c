//! The machine's trust policy, `/etc/aos/trust.d`, and what the store remembers of where a package came from.
//!
//! A package is trusted when the policy is content with its signatures, or when somebody who may has vouched for
//! it as built here. The first is asked anew at each install and each start, with the files as they are then; the
//! second is kept with the package, as the annotation `org.aos.origin` of the store's index. Signatures are the
//! package's attachments; the supervisor only verifies, and never sees a private key.

use std::path::PathBuf;

use aos_core::config::ResolvedAgent;
use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::archive::Archive;
use aos_package::oci::{ArtifactManifest, Descriptor};
use aos_package::repository::{Origin, Repository};
use aos_trust::dsse::{ENVELOPE_TYPE, Envelope};
use aos_trust::policy::{self, Trusted};
use aos_trust::signature::{PREDICATE_ANNOTATION, SIGNATURE_ENVELOPE_MAX};
use aos_trust::statement::PACKAGE_PREDICATE;

use crate::failure::{Failure, chain};

/// What to do with a package of one's own that the policy refuses.
const LOCAL_HINT: &str = "a package that was built on this machine is installed with `aos install --local`, which needs no signature";

/// The policy.
#[derive(Debug)]
pub struct Trust {
    directory: PathBuf,
}

impl Trust {
    /// The policy in `directory`, which only root can write.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Decides about a package with these signatures. An error is for the operator, on one line.
    pub fn decide(
        &self,
        agent: &ResolvedAgent,
        manifest: Digest,
        envelopes: &[Envelope],
    ) -> Result<Trusted, String> {
        let (name, version) = (agent.name.clone(), agent.version.clone());
        // Where an archive was pulled from is not known here: a rule that asks for it does not match.
        let package = policy::Package { name, version, repository: None, manifest };
        policy::decide(&[&self.directory], &package, envelopes)
            .map_err(|refused| format!("{refused}; {LOCAL_HINT}"))
    }
}

/// The content of an attachment that can be the package's signature.
fn signature_blob(manifest: &ArtifactManifest) -> Option<&Descriptor> {
    let predicate = manifest.annotations.get(PREDICATE_ANNOTATION);
    let is_signature = manifest.artifact_type == ENVELOPE_TYPE
        && predicate.is_none_or(|predicate| predicate == PACKAGE_PREDICATE);
    match manifest.layers.as_slice() {
        [envelope] if is_signature && envelope.size <= SIGNATURE_ENVELOPE_MAX as u64 => Some(envelope),
        _ => None,
    }
}

/// The envelopes that are well-formed. One that is not says nothing, and keeps no other from counting.
fn envelopes(blobs: impl Iterator<Item = Result<Vec<u8>, String>>) -> Vec<Envelope> {
    blobs
        .filter_map(|bytes| {
            let envelope = bytes.and_then(|bytes| Envelope::parse(&bytes).map_err(|error| chain(&error)));
            envelope.map_err(|reason| tracing::warn!(reason, "a signature is passed over")).ok()
        })
        .collect()
}

/// The signatures that an archive brings, and those that the store has of the same package.
pub fn signatures_of_archive(archive: &Archive, repository: &Repository) -> Result<Vec<Envelope>, Failure> {
    let manifests = archive.attachments.iter().filter_map(|(_, manifest)| signature_blob(manifest));
    let blobs = manifests
        .map(|blob| archive.read_blob(blob, SIGNATURE_ENVELOPE_MAX as u64).map_err(|error| chain(&error)));
    let mut found = envelopes(blobs);
    for envelope in signatures_of_store(repository, &archive.manifest.digest)? {
        if !found.contains(&envelope) {
            found.push(envelope);
        }
    }
    Ok(found)
}

/// The signatures that the store has of a package.
pub fn signatures_of_store(repository: &Repository, digest: &Digest) -> Result<Vec<Envelope>, Failure> {
    let attachments = repository.attachments(digest).map_err(|error| Failure::failed(&error))?;
    let blobs = attachments.iter().filter_map(|attachment| signature_blob(&attachment.manifest));
    Ok(envelopes(blobs.map(|blob| {
        repository.read_blob(blob, SIGNATURE_ENVELOPE_MAX as u64).map_err(|error| chain(&error))
    })))
}

/// The name under which a package can be remembered as built here.
pub fn local_name(agent: &ResolvedAgent) -> Result<Reference, String> {
    let reference = Reference::local(&agent.name, &agent.version).map_err(|error| error.to_string())?;
    // A tag has no `+`: the store's own name of such a version is no reference.
    if reference.to_string() == agent.reference().to_string() {
        Ok(reference)
    } else {
        Err(format!("{} cannot be installed as local: give it a version without `+`", agent.reference()))
    }
}

/// Remembers that a package of the store was built here: the one with this manifest, which must still have the name.
pub fn mark_local(repository: &Repository, name: &Reference, digest: &Digest) -> Result<(), Failure> {
    let lease = repository.lease().map_err(|error| Failure::failed(&error))?;
    let descriptor = repository.resolve(name).map_err(|error| Failure::failed(&error))?;
    if descriptor.digest != *digest {
        return Err(Failure::refused(format!(
            "{name} became another package in the meantime: install it again"
        )));
    }
    repository.tag(&lease, name, &descriptor, Origin::Built).map_err(|error| Failure::failed(&error))?;
    Ok(())
}

/// Whether a package of the store was built here.
pub fn is_local(repository: &Repository, digest: &Digest) -> Result<bool, Failure> {
    let listed = repository.listed().map_err(|error| Failure::failed(&error))?;
    Ok(listed.iter().any(|entry| entry.descriptor.digest == *digest && entry.origin == Origin::Built))
}

#[cfg(test)]
mod tests;
