//! Bringing packages and images into the user store: what a build needs, and what the solver looks at.
//!
//! What is in the store is taken from there and needs no network; `--pull` asks the registry again for what only has
//! a tag. A package of ours from outside gets its tag in the store only when the trust policy allows it. Images of
//! other tools are under no policy: their content is what the Agentfile's author chose, by digest if they want.

use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use aos_build::{BaseError, Bases, Wanted};
use aos_core::id::Digest;
use aos_core::lock::{Lockfile, Source};
use aos_core::reference::{Location, Reference, Tag};
use aos_package::oci::{Descriptor, MANIFEST_TYPE, host_architecture};
use aos_package::repository::{Lease, Origin, Repository};
use aos_registry::{Client, layout};
use clap::Args;
use indicatif::MultiProgress;
use tokio::runtime::Handle;

use crate::exit::{Exit, marked};
use crate::failure::{Carried, hinted};
use crate::output::Output;
use crate::progress::Transfer;
use crate::remote::{self, RegistryArgs};
use crate::store::{self, UserStore};
use crate::trust;

/// Where bases and dependencies come from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SourceArgs {
    /// Look for dependencies in HOST/PATH/NAME, too, or in the directory registry oci:DIR
    #[arg(long = "from", value_name = "HOST/PATH", help_heading = "Sources")]
    pub(crate) from: Vec<String>,

    /// Ask registries again for base images and packages that are named by a tag
    #[arg(long, conflicts_with = "offline", help_heading = "Sources")]
    pub(crate) pull: bool,

    /// Use what the store has, and no network, for bases and dependencies
    #[arg(long, help_heading = "Sources")]
    pub(crate) offline: bool,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Brings packages and images into the user store. Threads of a build use it at once.
pub(crate) struct Fetcher<'a> {
    /// The store.
    pub(crate) store: &'a UserStore,
    /// What the command line says.
    pub(crate) args: &'a SourceArgs,
    /// The lock of the build, which says where dependencies are.
    pub(crate) lock: Lockfile,
    runtime: Handle,
    client: OnceLock<Client>,
    out: Output,
    bars: Option<MultiProgress>,
}

impl<'a> Fetcher<'a> {
    /// A fetcher whose bars are among `bars`.
    pub(crate) fn new(
        store: &'a UserStore,
        args: &'a SourceArgs,
        lock: Lockfile,
        runtime: Handle,
        out: Output,
        bars: Option<MultiProgress>,
    ) -> Self {
        Self { store, args, lock, runtime, client: OnceLock::new(), out, bars }
    }

    /// The client, made when it is needed first: reading credentials and certificates takes a moment.
    pub(crate) fn client(&self) -> Result<&Client> {
        if self.args.offline {
            return Err(marked(
                hinted("a registry is needed, and --offline keeps from asking one", "leave --offline out"),
                Exit::Network,
            ));
        }
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = remote::client(&self.args.registry)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Waits for the network, on a thread that does not belong to the runtime.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn transfer(&self, what: &str) -> Transfer {
        Transfer::among(self.out, self.bars.as_ref(), "pulling", what)
    }

    /// A package of ours, by a reference with a tag or a digest; pinned by the lease.
    pub(crate) fn package(
        &self,
        reference: &Reference,
        locked: Option<Digest>,
        lease: &Lease,
    ) -> Result<Descriptor> {
        if let Some(digest) = locked.or(reference.digest)
            && let Some(held) = self.held(digest, lease)?
        {
            return Ok(held);
        }
        if reference.registry.is_none() {
            let found = self.store.hold(reference, lease)?;
            self.allow(&found, reference)?;
            return expected(found, locked, reference);
        }
        let fresh = self.args.pull || locked.is_some();
        if !fresh && let Ok(found) = self.store.hold(reference, lease) {
            self.allow(&found, reference)?;
            return Ok(found);
        }
        let wanted = locked.map_or_else(|| reference.clone(), |digest| reference.with_digest(digest));
        let transfer = self.transfer(&reference.to_string());
        let pulled = self.wait(self.client()?.pull(&wanted, lease, &transfer));
        let descriptor = pulled.map_err(|error| remote::failed(error, "pull", &wanted))?.descriptor;
        self.admit(&descriptor, reference, lease)?;
        Ok(descriptor)
    }

    /// A package of ours in a directory registry.
    fn of_layout(
        &self,
        path: &std::path::Path,
        name: &Reference,
        locked: Option<Digest>,
        lease: &Lease,
    ) -> Result<Descriptor> {
        let transfer = self.transfer(&path.display().to_string());
        let wanted = locked.map_or_else(|| name.clone(), |digest| name.with_digest(digest));
        let pulled = layout::pull(path, Some(&wanted), lease, &transfer);
        let descriptor =
            pulled.with_context(|| format!("cannot pull {name} from {}", path.display()))?.descriptor;
        self.admit(&descriptor, name, lease)?;
        Ok(descriptor)
    }

    /// A package in the store, by its digest, whatever it is called there.
    fn held(&self, digest: Digest, lease: &Lease) -> Result<Option<Descriptor>> {
        let Some(size) = lease.pin(digest)? else { return Ok(None) };
        let descriptor = Descriptor::new(MANIFEST_TYPE, digest, size);
        // Its layers may have gone, when it has no tag any more.
        let Ok((manifest, _)) = self.store.repository().package(&descriptor) else { return Ok(None) };
        for blob in manifest.blobs() {
            if lease.pin(blob.digest)? != Some(blob.size) {
                return Ok(None);
            }
        }
        // What nothing names came by a pull that was refused.
        let tags = self.store.tags_of(&digest)?;
        let Some(tagged) = tags.first() else { return Ok(None) };
        self.allow(&descriptor, &tagged.reference.with_digest(digest))?;
        Ok(Some(descriptor))
    }

    /// Decides whether a package in the store may be used. The policy is asked each time: a tag only says that it
    /// allowed this once. What was built here needs nobody's leave.
    fn allow(&self, descriptor: &Descriptor, reference: &Reference) -> Result<()> {
        if self.store.was_built_here(&descriptor.digest)? {
            return Ok(());
        }
        let repository = self.store.repository();
        let (_, config) = store::package(repository, descriptor)?;
        let attachments = repository.attachments(&descriptor.digest)?;
        let envelopes = trust::envelopes(repository, &attachments);
        let from = reference.registry.is_some().then_some(reference);
        trust::check_name(reference, &config)?;
        trust::decide(self.store, descriptor, &config, from, &envelopes)?;
        Ok(())
    }

    /// Lets a package from outside be used, or not, and tags it in the store if so.
    fn admit(&self, descriptor: &Descriptor, reference: &Reference, lease: &Lease) -> Result<()> {
        let repository = self.store.repository();
        if let Err(refused) = self.allow(descriptor, reference) {
            trust::forget_refused(self.store, descriptor)?;
            return Err(refused);
        }
        let (_, config) = store::package(repository, descriptor)?;
        let tag = reference.tag.clone().unwrap_or_else(|| Tag::of_version(&config.agent.version));
        repository.tag(lease, &reference.with_tag(tag), descriptor, Origin::Pulled)?;
        Ok(())
    }

    /// The package that a lock or an offer names.
    pub(crate) fn sourced(
        &self,
        source: &Source,
        tag: &Tag,
        name: &str,
        locked: Option<Digest>,
        lease: &Lease,
    ) -> Result<Descriptor> {
        if let Some(digest) = locked
            && let Some(held) = self.held(digest, lease)?
        {
            return Ok(held);
        }
        match source {
            Source::Local => {
                let reference: Reference = format!("{name}:{tag}").parse()?;
                let found = self.store.hold(&reference, lease)?;
                expected(found, locked, &reference)
            }
            Source::At(Location::Registry(reference)) => {
                self.package(&reference.with_tag(tag.clone()), locked, lease)
            }
            Source::At(Location::Layout { path, .. }) => {
                self.of_layout(path, &format!("{name}:{tag}").parse()?, locked, lease)
            }
            Source::At(other) => {
                bail!("{other} is no place for dependencies: a registry or a directory registry is")
            }
        }
    }

    /// An image of another tool.
    fn image(&self, reference: &Reference, lease: &Lease) -> Result<Descriptor> {
        if !self.args.pull
            && let Ok(found) = self.store.hold(reference, lease)
        {
            return self.foreign(found, reference);
        }
        let transfer = self.transfer(&reference.to_string());
        let pulled = self.wait(self.client()?.pull_image(reference, host_architecture(), lease, &transfer));
        let pulled = pulled.map_err(|error| remote::failed(error, "pull", reference))?;
        let descriptor = self.foreign(pulled, reference)?;
        // Kept under its tag; one that is named by digest is kept by the layers in the cache.
        if reference.tag.is_some() && reference.digest.is_none() {
            self.store.repository().tag(lease, reference, &descriptor, Origin::Pulled)?;
        }
        Ok(descriptor)
    }

    /// Refuses a package of ours where an image is meant: the policy is not asked for images.
    fn foreign(&self, descriptor: Descriptor, reference: &Reference) -> Result<Descriptor> {
        match self.store.repository().package(&descriptor) {
            Err(_) => Ok(descriptor),
            Ok(_) => Err(marked(
                hinted(
                    format!("{reference} is a package, not an image"),
                    format!("write `from: aap:{reference}`"),
                ),
                Exit::Refused,
            )),
        }
    }

    fn bring_any(&self, wanted: &Wanted, locked: Option<Digest>, lease: &Lease) -> Result<Descriptor> {
        match wanted {
            Wanted::Image(reference) => self.image(reference, lease),
            Wanted::Package(reference) => self.package(reference, locked, lease),
            Wanted::Dependency { kind, name } => {
                let Some(package) = self.lock.get(*kind, name) else {
                    return Err(marked(
                        hinted(format!("the {kind} {name} is not locked"), "`aos lock` finds its version"),
                        Exit::Unsolvable,
                    ));
                };
                let digest = locked.unwrap_or(package.digest);
                let tag = Tag::of_version(&package.version);
                self.sourced(&package.source, &tag, name.as_str(), Some(digest), lease)
            }
        }
    }
}

impl Bases for Fetcher<'_> {
    fn bring(
        &self,
        wanted: &Wanted,
        locked: Option<Digest>,
        _repository: &Repository,
        lease: &Lease,
    ) -> Result<Descriptor, BaseError> {
        self.bring_any(wanted, locked, lease).map_err(|error| BaseError::from(Carried(error)))
    }
}

/// Refuses something else than what is locked.
fn expected(found: Descriptor, locked: Option<Digest>, reference: &Reference) -> Result<Descriptor> {
    match locked {
        Some(digest) if digest != found.digest => Err(marked(
            hinted(
                format!("{reference} is {} now, and the lock has {digest}", found.digest),
                "`aos lock --update` takes what there is now",
            ),
            Exit::Unsolvable,
        )),
        _ => Ok(found),
    }
}
