//! Signals as a descriptor, for a program that waits for other things too: `signalfd(2)`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Signal;

use crate::checked;

/// Every signal that is pending for this process and blocked. Readable while there is one.
#[derive(Debug)]
pub struct Pending(OwnedFd);

impl Pending {
    /// The signals are blocked before: see [`crate::signal::block_all`].
    pub fn open() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the pointer is valid for writing one set.
        checked(unsafe { libc::sigfillset(set.as_mut_ptr()) })?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: sigfillset initialised the set; -1 asks for a new descriptor.
        let number = checked(unsafe { libc::signalfd(-1, set.as_ptr(), flags) })?;
        let number = RawFd::try_from(number).map_err(io::Error::other)?;
        // SAFETY: the kernel just made the descriptor, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Takes the next one; `None` if there is none.
    pub fn take(&self) -> io::Result<Option<Signal>> {
        let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
        let length = match rustix::io::read(&self.0, &mut bytes) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            length => length?,
        };
        // signalfd(2): the structure begins with the signal's number, 32 bits.
        let number =
            bytes.first_chunk().filter(|_| length == bytes.len()).map(|first| u32::from_ne_bytes(*first));
        let number = number.and_then(|number| i32::try_from(number).ok());
        match number.and_then(Signal::from_named_raw) {
            Some(signal) => Ok(Some(signal)),
            // A real-time signal: nobody here has a use for one.
            None => Ok(None),
        }
    }
}

impl AsFd for Pending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_pending_until_something_is() {
        let pending = Pending::open().unwrap();
        assert_eq!(pending.take().unwrap(), None);
        // Blocked and sent to this thread alone, so that no other takes it.
        crate::signal::block_all().unwrap();
        // SAFETY: no memory is involved; the signal is blocked, so nothing ends.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(pending.take().unwrap(), Some(Signal::USR1));
        assert_eq!(pending.take().unwrap(), None);
    }
}
