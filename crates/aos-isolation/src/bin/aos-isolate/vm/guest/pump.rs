//! The guest's side of the channel: the launcher's streams, its readiness and its status.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use aos_core::report::REPORT_MAX_BYTES;
use aos_isolation::vm::wire::{Decoder, FromGuest, Message, PIECE_MAX, Stream, ToGuest};
use aos_sandbox::launch::contents;
use aos_sys::pending::Pending;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, kill_process, wait};

use super::Started;
use crate::error::{Context, LaunchError, Layer, fail};
use crate::runtime::{PASSED_ON, exit_status};

/// Bytes on their way out beyond which no more is read from the launcher.
const OUT_MAX: usize = 2 * PIECE_MAX;
/// How long streams may stay open when the launcher has ended. Nothing that holds them should be left.
const LAST: Duration = Duration::from_secs(2);
/// Between two looks at a port whose driver does not listen yet.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Pump {
    pending: Pending,
    decoder: Decoder<ToGuest>,
    started: Started,
    launcher: Pid,
    stdin: Option<File>,
    input: Vec<u8>,
    is_input_over: bool,
    outputs: [Option<File>; 2],
    out: Vec<u8>,
    status: Option<(u8, Instant)>,
    is_ready: bool,
}

impl Pump {
    pub(super) fn new(mut started: Started) -> Result<Self, LaunchError> {
        let what = "the launcher's streams";
        let (stdin, stdout, stderr) =
            (started.launcher.stdin.take(), started.launcher.stdout.take(), started.launcher.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return fail(Layer::Process, what);
        };
        let stdin = OwnedFd::from(stdin);
        let flags = fcntl_getfl(&stdin).layer(Layer::Process, what)?;
        fcntl_setfl(&stdin, flags | OFlags::NONBLOCK).layer(Layer::Process, what)?;
        let launcher = i32::try_from(started.launcher.id()).ok().and_then(Pid::from_raw);
        let Some(launcher) = launcher else { return fail(Layer::Process, what) };
        Ok(Self {
            pending: Pending::open().layer(Layer::Process, "cannot wait for signals")?,
            decoder: Decoder::default(),
            started,
            launcher,
            stdin: Some(stdin.into()),
            input: Vec::new(),
            is_input_over: false,
            outputs: [Some(OwnedFd::from(stdout).into()), Some(OwnedFd::from(stderr).into())],
            out: Vec::new(),
            status: None,
            is_ready: false,
        })
    }

    /// Until the launcher has ended and all is said.
    pub(super) fn run(&mut self, port: &File) -> Result<(), LaunchError> {
        loop {
            self.tell_readiness()?;
            self.reap()?;
            if let Some((status, since)) = self.status
                && (self.outputs.iter().all(Option::is_none) || since.elapsed() > LAST)
            {
                // What the agent wrote to the shares is the host's before its status is.
                rustix::fs::sync();
                self.out.extend(FromGuest::Ended(status).encode());
                return write_all(port, &std::mem::take(&mut self.out));
            }
            self.turn(port)?;
        }
    }

    fn turn(&mut self, port: &File) -> Result<(), LaunchError> {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !self.out.is_empty());
        let has_room = self.out.len() < OUT_MAX;
        let mut ends = vec![
            PollFd::new(port, wanted),
            PollFd::new(&self.pending, PollFlags::IN),
            PollFd::new(&self.started.readiness, PollFlags::IN),
        ];
        let fixed = ends.len();
        let stdin = self.stdin.as_ref().filter(|_| !self.input.is_empty());
        ends.extend(stdin.map(|stdin| PollFd::new(stdin, PollFlags::OUT)));
        let outputs = self.outputs.iter().flatten().filter(|_| has_room);
        ends.extend(outputs.map(|output| PollFd::new(output, PollFlags::IN)));
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut ends, Some(&patience)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).layer(Layer::Process, "cannot wait"),
        }
        let found: Vec<PollFlags> = ends.iter().map(PollFd::revents).collect();
        drop(ends);
        let [channel, signals, ..] = found.as_slice() else { return Ok(()) };
        if channel.contains(PollFlags::HUP) {
            // The driver is not connected: it will be, or it ends the machine.
            std::thread::sleep(PAUSE);
        }
        if channel.contains(PollFlags::OUT) {
            self.send(port)?;
        }
        if channel.contains(PollFlags::IN) {
            self.receive(port)?;
        }
        if !signals.is_empty() {
            while self.pending.take().layer(Layer::Process, "cannot take a signal")?.is_some() {}
        }
        let mut rest = found.iter().skip(fixed);
        if self.stdin.is_some()
            && !self.input.is_empty()
            && rest.next().is_some_and(|found| !found.is_empty())
        {
            self.write_input();
        }
        if has_room {
            let ready: Vec<bool> = rest.map(|found| !found.is_empty()).collect();
            self.read_outputs(&ready)?;
        }
        Ok(())
    }

    /// Reads from the streams that are ready; `ready` is of those that are open.
    fn read_outputs(&mut self, ready: &[bool]) -> Result<(), LaunchError> {
        let mut ready = ready.iter();
        for (slot, stream) in self.outputs.iter_mut().zip([Stream::Output, Stream::Error]) {
            let Some(output) = slot else { continue };
            if ready.next() != Some(&true) {
                continue;
            }
            let mut buffer = [0; PIECE_MAX];
            match output.read(&mut buffer).layer(Layer::Process, "the launcher's output")? {
                0 => *slot = None,
                length => {
                    let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                    self.out.extend(FromGuest::Wrote(stream, bytes).encode());
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, mut port: &File) -> Result<(), LaunchError> {
        match port.write(&self.out) {
            Ok(length) => drop(self.out.drain(..length)),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error).layer(Layer::Process, "cannot speak to the driver"),
        }
        Ok(())
    }

    fn receive(&mut self, mut port: &File) -> Result<(), LaunchError> {
        let mut buffer = [0; PIECE_MAX];
        match port.read(&mut buffer) {
            Ok(length) => self.decoder.feed(buffer.get(..length).unwrap_or_default()),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error).layer(Layer::Process, "cannot hear the driver"),
        }
        while let Some(message) = self.decoder.take().layer(Layer::Process, "the driver's words")? {
            match message {
                ToGuest::Input(bytes) => self.input.extend(bytes),
                ToGuest::InputEnd => self.is_input_over = true,
                ToGuest::Signal(number) => self.pass(number)?,
                ToGuest::Unread(Stream::Output) => self.forget(0),
                ToGuest::Unread(Stream::Error) => self.forget(1),
            }
        }
        self.end_input();
        Ok(())
    }

    /// The agent finds out by SIGPIPE that nobody reads.
    fn forget(&mut self, stream: usize) {
        if let Some(output) = self.outputs.get_mut(stream) {
            *output = None;
        }
    }

    fn write_input(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(&self.input) {
            Ok(length) => self.took(length),
            Err(error) if is_passing(&error) => {}
            // The agent has closed it: what still comes is thrown away, as by a pipe without a reader.
            Err(_) => {
                self.stdin = None;
                self.took(self.input.len());
            }
        }
        self.end_input();
    }

    fn took(&mut self, length: usize) {
        self.input.drain(..length.min(self.input.len()));
        let count = u32::try_from(length).unwrap_or(u32::MAX);
        self.out.extend(FromGuest::Took(count).encode());
    }

    fn end_input(&mut self) {
        if self.stdin.is_none() && !self.input.is_empty() {
            self.took(self.input.len());
        }
        if self.is_input_over && self.input.is_empty() {
            self.stdin = None;
        }
    }

    fn pass(&self, number: u8) -> Result<(), LaunchError> {
        let signal = PASSED_ON.into_iter().find(|signal| signal.as_raw() == i32::from(number));
        let Some(signal) = signal.filter(|_| self.status.is_none()) else { return Ok(()) };
        match kill_process(self.launcher, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).layer(Layer::Process, "cannot pass a signal on"),
        }
    }

    /// The launcher's word that the agent runs: its report goes out, once.
    fn tell_readiness(&mut self) -> Result<(), LaunchError> {
        let mut buffer = [0; 2048];
        loop {
            let length = match self.started.readiness.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if is_passing(&error) => return Ok(()),
                Err(error) => return Err(error).layer(Layer::Notify, "cannot hear of readiness"),
            };
            if self.is_ready || !buffer.get(..length).unwrap_or_default().starts_with(b"READY=1\n") {
                continue;
            }
            let max = u64::try_from(REPORT_MAX_BYTES).unwrap_or(u64::MAX);
            let report = File::open(&self.started.report).and_then(|file| contents::read(file, max));
            let report = report.layer(Layer::Report, self.started.report.display())?;
            self.out.extend(FromGuest::Started(report).encode());
            self.is_ready = true;
        }
    }

    /// Reaps all that have ended, and notes the launcher's status.
    fn reap(&mut self) -> Result<(), LaunchError> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.launcher => self.note(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) | Err(Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error).layer(Layer::Process, "cannot wait for the launcher"),
            }
        }
    }

    fn note(&mut self, status: WaitStatus) {
        self.status = Some((exit_status(status), Instant::now()));
        // Nobody is left to read it.
        self.stdin = None;
        self.end_input();
    }
}

/// Says something and waits until it is said.
pub(super) fn say(port: &File, message: &FromGuest) -> Result<(), LaunchError> {
    write_all(port, &message.encode())
}

fn write_all(mut port: &File, mut bytes: &[u8]) -> Result<(), LaunchError> {
    while !bytes.is_empty() {
        match port.write(bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if is_passing(&error) => {
                let mut end = [PollFd::from_borrowed_fd(port.as_fd(), PollFlags::OUT)];
                let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
                poll(&mut end, Some(&patience)).layer(Layer::Process, "cannot wait for the driver")?;
                if end.iter().any(|end| end.revents().contains(PollFlags::HUP)) {
                    std::thread::sleep(PAUSE);
                }
            }
            Err(error) => return Err(error).layer(Layer::Process, "cannot speak to the driver"),
        }
    }
    Ok(())
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}
