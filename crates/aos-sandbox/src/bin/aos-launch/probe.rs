//! Probes: attempts that must be refused, made by the process that becomes the agent after its
//! restrictions are in force. One that succeeds, or fails in another way, ends the launch.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use aos_sandbox::plan::ListenRule;
use aos_sys::namespace::{self, Kind};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Pid, test_kill_process};

use crate::error::{Context, LaunchError, Layer, fail};
use crate::tree::Tree;

/// An abstract socket's name; abstract names are the network namespace's own.
const ABSTRACT_NAME: &[u8] = b"aos-launch-probe";

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

    /// Tries what Landlock refuses.
    pub(crate) fn check_landlock(&self, listen: &[ListenRule]) -> Result<(), LaunchError> {
        refused("reading a file outside the grants", read_again(&self.tree.ungranted), Errno::ACCESS)?;
        refused("signalling the init", test_kill_process(Pid::INIT), Errno::PERM)?;
        let address = self.listener.local_addr().layer(Layer::Probe, "cannot find the probes' socket")?;
        let connection = UnixStream::connect_addr(&address).map(drop);
        refused("connecting to an abstract socket", connection.map_err(errno), Errno::PERM)?;
        refused("binding an undeclared port", on_loopback(0, Attempt::Bind), Errno::ACCESS)?;
        let port = (1..u16::MAX).find(|port| listen.iter().all(|rule| rule.port != *port));
        let connection = on_loopback(port.unwrap_or(0), Attempt::Connect);
        refused("connecting to an undeclared port", connection, Errno::ACCESS)
    }

    /// Tries what the system call filter refuses.
    pub(crate) fn check_seccomp(&self) -> Result<(), LaunchError> {
        let namespace = namespace::unshare(&[Kind::User]).map_err(errno);
        refused("making a user namespace", namespace, Errno::PERM)?;
        let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        refused("making a netlink socket", netlink.map(drop), Errno::PERM)
    }
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

fn on_loopback(port: u16, attempt: Attempt) -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    match attempt {
        Attempt::Bind => bind(&socket, &address),
        Attempt::Connect => connect(&socket, &address),
    }
}
