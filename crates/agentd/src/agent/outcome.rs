//! The end of a run in words.

use aos_core::state::ExitResult;

use crate::db::End;

/// Exit statuses with a meaning: the launcher's own (121 to 125), and systemd's (systemd.exec(5), "Process Exit
/// Codes"), which the launcher uses too for the layers that systemd has a status for.
const STATUSES: &[(i32, &str)] = &[
    (121, "landlock"),
    (122, "a probe contradicts the sandbox"),
    (123, "the launcher's report"),
    (124, "the readiness message"),
    (125, "the launcher's processes"),
    (200, "the working directory"),
    (202, "inherited descriptors"),
    (203, "the program cannot be executed"),
    (205, "resource limits"),
    (216, "the group"),
    (217, "the user"),
    (218, "capabilities"),
    (225, "the network namespace"),
    (226, "namespaces, the file tree or a granted path"),
    (227, "no_new_privs"),
    (228, "the system call filter"),
    (233, "the runtime directory"),
    (237, "keyrings"),
    (238, "the state directory"),
    (243, "the plan"),
];

/// Why a run ended, for a person. The numbers are the agent's; no text of its is used.
#[must_use]
pub fn explain_end(end: &End) -> String {
    match end.result {
        ExitResult::Success => "ended well".to_owned(),
        ExitResult::ExitCode => match STATUSES.iter().find(|(status, _)| *status == end.status) {
            Some((status, layer)) => format!("exit status {status} (as the launcher: {layer})"),
            None => format!("exit status {}", end.status),
        },
        ExitResult::Signal => format!("killed by signal {}", end.status),
        ExitResult::CoreDump => format!("killed by signal {} with a core dump", end.status),
        ExitResult::Timeout => {
            "it took too long: not ready or not stopped in time, or beyond limits.runtime".to_owned()
        }
        ExitResult::OomKill => "out of memory: beyond limits.memory, or the machine's memory".to_owned(),
        ExitResult::Protocol => "it ended before it was ready".to_owned(),
        ExitResult::Watchdog => "its watchdog was not fed".to_owned(),
        ExitResult::StartLimitHit => "started too often".to_owned(),
        ExitResult::ExecCondition => "a condition of its unit does not hold".to_owned(),
        ExitResult::Resources => "systemd lacked a resource to start it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let end = |result, status| explain_end(&End { at_us: None, result, status });
        assert_eq!(end(ExitResult::ExitCode, 3), "exit status 3");
        assert!(end(ExitResult::ExitCode, 226).contains("file tree"));
        assert!(STATUSES.is_sorted());
    }
}
