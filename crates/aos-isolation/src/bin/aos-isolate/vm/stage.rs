//! Pid 1 around QEMU: it prepares a root directory in memory, makes it its own and QEMU's, gives up every right,
//! starts QEMU, and ends with it.

#![expect(clippy::disallowed_methods, reason = "this module starts QEMU, and nothing else")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use aos_isolation::vm::machine::CHANNEL_FD;
use aos_sandbox::seccomp::Policy;
use aos_sys::{capability, seccomp};
use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit, setsid};
use rustix::thread::set_no_new_privs;

use super::Parts;
use super::view::{self, QEMU_LOG};
use crate::Start;
use crate::error::{Context, LaunchError, Layer, fail};
use crate::runtime::{self, Passing};

/// Runs until QEMU has ended.
pub(super) fn run(start: &Start, parts: Parts, channel: OwnedFd) -> Result<u8, LaunchError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .layer(Layer::Process, "cannot tie the stage to the driver")?;
    super::has_listener(&channel)?;
    // A key on the caller's terminal is for the agent, by way of the driver.
    setsid().layer(Layer::Process, "cannot leave the session")?;
    let arguments = parts.machine.arguments();
    view::enter(start, parts)?;
    give_up()?;
    let qemu = spawn(start, &arguments, channel)?;
    runtime::wait_for(qemu, &Nothing)
}

/// What the stage and QEMU have no use for. The agent's own filter is the strictest that a program of some size
/// works under; QEMU adds one of its own.
fn give_up() -> Result<(), LaunchError> {
    // With 1 byte no core file is written and no core handler is started (core(5)).
    let core = Rlimit { current: Some(1), maximum: Some(1) };
    setrlimit(Resource::Core, core).layer(Layer::Limits, "cannot limit core files")?;
    capability::drop_inheritable().layer(Layer::Capabilities, "cannot empty the bounding set")?;
    capability::drop_held().layer(Layer::Capabilities, "cannot drop capabilities")?;
    set_no_new_privs(true).layer(Layer::NoNewPrivileges, "cannot set no_new_privs")?;
    seccomp::install(Policy::Agent.compile()).layer(Layer::Seccomp, "cannot install the system call filter")
}

fn spawn(start: &Start, arguments: &[String], channel: OwnedFd) -> Result<Pid, LaunchError> {
    let what = || format!("cannot start {}", start.program.display());
    let log = File::options().append(true).open(QEMU_LOG).layer(Layer::Isolation, QEMU_LOG)?;
    let mut command = Command::new(&start.program);
    command.args(arguments).env_clear().current_dir("/").stdin(Stdio::null());
    command.stdout(log.try_clone().layer(Layer::Process, what())?).stderr(log);
    let mappings = vec![FdMapping { parent_fd: channel, child_fd: CHANNEL_FD }];
    command.fd_mappings(mappings).layer(Layer::Process, what())?;
    let child = command.spawn().layer(Layer::Isolation, what())?;
    // The child is waited for with every other that this init reaps.
    match i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        Some(pid) => Ok(pid),
        None => fail(Layer::Process, what()),
    }
}

/// Signals reach the agent through the machine, never QEMU.
struct Nothing;

impl Passing for Nothing {
    fn pass(&self, _child: Pid, _signal: Signal) -> Result<(), LaunchError> {
        Ok(())
    }
}

/// A shell's convention, for what the driver hears of the stage.
pub(super) fn status(status: rustix::process::WaitStatus) -> String {
    let status = std::process::ExitStatus::from_raw(status.as_raw());
    status.to_string()
}
