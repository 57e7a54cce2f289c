//! Loads the Agentfile with all that it extends.

use crate::bases::{Bases, Wanted};
use crate::context::Context;
use crate::error::BuildError;
use aos_core::agentfile::{
    AGENTFILE_MAX_BYTES, Agentfile, Arguments, Draft, Extends, FILE_NAMES, Format, Lineage,
};
use aos_core::id::Digest;
use aos_core::lock::{LOCK_FILE_NAME, LOCK_MAX_BYTES, Lockfile, Source};
use aos_core::reference::{Location, Reference};
use aos_package::repository::{Lease, Repository};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

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
    let mut extended = Vec::new();
    let (text, format, origin) = context.agentfile();
    let draft = Draft::parse(text, format, origin)?;
    let mut lineage = Lineage::new(identity(Path::new(origin)), draft);
    while let Some((extends, by)) = lineage.wanted() {
        let (extends, by, origin) = (extends.clone(), by.clone(), by.origin().to_owned());
        let failed = |message: String| BuildError::from(by.error_at("extends", message));
        match &extends {
            Extends::Path(path) => {
                let directory = Path::new(&origin).parent().unwrap_or(Path::new("."));
                let path = find(directory.join(path)).map_err(failed)?;
                let text = read(&path).map_err(|reason| failed(format!("`{}`: {reason}", path.display())))?;
                let name = path.display().to_string();
                let digest = Digest::from_bytes(Sha256::digest(text.as_bytes()).into());
                extended.push((format!("extends {extends}"), digest));
                let format = Format::of_file_name(&name);
                lineage.push_file(identity(&path), Draft::parse(&text, format, &name)?)?;
            }
            Extends::Package(reference) => {
                let locked = locked(parents.lock, reference);
                let wanted = Wanted::Package(reference.clone());
                let found =
                    crate::base::bring(&wanted, locked, parents.bases, parents.repository, parents.lease)?;
                let (_, config) = parents.repository.package(&found)?;
                extended.push((format!("extends {reference}"), found.digest));
                lineage.push_package(reference.with_digest(found.digest), config.agent)?;
            }
        }
    }
    Ok(Loaded { agentfile: lineage.finish(arguments)?, parents: extended })
}

/// What tells a file from others, whatever it is called.
fn identity(path: &Path) -> String {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// The Agentfile that a path means: itself, or the one in the directory.
fn find(path: PathBuf) -> Result<PathBuf, String> {
    if !path.is_dir() {
        return Ok(path);
    }
    let mut found = FILE_NAMES.iter().map(|(name, _)| path.join(name)).filter(|path| path.exists());
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!("no Agentfile in `{}`", path.display())),
        (Some(_), Some(_)) => Err(format!("`{}` has several Agentfiles: name one", path.display())),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    // A link could lead to any file that only we may read, and a pipe would hold us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map(File::from);
    let file = file.map_err(|errno| std::io::Error::from(errno).to_string())?;
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a file".to_owned());
    }
    // One byte more than is allowed, so that the parser says what is.
    let mut file = file.take(AGENTFILE_MAX_BYTES as u64 + 1);
    file.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
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
