//! Attempts 23 to 25, 33 and 35: other processes and the agent's own.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getpid, getrlimit, kill_process,
    pidfd_open, setrlimit, test_kill_process, waitid,
};

use super::{Params, Refusal, Step, all_refused, ensure, other, part};
use crate::raw::{self, Side, address, call, call3};

/// Runs something in a child and waits; the raw status.
fn in_child(body: impl FnOnce() -> i32) -> Result<i32, Refusal> {
    match raw::fork()? {
        Side::Child => raw::exit(body()),
        Side::Parent(pid) => Ok(raw::wait(pid)?),
    }
}

/// A child that sleeps until it is signalled, and its end.
struct Sleeper(Pid);

impl Sleeper {
    fn start() -> Result<Self, Refusal> {
        match raw::fork()? {
            Side::Child => {
                std::thread::sleep(Duration::from_secs(30));
                raw::exit(0)
            }
            Side::Parent(pid) => Ok(Self(pid_of(pid)?)),
        }
    }

    fn end(self) -> Step {
        kill_process(self.0, Signal::KILL)?;
        raw::wait(self.0.as_raw_nonzero().get())?;
        Ok(())
    }
}

fn pid_of(number: i32) -> Result<Pid, Refusal> {
    Pid::from_raw(number).ok_or_else(|| Refusal::Other("no process id".to_owned()))
}

fn number(pid: Pid) -> usize {
    usize::try_from(pid.as_raw_nonzero().get()).unwrap_or_default()
}

pub(crate) fn fork_child(_: &Params) -> Step {
    ensure(in_child(|| 0)? == 0, "the child failed")
}

pub(crate) fn trace(_: &Params) -> Step {
    let child = Sleeper::start()?;
    let pid = number(child.0);
    let mut byte = 0_u8;
    let vector = [std::ptr::from_mut(&mut byte).addr(), 1];
    let pidfd = pidfd_open(child.0, PidfdFlags::empty())?;
    let pidfd = usize::try_from(std::os::fd::AsRawFd::as_raw_fd(&pidfd)).unwrap_or_default();
    let transfer = [pid, address(&vector), 1, address(&vector), 1, 0];
    let result = all_refused([
        part("attach to a child", call3(libc::SYS_ptrace, 16, pid, 0)),
        part("seize the init", call3(libc::SYS_ptrace, 0x4206, 1, 0)),
        part("be traced", call3(libc::SYS_ptrace, 0, 0, 0)),
        part("process_vm_readv", call(libc::SYS_process_vm_readv, transfer)),
        part("process_vm_writev", call(libc::SYS_process_vm_writev, transfer)),
        part("pidfd_getfd", call3(libc::SYS_pidfd_getfd, pidfd, 0, 0)),
        part("process_madvise", call(libc::SYS_process_madvise, [pidfd, 0, 0, 21, 0, 0])),
        part("kcmp", call(libc::SYS_kcmp, [pid, pid, 0, 0, 0, 0])),
        part("limits of the init", call(libc::SYS_prlimit64, [1, 0, 0, address(&[0_u64; 2]), 0, 0])),
    ]);
    child.end()?;
    result
}

pub(crate) fn pidfd(_: &Params) -> Step {
    match raw::fork()? {
        Side::Child => raw::exit(7),
        Side::Parent(pid) => {
            let pidfd = pidfd_open(pid_of(pid)?, PidfdFlags::empty())?;
            let status = waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)), WaitIdOptions::EXITED)?;
            ensure(status.and_then(|status| status.exit_status()) == Some(7), "another status")
        }
    }
}

pub(crate) fn look_outside(params: &Params) -> Step {
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let own = getpid().as_raw_nonzero().get();
        // Inside: the probe, and this child of it.
        if name.parse::<i32>().is_ok_and(|pid| pid != own && pid != own - 1 && !is_own_family(pid)) {
            return other(format!("/proc/{name} is visible"));
        }
    }
    let neighbour = format!("/proc/{}/cmdline", params.neighbour_pid);
    all_refused(
        [neighbour.as_str(), "/proc/1/cmdline", "/proc/1/status", "/proc/sys", "/proc/net/tcp/x"]
            .map(|path| part(path, fs::metadata(path).map(drop))),
    )
}

/// Whether a visible process was started by the probe.
fn is_own_family(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("escape-probe"))
}

pub(crate) fn look_at_child(_: &Params) -> Step {
    let child = Sleeper::start()?;
    let status = fs::read_to_string(format!("/proc/{}/status", child.0));
    child.end()?;
    ensure(status?.contains("PPid"), "no status")
}

pub(crate) fn signal_outside(params: &Params) -> Step {
    let neighbour = pid_of(params.neighbour_pid)?;
    all_refused([
        part("a process of the same user", test_kill_process(neighbour)),
        part("the init: nothing", test_kill_process(Pid::INIT)),
        part("the init: TERM", kill_process(Pid::INIT, Signal::TERM)),
        part("the init: KILL", kill_process(Pid::INIT, Signal::KILL)),
    ])
}

pub(crate) fn signal_child(_: &Params) -> Step {
    Sleeper::start()?.end()
}

pub(crate) fn fork_bomb(_: &Params) -> Step {
    fork_up_to(1000)
}

/// Forks until it cannot, at most to so many processes, and cleans up.
pub(crate) fn fork_up_to(most: usize) -> Step {
    let mut children = Vec::new();
    let started = Instant::now();
    let result = loop {
        match Sleeper::start() {
            Ok(child) => children.push(child),
            Err(error) => break Err(error),
        }
        if children.len() >= most || started.elapsed() > Duration::from_secs(20) {
            break Ok(());
        }
    };
    children.into_iter().try_for_each(Sleeper::end)?;
    result
}

pub(crate) fn fork_few(_: &Params) -> Step {
    let children: Result<Vec<_>, _> = (0..8).map(|_| Sleeper::start()).collect();
    children?.into_iter().try_for_each(Sleeper::end)
}

/// Raising the limit seems to work and does not; nothing dumps.
pub(crate) fn core(_: &Params) -> Step {
    let all = Rlimit { current: None, maximum: None };
    setrlimit(Resource::Core, all)?;
    let limit = getrlimit(Resource::Core);
    if limit.maximum != Some(1) || limit.current != Some(1) {
        return other(format!("the limit is {limit:?}"));
    }
    let status = in_child(|| raw::abort())?;
    if libc::WCOREDUMP(status) || !libc::WIFSIGNALED(status) {
        return other(format!("the child ended with {status}"));
    }
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(0) + 1;
    let more = Rlimit { current: Some(files), maximum: Some(files) };
    all_refused([part("raise another limit", setrlimit(Resource::Nofile, more))])
}

pub(crate) fn no_core(_: &Params) -> Step {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}
