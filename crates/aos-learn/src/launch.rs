//! One run of the agent in the launcher's sandbox, recorded: descriptors for the launcher, its output
//! as it comes, its deadline, and its end with everything that it started.

#![expect(clippy::disallowed_methods, reason = "this module starts aos-launch, and nothing else")]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use aos_core::report::REPORT_MAX_BYTES;
use aos_sandbox::plan::SandboxPlan;
use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_getfl, fcntl_setfl, memfd_create};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sha2::{Digest, Sha256};

use crate::error::{Doing, LearnError};
use crate::host::Host;
use crate::need::Record;
use crate::output::Lines;
use crate::recorder::Recorder;
use crate::view::View;
use crate::{Cancel, Output, Stream};

/// How often the switch and the clock are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Time for the kernel to end and reap all processes of a run, after which the launcher is killed.
const ENDING_TIME: Duration = Duration::from_secs(10);
/// Time for pipes and recorder to end after the launcher has: nobody is left inside.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// The launcher takes it as the word to end everything inside, and ends when nothing is left.
const END: Signal = Signal::ALARM;
/// What the launcher's own lines start with.
const LAUNCHER_PREFIX: &str = "aos-launch: ";

/// The launcher's options for descriptors, each with the number that it has there.
const PLAN: (&str, i32) = ("--plan-fd", 3);
const REPORT: (&str, i32) = ("--report-fd", 4);
const RECORD: (&str, i32) = ("--record-socket", 5);

/// Who the agent is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// How runs are made.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program `aos-launch`.
    pub launcher: PathBuf,
    /// The user that root starts the agent as; `None` is the caller, who is not root.
    pub account: Option<Account>,
    /// When a run is ended.
    pub timeout: Duration,
    /// Ends a run when set.
    pub cancel: Cancel,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this status; 128 and a signal's number when a signal ended it, as in a shell.
    Status(i32),
    /// Its time was over.
    Timeout,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub ending: Ending,
    /// The digest of its standard output.
    pub output: [u8; 32],
    /// What it needed and did not have.
    pub record: Record,
}

/// Why the agent did not run.
pub(crate) enum NotRun {
    /// The launcher refuses, and says why.
    Refused(String),
    /// Something else.
    Error(LearnError),
}

impl<E: Into<LearnError>> From<E> for NotRun {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Runs an agent to its end.
pub(crate) fn run(
    launch: &Launch,
    plan: &SandboxPlan,
    on_output: &mut dyn FnMut(Output<'_>),
) -> Result<Ran, NotRun> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .doing("make a socket for the recorder")?;
    let mut report = memory("aos-report", &[])?;
    let bytes = plan.to_json().map_err(LearnError::from)?;
    let child = spawn(launch, &bytes, &report, theirs)?;
    let mut run = Run::new(child)?;
    let recorder = Recorder::start(ours, View::new(plan, Host::new())).doing("start the recorder")?;
    let is_late = run.watch(launch, on_output)?;
    let status = run.end(on_output)?;
    if launch.cancel.is_cancelled() {
        return Err(LearnError::Interrupted.into());
    }
    let record = recorder.finish(DRAIN_TIME).doing("record what the agent asks for")?;
    if !has_content(&mut report)? {
        return Err(NotRun::Refused(std::mem::take(&mut run.why)));
    }
    // The launcher's own execve is the one call that an unprivileged recorder may not read.
    if record.calls > 1 && record.unreadable == record.calls {
        return Err(LearnError::Blind.into());
    }
    // A shell's convention, as the launcher's own.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    let ending = if is_late { Ending::Timeout } else { Ending::Status(code) };
    Ok(Ran { ending, output: run.digest.finalize_reset().into(), record })
}

/// Starts the launcher. The descriptors are this process's own until the child has them.
fn spawn(launch: &Launch, plan: &[u8], report: &File, socket: OwnedFd) -> Result<Child, LearnError> {
    let plan = memory("aos-plan", plan)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&plan, seals).doing("seal the plan")?;
    let report = report.try_clone().doing("share the report")?;
    let mut command = Command::new(&launch.launcher);
    command.env_clear().current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(account) = launch.account {
        command.args(["--uid", &account.uid.to_string(), "--gid", &account.gid.to_string()]);
    }
    let mut mappings = Vec::new();
    for ((option, number), descriptor) in [(PLAN, plan.into()), (REPORT, report.into()), (RECORD, socket)] {
        command.args([option, &number.to_string()]);
        mappings.push(FdMapping { parent_fd: descriptor, child_fd: number });
    }
    let failed = |source| LearnError::Launcher { launcher: launch.launcher.clone(), source };
    command.fd_mappings(mappings).map_err(|error| failed(std::io::Error::other(error)))?;
    command.spawn().map_err(failed)
}

/// A file in memory.
fn memory(name: &str, content: &[u8]) -> Result<File, LearnError> {
    let what = "make a file in memory";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    let mut file = File::from(memfd_create(name, flags).doing(what)?);
    file.write_all(content).doing(what)?;
    Ok(file)
}

/// Whether the launcher wrote its report: it does when every layer is in force and the program runs.
fn has_content(report: &mut File) -> Result<bool, LearnError> {
    let what = "read the launcher's report";
    report.rewind().doing(what)?;
    let mut bytes = Vec::new();
    let max = u64::try_from(REPORT_MAX_BYTES).unwrap_or(u64::MAX);
    report.take(max).read_to_end(&mut bytes).doing(what)?;
    Ok(!bytes.is_empty())
}

/// The launcher's process. Dropped, it is ended.
struct Run {
    child: Child,
    process: OwnedFd,
    pipes: [Pipe; 2],
    digest: Sha256,
    status: Option<ExitStatus>,
    why: String,
}

struct Pipe {
    /// `None` after its end.
    file: Option<OwnedFd>,
    stream: Stream,
    lines: Lines,
}

impl Run {
    fn new(mut child: Child) -> Result<Self, LearnError> {
        let what = "watch the launcher";
        let pipes = [
            (child.stdout.take().map(OwnedFd::from), Stream::Out),
            (child.stderr.take().map(OwnedFd::from), Stream::Err),
        ]
        .map(|(file, stream)| Pipe { file, stream, lines: Lines::default() });
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let process = pid.ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                child.kill().and_then(|()| child.wait()).doing(what)?;
                return Err(error).doing(what);
            }
        };
        let run = Self { child, process, pipes, digest: Sha256::new(), status: None, why: String::new() };
        for file in run.pipes.iter().filter_map(|pipe| pipe.file.as_ref()) {
            let flags = fcntl_getfl(file).doing(what)?;
            fcntl_setfl(file, flags | OFlags::NONBLOCK).doing(what)?;
        }
        Ok(run)
    }

    /// Hands the output on until the launcher ends, the time is over or the switch is set; says
    /// whether it was the time.
    fn watch(&mut self, launch: &Launch, on_output: &mut dyn FnMut(Output<'_>)) -> Result<bool, LearnError> {
        let started = Instant::now();
        loop {
            let left = launch.timeout.saturating_sub(started.elapsed());
            if self.turn(left.min(TICK), on_output)? || launch.cancel.is_cancelled() {
                return Ok(false);
            }
            if left.is_zero() {
                return Ok(true);
            }
        }
    }

    /// Ends everything inside, unless it has ended, and hands on what is left of the output.
    fn end(&mut self, on_output: &mut dyn FnMut(Output<'_>)) -> Result<ExitStatus, LearnError> {
        let status = match self.status {
            Some(status) => status,
            None => self.force_end(on_output)?,
        };
        let deadline = Instant::now() + DRAIN_TIME;
        while self.pipes.iter().any(|pipe| pipe.file.is_some()) && Instant::now() < deadline {
            self.turn(TICK, on_output)?;
        }
        for pipe in &mut self.pipes {
            pipe.lines.finish(&mut |line| on_output(Output { stream: pipe.stream, line }));
        }
        Ok(status)
    }

    fn force_end(&mut self, on_output: &mut dyn FnMut(Output<'_>)) -> Result<ExitStatus, LearnError> {
        let what = "end the agent";
        if !self.has_ended()? {
            match pidfd_send_signal(&self.process, END) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error).doing(what),
            }
        }
        let deadline = Instant::now() + ENDING_TIME;
        while Instant::now() < deadline {
            if self.turn(TICK, on_output)? {
                break;
            }
        }
        match self.status {
            Some(status) => Ok(status),
            None => {
                self.child.kill().doing(what)?;
                let status = self.child.wait().doing(what)?;
                self.status = Some(status);
                Ok(status)
            }
        }
    }

    fn has_ended(&mut self) -> Result<bool, LearnError> {
        if self.status.is_none() {
            self.status = self.child.try_wait().doing("wait for the launcher")?;
        }
        Ok(self.status.is_some())
    }

    /// Waits for something to happen, takes it, and says whether the launcher has ended.
    fn turn(&mut self, time: Duration, on_output: &mut dyn FnMut(Output<'_>)) -> Result<bool, LearnError> {
        let what = "watch the agent";
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.min(TICK).subsec_nanos()) };
        {
            let files = self.pipes.iter().filter_map(|pipe| pipe.file.as_ref());
            let mut waited: Vec<PollFd<'_>> =
                files.map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)).collect();
            if self.status.is_none() {
                waited.push(PollFd::new(&self.process, PollFlags::IN));
            }
            match poll(&mut waited, Some(&time)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).doing(what),
            }
        }
        let Self { pipes, why, digest, .. } = self;
        for pipe in pipes {
            let stream = pipe.stream;
            let bytes = pipe.read().doing(what)?;
            if stream == Stream::Out {
                digest.update(&bytes);
            }
            pipe.lines.push(&bytes, &mut |line| {
                if let Some(rest) = line.strip_prefix(LAUNCHER_PREFIX).filter(|_| stream == Stream::Err) {
                    rest.clone_into(why);
                }
                on_output(Output { stream, line });
            });
        }
        self.has_ended()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.status.is_none() && self.force_end(&mut |_| {}).is_err() {
            // The kernel refuses to end a child of this process: there is nothing else to try.
        }
    }
}

impl Pipe {
    /// Takes what is there: one buffer at a time, so that no stream holds the other up.
    fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 * 1024];
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        match rustix::io::read(file, &mut buffer) {
            Ok(0) => self.file = None,
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Vec::new())
    }
}
