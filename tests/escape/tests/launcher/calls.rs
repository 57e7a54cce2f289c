//! Calls: commands in the sandbox of an agent that runs, and what an agent and a call can do to each other.
//! Without a delegated control group here: groups, limits and their end are for systemd, in tests/deb.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use aos_core::capability::CapabilitySet;
use aos_sandbox::call::{ANSWER_MAX_BYTES, CALLS_MAX, CallAnswer, CallEnd, CallRequest, Refusal, ask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::pipe;

use crate::place::Place;

/// An agent that runs, with a control socket.
struct Agent {
    place: Place,
    launcher: Child,
}

/// A call that was asked for.
struct Call {
    answer: OwnedFd,
    output: File,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Agent {
    /// Runs a Python program that prints a line when it is ready.
    fn start(program: &str, capabilities: &[&str]) -> Self {
        let place = Place::new();
        let with_place = |text: &&str| text.replace("DATA", place.path("data").to_str().unwrap());
        let capabilities: Vec<String> = capabilities.iter().map(with_place).collect();
        let plan = place.plan(program, &capabilities);
        // The launcher makes its socket as the agent's user.
        fs::create_dir(place.path("run")).unwrap();
        std::os::unix::fs::chown(place.path("run"), Some(crate::place::UID), None).unwrap();
        fs::write(place.path("key"), "").unwrap();
        let mut command = place.command(&plan);
        command.arg("--control").arg(place.path("run/control")).arg("--control-key").arg(place.path("key"));
        let mut launcher = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = [0];
        launcher.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        Self { place, launcher }
    }

    /// One that waits until its input ends.
    fn waiting(capabilities: &[&str]) -> Self {
        Self::start("import sys; print('ready', flush=True); sys.stdin.read()", capabilities)
    }

    fn control(&self) -> PathBuf {
        self.place.path("run/control")
    }

    fn key(&self) -> File {
        OpenOptions::new().write(true).open(self.place.path("key")).unwrap()
    }

    fn ask(&self, request: &CallRequest) -> Call {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        let (read, write) = pipe().unwrap();
        let streams = [null.as_fd(), write.as_fd(), write.as_fd()];
        let answer = ask(&self.control(), self.key().as_fd(), request, streams).unwrap();
        Call { answer, output: read.into() }
    }

    fn call(&self, request: &CallRequest) -> (CallAnswer, String) {
        self.ask(request).end()
    }

    /// Runs Python inside and returns what it printed.
    fn python(&self, program: &str, capabilities: Option<&[&str]>) -> String {
        let with_place = |text: &&str| text.replace("DATA", self.place.path("data").to_str().unwrap());
        let lines: Option<Vec<String>> = capabilities.map(|lines| lines.iter().map(with_place).collect());
        let program = with_place(&program);
        let capabilities = lines.map(|lines| CapabilitySet::parse(lines.iter().map(String::as_str)).unwrap());
        let request = CallRequest { capabilities, ..command(&["/usr/bin/python3", "-c", &program]) };
        let (answer, output) = self.call(&request);
        assert_eq!(ended(&answer).exit_status, Some(0), "{answer:?} {output}");
        output
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.launcher.stdin.take());
        self.launcher.kill().unwrap();
        self.launcher.wait().unwrap();
    }
}

impl Call {
    fn end(mut self) -> (CallAnswer, String) {
        let answer = self.answer();
        let mut output = String::new();
        self.output.read_to_string(&mut output).unwrap();
        (answer, output)
    }

    fn answer(&self) -> CallAnswer {
        let mut waiting = [PollFd::new(&self.answer, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE).unwrap();
        assert_eq!(poll(&mut waiting, Some(&patience)).unwrap(), 1, "no answer");
        let mut bytes = vec![0; ANSWER_MAX_BYTES];
        let length = rustix::io::read(&self.answer, &mut bytes).unwrap();
        CallAnswer::parse(&bytes[..length]).unwrap()
    }
}

fn command(words: &[&str]) -> CallRequest {
    CallRequest::new(words.iter().map(|word| (*word).to_owned()).collect())
}

fn ended(answer: &CallAnswer) -> CallEnd {
    match answer {
        CallAnswer::Ended(end) => *end,
        other => panic!("{other:?}"),
    }
}

fn refusal(answer: &CallAnswer) -> Refusal {
    match answer {
        CallAnswer::Refused { reason, .. } => *reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_runs_beside_the_agent_and_tells_its_end() {
    let agent = Agent::waiting(&[]);
    let program = "import os, sys; print(os.getcwd(), os.environ['A'], os.environ['HOME'], os.getppid(), \
                   sorted(os.listdir('/proc/self/fd')), open('/proc/self/oom_score_adj').read().strip()); sys.exit(7)";
    let mut request = command(&["/usr/bin/python3", "-c", program]);
    request.env.insert("A".to_owned(), "b".to_owned());
    request.cwd = Some("/tmp".parse().unwrap());
    let (answer, output) = agent.call(&request);
    // 3 is the descriptor with which the list is read.
    assert_eq!(output, "/tmp b /workspace 1 ['0', '1', '2', '3'] 1000\n");
    let end = ended(&answer);
    assert_eq!((end.exit_status, end.signal, end.timed_out, end.contained), (Some(7), None, false, false));
    let (answer, _) = agent.call(&command(&["python3", "-c", "import os; os.kill(os.getpid(), 15)"]));
    assert_eq!((ended(&answer).exit_status, ended(&answer).signal), (None, Some(15)));
}

#[test]
fn a_call_is_confined_as_the_agent_is() {
    let agent = Agent::waiting(&["file_read: DATA/**"]);
    let program = "
import os
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
print(*(status[k].strip() for k in ['CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp', 'Seccomp_filters']))
for path in ['DATA/file', '/usr/bin/ls', '/etc/passwd', '/etc/shadow', '/run', '/sys/fs/cgroup']:
    try: print(path.rsplit('/', 1)[1], len(open(path).read()) > 0 if not os.path.isdir(path) else os.listdir(path))
    except OSError as error: print(path.rsplit('/', 1)[1], error.strerror)
print(len(os.listdir('/sys')) if os.path.exists('/sys') else 'no sys')
";
    let output = agent.python(program, None);
    let mut lines = output.lines();
    assert!(lines.next().unwrap().starts_with("0000000000000000 0000000000000000 1 2 "), "{output}");
    assert_eq!(
        lines.collect::<Vec<_>>()[..4],
        ["file True", "ls Permission denied", "passwd True", "shadow No such file or directory"]
    );
    let (answer, _) = agent.call(&command(&["/usr/bin/ls"]));
    assert!(matches!(answer, CallAnswer::NotStarted { exit_status: 203, .. }), "{answer:?}");
    let (answer, _) = agent.call(&command(&["no-such-command"]));
    assert!(matches!(answer, CallAnswer::NotStarted { exit_status: 203, .. }), "{answer:?}");
}

#[test]
fn the_agent_and_a_call_cannot_reach_into_each_other() {
    let attack = "
import os, socket, sys
def attempt(name, what):
    try: what(); print(name, 'possible')
    except OSError as error: print(name, 'denied')
def others():
    return [int(pid) for pid in os.listdir('/proc') if pid.isdigit() and int(pid) != os.getpid()]
print('visible', others())
for pid in [1, 2]:
    attempt('signal', lambda: os.kill(pid, 0))
    attempt('mem', lambda: open(f'/proc/{pid}/mem', 'rb'))
    attempt('root', lambda: os.listdir(f'/proc/{pid}/root'))
    attempt('environ', lambda: open(f'/proc/{pid}/environ').read())
    attempt('fd', lambda: os.listdir(f'/proc/{pid}/fd'))
    attempt('oom', lambda: open(f'/proc/{pid}/oom_score_adj', 'w').write('1000'))
attempt('own oom', lambda: open('/proc/self/oom_score_adj', 'w').write('0'))
def abstract():
    socket.socket(socket.AF_UNIX).connect('\\0agent')
attempt('abstract', abstract)
";
    let agent = Agent::start(
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind('\\0agent'); s.listen(); \
         print('ready', flush=True); sys.stdin.read()",
        &[],
    );
    for capabilities in [None, Some(&[][..])] {
        let output = agent.python(attack, capabilities);
        assert!(output.contains("visible []") && !output.contains("possible"), "{output}");
        assert_eq!(output.lines().count(), 1 + 2 * 6 + 2, "{output}");
    }
}

#[test]
fn a_narrower_call_has_only_what_it_was_given() {
    // It hands out what it has open to whoever connects.
    let agent = Agent::start(
        "
import os, socket, sys, threading
server = socket.socket(socket.AF_UNIX); server.bind('/tmp/agent'); server.listen()
def serve():
    while True:
        peer, _ = server.accept()
        socket.send_fds(peer, [b'x'], [os.open(sys.argv[0], os.O_RDONLY)]); peer.close()
threading.Thread(target=serve, daemon=True).start()
print('ready', flush=True); sys.stdin.read()
",
        &["file_read: DATA/**", "listen: 8099"],
    );
    let data = agent.place.path("data");
    for name in ["open", "secret"] {
        fs::create_dir(data.join(name)).unwrap();
        fs::write(data.join(name).join("file"), name).unwrap();
    }
    std::os::unix::fs::symlink("../secret/file", data.join("open/link")).unwrap();
    let program = "
import socket
for path in ['DATA/open/file', 'DATA/secret/file', 'DATA/open/link', 'DATA/open/../secret/file']:
    try: print(open(path).read())
    except OSError as error: print(error.strerror)
def attempt(*kind, then=lambda s: None):
    try: then(socket.socket(*kind)); print('possible')
    except OSError as error: print(error.strerror)
attempt(socket.AF_UNIX, then=lambda s: (s.connect('/tmp/agent'), socket.recv_fds(s, 1, 1)))
attempt(socket.AF_INET, socket.SOCK_DGRAM)
attempt(socket.AF_INET, then=lambda s: s.bind(('127.0.0.1', 8099)))
socket.socketpair()
";
    let all = agent.python(program, None);
    assert_eq!(
        all.lines().collect::<Vec<_>>(),
        ["open", "secret", "secret", "secret", "possible", "possible", "possible"]
    );
    let (no, denied) = ("Permission denied", "Operation not permitted");
    let narrow = agent.python(program, Some(&["file_read: DATA/open/**"]));
    assert_eq!(narrow.lines().collect::<Vec<_>>(), ["open", no, no, no, denied, denied, no]);
    let with_port = agent.python(program, Some(&["listen: 8099"]));
    assert_eq!(with_port.lines().collect::<Vec<_>>(), [no, no, no, no, denied, denied, "possible"]);
    for wider in ["file_write: DATA/open/**", "file_read: /srv/**", "exec: /usr/bin/ls", "listen: 8100"] {
        let line = wider.replace("DATA", data.to_str().unwrap());
        let capabilities = Some(CapabilitySet::parse([line.as_str()]).unwrap());
        let (answer, _) = agent.call(&CallRequest { capabilities, ..command(&["python3", "-c", ""]) });
        let CallAnswer::NotStarted { why, .. } = answer else { panic!("{answer:?}") };
        assert!(why.contains("is not part of what the agent may do"), "{why}");
    }
}

#[test]
fn a_narrower_call_reaches_no_socket_of_the_agent_by_a_side_door() {
    // A datagram socket of a pair may send to, and be connected with, any other; and Landlock does not see a
    // connection that is made by sending (MSG_FASTOPEN).
    let agent = Agent::start(
        "
import socket, sys
datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); datagrams.bind('/tmp/agent')
server = socket.socket(); server.bind(('127.0.0.1', 8099)); server.listen()
print('ready', flush=True); sys.stdin.read()
",
        &["listen: 8099"],
    );
    let program = "
import socket
def attempt(what):
    try: what(); print('possible')
    except OSError as error: print(error.strerror)
def pair(kind): return socket.socketpair(socket.AF_UNIX, kind)[0]
attempt(lambda: pair(socket.SOCK_DGRAM).sendto(b'x', '/tmp/agent'))
attempt(lambda: pair(socket.SOCK_DGRAM).connect('/tmp/agent'))
attempt(lambda: socket.socket().sendto(b'x', socket.MSG_FASTOPEN, ('127.0.0.1', 8099)))
attempt(lambda: socket.socket().sendmsg([b'x'], [], socket.MSG_FASTOPEN, ('127.0.0.1', 8099)))
attempt(lambda: pair(socket.SOCK_STREAM))
attempt(lambda: pair(socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC))
";
    let lines = |output: String| output.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(agent.python(program, None)), ["possible"; 6]);
    let no = "Operation not permitted";
    assert_eq!(lines(agent.python(program, Some(&[]))), [no, no, no, no, "possible", "possible"]);
}

#[test]
fn the_working_directory_is_not_one_that_the_launcher_has_open() {
    // The agent puts the link where a command will be told to work. Through it the process that becomes the call, which
    // still has what the init has open, would stand outside the tree, where chmod, stat and connect are no matter
    // of Landlock's.
    let agent = Agent::start(
        "
import os, sys
for number in range(3, 40): os.symlink(f'/proc/self/fd/{number}', f'/tmp/{number}')
os.symlink('/proc/self/root/tmp', '/tmp/root'); os.mkdir('/tmp/folder'); os.symlink('folder', '/tmp/plain')
print('ready', flush=True); sys.stdin.read()
",
        &[],
    );
    let at = |path: &str| CallRequest {
        cwd: Some(path.parse().unwrap()),
        ..command(&["/usr/bin/python3", "-c", "import os; print(os.getcwd())"])
    };
    for path in
        (3..40).map(|number| format!("/tmp/{number}")).chain(["/tmp/root", "/proc/self/fd/3"].map(Into::into))
    {
        let (answer, output) = agent.call(&at(&path));
        assert!(matches!(answer, CallAnswer::NotStarted { .. }), "{path}: {answer:?} {output}");
    }
    assert_eq!(agent.call(&at("/tmp/plain")).1, "/tmp/folder\n");
}

#[test]
fn what_was_granted_below_a_folder_of_every_agent_is_kept_from_a_narrower_call() {
    let agent = Agent::waiting(&["file_read: /etc/ld.so.conf.d/**", "file_read: /etc/fstab"]);
    let program = "
for path in ['/etc/ld.so.conf.d/libc.conf', '/etc/fstab', '/etc/passwd', '/etc/alternatives/README']:
    try: print(len(open(path).read()) > 0)
    except OSError as error: print(error.strerror)
";
    let no = "Permission denied";
    let lines = |output: String| output.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(agent.python(program, None)), ["True", "True", "True", "True"]);
    assert_eq!(lines(agent.python(program, Some(&[]))), [no, no, "True", "True"]);
    let one = agent.python(program, Some(&["file_read: /etc/fstab"]));
    assert_eq!(lines(one), [no, "True", "True", "True"]);
}

#[test]
fn limits_without_a_control_group_are_refused() {
    let agent = Agent::waiting(&[]);
    for request in [
        CallRequest { memory_max_bytes: Some(64 << 20), ..command(&["python3", "-c", ""]) },
        CallRequest { tasks_max: Some(3), ..command(&["python3", "-c", ""]) },
    ] {
        assert_eq!(refusal(&agent.call(&request).0), Refusal::Limits);
    }
    let sleep = "import time; time.sleep(600)";
    let request = CallRequest { timeout_ms: Some(200), ..command(&["python3", "-c", sleep]) };
    let (answer, _) = agent.call(&request);
    let end = ended(&answer);
    assert!(end.timed_out && end.signal == Some(9) && end.duration_us >= 200_000, "{end:?}");
}

#[test]
fn calls_are_counted_and_end_with_their_caller() {
    let agent = Agent::waiting(&[]);
    let sleep = command(&["python3", "-c", "import time; print('on', flush=True); time.sleep(600)"]);
    let mut calls = Vec::new();
    while calls.len() < CALLS_MAX {
        let mut call = agent.ask(&sleep);
        // It is on: the launcher has it in its table.
        call.output.read_exact(&mut [0; 3]).unwrap();
        calls.push(call);
    }
    assert_eq!(refusal(&agent.call(&sleep).0), Refusal::Busy);
    let mut given_up = calls.pop().unwrap();
    drop(given_up.answer);
    let mut rest = String::new();
    // Its end is the end of its output.
    given_up.output.read_to_string(&mut rest).unwrap();
    let began = Instant::now();
    while refusal_or_none(&agent.call(&command(&["python3", "-c", ""])).0).is_some() {
        assert!(began.elapsed() < PATIENCE, "the place of a call that ended is not free");
    }
}

fn refusal_or_none(answer: &CallAnswer) -> Option<Refusal> {
    matches!(answer, CallAnswer::Refused { .. }).then(|| refusal(answer))
}

#[test]
fn what_is_no_pipe_does_not_go_in() {
    let agent = Agent::waiting(&[]);
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = File::open("/etc/passwd").unwrap();
    let directory = File::open("/").unwrap();
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/ptmx").unwrap();
    for bad in [pair.as_fd(), file.as_fd(), directory.as_fd(), terminal.as_fd()] {
        let streams = [null.as_fd(), null.as_fd(), bad];
        let request = command(&["python3", "-c", ""]);
        let answer = ask(&agent.control(), agent.key().as_fd(), &request, streams).unwrap();
        let call = Call { answer, output: File::open("/dev/null").unwrap() };
        assert_eq!(refusal(&call.answer()), Refusal::Streams, "{}", bad.as_raw_fd());
    }
}

#[test]
fn all_ends_with_the_agent_and_nothing_is_asked_of_a_stranger() {
    let mut agent = Agent::waiting(&[]);
    let mut call =
        agent.ask(&command(&["python3", "-c", "print('on', flush=True); import time; time.sleep(600)"]));
    call.output.read_exact(&mut [0; 3]).unwrap();
    // Without the key: nothing happens, and nothing is answered.
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    let stranger = File::open(agent.place.path("key")).unwrap();
    let streams = [null.as_fd(), null.as_fd(), null.as_fd()];
    let request = command(&["python3", "-c", ""]);
    let answer = ask(&agent.control(), stranger.as_fd(), &request, streams).unwrap();
    let mut waiting = [PollFd::new(&answer, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut waiting, Some(&patience)).unwrap(), 1);
    assert_eq!(rustix::io::read(&answer, &mut [0; 16]), Ok(0));
    // The agent ends by itself: so does the call, and nobody answers.
    drop(agent.launcher.stdin.take());
    assert_eq!(agent.launcher.wait().unwrap().code(), Some(0));
    assert_eq!(rustix::io::read(&call.answer, &mut [0; 16]), Ok(0));
    let mut rest = String::new();
    call.output.read_to_string(&mut rest).unwrap();
    assert!(ask(&agent.control(), agent.key().as_fd(), &request, streams).is_err());
}
