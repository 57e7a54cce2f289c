//! Giving up capabilities for good: bounding, ambient, inheritable, permitted and effective sets,
//! and the secure bits that keep uid 0 from meaning anything.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set,
    capability_is_in_bounding_set, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_capabilities_secure_bits,
};

/// The capability sets of a thread, a bit for each capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// What survives exec of a program that has it in its own inheritable set.
    pub inheritable: u64,
    /// What the thread may take.
    pub permitted: u64,
    /// What the thread has.
    pub effective: u64,
    /// What a program can gain.
    pub bounding: u64,
    /// What survives exec of any program.
    pub ambient: u64,
}

/// The sets of the calling thread, as the kernel says.
pub fn held() -> io::Result<Sets> {
    let sets = capabilities(None)?;
    Ok(Sets {
        inheritable: sets.inheritable.bits(),
        permitted: sets.permitted.bits(),
        effective: sets.effective.bits(),
        bounding: collect(capability_is_in_bounding_set)?,
        ambient: collect(capability_is_in_ambient_set)?,
    })
}

/// The capabilities of which `is_in` holds: the kernel answers `EINVAL` for the first it does not know.
fn collect(is_in: impl Fn(CapabilitySet) -> rustix::io::Result<bool>) -> io::Result<u64> {
    let mut set = 0;
    for number in 0..u64::BITS {
        match is_in(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(true) => set |= 1 << number,
            Ok(false) => {}
            Err(Errno::INVAL) if number > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(set)
}

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
pub fn empty_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) if number > 0 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
