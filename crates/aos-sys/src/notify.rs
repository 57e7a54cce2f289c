//! User notification of seccomp (seccomp_unotify(2)): a filter whose chosen calls wait for a listener
//! in another process.
//!
//! The only answer offered here is "continue": the call goes on to the kernel, which decides it by
//! everything else that is in force. A filter that answers with an error or kills comes before a
//! notification (seccomp(2)), so a listener can neither allow nor change what another filter refuses.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::checked;
use crate::seccomp::Instruction;

/// The value with which a filter asks the listener (`SECCOMP_RET_USER_NOTIF` of linux/seccomp.h).
pub const ASK: u32 = 0x7fc0_0000;
/// The value with which a filter lets a call pass (`SECCOMP_RET_ALLOW`).
pub const PASS: u32 = 0x7fff_0000;

// linux/seccomp.h. The size of the structures is in the numbers of the first two.
const IOCTL_RECV: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const IOCTL_SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
const IOCTL_ID_VALID: libc::Ioctl = 0x4008_2102;
const FLAG_CONTINUE: u32 = 1;

/// One call that waits: `struct seccomp_notif` of linux/seccomp.h with its `struct seccomp_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// What the answer refers to.
    pub id: u64,
    /// The thread that waits, as a number of the listener's pid namespace; 0 when it has none there.
    pub thread: u32,
    flags: u32,
    /// The number of the call.
    pub number: i32,
    architecture: u32,
    instruction_pointer: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif_resp` of linux/seccomp.h.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_sizes` of linux/seccomp.h.
#[repr(C)]
#[derive(Default)]
struct Sizes {
    notification: u16,
    answer: u16,
    data: u16,
}

/// `struct sock_fprog` of linux/filter.h.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Adds a filter to the calling thread, for good, and returns its listener, which exec closes. A call
/// that waits and was heard is ended by a fatal signal only, so that a program whose signals come
/// often makes progress (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`). When the listener is closed, calls
/// that the filter asks about fail with `ENOSYS`.
pub fn install(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    check_sizes()?;
    let length = u16::try_from(instructions.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the filter has over 65535 instructions"))?;
    let program = Program { length, instructions: instructions.as_ptr() };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the kernel copies `length` instructions, which are valid for reading, during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    };
    let number = RawFd::try_from(checked(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel made the descriptor for this call, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The kernel's structures have the sizes of those here; another kernel's would be read wrongly.
fn check_sizes() -> io::Result<()> {
    let mut sizes = Sizes::default();
    // SAFETY: the kernel writes one `seccomp_notif_sizes`, which is exclusively borrowed.
    checked(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, std::ptr::from_mut(&mut sizes))
    })?;
    let found = (usize::from(sizes.notification), usize::from(sizes.answer), usize::from(sizes.data));
    if found == (size_of::<Notification>(), size_of::<Answer>(), 64) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's notifications have another form"))
    }
}

/// Takes the next call that waits; `None` when the one that was announced is gone. After poll(2) has
/// said that there is one, this does not wait.
pub fn receive(listener: impl AsFd) -> io::Result<Option<Notification>> {
    let mut notification = Notification::default();
    // SAFETY: the structure is zero, as the kernel demands, has the size that the number of the
    // operation says, and is exclusively borrowed.
    let result = checked(unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), IOCTL_RECV, std::ptr::from_mut(&mut notification))
    });
    match result {
        Ok(_) => Ok(Some(notification)),
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the call still waits: what was read of its process before belongs to that process, and to
/// none that got its number later.
pub fn is_waiting(listener: impl AsFd, id: u64) -> io::Result<bool> {
    // SAFETY: the kernel reads one number, which is borrowed for the call.
    let result = checked(unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), IOCTL_ID_VALID, std::ptr::from_ref(&id))
    });
    match result {
        Ok(_) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets the call go on, as if nobody had been asked. That it does not wait any longer is no error.
pub fn let_go_on(listener: impl AsFd, id: u64) -> io::Result<()> {
    let answer = Answer { id, value: 0, error: 0, flags: FLAG_CONTINUE };
    // SAFETY: the kernel reads one `seccomp_notif_resp`, which is borrowed for the call.
    let result = checked(unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), IOCTL_SEND, std::ptr::from_ref(&answer))
    });
    match result {
        Ok(_) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_the_kernels() {
        check_sizes().unwrap();
        assert_eq!((size_of::<Notification>(), size_of::<Answer>()), (80, 24));
        assert_eq!((IOCTL_RECV >> 16 & 0x3fff, IOCTL_SEND >> 16 & 0x3fff), (80, 24));
    }
}
