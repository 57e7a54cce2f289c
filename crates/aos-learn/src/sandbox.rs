//! Runs of one package on this machine: a plan for each set of capabilities, and the launcher.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use aos_core::capability::{Capability, CapabilitySet};
use aos_core::config::ResolvedAgent;
use aos_core::id::AgentId;
use aos_core::path::AbsolutePath;
use aos_sandbox::plan::{PlanInput, SandboxPlan, derive};
use aos_sandbox::rootfs::{self, RootfsEntry};

use crate::Output;
use crate::error::{Doing, LearnError};
use crate::host;
use crate::launch::{Launch, NotRun, run};
use crate::learn::{Purpose, Trial, Trials, is_of_runs};

/// Where the agent's own data is while it is learnt from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workspace {
    /// In a directory that is made for each run and removed after it, below this one.
    Fresh(PathBuf),
    /// In this directory, with what each run leaves there.
    Kept(PathBuf),
}

/// What is told of the runs.
pub trait Told {
    /// A run begins.
    fn begins(&mut self, purpose: Purpose, without: Option<&Capability>);
    /// The agent wrote a line.
    fn wrote(&mut self, output: Output<'_>);
}

/// Runs of one package.
pub struct Sandbox<'a> {
    agent: ResolvedAgent,
    id: AgentId,
    arguments: &'a [String],
    rootfs: AbsolutePath,
    entries: Vec<RootfsEntry>,
    workspace: Workspace,
    launch: Launch,
    told: &'a mut dyn Told,
    /// Removes a directory of an agent with all in it, whatever the agent left there.
    remove: fn(&Path) -> std::io::Result<()>,
}

/// What a sandbox is made from.
pub struct Setting<'a> {
    /// What the package carries.
    pub agent: ResolvedAgent,
    /// The agent's id inside.
    pub id: AgentId,
    /// Arguments after those of the Agentfile.
    pub arguments: &'a [String],
    /// The package's unpacked root: absolute, without links on the way.
    pub rootfs: &'a Path,
    /// The agent's own data.
    pub workspace: Workspace,
    /// How runs are made.
    pub launch: Launch,
    /// What is told.
    pub told: &'a mut dyn Told,
    /// Removes a directory of an agent with all in it, whatever the agent left there.
    pub remove: fn(&Path) -> std::io::Result<()>,
}

impl<'a> Sandbox<'a> {
    /// Runs of this package. An error when it could not be started with any capabilities.
    pub fn new(setting: Setting<'a>) -> Result<Self, LearnError> {
        let Setting { mut agent, id, arguments, rootfs, workspace, launch, told, remove } = setting;
        // A run's workspace is thrown away or asked for by name: there is nothing to keep apart from it.
        if let Some(run) = &mut agent.run {
            run.workspace = aos_core::config::Workspace::Persistent;
        }
        let sandbox = Self {
            entries: rootfs::scan(rootfs)?,
            rootfs: absolute(rootfs)?,
            agent,
            id,
            arguments,
            workspace,
            launch,
            told,
            remove,
        };
        let start: Vec<Capability> = sandbox.agent.capabilities.iter().cloned().collect();
        let usable = start.into_iter().filter(is_of_runs);
        let directory = sandbox.directory()?;
        sandbox.plan(&CapabilitySet::try_from_iter(usable)?, &directory)?;
        Ok(sandbox)
    }

    /// The workspace of the next run.
    fn directory(&self) -> Result<AbsolutePath, LearnError> {
        match &self.workspace {
            Workspace::Fresh(above) => absolute(&above.join("workspace")),
            Workspace::Kept(directory) => absolute(directory),
        }
    }

    fn plan(
        &self,
        capabilities: &CapabilitySet,
        workspace: &AbsolutePath,
    ) -> Result<SandboxPlan, LearnError> {
        let mut agent = self.agent.clone();
        agent.capabilities = capabilities.clone();
        let input = PlanInput {
            agent: &agent,
            id: &self.id,
            arguments: self.arguments,
            rootfs: &self.rootfs,
            entries: &self.entries,
            workspace,
        };
        Ok(derive(&input)?)
    }

    /// Makes the workspace of a run.
    fn prepare(&self, directory: &AbsolutePath) -> Result<(), LearnError> {
        if matches!(self.workspace, Workspace::Kept(_)) {
            return Ok(());
        }
        let what = "make a workspace";
        fs::create_dir(directory.as_path()).doing(what)?;
        fs::set_permissions(directory.as_path(), Permissions::from_mode(0o700)).doing(what)?;
        if let Some(account) = self.launch.account {
            chown(directory.as_path(), Some(account.uid), Some(account.gid)).doing(what)?;
        }
        Ok(())
    }

    /// Removes it.
    fn clear(&self, directory: &AbsolutePath) -> Result<(), LearnError> {
        if matches!(self.workspace, Workspace::Kept(_)) {
            return Ok(());
        }
        (self.remove)(directory.as_path()).doing("remove the workspace of a run")
    }
}

impl Trials for Sandbox<'_> {
    fn check(&self, capabilities: &CapabilitySet) -> Result<(), String> {
        let directory = self.directory().map_err(|error| error.to_string())?;
        match self.plan(capabilities, &directory) {
            Ok(_) => Ok(()),
            // The sentence of the plan's error is what helps.
            Err(LearnError::Plan(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn run(
        &mut self,
        capabilities: &CapabilitySet,
        purpose: Purpose,
        without: Option<&Capability>,
    ) -> Result<Trial, LearnError> {
        let directory = self.directory()?;
        let plan = self.plan(capabilities, &directory)?;
        self.prepare(&directory)?;
        self.told.begins(purpose, without);
        let told = &mut *self.told;
        let is_shown = matches!(purpose, Purpose::Round(_));
        let ran = run(&self.launch, &plan, &mut |output| {
            if is_shown {
                told.wrote(output);
            }
        });
        let cleared = self.clear(&directory);
        let trial = match ran {
            Ok(ran) => Trial::Ran(ran),
            Err(NotRun::Refused(why)) => Trial::Refused(why),
            Err(NotRun::Error(error)) => return Err(error),
        };
        cleared?;
        Ok(trial)
    }

    fn count(&self, directory: &AbsolutePath) -> usize {
        host::count_files(directory.as_path())
    }
}

fn absolute(path: &Path) -> Result<AbsolutePath, LearnError> {
    Ok(path.to_string_lossy().parse()?)
}

/// Tells nobody.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Told for Silent {
    fn begins(&mut self, _: Purpose, _: Option<&Capability>) {}
    fn wrote(&mut self, _: Output<'_>) {}
}
