//! A running step: its output as it comes, its deadline, and its end with everything that it
//! started.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::RunRequest;
use super::error::{Doing, RunError};
use super::output::{Lines, Output, Read, Stream, judge};

/// How often the switch and the proxy's notes are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Time for the kernel to end and reap all processes of a step, after which the launcher itself is
/// killed: thousands of processes take less than a second.
const ENDING_TIME: Duration = Duration::from_secs(10);
/// Time for the pipes to end after the launcher has: nobody is left who writes.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// The launcher takes it as the word to end everything inside, and ends itself when nothing is left.
const END: Signal = Signal::ALARM;
/// What the launcher's own lines start with.
const LAUNCHER_PREFIX: &str = "aos-launch: ";

/// Why a step is not watched any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It has ended by itself.
    Ended,
    /// Its time is over.
    Timeout,
    /// The switch was set.
    Cancelled,
}

/// The launcher's process. Dropped, it is ended.
pub(super) struct Step {
    child: Child,
    process: OwnedFd,
    pipes: [Pipe; 2],
    notes: Receiver<String>,
    status: Option<ExitStatus>,
    why: String,
}

struct Pipe {
    /// `None` after its end.
    file: Option<OwnedFd>,
    lines: Lines,
}

impl Step {
    /// Takes a launcher over, with its output piped.
    pub(super) fn new(mut child: Child, notes: Receiver<String>) -> Result<Self, RunError> {
        let what = || "watch the launcher".to_owned();
        let out = child.stdout.take().map(OwnedFd::from);
        let err = child.stderr.take().map(OwnedFd::from);
        let pipes = [(out, Stream::Out), (err, Stream::Err)]
            .map(|(file, stream)| Pipe { file, lines: Lines::new(stream) });
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let process = pid.ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                child.kill().and_then(|()| child.wait()).doing(what)?;
                return Err(error).doing(what);
            }
        };
        let step = Self { child, process, pipes, notes, status: None, why: String::new() };
        for file in step.pipes.iter().filter_map(|pipe| pipe.file.as_ref()) {
            let flags = fcntl_getfl(file).doing(what)?;
            fcntl_setfl(file, flags | OFlags::NONBLOCK).doing(what)?;
        }
        Ok(step)
    }

    /// Hands the output on until the launcher ends, the time is over or the switch is set.
    pub(super) fn watch(
        &mut self,
        request: &RunRequest,
        on_output: &mut dyn FnMut(Output<'_>),
    ) -> Result<Cause, RunError> {
        let started = Instant::now();
        loop {
            let left = request.timeout.saturating_sub(started.elapsed());
            if self.turn(left.min(TICK), on_output)? {
                return Ok(Cause::Ended);
            }
            if request.cancel.is_cancelled() {
                return Ok(Cause::Cancelled);
            }
            if started.elapsed() >= request.timeout {
                return Ok(Cause::Timeout);
            }
        }
    }

    /// Ends everything inside, unless it has ended, and hands on what is left of the output.
    pub(super) fn end(&mut self, on_output: &mut dyn FnMut(Output<'_>)) -> Result<ExitStatus, RunError> {
        let status = match self.status {
            Some(status) => status,
            None => self.force_end(on_output)?,
        };
        let deadline = Instant::now() + DRAIN_TIME;
        while self.pipes.iter().any(|pipe| pipe.file.is_some()) && Instant::now() < deadline {
            self.turn(TICK, on_output)?;
        }
        for pipe in &mut self.pipes {
            pipe.lines.finish(on_output);
        }
        self.hear(on_output);
        Ok(status)
    }

    /// The launcher's last line of its own, without its prefix.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    fn force_end(&mut self, on_output: &mut dyn FnMut(Output<'_>)) -> Result<ExitStatus, RunError> {
        let what = || "end the step".to_owned();
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

    fn has_ended(&mut self) -> Result<bool, RunError> {
        if self.status.is_none() {
            self.status = self.child.try_wait().doing(|| "wait for the launcher".to_owned())?;
        }
        Ok(self.status.is_some())
    }

    /// Waits for something to happen, takes it, and says whether the launcher has ended.
    fn turn(&mut self, time: Duration, on_output: &mut dyn FnMut(Output<'_>)) -> Result<bool, RunError> {
        let what = || "watch the step".to_owned();
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.min(TICK).subsec_nanos()) };
        {
            let mut waited: Vec<PollFd<'_>> = self
                .pipes
                .iter()
                .filter_map(|pipe| pipe.file.as_ref())
                .map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN))
                .collect();
            if self.status.is_none() {
                waited.push(PollFd::new(&self.process, PollFlags::IN));
            }
            match poll(&mut waited, Some(&time)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).doing(what),
            }
        }
        let Self { pipes, why, .. } = self;
        let mut take = |output: Output<'_>| {
            if let Some(rest) =
                output.line.strip_prefix(LAUNCHER_PREFIX).filter(|_| output.stream == Stream::Err)
            {
                rest.clone_into(why);
            }
            on_output(output);
        };
        for pipe in pipes {
            pipe.read(&mut take).doing(what)?;
        }
        self.hear(on_output);
        self.has_ended()
    }

    /// Hands on what the proxy has to say.
    fn hear(&self, on_output: &mut dyn FnMut(Output<'_>)) {
        for note in self.notes.try_iter() {
            on_output(Output { stream: Stream::Note, line: &note });
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.status.is_none() && self.force_end(&mut |_| {}).is_err() {
            // The kernel refuses to end a child of this process: there is nothing else to try.
        }
    }
}

impl Pipe {
    /// Takes what is there: one buffer at a time, so that no stream holds the other up.
    fn read(&mut self, on_output: &mut dyn FnMut(Output<'_>)) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut buffer = vec![0; 64 * 1024];
        match judge(rustix::io::read(file, &mut buffer))? {
            Read::Some(count) => {
                self.lines.push(buffer.get(..count).unwrap_or_default(), on_output);
            }
            Read::Nothing => {}
            Read::End => self.file = None,
        }
        Ok(())
    }
}
