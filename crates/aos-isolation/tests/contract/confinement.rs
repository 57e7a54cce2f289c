//! The process itself: user, capabilities, system calls, network, and what it sees of others.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use aos_isolation::backend::Backend;

use crate::bed::Bed;

pub(crate) fn the_user(bed: &Bed) {
    let script = "
import os, pwd
print(os.getuid(), os.geteuid(), os.getgid(), os.getegid(), pwd.getpwuid(os.getuid()).pw_name)
print(sorted(set(os.getgroups()) - {os.getgid(), 65534}))
try:
    os.setuid(0)
    print('root')
except OSError:
    print('stays')
print(os.stat('/workspace').st_uid == os.getuid())
";
    let uid = bed.uid;
    assert_eq!(bed.succeed(script, &[]), format!("{uid} {uid} {uid} {uid} aos-contract\n[]\nstays\nTrue\n"));
}

pub(crate) fn no_capability(bed: &Bed) {
    let script = "
import ctypes
for line in open('/proc/self/status'):
    name, _, value = line.partition(':')
    if name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'Seccomp'):
        print(name, int(value, 16))
print('NoNewPrivs', ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))
";
    assert_eq!(bed.succeed(script, &[]), "CapInh 0\nCapPrm 0\nCapEff 0\nCapBnd 0\nSeccomp 2\nNoNewPrivs 1\n");
}

/// Calls by number, with the error that each has to end with.
pub(crate) fn system_calls(bed: &Bed) {
    let script = "
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    ctypes.set_errno(0)
    return 'done' if libc.syscall(*arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
print('mount', call(165, b'none', b'/tmp', b'tmpfs', 0, None))
print('unshare', call(272, 0x10000000))
print('ptrace', call(101, 16, 1, 0, 0))
print('keyctl', call(250, 0, -3, 0))
print('bpf', call(321, 0, 0, 0))
print('io_uring', call(425, 1, 0))
print('userfaultfd', call(323, 0))
print('netlink', call(41, 16, 3, 0))
print('vsock', call(41, 40, 1, 0))
print('mptcp', call(41, 2, 1, 262))
print('clone3', call(435, 0, 0))
print('unknown', call(9999))
print('getpid', call(39))
";
    let wanted = "mount EPERM\nunshare EPERM\nptrace EPERM\nkeyctl EPERM\nbpf EPERM\nio_uring EPERM\nuserfaultfd EPERM\nnetlink EPERM\nvsock EPERM\nmptcp EPERM\nclone3 ENOSYS\nunknown ENOSYS\ngetpid done\n";
    assert_eq!(bed.succeed(script, &[]), wanted);
}

pub(crate) fn no_network(bed: &Bed) {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = service.local_addr().unwrap().port();
    let name = format!("aos-contract-host-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let script = format!(
        "
import socket, threading
print([name for _, name in socket.if_nameindex()] if False else 'skip')
def connect(address, family=socket.AF_INET):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(5)
            s.connect(address)
        return 'connected'
    except OSError:
        return 'refused'
print(connect(('127.0.0.1', {port})), connect(('192.0.2.1', 80)), connect(('169.254.169.254', 80)))
print(connect('\\0{name}', socket.AF_UNIX))
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(('127.0.0.1', 8080))
server.listen()
print(connect(('127.0.0.1', 8080)))
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    datagram.sendto(b'x', ('192.0.2.1', 53))
    print('sent')
except OSError:
    print('unreachable')
"
    );
    let wanted = "skip\nrefused refused refused\nrefused\nconnected\nunreachable\n";
    assert_eq!(bed.succeed(&script, &["listen: 8080"]), wanted);
    // Where the host's kernel serves the agent, ports that are not declared cannot be bound either.
    let script = "
import errno, socket
try:
    socket.socket().bind(('127.0.0.1', 8081))
    print('bound')
except OSError as error:
    print(errno.errorcode[error.errno])
";
    let wanted = if bed.backend == Backend::Gvisor { "bound\n" } else { "EACCES\n" };
    assert_eq!(bed.succeed(script, &[]), wanted);
}

pub(crate) fn no_process_of_the_host(bed: &Bed) {
    let script = "
import os
print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit() and int(name) != 1) == [os.getpid()])
print(os.getpid() < 10)
def kill(pid):
    try:
        os.kill(pid, 0)
        return 'reached'
    except OSError:
        return 'nobody'
print(kill(HOST))
";
    let script = script.replace("HOST", &std::process::id().to_string());
    assert_eq!(bed.succeed(&script, &[]), "True\nTrue\nnobody\n");
}

pub(crate) fn the_host_name(bed: &Bed) {
    let script = "import socket; print(socket.gethostname(), open('/etc/hostname').read().strip())";
    assert_eq!(bed.succeed(script, &[]), "contract contract\n");
}
