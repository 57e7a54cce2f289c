//! What the generator writes: a link and a drop-in per agent, and messages for the kernel's log.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::enabled::{Enabled, Limits};

/// The template that the links point to.
pub(crate) const TEMPLATE: &str = "/usr/lib/systemd/system/aos-agent@.service";

/// Writes the link and the drop-in of one agent below `folder`. The drop-in comes first: an agent that has no
/// limits file must not be started.
pub(crate) fn write_unit(folder: &Path, agent: &Enabled) -> io::Result<()> {
    let unit = agent.id.unit_name();
    let drop_ins = folder.join(format!("{unit}.d"));
    std::fs::create_dir_all(&drop_ins)?;
    std::fs::write(drop_ins.join("50-limits.conf"), limits_text(agent))?;
    let wants = folder.join("multi-user.target.wants");
    std::fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink(TEMPLATE, wants.join(unit))
}

/// The drop-in. Every limit is set, so that none is inherited by accident.
fn limits_text(agent: &Enabled) -> String {
    let Limits { memory_max, cpu_quota_per_sec_usec, tasks_max, runtime_max_sec, io_weight } = &agent.limits;
    let number = |limit: &Option<u64>| limit.map_or("infinity".to_owned(), |number| number.to_string());
    let mut text =
        String::from("# Generated from the enabled agents of AOS; `aos enable` changes it.\n[Service]\n");
    for line in [
        format!("MemoryMax={}", number(memory_max)),
        format!("CPUQuota={}", cpu_quota_per_sec_usec.map(percent).unwrap_or_default()),
        format!("TasksMax={}", number(tasks_max)),
        format!("RuntimeMaxSec={}", number(runtime_max_sec)),
        format!("IOWeight={}", io_weight.map(|weight| weight.to_string()).unwrap_or_default()),
    ] {
        // Writing to a String does not fail.
        if writeln!(text, "{line}").is_err() {
            break;
        }
    }
    text
}

/// Microseconds of CPU per second as systemd's percentage, which has two decimals; never rounded to 0, which
/// would be no quota.
fn percent(usec_per_sec: u64) -> String {
    let hundredths = (usec_per_sec / 100).max(1);
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

/// Messages: to the kernel's log when it can be opened (there is no journal this early), else standard error.
#[derive(Debug)]
pub(crate) struct Log(Option<File>);

impl Log {
    pub(crate) fn open() -> Self {
        Self(OpenOptions::new().write(true).open("/dev/kmsg").ok())
    }

    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self(OpenOptions::new().write(true).open("/dev/null").ok())
    }

    /// One warning. It never fails: there is nobody left to tell.
    pub(crate) fn warn(&self, message: &str) {
        let line = format!("<4>aos-agent-generator: {message}\n");
        let told = self.0.as_ref().is_some_and(|mut file| file.write_all(line.as_bytes()).is_ok());
        if !told {
            #[expect(clippy::print_stderr, reason = "systemd gives generators the console as standard error")]
            {
                eprint!("{line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        for (usec, text) in [
            (500_000, "50.00%"),
            (1_000_000, "100.00%"),
            (2_500_000, "250.00%"),
            (12_345, "1.23%"),
            (1, "0.01%"),
        ] {
            assert_eq!(percent(usec), text);
        }
    }

    #[test]
    fn all_limits_are_explicit() {
        let agent = Enabled { id: "web".parse().unwrap(), limits: Limits::default() };
        let text = limits_text(&agent);
        assert!(text.ends_with(
            "[Service]\nMemoryMax=infinity\nCPUQuota=\nTasksMax=infinity\nRuntimeMaxSec=infinity\nIOWeight=\n"
        ));
    }
}
