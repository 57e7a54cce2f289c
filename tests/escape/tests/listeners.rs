//! Listeners: sockets in the sandbox's network that the launcher passes to its caller, for agents as
//! for steps.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, and starting the launcher is the point"
)]

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use aos_core::config::ResolvedAgent;
use aos_core::path::AbsolutePath;
use aos_escape::runner::{Scratch, launcher, scratch};
use aos_sandbox::plan::{Listener, PlanInput, SandboxPlan, derive};
use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

const UID: u32 = 1_879_113_724;

/// A plan for a Python program, with listeners.
fn plan(root: &Scratch, program: &str, listeners: &[(u16, &str)]) -> SandboxPlan {
    assert!(rustix::process::geteuid().is_root(), "run as root: this test starts the launcher as root");
    for name in ["rootfs/app", "workspace"] {
        fs::create_dir_all(root.path().join(name)).unwrap();
    }
    chown(root.path().join("workspace"), Some(UID), Some(UID)).unwrap();
    fs::write(root.path().join("rootfs/app/main.py"), program).unwrap();
    let agent = serde_json::json!({
        "capabilities": [], "limits": {}, "name": "test", "version": "1.0.0", "root": "host",
        "run": { "entrypoint": ["/usr/bin/python3", "/app/main.py"], "lifecycle": "oneshot", "workdir": "/workspace" },
    });
    let path = |name: &str| -> AbsolutePath { root.path().join(name).to_str().unwrap().parse().unwrap() };
    let rootfs: AbsolutePath = path("rootfs");
    let mut plan = derive(&PlanInput {
        agent: &ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap(),
        id: &"test".parse().unwrap(),
        arguments: &[],
        entries: &aos_sandbox::rootfs::scan(rootfs.as_path()).unwrap(),
        rootfs: &rootfs,
        workspace: &path("workspace"),
    })
    .unwrap();
    let listener = |(port, name): &(u16, &str)| Listener { port: *port, name: (*name).to_owned() };
    plan.listeners = listeners.iter().map(listener).collect();
    plan
}

fn command(root: &Scratch, plan: &SandboxPlan) -> Command {
    fs::write(root.path().join("plan.json"), plan.to_json().unwrap()).unwrap();
    let mut command = Command::new(launcher::find().unwrap());
    command.arg("--plan").arg(root.path().join("plan.json")).args(["--uid", &UID.to_string()]);
    command.stdin(Stdio::null());
    command
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
    let root = scratch().unwrap();
    let program = "
import os, socket
for port in [8081, 8082]:
    s = socket.create_connection(('127.0.0.1', port)); s.sendall(b'x'); print(s.recv(16).decode()); s.close()
for attempt in [lambda s: s.connect(('127.0.0.1', 8083)), lambda s: s.bind(('127.0.0.1', 8081)), lambda s: s.bind(('127.0.0.1', 8084))]:
    try: attempt(socket.socket()); print('possible')
    except OSError as error: print(error.strerror)
print(sorted(os.listdir('/proc/self/fd')))
";
    let plan = plan(&root, program, &[(8081, "first"), (8082, "second")]);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = command(&root, &plan);
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
    let root = scratch().unwrap();
    let listening = plan(&root, "", &[(8081, "first")]);
    let fails = |command: &mut Command, status: i32, says: &str| {
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{error}");
        assert!(error.contains(says), "{error}");
    };
    fails(&mut command(&root, &listening), 225, "--listener-socket");
    fails(command(&root, &listening).args(["--listener-socket", "77"]), 202, "inherited descriptors");
    fails(
        command(&root, &listening).args(["--listener-socket", "5", "--secrets-fd", "5"]),
        202,
        "named once",
    );
    fails(command(&root, &listening).args(["--listener-socket", "1"]), 2, "not a descriptor above 2");
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let mut closed = command(&root, &listening);
    closed.args(["--plan-fd", "9"]);
    closed.fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: 9 }]).unwrap();
    fails(&mut closed, 243, "not a regular file");
}
