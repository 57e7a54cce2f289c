//! Loads the Agentfile with all that it extends.

use crate::bases::{Bases, Wanted};
use crate::context::Context;
use crate::error::BuildError;
use crate::extend::{extend, identity};
use aos_core::agentfile::{Agentfile, Arguments, Draft, Lineage};
use aos_core::id::Digest;
use aos_core::lock::{LOCK_FILE_NAME, LOCK_MAX_BYTES, Lockfile, Source};
use aos_core::reference::{Location, Reference};
use aos_package::repository::{Lease, Repository};
use std::path::Path;

/// What is needed to bring a parent that is a package.
pub(crate) struct Parents<'a> {
    pub(crate) bases: &'a dyn Bases,
    pub(crate) repository: &'a Repository,
    pub(crate) lease: &'a Lease,
    pub(crate) lock: &'a Lockfile,
}

/// An Agentfile and what it was made from.
pub(crate) struct Loaded {
    /// Its arguments are substituted.
    pub(crate) agentfile: Agentfile,
    /// What it extends: files with the digests of their texts, packages with their own.
    pub(crate) parents: Vec<(String, Digest)>,
}

/// The Agentfile of a context.
pub(crate) fn agentfile(
    context: &Context,
    arguments: &Arguments,
    parents: &Parents<'_>,
) -> Result<Loaded, BuildError> {
    let (text, format, origin) = context.agentfile();
    let mut lineage = Lineage::new(identity(Path::new(origin)), Draft::parse(text, format, origin)?);
    let bring = |reference: &Reference| -> Result<_, BuildError> {
        let locked = locked(parents.lock, reference);
        let wanted = Wanted::Package(reference.clone());
        let found = crate::base::bring(&wanted, locked, parents.bases, parents.repository, parents.lease)?;
        let (_, config) = parents.repository.package(&found)?;
        Ok((found.digest, config.agent))
    };
    let extended = extend(&mut lineage, bring)?;
    Ok(Loaded { agentfile: lineage.finish(arguments)?, parents: extended })
}

/// The lock beside the Agentfile; an empty one when there is none.
pub(crate) fn lock(context: &Context) -> Result<Lockfile, BuildError> {
    let text = match context.read_text(LOCK_FILE_NAME, LOCK_MAX_BYTES as u64) {
        Ok(text) => text,
        Err(BuildError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Lockfile::default());
        }
        Err(error) => return Err(error),
    };
    Lockfile::parse(&text).map_err(|error| {
        let path = context.directory().join(LOCK_FILE_NAME);
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        BuildError::Input { path, reason: format!("{error}{cause}") }
    })
}

/// The digest that the lock has for a package that is named by tag.
pub(crate) fn locked(lock: &Lockfile, reference: &Reference) -> Option<Digest> {
    if reference.digest.is_some() {
        return reference.digest;
    }
    let tag = reference.tag.as_ref()?.to_string();
    let path = reference.path.to_string();
    let found = lock.packages().find(|package| {
        let place = match &package.source {
            Source::Local => reference.registry.is_none() && path == package.name.to_string(),
            Source::At(Location::Registry(at)) => {
                at.registry == reference.registry && at.path == reference.path
            }
            Source::At(_) => false,
        };
        place && package.version.to_string() == tag
    });
    found.map(|package| package.digest)
}
