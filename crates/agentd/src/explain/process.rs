//! The agent's process as `/proc` shows it: identity, privileges, filter, namespaces, limits.
//!
//! These files are readable for everybody; `mountinfo` belongs to the agent's user and is not read here.

use std::collections::HashMap;
use std::path::Path;

use aos_client::explanation::{LayerRow, Source};
use aos_sandbox::plan::{CAUSE_BASE, Filter, Outline, Resource, SandboxPlan};

use crate::files;

/// A few hundred lines at most.
const FILE_MAX: usize = 256 * 1024;

/// Processes between the unit's main process and the agent's: the launcher and the init inside.
const DEPTH_MAX: usize = 3;

/// The agent's own process: the first child of the init of its pid namespace, which is the unit's main process
/// or a child of that. It must be in the unit's control group, so that a number that was reused is not taken for
/// it.
pub(super) fn payload_of(proc: &Path, main: u32, cgroup: &str) -> Option<u32> {
    let mut process = main;
    for _ in 0..DEPTH_MAX {
        let child = first_child(proc, process)?;
        if is_init_inside(proc, process) {
            return is_of_unit(proc, child, cgroup).then_some(child);
        }
        process = child;
    }
    None
}

fn first_child(proc: &Path, pid: u32) -> Option<u32> {
    let children = read(&proc.join(format!("{pid}/task/{pid}/children")))?;
    children.split_ascii_whitespace().next()?.parse().ok()
}

/// Whether the process is number 1 of a pid namespace below ours.
fn is_init_inside(proc: &Path, pid: u32) -> bool {
    let status = fields(&read(&proc.join(format!("{pid}/status"))).unwrap_or_default());
    let mut numbers = status.get("NSpid").map_or("", String::as_str).split_ascii_whitespace();
    numbers.next_back() == Some("1") && numbers.next().is_some()
}

fn is_of_unit(proc: &Path, pid: u32, cgroup: &str) -> bool {
    let groups = read(&proc.join(format!("{pid}/cgroup"))).unwrap_or_default();
    let is_of_unit = |line: &str| {
        line.split_once("::").is_some_and(|(_, path)| {
            path.strip_prefix(cgroup).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    !cgroup.is_empty() && groups.lines().any(is_of_unit)
}

/// The rows: what is asked, and what `/proc` shows of process `pid`. Without one nothing is in force and nothing is
/// checked.
pub(super) fn rows(proc: &Path, pid: Option<u32>, plan: &SandboxPlan, uid: Option<u32>) -> Vec<LayerRow> {
    let process = pid.map(|pid| Process::read(proc, pid));
    layers(plan, uid).into_iter().map(|layer| layer.row(process.as_ref())).collect()
}

/// A layer: what is asked, and how a process shows what it has and whether that is enough.
struct Layer<'a> {
    name: String,
    asked: String,
    look: Look<'a>,
}

/// What a process has in words, and whether it is what is asked.
type Look<'a> = Box<dyn Fn(&Process) -> (String, bool) + 'a>;

impl Layer<'_> {
    fn row(self, process: Option<&Process>) -> LayerRow {
        let seen = process.map(|process| (self.look)(process));
        let source = if seen.is_some() { Source::Proc } else { Source::Plan };
        let (in_force, ok) = seen.map_or((String::new(), None), |(words, ok)| (words, Some(ok)));
        LayerRow { layer: self.name, asked: self.asked, in_force, ok, cause: CAUSE_BASE.to_owned(), source }
    }
}

fn layers<'a>(plan: &'a SandboxPlan, uid: Option<u32>) -> Vec<Layer<'a>> {
    fn layer<'a>(
        name: &str,
        asked: impl Into<String>,
        look: impl Fn(&Process) -> (String, bool) + 'a,
    ) -> Layer<'a> {
        Layer { name: name.to_owned(), asked: asked.into(), look: Box::new(look) }
    }
    let number = uid.map_or("of its own".to_owned(), |uid| uid.to_string());
    let user_asked = format!("{} (uid {number})", plan.agent.user_name());
    let mut layers = vec![
        layer("user", user_asked, move |process| user(process, &number)),
        layer("no_new_privs", "1", no_new_privileges),
        layer("capabilities", "none, in no set", capabilities),
        layer("seccomp", seccomp_asked(plan), seccomp),
        layer("pid namespace", "its own", pid_namespace),
        layer("user namespace", "its own, with one user", user_namespace),
        layer("network", "only lo", network),
    ];
    layers.extend(plan.rlimits.iter().map(|limit| {
        let name = resource_name(limit.resource);
        let title = format!("rlimit {}", name.to_lowercase());
        layer(&title, limit.value.to_string(), move |process| resource_limit(process, name, limit.value))
    }));
    layers
}

/// What `/proc/PID` says. A file or a field that is missing is a layer that is not confirmed.
struct Process {
    status: HashMap<String, String>,
    uid_map: Option<String>,
    net_dev: Option<String>,
    limits: Option<String>,
}

impl Process {
    fn read(proc: &Path, pid: u32) -> Self {
        let folder = proc.join(pid.to_string());
        let file = |name: &str| read(&folder.join(name));
        Self {
            status: fields(&file("status").unwrap_or_default()),
            uid_map: file("uid_map"),
            net_dev: file("net/dev"),
            limits: file("limits"),
        }
    }

    fn status(&self, field: &str) -> &str {
        self.status.get(field).map_or(UNKNOWN, String::as_str)
    }
}

/// What is shown for what `/proc` does not say.
const UNKNOWN: &str = "unknown";

/// The fields of `/proc/PID/status`.
fn fields(status: &str) -> HashMap<String, String> {
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn read(path: &Path) -> Option<String> {
    // The name of a process is the one field that the process chooses, and need not be UTF-8.
    let bytes = files::read_bounded(path, FILE_MAX).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn seccomp_asked(plan: &SandboxPlan) -> String {
    let Filter { policy, instructions, .. } = Outline::of(plan).seccomp;
    format!("filter {policy}, {instructions} instructions (mode 2)")
}

fn user(process: &Process, number: &str) -> (String, bool) {
    let uids: Vec<&str> = process.status("Uid").split_ascii_whitespace().collect();
    let ok = uids.len() == 4 && uids.iter().all(|found| *found == number);
    (format!("uid {}", uids.join(" ")), ok)
}

fn no_new_privileges(process: &Process) -> (String, bool) {
    let value = process.status("NoNewPrivs");
    (value.to_owned(), value == "1")
}

fn capabilities(process: &Process) -> (String, bool) {
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let is_empty = |set: &str| u64::from_str_radix(process.status(set), 16) == Ok(0);
    let held: Vec<String> = sets
        .iter()
        .filter(|set| !is_empty(set))
        .map(|set| format!("{set} {}", process.status(set)))
        .collect();
    (if held.is_empty() { "none".to_owned() } else { held.join(", ") }, held.is_empty())
}

fn seccomp(process: &Process) -> (String, bool) {
    let (mode, filters) = (process.status("Seccomp"), process.status("Seccomp_filters"));
    (format!("mode {mode}, {filters} filters"), mode == "2")
}

fn pid_namespace(process: &Process) -> (String, bool) {
    let numbers = process.status("NSpid").split_ascii_whitespace();
    let depth = numbers.filter(|pid| pid.parse::<u32>().is_ok()).count();
    (format!("{depth} levels"), depth >= 2)
}

fn user_namespace(process: &Process) -> (String, bool) {
    let map = process.uid_map.as_deref().unwrap_or_default();
    let counts: Vec<u64> =
        map.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse().ok()).collect();
    let text = match counts.as_slice() {
        [] => UNKNOWN.to_owned(),
        [1] => "one user".to_owned(),
        counts => format!("{} users", counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count))),
    };
    (text, counts == [1])
}

fn network(process: &Process) -> (String, bool) {
    let Some(text) = &process.net_dev else { return (UNKNOWN.to_owned(), false) };
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    let interfaces: Vec<&str> = names.map(|(name, _)| name.trim()).collect();
    (interfaces.join(" "), interfaces == ["lo"])
}

/// A resource limit; a lower one that was inherited is as good.
fn resource_limit(process: &Process, name: &str, most: u64) -> (String, bool) {
    let text = process.limits.as_deref().unwrap_or_default();
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let found = rest.and_then(|rest| rest.split_ascii_whitespace().nth(1)).unwrap_or(UNKNOWN);
    (found.to_owned(), found.parse::<u64>().is_ok_and(|found| found <= most))
}

/// The name in `/proc/PID/limits`.
const fn resource_name(resource: Resource) -> &'static str {
    match resource {
        Resource::Core => "Max core file size",
        Resource::OpenFiles => "Max open files",
        Resource::Tasks => "Max processes",
        Resource::LockedMemory => "Max locked memory",
        Resource::Nice => "Max nice priority",
        Resource::RealTimePriority => "Max realtime priority",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc(status: &str, uid_map: &str, dev: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("7/status", status);
        write("7/uid_map", uid_map);
        write("7/net/dev", dev);
        write("7/cgroup", "0::/aos.slice/u.service\n");
        write("5/status", "NSpid:\t5\t1\n");
        write("5/task/5/children", "7 9 ");
        write("4/status", "NSpid:\t4\n");
        write("4/task/4/children", "5 ");
        dir
    }

    type Shows = fn(&Process) -> (String, bool);

    const GOOD: &str = "Name:\tx\nUid:\t9\t9\t9\t9\nNSpid:\t7\t2\nCapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t0\n\
                        CapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";

    #[test]
    fn the_payload_is_the_first_child_of_the_init_in_the_unit() {
        let dir = proc(GOOD, "", "");
        assert_eq!(
            payload_of(dir.path(), 5, "/aos.slice/u.service"),
            Some(7),
            "the init is the main process"
        );
        assert_eq!(payload_of(dir.path(), 4, "/aos.slice/u.service"), Some(7), "the launcher is");
        assert_eq!(payload_of(dir.path(), 5, "/aos.slice/u"), None);
        assert_eq!(payload_of(dir.path(), 5, ""), None);
        assert_eq!(payload_of(dir.path(), 6, "/aos.slice/u.service"), None);
    }

    #[test]
    fn each_layer_is_confirmed_or_not() {
        let head = "Inter-|\n face |\n";
        let good = proc(GOOD, "9 9 1\n", &format!("{head}    lo: 0 0\n"));
        let looks: [Shows; 6] =
            [no_new_privileges, capabilities, seccomp, pid_namespace, user_namespace, network];
        let process = Process::read(good.path(), 7);
        for (number, look) in looks.iter().enumerate() {
            assert!(look(&process).1, "{number}");
        }
        assert!(user(&process, "9").1 && !user(&process, "8").1);

        let bad = proc(
            "NSpid:\t7\nCapEff:\t1\nNoNewPrivs:\t0\nSeccomp:\t0\n",
            "0 0 4294967295\n",
            &format!("{head} lo: 0\n eth0: 0\n"),
        );
        for process in [Process::read(bad.path(), 7), Process::read(bad.path(), 8)] {
            for (number, look) in looks.iter().enumerate() {
                assert!(!look(&process).1, "{number}");
            }
            assert!(!user(&process, "9").1 && !resource_limit(&process, "Max open files", 10).1);
        }
    }

    #[tokio::test]
    async fn without_a_process_everything_is_asked_and_nothing_checked() {
        let dir = proc(GOOD, "9 9 1\n", "");
        let world = crate::tests::World::new();
        world.daemon().await.run("a", "once").await.unwrap();
        let plan =
            SandboxPlan::parse(&std::fs::read(world.path("state/agents/a/plan.json")).unwrap()).unwrap();
        let (asked, seen) =
            (rows(dir.path(), None, &plan, Some(9)), rows(dir.path(), Some(7), &plan, Some(9)));
        let names = |rows: &[LayerRow]| {
            rows.iter().map(|row| (row.layer.clone(), row.asked.clone())).collect::<Vec<_>>()
        };
        assert_eq!(names(&asked), names(&seen));
        assert!(
            asked.iter().all(|row| row.ok.is_none() && row.in_force.is_empty() && row.source == Source::Plan)
        );
        assert!(seen.iter().all(|row| row.ok.is_some() && row.source == Source::Proc));
        assert!(asked[0].asked.contains("uid 9"), "{}", asked[0].asked);
    }
}
