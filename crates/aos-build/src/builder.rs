//! Builds one stage: its base, then its steps in their order.

use crate::base::{self, Foundations};
use crate::bases::{Bases, Wanted};
use crate::cache::{Cache, Layer, StepRecord};
use crate::context::{Context, FileDigests, Found};
use crate::copy::{self, Copied, Directory, Origin};
use crate::error::BuildError;
use crate::key::Key;
use crate::layer::{self, Planned, Sources, bytes_of};
use crate::load;
use crate::made::Made;
use crate::materials::Collected;
use crate::options::{CacheUse, Options};
use crate::place::Place;
use crate::progress::{Event, Progress, StepName};
use crate::scan;
use crate::title::{title_of_base, title_of_step};
use crate::tree::{Entry, Item, Listing, Node, Tree};
use crate::trees::{Stored, Trees};
use aos_core::agentfile::{Agentfile, Base, Copy, CopyOrigin, CopyTarget, Stage, StageName, Step};
use aos_core::config::RootKind;
use aos_core::id::{Digest, PackageName};
use aos_core::lock::Lockfile;
use aos_package::repository::{Lease, Repository};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Directories that the launcher makes itself, so that a package's files there are never seen.
pub(crate) const RESERVED: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];
/// The agent's own directory, which it sees instead of the package's.
const WORKSPACE: &str = "workspace";

/// Everything that the stages of one build share.
pub(crate) struct Builder<'a> {
    pub(crate) context: &'a Context,
    pub(crate) agentfile: &'a Agentfile,
    pub(crate) options: &'a Options,
    pub(crate) lock: &'a Lockfile,
    pub(crate) repository: &'a Repository,
    pub(crate) lease: &'a Lease,
    pub(crate) cache: &'a Cache,
    pub(crate) digests: &'a FileDigests,
    pub(crate) bases: &'a dyn Bases,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) materials: Collected,
    /// What steps on the host's root depend on; known once one is made.
    pub(crate) host: OnceLock<Digest>,
    /// Steps that made a layer, and those of them whose layer came from the cache.
    pub(crate) steps: AtomicUsize,
    pub(crate) cached: AtomicUsize,
}

/// A step while it is made.
pub(crate) struct Current<'s> {
    pub(crate) name: StepName<'s>,
    pub(crate) place: Place<'s>,
    pub(crate) started: Instant,
}

impl Current<'_> {
    /// Since its beginning.
    pub(crate) fn took(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What a copy step copies.
pub(crate) struct CopyPlan {
    pub(crate) items: Vec<Planned>,
    files: Vec<Found>,
    pub(crate) key: Digest,
    /// Where it copies from when that is not the directory.
    other: Option<Arc<Made>>,
}

/// What a layer of these items lists.
pub(crate) fn listing_of(items: Vec<Planned>) -> Listing {
    items.into_iter().map(|planned| (planned.path, planned.item)).collect()
}

/// How to make a layer that is not in the cache.
pub(crate) type Make<'m> = dyn FnOnce() -> Result<Option<layer::WrittenLayer>, BuildError> + 'm;

impl<'a> Builder<'a> {
    /// Builds a stage; `done` gives the stages that it needs.
    pub(crate) fn stage(
        &self,
        index: usize,
        stage: &Stage,
        done: &dyn Fn(&StageName) -> Option<Arc<Made>>,
    ) -> Result<Made, BuildError> {
        let field = format!("build.stages[{index}]");
        let of = stage.steps.len();
        let title = title_of_base(stage);
        let place = Place { agentfile: self.agentfile, field: format!("{field}.from") };
        let place_of = place.position();
        let name = StepName { stage: stage.name.as_str(), number: 0, of, title: &title, place: place_of };
        let current = Current { name, place, started: Instant::now() };
        let mut made = self.told(&current, || self.base(stage, done, &current))?;
        for (number, step) in stage.steps.iter().enumerate() {
            if self.options.cancel.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            let title = title_of_step(step);
            let field = format!("{field}.steps[{number}].{}", step.name());
            let place = Place { agentfile: self.agentfile, field };
            let place_of = place.position();
            let name = StepName {
                stage: stage.name.as_str(),
                number: number + 1,
                of,
                title: &title,
                place: place_of,
            };
            let current = Current { name, place, started: Instant::now() };
            self.told(&current, || self.step(stage, step, done, &mut made, &current))?;
        }
        Ok(made)
    }

    /// The only stage of an Agentfile without `build`: all files of the directory.
    pub(crate) fn whole_directory(&self) -> Result<Made, BuildError> {
        let to = self.agentfile.default_directory();
        let title = format!("copy . {to}");
        let place = Place { agentfile: self.agentfile, field: String::new() };
        let name = StepName { stage: "", number: 1, of: 1, title: &title, place: place.position() };
        let current = Current { name, place, started: Instant::now() };
        let copy = whole_copy(to)?;
        let mut made = Made::empty(RootKind::Host);
        self.told(&current, || self.copy(&copy, &|_| None, &mut made, &current))?;
        Ok(made)
    }

    /// Does something and tells of its failure.
    fn told<T>(
        &self,
        current: &Current<'_>,
        work: impl FnOnce() -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        work().inspect_err(|error| {
            self.progress.event(&current.name, Event::Failed { message: &error.chain() });
        })
    }

    pub(crate) fn base(
        &self,
        stage: &Stage,
        done: &dyn Fn(&StageName) -> Option<Arc<Made>>,
        current: &Current<'_>,
    ) -> Result<Made, BuildError> {
        match &stage.from {
            Base::Host => Ok(Made::empty(RootKind::Host)),
            Base::Scratch => Ok(Made::empty(RootKind::Own)),
            Base::Stage(name) => {
                let made = done(name).ok_or(BuildError::Internal("a stage that is needed is not built"))?;
                Ok(Made::clone(&made))
            }
            Base::Debian(suite) => self.debian(suite, &stage.packages, current),
            Base::Package(reference) => {
                let wanted = Wanted::Package(reference.clone());
                let (made, _) = self.bring(&wanted, load::locked(self.lock, reference), current)?;
                Ok(made)
            }
            Base::Image(reference) => {
                let (made, _) = self.bring(&Wanted::Image(reference.clone()), None, current)?;
                Ok(made)
            }
        }
    }

    /// Brings an image or package.
    fn bring(
        &self,
        wanted: &Wanted,
        locked: Option<Digest>,
        current: &Current<'_>,
    ) -> Result<(Made, Digest), BuildError> {
        self.progress.event(&current.name, Event::Started);
        let found = base::bring(wanted, locked, self.bases, self.repository, self.lease)?;
        self.materials.base(wanted.to_string(), found.digest);
        let foundations = Foundations {
            cache: self.cache,
            repository: self.repository,
            lease: self.lease,
            options: self.options,
        };
        let made = match wanted {
            Wanted::Image(_) => foundations.image(wanted, &found)?,
            Wanted::Package(_) => foundations.package(&found)?.0,
            Wanted::Dependency { kind, name } => {
                let (made, agent) = foundations.package(&found)?;
                if kind.package_kind() != Some(agent.kind) || *name != agent.name {
                    let reason = format!("{} is {} {}", found.digest, agent.kind, agent.name);
                    return Err(BuildError::Image { wanted: wanted.to_string(), reason });
                }
                made
            }
        };
        let bytes = made.layers.iter().map(|layer| layer.blob.size).sum();
        self.progress.event(&current.name, Event::Done { bytes, took: current.took() });
        Ok((made, found.digest))
    }

    fn step(
        &self,
        stage: &Stage,
        step: &Step,
        done: &dyn Fn(&StageName) -> Option<Arc<Made>>,
        made: &mut Made,
        current: &Current<'_>,
    ) -> Result<(), BuildError> {
        match step {
            Step::Copy(copy) => {
                self.check_target(stage, &copy.to, made.root, &current.place)?;
                self.copy(copy, done, made, current)
            }
            Step::Run(run) => self.run(run, made, current),
            Step::Env(_) | Step::Workdir(_) | Step::Expose(_) | Step::Label(_) => {
                made.settings.apply(step);
                Ok(())
            }
        }
    }

    pub(crate) fn check_target(
        &self,
        stage: &Stage,
        to: &CopyTarget,
        root: RootKind,
        place: &Place<'_>,
    ) -> Result<(), BuildError> {
        let build = self.agentfile.build.as_ref();
        let output = build.and_then(|build| Some((build, build.output()?)));
        let is_package = output.is_some_and(|(build, output)| {
            build.lineage(output).iter().any(|below| below.name == stage.name)
        });
        match to.path().segments().next() {
            Some(top) if RESERVED.contains(&top) || (is_package && top == WORKSPACE) => Err(place.error(
                "to",
                format!("`/{top}` is made by the launcher for each run, files there would not be seen"),
            )),
            None if root == RootKind::Host => {
                Err(place
                    .error("to", "a package on the host's root has its files in directories, such as /app"))
            }
            _ => Ok(()),
        }
    }

    fn copy(
        &self,
        copy: &Copy,
        done: &dyn Fn(&StageName) -> Option<Arc<Made>>,
        made: &mut Made,
        current: &Current<'_>,
    ) -> Result<(), BuildError> {
        self.progress.event(&current.name, Event::Started);
        let CopyPlan { items, files, key, other } = self.plan_copy(copy, done, &made.tree, current)?;
        if other.is_none() {
            self.materials.copy(key, &items);
        }
        if let Some(record) = self.found(&key, current) {
            if let Some(layer) = record.layer {
                made.push(layer, listing_of(items));
            }
            return Ok(());
        }
        let total = bytes_of(items.iter().map(|planned| &planned.item));
        let make = || {
            let stored = other.as_ref().map(|other| self.stored(other)).transpose()?;
            let context = Some((self.context, self.digests));
            let sources = Sources { context, files: &files, stored: stored.as_ref(), ..Sources::default() };
            let progress = |done| self.progress.event(&current.name, Event::Bytes { done, total });
            layer::write(items, &sources, self.options, self.lease, &progress).map(Some)
        };
        if let (StepRecord { layer: Some(layer), .. }, listing) = self.make(&key, current, Box::new(make))? {
            made.push(layer, listing.unwrap_or_default());
        }
        Ok(())
    }

    /// Finds out what a copy step copies.
    pub(crate) fn plan_copy(
        &self,
        copy: &Copy,
        done: &dyn Fn(&StageName) -> Option<Arc<Made>>,
        stage: &Tree,
        current: &Current<'_>,
    ) -> Result<CopyPlan, BuildError> {
        let other = match &copy.origin {
            CopyOrigin::Directory => None,
            CopyOrigin::Stage(name) => {
                Some(done(name).ok_or(BuildError::Internal("a stage that is needed is not built"))?)
            }
            CopyOrigin::Package(name) => Some(Arc::new(self.dependency(name, current)?)),
        };
        let origin = match &other {
            Some(other) => Origin::Tree(&other.tree),
            None => Origin::Directory(Directory {
                context: self.context,
                digests: self.digests,
                threads: self.options.threads,
                read: &|_| {},
            }),
        };
        let Copied { items, files } = copy::plan(copy, &origin, stage, &current.place)?;
        let key = copy_key(&items, self.options);
        Ok(CopyPlan { items, files, key, other })
    }

    /// The contents of another stage or package.
    fn stored(&self, other: &Made) -> Result<Stored, BuildError> {
        Stored::new(self.trees().whole(&other.layers)?, &other.tree)
    }

    pub(crate) const fn trees(&self) -> Trees<'_> {
        Trees { cache: self.cache, repository: self.repository, now: self.options.started }
    }

    fn dependency(&self, name: &PackageName, current: &Current<'_>) -> Result<Made, BuildError> {
        let packages =
            || self.agentfile.dependencies.iter().filter(|dependency| dependency.kind.is_package());
        let found = packages().find(|dependency| dependency.name == *name);
        let dependency = found.ok_or_else(|| {
            let known: Vec<String> = packages().map(|dependency| dependency.name.to_string()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            current
                .place
                .error("package", format!("`{name}` is not among the dependencies, which are {known}"))
        })?;
        let locked = self.lock.get(dependency.kind, name).map(|locked| locked.digest);
        let wanted = Wanted::Dependency { kind: dependency.kind, name: name.clone() };
        Ok(self.bring(&wanted, locked, current)?.0)
    }

    /// What the cache has of a key.
    pub(crate) fn cached_step(&self, key: &Digest) -> Option<StepRecord> {
        match self.options.cache {
            CacheUse::Use => self.cache.step(key, self.lease, self.options.started),
            CacheUse::Ignore => None,
        }
    }

    /// The result of a step: from the cache, or made and kept there. The listing is there only when
    /// the layer was made.
    pub(crate) fn cached(
        &self,
        key: &Digest,
        current: &Current<'_>,
        make: Box<Make<'_>>,
    ) -> Result<(StepRecord, Option<Listing>), BuildError> {
        match self.found(key, current) {
            Some(record) => Ok((record, None)),
            None => self.make(key, current, make),
        }
    }

    /// Looks for the result of a step in the cache.
    fn found(&self, key: &Digest, current: &Current<'_>) -> Option<StepRecord> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        let record = self.cached_step(key)?;
        self.cached.fetch_add(1, Ordering::Relaxed);
        let bytes = record.layer.as_ref().map_or(0, |layer| layer.blob.size);
        self.progress.event(&current.name, Event::Cached { bytes });
        Some(record)
    }

    /// Makes the result of a step and keeps it.
    fn make(
        &self,
        key: &Digest,
        current: &Current<'_>,
        make: Box<Make<'_>>,
    ) -> Result<(StepRecord, Option<Listing>), BuildError> {
        let (layer, listing) = match make()? {
            Some(written) => (Some(written.layer), Some(written.listing)),
            None => (None, None),
        };
        let bytes = layer.as_ref().map_or(0, |layer| layer.blob.size);
        let record = StepRecord { title: current.name.to_string(), layer, note: None };
        self.keep(key, &record)?;
        self.progress.event(&current.name, Event::Done { bytes, took: current.took() });
        Ok((record, listing))
    }

    /// What a layer lists: known from when it was made, or read again.
    pub(crate) fn listing(&self, layer: &Layer) -> Result<Listing, BuildError> {
        match self.cache.listing(layer, self.options.started) {
            Some(listing) => Ok(listing),
            None => scan::listing(self.repository, layer),
        }
    }

    /// Keeps what a layer lists, when that is no part of the step's inputs.
    pub(crate) fn keep_listing(&self, layer: &Layer, listing: &Listing) -> Result<(), BuildError> {
        let kept = self.cache.put_listing(layer, listing, self.options.started);
        kept.map_err(|source| self.cache_error(source))
    }

    pub(crate) fn keep(&self, key: &Digest, record: &StepRecord) -> Result<(), BuildError> {
        self.cache.put_step(key, record, self.options.started).map_err(|source| self.cache_error(source))
    }

    pub(crate) fn cache_error(&self, source: std::io::Error) -> BuildError {
        BuildError::Cache { directory: self.repository.root().join("cache"), source }
    }
}

/// The copy of the whole directory.
pub(crate) fn whole_copy(to: &str) -> Result<Copy, BuildError> {
    use aos_core::agentfile::{CopySource, Owner};
    Ok(Copy {
        origin: CopyOrigin::Directory,
        from: vec![CopySource::All],
        to: CopyTarget::As(to.parse().map_err(|_| BuildError::Internal("the default directory"))?),
        owner: Owner::default(),
        mode: None,
        exclude: Vec::new(),
    })
}

/// The key of every step: what the format of its layer depends on.
pub(crate) fn step_key(domain: &str, options: &Options) -> Key {
    Key::of(domain)
        .number(options.source_date_epoch)
        .text(&options.architecture)
        .text(options.compression.media_type())
}

/// The key of a copy step is what its layer has: paths, attributes and digests. So it does not
/// depend on how the step is written, nor on layers below that do not show in it.
fn copy_key(plan: &[Planned], options: &Options) -> Digest {
    let mut key = step_key("copy", options).number(plan.len() as u64);
    let mut fields = Vec::new();
    for planned in plan {
        key.add(planned.path.as_bytes());
        fields.clear();
        describe(&planned.item, &mut fields);
        key.add(&fields);
    }
    key.finish()
}

/// All of an item in a form of its own: its kind, then what the kind has.
fn describe(item: &Item, fields: &mut Vec<u8>) {
    let mut owned = |kind: u8, entry: &Entry| {
        fields.push(kind);
        for number in [entry.mode, entry.uid, entry.gid] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
    };
    match item {
        Item::Entry(entry) => match &entry.node {
            Node::Directory => owned(0, entry),
            Node::File { size, digest } => {
                owned(1, entry);
                fields.extend_from_slice(&size.to_le_bytes());
                fields.extend_from_slice(digest.as_bytes());
            }
            Node::Symlink(target) => {
                owned(2, entry);
                fields.extend_from_slice(target.as_bytes());
            }
        },
        Item::HardLink(target) => {
            fields.push(3);
            fields.extend_from_slice(target.as_bytes());
        }
        Item::Whiteout => fields.push(4),
        Item::Opaque => fields.push(5),
    }
}
