//! `aos-agent-generator`: at boot and at `daemon-reload`, makes systemd start the enabled agents.
//!
//! It reads `/etc/aos/enabled/ID` (systemd.generator(7): early, as root, before most of the system) and writes
//! into the generator folder that systemd gives it as the first argument:
//!
//! - `multi-user.target.wants/aos-agent@ID.service` -> the template;
//! - `aos-agent@ID.service.d/50-limits.conf` with the limits, each set explicitly.
//!
//! The folder belongs to the supervisor, which has no root, so everything in it is hostile input here: names are
//! agent ids or ignored, files are regular, small, opened without following links, and hold known keys with
//! plain numbers. Numbers are parsed and printed again; no byte of the input reaches a unit file. An agent
//! whose file is not right is left out, with a message, rather than started without its limits. Nothing here
//! can make the boot fail: the exit status is always 0.

mod enabled;
mod output;

use std::path::Path;
use std::process::ExitCode;

const ENABLED: &str = "/etc/aos/enabled";

fn main() -> ExitCode {
    let log = output::Log::open();
    match std::env::args_os().nth(1) {
        Some(folder) => generate(Path::new(ENABLED), Path::new(&folder), &log),
        None => log.warn("usage: aos-agent-generator NORMAL-DIR [EARLY-DIR LATE-DIR]"),
    }
    ExitCode::SUCCESS
}

fn generate(enabled: &Path, folder: &Path, log: &output::Log) {
    let agents = match enabled::read_all(enabled) {
        Ok(agents) => agents,
        Err(error) => return log.warn(&format!("no agent is started: {error}")),
    };
    for agent in agents {
        match agent {
            Ok(agent) => {
                if let Err(error) = output::write_unit(folder, &agent) {
                    log.warn(&format!("agent {} is not started: {error}", agent.id));
                }
            }
            Err(error) => log.warn(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_limits_for_the_good_and_nothing_for_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let (enabled, out) = (dir.path().join("enabled"), dir.path().join("out"));
        std::fs::create_dir(&enabled).unwrap();
        std::fs::create_dir(&out).unwrap();
        std::fs::write(enabled.join("web"), "MemoryMax=1048576\nTasksMax=8\n").unwrap();
        std::fs::write(enabled.join("bad"), "ExecStart=/bin/sh\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", enabled.join("link")).unwrap();
        generate(&enabled, &out, &output::Log::silent());
        let link = out.join("multi-user.target.wants/aos-agent@web.service");
        assert_eq!(std::fs::read_link(link).unwrap(), Path::new(output::TEMPLATE));
        let drop_in = std::fs::read_to_string(out.join("aos-agent@web.service.d/50-limits.conf")).unwrap();
        assert!(drop_in.contains("\nMemoryMax=1048576\n") && drop_in.contains("\nRuntimeMaxSec=infinity\n"));
        assert_eq!(std::fs::read_dir(out.join("multi-user.target.wants")).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2);
    }

    #[test]
    fn a_missing_folder_is_no_agents() {
        let dir = tempfile::tempdir().unwrap();
        generate(&dir.path().join("missing"), dir.path(), &output::Log::silent());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
