//! What a stage starts from when it comes from elsewhere: images, packages and dependencies.

use crate::bases::{BaseError, Bases, Local, Wanted};
use crate::builder::step_key;
use crate::cache::{Cache, Layer, StepRecord};
use crate::error::BuildError;
use crate::foreign;
use crate::layer::WrittenLayer;
use crate::made::Made;
use crate::options::Options;
use crate::scan;
use crate::tree::Listing;
use aos_core::agentfile::Settings;
use aos_core::config::{ResolvedAgent, RootKind};
use aos_core::id::Digest;
use aos_core::path::AbsolutePath;
use aos_core::text::{EnvName, EnvValue};
use aos_package::bounds::FILES_MAX;
use aos_package::oci::{Descriptor, LAYER_TAR_TYPE};
use aos_package::repository::{Lease, Repository};
use std::fmt;

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(reference) => write!(f, "{reference}"),
            Self::Package(reference) => write!(f, "aap:{reference}"),
            Self::Dependency { kind, name } => write!(f, "{kind} {name}"),
        }
    }
}

impl Bases for Local {
    fn bring(
        &self,
        wanted: &Wanted,
        locked: Option<Digest>,
        repository: &Repository,
        lease: &Lease,
    ) -> Result<Descriptor, BaseError> {
        let found = match (wanted, locked) {
            (Wanted::Image(reference) | Wanted::Package(reference), _) => repository.resolve(reference)?,
            (Wanted::Dependency { .. }, Some(digest)) => {
                let listed =
                    repository.listed()?.into_iter().find(|listed| listed.descriptor.digest == digest);
                listed.ok_or("it is not in the store: pull it first")?.descriptor
            }
            (Wanted::Dependency { .. }, None) => return Err("it is not locked: run `aos lock`".into()),
        };
        lease.pin(found.digest)?;
        Ok(found)
    }
}

/// Brings something, and checks that it is what the lock says.
pub(crate) fn bring(
    wanted: &Wanted,
    locked: Option<Digest>,
    bases: &dyn Bases,
    repository: &Repository,
    lease: &Lease,
) -> Result<Descriptor, BuildError> {
    let named = match wanted {
        Wanted::Image(reference) | Wanted::Package(reference) => reference.digest,
        Wanted::Dependency { .. } => None,
    };
    let locked = locked.or(named);
    let found = bases
        .bring(wanted, locked, repository, lease)
        .map_err(|source| BuildError::Base { wanted: wanted.to_string(), source })?;
    // An image's reference may name an index, of which one manifest was brought.
    let exact = !matches!(wanted, Wanted::Image(_));
    match locked {
        Some(locked) if exact && locked != found.digest => {
            Err(BuildError::Locked { wanted: wanted.to_string(), found: found.digest, locked })
        }
        _ => Ok(found),
    }
}

/// Makes bases of what is in the repository.
pub(crate) struct Foundations<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) repository: &'a Repository,
    pub(crate) lease: &'a Lease,
    pub(crate) options: &'a Options,
}

impl Foundations<'_> {
    /// A package, and what it carries.
    pub(crate) fn package(&self, manifest: &Descriptor) -> Result<(Made, ResolvedAgent), BuildError> {
        let (document, config) = self.repository.package(manifest)?;
        let layers = self.layers(&manifest.digest.to_string(), document.layers, &config.diff_ids)?;
        let agent = config.agent;
        let run = agent.run.as_ref();
        let settings = Settings {
            env: run.map(|run| run.env.clone()).unwrap_or_default(),
            workdir: run.map(|run| run.workdir.clone()),
            ..Settings::default()
        };
        Ok((Made::base(agent.root, settings, layers), agent))
    }

    /// An image of another tool.
    pub(crate) fn image(&self, wanted: &Wanted, manifest: &Descriptor) -> Result<Made, BuildError> {
        let refused = |reason: String| BuildError::Image { wanted: wanted.to_string(), reason };
        let (document, config) = self.repository.image(manifest)?;
        if config.architecture != self.options.architecture {
            let reason = format!("it is for {}, expected {}", config.architecture, self.options.architecture);
            return Err(refused(reason));
        }
        let mut settings = Settings::default();
        for variable in &config.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            let (name, value) = (name.parse::<EnvName>(), value.parse::<EnvValue>());
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(refused(format!("its variable {variable:?} is not one that a package can have")));
            };
            settings.env.insert(name, value);
        }
        if !config.working_dir.is_empty() {
            let trimmed = config.working_dir.trim_end_matches('/');
            let path = if trimmed.is_empty() { "/" } else { trimmed };
            let path: AbsolutePath =
                path.parse().map_err(|error| refused(format!("its working directory: {error}")))?;
            settings.workdir = Some(path);
        }
        let layers = self.layers(&wanted.to_string(), document.layers, &config.diff_ids)?;
        Ok(Made::base(RootKind::Own, settings, layers))
    }

    /// The layers with what they list, of formats that a package may have.
    fn layers(
        &self,
        of: &str,
        blobs: Vec<Descriptor>,
        diff_ids: &[Digest],
    ) -> Result<Vec<(Layer, Listing)>, BuildError> {
        if blobs.len() != diff_ids.len() {
            let reason = format!("its manifest has {} layers, its config {}", blobs.len(), diff_ids.len());
            return Err(BuildError::Image { wanted: of.to_owned(), reason });
        }
        let mut made = Vec::new();
        // Each layer is bounded by itself; together they are what a package may have.
        let mut entries = 0;
        for (blob, &diff_id) in blobs.into_iter().zip(diff_ids) {
            let (layer, listing) = self.layer(Layer { blob, diff_id })?;
            entries += listing.len();
            if entries > FILES_MAX {
                let reason = format!("its layers have more than {FILES_MAX} entries");
                return Err(BuildError::Image { wanted: of.to_owned(), reason });
            }
            made.push((layer, listing));
        }
        Ok(made)
    }

    /// A layer with what it lists. One that a package cannot have as it is, is written anew once.
    fn layer(&self, layer: Layer) -> Result<(Layer, Listing), BuildError> {
        let now = self.options.started;
        if let Some(listing) = self.cache.listing(&layer, now)
            && layer.blob.media_type != LAYER_TAR_TYPE
        {
            return Ok((layer, listing));
        }
        let key =
            step_key("foreign", self.options).digest(&layer.blob.digest).digest(&layer.diff_id).finish();
        if let Some(mended) = self.cache.step(&key, self.lease, now).and_then(|record| record.layer) {
            let listing = match self.cache.listing(&mended, now) {
                Some(listing) => listing,
                None => scan::listing(self.repository, &mended)?,
            };
            return Ok((mended, listing));
        }
        match scan::listing(self.repository, &layer) {
            Ok(listing) if layer.blob.media_type != LAYER_TAR_TYPE => {
                self.keep(&layer, &listing)?;
                Ok((layer, listing))
            }
            Err(BuildError::Refused { source, .. }) if !foreign::is_mendable(&source) => {
                Err(BuildError::Refused { digest: layer.blob.digest, source })
            }
            Ok(_) | Err(BuildError::Refused { .. }) => {
                let WrittenLayer { layer, listing } =
                    foreign::mend(&layer, self.repository, self.options, self.lease)?;
                self.keep(&layer, &listing)?;
                let title = "layer of a base image, written anew".to_owned();
                let record = StepRecord { title, layer: Some(layer.clone()), note: None };
                self.cache.put_step(&key, &record, now).map_err(|source| self.error(source))?;
                Ok((layer, listing))
            }
            Err(error) => Err(error),
        }
    }

    fn keep(&self, layer: &Layer, listing: &Listing) -> Result<(), BuildError> {
        let kept = self.cache.put_listing(layer, listing, self.options.started);
        kept.map_err(|source| self.error(source))
    }

    fn error(&self, source: std::io::Error) -> BuildError {
        BuildError::Cache { directory: self.repository.root().join("cache"), source }
    }
}
