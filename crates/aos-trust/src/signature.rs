//! A package's signature: a DSSE envelope over an in-toto statement that names `name:version` and
//! the manifest's digest. The same package and key give the same bytes.
//!
//! In a store or registry it is an attachment of the package: an artifact manifest with `subject`
//! the package, `artifactType` [`ENVELOPE_TYPE`](crate::dsse::ENVELOPE_TYPE), the empty config, one
//! layer that is the envelope, and the annotation [`PREDICATE_ANNOTATION`] with the predicate's
//! type. Beside an exported package it is the file [`SIGNATURE_FILE`].

use crate::dsse::{Envelope, EnvelopeError, IN_TOTO_TYPE};
use crate::key::{KeyId, PrivateKey, PublicKey};
use crate::statement::{PACKAGE_PREDICATE, Statement, StatementError, Subject};
use aos_core::id::{Digest, PackageName, Version};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// The annotation of an attachment that names its predicate type.
pub const PREDICATE_ANNOTATION: &str = "org.aos.predicate";
/// The file beside an exported package: the envelope.
pub const SIGNATURE_FILE: &str = "signature.json";
/// Bytes of a package signature's envelope: sixteen signatures need 6 KiB.
pub const SIGNATURE_ENVELOPE_MAX: usize = 64 << 10;

/// Why a package cannot be signed, or an attestation not be made.
#[derive(Debug, Error)]
pub enum SignError {
    /// The statement cannot be made.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The envelope cannot be made.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// What is signed as a package: its name and version, and its manifest's digest.
pub fn subject(name: &PackageName, version: &Version, manifest: Digest) -> Subject {
    Subject { name: format!("{name}:{version}"), digest: manifest }
}

/// Signs a package.
pub fn sign_package(
    name: &PackageName,
    version: &Version,
    manifest: Digest,
    key: &PrivateKey,
) -> Result<Envelope, SignError> {
    let nothing = BTreeMap::<(), ()>::new();
    let statement = Statement::about(subject(name, version, manifest), PACKAGE_PREDICATE, &nothing)?;
    sign_statement(&statement, key)
}

/// Signs a statement: an SBOM's or a provenance's.
pub fn sign_statement(statement: &Statement, key: &PrivateKey) -> Result<Envelope, SignError> {
    Ok(Envelope::sign(IN_TOTO_TYPE, statement.to_json()?, key)?)
}

/// The statement of an envelope, and the keys among `keys` that signed it; `None` when none did.
/// An error is a payload that was signed and is not a statement.
pub fn verified_statement<'k>(
    envelope: &Envelope,
    keys: impl IntoIterator<Item = &'k PublicKey>,
) -> Option<(Vec<KeyId>, Result<Statement, StatementError>)> {
    if envelope.payload_type() != IN_TOTO_TYPE {
        return None;
    }
    let good = envelope.verify(keys);
    (!good.is_empty()).then(|| (good, Statement::parse(envelope.unverified_payload())))
}

/// The keys among `keys` that signed this package, in whichever of the envelopes, each once. An
/// envelope with another predicate or subject says nothing about the package and is passed over.
pub fn signers<'k>(
    package: &Subject,
    envelopes: &[Envelope],
    keys: impl IntoIterator<Item = &'k PublicKey> + Clone,
) -> BTreeSet<KeyId> {
    let mut signers = BTreeSet::new();
    for envelope in envelopes {
        if let Some((good, Ok(statement))) = verified_statement(envelope, keys.clone())
            && statement.predicate_type == PACKAGE_PREDICATE
            && statement.subjects.contains(package)
        {
            signers.extend(good);
        }
    }
    signers
}
