//! The tables of the corpus: number, group, what is tried, what must happen, and the neighbour. That
//! of agents is here, that of steps of a build in [`steps`].

mod steps;

pub use steps::STEPS;

use crate::attempts::{Params, Step, exec, files, kernel, process, sockets, watch};
use crate::outcome::Expected;

/// One attempt and its allowed neighbour.
pub struct Attempt {
    /// The number in the corpus.
    pub number: u32,
    /// What is tried.
    pub name: &'static str,
    /// What must happen.
    pub expected: Expected,
    /// The attempt.
    pub run: fn(&Params) -> Step,
    /// What is allowed next to it.
    pub neighbour_name: &'static str,
    /// The allowed neighbour: it must work.
    pub neighbour: fn(&Params) -> Step,
}

/// The groups, each with the number of its last attempt.
pub const GROUPS: [(&str, u32); 4] =
    [("Files", 16), ("Exec", 21), ("Process and kernel", 37), ("Sockets", 47)];

/// The group of an attempt.
pub fn group(number: u32) -> &'static str {
    GROUPS.iter().find(|(_, last)| number <= *last).map_or("", |(name, _)| *name)
}

/// What this version does not hold, or not by the launcher alone: said, not hidden.
pub const LIMITS: [(&str, &str); 10] = [
    (
        "13, 14",
        "A file that host tools run (`.git/hooks`, `.envrc`) cannot be made below `file_read`. Below `file_write` it can: do not grant a directory for writing in which host tools run.",
    ),
    (
        "16",
        "Bytes and names of the workspace are bounded by limits.disk; an agent without that limit can fill the file system of /var/lib/aos-agents, and any agent that of what it is granted for writing. The size of /tmp and /dev/shm is bounded.",
    ),
    (
        "18",
        "The loader runs any ELF file that the agent can both read and map executable: files of its own package, and nothing of the host that is not granted. A file in memory (memfd) can be mapped executable too, like any code that a program makes itself. All of it stays in the same sandbox.",
    ),
    (
        "21",
        "An interpreter that may be executed runs scripts from anywhere that can be read, the workspace too.",
    ),
    (
        "33",
        "Processes are bounded by RLIMIT_NPROC here and by TasksMax= in the unit. Memory is bounded by the unit only.",
    ),
    (
        "38",
        "On kernels before 7.1 (Landlock ABI 9) a Unix socket below a granted directory can be connected to if its permissions allow it.",
    ),
    (
        "40",
        "Only the init inside the unit talks to systemd; the agent has no readiness protocol of its own in this version.",
    ),
    (
        "45",
        "listen(2) on a TCP socket that was never bound takes a random port: Landlock has no rule for that. It is reachable from nowhere: the network namespace has only its own loopback.",
    ),
    (
        "47",
        "Agents that share a directory for writing cannot make sockets there, so no descriptor passes; files and pipes there are shared as granted.",
    ),
    ("48-60", "The proxy does not exist in this version; `net:` is refused at the start."),
];

/// What differs in gVisor, whose kernel has no Landlock and files of its own in `/proc`, `/sys` and `/dev`: the
/// attempts that end otherwise there, and how. None of them reaches anything outside that kernel. A run in
/// gVisor demands every line of this table, and that everything else is refused.
pub const IN_GVISOR: [(&str, &str); 12] = [
    ("reach the host's root through /proc", "reads the empty environment of its own init, and no further"),
    ("make device nodes", "makes a node that opens nothing"),
    ("open devices of the host", "opens /dev/fuse of its own kernel, which cannot be mounted"),
    ("fill /tmp and /dev/shm: bytes and files", "bytes are bounded; files only by memory"),
    ("hand denied programs to the loader", "they are not there"),
    ("execute from memory", "refused; sealed files in memory do not exist"),
    ("trace, read and rob processes", "refused; process descriptors do not exist"),
    ("look at processes outside", "sees its own init"),
    ("real-time priority, negative nice", "sets a nice value that has no effect outside"),
    ("leave the control group", "sees /sys/fs/cgroup of its own kernel"),
    ("bind undeclared ports", "binds ports of its own loopback, which nothing else reaches"),
    ("make a socket where another agent writes too", "makes a socket that exists in its own kernel only"),
];

/// Neighbours that a virtual machine does not allow, and how each ends there: QEMU opens no special file of the host
/// for a guest. A run in one demands exactly this; the attempts themselves are refused as stated.
pub const IN_MACHINE: [(&str, i32, &str); 2] = [
    ("make a named pipe", libc::ENXIO, "named pipes are made in /tmp only"),
    ("a socket in the workspace", libc::ENXIO, "sockets are made in /tmp only"),
];

const FILE: Expected = Expected::Refused(&[libc::ENOENT, libc::EACCES]);
const DENIED: Expected = Expected::Refused(&[libc::EPERM]);
const ACCESS: Expected = Expected::Refused(&[libc::EACCES]);
const ABSENT: Expected = Expected::Refused(&[libc::ENOENT]);
const WRITE: Expected = Expected::Refused(&[libc::ENOENT, libc::EACCES, libc::EROFS]);

const fn attempt(
    number: u32,
    name: &'static str,
    expected: Expected,
    run: fn(&Params) -> Step,
    neighbour_name: &'static str,
    neighbour: fn(&Params) -> Step,
) -> Attempt {
    Attempt { number, name, expected, run, neighbour_name, neighbour }
}

/// Every attempt, in order.
#[rustfmt::skip]
pub static CORPUS: &[Attempt] = &[
    attempt(1, "read host secrets", FILE, files::read_secrets, "read a granted file", files::read_granted),
    attempt(2, "follow a symbolic link out of the workspace", FILE, files::follow_link_out, "follow a link to a granted file", files::follow_link_in),
    attempt(3, "climb out of a granted directory with ..", FILE, files::climb, "open beneath a granted directory", files::open_beneath),
    attempt(4, "hard-link a file from outside into the workspace", Expected::Refused(&[libc::EXDEV, libc::EPERM, libc::EACCES]), files::hard_link_in, "hard-link inside the workspace", files::hard_link),
    attempt(5, "rename across grants", Expected::Refused(&[libc::EXDEV, libc::EACCES]), files::rename_across, "rename inside the workspace", files::rename),
    attempt(6, "reach the host's root through /proc", FILE, files::proc_root, "read /proc/self/status", files::proc_self),
    attempt(7, "open a file by its handle", DENIED, files::open_by_handle, "open a file by its name", files::read_granted),
    attempt(8, "make device nodes", Expected::Refused(&[libc::EPERM, libc::EACCES]), files::make_device, "make a named pipe", files::make_pipe),
    attempt(9, "write to /usr, /etc, /proc/sys and the root", WRITE, files::write_system, "write to /tmp and the workspace", files::write_own),
    attempt(9, "change its package by the host's name for it", WRITE, files::by_host_name, "write to /tmp and the workspace", files::write_own),
    attempt(10, "open devices of the host", ABSENT, files::open_devices, "use null, zero, urandom and a pseudo-terminal", files::use_devices),
    attempt(11, "mount and unmount, old and new interface", DENIED, files::mounts, "ask for the file system's size", files::statfs),
    attempt(12, "chroot, pivot_root, setns", DENIED, files::change_root, "change the directory", files::change_directory),
    attempt(13, "plant hooks that host tools run, in a readable grant", WRITE, files::plant_hooks, "write below a writable grant", files::write_granted),
    attempt(14, "change a repository's configuration in a readable grant", Expected::Refused(&[libc::EACCES, libc::EROFS, libc::EXDEV]), files::change_repository, "make a repository in the workspace", files::own_repository),
    attempt(15, "make a set-user-id or set-group-id file", DENIED, watch::set_ids, "make a file executable", watch::executable_mode),
    attempt(16, "fill /tmp and /dev/shm: bytes and files", Expected::Refused(&[libc::ENOSPC]), files::fill, "write a megabyte to /tmp", files::write_megabyte),
    attempt(17, "execute a copy in writable places", ACCESS, exec::copies, "execute its own program", exec::run_self),
    attempt(17, "execute a copy in the workspace by the host's name for it", FILE, exec::by_host_name, "execute its own program", exec::run_self),
    attempt(18, "hand denied programs to the loader", ACCESS, exec::loader, "hand its own program to the loader", exec::loader_self),
    attempt(19, "execute from memory", ACCESS, exec::memory, "use a file in memory as data", exec::memory_data),
    attempt(20, "execute a denied program by another name", ACCESS, exec::aliases, "execute an allowed program by another name", exec::alias_allowed),
    attempt(21, "execute a script in the workspace", ACCESS, exec::script, "let a granted interpreter read it (documented)", exec::interpreter),
    attempt(22, "make user namespaces", Expected::Refused(&[libc::EPERM, libc::ENOSYS]), kernel::user_namespaces, "fork", process::fork_child),
    attempt(23, "trace, read and rob processes", DENIED, process::trace, "wait for a child through a pidfd", process::pidfd),
    attempt(24, "look at processes outside", ABSENT, process::look_outside, "look at a child", process::look_at_child),
    attempt(24, "watch what the host executes (inotify, dnotify)", Expected::Refused(&[libc::EAGAIN, libc::EPERM]), watch::watch_host, "watch its own directory", watch::watch_own),
    attempt(25, "signal processes outside, and the init", Expected::Refused(&[libc::EPERM, libc::ESRCH]), process::signal_outside, "signal a child", process::signal_child),
    attempt(26, "io_uring and asynchronous I/O", DENIED, kernel::rings, "epoll", kernel::epoll),
    attempt(27, "userfaultfd, bpf, perf", DENIED, kernel::tracing, "map memory", kernel::map_memory),
    attempt(28, "kernel keyrings", DENIED, kernel::keyrings, "random numbers", kernel::random),
    attempt(29, "32-bit and x32 system calls (int 0x80)", Expected::Killed, kernel::int80, "the same call in 64 bits", kernel::getpid),
    attempt(29, "32-bit and x32 system calls (x32)", Expected::Killed, kernel::x32, "the same call in 64 bits", kernel::getpid),
    attempt(30, "personality, modify_ldt", DENIED, kernel::personality, "the name of the kernel", kernel::uname),
    attempt(31, "type into terminals", DENIED, kernel::terminal_input, "ask a terminal for its size", kernel::terminal_size),
    attempt(32, "real-time priority, negative nice", Expected::Refused(&[libc::EPERM, libc::EACCES]), kernel::priorities, "raise the nice value", kernel::nicer),
    attempt(33, "fork without end", Expected::Refused(&[libc::EAGAIN]), process::fork_bomb, "fork a few", process::fork_few),
    attempt(34, "leave the control group", ABSENT, kernel::cgroup, "see its own as the root", kernel::own_cgroup),
    attempt(35, "raise the core limit; dump core", Expected::Refused(&[libc::EPERM]), process::core, "switch core dumps off", process::no_core),
    attempt(36, "read the kernel's log and symbols", Expected::Refused(&[libc::EPERM, libc::ENOENT]), kernel::kernel_log, "the name of the kernel", kernel::uname),
    attempt(37, "System V and POSIX queues of the host", ABSENT, kernel::host_ipc, "its own", kernel::own_ipc),
    attempt(38, "connect to system services", ABSENT, sockets::services, "a socket in the workspace", sockets::workspace_socket),
    attempt(39, "connect to an abstract socket of the host", Expected::Refused(&[libc::ECONNREFUSED, libc::EPERM]), sockets::host_abstract, "its own abstract socket", sockets::own_abstract),
    attempt(40, "speak to the service manager", Expected::Refused(&[libc::ENOENT, libc::ECONNREFUSED, libc::EPERM]), sockets::notify, "its environment", sockets::environment),
    attempt(41, "raw, packet, netlink, vsock, alg, xdp sockets", DENIED, sockets::families, "TCP, UDP and Unix sockets", sockets::common_sockets),
    attempt(42, "MPTCP and other protocols", DENIED, sockets::protocols, "TCP by number", sockets::tcp_by_number),
    attempt(43, "reach services on the host's loopback", Expected::Refused(&[libc::EACCES, libc::ECONNREFUSED]), sockets::host_loopback, "its own service on a declared port", sockets::own_service),
    attempt(44, "reach the network", Expected::Refused(&[libc::EACCES, libc::ENETUNREACH]), sockets::network, "UDP on its own loopback", sockets::own_udp),
    attempt(45, "bind undeclared ports", ACCESS, sockets::undeclared_ports, "bind the declared port", sockets::declared_port),
    attempt(46, "find inherited descriptors and variables", ABSENT, sockets::inherited, "its environment", sockets::environment),
    attempt(47, "make a socket where another agent writes too", ACCESS, sockets::shared_socket, "pass a descriptor inside", sockets::pass_descriptor),
];
