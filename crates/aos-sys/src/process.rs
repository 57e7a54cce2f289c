//! Processes: fork in a single-threaded program, exec, and the descriptors that come with a start.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;

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

/// Closes every descriptor above standard error. For the very start of a program, which owns no
/// descriptor yet: what is open then was inherited by accident or by malice.
pub fn close_inherited() -> io::Result<()> {
    let first: libc::c_uint = 3;
    // SAFETY: no memory is involved. No object of this program owns one of these descriptors yet,
    // by the condition above.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
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
