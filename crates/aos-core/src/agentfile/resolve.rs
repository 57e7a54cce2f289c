//! From the Agentfile to what a package carries.

use super::{Agentfile, AgentfileError, Base, DEFAULT_WORKDIR, Stage, Step};
use crate::config::{ConfigError, Env, Labels, ResolvedAgent, RootKind, RunConfig};
use crate::dependency::{Dependency, ResolvedDependency};
use crate::lock::Lockfile;
use crate::path::AbsolutePath;
use crate::port::Port;
use std::collections::BTreeSet;

/// What steps set beside files: each later one over the earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Environment variables.
    pub env: Env,
    /// The working directory.
    pub workdir: Option<AbsolutePath>,
    /// Ports.
    pub expose: BTreeSet<Port>,
    /// Labels.
    pub labels: Labels,
}

impl Settings {
    /// Sets what a step sets; copy and run steps set nothing.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Env(variables) => self.env.extend(variables.clone()),
            Step::Workdir(path) => self.workdir = Some(path.clone()),
            Step::Expose(ports) => self.expose.extend(ports),
            Step::Label(labels) => self.labels.extend(labels.clone()),
            Step::Copy(_) | Step::Run(_) => {}
        }
    }

    /// Sets all that `over` sets.
    pub fn extend(&mut self, over: &Self) {
        self.env.extend(over.env.clone());
        self.workdir = over.workdir.clone().or_else(|| self.workdir.take());
        self.expose.extend(&over.expose);
        self.labels.extend(over.labels.clone());
    }
}

/// What the file does not say itself: what the base at the bottom of the output stage brings, and
/// which versions the dependencies have.
#[derive(Debug, Clone, Default)]
pub struct Inherited {
    /// What the base sets: the variables and working directory of an image or package.
    pub settings: Settings,
    /// The kind of root of a base `aap:REF`; not looked at for any other base.
    pub root: Option<RootKind>,
    /// The versions and contents of the dependencies; not looked at when there are none.
    pub lock: Lockfile,
}

impl Agentfile {
    /// The stage that makes the package: the last.
    pub fn output_stage(&self) -> Option<&Stage> {
        self.build.as_ref()?.output()
    }

    /// What the package carries, for an Agentfile whose output stands on no package and which has no
    /// dependencies that are packages.
    pub fn resolve(&self) -> Result<ResolvedAgent, AgentfileError> {
        self.resolve_with(&Inherited::default())
    }

    /// What the package carries: what the base sets, under the variables, labels, ports and working
    /// directory of the output stage's steps and of the stages it starts from, under those of `run`
    /// and `metadata`.
    pub fn resolve_with(&self, inherited: &Inherited) -> Result<ResolvedAgent, AgentfileError> {
        let mut set = self.ground.clone();
        set.extend(&inherited.settings);
        if let Some((build, output)) = self.build.as_ref().and_then(|build| Some((build, build.output()?))) {
            build
                .lineage(output)
                .iter()
                .rev()
                .flat_map(|stage| &stage.steps)
                .for_each(|step| set.apply(step));
        }
        let mut labels = set.labels;
        labels.extend(self.metadata.labels.clone());
        let run = self.run.as_ref().map(|run| {
            let mut env = set.env;
            env.extend(run.env.clone());
            let workdir = run.workdir.clone().or(set.workdir);
            RunConfig {
                entrypoint: run.entrypoint.clone(),
                env,
                isolation: run.isolation,
                lifecycle: run.lifecycle,
                workdir: workdir.unwrap_or_else(|| AbsolutePath::from_checked(DEFAULT_WORKDIR)),
                workspace: run.workspace,
            }
        });
        let agent = ResolvedAgent {
            capabilities: self.capabilities.clone(),
            dependencies: self.resolved_dependencies(&inherited.lock)?,
            description: self.metadata.description.clone(),
            expose: set.expose,
            kind: self.kind,
            labels,
            limits: self.limits.clone(),
            name: self.metadata.name.clone(),
            root: self.root(inherited.root)?,
            run,
            version: self.metadata.version.clone(),
        };
        agent.to_canonical_json().map_err(|error: ConfigError| self.error_at("", error))?;
        Ok(agent)
    }

    /// The kind of root that the output stage's bottom makes.
    fn root(&self, of_package: Option<RootKind>) -> Result<RootKind, AgentfileError> {
        match self.build.as_ref().and_then(|build| build.foundation()) {
            Some(Base::Host) | None => Ok(RootKind::Host),
            Some(Base::Scratch | Base::Debian(_) | Base::Image(_) | Base::Stage(_)) => Ok(RootKind::Own),
            Some(Base::Package(reference)) => of_package.ok_or_else(|| {
                self.error_at("build", format!("the root of the package `{reference}` is not known yet"))
            }),
        }
    }

    fn resolved_dependencies(&self, lock: &Lockfile) -> Result<Vec<ResolvedDependency>, AgentfileError> {
        let resolve = |(index, dependency): (usize, &Dependency)| {
            let error = |message: String| self.error_at(&format!("dependencies[{index}]"), message);
            let found = match lock.get(dependency.kind, &dependency.name) {
                None if dependency.kind.is_package() => {
                    return Err(error(format!(
                        "`{} {}` is not locked: run `aos lock`",
                        dependency.kind, dependency.name
                    )));
                }
                Some(found) if !dependency.requirement.matches(&found.version) => {
                    return Err(error(format!(
                        "`{} {}` is locked at {}, which is not in {}: run `aos lock`",
                        dependency.kind, dependency.name, found.version, dependency.requirement
                    )));
                }
                found => found,
            };
            Ok(ResolvedDependency {
                digest: found.map(|package| package.digest),
                kind: dependency.kind,
                name: dependency.name.clone(),
                req: dependency.requirement.clone(),
                size: dependency.size,
                version: found.map(|package| package.version.clone()),
            })
        };
        self.dependencies.iter().enumerate().map(resolve).collect()
    }
}
