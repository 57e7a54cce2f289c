//! Probes: attempts that must be refused, made by the process that becomes the agent after its
//! restrictions are in force. One that succeeds, or fails in another way, ends the launch.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use aos_sandbox::plan::{Purpose, SandboxPlan};
use aos_sys::namespace::{self, Kind};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Pid, test_kill_process};

use crate::error::{Context, LaunchError, Layer, fail};
use crate::tree::Tree;

/// An abstract socket's name; abstract names are the network namespace's own.
const ABSTRACT_NAME: &[u8] = b"aos-launch-probe";

/// TEST-NET-1 of RFC 5737: an address that is no machine's.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Things outside the agent's domain, for the probes to try.
pub(crate) struct Outside {
    tree: Tree,
    /// Held open: a name without a listener would refuse for another reason.
    listener: UnixListener,
}

impl Outside {
    /// Prepares them; called by the init, which is outside every domain.
    pub(crate) fn prepare(tree: Tree) -> Result<Self, LaunchError> {
        let what = "cannot make the socket for the probes";
        let address = SocketAddr::from_abstract_name(ABSTRACT_NAME).layer(Layer::Probe, what)?;
        let listener = UnixListener::bind_addr(&address).layer(Layer::Probe, what)?;
        Ok(Self { tree, listener })
    }

    /// Tries what Landlock refuses and, for a step of a build, what its network does not have.
    pub(crate) fn check_landlock(&self, plan: &SandboxPlan) -> Result<(), LaunchError> {
        refused("reading a file outside the grants", read_again(&self.tree.ungranted), Errno::ACCESS)?;
        refused("signalling the init", test_kill_process(Pid::INIT), Errno::PERM)?;
        let address = self.listener.local_addr().layer(Layer::Probe, "cannot find the probes' socket")?;
        let connection = UnixStream::connect_addr(&address).map(drop);
        refused("connecting to an abstract socket", connection.map_err(errno), Errno::PERM)?;
        match plan.purpose {
            Purpose::Agent => check_ports(plan),
            Purpose::Build => {
                let connection = on(SocketAddrV4::new(ELSEWHERE, 9), Attempt::Connect);
                refused("reaching another machine", connection, Errno::NETUNREACH)
            }
        }
    }

    /// Tries what the system call filter refuses.
    pub(crate) fn check_seccomp(&self, purpose: Purpose) -> Result<(), LaunchError> {
        let namespace = namespace::unshare(&[Kind::User]).map_err(errno);
        refused("making a user namespace", namespace, Errno::PERM)?;
        let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        let expected = match purpose {
            Purpose::Agent => Errno::PERM,
            Purpose::Build => Errno::AFNOSUPPORT,
        };
        refused("making a netlink socket", netlink.map(drop), expected)
    }
}

fn check_ports(plan: &SandboxPlan) -> Result<(), LaunchError> {
    let own = |port: u16| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    refused("binding an undeclared port", on(own(0), Attempt::Bind), Errno::ACCESS)?;
    let is_declared = |port: u16| {
        plan.listen.iter().any(|rule| rule.port == port)
            || plan.listeners.iter().any(|listener| listener.port == port)
    };
    let port = (1..u16::MAX).find(|port| !is_declared(*port));
    let connection = on(own(port.unwrap_or(0)), Attempt::Connect);
    refused("connecting to an undeclared port", connection, Errno::ACCESS)
}

fn refused(attempt: &str, result: Result<(), Errno>, expected: Errno) -> Result<(), LaunchError> {
    match result {
        Err(error) if error == expected => Ok(()),
        Err(error) => fail(Layer::Probe, format!("{attempt} was refused in an unexpected way: {error}")),
        Ok(()) => fail(Layer::Probe, format!("{attempt} is possible")),
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn read_again(file: &OwnedFd) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(drop)
}

enum Attempt {
    Bind,
    Connect,
}

fn on(address: SocketAddrV4, attempt: Attempt) -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    match attempt {
        Attempt::Bind => bind(&socket, &address),
        Attempt::Connect => connect(&socket, &address),
    }
}
