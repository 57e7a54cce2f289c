//! From a request to a package in the store.

use crate::bases::Bases;
use crate::builder::Builder;
use crate::cache::{Cache, InUse, Layer};
use crate::context::{Context, FileDigests, revision};
use crate::entrypoint;
use crate::error::{BuildError, EPOCH_MAX};
use crate::load::{self, Parents};
use crate::made::Made;
use crate::materials::{BUILDER_VERSION, Collected, Materials};
use crate::options::Request;
use crate::progress::Progress;
use crate::schedule;
use crate::tree::{Node, Tree};
use aos_core::agentfile::{Agentfile, AgentfileError, Inherited, Step, graph};
use aos_core::config::ResolvedAgent;
use aos_core::id::{Digest, PackageRef};
use aos_core::lock::Lockfile;
use aos_core::reference::Reference;
use aos_package::oci::{CONFIG_TYPE, Descriptor, MANIFEST_TYPE, Manifest, PackageConfig};
use aos_package::repository::{Lease, Origin, Repository};
use sha2::{Digest as _, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A package that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its name and version, which it has in the store.
    pub reference: PackageRef,
    /// Its manifest; its digest is the package's.
    pub manifest: Descriptor,
    /// The same digest.
    pub digest: Digest,
    /// What it carries.
    pub agent: ResolvedAgent,
    /// Its files and directories.
    pub entries: usize,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Why no start on this machine would succeed, each with file, line and field. They are no part
    /// of the package: another version of AOS, or another machine, may think otherwise.
    pub obstacles: Vec<AgentfileError>,
    /// Steps that make layers.
    pub steps: usize,
    /// Those of them whose layers came from the cache.
    pub cached_steps: usize,
    /// How long it took.
    pub took: Duration,
    /// What went into it.
    pub materials: Materials,
    /// Its files, without their contents.
    pub files: Files,
    /// Keeps the package and its layers from being collected, also when its name is given to
    /// another one in the meantime, until it is dropped.
    pub lease: Lease,
}

/// The files of a package as its layers together make them.
#[derive(Clone)]
pub struct Files(Arc<Tree>);

impl Files {
    /// Every file with its path below the root, its bytes and the digest of its contents, sorted by
    /// path; directories and symbolic links are left out.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, Digest)> {
        self.0.iter().filter_map(|(path, entry)| match entry.node {
            Node::File { size, digest } => Some((path, size, digest)),
            Node::Directory | Node::Symlink(_) => None,
        })
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Files({} entries)", self.0.len())
    }
}

/// What a build has read before its first step.
pub(crate) struct Prepared {
    pub(crate) context: Context,
    pub(crate) agentfile: Agentfile,
    /// What the Agentfile extends, with digests.
    pub(crate) parents: Vec<(String, Digest)>,
    pub(crate) lock: Lockfile,
    pub(crate) lease: Lease,
    pub(crate) cache: Cache,
    pub(crate) digests: FileDigests,
    pub(crate) _in_use: InUse,
}

/// Reads everything that the stages share.
pub(crate) fn prepare(
    request: &Request<'_>,
    repository: &Repository,
    bases: &dyn Bases,
) -> Result<Prepared, BuildError> {
    let options = &request.options;
    if options.source_date_epoch > EPOCH_MAX {
        return Err(BuildError::Epoch(options.source_date_epoch));
    }
    let failed = |source| BuildError::Cache { directory: repository.root().join("cache"), source };
    let context = Context::open(request.directory, request.agentfile)?;
    let lock = match &request.lock {
        Some(lock) => lock.clone(),
        None => load::lock(&context)?,
    };
    let lease = repository.lease()?;
    let parents = Parents { bases, repository, lease: &lease, lock: &lock };
    let load::Loaded { mut agentfile, parents } = load::agentfile(&context, &request.arguments, &parents)?;
    if let Some(name) = &request.name {
        agentfile.metadata.name = name.clone();
    }
    if let Some(version) = &request.version {
        agentfile.metadata.version = version.clone();
    }
    let cache = Cache::open(repository).map_err(failed)?;
    let in_use = cache.use_it().map_err(failed)?;
    let digests = FileDigests::load(&cache.files(), &context, options.started);
    Ok(Prepared { context, agentfile, parents, lock, lease, cache, digests, _in_use: in_use })
}

impl Prepared {
    /// What makes the stages.
    pub(crate) fn builder<'p>(
        &'p self,
        request: &'p Request<'_>,
        repository: &'p Repository,
        bases: &'p dyn Bases,
        progress: &'p dyn Progress,
    ) -> Builder<'p> {
        let materials = Collected::default();
        for (name, digest) in &self.parents {
            materials.base(name.clone(), *digest);
        }
        Builder {
            context: &self.context,
            agentfile: &self.agentfile,
            options: &request.options,
            lock: &self.lock,
            repository,
            lease: &self.lease,
            cache: &self.cache,
            digests: &self.digests,
            bases,
            progress,
            materials,
            host: OnceLock::new(),
            steps: AtomicUsize::new(0),
            cached: AtomicUsize::new(0),
        }
    }
}

/// Builds a directory into a package of `repository`, where it gets its name.
pub fn build(
    request: &Request<'_>,
    repository: &Repository,
    bases: &dyn Bases,
    progress: &dyn Progress,
) -> Result<Built, BuildError> {
    let started = Instant::now();
    let prepared = prepare(request, repository, bases)?;
    let builder = prepared.builder(request, repository, bases, progress);
    let made = stages(&builder);
    // What was hashed is known to the next build, also when this one fails.
    let saved = prepared.digests.save();
    let made = made?;
    saved.map_err(|source| builder.cache_error(source))?;
    let inherited =
        Inherited { settings: made.ground.clone(), root: Some(made.root), lock: prepared.lock.clone() };
    let agent = prepared.agentfile.resolve_with(&inherited)?;
    let program = entrypoint::check(&prepared.agentfile, &agent, &made.tree)?;
    let mut obstacles = prepared.agentfile.not_enforceable();
    obstacles.extend(program.and_then(|program| entrypoint::check_host(&prepared.agentfile, &program)));
    let layers = builder.merged(&made)?;
    let package = package(&builder, agent, &layers)?;
    let (steps, cached_steps) =
        (builder.steps.load(Ordering::Relaxed), builder.cached.load(Ordering::Relaxed));
    let materials = materials(request, &prepared, builder.materials);
    Ok(Built {
        reference: package.agent.reference(),
        digest: package.manifest.digest,
        manifest: package.manifest,
        agent: package.agent,
        entries: made.tree.len(),
        layers: layers.into_iter().map(|layer| layer.blob).collect(),
        obstacles,
        steps,
        cached_steps,
        took: started.elapsed(),
        materials,
        files: Files(Arc::clone(&made.tree)),
        lease: prepared.lease,
    })
}

/// The indexes of the stages to build, in their order.
pub(crate) fn order(agentfile: &Agentfile) -> Result<Vec<usize>, BuildError> {
    let Some(build) = &agentfile.build else { return Ok(Vec::new()) };
    let order = graph::order(build).map_err(|error| agentfile.error_at(error.field(), &error))?;
    let needed = build.needed();
    Ok(order.into_iter().filter(|index| needed.contains(index)).collect())
}

fn stages(builder: &Builder<'_>) -> Result<Arc<Made>, BuildError> {
    match &builder.agentfile.build {
        Some(build) => schedule::run(builder, build, &order(builder.agentfile)?),
        None => builder.whole_directory().map(Arc::new),
    }
}

/// The blobs of a package in the store.
struct Packaged {
    agent: ResolvedAgent,
    manifest: Descriptor,
}

/// Writes config and manifest, and gives the package its name.
fn package(builder: &Builder<'_>, agent: ResolvedAgent, layers: &[Layer]) -> Result<Packaged, BuildError> {
    let options = builder.options;
    let config = PackageConfig {
        agent,
        diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
        architecture: options.architecture.clone(),
    };
    let bytes = config.to_json(options.source_date_epoch)?;
    let blob = builder.lease.put(CONFIG_TYPE, &bytes)?;
    let manifest = Manifest::new(blob, layers.iter().map(|layer| layer.blob.clone()).collect());
    let manifest = builder.lease.put(MANIFEST_TYPE, &manifest.to_json()?)?;
    let agent = config.agent;
    let error = |error| BuildError::from(builder.agentfile.error_at("metadata.version", error));
    let reference = Reference::local(&agent.name, &agent.version).map_err(error)?;
    let has_name = builder.repository.resolve(&reference).is_ok_and(|found| found.digest == manifest.digest);
    if !has_name {
        builder.repository.tag(builder.lease, &reference, &manifest, Origin::Built)?;
    }
    Ok(Packaged { agent, manifest })
}

fn materials(request: &Request<'_>, prepared: &Prepared, collected: Collected) -> Materials {
    let (bases, context, context_files) = collected.finish();
    let build = prepared.agentfile.build.as_ref();
    let steps = build.into_iter().flat_map(|build| &build.stages).flat_map(|stage| &stage.steps);
    let secrets = steps.filter_map(|step| match step {
        Step::Run(run) => Some(run.secrets.iter().map(ToString::to_string)),
        _ => None,
    });
    let (text, _, _) = prepared.context.agentfile();
    let arguments = request.arguments.iter();
    Materials {
        bases,
        context,
        context_files,
        agentfile: Digest::from_bytes(Sha256::digest(text.as_bytes()).into()),
        arguments: arguments
            .map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned()))
            .collect(),
        secrets: secrets.flatten().collect(),
        source_revision: revision(request.directory),
        builder_version: BUILDER_VERSION.to_owned(),
        architecture: request.options.architecture.clone(),
        source_date_epoch: request.options.source_date_epoch,
    }
}
