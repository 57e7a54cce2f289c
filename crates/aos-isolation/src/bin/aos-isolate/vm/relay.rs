//! The driver while the machine runs: the agent's streams, signals, report and status, over one socket.
//!
//! One loop with one wait. It keeps at most one message of the guest's and one piece of input. It reads from the
//! guest only when it has written what came before, so an agent that writes faster than its reader reads waits, as
//! with a pipe. Nothing that a guest says is more than bytes for the agent's own streams, a report that is parsed
//! as any report, or a status.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use aos_core::report::{LaunchReport, LayerReport};
use aos_isolation::vm::machine::{CONSOLE, Machine};
use aos_isolation::vm::wire::{
    Conversation, Decoder, FromGuest, Message, PIECE_MAX, Stream, ToGuest, WINDOW, one_line,
};
use aos_sandbox::launch::notify::Notifier;
use aos_sandbox::seccomp::Policy;
use aos_sys::pending::Pending;
use aos_sys::{capability, seccomp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use rustix::thread::set_no_new_privs;

use super::view::QEMU_LOG;
use crate::Start;
use crate::error::{Context, LaunchError, Layer, fail};
use crate::runtime::PASSED_ON;

/// For the boot and the launcher inside: some ten seconds without KVM on a machine of today.
const BOOT: Duration = Duration::from_secs(110);
/// What a pipe that is ready takes without a wait (`PIPE_BUF` of pipe(7)).
const WRITE_MAX: usize = 4096;
/// Bytes on their way to the guest beyond which nothing more is added: a machine that reads nothing is stuck.
const QUEUE_MAX: usize = WINDOW + 4096;
/// Bytes of the machine's own words that are shown when it fails.
const LOG_BYTES: u64 = 2048;

/// What runs.
pub(super) struct What<'a> {
    /// The start.
    pub(super) start: &'a Start,
    /// The machine.
    pub(super) machine: Machine,
    /// Its kernel's version.
    pub(super) kernel: String,
}

/// Standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

/// Bytes for one of the agent's streams.
struct Writing {
    stream: Stream,
    bytes: Vec<u8>,
    written: usize,
}

struct Relay<'a> {
    what: &'a What<'a>,
    stage: Pid,
    channel: File,
    pending: Pending,
    decoder: Decoder<FromGuest>,
    conversation: Conversation,
    queue: Vec<u8>,
    writing: Option<Writing>,
    input: Input,
    unread: [bool; 2],
    report: Option<File>,
    notifier: Option<&'a Notifier>,
    is_started: bool,
}

/// How it ended.
enum End {
    /// The launcher inside has, with this status.
    Inside(u8),
    /// The caller wants it.
    Asked,
    /// QEMU has ended.
    OfMachine(WaitStatus),
}

/// Runs until the agent or the machine has ended. Nothing of the machine is left then.
pub(super) fn run(
    what: &What<'_>,
    stage: Pid,
    channel: OwnedFd,
    report: Option<File>,
    notifier: Option<&Notifier>,
) -> Result<u8, LaunchError> {
    let setting = "cannot prepare the channel";
    let flags = fcntl_getfl(&channel).layer(Layer::Process, setting)?;
    fcntl_setfl(&channel, flags | OFlags::NONBLOCK).layer(Layer::Process, setting)?;
    let pending = Pending::open().layer(Layer::Process, "cannot wait for signals")?;
    capability::drop_inheritable().layer(Layer::Capabilities, "cannot empty the bounding set")?;
    capability::drop_held().layer(Layer::Capabilities, "cannot drop capabilities")?;
    set_no_new_privs(true).layer(Layer::NoNewPrivileges, "cannot set no_new_privs")?;
    seccomp::install(Policy::Agent.compile())
        .layer(Layer::Seccomp, "cannot install the system call filter")?;
    let mut relay = Relay {
        what,
        stage,
        channel: channel.into(),
        pending,
        decoder: Decoder::default(),
        conversation: Conversation::default(),
        queue: Vec::new(),
        writing: None,
        input: Input::Open,
        unread: [false; 2],
        report,
        notifier,
        is_started: false,
    };
    let end = relay.until_the_end();
    relay.end_machine(&end)?;
    relay.code(end?)
}

impl Relay<'_> {
    fn until_the_end(&mut self) -> Result<End, LaunchError> {
        let started = Instant::now();
        loop {
            if let Some(end) = self.take_messages()? {
                return Ok(end);
            }
            let left = BOOT.checked_sub(started.elapsed());
            if !self.is_started && left.is_none() {
                let words = words();
                let why = format!("vm: the machine did not boot within {} seconds: {words}", BOOT.as_secs());
                return fail(Layer::Isolation, why);
            }
            let ready = self.wait(left.filter(|_| !self.is_started))?;
            if let Some(end) = self.act(&ready)? {
                return Ok(end);
            }
        }
    }

    /// Handles whole messages, until one has to be written first.
    fn take_messages(&mut self) -> Result<Option<End>, LaunchError> {
        while self.writing.is_none() {
            let broken = "vm: the guest broke the protocol";
            let Some(message) = self.decoder.take().layer(Layer::Isolation, broken)? else { break };
            self.conversation.hear(&message).layer(Layer::Isolation, broken)?;
            match message {
                FromGuest::Wrote(stream, bytes) if !self.is_unread(stream) => {
                    self.writing = Some(Writing { stream, bytes, written: 0 });
                }
                FromGuest::Wrote(..) | FromGuest::Took(_) => {}
                FromGuest::Started(bytes) => self.started(&bytes)?,
                FromGuest::Failed(why) => return fail(Layer::Isolation, format!("vm: {why}")),
                FromGuest::Ended(status) => return Ok(Some(End::Inside(status))),
            }
        }
        Ok(None)
    }

    /// Waits until something can be done: on the channel, signals, input, output, in this order.
    fn wait(&self, patience: Option<Duration>) -> Result<[PollFlags; 4], LaunchError> {
        let mut channel = PollFlags::empty();
        channel.set(PollFlags::IN, self.writing.is_none());
        channel.set(PollFlags::OUT, !self.queue.is_empty());
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let wants_input = self.input == Input::Open
            && self.is_started
            && self.conversation.room() >= PIECE_MAX
            && self.queue.len() < QUEUE_MAX;
        let output: BorrowedFd<'_> = match self.writing.as_ref().map(|writing| writing.stream) {
            Some(Stream::Error) => stderr.as_fd(),
            _ => stdout.as_fd(),
        };
        let if_wanted = |wanted: bool, flags| if wanted { flags } else { PollFlags::empty() };
        let mut ends = vec![PollFd::new(&self.channel, channel), PollFd::new(&self.pending, PollFlags::IN)];
        // Not asked about at all when not wanted: a closed pipe would be reported for ever.
        if wants_input {
            ends.push(PollFd::new(&stdin, PollFlags::IN));
        }
        if self.writing.is_some() {
            ends.push(PollFd::from_borrowed_fd(output, PollFlags::OUT));
        }
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        match poll(&mut ends, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).layer(Layer::Process, "cannot wait for the machine"),
        }
        let mut found = ends.iter().map(PollFd::revents);
        let mut next = |wanted: bool| {
            if wanted { found.next().unwrap_or(PollFlags::empty()) } else { if_wanted(false, PollFlags::IN) }
        };
        Ok([next(true), next(true), next(wants_input), next(self.writing.is_some())])
    }

    fn act(&mut self, ready: &[PollFlags; 4]) -> Result<Option<End>, LaunchError> {
        let [channel, signals, input, output] = *ready;
        if !output.is_empty() {
            self.write_out()?;
        }
        if !input.is_empty() {
            self.read_input()?;
        }
        if channel.contains(PollFlags::OUT) {
            self.send()?;
        }
        // What was said before an end counts, so the channel comes before the signals.
        if channel.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && self.writing.is_none() {
            self.receive()?;
            if let Some(end) = self.take_messages()? {
                return Ok(Some(end));
            }
        }
        if signals.is_empty() { Ok(None) } else { self.take_signals() }
    }

    fn receive(&mut self) -> Result<(), LaunchError> {
        let mut buffer = [0; PIECE_MAX];
        match self.channel.read(&mut buffer) {
            // QEMU is about to end: its status says more.
            Ok(0) => std::thread::sleep(Duration::from_millis(5)),
            Ok(length) => self.decoder.feed(buffer.get(..length).unwrap_or_default()),
            Err(error) if is_passing(&error) || error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error).layer(Layer::Isolation, "cannot hear of the machine"),
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), LaunchError> {
        match self.channel.write(&self.queue) {
            Ok(length) => drop(self.queue.drain(..length)),
            Err(error) if is_passing(&error) => {}
            // As above.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.queue.clear(),
            Err(error) => return Err(error).layer(Layer::Isolation, "cannot speak to the machine"),
        }
        Ok(())
    }

    /// Queues a message; one too many for a machine that does not listen is dropped.
    fn say(&mut self, message: &ToGuest) {
        if self.queue.len() < QUEUE_MAX {
            self.queue.extend(message.encode());
        }
    }

    fn read_input(&mut self) -> Result<(), LaunchError> {
        let mut buffer = [0; PIECE_MAX];
        match std::io::stdin().read(&mut buffer) {
            Ok(0) => {
                self.input = Input::Ended;
                self.say(&ToGuest::InputEnd);
            }
            Ok(length) => {
                self.conversation.sent(length);
                self.say(&ToGuest::Input(buffer.get(..length).unwrap_or_default().to_vec()));
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error).layer(Layer::Process, "cannot read standard input"),
        }
        Ok(())
    }

    fn is_unread(&self, stream: Stream) -> bool {
        let [output, error] = self.unread;
        if stream == Stream::Output { output } else { error }
    }

    fn write_out(&mut self) -> Result<(), LaunchError> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let rest = writing.bytes.get(writing.written..).unwrap_or_default();
        let piece = rest.get(..WRITE_MAX).unwrap_or(rest);
        let written = match writing.stream {
            Stream::Output => rustix::io::write(std::io::stdout(), piece),
            Stream::Error => rustix::io::write(std::io::stderr(), piece),
        };
        match written {
            Ok(length) => writing.written += length,
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody reads it: the agent is to find that out, as with a pipe of its own.
            Err(_) => {
                let stream = writing.stream;
                let [output, error] = &mut self.unread;
                *(if stream == Stream::Output { output } else { error }) = true;
                self.writing = None;
                self.say(&ToGuest::Unread(stream));
                return Ok(());
            }
        }
        if writing.written == writing.bytes.len() {
            self.writing = None;
        }
        Ok(())
    }

    fn take_signals(&mut self) -> Result<Option<End>, LaunchError> {
        while let Some(signal) = self.pending.take().layer(Layer::Process, "cannot take a signal")? {
            match signal {
                Signal::ALARM => return Ok(Some(End::Asked)),
                Signal::CHILD => {
                    let ended = waitpid(Some(self.stage), WaitOptions::NOHANG)
                        .layer(Layer::Process, "cannot wait for the machine")?;
                    if let Some((_, status)) = ended {
                        return Ok(Some(End::OfMachine(status)));
                    }
                }
                signal if PASSED_ON.contains(&signal) => {
                    let number = u8::try_from(signal.as_raw()).unwrap_or_default();
                    self.say(&ToGuest::Signal(number));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The agent runs: writes the report and tells the service manager.
    fn started(&mut self, bytes: &[u8]) -> Result<(), LaunchError> {
        let bad = "vm: the guest's report";
        let mut report = LaunchReport::parse(bytes).layer(Layer::Isolation, bad)?;
        if report.agent != self.what.start.plan.agent || !report.all_in_force() {
            return fail(Layer::Isolation, format!("{bad} is not of this agent with every layer in force"));
        }
        report.layers.insert(0, self.machine_layer()?);
        report.layers.insert(0, isolation_layer(self.what));
        if let Some(mut file) = self.report.take() {
            let bytes = report.to_json().layer(Layer::Report, "cannot write the report")?;
            file.write_all(&bytes).layer(Layer::Report, "cannot write the report")?;
        }
        self.is_started = true;
        let (count, backend) = (report.layers.len(), self.what.start.backend);
        self.notifier.map_or(Ok(()), |notifier| {
            notifier.ready(&format!("Confined: {count} layers in force, in {backend}"))
        })
    }

    /// What the host's kernel says of QEMU.
    fn machine_layer(&self) -> Result<LayerReport, LaunchError> {
        let wanted = [
            ("Seccomp", "2"),
            ("NoNewPrivs", "1"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
        ];
        let status = std::fs::read_to_string("/proc/2/status").layer(Layer::Probe, "/proc/2/status")?;
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().trim().to_owned()
        };
        let words = |value: &dyn Fn(&str, &str) -> String| {
            wanted.map(|(name, wanted)| format!("{name}={}", value(name, wanted))).join(" ")
        };
        let asked = words(&|_, wanted| wanted.to_owned());
        let in_force = words(&|name, _| field(name));
        if asked != in_force {
            return fail(Layer::Probe, format!("qemu: asked {asked}, in force {in_force}"));
        }
        let detail =
            "QEMU: the agent's user, a root of its own without the host's files, no network".to_owned();
        Ok(LayerReport { layer: "qemu".to_owned(), asked, in_force, ok: true, detail })
    }

    /// Ends the stage, and with it every process of its pid namespace.
    fn end_machine(&self, end: &Result<End, LaunchError>) -> Result<(), LaunchError> {
        if matches!(end, Ok(End::OfMachine(_))) {
            return Ok(());
        }
        match kill_process(self.stage, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error).layer(Layer::Process, "cannot end the machine"),
        }
        loop {
            match waitpid(Some(self.stage), WaitOptions::empty()) {
                Ok(_) | Err(Errno::CHILD) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).layer(Layer::Process, "cannot wait for the machine"),
            }
        }
    }

    fn code(&self, end: End) -> Result<u8, LaunchError> {
        match end {
            End::Inside(status) => Ok(status),
            End::Asked => Ok(128 + u8::try_from(Signal::KILL.as_raw()).unwrap_or_default()),
            // The stage has said why itself.
            End::OfMachine(status) if !self.is_started && is_own_failure(status) => {
                Ok(status.exit_status().and_then(|status| u8::try_from(status).ok()).unwrap_or(u8::MAX))
            }
            End::OfMachine(status) => {
                let status = super::stage::status(status);
                fail(Layer::Isolation, format!("vm: the machine ended by itself ({status}): {}", words()))
            }
        }
    }
}

/// Statuses of the stage's own layers; QEMU ends with 0 or 1.
fn is_own_failure(status: WaitStatus) -> bool {
    status
        .exit_status()
        .is_some_and(|status| status >= i32::from(Layer::Isolation.exit_status()) && status < 128)
        || status.exit_status().is_some_and(|status| status >= 200)
}

fn isolation_layer(what: &What<'_>) -> LayerReport {
    let Machine { accelerator, memory_mib, processors } = what.machine;
    LayerReport {
        layer: "isolation".to_owned(),
        asked: what.start.backend.to_string(),
        in_force: what.start.backend.isolates().to_owned(),
        ok: true,
        detail: format!(
            "{}: Linux {}, {}, {memory_mib} MiB, {processors} processors",
            what.start.program.display(),
            what.kernel,
            accelerator.name()
        ),
    }
}

/// The last of what QEMU and the guest's kernel said, in one line.
fn words() -> String {
    let mut text = String::new();
    for path in [QEMU_LOG, CONSOLE] {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|mut file| {
            let length = file.metadata()?.len();
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
            file.take(LOG_BYTES).read_to_end(&mut bytes)
        });
        text.push_str(&read.map_or_else(|error| format!("{path}: {error}"), |_| one_line(&bytes)));
        text.push(' ');
    }
    text.trim().to_owned()
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}
