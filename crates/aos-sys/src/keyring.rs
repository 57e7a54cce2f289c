//! Kernel keyrings: leaving the inherited session keyring.

use std::io;

use crate::checked;

/// `KEYCTL_JOIN_SESSION_KEYRING` of linux/keyctl.h.
const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Replaces the session keyring by a new, empty, anonymous one, so that keys of the caller's
/// session are not possessed any longer. Success too where there is nothing to leave, since the kernel
/// has no keyrings, and where a container's filter refuses the call: it then refuses every use of a
/// keyring to all that this process starts.
pub fn leave_session() -> io::Result<()> {
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: the operation takes a name or null; null asks for an anonymous keyring and no memory
    // of ours is read or written.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) };
    match checked(result) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        Err(error) => Err(error),
    }
}
