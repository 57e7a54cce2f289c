//! Processes: fork in a single-threaded program, exec, and the descriptors that come with a start.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::process::Pid;

use crate::checked;

/// Defines the entry of a program: `$launch`, a function that takes the arguments, the program's name
/// first, as `Vec<OsString>` and returns the exit status as `u8`, directly under the C library, without what the standard library does before
/// `main`: it reads the memory map for a stack guard of its own, installs handlers that report a
/// stack overflow, ignores SIGPIPE, and opens `/dev/null` for standard streams that are closed. Where
/// that C library is musl, `std::env::args_os` is empty. The crate has the attribute `no_main`.
#[macro_export]
macro_rules! plain_main {
    ($launch:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main(
            count: ::core::ffi::c_int,
            arguments: *const *const ::core::ffi::c_char,
        ) -> ::core::ffi::c_int {
            // SAFETY: the C library calls this function, and with its arguments.
            let status: u8 = $launch(unsafe { $crate::process::arguments(count, arguments) });
            ::core::ffi::c_int::from(status)
        }
    };
}

/// The arguments that the C library passes to `main`.
///
/// # Safety
/// `first` points to `count` pointers to C strings.
pub unsafe fn arguments(count: libc::c_int, first: *const *const libc::c_char) -> Vec<OsString> {
    (0..usize::try_from(count).unwrap_or(0))
        .map(|index| {
            // SAFETY: the index is below the count, by the condition of the caller.
            let argument = unsafe { *first.wrapping_add(index) };
            // SAFETY: it is a C string, by the condition of the caller.
            let argument = unsafe { CStr::from_ptr(argument) };
            OsStr::from_bytes(argument.to_bytes()).to_owned()
        })
        .collect()
}

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

/// As [`fork`], with the child in the control group whose open directory is given: from its first instruction on,
/// and without the wait that moving a process takes. The kernel demands what a move demands.
pub fn fork_into(group: impl AsFd) -> io::Result<Fork> {
    if !is_single_threaded()? {
        return Err(io::Error::other("the process has more than one thread"));
    }
    let arguments = CloneArguments {
        flags: CLONE_INTO_CGROUP,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup: u64::from(group.as_fd().as_raw_fd().unsigned_abs()),
        ..CloneArguments::default()
    };
    // SAFETY: without flags that share, the child has a copy of everything, as after fork(2); the process has one
    // thread, so no lock is held that the child would wait for. The arguments are valid for the call.
    let pid = checked(unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), size_of::<CloneArguments>())
    })?;
    match i32::try_from(pid).ok().and_then(Pid::from_raw) {
        None => Ok(Fork::Child),
        Some(pid) => Ok(Fork::Parent(pid)),
    }
}

/// `CLONE_INTO_CGROUP` of linux/sched.h.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of linux/sched.h, as of its third version.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Has exec close every descriptor above standard error, whoever opened it.
pub fn close_others_on_exec() -> io::Result<()> {
    let first = libc::STDERR_FILENO + 1;
    // SAFETY: no memory is involved, and nothing is closed now.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    checked(result).map(drop)
}

/// Bytes of the stack of a process made by [`fork_sharing_memory`], without its guard page.
const STACK_BYTES: usize = 256 << 10;
const PAGE_BYTES: usize = 4096;

/// Runs `work` in a new process that shares this one's memory, on a stack of its own, while the
/// calling thread waits: until the new process has executed a program or has ended. What `work`
/// returns is the new process's exit status. An error, and no new process, if there are more threads:
/// one of them could change the memory under both.
///
/// Descriptors, credentials, limits and filters are the new process's own, so an object that was
/// made before and closes a descriptor when it is dropped has to be borrowed by `work`, not moved
/// into it: what `work` drops, this process no longer has in memory but still has open.
pub fn fork_sharing_memory(work: &mut dyn FnMut() -> u8) -> io::Result<Pid> {
    if !is_single_threaded()? {
        return Err(io::Error::other("the process has more than one thread"));
    }
    // SAFETY: the process has one thread.
    unsafe { clone_sharing_memory(work) }
}

/// [`fork_sharing_memory`] without the check.
///
/// # Safety
/// No other thread uses what `work` uses, until this returns.
unsafe fn clone_sharing_memory(mut work: &mut dyn FnMut() -> u8) -> io::Result<Pid> {
    let stack = Stack::new()?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let argument = std::ptr::from_mut(&mut work).cast();
    // SAFETY: the stack is mapped, aligned and used by nobody else; the argument lives until the call
    // returns, which is after the new process stopped using this memory. Meanwhile the calling thread
    // waits in the kernel, and no other uses the same, so nothing is reached from two sides.
    let pid = unsafe { libc::clone(run_work, stack.top(), flags, argument) };
    let pid = i32::try_from(checked(pid)?).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("clone returned no process id"))
}

/// The first function of the new process.
extern "C" fn run_work(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `fork_sharing_memory` passes a pointer to this very type, valid and not used by it
    // until this process is done.
    let work = unsafe { &mut *argument.cast::<&mut dyn FnMut() -> u8>() };
    libc::c_int::from(work())
}

/// A stack for another process, with a page below it that cannot be touched.
struct Stack(*mut libc::c_void);

impl Stack {
    fn new() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory in use.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), PAGE_BYTES + STACK_BYTES, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self(base);
        // SAFETY: the page is the first of the mapping made above, which nothing uses yet.
        checked(unsafe { libc::mprotect(base, PAGE_BYTES, libc::PROT_NONE) })?;
        Ok(stack)
    }

    /// The address above the stack, which grows down; a page's end is aligned enough.
    fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(PAGE_BYTES + STACK_BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's own, of this length, and nothing runs on it any more.
        if unsafe { libc::munmap(self.0, PAGE_BYTES + STACK_BYTES) } != 0 {
            // It stays mapped, which costs address space and nothing else.
        }
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

/// Gives memory that the allocator holds and does not use back to the kernel, for a process that will
/// wait for long.
pub fn give_back_memory() {
    // SAFETY: the call concerns memory that nothing refers to; whether there was any is its result.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitOptions, waitpid};

    #[test]
    fn a_process_that_shares_memory_is_waited_for_and_seen() {
        let mut seen = 0;
        let own = rustix::process::getpid();
        let mut work = || {
            seen = rustix::process::getpid().as_raw_nonzero().get();
            3
        };
        // SAFETY: the harness's other thread waits for this one, and uses nothing of it.
        let child = unsafe { clone_sharing_memory(&mut work) }.unwrap();
        // Written by the child before the call returned.
        assert_eq!(seen, child.as_raw_nonzero().get());
        assert_ne!(child, own);
        let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(3));
    }

    #[test]
    fn a_process_with_two_threads_does_not_fork() {
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let second = std::thread::spawn(move || end.recv().is_err());
        assert!(!is_single_threaded().unwrap());
        let mut ran = false;
        let forked = fork_sharing_memory(&mut || {
            ran = true;
            0
        });
        assert!(forked.unwrap_err().to_string().contains("more than one thread"));
        assert!(!ran && fork().is_err());
        drop(ended);
        assert!(second.join().unwrap());
    }
}
