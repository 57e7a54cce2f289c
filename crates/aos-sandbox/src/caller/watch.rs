//! A running launcher: its output as it comes, its deadline, and its end with everything inside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

/// How often a watcher is asked whether to go on.
const TICK: Duration = Duration::from_millis(100);
/// Time for the kernel to end and reap all processes inside, after which the launcher itself is killed:
/// thousands of processes take less than a second.
const ENDING_TIME: Duration = Duration::from_secs(10);
/// Time for the pipes to end after the launcher has: nobody is left who writes.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// The launcher takes it as the word to end everything inside, and ends itself when nothing is left.
const END: Signal = Signal::ALARM;
/// What the launcher's own lines start with.
const PREFIX: &str = "aos-launch: ";
/// Bytes that are read of a stream at once, so that none holds the other up.
const READ_BYTES: usize = 64 * 1024;

/// A call that failed while the launcher was watched.
#[derive(Debug, Error)]
#[error("cannot {what}")]
pub struct WatchError {
    /// What was done.
    pub what: &'static str,
    /// Why not.
    pub source: io::Error,
}

/// Where output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Why a launcher is not watched any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It has ended by itself.
    Ended,
    /// Its time is over.
    Timeout,
    /// The watcher has it ended.
    Cancelled,
}

/// Who watches.
pub trait Watcher {
    /// Takes what was written. It may be a part of a line, and of a letter.
    fn take(&mut self, stream: Stream, bytes: &[u8]);

    /// Called after each look at the launcher, at least ten times in a second.
    fn tick(&mut self) {}

    /// Whether the launcher is to end now.
    fn is_cancelled(&self) -> bool;
}

/// The launcher's process. Dropped, it is ended.
pub struct Watched {
    child: Child,
    process: OwnedFd,
    /// `None` after its end.
    pipes: [(Stream, Option<OwnedFd>); 2],
    status: Option<ExitStatus>,
}

impl Watched {
    /// Takes a launcher over, with its output piped.
    pub fn new(mut child: Child) -> Result<Self, WatchError> {
        let what = "watch the launcher";
        let pipes = [
            (Stream::Out, child.stdout.take().map(OwnedFd::from)),
            (Stream::Err, child.stderr.take().map(OwnedFd::from)),
        ];
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let process = pid.ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                child.kill().and_then(|()| child.wait()).doing(what)?;
                return Err(error).doing(what);
            }
        };
        let watched = Self { child, process, pipes, status: None };
        for (_, file) in &watched.pipes {
            if let Some(file) = file {
                let flags = fcntl_getfl(file).doing(what)?;
                fcntl_setfl(file, flags | OFlags::NONBLOCK).doing(what)?;
            }
        }
        Ok(watched)
    }

    /// Hands the output on until the launcher ends, the time is over or the watcher ends it.
    pub fn watch(&mut self, timeout: Duration, watcher: &mut dyn Watcher) -> Result<Cause, WatchError> {
        let started = Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            if self.turn(left.min(TICK), watcher)? {
                return Ok(Cause::Ended);
            }
            if watcher.is_cancelled() {
                return Ok(Cause::Cancelled);
            }
            if started.elapsed() >= timeout {
                return Ok(Cause::Timeout);
            }
        }
    }

    /// Ends everything inside, unless it has ended, and hands on what is left of the output.
    pub fn end(&mut self, watcher: &mut dyn Watcher) -> Result<ExitStatus, WatchError> {
        let status = match self.status {
            Some(status) => status,
            None => self.force_end(watcher)?,
        };
        let deadline = Instant::now() + DRAIN_TIME;
        while self.pipes.iter().any(|(_, file)| file.is_some()) && Instant::now() < deadline {
            self.turn(TICK, watcher)?;
        }
        Ok(status)
    }

    fn force_end(&mut self, watcher: &mut dyn Watcher) -> Result<ExitStatus, WatchError> {
        let what = "end the launcher";
        if !self.has_ended()? {
            match pidfd_send_signal(&self.process, END) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error).doing(what),
            }
        }
        let deadline = Instant::now() + ENDING_TIME;
        while Instant::now() < deadline {
            if self.turn(TICK, watcher)? {
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

    fn has_ended(&mut self) -> Result<bool, WatchError> {
        if self.status.is_none() {
            self.status = self.child.try_wait().doing("wait for the launcher")?;
        }
        Ok(self.status.is_some())
    }

    /// Waits for something to happen, takes it, and says whether the launcher has ended.
    fn turn(&mut self, time: Duration, watcher: &mut dyn Watcher) -> Result<bool, WatchError> {
        let what = "watch the launcher";
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.min(TICK).subsec_nanos()) };
        {
            let files = self.pipes.iter().filter_map(|(_, file)| file.as_ref());
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
        let mut buffer = vec![0; READ_BYTES];
        for (stream, pipe) in &mut self.pipes {
            let Some(file) = pipe else { continue };
            match rustix::io::read(file, &mut buffer) {
                Ok(0) => *pipe = None,
                Ok(count) => watcher.take(*stream, buffer.get(..count).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error).doing(what),
            }
        }
        watcher.tick();
        self.has_ended()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.status.is_none() && self.force_end(&mut Nobody).is_err() {
            // The kernel refuses to end a child of this process: there is nothing else to try.
        }
    }
}

/// Who does not care.
struct Nobody;

impl Watcher for Nobody {
    fn take(&mut self, _stream: Stream, _bytes: &[u8]) {}

    fn is_cancelled(&self) -> bool {
        true
    }
}

/// What the launcher itself says in a line of standard error. An agent can write such a line too: it counts
/// only when there is no report.
#[must_use]
pub fn own_line(line: &str) -> Option<&str> {
    line.strip_prefix(PREFIX)
}

/// Names what failed.
trait Doing<T> {
    /// The error with what was done.
    fn doing(self, what: &'static str) -> Result<T, WatchError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: &'static str) -> Result<T, WatchError> {
        self.map_err(|source| WatchError { what, source: source.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::exit_status;
    use std::process::{Command, Stdio};

    #[derive(Default)]
    struct Noted {
        out: Vec<u8>,
        err: Vec<u8>,
        ticks: usize,
        is_cancelled: bool,
    }

    impl Watcher for Noted {
        fn take(&mut self, stream: Stream, bytes: &[u8]) {
            match stream {
                Stream::Out => self.out.extend_from_slice(bytes),
                Stream::Err => self.err.extend_from_slice(bytes),
            }
        }

        fn tick(&mut self) {
            self.ticks += 1;
        }

        fn is_cancelled(&self) -> bool {
            self.is_cancelled
        }
    }

    #[allow(clippy::disallowed_methods, reason = "a shell stands for the launcher")]
    fn shell(script: &str) -> Watched {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Watched::new(command.spawn().unwrap()).unwrap()
    }

    #[test]
    fn output_and_status_come_out() {
        let (mut watched, mut noted) = (shell("echo out; echo err >&2; exit 7"), Noted::default());
        let cause = watched.watch(Duration::from_secs(30), &mut noted).unwrap();
        let status = watched.end(&mut noted).unwrap();
        assert_eq!((cause, exit_status(status)), (Cause::Ended, 7));
        assert_eq!((noted.out.as_slice(), noted.err.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert!(noted.ticks > 0);
    }

    #[test]
    fn one_that_takes_too_long_or_is_cancelled_is_ended_by_the_word() {
        for (timeout, is_cancelled, expected) in
            [(Duration::ZERO, false, Cause::Timeout), (Duration::from_secs(30), true, Cause::Cancelled)]
        {
            let mut noted = Noted { is_cancelled, ..Noted::default() };
            let mut watched = shell("exec sleep 60");
            assert_eq!(watched.watch(timeout, &mut noted).unwrap(), expected);
            // SIGALRM, which the launcher takes as the word to end everything.
            assert_eq!(exit_status(watched.end(&mut noted).unwrap()), 128 + 14);
        }
    }

    #[test]
    fn lines_of_the_launcher_are_told_apart() {
        assert_eq!(own_line("aos-launch: landlock: no"), Some("landlock: no"));
        assert_eq!(own_line("x aos-launch: landlock: no"), None);
    }
}
