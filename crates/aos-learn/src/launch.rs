//! One run of the agent in the launcher's sandbox, recorded: descriptors for the launcher, its output
//! as it comes, its deadline, and its end with everything that it started.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use aos_sandbox::caller::{
    self, Cause, Given, Watched, Watcher, exit_status, has_report, in_memory, own_line, sealed_in_memory,
    spawn,
};
use aos_sandbox::launch::options::User;
use aos_sandbox::plan::SandboxPlan;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sha2::{Digest, Sha256};

use crate::error::{Doing, LearnError};
use crate::host::Host;
use crate::need::Record;
use crate::output::Lines;
use crate::recorder::Recorder;
use crate::view::View;
use crate::{Cancel, Output, Stream};

/// Time for the recorder to end after the launcher has: nobody is left inside.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// How runs are made.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program `aos-launch`.
    pub launcher: PathBuf,
    /// The user that root starts the agent as; `None` is the caller, who is not root.
    pub account: Option<User>,
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
    let in_memory_failed = "make a file in memory";
    let mut report = in_memory("aos-report", &[]).doing(in_memory_failed)?;
    let plan_file = sealed_in_memory("aos-plan", &plan.to_json().map_err(LearnError::from)?);
    let given = vec![
        (Given::Plan, OwnedFd::from(plan_file.doing(in_memory_failed)?)),
        (Given::Report, report.try_clone().doing("share the report")?.into()),
        (Given::Record, theirs),
    ];
    let child = spawn(&launch.launcher, launch.account, given)
        .map_err(|source| LearnError::Launcher { launcher: launch.launcher.clone(), source })?;
    let mut process = Watched::new(child).map_err(LearnError::from)?;
    let recorder = Recorder::start(ours, View::new(plan, Host::new())).doing("start the recorder")?;
    let mut hearing = Hearing::new(&launch.cancel, on_output);
    let cause = process.watch(launch.timeout, &mut hearing).map_err(LearnError::from)?;
    let status = process.end(&mut hearing).map_err(LearnError::from)?;
    let (output, why) = hearing.finish();
    if launch.cancel.is_cancelled() {
        return Err(LearnError::Interrupted.into());
    }
    let record = recorder.finish(DRAIN_TIME).doing("record what the agent asks for")?;
    if !has_report(&mut report).doing("read the launcher's report")? {
        return Err(NotRun::Refused(why));
    }
    // The launcher's own execve is the one call that an unprivileged recorder may not read.
    if record.calls > 1 && record.unreadable == record.calls {
        return Err(LearnError::Blind.into());
    }
    let ending = if cause == Cause::Timeout { Ending::Timeout } else { Ending::Status(exit_status(status)) };
    Ok(Ran { ending, output, record })
}

/// Hands on what the agent writes, and keeps the digest of its output.
struct Hearing<'a> {
    out: Lines,
    err: Lines,
    digest: Sha256,
    why: String,
    cancel: &'a Cancel,
    on_output: &'a mut dyn FnMut(Output<'_>),
}

impl<'a> Hearing<'a> {
    fn new(cancel: &'a Cancel, on_output: &'a mut dyn FnMut(Output<'_>)) -> Self {
        let (out, err) = (Lines::default(), Lines::default());
        Self { out, err, digest: Sha256::new(), why: String::new(), cancel, on_output }
    }

    /// Hands on what is left; the digest of standard output, and the launcher's last line of its own.
    fn finish(mut self) -> ([u8; 32], String) {
        self.out.finish(&mut |line| (self.on_output)(Output { stream: Stream::Out, line }));
        self.err.finish(&mut |line| (self.on_output)(Output { stream: Stream::Err, line }));
        (self.digest.finalize().into(), self.why)
    }
}

impl Watcher for Hearing<'_> {
    fn take(&mut self, stream: caller::Stream, bytes: &[u8]) {
        match stream {
            caller::Stream::Out => {
                self.digest.update(bytes);
                self.out.push(bytes, &mut |line| (self.on_output)(Output { stream: Stream::Out, line }));
            }
            caller::Stream::Err => self.err.push(bytes, &mut |line| {
                if let Some(own) = own_line(line) {
                    own.clone_into(&mut self.why);
                }
                (self.on_output)(Output { stream: Stream::Err, line });
            }),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
