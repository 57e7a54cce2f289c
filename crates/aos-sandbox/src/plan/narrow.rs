//! A plan with fewer capabilities, for one command in the sandbox of an agent that runs.
//!
//! The file tree stays the agent's; what changes is what Landlock allows, and the sockets. The rules of what every
//! agent has, of its package and of its entrypoint stay; what capabilities put below them is for the launcher to keep
//! apart ([`SandboxPlan::granted_places`]). Each capability of the narrower set becomes the rule of the
//! agent's capability that covers it, with its own path: so nothing is followed, mounted or reached that the
//! agent's own rule does not reach.

use aos_core::capability::{Capability, CapabilitySet, KernelPrefix, PathPattern, Right};
use aos_core::path::AbsolutePath;

use super::base::WORKSPACE;
use super::{
    Access, CAUSE_BASE, CAUSE_ENTRYPOINT, CAUSE_PACKAGE, Links, ListenRule, Missing, Part, PathRule,
    ProgramRule, Reach, SandboxPlan,
};
use crate::seccomp::Policy;

/// Why a plan cannot be narrowed to a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NarrowError {
    /// No capability of the plan covers it.
    #[error("`{0}` is not part of what the agent may do")]
    Wider(String),
    /// The kernel has no rule for it.
    #[error("`{0}` has stars inside the path, for which the kernel has no rule")]
    Glob(String),
    /// What a capability put there could be executed without it.
    #[error("a capability's files lie below {0}, all of which may be executed")]
    Below(String),
    /// A step of a build has none.
    #[error("only an agent's plan has capabilities")]
    NotAnAgent,
}

/// What of a path pattern the kernel has a rule for.
enum Place {
    File(AbsolutePath),
    Directory(AbsolutePath),
}

impl Place {
    const fn path(&self) -> &AbsolutePath {
        match self {
            Self::File(path) | Self::Directory(path) => path,
        }
    }
}

impl SandboxPlan {
    /// The plan with these capabilities only, each of which one of its own covers.
    pub fn narrowed(&self, capabilities: &CapabilitySet) -> Result<Self, NarrowError> {
        if !self.purpose.is_agent() {
            return Err(NarrowError::NotAnAgent);
        }
        let mut plan = self.clone();
        plan.landlock.retain(|rule| is_common(&rule.cause));
        plan.programs.retain(|rule| is_common(&rule.cause));
        plan.listen.clear();
        plan.listeners.clear();
        plan.seccomp = Policy::Narrowed;
        let holds = |rule: &ProgramRule, place: &AbsolutePath| {
            rule.reach == Reach::Subtree && place.is_within(&rule.path)
        };
        let granted = self.granted_places();
        if let Some(rule) = plan.programs.iter().find(|rule| granted.iter().any(|place| holds(rule, place))) {
            return Err(NarrowError::Below(rule.path.to_string()));
        }
        for capability in capabilities {
            self.allow(&mut plan, capability)?;
        }
        Ok(plan)
    }

    /// Places that a capability of the agent brought into its tree. They may lie below what a rule of every agent
    /// allows, which then has to be kept apart from them.
    pub fn granted_places(&self) -> Vec<AbsolutePath> {
        let granted = self.tree.iter().filter(|entry| !is_common(&entry.cause));
        granted.map(|entry| entry.path.clone()).collect()
    }

    fn allow(&self, plan: &mut Self, capability: &Capability) -> Result<(), NarrowError> {
        let cause = capability.to_string();
        let wider = || NarrowError::Wider(capability.to_string());
        match capability.right() {
            Right::Listen(port) => {
                let is_own = |rule: &&ListenRule| rule.port == *port && covers(&rule.cause, capability);
                self.listen.iter().find(is_own).ok_or_else(wider)?;
                plan.listen.push(ListenRule { port: *port, cause });
            }
            Right::FileRead(pattern) => {
                self.allow_path(plan, capability, pattern, Access::Read)?;
            }
            Right::FileWrite(pattern) => {
                self.allow_path(plan, capability, pattern, Access::Write)?;
            }
            Right::Exec(pattern) => {
                let place = place(pattern, capability)?;
                let rule = self.programs.iter().find(|rule| covers(&rule.cause, capability));
                let links = rule.ok_or_else(wider)?.links;
                let reach = if matches!(place, Place::File(_)) { Reach::File } else { Reach::Subtree };
                plan.programs.push(ProgramRule { path: place.path().clone(), reach, links, cause });
            }
            _ => return Err(wider()),
        }
        Ok(())
    }

    fn allow_path(
        &self,
        plan: &mut Self,
        capability: &Capability,
        pattern: &PathPattern,
        access: Access,
    ) -> Result<(), NarrowError> {
        let place = place(pattern, capability)?;
        let path = place.path().clone();
        if is_workspace(&path) {
            // The workspace is the agent's own in whole: the rules that every agent has allow it.
            return Ok(());
        }
        let rule = self.landlock.iter().find(|rule| covers(&rule.cause, capability));
        let links: Links = rule.ok_or_else(|| NarrowError::Wider(capability.to_string()))?.links;
        let cause = capability.to_string();
        plan.landlock.push(PathRule { path, part: Part::All, access, links, missing: Missing::Error, cause });
        Ok(())
    }
}

impl PathRule {
    /// Whether the rule is there whatever the agent's capabilities are.
    pub fn is_common(&self) -> bool {
        is_common(&self.cause)
    }
}

/// Whether a rule is there whatever an agent's capabilities are.
fn is_common(cause: &str) -> bool {
    [CAUSE_BASE, CAUSE_PACKAGE, CAUSE_ENTRYPOINT].contains(&cause)
}

/// Whether the cause of a rule is a capability that covers this one.
fn covers(cause: &str, capability: &Capability) -> bool {
    cause.parse::<Capability>().is_ok_and(|own| own.covers(capability))
}

fn is_workspace(path: &AbsolutePath) -> bool {
    path.as_str().strip_prefix(WORKSPACE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn place(pattern: &PathPattern, capability: &Capability) -> Result<Place, NarrowError> {
    match pattern.kernel_prefix() {
        KernelPrefix::Exact(path) => Ok(Place::File(path)),
        KernelPrefix::Subtree(path) => Ok(Place::Directory(path)),
        KernelPrefix::Glob { .. } => Err(NarrowError::Glob(capability.to_string())),
    }
}
