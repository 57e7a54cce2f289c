//! The corpus inside the real unit: for a system where systemd runs, the packages are installed,
//! and the user `aos-escape` exists.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use super::host::TASKS;
use super::{Preparing, RunError};

/// The installed launcher.
pub const LAUNCHER: &str = "/usr/libexec/aos/aos-launch";
/// The agent's data, which systemd makes and owns to the agent's user.
pub(super) const WORKSPACE: &str = "/var/lib/aos-agents/escape";
const UNIT: &str = "aos-agent@escape.service";
const PLAN: &str = "/var/lib/aos/agents/escape/plan.json";
const DROP_IN: &str = "/run/systemd/system/aos-agent@escape.service.d/50-escape.conf";
const PATIENCE: Duration = Duration::from_secs(120);

/// The user id of the agent's account.
pub(super) fn uid() -> Result<u32, RunError> {
    let output = Command::new("id").args(["-u", "aos-escape"]).output().preparing("the agent's user")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| RunError::Launcher("there is no user aos-escape".to_owned()))
}

/// Starts the unit with a plan and waits for its end.
pub(super) fn run(plan: &Path, scratch: &Path) -> Result<Output, RunError> {
    for file in [PLAN, DROP_IN] {
        let directory = Path::new(file).parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).preparing(directory.display().to_string())?;
    }
    fs::copy(plan, PLAN).preparing(PLAN)?;
    let stdout = scratch.join("stdout");
    let stderr = scratch.join("stderr");
    let text = format!(
        "[Service]\nTasksMax={TASKS}\nStandardOutput=truncate:{}\nStandardError=truncate:{}\n",
        stdout.display(),
        stderr.display()
    );
    fs::write(DROP_IN, text).preparing(DROP_IN)?;
    systemctl(&["daemon-reload"])?;
    let status = systemctl(&["start", UNIT])?;
    let deadline = Instant::now() + PATIENCE;
    while systemctl(&["is-active", "--quiet", UNIT])?.success() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::remove_file(DROP_IN).preparing(DROP_IN)?;
    systemctl(&["daemon-reload"])?;
    Ok(Output {
        status,
        stdout: fs::read(&stdout).preparing("the unit's output")?,
        stderr: fs::read(&stderr).preparing("the unit's errors")?,
    })
}

fn systemctl(arguments: &[&str]) -> Result<ExitStatus, RunError> {
    Command::new("systemctl").args(arguments).status().preparing("systemctl")
}
