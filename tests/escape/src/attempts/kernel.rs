//! Attempts 22, 26 to 32, 34, 36 and 37: the kernel's wider interface.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};

use rustix::event::epoll;
use rustix::rand::{GetRandomFlags, getrandom};

use super::exec::owned;
use super::{Params, Refusal, Step, all_refused, c, ensure, other, part};
use crate::raw::{self, address, call, call3, text};

fn fd(number: RawFd) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(crate) fn user_namespaces(_: &Params) -> Step {
    // NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
    let kinds = [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    let mut parts: Vec<_> = kinds
        .iter()
        .map(|kind| part(format!("unshare {kind:#x}"), call3(libc::SYS_unshare, *kind, 0, 0)))
        .collect();
    let clone = call3(libc::SYS_clone, 0x1000_0000 | 17, 0, 0);
    if clone == Ok(0) {
        raw::exit(0);
    }
    parts.push(part("clone", clone));
    let arguments: [u64; 11] = [0x1000_0000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0];
    let clone3 = call3(libc::SYS_clone3, address(&arguments), size_of_val(&arguments), 0);
    if clone3 == Ok(0) {
        raw::exit(0);
    }
    parts.push(part("clone3", clone3));
    all_refused(parts)
}

pub(crate) fn rings(_: &Params) -> Step {
    let parameters = [0_u64; 32];
    all_refused([
        part("io_uring_setup", call3(libc::SYS_io_uring_setup, 8, address(&parameters), 0)),
        part("io_uring_register", call3(libc::SYS_io_uring_register, 0, 0, 0)),
        part("io_setup", call3(libc::SYS_io_setup, 8, address(&parameters), 0)),
    ])
}

pub(crate) fn epoll(_: &Params) -> Step {
    epoll::create(epoll::CreateFlags::CLOEXEC)?;
    Ok(())
}

pub(crate) fn tracing(_: &Params) -> Step {
    let attributes = [0_u64; 16];
    all_refused([
        part("userfaultfd", call3(libc::SYS_userfaultfd, 1, 0, 0)),
        part("bpf", call3(libc::SYS_bpf, 0, address(&attributes), size_of_val(&attributes))),
        part(
            "perf_event_open",
            call(libc::SYS_perf_event_open, [address(&attributes), 0, usize::MAX, usize::MAX, 0, 0]),
        ),
        part("fanotify_init", call3(libc::SYS_fanotify_init, 0, 0, 0)),
    ])
}

pub(crate) fn map_memory(_: &Params) -> Step {
    // Private, anonymous, readable and writable.
    let size = 4096;
    let start = call(libc::SYS_mmap, [0, size, 3, 0x22, usize::MAX, 0])?;
    call3(libc::SYS_munmap, start, size, 0)?;
    Ok(())
}

pub(crate) fn keyrings(_: &Params) -> Step {
    let (kind, name) = (c("user")?, c("aos-escape")?);
    all_refused([
        part("keyctl", call3(libc::SYS_keyctl, 0, 0, 0)),
        part(
            "add_key",
            call(libc::SYS_add_key, [text(&kind), text(&name), text(&name), 3, usize::MAX - 3, 0]),
        ),
        part("request_key", call(libc::SYS_request_key, [text(&kind), text(&name), 0, 0, 0, 0])),
    ])
}

pub(crate) fn random(_: &Params) -> Step {
    let mut bytes = [0_u8; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    ensure(bytes != [0; 16], "all zero")
}

pub(crate) fn int80(_: &Params) -> Step {
    other(format!("getpid by int 0x80 returned {}", raw::getpid_by_int80()))
}

pub(crate) fn x32(_: &Params) -> Step {
    call3(libc::SYS_getpid | 0x4000_0000, 0, 0, 0)?;
    Ok(())
}

pub(crate) fn getpid(_: &Params) -> Step {
    call3(libc::SYS_getpid, 0, 0, 0)?;
    Ok(())
}

pub(crate) fn personality(_: &Params) -> Step {
    let descriptor = [0_u32; 4];
    all_refused([
        part("read implies exec", call3(libc::SYS_personality, 0x40_0000, 0, 0)),
        part("no randomisation", call3(libc::SYS_personality, 0x4_0000, 0, 0)),
        part("modify_ldt", call3(libc::SYS_modify_ldt, 1, address(&descriptor), size_of_val(&descriptor))),
        part("mbind", call(libc::SYS_mbind, [0; 6])),
    ])
}

pub(crate) fn uname(_: &Params) -> Step {
    ensure(!rustix::system::uname().release().is_empty(), "no release")
}

/// A pseudo-terminal of the agent's own: both ends.
fn terminal() -> Result<(File, File), Refusal> {
    let leader = OpenOptions::new().read(true).write(true).open("/dev/ptmx")?;
    let (unlock, number) = (0_i32, 0_u32);
    call3(libc::SYS_ioctl, fd(leader.as_raw_fd()), 0x4004_5431, address(&unlock))?;
    call3(libc::SYS_ioctl, fd(leader.as_raw_fd()), 0x8004_5430, address(&number))?;
    // O_NOCTTY: the terminal becomes nobody's controlling terminal.
    let path = c(&format!("/dev/pts/{}", read_back(&number)))?;
    let at = usize::try_from(libc::AT_FDCWD).unwrap_or(usize::MAX);
    let follower = call(libc::SYS_openat, [at, text(&path), 0o402, 0, 0, 0])?;
    Ok((leader, File::from(owned(follower)?)))
}

/// The value behind an address that the kernel has written to.
fn read_back(value: &u32) -> u32 {
    std::hint::black_box(*value)
}

pub(crate) fn terminal_input(_: &Params) -> Step {
    let (leader, follower) = terminal()?;
    let byte = b'x';
    let inject =
        |file: &File, request: usize| call3(libc::SYS_ioctl, fd(file.as_raw_fd()), request, address(&byte));
    all_refused([
        part("TIOCSTI", inject(&follower, 0x5412)),
        part("TIOCSTI with high bits", inject(&follower, 0x1_0000_5412)),
        part("TIOCSTI on the other end", inject(&leader, 0x5412)),
        part("TIOCLINUX", inject(&follower, 0x541c)),
        part("TIOCSETD", inject(&follower, 0x5423)),
    ])
}

pub(crate) fn terminal_size(_: &Params) -> Step {
    let (_leader, follower) = terminal()?;
    rustix::termios::tcgetwinsize(&follower)?;
    Ok(())
}

pub(crate) fn priorities(_: &Params) -> Step {
    let priority = 1_i32;
    let nice = usize::MAX - 4;
    all_refused([
        part("SCHED_FIFO", call3(libc::SYS_sched_setscheduler, 0, 1, address(&priority))),
        part("SCHED_RR", call3(libc::SYS_sched_setscheduler, 0, 2, address(&priority))),
        part("nice -5", call3(libc::SYS_setpriority, 0, 0, nice)),
    ])
}

pub(crate) fn nicer(_: &Params) -> Step {
    // The raw call returns 20 minus the nice value.
    let nice = 20 - i64::try_from(call3(libc::SYS_getpriority, 0, 0, 0)?).unwrap_or(20);
    let nicer = usize::try_from((nice + 1).min(19)).unwrap_or_default();
    call3(libc::SYS_setpriority, 0, 0, nicer)?;
    Ok(())
}

pub(crate) fn cgroup(_: &Params) -> Step {
    let paths = ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup", "/sys/fs/cgroup/memory/tasks", "/sys"];
    all_refused(paths.map(|path| part(path, File::open(path))))
}

pub(crate) fn own_cgroup(_: &Params) -> Step {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    // In a unit the agent has a leaf of the unit's group, beside those of the calls inside it.
    let is_own = |line: &str| line.ends_with(":/") || line == "0::/agent";
    ensure(text.lines().all(is_own), &format!("not at the root: {text}"))
}

pub(crate) fn kernel_log(_: &Params) -> Step {
    let buffer = [0_u8; 64];
    let mut parts = vec![part("syslog", call3(libc::SYS_syslog, 3, address(&buffer), 64)).1.map(drop)];
    let paths =
        ["/dev/kmsg", "/proc/kmsg", "/proc/kallsyms", "/proc/kcore", "/proc/modules", "/proc/config.gz"];
    parts.extend(paths.map(|path| File::open(path).map(drop).map_err(Refusal::from)));
    all_refused(parts.into_iter().map(|result| ("the kernel's log and symbols".to_owned(), result)))
}

pub(crate) fn host_ipc(params: &Params) -> Step {
    let key = usize::try_from(params.shm_key).unwrap_or_default();
    let name = c(&params.queue_name)?;
    all_refused([
        part("shared memory", call3(libc::SYS_shmget, key, 0, 0)),
        part("message queue", call(libc::SYS_mq_open, [text(&name), 0, 0, 0, 0, 0])),
    ])
}

pub(crate) fn own_ipc(_: &Params) -> Step {
    let segment = call3(libc::SYS_shmget, 0, 4096, 0o1600)?;
    call3(libc::SYS_shmctl, segment, 0, 0)?;
    Ok(())
}
