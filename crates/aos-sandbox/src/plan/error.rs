//! Why no plan can be derived, and why bytes are not a plan.

use thiserror::Error;

use super::workspace::LOWER_MAX;
use super::{ENTRIES_MAX, PLAN_MAX_BYTES, PLAN_VERSION};

/// Why an agent has no plan. Each message names the capability and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The package has nothing to start.
    #[error(transparent)]
    NotRunnable(#[from] aos_core::config::NotRunnable),
    /// A dependency that nothing gives.
    #[error("{0}")]
    Dependency(String),
    /// A workspace whose changes are kept apart, where nothing keeps them apart.
    #[error("`run.workspace: transactional` is not enforced here; remove it")]
    NotTransactional,
    /// A capability that this version cannot hold an agent to.
    #[error(transparent)]
    NotEnforceable(#[from] aos_core::capability::NotEnforceable),
    /// A right that the kernel does not know.
    #[error("capability `{0}` needs aos-broker, which this version does not have; remove it")]
    Broker(String),
    /// The kernel enforces exact paths and whole subtrees only.
    #[error(
        "capability `{cause}`: the kernel cannot enforce `*` inside a path; name each file, or write `{below}` for everything beneath that directory"
    )]
    Glob {
        /// The capability.
        cause: String,
        /// The narrowest pattern that the kernel can enforce.
        below: String,
    },
    /// The whole root is never granted.
    #[error("capability `{0}` names the whole file system; name the directories that the agent needs")]
    Root(String),
    /// A path that belongs to the kernel or to system services.
    #[error("capability `{cause}`: {directory} belongs to the system and is never granted to an agent")]
    Reserved {
        /// The capability.
        cause: String,
        /// The reserved directory.
        directory: String,
    },
    /// A path with something beneath it that belongs to the kernel, to system services, or to this
    /// system.
    #[error(
        "capability `{cause}` contains {held}, never granted to an agent; name the folders that the agent needs, each by its own capability such as `{instead}`"
    )]
    Holds {
        /// The capability.
        cause: String,
        /// What is beneath it, separated by commas.
        held: String,
        /// The form of a narrower capability.
        instead: String,
    },
    /// A path that each agent has for itself.
    #[error("capability `{cause}`: {path} is the agent's own, made at each start; {instead}")]
    Private {
        /// The capability.
        cause: String,
        /// The agent's own path.
        path: String,
        /// What to write.
        instead: &'static str,
    },
    /// Writing where the tree is read-only.
    #[error(
        "capability `{cause}`: {directory} is read-only for every agent; grant a directory of data, or write to /workspace"
    )]
    ReadOnly {
        /// The capability.
        cause: String,
        /// The read-only directory.
        directory: String,
    },
    /// What can be written is never executed.
    #[error(
        "capabilities `{exec}` and `{write}` overlap: an agent cannot execute what it can write; grant separate directories"
    )]
    WritableProgram {
        /// The right to execute.
        exec: String,
        /// The right to write.
        write: String,
    },
    /// A package with its own idea of a directory that the host's `/usr` layout needs.
    #[error(
        "the package has {0} beside the host's /usr, where it is a link into /usr; move the files to /usr{0} or build `from: scratch`"
    )]
    MergedUsr(String),
    /// A name in the package that is not a path in normal form.
    #[error("the package's root has an entry that cannot be a path of an agent")]
    PackageEntry(#[source] aos_core::path::PathError),
    /// The program is nowhere.
    #[error(
        "the entrypoint {0} lies in a directory from which nothing is executed; put it in the package, such as /app"
    )]
    EntrypointNotExecutable(String),
    /// Arguments or environment hold a zero byte.
    #[error("argument {0} holds a NUL byte")]
    Nul(usize),
    /// There is too much of something.
    #[error("the plan has {count} {what}, at most {ENTRIES_MAX} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A fork of a fork of a fork, and so on.
    #[error(
        "the workspace would have {0} layers of the agents that it was forked from, at most {LOWER_MAX} are allowed"
    )]
    Layers(usize),
}

/// Why bytes are not a plan.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file is too large.
    #[error("the plan has {0} bytes, at most {PLAN_MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// The JSON is wrong.
    #[error("the plan is not valid")]
    Json(#[from] serde_json::Error),
    /// The format's version is not known.
    #[error("the plan has version {0}, expected {PLAN_VERSION}")]
    Version(u32),
    /// A list is too long.
    #[error("the plan has {count} {what}, at most {ENTRIES_MAX} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// The first argument is not an absolute path.
    #[error("the plan's first argument is not the absolute path of a program")]
    NoProgram,
    /// The workspace's union is of nothing, or of too much.
    #[error("the plan's workspace has no layer below the changes, or more than {LOWER_MAX}")]
    Layers,
    /// The sockets for the caller are not well named.
    #[error("the plan's listeners need different ports above 0, and names of letters, digits and `-`")]
    Listeners,
    /// A plan for one purpose has a part of another's.
    #[error("the plan is for {purpose} and has {what}")]
    Mixed {
        /// What the plan is for.
        purpose: &'static str,
        /// What it should not have.
        what: &'static str,
    },
}
