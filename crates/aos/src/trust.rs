//! Who may be trusted with what, for the packages of the user store: the rules of the machine and of the store.

use std::path::PathBuf;

use anyhow::{Context, Result};
use aos_core::reference::{Reference, Tag};
use aos_package::oci::{Descriptor, PackageConfig};
use aos_package::repository::{Attachment, Repository};
use aos_trust::dsse::{ENVELOPE_TYPE, Envelope};
use aos_trust::policy::{self, Package, Trusted};
use aos_trust::signature::{PREDICATE_ANNOTATION, SIGNATURE_ENVELOPE_MAX};
use aos_trust::statement::PACKAGE_PREDICATE;

use crate::exit::{Exit, marked};
use crate::failure::hinted;
use crate::store::UserStore;

/// The machine's rules, which the supervisor reads, too.
const OF_MACHINE: &str = "/etc/aos/trust.d";

/// The directories of rules. The first is the one that advice names: it is one where this user may write.
pub(crate) fn directories(store: &UserStore) -> Vec<PathBuf> {
    let mut directories = vec![PathBuf::from(OF_MACHINE), store.root().join("trust.d")];
    if !rustix::process::geteuid().is_root() {
        directories.reverse();
    }
    directories
}

/// True for an attachment that is a package's signature. What an annotation says is a hint: only what is inside a
/// verified envelope counts.
pub(crate) fn is_signature(attachment: &Attachment) -> bool {
    attachment.artifact_type == ENVELOPE_TYPE
        && attachment.manifest.annotations.get(PREDICATE_ANNOTATION).is_none_or(|it| it == PACKAGE_PREDICATE)
}

/// The signatures among a package's attachments. One that cannot be read is no signature.
pub(crate) fn envelopes(repository: &Repository, attachments: &[Attachment]) -> Vec<Envelope> {
    let read = |attachment: &Attachment| {
        let [layer] = attachment.manifest.layers.as_slice() else { return None };
        let bytes = repository.read_blob(layer, SIGNATURE_ENVELOPE_MAX as u64).ok()?;
        Envelope::parse(&bytes).ok()
    };
    attachments.iter().filter(|attachment| is_signature(attachment)).filter_map(read).collect()
}

/// Decides whether a package may come from outside into the store.
pub(crate) fn decide(
    store: &UserStore,
    descriptor: &Descriptor,
    config: &PackageConfig,
    from: Option<&Reference>,
    envelopes: &[Envelope],
) -> Result<Trusted> {
    let package = Package {
        name: config.agent.name.clone(),
        version: config.agent.version.clone(),
        repository: from.map(Reference::repository),
        manifest: descriptor.digest,
    };
    policy::decide(&directories(store), &package, envelopes)
        .map_err(|refused| marked(*refused, Exit::Refused))
        .with_context(|| format!("{} is refused", config.agent.reference()))
}

/// Refuses a package that is something else than what was asked for. A registry decides what a tag leads to, and a
/// signature is for the name and version inside: so a good package must not come under the name or version of another.
/// Who names a digest has said exactly what they want.
pub(crate) fn check_name(reference: &Reference, config: &PackageConfig) -> Result<()> {
    if reference.digest.is_some() {
        return Ok(());
    }
    let inside = config.agent.reference();
    let path = reference.path.to_string();
    let is_named = path.rsplit('/').next() == Some(config.agent.name.as_str());
    let is_versioned = reference.tag.as_ref().is_none_or(|tag| {
        let is_version = tag.to_string().replace('_', "+").parse::<aos_core::id::Version>().is_ok();
        !is_version || *tag == Tag::of_version(&config.agent.version)
    });
    if is_named && is_versioned {
        return Ok(());
    }
    let advice = "a package is pulled by its own name and version, a tag such as `latest`, or its digest";
    Err(marked(hinted(format!("{reference} leads to another package, {inside}"), advice), Exit::Refused))
}

/// Drops what came with a package that is refused: what a mirror hung on it must not take the place of its publisher's
/// signatures. A package that has a name here keeps what it has.
pub(crate) fn forget_refused(store: &UserStore, descriptor: &Descriptor) -> Result<()> {
    if store.tags_of(&descriptor.digest)?.is_empty() {
        for attachment in store.repository().attachments(&descriptor.digest)? {
            store.repository().detach(&attachment.descriptor.digest)?;
        }
    }
    Ok(())
}

/// What a decision rests on, in words.
pub(crate) fn words(trusted: &Trusted) -> String {
    match trusted.keys.as_slice() {
        [] => format!("not signed, allowed by {}", trusted.rule),
        keys => {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            format!("signed by {} ({})", keys.join(", "), trusted.rule)
        }
    }
}
