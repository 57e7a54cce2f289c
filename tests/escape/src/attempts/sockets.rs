//! Attempts 38 to 47: sockets, descriptors and the environment.

use std::fs;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::{PORT, Params, Refusal, Step, all_refused, ensure, other, part};
use crate::raw::call3;

pub(crate) fn services(params: &Params) -> Step {
    let paths = [
        "/run/dbus/system_bus_socket",
        "/run/systemd/private",
        "/run/systemd/notify",
        "/run/systemd/journal/socket",
        "/run/systemd/io.systemd.sysext",
        "/run/systemd/userdb/io.systemd.Multiplexer",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/user/0/bus",
        "/tmp/.X11-unix/X0",
        &params.host_socket,
    ];
    all_refused(paths.map(|path| part(path, UnixStream::connect(path))))
}

pub(crate) fn workspace_socket(_: &Params) -> Step {
    let path = Path::new("/workspace/socket");
    if path.exists() {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    talk(UnixStream::connect(path)?, listener.accept()?.0)
}

/// One byte from one end to the other.
fn talk(mut from: impl Write, mut to: impl Read) -> Step {
    from.write_all(b"x")?;
    let mut byte = [0; 1];
    to.read_exact(&mut byte)?;
    ensure(byte == *b"x", "another byte")
}

fn abstract_address(name: &str) -> Result<SocketAddr, Refusal> {
    Ok(SocketAddr::from_abstract_name(name)?)
}

pub(crate) fn host_abstract(params: &Params) -> Step {
    let address = abstract_address(&params.abstract_name)?;
    all_refused([
        part("stream", UnixStream::connect_addr(&address).map(drop)),
        part("datagram", UnixDatagram::unbound()?.connect_addr(&address)),
    ])
}

pub(crate) fn own_abstract(_: &Params) -> Step {
    let address = abstract_address("own")?;
    let listener = UnixListener::bind_addr(&address)?;
    talk(UnixStream::connect_addr(&address)?, listener.accept()?.0)
}

pub(crate) fn notify(params: &Params) -> Step {
    if std::env::vars_os().any(|(name, _)| name == "NOTIFY_SOCKET") {
        return other("NOTIFY_SOCKET is set");
    }
    let socket = UnixDatagram::unbound()?;
    let message = b"MAINPID=1\nSTATUS=spoofed\n";
    all_refused([
        part("by its usual path", socket.send_to(message, "/run/systemd/notify")),
        part("by its name", socket.send_to_addr(message, &abstract_address(&params.notify_name)?)),
    ])
}

/// Exactly the variables that the plan has.
pub(crate) fn environment(_: &Params) -> Step {
    let known = ["AOS_AGENT_ID", "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "USER"];
    let names: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    ensure(
        names.len() == known.len() && names.iter().all(|name| known.contains(&name.as_str())),
        &names.join(" "),
    )
}

pub(crate) fn families(_: &Params) -> Step {
    let raw = 3;
    let kinds = [
        ("raw IPv4", 2, raw, 1),
        ("raw IPv6", 10, raw, 58),
        ("raw IPv4 with flags", 2, raw | 0o2_000_000, 255),
        ("packet", 17, raw, 0),
        ("netlink", 16, raw, 0),
        ("netlink audit", 16, raw, 9),
        ("vsock", 40, 1, 0),
        ("alg", 38, 5, 0),
        ("xdp", 44, raw, 0),
        ("bluetooth", 31, raw, 1),
        ("can", 29, raw, 1),
        ("tipc", 30, 1, 0),
        ("qipcrtr", 42, 2, 0),
        ("key", 15, raw, 2),
    ];
    all_refused(
        kinds.map(|(name, family, kind, protocol)| {
            part(name, call3(libc::SYS_socket, family, kind, protocol))
        }),
    )
}

pub(crate) fn common_sockets(_: &Params) -> Step {
    for (family, kind) in [(1, 1), (1, 2), (1, 5), (2, 1), (2, 2), (10, 1), (10, 2)] {
        call3(libc::SYS_socket, family, kind, 0)?;
    }
    Ok(())
}

pub(crate) fn protocols(_: &Params) -> Step {
    let kinds = [
        ("MPTCP", 2, 1, 262),
        ("MPTCP IPv6", 10, 1, 262),
        ("SCTP", 2, 1, 132),
        ("SMC", 2, 1, 256),
        ("UDP-Lite", 2, 2, 136),
        ("ping", 2, 2, 1),
    ];
    all_refused(
        kinds.map(|(name, family, kind, protocol)| {
            part(name, call3(libc::SYS_socket, family, kind, protocol))
        }),
    )
}

pub(crate) fn tcp_by_number(_: &Params) -> Step {
    call3(libc::SYS_socket, 2, 1, 6)?;
    call3(libc::SYS_socket, 10, 2, 17)?;
    Ok(())
}

pub(crate) fn host_loopback(params: &Params) -> Step {
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    udp.connect(("127.0.0.1", params.host_port))?;
    // The first datagram meets nobody; the second hears of it.
    let datagram = udp.send(b"x").and_then(|_| udp.send(b"x"));
    all_refused([
        part("IPv4", TcpStream::connect(("127.0.0.1", params.host_port)).map(drop)),
        part("IPv6", TcpStream::connect(("::1", params.host_port)).map(drop)),
        part("UDP", datagram.map(drop)),
    ])
}

pub(crate) fn own_service(_: &Params) -> Step {
    let listener = TcpListener::bind(("127.0.0.1", PORT))?;
    talk(TcpStream::connect(("127.0.0.1", PORT))?, listener.accept()?.0)
}

pub(crate) fn network(_: &Params) -> Step {
    let udp = UdpSocket::bind("0.0.0.0:0")?;
    all_refused([
        part("TCP", TcpStream::connect("1.1.1.1:80").map(drop)),
        part("TCP to the declared port", TcpStream::connect(("192.0.2.1", PORT)).map(drop)),
        part("metadata", TcpStream::connect("169.254.169.254:80").map(drop)),
        part("UDP", udp.send_to(b"x", "8.8.8.8:53").map(drop)),
        part("UDP to the metadata", udp.send_to(b"x", "169.254.169.254:80").map(drop)),
    ])
}

pub(crate) fn own_udp(_: &Params) -> Step {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    sender.send_to(b"x", receiver.local_addr()?)?;
    let mut byte = [0; 1];
    receiver.recv(&mut byte)?;
    ensure(byte == *b"x", "another byte")
}

pub(crate) fn undeclared_ports(_: &Params) -> Step {
    let addresses = ["127.0.0.1:0", "127.0.0.1:8081", "0.0.0.0:8079", "[::1]:8081", "[::]:0"];
    all_refused(addresses.map(|address| part(address, TcpListener::bind(address))))
}

pub(crate) fn declared_port(_: &Params) -> Step {
    TcpListener::bind(("0.0.0.0", PORT))?;
    Ok(())
}

pub(crate) fn inherited(_: &Params) -> Step {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = fs::read_link(entry.path())?;
        // The listing itself is open on `/proc/<pid>/fd`.
        let is_listing = target.starts_with("/proc") && target.ends_with("fd");
        if !["0", "1", "2"].iter().any(|name| entry.file_name() == *name) && !is_listing {
            found.push(target.display().to_string());
        }
    }
    if !found.is_empty() {
        return other(format!("open: {}", found.join(" ")));
    }
    match std::env::vars_os().find(|(name, _)| name.to_string_lossy().contains("SECRET")) {
        Some((name, _)) => other(format!("{} is set", name.display())),
        None => Err(Refusal::Errors(vec![libc::ENOENT])),
    }
}

pub(crate) fn shared_socket(params: &Params) -> Step {
    let path = Path::new(&params.writable).join("socket");
    all_refused([
        part("stream", UnixListener::bind(&path).map(drop)),
        part("datagram", UnixDatagram::bind(&path).map(drop)),
    ])
}

pub(crate) fn pass_descriptor(_: &Params) -> Step {
    let (from, to) = UnixStream::pair()?;
    let file = fs::File::open("/dev/null")?;
    let descriptors = [std::os::fd::AsFd::as_fd(&file)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut out = SendAncillaryBuffer::new(&mut space);
    ensure(out.push(SendAncillaryMessage::ScmRights(&descriptors)), "no space")?;
    sendmsg(&from, &[IoSlice::new(b"x")], &mut out, SendFlags::empty())?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut received = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    recvmsg(&to, &mut [IoSliceMut::new(&mut byte)], &mut received, RecvFlags::empty())?;
    let has_descriptor =
        received.drain().any(|message| matches!(message, RecvAncillaryMessage::ScmRights(_)));
    ensure(has_descriptor, "no descriptor came")
}
