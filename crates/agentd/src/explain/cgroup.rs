//! The unit's limits and its freezer: what was asked, and what the control group's files say.

use std::path::Path;

use aos_client::explanation::{LayerRow, Source};
use aos_sandbox::plan::{CAUSE_BASE, UnitLimits};

use crate::files;
use crate::systemd::UnitState;

/// One number or word, or a few.
const FILE_MAX: usize = 4096;
/// The kernel's word for "no limit".
const NO_LIMIT: &str = "max";
/// systemd's period for `cpu.max` (`CPUQuotaPeriodSec=`), microseconds.
const CPU_PERIOD_USEC: u64 = 100_000;
/// The kernel's `io.weight` of every group that has none of its own.
const IO_WEIGHT_DEFAULT: u64 = 100;

/// The layer's name.
const IO_WEIGHT: &str = "io weight";
/// A weight is set, and the kernel does not by itself heed it for every disk.
const IOCOST_OFF: &str = " (iocost is off: only disks with the bfq scheduler heed it)";

/// What one row is about.
struct Asked {
    layer: &'static str,
    file: &'static str,
    /// The file's first line as it has to be.
    words: String,
    /// Nothing is asked for: without the controller that is so.
    is_default: bool,
    cause: &'static str,
}

/// A row for each limit and for the freezer. Nothing of it is in force when the unit has no control group.
pub(super) fn rows(root: &Path, unit: &UnitState, limits: &UnitLimits) -> Vec<LayerRow> {
    let folder =
        unit.cgroup.strip_prefix('/').filter(|below| !below.is_empty()).map(|below| root.join(below));
    let mut rows: Vec<LayerRow> =
        asked(limits).into_iter().map(|asked| row(folder.as_deref(), asked)).collect();
    if limits.io_weight.is_some() && !is_iocost_on(root) {
        let weight = rows.iter_mut().find(|row| row.layer == IO_WEIGHT && row.ok == Some(true));
        weight.into_iter().for_each(|row| row.in_force.push_str(IOCOST_OFF));
    }
    rows.extend(runtime(unit, limits, folder.is_some()));
    rows.push(freezer(folder.as_deref(), unit));
    rows
}

fn asked(limits: &UnitLimits) -> [Asked; 4] {
    let word = |limit: Option<u64>| limit.map_or(NO_LIMIT.to_owned(), |number| number.to_string());
    // memory.max is in whole pages; the kernel rounds down.
    let memory = limits.memory_max_bytes.map(|bytes| bytes - bytes % rustix::param::page_size() as u64);
    let cpu = limits.cpu_quota_per_sec_usec.map(|usec| usec.saturating_mul(CPU_PERIOD_USEC) / 1_000_000);
    let asked = |layer, file, words, is_default, cause| Asked { layer, file, words, is_default, cause };
    [
        asked("memory", "memory.max", word(memory), memory.is_none(), "limits.memory"),
        asked("tasks", "pids.max", word(limits.tasks_max), limits.tasks_max.is_none(), "limits.tasks"),
        asked("cpu", "cpu.max", format!("{} {CPU_PERIOD_USEC}", word(cpu)), cpu.is_none(), "limits.cpu"),
        asked(
            IO_WEIGHT,
            "io.weight",
            format!("default {}", limits.io_weight.unwrap_or(IO_WEIGHT_DEFAULT)),
            limits.io_weight.is_none(),
            "limits.io_weight",
        ),
    ]
}

fn row(folder: Option<&Path>, asked: Asked) -> LayerRow {
    let Asked { layer, file, words, is_default, cause } = asked;
    let (in_force, ok) = match folder.map(|folder| files::read_bounded(&folder.join(file), FILE_MAX)) {
        None => (String::new(), None),
        Some(Ok(bytes)) => {
            let text = String::from_utf8_lossy(&bytes);
            let first = text.lines().next().unwrap_or_default().to_owned();
            let ok = first == words;
            (first, Some(ok))
        }
        Some(Err(error)) if error.is_missing() => {
            ("the kernel does not offer this controller here".to_owned(), Some(is_default))
        }
        Some(Err(error)) => (crate::failure::chain(&error), Some(false)),
    };
    layer_row(layer, words, in_force, ok, cause, Source::Cgroup)
}

fn layer_row(
    layer: &str,
    asked: String,
    in_force: String,
    ok: Option<bool>,
    cause: &str,
    source: Source,
) -> LayerRow {
    LayerRow { layer: layer.to_owned(), asked, in_force, ok, cause: cause.to_owned(), source }
}

/// Whether the kernel's own cost model shares out some disk's time: `8:0 enable=1 ...` in the root's file.
fn is_iocost_on(root: &Path) -> bool {
    let qos = files::read_bounded(&root.join("io.cost.qos"), FILE_MAX).unwrap_or_default();
    String::from_utf8_lossy(&qos).split_ascii_whitespace().any(|word| word == "enable=1")
}

/// Who ends an agent that has a time limit: systemd one that it started at boot, the supervisor any other.
fn runtime(unit: &UnitState, limits: &UnitLimits, runs: bool) -> Option<LayerRow> {
    let seconds = |usec: u64| format!("{} s", usec.div_ceil(1_000_000));
    let asked = limits.runtime_max_usec?;
    let (in_force, ok) = match unit.limits.runtime_max_usec {
        _ if !runs => (String::new(), None),
        Some(usec) => (format!("systemd ends it after {}", seconds(usec)), Some(usec <= asked + 1_000_000)),
        None => (format!("the supervisor ends it after {}", seconds(asked)), Some(true)),
    };
    Some(layer_row("run time", seconds(asked), in_force, ok, "limits.runtime", Source::Systemd))
}

/// systemd's word beside the kernel's.
fn freezer(folder: Option<&Path>, unit: &UnitState) -> LayerRow {
    let word = |is_frozen: bool| if is_frozen { "frozen" } else { "running" }.to_owned();
    let asked = word(unit.freezer.is_frozen());
    let read = folder.map(|folder| files::read_bounded(&folder.join("cgroup.events"), FILE_MAX));
    let (in_force, ok) = match read {
        None => (String::new(), None),
        Some(Ok(bytes)) => {
            let frozen = word(String::from_utf8_lossy(&bytes).lines().any(|line| line == "frozen 1"));
            let ok = frozen == asked;
            (frozen, Some(ok))
        }
        Some(Err(error)) => (crate::failure::chain(&error), Some(false)),
    };
    let cause = if unit.freezer.is_frozen() { "aos pause" } else { CAUSE_BASE };
    layer_row("freezer", asked, in_force, ok, cause, Source::Cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::Freezer;

    #[test]
    fn files_are_compared_with_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("u")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join("u").join(name), text).unwrap();
        write("memory.max", "67108864\n");
        write("cpu.max", "50000 100000\n");
        write("io.weight", "default 50\n8:0 70\n");
        write("cgroup.events", "populated 1\nfrozen 0\n");
        let unit = UnitState { cgroup: "/u".to_owned(), ..UnitState::unknown() };
        let limits = UnitLimits {
            memory_max_bytes: Some(67_108_864),
            cpu_quota_per_sec_usec: Some(500_000),
            tasks_max: Some(8),
            runtime_max_usec: Some(9_000_000),
            io_weight: Some(50),
        };
        let oks = |unit: &UnitState, limits: &UnitLimits| -> Vec<_> {
            let rows = rows(dir.path(), unit, limits).into_iter();
            rows.map(|row| (row.layer, row.ok)).map(|(layer, ok)| format!("{layer} {ok:?}")).collect()
        };
        assert_eq!(
            oks(&unit, &limits),
            [
                "memory Some(true)",
                "tasks Some(false)",
                "cpu Some(true)",
                "io weight Some(true)",
                "run time Some(true)",
                "freezer Some(true)"
            ]
        );
        assert!(oks(&UnitState::unknown(), &limits).iter().all(|row| row.ends_with("None")));
        assert_eq!(
            oks(&unit, &UnitLimits::default()),
            [
                "memory Some(false)",
                "tasks Some(true)",
                "cpu Some(false)",
                "io weight Some(false)",
                "freezer Some(true)"
            ]
        );
        let later = UnitLimits { runtime_max_usec: Some(60_000_000), ..UnitLimits::default() };
        let unit = UnitState { limits: later, ..unit };
        assert!(oks(&unit, &limits).contains(&"run time Some(false)".to_owned()));
    }

    #[test]
    fn a_weight_that_no_disk_may_heed_says_so() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("u")).unwrap();
        std::fs::write(dir.path().join("u/io.weight"), "default 50\n").unwrap();
        let unit = UnitState { cgroup: "/u".to_owned(), ..UnitState::unknown() };
        let limits = UnitLimits { io_weight: Some(50), ..UnitLimits::default() };
        let weight = || {
            let found =
                rows(dir.path(), &unit, &limits).into_iter().find(|row| row.layer == IO_WEIGHT).unwrap();
            (found.in_force, found.ok)
        };
        let off = (format!("default 50{IOCOST_OFF}"), Some(true));
        assert_eq!(weight(), off);
        std::fs::write(dir.path().join("io.cost.qos"), "8:0 enable=0 ctrl=auto\n").unwrap();
        assert_eq!(weight(), off);
        std::fs::write(dir.path().join("io.cost.qos"), "8:0 enable=1 ctrl=auto\n").unwrap();
        assert_eq!(weight(), ("default 50".to_owned(), Some(true)));
    }

    #[test]
    fn the_freezer_is_asked_of_systemd_and_of_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        for (freezer, events, ok) in [
            (Freezer::Running, "frozen 0\n", true),
            (Freezer::Frozen, "populated 1\nfrozen 1\n", true),
            (Freezer::FrozenByParent, "frozen 1\n", true),
            (Freezer::Frozen, "frozen 0\n", false),
            (Freezer::Running, "frozen 1\n", false),
        ] {
            std::fs::write(dir.path().join("cgroup.events"), events).unwrap();
            let unit = UnitState { freezer, ..UnitState::unknown() };
            assert_eq!(super::freezer(Some(dir.path()), &unit).ok, Some(ok), "{freezer:?} {events}");
        }
    }
}
