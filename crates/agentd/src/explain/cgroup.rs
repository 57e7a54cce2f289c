//! The unit's limits: what was asked, and what the control group's files say.

use std::path::Path;

use aos_client::explanation::{LayerRow, Source};
use aos_sandbox::plan::UnitLimits;

use crate::files;

/// One number or word, or two.
const FILE_MAX: usize = 256;
/// The kernel's word for "no limit".
const NO_LIMIT: &str = "max";
/// systemd's period for `cpu.max` (`CPUQuotaPeriodSec=`), microseconds.
const CPU_PERIOD_USEC: u64 = 100_000;

/// A row for each limit. `cgroup` is the unit's, empty when nothing runs.
pub(super) fn rows(root: &Path, cgroup: &str, limits: &UnitLimits) -> Vec<LayerRow> {
    let word = |limit: Option<u64>| limit.map_or(NO_LIMIT.to_owned(), |number| number.to_string());
    // memory.max is in whole pages; the kernel rounds down.
    let memory = limits.memory_max_bytes.map(|bytes| bytes - bytes % rustix::param::page_size() as u64);
    let cpu = limits.cpu_quota_per_sec_usec.map(|usec| usec.saturating_mul(CPU_PERIOD_USEC) / 1_000_000);
    [
        ("memory", "memory.max", word(memory), "limits.memory"),
        ("tasks", "pids.max", word(limits.tasks_max), "limits.tasks"),
        ("cpu", "cpu.max", format!("{} {CPU_PERIOD_USEC}", word(cpu)), "limits.cpu"),
    ]
    .into_iter()
    .map(|(layer, file, asked, cause)| row(root, cgroup, layer, file, asked, cause))
    .collect()
}

fn row(root: &Path, cgroup: &str, layer: &str, file: &str, asked: String, cause: &str) -> LayerRow {
    let (in_force, ok) = match cgroup.strip_prefix('/') {
        None | Some("") => (String::new(), None),
        Some(below) => match files::read_bounded(&root.join(below).join(file), FILE_MAX) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                let ok = text == asked;
                (text, Some(ok))
            }
            // Without the controller nothing is limited.
            Err(error) if error.is_missing() => (
                "the kernel does not offer this controller here".to_owned(),
                Some(asked.starts_with(NO_LIMIT)),
            ),
            Err(error) => (crate::failure::chain(&error), Some(false)),
        },
    };
    LayerRow { layer: layer.to_owned(), asked, in_force, ok, cause: cause.to_owned(), source: Source::Cgroup }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_with_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("u")).unwrap();
        std::fs::write(dir.path().join("u/memory.max"), "67108864\n").unwrap();
        std::fs::write(dir.path().join("u/cpu.max"), "50000 100000\n").unwrap();
        let limits = UnitLimits {
            memory_max_bytes: Some(67_108_864),
            cpu_quota_per_sec_usec: Some(500_000),
            tasks_max: Some(8),
            runtime_max_usec: None,
        };
        let rows = rows(dir.path(), "/u", &limits);
        let oks: Vec<_> = rows.iter().map(|row| (row.layer.as_str(), row.ok)).collect();
        assert_eq!(oks, [("memory", Some(true)), ("tasks", Some(false)), ("cpu", Some(true))]);
        assert_eq!(super::rows(dir.path(), "", &limits)[0].ok, None);
        let none = super::rows(dir.path(), "/u", &UnitLimits::default());
        assert_eq!((none[0].ok, none[1].ok, none[2].asked.as_str()), (Some(false), Some(true), "max 100000"));
    }
}
