//! From capabilities to binds and rules: what of the host an agent is shown, how, and what is
//! refused because the kernel could not hold it or because it belongs to the system.

use std::collections::BTreeSet;

use aos_core::capability::{CapabilitySet, KernelPrefix, PathPattern, Right};
use aos_core::path::AbsolutePath;

use super::base::{WORKSPACE, known};
use super::etc::GeneratedFile;
use super::{
    Access, Bind, BindAccess, Links, ListenRule, Missing, Node, Part, PathRule, PlanError, ProgramRule,
    Reach, Shape, TreeEntry,
};

/// Directories of the kernel and of system services, this system's state among them. Debian's
/// links into `/run` are here by name, since a plan knows paths and not what they lead to.
const RESERVED: [&str; 13] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/var/lock",
    "/etc/aos",
    "/etc/credstore",
    "/etc/credstore.encrypted",
    "/var/lib/aos",
    "/var/lib/aos-accounts",
    "/var/lib/aos-agents",
    "/var/lib/aos-changes",
];

/// What a grant is for. The order is that of how much it gives on one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Read,
    Execute,
    Write,
}

/// A file capability that the kernel can enforce.
#[derive(Clone, Debug)]
struct Grant {
    cause: String,
    usage: Use,
    path: AbsolutePath,
    shape: Shape,
}

/// The capabilities' share of a plan.
pub(super) struct GrantParts {
    /// Binds of the host's files, parents first.
    pub(super) tree: Vec<TreeEntry>,
    /// Landlock rules.
    pub(super) rules: Vec<PathRule>,
    /// Rights to execute.
    pub(super) programs: Vec<ProgramRule>,
    /// Ports.
    pub(super) listen: Vec<ListenRule>,
}

/// Places of the host that no grant may reach into or hold: each agent has its package and its
/// workspace once, at their places inside, and through a grant it would have them a second time
/// with other rights.
pub(super) struct Kept(Vec<AbsolutePath>);

impl Kept {
    /// What belongs to the system, and this agent's package and workspace wherever they lie.
    pub(super) fn new<'a>(own: impl Iterator<Item = &'a AbsolutePath>) -> Result<Self, PlanError> {
        let mut places = RESERVED.into_iter().map(known).collect::<Result<Vec<_>, _>>()?;
        for own in own {
            if !places.iter().any(|place| own.is_within(place)) {
                places.push(own.clone());
            }
        }
        Ok(Self(places))
    }

    /// Refuses a grant that reaches into one of the places or holds one.
    fn check(&self, cause: &str, usage: Use, path: &AbsolutePath) -> Result<(), PlanError> {
        let cause = || cause.to_owned();
        if let Some(place) = self.0.iter().find(|place| path.is_within(place)) {
            return Err(PlanError::Reserved { cause: cause(), directory: place.to_string() });
        }
        let held: Vec<&str> =
            self.0.iter().filter(|place| place.is_within(path)).map(AbsolutePath::as_str).collect();
        if held.is_empty() {
            return Ok(());
        }
        let instead = format!("{}: {path}/FOLDER/**", usage.name());
        Err(PlanError::Holds { cause: cause(), held: held.join(", "), instead })
    }
}

impl Use {
    /// The capability's kind.
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "file_read",
            Self::Execute => "exec",
            Self::Write => "file_write",
        }
    }
}

/// Turns every capability into its parts, or says why one cannot be.
pub(super) fn apply(
    capabilities: &CapabilitySet,
    provided: &BTreeSet<String>,
    kept: &Kept,
) -> Result<GrantParts, PlanError> {
    let mut parts =
        GrantParts { tree: Vec::new(), rules: Vec::new(), programs: Vec::new(), listen: Vec::new() };
    let mut grants = Vec::new();
    for capability in capabilities {
        let cause = capability.to_string();
        capability.check_enforceable()?;
        match capability.right() {
            Right::Listen(port) => parts.listen.push(ListenRule { port: *port, cause }),
            Right::FileRead(pattern) => grants.push(grant(cause, Use::Read, pattern, kept)?),
            Right::FileWrite(pattern) => grants.push(grant(cause, Use::Write, pattern, kept)?),
            Right::Exec(pattern) => grants.push(grant(cause, Use::Execute, pattern, kept)?),
            // What is not the kernel's is refused above.
            _ => return Err(PlanError::Broker(cause)),
        }
    }
    refuse_writable_programs(&grants)?;
    // Parents first; on one path the wider use last, so that it decides.
    grants.sort_by(|a, b| {
        (a.path.segments().count(), &a.path, a.usage as u8).cmp(&(
            b.path.segments().count(),
            &b.path,
            b.usage as u8,
        ))
    });
    for grant in &grants {
        parts.add(grant, provided)?;
    }
    Ok(parts)
}

/// Checks one file capability by itself.
fn grant(cause: String, usage: Use, pattern: &PathPattern, kept: &Kept) -> Result<Grant, PlanError> {
    let (path, shape) = match pattern.kernel_prefix() {
        KernelPrefix::Exact(path) => (path, Shape::File),
        KernelPrefix::Subtree(path) => (path, Shape::Directory),
        KernelPrefix::Glob { below } => {
            let below = format!("{}/**", below.as_str().trim_end_matches('/'));
            return Err(PlanError::Glob { cause, below });
        }
    };
    if path == AbsolutePath::root() {
        return Err(PlanError::Root(cause));
    }
    if let Some(instead) = private(&path, usage) {
        return Err(PlanError::Private { cause, path: path.to_string(), instead });
    }
    kept.check(&cause, usage, &path)?;
    Ok(Grant { cause, usage, path, shape })
}

/// What to write instead of a path that each agent has for itself.
fn private(path: &AbsolutePath, usage: Use) -> Option<&'static str> {
    let generated = |name: &str| format!("/etc/{name}") == path.as_str();
    if is_within(path, "/tmp") || is_within(path, "/var/tmp") {
        Some("grant a directory elsewhere, such as below /srv")
    } else if path.as_str() == "/etc" || GeneratedFile::ALL.iter().any(|(_, name)| generated(name)) {
        Some("name the other files of /etc that the agent needs")
    } else if is_within(path, WORKSPACE) && usage == Use::Execute {
        Some("what an agent can write is never executed: put the program in the package")
    } else {
        None
    }
}

fn is_within(path: &AbsolutePath, directory: &str) -> bool {
    path.as_str().strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A program that lies where the agent writes, or a writable place among programs.
fn refuse_writable_programs(grants: &[Grant]) -> Result<(), PlanError> {
    let of = |usage: Use| grants.iter().filter(move |grant| grant.usage == usage);
    for exec in of(Use::Execute) {
        for write in of(Use::Write) {
            if exec.path.is_within(&write.path) || write.path.is_within(&exec.path) {
                return Err(PlanError::WritableProgram {
                    exec: exec.cause.clone(),
                    write: write.cause.clone(),
                });
            }
        }
    }
    Ok(())
}

impl GrantParts {
    fn add(&mut self, grant: &Grant, provided: &BTreeSet<String>) -> Result<(), PlanError> {
        let top = grant.path.segments().next().unwrap_or_default();
        let is_provided = provided.contains(top);
        if is_provided && grant.usage == Use::Write {
            let (cause, directory) = (grant.cause.clone(), format!("/{top}"));
            return Err(PlanError::ReadOnly { cause, directory });
        }
        if is_within(&grant.path, WORKSPACE) {
            // The workspace is the agent's own in whole, whatever is declared of its parts.
            return Ok(());
        }
        if !is_provided && !self.is_mounted(grant) {
            self.mount(grant);
        }
        self.allow(grant, if is_provided { Links::Follow } else { Links::Refuse });
        Ok(())
    }

    /// Whether a mount of a parent already gives what the grant needs.
    fn is_mounted(&self, grant: &Grant) -> bool {
        let covering = self.tree.iter().rev().find(|entry| grant.path.is_within(&entry.path));
        let Some(TreeEntry { node: Node::Bind(bind), .. }) = covering else { return false };
        matches!(
            (grant.usage, bind.access),
            (Use::Read, _) | (Use::Execute, BindAccess::ReadExecute) | (Use::Write, BindAccess::Write)
        )
    }

    fn mount(&mut self, grant: &Grant) {
        let access = match grant.usage {
            Use::Read => BindAccess::Read,
            Use::Execute => BindAccess::ReadExecute,
            Use::Write => BindAccess::Write,
        };
        let bind = Bind { source: grant.path.clone(), access, shape: grant.shape, missing: Missing::Error };
        // One mount for each place: the last grant of a path has the widest use.
        self.tree.retain(|entry| entry.path != grant.path);
        let cause = grant.cause.clone();
        self.tree.push(TreeEntry { path: grant.path.clone(), node: Node::Bind(bind), cause });
    }

    fn allow(&mut self, grant: &Grant, links: Links) {
        let (path, cause) = (grant.path.clone(), grant.cause.clone());
        let access = match grant.usage {
            Use::Read => Access::Read,
            Use::Write => Access::Write,
            Use::Execute => {
                let reach = if grant.shape == Shape::Directory { Reach::Subtree } else { Reach::File };
                self.programs.push(ProgramRule { path, reach, links, cause });
                return;
            }
        };
        self.rules.push(PathRule { path, part: Part::All, access, links, missing: Missing::Error, cause });
    }
}
