//! Giving up capabilities for good: bounding, ambient, inheritable, permitted and effective sets,
//! and the secure bits that keep uid 0 from meaning anything.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

/// Locks the secure bits and empties the bounding and ambient sets of the calling thread: no
/// program that it or its children execute gains a capability. What the thread has, it keeps, and
/// so do its children until they call [`drop_held`].
///
/// The caller holds `CAP_SETPCAP` in its user namespace, as the creator of a namespace does; the
/// call fails otherwise, since the bounding set would stay full.
pub fn drop_inheritable() -> io::Result<()> {
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    clear_ambient_capability_set()?;
    empty_bounding_set()
}

/// Empties the effective, permitted and inheritable sets of the calling thread.
pub fn drop_held() -> io::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

/// Removes every capability that the kernel knows: it answers `EINVAL` for the first it does not.
fn empty_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) if number > 0 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
