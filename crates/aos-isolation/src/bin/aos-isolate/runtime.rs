//! The command of each OCI runtime, and waiting for it.

#![expect(clippy::disallowed_methods, reason = "this module starts the OCI runtime, and nothing else")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use aos_isolation::backend::Backend;
use aos_isolation::oci::{PLAN_FD, REPORT_FD};
use aos_sys::signal;
use command_fds::{CommandFdExt, FdMapping};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use crate::error::{Context, LaunchError, Layer, fail};
use crate::staging::Area;

/// The container's name: the only one in its state directory.
const NAME: &str = "agent";
/// Signals of a service manager, as of `aos-launch`.
pub(crate) const PASSED_ON: [Signal; 7] =
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::CONT];

/// Starts the runtime with the plan and the end of the report's pipe.
pub(crate) fn spawn(
    backend: Backend,
    program: &Path,
    area: &Area,
    plan: &File,
    report: OwnedFd,
) -> Result<Pid, LaunchError> {
    let mut command = Command::new(program);
    command.args(arguments(backend, area)).env_clear().current_dir("/");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XDG_RUNTIME_DIR", &area.state);
    let what = || format!("cannot start {}", program.display());
    let plan = plan.as_fd().try_clone_to_owned().layer(Layer::Process, "cannot share the plan")?;
    let mappings = vec![
        FdMapping { parent_fd: report, child_fd: REPORT_FD },
        FdMapping { parent_fd: plan, child_fd: PLAN_FD },
    ];
    command.fd_mappings(mappings).layer(Layer::Process, what())?;
    let child = command.spawn().layer(Layer::Isolation, what())?;
    // The child is waited for with every other that this init reaps.
    match i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        Some(pid) => Ok(pid),
        None => fail(Layer::Process, what()),
    }
}

/// The arguments. Limits are those of the control group that all of this is in: no runtime makes one.
fn arguments(backend: Backend, area: &Area) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let (state, log, bundle) = (path(&area.state), path(&area.log), path(&area.bundle));
    let words: &[&str] = match backend {
        Backend::Crun => &[
            "--root",
            &state,
            "--log",
            &log,
            "--cgroup-manager",
            "disabled",
            "run",
            "--bundle",
            &bundle,
            "--preserve-fds",
            "2",
            NAME,
        ],
        Backend::Gvisor => &[
            "--root",
            &state,
            "--log",
            &log,
            "--rootless",
            "--network=none",
            "--platform=systrap",
            "--ignore-cgroups",
            "--overlay2=none",
            "--host-uds=none",
            "--host-fifo=none",
            "run",
            "-bundle",
            &bundle,
            "-pass-fd",
            "3:3",
            "-pass-fd",
            "4:4",
            NAME,
        ],
        _ => &[
            "--root",
            &state,
            "--log",
            &log,
            "--rootless=true",
            "run",
            "--bundle",
            &bundle,
            "--preserve-fds",
            "2",
            NAME,
        ],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// How a signal reaches the agent.
pub(crate) trait Passing {
    /// Passes it on.
    fn pass(&self, child: Pid, signal: Signal) -> Result<(), LaunchError>;
}

/// To the child itself, which passes it on.
pub(crate) struct Direct;

/// To the child, and SIGALRM is the word that everything ends: it reaches the child as SIGKILL.
pub(crate) struct Ending;

/// runsc does not pass signals on by itself: by another call of it.
pub(crate) struct ByCommand<'a> {
    pub(crate) program: &'a Path,
    pub(crate) area: &'a Area,
}

impl Passing for Direct {
    fn pass(&self, child: Pid, signal: Signal) -> Result<(), LaunchError> {
        if !PASSED_ON.contains(&signal) {
            return Ok(());
        }
        match kill_process(child, signal) {
            // Between its end and its reaping the child takes no signal.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).layer(Layer::Process, "cannot pass a signal on"),
        }
    }
}

impl Passing for Ending {
    fn pass(&self, child: Pid, signal: Signal) -> Result<(), LaunchError> {
        if signal != Signal::ALARM {
            return Direct.pass(child, signal);
        }
        match kill_process(child, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).layer(Layer::Process, "cannot end the stage"),
        }
    }
}

impl Passing for ByCommand<'_> {
    fn pass(&self, _child: Pid, signal: Signal) -> Result<(), LaunchError> {
        if !PASSED_ON.contains(&signal) {
            return Ok(());
        }
        let mut command = Command::new(self.program);
        command.args(["--root", &self.area.state.display().to_string(), "--log"]).arg(&self.area.log);
        command.args(["--rootless", "kill", NAME, &signal.as_raw().to_string()]);
        command.env_clear().env("XDG_RUNTIME_DIR", &self.area.state).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It is reaped with every other child of this init. Once the agent has ended it fails, which is right.
        command.spawn().map(drop).layer(Layer::Process, "cannot pass a signal on")
    }
}

/// Passes signals on and reaps until `child` has ended; its status by a shell's convention. All signals are
/// blocked.
pub(crate) fn wait_for(child: Pid, passing: &dyn Passing) -> Result<u8, LaunchError> {
    loop {
        if let Some(status) = reap(child)? {
            return Ok(exit_status(status));
        }
        let signal = signal::wait().layer(Layer::Process, "cannot wait for signals")?;
        passing.pass(child, signal)?;
    }
}

/// Reaps all that have ended; the status of `child` if it is among them.
fn reap(child: Pid) -> Result<Option<WaitStatus>, LaunchError> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => return Ok(Some(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error).layer(Layer::Process, "cannot wait for the runtime"),
        }
    }
}

pub(crate) fn exit_status(status: WaitStatus) -> u8 {
    let code = status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .unwrap_or(i32::from(Layer::Process.exit_status()));
    u8::try_from(code).unwrap_or(u8::MAX)
}
