//! Signals for a small init: block all, wait for one, and give a program that is about to be
//! executed the defaults that it expects.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use rustix::process::Signal;

use crate::checked;

/// Blocks every signal that can be blocked. They stay pending until [`wait`] takes them; pid 1 of a
/// pid namespace, too, receives a signal that is blocked.
pub fn block_all() -> io::Result<()> {
    let set = full_set()?;
    set_mask(&set)
}

/// Waits for the next pending signal and takes it.
pub fn wait() -> io::Result<Signal> {
    let set = full_set()?;
    loop {
        // SAFETY: the set is initialised; a null info pointer asks for the number only.
        let number = unsafe { libc::sigwaitinfo(std::ptr::from_ref(&set), std::ptr::null_mut()) };
        match checked(number) {
            Ok(_) => return from_number(number),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Has SIGIO sent to the calling process when a descriptor becomes readable, and reading from it not
/// wait. Both are for good, and for all who share the descriptor.
pub fn when_readable(descriptor: impl AsFd) -> io::Result<()> {
    let number = descriptor.as_fd().as_raw_fd();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: no memory is involved; the descriptor is borrowed for the call.
    checked(unsafe { libc::fcntl(number, libc::F_SETOWN, own) })?;
    // SAFETY: as above.
    checked(unsafe { libc::fcntl(number, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK) }).map(drop)
}

/// Sends SIGKILL to every other process of the pid namespace whose init the calling one is; an error
/// if it is none. That there is no other process is no error.
pub fn kill_all_others() -> io::Result<()> {
    if !rustix::process::getpid().is_init() {
        return Err(io::Error::other("only an init ends all others"));
    }
    // SAFETY: no memory is involved; -1 means every process but pid 1.
    match checked(unsafe { libc::kill(-1, libc::SIGKILL) }) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map(drop),
    }
}

/// Sets every signal to its default action and unblocks all, as a program expects that is executed
/// next: an ignored signal would stay ignored (the Rust runtime ignores SIGPIPE).
pub fn reset_for_exec() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        if number == libc::SIGKILL || number == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the default action involves no handler of ours. The two numbers that the C
        // library keeps for itself are refused with EINVAL and stay at their default.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let set = empty_set()?;
    set_mask(&set)
}

/// The signal of a number that the kernel reported. Standard and real-time numbers alike.
fn from_number(number: i32) -> io::Result<Signal> {
    if (1..=64).contains(&number) {
        // SAFETY: the number is a valid signal on Linux (1 to 64), reported as pending; one that
        // the C library reserves is only ever passed on, never handled.
        Ok(unsafe { Signal::from_raw_unchecked(number) })
    } else {
        Err(io::Error::other("the kernel reported a signal number outside 1 to 64"))
    }
}

fn full_set() -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing one set.
    checked(unsafe { libc::sigfillset(set.as_mut_ptr()) })?;
    // SAFETY: sigfillset initialised it.
    Ok(unsafe { set.assume_init() })
}

fn empty_set() -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing one set.
    checked(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
    // SAFETY: sigemptyset initialised it.
    Ok(unsafe { set.assume_init() })
}

fn set_mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised and the old mask is not asked for.
    checked(unsafe { libc::sigprocmask(libc::SIG_SETMASK, std::ptr::from_ref(set), std::ptr::null_mut()) })
        .map(drop)
}
