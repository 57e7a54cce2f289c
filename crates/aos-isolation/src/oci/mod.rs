//! From a plan to the configuration of an OCI runtime (`config.json`, runtime-spec 1.0.2). Pure: the same
//! plan gives the same bytes.
//!
//! The runtime gives every namespace, a root of the plan's places, no capability, no new privileges, the
//! plan's limits and a list of system calls; it maps one user, as 0. crun and runc then execute
//! `aos-launch --inside`, which gives itself the agent's number in a user namespace of its own and applies
//! what a runtime has no word for: Landlock and the exact filter. In gVisor, whose kernel has no Landlock,
//! `aos-isolate enter` does the first and the filter.

mod config;
mod seccomp;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use aos_sandbox::plan::{BindAccess, Identity, Resource, SandboxPlan};

pub use config::Config;
use config::{Capabilities, IdMapping, Linux, Namespace, Process, Rlimit, Root, User};
pub use seccomp::{Seccomp, profile};

use crate::layout::{Layout, Mount, MountKind};

/// Where the programs that the runtime executes are, inside. No rule lets an agent read or execute there.
pub const PROGRAMS: &str = "/.aos";
/// The descriptors that the first process inherits: for the report, and the plan.
pub const REPORT_FD: i32 = 3;
/// See [`REPORT_FD`].
pub const PLAN_FD: i32 = 4;

/// The network namespace of the process that starts the runtime: its own, with `lo` up and nothing else. A
/// runtime that made one would need netlink sockets for that, which no unit of an agent has.
const NETWORK: &str = "/proc/self/ns/net";

/// The kinds of runtime, which differ in what they make of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// crun and runc: the host's kernel.
    Container,
    /// runsc: a kernel in user space, with devices, terminals and users of its own.
    Sandbox,
}

/// Directories of the host for one run.
#[derive(Clone, Copy, Debug)]
pub struct Directories<'a> {
    /// The root file system, with the layout's places.
    pub root: &'a Path,
    /// What was prepared of the host, each under its place's number.
    pub sources: &'a Path,
    /// The programs that the runtime executes.
    pub programs: &'a Path,
}

/// The configuration.
pub fn config(
    plan: &SandboxPlan,
    layout: &Layout,
    identity: &Identity,
    directories: &Directories<'_>,
    runtime: Runtime,
) -> Config {
    let mut mounts = vec![programs(directories)];
    for mount in &layout.mounts {
        add_mount(&mut mounts, mount, directories, runtime);
    }
    Config {
        oci_version: "1.0.2",
        process: process(plan, identity, runtime),
        root: Root { path: text(directories.root), readonly: true },
        hostname: plan.agent.to_string(),
        mounts,
        linux: linux(plan, runtime),
    }
}

fn process(plan: &SandboxPlan, identity: &Identity, runtime: Runtime) -> Process {
    let stage = match runtime {
        Runtime::Container => ["aos-launch", "--inside"],
        Runtime::Sandbox => ["aos-isolate", "enter"],
    };
    let [program, mode] = stage;
    let mut args = vec![format!("{PROGRAMS}/{program}"), mode.to_owned()];
    for (option, value) in [
        ("--plan-fd", PLAN_FD.to_string()),
        ("--report-fd", REPORT_FD.to_string()),
        ("--uid", identity.uid.to_string()),
        ("--gid", identity.gid.to_string()),
    ] {
        args.extend([option.to_owned(), value]);
    }
    Process {
        terminal: false,
        user: User { uid: 0, gid: 0 },
        args,
        // The stage gives the program the plan's environment; it has none of its own.
        env: Vec::new(),
        cwd: "/".to_owned(),
        capabilities: capabilities(runtime),
        no_new_privileges: true,
        rlimits: plan.rlimits.iter().map(|limit| rlimit(limit.resource, limit.value)).collect(),
    }
}

/// What the first process needs to start, and no agent has. In a container: the kernel lets a process map its
/// namespace's uid 0 into a namespace below only with this one (user_namespaces(7), since Linux 5.12); it is
/// gone with the step into that namespace. In gVisor: to become another user than the agent's, whom the agent
/// can neither signal nor look into, to own `/dev` as that user, and to pass signals on to the agent.
fn capabilities(runtime: Runtime) -> Capabilities {
    let held = match runtime {
        Runtime::Container => vec!["CAP_SETFCAP"],
        Runtime::Sandbox => vec!["CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"],
    };
    let none = Vec::new;
    Capabilities {
        bounding: held.clone(),
        effective: held.clone(),
        permitted: held,
        inheritable: none(),
        ambient: none(),
    }
}

fn rlimit(resource: Resource, value: u64) -> Rlimit {
    let kind = match resource {
        Resource::Core => "RLIMIT_CORE",
        Resource::OpenFiles => "RLIMIT_NOFILE",
        Resource::Tasks => "RLIMIT_NPROC",
        Resource::LockedMemory => "RLIMIT_MEMLOCK",
        Resource::Nice => "RLIMIT_NICE",
        Resource::RealTimePriority => "RLIMIT_RTPRIO",
    };
    Rlimit { kind, hard: value, soft: value }
}

fn linux(plan: &SandboxPlan, runtime: Runtime) -> Linux {
    let mut kinds = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    let mut maps = Vec::new();
    if runtime == Runtime::Container {
        kinds.push("user");
        maps.push(IdMapping { container_id: 0, host_id: 0, size: 1 });
    }
    Linux {
        namespaces: kinds
            .into_iter()
            .map(|kind| Namespace { kind, path: None })
            .chain([Namespace { kind: "network", path: Some(NETWORK) }])
            .collect(),
        uid_mappings: maps.clone(),
        gid_mappings: maps,
        seccomp: (runtime == Runtime::Container).then(|| profile(plan.seccomp)),
        // Of /proc only processes are mounted; these are for a runtime that mounts more.
        masked_paths: [
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/sched_debug",
            "/sys/firmware",
        ]
        .into_iter()
        .filter(|_| runtime == Runtime::Sandbox)
        .collect(),
        readonly_paths: ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"]
            .into_iter()
            .filter(|_| runtime == Runtime::Sandbox)
            .collect(),
    }
}

fn programs(directories: &Directories<'_>) -> config::Mount {
    let options = ["bind", "ro", "nosuid", "nodev"];
    mount(PROGRAMS, "bind", text(directories.programs), &options)
}

fn add_mount(mounts: &mut Vec<config::Mount>, one: &Mount, directories: &Directories<'_>, runtime: Runtime) {
    let path = format!("/{}", one.path);
    let source = || {
        let whole = directories.sources.join(one.index.to_string());
        text(&if one.part.is_empty() { whole } else { whole.join(&one.part) })
    };
    match one.what {
        // A mount in one of the host is there already, where the runtime's recursive bind brings it
        // along; gVisor sees mounts only that it is told of.
        MountKind::Host(_) | MountKind::Tmpfs { .. }
            if one.inside.is_some() && runtime == Runtime::Container => {}
        MountKind::Below { read_only, no_dev, no_exec } => {
            let mut options = vec!["bind", if read_only { "ro" } else { "rw" }, "nosuid"];
            options.extend(no_dev.then_some("nodev"));
            options.extend(no_exec.then_some("noexec"));
            mounts.push(mount(&path, "bind", source(), &options));
        }
        MountKind::Host(access) => mounts.push(mount(&path, "bind", source(), bind_options(access))),
        MountKind::Tmpfs { size_bytes, inodes } => {
            let (size, inodes) = (format!("size={size_bytes}"), format!("nr_inodes={inodes}"));
            let options = ["nosuid", "nodev", "noexec", "mode=1777", &size, &inodes];
            // gVisor has no limit of files, and refuses options that it does not know.
            let known = if runtime == Runtime::Sandbox { &options[..5] } else { &options[..] };
            mounts.push(mount(&path, "tmpfs", "tmpfs".to_owned(), known));
        }
        MountKind::Proc => mounts.push(processes(&path, runtime)),
        // gVisor puts devices of its own kernel there; the first process gives the directory to its own user.
        MountKind::Devices if runtime == Runtime::Sandbox => {
            mounts.push(mount(&path, "tmpfs", "tmpfs".to_owned(), &["nosuid", "noexec"]));
        }
        MountKind::Devices => {
            mounts.push(mount(&path, "bind", source(), &["rbind", "ro", "nosuid", "nodev", "noexec"]));
            let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
            mounts.push(mount(&format!("{path}/pts"), "devpts", "devpts".to_owned(), &options));
        }
    }
}

const fn bind_options(access: BindAccess) -> &'static [&'static str] {
    match access {
        BindAccess::Read => &["rbind", "ro", "nosuid", "nodev", "noexec"],
        BindAccess::ReadExecute => &["rbind", "ro", "nosuid", "nodev"],
        BindAccess::Write => &["rbind", "rw", "nosuid", "nodev", "noexec"],
    }
}

/// The stage writes its own user map, so the mount is not read-only; Landlock lets an agent read only.
fn processes(path: &str, runtime: Runtime) -> config::Mount {
    let all = ["nosuid", "nodev", "noexec", "hidepid=invisible", "subset=pid"];
    let known = if runtime == Runtime::Sandbox { &all[..3] } else { &all[..] };
    mount(path, "proc", "proc".to_owned(), known)
}

fn mount(destination: &str, kind: &'static str, source: String, options: &[&str]) -> config::Mount {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    config::Mount { destination: destination.to_owned(), kind, source, options }
}

/// Directories of a run are made by us and have plain names.
fn text(path: &Path) -> String {
    path.display().to_string()
}
