//! The init's part: it makes the process of a call, and the process confines itself as the agent did, with the
//! same code and the same checks, from the plan that the init keeps.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use aos_core::capability::CapabilitySet;
use aos_sandbox::call::{CallRequest, REQUEST_MAX_BYTES};
use aos_sandbox::plan::{PathRule, SandboxPlan};
use aos_sys::process::{self, Fork};
use aos_sys::signal;
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitStatus, kill_process_group, set_dumpable_behavior};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::apart;
use super::{CALL, ENDED, HEAD_BYTES, KILL, Message, Received, head, parts, receive, send};
use crate::agent;
use crate::error::{Context, LaunchError, Layer, fail};
use crate::message::Sender;
use crate::probe::Outside;
use crate::report::Before;

/// The kernel takes a call before anything of the agent when memory is short (proc_pid_oom_score_adj(5): the most).
const OOM_SCORE_ADJUST: &str = "1000";

/// What the init needs for calls.
pub(crate) struct Inside {
    socket: OwnedFd,
    plan: SandboxPlan,
    before: Before,
    outside: Outside,
    processes: OwnedFd,
    /// The numbers of the calls by their first process.
    going_on: BTreeMap<i32, u32>,
}

/// What comes with a request for a call.
struct Parts {
    streams: [OwnedFd; 3],
    report: OwnedFd,
    group: Option<OwnedFd>,
}

impl Inside {
    /// From now on a message of the launcher is a signal to the init.
    pub(crate) fn new(
        socket: OwnedFd,
        plan: SandboxPlan,
        before: Before,
        outside: Outside,
        processes: OwnedFd,
    ) -> Result<Self, LaunchError> {
        signal::when_readable(&socket).layer(Layer::Process, "cannot listen to the launcher")?;
        Ok(Self { socket, plan, before, outside, processes, going_on: BTreeMap::new() })
    }

    /// Does what the launcher asks for. One that has ended takes this process with it.
    pub(crate) fn serve(&mut self) -> Result<(), LaunchError> {
        loop {
            let received = receive(&self.socket, HEAD_BYTES + REQUEST_MAX_BYTES);
            match received.layer(Layer::Process, "cannot hear from the launcher")? {
                Received::Whole(message) => self.take(message),
                Received::Cut => {}
                Received::Nothing | Received::End => return Ok(()),
            }
        }
    }

    /// A process that was reaped may have been a call's first.
    pub(crate) fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if let Some(number) = self.going_on.remove(&pid.as_raw_nonzero().get()) {
            self.tell_end(number, status.as_raw());
        }
    }

    fn take(&mut self, message: Message) {
        let Some((kind, number, request)) = parts(&message.bytes) else { return };
        match kind {
            CALL => {
                let Some(parts) = Parts::of(message.descriptors) else { return };
                self.begin(number, request, &parts);
            }
            KILL => self.kill(number),
            _ => {}
        }
    }

    fn begin(&mut self, number: u32, request: &[u8], parts: &Parts) {
        let forked = match &parts.group {
            Some(group) => process::fork_into(group),
            None => process::fork(),
        };
        match forked {
            Ok(Fork::Parent(pid)) => {
                self.going_on.insert(pid.as_raw_nonzero().get(), number);
            }
            Ok(Fork::Child) => std::process::exit(i32::from(self.become_call(request, parts))),
            Err(error) => {
                let failed = fail::<()>(Layer::Process, format!("cannot fork the call: {error}"));
                if let Err(error) = failed {
                    if let Some(mut sender) = parts.sender() {
                        sender.tell(&error);
                    }
                    self.tell_end(number, i32::from(error.layer().exit_status()) << 8);
                }
            }
        }
    }

    /// The process of the call. Returns only when a layer is missing, with its exit status.
    fn become_call(&self, request: &[u8], parts: &Parts) -> u8 {
        let Some(mut sender) = parts.sender() else { return Layer::Process.exit_status() };
        match self.prepare(request, parts) {
            Ok(plan) => agent::run(&plan, &self.before, &self.outside, None, &mut sender),
            Err(error) => {
                sender.tell(&error);
                error.layer().exit_status()
            }
        }
    }

    /// The call's plan; and what the agent's process has from the launcher.
    fn prepare(&self, request: &[u8], parts: &Parts) -> Result<SandboxPlan, LaunchError> {
        let plan = plan_of(&self.plan, request)?;
        let [input, output, errors] = &parts.streams;
        let what = "cannot set the standard streams";
        dup2_stdin(input).layer(Layer::Descriptors, what)?;
        dup2_stdout(output).layer(Layer::Descriptors, what)?;
        dup2_stderr(errors).layer(Layer::Descriptors, what)?;
        process::close_others_on_exec().layer(Layer::Descriptors, "cannot close descriptors on exec")?;
        self.raise_oom_score()?;
        Ok(plan)
    }

    /// The file belongs to root while a process is not dumpable. What could look into this one then is in a Landlock
    /// domain, and the kernel lets nobody out of a domain look into what is not in it.
    fn raise_oom_score(&self) -> Result<(), LaunchError> {
        set_dumpable_behavior(DumpableBehavior::Dumpable).layer(Layer::Process, "cannot become dumpable")?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        openat(&self.processes, "self/oom_score_adj", flags, Mode::empty())
            .and_then(|file| rustix::io::write(&file, OOM_SCORE_ADJUST.as_bytes()))
            .layer(Layer::Limits, "cannot make the call the kernel's first choice when memory is short")?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable).layer(Layer::Process, "cannot become undumpable")
    }

    fn kill(&self, number: u32) {
        let first = self.going_on.iter().find(|(_, other)| **other == number);
        if let Some(pid) = first.and_then(|(pid, _)| Pid::from_raw(*pid))
            && kill_process_group(pid, Signal::KILL).is_err()
            && rustix::process::kill_process(pid, Signal::KILL).is_err()
        {
            // It has ended and is about to be reaped.
        }
    }

    fn tell_end(&self, number: u32, status: i32) {
        let mut bytes = head(ENDED, number);
        bytes.extend(status.to_le_bytes());
        if send(&self.socket, &bytes, &[]).is_err() {
            // The launcher has ended, and this process is about to.
        }
    }
}

impl Parts {
    fn of(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next();
        let (input, output, errors, report) = (next()?, next()?, next()?, next()?);
        Some(Self { streams: [input, output, errors], report, group: next() })
    }

    fn sender(&self) -> Option<Sender> {
        self.report.try_clone().ok().map(Sender::over)
    }
}

/// The agent's plan with another program, and with fewer capabilities if that is asked.
fn plan_of(agent: &SandboxPlan, request: &[u8]) -> Result<SandboxPlan, LaunchError> {
    let request = CallRequest::parse(request).layer(Layer::Plan, "the call")?;
    let mut plan = match &request.capabilities {
        Some(capabilities) => narrowed(agent, capabilities)?,
        None => agent.clone(),
    };
    plan.program.argv = request.argv;
    plan.program.env.extend(request.env);
    if let Some(cwd) = request.cwd {
        plan.program.cwd = cwd;
    }
    Ok(plan)
}

fn narrowed(agent: &SandboxPlan, capabilities: &CapabilitySet) -> Result<SandboxPlan, LaunchError> {
    let mut plan = agent.narrowed(capabilities).layer(Layer::Plan, "the call's capabilities")?;
    let rules = std::mem::take(&mut plan.landlock);
    plan.landlock = apart::from_grants(rules, &agent.granted_places(), PathRule::is_common)?;
    Ok(plan)
}

/// A process file system that can be written and is mounted nowhere. Called while the init still may mount.
pub(crate) fn processes() -> Result<OwnedFd, LaunchError> {
    let made = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_set_string(context.as_fd(), "subset", "pid")?;
        fsconfig_create(context.as_fd())?;
        let inert = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, inert)
    });
    made.layer(Layer::Namespace, "cannot mount a process file system")
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::fd::AsFd;

    #[test]
    fn a_call_has_streams_a_report_and_perhaps_a_group() {
        let some = |count: usize| -> Vec<OwnedFd> {
            (0..count).map(|_| std::io::stderr().as_fd().try_clone_to_owned().unwrap()).collect()
        };
        assert!(Parts::of(some(3)).is_none());
        assert!(Parts::of(some(4)).unwrap().group.is_none());
        assert!(Parts::of(some(5)).unwrap().group.is_some());
    }
}
