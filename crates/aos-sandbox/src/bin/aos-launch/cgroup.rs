//! The limits of the unit, in the kernel's own words: what the plan asks for must be in force in the
//! control group of this process, or in one above it, before anything is started.
//!
//! The supervisor sets them when it starts the unit; a start by hand, or a machine whose control
//! groups lack a controller, has none. A weight is a share among neighbours and counts in the control
//! group itself only. The runtime limit is the service manager's and has no file.
//! Formats: the kernel's admin-guide/cgroup-v2.rst.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use aos_core::quantity::{ByteSize, CpuQuota};
use aos_sandbox::plan::{SandboxPlan, UnitLimits};
use rustix::fs::statfs;

use crate::error::{Context, LaunchError, Layer, fail};

/// Where systemd mounts the hierarchy.
const ROOT: &str = "/sys/fs/cgroup";
/// Where it is mounted beside version 1, without controllers.
const ROOT_BESIDE_V1: &str = "/sys/fs/cgroup/unified";
const NO_GROUP: &str = "this process is in no control group of version 2";
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const USEC_PER_SEC: u128 = 1_000_000;

/// Refuses a launch whose unit lacks a limit of the plan.
pub(crate) fn check(plan: &SandboxPlan) -> Result<(), LaunchError> {
    let limits = Limit::of(&plan.unit);
    if limits.is_empty() {
        return Ok(());
    }
    let own = fs::read_to_string("/proc/self/cgroup").layer(Layer::Limits, "/proc/self/cgroup")?;
    let root = Path::new(ROOT);
    let kind = statfs(root).layer(Layer::Limits, ROOT)?.f_type;
    if u64::try_from(kind) != Ok(CGROUP2_MAGIC) {
        return fail(Layer::Limits, format!("{ROOT} is not cgroup v2, without which no limit is in force"));
    }
    match missing(root, &own, &limits)?.explain(plan.agent.as_str()) {
        None => Ok(()),
        Some(why) => fail(Layer::Limits, why),
    }
}

/// One limit that a plan asks for.
struct Limit {
    /// The file of the control group.
    file: &'static str,
    /// Its controller.
    controller: &'static str,
    /// The greatest value that is as asked.
    most: u64,
    /// The value as a person writes it.
    asked: String,
    /// Whether the file's text, without the line's end, limits to `most` or less.
    holds: fn(&str, u64) -> bool,
    /// In how many control groups, from the inside out, it may be in force.
    reach: usize,
}

impl Limit {
    fn of(limits: &UnitLimits) -> Vec<Self> {
        let limit = |file, controller, most: Option<u64>, asked: fn(u64) -> String, holds| {
            most.map(|most| Self { file, controller, most, asked: asked(most), holds, reach: usize::MAX })
        };
        let weight = limit("io.weight", "io", limits.io_weight, |weight| weight.to_string(), is_weight);
        [
            limit("memory.max", "memory", limits.memory_max_bytes, bytes, is_at_most),
            limit("pids.max", "pids", limits.tasks_max, |count| count.to_string(), is_at_most),
            limit("cpu.max", "cpu", limits.cpu_quota_per_sec_usec, percent, is_quota_at_most),
        ]
        .into_iter()
        .flatten()
        .chain(weight.map(|weight| Self { reach: 1, ..weight }))
        .collect()
    }
}

fn bytes(size: u64) -> String {
    ByteSize::from_bytes(size).map_or_else(|| size.to_string(), |size| size.to_string())
}

/// 10 000 microseconds in each second are one percent.
fn percent(usec_per_sec: u64) -> String {
    let whole = u32::try_from(usec_per_sec / 10_000).ok().filter(|_| usec_per_sec.is_multiple_of(10_000));
    whole
        .and_then(CpuQuota::from_percent)
        .map_or_else(|| format!("{usec_per_sec} us in each second"), |quota| quota.to_string())
}

/// A number; `max` is no limit. The kernel rounds what was asked down to whole pages, never up.
fn is_at_most(text: &str, most: u64) -> bool {
    text.parse::<u64>().is_ok_and(|value| value <= most)
}

/// Microseconds of processor time in a period of microseconds: `50000 100000` is half a processor.
fn is_quota_at_most(text: &str, most: u64) -> bool {
    let Some((quota, period)) = text.split_once(' ') else { return false };
    match (quota.parse::<u64>(), period.parse::<u64>()) {
        (Ok(quota), Ok(period)) => {
            period > 0 && u128::from(quota) * USEC_PER_SEC <= u128::from(most) * u128::from(period)
        }
        _ => false,
    }
}

/// `default 50`, and a line for each device that has a weight of its own.
fn is_weight(text: &str, weight: u64) -> bool {
    let default = text.lines().next().and_then(|line| line.strip_prefix("default "));
    default.is_some_and(|found| found.parse() == Ok(weight))
}

/// What of a plan's limits is not in force.
#[derive(Debug, Default)]
struct Missing {
    /// Controllers that this machine's control groups do not have.
    controllers: Vec<&'static str>,
    /// Limits that are not set: the file, what it says and what is asked.
    unset: Vec<String>,
}

impl Missing {
    /// The reason in one line, and what helps; `None` when nothing is missing.
    fn explain(&self, agent: &str) -> Option<String> {
        if !self.controllers.is_empty() {
            return Some(format!(
                "the plan's limits need the cgroup v2 controllers {}, which this machine does not have (see {ROOT}/cgroup.controllers): boot it without cgroup v1 and without cgroup_disable=",
                self.controllers.join(", ")
            ));
        }
        if self.unset.is_empty() {
            return None;
        }
        Some(format!("{}: start it with `aos start {agent}`", self.unset.join("; ")))
    }
}

/// What of the limits is in force nowhere from the control group of `own` up to the root.
fn missing(root: &Path, own: &str, limits: &[Limit]) -> Result<Missing, LaunchError> {
    let groups = groups(root, own)?;
    let mut missing = Missing::default();
    for limit in limits {
        let mut nearest = None;
        let mut is_held = false;
        for group in groups.iter().take(limit.reach) {
            let Some(text) = read(&group.join(limit.file))? else { continue };
            is_held |= (limit.holds)(&text, limit.most);
            nearest.get_or_insert(text);
        }
        match nearest {
            _ if is_held => {}
            None => missing.controllers.push(limit.controller),
            Some(text) => {
                missing.unset.push(format!("{} is `{text}`, the plan asks {}", limit.file, limit.asked));
            }
        }
    }
    Ok(missing)
}

/// The directory of this process's control group, wherever the hierarchy of version 2 is mounted.
pub(crate) fn own_group() -> Result<PathBuf, LaunchError> {
    let own = fs::read_to_string("/proc/self/cgroup").layer(Layer::Limits, "/proc/self/cgroup")?;
    let is_v2 = |root: &&str| statfs(*root).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(CGROUP2_MAGIC));
    let Some(root) = [ROOT, ROOT_BESIDE_V1].into_iter().find(is_v2) else {
        return fail(Layer::Limits, format!("{ROOT} is not cgroup v2"));
    };
    groups(Path::new(root), &own)?.into_iter().next().map_or_else(|| fail(Layer::Limits, NO_GROUP), Ok)
}

/// The control group of the process and all above it, from the inside out. `own` is the text of
/// `/proc/self/cgroup`; the line of version 2 is `0::/path`.
fn groups(root: &Path, own: &str) -> Result<Vec<PathBuf>, LaunchError> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let Some(path) = path else {
        return fail(Layer::Limits, NO_GROUP);
    };
    let path = Path::new(path);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return fail(Layer::Limits, format!("the control group /{} is not visible here", path.display()));
    }
    let own = root.join(path);
    if !own.is_dir() {
        return fail(Layer::Limits, format!("{} is not there", own.display()));
    }
    Ok(own.ancestors().take_while(|group| group.starts_with(root)).map(Path::to_owned).collect())
}

/// A file of a control group; `None` where its controller is not. A file of the kernel is never long.
fn read(path: &Path) -> Result<Option<String>, LaunchError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).layer(Layer::Limits, path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "0::/aos.slice/aos-default.slice/aos-agent@web.service\n";

    /// A hierarchy: path of the group, name of the file, text.
    fn hierarchy(files: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(UNIT.trim_end().trim_start_matches("0::/"))).unwrap();
        for (group, file, text) in files {
            fs::write(root.path().join(group).join(file), format!("{text}\n")).unwrap();
        }
        root
    }

    fn asked(memory: Option<u64>, tasks: Option<u64>, cpu: Option<u64>) -> Vec<Limit> {
        Limit::of(&UnitLimits {
            memory_max_bytes: memory,
            tasks_max: tasks,
            cpu_quota_per_sec_usec: cpu,
            runtime_max_usec: Some(1),
            io_weight: None,
        })
    }

    fn complaints(files: &[(&str, &str, &str)], limits: &[Limit]) -> Vec<String> {
        let missing = missing(hierarchy(files).path(), UNIT, limits).unwrap();
        assert_eq!(missing.controllers, Vec::<&str>::new());
        assert_eq!(missing.explain("web").is_none(), missing.unset.is_empty());
        missing.unset
    }

    const OWN: &str = "aos.slice/aos-default.slice/aos-agent@web.service";

    #[test]
    fn what_is_in_force_holds() {
        let limits = asked(Some((256 << 20) + 5), Some(66), Some(500_000));
        for (memory, tasks, cpu) in [
            // As the kernel rounds it.
            ("268435456", "66", "50000 100000"),
            ("4096", "2", "1000 100000"),
            ("0", "0", "500000 1000000"),
        ] {
            let files = [(OWN, "memory.max", memory), (OWN, "pids.max", tasks), (OWN, "cpu.max", cpu)];
            assert_eq!(complaints(&files, &limits), Vec::<String>::new());
        }
        assert!(asked(None, None, None).is_empty());
    }

    #[test]
    fn what_is_not_is_named_with_both_values() {
        let limits = asked(Some(256 << 20), Some(66), Some(500_000));
        let files = [(OWN, "memory.max", "max"), (OWN, "pids.max", "4915"), (OWN, "cpu.max", "max 100000")];
        assert_eq!(
            complaints(&files, &limits),
            [
                "memory.max is `max`, the plan asks 256M",
                "pids.max is `4915`, the plan asks 66",
                "cpu.max is `max 100000`, the plan asks 50%",
            ]
        );
        for (file, text) in [
            ("memory.max", "268435457"),
            ("memory.max", ""),
            ("memory.max", "-1"),
            ("pids.max", "67"),
            ("cpu.max", "50001 100000"),
            ("cpu.max", "50000"),
            ("cpu.max", "50000 0"),
            ("cpu.max", "50000 x"),
        ] {
            let mut files =
                vec![(OWN, "memory.max", "1"), (OWN, "pids.max", "1"), (OWN, "cpu.max", "1 100000")];
            files.retain(|(_, name, _)| *name != file);
            files.push((OWN, file, text));
            assert_eq!(complaints(&files, &limits).len(), 1, "{file}: {text}");
        }
    }

    #[test]
    fn a_lower_limit_above_counts_and_a_missing_controller_does_not() {
        let limits = asked(Some(256 << 20), None, None);
        let above = [(OWN, "memory.max", "max"), ("aos.slice", "memory.max", "1048576")];
        assert_eq!(complaints(&above, &limits), Vec::<String>::new());
        let above = [("aos.slice/aos-default.slice", "memory.max", "1048576")];
        assert_eq!(complaints(&above, &limits), Vec::<String>::new());
        let wide = [(OWN, "memory.max", "max"), ("aos.slice", "memory.max", "1073741824")];
        assert_eq!(complaints(&wide, &limits), ["memory.max is `max`, the plan asks 256M"]);
        let absent = missing(hierarchy(&[]).path(), UNIT, &asked(Some(1), Some(1), Some(1))).unwrap();
        assert_eq!(
            (absent.controllers.as_slice(), absent.unset.len()),
            (["memory", "pids", "cpu"].as_slice(), 0)
        );
        assert!(absent.explain("web").unwrap().contains("controllers memory, pids, cpu, which"));
        let unset = missing(hierarchy(&wide).path(), UNIT, &limits).unwrap();
        assert_eq!(
            unset.explain("web").unwrap(),
            "memory.max is `max`, the plan asks 256M: start it with `aos start web`"
        );
    }

    #[test]
    fn a_weight_is_that_of_the_group_itself() {
        let limits = Limit::of(&UnitLimits { io_weight: Some(50), ..UnitLimits::default() });
        assert_eq!(complaints(&[(OWN, "io.weight", "default 50")], &limits), Vec::<String>::new());
        assert_eq!(complaints(&[(OWN, "io.weight", "default 50\n8:0 70")], &limits), Vec::<String>::new());
        for text in ["default 100", "default 500", "50", "", "8:0 50"] {
            let files = [(OWN, "io.weight", text), ("aos.slice", "io.weight", "default 50")];
            assert_eq!(complaints(&files, &limits).len(), 1, "{text}");
        }
        let above = hierarchy(&[("aos.slice", "io.weight", "default 50")]);
        assert_eq!(missing(above.path(), UNIT, &limits).unwrap().controllers, ["io"]);
    }

    #[test]
    fn a_control_group_that_cannot_be_found_is_no_limit() {
        let root = hierarchy(&[]);
        let limits = asked(Some(1), None, None);
        for own in ["", "1:memory:/x\n", "0::/../x\n", "0::/absent\n", "0::/aos.slice/absent (deleted)\n"] {
            assert_eq!(missing(root.path(), own, &limits).unwrap_err().layer(), Layer::Limits, "{own}");
        }
    }
}
