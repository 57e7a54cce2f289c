//! The launcher's part: the calls that go on, from the request to the answer.
//!
//! One loop waits for signals, requests, the init, and what each call has open; nothing in it waits for one of them
//! alone. A call ends when its first process has ended, its time is over, or nobody is left who would read the
//! answer; then all of its processes are killed and its group is removed, and only then it is answered.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use aos_sandbox::call::{AGENT_OUT_OF_MEMORY, CALLS_MAX, CallAnswer, CallEnd, CallRequest, Refusal};
use aos_sandbox::launch::notify::Notifier;
use aos_sys::pending::Pending;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::control::{Control, Incoming, is_stream};
use super::groups::{Group, Groups};
use super::{CALL, ENDED, KILL, Received, head, parts, receive, send};
use crate::error::{Context, LaunchError, Layer, print_line};
use crate::message::{self, Outcome};
use crate::supervise;

/// Between two looks at a group whose processes are being killed.
const REMOVAL_INTERVAL: Duration = Duration::from_millis(1);
/// Bytes read of a call's report at once.
const PART_BYTES: usize = 16 << 10;
/// The status of an agent that was killed: 128 and the signal.
const KILLED: u8 = 137;

/// The calls of one agent.
pub(crate) struct Calls {
    control: Control,
    groups: Result<Groups, String>,
    init: OwnedFd,
    going_on: BTreeMap<u32, Call>,
    last: u32,
}

struct Call {
    answer: OwnedFd,
    group: Option<Group>,
    began: Instant,
    deadline: Option<Instant>,
    start: Start,
    /// The wait status of its first process.
    ended: Option<u32>,
    timed_out: bool,
    /// Nobody waits for the answer.
    given_up: bool,
}

/// What the process that becomes the command has reported.
enum Start {
    /// Not everything yet.
    Under { pipe: OwnedFd, bytes: Vec<u8> },
    /// The command runs.
    Done,
    /// A layer is missing.
    Failed { exit_status: u8, why: String },
}

impl Calls {
    /// Without calls yet. `groups` says why there are none, if there are none.
    pub(crate) const fn new(control: Control, groups: Result<Groups, String>, init: OwnedFd) -> Self {
        Self { control, groups, init, going_on: BTreeMap::new(), last: 0 }
    }

    /// Serves calls and passes signals on until `child`, the init, has ended; then its status. What goes on then
    /// has ended with it.
    pub(crate) fn serve(mut self, child: Pid, notifier: Option<&Notifier>) -> Result<u8, LaunchError> {
        let signals = Pending::open().layer(Layer::Process, "cannot listen for signals")?;
        loop {
            while let Some(signal) = signals.take().layer(Layer::Process, "cannot read a signal")? {
                supervise::pass_on(child, signal)?;
            }
            if let Some(status) = supervise::reap(child, |_, _| {})? {
                let status = supervise::exit_status(status);
                self.tell_if_out_of_memory(status, notifier);
                return Ok(status);
            }
            if let Some(incoming) = self.control.next()? {
                self.begin(incoming);
            }
            self.hear_init()?;
            self.look_at_each();
            self.wait(&signals)?;
        }
    }

    /// With `OOMPolicy=continue`, so that a call that is killed for lack of memory does not stop the agent, systemd
    /// does not say that it was the agent.
    fn tell_if_out_of_memory(&self, status: u8, notifier: Option<&Notifier>) {
        let was_killed = status == KILLED && self.groups.as_ref().is_ok_and(Groups::was_agent_out_of_memory);
        if was_killed {
            print_line(AGENT_OUT_OF_MEMORY);
            if let Some(notifier) = notifier {
                notifier.failed(AGENT_OUT_OF_MEMORY);
            }
        }
    }

    /// Waits until something can be done.
    fn wait(&self, signals: &Pending) -> Result<(), LaunchError> {
        let mut waiting: Vec<PollFd<'_>> =
            vec![PollFd::new(signals, PollFlags::IN), PollFd::new(self.control.socket(), PollFlags::IN)];
        waiting.push(PollFd::new(&self.init, PollFlags::IN));
        for call in self.going_on.values().filter(|call| call.ended.is_none()) {
            // A closed end stays readable: it would be looked at without a pause until the call's end.
            if !call.given_up {
                waiting.push(PollFd::new(&call.answer, PollFlags::IN));
            }
            if let Start::Under { pipe, .. } = &call.start {
                waiting.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        let timeout = self.next_look().and_then(|wait| Timespec::try_from(wait).ok());
        match poll(&mut waiting, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).layer(Layer::Process, "cannot wait"),
        }
    }

    /// How long nothing happens by itself.
    fn next_look(&self) -> Option<Duration> {
        let now = Instant::now();
        let of_call = |call: &Call| match call.ended {
            Some(_) => Some(REMOVAL_INTERVAL),
            // It is being killed; the init may still have to make it.
            None if call.timed_out || call.given_up => Some(REMOVAL_INTERVAL),
            None => call.deadline.map(|deadline| deadline.saturating_duration_since(now)),
        };
        self.going_on.values().filter_map(of_call).min()
    }

    fn begin(&mut self, incoming: Incoming) {
        let Incoming { bytes, answer, streams } = incoming;
        if let Err(refused) = self.try_begin(&bytes, &answer, &streams) {
            tell(&answer, &refused);
        }
    }

    fn try_begin(
        &mut self,
        bytes: &[u8],
        answer: &OwnedFd,
        streams: &[OwnedFd; 3],
    ) -> Result<(), CallAnswer> {
        let refused = |reason, why: &str| CallAnswer::refused(reason, why);
        let request =
            CallRequest::parse(bytes).map_err(|error| refused(Refusal::Invalid, &error.to_string()))?;
        if !streams.iter().all(is_stream) {
            let why = "a standard stream is no pipe: what goes into a sandbox may stay there";
            return Err(refused(Refusal::Streams, why));
        }
        if self.going_on.len() >= CALLS_MAX {
            let why = format!("{CALLS_MAX} calls are going on in this agent; wait for one to end");
            return Err(refused(Refusal::Busy, &why));
        }
        let began = Instant::now();
        let own = answer.try_clone().map_err(|error| refused(Refusal::Busy, &error.to_string()))?;
        self.last = self.last.wrapping_add(1);
        let number = self.last;
        let group = match &mut self.groups {
            Ok(groups) => Some(groups.make(number, &request).map_err(|why| refused(Refusal::Limits, &why))?),
            Err(why) if request.needs_group() => return Err(refused(Refusal::Limits, why)),
            Err(_) => None,
        };
        match self.hand_on(number, bytes, streams, group.as_ref()) {
            Ok(pipe) => {
                let deadline = request.timeout_ms.map(|timeout| began + Duration::from_millis(timeout));
                let start = Start::Under { pipe, bytes: Vec::new() };
                let call = Call {
                    answer: own,
                    group,
                    began,
                    deadline,
                    start,
                    ended: None,
                    timed_out: false,
                    given_up: false,
                };
                self.going_on.insert(number, call);
                Ok(())
            }
            Err(error) => {
                self.remove(group.as_ref());
                Err(refused(Refusal::Busy, &format!("the agent's init takes no call: {error}")))
            }
        }
    }

    /// Asks the init for the call; what its process reports comes out of the pipe.
    fn hand_on(
        &self,
        number: u32,
        request: &[u8],
        streams: &[OwnedFd; 3],
        group: Option<&Group>,
    ) -> Result<OwnedFd, Errno> {
        let (pipe, report) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let mut bytes = head(CALL, number);
        bytes.extend(request);
        let [input, output, errors] = streams;
        let mut descriptors = vec![input.as_fd(), output.as_fd(), errors.as_fd(), report.as_fd()];
        descriptors.extend(group.map(|group| group.directory().as_fd()));
        send(&self.init, &bytes, &descriptors)?;
        Ok(pipe)
    }

    /// Takes what the init tells. An init that ends is heard of by its end.
    fn hear_init(&mut self) -> Result<(), LaunchError> {
        loop {
            match receive(&self.init, 64).layer(Layer::Process, "cannot hear from the init")? {
                Received::Whole(message) => {
                    if let Some((ENDED, number, rest)) = parts(&message.bytes)
                        && let (Some(call), Some(status)) =
                            (self.going_on.get_mut(&number), rest.first_chunk())
                    {
                        call.ended = Some(u32::from_le_bytes(*status));
                    }
                }
                Received::Cut => {}
                Received::Nothing | Received::End => return Ok(()),
            }
        }
    }

    /// Takes each call as far as it can go.
    fn look_at_each(&mut self) {
        let now = Instant::now();
        let mut over = Vec::new();
        for (number, call) in &mut self.going_on {
            call.read_report();
            if call.ended.is_none() {
                call.timed_out |= call.deadline.is_some_and(|deadline| deadline <= now);
                call.given_up = call.given_up || call.is_given_up();
                if call.timed_out || call.given_up {
                    kill(call.group.as_ref(), &self.init, *number);
                }
                continue;
            }
            if let Some(group) = &call.group {
                kill(Some(group), &self.init, *number);
            }
            over.push(*number);
        }
        for number in over {
            self.finish(number);
        }
    }

    /// Answers a call that has ended, when nothing of it is left.
    fn finish(&mut self, number: u32) {
        let Some(call) = self.going_on.get(&number) else { return };
        // Both go with the group.
        let (peak, out_of_memory) = call
            .group
            .as_ref()
            .map_or((None, false), |group| (group.memory_peak_bytes(), group.was_out_of_memory()));
        if !self.remove(call.group.as_ref()) {
            return;
        }
        if let Some(call) = self.going_on.remove(&number) {
            tell(&call.answer, &call.result(peak, out_of_memory));
        }
    }

    fn remove(&self, group: Option<&Group>) -> bool {
        match (group, &self.groups) {
            (Some(group), Ok(groups)) => groups.remove(group),
            _ => true,
        }
    }
}

impl Call {
    /// Whether the other end of the answer's socket is closed, or says anything: there is nothing to say.
    fn is_given_up(&self) -> bool {
        let mut waiting = [PollFd::new(&self.answer, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut waiting, Some(&now)).is_ok_and(|count| count > 0)
    }

    /// Takes what there is of the report; at its end it is clear how the start went.
    fn read_report(&mut self) {
        let Start::Under { pipe, bytes } = &mut self.start else { return };
        let mut part = vec![0; PART_BYTES];
        loop {
            match rustix::io::read(&*pipe, &mut part) {
                Ok(0) => break,
                Ok(length) => {
                    bytes.extend(part.iter().take(length));
                    if bytes.len() > message::BYTES_MAX {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => break,
            }
        }
        self.start = match message::decode(bytes) {
            Ok(Outcome::Started { .. }) => Start::Done,
            Ok(Outcome::Failed { exit_status, why }) => Start::Failed { exit_status, why },
            Err(error) => Start::Failed { exit_status: error.layer().exit_status(), why: error.to_string() },
        };
    }

    fn result(&self, memory_peak_bytes: Option<u64>, oom_killed: bool) -> CallAnswer {
        match &self.start {
            Start::Failed { exit_status, why } if !self.timed_out => {
                CallAnswer::not_started(*exit_status, why, oom_killed)
            }
            _ => {
                let status = self.ended.unwrap_or_default();
                // wait(2): a signal in the low seven bits, otherwise the status in the second byte.
                let [low, high, ..] = status.to_le_bytes();
                let signal = (low & 0x7f != 0).then_some(low & 0x7f);
                let exit_status = signal.is_none().then_some(high);
                let duration_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
                CallAnswer::Ended(CallEnd {
                    exit_status,
                    signal,
                    oom_killed,
                    timed_out: self.timed_out,
                    memory_peak_bytes,
                    duration_us,
                    contained: self.group.is_some(),
                })
            }
        }
    }
}

/// Ends the processes of a call: all of its group, or without one its first process and what is in the process group of that.
fn kill(group: Option<&Group>, init: &OwnedFd, number: u32) {
    let done = match group {
        Some(group) => group.kill(),
        None => send(init, &head(KILL, number), &[]),
    };
    if done.is_err() {
        // The group, or the init, is gone, or it is tried again at the next look.
    }
}

/// Answers; nobody may be there any more.
fn tell(answer: &OwnedFd, what: &CallAnswer) {
    let bytes = serde_json::to_vec(what).unwrap_or_default();
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    if rustix::net::send(answer, &bytes, flags).is_err() {
        // Who asked has gone.
    }
}
