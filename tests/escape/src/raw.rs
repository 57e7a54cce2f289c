//! Raw system calls and instructions: the only unsafe module of the corpus.
#![allow(
    unsafe_code,
    reason = "an attempt passes what no safe wrapper would; this module is where that happens"
)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A system call by number. The caller passes pointers only to memory that outlives the call.
pub(crate) fn call(number: libc::c_long, arguments: [usize; 6]) -> Result<usize, i32> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: every caller in this crate passes plain numbers, null, or addresses of values that it
    // borrows until the call returns; calls that could disturb this process are refused by the
    // kernel, which is what the corpus verifies, or end it.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// A system call whose leading arguments matter.
pub(crate) fn call3(number: libc::c_long, a: usize, b: usize, c: usize) -> Result<usize, i32> {
    call(number, [a, b, c, 0, 0, 0])
}

/// The address of a text, as an argument.
pub(crate) fn text(text: &CStr) -> usize {
    text.as_ptr().addr()
}

/// The address of a value, as an argument.
pub(crate) fn address<T>(value: &T) -> usize {
    std::ptr::from_ref(value).addr()
}

/// `getpid` by the 32-bit entry.
pub(crate) fn getpid_by_int80() -> i32 {
    let result: i32;
    // SAFETY: getpid (20 on i386) touches no memory; the registers that the entry clobbers are
    // declared.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// Which side of a fork the caller is on.
pub(crate) enum Side {
    /// The new process.
    Child,
    /// The old one, with the id of the new one.
    Parent(i32),
}

/// Forks this single-threaded program.
pub(crate) fn fork() -> Result<Side, i32> {
    // SAFETY: the program has one thread.
    match unsafe { libc::fork() } {
        0 => Ok(Side::Child),
        pid if pid > 0 => Ok(Side::Parent(pid)),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}

/// Ends the process at once.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: ends the process without running anything of it.
    unsafe { libc::_exit(status) }
}

/// Waits for a child; its raw status.
pub(crate) fn wait(pid: i32) -> Result<i32, i32> {
    let mut status = 0;
    loop {
        // SAFETY: the status is exclusively borrowed.
        let result = unsafe { libc::waitpid(pid, std::ptr::from_mut(&mut status), 0) };
        match std::io::Error::last_os_error().raw_os_error() {
            _ if result >= 0 => return Ok(status),
            Some(libc::EINTR) => {}
            error => return Err(error.unwrap_or(0)),
        }
    }
}

/// Ends this process by SIGABRT with its default action.
pub(crate) fn abort() -> ! {
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

/// Adds a seccomp filter to the calling thread.
pub(crate) fn filter(steps: &[libc::sock_filter]) -> std::io::Result<()> {
    add_filter(steps, 0).map(drop)
}

/// Adds a filter that asks; what it asks is read from the descriptor.
pub(crate) fn asking_filter(steps: &[libc::sock_filter]) -> std::io::Result<OwnedFd> {
    let number = add_filter(steps, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let number = i32::try_from(number).map_err(std::io::Error::other)?;
    // SAFETY: the kernel has just made the descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn add_filter(steps: &[libc::sock_filter], flags: libc::c_ulong) -> std::io::Result<usize> {
    let length = u16::try_from(steps.len()).map_err(std::io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: steps.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which is valid for reading, during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    };
    usize::try_from(result).map_err(|_| std::io::Error::last_os_error())
}

/// Answers one question of an asking filter with a result.
pub(crate) fn answer(listener: &OwnedFd, result: i64) -> std::io::Result<()> {
    // SAFETY: a structure of numbers, for which zeros are valid; the kernel demands zeros.
    let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp) of linux/seccomp.h.
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    const SEND: libc::c_ulong = 0xc018_2101;
    // SAFETY: the kernel writes one structure, which is exclusively borrowed.
    if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, std::ptr::from_mut(&mut question)) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mut answer = libc::seccomp_notif_resp { id: question.id, val: result, error: 0, flags: 0 };
    // SAFETY: the kernel reads one structure.
    if unsafe { libc::ioctl(listener.as_raw_fd(), SEND, std::ptr::from_mut(&mut answer)) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
