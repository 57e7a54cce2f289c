//! A file and what it extends, joined into one Agentfile.
//!
//! The caller loads each parent, since this crate has no input: it asks [`Lineage::wanted`] and
//! answers with [`Lineage::push_file`] or [`Lineage::push_package`] until nothing is wanted.
//!
//! Joined are: maps (labels, variables, arguments) with the child's entry over the parent's,
//! capabilities as their union with the child's qualifiers, `limits` and `run` field by field,
//! dependencies by kind and name, stages with the parent's first, so that a child's may use them as
//! `stage:NAME`. Paths of copy steps, a parent's too, are those of the directory that is built: a parent
//! is a template.

use super::build::{Arguments, Base, Build, Stage, StageName};
use super::decode;
use super::draft::{Draft, Extends, PartialRun};
use super::error::{AgentfileError, Problem};
use super::resolve::Settings;
use super::source::Sources;
use super::step::{CopyOrigin, Step};
use super::substitute::Substitution;
use super::{Agentfile, Metadata, Run, graph};
use crate::capability::{Capability, CapabilitySet, SetError};
use crate::config::{Limits, PackageKind, ResolvedAgent};
use crate::dependency::{DEPENDENCIES_MAX, Dependency, DependencyKind};
use crate::id::PackageName;
use crate::quoted::Quoted;
use crate::reference::Reference;
use std::collections::BTreeMap;

/// Parents of a file: deeper nobody finds out what an agent is made of.
pub const EXTENDS_DEPTH_MAX: usize = 8;
/// The name of the stage that a package which is extended becomes.
pub const PARENT_STAGE: &str = "parent";

/// A package that is extended: the last of a lineage.
#[derive(Debug, Clone)]
struct ParentPackage {
    reference: Reference,
    agent: Box<ResolvedAgent>,
}

/// The elements of joined lists that stand elsewhere than their paths say: the path in the joined
/// file, and the number and path of the file.
type Moved = BTreeMap<String, (usize, String)>;

/// A file and what it extends.
#[derive(Debug, Clone)]
pub struct Lineage {
    child: Member,
    /// The parent of the child first.
    parents: Vec<Member>,
    package: Option<ParentPackage>,
}

/// A file of a lineage.
#[derive(Debug, Clone)]
struct Member {
    /// What tells it from others.
    identity: String,
    draft: Draft,
}

impl Lineage {
    /// The lineage of a file. `identity` tells the file from others, whatever it is called: a path
    /// without links and `..`.
    pub const fn new(identity: String, draft: Draft) -> Self {
        Self { child: Member { identity, draft }, parents: Vec::new(), package: None }
    }

    /// What the file itself says that it is.
    pub const fn child(&self) -> (PackageKind, &Metadata) {
        (self.child.draft.kind, &self.child.draft.metadata)
    }

    /// The files, the child first.
    fn files(&self) -> impl DoubleEndedIterator<Item = &Member> {
        std::iter::once(&self.child).chain(&self.parents)
    }

    fn last(&self) -> &Draft {
        &self.parents.last().unwrap_or(&self.child).draft
    }

    /// What must be loaded next, with the file that extends it.
    pub fn wanted(&self) -> Option<(&Extends, &Draft)> {
        let last = self.last();
        last.extends().filter(|_| self.package.is_none()).map(|extends| (extends, last))
    }

    /// Adds the file that was wanted. An error when it is one of the files before, which it names,
    /// when there are too many, or when the kinds differ.
    pub fn push_file(&mut self, identity: String, parent: Draft) -> Result<(), AgentfileError> {
        if let Some(start) = self.files().position(|known| known.identity == identity) {
            let circle = self.files().skip(start).map(|known| Quoted(known.draft.origin()).to_string());
            let circle: Vec<String> = circle.chain([Quoted(parent.origin()).to_string()]).collect();
            return Err(self
                .refused(format!("the files extend each other in a circle: {}", circle.join(" extends "))));
        }
        if self.parents.len() >= EXTENDS_DEPTH_MAX {
            return Err(self.refused(format!("a file has at most {EXTENDS_DEPTH_MAX} parents")));
        }
        self.check_kind(parent.kind())?;
        self.parents.push(Member { identity, draft: parent });
        Ok(())
    }

    /// Adds the package that was wanted, by a reference that has its digest.
    pub fn push_package(&mut self, reference: Reference, agent: ResolvedAgent) -> Result<(), AgentfileError> {
        self.check_kind(agent.kind)?;
        self.package = Some(ParentPackage { reference, agent: Box::new(agent) });
        Ok(())
    }

    fn check_kind(&self, parent: PackageKind) -> Result<(), AgentfileError> {
        let kind = self.child.draft.kind;
        if kind == parent {
            return Ok(());
        }
        Err(self.refused(format!("that is of kind {parent}, expected {kind}")))
    }

    /// An error at the `extends` of the last file.
    fn refused(&self, message: impl std::fmt::Display) -> AgentfileError {
        self.last().error_at("extends", message)
    }

    /// The values of the build arguments that the files declare: their defaults, a child's over its
    /// parent's.
    pub fn arguments(&self) -> Arguments {
        let builds = self.files().rev().filter_map(|file| file.draft.build.as_ref());
        builds.flat_map(|build| build.args.clone()).collect()
    }

    /// What the files and the package that are there declare to depend on, joined.
    pub fn declared_dependencies(&self) -> Result<Vec<Dependency>, AgentfileError> {
        self.dependencies(&mut Moved::new())
    }

    /// The Agentfile. `arguments` are values over the defaults; an error when one is not declared, or
    /// when something is still wanted.
    pub fn finish(self, arguments: &Arguments) -> Result<Agentfile, AgentfileError> {
        if let Some((extends, last)) = self.wanted() {
            return Err(last.error_at("extends", format!("`{extends}` is not loaded")));
        }
        let mut moved = Moved::new();
        let build = self.build(arguments, &mut moved)?;
        let (capabilities, written) = self.capabilities(&mut moved)?;
        let dependencies = self.dependencies(&mut moved)?;
        let file = Agentfile {
            kind: self.child.draft.kind,
            metadata: self.metadata(),
            build,
            run: self.run()?,
            dependencies,
            capabilities,
            limits: self.limits(),
            written,
            ground: self.ground(),
            sources: Sources::new(self.files().map(|file| file.draft.source.clone()).collect(), moved),
        };
        check_build(&file)?;
        Ok(file)
    }

    /// The files with their numbers, the farthest parent first.
    fn root_first(&self) -> impl Iterator<Item = (usize, &Draft)> {
        let numbered: Vec<_> = self.files().map(|file| &file.draft).enumerate().collect();
        numbered.into_iter().rev()
    }

    fn build(&self, arguments: &Arguments, moved: &mut Moved) -> Result<Option<Build>, AgentfileError> {
        let mut args = self.arguments();
        for (name, value) in arguments {
            let known: Vec<&str> = args.keys().map(|name| name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let slot = args.get_mut(name).ok_or_else(|| {
                let name = Quoted(name.as_str());
                self.child
                    .draft
                    .error_at("build.args", format!("{name} is not declared, declared are: {known}"))
            })?;
            slot.clone_from(value);
        }
        let mut stages = Vec::new();
        if let Some(package) = &self.package {
            moved.insert("build.stages[0]".to_owned(), (self.parents.len(), "extends".to_owned()));
            stages.push(package.stage());
        }
        let mut substitution = Substitution::new(&args);
        for (number, draft) in self.root_first() {
            let in_file = |problem: Problem| problem.in_file(draft.origin());
            let Some(nodes) = draft.build.as_ref().and_then(|build| build.stages.as_ref()) else { continue };
            for (index, node) in nodes.iter().enumerate() {
                let path = format!("build.stages[{index}]");
                let node = substitution.node(node, &path).map_err(in_file)?;
                moved.insert(format!("build.stages[{}]", stages.len()), (number, path.clone()));
                stages.push(decode::stage(&node, path).map_err(in_file)?);
            }
        }
        let wants_build = self.files().any(|file| file.draft.build.is_some());
        if stages.is_empty() && wants_build {
            return Err(self.child.draft.error_at("build.stages", "missing, expected a list of stages"));
        }
        Ok((!stages.is_empty()).then_some(Build { args, stages }))
    }

    fn metadata(&self) -> Metadata {
        let mut metadata = self.child.draft.metadata.clone();
        metadata.labels = self.root_first().flat_map(|(_, draft)| draft.metadata.labels.clone()).collect();
        let of_files = self.files().find_map(|file| file.draft.metadata.description.clone());
        let of_package = || self.package.as_ref().and_then(|package| package.agent.description.clone());
        metadata.description = of_files.or_else(of_package);
        metadata
    }

    fn run(&self) -> Result<Option<Run>, AgentfileError> {
        if !self.child.draft.kind.is_started() {
            return Ok(None);
        }
        let of_package = self.package.as_ref().and_then(|package| package.agent.run.as_ref());
        let mut joined = PartialRun {
            entrypoint: of_package.map(|run| run.entrypoint.clone()),
            lifecycle: of_package.map(|run| run.lifecycle),
            workspace: of_package.map(|run| run.workspace),
            isolation: of_package.map(|run| run.isolation),
            ..PartialRun::default()
        };
        for run in self.root_first().filter_map(|(_, draft)| draft.run.clone()) {
            joined.entrypoint = run.entrypoint.or(joined.entrypoint);
            joined.env.extend(run.env);
            joined.workdir = run.workdir.or(joined.workdir);
            joined.lifecycle = run.lifecycle.or(joined.lifecycle);
            joined.workspace = run.workspace.or(joined.workspace);
            joined.isolation = run.isolation.or(joined.isolation);
        }
        let missing =
            |field: &str, what: &str| self.child.draft.error_at(field, format!("missing, expected {what}"));
        let entrypoint = joined.entrypoint.ok_or_else(|| match &self.child.draft.run {
            Some(_) => missing("run.entrypoint", "a list: the program and its arguments"),
            None => missing("run", "a mapping with entrypoint"),
        })?;
        Ok(Some(Run {
            entrypoint,
            env: joined.env,
            workdir: joined.workdir,
            lifecycle: joined.lifecycle.unwrap_or_default(),
            workspace: joined.workspace.unwrap_or_default(),
            isolation: joined.isolation.unwrap_or_default(),
        }))
    }

    fn limits(&self) -> Limits {
        let of_package = self.package.as_ref().map(|package| package.agent.limits.clone());
        self.root_first()
            .fold(of_package.unwrap_or_default(), |under, (_, draft)| draft.limits.clone().over(&under))
    }

    fn capabilities(&self, moved: &mut Moved) -> Result<(CapabilitySet, Vec<Capability>), AgentfileError> {
        let mut set = CapabilitySet::new();
        let mut written: Vec<Capability> = Vec::new();
        let mut add = |capability: &Capability, file: usize, field: String| {
            if set.contains(capability) {
                return Ok(());
            }
            set.replace(capability.clone())?;
            // A right that is there with other qualifiers is replaced by the child's.
            let same = |other: &Capability| other.right() == capability.right();
            let index = written.iter().position(same).unwrap_or(written.len());
            match written.get_mut(index) {
                Some(other) => *other = capability.clone(),
                None => written.push(capability.clone()),
            }
            moved.insert(format!("capabilities[{index}]"), (file, field));
            Ok::<(), SetError>(())
        };
        let of_package = self.package.iter().flat_map(|package| &package.agent.capabilities);
        for capability in of_package {
            add(capability, self.parents.len(), "extends".to_owned()).map_err(|error| self.refused(error))?;
        }
        for (number, draft) in self.root_first() {
            for (index, capability) in draft.capabilities.iter().enumerate() {
                let field = format!("capabilities[{index}]");
                add(capability, number, field.clone()).map_err(|error| draft.error_at(&field, error))?;
            }
        }
        Ok((set, written))
    }

    fn dependencies(&self, moved: &mut Moved) -> Result<Vec<Dependency>, AgentfileError> {
        type Found = (Dependency, (usize, String));
        let mut found: BTreeMap<(DependencyKind, PackageName), Found> = BTreeMap::new();
        let of_package = self.package.iter().flat_map(|package| &package.agent.dependencies);
        for resolved in of_package {
            let dependency = resolved.declared();
            let place = (self.parents.len(), "extends".to_owned());
            found.insert((dependency.kind, dependency.name.clone()), (dependency, place));
        }
        for (number, draft) in self.root_first() {
            for (index, dependency) in draft.dependencies.iter().enumerate() {
                let place = (number, format!("dependencies[{index}]"));
                let key = (dependency.kind, dependency.name.clone());
                found.insert(key, (dependency.clone(), place));
            }
        }
        if found.len() > DEPENDENCIES_MAX {
            let message = format!("{} elements, at most {DEPENDENCIES_MAX} are allowed", found.len());
            return Err(self.child.draft.error_at("dependencies", message));
        }
        let place = |(index, (dependency, place)): (usize, Found)| {
            moved.insert(format!("dependencies[{index}]"), place);
            dependency
        };
        Ok(found.into_values().enumerate().map(place).collect())
    }

    /// What the package that is extended sets: under everything that is written.
    fn ground(&self) -> Settings {
        let Some(agent) = self.package.as_ref().map(|package| &package.agent) else {
            return Settings::default();
        };
        Settings {
            env: agent.run.as_ref().map(|run| run.env.clone()).unwrap_or_default(),
            workdir: agent.run.as_ref().map(|run| run.workdir.clone()),
            expose: agent.expose.clone(),
            labels: agent.labels.clone(),
        }
    }
}

impl ParentPackage {
    /// The stage by which children use its files.
    fn stage(&self) -> Stage {
        Stage {
            name: StageName::parent(),
            from: Base::Package(self.reference.clone()),
            packages: Vec::new(),
            depends_on: Vec::new(),
            steps: Vec::new(),
        }
    }
}

/// Checks what only the whole shows: names of stages and of dependencies, and the stages' graph.
fn check_build(file: &Agentfile) -> Result<(), AgentfileError> {
    let Some(build) = &file.build else { return Ok(()) };
    for (index, stage) in build.stages.iter().enumerate() {
        let at = |field: &str| format!("build.stages[{index}].{field}");
        if build.stages.iter().take(index).any(|other| other.name == stage.name) {
            let message = format!("two stages have the name {}", Quoted(stage.name.as_str()));
            return Err(file.error_at(&at("name"), message));
        }
        for (number, step) in stage.steps.iter().enumerate() {
            let Step::Copy(copy) = step else { continue };
            let CopyOrigin::Package(name) = &copy.origin else { continue };
            let named = |dependency: &&Dependency| dependency.kind.is_package() && dependency.name == *name;
            let message = match file.dependencies.iter().filter(named).count() {
                0 => "is not a package of `dependencies`",
                1 => continue,
                _ => "names two packages of `dependencies`, of different kinds",
            };
            let message = format!("{} {message}", Quoted(name.as_str()));
            return Err(file.error_at(&at(&format!("steps[{number}].copy.package")), message));
        }
    }
    match graph::order(build) {
        Ok(_) => Ok(()),
        Err(error) => Err(file.error_at(error.field(), &error)),
    }
}
