//! Processes: fork in a single-threaded program, exec, and the descriptors that come with a start.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

use crate::checked;

/// Which side of a [`fork`] the caller is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old process, with the id of the new one.
    Parent(Pid),
}

/// Whether the calling process has one thread: `/proc/self/task` then has one subdirectory, thus
/// three links. Needs a `/proc`.
pub fn is_single_threaded() -> io::Result<bool> {
    Ok(rustix::fs::stat("/proc/self/task")?.st_nlink == 3)
}

/// Forks a single-threaded process; an error, and no fork, if there are more threads.
///
/// With one thread no lock can be held by a thread that the child lacks, so the child may allocate
/// and call anything.
pub fn fork() -> io::Result<Fork> {
    if !is_single_threaded()? {
        return Err(io::Error::other("the process has more than one thread"));
    }
    // SAFETY: the process has one thread, hence the child starts in a consistent state.
    let pid = checked(unsafe { libc::fork() })?;
    match i32::try_from(pid).ok().and_then(Pid::from_raw) {
        None => Ok(Fork::Child),
        Some(pid) => Ok(Fork::Parent(pid)),
    }
}

/// Closes every descriptor above standard error but those of the given numbers, and takes these
/// over in the given order; they no longer survive exec. For the very start of a program, which
/// owns no descriptor yet: what else is open then was inherited by accident or by malice.
///
/// An error if a number is a standard stream's, is given twice, or is not open.
pub fn take_inherited(numbers: &[RawFd]) -> io::Result<Vec<OwnedFd>> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    if sorted.iter().any(|number| *number <= libc::STDERR_FILENO)
        || sorted.windows(2).any(|pair| pair.first() == pair.last())
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "descriptors are numbered from 3 and each is named once",
        ));
    }
    let mut first = libc::STDERR_FILENO + 1;
    for &number in &sorted {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = number.saturating_add(1);
    }
    close_range(first, RawFd::MAX)?;
    numbers.iter().map(|number| take(*number)).collect()
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: no memory is involved. No object of this program owns one of these descriptors yet,
    // by the condition of the caller.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Takes one open descriptor over.
fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved; a number that is not open is an error.
    checked(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the descriptor is open, and nothing else in this program owns it, by the condition of
    // the caller; each number is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Resets the execution domain to plain Linux, so that an inherited personality (no address space
/// randomisation, readable data is executable) does not reach what is executed next.
pub fn reset_personality() -> io::Result<()> {
    // SAFETY: the call takes a number and changes how later mappings are placed; 0 is the default.
    checked(unsafe { libc::personality(0) }).map(drop)
}

/// Replaces the program. Returns only if the kernel refuses.
pub fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Result<Infallible> {
    let argv = pointers(arguments);
    let envp = pointers(environment);
    // SAFETY: the program is a C string and both arrays are C strings with a null at the end; all
    // live until the call returns, if it does.
    let result = unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    match checked(result) {
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("execve returned without an error")),
    }
}

/// The null-terminated array that C expects. The strings outlive it.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}
