//! A plan in words: what of the host an agent is shown, what it may execute, its filter and its limits, each with
//! its cause. For `aos run --dry-run` and `aos explain`; the plan itself is what is enforced.
//!
//! The JSON form is read by other versions: fields are added, never renamed or removed, and readers ignore fields
//! that they do not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Access, BindAccess, DiskLimit, Node, Part, Reach, Resource, SandboxPlan, UnitLimits};
use crate::seccomp::Verdict;

/// What the launcher makes for every agent, whatever the plan says.
const NAMESPACES: [&str; 7] = ["user", "mount", "pid", "network (only lo)", "ipc", "uts", "cgroup"];

/// A plan in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// The agent.
    pub agent: String,
    /// What holds it in, in the Agentfile's words: `native` is this system's launcher.
    #[serde(default)]
    pub isolation: String,
    /// The arguments, the program first.
    pub argv: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// The namespaces of its own.
    pub namespaces: Vec<String>,
    /// The file tree: what is mounted or made where.
    pub mounts: Vec<Row>,
    /// What Landlock allows on files.
    pub paths: Vec<Row>,
    /// What may be executed.
    pub programs: Vec<Row>,
    /// TCP ports of the own loopback that may be listened on.
    pub ports: Vec<Row>,
    /// The system call filter.
    pub seccomp: Filter,
    /// Limits of each process, in the resource's unit.
    pub rlimits: Vec<Limit>,
    /// Properties of the systemd unit; what is not here is the template's.
    pub unit: Vec<Limit>,
    /// What the agent may use of the disk; empty without a limit.
    #[serde(default)]
    pub disk: Vec<Limit>,
}

/// One thing that is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// A path inside, or a port.
    pub what: String,
    /// What may be done with it, or where it comes from.
    pub how: String,
    /// Why: a capability in canonical form, `base`, `package` or `entrypoint`.
    pub cause: String,
}

/// The system call filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The policy's name.
    pub policy: String,
    /// Instructions of the filter as it is installed.
    pub instructions: usize,
    /// System calls that are allowed whatever their arguments.
    pub allowed: usize,
    /// System calls that are allowed for some arguments.
    pub checked: usize,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The resource or the property.
    pub name: String,
    /// Its value, in the unit that its name implies.
    pub value: u64,
}

impl Outline {
    /// The outline of a plan.
    pub fn of(plan: &SandboxPlan) -> Self {
        Self {
            agent: plan.agent.to_string(),
            isolation: word(&plan.isolation),
            argv: plan.program.argv.clone(),
            cwd: plan.program.cwd.to_string(),
            env: plan.program.env.clone(),
            namespaces: NAMESPACES.map(str::to_owned).to_vec(),
            mounts: mounts(plan),
            paths: paths(plan),
            programs: programs(plan),
            ports: plan.listen.iter().map(|rule| row(&rule.port, "listen".to_owned(), &rule.cause)).collect(),
            seccomp: filter(plan),
            rlimits: plan
                .rlimits
                .iter()
                .map(|limit| Limit { name: resource_word(limit.resource).to_owned(), value: limit.value })
                .collect(),
            unit: properties(&plan.unit),
            disk: plan.disk.map(disk).unwrap_or_default(),
        }
    }
}

fn row(what: &dyn std::fmt::Display, how: String, cause: &str) -> Row {
    Row { what: what.to_string(), how, cause: cause.to_owned() }
}

fn mounts(plan: &SandboxPlan) -> Vec<Row> {
    plan.tree.iter().map(|entry| row(&entry.path, node_words(&entry.node), &entry.cause)).collect()
}

fn node_words(node: &Node) -> String {
    match node {
        Node::Symlink { to } => format!("link to {to}"),
        Node::Generated(_) => "made by the launcher".to_owned(),
        Node::Bind(bind) => format!("{}, {}", bind.source, bind_words(bind.access)),
        Node::Overlay { lower, .. } => {
            let lower: Vec<&str> = lower.iter().map(|path| path.as_str()).collect();
            format!("union of {}, read only", lower.join(" and "))
        }
        Node::Transaction { lower, changes } => {
            let lower: Vec<&str> = lower.iter().map(|path| path.as_str()).collect();
            format!("{} as it is, changes in {changes}, nothing executed", lower.join(" and "))
        }
        Node::Copy { source, .. } => format!("copy of {source}"),
        Node::Tmpfs { size_bytes, .. } => format!("in memory, at most {size_bytes} bytes, nothing executed"),
        Node::Proc => "its own processes".to_owned(),
        Node::Devices => "devices without effect outside".to_owned(),
        // Only in steps of a build.
        _ => "part of a build".to_owned(),
    }
}

const fn bind_words(access: BindAccess) -> &'static str {
    match access {
        BindAccess::Read => "read only, nothing executed",
        BindAccess::ReadExecute => "read only",
        BindAccess::Write => "read and write, nothing executed",
    }
}

fn paths(plan: &SandboxPlan) -> Vec<Row> {
    let words = |access| match access {
        Access::List => "list",
        Access::Read => "read",
        Access::Write | Access::WriteOwn => "read and write",
        Access::Device => "device",
    };
    let path = |rule: &super::PathRule| match &rule.part {
        Part::All => rule.path.to_string(),
        Part::Prefixed(prefix) => format!("{}/{prefix}*", rule.path),
    };
    plan.landlock.iter().map(|rule| row(&path(rule), words(rule.access).to_owned(), &rule.cause)).collect()
}

fn programs(plan: &SandboxPlan) -> Vec<Row> {
    let path = |rule: &super::ProgramRule| match rule.reach {
        Reach::File => rule.path.to_string(),
        Reach::Subtree => format!("{}/**", rule.path),
    };
    plan.programs.iter().map(|rule| row(&path(rule), "execute".to_owned(), &rule.cause)).collect()
}

fn filter(plan: &SandboxPlan) -> Filter {
    let rows = plan.seccomp.rows();
    let count = |wanted: fn(&Verdict) -> bool| rows.iter().filter(|row| wanted(&row.verdict)).count();
    Filter {
        policy: word(&plan.seccomp),
        instructions: plan.seccomp.compile().len(),
        allowed: count(|verdict| matches!(verdict, Verdict::Allow)),
        checked: count(|verdict| matches!(verdict, Verdict::Check(_))),
    }
}

/// A name in the plan's own format.
fn word<T: Serialize + std::fmt::Debug>(name: &T) -> String {
    match serde_json::to_value(name) {
        Ok(serde_json::Value::String(word)) => word,
        _ => format!("{name:?}"),
    }
}

const fn resource_word(resource: Resource) -> &'static str {
    match resource {
        Resource::Core => "core file bytes",
        Resource::OpenFiles => "open files",
        Resource::Tasks => "processes and threads",
        Resource::LockedMemory => "locked memory bytes",
        Resource::Nice => "nice raise",
        Resource::RealTimePriority => "real-time priority",
    }
}

fn disk(limit: DiskLimit) -> Vec<Limit> {
    [("bytes", limit.bytes), ("files", limit.inodes)]
        .map(|(name, value)| Limit { name: name.to_owned(), value })
        .to_vec()
}

/// The properties of the unit that limits set.
fn properties(limits: &UnitLimits) -> Vec<Limit> {
    [
        ("MemoryMax", limits.memory_max_bytes),
        ("CPUQuotaPerSecUSec", limits.cpu_quota_per_sec_usec),
        ("TasksMax", limits.tasks_max),
        ("RuntimeMaxUSec", limits.runtime_max_usec),
        ("IOWeight", limits.io_weight),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(Limit { name: name.to_owned(), value: value? }))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{CAUSE_ENTRYPOINT, PlanInput, derive};
    use super::*;
    use aos_core::config::ResolvedAgent;

    #[test]
    fn every_rule_and_limit_is_in_it() {
        let agent = ResolvedAgent::from_json(
            br#"{"capabilities":["file_read: /srv/**","listen: 80"],"limits":{"disk":"1G","memory":"64M"},"name":"a","root":"host","run":{"entrypoint":["/usr/bin/true","x"],"lifecycle":"oneshot","workdir":"/workspace"},"version":"1.0.0"}"#,
        )
        .unwrap();
        let plan = derive(&PlanInput {
            agent: &agent,
            id: &"web".parse().unwrap(),
            arguments: &["y".to_owned()],
            rootfs: &"/var/lib/aos/rootfs/x".parse().unwrap(),
            entries: &[],
            workspace: &"/var/lib/aos-agents/web".parse().unwrap(),
        })
        .unwrap();
        let outline = Outline::of(&plan);
        assert_eq!(outline.argv, ["/usr/bin/true", "x", "y"]);
        assert_eq!(outline.isolation, "native");
        assert_eq!(
            (outline.mounts.len(), outline.paths.len(), outline.programs.len()),
            (plan.tree.len(), plan.landlock.len(), plan.programs.len())
        );
        let granted = |rows: &[Row]| {
            let of_capability = rows.iter().filter(|row| row.cause == "file_read: /srv/**");
            of_capability.map(|row| format!("{} {}", row.what, row.how)).collect::<Vec<_>>()
        };
        assert_eq!(granted(&outline.mounts), ["/srv /srv, read only, nothing executed"]);
        assert_eq!(granted(&outline.paths), ["/srv read"]);
        assert_eq!(outline.ports, [row(&80, "listen".to_owned(), "listen: 80")]);
        assert_eq!(outline.programs[0].cause, CAUSE_ENTRYPOINT);
        assert_eq!(outline.unit, [Limit { name: "MemoryMax".to_owned(), value: 64 << 20 }]);
        let disk: Vec<_> = outline.disk.iter().map(|limit| (limit.name.as_str(), limit.value)).collect();
        assert_eq!(disk, [("bytes", 1 << 30), ("files", 65_536)]);
        assert_eq!(outline.rlimits.len(), plan.rlimits.len());
        let filter = &outline.seccomp;
        assert_eq!((filter.policy.as_str(), filter.instructions), ("agent-v1", plan.seccomp.compile().len()));
        assert!(filter.allowed > filter.checked && filter.checked > 0);
        let json = serde_json::to_string(&outline).unwrap();
        assert_eq!(serde_json::from_str::<Outline>(&json).unwrap(), outline);
        let newer = json.replacen('{', "{\"from_the_future\":1,", 1);
        assert_eq!(serde_json::from_str::<Outline>(&newer).unwrap(), outline);
    }
}
