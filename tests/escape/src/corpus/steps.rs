//! The table of a step of a build.

use super::{ABSENT, Attempt, DENIED, FILE, attempt};
use crate::attempts::{exec, files, kernel, process, sockets, steps, watch};
use crate::outcome::Expected;

/// Every attempt of a step, in order. `from: host`, offline, one layer below, a cache and a secret.
#[rustfmt::skip]
pub static STEPS: &[Attempt] = &[
    attempt(1, "read files of the host", FILE, steps::read_secrets, "read a file of the layer below", steps::read_layer),
    attempt(2, "write to layers, caches and /usr by the host's names", Expected::Refused(&[libc::ENOENT, libc::EACCES, libc::EROFS]), steps::write_host, "change, make and remove files of its root", steps::write_layer),
    attempt(3, "write to /sys, /proc, /dev and /workspace", Expected::Refused(&[libc::ENOENT, libc::EACCES, libc::EROFS]), steps::write_made, "write to /tmp, /run, /root and the root", steps::write_own),
    attempt(4, "follow links out of its root", FILE, steps::links, "follow a link inside", steps::link_inside),
    attempt(5, "reach the host's root through /proc", FILE, files::proc_root, "read /proc/self/status", files::proc_self),
    attempt(6, "open a file by its handle", DENIED, steps::by_handle, "open a file by its name", steps::read_layer),
    attempt(7, "make device nodes and whiteouts", ABSENT, steps::devices, "make a named pipe", steps::pipe),
    attempt(8, "mount and unmount, old and new interface", DENIED, files::mounts, "ask for the file system's size", files::statfs),
    attempt(9, "chroot, pivot_root, setns", DENIED, files::change_root, "change the directory", files::change_directory),
    attempt(10, "use a capability of its uid 0", Expected::Refused(&[libc::EPERM, libc::EACCES, libc::EOPNOTSUPP]), steps::capabilities, "change owners and users in name only", steps::pretended),
    attempt(11, "gain by a set-user-id program", DENIED, steps::set_ids, "execute what it wrote", steps::run_written),
    attempt(12, "write from the cache to elsewhere", Expected::Refused(&[libc::ENOENT, libc::EXDEV, libc::EBUSY]), steps::cache_out, "write in the cache", steps::cache_in),
    attempt(13, "change or replace a secret", Expected::Refused(&[libc::EROFS, libc::EACCES, libc::EXDEV]), steps::change_secret, "read the secret", steps::read_secret),
    attempt(14, "forge the union's own attributes", Expected::Refused(&[libc::EPERM, libc::EOPNOTSUPP]), steps::forge_union, "set an attribute of its own", steps::own_attribute),
    attempt(15, "make user namespaces", Expected::Refused(&[libc::EPERM, libc::ENOSYS]), kernel::user_namespaces, "fork", process::fork_child),
    attempt(16, "trace, read and rob processes", DENIED, process::trace, "wait for a child through a pidfd", process::pidfd),
    attempt(17, "look at processes outside", ABSENT, process::look_outside, "look at a child", process::look_at_child),
    attempt(18, "signal processes outside, and the init", Expected::Refused(&[libc::EPERM, libc::ESRCH]), process::signal_outside, "signal a child", process::signal_child),
    attempt(19, "fork without end", Expected::Refused(&[libc::EAGAIN]), steps::fork_bomb, "fork a few", process::fork_few),
    attempt(20, "leave the control group", ABSENT, steps::control_group, "see its own as the root", kernel::own_cgroup),
    attempt(21, "io_uring and asynchronous I/O", DENIED, kernel::rings, "epoll", kernel::epoll),
    attempt(22, "userfaultfd, bpf, perf", DENIED, kernel::tracing, "map memory", kernel::map_memory),
    attempt(23, "kernel keyrings", DENIED, kernel::keyrings, "random numbers", kernel::random),
    attempt(24, "32-bit and x32 system calls (int 0x80)", Expected::Killed, kernel::int80, "the same call in 64 bits", kernel::getpid),
    attempt(24, "32-bit and x32 system calls (x32)", Expected::Killed, kernel::x32, "the same call in 64 bits", kernel::getpid),
    attempt(25, "personality, modify_ldt", DENIED, kernel::personality, "the name of the kernel", kernel::uname),
    attempt(26, "type into terminals", DENIED, kernel::terminal_input, "ask a terminal for its size", kernel::terminal_size),
    attempt(27, "real-time priority, negative nice", Expected::Refused(&[libc::EPERM, libc::EACCES]), kernel::priorities, "raise the nice value", kernel::nicer),
    attempt(28, "raise the core limit; dump core", DENIED, process::core, "switch core dumps off", process::no_core),
    attempt(29, "read the kernel's log and symbols", Expected::Refused(&[libc::EPERM, libc::ENOENT]), kernel::kernel_log, "the name of the kernel", kernel::uname),
    attempt(30, "System V and POSIX queues of the host", ABSENT, kernel::host_ipc, "its own", kernel::own_ipc),
    attempt(31, "connect to system services", ABSENT, sockets::services, "an abstract socket of its own", sockets::own_abstract),
    attempt(32, "connect to an abstract socket of the host", Expected::Refused(&[libc::ECONNREFUSED, libc::EPERM]), sockets::host_abstract, "an abstract socket of its own", sockets::own_abstract),
    attempt(33, "raw, packet, netlink, vsock, alg, xdp sockets", Expected::Refused(&[libc::EPERM, libc::EAFNOSUPPORT]), sockets::families, "TCP, UDP and Unix sockets", sockets::common_sockets),
    attempt(34, "MPTCP and other protocols", DENIED, sockets::protocols, "TCP by number", sockets::tcp_by_number),
    attempt(35, "reach services on the host's loopback", Expected::Refused(&[libc::ECONNREFUSED]), sockets::host_loopback, "a server and client on its own", steps::own_loopback),
    attempt(36, "reach the network and a resolver without `net`", Expected::Refused(&[libc::ENETUNREACH, libc::ECONNREFUSED]), steps::network, "a server and client on its own", steps::own_loopback),
    attempt(37, "find inherited descriptors and variables", ABSENT, sockets::inherited, "its environment", steps::environment),
    attempt(38, "watch what the host executes (inotify, dnotify)", Expected::Refused(&[libc::EAGAIN, libc::EPERM]), watch::watch_host, "execute its own program", exec::run_self),
];
