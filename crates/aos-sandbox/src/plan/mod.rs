//! The sandbox plan: what every layer will enforce around one agent, or around one step of a build,
//! and why.
//!
//! [`derive`] makes an agent's, purely, from the resolved Agentfile, [`build()`] that of a step;
//! `aos-launch` applies both. Which of the two a plan is, its [`Purpose`] says; [`SandboxPlan::parse`]
//! refuses one with parts of the other. On disk it is
//! one JSON object, at most [`PLAN_MAX_BYTES`], version [`PLAN_VERSION`], unknown fields refused.
//! Everything that comes from a capability carries the capability's canonical text as its `cause`;
//! what every agent has carries `base`, what its package brings `package`.

mod base;
pub mod build;
mod check;
mod derive;
mod disk;
mod error;
mod etc;
mod grants;
mod narrow;
mod outline;
mod package;
#[cfg(test)]
mod tests;
mod unit;
pub mod workspace;

pub(crate) use base::WORKSPACE;
pub use build::{BuildFile, BuildInput, build};
pub use derive::{PlanInput, derive, derive_transaction};
pub use disk::{DiskLimit, NOTE_MAX_BYTES};
pub use error::{PlanError, ReadError};
pub use etc::{GeneratedFile, Identity};
pub use narrow::NarrowError;
pub use outline::{Filter, Limit, Outline, Row};
pub use unit::UnitLimits;

use std::collections::BTreeMap;

use aos_core::config::{Isolation, RootKind};
use aos_core::id::AgentId;
use aos_core::path::AbsolutePath;
use serde::{Deserialize, Serialize};

use crate::seccomp::Policy;

/// The version of the format.
pub const PLAN_VERSION: u32 = 1;
/// Bytes of a plan. The largest declarations (256 capabilities of 4 KiB, each in three places) stay
/// below.
pub const PLAN_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Entries of each list of a plan: packages bring at most a fourth of it.
pub const ENTRIES_MAX: usize = 8192;
/// The cause of what every agent has.
pub const CAUSE_BASE: &str = "base";
/// The cause of what the agent's package brings.
pub const CAUSE_PACKAGE: &str = "package";
/// The cause of the entrypoint's right to be executed.
pub const CAUSE_ENTRYPOINT: &str = "entrypoint";

/// The whole plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxPlan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// What runs inside.
    #[serde(default, skip_serializing_if = "Purpose::is_agent")]
    pub purpose: Purpose,
    /// What holds the agent in. `aos-launch` applies a native plan itself and hands any other to
    /// `aos-isolate`.
    #[serde(default, skip_serializing_if = "Isolation::is_default")]
    pub isolation: Isolation,
    /// The agent; also its hostname. Of a step, [`build::HOSTNAME`].
    pub agent: AgentId,
    /// What is executed.
    pub program: Program,
    /// Whose `/usr` the agent sees.
    pub root: RootKind,
    /// The agent's file tree, in order of assembly: every parent before what is in it.
    pub tree: Vec<TreeEntry>,
    /// What Landlock allows on the file system; all else is refused.
    pub landlock: Vec<PathRule>,
    /// What may be executed, each with the interpreters that it needs.
    pub programs: Vec<ProgramRule>,
    /// TCP ports that may be bound, and connected to, on the agent's own loopback.
    pub listen: Vec<ListenRule>,
    /// Sockets that listen on the own loopback before the program starts, and that the launcher
    /// passes out to its caller. The program may connect to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener>,
    /// The system call policy.
    pub seccomp: Policy,
    /// Resource limits of every process.
    pub rlimits: Vec<Rlimit>,
    /// Limits of the unit, for the supervisor.
    pub unit: UnitLimits,
    /// The limit of the workspace on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskLimit>,
}

/// What runs in a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// An agent: a read-only root, programs where nothing is written, its own user.
    #[default]
    Agent,
    /// A step of a build: a writable union as the root, uid 0 without capabilities, ownership that
    /// seems to change.
    Build,
}

impl Purpose {
    /// Whether it is an agent.
    pub const fn is_agent(&self) -> bool {
        matches!(self, Self::Agent)
    }
}

/// The program, its arguments, environment and working directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The arguments; the first is the program's absolute path. In a step it may be a name without
    /// `/`, looked up in `PATH` inside.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub cwd: AbsolutePath,
}

/// One place of the agent's file tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeEntry {
    /// Where it is, inside.
    pub path: AbsolutePath,
    /// What is there.
    pub node: Node,
    /// Why.
    pub cause: String,
}

/// What is at a place of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Node {
    /// A symbolic link of the read-only root.
    Symlink {
        /// What it says.
        to: String,
    },
    /// A small file that the launcher writes.
    Generated(GeneratedFile),
    /// A file or directory of the host. Always `nosuid,nodev`.
    Bind(Bind),
    /// A read-only union of directories of the host, the first on top. Always `nosuid,nodev`.
    ///
    /// What is shared by all agents and with the host is a union even of one directory: a union has
    /// inodes of its own, so that inotify(7) inside does not tell what the host opens and executes.
    Overlay {
        /// The directories, at least one.
        lower: Vec<AbsolutePath>,
        /// Whether the read-only root's own directory at that place is the topmost one.
        on_own: bool,
        /// What to do when the host lacks one of the directories.
        missing: Missing,
    },
    /// The workspace as a transaction: a writable union whose changes are kept apart. Always
    /// `nosuid,nodev,noexec`. On top are the changes, then the snapshots that the folder of changes has when
    /// the agent starts, the newest first, then `lower`.
    Transaction {
        /// Directories of the host that stay as they are, the topmost first, at least one.
        lower: Vec<AbsolutePath>,
        /// The folder of changes: [`workspace`] has its layout.
        changes: AbsolutePath,
    },
    /// A copy of a small file of the host, made when the agent starts; a symbolic link is repeated.
    Copy {
        /// Where it is on the host.
        source: AbsolutePath,
        /// What to do when the host does not have it.
        missing: Missing,
    },
    /// An empty file system in memory. Always `nosuid,nodev,noexec`.
    Tmpfs {
        /// Its greatest size in bytes.
        size_bytes: u64,
        /// Its greatest number of files.
        inodes: u64,
    },
    /// The process file system of the agent's own pid namespace: only processes, only its own.
    Proc,
    /// A directory with the devices that have no effect outside, and pseudo-terminals.
    Devices,
    /// In a step only, and its first place: the root, a writable union. `nosuid,nodev`.
    BuildRoot {
        /// Directories of the host that stay as they are, the topmost first.
        lower: Vec<AbsolutePath>,
        /// The directory of the host that gets all changes.
        upper: AbsolutePath,
        /// An empty directory on the same file system, for the kernel.
        work: AbsolutePath,
    },
    /// In a step only: a small file with a fixed content. Below `/etc` a file of the step's own root
    /// at the same place wins.
    BuildFile(BuildFile),
    /// In a step only: an empty file system in memory from which programs are executed.
    /// `nosuid,nodev`.
    BuildTmpfs {
        /// Its greatest size in bytes.
        size_bytes: u64,
        /// Its greatest number of files.
        inodes: u64,
    },
    /// In a step only: a writable directory of the host that outlives the step. `nosuid,nodev`.
    Cache {
        /// Where it is on the host.
        source: AbsolutePath,
    },
    /// In a step only: a read-only directory in memory with a file for each secret; their contents
    /// come over a descriptor and are in no plan.
    Secrets {
        /// The files' names.
        names: Vec<String>,
    },
    /// In a step only: an empty read-only directory, over what no package brings to an agent.
    Empty,
}

/// A file or directory of the host inside the agent's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// Where it is on the host.
    pub source: AbsolutePath,
    /// Whether it may be changed.
    pub access: BindAccess,
    /// What it has to be.
    pub shape: Shape,
    /// What to do when the host does not have it.
    pub missing: Missing,
}

/// How a bind is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindAccess {
    /// `ro,noexec`
    Read,
    /// `ro`: programs and libraries below can be executed and mapped.
    ReadExecute,
    /// `rw,noexec`
    Write,
}

/// What the host's path of a bind has to be. A final symbolic link is never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A regular file or a directory; a symbolic link is repeated in the tree instead of being mounted.
    Mirror,
}

/// What it means that the host lacks a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The agent does not start.
    Error,
    /// The place stays empty.
    Skip,
}

/// One Landlock rule on a path inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathRule {
    /// The path, inside.
    pub path: AbsolutePath,
    /// Which part of the directory is meant.
    pub part: Part,
    /// What is allowed.
    pub access: Access,
    /// Whether symbolic links on the way are followed.
    pub links: Links,
    /// What to do when the path is not there.
    pub missing: Missing,
    /// Why.
    pub cause: String,
}

/// The part of a path that a rule covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// The path and all beneath it.
    All,
    /// The entries of the directory whose name starts with a prefix, and all beneath them.
    Prefixed(String),
}

/// What a rule allows. The rights of each are in the launcher's `landlock` module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// List directories.
    List,
    /// Read files, list directories.
    Read,
    /// Also create, change, rename, remove; no sockets, no devices.
    Write,
    /// As `Write`, and sockets: for what no other agent shares.
    WriteOwn,
    /// Read and write files that are there, and talk to them: devices.
    Device,
}

/// Whether symbolic links are followed when a rule's path is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Links {
    /// Followed, inside the agent's root: the path is the package's or the host's `/usr`.
    Follow,
    /// An error: the path is a grant, and others may write there.
    Refuse,
}

/// A right to execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramRule {
    /// The program, or the directory of programs.
    pub path: AbsolutePath,
    /// One file with its interpreters, or all beneath a directory.
    pub reach: Reach,
    /// Whether symbolic links on the way are followed.
    pub links: Links,
    /// Why.
    pub cause: String,
}

/// How far a right to execute reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// One file, the interpreter of its `#!` line, and the loader of that.
    File,
    /// Every file beneath a directory. Loaders outside it are not included.
    Subtree,
}

/// A port that may be bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenRule {
    /// The TCP port.
    pub port: u16,
    /// Why.
    pub cause: String,
}

/// A socket that the launcher makes for its caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The TCP port on 127.0.0.1 of the sandbox's own network namespace.
    pub port: u16,
    /// The name under which the caller gets the socket: letters, digits and `-`.
    pub name: String,
}

/// One resource limit; soft and hard are the same. A lower limit that is inherited stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit, in the resource's unit.
    pub value: u64,
}

/// The limited resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Bytes of a core file.
    Core,
    /// Open file descriptors, as a number above the greatest.
    OpenFiles,
    /// Processes and threads of the user inside its user namespace.
    Tasks,
    /// Bytes of locked memory.
    LockedMemory,
    /// 20 minus the lowest nice value: 0 allows no raise.
    Nice,
    /// The highest real-time priority.
    RealTimePriority,
}

impl SandboxPlan {
    /// Parses and checks the bytes of a plan.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        if bytes.len() > PLAN_MAX_BYTES {
            return Err(ReadError::TooLarge(bytes.len()));
        }
        let plan: Self = serde_json::from_slice(bytes)?;
        plan.check()?;
        Ok(plan)
    }

    /// The bytes of the plan.
    pub fn to_json(&self) -> Result<Vec<u8>, ReadError> {
        self.check()?;
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > PLAN_MAX_BYTES { Err(ReadError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }
}
