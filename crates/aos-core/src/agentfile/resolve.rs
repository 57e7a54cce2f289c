//! From the Agentfile to what a package carries.

use super::{Agentfile, AgentfileError, Base, DEFAULT_WORKDIR, Stage, Step};
use crate::config::{ConfigError, Env, Labels, ResolvedAgent, RootKind, RunConfig};
use crate::path::AbsolutePath;

impl Agentfile {
    /// The stage that makes the package: the last.
    pub fn output_stage(&self) -> Option<&Stage> {
        self.build.as_ref().and_then(|build| build.stages.last())
    }

    /// What the package carries: the output stage's variables, labels and working directory under
    /// those of `run` and `metadata`.
    pub fn resolve(&self) -> Result<ResolvedAgent, AgentfileError> {
        let mut env = Env::new();
        let mut labels = Labels::new();
        let mut workdir = None;
        for step in self.output_stage().map_or(&[][..], |stage| &stage.steps) {
            match step {
                Step::Env(variables) => env.extend(variables.clone()),
                Step::Label(more) => labels.extend(more.clone()),
                Step::Workdir(path) => workdir = Some(path.clone()),
                Step::Copy { .. } => {}
            }
        }
        env.extend(self.run.env.clone());
        labels.extend(self.metadata.labels.clone());
        let agent = ResolvedAgent {
            capabilities: self.capabilities.clone(),
            description: self.metadata.description.clone(),
            labels,
            limits: self.limits.clone(),
            name: self.metadata.name.clone(),
            root: match self.output_stage().map(|stage| stage.from) {
                Some(Base::Scratch) => RootKind::Own,
                Some(Base::Host) | None => RootKind::Host,
            },
            run: RunConfig {
                entrypoint: self.run.entrypoint.clone(),
                env,
                lifecycle: self.run.lifecycle,
                workdir: self
                    .run
                    .workdir
                    .clone()
                    .or(workdir)
                    .unwrap_or_else(|| AbsolutePath::from_checked(DEFAULT_WORKDIR)),
            },
            version: self.metadata.version.clone(),
        };
        agent.to_canonical_json().map_err(|error: ConfigError| self.error_at("", error))?;
        Ok(agent)
    }
}
