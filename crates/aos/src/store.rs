//! The user store: where packages are that were built, pulled, imported or tagged, until they are installed.
//!
//! ```text
//! ROOT/store, leases, partial, tmp, store.lock    the repository (aos_package::repository)
//! ROOT/cache/                                     the build cache (aos_build)
//! ROOT/trust.d/*.toml                             trust rules of this store, beside those of /etc/aos/trust.d
//! ```
//!
//! ROOT is `$AOS_STORE`, else `/var/lib/aos-packages` for root and `$XDG_DATA_HOME/aos` for everybody else. It is not
//! the machine's store, which belongs to the supervisor and holds what is installed. Several programs may use it
//! at once; what one of them needs and has not tagged yet, its lease keeps.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::oci::{Descriptor, Manifest, PackageConfig};
use aos_package::repository::{Lease, Origin, Repository, Tagged};

use crate::environment;
use crate::exit::{Exit, marked};
use crate::failure::{HintExt, hinted};

/// The user store of root: packages are the machine's, not a person's.
const OF_ROOT: &str = "/var/lib/aos-packages";

/// Where the user store is.
pub(crate) fn root() -> Result<PathBuf> {
    if let Some(named) = environment::store() {
        return std::path::absolute(&named)
            .with_context(|| format!("AOS_STORE names no directory: {}", named.display()));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(OF_ROOT));
    }
    let data = environment::data_home().ok_or_else(|| {
        hinted("there is no home directory to keep packages in", "set AOS_STORE to a directory of yours")
    })?;
    Ok(data.join("aos"))
}

/// The open user store.
#[derive(Debug, Clone)]
pub(crate) struct UserStore {
    repository: Repository,
}

impl UserStore {
    /// Opens it; it is made when it is missing.
    pub(crate) fn open() -> Result<Self> {
        let root = root()?;
        let repository = Repository::open(&root)
            .hint("AOS_STORE names another directory")
            .with_context(|| format!("cannot open the package store in {}", root.display()))?;
        Ok(Self { repository })
    }

    /// Opens it when it is there: the Tab key makes nothing.
    pub(crate) fn existing() -> Option<Self> {
        root().ok().filter(|root| root.join("store/index.json").is_file())?;
        Self::open().ok()
    }

    /// The names in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let tags = self.repository.tags().unwrap_or_default();
        tags.into_iter().map(|tagged| tagged.reference.to_string()).collect()
    }

    /// The repository in it.
    pub(crate) const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Where it is.
    pub(crate) fn root(&self) -> &Path {
        self.repository.root()
    }

    /// A lease.
    pub(crate) fn lease(&self) -> Result<Lease> {
        self.repository.lease().context("cannot use the package store")
    }

    /// What a reference means here. Without tag and digest it is the highest version of the name.
    pub(crate) fn find(&self, reference: &Reference) -> Result<Descriptor> {
        match self.repository.resolve(reference) {
            Ok(descriptor) => Ok(descriptor),
            Err(aos_package::repository::ResolveError::NotFound { reference, known }) => {
                Err(marked(not_found(&reference, &known), Exit::NotFound))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Pins what a reference means, so that nobody collects it meanwhile.
    pub(crate) fn hold(&self, reference: &Reference, lease: &Lease) -> Result<Descriptor> {
        let descriptor = self.find(reference)?;
        // Between finding and pinning it may have gone: then it was not kept by a tag.
        match lease.pin(descriptor.digest)? {
            Some(_) => Ok(descriptor),
            None => Err(marked(not_found(&reference.to_string(), &[]), Exit::NotFound)),
        }
    }

    /// Manifest and config of a package.
    pub(crate) fn package(&self, descriptor: &Descriptor) -> Result<(Manifest, PackageConfig)> {
        package(&self.repository, descriptor)
    }

    /// The tags that mean this manifest.
    pub(crate) fn tags_of(&self, digest: &Digest) -> Result<Vec<Tagged>> {
        let tags = self.repository.tags().context("cannot read the package store")?;
        Ok(tags.into_iter().filter(|tagged| tagged.descriptor.digest == *digest).collect())
    }

    /// True when a tag says that this manifest was built here.
    pub(crate) fn was_built_here(&self, digest: &Digest) -> Result<bool> {
        Ok(self.tags_of(digest)?.iter().any(|tagged| tagged.origin == Origin::Built))
    }
}

/// Manifest and config of a package of any repository.
pub(crate) fn package(repository: &Repository, descriptor: &Descriptor) -> Result<(Manifest, PackageConfig)> {
    repository.package(descriptor).with_context(|| format!("cannot read the package {}", descriptor.digest))
}

fn not_found(reference: &str, known: &[String]) -> anyhow::Error {
    let hint = match known {
        [] => "`aos list packages` shows what is; `aos pull` and `aos build` bring packages".to_owned(),
        known => format!("there is {}", known.join(", ")),
    };
    hinted(format!("{reference} is not in your package store"), hint)
}
