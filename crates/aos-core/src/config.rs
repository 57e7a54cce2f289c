//! What a package carries: the resolved Agentfile, as canonical JSON in the property
//! [`CONFIG_PROPERTY`] of the OCI image config.
//!
//! Canonical JSON here is: no spaces, keys in byte order (each struct declares its fields in that
//! order), lists in their order, capabilities in theirs, no floats. One value has one text.

use crate::capability::CapabilitySet;
use crate::dependency::{DEPENDENCIES_MAX, DependencyKind, ResolvedDependency};
use crate::id::{PackageName, PackageRef, Version};
use crate::macros::word_enum;
use crate::path::AbsolutePath;
use crate::port::Port;
use crate::quantity::{ByteSize, CpuQuota, DurationSpec, IoWeight, OpenFiles, TaskCount};
use crate::text::{Argument, Description, EnvName, EnvValue, LabelName, LabelValue};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiserror::Error;

/// The property of the OCI image config that holds the resolved Agentfile.
pub const CONFIG_PROPERTY: &str = "org.aos.agent";
/// Bytes of the canonical JSON: twice the largest Agentfile.
pub const CONFIG_MAX_BYTES: usize = 512 * 1024;
/// Elements of an entrypoint.
pub const ARGUMENTS_MAX: usize = 256;
/// Environment variables of a package.
pub const ENV_MAX: usize = 256;
/// Labels of a package.
pub const LABELS_MAX: usize = 64;
/// Ports that a package names.
pub const EXPOSE_MAX: usize = 64;

/// Environment variables, in order of their names.
pub type Env = BTreeMap<EnvName, EnvValue>;
/// Labels, in order of their names.
pub type Labels = BTreeMap<LabelName, LabelValue>;

/// Why bytes are not a resolved Agentfile, or one cannot be written.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The JSON is too large.
    #[error("the resolved Agentfile has {0} bytes, at most {CONFIG_MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// The JSON is wrong.
    #[error("the resolved Agentfile is not valid")]
    Json(#[from] serde_json::Error),
    /// The JSON is right, but not in its canonical form.
    #[error("the resolved Agentfile is not in canonical form")]
    NotCanonical,
    /// An agent or MCP server has nothing to start, or a skill has.
    #[error("the resolved Agentfile is of kind {kind} and has {} section `run`", if kind.is_started() { "no" } else { "a" })]
    Kind {
        /// What the package is.
        kind: PackageKind,
    },
    /// A dependency lacks what its kind has, or has what its kind lacks.
    #[error(
        "the resolved Agentfile's dependency `{0} {1}` is not right: packages have version and digest, volumes a size"
    )]
    Dependency(DependencyKind, PackageName),
    /// The dependencies are not in order, or one is there twice.
    #[error("the resolved Agentfile's dependencies are not in order, or one is there twice")]
    DependencyOrder,
    /// A list is too long.
    #[error("the resolved Agentfile has {count} {what}, at most {max} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
}

/// What a package is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PackageKind {
    /// An agent: it is started.
    #[default]
    Agent,
    /// A skill: files with a `SKILL.md` that agents read; never started.
    Skill,
    /// A server of the Model Context Protocol: it is started.
    McpServer,
}

impl PackageKind {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Skill, Self::McpServer];

    /// The word in the Agentfile.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "Agent",
            Self::Skill => "Skill",
            Self::McpServer => "McpServer",
        }
    }

    /// True for what has a program to start.
    pub const fn is_started(self) -> bool {
        !matches!(self, Self::Skill)
    }

    fn is_agent(&self) -> bool {
        *self == Self::Agent
    }
}

impl fmt::Display for PackageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A package that has nothing to start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reference} is of kind {kind}: it has nothing to start")]
pub struct NotRunnable {
    /// The package.
    pub reference: PackageRef,
    /// What it is.
    pub kind: PackageKind,
}

/// Where the agent's root directory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootKind {
    /// The host's read-only `/usr`, with the package's directories beside it.
    Host,
    /// The package's own files are the whole root.
    Own,
}

word_enum! {
    /// How long an agent is meant to run.
    Lifecycle, NotALifecycle {
        /// It ends by itself; an end with status 0 is success.
        #[default]
        Oneshot = "oneshot",
        /// It runs until it is stopped, and is restarted when it fails.
        Persistent = "persistent",
    }
}

word_enum! {
    /// What happens to what the agent writes in its workspace.
    Workspace, NotAWorkspace {
        /// It stays, as in any directory.
        #[default]
        Persistent = "persistent",
        /// The agent writes to a view of its own; a person commits what was written, or discards it.
        Transactional = "transactional",
    }
}

word_enum! {
    /// What holds the agent in.
    Isolation, NotAnIsolation {
        /// The launcher of this system: namespaces, Landlock, seccomp and control groups.
        #[default]
        Native = "native",
        /// An OCI runtime, whichever this machine has.
        Oci = "oci",
        /// The OCI runtime crun.
        OciCrun = "oci:crun",
        /// The OCI runtime runc.
        OciRunc = "oci:runc",
        /// gVisor's runsc: a kernel in user space.
        Gvisor = "gvisor",
        /// A virtual machine.
        Vm = "vm",
    }
}

/// The program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entrypoint {
    /// The program, by its absolute path inside the agent's root.
    pub program: AbsolutePath,
    /// The arguments after the program's name.
    pub arguments: Vec<Argument>,
}

impl Entrypoint {
    /// The program and its arguments, in order.
    pub fn argv(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.program.as_str()).chain(self.arguments.iter().map(Argument::as_str))
    }
}

impl Serialize for Entrypoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.argv())
    }
}

impl<'de> Deserialize<'de> for Entrypoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut words = Vec::<Argument>::deserialize(deserializer)?.into_iter();
        let program = words.next().ok_or_else(|| D::Error::custom("entrypoint is empty"))?;
        let program = program.as_str().parse().map_err(D::Error::custom)?;
        Ok(Self { program, arguments: words.collect() })
    }
}

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The program and its arguments.
    pub entrypoint: Entrypoint,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: Env,
    /// What holds it in; left out when it is the launcher of this system.
    #[serde(default, skip_serializing_if = "Isolation::is_default")]
    pub isolation: Isolation,
    /// How long it is meant to run.
    pub lifecycle: Lifecycle,
    /// The working directory, inside the agent's root.
    pub workdir: AbsolutePath,
    /// What happens to what it writes in its workspace; left out when that stays.
    #[serde(default, skip_serializing_if = "Workspace::is_default")]
    pub workspace: Workspace,
}

/// Upper bounds that the kernel enforces; `None` means the system's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuQuota>,
    /// Bytes of the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
    /// The share of the block devices' time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<IoWeight>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Open file descriptors of each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<OpenFiles>,
    /// Time from start to forced end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<DurationSpec>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskCount>,
}

impl Limits {
    /// These limits, and those of `under` where there is none here.
    #[must_use]
    pub fn over(self, under: &Self) -> Self {
        Self {
            cpu: self.cpu.or(under.cpu),
            disk: self.disk.or(under.disk),
            io_weight: self.io_weight.or(under.io_weight),
            memory: self.memory.or(under.memory),
            open_files: self.open_files.or(under.open_files),
            runtime: self.runtime.or(under.runtime),
            tasks: self.tasks.or(under.tasks),
        }
    }
}

/// The resolved Agentfile: everything that a start needs to know of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolvedAgent {
    /// What the agent may do.
    pub capabilities: CapabilitySet,
    /// What it needs, in the order of kind and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<ResolvedDependency>,
    /// What the package is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// The ports that it says it listens on: a hint for people and tools, no right.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub expose: BTreeSet<Port>,
    /// What the package is; left out for an agent.
    #[serde(default, skip_serializing_if = "PackageKind::is_agent")]
    pub kind: PackageKind,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// Upper bounds.
    #[serde(default)]
    pub limits: Limits,
    /// The package's name.
    pub name: PackageName,
    /// Where the root directory comes from.
    pub root: RootKind,
    /// What is started; `None` for a skill alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunConfig>,
    /// The package's version.
    #[serde(with = "crate::id::version_text")]
    pub version: Version,
}

impl ResolvedAgent {
    /// The reference `name:version`.
    pub fn reference(&self) -> PackageRef {
        PackageRef::exact(self.name.clone(), self.version.clone())
    }

    /// What is started, of a package that can be.
    pub fn run(&self) -> Result<&RunConfig, NotRunnable> {
        self.run.as_ref().ok_or_else(|| NotRunnable { reference: self.reference(), kind: self.kind })
    }

    /// The canonical JSON.
    pub fn to_canonical_json(&self) -> Result<Vec<u8>, ConfigError> {
        self.check()?;
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > CONFIG_MAX_BYTES { Err(ConfigError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// Parses bounded JSON, canonical or not.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() > CONFIG_MAX_BYTES {
            return Err(ConfigError::TooLarge(bytes.len()));
        }
        let agent: Self = serde_json::from_slice(bytes)?;
        agent.check()?;
        Ok(agent)
    }

    /// Parses bounded JSON that must be canonical.
    pub fn from_canonical_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        let agent = Self::from_json(bytes)?;
        if agent.to_canonical_json()? == bytes { Ok(agent) } else { Err(ConfigError::NotCanonical) }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let run = self.run.as_ref();
        for (what, count, max) in [
            ("arguments", run.map_or(0, |run| run.entrypoint.arguments.len() + 1), ARGUMENTS_MAX),
            ("dependencies", self.dependencies.len(), DEPENDENCIES_MAX),
            ("environment variables", run.map_or(0, |run| run.env.len()), ENV_MAX),
            ("labels", self.labels.len(), LABELS_MAX),
            ("ports", self.expose.len(), EXPOSE_MAX),
        ] {
            if count > max {
                return Err(ConfigError::TooMany { what, count, max });
            }
        }
        if run.is_some() != self.kind.is_started() {
            return Err(ConfigError::Kind { kind: self.kind });
        }
        self.check_dependencies()
    }

    /// One of each kind and name, in that order, each with what its kind has.
    fn check_dependencies(&self) -> Result<(), ConfigError> {
        let keys = self.dependencies.iter().map(|dependency| (dependency.kind, &dependency.name));
        let complete = |dependency: &ResolvedDependency| {
            let is_package = dependency.kind.is_package();
            dependency.digest.is_some() == is_package
                && dependency.version.is_some() == is_package
                && dependency.size.is_some() == (dependency.kind == DependencyKind::Volume)
        };
        match self.dependencies.iter().find(|dependency| !complete(dependency)) {
            Some(wrong) => Err(ConfigError::Dependency(wrong.kind, wrong.name.clone())),
            None if keys.is_sorted_by(|left, right| left < right) => Ok(()),
            None => Err(ConfigError::DependencyOrder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANONICAL: &str = r#"{"capabilities":["file_read: /data/**","listen: 8080"],"description":"d","labels":{"a":"1","b":"2"},"limits":{"cpu":"50%","memory":"256M","open_files":64,"runtime":"10m","tasks":8},"name":"web","root":"host","run":{"entrypoint":["/usr/bin/python3","/app/main.py"],"env":{"A":"1","B":"2"},"lifecycle":"oneshot","workdir":"/workspace"},"version":"1.2.0"}"#;

    fn sorted(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(map) => map.keys().is_sorted() && map.values().all(sorted),
            serde_json::Value::Array(list) => list.iter().all(sorted),
            _ => true,
        }
    }

    #[test]
    fn canonical_json_is_sorted_and_round_trips() {
        let agent = ResolvedAgent::from_canonical_json(CANONICAL.as_bytes()).unwrap();
        assert_eq!(agent.to_canonical_json().unwrap(), CANONICAL.as_bytes());
        let value: serde_json::Value = serde_json::from_str(CANONICAL).unwrap();
        assert!(sorted(&value));
        assert_eq!(serde_json::to_string(&value).unwrap(), CANONICAL);
        assert_eq!(agent.reference().to_string(), "web:1.2.0");
        assert_eq!(
            agent.run().unwrap().entrypoint.argv().collect::<Vec<_>>(),
            ["/usr/bin/python3", "/app/main.py"]
        );
    }

    #[test]
    fn the_new_fields_stand_in_their_order() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let new = format!(
            r#""dependencies":[{{"digest":"{digest}","kind":"skill","name":"pdf","req":"^1","version":"1.2.0"}},{{"kind":"service","name":"db","req":"*"}}],"description":"d","expose":["53/udp","8080/tcp"],"kind":"McpServer","labels""#
        );
        let text = CANONICAL.replace(r#""description":"d","labels""#, &new);
        let agent = ResolvedAgent::from_canonical_json(text.as_bytes()).unwrap();
        assert_eq!(
            (agent.kind, agent.expose.len(), agent.dependencies.len()),
            (PackageKind::McpServer, 2, 2)
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(sorted(&value));
        for (from, to) in [
            ("\"version\":\"1.2.0\"}", "\"version\":\"1.2\"}"),
            (",\"version\":\"1.2.0\"}", "}"),
            ("\"kind\":\"service\"", "\"kind\":\"volume\""),
            ("\"kind\":\"service\"", "\"kind\":\"agent\""),
            ("\"kind\":\"McpServer\"", "\"kind\":\"Skill\""),
            ("\"kind\":\"McpServer\"", "\"kind\":\"World\""),
            ("\"53/udp\"", "\"0/udp\""),
            (
                "{\"kind\":\"service\",\"name\":\"db\",\"req\":\"*\"}",
                "{\"kind\":\"service\",\"name\":\"db\",\"req\":\"*\"},{\"kind\":\"service\",\"name\":\"db\",\"req\":\"*\"}",
            ),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(ResolvedAgent::from_json(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
        // Read as they mean, and refused where they must be canonical.
        for (from, to) in [("\"8080/tcp\"", "\"8080\""), ("\"kind\":\"McpServer\"", "\"kind\":\"Agent\"")] {
            let changed = text.replace(from, to);
            assert!(ResolvedAgent::from_json(changed.as_bytes()).is_ok(), "{to}");
            assert!(ResolvedAgent::from_canonical_json(changed.as_bytes()).is_err(), "{to}");
        }
    }

    /// Isolation, workspace and the newer limits have their places in the order, and what is not
    /// written leaves no trace: packages from before keep their bytes.
    #[test]
    fn defaults_leave_no_trace() {
        let before = ResolvedAgent::from_canonical_json(CANONICAL.as_bytes()).unwrap();
        let run = before.run().unwrap();
        assert_eq!((run.isolation, run.workspace), (Isolation::Native, Workspace::Persistent));
        let text = CANONICAL
            .replace(r#""lifecycle":"#, r#""isolation":"oci:crun","lifecycle":"#)
            .replace(r#""workdir":"/workspace""#, r#""workdir":"/workspace","workspace":"transactional""#)
            .replace(r#""memory":"#, r#""disk":"1G","io_weight":50,"memory":"#);
        let after = ResolvedAgent::from_canonical_json(text.as_bytes()).unwrap();
        let run = after.run().unwrap();
        assert_eq!((run.isolation, run.workspace), (Isolation::OciCrun, Workspace::Transactional));
        assert_eq!(after.limits.clone().over(&before.limits), after.limits);
        assert_eq!(Limits::default().over(&after.limits), after.limits);
        assert!(sorted(&serde_json::from_str(&text).unwrap()));
        for (from, to) in [("oci:crun", "native"), ("transactional", "persistent")] {
            let written = text.replace(from, to);
            assert!(matches!(
                ResolvedAgent::from_canonical_json(written.as_bytes()),
                Err(ConfigError::NotCanonical)
            ));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (from, to) in [
            ("\"root\":\"host\"", "\"root\":\"debian\""),
            ("\"name\":\"web\"", "\"name\":\"../web\""),
            ("\"name\":\"web\"", "\"name\":\"web\",\"name\":\"web\""),
            ("\"name\":\"web\"", "\"name\":\"web\",\"budget\":1"),
            ("\"tasks\":8", "\"tasks\":0"),
            ("[\"/usr/bin/python3\",\"/app/main.py\"]", "[]"),
            ("[\"/usr/bin/python3\",\"/app/main.py\"]", "[\"python3\"]"),
            ("\"A\":\"1\"", "\"A=\":\"1\""),
            ("\"A\":\"1\"", "\"A\":\"\\u0000\""),
            ("listen: 8080", "tools: x"),
            ("listen: 8080", "listen: 8080 [max_calls=0]"),
        ] {
            assert!(CANONICAL.contains(from), "{from}");
            let changed = CANONICAL.replace(from, to);
            assert!(ResolvedAgent::from_json(changed.as_bytes()).is_err(), "{to}");
        }
        let spaced = CANONICAL.replace(',', ", ");
        assert!(matches!(
            ResolvedAgent::from_canonical_json(spaced.as_bytes()),
            Err(ConfigError::NotCanonical)
        ));
        assert!(ResolvedAgent::from_json(&vec![b' '; CONFIG_MAX_BYTES + 1]).is_err());
    }
}
