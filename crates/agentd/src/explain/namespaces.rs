//! Whether the agent's namespaces are its own.
//!
//! `/proc/PID/ns` of another user's process cannot be read without privilege. So this compares what the launcher saw
//! from inside (its report) with the namespaces of this process, and with those that the kernel begins with, whose
//! numbers are fixed (`include/linux/proc_ns.h`).

use std::path::Path;

use aos_client::explanation::{LayerRow, Source};
use aos_core::report::LaunchReport;
use aos_sandbox::plan::CAUSE_BASE;

/// The layer of the launcher's report that lists them, as `kind:[number]`.
const REPORTED: &str = "namespaces";
/// Those of the machine's first processes, as links below `/proc/PID/ns` show them.
const INITIAL: [&str; 6] = [
    "time:[4026531834]",
    "cgroup:[4026531835]",
    "pid:[4026531836]",
    "user:[4026531837]",
    "uts:[4026531838]",
    "ipc:[4026531839]",
];

/// One row; none without a report.
pub(super) fn row(proc: &Path, report: Option<&LaunchReport>) -> Option<LayerRow> {
    let reported = report?.layers.iter().find(|layer| layer.layer == REPORTED)?;
    let theirs: Vec<&str> = reported.in_force.split_ascii_whitespace().collect();
    let shared: Vec<&str> = theirs.iter().copied().filter(|one| !is_apart(proc, one)).collect();
    let in_force = match shared.as_slice() {
        [] => format!("all {} differ", theirs.len()),
        shared => format!("shared: {}", shared.join(" ")),
    };
    Some(LayerRow {
        layer: "namespaces apart".to_owned(),
        asked: "none of the machine's or the supervisor's".to_owned(),
        in_force,
        ok: Some(shared.is_empty() && !theirs.is_empty()),
        cause: CAUSE_BASE.to_owned(),
        source: Source::Proc,
    })
}

/// Whether a namespace, `kind:[number]`, is neither an initial one nor this process's. One that cannot be compared is
/// not.
fn is_apart(proc: &Path, one: &str) -> bool {
    let Some((kind, _)) = one.split_once(":[") else { return false };
    if !kind.bytes().all(|byte| byte.is_ascii_lowercase()) || INITIAL.contains(&one) {
        return false;
    }
    let own = std::fs::read_link(proc.join("self/ns").join(kind));
    own.is_ok_and(|own| own.as_os_str() != one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_core::report::{LayerReport, REPORT_VERSION};

    fn report(in_force: &str) -> LaunchReport {
        LaunchReport {
            version: REPORT_VERSION,
            agent: "web".parse().unwrap(),
            launcher: String::new(),
            kernel: String::new(),
            layers: vec![LayerReport {
                layer: REPORTED.to_owned(),
                asked: String::new(),
                in_force: in_force.to_owned(),
                ok: true,
                detail: String::new(),
            }],
            landlock: None,
        }
    }

    #[test]
    fn what_is_shared_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("self/ns")).unwrap();
        for (kind, number) in [("user", 4_026_531_837_u64), ("net", 4_026_532_000), ("pid", 4_026_531_836)] {
            let link = dir.path().join("self/ns").join(kind);
            std::os::unix::fs::symlink(format!("{kind}:[{number}]"), link).unwrap();
        }
        let look = |in_force: &str| row(dir.path(), Some(&report(in_force))).unwrap();
        let good = look("user:[4026533001] net:[4026533002]");
        assert_eq!((good.in_force.as_str(), good.ok), ("all 2 differ", Some(true)));
        for (bad, says) in [
            ("user:[4026533001] net:[4026532000]", "shared: net:[4026532000]"),
            ("user:[4026531837]", "shared: user:[4026531837]"),
            ("pid:[4026531836]", "shared: pid"),
            ("uts:[4026531838]", "shared: uts"),
            ("ipc:[4026533003]", "shared: ipc"),
            ("../../1/ns/net:[1]", "shared: ../"),
            ("nonsense", "shared: nonsense"),
        ] {
            let row = look(bad);
            assert!(row.ok == Some(false) && row.in_force.starts_with(says), "{bad}: {}", row.in_force);
        }
        assert_eq!(look("").ok, Some(false));
        assert_eq!(row(dir.path(), None), None);
    }
}
