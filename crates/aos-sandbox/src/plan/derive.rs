//! The pure function from a declaration to a plan.

use std::collections::{BTreeMap, BTreeSet};

use aos_core::config::{ResolvedAgent, RootKind, RunConfig, Workspace};
use aos_core::id::AgentId;
use aos_core::path::AbsolutePath;

use super::base::{self, WORKSPACE};
use super::disk::DiskLimit;
use super::grants::{self, GrantParts, Kept};
use super::package::{self, PackageParts};
use super::unit::{self, UnitLimits};
use super::workspace::{self, LOWER_MAX, Transaction};
use super::{
    CAUSE_ENTRYPOINT, ENTRIES_MAX, Links, Node, PLAN_VERSION, PlanError, Program, ProgramRule, Purpose,
    Reach, SandboxPlan,
};
use crate::rootfs::RootfsEntry;
use crate::seccomp::Policy;

/// Where nothing is ever executed.
const NEVER_EXECUTED: [&str; 6] = ["dev", "etc", "proc", "run", "tmp", "workspace"];

/// Everything that a plan follows from.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// What the package carries.
    pub agent: &'a ResolvedAgent,
    /// The agent that runs it.
    pub id: &'a AgentId,
    /// Arguments after those of the Agentfile.
    pub arguments: &'a [String],
    /// The package's unpacked root, on the host.
    pub rootfs: &'a AbsolutePath,
    /// What is in it: [`crate::rootfs::scan`].
    pub entries: &'a [RootfsEntry],
    /// The agent's own data, on the host. In a transaction it is what lies below the changes.
    pub workspace: &'a AbsolutePath,
}

/// Derives the plan, or says which declaration cannot be enforced and what to write instead.
pub fn derive(input: &PlanInput<'_>) -> Result<SandboxPlan, PlanError> {
    if input.agent.run()?.workspace == Workspace::Transactional {
        return Err(PlanError::NotTransactional);
    }
    derive_over(input, workspace::direct(input.workspace), &[])
}

/// The same, with a workspace whose changes are kept apart.
pub fn derive_transaction(
    input: &PlanInput<'_>,
    transaction: &Transaction<'_>,
) -> Result<SandboxPlan, PlanError> {
    let count = transaction.lower.len();
    if count > LOWER_MAX {
        return Err(PlanError::Layers(count));
    }
    let mut own = transaction.lower.to_vec();
    own.push(transaction.changes.clone());
    derive_over(input, transaction.node(), &own)
}

/// `own` is what belongs to the workspace beside the input's.
fn derive_over(
    input: &PlanInput<'_>,
    workspace: Node,
    own: &[AbsolutePath],
) -> Result<SandboxPlan, PlanError> {
    let run = input.agent.run()?;
    if let Some(obstacle) =
        input.agent.dependencies.iter().find_map(|needed| needed.declared().not_enforceable())
    {
        return Err(PlanError::Dependency(obstacle));
    }
    let kind = input.agent.root;
    let package = package::place(kind, input.rootfs, input.entries)?;
    let kept = Kept::new([input.rootfs, input.workspace].into_iter().chain(own))?;
    let grants = grants::apply(&input.agent.capabilities, &package.provided, &kept)?;
    let entrypoint = entrypoint(run, &package.provided, &grants)?;

    let is_host = kind == RootKind::Host;
    let has_usr = package.tree.iter().any(|entry| entry.path.as_str() == "/usr");
    let PackageParts { tree: package_tree, rules: package_rules, .. } = package;
    let mut tree = base::generated()?;
    tree.extend(if is_host { base::host_usr(has_usr)? } else { Vec::new() });
    tree.extend(package_tree);
    tree.extend(if is_host { base::host_etc()? } else { Vec::new() });
    tree.extend(base::own(workspace)?);
    tree.extend(grants.tree);

    let mut landlock = base::own_rules()?;
    landlock.extend(if is_host { base::usr_rules()? } else { Vec::new() });
    landlock.extend(package_rules);
    landlock.extend(grants.rules);

    let mut programs = vec![entrypoint];
    programs.extend(grants.programs);
    let plan = SandboxPlan {
        version: PLAN_VERSION,
        purpose: Purpose::Agent,
        isolation: run.isolation,
        agent: input.id.clone(),
        program: program(input, run)?,
        root: kind,
        tree,
        landlock,
        programs,
        listen: grants.listen,
        listeners: Vec::new(),
        seccomp: Policy::Agent,
        rlimits: unit::rlimits(&input.agent.limits),
        unit: UnitLimits::of(&input.agent.limits).with_room_for(run.isolation),
        disk: DiskLimit::of(&input.agent.limits),
    };
    bounded(plan)
}

fn bounded(plan: SandboxPlan) -> Result<SandboxPlan, PlanError> {
    for (what, count) in [
        ("tree entries", plan.tree.len()),
        ("landlock rules", plan.landlock.len()),
        ("arguments", plan.program.argv.len()),
    ] {
        if count > ENTRIES_MAX {
            return Err(PlanError::TooMany { what, count });
        }
    }
    Ok(plan)
}

/// The right to execute the entrypoint, which lies in the package, in the host's `/usr`, or below a
/// grant to execute.
fn entrypoint(
    run: &RunConfig,
    provided: &BTreeSet<String>,
    grants: &GrantParts,
) -> Result<ProgramRule, PlanError> {
    let path = run.entrypoint.program.clone();
    let top = path.segments().next().unwrap_or_default();
    let is_granted = grants.programs.iter().any(|rule| match rule.reach {
        Reach::File => rule.path == path,
        Reach::Subtree => path.is_within(&rule.path),
    });
    let is_provided = provided.contains(top);
    if NEVER_EXECUTED.contains(&top) || !(is_provided || is_granted) {
        return Err(PlanError::EntrypointNotExecutable(path.to_string()));
    }
    let links = if is_provided { Links::Follow } else { Links::Refuse };
    Ok(ProgramRule { path, reach: Reach::File, links, cause: CAUSE_ENTRYPOINT.to_owned() })
}

fn program(input: &PlanInput<'_>, run: &RunConfig) -> Result<Program, PlanError> {
    let argv: Vec<String> =
        run.entrypoint.argv().map(str::to_owned).chain(input.arguments.iter().cloned()).collect();
    if let Some(index) = argv.iter().position(|argument| argument.contains('\0')) {
        return Err(PlanError::Nul(index));
    }
    Ok(Program { argv, env: environment(input, run), cwd: run.workdir.clone() })
}

/// The whole environment: a base that the package's own variables override.
fn environment(input: &PlanInput<'_>, run: &RunConfig) -> BTreeMap<String, String> {
    let user = input.id.user_name();
    let base = [
        ("AOS_AGENT_ID", input.id.as_str()),
        ("HOME", WORKSPACE),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", &user),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("SHELL", "/bin/sh"),
        ("TMPDIR", "/tmp"),
        ("USER", &user),
    ];
    let mut environment: BTreeMap<String, String> =
        base.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in &run.env {
        environment.insert(name.as_str().to_owned(), value.as_str().to_owned());
    }
    environment
}
