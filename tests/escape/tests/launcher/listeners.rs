//! Listeners: sockets in the sandbox's network that the launcher passes to its caller.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use aos_sandbox::plan::{Listener, SandboxPlan};
use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::place::{Place, assert_fails};

/// A plan for a Python program, with listeners.
fn plan(place: &Place, program: &str, listeners: &[(u16, &str)]) -> SandboxPlan {
    let mut plan = place.plan(program, &[]);
    let listener = |(port, name): &(u16, &str)| Listener { port: *port, name: (*name).to_owned() };
    plan.listeners = listeners.iter().map(listener).collect();
    plan
}

/// The names and sockets of the launcher's message.
fn receive(socket: &UnixStream) -> Vec<(String, TcpListener)> {
    let mut names = [0; 1024];
    let mut space = [MaybeUninit::uninit(); 1024];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut names)];
    let received = recvmsg(socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors);
        }
    }
    let text = String::from_utf8(names[..received.bytes].to_vec()).unwrap();
    text.lines().map(str::to_owned).zip(sockets.into_iter().map(TcpListener::from)).collect()
}

#[test]
fn an_agent_reaches_its_callers_listeners_and_no_other_port() {
    let place = Place::new();
    let program = "
import os, socket
for port in [8081, 8082]:
    s = socket.create_connection(('127.0.0.1', port)); s.sendall(b'x'); print(s.recv(16).decode()); s.close()
for attempt in [lambda s: s.connect(('127.0.0.1', 8083)), lambda s: s.bind(('127.0.0.1', 8081)), lambda s: s.bind(('127.0.0.1', 8084))]:
    try: attempt(socket.socket()); print('possible')
    except OSError as error: print(error.strerror)
print(sorted(os.listdir('/proc/self/fd')))
";
    let plan = plan(&place, program, &[(8081, "first"), (8082, "second")]);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = place.command(&plan);
    command.args(["--listener-socket", "9"]).stdout(Stdio::piped());
    command.fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: 9 }]).unwrap();
    let child = command.spawn().unwrap();
    drop(command);
    for (name, listener) in receive(&ours) {
        let (mut client, _) = listener.accept().unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
        client.write_all(name.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let denied = "Permission denied";
    // The last is the directory itself, which is being listed.
    let expected = ["first", "second", denied, denied, denied, "['0', '1', '2', '3']"].join("\n") + "\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    // Nobody holds the other end any longer.
    assert_eq!((&ours).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn listeners_need_a_socket_and_descriptors_are_the_callers_own() {
    let place = Place::new();
    let listening = plan(&place, "", &[(8081, "first")]);
    let fails = |command: &mut Command, status: i32, says: &str| {
        assert_fails(&command.output().unwrap(), status, says);
    };
    fails(&mut place.command(&listening), 225, "--listener-socket");
    fails(place.command(&listening).args(["--listener-socket", "77"]), 202, "inherited descriptors");
    fails(place.command(&listening).args(["--listener-socket", "5", "--secrets-fd", "5"]), 202, "named once");
    fails(place.command(&listening).args(["--listener-socket", "1"]), 2, "not a descriptor above 2");
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let mut closed = place.command(&listening);
    closed.args(["--plan-fd", "9"]);
    closed.fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: 9 }]).unwrap();
    fails(&mut closed, 243, "not a regular file");
}
