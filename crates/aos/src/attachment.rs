//! What is attached to a package: signatures, the SBOM, the provenance. Each is an artifact manifest with the empty
//! config and one content.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aos_package::oci::{ArtifactManifest, Descriptor, EMPTY, EMPTY_TYPE, MANIFEST_TYPE};
use aos_package::repository::{Attachment, Lease};
use aos_trust::dsse::{ENVELOPE_TYPE, Envelope, IN_TOTO_TYPE};
use aos_trust::key::PrivateKey;
use aos_trust::signature::{PREDICATE_ANNOTATION, sign_package, sign_statement};
use aos_trust::statement::{PACKAGE_PREDICATE, Statement};

use crate::store;

/// Attaches a content of some type.
fn attach(
    lease: &Lease,
    subject: &Descriptor,
    media_type: &str,
    content: &[u8],
    predicate: &str,
) -> Result<Attachment> {
    lease.put(EMPTY_TYPE, EMPTY)?;
    let content = lease.put(media_type, content)?;
    let annotations = BTreeMap::from([(PREDICATE_ANNOTATION.to_owned(), predicate.to_owned())]);
    let manifest = ArtifactManifest::new(media_type, content, subject, annotations).to_json()?;
    let descriptor = lease.put(MANIFEST_TYPE, &manifest)?;
    Ok(lease.repository().attach(lease, &descriptor)?)
}

/// Attaches a signature.
pub(crate) fn attach_envelope(
    lease: &Lease,
    subject: &Descriptor,
    envelope: &Envelope,
) -> Result<Attachment> {
    attach(lease, subject, ENVELOPE_TYPE, &envelope.to_json()?, PACKAGE_PREDICATE)
}

/// Attaches a statement about the package: signed when there is a key, as it is when there is none.
pub(crate) fn attach_statement(
    lease: &Lease,
    subject: &Descriptor,
    statement: &Statement,
    key: Option<&PrivateKey>,
) -> Result<Attachment> {
    let predicate = &statement.predicate_type;
    match key {
        Some(key) => {
            let envelope = sign_statement(statement, key)?;
            attach(lease, subject, ENVELOPE_TYPE, &envelope.to_json()?, predicate)
        }
        None => attach(lease, subject, IN_TOTO_TYPE, &statement.to_json()?, predicate),
    }
}

/// Signs a package and attaches the signature.
pub(crate) fn sign(lease: &Lease, package: &Descriptor, key: &PrivateKey) -> Result<Attachment> {
    let (_, config) = store::package(lease.repository(), package)?;
    let agent = &config.agent;
    let envelope = sign_package(&agent.name, &agent.version, package.digest, key)
        .with_context(|| format!("cannot sign {}", agent.reference()))?;
    attach_envelope(lease, package, &envelope)
}
